"""What test samples look like when a modality is noisy or missing: the experiment DSRF talks of and does not show.

Noise has a known energy: per feature, `level` times its deviation over the valid training steps, so that level 1 is as
much noise as signal. A missing modality has no valid step. Networks are trained on clean data and only tested here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from msa_lib import MODALITIES
from msa_lib.data import Dataset, Split
from msa_lib.data.dataset import steps_mask
from msa_lib.metrics import evaluate

LEVELS = (1.0, 2.0, 4.0)
RATES = (0.3, 0.6, 1.0)


def deviation(split: Split, m: int) -> Tensor:
    """Standard deviation [D] of each feature of modality m over the valid steps of a split."""
    x = getattr(split, MODALITIES[m])
    known = x[steps_mask(split.lengths[:, m], x.shape[1])]
    return known.std(0, correction=0) if len(known) else x.new_zeros(x.shape[-1])


def noisy(split: Split, m: int, level: float, spread: Tensor, seed: int = 0) -> Split:
    """`split` with Gaussian noise of deviation `level` x `spread` [D] on the valid steps of modality m.

    The same seed gives the same noise at every level, scaled. Text noise enters the features: a network that reads
    tokens does not see it.
    """
    x = getattr(split, MODALITIES[m])
    draw = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x.device)
    mask = steps_mask(split.lengths[:, m], x.shape[1])[..., None]
    return replace(split, **{MODALITIES[m]: x + draw * spread * level * mask})


def missing(split: Split, m: int, rate: float, seed: int = 0) -> Split:
    """`split` without modality m in a share `rate` of its samples; those of a lower rate are among them."""
    draw = torch.rand(len(split), generator=torch.Generator().manual_seed(seed)).to(split.device)
    lengths = split.lengths.clone()
    lengths[:, m] = torch.where(draw < rate, 0, lengths[:, m])
    return replace(split, lengths=lengths, host_lengths=None)


def curves(
    predictors: Sequence[Callable[[Split], np.ndarray]],
    dataset: Dataset,
    levels: Sequence[float] = LEVELS,
    rates: Sequence[float] = RATES,
    seed: int = 0,
) -> pd.DataFrame:
    """MAE and Corr of several predictors on the test split as one modality after the other gets noisy, or missing.

    -> columns predictor (its position), kind (noise, missing), modality, level (of noise, or the share that lacks it),
    mae, corr. Level 0 is the clean split. Modalities that the data do not have are left out.
    """
    labels = dataset.test.labels.cpu().numpy()

    def scores(split: Split) -> list[dict]:
        found = [evaluate(labels, predict(split), scale=dataset.scale) for predict in predictors]
        return [{"predictor": i, "mae": one["mae"], "corr": one["corr"]} for i, one in enumerate(found)]

    clean, lines = scores(dataset.test), []
    for m in (m for m in range(3) if dataset.available[m]):
        spread = deviation(dataset.train, m)
        for kind, values in (("noise", levels), ("missing", rates)):
            key = {"kind": kind, "modality": MODALITIES[m]}
            lines += [key | {"level": 0.0} | one for one in clean]
            for level in values:
                noise = kind == "noise"
                split = noisy(dataset.test, m, level, spread, seed) if noise else missing(dataset.test, m, level, seed)
                lines += [key | {"level": float(level)} | one for one in scores(split)]
    return pd.DataFrame(lines)
