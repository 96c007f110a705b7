"""What test samples look like when one modality is damaged: the experiment DSRF talks of and does not show.

Noise has a known energy: per feature, `level` times its deviation over the valid training steps, so that level 1 is as
much noise as signal. A missing modality has no valid step, a missing frame is zeros. "Shuffled alignment" can mean two
things, and both are here: steps that have changed places within a sample, and a modality that comes from another
sample. Networks are trained on clean data and only tested here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from scipy.integrate import trapezoid
from torch import Tensor

from msa_lib import MODALITIES
from msa_lib.data import Dataset, Split
from msa_lib.data.dataset import steps_mask
from msa_lib.data.degraded import cycled
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


def frames(split: Split, m: int, rate: float, seed: int = 0) -> Split:
    """`split` with zeros in a share `rate` of the valid steps of modality m, as where a sensor drops out.

    Text loses its token ids too, where there are any: they become padding.
    """
    x = getattr(split, MODALITIES[m])
    gone = _drawn(x, seed) < rate
    tokens = split.tokens
    if m == 0 and tokens is not None and tokens.shape[-1] == x.shape[1]:
        tokens = tokens.masked_fill(gone[:, None], 0)
    return replace(split, **{MODALITIES[m]: x.masked_fill(gone[..., None], 0.0)}, tokens=tokens)


def shuffled(split: Split, m: int, rate: float, seed: int = 0) -> Split:
    """`split` with a share `rate` of the valid steps of modality m in each other's places, within each sample."""
    x = getattr(split, MODALITIES[m])
    n, steps = x.shape[:2]
    chosen = (_drawn(x, seed) < rate) & steps_mask(split.lengths[:, m], steps)
    place = torch.arange(steps, device=x.device).expand(n, steps)
    into = place.masked_fill(~chosen, steps).argsort(dim=1, stable=True)  # the chosen steps first, in their order
    by = _drawn(x, seed + 1).masked_fill(~chosen, 2.0).argsort(dim=1, stable=True)  # the chosen steps first, in any
    counted = place < chosen.sum(1, keepdim=True)
    source = place.clone().scatter_(1, into, torch.where(counted, by, into))
    moved = {MODALITIES[m]: x.gather(1, source[..., None].expand_as(x))}
    if m == 0 and split.tokens is not None and split.tokens.shape[-1] == steps:
        moved["tokens"] = split.tokens.gather(2, source[:, None].expand_as(split.tokens))
    return replace(split, **moved)


def mispaired(split: Split, m: int, rate: float, seed: int = 0) -> Split:
    """`split` in which a share `rate` of the samples have modality m of another of these samples."""
    source = cycled(len(split), rate, seed).to(split.device)
    lengths = split.lengths.clone()
    lengths[:, m] = lengths[source, m]
    moved = {MODALITIES[m]: getattr(split, MODALITIES[m])[source]}
    if m == 0 and split.tokens is not None:
        moved["tokens"] = split.tokens[source]
    return replace(split, **moved, lengths=lengths, host_lengths=None)


def _drawn(x: Tensor, seed: int) -> Tensor:
    """Uniform numbers [N,T], one per step of x [N,T,D]; the same on every device."""
    return torch.rand(x.shape[:2], generator=torch.Generator().manual_seed(seed)).to(x.device)


RATED: dict[str, Callable[..., Split]] = {  # what a share of samples or steps can suffer
    "missing": missing, "frames": frames, "shuffled": shuffled, "mispaired": mispaired,
}  # fmt: skip
KINDS = ("noise", *RATED)


def curves(
    predictors: Sequence[Callable[[Split], np.ndarray]],
    dataset: Dataset,
    levels: Sequence[float] = LEVELS,
    rates: Sequence[float] = RATES,
    seed: int = 0,
    kinds: Sequence[str] = ("noise", "missing"),
) -> pd.DataFrame:
    """MAE and Corr of several predictors on the test split as one modality after the other is damaged.

    -> columns predictor (its position), kind (of `KINDS`), modality, level (of noise, or the share of samples or steps
    that is damaged), mae, corr. Level 0 is the clean split. Modalities that the data do not have are left out.
    """
    labels = dataset.test.labels.cpu().numpy()

    def scores(split: Split) -> list[dict]:
        found = [evaluate(labels, predict(split), scale=dataset.scale) for predict in predictors]
        return [{"predictor": i, "mae": one["mae"], "corr": one["corr"]} for i, one in enumerate(found)]

    clean, lines = scores(dataset.test), []
    for m in (m for m in range(3) if dataset.available[m]):
        spread = deviation(dataset.train, m)
        for kind in kinds:
            key = {"kind": kind, "modality": MODALITIES[m]}
            lines += [key | {"level": 0.0} | one for one in clean]
            for level in levels if kind == "noise" else rates:
                if kind == "noise":
                    split = noisy(dataset.test, m, level, spread, seed)
                else:
                    split = RATED[kind](dataset.test, m, level, seed)
                lines += [key | {"level": float(level)} | one for one in scores(split)]
    return pd.DataFrame(lines)


def areas(curves: pd.DataFrame) -> pd.DataFrame:
    """What is lost over each whole curve of MAE: curves with row, seed, kind, modality, level, mae -> the first four,
    clean: MAE(0), and area: 1/l_max of the integral of MAE(l) - MAE(0) from 0 to l_max, by the trapezoid rule.
    """

    def over(part: pd.DataFrame) -> pd.Series:
        part = part.sort_values("level")
        clean, top = part["mae"].iloc[0], part["level"].iloc[-1]
        return pd.Series({"clean": clean, "area": trapezoid(part["mae"] - clean, part["level"]) / top})

    key = ["row", "seed", "kind", "modality"]
    return curves.groupby(key, sort=False)[["level", "mae"]].apply(over).reset_index()


def share_lost(found: pd.DataFrame, constant: float) -> pd.Series:
    """The area of each line of `areas` as a share of the lead over a `constant` MAE, that of the label mean.

    NaN where there is no lead to lose.
    """
    lead = constant - found["clean"]
    return found["area"] / lead.where(lead > 0)
