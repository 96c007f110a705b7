"""The field's files: the pickles of thuiar/MMSA and plain .npz archives, each to a `Dataset`.

`read_raw` sorts what a file holds into splits and canonical fields and changes no value; `read` then makes the tensors
and notes all it had to change. Sizes are read from the arrays, never assumed. Nothing in a file is ever run: pickles
go through `pickles.load`, archives are opened with `allow_pickle=False`.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from msa_lib import MODALITIES
from msa_lib.data import clean, kinds, pickles
from msa_lib.data.dataset import LABEL_RANGE, SPLITS, Dataset
from msa_lib.data.fields import Part, names_said, sort_part, words
from msa_lib.data.names import NAMES, SPLIT_COLUMNS, is_feature, is_label, listed, part_of, plain
from msa_lib.data.padding import front_padded
from msa_lib.data.videos import doubts, sample_ids, shared, take, videos

CHOSEN = {f"{part}_part": part for part in SPLITS}  # options that say which key or value is which part
OPTIONS = ("split", "valid", "valid_from", "label", *CHOSEN, *MODALITIES)
MMSA_ENCODERS = {"en": "bert-base-uncased", "zh": "bert-base-chinese"}  # what filled text_bert (MMSA, MMSA-FET)
MOST_CLASSES = 20
UNPACKED = 1 << 32, 64  # bytes that an archive may unpack to: at least this, or so often its size


@dataclass
class Raw:
    """A file sorted into splits: split -> canonical field (see `names`) -> array, features always [N,T,D]."""

    splits: dict[str, dict[str, Any]]
    notes: list[str] = field(default_factory=list)
    mmsa: bool = False


def read(path: str | Path, options: Mapping[str, str] | None = None, name: str | None = None) -> Dataset:
    """A data set from an MMSA pickle, an .npz archive or a packed folder.

    Options: `split` (the key of the split column), `train_part`, `valid_part`, `test_part` (the key, or the value of
    the split column, of a part that goes by another name), `label` (which of several labels), `text`, `audio`,
    `vision` (the key of a modality), `valid` (share of samples taken for validation where a file has no valid part,
    default 0.3) and `valid_from` (train or test). Raises ValueError or FileNotFoundError with one sentence.
    """
    path, options = Path(path), dict(options or {})
    if path.is_dir():
        return _packed(path, options, name)
    with np.errstate(invalid="ignore"):  # a signalling NaN is counted like any other, and no reason to warn
        return to_dataset(read_raw(path, options), path, name)


def to_dataset(raw: Raw, path: Path, name: str | None = None) -> Dataset:
    """The tensors of what `path` holds. Takes the features out of `raw`, so that none is held twice."""
    first = raw.splits["train"]
    missing = [m for m in MODALITIES if m not in first]
    dims = {m: first[m].shape[-1] for m in MODALITIES if m in first}
    unknown = [m for m in ("audio", "vision") if m in dims and f"{m}_lengths" not in first]
    front = [m for m in unknown if front_padded(part[m] for part in raw.splits.values() if m in part)]
    counts: clean.Counts = Counter()
    splits = {
        s: clean.to_split(
            sample_ids(s, raw.splits[s]), raw.splits[s], missing, dims, counts, f"{path.name}: {s}", front
        )
        for s in SPLITS
    }
    known = (name or (path.parent.parent.name if path.parent.name == "Processed" else "")).lower()
    labels = np.concatenate([s.labels.numpy() for s in splits.values()])
    scale = label_scale(labels, known)
    notes = raw.notes + clean.sentences(counts) + label_doubts(labels, scale)
    if all("ids" in part or "video" in part for part in raw.splits.values()):
        notes += shared(videos(raw.splits)[0])
    language = "zh" if "sims" in known else language_of(splits["train"].raw_text)
    encoder = MMSA_ENCODERS[language] if raw.mmsa and splits["train"].tokens is not None else None
    return Dataset(name or path.stem, **splits, scale=scale, language=language, encoder=encoder, notes=tuple(notes))


def _packed(folder: Path, options: Mapping[str, str], name: str | None) -> Dataset:
    from msa_lib.data import pack

    if options:
        raise ValueError(f"{folder.name} is a packed folder and takes no options; found {listed(options)}.")
    packed = pack.load(folder)
    return packed if name is None else replace(packed, name=name)


def missing_said(splits: Mapping[str, Mapping[str, Any]], where: str) -> list[str]:
    """Which modalities a file lacks, and where; ValueError if it has none."""
    parts = {m: [s for s in SPLITS if m in splits[s]] for m in MODALITIES}
    if not any("train" in have for have in parts.values()) and "tokens" not in splits["train"]:
        raise ValueError(
            f"{where} holds no features in its train part: expected text, audio or vision, or another name of them "
            f"that the table knows (text=KEY, audio=KEY, vision=KEY name one)."
        )
    said = []
    for m, have in parts.items():
        lack = [s for s in SPLITS if s not in have]
        if "train" in lack:
            tokens = "; only an encoder that is fine-tuned can use its tokens" if "tokens" in splits["train"] else ""
            said.append(f"{m} is missing from the train part and counts as missing everywhere{tokens * (m == 'text')}.")
        elif lack:
            said.append(f"{m} is missing from {' and '.join(lack)}, where it counts as a sequence of length 0.")
    return said


def label_doubts(labels: np.ndarray, scale: str) -> list[str]:
    """Labels [N] that are no sentiment on a scale: classes, or numbers beyond it."""
    labels = labels[np.isfinite(labels)]
    values, reach = np.unique(labels), LABEL_RANGE[scale]
    said = []
    whole = 1 < len(values) <= MOST_CLASSES and (values == np.rint(values)).all()
    if whole and (values.min() >= 0 or set(values) <= {-1, 0, 1}):
        said.append(
            f"THE LABELS LOOK LIKE CLASSES: only {', '.join(f'{v:g}' for v in values)} occur. They are read as amounts "
            f"of sentiment (class 2 is twice class 1, and 0 is neutral), so no score is what it seems; expected "
            f"regression labels from -{reach:g} to {reach:g}."
        )
    if labels.size and np.abs(labels).max() > reach + 1e-6:
        said.append(
            f"labels lie in [{labels.min():g}, {labels.max():g}], outside the scale [-{reach:g}, {reach:g}]: "
            f"MAE and Corr hold, accuracies do not."
        )
    return said


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
    try:
        return _read_raw(Path(path), dict(options or {}))
    except ValueError as problem:  # names that a file gives its parts may hold line ends and what steers a terminal
        if len(problem.args) == 1:
            problem.args = ("".join(c if c.isprintable() else "?" for c in str(problem)),)
        raise


def _read_raw(path: Path, options: dict[str, str]) -> Raw:
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise ValueError(f"{path.name} takes the options {', '.join(OPTIONS)}; found {', '.join(unknown)}.")
    if not path.is_file():
        raise FileNotFoundError(f"No file {path}.")
    if other := kinds.something_else(path):
        raise ValueError(f"{path.name} {other}")
    raw = _from_npz(path, options) if kinds.is_zip(path) else _from_pickle(path, options)
    _carve(raw, options, path.name)
    raw.notes += missing_said(raw.splits, path.name)
    return raw


def _from_pickle(path: Path, options: Mapping[str, str]) -> Raw:
    try:
        content = pickles.load(path)
    except ValueError:
        if damage := kinds.damage(path):
            raise ValueError(f"{path.name} {damage}") from None
        raise
    if "split" in options:
        raise ValueError(f"{path.name} is a pickle with its own splits and takes no option split.")
    expected = "expected a dict with the keys train, valid, test"
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds a {type(content).__name__}; {expected}.")
    chosen = assigned(content, options, path.name, lambda key: _is_part(content[key]))
    if not chosen:
        raise ValueError(f"{path.name} holds {listed(content) or 'nothing'}; {expected}.")
    parts = {}
    for split in sorted(chosen, key=SPLITS.index):
        key = chosen[split]
        part = content.pop(key)
        if not isinstance(part, dict):
            raise ValueError(
                f"{path.name}: {key} is a {type(part).__name__}; expected a dict of arrays, each with all samples."
            )
        parts[split] = sort_part(part, f"{path.name}: {key}", options)
    notes = [f"the keys {listed(content)} are none of train, valid, test and are not read."] if content else []
    return _raw(parts, _parts_said(chosen) + notes, mmsa=True)


def _is_part(value: Any) -> bool:
    """Whether what stands under an unknown key could be samples."""
    return isinstance(value, dict) and any(is_label(k) or is_feature(k) for k in value)


def assigned(found, options: Mapping[str, str], where: str, holds_samples: Callable[[Any], bool]) -> dict[str, Any]:
    """Split -> the key (or value of a split column) that is it. Nothing is guessed: a name that may be a mixture, two
    names for one split, and an unknown name that holds samples are refused, unless options say which is which."""
    found = list(found)
    chosen: dict[str, Any] = {}
    for option, split in CHOSEN.items():
        if option in options:
            value = options[option]
            named = [key for key in found if str(key) == value]
            named = named or [key for key in found if part_of(key) is not None and part_of(key) == part_of(value)]
            if len(named) != 1 or named[0] in chosen.values():
                raise ValueError(f"{where}: {option}={value!r} is none of {listed(found)}, or is taken twice.")
            chosen[split] = named[0]
    asked = bool(chosen)
    for key in found:
        split = part_of(key)
        if key in chosen.values() or (asked and split in chosen):
            continue
        if split in chosen:
            raise ValueError(
                f"{where} holds the {split} split twice, as {chosen[split]!r} and {key!r}; "
                f"choose with {split}_part=NAME."
            )
        if split is not None:
            chosen[split] = key
    unknown = [key for key in found if key not in chosen.values() and holds_samples(key)]
    if unknown and not asked:
        raise ValueError(
            f"{where} holds {listed(found)}: {unknown[0]!r} is none of train, valid, test beyond doubt, and a split is "
            f"never guessed; say which is which with train_part=NAME, valid_part=NAME, test_part=NAME (what is neither "
            f"named nor known is then left out)."
        )
    return chosen


def _parts_said(chosen: Mapping[str, Any]) -> list[str]:
    other = [f"{key!r} is read as {split}" for split, key in chosen.items() if part_of(key) != split]
    return [f"as asked, {', '.join(other)}."] if other else []


def _raw(parts: Mapping[str, Part], notes: list[str], mmsa: bool = False) -> Raw:
    return Raw({s: part.fields for s, part in parts.items()}, notes + names_said(parts), mmsa)


def _from_npz(path: Path, options: Mapping[str, str]) -> Raw:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            size = sum(part.file_size for part in archive.zip.infolist())
            if size > max(UNPACKED[0], UNPACKED[1] * path.stat().st_size):
                raise ValueError(f"it unpacks to {size:,} bytes, far more than data of its size would")
            content = {key: archive[key] for key in archive.files}
    except Exception as error:  # hostile bytes can fail anywhere in zipfile, zlib, tokenize and numpy
        reason = " ".join(str(error).split()).rstrip(".")[:160] or type(error).__name__
        if "allow_pickle" in reason:
            reason = "it holds Python objects, which are never loaded; save numbers, and texts as arrays of text"
        elif isinstance(error, (zipfile.BadZipFile, EOFError)):
            reason = f"{reason}; {kinds.AGAIN}"
        raise ValueError(f"{path.name} is not an .npz archive of plain arrays: {reason}.") from None
    if any(plain(key) in NAMES["labels"] for key in content):
        return _by_column(content, options, path.name)
    if "split" not in options:
        ends = {key: _ending(key) for key in content}
        suffixes = list(dict.fromkeys(end for _, end in ends.values() if end))
        labelled = {end for stem, end in ends.values() if end and is_label(stem)}
        chosen = assigned(suffixes, options, path.name, labelled.__contains__)
        if "train" in chosen:
            parts = {}
            for split, suffix in sorted(chosen.items(), key=lambda item: SPLITS.index(item[0])):
                own = {stem: content[key] for key, (stem, end) in ends.items() if end == suffix}
                parts[split] = sort_part(own, f"{path.name}: {suffix}", options)
            rest = [key for key, (_, end) in ends.items() if end not in chosen.values()]
            notes = [f"the keys {listed(rest)} belong to none of train, valid, test and are not read."] if rest else []
            return _raw(parts, _parts_said(chosen) + notes)
    raise ValueError(
        f"{path.name} holds {listed(content, 12) or 'nothing'}; expected labels with a split column, "
        f"or arrays named like audio_train and y_train."
    )


def _ending(key: str) -> tuple[str, str]:
    """ "audio_train" -> ("audio", "train"): the longest ending that is a part, else whatever follows a known name."""
    cuts = [i for i, letter in enumerate(key) if letter == "_" and 0 < i < len(key) - 1]
    for i in cuts:
        if part_of(key[i + 1 :]):
            return key[:i], key[i + 1 :]
    for i in reversed(cuts):
        if is_label(key[:i]) or is_feature(key[:i]):
            return key[:i], key[i + 1 :]
    return key, ""


def _by_column(content: Mapping[str, np.ndarray], options: Mapping[str, str], where: str) -> Raw:
    """The flat layout: one row per sample, and a column that says which split it belongs to."""
    columns = [c for c in SPLIT_COLUMNS if c in content]
    part = sort_part(content, where, options, ignore=[*columns, options.get("split")])
    column = options.get("split") or _split_column(content, columns, where)
    if column not in content:
        raise ValueError(f"{where} has no split column {column or 'split'!r}; its keys are {', '.join(content)}.")
    values = words(content[column], len(part.fields["labels"]), f"{where}: the split column {column!r}")
    splits, said = by_values(values, options, f"{where}: the split column {column!r}")
    parts = {s: _rows(part.fields, np.flatnonzero(splits == s)) for s in SPLITS if (splits == s).any()}
    return Raw(parts, [*said, *names_said({"the table": part}), *_leak_notes(content, column, splits)])


def _split_column(content: Mapping[str, np.ndarray], columns: list[str], where: str) -> str | None:
    """The split column of a table that names none: the only one, or one of several that say the same."""
    if "split_bclstm" in columns:  # bc-LSTM's own features are only fair on it
        return "split_bclstm"
    different = [c for c in columns[1:] if not np.array_equal(content[c], content[columns[0]])]
    if different:
        raise ValueError(f"{where} has the split columns {listed(columns)}, which differ: choose one with split=NAME.")
    return columns[0] if columns else None


def by_values(values: np.ndarray, options: Mapping[str, str], where: str) -> tuple[np.ndarray, list[str]]:
    """[N] values of a split column -> [N] train, valid, test ("" for what is left out as asked), and what to note."""
    plainer = np.array([v.strip() for v in values], dtype=object)
    spelt: dict[str, str] = {}  # "Train" and "train" are one value, spelt in two ways
    plainer = np.array([spelt.setdefault(v.casefold(), v) for v in plainer], dtype=object)
    found = list(dict.fromkeys(plainer.tolist()))
    if not any(o in options for o in CHOSEN) and (unknown := sorted(v for v in found if part_of(v) is None)):
        raise ValueError(
            f"{where} has values {', '.join(v[:40] or '(empty)' for v in unknown[:4])}; expected train, valid, test (a "
            f"split is never guessed; train_part=VALUE, valid_part=VALUE, test_part=VALUE say what others mean)."
        )
    chosen = assigned(found, options, where, lambda value: True)
    split_of = {value: split for split, value in chosen.items()}
    splits = np.array([split_of.get(v, "") for v in plainer.tolist()])
    left = int((splits == "").sum())
    said = [f"{left:,} samples of other parts are left out."] if left else []
    return splits, _parts_said(chosen) + said


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


def _rows(fields: Mapping[str, Any], rows: np.ndarray) -> dict[str, Any]:
    return {name: value[rows] for name, value in fields.items()}


def _carve(raw: Raw, options: Mapping[str, str], where: str) -> None:
    """Takes a missing valid part out of train (or test), by whole videos in the order of the SHA-256 of their names."""
    asked = [o for o in ("valid", "valid_from") if o in options]
    lacking = [s for s in ("train", "test") if s not in raw.splits]
    if lacking:
        raise ValueError(
            f"{where} has only {listed(raw.splits)} and no {lacking[0]} part; expected train, test and perhaps valid "
            f"(a part that is to serve as another is named, as in train_part=test&test_part=valid)."
        )
    if "valid" in raw.splits:
        if asked:
            raise ValueError(f"{where} has its own valid part and takes no option {asked[0]}.")
        return
    try:
        share = float(options.get("valid", 0.3))
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise ValueError(f"{where}: valid is {options['valid']!r}; expected a share between 0 and 1.")
    bclstm = any("split_bclstm:" in note for note in raw.notes)
    source = options.get("valid_from", "test" if bclstm else "train")
    if source not in ("train", "test"):
        raise ValueError(f"{where}: valid_from is {source!r}; expected train or test.")
    fields = raw.splits[source]
    named, reading = videos(raw.splits)
    taken, count = take(named[source], share, f"{where}: {source}")
    fields.setdefault("ids", np.array(sample_ids(source, fields), dtype=object))
    raw.splits["valid"], raw.splits[source] = (
        _rows(fields, np.flatnonzero(taken)),
        _rows(fields, np.flatnonzero(~taken)),
    )
    raw.notes.append(
        f"the file has no valid part: {taken.sum():,} of {len(taken):,} {source} samples ({count} whole videos) are "
        f"used for validation; their videos are known by: {reading.form}."
    )
    raw.notes += doubts(named, reading)
