"""MIM: "Multimodal Reaction: Information Modulation for Cross-modal Representation Learning" (Zeng, Yan, Mai, Hu, IEEE
TMM 2023). Completed from the authors' repository (zengy268/MIM, 08df574), in our own words; the paper was not at hand.

Read top-down: encoders -> per modality a purifying network (UPN) that opens or closes a hard-concrete gate on each
step -> the mean of all steps (raw) and of those let through (pure), each read by the modality's own predictor ->
the product of the pure vectors, read for the prediction -> reactions: within a modality the worse of raw and pure
follows the better, between modalities the two worse pure vectors follow the best -> two optimisers.

The repository does not run: its losses are in part comments, and the module that training imports, the non-linearity
and the functions that combine the losses are missing. Known from it: sizes, gates, predictors, fusion, weights, what
each backward goes through, Adam. Ours: see the card.
What the code does otherwise: it reads padding as steps (and has zeros at [CLS] and [SEP] for audio and vision), and
draws the noise of the gates at evaluation too (`noise=always`). Its two optimisers share one forward, the first
changing weights of which the second's backward then finds some changed, which PyTorch no longer allows: here both
gradients are taken before either step (`forwards=one`) or a forward precedes each.
What follows from the code: the score of a step ends in a ReLU, and in 11 of 36 UPNs drawn at MOSI's shape it is 0 at
every step, so that their gates start without seeing the input. At the stated rate two steps of Adam per batch move a
weight by about 0.16 at most in 100 epochs of MOSI, while the logits start near 3, where gates are open.

Published: no number of the paper itself was read; those quoted for it are from later tables. Word-aligned features of
other sizes (MOSI 74 and 47) with BERT trained along; MAE and Corr of samples with a label other than 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msa_lib.data import Batch, Dataset
from msa_lib.models.card import Card, Stated, lacking
from msa_lib.models.parts.decoupled import l1
from msa_lib.models.parts.inputs import Inputs
from msa_lib.models.parts.layers import Bank, Output, as_extras, fixed_draw, masked_mean
from msa_lib.models.parts.losses import weighted
from msa_lib.models.parts.recurrent import LSTM
from msa_lib.models.parts.wordwise import WordEncoders
from msa_lib.train.procedure import Procedure


@dataclass(frozen=True)
class MIMConfig:
    d: int = 80
    heads: int = 5
    n_layers: int = 3
    attn_dropout: float = 0.5
    relu_dropout: float = 0.3
    res_dropout: float = 0.3
    embed_dropout: float = 0.2
    ratio: int = 5  # steps per hidden unit of the layer that compares them
    penalty: float = 0.1  # weight of open gates
    temperature: float = 10.0  # of the reaction between modalities, before the adjuster
    activation: Literal["relu", "tanh"] = "relu"  # before the mean over steps
    fusion: Literal["product", "concat"] = "product"
    softening: Literal["weight", "logits"] = "weight"  # where the temperature acts: on the weight alone | on both
    noise: Literal["training", "always"] = "training"  # of the gates; always: as released, by a fixed draw per sample
    forwards: Literal["one", "two"] = "one"  # per batch, for the two optimisers
    bert: Literal["precomputed", "frozen", "finetune"] = "precomputed"
    alignment: Literal["aligned", "padded"] = "aligned"


VARIANTS = {
    "full": {},
    "as released": {"noise": "always"},
    "tanh": {"activation": "tanh"},
    "concatenation": {"fusion": "concat"},
    "softened logits": {"softening": "logits"},
    "a forward per optimiser": {"forwards": "two"},
}
CARD = Card(
    paper="Zeng, Yan, Mai, Hu, Multimodal Reaction: Information Modulation for Cross-modal Representation Learning, "
    "IEEE TMM 2023",
    fidelity="completed",
    specified="By the authors' incomplete code: sizes, gates, predictors, fusion, the reactions, what each of the two "
    "backward passes goes through, settings of training.",
    ours="The non-linearity is ReLU (it and Tanh are comments there). The penalty is the mean over steps and samples, "
    "summed over modalities. Both gradients are taken before either optimiser steps. No noise at evaluation: a gate "
    "is open if it would be at the median draw. Padding is masked; gates have room for the data's longest sequence. "
    "What a sample lacks is in no loss, and counts 1 in the product; a text of one token is lacking. Text features "
    "are given (the code trains BERT along: bert=finetune). CH-SIMS and its v2 have MOSI's settings.",
    choices=("activation", "softening", "noise", "forwards", "bert", "alignment"),
)


def _recipe(source: str = "zengy268/MIM 08df574, README.md and train.py") -> dict[str, Stated]:
    values = {"batch_size": 16, "lr": 1e-5, "lr_encoder": 1e-5, "weight_decay": 0.0, "clip": 0.0, "epochs": 100}
    return {name: Stated(value, source) for name, value in (values | {"patience": 100, "drop_last": True}).items()}


_OURS = _recipe("ours: MOSI's")
RECIPES = {"mosi": _recipe(), "mosei": _recipe(), "sims": _OURS, "simsv2": _OURS}
SMALL = {"d": 10, "heads": 2, "n_layers": 1, "ratio": 1}


class Trace(NamedTuple):
    """What a forward leaves behind for the losses."""

    available: Tensor  # [B,M]
    pure: Tensor  # purified vectors [B,M,d]
    own: Tensor  # predictions of the raw vectors [B,M]
    own_pure: Tensor  # of the purified ones [B,M]
    open: Tensor  # mean probability that a gate is not 0 [B,M]


# --------------------------------------------------------------------------- hard-concrete gates (Louizos et al. 2018)

BETA, GAMMA, ZETA = 1 / 3, -0.2, 1.0  # temperature; the ends of the stretched interval
SHIFT, THRESHOLD = 3.0, 0.6  # added to the logits; above it a gate is 1


def hard_concrete(logits: Tensor, u: Tensor) -> Tensor:
    """The gate in [0,1] of noise u, uniform in (0,1): a stretched, clipped sigmoid."""
    s = torch.sigmoid((torch.log(u) - torch.log1p(-u) + logits + SHIFT) / BETA)
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def open_probability(logits: Tensor) -> Tensor:
    """The probability, over the noise, that the gate is not 0."""
    return torch.sigmoid(logits + SHIFT - BETA * math.log(-GAMMA / ZETA))


def binary(gate: Tensor) -> Tensor:
    """0 or 1; its gradient is the gate's."""
    return gate + ((gate > THRESHOLD).to(gate.dtype) - gate).detach()


