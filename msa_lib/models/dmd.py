"""DMD: "Decoupled Multimodal Distilling for Emotion Recognition" (CVPR 2023). Written from its description and compared
with mdswyz/DMD at 516d4e1.

Read top-down: convolutions -> a specific part s and a shared part c of every step, and their reconstruction ->
homogeneous branch on c, heterogeneous branch on s (MulT) -> in each a graph distillation unit, whose edges weigh how
far each modality follows the prediction and the representation of each other one -> the fused prediction.

Specified by the code: sizes and weights, for MOSI and MOSEI. Ours: CH-SIMS (MOSI's settings); masks (the code has none:
it reads the padding of its 50 steps, we a sample's own steps); pairs without one of their modalities are left out.
The units are modules of the network here, for its one loss; the code holds them beside it, and predicts without them
as we do: 3,649 (homogeneous) and 3,425 parameters at MOSI's width.

What the released code does differently from this file (`as released`):
- `homo_repr=off`: the homogeneous distillation of representations is computed and left out of the loss.
- `hetero_repr=apart`: the heterogeneous one has the target -1 and so drives modalities apart, where distillation
  imitates; and it weighs the mean over the batch, not each sample.
- `ort_over=batch`: the cosines of s and c, given as [L,B,d], are taken over the samples of a batch, not over the vector
  of a step (by torch 1.9, for which it was written; newer versions refuse).
- It projects flattened s and never uses that; the configured weight decay is never passed to Adam.

The paper was not at hand: that representations are distilled at all, and towards each other, is our reading of its
description, and "off" for both (`homo_repr`, `hetero_repr`) may be what it means. Only the released reading has been
compared with code. Published numbers are not quoted here, for none was read at its source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msa_lib.data import Batch, Dataset
from msa_lib.models.card import Card, Stated, lacking
from msa_lib.models.parts.crossmodal import Convolutions, CrossEncoder, SelfEncoder, last
from msa_lib.models.parts.decoupled import DecoupledProcedure, Residual, l1, label_margin, overlap, squared_gap, stacked
from msa_lib.models.parts.dropout import Dropout
from msa_lib.models.parts.inputs import Inputs
from msa_lib.models.parts.layers import Output, absent, as_extras
from msa_lib.models.parts.losses import weighted


@dataclass(frozen=True)
class DMDConfig:
    """MOSI's settings."""

    d: int = 50
    heads: int = 10
    n_layers: int = 4
    k_text: int = 5  # width of the convolutions
    k_audio: int = 5
    k_vision: int = 5
    text_dropout: float = 0.5  # on the input
    attn_text: float = 0.3  # on the attention to text, and of the memories
    attn_audio: float = 0.2
    attn_vision: float = 0.0
    embed_dropout: float = 0.2
    relu_dropout: float = 0.0
    res_dropout: float = 0.0
    out_dropout: float = 0.5
    bert: Literal["precomputed", "frozen", "finetune"] = "precomputed"
    alignment: Literal["aligned", "padded"] = "aligned"
    homo_repr: Literal["toward", "off"] = "toward"
    hetero_repr: Literal["toward", "apart", "off"] = "toward"
    ort_over: Literal["vector", "batch"] = "vector"
    accumulation: int = 10  # batches per step of the optimiser, their gradients summed


VARIANTS = {"full": {}, "as released": {"homo_repr": "off", "hetero_repr": "apart", "ort_over": "batch"}}
CARD = Card(
    paper="Decoupled Multimodal Distilling for Emotion Recognition (CVPR 2023)",
    fidelity="completed",
    specified="Everything for MOSI and MOSEI, by the released code, but for the sign of the distillation.",
    ours="CH-SIMS and its v2, with MOSI's settings; masks; what a sample that lacks a modality contributes; text "
    "features that are given (the code trains BERT along: bert=finetune); that representations are to be imitated.",
    choices=("bert", "homo_repr", "hetero_repr"),
)
_CODE, _OURS = "mdswyz/DMD 516d4e1, config/config.json", "ours: MOSI's; the code has no CH-SIMS"


