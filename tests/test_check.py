"""The check of data files: every planted fault is found, and a sound file has none."""

import json

import numpy as np
import pytest
from mmsa_files import SIMS, parts, write

from msa_lib.data import check, load_dataset, pack

SOUND = {**SIMS, "text": (9, 8)}


def problems(tmp_path, content):
    report = check.describe(write(tmp_path / "x.pkl", content))
    json.dumps(report)
    assert all(problem in check.render(report) for problem in report["problems"])
    return report["problems"]


def test_a_sound_file_has_no_problems(tmp_path):
    content = parts(**SOUND)
    report = check.describe(write(tmp_path / "x.pkl", content))
    assert report["problems"] == []
    assert report["standard"] is None
    assert len(report["sha256"]) == 64
    train = report["splits"]["train"]
    assert train["samples"] == 7
    assert train["videos"] == 4
    assert train["features"]["audio"]["shape"] == [7, 20, 3]
    assert train["features"]["audio"]["length"]["max"] == max(content["train"]["audio_lengths"])
    labels = content["train"]["regression_labels"]
    assert train["labels"]["max"] == labels.max() == 1
    assert sum(train["labels"]["histogram"].values()) == 7
    assert train["labels"]["histogram"]["1"] == (labels > 0.9).sum()
    assert "no problems found" in check.render(report)


def set_at(split, key, index, value):
    return lambda c: c[split][key].__setitem__(index, value)


def copy_sample(c):
    for m in ("text", "audio", "vision"):
        c["test"][m][1] = c["train"][m][2]


def repeat_sample(c):
    for m in ("text", "audio", "vision"):
        c["valid"][m][1] = c["valid"][m][0]


