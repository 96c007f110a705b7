"""Parts and arrays under other names: read where there is no doubt, refused by name otherwise, never guessed."""

import numpy as np
import pytest
from mmsa_files import parts, write

from msa_lib.data import check, load_dataset, names, readers


def note(dataset, words):
    return next(n for n in dataset.notes if words in n)


KNOWN = {
    "train": ["train", "Train", "TRAIN", "training", "train_data", "training-set", "trainSet", "train split"],
    "valid": ["valid", "val", "dev", "Validation", "valid_data", "dev_set", "development", "val.split"],
    "test": ["test", "testing", "Test_Data", "testset", b"test"],
}  # fmt: skip
UNKNOWN = ["train_mix", "trainval", "train_valid", "train+dev", "traintest", "eval", "holdout", "all", "val_id",
           "train2", "retrain", "unlabelled", "", "tr", 0, None, ("train",)]  # fmt: skip


def test_names_of_parts():
    assert {key: {names.part_of(k) for k in keys} for key, keys in KNOWN.items()} == {k: {k} for k in KNOWN}
    assert [k for k in UNKNOWN if names.part_of(k) is not None] == []


@pytest.mark.parametrize("part", KNOWN)
def test_a_part_under_another_name_is_the_same_data(tmp_path, part):
    content = parts(sizes={"train": 5, "valid": 9, "test": 14})  # the largest is not the one to train on
    expected = readers.read(write(tmp_path / "x.pkl", content)).fingerprint
    for i, key in enumerate(KNOWN[part]):
        renamed = {key if s == part else s: p for s, p in content.items()}
        assert readers.read(write(tmp_path / f"{i}.pkl", renamed)).fingerprint == expected


@pytest.mark.parametrize("key", [k for k in UNKNOWN if isinstance(k, str)])
@pytest.mark.parametrize("part", KNOWN)
def test_a_part_under_a_doubtful_name_is_refused(tmp_path, part, key):
    content = {key if s == part else s: p for s, p in parts().items()}
    path = write(tmp_path / "x.pkl", content)
    with pytest.raises(ValueError, match="a split is never guessed") as refusal:
        readers.read(path)
    assert all(str(k)[:40] in str(refusal.value) for k in content)
    assert "\n" not in str(refusal.value)
    assert check.describe(path)["problems"] == [str(refusal.value)]


def test_a_further_part_is_refused_and_other_keys_are_named(tmp_path):
    content = parts()
    content["meta"] = {"author": "me"}
    assert "the keys meta are none" in note(readers.read(write(tmp_path / "x.pkl", content)), "meta")
    content["extra"] = content["train"]
    with pytest.raises(ValueError, match="holds train, valid, test, meta, extra: 'extra' is none of"):
        readers.read(write(tmp_path / "y.pkl", content))


@pytest.mark.parametrize("lost", ["train", "test"])
def test_a_lost_part_is_not_made_of_another(tmp_path, lost):
    content = parts()
    del content[lost]
    with pytest.raises(ValueError, match=f"and no {lost} part"):
        readers.read(write(tmp_path / "x.pkl", content))


def test_options_say_which_part_is_which(tmp_path):
    content = parts()
    path = write(tmp_path / "x.pkl", {"train_mix": content["train"], "val": content["valid"], "test": content["test"]})
    expected = readers.read(write(tmp_path / "y.pkl", content))
    dataset = load_dataset(f"{path}?train_part=train_mix")
    assert dataset.fingerprint == expected.fingerprint
    assert "'train_mix' is read as train" in note(dataset, "as asked")
    swapped = load_dataset(f"{path}?train_part=val&test_part=train_mix&valid_part=test")
    assert [len(s) for s in swapped.splits.values()] == [3, 4, 7]
    without = load_dataset(f"{path}?train_part=train_mix&test_part=valid")
    assert [len(without.test), len(without.train) + len(without.valid)] == [3, 7]
    for options, message in {
        "train_part=mix": "is none of train_mix, val, test",
        "train_part=val&test_part=val": "taken twice",
    }.items():
        with pytest.raises(ValueError, match=message):
            load_dataset(f"{path}?{options}")


def test_two_names_for_one_part(tmp_path):
    content = parts()
    content["Training"] = content["train"]
    path = write(tmp_path / "x.pkl", content)
    with pytest.raises(ValueError, match="train split twice, as 'train' and 'Training'; choose with train_part=NAME"):
        readers.read(path)
    assert "keys train are none" in note(load_dataset(f"{path}?train_part=Training"), "not read")


def archive(path, **suffixes):
    rng = np.random.default_rng(0)
    arrays = {}
    for suffix, n in suffixes.items():
        arrays |= {f"audio_{suffix}": rng.normal(size=(n, 4, 3)), f"y_{suffix}": rng.uniform(-3, 3, n)}
    np.savez(path, **arrays)
    return path


