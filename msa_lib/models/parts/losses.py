"""Auxiliary losses that models share: contrasts, independence and likeness of vectors, of which some may be absent."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from msa_lib.models.parts.layers import unchanged


def weighted(**terms: tuple[float, Tensor | None]) -> dict[str, Tensor]:
    """name=(weight, value) of every term -> the values and `total`, their weighted sum; without those that are None."""
    found = {name: term for name, term in terms.items() if term[1] is not None}
    total = sum(weight * value for weight, value in found.values())
    return {name: value for name, (_, value) in found.items()} | {"total": total}


def mean_of(x: Tensor, available: Tensor) -> Tensor:
    """Mean of x [B,M] over the modalities that are there; 0 if none is."""
    weight = available.to(x.dtype)
    return (x * weight).sum() / weight.sum().clamp(min=1)


def feature_entropy(x: Tensor) -> Tensor:
    """Entropy [...] of the softmax over the features of x [...,d]."""
    log_p = torch.log_softmax(x, -1)
    return -(log_p.exp() * log_p).sum(-1)


def infonce(x: Tensor, guess: Tensor, here: Tensor, score: Callable[[Tensor], Tensor] = unchanged) -> Tensor:
    """Cross-entropy of each x [B,d] against the guesses of all samples, by `score` of the cosine; mean over those that
    are there (contrastive predictive coding)."""
    S = score(F.normalize(x, dim=-1) @ F.normalize(guess, dim=-1).T)  # [B,B]
    return mean_of(torch.logsumexp(S, -1) - S.diagonal(), here)


def reverse(x: Tensor, weight: float | Tensor = 1.0) -> Tensor:
    """x as it is; its gradient is multiplied by -weight (Ganin & Lempitsky, ICML 2015)."""
    still = x.detach()
    return still + weight * (still - x)


def central_moments(x: Tensor, y: Tensor, here_x: Tensor, here_y: Tensor, moments: int = 5) -> Tensor:
    """Central moment discrepancy (Zellinger et al., ICLR 2017) of x, y [B,d] over the samples [B] that are there.

    The distance of the means, and of the central moments of order 2 to `moments`. Values should lie in an interval of
    length 1. 0 if either has no sample.
    """

    def distance(a: Tensor, b: Tensor) -> Tensor:
        square = (a - b).square().sum()
        apart = square > 0
        return torch.where(apart, torch.where(apart, square, 1.0).sqrt(), 0.0)  # without the infinite gradient at 0

    def split(z: Tensor, here: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # mean [d], deviations [B,d], weights [B,1]
        w = here.to(z.dtype)[:, None] / here.sum().clamp(min=1)
        mean = (w * z).sum(0)
        return mean, z - mean, w

    (mean_x, dx, wx), (mean_y, dy, wy) = split(x, here_x), split(y, here_y)
    orders = range(2, moments + 1)
    higher = (distance((wx * dx**k).sum(0), (wy * dy**k).sum(0)) for k in orders)
    return sum(higher, start=distance(mean_x, mean_y)) * (here_x.any() & here_y.any())


# How far vectors R [B,M,n,d] are from independent, over the modalities that are there: 0 when they are.


def squared_cosine(R: Tensor, available: Tensor) -> Tensor:
    """Of the first two."""
    cos = F.cosine_similarity(R[:, :, 0], R[:, :, 1], dim=-1)
    return mean_of(cos * cos, available)


def squared_cosines(R: Tensor, available: Tensor) -> Tensor:
    """The mean over all pairs of the n."""
    pairs = combinations(range(R.shape[2]), 2)
    cos = [F.cosine_similarity(R[:, :, i], R[:, :, j], dim=-1) for i, j in pairs]
    return mean_of(torch.stack([x * x for x in cos]).mean(0), available)


def cross_covariance(R: Tensor, available: Tensor) -> Tensor:
    """Mean squared entry of the first two's covariance over the samples of the batch that have the modality."""
    w = available.to(R.dtype)  # [B,M]
    count = w.sum(0)  # [M]
    n, rest = count.clamp(min=1), (count - 1).clamp(min=1)
    x, y = (r - (r * w[..., None]).sum(0) / n[:, None] for r in (R[:, :, 0], R[:, :, 1]))
    cov = torch.einsum("bm,bmi,bmj->mij", w, x, y) / rest[:, None, None]
    return (cov * cov).mean((1, 2)).sum() / (count > 0).sum().clamp(min=1)