def _recipe(source: str, **differing: float) -> dict[str, Stated]:
    training = {"batch_size": 16, "lr": 1e-4, "lr_encoder": 1e-4, "clip": 0.6, "patience": 10, "drop_last": False}
    stated = {name: Stated(value, source) for name, value in (training | differing).items()}
    return stated | {"weight_decay": Stated(0.0, "mdswyz/DMD 516d4e1, trains/singleTask/DMD.py: none for Adam")}


_MOSEI = {"d": 30, "heads": 6, "k_audio": 1, "k_vision": 3,
          "text_dropout": 0.3, "attn_text": 0.4, "attn_audio": 0.0, "embed_dropout": 0.0}  # fmt: skip
RECIPES = {"mosi": _recipe(_CODE), "mosei": _recipe(_CODE, **_MOSEI), "sims": _recipe(_OURS), "simsv2": _recipe(_OURS)}
SMALL = {"d": 16, "heads": 2, "n_layers": 1, "accumulation": 1}

PAIRS = [(j, i) for j in range(3) for i in range(3) if i != j]  # student j, teacher i


class Trace(NamedTuple):
    """What a forward leaves behind for the losses and the notebooks; zeros after a length."""

    available: Tensor  # [B,M]
    mask: Tensor  # [B,M,L]
    X: Tensor  # [B,M,L,d]
    s: Tensor  # specific
    c: Tensor  # shared
    reconstruction: Tensor  # X-hat
    again: Tensor  # s-hat, of X-hat
    aligned: Tensor  # c-bar [B,M,d], for the margin
    homo: Tensor  # predictions of the homogeneous branch [B,M]
    homo_repr: Tensor  # its representations [B,M,d]
    homo_edges: Tensor  # [B,6], in the order of PAIRS
    hetero: Tensor  # and of the heterogeneous one
    hetero_repr: Tensor  # [B,M,2d]
    hetero_edges: Tensor
    shared: Tensor  # prediction of C [B]


class Distillation(nn.Module):
    """A graph distillation unit: predictions [B,M] and representations [B,M,H] -> edges [B,6], which sum to 1."""

    def __init__(self, size: int, hidden: int, prior: list[float]) -> None:
        super().__init__()
        self.of_logit, self.of_repr, self.edge = nn.Linear(1, hidden), nn.Linear(size, hidden), nn.Linear(4 * hidden, 1)
        self.register_buffer("prior", torch.softmax(torch.tensor(prior) / 0.25, 0), persistent=False)

    def forward(self, logits: Tensor, reprs: Tensor) -> Tensor:
        z = torch.cat([self.of_logit(logits[..., None]), self.of_repr(reprs)], -1)  # [B,M,2g]
        student, teacher = zip(*PAIRS, strict=True)
        return torch.softmax(self.edge(torch.cat([z[:, student], z[:, teacher]], -1))[..., 0] / 8, -1)

    def losses(self, logits: Tensor, reprs: Tensor, edges: Tensor, available: Tensor, distance) -> dict[str, Tensor]:
        """`reg`ularisation toward the prior, `logit` and `repr` distillation (None if there is no distance)."""
        student, teacher = zip(*PAIRS, strict=True)
        weight = edges + self.prior  # [B,6]
        here = (available[:, student] & available[:, teacher]).to(logits.dtype)
        gap = (logits[:, student] - logits[:, teacher].detach()).abs()
        return {
            "reg": 10 * (edges.mean(0) - self.prior).square().sum(),
            "logit": per_sample(gap, weight, here),
            "repr": distance(reprs[:, student], reprs[:, teacher].detach(), weight, here),
        }


def per_sample(gap: Tensor, weight: Tensor, here: Tensor) -> Tensor:
    """Weighted distances [B,6]: mean over the samples that have both modalities of a pair, summed over pairs."""
    return ((gap * weight * here).sum(0) / here.sum(0).clamp(min=1)).sum()


def imitate_l1(x: Tensor, y: Tensor, weight: Tensor, here: Tensor) -> Tensor:
    return 10 * per_sample((x - y).abs().sum(-1), weight, here)


def imitate_cosine(x: Tensor, y: Tensor, weight: Tensor, here: Tensor) -> Tensor:
    return 10 * per_sample(1 - F.cosine_similarity(x, y, dim=-1), weight, here)


