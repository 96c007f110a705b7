"""FDMER: "Disentangled Representation Learning for Multimodal Emotion Recognition" (Yang, Huang, Kuang, Du, Zhang, ACM
Multimedia 2022). No code was released, and the paper was not at hand: this is built from its abstract, from what others
say of it, and from the losses of AM-GCN (Wang et al., KDD 2020), which its own seem to follow.

Read top-down: a vector u_m per modality -> a common part c_m (one encoder for all modalities) and a private part p_m
(one encoder each) -> a discriminator that is to tell the modality from p_m and not from c_m -> cross-modal attention
between the six parts -> the prediction. Losses: consistency of the common parts, disparity (HSIC) of common and private
ones and of private ones among themselves, the adversary.

Stated (abstract): both kinds of encoders, an adversarial modality discriminator that guides both, a consistency loss
in the common subspace and a disparity loss in the private ones, cross-modal attention with learned weights.
Ours: everything else, each with one alternative where the result may hang on it. `encoder`: a convolution and a
Transformer, their mean over time (bilstm). `consistency`: similarities between samples are alike in all modalities,
mean over pairs of samples (cmd: central moments of the parts behind a sigmoid). `kernel` of HSIC: inner products
(gaussian). `disparity`: common to private and private to private (own: the former only). `reversal`: rises over the
epochs from 0 to 1 (constant: 1). `fusion`: each part attends to the five others, is added to what it finds, and all are
read by a linear layer (tokens: a Transformer layer over all six). Weights of the losses, sizes, Adam and its settings.
A modality that a sample lacks is in no loss and not attended to.

Published, as others quote it (no one has re-run it): MOSI MAE .724, Corr .788, Acc-2 84.6, Acc-7 44.1; MOSEI MAE .536,
Acc-2 86.1, Acc-7 54.1. Its Corr on MOSEI is quoted as .741 and as .773. No CH-SIMS.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msa_lib.data import Batch, Dataset
from msa_lib.models.card import Card, Stated, all_but, lacking
from msa_lib.models.parts.dropout import Dropout
from msa_lib.models.parts.features import TimeConv
from msa_lib.models.parts.inputs import Inputs
from msa_lib.models.parts.layers import Bank, EncoderBlock, Output, as_extras, masked_mean, mlp, sinusoid
from msa_lib.models.parts.losses import central_moments, hsic, mean_of, reverse, weighted
from msa_lib.models.parts.recurrent import SequenceEncoder
from msa_lib.train.procedure import Adam

PAIRS = tuple(combinations(range(3), 2))


@dataclass(frozen=True)
class FDMERConfig:
    d: int = 128
    heads: int = 4
    n_layers: int = 1  # of each modality's Transformer
    dropout: float = 0.3
    alpha: float = 0.1  # of the consistency
    beta: float = 0.1  # of the disparity
    gamma: float = 0.05  # of the adversary
    encoder: Literal["transformer", "bilstm"] = "transformer"
    consistency: Literal["similarity", "cmd"] = "similarity"
    kernel: Literal["linear", "gaussian"] = "linear"
    disparity: Literal["all", "own"] = "all"
    reversal: Literal["ramp", "constant"] = "ramp"
    fusion: Literal["others", "tokens"] = "others"
    bert: Literal["precomputed", "frozen", "finetune"] = "precomputed"


VARIANTS = {
    "full": {},
    "BiLSTM encoders": {"encoder": "bilstm"},
    "consistency by moments": {"consistency": "cmd"},
    "HSIC with Gaussian kernels": {"kernel": "gaussian"},
    "disparity of own parts only": {"disparity": "own"},
    "constant reversal": {"reversal": "constant"},
    "six tokens": {"fusion": "tokens"},
}
CARD = Card(
    paper="Yang, Huang, Kuang, Du, Zhang, Disentangled Representation Learning for Multimodal Emotion Recognition, "
    "ACM Multimedia 2022",
    fidelity="partial",
    specified="Common and private encoders, an adversarial modality discriminator for both, a consistency and a "
    "disparity loss, cross-modal attention with learned weights.",
    ours="The form of every part and loss, from second-hand descriptions; all sizes, weights and training settings.",
    choices=all_but(FDMERConfig),
)
_TRAINING = {"batch_size": 32, "lr": 1e-4, "lr_encoder": 2e-5, "weight_decay": 0.0, "clip": 1.0, "patience": 10}
_OURS = {name: Stated(value, "ours: nothing is known") for name, value in _TRAINING.items()}
RECIPES = {"mosi": _OURS, "mosei": _OURS, "sims": _OURS, "simsv2": _OURS}
SMALL = {"d": 16, "heads": 2}


class Trace(NamedTuple):
    """What a forward leaves behind for the losses."""

    common: Tensor  # c [B,M,d]
    private: Tensor  # p [B,M,d]
    available: Tensor  # [B,M]


# ------------------------------------------------------------------------------------------ a vector of each modality


class TransformerEncoder(nn.Module):
    """[B,T,size], mask [B,T] -> u [B,d]."""

    def __init__(self, size: int, c: FDMERConfig) -> None:
        super().__init__()
        self.conv = TimeConv(size, c.d, 3)
        self.blocks = nn.ModuleList(EncoderBlock(c.d, c.heads, 4 * c.d, c.dropout) for _ in range(c.n_layers))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.conv(x)
        x = x + sinusoid(x.shape[1], x.shape[2], x.device)
        for block in self.blocks:
            x = block(x, mask)
        return masked_mean(x, mask)


ENCODERS = {"transformer": TransformerEncoder, "bilstm": lambda size, c: SequenceEncoder(size, c.d, c.d, True)}


# --------------------------------------------------------------------------------------- consistency and disparity


def alike(C: Tensor, available: Tensor) -> Tensor:
    """||S_m - S_n||^2 of the cosines S_m [B,B] between samples, mean over the pairs that have both m and n; summed."""
    unit, here = F.normalize(C, dim=-1), available.to(C.dtype)
    S, w = torch.einsum("bmd,amd->mba", unit, unit), torch.einsum("bm,am->mba", here, here)  # [M,B,B]
    total = C.new_zeros(())
    for m, n in PAIRS:
        both = w[m] * w[n]
        total = total + ((S[m] - S[n]).square() * both).sum() / both.sum().clamp(min=1)
    return total


def moments(C: Tensor, available: Tensor) -> Tensor:
    C = torch.sigmoid(C)
    return sum(central_moments(C[:, m], C[:, n], available[:, m], available[:, n]) for m, n in PAIRS)


def own_parts(t: Trace) -> tuple[Tensor, Tensor]:
    """Vectors that should not depend on each other, [B,P,2,d], and who has both [B,P]: c_m and p_m."""
    return torch.stack([t.common, t.private], 2), t.available


def all_parts(t: Trace) -> tuple[Tensor, Tensor]:
    """And p_m and p_n."""
    R, here = own_parts(t)
    m, n = zip(*PAIRS, strict=True)
    private = torch.stack([t.private[:, m], t.private[:, n]], 2)
    return torch.cat([R, private], 1), torch.cat([here, t.available[:, m] & t.available[:, n]], 1)


CONSISTENCY = {"similarity": alike, "cmd": moments}
DISPARITY = {"own": own_parts, "all": all_parts}


# ----------------------------------------------------------------------------------- cross-modal attention, six parts


class Others(nn.Module):
    """Each part [B,6,d] asks the five others that are there, here [B,6], and is added to the answer."""

    def __init__(self, c: FDMERConfig) -> None:
        super().__init__()
        if c.heads < 1 or c.d % c.heads:
            raise ValueError(f"The width d={c.d} must be a multiple of heads={c.heads}, which is at least 1.")
        self.q, self.k, self.v, self.out = (nn.Linear(c.d, c.d) for _ in range(4))
        self.heads, self.dropout = c.heads, c.dropout

    def forward(self, x: Tensor, here: Tensor) -> Tensor:
        other = ~torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        see = (other & here[:, None] | ~here.any(-1)[:, None, None])[:, None]  # [B,1,6,6]
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        dropout = self.dropout if self.training else 0.0
        h = F.scaled_dot_product_attention(q, k, v, attn_mask=see, dropout_p=dropout)  # [B,heads,6,d/heads]
        return x + self.out(h.transpose(1, 2).flatten(-2))


FUSION = {"others": Others, "tokens": lambda c: EncoderBlock(c.d, c.heads, 4 * c.d, c.dropout)}


# ------------------------------------------------------------------------------------------------------------ training


class Ramped(Adam):
    """Adam; the weight of the reversed gradient follows the epochs (Ganin & Lempitsky, ICML 2015)."""

    def begin_epoch(self, epoch: int) -> None:
        self.network.reversal.fill_(REVERSAL[self.network.c.reversal]((epoch - 1) / self.config.epochs))


REVERSAL = {"ramp": lambda done: 2 / (1 + math.exp(-10 * done)) - 1, "constant": lambda done: 1.0}


class FDMER(nn.Module):
    Config, VARIANTS, CARD, RECIPES, SMALL, Procedure = FDMERConfig, VARIANTS, CARD, RECIPES, SMALL, Ramped
    RECORD = ()

    @staticmethod
    def fits(dataset: Dataset, switches: Mapping) -> str:
        return lacking(dataset, "tav")

    def __init__(self, dataset: Dataset, c: FDMERConfig) -> None:
        super().__init__()
        self.c, self.inputs = c, Inputs(dataset, c.bert)
        self.encoders = nn.ModuleList(ENCODERS[c.encoder](size, c) for size in self.inputs.dims)
        self.common, self.private = mlp(c.d, c.d, c.d, dropout=c.dropout), Bank(c.d, c.d, c.d)
        self.discriminator = mlp(c.d, c.d, 3, dropout=c.dropout)
        self.fusion, self.drop, self.out = FUSION[c.fusion](c), Dropout(c.dropout), nn.Linear(6 * c.d, 1)
        self.consistency, self.parts = CONSISTENCY[c.consistency], DISPARITY[c.disparity]
        self.register_buffer("reversal", torch.ones(()), persistent=False)  # set by the procedure

    def forward(self, batch: Batch) -> Output:
        raw, masks = self.inputs(batch)  # [B,T,D], [B,T] each
        available = torch.stack([mask.any(-1) for mask in masks], 1)  # [B,M]
        u = torch.stack([E(x, mask) for E, x, mask in zip(self.encoders, raw, masks, strict=True)], 1)  # [B,M,d]
        common, private = (E(u) * available[..., None] for E in (self.common, self.private))
        here = available.repeat(1, 2)  # [B,6]
        h = self.fusion(torch.cat([common, private], 1), here) * here[..., None]  # [B,6,d]
        return Output(self.out(self.drop(h.flatten(1)))[:, 0], as_extras(Trace(common, private, available)))

    def adversary(self, t: Trace) -> Tensor:
        """Cross-entropy of the guessed modality; the common encoder is trained to raise it, the private ones not."""
        guesses = self.discriminator(torch.stack([reverse(t.common, self.reversal), t.private], 1))  # [B,2,M,3]
        each = -torch.log_softmax(guesses, -1).diagonal(dim1=-2, dim2=-1)  # [B,2,M]
        return mean_of(each[:, 0], t.available) + mean_of(each[:, 1], t.available)

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        t = Trace(**output.extras)
        return weighted(
            task=(1.0, F.l1_loss(output.prediction, batch.labels)),
            consistency=(self.c.alpha, self.consistency(t.common, t.available)),
            disparity=(self.c.beta, hsic(*self.parts(t), self.c.kernel)),
            adversary=(self.c.gamma, self.adversary(t)),
        )
