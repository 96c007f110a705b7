"""From the arrays of a file to the tensors of a `Split`: non-finite values, lengths, padding, missing modalities.

Everything that is changed or left out on the way is counted, and `sentences` says it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch

from msa_lib import MODALITIES
from msa_lib.data.dataset import Split

ROWS = 256  # samples looked at together, so that no mask of the size of the data is built
Counts = Counter[tuple[str, str]]  # (what was found, modality) -> how many


def to_split(
    ids: tuple[str, ...],
    fields: dict[str, Any],
    missing: Collection[str],
    dims: Mapping[str, int],
    counts: Counts,
    where: str,
) -> Split:
    """One part of a file as tensors. Takes the features out of `fields`, so that none is held twice.

    `missing` names the modalities the whole data set lacks: zeros [N,1,1] of length 0. One that only this part lacks
    has zeros [N,1,D] of length 0, D from `dims`.
    """
    n = len(fields["labels"])
    for name in ("labels", *(f"{m}_lengths" for m in MODALITIES)):
        value = fields.get(name)
        wrong = 0 if value is None else int((~np.isfinite(value) | ((name != "labels") & (value < 0))).sum())
        if wrong:
            expected = "numbers" if name == "labels" else "whole numbers from 0 on"
            raise ValueError(f"{where}: {wrong:,} {name} are not usable; expected {expected}.")
    tokens = _tokens(fields.get("tokens"), where)
    features, absent = {}, set()
    for m in MODALITIES:
        if m in missing or m not in fields:
            absent.add(m)
            features[m] = np.zeros((n, 1, dims.get(m, 1)), np.float32)
            continue
        x = fields.pop(m)
        if x.shape[-1] != dims[m]:
            raise ValueError(f"{where}: {m} has {x.shape[-1]} features where the train part has {dims[m]}.")
        features[m] = finite(x, m, counts)
    if "text" in absent and tokens is not None:  # only an encoder can use it, and it needs the steps
        features["text"] = np.zeros((n, tokens.shape[-1], features["text"].shape[-1]), np.float32)
    lengths, own = _lengths(features, fields, tokens, absent, counts)
    _to_front(features, lengths, own, counts)
    unimodal = fields.get("unimodal_labels")
    return Split(
        **{m: torch.from_numpy(x) for m, x in features.items()},
        lengths=torch.from_numpy(np.stack([lengths[m] for m in MODALITIES], 1)),
        labels=torch.from_numpy(fields["labels"].astype(np.float32)),
        ids=ids,
        unimodal_labels=None if unimodal is None else torch.from_numpy(unimodal.astype(np.float32)),
        raw_text=tuple(fields["raw_text"]) if "raw_text" in fields else None,
        tokens=None if tokens is None else torch.from_numpy(tokens),
    )


def finite(x: np.ndarray, m: str, counts: Counts) -> np.ndarray:
    """`x` as writable float32 with 0 for whatever is not finite; `x` itself if there is nothing to change."""
    with np.errstate(over="ignore", invalid="ignore"):
        result = np.require(x, np.float32, ["C", "W"])
    counts["values", m] += x.size
    for start in range(0, len(x), ROWS):
        bad = ~np.isfinite(result[start : start + ROWS])
        if bad.any():
            if np.may_share_memory(result, x):  # two splits of a file may be one array
                result = x.copy()
            counts["not finite", m] += int(bad.sum())
            result[start : start + ROWS][bad] = 0.0
    return result


def nonzero_steps(x: np.ndarray) -> np.ndarray:
    """[N,T,D] -> [N,T] bool, True where a step holds anything but zeros."""
    return x.any(-1)


def last_step(steps: np.ndarray) -> np.ndarray:
    """[N,T] bool -> [N] int64, one past the last True, at least 1."""
    t = steps.shape[1]
    return np.where(steps.any(1), t - steps[:, ::-1].argmax(1), 1).astype(np.int64)


def _tokens(tokens: np.ndarray | None, where: str) -> np.ndarray | None:
    if tokens is None:
        return None
    if not np.isfinite(tokens).all() or (tokens.size and tokens.min() < 0):
        raise ValueError(f"{where}: text_bert holds values that are no token ids; expected whole numbers from 0 on.")
    return np.ascontiguousarray(tokens).astype(np.int64)


def _lengths(
    features: Mapping[str, np.ndarray],
    fields: Mapping[str, Any],
    tokens: np.ndarray | None,
    absent: Collection[str],
    counts: Counts,
) -> tuple[dict[str, np.ndarray], set[str]]:
    """The lengths [N] of each modality, and which of them were read off that modality's own frames."""
    lengths: dict[str, np.ndarray] = {}
    own = set()
    for m in MODALITIES:
        x = features[m]
        n, t = x.shape[:2]
        given = fields.get(f"{m}_lengths")
        if m == "text" and tokens is not None and (given is None or m in absent):
            given = tokens[:, 1].sum(-1)
        if given is not None and (m not in absent or (m == "text" and tokens is not None)):
            given = given.astype(np.int64)
            counts["long", m] += int((given > t).sum())
            lengths[m] = given.clip(max=t)
        elif m in absent:
            lengths[m] = np.zeros(n, np.int64)
        elif m != "text" and "text" not in absent and t == features["text"].shape[1]:  # aligned
            lengths[m] = lengths["text"]
        else:
            steps = nonzero_steps(x)
            lengths[m] = last_step(steps)
            own.add(m)
            if m == "text":  # zeros in front of a full last step: padding stands in front (as in the files of MulT)
                front = steps.argmax(1)
                lengths[m] = np.where(steps.any(1) & steps[:, -1], t - front, lengths[m]).astype(np.int64)
                own.discard(m)
    if tokens is not None:
        own.add("text")  # the mask says where the words stand
    return lengths, own | set(absent)


