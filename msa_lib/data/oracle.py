"""The best that can be predicted from planted data, given what is known of them: ceilings for the notebooks.

`oracle_prediction` is for design=selection, sample by sample. `ceilings` is for every design: the error that remains at
each level of knowledge, in closed form given the readings of a large draw, and `gain` what one level is worth over
another. Levels: nothing | dominant alone | fixed weights: the best linear use of the means of the readings, the same
in all samples | no cue: the best use whatever, not knowing what the mechanism is there to find out | cue: knowing it |
truth: knowing all but the sentiment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import log_softmax, ndtr, ndtri
from torch import Tensor

from msa_lib.data import Dataset
from msa_lib.data.designs import (
    AMBIGUITY_NOISE,
    AUX_NOISE,
    CLEAR_READING,
    CONTRADICTED,
    EVEN_READING,
    FACTOR_NOISE,
    FLIPPED,
    SPOILT_READING,
    TEXT_NOISE,
)
from msa_lib.data.planted import ORACLE, Planted, draw, facts, label_counts, recipe_of


def oracle_prediction(
    truth: Mapping[str, Tensor | np.ndarray],
    recipe: Planted,
    knows: str = "truth",
    modalities: tuple[int, ...] = (0, 1, 2),
    loss: str = "l1",
) -> Tensor:
    """[N] the best prediction of the label from the evidence of `modalities`; no model that knows as
    much can be better on average.

    `truth` is a split's or a batch's truth, or `facts(...)`. What is known beside the evidence:
    "truth": noise levels and signs; "noise": noise levels, the dominant and the rival modality, not whether the rival
    contradicts (what a visible cue can give); "evidence": the recipe only (a hidden cue). The last averages over 1000
    draws from the recipe. `loss` "l1" gives the posterior median, best for MAE; "mse" the posterior mean.
    """
    known = {key: torch.as_tensor(value).cpu().numpy() for key, value in truth.items()}
    noise, sign, prior = _hypotheses(known, recipe, knows)
    z, noise, sign = (x[..., list(modalities)].astype(np.float64) for x in (known["evidence"][:, None], noise, sign))

    return torch.from_numpy(_best(_posterior(z, noise, sign, prior), recipe.labels, loss).astype(np.float32))


class Belief(NamedTuple):
    """What is thought of s: a mixture of H normals for each sample, [N or 1,H] each."""

    weight: np.ndarray
    mean: np.ndarray
    sd: np.ndarray


def _posterior(z: np.ndarray, noise: np.ndarray, sign: np.ndarray | float = 1.0, prior: np.ndarray | float = 0.0):
    """Of s ~ N(0,1) from its readings z [N,H or 1,R], of these noise levels and signs under each of H hypotheses, whose
    log prior is `prior` [H]: given noise and sign it is normal, so H hypotheses make a mixture of H normals."""
    r = noise**2 / (1 + noise**2)
    precision = 1 + (1 / noise**2).sum(-1)
    mean = (sign * z * np.sqrt(1 + noise**2) / noise**2).sum(-1) / precision  # [N,H]
    log_likelihood = -0.5 * ((z**2 / r + np.log(r)).sum(-1) + np.log(precision) - mean**2 * precision)
    return Belief(np.exp(log_softmax(log_likelihood + prior, axis=-1)), mean, precision**-0.5)


def _best(belief: Belief, labels: str, loss: str) -> np.ndarray:
    """The label [N] that is best in mean absolute (l1) or squared (mse) error."""
    weight, mean, sd = belief
    values, counts = label_counts(labels)
    edges = ndtri(np.cumsum(counts)[:-1] / counts.sum())  # of s, between neighbouring labels

    def below(edge: np.ndarray | float) -> np.ndarray:  # probability [N] that s is below an edge, one for each sample
        return (weight * ndtr((edge - mean) / sd)).sum(-1)

    if loss == "l1":  # the first label that leaves less than half of the probability above it, by bisection
        low, high = np.zeros(len(mean), int), np.full(len(mean), len(edges))
        while (open_ := low < high).any():
            middle = (low + high) // 2
            more = open_ & (below(edges[np.minimum(middle, len(edges) - 1)][:, None]) < 0.5)
            low, high = np.where(more, middle + 1, low), np.where(open_ & ~more, middle, high)
        return values[low]
    if loss == "mse":
        shares = np.column_stack([below(edge) for edge in edges])
        return np.diff(shares, axis=1, prepend=0.0, append=1.0) @ values
    raise ValueError(f"The oracle has no loss {loss!r}: expected l1 or mse.")


def _hypotheses(
    known: Mapping[str, np.ndarray], recipe: Planted, knows: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray | float]:
    """Noise levels and signs that are possible, [N or 1,H,M] each, and the log of their prior."""
    if knows == "evidence":
        drawn = draw(recipe, ORACLE, 1000)
        contradicts = np.arange(3) == drawn["conflict_modality"][:, None]
        return drawn["noise"][None], np.where(contradicts, -1.0, 1.0)[None], 0.0
    noise = known["noise"][:, None]
    if knows == "truth":
        return noise, np.where(np.arange(3) == known["conflict_modality"][:, None], -1.0, 1.0)[:, None], 0.0
    if knows == "noise":  # two equally likely hypotheses, which are one where there is no rival
        contradicts = np.arange(3) == known["rival"][:, None]
        return noise, np.stack([np.ones(contradicts.shape), np.where(contradicts, -1.0, 1.0)], axis=1), 0.0
    raise ValueError(f"The oracle cannot know {knows!r}: expected truth, noise or evidence.")


# ------------------------------------------------------------------------------------------------ all designs: ceilings


def ceilings(recipe: Planted, n: int = 4000) -> dict[str, np.ndarray]:
    """level of knowledge -> absolute errors [n] of the best prediction, on a draw that no split holds."""
    recipe = replace(recipe, seed=recipe.seed + 1)  # the same distribution, other samples
    return _errors(recipe, draw(recipe, ORACLE, n))


def ceilings_on(dataset: Dataset) -> dict[str, np.ndarray]:
    """The same on the test samples of planted data, [N]; empty where the name of data does not tell their recipe."""
    try:
        recipe = recipe_of(dataset.name)
    except ValueError:  # a file, a packed folder, part of a data set
        return {}
    known = facts(recipe, "test")
    labels = dataset.test.labels.numpy()
    same = dataset.synthetic and len(labels) == len(known["labels"]) and np.allclose(labels, known["labels"])
    return _errors(recipe, known) if same else {}


def _errors(recipe: Planted, known: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    nothing = Belief(np.ones((1, 1)), np.zeros((len(known["labels"]), 1)), np.ones((1, 1)))
    beliefs = {"nothing": nothing} | LEVELS[recipe.design](recipe, known)
    return {level: np.abs(_best(b, recipe.labels, "l1") - known["labels"]) for level, b in beliefs.items()}


class Gain(NamedTuple):
    """What a level of knowledge is worth over another, in MAE: the estimate and its 95 % interval over samples."""

    gain: float
    low: float
    high: float


def gain(errors: Mapping[str, np.ndarray], without: str, having: str) -> Gain:
    """From the errors of `ceilings`; paired, so that equal predictions give exactly 0, 0, 0."""
    less = errors[without] - errors[having]
    reach = 1.96 * less.std(ddof=1) / np.sqrt(len(less))
    return Gain(float(less.mean()), float(less.mean() - reach), float(less.mean() + reach))


def _linear(s: np.ndarray, readings: np.ndarray) -> Belief:
    """The best linear use of readings [N,R], fitted on the N samples themselves: N is large."""
    x = np.column_stack([readings, np.ones(len(s))])
    mean = x @ np.linalg.lstsq(x, s, rcond=None)[0]
    return Belief(np.ones((1, 1)), mean[:, None], np.full((1, 1), (s - mean).std()))


def _halves(*parts: tuple[np.ndarray, Belief]) -> Belief:
    """Several beliefs, each with its weight [N] in each sample."""
    weights = np.concatenate([weight[:, None] * belief.weight for weight, belief in parts], 1)
    means = np.concatenate([belief.mean for _, belief in parts], 1)
    sds = np.concatenate([np.broadcast_to(belief.sd, belief.mean.shape) for _, belief in parts], 1)
    return Belief(weights, means, sds)


def _sum_of_parts(z_text: np.ndarray, z_aux: np.ndarray | None) -> Belief:
    """s = (a + b) / 2^1/2, a read from text and b from the auxiliaries, or b unknown."""
    a = _posterior(z_text[:, None, None], np.array([TEXT_NOISE]))
    b = Belief(np.ones((1, 1)), np.zeros((1, 1)), np.ones((1, 1)))
    if z_aux is not None:
        b = _posterior(z_aux[:, None], np.full(z_aux.shape[1], AUX_NOISE))
    return Belief(np.ones((1, 1)), (a.mean + b.mean) / np.sqrt(2), np.sqrt((a.sd**2 + b.sd**2) / 2) * np.ones((1, 1)))


def _selection_levels(recipe: Planted, known: Mapping[str, np.ndarray]) -> dict[str, Belief]:
    z = known["evidence"]
    p = known["dominant"][:, None]
    alone = np.take_along_axis(z, p, 1)[:, None], np.take_along_axis(known["noise"], p, 1)[:, None]
    levels = {
        level: _posterior(z[:, None], *_hypotheses(known, recipe, knows))
        for level, knows in (("no cue", "evidence"), ("cue", "noise"), ("truth", "truth"))
    }
    if recipe.cue == "hidden" or recipe.control == "negative":
        levels["cue"] = levels["no cue"]
    return {"dominant alone": _posterior(*alone), "fixed weights": _linear(known["signal"], z)} | levels


def _keyed_levels(recipe: Planted, known: Mapping[str, np.ndarray]) -> dict[str, Belief]:
    """fusion, alignment, hops: which of two halves of the steps tells b?"""
    told_by = [2] if recipe.design == "hops" else [1, 2]
    text, aux, decoy = known["evidence"][:, 0], known["evidence"][:, told_by], known["decoy"][:, np.array(told_by) - 1]
    n = len(text)
    alone, told, half = _sum_of_parts(text, None), _sum_of_parts(text, aux), np.full(n, 0.5)
    either = _halves((half, told), (half, _sum_of_parts(text, decoy)))
    levels = {"dominant alone": alone, "fixed weights": _linear(known["signal"], np.column_stack([text, aux + decoy]))}
    if recipe.control == "negative":
        lost = alone if recipe.design == "fusion" else either
        return levels | {"no cue": lost, "cue": lost, "truth": alone if recipe.design == "fusion" else told}
    return levels | {"no cue": either, "cue": told, "truth": told}


def _gate_levels(recipe: Planted, known: Mapping[str, np.ndarray]) -> dict[str, Belief]:
    text, match = known["evidence"][:, 0], known["match"][:, None]
    told = np.where(match, known["evidence"][:, 1:], known["decoy"])
    alone, trusting, half = _sum_of_parts(text, None), _sum_of_parts(text, told), np.full(len(text), 0.5)
    knowing = _halves((known["match"] * 1.0, trusting), (1.0 - known["match"], alone))
    either = trusting if recipe.control == "negative" else _halves((half, trusting), (half, alone))
    levels = {"dominant alone": alone, "fixed weights": _linear(known["signal"], np.column_stack([text, told]))}
    return levels | {"no cue": either, "cue": knowing, "truth": knowing}


def _factor_levels(recipe: Planted, known: Mapping[str, np.ndarray]) -> dict[str, Belief]:
    z, noise = known["evidence"][:, None], np.full(3, FACTOR_NOISE)
    share = len(FLIPPED) / recipe.contexts if recipe.control == "positive" else 1e-12
    signs = np.array([1.0, -1.0])[:, None] * np.ones(3)
    knowing = _posterior(z, noise, known["flip"][:, None, None])
    unknown = _posterior(z, np.broadcast_to(noise, (2, 3)), signs, np.log([1 - share, share]))
    levels = {"dominant alone": _posterior(z[..., :1], noise[:1], known["flip"][:, None, None])}
    levels |= {"fixed weights": _linear(known["signal"], known["evidence"])}
    return levels | {"no cue": unknown, "cue": knowing, "truth": knowing}


def _ambiguity_levels(recipe: Planted, known: Mapping[str, np.ndarray]) -> dict[str, Belief]:
    z, noise = known["evidence"][:, None], np.full(3, AMBIGUITY_NOISE)
    signs = np.concatenate([np.ones((1, 3)), 1 - 2 * np.eye(3)])
    prior = np.log([1 - CONTRADICTED] + [CONTRADICTED / 3] * 3)
    own = np.where(np.arange(3) == known["conflict_modality"][:, None], -1.0, 1.0)[:, None]
    unknown = _posterior(z, np.broadcast_to(noise, (4, 3)), signs, prior)
    knowing = _posterior(z, noise, own)
    levels = {"dominant alone": _posterior(z[..., :1], noise[:1], own[..., :1])}
    levels |= {"fixed weights": _linear(known["signal"], known["evidence"])}
    return levels | {"no cue": unknown, "cue": knowing if recipe.control == "positive" else unknown, "truth": knowing}


def _uncertainty_levels(recipe: Planted, known: Mapping[str, np.ndarray]) -> dict[str, Belief]:
    z = np.column_stack([known["evidence"], known["second"]])  # [N,6]
    noise = np.column_stack([known["noise"], known["noise_second"]])
    spoilt = (np.arange(8)[:, None] >> np.arange(3) & 1).astype(bool)  # [H,M]: whether the first reading is
    possible = np.where(np.concatenate([spoilt, ~spoilt], 1), SPOILT_READING, CLEAR_READING)
    if recipe.control == "negative":
        possible = np.full((1, 6), EVEN_READING)
    knowing = _posterior(z[:, None], noise[:, None])
    levels = {"dominant alone": _posterior(z[:, None, [0, 3]], noise[:, None, [0, 3]])}  # text
    levels |= {"fixed weights": _linear(known["signal"], z), "no cue": _posterior(z[:, None], possible)}
    return levels | {"cue": knowing, "truth": knowing}


LEVELS = {
    "selection": _selection_levels,
    "fusion": _keyed_levels,
    "gate": _gate_levels,
    "alignment": _keyed_levels,
    "hops": _keyed_levels,
    "factors": _factor_levels,
    "ambiguity": _ambiguity_levels,
    "uncertainty": _uncertainty_levels,
}


def expectation(z: np.ndarray, noise: np.ndarray, prior: np.ndarray | float = 0.0) -> np.ndarray:
    """[N] the mean of s ~ N(0,1) given readings z [N,H or 1,R] of these noise levels, under H hypotheses as in
    `_posterior`."""
    belief = _posterior(z, noise, prior=prior)
    return (belief.weight * belief.mean).sum(-1)
