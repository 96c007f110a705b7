"""From ids to videos: the form is read off all ids together, a cut never shares a video, doubt is said."""

import numpy as np
import pytest
from mmsa_files import parts, write

from msa_lib.data import check, load_dataset, readers, videos

FORMS = {  # form -> (id of clip k of video v, how it is read)
    "mmsa": (lambda v, k: f"V_{v}$_${k}", "video$_$clip"),
    "sdk": (lambda v, k: f"a_V{v}[{k}]", "video[clip]"),
    "round brackets": (lambda v, k: f"V{v} ({k})", "video[clip]"),
    "times": (lambda v, k: f"V{v}_{10 * k}_{10 * k + 7}", "video_start_end"),
    "seconds": (lambda v, k: f"a_V{v}_{k}.5_{k + 2}.25", "video_start_end"),
    "seconds with s": (lambda v, k: f"V{v}_{k}.5s_{k + 2}.25s", "video_start_end"),
    "clock": (lambda v, k: f"V{v}-00:{k:02d}-00:{k + 3:02d}", "video_start_end"),
    "start and duration": (lambda v, k: f"V{v}_{100 + 10 * k}_{7}", "video_start_end"),
    "numbered, timed": (lambda v, k: f"V{v}_{k}_{10 * k}.5_{10 * k + 7}.25", "video_clip_start_end"),
    "plain": (lambda v, k: f"V{v}_{k}", "video_clip"),
    "underscores": (lambda v, k: f"_d-I_{'abcdefgh'[v]}_{k}", "video_clip"),
    "numbered videos": (lambda v, k: f"video_{v:04d}_{k:04d}", "video_clip"),
    "hyphen": (lambda v, k: f"V{v}-{k}", "video_clip"),
    "folder": (lambda v, k: f"clips/V{v}/{k:04d}.mp4", "video_clip"),
    "word": (lambda v, k: f"V{v}_clip{k}", "video_clip"),
    "letters": (lambda v, k: f"V{v}_{'abcdefghijkl'[k]}", "video_clip"),
    "reversed": (lambda v, k: f"{k:03d}_V{v}x", "clip_video"),
}


def ids_of(form, n, first_video=0, first_clip=0, n_videos=4):
    make = FORMS[form][0]
    return [make(i % n_videos + first_video, i // n_videos + first_clip) for i in range(n)]


@pytest.mark.parametrize("form", FORMS)
def test_clips_of_a_video_are_known_by_every_form(form):
    ids = ids_of(form, 40)
    reading = videos.reading_of(ids)
    assert reading.form == FORMS[form][1]
    found = [reading.video(i) for i in ids]
    assert len(set(found)) == 4
    assert all(found[i] == found[i + 4] for i in range(36))


@pytest.mark.parametrize("form", FORMS)
def test_a_cut_by_video_shares_none(tmp_path, form):
    content = parts(sizes={"train": 24, "test": 8})
    content["train"]["id"] = ids_of(form, 24)
    content["test"]["id"] = ids_of(form, 8, first_video=4)
    dataset = readers.read(write(tmp_path / "x.pkl", content))
    place = {clip: i % 4 for i, clip in enumerate(content["train"]["id"])}
    train, valid = ({place[clip] for clip in split.ids} for split in (dataset.train, dataset.valid))
    assert min(len(train), len(valid)) > 0
    assert not train & valid
    assert any(f"known by: {FORMS[form][1]}" in note for note in dataset.notes)


@pytest.mark.parametrize("form", FORMS)
def test_the_check_sees_shared_videos(tmp_path, form):
    content = parts(sizes={"train": 16, "valid": 8, "test": 8})
    for i, part in enumerate(content.values()):
        part["id"] = ids_of(form, len(part["id"]), first_clip=4 * i)
    problems = check.describe(write(tmp_path / "x.pkl", content))["problems"]
    for a, b in (("train", "valid"), ("train", "test"), ("valid", "test")):
        assert any(p.startswith(f"{a} and {b} share 4 videos") for p in problems), problems


def test_tuples_and_columns_name_the_video(tmp_path):
    content = parts(sizes={"train": 16, "test": 8})
    for part in content.values():
        n = len(part["id"])
        part["id"] = [(f"V_{i % 4}", 10.0 * i, 10.0 * i + 5) for i in range(n)]
    dataset = readers.read(write(tmp_path / "x.pkl", content))
    assert not {i.split("$_$")[0] for i in dataset.train.ids} & {i.split("$_$")[0] for i in dataset.valid.ids}
    for part in content.values():
        part["id"] = [f"clip{i:03d}" for i in range(len(part["id"]))]
        part["video_id"] = [f"V{i % 4}" for i in range(len(part["id"]))]
    dataset = readers.read(write(tmp_path / "y.pkl", content))
    video = dict(zip(content["train"]["id"], content["train"]["video_id"], strict=True))
    assert not {video[i] for i in dataset.train.ids} & {video[i] for i in dataset.valid.ids}


def test_a_cut_that_cannot_be_trusted_says_so(tmp_path):
    content = parts(sizes={"train": 16, "test": 8})
    for s, part in content.items():
        part["id"] = [f"{s}{'abcdefghijklmnopq'[i]}" for i in range(len(part["id"]))]
    dataset = readers.read(write(tmp_path / "x.pkl", content))
    assert any("every sample counts as a video of its own" in note for note in dataset.notes)
    for part in content.values():
        del part["id"]
    dataset = readers.read(write(tmp_path / "y.pkl", content))
    assert any("there are no ids" in note for note in dataset.notes)


def test_numbered_samples_are_not_one_video_to_be_cut(tmp_path):
    content = parts(sizes={"train": 16, "test": 8})
    for part in content.values():
        part["id"] = [f"sample_{i}" for i in range(len(part["id"]))]
    with pytest.raises(ValueError, match=r"all of one video \(sample\).*expected a valid part, or ids"):
        readers.read(write(tmp_path / "x.pkl", content))


def test_ids_of_several_forms_are_said():
    reading = videos.reading_of(["V1$_$0", "V1$_$1", "V2_3"])
    assert "only 2 of 3" in reading.doubt
    named = {"train": np.array(["a", "a"]), "test": np.array(["b"])}
    assert videos.doubts(named, reading) == [f"{reading.doubt}: they are read as video$_$clip."]
    two = [f"V{v}_{start}_{start + 5}" for v in range(3) for start in (0, 0, 10, 20)]  # one start twice
    assert videos.reading_of(two).form == "video_start_end"
    assert "may also be" in videos.reading_of(two).doubt


def test_loading_says_which_parts_share_videos(tmp_path):
    content = parts()
    for part in content.values():
        part["id"] = [f"v{i % 2}[{i}]" for i in range(len(part["id"]))]
    notes = load_dataset(str(write(tmp_path / "x.pkl", content))).notes
    assert "train and test share 2 videos (first: v0)." in notes
    apart = {s: {**p, "id": [f"{s}{i % 2}[{i}]" for i in range(len(p["id"]))]} for s, p in content.items()}
    assert not any("share" in note for note in load_dataset(str(write(tmp_path / "y.pkl", apart))).notes)
