"""From the arrays of a file to the tensors of a `Split`: non-finite values, lengths, padding, missing modalities.

Everything that is changed or left out on the way is counted, and `sentences` says it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch

from msa_lib import MODALITIES
from msa_lib.data.dataset import Split
from msa_lib.data.padding import Counts, move_to_front, sample_lengths, tokens_to_front

ROWS = 256  # samples looked at together, so that no mask of the size of the data is built
LARGEST = 1e8  # of a value: squared gradients grow with its fourth power, and float32 ends at 3.4e38


def to_split(
    ids: tuple[str, ...],
    fields: dict[str, Any],
    missing: Collection[str],
    dims: Mapping[str, int],
    counts: Counts,
    where: str,
    front: Collection[str] = (),
) -> Split:
    """One part of a file as tensors. Takes the features out of `fields`, so that none is held twice.

    `missing` names the modalities the whole data set lacks: zeros [N,1,1] of length 0. One that only this part lacks
    has zeros [N,1,D] of length 0, D from `dims`. `front` names those padded in front (`padding.front_padded`).
    """
    n = len(fields["labels"])
    for name in ("labels", "unimodal_labels", *(f"{m}_lengths" for m in MODALITIES)):
        if name in fields and (wrong := int((~usable(fields[name], name)).sum())):
            expected = f"numbers of at most {LARGEST:g}" if "labels" in name else "whole numbers from 0 on"
            raise ValueError(f"{where}: {wrong:,} {name} are not usable; expected {expected}.")
    tokens, lead = fields.get("tokens"), None
    if tokens is not None:
        tokens, lead = tokens_to_front(tokens, where, counts)
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
    lengths, still = sample_lengths(features, fields, tokens, absent, front, counts)
    if tokens is not None and tokens.shape[-1] != features["text"].shape[1]:
        lead = None
    move_to_front(features, lengths, still, lead, counts)
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


def usable(value: np.ndarray, name: str = "labels") -> np.ndarray:
    """Which labels are numbers that can be trained on, or which lengths are whole numbers from 0 on."""
    value = value.astype(float)  # LARGEST is no number of 16 bits
    with np.errstate(invalid="ignore"):
        if "labels" in name:
            return np.abs(value) <= LARGEST
        return (value >= 0) & (value <= LARGEST) & (value == np.rint(value))


def finite(x: np.ndarray, m: str, counts: Counts) -> np.ndarray:
    """`x` as writable float32 with 0 for whatever is not finite or beyond `LARGEST`; `x` itself if nothing changes."""
    with np.errstate(over="ignore", invalid="ignore"):
        result = np.require(x, np.float32, ["C", "W"])
    counts["values", m] += x.size
    for start in range(0, len(x), ROWS):
        part = result[start : start + ROWS]
        if part.size and not (part.min() >= -LARGEST and part.max() <= LARGEST):  # NaN is neither
            bad = ~(np.abs(part) <= LARGEST)
            if np.may_share_memory(result, x):  # two splits of a file may be one array
                result = x.copy()
            counts["not finite", m] += int((~np.isfinite(x[start : start + ROWS])).sum())
            counts["huge", m] += int((bad & np.isfinite(x[start : start + ROWS])).sum())
            result[start : start + ROWS][bad] = 0.0
    return result


def sentences(counts: Counts) -> list[str]:
    """What was changed or left out, for `Dataset.notes`."""
    said = []
    for m in MODALITIES:
        if k := counts["not finite", m]:
            n = counts["values", m]
            said.append(f"{m}: {k:,} of {n:,} values ({k / n:.2%}) are not finite and are read as 0.")
        if k := counts["huge", m]:
            said.append(
                f"{m}: {k:,} of {counts['values', m]:,} values are beyond {LARGEST:g} in size, which no sensor "
                f"gives and no training survives, and are read as 0."
            )
        if k := counts["long", m]:
            said.append(f"{m}: {k:,} lengths exceed the steps there are and are cut to them.")
        if k := counts["not the mask", m]:
            said.append(f"{m}: {k:,} given lengths differ from the attention mask; the given ones are used.")
        if counts["front", m]:
            said.append(
                f"{m}: no lengths are given, no sample ends in zeros and {counts['front', m]:,} begin with zeros: "
                f"they are read as padding in front, though they could be real."
            )
        if k := counts["tokens moved", m]:
            said.append(f"{m}: in {k:,} samples the tokens are padded in front; they are moved to the front.")
        if k := counts["sides", m]:
            said.append(
                f"{m}: in {k:,} samples the padding stands on another side than that of the tokens or of the aligned "
                f"modalities; each is moved by its own zeros."
            )
        if k := counts["moved", m]:
            said.append(f"{m}: in {k:,} samples the padding stands in front; their frames are moved to the front.")
        if k := counts["after", m]:
            said.append(f"{m}: in {k:,} samples steps after the length are not zero; they are ignored.")
    return said
