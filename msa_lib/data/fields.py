"""One part of a file, sorted: its keys become canonical fields with checked shapes, and values stay as they are.

A feature under another name than text, audio, vision is read by the table in `names` if it is the only candidate.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from msa_lib import MODALITIES
from msa_lib.data.names import CLIP_ONLY, FEATURES, LENGTHS, NAMES, UNIMODAL, UNUSED, listed, plain, text_of


@dataclass
class Part:
    """Canonical field -> array, features always [N,T,D]; which key each feature came from; keys that nothing reads."""

    fields: dict[str, Any]
    keys: dict[str, str]
    unread: list[str]


def sort_part(source: Mapping[str, Any], where: str, options: Mapping[str, str], ignore: Collection[str] = ()) -> Part:
    """The fields of one part; raises ValueError with one sentence for what is missing or does not fit together.

    Options `text`, `audio`, `vision` name the key of a modality, `label` the column of several labels; keys in
    `ignore` belong to the layout.
    """
    source = {key: value for key, value in source.items() if value is not None}
    keys = _choose(source, where, options)
    if "labels" not in keys:
        classes = next((k for k in source if plain(k).startswith("classificationlabel")), None)
        hint = f" ({text_of(classes)} are classes, and sentiment is a number here)" if classes is not None else ""
        raise ValueError(f"{where} has no regression_labels{hint}; its keys are {listed(source, 12)}.")
    labels = choose_label(source[keys["labels"]], where, options)
    fields: dict[str, Any] = {"labels": labels}
    n = len(labels)
    if not n:
        raise ValueError(f"{where} is a part without samples; expected at least one (or no such part).")
    for m in MODALITIES:
        if m in keys:
            fields[m] = numbers(source[keys[m]], f"{where}: {m}")
            if fields[m].ndim == 2:
                fields[m] = fields[m][:, None]
            x = fields[m]
            expect(x.ndim == 3 and len(x) == n and all(x.shape[1:]), f"{where}: {m}", x, f"[{n},T,D]")
    if "tokens" in keys:
        tokens = fields["tokens"] = numbers(source[keys["tokens"]], f"{where}: text_bert")
        right = tokens.ndim == 3 and tokens.shape[:2] == (n, 3) and tokens.shape[2] > 0
        expect(right, f"{where}: text_bert", tokens, f"[{n},3,T]")
        if not (tokens.min() >= 0 and np.isfinite(tokens).all() and (tokens == np.rint(tokens)).all()):
            raise ValueError(
                f"{where}: text_bert holds values that are no token ids; expected whole numbers from 0 on."
            )
    used = set(keys.values()) | _lengths(source, fields, keys, n, where) | _unimodal(source, fields, keys, n, where)
    for name in ("ids", "video", "raw_text"):
        if name in keys:
            fields[name] = words(source[keys[name]], n, f"{where}: {name}")
    if "ids" in keys and "video" in keys and plain(keys["ids"]) in CLIP_ONLY:
        pairs = zip(fields["video"], fields["ids"], strict=True)
        fields["ids"] = np.array([c if c.startswith(v) else f"{v}$_${c}" for v, c in pairs], dtype=object)
    unread = [str(k) for k in source if k not in used and plain(k) not in UNUSED and k not in ignore]
    return Part(fields, {name: str(text_of(key)) for name, key in keys.items()}, unread)


def _choose(source: Mapping[str, Any], where: str, options: Mapping[str, str]) -> dict[str, Any]:
    """Canonical field -> the key it is read from."""
    keys: dict[str, Any] = {}
    tokens = [k for k in source if plain(k) in NAMES["tokens"] and (plain(k) != "bert" or _is_tokens(source[k]))]
    chosen = {options[m] for m in MODALITIES if m in options}
    for m in MODALITIES:
        if m in options:
            named = [k for k in source if text_of(k) == options[m]]
            if not named:
                raise ValueError(f"{where} has no key {options[m]!r} for {m}; its keys are {listed(source, 12)}.")
            keys[m] = named[0]
            continue
        found = [k for k in source if plain(k) in FEATURES[m] and k not in tokens and _may_be(m, k, source[k])]
        found = [k for k in found if text_of(k) not in chosen]
        if len(found) > 1:
            raise ValueError(
                f"{where} has {len(found)} candidates for {m}, {' and '.join(map(repr, map(text_of, found)))}: "
                f"choose one with {m}=NAME."
            )
        if found:
            keys[m] = found[0]
    for name, known in NAMES.items():
        found = sorted((k for k in source if plain(k) in known), key=lambda k: known.index(plain(k)))
        found = [k for k in found if k not in keys.values()]
        found = [k for k in found if (k in tokens if name == "tokens" else _is_column_of(name, k, source[k]))]
        if found:
            keys[name] = found[0]
    return keys


def _may_be(m: str, key: Any, value: Any) -> bool:
    """Whether a key with a modality's name holds features: not the names of videos, nor sentences."""
    if m == "vision" and plain(key) == "video":
        return not _is_words(value) and not _is_column(value)
    return plain(key) in ("audio", "vision") or not _is_words(value)


