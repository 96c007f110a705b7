"""MODS: "Improving Multimodal Sentiment Analysis via Modality Optimization and Dynamic Primary Modality Selection"
(Yang et al., AAAI 2026, arXiv 2511.06328). No code was released; this is written from a description of its equations.

Read top-down: text -> width d -> GDC compresses audio and vision to as many steps as text may have (capsules, then a
graph of them) -> MSelector weighs the modalities and names the primary one of each sample -> PCCA, N layers around it
-> attention pooling and the prediction -> a contrast of each modality with the primary's final vector.

Stated: all equations, and per data set rate, batch, width, layers, alpha, weight decay, patience.
Ours: heads, dropout, routing iterations, graph layers and the norm after them (as in a re-implementation by others); no
positions, no temperature; BERT, where it is trained, has the rate of the rest; Adam's decay is L2; the contrast's
guesses F_m are linear maps. With an alternative each: `votes`: one matrix per capsule for all frames, so that the
compression does not know their order (per frame: as the index of W^ij says; 64 million weights for MOSI's vision).
`agreement` of a frame and a capsule is a number (elementwise: as printed, one per feature). `degree`: the graph is not
symmetric, so its rows and columns have degrees of their own (rows: the degrees of rows on both sides). `maps`: one
attention for both auxiliaries (by role: one each). `aux_residual`: false as printed. `similarity`: exp once in the
contrast (twice: as printed, in the similarity and again in the loss).
What a sample lacks cannot be its primary modality, unless that is fixed, and is in no contrast.

Published (MAE, Corr): MOSI .688, .798; MOSEI .527, .772; SIMS .407, .605; SIMSv2 .297, .712. `primary=text` and so on
are rows of its ablation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msa_lib import MODALITIES
from msa_lib.data import Batch, Dataset
from msa_lib.models.card import Card, Stated, all_but, lacking
from msa_lib.models.parts.inputs import Inputs
from msa_lib.models.parts.layers import Attention, Output, as_extras, in_order, mlp, unchanged
from msa_lib.models.parts.losses import infonce, weighted
from msa_lib.train.procedure import Adam

PERM = ((0, 1, 2), (1, 0, 2), (2, 0, 1))  # row p: the primary modality, then its two auxiliaries


@dataclass(frozen=True)
class MODSConfig:
    """Sizes and weights are those of MOSI; the recipes say the others."""

    d: int = 128
    n_layers: int = 3  # of PCCA
    alpha: float = 0.1  # of the contrast
    heads: int = 4
    dropout: float = 0.1
    routing: int = 3  # iterations
    graph_layers: int = 2
    primary: Literal["dynamic", "text", "audio", "vision"] = "dynamic"
    votes: Literal["shared", "per frame"] = "shared"
    agreement: Literal["scalar", "elementwise"] = "scalar"
    degree: Literal["both", "rows"] = "both"
    maps: Literal["tied", "by role"] = "tied"
    aux_residual: bool = False
    similarity: Literal["once", "twice"] = "once"
    bert: Literal["precomputed", "frozen", "finetune"] = "precomputed"


VARIANTS = {
    "full": {},
    "votes per frame": {"votes": "per frame"},
    "elementwise agreement": {"agreement": "elementwise"},
    "degrees of rows": {"degree": "rows"},
    "maps by role": {"maps": "by role"},
    "residual of auxiliaries": {"aux_residual": True},
    "exp twice": {"similarity": "twice"},
    **{f"{m} fixed": {"primary": m} for m in MODALITIES},
}
CARD = Card(
    paper="Yang et al., Improving Multimodal Sentiment Analysis via Modality Optimization and Dynamic Primary Modality "
    "Selection, AAAI 2026",
    fidelity="completed",
    specified="The equations; rate, batch size, width, layers, alpha, weight decay and patience of each data set.",
    ours="Heads, dropout, routing iterations, graph layers; votes shared over frames, agreement as one number, degrees "
    "of rows and columns; one attention for both auxiliaries; exp once; linear guesses; no positions; BERT's rate.",
    choices=all_but(MODSConfig, "d", "n_layers", "alpha", "primary"),
)


def _recipe(lr: float, batch_size: int, d: int, n_layers: int, alpha: float, decay: float, patience: int) -> dict:
    values = {"lr": lr, "batch_size": batch_size, "d": d, "n_layers": n_layers, "alpha": alpha}
    values |= {"weight_decay": decay, "patience": patience}
    stated = {name: Stated(value, "the paper, settings of each data set") for name, value in values.items()}
    return stated | {"lr_encoder": Stated(lr, "ours: the rate of the rest"), "clip": Stated(1.0, "ours")}


RECIPES = {
    "mosi": _recipe(3e-5, 32, 128, 3, 0.1, 1e-3, 25),
    "mosei": _recipe(1e-5, 64, 128, 3, 0.1, 1e-3, 15),
    "sims": _recipe(1e-5, 32, 64, 3, 0.01, 1e-2, 25),
    "simsv2": _recipe(1e-5, 32, 128, 4, 0.01, 1e-2, 25),
}
SMALL = {"d": 16, "heads": 2, "n_layers": 2}  # one layer has no way back to the auxiliaries


class Trace(NamedTuple):
    """What a forward leaves behind for the losses and the notebooks."""

    contribution: Tensor  # w [B,M]
    dominant: Tensor  # p [B]
    pooled: Tensor  # h_m [B,M,d]
    fused: Tensor  # h_p [B,d]
    available: Tensor  # [B,M]


# ------------------------------------------------------------------------------- GDC: capsules, and a graph of them


class Routing(nn.Module):
    """Frames x [B,T,D], mask [B,T] -> capsules N [B,n,d]; the votes C [B,T,n,d] of all frames are made.

    Each frame shares its votes out among the capsules, at first evenly, then by how well they agree.
    """

    def __init__(self, size: int, steps: int, n: int, c: MODSConfig) -> None:
        super().__init__()
        if c.routing < 1:
            raise ValueError(f"routing={c.routing}: expected at least 1 iteration.")
        shape = (n, c.d, size) if c.votes == "shared" else (steps, n, c.d, size)
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-(size**-0.5), size**-0.5))  # W^j or W^ij
        self.votes, self.agree, self.iterations = VOTES[c.votes], AGREEMENT[c.agreement], c.routing

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        C = self.votes(self.weight, x) * mask[..., None, None]  # C^ij
        N = C.sum(1) / C.shape[2]  # b = 0
        b = C.new_zeros(())
        for _ in range(self.iterations - 1):
            b = b + self.agree(C * torch.tanh(N)[:, None])  # [B,T,n,1 or d]
            N = (torch.softmax(b, 2) * C).sum(1)
        return N


class FactoredRouting(Routing):
    """The same for shared votes and agreement as one number, where no votes need to be made: sum_i r^ij W^j x_i is
    W^j sum_i r^ij x_i, and x_i W^j . tanh(N^j) is x_i . (tanh(N^j) W^j)."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        W = self.weight
        N = torch.einsum("ndD,bD->bnd", W, x.sum(1)) / len(W)
        b = x.new_zeros(())
        for _ in range(self.iterations - 1):
            b = b + x @ torch.einsum("bnd,ndD->bDn", torch.tanh(N), W)  # [B,T,n]
            N = torch.einsum("ndD,bnD->bnd", W, torch.softmax(b, -1).mT @ x)
        return N


