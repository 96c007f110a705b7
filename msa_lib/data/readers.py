"""The field's files: the pickles of thuiar/MMSA and plain .npz archives, each to a `Dataset`.

`read_raw` sorts what a file holds into splits and canonical fields and changes no value; `read` then makes the tensors
and notes all it had to change. Sizes are read from the arrays, never assumed. Nothing in a file is ever run: pickles
go through `pickles.load`, archives are opened with `allow_pickle=False`.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from msa_lib import MODALITIES
from msa_lib.data import clean, pickles
from msa_lib.data.dataset import LABEL_RANGE, Dataset

SPLITS = {"train": "train", "valid": "valid", "val": "valid", "dev": "valid", "test": "test"}
OPTIONS = ("split", "valid", "valid_from", "label")
UNIMODAL = ("regression_labels_T", "regression_labels_A", "regression_labels_V")
NAMES = {  # canonical field -> what files call it
    "labels": ("regression_labels", "labels", "label", "y"),
    "ids": ("id", "ids"),
    "video": ("video_id", "video"),
    "raw_text": ("raw_text",),
    "tokens": ("text_bert", "tokens"),
    "unimodal_labels": ("unimodal_labels",),
    **{m: (m,) for m in MODALITIES},
    **{f"{m}_lengths": (f"{m}_lengths",) for m in MODALITIES},
}
MMSA_ENCODERS = {"en": "bert-base-uncased", "zh": "bert-base-chinese"}  # what filled text_bert (MMSA, MMSA-FET)


@dataclass
class Raw:
    """A file sorted into splits: split -> canonical field (see `NAMES`) -> array, features always [N,T,D]."""

    splits: dict[str, dict[str, Any]]
    notes: list[str] = field(default_factory=list)
    mmsa: bool = False


def read(path: str | Path, options: Mapping[str, str] | None = None, name: str | None = None) -> Dataset:
    """A data set from an MMSA pickle, an .npz archive or a packed folder.

    Options: `split` (the key of the split column), `label` (which of several labels), `valid` (share of samples taken
    for validation where a file has no valid part, default 0.3) and `valid_from` (train or test).
    Raises ValueError or FileNotFoundError with one sentence.
    """
    path, options = Path(path), dict(options or {})
    if path.is_dir():
        from msa_lib.data import pack

        if options:
            raise ValueError(f"{path.name} is a packed folder and takes no options; found {', '.join(options)}.")
        packed = pack.load(path)
        return packed if name is None else replace(packed, name=name)
    raw = read_raw(path, options)
    first = raw.splits["train"]
    missing = [m for m in MODALITIES if m not in first]
    dims = {m: first[m].shape[-1] for m in MODALITIES if m in first}
    counts: clean.Counts = Counter()
    splits = {
        s: clean.to_split(sample_ids(s, raw.splits[s]), raw.splits[s], missing, dims, counts, f"{path.name}: {s}")
        for s in ("train", "valid", "test")
    }
    notes = raw.notes + [f"{m} is missing from the train part and counts as missing everywhere." for m in missing]
    notes += clean.sentences(counts)
    known = (name or (path.parent.parent.name if path.parent.name == "Processed" else "")).lower()
    labels = np.concatenate([s.labels.numpy() for s in splits.values()])
    scale = label_scale(labels, known)
    reach = LABEL_RANGE[scale]
    if labels.size and np.abs(labels).max() > reach + 1e-6:
        notes.append(
            f"labels lie in [{labels.min():g}, {labels.max():g}], outside the scale [-{reach:g}, {reach:g}]: "
            f"MAE and Corr hold, accuracies do not."
        )
    language = "zh" if "sims" in known else language_of(splits["train"].raw_text)
    encoder = MMSA_ENCODERS[language] if raw.mmsa and splits["train"].tokens is not None else None
    return Dataset(name or path.stem, **splits, scale=scale, language=language, encoder=encoder, notes=tuple(notes))


def label_scale(labels: np.ndarray, name: str = "") -> str:
    """Scale "sims" for labels within [-1, 1], else "mosi"; the name of a standard set decides where there is one."""
    if "sims" in name:
        return "sims"
    return "mosi" if "mos" in name or not labels.size or np.abs(labels).max() > 1 + 1e-6 else "sims"


def language_of(texts: tuple[str, ...] | None) -> str:
    """Language "zh" if most of the first transcripts hold a Chinese character, else "en"."""
    first = (texts or ())[:50]
    chinese = sum(any("\u4e00" <= c <= "\u9fff" for c in text) for text in first)
    return "zh" if 2 * chinese > len(first) else "en"


def read_raw(path: str | Path, options: Mapping[str, str] | None = None) -> Raw:
    """What a file holds, in splits train, valid and test (taken by video where the file has none), values untouched."""
    path, options = Path(path), dict(options or {})
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise ValueError(f"{path.name} takes the options {', '.join(OPTIONS)}; found {', '.join(unknown)}.")
    if not path.is_file():
        raise FileNotFoundError(f"No file {path}.")
    with path.open("rb") as file:
        head = file.read(2)
    if head == b"PK":
        raw = _from_npz(path, options)
    elif path.suffix.lower() in (".csv", ".npy", ".json", ".txt", ".h5", ".csd"):
        raise ValueError(
            f"{path.name} is neither an MMSA pickle nor an .npz archive; a .csv of texts is encoded first."
        )
    else:
        raw = _from_pickle(path, options)
    _carve(raw, options, path.name)
    return raw


def _from_pickle(path: Path, options: Mapping[str, str]) -> Raw:
    content = pickles.load(path)
    if not isinstance(content, dict) or not any(SPLITS.get(key) for key in content if isinstance(key, str)):
        found = ", ".join(map(str, list(content)[:8])) if isinstance(content, dict) else f"a {type(content).__name__}"
        raise ValueError(f"{path.name} holds {found or 'nothing'}; expected a dict with the keys train, valid, test.")
    if "split" in options:
        raise ValueError(f"{path.name} is a pickle with its own splits and takes no option split.")
    raw = Raw({}, mmsa=True)
    for key in list(content):
        split = SPLITS.get(key) if isinstance(key, str) else None
        if split is None:
            raw.notes.append(f"the key {str(key)[:40]!r} is none of train, valid, test and is not read.")
            continue
        if split in raw.splits:
            raise ValueError(f"{path.name} holds the {split} split twice.")
        part = content.pop(key)
        if not isinstance(part, dict):
            raise ValueError(f"{path.name}: {key} is a {type(part).__name__}; expected a dict of arrays.")
        raw.splits[split] = _fields(part, f"{path.name}: {key}", options)
    return raw


def _from_npz(path: Path, options: Mapping[str, str]) -> Raw:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            content = {key: archive[key] for key in archive.files}
    except (ValueError, OSError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, SyntaxError) as error:
        reason = " ".join(str(error).split()).rstrip(".")[:160]
        raise ValueError(f"{path.name} is not an .npz archive of plain arrays: {reason}.") from None
    suffixes = [s for s in SPLITS if any(key.endswith(f"_{s}") for key in content)]
    if any(n in content for n in NAMES["labels"]):
        return _by_column(content, options, path.name)
    if "train" in suffixes and "split" not in options:
        canonical = [SPLITS[s] for s in suffixes]
        if len(set(canonical)) < len(canonical):
            raise ValueError(f"{path.name} holds the valid split twice, under several names.")
        parts = {s: {k[: -len(s) - 1]: v for k, v in content.items() if k.endswith(f"_{s}")} for s in suffixes}
        return Raw({SPLITS[s]: _fields(part, f"{path.name}: {s}", options) for s, part in parts.items()})
    raise ValueError(
        f"{path.name} holds {', '.join(list(content)[:12]) or 'nothing'}; expected labels with a split column, "
        f"or arrays named like audio_train and y_train."
    )


def _by_column(content: Mapping[str, np.ndarray], options: Mapping[str, str], where: str) -> Raw:
    """The flat layout: one row per sample, and a column that says which split it belongs to."""
    fields = _fields(content, where, options)
    columns = [c for c in ("split_bclstm", "split", "part") if c in content]
    column = options.get("split", columns[0] if columns else None)
    if column not in content:
        raise ValueError(f"{where} has no split column {column or 'split'!r}; its keys are {', '.join(content)}.")
    names = _words(content[column], len(fields["labels"]), f"{where}: the split column {column!r}")
    unknown = sorted(set(names) - set(SPLITS))
    if unknown:
        raise ValueError(
            f"{where}: the split column {column!r} has values {', '.join(unknown[:4])}; expected train, valid, test."
        )
    values = np.array([SPLITS[v] for v in names])
    splits = {s: _rows(fields, np.flatnonzero(values == s)) for s in ("train", "valid", "test") if (values == s).any()}
    return Raw(splits, notes=_leak_notes(content, column, values))


def _leak_notes(content: Mapping[str, np.ndarray], column: str, values: np.ndarray) -> list[str]:
    """bc-LSTM's features were trained with labels, on the videos its own split calls train."""
    if "split_bclstm" not in content or content["split_bclstm"].shape != values.shape:
        return []
    if column == "split_bclstm":
        return ["the split is split_bclstm: text and vision were trained with the labels of its training videos."]
    test = values == "test"
    leaked = int((test & (content["split_bclstm"] == "train")).sum())
    return [
        f"the split {column!r} LEAKS: text and vision were trained with the labels of {leaked:,} of its {test.sum():,} "
        f"test samples; use split=split_bclstm."
    ]


