"""MMIM: "Improving Multimodal Fusion with Hierarchical Mutual Information Maximization for Multimodal Sentiment
Analysis" (Han, Chen, Poria, EMNLP 2021). Written after the authors' code (declare-lab/Multimodal-Infomax, cd0774c) and
its port in thuiar/MMSA (a94e65d), in our own words; equations carry no numbers because the paper was not at hand.

Read top-down: one vector per modality -> fusion and prediction -> between modalities, a lower bound of their mutual
information (a Gaussian guess of one from the other, and an entropy estimate per sign of the label) -> from the fusion
back to the modalities, contrastive predictive coding -> two passes per epoch, each with an optimiser of its own.

Specified (by the code): sizes, losses, both passes, Adam with L2, the plateau schedule.
Ours: a pair of which a sample lacks a modality is in no bound, contrast or entropy; the entropy of a class of fewer
samples than its covariance needs is 0 (the released code gets -inf or NaN); `text=mean` for features without a
summarising first token; the plateau follows validation MAE, where the code has the mean L1 of batches. SIMSv2 has no
published setting.
The released code besides: has a memory of one batch, but uses the entropy from the third batch of an epoch on, not from
the second (`entropy_from=third`). It never trains the map that the entropy is measured behind: no optimiser has it
with a gradient, and only the encoders learn from it (`entropy_map=fixed`, kept here). The Tanh configured for the log
variance is not applied, nor here. Both directions of the LSTMs only in MMSA (`bidirectional`).

Published: MOSI MAE .700, Corr .800, Acc-2 84.14/86.06, Acc-7 46.65; MOSEI .526, .772, 82.24/85.97, 54.24 (secondary).
The authors' code keeps an epoch only if its *test* MAE is the best so far (`selection=test_oracle` is near it). Others'
runs: MOSI .811, .725; MOSEI .598/.599, .740; SIMS .441, .531 (one secondary table). Not in MMSA's table.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msa_lib.data import Batch, Dataset
from msa_lib.models.card import Card, Stated, lacking
from msa_lib.models.parts.dropout import Dropout
from msa_lib.models.parts.inputs import TEXT_VECTOR, Inputs
from msa_lib.models.parts.layers import Output, absent, as_extras
from msa_lib.models.parts.losses import infonce, mean_of, weighted
from msa_lib.models.parts.recurrent import SequenceEncoder
from msa_lib.train.procedure import Procedure


@dataclass(frozen=True)
class MMIMConfig:
    hidden: int = 16  # of the LSTMs
    d_av: int = 16  # of the audio and vision vectors
    d: int = 128  # of the fusion
    dropout: float = 0.1  # on what is fused
    bidirectional: bool = False  # true in MMSA
    pairs: Literal["tv,ta", "tv,ta,va"] = "tv,ta"  # guessed: the second from the first
    contrast: bool = True  # the bound and the contrast; false leaves the entropy alone
    alpha: float = 0.1  # of the contrast
    beta: float = 0.1  # of bound and entropy
    memory: int = 1  # batches that the entropy remembers
    bound_share: float = 1.0  # of the training set in the first pass
    bert: Literal["precomputed", "frozen", "finetune"] = "precomputed"
    text: Literal["first", "mean"] = "first"  # token that stands for the text
    entropy_from: Literal["second", "third"] = "second"  # batch of an epoch, for a memory of one; third: as released
    entropy_map: Literal["fixed", "trained"] = "fixed"


CARD = Card(
    paper="Han, Chen, Poria, Improving Multimodal Fusion with Hierarchical Mutual Information Maximization for "
    "Multimodal Sentiment Analysis, EMNLP 2021",
    fidelity="specified",
    specified="Sizes, losses, the two passes and optimisers, by the authors' code.",
    ours="What lacks a modality is in no bound, contrast or entropy; a class of too few samples has entropy 0; the "
    "plateau follows MAE; the entropy starts with the second batch; SIMSv2 has the settings of SIMS.",
    choices=("text", "bert", "entropy_from"),
)
VARIANTS = {
    "full": {},
    "as released": {"entropy_from": "third"},
    "as in MMSA": {"entropy_from": "third", "bidirectional": True},
}
SMALL = {"hidden": 8, "d_av": 8, "d": 16, "text": "mean"}  # planted text begins with no token that sums it up


def _recipe(bound_share: float, source: str = "MMIM, config.py; equal in MMSA") -> dict[str, Stated]:
    values = {"batch_size": 32, "lr": 1e-3, "lr_encoder": 5e-5, "weight_decay": 1e-4, "clip": 1.0, "drop_last": False}
    stated = {name: Stated(value, source) for name, value in (values | {"bound_share": bound_share}).items()}
    return stated | {"epochs": Stated(40, "MMIM, config.py"), "patience": Stated(10, "MMIM, config.py; 8 in MMSA")}


RECIPES = {
    "mosi": _recipe(1.0),
    "mosei": _recipe(0.5),
    "sims": _recipe(1.0, "MMSA"),
    "simsv2": _recipe(1.0, "ours: that of SIMS"),
}
PAIRS = {"tv,ta": ((0, 2), (0, 1)), "tv,ta,va": ((0, 2), (0, 1), (2, 1))}


class Trace(NamedTuple):
    """What a forward leaves behind for the losses."""

    text: Tensor  # h_t [B,D_t]
    audio: Tensor  # h_a [B,d_av]
    vision: Tensor  # h_v [B,d_av]
    fused: Tensor  # Z [B,d]


class Fusion(nn.Module):
    """The concatenated vectors [B,sum] -> Z [B,d] and the prediction [B]."""

    def __init__(self, size: int, c: MMIMConfig) -> None:
        super().__init__()
        self.drop, self.linear1, self.linear2 = Dropout(c.dropout), nn.Linear(size, c.d), nn.Linear(c.d, c.d)
        self.out = nn.Linear(c.d, 1)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        Z = torch.tanh(self.linear2(torch.tanh(self.linear1(self.drop(h)))))
        return Z, self.out(Z)[:, 0]


# ---------------------------------------------------------------------- mutual information between modalities (MMILB)


class Bound(nn.Module):
    """log q(y | x) of each sample [B] under a Gaussian guess of y from x, without its constant and determinant."""

    def __init__(self, d_x: int, d_y: int) -> None:
        super().__init__()
        self.mean, self.logvar = (nn.Sequential(nn.Linear(d_x, d_y), nn.ReLU(), nn.Linear(d_y, d_y)) for _ in range(2))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        # Nothing holds the variance down: divided by an overflowing exp, the value would be 0 and its gradient NaN.
        return -((y - self.mean(x)).square() * (-self.logvar(x)).exp() / 2).sum(-1)


class Seen(NamedTuple):
    """Samples for the entropy estimate of each pair P, and which of them count to the positive and negative class."""

    y: Tensor  # [P,N,s]
    classes: Tensor  # [P,2,N]


def entropy(seen: Seen) -> Tensor:
    """H, summed over pairs: a quarter of the log determinants of the two classes' covariances."""
    y, w = seen.y[:, None], seen.classes[..., None].to(seen.y.dtype)  # [P,1,N,s], [P,2,N,1]
    n, one = w.sum(2, keepdim=True), torch.eye(seen.y.shape[-1], device=y.device)  # [P,2,1,1], [s,s]
    gap = (y - (w * y).sum(2, keepdim=True) / n.clamp(min=1)) * w  # [P,2,N,s]
    cov = gap.mT @ gap / n.clamp(min=1)  # [P,2,s,s]
    cov = torch.where(n > len(one), cov, one)  # of fewer samples it is singular; log det 1 = 0
    return torch.linalg.slogdet(cov + 1e-12 * one)[1].sum() / 4