def apart(x: Tensor, y: Tensor, weight: Tensor, here: Tensor) -> Tensor:
    """As released: positive cosines cost, and mean cosine and mean weight of a pair are multiplied."""
    n = here.sum(0).clamp(min=1)
    cos = (F.relu(F.cosine_similarity(x, y, dim=-1)) * here).sum(0) / n
    return 10 * (cos * (weight * here).sum(0) / n).sum()


def overlap_in_batch(s: Tensor, c: Tensor, mask: Tensor) -> Tensor:
    """As released: one cosine per step and feature, over the samples; mean over the steps that any sample has."""
    cos, weight = F.relu(F.cosine_similarity(s, c, dim=0)).mean(-1), mask.any(0).to(s.dtype)  # [M,L]
    return ((cos * weight).sum(-1) / weight.sum(-1).clamp(min=1)).sum()


HOMO_REPR = {"toward": imitate_l1, "off": absent}
HETERO_REPR = {"toward": imitate_cosine, "apart": apart, "off": absent}
ORTHOGONAL = {"vector": overlap, "batch": overlap_in_batch}


class Homogeneous(nn.Module):
    """The readout of a modality's whole shared part [B,L d] -> prediction [B,1], representation [B,d]."""

    def __init__(self, steps: int, d: int, dropout: float) -> None:
        super().__init__()
        self.inner, self.outer, self.out = nn.Linear(steps * d, d), nn.Linear(d, steps * d), nn.Linear(steps * d, 1)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r = F.relu(self.inner(x))
        return self.out(self.outer(self.drop(r)) + x), r


