"""MISA: "Modality-Invariant and -Specific Representations for Multimodal Sentiment Analysis" (Hazarika, Zimmermann,
Poria, ACM MM 2020). Written after the authors' code (declare-lab/MISA, ec42fad) and its port in thuiar/MMSA (a94e65d),
in our own words; equations carry no numbers because the paper was not at hand.

Read top-down: one vector u_m per modality -> a private part p_m and a shared part s_m -> losses that make shared parts
alike, shared and private parts different, and both together enough to get u_m back -> the six parts attend to each
other and are read together.

Specified: the network and its losses, by the authors' code. Sizes, rates and training settings are those of the field's
harness (MMSA), which knows all four data sets; the authors' defaults are batches of 64 (MOSI) and 16 (MOSEI), one batch
per step, dropout .5, weights of the losses 0.3, 1.0 and 1.0, clipping at 1.0, and nine frozen layers of BERT for MOSEI.
Ours: audio and vision of a file that is not word-aligned are averaged onto the steps of text (`frames=aligned`); a
modality that a sample lacks is no token of the fusion, and in no loss.

What released code does differently is a switch:
- `frames="first"`: the harness takes unaligned files and packs audio and vision by the *number of tokens*, so that of
  up to 500 frames the first 50 at most are seen; `"own"` is what it could have meant.
- `recurrent="uniform"`: it also leaves out the orthogonal start of the recurrent weights.
- `similarity="adversarial"`: both have a discriminator behind reversed gradients as an alternative (in the harness its
  loss is undefined, and would fail).
In a batch of two the harness's gradient of the moments is NaN (odd ones are zero, where a root has none); here it is 0.
Both carry a discriminator of shared and private parts and a norm of text that reach no loss: 3,588 idle parameters
beside those that act at MOSI's shape. The harness steps every 2 batches down the *sum* of their gradients, and has a
weight decay in its configuration that nothing reads. The authors' schedule acts only where they stop.

Published (Acc-2, MAE, Corr), by others: MOSI 81.8/83.4, .783, .761; MOSEI 83.6/85.5, .555, .756. .804, .764 for MOSI is
a re-run. The harness (result-stat.md, five seeds): MOSI .7765, .7781; MOSEI .5575, .7515; not CH-SIMS. Rows for CH-SIMS
in the literature (Corr .113) are collapsed runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msa_lib.data import Batch, Dataset
from msa_lib.data.dataset import steps_mask
from msa_lib.models.card import Card, Stated, lacking
from msa_lib.models.parts.dropout import Dropout
from msa_lib.models.parts.inputs import Inputs
from msa_lib.models.parts.layers import Bank, EncoderBlock, Output, as_extras, masked_mean
from msa_lib.models.parts.losses import central_moments, mean_of, reverse, weighted
from msa_lib.models.parts.recurrent import LSTM
from msa_lib.train.procedure import SummedAdam


@dataclass(frozen=True)
class MISAConfig:
    """Sizes and rates are those of the harness for MOSI; its recipes say the others."""

    d: int = 128
    heads: int = 2
    d_hidden: int = 2048  # of the fusion's feed-forward net
    attention_dropout: float = 0.1  # everywhere in the fusion's transformer
    dropout: float = 0.2  # of the readout, and of the discriminator
    w_similarity: float = 0.3
    w_difference: float = 0.1
    w_reconstruction: float = 1.0
    similarity: Literal["cmd", "adversarial"] = "cmd"
    reversal: float = 0.8  # what a reversed gradient is multiplied by
    accumulation: int = 2  # batches per step
    bert: Literal["precomputed", "frozen", "finetune"] = "precomputed"
    frames: Literal["aligned", "own", "first"] = "aligned"
    recurrent: Literal["orthogonal", "uniform"] = "orthogonal"


VARIANTS = {
    "full": {},
    "adversarial": {"similarity": "adversarial"},
    "as released": {"frames": "first", "recurrent": "uniform"},  # by the harness
}
CARD = Card(
    paper="Hazarika, Zimmermann, Poria, MISA: Modality-Invariant and -Specific Representations for Multimodal "
    "Sentiment Analysis, ACM MM 2020",
    fidelity="specified",
    specified="The network and its losses, by the authors' code; sizes and training settings, by thuiar/MMSA.",
    ours="How unaligned files come onto the steps of text; what lacks a modality is no token and in no loss; text "
    "features that are given (both codes train BERT along: bert=finetune).",
    choices=("bert", "frames"),
)


def _recipe(batch_size: int, d: int, dropout: float, weights: tuple, reversal: float, clip: float) -> dict[str, Stated]:
    """As the harness writes it; `weights` are those of difference, similarity and reconstruction."""
    values = {"batch_size": batch_size, "d": d, "dropout": dropout, "reversal": reversal, "clip": clip}
    values |= dict(zip(("w_difference", "w_similarity", "w_reconstruction"), weights, strict=True))
    values |= {"lr": 1e-4, "lr_encoder": 1e-4, "patience": 8, "accumulation": 2}
    stated = {name: Stated(value, "thuiar/MMSA a94e65d, config_regression.json") for name, value in values.items()}
    trainer = {"weight_decay": 0.0, "drop_last": False}
    return stated | {name: Stated(value, "thuiar/MMSA a94e65d, trainer of MISA") for name, value in trainer.items()}


RECIPES = {
    "mosi": _recipe(16, 128, 0.2, (0.1, 0.3, 1.0), 0.8, 0.8),
    "mosei": _recipe(64, 128, 0.5, (0.3, 0.8, 1.0), 0.8, 0.8),
    "sims": _recipe(64, 128, 0.0, (0.3, 1.0, 0.8), 0.5, 1.0),
    "simsv2": _recipe(16, 64, 0.5, (0.5, 1.0, 0.5), 0.5, 0.8),
}
SMALL = {"d": 16, "d_hidden": 32, "accumulation": 1}

# --------------------------------------------------------------------------------------------------- Utterance vectors


def by_text(x: Tensor, mask: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """As many steps of x [B,T,D] as there are tokens, whether x has them or not."""
    x = F.pad(x, (0, 0, 0, max(0, text.shape[1] - x.shape[1])))
    return x, steps_mask(text.sum(-1), x.shape[1])


FRAMES = {"aligned": ("aligned", lambda x, mask, text: (x, mask)), "own": ("padded", lambda x, mask, text: (x, mask))}
FRAMES |= {"first": ("padded", by_text)}
START = {"orthogonal": nn.init.orthogonal_, "uniform": lambda weight: weight}


class TwoStages(nn.Module):
    """x [B,T,D] -> the last states of both directions of two LSTMs, of which the second reads the first, [B,4D]."""

    def __init__(self, size: int, recurrent: str) -> None:
        super().__init__()
        self.first, self.norm = LSTM(size, size, bidirectional=True), nn.LayerNorm(2 * size)
        self.second = LSTM(2 * size, size, bidirectional=True)
        for lstm in (self.first, self.second):
            for direction in lstm.weight_hh:
                START[recurrent](direction)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        steps, last1 = self.first(x, mask)
        _, last2 = self.second(self.norm(steps), mask)
        return torch.cat([last1, last2], -1)


# -------------------------------------------------------------------------------------------------------------- Losses


class Trace(NamedTuple):
    """What a forward leaves behind for the losses."""

    available: Tensor  # [B,M]
    u: Tensor  # [B,M,d]
    private: Tensor  # p
    shared: Tensor  # s
    again: Tensor  # r, the reconstruction of u


class CMD(nn.Module):
    """Central moment discrepancy of shared parts [B,M,d], of five moments; mean over pairs."""

    def __init__(self, c: MISAConfig) -> None:
        super().__init__()

    def forward(self, s: Tensor, available: Tensor) -> Tensor:
        pairs = combinations(zip(s.unbind(1), available.unbind(1), strict=True), 2)
        return sum(central_moments(x, y, here_x, here_y) for (x, here_x), (y, here_y) in pairs) / 3


class Adversary(nn.Module):
    """Which modality a shared part is of, guessed by a discriminator whose gradient is reversed: cross-entropy."""

    def __init__(self, c: MISAConfig) -> None:
        super().__init__()
        self.guess = nn.Sequential(nn.Linear(c.d, c.d), nn.ReLU(), Dropout(c.dropout), nn.Linear(c.d, 3))
        self.reversal = c.reversal

    def forward(self, s: Tensor, available: Tensor) -> Tensor:
        log_p = torch.log_softmax(self.guess(reverse(s, self.reversal)), -1)  # [B,M,3]
        return mean_of(-log_p.diagonal(dim1=1, dim2=2), available)


SIMILARITY = {"cmd": CMD, "adversarial": Adversary}


def difference(p: Tensor, s: Tensor, available: Tensor) -> Tensor:
    """Squared overlap of rows of unit length, centred over the batch: of p_m and s_m, and of each two p."""
    x, y = torch.cat([p, p[:, [0, 0, 1]]], 1), torch.cat([s, p[:, [1, 2, 2]]], 1)  # [B,6,d]
    here = torch.cat([available, available[:, [0, 0, 1]] & available[:, [1, 2, 2]]], 1)
    w = here.to(p.dtype)[..., None]  # [B,6,1]

    def rows(x: Tensor) -> Tensor:
        x = (x - (w * x).sum(0) / w.sum(0).clamp(min=1)) * w
        return x / (torch.linalg.vector_norm(x.detach(), dim=-1, keepdim=True) + 1e-6)

    return torch.einsum("bpi,bpj->pij", rows(x), rows(y)).square().mean((1, 2)).sum()


# ------------------------------------------------------------------------------------------------------------- Network


class MISAProcedure(SummedAdam):
    """One group for everything, BERT too; validation goes by the task's loss alone."""

    selects = "task"