FAULTS = {
    "train: audio holds 1 NaN, 1 -inf among 420 values": lambda c: c["train"]["audio"][0, 0].__setitem__(
        slice(0, 2), [np.nan, -np.inf]
    ),
    "test: vision holds 1 +inf among": set_at("test", "vision", (0, 0, 0), np.inf),
    "train: text has 2 of 8 columns that never change (first: 1, 3)": set_at(
        "train", "text", (..., slice(1, 4, 2)), 7.0
    ),
    "valid: audio is all zeros in 1 of 3 samples": set_at("valid", "audio", 1, 0.0),
    "train: audio has lengths above its 20 steps in 1 of 7": set_at("train", "audio_lengths", 0, 21),
    "train: vision has lengths of 0 in 2 of 7": lambda c: c["train"]["vision_lengths"].__setitem__(slice(2), [0, 0]),
    "test: audio has negative lengths in 1 of 4": set_at("test", "audio_lengths", 0, -1),
    "train: audio has steps after the length that are not zero in 1 of 7": lambda c: c["train"][
        "audio_lengths"
    ].__setitem__(3, c["train"]["audio_lengths"][3] - 1),
    "train: 2 labels are not finite": set_at("train", "regression_labels", slice(1, 3), np.nan),
    "test: 1 labels lie outside [-3, 3]": set_at("test", "regression_labels", 2, 4.0),
    "valid: all labels are 1": set_at("valid", "regression_labels", slice(None), 1.0),
    "train: 1 ids occur more than once (first: trainvid_0$_$0)": set_at("train", "id", 1, "trainvid_0$_$0"),
    "train and test share 1 clips (first: trainvid_0$_$0)": set_at("test", "id", 0, "trainvid_0$_$0"),
    "train and valid share 1 videos (first: trainvid_1)": set_at("valid", "id", 0, "trainvid_1$_$99"),
    "train and test hold 1 samples with the same features (first: trainvid_1$_$2 and testvid_0$_$1)": copy_sample,
    "valid: 1 samples have the same features as another": repeat_sample,
    "test: 1 transcripts are empty": set_at("test", "raw_text", 1, " "),
    "test: the attention mask of 1 samples": set_at("test", "text_bert", (0, 1, 0), 0),
    "audio has 3 features in train, 3 features in valid, 2 features in test": lambda c: c["test"].update(
        audio=c["test"]["audio"][..., :2]
    ),
    "x.pkl: test: 1 audio_lengths are not usable": lambda c: c["test"].update(audio_lengths=[np.nan, 1, 2, 3]),
    "x.pkl: train: 7 vision_lengths are not usable": lambda c: c["train"].update(vision_lengths=[2.5] * 7),
    "x.pkl: test: text_bert holds values that are no token ids": set_at("test", "text_bert", (0, 1, 0), np.nan),
    "x.pkl: train: 1 unimodal_labels are not usable": set_at("train", "regression_labels_T", 0, np.nan),
    "test: 4 labels are beyond 1e+08": lambda c: c["test"].update(regression_labels=[1e300] * 4),
    "test: audio holds 1 of 240 values beyond 1e+08": set_at("test", "audio", (0, 0, 0), 1e300),
    "vision is missing from test": lambda c: c["test"].pop("vision"),
    "x.pkl: test has no regression_labels": lambda c: c["test"].pop("regression_labels"),
    "x.pkl asks for builtins.print": lambda c: c["test"].update(extra=print),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_found(tmp_path, fault):
    content = parts(**SOUND)
    FAULTS[fault](content)
    found = problems(tmp_path, content)
    assert any(problem.startswith(fault) for problem in found), found


@pytest.mark.parametrize("dtype", [bool, np.int64, np.float16])
def test_any_plain_numbers_can_be_checked(tmp_path, dtype):
    content = parts(**SOUND)
    content["test"]["audio"] = content["test"]["audio"].astype(dtype)
    content["test"]["regression_labels"] = content["test"]["regression_labels"].astype(dtype)
    report = check.describe(write(tmp_path / "x.pkl", content))
    assert report["splits"]["test"]["features"]["audio"]["dtype"] == np.dtype(dtype).name
    assert report["fingerprint"]


def test_the_check_says_what_the_reader_will_do(tmp_path):
    content = parts(**SOUND)
    content["train"]["audio"][0, 0, 0] = np.nan
    path = write(tmp_path / "x.pkl", content)
    report, dataset = check.describe(path), load_dataset(str(path))
    assert set(dataset.notes) <= {*report["notes"], *report["problems"]}
    assert report["fingerprint"] == dataset.fingerprint


def test_standard_sets_have_known_sizes_and_checksums(tmp_path):
    path = write(tmp_path / "SIMS/Processed/unaligned_39.pkl", parts(**SIMS))
    for report in (check.describe(path), check.describe("sims", tmp_path)):
        text = " ".join(report["problems"])
        assert "The splits hold 7/3/4 samples; sims has 1368/456/457." in text
        assert "SIMS/Processed/unaligned_39.pkl is not the published file" in text


def test_a_published_file_is_recognised_by_its_checksum(tmp_path, monkeypatch):
    path = write(tmp_path / "renamed.pkl", parts(**SIMS))
    digest = check.describe(path)["sha256"]
    monkeypatch.setitem(check.PUBLISHED, "SIMS/Processed/unaligned_39.pkl", digest)
    report = check.describe(path)
    assert report["standard"] == "SIMS/Processed/unaligned_39.pkl"
    assert "(SIMS/Processed/unaligned_39.pkl)" in check.render(report)
    assert report["problems"] == ["The splits hold 7/3/4 samples; sims has 1368/456/457."]


def test_archives_packed_folders_and_planted_names(tmp_path):
    planted = check.describe("planted?train=40&valid=10&test=20")
    assert (planted["kind"], planted["problems"]) == ("planted", [])
    assert "ynthetic" in check.render(planted)
    folder = pack.pack(load_dataset("planted?train=40&valid=10&test=20"), tmp_path / "p.packed")
    packed = check.describe(folder)
    assert (packed["kind"], packed["problems"]) == ("packed", [])
    assert packed["splits"] == planted["splits"]
    x = np.random.default_rng(0).normal(size=(20, 3))
    x[0, 0] = np.nan
    np.savez(tmp_path / "x.npz", audio=x, labels=np.linspace(-3, 3, 20), split=np.array(["train", "test"] * 10))
    report = check.describe(tmp_path / "x.npz")
    assert report["missing"] == ["text", "vision"]
    assert any("audio holds 1 NaN" in p for p in report["problems"])
    with pytest.raises(FileNotFoundError, match="No data set"):
        check.describe(tmp_path / "none.pkl")
