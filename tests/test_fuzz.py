"""Damaged and hostile files: each gives a data set or one sentence with its name, soon, and nothing in it is run.

Some hundred of them here; `MSA_FUZZ=10000 pytest tests/test_fuzz.py` takes that many of each kind.
"""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from msa_lib.data import load_dataset
from msa_lib.data.pack import pack
from msa_lib.data.pickles import LARGEST, UnsafePickleError, load

COUNT = int(os.environ.get("MSA_FUZZ", 120))


def content(n: int = 5) -> dict:
    rng, split = np.random.default_rng(0), {}
    for name, size in (("train", n), ("valid", 3), ("test", 3)):
        split[name] = {
            "text": rng.normal(size=(size, 4, 3)).astype(np.float32),
            "audio": rng.normal(size=(size, 4, 2)),
            "vision": rng.normal(size=(size, 4, 2)).astype(np.float32),
            "raw_text": np.array([f"words {i}" for i in range(size)], dtype=object),
            "id": [f"{name}{i}$_$1" for i in range(size)],
            "regression_labels": rng.uniform(-3, 3, size).astype(np.float32),
        }
    return split


def flat() -> dict[str, np.ndarray]:
    return {
        f"{key}_{split}": np.asarray(value, dtype=None if key not in ("raw_text", "id") else str)
        for split, part in content().items()
        for key, value in part.items()
    }


def honest(folder: Path) -> dict[str, Path]:
    """One good file of each kind."""
    for protocol in (0, 2, 4, 5):
        (folder / f"protocol{protocol}.pkl").write_bytes(pickle.dumps(content(), protocol))
    np.savez(folder / "plain.npz", **flat())
    np.savez_compressed(folder / "compressed.npz", **flat())
    return {path.name: path for path in sorted(folder.iterdir())}


def damaged(good: bytes, rng: np.random.Generator) -> bytes:
    """A few bits turned, a piece cut off, doubled, filled with one byte, moved, or replaced by noise."""
    data, a, b = bytearray(good), *sorted(rng.integers(0, len(good), 2).tolist())
    b = min(b, a + 64)
    match rng.integers(0, 6):
        case 0:
            for place in rng.integers(0, len(data), rng.integers(1, 5)):
                data[place] ^= 1 << int(rng.integers(0, 8))
        case 1:
            del data[a:]
        case 2:
            data[b:b] = data[a:b] * int(rng.integers(1, 4))
        case 3:
            data[a:b] = bytes([int(rng.integers(0, 256))]) * (b - a)
        case 4:
            data[a:b] = b""
        case 5:
            data[a:b] = rng.bytes(b - a)
    return bytes(data)


def outcome(path: Path) -> str:
    """Empty if the file is read. Anything else than a sentence with its name goes through as it is."""
    try:
        load_dataset(str(path))
    except (ValueError, OSError) as problem:
        said = str(problem)
        assert path.name in said
        assert said.endswith((".", ")"))
        assert "\n" not in said
        return said
    return ""


@pytest.mark.parametrize("kind", ["protocol0.pkl", "protocol2.pkl", "protocol4.pkl", "plain.npz", "compressed.npz"])
def test_a_damaged_file_is_read_or_refused_in_a_sentence(kind, tmp_path):
    good, rng = honest(tmp_path)[kind], np.random.default_rng(len(kind))
    assert outcome(good) == ""
    whole, refused = good.read_bytes(), 0
    for i in range(COUNT):
        path = tmp_path / f"damaged{i}{good.suffix}"
        path.write_bytes(damaged(whole, rng))
        refused += bool(outcome(path))
        path.unlink()
    assert refused > COUNT / 4


