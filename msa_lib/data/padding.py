"""Where the padding stands, and how long samples are: everything is brought to "steps first, padding behind".

A sample of length n in T steps is padded in front if its steps stand at the end. The evidence, in this order:
1. the attention mask of the token ids: zeros, then ones (anything but one block at either end is refused);
2. steps that are not zero after the length: if they fit into n steps, they are moved to the front;
3. where zeros at both ends would fit, the other samples of the part if they all stand on one side, else the mask.
Modalities with the same number of steps and the same lengths are aligned and move together; if tokens and features
stand on different sides each is moved by its own evidence, and that is said.

Without lengths a length is read off the last step that is not zero. A whole modality is taken as padded in front if no
sample ends in zeros and some begin with them: leading zeros then count as padding, though they could be real.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from msa_lib import MODALITIES

Counts = Counter[tuple[str, str]]  # (what was found, modality) -> how many


def nonzero_steps(x: np.ndarray) -> np.ndarray:
    """[N,T,D] -> [N,T] bool, True where a step holds anything but zeros."""
    return x.any(-1)


def last_step(steps: np.ndarray) -> np.ndarray:
    """[N,T] bool -> [N] int64, one past the last True, at least 1."""
    t = steps.shape[1]
    return np.where(steps.any(1), t - steps[:, ::-1].argmax(1), 1).astype(np.int64)


def mask_starts(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[N,T] attention mask -> [N] first step, and [N] whether it is one block of ones at the front or at the end."""
    ones = mask != 0
    n, start, stop = ones.sum(1), ones.argmax(1), last_step(ones)
    block = (n == 0) | ((stop - start == n) & ((start == 0) | (stop == mask.shape[1])))
    return start, block & (ones == mask).all(1)


def front_padded(arrays: Iterable[np.ndarray]) -> bool:
    """Whether a modality without lengths, given as the arrays [N,T,D] of its parts, is padded in front."""
    begins, ends = [], []
    for x in arrays:
        full = nonzero_steps(x).any(1)
        begins.append(x[full, 0].any(-1))
        ends.append(x[full, -1].any(-1))
    return bool(ends) and bool(np.concatenate(ends).all()) and not bool(np.concatenate(begins).all())


def tokens_to_front(tokens: np.ndarray, where: str, counts: Counts) -> tuple[np.ndarray, np.ndarray]:
    """[N,3,T] int64 with the words first, and [N] the steps each sample was moved by."""
    tokens = np.ascontiguousarray(tokens).astype(np.int64)
    start, regular = mask_starts(tokens[:, 1])
    if not regular.all():
        raise ValueError(
            f"{where}: the attention mask of {(~regular).sum():,} samples is neither ones followed by zeros nor zeros "
            f"followed by ones; mend text_bert or leave it out."
        )
    if start.any():
        tokens = np.take_along_axis(tokens, _order(start, tokens.shape[2])[:, None], 2)
        counts["tokens moved", "text"] += int((start > 0).sum())
    return tokens, start


def sample_lengths(
    features: Mapping[str, np.ndarray],
    fields: Mapping[str, Any],
    tokens: np.ndarray | None,
    absent: Collection[str],
    front: Collection[str],
    counts: Counts,
) -> tuple[dict[str, np.ndarray], set[str]]:
    """The lengths [N] of each modality, and which of them need no move: read off their own frames, or absent.

    `front` names the modalities that are padded in front if no lengths are given (`front_padded`).
    """
    lengths: dict[str, np.ndarray] = {}
    still = set(absent)
    for m in MODALITIES:
        x = features[m]
        n, t = x.shape[:2]
        given = fields.get(f"{m}_lengths")
        if m == "text" and tokens is not None:
            words = tokens[:, 1].sum(-1)
            if given is not None and m not in absent:
                counts["not the mask", m] += int((given != words).sum())
            given = words if given is None or m in absent else given
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
            if m == "text":  # sample by sample, as in the files of MulT
                leading = steps.any(1) & steps[:, -1]
            else:
                leading = steps.any(1) & (m in front)
                counts["front", m] += int((leading & ~steps[:, 0]).sum())
            lengths[m] = np.where(leading, t - steps.argmax(1), lengths[m]).astype(np.int64)
            if m != "text" and m not in front:
                still.add(m)
    return lengths, still