def votes_per_frame(W: Tensor, x: Tensor) -> Tensor:
    W = F.pad(W, (0, 0, 0, 0, 0, 0, 0, max(0, x.shape[1] - len(W))))[: x.shape[1]]
    return torch.einsum("tndD,btD->btnd", W, x)


VOTES = {"shared": lambda W, x: torch.einsum("ndD,btD->btnd", W, x), "per frame": votes_per_frame}
AGREEMENT = {"scalar": lambda agreement: agreement.sum(-1, keepdim=True), "elementwise": unchanged}
ROUTING = {("shared", "scalar"): FactoredRouting}


def directed(E: Tensor) -> Tensor:
    """D^-1/2 E D^-1/2 with the degrees of rows and of columns; no entry exceeds 1."""
    return E * E.sum(-1, keepdim=True).clamp(min=1e-6).rsqrt() * E.sum(-2, keepdim=True).clamp(min=1e-6).rsqrt()


def by_rows(E: Tensor) -> Tensor:
    root = E.sum(-1).clamp(min=1e-6).rsqrt()
    return E * root[..., None] * root[..., None, :]


DEGREE = {"both": directed, "rows": by_rows}


class GDC(nn.Module):
    """A sequence [B,T,D] -> [B,n,d] and its mask [B,n]: all steps, or none where there is no frame."""

    def __init__(self, size: int, steps: int, n: int, c: MODSConfig) -> None:
        super().__init__()
        self.route = ROUTING.get((c.votes, c.agreement), Routing)(size, steps, n, c)
        self.q, self.k = (nn.Linear(c.d, c.d, bias=False) for _ in range(2))
        self.layers = nn.ModuleList(nn.Linear(c.d, c.d) for _ in range(c.graph_layers))
        self.norm, self.degree = nn.LayerNorm(c.d), DEGREE[c.degree]

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        H = self.route(x, mask)  # N
        E = F.relu(self.q(H) @ self.k(H).mT / math.sqrt(H.shape[-1]))  # [B,n,n]
        A = self.degree(E)
        for layer in self.layers:
            H = F.relu(layer(A @ H))
        here = mask.any(-1, keepdim=True)
        return self.norm(H) * here[..., None], here.expand(-1, H.shape[1])