def test_a_packed_folder_that_changed_is_noticed(tmp_path):
    """Whatever byte of it is another: it is refused, or all of it is as it was."""
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content()))
    dataset = load_dataset(str(tmp_path / "a.pkl"))
    folder, rng = pack(dataset, tmp_path / "a.packed"), np.random.default_rng(1)
    refused = 0
    for i in range(COUNT // 2):
        copy = shutil.copytree(folder, tmp_path / f"b{i}.packed")
        path = copy / str(rng.choice(sorted(p.name for p in copy.iterdir())))
        whole = path.read_bytes()
        path.write_bytes(damaged(whole, rng))
        changed = path.read_bytes() != whole and path.name != "checked.json"
        said = outcome(copy)
        refused += bool(said)
        if not said:
            again = load_dataset(str(copy))
            assert (again.fingerprint, again.scale) == (dataset.fingerprint, dataset.scale)
            assert all(torch.equal(again.splits[s].text, part.text) for s, part in dataset.splits.items())
            assert not changed or path.suffix == ".json"  # spaces between the words of meta.json may differ
    assert refused > COUNT / 8


def test_a_change_after_the_first_opening_is_noticed_too(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content()))
    folder = pack(load_dataset(str(tmp_path / "a.pkl")), tmp_path / "a.packed")
    path = folder / "train.labels.npy"
    facts, data = path.stat(), bytearray(path.read_bytes())
    assert outcome(folder) == ""
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # as a careless restore would leave it
    assert "train.labels.npy was changed after packing" in outcome(folder)
    data[-1] ^= 1
    path.write_bytes(data)
    assert outcome(folder) == ""


# Small files that ask for much


def nested_tuples(deep: int) -> bytes:
    return b")" + b"\x85" * deep


def doubled(times: int, first: bytes = b")") -> bytes:
    """A pair of the same thing, of which both are a pair of the same thing, ..."""
    return first + b"".join(b"\x94h" + bytes([i]) + b"\x86" for i in range(times))


def colliding(n: int = 2000) -> Iterator[int]:
    return (i * (2**61 - 1) for i in range(1, n))


HOSTILE = {  # name -> (pickle, words of the refusal)
    "deep key": (b"\x80\x04}" + nested_tuples(100_000) + b"K\x01s.", "a tuple as a key"),
    "shared key": (b"\x80\x04}" + doubled(60) + b"K\x01s.", "a tuple as a key"),
    "shared keys at once": (b"\x80\x04}(" + doubled(60) + b"K\x01u.", "a tuple as a key"),
    "shared key of a new dict": (b"\x80\x04(" + doubled(60) + b"K\x01d.", "a tuple as a key"),
    "member": (b"\x80\x04\x8f(" + doubled(60) + b"\x90.", "a tuple as a key"),
    "frozen member": (b"\x80\x04(" + doubled(60) + b"\x91.", "a tuple as a key"),
    "member by a call": (b"c__builtin__\nset\n((" + doubled(60) + b"ltR.", "a tuple as a key"),
    "key by a call": (
        b"ccollections\nOrderedDict\n((" + doubled(60) + b"K\x01\x86ltR.",
        "a tuple as a key",
    ),
    "deep value": (b"\x80\x04" + nested_tuples(100_000) + b".", "containers within each other"),
    "shared value": (b"\x80\x04" + doubled(50) + b".", "by sharing parts"),
    "colliding keys": (pickle.dumps(dict.fromkeys(colliding())), "beyond 64 bits as a key"),
    "items of a number": (b"\x80\x04K\x01K\x02K\x03s.", "items for 1"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_small_file_that_asks_for_much_is_refused(name, tmp_path):
    data, words = HOSTILE[name]
    path = tmp_path / "hostile.pkl"
    path.write_bytes(data)
    with pytest.raises(UnsafePickleError, match=words):
        load(path)


def test_parts_may_be_shared_as_long_as_the_whole_stays_small(tmp_path):
    row = np.zeros(1000)
    path = tmp_path / "shared.pkl"
    path.write_bytes(pickle.dumps([row] * 1000))
    got = load(path)
    assert len(got) == 1000
    assert got[0] is got[999]
    path.write_bytes(pickle.dumps([row] * (LARGEST[0] // row.nbytes + 1)))
    with pytest.raises(UnsafePickleError, match="by sharing parts"):
        load(path)


def test_an_archive_that_unpacks_to_far_more_than_it_holds_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("msa_lib.data.readers.UNPACKED", (1 << 20, 64))
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, x=np.zeros(1 << 22))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(ValueError, match=r"bomb\.npz .*unpacks to 33,55"):
        load_dataset(str(path))
    with zipfile.ZipFile(path) as archive:
        assert archive.infolist()[0].file_size > 1 << 24


def test_a_name_inside_a_file_cannot_break_the_line_or_steer_the_terminal(tmp_path):
    path = tmp_path / "archive.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a\x1b[2J\nb.bin", b"")
    assert "holds a?[2J?b.bin: unpack it first" in outcome(path)
