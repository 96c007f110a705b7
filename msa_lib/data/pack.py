"""The packed form of a data set: a folder of .npy arrays that are mapped into memory, and meta.json for the rest.

Loading one takes no time and no memory beyond the pages that are used. A folder is written under another name and
renamed when complete, so a half-written one is never read. meta.json holds a checksum of every array and of itself.
Arrays are held against theirs when a folder is opened for the first time, and again only if the file system says that
one has changed since (checked.json; without a place to write it, every time).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from msa_lib.data.dataset import Dataset, Split, fingerprint

FORMAT = 2
SPLITS = ("train", "valid", "test")
NEEDED = {"text": "float32", "audio": "float32", "vision": "float32", "lengths": "int64", "labels": "float32"}
ARRAYS = {**NEEDED, "unimodal_labels": "float32", "tokens": "int64"}  # and truth.<name>, of any plain dtype


class Writer:
    """Writes a packed folder piece by piece; used with `with`, and complete only after `finish`.

    Leaving the block without `finish` (an error, say) removes what was written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if self.folder.exists():
            raise FileExistsError(f"{self.folder} exists already; expected a new name for the packed folder.")
        self.part = self.folder.with_name(f".{self.folder.name}.{uuid.uuid4().hex[:8]}.part")
        self.words: dict[str, dict[str, list[str]]] = {s: {} for s in SPLITS}

    def __enter__(self) -> Writer:
        self.part.mkdir(parents=True)
        return self

    def __exit__(self, *_) -> None:
        shutil.rmtree(self.part, ignore_errors=True)  # gone already when finished

    def array(self, split: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """A mapped array of zeros, to be filled in any order."""
        path = self._path(split, name)
        with _named(path):
            mapped = np.lib.format.open_memmap(path, "w+", np.dtype(ARRAYS[name]), tuple(shape))
            if hasattr(os, "posix_fallocate"):  # a full disk is an error now, not the end of the process later
                with path.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            return mapped

    def put(self, split: str, name: str, value: np.ndarray) -> None:
        """A whole array at once."""
        value = np.asarray(value)
        if name in ARRAYS:
            value = value.astype(ARRAYS[name], copy=False)
        if value.dtype.kind not in "biuf":
            raise ValueError(f"{split}.{name} is an array of {value.dtype}; only plain numbers are packed.")
        with _named(self._path(split, name)):
            np.save(self._path(split, name), value, allow_pickle=False)

    def put_words(self, split: str, ids: tuple[str, ...], raw_text: tuple[str, ...] | None = None) -> None:
        self.words[split] = {"ids": list(ids)} if raw_text is None else {"ids": list(ids), "raw_text": list(raw_text)}

    def finish(self, **about: Any) -> Path:
        """Adds meta.json (`about`: the fields of `Dataset`; a missing fingerprint is computed), renames, returns it."""
        if not about.get("fingerprint"):
            about["fingerprint"] = fingerprint({s: _split(self.part, s, self.words[s]) for s in SPLITS})
        arrays = {path.name: _digest(path) for path in sorted(self.part.glob("*.npy"))}
        meta = {"format": FORMAT, **about, "splits": self.words, "arrays": arrays}
        meta["checksum"] = _own_digest(meta)
        with _named(self.part / "meta.json"):
            (self.part / "meta.json").write_text(json.dumps(meta, ensure_ascii=False, indent=1), encoding="utf-8")
        _remember(self.part, arrays)
        try:
            os.rename(self.part, self.folder)
        except OSError:
            raise FileExistsError(f"{self.folder} was made by someone else meanwhile; nothing was changed.") from None
        return self.folder

    def _path(self, split: str, name: str) -> Path:
        return self.part / f"{split}.{name}.npy"


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of writing name the file; numpy's, of a disk that is full, say not even what happened."""
    try:
        yield
    except OSError as problem:
        number = problem.errno or errno.ENOSPC
        raise OSError(number, os.strerror(number), str(path)) from None


def pack(dataset: Dataset, folder: str | Path) -> Path:
    """Writes `dataset` as a packed folder; the one read back is equal to the bit, fingerprint included."""
    with Writer(folder) as writer:
        for name, split in dataset.splits.items():
            for array in ARRAYS:
                value = getattr(split, array)
                if value is not None:
                    writer.put(name, array, value.cpu().numpy())
            for fact, value in split.truth.items():
                writer.put(name, f"truth.{fact}", value.cpu().numpy())
            writer.put_words(name, split.ids, split.raw_text)
        return writer.finish(
            name=dataset.name,
            scale=dataset.scale,
            language=dataset.language,
            synthetic=dataset.synthetic,
            encoder=dataset.encoder,
            notes=list(dataset.notes),
            fingerprint=dataset.fingerprint,
        )


def load(folder: str | Path) -> Dataset:
    """A packed data set, its arrays mapped copy-on-write: nothing is read until it is used, nothing is written back.

    Raises FileNotFoundError or ValueError with one sentence when it is no packed folder or an incomplete one.
    """
    folder = Path(folder)
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} is no packed data set: it has no meta.json.") from None
    except ValueError:
        raise ValueError(f"{folder}: meta.json is not JSON.") from None
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        found = meta.get("format") if isinstance(meta, dict) else None
        raise ValueError(f"{folder} has the packed format {found!r}; expected {FORMAT}: pack it again.")
    try:
        _check(folder, meta)
        about = {k: meta[k] for k in ("name", "scale", "language", "synthetic", "encoder", "fingerprint")}
        words = {s: meta["splits"][s] for s in SPLITS}
        splits = {s: _split(folder, s, words[s]) for s in SPLITS}
        return Dataset(**splits, **about, notes=tuple(meta["notes"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder}: meta.json lacks {error}; pack it again.") from None


def _check(folder: Path, meta: dict) -> None:
    """Raises ValueError if anything is not what was packed."""
    if meta["checksum"] != _own_digest(meta):
        raise ValueError(f"{folder}: meta.json was changed after packing; pack it again.")
    if found := {path.name for path in folder.glob("*.npy")} ^ set(meta["arrays"]):
        raise ValueError(f"{folder}: {min(found)} was {'added' if (folder / min(found)).exists() else 'removed'} after "
                         f"packing; pack it again.")  # fmt: skip
    known = {}
    with suppress(OSError, ValueError):
        known = json.loads((folder / "checked.json").read_text(encoding="utf-8"))
    stamps = _stamps(folder, meta["arrays"])
    if known == stamps:
        return
    for name, digest in meta["arrays"].items():
        if (not isinstance(known, dict) or known.get(name) != stamps[name]) and _digest(folder / name) != digest:
            raise ValueError(f"{folder / name} was changed after packing, and its numbers are not used; pack it again.")
    _remember(folder, meta["arrays"])


def _remember(folder: Path, arrays: Mapping[str, str]) -> None:
    """Notes what the file system says of the arrays now that they are what was packed; a read-only folder is none."""
    with suppress(OSError):
        partial = folder / f".checked.{uuid.uuid4().hex[:8]}"
        partial.write_text(json.dumps(_stamps(folder, arrays)), encoding="utf-8")
        os.replace(partial, folder / "checked.json")


def _stamps(folder: Path, arrays: Mapping[str, str]) -> dict[str, list[int]]:
    """Size, times of writing and of change, and inode of each array."""
    facts = {name: (folder / name).stat() for name in arrays}
    return {name: [s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for name, s in facts.items()}


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _own_digest(meta: Mapping) -> str:
    """Of everything in meta.json but this."""
    rest = {name: value for name, value in meta.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _split(folder: Path, name: str, words: dict[str, list[str]]) -> Split:
    arrays, truth = {}, {}
    for path in sorted(folder.glob(f"{name}.*.npy")):
        array = path.name[len(name) + 1 : -len(".npy")]
        value = _mapped(path, ARRAYS.get(array))
        if array.startswith("truth."):
            truth[array[len("truth.") :]] = value
        elif array in ARRAYS:
            arrays[array] = value
    lacking = [a for a in NEEDED if a not in arrays]
    if lacking:
        raise ValueError(f"{folder} lacks {name}.{lacking[0]}.npy; pack it again.")
    raw_text = words.get("raw_text")
    raw_text = None if raw_text is None else tuple(raw_text)
    return Split(**arrays, ids=tuple(words["ids"]), raw_text=raw_text, truth=truth)


def _mapped(path: Path, dtype: str | None) -> torch.Tensor:
    """Mode "c": private writable pages, which torch wants, over a file that stays as it is."""
    try:
        value = np.load(path, mmap_mode="c", allow_pickle=False)
        right = value.dtype.kind in "biuf" if dtype is None else value.dtype == dtype
    except (ValueError, OSError, EOFError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"{path} is not a plain array: {reason}.") from None
    if not right:
        raise ValueError(f"{path} holds {value.dtype}; expected {dtype or 'numbers'}.")
    return torch.from_numpy(value)
