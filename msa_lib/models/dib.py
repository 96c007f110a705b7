"""DIB: "Robust Multimodal Sentiment Analysis via Double Information Bottleneck" (Huang, Gong, He, Wu, Cambria, Feng,
Information Fusion 2025; arXiv 2511.01444). A completion of our own: no code is released and the paper was not at hand.
Its abstract says what is done; how, comes from what public code there is (below).

Read top-down: one vector x per modality -> a bottleneck z per modality, made to say the label and to say little of x
-> attention bottleneck fusion: few latents read the modalities, each modality reads the latents, round after round;
text's vector f is the result -> a bottleneck of f -> the prediction. What a bottleneck says of its input is measured
by the matrix-based Renyi entropy of the batch's kernel, of which only the largest eigenvalues are kept.

Known from the abstract: both bottlenecks, the low-rank Renyi functional, attention bottleneck fusion, text as anchor.
From public code: the estimator and the encoder of a bottleneck (KaiHe-better/multimodal_sa, 7e3eb7e, by its name a
co-author's, unfinished: by default it trains a plain MLP, and its logs end at MOSI MAE 1.19); the fusion (a class DIB
adapted to depression scores, in a repository whose name we do not know); the encoders before, by the model that both
grew out of (MIB: TmacMai/Multimodal-Information-Bottleneck, 4893db6). Where these differ there is a switch.
Ours: see the card. What the co-author's code does otherwise: self-attention over three z stands for the fusion, a
gated skip goes around the second bottleneck, noise is drawn at evaluation too, the entropy is of the last 32 samples.

Published: MOSI Acc-7 47.4, CH-SIMS F1 81.63 (abstract), on word-aligned features of other sizes (MOSI 74 and 47) with
BERT trained along; MAE and Corr of samples with a label other than 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msa_lib.data import Batch, Dataset
from msa_lib.models.card import Card, Stated, all_but, lacking
from msa_lib.models.parts.crossmodal import last
from msa_lib.models.parts.decoupled import l1
from msa_lib.models.parts.inputs import Inputs
from msa_lib.models.parts.layers import Bank, Output, absent, as_extras, attend, masked_mean, mlp
from msa_lib.models.parts.losses import weighted
from msa_lib.models.parts.wordwise import WordEncoders


@dataclass(frozen=True)
class DIBConfig:
    d: int = 50
    heads: int = 5
    n_layers: int = 3
    attn_dropout: float = 0.5
    relu_dropout: float = 0.3
    res_dropout: float = 0.3
    embed_dropout: float = 0.2
    hidden: int = 1024  # of a bottleneck's encoder
    latents: int = 4
    rounds: int = 3  # of the fusion
    alpha: float = 1.9  # order of the entropy
    rank: int = 10  # eigenvalues that are kept
    beta: float = 1e-3  # of the compression
    pool: Literal["mean", "last"] = "mean"  # steps that stand for a modality
    sufficiency: Literal["own", "fused"] = "own"  # own: each z predicts the label too; fused: only through the fusion
    compression: Literal["information", "entropy"] = "information"  # I(x; z) | H(z), which bounds it
    kernel_width: Literal["neighbours", "median"] = "neighbours"  # of distances: to the 5 nearest | between all
    bert: Literal["precomputed", "frozen", "finetune"] = "precomputed"
    alignment: Literal["aligned", "padded"] = "aligned"


VARIANTS = {
    "full": {},
    "last step": {"pool": "last"},
    "no own predictions": {"sufficiency": "fused"},
    "entropy of z": {"compression": "entropy"},
    "median width": {"kernel_width": "median"},
    "beta 0.25": {"beta": 0.25},
}
CARD = Card(
    paper="Huang et al., Robust Multimodal Sentiment Analysis via Double Information Bottleneck, Information Fusion "
    "2025 (arXiv 2511.01444)",
    fidelity="partial",
    specified="By the abstract: two information bottlenecks by a low-rank matrix Renyi entropy, attention bottleneck "
    "fusion, text as the anchor.",
    ours="Nothing but the abstract was read: sizes, order, rank and fusion follow public code that is not the paper's. "
    "Mean over steps. Each modality's bottleneck predicts the label by itself, at weight 1. The compression is "
    "I(x; z) at weight 0.001, summed over the four bottlenecks. Kernel exp(-distance^2/width^2), its width "
    "without a gradient. No noise at evaluation. All settings of training are a co-author's, with one batch a "
    "step. A sample counts in the kernels of the modalities it has; one without text reads the latents from 0. "
    "Other data sets have MOSI's settings.",
    choices=all_but(DIBConfig, "d"),
)
_CODE = "KaiHe-better/multimodal_sa 7e3eb7e, results/*/hyperparameters.json and main.py; not the paper's"


def _recipe(source: str) -> dict[str, Stated]:
    values = {"batch_size": 32, "lr": 3e-4, "lr_encoder": 5e-6, "weight_decay": 0.01, "clip": 3.0}
    ours = {"epochs": Stated(100, "ours; 500 in that code"), "patience": Stated(20, "ours")}
    return {name: Stated(value, source) for name, value in values.items()} | ours


RECIPES = {"mosi": _recipe(_CODE)} | {name: _recipe("ours: MOSI's") for name in ("mosei", "sims", "simsv2")}
SMALL = {"d": 10, "heads": 2, "n_layers": 1, "hidden": 32}


class Trace(NamedTuple):
    """What a forward leaves behind for the losses."""

    available: Tensor  # [B,M]
    x: Tensor  # [B,M,d]
    z: Tensor  # [B,M,d], zeros where the modality is missing
    fused: Tensor  # f [B,d]
    compact: Tensor  # the bottleneck of f [B,d]
    own: Tensor | None = None  # predictions from each z [B,M,1]


# ---------------------------------------------------------------------------------- low-rank matrix-based Renyi entropy


def mean_to_neighbours(distance: Tensor, n: int = 5) -> Tensor:
    """Mean distance [P] of all samples to their n nearest; `distance` [P,N,N] is infinite where there is no pair."""
    near = distance.topk(min(n, distance.shape[-1] - 1), largest=False).values.flatten(1)
    found = near.isfinite()
    return near.where(found, 0.0).sum(-1) / found.sum(-1).clamp(min=1)


def median_distance(distance: Tensor, *_) -> Tensor:
    """The median [P] of the distances [P,N,N] that are finite; of two in the middle the smaller."""
    return distance.where(distance.isfinite(), float("nan")).flatten(1).nanmedian(-1).values.nan_to_num(0.0)


WIDTH = {"neighbours": mean_to_neighbours, "median": median_distance}


def kernel(x: Tensor, here: Tensor, width: str = "neighbours") -> Tensor:
    """K_ij = exp(-|x_i - x_j|^2 / width^2) of vectors x [P,N,d] -> [P,N,N], zeros for samples not `here` [P,N]."""
    square = (x[:, :, None] - x[:, None]).square().sum(-1)
    both = here[:, :, None] & here[:, None]
    pairs = both & ~torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
    sigma = WIDTH[width](square.detach().sqrt().where(pairs, float("inf")))  # [P]
    sigma = sigma.where(sigma > 0, 1.0)
    return torch.exp(-square / sigma.square()[:, None, None]) * both


def renyi(K: Tensor, n: Tensor, alpha: float, rank: int) -> Tensor:
    """S_alpha [P] in bits of kernels K [P,N,N] of n [P] samples: log2(sum of eigenvalue^alpha) / (1 - alpha).

    Eigenvalues of K / trace. The `rank` largest are kept, the other n - rank are set to their mean.
    """
    eigenvalues = torch.linalg.eigvalsh(K / n.clamp(min=1)[:, None, None]).flip(-1).clamp(min=0)  # [P,N]
    top, rest = eigenvalues[:, :rank], (n - rank).clamp(min=0)
    mean = (1 - top.sum(-1)).clamp(min=0) / rest.clamp(min=1)
    total = top.pow(alpha).sum(-1) + rest * mean.pow(alpha)
    return total.where(n > 0, 1.0).log2() / (1 - alpha)


def information(K_x: Tensor, K_z: Tensor, n: Tensor, alpha: float, rank: int) -> Tensor:
    """I(x; z) = S(K_x) + S(K_z) - S(K_x * K_z) [P], * entry by entry."""
    x, z, both = (renyi(K, n, alpha, rank) for K in (K_x, K_z, K_x * K_z))
    return x + z - both


COMPRESSION = {"information": information, "entropy": lambda K_x, K_z, n, alpha, rank: renyi(K_z, n, alpha, rank)}


# --------------------------------------------------------------------------------------------- bottlenecks and fusion


def drawn(raw: Tensor, training: bool) -> Tensor:
    """raw [...,2d], a mean and a deviation before its softplus -> a draw [...,d]; at evaluation the mean."""
    mean, deviation = raw.chunk(2, -1)
    return mean + F.softplus(deviation - 5) * torch.randn_like(mean) if training else mean


class BottleneckFusion(nn.Module):
    """z [B,M,d] and which modalities there are [B,M] -> text's vector f [B,d] after the rounds."""

    def __init__(self, d: int, latents: int, rounds: int) -> None:
        super().__init__()
        self.latents, self.scale, self.rounds = (
            nn.Parameter(0.02 * torch.randn(latents, d)),
            nn.Parameter(torch.zeros(3)),
            rounds,
        )

    def forward(self, z: Tensor, here: Tensor) -> Tensor:
        latents = self.latents.expand(len(z), -1, -1)  # [B,L,d], the same in every round
        every = torch.ones(latents.shape[:2], dtype=torch.bool, device=z.device)
        for _ in range(self.rounds):
            shared = attend(latents, z, z, here, 1, 0.0)  # [B,L,d]
            z = z + self.scale[:, None] * attend(z, shared, shared, every, 1, 0.0)  # [B,M,d]
        return z[:, 0]