class MISA(nn.Module):
    """The whole network."""

    Config, VARIANTS, CARD, RECIPES, SMALL, Procedure = MISAConfig, VARIANTS, CARD, RECIPES, SMALL, MISAProcedure
    RECORD = ()

    @staticmethod
    def fits(dataset: Dataset, switches: Mapping) -> str:
        """Why this model is not possible on the data set; empty if it is."""
        return lacking(dataset, "tav")

    def __init__(self, dataset: Dataset, c: MISAConfig) -> None:
        super().__init__()
        alignment, self.frames = FRAMES[c.frames]
        self.c, d, self.inputs = c, c.d, Inputs(dataset, c.bert, alignment)
        D_t, D_a, D_v = self.inputs.dims
        self.audio, self.vision = TwoStages(D_a, c.recurrent), TwoStages(D_v, c.recurrent)
        sizes = D_t, 4 * D_a, 4 * D_v
        self.project = nn.ModuleList(nn.Sequential(nn.Linear(n, d), nn.ReLU(), nn.LayerNorm(d)) for n in sizes)
        self.private, self.shared, self.decode = Bank(d, d), nn.Linear(d, d), Bank(d, d)
        self.attend = EncoderBlock(d, c.heads, c.d_hidden, c.attention_dropout, nn.ReLU)
        self.read = nn.Sequential(nn.Linear(6 * d, 3 * d), Dropout(c.dropout), nn.ReLU(), nn.Linear(3 * d, 1))
        self.similarity = SIMILARITY[c.similarity](c)

    def forward(self, batch: Batch) -> Output:
        (t, *av), (text, *masks) = self.inputs(batch)  # [B,T,D], [B,T]
        a, v = (self.frames(x, mask, text) for x, mask in zip(av, masks, strict=True))
        vectors = masked_mean(t, text), self.audio(*a), self.vision(*v)  # [B,D_t], [B,4D_a], [B,4D_v]
        u = torch.stack([project(x) for project, x in zip(self.project, vectors, strict=True)], 1)  # [B,M,d]
        here = torch.stack([text.any(-1), a[1].any(-1), v[1].any(-1)], 1)  # [B,M]

        p, s = torch.sigmoid(self.private(u)), torch.sigmoid(self.shared(u))  # [B,M,d]
        tokens = torch.cat([here, here], 1)  # [B,6]
        h = self.attend(torch.cat([p, s], 1), tokens) * tokens[..., None]  # [B,6,d]
        return Output(self.read(h.flatten(1))[:, 0], as_extras(Trace(here, u, p, s, self.decode(p + s))))

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        t, c = Trace(**output.extras), self.c
        return weighted(
            task=(1.0, F.mse_loss(output.prediction, batch.labels)),
            difference=(c.w_difference, difference(t.private, t.shared, t.available)),
            similarity=(c.w_similarity, self.similarity(t.shared, t.available)),
            reconstruction=(c.w_reconstruction, mean_of((t.again - t.u).square().mean(-1), t.available)),
        )