class DMD(nn.Module):
    """The whole network. Extras: the edges of both units [B,6], in the order of PAIRS (text, audio, vision)."""

    Config, VARIANTS, CARD, RECIPES, SMALL, Procedure = DMDConfig, VARIANTS, CARD, RECIPES, SMALL, DecoupledProcedure
    RECORD = ("homo_edges", "hetero_edges")

    @staticmethod
    def fits(dataset: Dataset, switches: Mapping) -> str:
        return lacking(dataset, "tav")

    def __init__(self, dataset: Dataset, c: DMDConfig) -> None:
        super().__init__()
        self.c, d, attn = c, c.d, (c.attn_text, c.attn_audio, c.attn_vision)
        self.inputs = Inputs(dataset, c.bert, c.alignment)
        self.convolve = Convolutions(self.inputs.dims, d, (c.k_text, c.k_audio, c.k_vision), c.text_dropout)
        self.steps = self.convolve.steps(self.inputs.steps)

        def encoder(kind: type, width: int, dropout: float, n_layers: int = c.n_layers) -> nn.Module:
            return kind(width, c.heads, n_layers, dropout, c.relu_dropout, c.res_dropout, c.embed_dropout)

        self.specific = nn.ModuleList(nn.Linear(d, d, bias=False) for _ in range(3))  # E_m
        self.shared = nn.Linear(d, d, bias=False)  # E_c
        self.decode = nn.ModuleList(nn.Linear(2 * d, d, bias=False) for _ in range(3))  # D_m
        self.align = nn.ModuleList(nn.Linear(L * d, d) for L in self.steps)
        self.homo = nn.ModuleList(Homogeneous(L, d, c.out_dropout) for L in self.steps)
        self.pool = nn.ModuleList(encoder(SelfEncoder, d, p) for p in attn)
        self.shared_readout, self.shared_out = Residual(3 * d, c.out_dropout), nn.Linear(3 * d, 1)
        self.cross = nn.ModuleList(encoder(CrossEncoder, d, attn[n]) for _, n in PAIRS)
        self.remember = nn.ModuleList(encoder(SelfEncoder, 2 * d, attn[0], max(c.n_layers, 3)) for _ in range(3))
        self.readout = nn.ModuleList(Residual(2 * d, c.out_dropout) for _ in range(3))
        self.hetero = nn.ModuleList(nn.Linear(2 * d, 1) for _ in range(3))
        self.weigh = nn.ModuleList(nn.Linear(size, size) for size in (2 * d, 2 * d, 2 * d, 3 * d))
        self.fuse, self.out = Residual(9 * d, c.out_dropout), nn.Linear(9 * d, 1)
        self.homo_unit = Distillation(d, 64, [0.0, 0.0, 1.0, 0.0, 1.0, 0.0])  # text teaches
        self.hetero_unit = Distillation(2 * d, 32, [0.0, 0.0, 1.0, 1.0, 1.0, 0.0])  # and vision teaches audio
        self.orthogonal = ORTHOGONAL[c.ort_over]
        self.distances = HOMO_REPR[c.homo_repr], HETERO_REPR[c.hetero_repr]

    def forward(self, batch: Batch) -> Output:
        X, masks = self.convolve(*self.inputs(batch))  # [B,L,d] and [B,L] of each modality
        s = [E(x) for E, x in zip(self.specific, X, strict=True)]
        c = [self.shared(x) for x in X]
        Xhat = [D(torch.cat(both, -1)) for D, *both in zip(self.decode, s, c, strict=True)]
        again = [E(x) for E, x in zip(self.specific, Xhat, strict=True)]  # s-hat

        whole = [stacked([y], L)[:, 0].flatten(1) for y, L in zip(c, self.steps, strict=True)]  # [B,L_m d]
        cbar = torch.stack([align(y) for align, y in zip(self.align, whole, strict=True)], 1)  # [B,M,d]
        homo, r = zip(*(branch(y) for branch, y in zip(self.homo, whole, strict=True)), strict=True)
        homo, r = torch.cat(homo, -1), torch.stack(r, 1)  # [B,M], [B,M,d]
        C = torch.cat([last(E(y, mask), mask) for E, y, mask in zip(self.pool, c, masks, strict=True)], -1)  # [B,3d]

        told = [E(s[m], masks[m], s[n], masks[n]) for E, (m, n) in zip(self.cross, PAIRS, strict=True)]  # [B,L_m,d]
        both = [torch.cat(told[2 * m : 2 * m + 2], -1) for m in range(3)]  # [B,L_m,2d]
        h = [last(E(x, mask), mask) for E, x, mask in zip(self.remember, both, masks, strict=True)]  # [B,2d]
        p = [readout(x) for readout, x in zip(self.readout, h, strict=True)]
        hetero = torch.cat([out(x) for out, x in zip(self.hetero, p, strict=True)], -1)  # [B,M]
        p = torch.stack(p, 1)  # [B,M,2d]

        z = torch.cat([torch.sigmoid(W(x)) for W, x in zip(self.weigh, [*h, C], strict=True)], -1)  # [B,9d]
        y, shared = self.out(self.fuse(z))[:, 0], self.shared_out(self.shared_readout(C))[:, 0]
        edges = self.homo_unit(homo, r), self.hetero_unit(hetero, p)
        L, mask = max(mask.shape[1] for mask in masks), masks
        X, s, c, Xhat, again, mask = (stacked(part, L) for part in (X, s, c, Xhat, again, mask))  # [B,M,L,d]
        trace = Trace(mask.any(-1), mask, X, s, c, Xhat, again, cbar, homo, r, edges[0], hetero, p, edges[1], shared)
        return Output(y, as_extras(trace))

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        t, y, here = Trace(**output.extras), batch.labels, output.extras["available"]
        homo = self.homo_unit.losses(t.homo, t.homo_repr, t.homo_edges, here, self.distances[0])
        hetero = self.hetero_unit.losses(t.hetero, t.hetero_repr, t.hetero_edges, here, self.distances[1])
        return weighted(
            task=(1.0, (output.prediction - y).abs().mean()),
            shared=(1.0, (t.shared - y).abs().mean()),
            homo=(1.0, l1(t.homo, y, here).sum()),
            hetero=(1.0, l1(t.hetero, y, here).sum()),
            **{f"homo_{name}": (0.05, value) for name, value in homo.items()},
            **{f"hetero_{name}": (0.05, value) for name, value in hetero.items()},
            cycle=(0.1, squared_gap(t.s, t.again, t.mask)),
            reconstruction=(0.1, squared_gap(t.reconstruction, t.X, t.mask)),
            margin=(0.01, label_margin(t.aligned, y, here)),
            orthogonal=(0.01, self.orthogonal(t.s, t.c, t.mask)),
        )