# ------------------------------------------------------------------------------------------- two passes in each epoch


class TwoPasses(Procedure):
    """First the guesses of the bound alone learn, then everything else, by the loss and the entropy."""

    selects = "task"

    def __init__(self, network: MMIM, dataset: Dataset, config) -> None:
        super().__init__(network, dataset, config)
        self.optimisers["bound"] = self.optimiser([self.group(network.bounds.parameters(), config.lr)])
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
        self.schedules["main"] = plateau(self.optimisers["main"], factor=0.5, patience=20)

    def groups(self) -> list[dict]:
        encoder, rest, left_out = [], [], LEFT_OUT[self.network.c.entropy_map]
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad and not name.startswith(left_out):
                (encoder if "text_encoder." in name else rest).append(parameter)
        pairs = (rest, self.config.lr), (encoder, self.config.lr_encoder)
        return [self.group(parameters, lr) for parameters, lr in pairs if parameters]

    def group(self, parameters: Iterable[nn.Parameter], lr: float) -> dict:
        return {"params": list(parameters), "lr": lr, "weight_decay": self.config.weight_decay}

    def optimiser(self, groups: list[dict]) -> torch.optim.Optimizer:
        return torch.optim.Adam(groups, fused=True)

    def begin_epoch(self, epoch: int) -> None:
        self.past: list[Seen] = []

    def passes(self, epoch: int, shuffle: torch.Generator) -> Iterator[tuple[str, Iterable[Batch]]]:
        c = self.network.c
        if c.contrast:
            for _, batches in super().passes(epoch, shuffle):
                yield "bound", islice(batches, math.ceil(c.bound_share * self.steps))
        self.counted = -FIRST[c.entropy_from] - c.memory  # batches until the entropy counts, from below 0
        yield from super().passes(epoch, shuffle)

    def step(self, batch: Batch, name: str) -> dict[str, Tensor]:
        if name == "main":
            return super().step(batch, name)
        lld = self.network.lld(batch, Trace(**self.network(batch).extras))
        self.descend(-lld, "bound")
        return {"lld": lld}

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        self.now, *_ = pieces = [self.network.seen(batch, Trace(**output.extras)), *self.past]
        H = entropy(Seen(torch.cat([p.y for p in pieces], 1), torch.cat([p.classes for p in pieces], 2)))
        H = H if self.counted >= 0 else torch.zeros_like(H)
        terms = super().loss(batch, output)
        total = terms.pop("total") - self.network.c.beta * H
        return {**terms, "entropy": H, "total": total}

    def after_step(self, batch: Batch, output: Output) -> None:
        self.past = [*self.past, Seen(self.now.y.detach(), self.now.classes)][-self.network.c.memory :]
        self.counted += 1

    def end_epoch(self, record: Mapping, score: float) -> None:
        self.schedules["main"].step(record["valid"]["mae"])