def _to_front(
    features: dict[str, np.ndarray], lengths: Mapping[str, np.ndarray], own: Collection[str], counts: Counts
) -> None:
    """Moves the frames of samples padded in front to the front; aligned modalities move together.

    A sample is padded in front if steps after its length are not zero, and all that are not zero would fit into it.
    """
    groups: dict[tuple[int, bytes], list[str]] = {}
    for m in MODALITIES:
        if m not in own and features[m].shape[1] > 1:
            groups.setdefault((features[m].shape[1], lengths[m].tobytes()), []).append(m)
    for (t, _), members in groups.items():
        length, position = lengths[members[0]], np.arange(t)
        steps = {m: nonzero_steps(features[m]) for m in members}
        after = {m: (s & (position >= length[:, None])).any(1) for m, s in steps.items()}
        joint = np.any(list(steps.values()), 0)
        start, stop = joint.argmax(1), last_step(joint)
        rows = np.flatnonzero(np.any(list(after.values()), 0) & (stop - start <= length))
        shift = np.minimum(start, t - length)[rows, None]  # zeros that belong to the sequence stay in it
        order = ((position + shift) % t)[..., None]
        for m in members:
            counts["moved", m] += len(rows)
            counts["after", m] += int(after[m].sum() - after[m][rows].sum())
            if len(rows):
                moved = np.take_along_axis(features[m][rows], order, 1)
                features[m] = features[m].copy()
                features[m][rows] = moved


def sentences(counts: Counts) -> list[str]:
    """What was changed or left out, for `Dataset.notes`."""
    said = []
    for m in MODALITIES:
        if k := counts["not finite", m]:
            n = counts["values", m]
            said.append(f"{m}: {k:,} of {n:,} values ({k / n:.2%}) are not finite and are read as 0.")
        if k := counts["long", m]:
            said.append(f"{m}: {k:,} lengths exceed the steps there are and are cut to them.")
        if k := counts["moved", m]:
            said.append(f"{m}: in {k:,} samples the padding stands in front; their frames are moved to the front.")
        if k := counts["after", m]:
            said.append(f"{m}: in {k:,} samples steps after the length are not zero; they are ignored.")
    return said