def test_suffixes_of_archives(tmp_path):
    expected = readers.read(archive(tmp_path / "x.npz", train=6, valid=9, test=12)).fingerprint
    assert readers.read(archive(tmp_path / "y.npz", training=6, dev_set=9, TEST=12)).fingerprint == expected
    for i, suffix in enumerate(("train_mix", "trainval", "eval")):
        for suffixes in ({suffix: 6, "valid": 9, "test": 12}, {"train": 6, suffix: 9, "test": 12}):
            with pytest.raises(ValueError, match=f"'{suffix}' is none of train, valid, test"):
                readers.read(archive(tmp_path / f"{i}.npz", **suffixes))
    with pytest.raises(ValueError, match="valid split twice, as 'val' and 'dev'"):
        readers.read(archive(tmp_path / "z.npz", train=6, val=9, dev=9, test=12))
    asked = load_dataset(f"{archive(tmp_path / 'm.npz', train_mix=6, valid=9, test=12)}?train_part=train_mix")
    assert asked.fingerprint == expected


def table(path, split, **more):
    n = len(split)
    rng = np.random.default_rng(0)
    np.savez(path, audio=rng.normal(size=(n, 3)), labels=rng.uniform(-3, 3, n), ids=[f"v{i}_{i}" for i in range(n)],
             split=np.array(split), **more)  # fmt: skip
    return path


def test_values_of_a_split_column(tmp_path):
    expected = readers.read(table(tmp_path / "x.npz", ["train"] * 5 + ["valid"] * 2 + ["test"] * 3)).fingerprint
    other = ["Training"] * 2 + ["training "] * 3 + ["DEV"] * 2 + ["test_set"] * 3
    assert readers.read(table(tmp_path / "y.npz", other)).fingerprint == expected
    with pytest.raises(ValueError, match="has values train_mix; expected train, valid, test"):
        readers.read(table(tmp_path / "z.npz", ["train_mix"] * 5 + ["valid"] * 2 + ["test"] * 3))
    with pytest.raises(ValueError, match="valid split twice, as 'dev' and 'val'"):
        readers.read(table(tmp_path / "w.npz", ["train"] * 5 + ["dev", "val"] + ["test"] * 3))
    mixed = table(tmp_path / "v.npz", ["train"] * 4 + ["mix"] + ["valid"] * 2 + ["test"] * 3)
    dataset = load_dataset(f"{mixed}?train_part=train")
    assert len(dataset.train) == 4
    assert "1 samples of other parts are left out" in note(dataset, "left out")
    part = np.array(["train"] * 4 + ["valid"] * 3 + ["test"] * 3)
    two = table(tmp_path / "u.npz", ["train"] * 5 + ["valid"] * 2 + ["test"] * 3, part=part)
    with pytest.raises(ValueError, match="split columns split, part, which differ"):
        readers.read(two)
    assert len(load_dataset(f"{two}?split=part").train) == 4


# --------------------------------------------------------------------------------------------------- arrays


def renamed(content, **other):
    return {s: {other.get(k, k): v for k, v in part.items()} for s, part in content.items()}


@pytest.mark.parametrize(
    "other",
    [
        {"vision": "visual"},
        {"vision": "video"},
        {"vision": "Facet"},
        {"vision": "FACET 4.2"},
        {"vision": "CMU_MOSI_Visual_Facet_42"},
        {"vision": "OpenFace_2"},
        {"audio": "acoustic", "vision": "visual"},
        {"audio": "COVAREP"},
        {"audio": "COAVAREP"},
        {"text": "glove"},
        {"text": "language"},
        {"text": "words"},
        {"text": "bert"},
        {"text": "glove_vectors", "audio": "speech", "vision": "openface"},
        {"regression_labels": "label"},
    ],
    ids=lambda other: "+".join(other.values()),
)
def test_features_under_other_names(tmp_path, other):
    content = parts(3)
    dataset = readers.read(write(tmp_path / "x.pkl", renamed(content, **other)))
    assert dataset.fingerprint == readers.read(write(tmp_path / "y.pkl", content)).fingerprint
    assert dataset.available == (True, True, True)
    for m, key in other.items():
        if m != "regression_labels":
            assert f"{m} is read from the key {key!r}." in dataset.notes


def test_lengths_go_by_the_other_name_too(tmp_path):
    content = parts(3, audio=(20, 5), vision=(14, 4), lengths=True)
    expected = readers.read(write(tmp_path / "x.pkl", content)).fingerprint
    other = renamed(content, vision="video", vision_lengths="video_lengths", audio="acoustic")
    assert readers.read(write(tmp_path / "y.pkl", other)).fingerprint == expected
    for part in other.values():
        part["vision_lengths"] = part["video_lengths"]
    with pytest.raises(ValueError, match="lengths of vision twice"):
        readers.read(write(tmp_path / "z.pkl", other))


