"""ICCN: "Learning Relationships between Text, Audio, and Video via Deep Canonical Correlation for Multimodal Language
Analysis", the Interaction Canonical Correlation Network (Sun, Sarma, Sethares, Liang, AAAI 2020, arXiv 1911.05544). No
code was released and the paper was not at hand: this is built from its abstract and from what others say of it.

Read top-down: a vector of text, and one of audio and of vision (convolution over time, LSTM) -> the outer products of
text with each, read as pictures by a small CNN of their own -> K_ta, K_tv -> DCCA (Andrew et al., ICML 2013): both are
made to correlate -> [K_ta; H_t; K_tv] is read by a regression.

Stated (abstract and others): outer products of text with audio and with vision; deep CCA between what is made of them;
those features beside the text's for a downstream predictor; BERT is not trained.
Ours, with an alternative each. `training`: first the correlation alone for `cca_share` of the epochs, kept where it is
best on validation, then the regression alone (joint: both in one loss). `text`: the mean of its tokens (first: the
first). `head`: linear (mlp: one hidden layer). Besides: all sizes, the CNN (two layers of 3x3 with pooling), a dropout
before the head, the ridge of the covariances, and the settings of training. A pair of which a sample lacks a part is
zeros and not correlated.
The correlation of a batch no larger than its width k is 1 whatever was learned: such batches are refused, and a
smaller rest of an epoch is dropped. It is computed in float64.

Published, as others quote it: MOSI MAE .862, Corr .714, Acc-2 83.07, Acc-7 39.01; MOSEI MAE .565, Acc-2 84.2, Acc-7
51.6, its Corr as .713 and as .704. No CH-SIMS.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msa_lib.data import Batch, Dataset
from msa_lib.models.card import Card, Stated, all_but, lacking
from msa_lib.models.parts.dropout import Dropout
from msa_lib.models.parts.features import TimeConv
from msa_lib.models.parts.inputs import TEXT_VECTOR, Inputs
from msa_lib.models.parts.layers import Output, as_extras, mlp
from msa_lib.models.parts.losses import weighted
from msa_lib.models.parts.recurrent import LSTM
from msa_lib.train.procedure import Adam


@dataclass(frozen=True)
class ICCNConfig:
    d_av: int = 32  # of the audio and vision vectors
    channels: int = 4  # of the CNN's first layer; the second has twice as many
    k: int = 50  # width of K_ta and K_tv
    dropout: float = 0.1  # on what the head reads
    ridge: float = 1e-3  # on the diagonal of their covariances
    cca_share: float = 0.3  # of the epochs, for the correlation alone
    cca_weight: float = 0.01  # of the correlation in the joint loss
    training: Literal["stages", "joint"] = "stages"
    text: Literal["mean", "first"] = "mean"
    head: Literal["linear", "mlp"] = "linear"
    bert: Literal["precomputed", "frozen", "finetune"] = "precomputed"


VARIANTS = {
    "full": {},
    "joint training": {"training": "joint"},
    "first token": {"text": "first"},
    "MLP head": {"head": "mlp"},
}
CARD = Card(
    paper="Sun, Sarma, Sethares, Liang, Learning Relationships between Text, Audio, and Video via Deep Canonical "
    "Correlation for Multimodal Language Analysis, AAAI 2020",
    fidelity="partial",
    specified="Outer products of text with audio and vision, deep CCA between what is made of them, a predictor on "
    "both and the text.",
    ours="Encoders, the CNNs, two stages with the correlation kept by validation, the linear regression, the mean as "
    "the vector of text; all sizes and training settings.",
    choices=all_but(ICCNConfig),
)
_TRAINING = {"batch_size": 256, "lr": 1e-3, "lr_encoder": 2e-5, "weight_decay": 0.0, "clip": 1.0, "patience": 10}
_OURS = {name: Stated(value, "ours: nothing is known") for name, value in _TRAINING.items()}
RECIPES = {"mosi": _OURS, "mosei": _OURS, "sims": _OURS, "simsv2": _OURS}
SMALL = {"d_av": 8, "channels": 2, "k": 6}


class Trace(NamedTuple):
    """What a forward leaves behind for the losses."""

    ta: Tensor  # K_ta [B,k]
    tv: Tensor  # K_tv [B,k]
    both: Tensor  # whether the sample has text, audio and vision, [B]


class SequenceNet(nn.Module):
    """[B,T,size], mask [B,T] -> the LSTM's state after the last valid step, [B,d]; zeros where there is none."""

    def __init__(self, size: int, d: int) -> None:
        super().__init__()
        self.conv, self.lstm = TimeConv(size, d, 3), LSTM(d, d)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.lstm(self.conv(x), mask)[1]