POOL = {"mean": masked_mean, "last": last}


class DIB(nn.Module):
    """The whole network."""

    Config, VARIANTS, CARD, RECIPES, SMALL = DIBConfig, VARIANTS, CARD, RECIPES, SMALL
    RECORD = ()

    @staticmethod
    def fits(dataset: Dataset, switches: Mapping) -> str:
        return lacking(dataset, "tav")

    def __init__(self, dataset: Dataset, c: DIBConfig) -> None:
        super().__init__()
        if c.alpha <= 1 or min(c.rank, c.latents) < 1:
            raise ValueError(
                "Expected alpha above 1 (an eigenvalue of 0 has no gradient below), rank and latents of at least 1."
            )
        self.c, self.inputs, self.pool = c, Inputs(dataset, c.bert, c.alignment), POOL[c.pool]
        dropout = c.attn_dropout, c.relu_dropout, c.res_dropout, c.embed_dropout
        self.encode = WordEncoders(self.inputs.dims, c.d, c.heads, c.n_layers, *dropout)
        self.compress = Bank(c.d, c.hidden, 2 * c.d)
        self.fuse = BottleneckFusion(c.d, c.latents, c.rounds)
        self.compress_fused, self.out = mlp(c.d, c.hidden, 2 * c.d), nn.Linear(c.d, 1)
        self.own = {"own": lambda: Bank(c.d, 1), "fused": lambda: absent}[c.sufficiency]()
        self.penalty = COMPRESSION[c.compression]

    def forward(self, batch: Batch) -> Output:
        raw, masks = self.inputs(batch)  # [B,T,D], [B,T] each
        here = torch.stack([mask.any(-1) for mask in masks], 1)  # [B,M]
        x = torch.stack([self.pool(X, mask) for X, mask in zip(self.encode(raw, masks), masks, strict=True)], 1)
        z = drawn(self.compress(x), self.training) * here[..., None]  # [B,M,d]
        f = self.fuse(z, here)  # [B,d]
        compact = drawn(self.compress_fused(f), self.training)  # [B,d]
        return Output(self.out(compact)[:, 0], as_extras(Trace(here, x, z, f, compact, self.own(z))))

    def compression(self, t: Trace) -> Tensor:
        """What the bottlenecks of text, audio, vision and the fusion keep of their input, in bits [4]."""
        x, z = (
            torch.cat([own, whole[:, None]], 1).transpose(0, 1) for own, whole in ((t.x, t.fused), (t.z, t.compact))
        )
        here = F.pad(t.available, (0, 1), value=True).T  # [4,B]
        kernels = (kernel(v, here, self.c.kernel_width) for v in (x, z))
        return self.penalty(*kernels, here.sum(-1), self.c.alpha, self.c.rank)

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        t = Trace(**output.extras)
        task = F.l1_loss(output.prediction, batch.labels)
        own = None if t.own is None else l1(t.own[..., 0], batch.labels, t.available).sum()
        return weighted(task=(1.0, task), own=(1.0, own), compression=(self.c.beta, self.compression(t).sum()))
