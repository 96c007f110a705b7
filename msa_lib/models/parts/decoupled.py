"""What DMD and its descendant DLF share: sequences X decoupled in a specific part s and a shared part c, the losses
that make them so, residual readouts, and the way both are trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msa_lib.models.parts.dropout import Dropout
from msa_lib.train.procedure import SummedAdam


class Residual(nn.Module):
    """Linear(dropout(ReLU(Linear x))) + x: [B,d] -> [B,d]."""

    def __init__(self, d: int, dropout: float) -> None:
        super().__init__()
        self.inner, self.outer, self.drop = nn.Linear(d, d), nn.Linear(d, d), Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.drop(F.relu(self.inner(x)))) + x


def stacked(X: Sequence[Tensor], steps: int) -> Tensor:
    """Sequences [B,L_m,...] of all modalities, padded to `steps` -> [B,M,L,...]."""
    return torch.stack([F.pad(x, (0, 0) * (x.ndim - 2) + (0, steps - x.shape[1])) for x in X], 1)


def l1(raw: Tensor, labels: Tensor, available: Tensor) -> Tensor:
    """Mean absolute error of each modality's prediction [B,M] over the samples that have it -> [M]."""
    here = available.to(raw.dtype)
    return ((raw - labels[:, None]).abs() * here).sum(0) / here.sum(0).clamp(min=1)


def squared_gap(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """Mean square of x - y [B,M,L,d] over the valid steps of each modality, summed over modalities."""
    weight = mask.to(x.dtype)
    total = ((x - y).square().mean(-1) * weight).sum((0, 2))
    return (total / weight.sum((0, 2)).clamp(min=1)).sum()


def overlap(s: Tensor, c: Tensor, mask: Tensor) -> Tensor:
    """Mean positive part of the cosine of s and c [B,M,L,d] over valid steps, summed over modalities."""
    cos, weight = F.relu(F.cosine_similarity(s, c, dim=-1)), mask.to(s.dtype)
    return ((cos * weight).sum((0, 2)) / weight.sum((0, 2)).clamp(min=1)).sum()


def label_margin(Z: Tensor, labels: Tensor, available: Tensor) -> Tensor:
    """Vectors [B,M,d] of exactly one label are nearer (by cosine) than those of others, by 0.15 per point of label.

    Mean of the hinge over the pairs (positive, negative) of each anchor, then over the anchors that have both.
    """
    flat, here = Z.flatten(0, 1), available.flatten()  # [N,d], [N]
    y = labels[:, None].expand(available.shape).flatten()
    norm = (flat.square().sum(-1) + 1e-8).sqrt()
    cos, gap = flat @ flat.T / (norm[:, None] * norm), (y[:, None] - y).abs()  # [N,N]
    both = here[:, None] & here & ~torch.eye(len(y), dtype=torch.bool, device=y.device)
    pairs = ((both & (gap == 0))[:, :, None] & (both & (gap != 0))[:, None]).to(Z.dtype)  # [N,N,N]
    hinge = F.relu(0.15 * gap[:, None] - cos[:, :, None] + cos[:, None]) * pairs
    count = pairs.sum((1, 2))
    return (hinge.sum((1, 2)) / count.clamp(min=1)).sum() / (count > 0).sum().clamp(min=1)


class DecoupledProcedure(SummedAdam):
    """The rate halves when the validation error has not fallen for more than five epochs."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
        self.schedules["main"] = plateau(self.optimisers["main"], factor=0.5, patience=5)

    def end_epoch(self, record: Mapping, score: float) -> None:
        self.schedules["main"].step(record["valid"]["mae"])