def _fields(source: Mapping[str, Any], where: str, options: Mapping[str, str]) -> dict[str, Any]:
    """Canonical fields of one part, shapes checked against its labels."""
    found = {f: next((source[n] for n in names if source.get(n) is not None), None) for f, names in NAMES.items()}
    if found["labels"] is None:
        raise ValueError(f"{where} has no {NAMES['labels'][0]}; its keys are {', '.join(map(str, list(source)[:12]))}.")
    fields: dict[str, Any] = {"labels": _labels(found["labels"], where, options)}
    n = len(fields["labels"])
    for m in MODALITIES:
        if found[m] is not None:
            fields[m] = _numbers(found[m], f"{where}: {m}")
            if fields[m].ndim == 2:
                fields[m] = fields[m][:, None]
            x = fields[m]
            _expect(x.ndim == 3 and len(x) == n and all(x.shape[1:]), f"{where}: {m}", x, f"[{n},T,D]")
    if found["tokens"] is not None:
        tokens = fields["tokens"] = _numbers(found["tokens"], f"{where}: text_bert")
        _expect(
            tokens.ndim == 3 and tokens.shape[:2] == (n, 3) and tokens.shape[2] > 0,
            f"{where}: text_bert",
            tokens,
            f"[{n},3,T]",
        )
    shared = source.get("lengths")
    if shared is not None:
        shared = _numbers(shared, f"{where}: lengths")
        _expect(shared.shape in ((n,), (n, 3)), f"{where}: lengths", shared, f"[{n}] or [{n},3]")
    for i, m in enumerate(MODALITIES):
        given = found[f"{m}_lengths"]
        if given is None and shared is not None:
            given = shared if shared.ndim == 1 else shared[:, i]
        if given is not None and m in fields:
            fields[f"{m}_lengths"] = given = _numbers(given, f"{where}: {m}_lengths").reshape(-1)
            _expect(len(given) == n, f"{where}: {m}_lengths", given, f"[{n}]")
    if found["unimodal_labels"] is None and all(source.get(k) is not None for k in UNIMODAL):
        found["unimodal_labels"] = columns = np.empty((n, 3))
        for i, k in enumerate(UNIMODAL):
            column = _numbers(source[k], f"{where}: {k}")
            _expect(column.size == n, f"{where}: {k}", column, f"[{n}]")
            columns[:, i] = column.reshape(-1)
    if found["unimodal_labels"] is not None:
        fields["unimodal_labels"] = given = _numbers(found["unimodal_labels"], f"{where}: unimodal_labels")
        _expect(given.shape == (n, 3), f"{where}: unimodal_labels", given, f"[{n},3]")
    for f in ("ids", "video", "raw_text"):
        if found[f] is not None:
            fields[f] = _words(found[f], n, f"{where}: {f}")
    return fields