def _is_column_of(name: str, key: Any, value: Any) -> bool:
    """Whether a key of the table is what it says: "words", "text" and "video" are features as often."""
    if name == "raw_text" and plain(key) in FEATURES["text"]:
        return _is_words(value)
    return plain(key) != "video" or _is_words(value) or _is_column(value)


def _first(value: Any) -> tuple[Any, int]:
    """The first leaf of nested lists or an array, and how deep it lies."""
    depth = 0
    while isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim and value.size):
        if isinstance(value, np.ndarray) and value.dtype != object:
            return value.reshape(-1)[0], depth + value.ndim
        if depth > 8 or not len(value):
            return None, depth + 1
        value, depth = value[0], depth + 1
    return value, depth


def _is_words(value: Any) -> bool:
    return isinstance(_first(value)[0], (str, bytes))


def _is_column(value: Any) -> bool:
    return _first(value)[1] == 1


def _is_tokens(value: Any) -> bool:
    """[N,3,T] whole numbers whose middle row is a mask."""
    with suppress(ValueError):
        x = numbers(value, "")
        return x.ndim == 3 and x.shape[1] == 3 and bool(np.isin(x[:, 1], (0, 1)).all() and (x == np.rint(x)).all())
    return False


def _lengths(source: Mapping, fields: dict[str, Any], keys: Mapping[str, Any], n: int, where: str) -> set:
    """Adds the given lengths; returns the keys they came from. Lengths of one modality go before shared ones."""
    used = set()
    shared = next((k for k in source if plain(k) in LENGTHS), None)
    if shared is not None:
        used.add(shared)
        both = numbers(source[shared], f"{where}: lengths")
        expect(both.shape in ((n,), (n, 3)), f"{where}: lengths", both, f"[{n}] or [{n},3]")
    for i, m in enumerate(MODALITIES):
        stems = {m, plain(keys.get(m, m)), *(FEATURES[m] if m in keys else ())}
        own = [k for k in source if any(plain(k) == stem + end for stem in stems for end in LENGTHS)]
        used |= set(own)
        if len(own) > 1:
            raise ValueError(f"{where} has the lengths of {m} twice, as {listed(own)}; expected one of them.")
        if m not in keys or (not own and shared is None):
            continue
        given = numbers(source[own[0]], f"{where}: {m}_lengths") if own else both if both.ndim == 1 else both[:, i]
        fields[f"{m}_lengths"] = given = given.reshape(-1)
        expect(len(given) == n, f"{where}: {m}_lengths", given, f"[{n}]")
        if wrong := int((~np.isfinite(given)).sum()):
            raise ValueError(f"{where}: {wrong:,} {m}_lengths are not usable; expected whole numbers from 0 on.")
    return used


def _unimodal(source: Mapping, fields: dict[str, Any], keys: Mapping[str, Any], n: int, where: str) -> set:
    """Adds unimodal labels, from one array or three; returns the keys they came from."""
    three = [next((k for k in source if plain(k) == name), None) for name in UNIMODAL]
    if "unimodal_labels" in keys:
        fields["unimodal_labels"] = given = numbers(source[keys["unimodal_labels"]], f"{where}: unimodal_labels")
        expect(given.shape == (n, 3), f"{where}: unimodal_labels", given, f"[{n},3]")
    elif None not in three:
        columns = np.empty((n, 3))
        for i, k in enumerate(three):
            column = numbers(source[k], f"{where}: {text_of(k)}")
            expect(column.size == n, f"{where}: {text_of(k)}", column, f"[{n}]")
            columns[:, i] = column.reshape(-1)
        fields["unimodal_labels"] = columns
    else:
        return set()
    if np.isnan(fields["unimodal_labels"]).all():  # columns that a table has and nobody filled in
        del fields["unimodal_labels"]
    return {k for k in three if k is not None}


