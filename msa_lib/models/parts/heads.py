"""Heads that say a distribution over sentiment, not only a number: for models that need divergences and entropies.

A head turns the raw outputs [...,size] of a linear layer into a prediction [...], a training loss against labels, the
divergence between two such distributions, and the entropy of one. It has no weights of its own, so that one network
can use it on many vectors. Sentiment labels are graded; a plain softmax over classes (`argmax`) gives coarse MAE and
Corr, `bins_ev` keeps softmax and cross-entropy and predicts the expected value.

Two-hot targets as in Imani & White, "Improving regression performance with distributional losses" (2018).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msa_lib.data.dataset import LABEL_RANGE
from msa_lib.models.parts.layers import one_hot

HeadKind = Literal["bins_ev", "gauss", "point", "argmax", "binary"]
Target = Literal["two_hot", "onehot", "gauss"]
CENTRES = {"mosi": 7, "sims": 11}  # -3..3 in steps of 1; -1..1 in steps of 0.2, the grid of the SIMS labels


def two_hot(y: Tensor, centres: Tensor, step: float) -> Tensor:
    return F.relu(1 - ((y[..., None] - centres) / step).abs())


def onehot(y: Tensor, centres: Tensor, step: float) -> Tensor:
    return one_hot(torch.round(y / step).long() + len(centres) // 2, len(centres)).to(y.dtype)


def bump(y: Tensor, centres: Tensor, step: float) -> Tensor:
    return torch.softmax(-2 * ((y[..., None] - centres) / step) ** 2, -1)


TARGETS = {"two_hot": two_hot, "onehot": onehot, "gauss": bump}


def cross_entropy(head: Bins, raw: Tensor, labels: Tensor) -> Tensor:
    return -(head.targets(labels) * torch.log_softmax(raw, -1)).sum(-1)


def cross_entropy_plus_l1(head: Bins, raw: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(head, raw, labels) + (head.expected(raw) - labels).abs()


COSTS = {False: cross_entropy, True: cross_entropy_plus_l1}


class Bins(nn.Module):
    """`bins_ev`: softmax over ordered centres c_1..c_C on the label range; prediction sum_k p_k c_k.

    target  two_hot: weight on the two neighbouring centres, so that the mean is the label | onehot: the nearest
            centre | gauss: a bump around the label, half a step wide
    """

    def __init__(self, scale: str, target: Target = "two_hot", plus_l1: bool = False, centres: int = 0) -> None:
        super().__init__()
        self.size = centres or CENTRES[scale]
        self.range, self.spread, self.cost = LABEL_RANGE[scale], TARGETS[target], COSTS[plus_l1]
        self.step = 2 * self.range / (self.size - 1)
        self.register_buffer("centres", torch.linspace(-self.range, self.range, self.size), persistent=False)

    def targets(self, labels: Tensor) -> Tensor:
        """Labels [...] -> weights over the centres [...,C], each row a distribution; labels outside are clipped."""
        y = labels.clamp(-self.range, self.range)
        return self.spread(y, self.centres, self.step)

    def prediction(self, raw: Tensor) -> Tensor:
        return self.expected(raw)

    def expected(self, raw: Tensor) -> Tensor:
        return torch.softmax(raw, -1) @ self.centres

    def loss(self, raw: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy [...] of raw [...,C] against labels that broadcast to [...]."""
        return self.cost(self, raw, labels)

    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        """KL(p || q) [...] in nats of the distributions behind raw outputs p, q [...,C]."""
        log_p, log_q = torch.log_softmax(p, -1), torch.log_softmax(q, -1)
        return (log_p.exp() * (log_p - log_q)).sum(-1)

    def entropy(self, raw: Tensor) -> Tensor:
        """[...] in nats."""
        log_p = torch.log_softmax(raw, -1)
        return -(log_p.exp() * log_p).sum(-1)

    def vagueness(self, raw: Tensor) -> Tensor:
        """Entropy on a scale on which 1 is the uniform distribution: H / ln C."""
        return self.entropy(raw) / math.log(self.size)