def test_video_is_a_column_of_names_or_features(tmp_path):
    content = parts(sizes={"train": 16, "test": 8})
    for part in content.values():
        part["video"] = [f"V{i % 4}" for i in range(len(part["id"]))]
    dataset = readers.read(write(tmp_path / "x.pkl", content))
    assert dataset.feature_dims == (8, 5, 4)
    assert "a column of video names" in note(dataset, "known by")
    for part in content.values():
        part["video"] = np.arange(len(part["id"])) % 4
    assert "a column of video names" in note(readers.read(write(tmp_path / "y.pkl", content)), "known by")
    for part in content.values():
        part["video"] = part["vision"] + 1
    path = write(tmp_path / "z.pkl", content)
    with pytest.raises(
        ValueError, match="train has 2 candidates for vision, 'vision' and 'video': choose one with vis"
    ):
        readers.read(path)
    assert load_dataset(f"{path}?vision=video").train.vision[0, 0, 0] == pytest.approx(
        load_dataset(f"{path}?vision=vision").train.vision[0, 0, 0] + 1
    )


def test_words_are_sentences_or_features(tmp_path):
    content = parts(3)
    for part in content.values():
        part["words"] = part.pop("raw_text")
    dataset = readers.read(write(tmp_path / "x.pkl", content))
    assert dataset.train.raw_text == tuple(content["train"]["words"])
    assert dataset.feature_dims == (8, 5, 4)


@pytest.mark.parametrize(
    "pair", [("audio", "covarep"), ("acoustic", "covarep"), ("text", "glove"), ("visual", "facet")]
)
def test_two_candidates_are_refused_naming_both(tmp_path, pair):
    m = {"covarep": "audio", "glove": "text", "facet": "vision"}[pair[1]]
    content = parts(3)
    for part in content.values():
        value = part.pop(m)
        part |= {pair[0]: value, pair[1]: value + 1}
    path = write(tmp_path / "x.pkl", content)
    with pytest.raises(
        ValueError, match=f"2 candidates for {m}, '{pair[0]}' and '{pair[1]}': choose one with {m}=NAME"
    ):
        readers.read(path)
    a, b = (load_dataset(f"{path}?{m}={key}") for key in pair)
    assert np.allclose(getattr(b.train, m)[:, 0], getattr(a.train, m)[:, 0] + 1)
    assert f"keys {pair[1]}" in note(a, "nothing reads")
    with pytest.raises(ValueError, match=f"no key 'nothing' for {m}"):
        load_dataset(f"{path}?{m}=nothing")


def test_one_name_in_all_parts(tmp_path):
    content = parts(3)
    content["test"]["facet"] = content["test"].pop("vision")
    with pytest.raises(ValueError, match="vision is called 'vision' and 'facet' in different parts"):
        readers.read(write(tmp_path / "x.pkl", content))


def test_keys_that_nothing_reads_are_named(tmp_path):
    content = parts(3)
    for part in content.values():
        part["emotion"] = np.zeros(len(part["id"]))
    content["test"]["gaze"] = np.zeros(4)
    dataset = readers.read(write(tmp_path / "x.pkl", content))
    assert "nothing reads the keys emotion, gaze (in test)." in dataset.notes
    assert "nothing reads the keys" not in " ".join(readers.read(write(tmp_path / "y.pkl", parts(3))).notes)


def test_a_missing_modality_is_said_and_none_at_all_is_refused(tmp_path):
    content = renamed(parts(3), vision="gaze", audio="pitch")
    dataset = readers.read(write(tmp_path / "x.pkl", content))
    assert "nothing reads the keys gaze, pitch" in note(dataset, "nothing reads").replace("pitch, gaze", "gaze, pitch")
    assert "vision is missing from the train part and counts as missing everywhere." in dataset.notes
    assert any("audio is missing" in n for n in check.describe(tmp_path / "x.pkl")["notes"])
    content = renamed(content, text="embedding")
    for part in content.values():
        part["text_bert"] = None
    path = write(tmp_path / "y.pkl", content)
    with pytest.raises(ValueError, match=r"y\.pkl holds no features in its train part: expected text, audio or vision"):
        readers.read(path)
    assert "holds no features" in check.describe(path)["problems"][0]
    content = parts(3)
    del content["test"]["audio"]
    assert "audio is missing from test, where" in note(readers.read(write(tmp_path / "z.pkl", content)), "audio")


def test_ids_of_clips_are_completed_by_their_videos(tmp_path):
    content = parts(sizes={"train": 16, "test": 8})
    for part in content.values():
        n = len(part.pop("id"))
        part |= {"clip_id": [str(i // 4) for i in range(n)], "video_id": [f"V{i % 4}" for i in range(n)]}
    dataset = readers.read(write(tmp_path / "x.pkl", content))
    assert "V3$_$0" in dataset.train.ids + dataset.valid.ids
    assert len({*dataset.train.ids, *dataset.valid.ids}) == 16
