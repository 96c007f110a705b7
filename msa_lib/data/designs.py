"""Planted designs, one for each mechanism of the two papers: data on which the mechanism has a job, and a control on
which nothing can help.

"selection" is `planted.py` itself; negative: the cue is hidden. The others share its labels, lengths, directions and
noise, and differ in what the steps of each modality carry. With s the sentiment, e independent normal noise and all
modalities' axes their own:

    fusion       s = (a + b) / 2^1/2. Text tells a. In audio and vision half of the steps tell b, the others tell a
                 decoy d, the same in both; a step's key says to which half it belongs, and only text says which key
                 tells the truth. Negative: all steps tell decoys.
    gate         The same a and b; in half of the samples audio and vision tell b, in the others a decoy; only text says
                 which. Negative: they always tell b.
    alignment    As fusion, but the key is a direction in three dimensions, another one for each sample and each half,
                 and text shows it in axes of its own: to compare, the spaces have to be mapped onto each other.
                 Negative: the key in text is drawn apart from those of the steps.
    hops         As alignment, but audio shows the direction instead of text, and only vision tells b or a decoy: what
                 text first finds in audio guides it to steps of vision. Negative: the direction is drawn apart.
    factors      All modalities tell f s + e, where f = -1 in two of the six contexts, else 1. Negative: f = 1.
    ambiguity    All modalities tell s + e, equally well, but in most samples one of them tells -s + e, and a marker in
                 that modality says so. Negative: no marker.
    uncertainty  Every modality tells s twice, along the evidence and along another axis; one of the two is spoilt by
                 noise, and then flickers from step to step around its mean, which is all that gives it away. Negative:
                 both are equally noisy, and neither flickers.

What is known beside the readings is in the truth (`key`, `match`, `flip`, `reliability`), so that the oracles
(oracle.py) can use it or not. Nothing in the mean of one modality tells what its mechanism is for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from msa_lib.data import planted
from msa_lib.data.planted import CONTEXT, CUE, EVIDENCE, FRAME, Planted

Facts = dict[str, np.ndarray]
AXES = 5  # evidence, key, and three more; each modality has its own
SCALE = np.array([EVIDENCE, CUE, CONTEXT, CONTEXT, CONTEXT])  # of the axes, as in `planted.py`
TEXT_NOISE, AUX_NOISE = 0.3, 0.3  # of a in text; of b in audio and vision
FACTOR_NOISE, AMBIGUITY_NOISE = 0.7, 0.8
CONTRADICTED = 0.75  # share of samples with a contradicting modality
FLIPPED = (1, 3)  # contexts that turn evidence around
CLEAR_READING, SPOILT_READING, EVEN_READING = 0.3, 3.0, 0.9  # noise of a reading
FLICKER = 1.5  # standard deviation over the steps of a spoilt reading


@dataclass(frozen=True)
class Design:
    """What is decided of a sample (`facts`: recipe, uniform numbers [N,30] -> facts) and what the steps of modality m
    carry along its axes (`steps`: facts, m, its first half of the steps [N,T], normal numbers [N,T] -> [N,T,AXES])."""

    facts: Callable[[Planted, np.ndarray], Facts]
    steps: Callable[[Mapping[str, np.ndarray], int, np.ndarray, np.ndarray], np.ndarray]


def draw(recipe: Planted, stream: int, n: int) -> Facts:
    """As `planted.draw`: the same facts, those that a design has no use for at their neutral values, and its own."""
    uniform = np.maximum(planted.rng_of(recipe, stream, 0).random((n, 36)), 2.0**-54)
    known = DESIGNS[recipe.design].facts(recipe, uniform[:, 6:])
    context = np.minimum((uniform[:, 3:6] * recipe.contexts).astype(np.int64), recipe.contexts - 1)
    none, zeros = np.full(n, -1), np.zeros((n, 3))
    neutral = {"dominant": np.zeros(n, np.int64), "noise": zeros, "rival": none, "conflict": np.zeros(n, bool)}
    neutral |= {"conflict_modality": none, "quality": zeros, "context": context[:, 0], "own_context": context}
    known = neutral | known
    known["labels"] = planted.labels_of(recipe.labels, ndtr(known["signal"]))
    known["unimodal_labels"] = planted.labels_of(recipe.labels, ndtr(known["evidence"]))
    known["lengths"] = planted.lengths_of(recipe, uniform[:, 0], uniform[:, 1:3])
    return known


def features(recipe: Planted, stream: int, m: int, known: Mapping[str, np.ndarray]) -> np.ndarray:
    """[N,T,D] float32 of modality m, zero on padding."""
    length, steps, dim = known["lengths"][:, m], recipe.steps[m], recipe.dims[m]
    valid = np.arange(steps) < length[:, None]
    first, flicker = _halves(planted.rng_of(recipe, stream, 1, m), length, valid)
    along = DESIGNS[recipe.design].steps(known, m, first, flicker) * SCALE  # [N,T,AXES]
    axes = planted.axes_of(recipe, m, AXES)  # [AXES,D]
    x = planted.rng_of(recipe, stream, 2, m).random((length.sum(), dim), dtype=np.float32)
    x = (x - np.float32(0.5)) * np.float32(FRAME * np.sqrt(12))
    for k in range(AXES):  # element by element, so that the bits do not depend on the machine's linear algebra
        x += along[..., k][valid].astype(np.float32)[:, None] * (axes[k] * np.float32(np.sqrt(dim)))
    out = np.zeros((len(length), steps, dim), dtype=np.float32)
    out[valid] = x
    return out


def _halves(rng: np.random.Generator, length: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A random half of the valid steps [N,T] bool, and normal numbers [N,T] that sum to 0 over the valid steps.

    Of an odd number of steps, which half is the larger one is drawn as well, so that the majority tells nothing.
    """
    order, normal = rng.random((len(length), 2, valid.shape[1] + 1)).transpose(1, 0, 2)
    rank = np.where(valid, order[:, :-1], 2.0).argsort(1).argsort(1)
    first = rank < ((length + (order[:, -1] < 0.5)) // 2)[:, None]
    flicker = np.where(valid, ndtri(np.maximum(normal[:, :-1], 2.0**-54)), 0.0)
    return first & valid, np.where(valid, flicker - flicker.sum(1, keepdims=True) / length[:, None], 0.0)


def _noisy(truth: np.ndarray, noise: np.ndarray | float, e: np.ndarray) -> np.ndarray:
    """A reading of something N(0,1), itself N(0,1) whatever the noise."""
    return (truth + noise * e) / np.sqrt(1 + np.square(noise))


def _sign(u: np.ndarray) -> np.ndarray:
    return np.where(u < 0.5, 1.0, -1.0)


# --------------------------------------------------------------------------------------- fusion, gate, alignment


def _two_parts(recipe: Planted, u: np.ndarray) -> Facts:
    """a in text, b in the auxiliaries, a decoy that they share; the share of steps that tell b is for the design."""
    e = ndtri(u)
    a, b = e[:, 0], e[:, 1]
    evidence = np.column_stack([_noisy(a, TEXT_NOISE, e[:, 2])] + [_noisy(b, AUX_NOISE, e[:, i]) for i in (3, 4)])
    noise = np.broadcast_to([TEXT_NOISE, AUX_NOISE, AUX_NOISE], evidence.shape)
    decoy = np.column_stack([_noisy(e[:, 5], AUX_NOISE, e[:, i]) for i in (15, 16)])  # as far apart as the tellers of b
    return {"signal": (a + b) / np.sqrt(2), "evidence": evidence, "noise": noise, "decoy": decoy}


def _fusion(recipe: Planted, u: np.ndarray) -> Facts:
    known = _two_parts(recipe, u) | {"key": _sign(u[:, 6])}
    if recipe.control == "negative":  # the steps that would tell b tell a second decoy
        b = ndtri(u[:, 17])
        known["evidence"][:, 1:] = np.column_stack([_noisy(b, AUX_NOISE, ndtri(u[:, i])) for i in (18, 19)])
    return known


def _keyed_steps(known, m, first, flicker):
    key = known["key"][:, None]
    own = _contexts(known, m, first)
    if m == 0:
        return _stack(known["evidence"][:, :1], key, *own, like=first)
    value = np.where(first, known["evidence"][:, m, None], known["decoy"][:, m - 1, None])
    return _stack(value, np.where(first, key, -key), *own, like=first)


def _gate(recipe: Planted, u: np.ndarray) -> Facts:
    match = (u[:, 6] < 0.5) | (recipe.control == "negative")
    return _two_parts(recipe, u) | {"match": match, "key": np.where(match, 1.0, -1.0)}


def _gated_steps(known, m, first, flicker):
    own = _contexts(known, m, first)
    if m == 0:
        return _stack(known["evidence"][:, :1], known["key"][:, None], *own, like=first)
    value = np.where(known["match"], known["evidence"][:, m], known["decoy"][:, m - 1])
    return _stack(value[:, None], 0.0, *own, like=first)


def _alignment(recipe: Planted, u: np.ndarray) -> Facts:
    e = ndtri(u[:, 6:15]).reshape(-1, 3, 3)
    codes = e / np.linalg.norm(e, axis=-1, keepdims=True)  # of the telling steps, of the others, of nothing
    said = codes[:, 2 if recipe.control == "negative" else 0]
    return _two_parts(recipe, u) | {"codes": codes[:, :2].reshape(-1, 6), "said": said}


def _coded_steps(known, m, first, flicker, said_by: int = 0):
    """The code takes the last three axes, thrice the length of a context, so that it can be told from noise."""
    if m == said_by:
        return _stack(
            known["evidence"][:, m, None], 0.0, *(known["said"] * CODE)[:, :, None].swapaxes(0, 1), like=first
        )
    codes = known["codes"].reshape(-1, 2, 3) * CODE
    told = [np.where(first, codes[:, 0, k, None], codes[:, 1, k, None]) for k in range(3)]
    value = np.where(first, known["evidence"][:, m, None], known["decoy"][:, m - 1, None])
    own = np.where(known["own_context"][:, m] % 2, 1.0, -1.0)
    return _stack(value, own[:, None], *told, like=first)


CODE = 3**0.5


def _hops(recipe: Planted, u: np.ndarray) -> Facts:
    known = _alignment(recipe, u)
    known["evidence"][:, 1] = ndtri(u[:, 17])  # of nothing
    return known


def _hopping_steps(known, m, first, flicker):
    if m == 0:
        return _stack(known["evidence"][:, :1], 0.0, *_contexts(known, m, first), like=first)
    return _coded_steps(known, m, first, flicker, said_by=1)


# ------------------------------------------------------------------------------- factors, ambiguity, uncertainty


def _factors(recipe: Planted, u: np.ndarray) -> Facts:
    e, context = ndtri(u), np.minimum((u[:, 4] * recipe.contexts).astype(np.int64), recipe.contexts - 1)
    flip = np.where(np.isin(context, FLIPPED) & (recipe.control == "positive"), -1.0, 1.0)
    evidence = np.column_stack([_noisy(flip * e[:, 0], FACTOR_NOISE, e[:, i]) for i in (1, 2, 3)])
    noise = np.full(evidence.shape, FACTOR_NOISE)
    return {"signal": e[:, 0], "evidence": evidence, "noise": noise, "context": context, "flip": flip}


def _plain_steps(known, m, first, flicker):
    shared = _axes_of_context(known["context"])
    return _stack(known["evidence"][:, m, None], known["quality"][:, m, None], *shared, like=first)


def _ambiguity(recipe: Planted, u: np.ndarray) -> Facts:
    e, n = ndtri(u), len(u)
    which = np.where(u[:, 4] < CONTRADICTED, np.minimum((u[:, 5] * 3).astype(np.int64), 2), -1)
    contradicts = np.arange(3) == which[:, None]
    evidence = _noisy(np.where(contradicts, -1, 1) * e[:, :1], AMBIGUITY_NOISE, e[:, 1:4])
    marker = np.where(contradicts, -1.0, 1.0) if recipe.control == "positive" else np.zeros((n, 3))
    known = {"signal": e[:, 0], "evidence": evidence, "noise": np.full((n, 3), AMBIGUITY_NOISE), "quality": marker}
    return known | {"conflict": which >= 0, "conflict_modality": which, "rival": which}


def _uncertainty(recipe: Planted, u: np.ndarray) -> Facts:
    e, spoilt = ndtri(u), u[:, 7:10] < 0.5  # [N,M]: the first reading is spoilt, else the second
    noise = np.where(np.stack([spoilt, ~spoilt], -1), SPOILT_READING, CLEAR_READING)  # [N,M,2]
    if recipe.control == "negative":
        noise = np.full(noise.shape, EVEN_READING)
    readings = _noisy(e[:, :1, None], noise, e[:, 1:7].reshape(-1, 3, 2))
    known = {"signal": e[:, 0], "evidence": readings[..., 0], "second": readings[..., 1], "noise": noise[..., 0]}
    return known | {"noise_second": noise[..., 1]}


def _twofold_steps(known, m, first, flicker):
    spoilt = known["noise"][:, m] > known["noise_second"][:, m], known["noise"][:, m] < known["noise_second"][:, m]
    readings = known["evidence"][:, m], known["second"][:, m]
    told = [z[:, None] + FLICKER * bad[:, None] * flicker for z, bad in zip(readings, spoilt, strict=True)]
    rest = _axes_of_context(known["context"] % 4)[:2]
    return _stack(told[0], 0.0, told[1] * (EVIDENCE / CONTEXT), *rest, like=first)


# ----------------------------------------------------------------------------------------------------- what is shared


def _axes_of_context(context: np.ndarray) -> list[np.ndarray]:
    """Contexts 2i and 2i+1 are the two ends of axis i: [N,1] for each of three axes."""
    return [((context == 2 * i) * 1.0 - (context == 2 * i + 1))[:, None] for i in range(3)]


def _contexts(known: Mapping[str, np.ndarray], m: int, like: np.ndarray) -> list[np.ndarray]:
    """A context that is the modality's own: nothing to recognise a sample by in another modality."""
    return _axes_of_context(known["own_context"][:, m])


def _stack(*along: np.ndarray | float, like: np.ndarray) -> np.ndarray:
    return np.stack([np.broadcast_to(part, like.shape) for part in along], -1)


DESIGNS: dict[str, Design] = {
    "fusion": Design(_fusion, _keyed_steps),
    "gate": Design(_gate, _gated_steps),
    "alignment": Design(_alignment, _coded_steps),
    "hops": Design(_hops, _hopping_steps),
    "factors": Design(_factors, _plain_steps),
    "ambiguity": Design(_ambiguity, _plain_steps),
    "uncertainty": Design(_uncertainty, _twofold_steps),
}