def median_noise(logits: Tensor, index: Tensor) -> Tensor:
    return torch.full_like(logits, 0.5)


def fixed_noise(logits: Tensor, index: Tensor) -> Tensor:
    """Uniform noise [B,M,L] that depends on a sample's number and the gate's place alone."""
    _, M, L = logits.shape
    place = torch.arange(M * L, device=logits.device).view(M, L)
    return (fixed_draw(index[:, None, None] * (M * L) + place, 2**20) + 0.5) / 2**20


EVALUATION_NOISE = {"training": median_noise, "always": fixed_noise}


class Purify(nn.Module):
    """The UPN of one modality: x [B,T,d], mask [B,T] -> logits of the gates [B,steps]."""

    def __init__(self, d: int, steps: int, ratio: int) -> None:
        super().__init__()
        self.lstm = LSTM(d, d // 2, bidirectional=True)
        self.score = nn.Sequential(nn.Linear(d, d // 2), nn.ReLU(), nn.Linear(d // 2, 1), nn.ReLU())
        hidden = max(steps // ratio, 1)
        self.compare = nn.Sequential(nn.Linear(steps, hidden), nn.ReLU(), nn.Linear(hidden, steps))
        self.steps = steps

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        score = self.score(self.lstm(x, mask)[0])[..., 0] * mask
        return self.compare(resized(score, self.steps))


def resized(x: Tensor, steps: int) -> Tensor:
    """x [B,T,...] with `steps` steps: zeros added at the end, or steps of padding taken off there."""
    return F.pad(x, (0, 0) * (x.ndim - 2) + (0, steps - x.shape[1]))


# ------------------------------------------------------------------------------------------------------ two optimisers


class TwoOptimisers(Procedure):
    """One Adam owns the purifying networks and goes by their penalty and predictions; another owns everything and goes
    by all other losses."""

    selects = "task"

    def __init__(self, network: MIM, dataset: Dataset, config) -> None:
        super().__init__(network, dataset, config)
        self.gates = list(network.purify.parameters())
        group = {"params": self.gates, "lr": config.lr, "weight_decay": config.weight_decay}
        self.optimisers["gates"] = self.optimiser([group])
        self.train_on = {"one": self.at_one_point, "two": self.one_after_the_other}[network.c.forwards]

    def optimiser(self, groups: list[dict]) -> torch.optim.Optimizer:
        return torch.optim.Adam(groups, fused=True)

    def step(self, batch: Batch, name: str) -> dict[str, Tensor]:
        return self.train_on(batch)

    def at_one_point(self, batch: Batch) -> dict[str, Tensor]:
        terms = self.loss(batch, self.network(batch))
        first, second = self.halves(terms)
        gradients = self.gradients(first, retain_graph=True, inputs=self.gates), self.gradients(second)
        for optimiser, held in zip(("gates", "main"), gradients, strict=True):
            for parameter, gradient in held:
                parameter.grad = gradient
            self.clip(optimiser)
            self.optimisers[optimiser].step()
        return terms

    def one_after_the_other(self, batch: Batch) -> dict[str, Tensor]:
        self.descend(self.halves(self.loss(batch, self.network(batch)))[0], "gates")
        terms = self.loss(batch, self.network(batch))
        self.descend(self.halves(terms)[1], "main")
        return terms

    def halves(self, terms: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What the optimiser of the gates goes by, and the rest of the total."""
        first = self.network.c.penalty * terms["penalty"] + terms["pure"]
        return first, terms["total"] - first

    def gradients(self, loss: Tensor, **how) -> list[tuple[nn.Parameter, Tensor | None]]:
        """Of every parameter. Not by `autograd.grad`, whose results can lie in memory as a fused optimiser misreads."""
        self.drop_gradients()
        loss.backward(**how)
        return [(parameter, parameter.grad) for parameter in self.network.parameters()]


# ----------------------------------------------------------------------------------------------------------- the model


class Concat(nn.Module):
    """tanh(W [l; a; v]): [B,M,d] -> [B,d]."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * d, d)

    def forward(self, pure: Tensor, here: Tensor) -> Tensor:
        return torch.tanh(self.linear(pure.flatten(1)))


class Product(nn.Module):
    """tanh(W (l * a * v)), over the modalities that are there."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.linear = nn.Linear(d, d)

    def forward(self, pure: Tensor, here: Tensor) -> Tensor:
        l, a, v = torch.where(here[..., None], pure, 1.0).unbind(1)  # noqa: E741
        return torch.tanh(self.linear(l * a * v))


FUSION = {"product": Product, "concat": Concat}
ACTIVATION = {"relu": F.relu, "tanh": torch.tanh}
SOFTENED = {"weight": lambda x, temperature: x, "logits": lambda x, temperature: x / temperature}


class MIM(nn.Module):
    """The whole network."""

    Config, VARIANTS, CARD, RECIPES, SMALL, Procedure = MIMConfig, VARIANTS, CARD, RECIPES, SMALL, TwoOptimisers
    RECORD = ()

    @staticmethod
    def fits(dataset: Dataset, switches: Mapping) -> str:
        return lacking(dataset, "tav")

    def __init__(self, dataset: Dataset, c: MIMConfig) -> None:
        super().__init__()
        if c.d % 2 or c.ratio < 1:
            raise ValueError(
                f"d={c.d}, ratio={c.ratio}: expected an even d, halved by an LSTM, and a ratio of at least 1."
            )
        self.c, self.inputs = c, Inputs(dataset, c.bert, c.alignment)
        dropout = c.attn_dropout, c.relu_dropout, c.res_dropout, c.embed_dropout
        self.encode = WordEncoders(self.inputs.dims, c.d, c.heads, c.n_layers, *dropout)
        text, *others = self.inputs.steps
        self.steps = [max(text - 1, 1), *(max(steps, 1) for steps in others)]
        self.purify = nn.ModuleList(Purify(c.d, steps, c.ratio) for steps in self.steps)
        self.predict, self.fuse, self.out = Bank(c.d, 1), FUSION[c.fusion](c.d), nn.Linear(c.d, 1)
        self.activate, self.soften = ACTIVATION[c.activation], SOFTENED[c.softening]
        self.evaluation_noise = EVALUATION_NOISE[c.noise]

    def forward(self, batch: Batch) -> Output:
        raw, masks = self.inputs(batch)  # [B,T,D], [B,T] each
        raw[0], masks[0] = (resized(x[:, 1:], x.shape[1]) for x in (raw[0], masks[0]))  # text without its first token
        X = self.encode(raw, masks)  # [B,T,d] each
        logits = [upn(x, mask) for upn, x, mask in zip(self.purify, X, masks, strict=True)]  # [B,steps] each
        L = max(self.steps)
        X, mask, logits = (torch.stack([resized(y, L) for y in part], 1) for part in (X, masks, logits))  # [B,M,L,...]

        u = (
            torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
            if self.training
            else self.evaluation_noise(logits, batch.index)
        )
        gate = binary(hard_concrete(logits, u))  # [B,M,L]
        whole = masked_mean(self.activate(X), mask)  # [B,M,d]
        pure = masked_mean(self.activate(X * gate[..., None]), mask)  # [B,M,d]
        own, own_pure = self.predict(whole)[..., 0], self.predict(pure)[..., 0]  # [B,M]
        here, opened = mask.any(-1), masked_mean(open_probability(logits)[..., None], mask)[..., 0]  # [B,M]
        y = self.out(self.fuse(pure, here))[:, 0]
        return Output(y, as_extras(Trace(here, pure, own, own_pure, opened)))

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        t, y = Trace(**output.extras), batch.labels
        weight = t.available.to(y.dtype) / t.available.sum(0).clamp(min=1)  # [B,M]: means over those that have it
        raw, pure = l1(t.own, y, t.available), l1(t.own_pure, y, t.available)  # [M]
        return weighted(
            task=(1.0, F.l1_loss(output.prediction, y)),
            raw=(1.0, raw.sum()),
            pure=(1.0, pure.sum()),
            penalty=(self.c.penalty, (t.open * weight).sum()),
            intra=(1.0, (follow_the_better(t.own, t.own_pure, pure < raw) * weight).sum()),
            inter=(1.0, self.follow_the_best(t, pure.detach())),
        )

    def follow_the_best(self, t: Trace, error: Tensor) -> Tensor:
        """Half (10 alpha)^2 KL(best || other), summed over the other two; softmax over features, mean over samples."""
        scale = self.c.temperature * adjuster(error)  # [M]
        has = t.available.any(0)
        modality = torch.arange(3, device=error.device)
        best = (modality == torch.where(has, error, math.inf).argmin()) & has  # [M]
        total = error.new_zeros(())
        for m in range(3):
            log_p = torch.log_softmax(self.soften(t.pure, scale[m]), -1)  # [B,M,d]
            teacher = log_p[:, m : m + 1].detach()
            kl = (teacher.exp() * (teacher - log_p)).sum(-1)  # [B,M]; 0 of the teacher itself
            both = (t.available & t.available[:, m : m + 1]).to(kl.dtype)
            means = (kl * both).sum(0) / both.sum(0).clamp(min=1)  # [M]
            total = total + best[m] * scale[m] ** 2 / 2 * (means.sum() - means[m])
        return total


def follow_the_better(raw: Tensor, pure: Tensor, pure_is_better: Tensor) -> Tensor:
    """Squares [B,M] of the gaps between predictions [B,M]; for each modality only the worse one is pulled."""
    better, worse = torch.where(pure_is_better, pure, raw), torch.where(pure_is_better, raw, pure)
    return (worse - better.detach()).square()


def adjuster(error: Tensor) -> Tensor:
    """alpha [M] of the errors of the purified predictions: 3 over (1 + share), normalised to a sum of 3."""
    weight = 1 / (1 + error / error.sum().clamp(min=1e-12))
    return 3 * weight / weight.sum()
