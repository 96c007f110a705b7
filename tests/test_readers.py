"""The readers: exact contents from pickles and archives, every repair noted, every refusal one sentence."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from mmsa_files import SIMS, SIZES, parts, write

from msa_lib.data import Dataset, Split, load_dataset, pack, readers, videos

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def real(name):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name} is not here")
    return path


def note(dataset, words):
    return next(n for n in dataset.notes if words in n)


def equal(tensor, array):
    assert tensor.dtype in (torch.float32, torch.int64)
    assert np.array_equal(tensor.numpy(), np.asarray(array).astype(tensor.numpy().dtype))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_aligned_mosi(tmp_path, protocol):
    content = parts(text=(50, 768), audio=(50, 5), vision=(50, 20))
    write(tmp_path / "MOSI/Processed/aligned_50.pkl", content, protocol)
    dataset = load_dataset("mosi", tmp_path)
    assert (dataset.name, dataset.scale, dataset.language) == ("mosi", "mosi", "en")
    assert dataset.feature_dims == (768, 5, 20)
    assert dataset.encoder == "bert-base-uncased"
    for name, split in dataset.splits.items():
        was = content[name]
        for m in ("text", "audio", "vision"):
            equal(getattr(split, m), was[m])
        equal(split.tokens, was["text_bert"])
        equal(split.labels, was["regression_labels"])
        words = was["text_bert"][:, 1].sum(-1)
        equal(split.lengths, np.stack([words] * 3, 1))
        assert split.ids == tuple(was["id"])
        assert split.raw_text == tuple(was["raw_text"])
        assert split.unimodal_labels is None
    assert not any("ignored" in n for n in dataset.notes if "audio" in n or "vision" in n)


def test_unaligned_sims(tmp_path):
    content = parts(**SIMS)
    write(tmp_path / "SIMS/Processed/unaligned_39.pkl", content)
    dataset = load_dataset("sims", tmp_path)
    assert (dataset.scale, dataset.language, dataset.encoder) == ("sims", "zh", "bert-base-chinese")
    for name, split in dataset.splits.items():
        was = content[name]
        assert isinstance(was["audio_lengths"], list)
        words = was["text_bert"][:, 1].sum(-1)
        equal(split.lengths, np.stack([words, was["audio_lengths"], was["vision_lengths"]], 1))
        equal(split.unimodal_labels, np.stack([was[f"regression_labels_{k}"] for k in "TAV"], 1))
        equal(split.vision, was["vision"])


def test_lengths_without_any_given(tmp_path):
    content = parts(**SIMS)
    for part in content.values():
        del part["audio_lengths"], part["vision_lengths"]
        part["audio"][1] = 0.0
    dataset = readers.read(write(tmp_path / "x.pkl", content))
    for name, split in dataset.splits.items():
        nonzero = content[name]["audio"].any(-1)
        expected = [max([t + 1 for t in range(20) if row[t]], default=1) for row in nonzero]
        assert split.lengths[:, 1].tolist() == expected
        assert split.lengths[1, 1] == 1


def test_keys_may_be_missing(tmp_path):
    content = parts()
    for part in content.values():
        for key in ("raw_text", "text_bert", "annotations", "vision"):
            del part[key]
        part["text"][:, 4:] = 0.0
        part["audio"][:, 4:] = 0.0
    del content["train"]["id"]
    dataset = readers.read(write(tmp_path / "x.pkl", content))
    assert dataset.available == (True, True, False)
    assert dataset.train.tokens is None
    assert dataset.train.raw_text is None
    assert dataset.encoder is None
    assert dataset.train.vision.shape == (7, 1, 1)
    assert dataset.train.lengths.tolist() == [[4, 4, 0]] * 7
    assert len(set(dataset.train.ids)) == 7
    assert "vision is missing" in note(dataset, "missing")


def test_a_modality_missing_from_one_split_keeps_its_size(tmp_path):
    content = parts()
    del content["test"]["audio"]
    dataset = readers.read(write(tmp_path / "x.pkl", content))
    assert dataset.test.audio.shape == (4, 1, 5)
    assert dataset.test.lengths[:, 1].tolist() == [0] * 4
    assert dataset.available == (True, True, True)


def test_tokens_without_features_keep_their_steps(tmp_path):
    content = parts()
    for part in content.values():
        del part["text"]
    dataset = readers.read(write(tmp_path / "x.pkl", content))
    words = content["train"]["text_bert"][:, 1].sum(-1)
    equal(dataset.train.lengths[:, 0], words)
    batch = dataset.train.batch([0, 1])
    assert batch.tokens.shape[-1] == batch.text.shape[1] == words[:2].max()


def test_values_that_are_not_finite_become_0(tmp_path):
    content = parts()
    content["train"]["audio"][0, 0] = -np.inf
    content["test"]["audio"][1, 0, 2] = np.nan
    content["valid"]["vision"][0, 1, 0] = np.inf
    dataset = readers.read(write(tmp_path / "x.pkl", content))
    assert dataset.train.audio[0, 0].tolist() == [0.0] * 5
    assert dataset.valid.vision[0, 1, 0] == 0
    assert "6 of 420 values (1.43%)" in note(dataset, "audio:")
    assert "1 of" in note(dataset, "vision:")
    assert all(s.audio.isfinite().all() for s in dataset.splits.values())


def test_padding_in_front_is_moved_behind(tmp_path):
    """As in the aligned files that MulT shares: GloVe text, zeros first, no lengths."""
    content = parts()
    straight = {}
    for name, part in content.items():
        del part["text_bert"]
        straight[name] = {}
        part["text"][:, 4:] = 0.0
        for m in ("text", "audio", "vision"):
            part[m][:, 4:] = 0.0
            straight[name][m] = part[m].copy()
            part[m] = np.roll(part[m], 2, axis=1)
    dataset = readers.read(write(tmp_path / "x.pkl", content))
    for name, split in dataset.splits.items():
        for m in ("text", "audio", "vision"):
            equal(getattr(split, m)[:, :4], straight[name][m][:, :4].astype(np.float32))
        assert (split.lengths <= 4).all()
    assert "moved to the front" in note(dataset, "text:")


def test_one_array_used_twice_is_repaired_twice_alike(tmp_path):
    content = parts(sizes={"train": 5, "test": 4})
    for part in content.values():
        part.update(audio_lengths=[2] * len(part["id"]), audio=np.zeros((len(part["id"]), 6, 5), np.float32))
        part["audio"][:, 4:] = [[[1], [2]]]
    content["test"]["audio"][0, 5, 0] = np.nan
    content["valid"] = content["test"]
    dataset = readers.read(write(tmp_path / "x.pkl", content))
    assert torch.equal(dataset.valid.audio, dataset.test.audio)
    assert dataset.test.audio[:, :2, 0].tolist() == [[1, 0], [1, 2], [1, 2], [1, 2]]
    assert "2 of " in note(dataset, "not finite")


def test_given_lengths_with_padding_in_front(tmp_path):
    x = np.zeros((5, 4, 2), np.float32)
    x[0, 2:] = [[1, 2], [3, 4]]  # in front
    x[1, :2] = [[1, 2], [3, 4]]  # behind
    x[2, 1:3] = [[1, 2], [3, 4]]  # both
    x[3, :] = 7  # longer than its length says
    x[4, 3] = [3, 4]  # in front, and its first step really is zero
    arrays = {}
    for s in ("train", "valid", "test"):
        arrays |= {f"audio_{s}": x, f"y_{s}": np.arange(5.0), f"lengths_{s}": np.array([2, 2, 2, 2, 2], np.int16)}
    np.savez(tmp_path / "x.npz", **arrays)
    dataset = readers.read(tmp_path / "x.npz")
    moved = dataset.train.audio[:, :2].tolist()
    assert moved[:3] == [[[1, 2], [3, 4]]] * 3
    assert moved[3] == [[7, 7], [7, 7]]
    assert moved[4] == [[0, 0], [3, 4]]
    assert "in 9 samples" in note(dataset, "moved")
    assert "in 3 samples" in note(dataset, "ignored")


def test_scale_and_language_by_content(tmp_path):
    content = parts(scale=1.0)
    for part in content.values():
        part["raw_text"] = ["你好"] * len(part["raw_text"])
    dataset = readers.read(write(tmp_path / "own.pkl", content))
    assert (dataset.name, dataset.scale, dataset.language) == ("own", "sims", "zh")
    assert readers.read(tmp_path / "own.pkl", name="mosei").scale == "mosi"
    content["train"]["regression_labels"][0] = 5.0
    dataset = readers.read(write(tmp_path / "own.pkl", content))
    assert dataset.scale == "mosi"
    assert "outside the scale [-3, 3]" in note(dataset, "labels lie in")


def endless():
    """A list of 2**60 numbers in a few hundred bytes of pickle."""
    part = [0.0]
    for _ in range(60):
        part = [part, part]
    return part


REFUSED = {
    "expected a dict with the keys train, valid, test": lambda c: c.clear(),
    "valid split twice": lambda c: c.update(dev=c["valid"]),
    "train has no regression_labels": lambda c: c["train"].pop("regression_labels"),
    r"text has the shape \[6, 6, 8\]; expected \[7, T, D\]": lambda c: c["train"].update(text=c["train"]["text"][1:]),
    "audio is not one array of numbers": lambda c: c["test"].update(audio=[[1.0], [1.0, 2.0]]),
    r"test: audio has 2 features where the train part has 5": lambda c: c["test"].update(audio=np.ones((4, 6, 2))),
    "1 labels are not usable": lambda c: c["test"]["regression_labels"].__setitem__(0, np.nan),
    "1 audio_lengths are not usable": lambda c: c["test"].update(audio_lengths=[1, -2, 3, 4]),
    r"text_bert has the shape \[4, 6\]": lambda c: c["test"].update(text_bert=np.ones((4, 6))),
    "test: ids is not a list of 4 texts": lambda c: c["test"].update(id=["a"]),
    "valid: raw_text holds something that is no text": lambda c: c["valid"].update(raw_text=[{}, "a", "b"]),
    "more than 1,073,741,824 bytes, by sharing parts": lambda c: c["train"].update(regression_labels=endless()),
    r"regression_labels_A has the shape \[2\]": lambda c: c["train"].update(
        regression_labels_T=[0.0] * 7, regression_labels_A=[0.0] * 2, regression_labels_V=[0.0] * 7
    ),
    r"vision has the shape \[3, 0, 4\]": lambda c: c["valid"].update(vision=np.zeros((3, 0, 4))),
    "holds values that are no token ids": lambda c: c["test"]["text_bert"].__setitem__((0, 0, 0), np.nan),
    "valid is a list": lambda c: c.update(valid=[1]),
}


@pytest.mark.parametrize("message", REFUSED)
def test_broken_pickles_get_one_sentence(tmp_path, message):
    content = parts()
    REFUSED[message](content)
    with pytest.raises(ValueError, match=message) as refusal:
        readers.read(write(tmp_path / "x.pkl", content))
    assert "\n" not in str(refusal.value)


def flat(n=40, seed=0, **more):
    rng = np.random.default_rng(seed)
    return {
        "text": rng.normal(size=(n, 6)),
        "audio": rng.normal(size=(n, 4, 3)).astype(np.float32),
        "vision": rng.normal(size=(n, 2)).astype(np.float32),
        "labels": rng.uniform(-3, 3, n).astype(np.float32),
        "split": np.array((["train"] * 5 + ["val"] * 2 + ["test"] * 3) * (n // 10)),
        "ids": np.array([f"v_{i // 4}_{i}" for i in range(n)]),
        **more,
    }


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_flat_archive(tmp_path):
    content = flat(lengths=np.array([3] * 40), raw_text=np.array(["words"] * 40))
    dataset = load_dataset(str(save(tmp_path / "x.npz", **content)))
    rows = np.flatnonzero(content["split"] == "val")
    assert [len(s) for s in dataset.splits.values()] == [20, 8, 12]
    equal(dataset.valid.text[:, 0], content["text"][rows].astype(np.float32))
    equal(dataset.valid.audio, content["audio"][rows])
    assert dataset.valid.ids == tuple(content["ids"][rows])
    assert dataset.valid.lengths.tolist() == [[1, 3, 1]] * 8
    assert dataset.train.raw_text == ("words",) * 20
    assert "2 lengths" not in " ".join(dataset.notes)


def test_validation_is_carved_by_video(tmp_path):
    content = flat(200)
    content["split"] = np.array(["train"] * 120 + ["test"] * 80)
    path = save(tmp_path / "x.npz", **content)
    dataset, again = readers.read(path), readers.read(path)
    assert dataset.fingerprint == again.fingerprint
    by_split = {s: {videos.video_of(i) for i in part.ids} for s, part in dataset.splits.items()}
    assert not by_split["train"] & by_split["valid"]
    assert len(dataset.valid) == 36
    assert len(dataset.test) == 80
    assert "36 of 120 train samples (9 whole videos)" in note(dataset, "no valid part")
    other = readers.read(path, {"valid": "0.5", "valid_from": "test"})
    assert (len(other.train), len(other.valid), len(other.test)) == (120, 40, 40)


def test_one_of_several_labels(tmp_path):
    content = flat()
    content["labels"] = np.stack([content["labels"], content["labels"] / 4], 1)
    path = save(tmp_path / "x.npz", **content)
    with pytest.raises(ValueError, match="2 labels per sample: choose one with label=K, K from 0 to 1"):
        readers.read(path)
    equal(readers.read(path, {"label": "1"}).test.labels, content["labels"][content["split"] == "test", 1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"splt": "a"},
            "takes the options split, valid, valid_from, label, .*, vision; found splt",
        ),
        ({"split": "part"}, "no split column 'part'; its keys are text, audio"),
        ({"split": "ids"}, "has values v_0_0, v_0_1"),
        ({"valid": "0.2"}, "has its own valid part"),
        ({"label": "0"}, "one label per sample"),
    ],
)
def test_wrong_options_get_one_sentence(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        readers.read(save(tmp_path / "x.npz", **flat()), options)


def test_archives_never_unpickle(tmp_path):
    path = save(tmp_path / "x.npz", **flat(notes=np.array([{"a": 1}], dtype=object)))
    with pytest.raises(ValueError, match=r"not an \.npz archive of plain arrays"):
        readers.read(path)
    (tmp_path / "y.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ValueError, match=r"not an \.npz archive"):
        readers.read(tmp_path / "y.npz")
    with pytest.raises(ValueError, match="expected labels with a split column"):
        readers.read(save(tmp_path / "z.npz", a=np.zeros(2)))
    with pytest.raises(FileNotFoundError, match="No file"):
        readers.read(tmp_path / "none.npz")


def test_mosi_pooled():
    path = real("mosi_pooled/mosi_pooled.npz")
    dataset = readers.read(path)
    with np.load(path) as archive:
        text = archive["text"][archive["split_bclstm"] == "train"]
    assert len(dataset.train) == 1447
    assert len(dataset.valid) + len(dataset.test) == 752
    equal(dataset.train.text[:, 0], text)
    by_split = {s: {videos.video_of(i) for i in part.ids} for s, part in dataset.splits.items()}
    assert not by_split["valid"] & by_split["test"]
    assert not by_split["train"] & (by_split["valid"] | by_split["test"])
    assert "split_bclstm" in note(dataset, "split")
    leaking = load_dataset(f"{path}?split=split")
    assert [len(s) for s in leaking.splits.values()] == [1284, 229, 686]
    assert "558 of its 686 test samples" in note(leaking, "LEAKS")


def test_sequences_of_mfn():
    mmmo = readers.read(real("mfn_sets/mmmo.npz"))
    assert mmmo.available == (False, True, True)
    assert mmmo.feature_dims == (1, 74, 36)
    assert mmmo.test.text.shape == (80, 1, 1)
    assert "text is missing" in note(mmmo, "text")
    path = real("mfn_sets/pom.npz")
    pom = load_dataset(f"{path}?label=3")
    with np.load(path) as archive:
        equal(pom.valid.labels, archive["y_valid"][:, 3])
        lengths, audio = archive["lengths_train"], archive["audio_train"]
    equal(pom.train.lengths[:, 1], lengths)
    first = audio[0][audio[0].any(-1)]
    equal(pom.train.audio[0, : lengths[0]], first)  # the file pads in front


def test_mosei_videos():
    path = real("mosei_video/mosei_video922.npz")
    with pytest.raises(ValueError, match="has only valid, test and no train part"):
        readers.read(path)
    dataset = load_dataset(f"{path}?train_part=test&test_part=valid")
    assert len(dataset.train) + len(dataset.valid) == 658
    assert len(dataset.test) == 264
    assert "653 of 36,880 values (1.77%)" in note(dataset, "audio:")
    assert "'test' is read as train, 'val' is read as test" in note(dataset, "as asked")
    assert dataset.available == (True, True, True)


def packed_and_back(dataset, folder):
    pack.pack(dataset, folder)
    back = load_dataset(str(folder))
    for (name, a), b in zip(dataset.splits.items(), back.splits.values(), strict=True):
        for field in ("text", "audio", "vision", "lengths", "labels", "unimodal_labels", "tokens"):
            x, y = getattr(a, field), getattr(b, field)
            assert (x is None) == (y is None)
            assert x is None or (x.dtype == y.dtype and torch.equal(x, y)), f"{name}.{field}"
        assert (a.ids, a.raw_text) == (b.ids, b.raw_text)
        assert {k: v.tolist() for k, v in a.truth.items()} == {k: v.tolist() for k, v in b.truth.items()}
    for field in ("name", "scale", "language", "synthetic", "encoder", "notes", "fingerprint"):
        assert getattr(dataset, field) == getattr(back, field)
    return back


def test_packed_form_is_equal_to_the_bit(tmp_path):
    content = parts(**SIMS)
    write(tmp_path / "SIMS/Processed/unaligned_39.pkl", content)
    dataset = load_dataset("sims", tmp_path)
    back = packed_and_back(dataset, tmp_path / "sims.packed")
    assert load_dataset("sims", tmp_path).fingerprint == back.fingerprint
    again = Dataset(back.name, *back.splits.values(), scale=back.scale)  # computes it anew
    assert again.fingerprint == dataset.fingerprint
    back.train.text[0] = 0  # a private page; the file stays
    assert torch.equal(pack.load(tmp_path / "sims.packed").train.text, dataset.train.text)
    with pytest.raises(FileExistsError, match="exists already"):
        pack.pack(dataset, tmp_path / "sims.packed")
    assert [p.name for p in tmp_path.iterdir() if "part" in p.name] == []


def test_packed_planted_data_keep_their_truth(tmp_path):
    packed_and_back(load_dataset("planted?train=20&valid=5&test=5"), tmp_path / "p")


def test_half_written_folders_are_never_read(tmp_path):
    with pack.Writer(tmp_path / "x") as writer:  # never finished
        writer.array("train", "text", (3, 2, 2))[:] = 1
        assert list(tmp_path.iterdir()) == [writer.part]
    assert list(tmp_path.iterdir()) == []
    dataset = readers.read(write(tmp_path / "x.pkl", parts()))
    folder = pack.pack(dataset, tmp_path / "y")
    (folder / "test.labels.npy").unlink()
    with pytest.raises(ValueError, match=r"test\.labels\.npy was removed after packing; pack it again"):
        pack.load(folder)
    np.save(folder / "test.labels.npy", np.array([{}] * 4), allow_pickle=True)
    with pytest.raises(ValueError, match=r"test\.labels\.npy was changed after packing"):
        pack.load(folder)
    (folder / "meta.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="packed format 99; expected 2"):
        pack.load(folder)
    (folder / "meta.json").unlink()
    with pytest.raises(FileNotFoundError, match="no packed data set"):
        pack.load(folder)


def test_object_arrays_are_not_packed(tmp_path):
    with pack.Writer(tmp_path / "x") as writer, pytest.raises(ValueError, match="only plain numbers"):
        writer.put("train", "truth.x", np.array([None]))


def test_loading_a_packed_folder_reads_nothing(tmp_path):
    """400 MB (a hole in the file) map in well under a second."""
    with pack.Writer(tmp_path / "x") as writer:
        for s, n in SIZES.items():
            writer.array(s, "text", (n, 50_000, 300 if s == "train" else 1))
            for m in ("audio", "vision"):
                writer.put(s, m, np.zeros((n, 1, 1)))
            writer.put(s, "lengths", np.ones((n, 3)))
            writer.put(s, "labels", np.ones(n))
            writer.put_words(s, tuple(map(str, range(n))))
        about = {"name": "x", "scale": "mosi", "language": "en", "synthetic": False, "encoder": None, "notes": []}
        writer.finish(**about, fingerprint="0" * 16)
    start = time.perf_counter()
    dataset = pack.load(tmp_path / "x")
    assert time.perf_counter() - start < 1
    assert dataset.train.text.shape == (7, 50_000, 300)


def test_a_split_of_unequal_parts_is_refused():
    with pytest.raises(ValueError, match="ids has 1 samples where the split has 2"):
        Split(*[torch.zeros(2, 1, 1)] * 3, torch.ones(2, 3), torch.zeros(2), ids=("a",))