# ---------------------------------------------------------------------------------- MSelector: the primary modality


class AttentionPool(nn.Module):
    """[B,T,d], mask [B,T] -> [B,d], weights softmax(x w / sqrt d); zeros where there is no step."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.w = nn.Linear(d, 1, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        scores = self.w(x)[..., 0] / math.sqrt(x.shape[-1])
        a = torch.softmax(scores.masked_fill(~mask, -1e9), -1) * mask.any(-1, keepdim=True)
        return torch.einsum("bt,btd->bd", a, x)


PRIMARY = {"dynamic": lambda w: w.argmax(-1)} | {
    name: lambda w, m=m: torch.full_like(w[:, 0], m, dtype=torch.long) for m, name in enumerate(MODALITIES)
}


# --------------------------------------------------------------- PCCA: cross-attention around the primary modality


class PCCALayer(nn.Module):
    """From the auxiliaries to the primary sequence, and back; the last layer has no way back."""

    def __init__(self, c: MODSConfig, last: bool) -> None:
        super().__init__()
        d = c.d
        self.norm_p, self.norm_a, self.norm = (nn.LayerNorm(d) for _ in range(3))
        self.to_primary = nn.ModuleList(Attention(d, c.heads, c.dropout) for _ in range(MAPS[c.maps]))
        self.sa, self.pff = Attention(d, c.heads, c.dropout), mlp(d, 4 * d, d, dropout=c.dropout)
        self.back = unchanged if last else Back(c)

    def forward(self, P: Tensor, A: Sequence[Tensor], masks: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        """P, auxiliaries [B,L,d] each; masks [B,L] of all three, the primary's first."""
        p, normed = self.norm_p(P), [self.norm_a(a) for a in A]
        H = self.sa(p, p, masks[0]) + P  # H_p^upd
        for i, a in enumerate(normed):
            H = H + self.to_primary[i % len(self.to_primary)](p, a, masks[1 + i])  # H_a->p
        return self.pff(self.norm(H)) + H, self.back(A, normed, H, masks)


