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
    predict: Callable[[Split], np.ndarray],
    dataset: Dataset,
    levels: Sequence[float] = LEVELS,
    rates: Sequence[float] = RATES,
    seed: int = 0,
) -> pd.DataFrame:
    """MAE and Corr of `predict` on the test split as one modality after the other gets noisy, or missing.

    -> columns kind (noise, missing), modality, level (of noise, or the share that lacks it), mae, corr. Level 0 is the
    clean split. Modalities that the data do not have are left out.
    """
    clean = evaluate(dataset.test.labels.cpu().numpy(), predict(dataset.test), scale=dataset.scale)
    lines = []
    for m in (m for m in range(3) if dataset.available[m]):
        spread = deviation(dataset.train, m)
        cases = [("noise", level, noisy(dataset.test, m, level, spread, seed)) for level in levels]
        cases += [("missing", rate, missing(dataset.test, m, rate, seed)) for rate in rates]
        for kind in ("noise", "missing"):
            lines.append({"kind": kind, "modality": MODALITIES[m], "level": 0.0} | _pick(clean))
        for kind, level, split in cases:
            scores = evaluate(split.labels.cpu().numpy(), predict(split), scale=dataset.scale)
            lines.append({"kind": kind, "modality": MODALITIES[m], "level": float(level)} | _pick(scores))
    return pd.DataFrame(lines).sort_values(["kind", "modality", "level"], ignore_index=True)


def _pick(scores: dict[str, float]) -> dict[str, float]:
    return {name: scores[name] for name in ("mae", "corr")}
