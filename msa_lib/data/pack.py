"""The packed form of a data set: a folder of .npy arrays that are mapped into memory, and meta.json for the rest.

Loading one takes no time and no memory beyond the pages that are used. A folder is written under another name and
renamed when complete, so a half-written one is never read.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import torch

from msa_lib.data.dataset import Dataset, Split, fingerprint

FORMAT = 1
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
        return np.lib.format.open_memmap(self._path(split, name), "w+", np.dtype(ARRAYS[name]), tuple(shape))

    def put(self, split: str, name: str, value: np.ndarray) -> None:
        """A whole array at once."""
        value = np.asarray(value)
        if name in ARRAYS:
            value = value.astype(ARRAYS[name], copy=False)
        if value.dtype.kind not in "biuf":
            raise ValueError(f"{split}.{name} is an array of {value.dtype}; only plain numbers are packed.")
        np.save(self._path(split, name), value, allow_pickle=False)

    def put_words(self, split: str, ids: tuple[str, ...], raw_text: tuple[str, ...] | None = None) -> None:
        self.words[split] = {"ids": list(ids)} if raw_text is None else {"ids": list(ids), "raw_text": list(raw_text)}

    def finish(self, **about: Any) -> Path:
        """Adds meta.json (`about`: the fields of `Dataset`; a missing fingerprint is computed), renames, returns it."""
        if not about.get("fingerprint"):
            about["fingerprint"] = fingerprint({s: _split(self.part, s, self.words[s]) for s in SPLITS})
        meta = {"format": FORMAT, **about, "splits": self.words}
        (self.part / "meta.json").write_text(json.dumps(meta, ensure_ascii=False, indent=1), encoding="utf-8")
        try:
            os.rename(self.part, self.folder)
        except OSError:
            raise FileExistsError(f"{self.folder} was made by someone else meanwhile; nothing was changed.") from None
        return self.folder

    def _path(self, split: str, name: str) -> Path:
        return self.part / f"{split}.{name}.npy"


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
        about = {k: meta[k] for k in ("name", "scale", "language", "synthetic", "encoder", "fingerprint")}
        words = {s: meta["splits"][s] for s in SPLITS}
        splits = {s: _split(folder, s, words[s]) for s in SPLITS}
        return Dataset(**splits, **about, notes=tuple(meta["notes"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder}: meta.json lacks {error}; pack it again.") from None


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
