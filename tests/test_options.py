"""Options take only their values, and a missing file is a sentence that says what there is."""

import os

import numpy as np
import pytest
from mmsa_files import SIMS, parts, write

from msa_lib.data import check, load_dataset, pack, readers


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    write(folder / "MOSI/Processed/aligned_50.pkl", parts(0))
    write(folder / "MOSI/Processed/unaligned_50.pkl", parts(0, audio=(20, 5), vision=(14, 4), lengths=True))
    write(folder / "SIMS/Processed/unaligned_39.pkl", parts(2, **SIMS))
    return folder


def test_aligned_takes_yes_or_no(root):
    assert load_dataset("mosi", root).train.audio.shape[1] == 6
    assert load_dataset("mosi?aligned=yes", root).train.audio.shape[1] == 6
    unaligned = load_dataset("mosi?aligned=no", root)
    assert unaligned.train.audio.shape[1] == 20
    assert "mosi is read from MOSI/Processed/unaligned_50.pkl." in unaligned.notes
    assert load_dataset("sims?aligned=no", root).fingerprint == load_dataset("sims", root).fingerprint
    for value in ("false", "true", "0", "1", "No", "YES", "", "maybe"):
        for name in ("mosi", "sims"):
            with pytest.raises(ValueError, match=rf"option aligned='{value}' of {name}: expected yes or no"):
                load_dataset(f"{name}?aligned={value}", root)
            with pytest.raises(ValueError, match="expected yes or no"):
                check.describe(f"{name}?aligned={value}", root)


MISSING = {
    "sims?aligned=yes": "No aligned sims under ROOT: the field has only SIMS/Processed/unaligned_39.pkl; there is "
    "SIMS/Processed/unaligned_39.pkl, not aligned.",
    "mosei": "No mosei under ROOT: expected MOSEI/Processed/aligned_50.pkl or MOSEI/Processed/unaligned_50.pkl; "
    "ROOT holds MOSI/, SIMS/.",
    "mosei?aligned=yes": "No aligned mosei under ROOT: expected MOSEI/Processed/aligned_50.pkl; "
    "ROOT holds MOSI/, SIMS/.",
}


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_set_says_what_there_is(root, name):
    for call in (load_dataset, check.describe):
        with pytest.raises(FileNotFoundError) as refusal:
            call(name, root)
        assert str(refusal.value) == MISSING[name].replace("ROOT", str(root))