LEFT_OUT = {"fixed": ("bounds.", "entropy_maps."), "trained": ("bounds.",)}  # of the second pass
FIRST = {"second": 0, "third": 1}


def loss_contrast(net: MMIM, batch: Batch, t: Trace) -> Tensor:
    """Summed over the modalities."""
    here = batch.lengths > 0  # [B,M]
    return sum(infonce(x, cpc(t.fused), here[:, m]) for m, (x, cpc) in enumerate(zip(t[:3], net.cpc, strict=True)))


class MMIM(nn.Module):
    Config, VARIANTS, CARD, RECIPES, SMALL, Procedure = MMIMConfig, VARIANTS, CARD, RECIPES, SMALL, TwoPasses
    VERSION = 2  # 1: the bound's gradient could be NaN
    RECORD = ()

    @staticmethod
    def fits(dataset: Dataset, switches: Mapping) -> str:
        return lacking(dataset, "tav")

    def __init__(self, dataset: Dataset, c: MMIMConfig) -> None:
        super().__init__()
        if c.d_av < 4 or c.memory < 1 or not 0 < c.bound_share <= 1:
            raise ValueError("Expected d_av of at least 4, memory of at least 1 and bound_share in (0,1].")
        self.c, self.inputs, self.read, self.pairs = c, Inputs(dataset, c.bert), TEXT_VECTOR[c.text], PAIRS[c.pairs]
        dims = self.inputs.dims[0], c.d_av, c.d_av
        sizes = c.hidden, c.d_av, c.bidirectional
        self.audio, self.vision = (SequenceEncoder(size, *sizes) for size in self.inputs.dims[1:])
        self.fusion = Fusion(sum(dims), c)
        self.bounds = nn.ModuleList(Bound(dims[x], dims[y]) for x, y in self.pairs)
        self.entropy_maps = nn.ModuleList(nn.Linear(dims[y], dims[y] // 4) for _, y in self.pairs)
        self.cpc = nn.ModuleList(nn.Linear(c.d, d) for d in dims)
        self.loss_lld, self.loss_nce = (MMIM.lld, loss_contrast) if c.contrast else (absent, absent)
        for name, weight in self.named_parameters():
            if weight.ndim > 1 and "text_encoder." not in name:
                for matrix in weight.view(-1, *weight.shape[-2:]):  # an LSTM holds one per direction
                    nn.init.xavier_normal_(matrix)

    def forward(self, batch: Batch) -> Output:
        (text, audio, vision), masks = self.inputs(batch)  # [B,T,D], [B,T] each
        h = self.read(text, masks[0]), self.audio(audio, masks[1]), self.vision(vision, masks[2])  # [B,.]
        Z, y = self.fusion(torch.cat(h, -1))
        return Output(y, as_extras(Trace(*h, Z)))

    def lld(self, batch: Batch, t: Trace) -> Tensor:
        """Mean over the samples that have both modalities, summed over the pairs."""
        here = batch.lengths > 0  # [B,M]
        terms = zip(self.bounds, self.pairs, strict=True)
        return sum(mean_of(bound(t[x], t[y]), here[:, x] & here[:, y]) for bound, (x, y) in terms)

    def seen(self, batch: Batch, t: Trace) -> Seen:
        """What the entropy is estimated from. Samples of label 0 are in neither class."""
        here, classes = batch.lengths > 0, torch.stack([batch.labels > 0, batch.labels < 0])  # [B,M], [2,B]
        projected = [torch.tanh(f(t[y])) for f, (_, y) in zip(self.entropy_maps, self.pairs, strict=True)]
        return Seen(torch.stack(projected), torch.stack([classes & here[:, x] & here[:, y] for x, y in self.pairs]))

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        """The loss of the second pass without the entropy, which needs the batch before."""
        t = Trace(**output.extras)
        task = F.l1_loss(output.prediction, batch.labels)
        nce, lld = self.loss_nce(self, batch, t), self.loss_lld(self, batch, t)
        return weighted(task=(1.0, task), nce=(self.c.alpha, nce), lld=(-self.c.beta, lld))
