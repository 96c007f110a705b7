"""The best that can be predicted from planted data, given what is known of them: ceilings for the notebooks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from scipy.special import log_softmax, ndtr, ndtri
from torch import Tensor

from msa_lib.data.planted import ORACLE, Planted, draw, label_counts


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

    # Given noise levels and signs, s has a normal posterior; H hypotheses about them make a mixture of H normals.
    r = noise**2 / (1 + noise**2)
    precision = 1 + (1 / noise**2).sum(-1)
    mean = (sign * z * np.sqrt(1 + noise**2) / noise**2).sum(-1) / precision  # [N,H]
    log_likelihood = -0.5 * ((z**2 / r + np.log(r)).sum(-1) + np.log(precision) - mean**2 * precision)
    weight = np.exp(log_softmax(log_likelihood + prior, axis=-1))

    values, counts = label_counts(recipe.labels)
    edges = ndtri(np.cumsum(counts)[:-1] / counts.sum())  # of s, between neighbouring labels
    below = np.column_stack([(weight * ndtr((edge - mean) * np.sqrt(precision))).sum(-1) for edge in edges])
    if loss == "l1":
        best = values[(below < 0.5).sum(-1)]
    elif loss == "mse":
        best = np.diff(below, axis=1, prepend=0.0, append=1.0) @ values
    else:
        raise ValueError(f"The oracle has no loss {loss!r}: expected l1 or mse.")
    return torch.from_numpy(best.astype(np.float32))


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