def test_folders_and_names_that_hold_nothing(root, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load_dataset("mosi", tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"is a folder of data sets \(mosi, sims\), not one"):
        load_dataset(str(root))
    with pytest.raises(
        FileNotFoundError, match=r"no packed data set \(no meta\.json\) and holds none of MOSI/Proc.*nothing"
    ):
        load_dataset(str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"No data set 'MOSI'.*did you mean mosi\?"):
        load_dataset("MOSI")
    with pytest.raises(FileNotFoundError, match=r"did you mean .*/MOSI\?"):
        load_dataset(str(root / "MOSl"))


WRONG = {
    "mosi?aligned": "expected NAME=VALUE",
    "mosi?aligned=yes&aligned=no": "option aligned of mosi is given twice",
    "mosi?label=0&label=1": "option label of mosi is given twice",
    "mosi?bogus=1": "takes the options split, valid, .*; found bogus",
    "mosi?valid=0.2": "has its own valid part and takes no option valid",
    "mosi?valid_from=test": "has its own valid part and takes no option valid_from",
    "mosi?split=part": "takes no option split",
    "mosi?label=2": "one label per sample and takes no option label",
    "mosi?standardise=true": "standardise='true' of mosi: expected yes or no",
    "mosi?audio=nothing": "no key 'nothing' for audio",
    "mosi?train_part=mix": "train_part='mix' is none of train, valid, test",
    "planted?aligned=false": "aligned='false' is not understood: expected yes or no",
    "planted?seed=1&seed=2": "option seed of planted is given twice",
    "planted?standardise=1": "standardise='1' of planted: expected yes or no",
    "planted?bogus=1": "no option 'bogus': expected one of seed, train",
    "planted?train=0": "expected at least 1 sample",
    "planted?cue=Hidden": "expected visible or hidden",
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_options_are_refused_in_one_sentence(root, name):
    with pytest.raises(ValueError, match=WRONG[name]) as refusal:
        load_dataset(name, root if name.startswith("mosi") else None)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("value", ["0", "1", "-0.1", "nan", "inf", "30%", ""])
def test_the_share_of_validation_is_a_share(tmp_path, value):
    content = parts()
    del content["valid"]
    with pytest.raises(ValueError, match="expected a share between 0 and 1"):
        readers.read(write(tmp_path / "x.pkl", content), {"valid": value})


def test_a_packed_set_is_only_taken_for_the_alignment_it_has(root, tmp_path):
    pack.pack(load_dataset("mosi", root), tmp_path / "mosi.packed")
    assert "mosi is read from mosi.packed." in load_dataset("mosi", tmp_path).notes
    assert load_dataset("mosi?aligned=yes", tmp_path).fingerprint == load_dataset("mosi", root).fingerprint
    with pytest.raises(FileNotFoundError, match=r"No unaligned mosi .*; there is mosi\.packed, not unaligned"):
        load_dataset("mosi?aligned=no", tmp_path)
    write(tmp_path / "MOSI/Processed/unaligned_50.pkl", parts(0, audio=(20, 5), vision=(14, 4), lengths=True))
    assert load_dataset("mosi?aligned=no", tmp_path).train.audio.shape[1] == 20
    with pytest.raises(ValueError, match="takes no options; found split"):
        load_dataset("mosi?split=x", tmp_path)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_errors_of_the_system_are_one_sentence(tmp_path, monkeypatch, error):
    path = write(tmp_path / "x.pkl", parts())

    def fails(*_, **__):
        raise error

    monkeypatch.setattr(type(path), "open", fails)
    for call in (load_dataset, check.describe):
        with pytest.raises(ValueError, match=rf"x\.pkl cannot be read: {error.strerror}\.$"):
            call(str(path))


def test_a_name_too_long_is_one_sentence():
    with pytest.raises(ValueError, match="cannot be read: File name too long"):
        load_dataset("x" * (os.pathconf("/", "PC_NAME_MAX") + 1))


# --------------------------------------------------------------------------------------------------- labels and values


def labelled(tmp_path, function, name="x.pkl", **more):
    content = parts(4, {"train": 20, "valid": 9, "test": 12}, **more)
    for part in content.values():
        part["regression_labels"] = function(part["regression_labels"])
    return write(tmp_path / name, content)


CLASSES = {
    "three": lambda y: np.sign(y) + 1,
    "two": lambda y: (y > 0) * 1,
    "signs": np.sign,
    "seven": lambda y: np.rint(y) + 3,
}


@pytest.mark.parametrize("kind", CLASSES)
def test_classes_are_said_loudly(tmp_path, kind):
    path = labelled(tmp_path, CLASSES[kind])
    assert any("THE LABELS LOOK LIKE CLASSES: only " in note for note in load_dataset(str(path)).notes)
    assert any("THE LABELS LOOK LIKE CLASSES" in p for p in check.describe(path)["problems"])


@pytest.mark.parametrize("kind", [lambda y: y, np.rint, lambda y: np.round(y / 3, 1)])
def test_sentiment_is_no_class(tmp_path, kind):
    path = labelled(tmp_path, kind)
    assert not any("CLASSES" in text for text in (*load_dataset(str(path)).notes, *check.describe(path)["problems"]))


@pytest.mark.parametrize("shape", ["n17", "n71", "n7"])
def test_labels_of_several_columns(tmp_path, shape):
    def columns(y):
        seven = np.stack([y, *[abs(y) / k for k in range(1, 7)]], 1)
        return {"n7": seven, "n17": seven[:, None], "n71": seven[..., None]}[shape]

    path = labelled(tmp_path, columns)
    with pytest.raises(ValueError, match="train has 7 labels per sample: choose one with label=K, K from 0 to 6"):
        load_dataset(str(path))
    with pytest.raises(ValueError, match="K from 0 to 6; found label='7'"):
        load_dataset(f"{path}?label=7")
    plain = load_dataset(str(labelled(tmp_path, lambda y: y, "y.pkl")))
    assert load_dataset(f"{path}?label=0").fingerprint == plain.fingerprint
    one = labelled(tmp_path, lambda y: y[:, None, None], "z.pkl")
    assert load_dataset(str(one)).fingerprint == plain.fingerprint


@pytest.mark.parametrize("value", [1e9, 1e20, -3e38, 1e39, 1e300])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_values_are_read_as_0_and_said(tmp_path, value, dtype):
    content = parts(4)
    with np.errstate(over="ignore"):
        content["train"]["audio"] = content["train"]["audio"].astype(dtype)
        content["train"]["audio"].reshape(-1)[::50] = value
    stored = content["train"]["audio"].reshape(-1)[0]
    path = write(tmp_path / "x.pkl", content)
    dataset = load_dataset(str(path))
    assert dataset.train.audio.reshape(-1)[::50].tolist() == [0.0] * 5
    words = "5 of 420 values are beyond 1e+08" if np.isfinite(stored) else "5 of 420 values (1.19%) are not finite"
    assert any(note.startswith(f"audio: {words}") for note in dataset.notes), dataset.notes
    problems = check.describe(path)["problems"]
    huge = any("train: audio holds 5 of 210 values beyond 1e+08 in size" in p for p in problems)
    assert huge == bool(np.isfinite(stored))
    content["train"]["audio"].reshape(-1)[::50] = 9e7  # within the bound: left as it is
    assert load_dataset(str(write(tmp_path / "y.pkl", content))).train.audio.max() == 9e7


@pytest.mark.parametrize("value", [1e9, 1e39, -1e300, np.inf, np.nan])
def test_labels_that_cannot_be_trained_on_are_refused(tmp_path, value):
    def spoilt(y):
        y = y.copy()
        y[0] = value
        return y

    path = labelled(tmp_path, spoilt)
    with pytest.raises(ValueError, match=r"x\.pkl: train: 1 labels are not usable; expected numbers of at most 1e\+08"):
        load_dataset(str(path))
    assert any("1 labels are " in p for p in check.describe(path)["problems"])


@pytest.mark.parametrize("empty", [["valid"], ["test"], ["train"], ["valid", "test"]], ids="+".join)
def test_empty_parts_are_named(tmp_path, empty):
    content = {s: {k: v[:0] for k, v in p.items()} if s in empty else p for s, p in parts().items()}
    path = write(tmp_path / "x.pkl", content)
    with pytest.raises(ValueError, match=rf"x\.pkl: {empty[0]} is a part without samples; expected at least one"):
        load_dataset(str(path))
    assert len(check.describe(path)["problems"]) == 1


def test_unimodal_labels_that_nobody_filled_in(tmp_path):
    content = parts(2, **SIMS)
    for part in content.values():
        for letter in "TAV":
            part[f"regression_labels_{letter}"] = np.full(len(part["id"]), np.nan)
    assert load_dataset(str(write(tmp_path / "x.pkl", content))).train.unimodal_labels is None
    content["train"]["regression_labels_A"][0] = 0.5
    with pytest.raises(ValueError, match="unimodal_labels are not usable"):
        load_dataset(str(write(tmp_path / "y.pkl", content)))