def move_to_front(
    features: dict[str, np.ndarray],
    lengths: Mapping[str, np.ndarray],
    still: Collection[str],
    lead: np.ndarray | None,
    counts: Counts,
) -> None:
    """Moves the frames of samples padded in front to the front, in place of the entries of `features`.

    `lead` [N] are the steps by which the token ids were moved, None without token ids that match the text features.
    """
    t = features["text"].shape[1]
    if lead is not None and "text" not in still:
        still = {*still, "text"}
        shift = _text_shift(features["text"], lengths["text"], lead, counts)
        features["text"] = _moved(features["text"], shift)
        counts["moved", "text"] += int((shift > 0).sum())
    groups: dict[tuple[int, bytes], list[str]] = {}
    for m in MODALITIES:
        if m not in still and features[m].shape[1] > 1:
            groups.setdefault((features[m].shape[1], lengths[m].tobytes()), []).append(m)
    for (width, key), members in groups.items():
        aligned = lead is not None and width == t and key == lengths["text"].tobytes()
        steps = {m: nonzero_steps(features[m]) for m in members}
        shifts = _group_shifts(steps, lengths[members[0]], lead if aligned else None, counts)
        for m in members:
            moved = _rolled(steps[m], shifts[m])
            late = (moved & (np.arange(width) >= lengths[m][:, None])).any(1)
            counts["moved", m] += int((shifts[m] > 0).sum())
            counts["after", m] += int(late.sum())
            features[m] = _moved(features[m], shifts[m])


def _text_shift(x: np.ndarray, length: np.ndarray, lead: np.ndarray, counts: Counts) -> np.ndarray:
    """By how much text features move: with their tokens, unless their own zeros say that they stand on the other side.

    Features of BERT are not zero on the padding, and then say nothing.
    """
    room = x.shape[1] - length
    shift = lead.copy()
    odd = np.flatnonzero((lead > 0) | ((room > 0) & ~x[:, 0].any(-1)))
    at_end, at_front = _ends(nonzero_steps(x[odd]), length[odd])
    other_end = np.where(lead[odd] > 0, at_front, at_end)
    shift[odd[other_end]] = np.where(lead[odd] > 0, 0, room[odd])[other_end]
    counts["sides", "text"] += int(other_end.sum())
    return shift


def _group_shifts(
    steps: Mapping[str, np.ndarray], length: np.ndarray, lead: np.ndarray | None, counts: Counts
) -> dict[str, np.ndarray]:
    """[N] steps to move by, for each of the aligned modalities whose non-zero steps [N,T] are given."""
    joint = np.any(list(steps.values()), 0)
    t = joint.shape[1]
    room = t - length
    start, stop, some = joint.argmax(1), last_step(joint), joint.any(1)
    late = some & (stop > length)
    in_front = late & (stop - start <= length)
    either = some & ~late & (start >= room) & (room > 0)
    behind = some & ~late & ~either & (room > 0)
    shift = np.where(in_front, np.minimum(start, room), 0)  # zeros that belong to the sequence stay in it
    disagree = np.zeros(len(shift), bool)
    if lead is not None:
        shift = np.where((lead > 0) & ~behind & ~in_front & ~either, lead, shift)
        disagree = ((lead > 0) & behind) | ((lead == 0) & in_front)
    if in_front.any() and not behind.any():
        shift = np.where(either, room, shift)
    elif lead is not None and (in_front.any() or not behind.any()):
        shift = np.where(either, lead, shift)
    ends = {m: _ends(own, length) for m, own in steps.items()}
    parted = np.any([f for f, _ in ends.values()], 0) & np.any([b for _, b in ends.values()], 0) & late & ~in_front
    shifts = {}
    for m, (front, back) in ends.items():  # one stands in front and another behind: each by its own zeros
        shifts[m] = np.where(parted & front, room, np.where(parted & back, 0, shift))
        counts["sides", m] += int((disagree | (parted & (shifts[m] != shift))).sum())
    return shifts


def _ends(steps: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[N,T] -> [N] whether the steps that are not zero fit only at the end, and [N] whether only at the front."""
    t = steps.shape[1]
    start, stop, some = steps.argmax(1), last_step(steps), steps.any(1)
    at_end, at_front = some & (start >= t - length), some & (stop <= length)
    return at_end & ~at_front, at_front & ~at_end


def _order(shift: np.ndarray, t: int) -> np.ndarray:
    """[N] -> [N,T] the old position of each step after a roll to the left by `shift`."""
    return (np.arange(t) + shift[:, None]) % t


def _rolled(steps: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return np.take_along_axis(steps, _order(shift, steps.shape[1]), 1) if shift.any() else steps


def _moved(x: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """[N,T,D] with each sample rolled to the left; `x` itself if none moves."""
    rows = np.flatnonzero(shift)
    if not len(rows):
        return x
    moved = x.copy()
    moved[rows] = np.take_along_axis(x[rows], _order(shift[rows], x.shape[1])[..., None], 1)
    return moved