def _labels(value: Any, where: str, options: Mapping[str, str]) -> np.ndarray:
    labels = _numbers(value, f"{where}: labels")
    if labels.ndim and labels.size == len(labels):
        if "label" in options:
            raise ValueError(f"{where} has one label per sample and takes no option label.")
        labels = labels.reshape(-1)
    elif labels.ndim == 2:
        k, width = options.get("label", ""), labels.shape[1]
        if not (k.isdecimal() and int(k) < width):
            raise ValueError(
                f"{where} has {width} labels per sample: choose one with label=K, K from 0 to {width - 1}."
            )
        labels = labels[:, int(k)]
    else:
        raise ValueError(f"{where}: labels have the shape {list(labels.shape)}; expected [N].")
    return labels


def _numbers(value: Any, where: str) -> np.ndarray:
    """`value` as a numeric array; an object array or list of equal parts is stacked."""
    part, size, depth = value, 1, 0
    while isinstance(part, (list, tuple)) or (isinstance(part, np.ndarray) and part.dtype == object and part.size):
        size, depth = size * len(part), depth + 1  # a small pickle can hold a list of lists without end
        part = part[0] if len(part) else None
    array = np.empty(0, object)
    if depth <= 4 and size <= 1 << 31:
        with suppress(ValueError, TypeError, MemoryError):
            array = np.asarray(value.tolist() if isinstance(value, np.ndarray) and value.dtype == object else value)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{where} is not one array of numbers (parts of unequal shape, or text); expected one.")
    return array