def choose_label(value: Any, where: str, options: Mapping[str, str]) -> np.ndarray:
    """[N] labels: the only ones, or column `label` of [N,K] (or [N,1,K], [N,K,1])."""
    labels = numbers(value, f"{where}: labels")
    shape = list(labels.shape)
    if not shape:
        raise ValueError(f"{where}: labels is one number; expected [N].")
    if len(labels) and labels.ndim > 2 and sum(size > 1 for size in shape[1:]) <= 1:
        labels = labels.reshape(len(labels), -1)
    if labels.ndim and labels.size == len(labels):
        if "label" in options:
            raise ValueError(f"{where} has one label per sample and takes no option label.")
        return labels.reshape(-1)
    if labels.ndim != 2 or not labels.shape[1]:
        raise ValueError(f"{where}: labels have the shape {shape}; expected [N].")
    k, width = options.get("label", ""), labels.shape[1]
    if not (k.isdecimal() and int(k) < width):
        found = f"; found label={k!r}" if k else ""
        raise ValueError(
            f"{where} has {width} labels per sample: choose one with label=K, K from 0 to {width - 1}{found}."
        )
    return labels[:, int(k)]


def numbers(value: Any, where: str) -> np.ndarray:
    """`value` as a numeric array; an object array or list of equal parts is stacked."""
    part, size, depth = value, 1, 0
    while isinstance(part, (list, tuple)) or (
        isinstance(part, np.ndarray) and part.dtype == object and part.size and part.ndim
    ):
        size, depth = size * len(part), depth + 1  # a small pickle can hold a list of lists without end
        part = part[0] if len(part) else None
    array = np.empty(0, object)
    if depth <= 4 and size <= 1 << 31:
        with suppress(ValueError, TypeError, MemoryError, OverflowError):
            array = np.asarray(value.tolist() if isinstance(value, np.ndarray) and value.dtype == object else value)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{where} is not one array of numbers (parts of unequal shape, or text); expected one.")
    return array


def expect(right: bool, where: str, array: np.ndarray, shape: str) -> None:
    if not right:
        raise ValueError(f"{where} has the shape {list(array.shape)}; expected {shape.replace(',', ', ')}.")


def words(value: Any, n: int, where: str) -> np.ndarray:
    """[N] ids or transcripts; rows of several parts (video, start, end) are joined as MMSA joins video and clip."""
    if not isinstance(value, (list, tuple, np.ndarray)) or getattr(value, "ndim", 1) < 1 or len(value) != n:
        raise ValueError(f"{where} is not a list of {n} texts, one per sample.")
    rows = [list(v) if isinstance(v, (list, tuple, np.ndarray)) else [v] for v in value]
    if not all(isinstance(v, (str, bytes, int, float, np.generic)) for row in rows for v in row):
        raise ValueError(f"{where} holds something that is no text; expected {n} texts, one per sample.")
    joined = ["$_$".join(v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in row) for row in rows]
    return np.array(joined, dtype=object)


def names_said(parts: Mapping[str, Part]) -> list[str]:
    """For `Dataset.notes`: features under other names, and keys that nothing reads."""
    said = []
    for m in MODALITIES:
        used = dict.fromkeys(part.keys[m] for part in parts.values() if m in part.keys)
        if len({plain(k) for k in used}) > 1:
            raise ValueError(f"{m} is called {' and '.join(map(repr, used))} in different parts; choose with {m}=NAME.")
        other = [k for k in used if k != m]
        if other:
            said.append(f"{m} is read from the key {other[0]!r}.")
    unread: dict[str, list[str]] = {}
    for name, part in parts.items():
        for key in part.unread:
            unread.setdefault(key, []).append(name)
    if unread:
        whole = [k for k, where in unread.items() if len(where) == len(parts)]
        some = [f"{k} (in {', '.join(where)})" for k, where in unread.items() if len(where) < len(parts)]
        said.append(f"nothing reads the keys {listed([*whole, *some], 12)}.")
    return said