class ProductNet(nn.Module):
    """H_t [B,D], H_m [B,d] -> K [B,k]: their outer product, read as a picture of one channel."""

    def __init__(self, D: int, d: int, c: ICCNConfig) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, c.channels, 3, padding=1)
        self.conv2 = nn.Conv2d(c.channels, 2 * c.channels, 3, padding=1)
        self.out = nn.Linear(2 * c.channels * quarter(D) * quarter(d), c.k)

    def forward(self, text: Tensor, other: Tensor) -> Tensor:
        x = (text[:, :, None] * other[:, None])[:, None]  # [B,1,D,d]
        for conv in (self.conv1, self.conv2):
            x = F.max_pool2d(F.relu(conv(x)), 2, ceil_mode=True)
        return self.out(x.flatten(1))


def quarter(size: int) -> int:
    """What two poolings leave of it."""
    return -(-size // 4)


def canonical_correlations(x: Tensor, y: Tensor, here: Tensor, ridge: float) -> Tensor:
    """Those of x and y [B,k] over the samples that are there, in float64 -> [k], largest first.

    They are the singular values of T = S11^-1/2 S12 S22^-1/2. Cholesky factors stand in the place of the roots: that
    turns T on both sides, and has a gradient where eigenvalues coincide.
    """
    w = here.to(torch.float64)[:, None]
    n, rest = w.sum().clamp(min=1), (w.sum() - 1).clamp(min=1)
    x, y = ((z.double() - (w * z).sum(0) / n) * w for z in (x, y))
    diagonal = ridge * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    L1, L2 = (torch.linalg.cholesky(z.mT @ z / rest + diagonal) for z in (x, y))
    half = torch.linalg.solve_triangular(L1, x.mT @ y / rest, upper=False)
    return torch.linalg.svdvals(torch.linalg.solve_triangular(L2, half.mT, upper=False))


HEAD = {"linear": lambda size: nn.Linear(size, 1), "mlp": lambda size: mlp(size, 64, 1)}

# -------------------------------------------------------------------------------------------- two stages, or one loss


class Stages(Adam):
    """Adam: the correlation alone, by an optimiser of its own; then what maximised it on validation is frozen, and the
    head learns the task. Or both at once, by the network's own loss."""

    selects = "task"

    def __init__(self, network: ICCN, dataset: Dataset, config) -> None:
        super().__init__(network, dataset, config)
        size, k = min(config.batch_size, len(dataset.train)), network.c.k
        if size <= k:
            raise ValueError(
                f"A batch of {size} samples is no larger than k={k}, the width of what is correlated in it: "
                "expected a larger batch_size or a smaller k."
            )
        if network.c.training == "stages":
            self.first_epoch = 1 + max(1, round(network.c.cca_share * config.epochs))
            self.encoders = {name: p for name, p in network.named_parameters() if not name.startswith("head.")}
            self.encoders = {name: p for name, p in self.encoders.items() if p.requires_grad}
            group = {"params": list(self.encoders.values()), "lr": config.lr, "weight_decay": config.weight_decay}
            self.optimisers["cca"] = self.optimiser([group])
            self.memory |= {name: p.detach().clone() for name, p in self.encoders.items()}
            self.memory["correlation"] = torch.tensor(-torch.inf)

    def begin_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        if epoch >= self.first_epoch and "cca" in self.optimisers:
            for name, parameter in self.encoders.items():
                with torch.no_grad():
                    parameter.copy_(self.memory[name])
                parameter.requires_grad_(False)

    def passes(self, epoch: int, shuffle: torch.Generator) -> Iterator[tuple[str, Iterable[Batch]]]:
        c, name = self.config, "main" if epoch >= self.first_epoch else "cca"
        yield name, self.dataset.train.batches(c.batch_size, shuffle, True, c.bucket)

    def step(self, batch: Batch, name: str) -> dict[str, Tensor]:
        if name == "main":
            return super().step(batch, name)
        correlation = self.network.correlation(Trace(**self.network(batch).extras))
        self.descend(-correlation, "cca")
        return {"correlation": correlation}

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        if "cca" not in self.optimisers:
            return super().loss(batch, output)
        return weighted(task=(1.0, F.l1_loss(output.prediction, batch.labels)))

    def end_epoch(self, record: Mapping, score: float) -> None:
        """Keep the encoders whose correlation over all of validation is the highest."""
        if self.epoch >= self.first_epoch:
            return
        self.network.eval()
        with torch.no_grad():
            parts = [self.network(batch).extras for batch in self.dataset.valid.batches(self.config.batch_size)]
            whole = Trace(**{name: torch.cat([part[name] for part in parts]) for name in Trace._fields})
            correlation = self.network.correlation(whole)
            better = correlation > self.memory["correlation"].to(correlation.device)
            new = {name: p.detach() for name, p in self.encoders.items()} | {"correlation": correlation}
            for name, value in new.items():
                self.memory[name] = torch.where(better, value, self.memory[name].to(value.device)).clone()


class ICCN(nn.Module):
    Config, VARIANTS, CARD, RECIPES, SMALL, Procedure = ICCNConfig, VARIANTS, CARD, RECIPES, SMALL, Stages
    RECORD = ()

    @staticmethod
    def fits(dataset: Dataset, switches: Mapping) -> str:
        return lacking(dataset, "tav")

    def __init__(self, dataset: Dataset, c: ICCNConfig) -> None:
        super().__init__()
        if c.k < 1 or c.ridge <= 0 or not 0 < c.cca_share < 1:
            raise ValueError("Expected k of at least 1, a positive ridge and cca_share between 0 and 1.")
        self.c, self.inputs, self.read = c, Inputs(dataset, c.bert), TEXT_VECTOR[c.text]
        D, *others = self.inputs.dims
        self.audio, self.vision = (SequenceNet(size, c.d_av) for size in others)
        self.with_audio, self.with_vision = (ProductNet(D, c.d_av, c) for _ in range(2))
        self.drop, self.head = Dropout(c.dropout), HEAD[c.head](D + 2 * c.k)

    def forward(self, batch: Batch) -> Output:
        (text, audio, vision), masks = self.inputs(batch)  # [B,T,D], [B,T] each
        has_t, has_a, has_v = (mask.any(-1) for mask in masks)  # [B]
        H_t = self.read(text, masks[0])  # [B,D]
        H_a, H_v = self.audio(audio, masks[1]), self.vision(vision, masks[2])  # [B,d]
        K_ta = self.with_audio(H_t, H_a) * (has_t & has_a)[:, None]  # [B,k]
        K_tv = self.with_vision(H_t, H_v) * (has_t & has_v)[:, None]
        y = self.head(self.drop(torch.cat([K_ta, H_t, K_tv], -1)))[:, 0]
        return Output(y, as_extras(Trace(K_ta, K_tv, has_t & has_a & has_v)))

    def correlation(self, t: Trace) -> Tensor:
        """Sum of the canonical correlations of K_ta and K_tv over the samples that have both."""
        return canonical_correlations(t.ta, t.tv, t.both, self.c.ridge).sum().to(t.ta.dtype)

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        """The joint one; of two stages the first has the correlation alone, and the second the task."""
        task, correlation = F.l1_loss(output.prediction, batch.labels), self.correlation(Trace(**output.extras))
        return weighted(task=(1.0, task), correlation=(-self.c.cca_weight, correlation))