def _expect(right: bool, where: str, array: np.ndarray, shape: str) -> None:
    if not right:
        raise ValueError(f"{where} has the shape {list(array.shape)}; expected {shape.replace(',', ', ')}.")


def _words(value: Any, n: int, where: str) -> np.ndarray:
    """[N] ids or transcripts; rows of several parts (video, start, end) are joined as MMSA joins video and clip."""
    if not isinstance(value, (list, tuple, np.ndarray)) or len(value) != n:
        raise ValueError(f"{where} is not a list of {n} texts, one per sample.")
    rows = [list(v) if isinstance(v, (list, tuple, np.ndarray)) else [v] for v in value]
    if not all(isinstance(v, (str, bytes, int, float, np.generic)) for row in rows for v in row):
        raise ValueError(f"{where} holds something that is no text; expected {n} texts, one per sample.")
    words = ["$_$".join(v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in row) for row in rows]
    return np.array(words, dtype=object)


def _rows(fields: Mapping[str, Any], rows: np.ndarray) -> dict[str, Any]:
    return {name: value[rows] for name, value in fields.items()}


def video_of(sample: str) -> str:
    """The video of an id `video$_$clip` or `video_clip`; an id without either is its own video."""
    return sample.split("$_$")[0] if "$_$" in sample else sample.rpartition("_")[0] or sample


def videos(split: str, fields: Mapping[str, Any]) -> np.ndarray:
    """The video of each sample; samples without ids count as videos of their own."""
    if "video" in fields:
        return fields["video"]
    return np.array([video_of(i) for i in sample_ids(split, fields)], dtype=object)


def sample_ids(split: str, fields: Mapping[str, Any]) -> tuple[str, ...]:
    if "ids" in fields:
        return tuple(fields["ids"])
    return tuple(f"{split}{i:06d}" for i in range(len(fields["labels"])))


def _carve(raw: Raw, options: Mapping[str, str], where: str) -> None:
    """Makes the parts a file lacks out of those it has, by whole videos in the order of the SHA-256 of their names."""
    asked = [o for o in ("valid", "valid_from") if o in options]
    if {"train", "valid", "test"} <= set(raw.splits):
        if asked:
            raise ValueError(f"{where} has its own valid part and takes no option {asked[0]}.")
        return
    try:
        share = float(options.get("valid", 0.3))
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise ValueError(f"{where}: valid is {options['valid']!r}; expected a share between 0 and 1.")
    if "train" not in raw.splits:
        _recast(raw, where)
    if "test" not in raw.splits:
        raise ValueError(f"{where} has the parts {', '.join(raw.splits)}; expected train, test and perhaps valid.")
    bclstm = any("split_bclstm:" in note for note in raw.notes)
    source = options.get("valid_from", "test" if bclstm else "train")
    if source not in ("train", "test"):
        raise ValueError(f"{where}: valid_from is {source!r}; expected train or test.")
    fields = raw.splits[source]
    taken, count = _take(videos(source, fields), share)
    fields.setdefault("ids", np.array(sample_ids(source, fields), dtype=object))
    raw.splits["valid"], raw.splits[source] = (
        _rows(fields, np.flatnonzero(taken)),
        _rows(fields, np.flatnonzero(~taken)),
    )
    raw.notes.append(
        f"the file has no valid part: {taken.sum():,} of {len(taken):,} {source} samples ({count} whole videos) are "
        f"used for validation."
    )


def _recast(raw: Raw, where: str) -> None:
    """No train part: the larger of the two parts is trained on, the other one stays the test set."""
    if len(raw.splits) != 2:
        raise ValueError(f"{where} has only the part {', '.join(raw.splits)}; expected train, test and perhaps valid.")
    large, small = sorted(raw.splits, key=lambda name: len(raw.splits[name]["labels"]), reverse=True)
    raw.notes.append(
        f"the file has no train part: its {large} part is trained on and its {small} part is the test set."
    )
    raw.splits = {"train": raw.splits[large], "test": raw.splits[small]}


def _take(names: np.ndarray, share: float) -> tuple[np.ndarray, int]:
    """[N] video names -> [N] bool, True for whole videos of at least `share` of the samples, and how many videos."""
    sizes = Counter(names.tolist())
    taken: set[str] = set()
    size = 0
    for name in sorted(sizes, key=lambda v: hashlib.sha256(v.encode()).digest())[: len(sizes) - 1]:
        if size >= share * len(names):
            break
        taken.add(name)
        size += sizes[name]
    if not taken:
        raise ValueError("The samples are all of one video, so no validation videos can be taken out of them.")
    return np.array([v in taken for v in names.tolist()]), len(taken)