class Back(nn.Module):
    """H_p->a: the auxiliaries ask the primary sequence."""

    def __init__(self, c: MODSConfig) -> None:
        super().__init__()
        self.from_primary = nn.ModuleList(Attention(c.d, c.heads, c.dropout) for _ in range(MAPS[c.maps]))
        self.norm, self.pff = nn.LayerNorm(c.d), mlp(c.d, 4 * c.d, c.d, dropout=c.dropout)
        self.keep = float(c.aux_residual)

    def forward(
        self, A: Sequence[Tensor], normed: Sequence[Tensor], H: Tensor, masks: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        new = []
        for i, (a, query) in enumerate(zip(A, normed, strict=True)):
            h = self.from_primary[i % len(self.from_primary)](query, H, masks[0]) + self.keep * a
            new.append(self.pff(self.norm(h)) + h)
        return new


MAPS = {"tied": 1, "by role": 2}
SCORE = {"once": unchanged, "twice": torch.exp}


class MODS(nn.Module):
    Config, VARIANTS, CARD, RECIPES, SMALL, Procedure = MODSConfig, VARIANTS, CARD, RECIPES, SMALL, Adam
    RECORD = ("contribution", "dominant")

    @staticmethod
    def fits(dataset: Dataset, switches: Mapping) -> str:
        return lacking(dataset, "tav")

    def __init__(self, dataset: Dataset, c: MODSConfig) -> None:
        super().__init__()
        if c.n_layers < 1:
            raise ValueError(f"n_layers={c.n_layers}: expected at least 1.")
        self.c, self.inputs = c, Inputs(dataset, c.bert)
        self.n = max(self.inputs.steps[0], 1)  # steps that audio and vision are compressed to: those of text
        self.text = nn.Linear(self.inputs.dims[0], c.d)
        sizes = list(zip(self.inputs.dims, self.inputs.steps, strict=True))[1:]
        self.compress = nn.ModuleList(GDC(size, steps, self.n, c) for size, steps in sizes)
        self.pools = nn.ModuleList(AttentionPool(c.d) for _ in range(3))
        self.selector, self.choose = mlp(3 * c.d, c.d, 3), PRIMARY[c.primary]
        self.register_buffer("perm", torch.tensor(PERM), persistent=False)
        self.layers = nn.ModuleList(PCCALayer(c, last=i == c.n_layers - 1) for i in range(c.n_layers))
        self.pool, self.out = AttentionPool(c.d), mlp(c.d, c.d, 1, dropout=c.dropout)
        self.guess, self.score = nn.ModuleList(nn.Linear(c.d, c.d) for _ in range(3)), SCORE[c.similarity]

    def forward(self, batch: Batch) -> Output:
        (text, *others), (mask, *valid) = self.inputs(batch)  # [B,T,D], [B,T] each
        H = [self.text(text) * mask[..., None]]
        masks = [mask]
        for gdc, x, mask in zip(self.compress, others, valid, strict=True):
            for part, new in zip((H, masks), gdc(x, mask), strict=True):
                part.append(new)
        L = max(self.n, text.shape[1])
        H = torch.stack([F.pad(h, (0, 0, 0, L - h.shape[1])) for h in H], 1)  # [B,M,L,d]
        mask = torch.stack([F.pad(m, (0, L - m.shape[1])) for m in masks], 1)  # [B,M,L]
        available = mask.any(-1)

        h = torch.stack([pool(H[:, m], mask[:, m]) for m, pool in enumerate(self.pools)], 1)  # h_m [B,M,d]
        w = torch.softmax(self.selector(h.flatten(1)).masked_fill(~available, -1e9), -1)  # [B,M]
        p = self.choose(w)
        roles = self.perm[p]
        P, *A = in_order(w[..., None, None] * H, roles).unbind(1)  # [B,L,d] each
        ordered = in_order(mask, roles).unbind(1)
        for layer in self.layers:
            P, A = layer(P, A, ordered)
        fused = self.pool(P, ordered[0])  # h_p [B,d]
        return Output(self.out(fused)[:, 0], as_extras(Trace(w, p, h, fused, available)))

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        t = Trace(**output.extras)
        nce = sum(
            infonce(t.pooled[:, m], guess(t.fused), t.available[:, m], self.score) for m, guess in enumerate(self.guess)
        )
        return weighted(task=(1.0, F.l1_loss(output.prediction, batch.labels)), nce=(self.c.alpha, nce))