def gaussian(r: Tensor, pair: Tensor) -> Tensor:
    """Of r [B,M,d], [M,B,B]; its width is the mean square distance over the pairs [M,B,B] of samples that are there."""
    square = ((r[:, None] - r[None]) ** 2).sum(-1).permute(2, 0, 1)
    width = ((square * pair).sum((1, 2)) / pair.sum((1, 2)).clamp(min=1)).detach().clamp(min=1e-6)
    return torch.exp(-square / (2 * width[:, None, None]))


KERNELS = {"gaussian": gaussian, "linear": lambda r, pair: torch.einsum("bmd,amd->mba", r, r)}


def hsic(R: Tensor, available: Tensor, kernel: str = "gaussian") -> Tensor:
    """Hilbert-Schmidt independence criterion of the first two over the batch."""
    w = available.to(R.dtype)  # [B,M]
    count = w.sum(0)  # [M]
    n, rest = count.clamp(min=1), (count - 1).clamp(min=1)
    pair = torch.einsum("bm,am->mba", w, w)  # [M,B,B]

    def centred(r: Tensor) -> Tensor:  # kernel matrix without its means over the samples that are there
        k = KERNELS[kernel](r, pair) * pair  # [M,B,B]
        rows = k.sum(2, keepdim=True) / n[:, None, None]
        return (k - rows - rows.mT + k.sum((1, 2), keepdim=True) / n[:, None, None] ** 2) * pair

    return ((centred(R[:, :, 0]) * centred(R[:, :, 1])).sum((1, 2)) / rest**2).sum() / (count > 0).sum().clamp(min=1)


INDEPENDENCE = {"cos2": squared_cosine, "all_pairs": squared_cosines, "crosscov": cross_covariance, "hsic": hsic}
REDUCTION = {"mean": lambda total, count: total / count.clamp(min=1), "sum": lambda total, count: total}


def contrast(Z: Tensor, group: Tensor, available: Tensor, tau: float, mask_self: bool, reduction: str) -> Tensor:
    """Supervised contrast of Z [B,M,d]: the mean log-probability of the others of an anchor's `group` [B,M]."""
    group, here = group.flatten(), available.flatten()
    log_p, eye = _log_similarity(Z, here, tau, mask_self)
    positive = ((group[:, None] == group) & here & here[:, None] & ~eye).to(Z.dtype)  # [BM,BM]
    count = positive.sum(1)
    anchors = -(log_p * positive).sum(1) / count.clamp(min=1)
    return REDUCTION[reduction](anchors.sum(), (count > 0).sum())


def printed_contrast(Z: Tensor, available: Tensor, tau: float, mask_self: bool, reduction: str) -> Tensor:
    """DSRF Eq. 6 as printed: positives are the sample's other modalities; the next one, cyclically, counts twice."""
    B = len(Z)
    log_p, _ = _log_similarity(Z, available.flatten(), tau, mask_self)
    same = log_p.view(B, 3, B, 3).diagonal(dim1=0, dim2=2)  # [M,M,B]: within one sample
    both = torch.einsum("bm,bn->mnb", available.to(Z.dtype), available.to(Z.dtype))
    eye = torch.eye(3, device=Z.device)
    total = -(same * both * (1 - eye + eye.roll(1, 1))[..., None]).sum()  # second sum + first sum
    return REDUCTION[reduction](total, available.sum())


def _log_similarity(Z: Tensor, here: Tensor, tau: float, mask_self: bool) -> tuple[Tensor, Tensor]:
    """Log-softmax [BM,BM] of cosine similarities over tau among all vectors that are there, and the identity mask."""
    flat = F.normalize(Z.flatten(0, 1), dim=-1, eps=1e-8)
    eye = torch.eye(len(flat), dtype=torch.bool, device=Z.device)
    out = ~here[None] | (eye & mask_self)
    return torch.log_softmax((flat @ flat.T / tau).masked_fill(out, -1e4), -1), eye