class Argmax(Bins):
    """`argmax`: C classes, one-hot targets, the likeliest class: softmax and cross-entropy read strictly."""

    def __init__(self, scale: str, target: Target = "onehot", plus_l1: bool = False) -> None:
        super().__init__(scale, "onehot", plus_l1)

    def prediction(self, raw: Tensor) -> Tensor:
        return self.centres[raw.argmax(-1)]


class Binary(Bins):
    """`binary`: two classes. Never told how strong a sentiment is: only Acc-2 and F1 of its predictions mean anything.

    A zero label counts as positive on the MOSI scale (has0) and as negative on the SIMS scale, as in their Acc-2.
    """

    def __init__(self, scale: str, target: Target = "onehot", plus_l1: bool = False) -> None:
        super().__init__(scale, "onehot", plus_l1, centres=2)
        self.positive = torch.ge if scale == "mosi" else torch.gt

    def targets(self, labels: Tensor) -> Tensor:
        return one_hot(self.positive(labels, 0), 2).to(labels.dtype)


class Gauss(nn.Module):
    """`gauss`: a normal distribution, raw outputs mean and pre-variance; negative log-likelihood."""

    size = 2

    def __init__(self, scale: str) -> None:
        super().__init__()
        self.range = LABEL_RANGE[scale]

    def _moments(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        return raw[..., 0], F.softplus(raw[..., 1]) + 1e-3

    def prediction(self, raw: Tensor) -> Tensor:
        return raw[..., 0]

    def loss(self, raw: Tensor, labels: Tensor) -> Tensor:
        mean, variance = self._moments(raw)
        return 0.5 * (torch.log(2 * math.pi * variance) + (labels - mean) ** 2 / variance)

    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        (m, v), (n, w) = self._moments(p), self._moments(q)
        return 0.5 * (torch.log(w / v) + (v + (m - n) ** 2) / w - 1)

    def entropy(self, raw: Tensor) -> Tensor:
        return 0.5 * torch.log(2 * math.pi * math.e * self._moments(raw)[1])

    def vagueness(self, raw: Tensor) -> Tensor:
        """e^H over the label range, the share of it that the distribution covers; 1 for the uniform one on it."""
        return torch.exp(self.entropy(raw)) / (2 * self.range)


class GaussL1(Gauss):
    """The same, trained with L1 on its mean: the variance then learns from divergences and entropies only."""

    def loss(self, raw: Tensor, labels: Tensor) -> Tensor:
        return (raw[..., 0] - labels).abs()


class Point(nn.Module):
    """`point`: a number. L1 loss; the divergence of two numbers is their squared difference, entropies are 0."""

    size = 1

    def __init__(self, scale: str) -> None:
        super().__init__()

    def prediction(self, raw: Tensor) -> Tensor:
        return raw[..., 0]

    def loss(self, raw: Tensor, labels: Tensor) -> Tensor:
        return (raw[..., 0] - labels).abs()

    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        return (p[..., 0] - q[..., 0]) ** 2

    def entropy(self, raw: Tensor) -> Tensor:
        return torch.zeros_like(raw[..., 0])

    vagueness = entropy


def sentiment_head(
    kind: HeadKind, scale: str, target: Target = "two_hot", ce_plus_l1: bool = False, gauss_loss: str = "nll"
) -> nn.Module:
    """The head `kind` for a label scale. `target` and `ce_plus_l1` matter to the class heads, `gauss_loss` to gauss."""
    if kind == "gauss":
        return {"nll": Gauss, "l1": GaussL1}[gauss_loss](scale)
    if kind == "point":
        return Point(scale)
    return {"bins_ev": Bins, "argmax": Argmax, "binary": Binary}[kind](scale, target, ce_plus_l1)
