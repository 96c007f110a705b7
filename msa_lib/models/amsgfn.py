"""AMSGFN: Adaptive Modality Selection and Guided Fusion Network (He, "Multimodal sentiment analysis based on dynamic
mode selection and contrastive learning alignment"). No code was released; this is written from the paper.

Read top-down it follows Figure 2: features (2.2) -> contrastive alignment, CCAM (Eqs. 1-2) -> dominant modality
selection, DMSM (Eqs. 3-5) -> guided fusion, DMGF (Eqs. 6-13) -> prediction (Eqs. 14-16) -> losses (Eqs. 17-19).

Stated by the paper: the equations. Not stated: every size, rate, weight and temperature, the form of L_NCE (Eq. 18),
what is pooled before Eq. 16, positions, how sequences of unequal length meet, and what the ablations remove exactly.
Each of these is a switch of `AMSGFNConfig` with our default and the reason beside it; what can stand in a default's
place is in `amsgfn_open.py`, chosen when the network is built. Symbols are the paper's, except that y is the prediction
and `labels` the target, and U is X_aux->p. The dominant modality differs per sample: tensors are gathered by
it, nothing branches on it. A sample that lacks a modality never has it as dominant one (unless `fixed:`), and enters
the contrastive terms with that modality's zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msa_lib.data import Batch, Dataset
from msa_lib.data.dataset import LABEL_RANGE
from msa_lib.models import amsgfn_open as other
from msa_lib.models.amsgfn_open import VARIANTS, AMSGFNConfig
from msa_lib.models.card import Card, Stated, all_but, lacking
from msa_lib.models.parts.features import Features
from msa_lib.models.parts.layers import (
    BLOCKS,
    Attention,
    Output,
    absent,
    as_extras,
    feed_forward,
    masked_mean,
    mlp,
    unchanged,
)
from msa_lib.models.parts.losses import weighted

PAIRS = ((0, 1), (0, 2), (1, 2))  # (t,a), (t,v), (a,v) of Eq. 2
PERM = ((0, 1, 2), (1, 0, 2), (2, 0, 1))  # row p: the dominant modality, then its two auxiliaries

CARD = Card(
    paper="He, Multimodal sentiment analysis based on dynamic mode selection and contrastive learning alignment",
    fidelity="completed",
    specified="Eqs. 1-17 and 19, which parts exist and what feeds what.",
    ours="Every size, rate, weight and temperature; the form of L_NCE (Eq. 18); what is pooled before Eq. 16; "
    "positions; how sequences of unequal length meet; what the ablations remove exactly.",
    choices=all_but(AMSGFNConfig, "modalities", "soft_mode", "order_aux", "fusion"),  # those are controls
)
_NONE = "ours: the paper states no setting"
RECIPES = {  # data set -> training settings and switches
    "mosi": {"batch_size": Stated(32, _NONE)},
    "mosei": {"batch_size": Stated(64, _NONE)},
    "sims": {"batch_size": Stated(32, _NONE)},
    "simsv2": {"batch_size": Stated(64, _NONE)},
}
SMALL = {"d": 16, "heads": 2, "n_layers": 1}  # the smallest sensible network


class Trace(NamedTuple):
    """What a forward leaves behind for the losses and the notebooks."""

    pooled: Tensor  # X' [B,M,d]
    contribution: Tensor  # s [B,M]
    dominant: Tensor  # p [B]
    gate: Tensor  # [B,n_layers], mean opening of each layer
    fused: Tensor | None = None  # mean over time of X_p^[N], [B,d]
    shared: Tensor | None = None  # Z [B,M,d]


# ------------------------------------------------------------------------------------------- 2.3 CCAM, Eqs. 1-2


class SharedSpace(nn.Module):
    """One head per modality into the shared space: [B,M,...,d] -> the same shape."""

    def __init__(self, c: AMSGFNConfig) -> None:
        super().__init__()
        self.heads = nn.ModuleList(HEADS[c.head](c.d))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.heads[m % len(self.heads)](x[:, m]) for m in range(3)], 1)


class Alignment(nn.Module):
    """L_align of Z [B,M,d], over the pairs of available modalities; 0 if there is only one."""

    def __init__(self, c: AMSGFNConfig, letters: str) -> None:
        super().__init__()
        self.pair, self.reduce, self.tau = NTXENT[c.ntxent], ALIGN_REDUCTION[c.align_reduction], c.tau
        pairs = zip(PAIRS, c.pair_weights, strict=True)
        self.pairs = [(m, n, w) for (m, n), w in pairs if "tav"[m] in letters and "tav"[n] in letters]

    def forward(self, Z: Tensor) -> Tensor:
        Z = F.normalize(Z, dim=-1)
        terms = [w * self.pair(Z[:, m], Z[:, n], self.tau) for m, n, w in self.pairs]  # Eq. 1
        return self.reduce(sum(terms, start=Z.new_zeros(())), len(terms))  # Eq. 2


def rowwise(Zm: Tensor, Zn: Tensor, tau: float) -> Tensor:
    """Eq. 1 in both directions, mean over the batch: the candidates are the other modality's vectors."""
    S, target = Zm @ Zn.T / tau, torch.arange(len(Zm), device=Zm.device)  # [B,B]
    return F.cross_entropy(S, target) + F.cross_entropy(S.T, target)


HEADS = {"mlp": lambda d: [mlp(d, d, d) for _ in range(3)]} | other.HEADS
NTXENT = {"rowwise": rowwise} | other.NTXENT
ALIGN_REDUCTION = {"paper": unchanged} | other.ALIGN_REDUCTION
SPACE = {"loss_only": lambda ccam, X, Xbar, Z, mask: (X, Xbar)} | other.SPACE

# --------------------------------------------------------------------------------------------- 2.4 DMSM, Eqs. 3-5


def hard(s: Tensor, *_) -> tuple[Tensor, None]:
    """Eq. 4: the modality of the largest contribution, [B]; no weights of a differentiable rule."""
    return s.argmax(-1), None


RULES = {"hard": other.Rule(hard, other.by_index, other.by_index)} | other.RULES
SCORES = {"softmax": lambda s: s} | other.SCORES
WEIGHT_SCALE = {"paper": unchanged} | other.WEIGHT_SCALE
AFTER_WEIGHTING = {"paper": lambda d: unchanged} | other.AFTER_WEIGHTING
ORDER_AUX = {"fixed": unchanged} | other.ORDER_AUX

# ------------------------------------------------------------------------------------------ 2.5.1 DMGF, Eqs. 6-13


class CMA(nn.ModuleList):
    """Cross-modal attention from the dominant modality to the auxiliary of role 1 or 2; the same maps for both."""

    def __init__(self, c: AMSGFNConfig) -> None:
        super().__init__([Attention(c.d, c.heads, c.dropout)])

    def forward(self, role: int, query: Tensor, keys: Tensor, mask: Tensor, roles: Tensor) -> Tensor:
        return self[0](query, keys, mask[:, role])


class Gate(nn.Linear):
    """Eq. 10, per step and channel, or with one output per step."""

    def forward(self, Xtmp: Tensor, U: Tensor) -> Tensor:
        return torch.sigmoid(super().forward(torch.cat([Xtmp, U], -1)))


CMA_SHARE = {"tied": CMA} | other.CMA_SHARE
GATE = {"on": lambda d: Gate(2 * d, d), "scalar": lambda d: Gate(2 * d, 1)} | other.GATE
ATTN_NORM = {"none": nn.Identity, "pre": nn.LayerNorm}


class GuidedFusionLayer(nn.Module):
    """One layer: what the auxiliaries say to the dominant modality, through a gate."""

    def __init__(self, c: AMSGFNConfig) -> None:
        super().__init__()
        self.cma = CMA_SHARE[c.cma_share](c)
        self.sa = Attention(c.d, c.heads, c.dropout)
        self.gate = GATE[c.gate](c.d)
        self.norm, self.ffn = nn.LayerNorm(c.d), feed_forward(c.d, 4 * c.d, c.dropout)
        self.pre = ATTN_NORM[c.attn_norm](c.d)

    def forward(self, Xp: Tensor, A1: Tensor, A2: Tensor, mask: Tensor, roles: Tensor) -> tuple[Tensor, Tensor]:
        """X_p^[i], auxiliaries [B,T,d]; mask [B,M,T], roles [B,M] in the order p, a1, a2 -> X_p^[i+1], G [B,T,.]"""
        query = self.pre(Xp)
        R1 = self.cma(1, query, self.pre(A1), mask, roles)  # Eq. 6
        R2 = self.cma(2, query, self.pre(A2), mask, roles)  # Eq. 7
        Xtmp = self.sa(query, query, mask[:, 0]) + Xp  # Eq. 8
        U = R1 + R2  # Eq. 9, X_aux->p
        G = self.gate(Xtmp, U)  # Eq. 10
        U = G * U  # Eq. 11
        Xhat = Xtmp + U  # Eq. 12
        return self.ffn(self.norm(Xhat)) + Xhat, G  # Eq. 13


class LoneLayer(GuidedFusionLayer):
    """The same where there is one modality: U = 0 whatever the gate says, so Eqs. 6-7 and 9-12 are not computed."""

    def forward(self, Xp: Tensor, A1: Tensor, A2: Tensor, mask: Tensor, roles: Tensor) -> tuple[Tensor, Tensor]:
        query = self.pre(Xp)
        Xhat = self.sa(query, query, mask[:, 0]) + Xp  # Eq. 8
        return self.ffn(self.norm(Xhat)) + Xhat, torch.zeros_like(Xhat)  # Eq. 13


class GuidedFusion(nn.ModuleList):
    """All layers: X_p^[0], [B,M,T,d] in the order p, a1, a2, its mask -> X_p^[N], its mask, gate [B,n_layers]."""

    def __init__(self, c: AMSGFNConfig, alone: bool) -> None:
        kind = LoneLayer if alone else GuidedFusionLayer
        super().__init__(kind(c) for _ in range(1 if c.layer_share else c.n_layers))
        self.depth = c.n_layers

    def forward(self, X: Tensor, ordered: Tensor, mask: Tensor, roles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gates = []
        for i in range(self.depth):
            X, G = self[i % len(self)](X, ordered[:, 1], ordered[:, 2], mask, roles)  # Eqs. 6-13
            gates.append(masked_mean(G, mask[:, 0]).mean(-1))
        return X, mask[:, 0], torch.stack(gates, -1)


DMGF = {"on": GuidedFusion} | other.DMGF
X0 = {"weighted": unchanged} | other.X0

# ------------------------------------------------------------------------------ 2.5.2 Prediction, and 2.6 losses

QUERY = dict.fromkeys(("mean", "first", "attn"), unchanged) | other.QUERY
READOUT = {"mean": lambda d: masked_mean} | other.READOUT
OUT = {"linear": unchanged} | other.OUT
TASK_LOSS = {"mse": F.mse_loss, "l1": F.l1_loss, "smooth_l1": F.smooth_l1_loss}  # Eq. 17


class Correlation(nn.ModuleList):
    """Eq. 18, L_NCE(X_p^[N], X_m) summed over m: from the fused vector, which sample's modality vector is this?"""

    def __init__(self, c: AMSGFNConfig, letters: str) -> None:
        super().__init__(nn.Linear(c.d, c.d) for _ in range(3))
        self.available, self.tau = [m for m in range(3) if "tav"[m] in letters], c.tau_cor
        self.target, self.score = COR_TARGET[c.cor_target], COR_SCORE[c.cor_score]
        self.rows, self.weigh = COR_DIRECTION[c.cor_direction], COR_MODALITIES[c.cor_modalities]

    def forward(self, t: Trace) -> Tensor:
        return sum(self._nce(m, t.fused, self.target(t.pooled, t.shared)[:, m], t) for m in self.available)  # Eq. 18

    def _nce(self, m: int, f: Tensor, X: Tensor, t: Trace) -> Tensor:
        S = self.score(self[m](f), X) / self.tau  # of every fused vector with every sample's X_m, [B,B]
        return self.weigh(self.rows(S), m, t.dominant, t.contribution).mean()


def to_modality(S: Tensor) -> Tensor:
    """Cross-entropy [B] of each fused vector against all samples' vectors of the modality."""
    return F.cross_entropy(S, torch.arange(len(S), device=S.device), reduction="none")


def cosine(q: Tensor, k: Tensor) -> Tensor:
    return F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).T


COR_TARGET = {"pooled": unchanged} | other.COR_TARGET
COR_SCORE = {"cos": cosine} | other.COR_SCORE
COR_DIRECTION = {"f2m": to_modality} | other.COR_DIRECTION
COR_MODALITIES = {"all": unchanged} | other.COR_MODALITIES


class AMSGFN(nn.Module):
    """The whole network. Extras: contribution s [B,M], dominant p [B], gate [B,n_layers] (mean opening per layer)."""

    Config, VARIANTS, CARD, RECIPES, SMALL = AMSGFNConfig, VARIANTS, CARD, RECIPES, SMALL
    RECORD = ("contribution", "dominant", "gate")

    @staticmethod
    def fits(dataset: Dataset, switches: Mapping) -> str:
        """Why these switches are not possible on the data set; empty if they are."""
        select = switches.get("select", "")
        asked = switches.get("modalities", "") + select.partition("fixed:")[2] + "tav" * (select == "oracle")
        if reason := lacking(dataset, asked):
            return reason
        if select == "oracle" and "dominant" not in dataset.train.truth:
            return f"It needs the planted dominant modality, which {dataset.name} does not know."
        return ""

    def __init__(self, dataset: Dataset, c: AMSGFNConfig) -> None:
        super().__init__()
        self.c, self.range = c, LABEL_RANGE[dataset.scale]
        if c.select == "oracle" and "dominant" not in dataset.train.truth:
            raise ValueError(f"select='oracle' needs the planted dominant modality, which {dataset.name} has not.")
        self.features = Features(  # 2.2
            dataset, c.d, c.modalities, c.missing, c.bert, c.proj, c.pos, c.length_mode
        )
        self.letters = letters = self.features.letters  # available modalities
        if c.select.startswith("fixed:") and c.select[-1] not in letters:
            raise ValueError(f"select={c.select!r} fixes a modality other than the available {letters}.")
        if c.select == "oracle" and letters != "tav":
            raise ValueError(f"select='oracle' needs all three modalities, but only {letters} are available.")
        self.ccam = SharedSpace(c) if c.ccam or c.shared_space == "downstream" else absent  # 2.3
        self.space = SPACE[c.shared_space]
        self.register_buffer("perm", torch.tensor(PERM), persistent=False)
        if c.fusion == "guided":
            self._build(c)
        else:  # a control of as many parameters
            self.body, self.readout = other.concatenated, other.concat_readout(dataset, c, AMSGFN, SharedSpace)
        self.align = Alignment(c, letters) if c.ccam else absent  # 2.6
        self.to_modality = Correlation(c, letters) if c.beta else absent
        self.from_fused = nn.Linear(3 * c.d, c.d) if c.beta and c.fusion == "concat_mlp" else absent
        self.task = TASK_LOSS[c.task_loss]

    def _build(self, c: AMSGFNConfig) -> None:
        outputs = c.select == "soft" and c.soft_mode == "mix_outputs"
        self.body, self.predict = AMSGFN.guided, other.mixed_outputs if outputs else AMSGFN.fuse
        self.rule = RULES["hard" if outputs else c.select]
        self.scorer = mlp(3 * c.d, c.d, 3)  # 2.4
        self.scores, self.scale = SCORES[c.scores], WEIGHT_SCALE[c.weight_scale]
        self.weight_norm = AFTER_WEIGHTING[c.weight_scale](c.d)
        self.order_aux, self.x0 = ORDER_AUX[c.order_aux], X0[c.x0]
        dmgf = "dominant_only" if c.dmgf == "on" and c.n_layers == 0 else c.dmgf
        self.layers = DMGF[dmgf](c, len(self.letters) == 1)  # 2.5.1
        self.tb = BLOCKS[c.tb_norm](c.d, c.heads, 4 * c.d, c.dropout) if c.tb else unchanged  # 2.5.2
        self.query, self.cma_out = QUERY[c.readout], Attention(c.d, c.heads, c.dropout)
        self.pool = READOUT[c.readout](c.d)
        self.readout, self.out = mlp(c.d, c.d, 1, dropout=c.dropout), OUT[c.out]

    def forward(self, batch: Batch) -> Output:
        X, mask, available = self.features(batch)  # 2.2: [B,M,T,d], [B,M,T], [B,M]
        Xbar = masked_mean(X, mask)  # X' of 2.3, [B,M,d]
        Z = self.ccam(Xbar)  # in the shared space, [B,M,d]
        X, seen = self.space(self.ccam, X, Xbar, Z, mask)
        y, s, p, gate, fused = self.body(self, X, seen, mask, available, batch)  # 2.4 and 2.5
        return Output(y[:, 0], as_extras(Trace(Xbar, s, p, gate, fused, Z)))

    def guided(self, X: Tensor, Xbar: Tensor, mask: Tensor, available: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """2.4, then 2.5 -> y [B,1], s [B,M], p [B], gate [B,n_layers], mean of X_p^[N] [B,d]."""
        logits = self.scorer((Xbar * available[..., None]).flatten(1)).masked_fill(~available, -1e9)
        s = torch.softmax(logits, -1)  # Eq. 3, [B,M]
        p, soft = self.rule.dominant(s, logits, available, batch, self.training)  # Eq. 4, [B]
        Xw = self.scores(self.scale(s, available))[..., None, None] * X  # Eq. 5, [B,M,T,d]
        y, gate, fused = self.predict(self, self.weight_norm(Xw, mask), X, mask, s, p, soft)
        return y, s, p, gate, fused

    def fuse(self, Xw: Tensor, X: Tensor, mask: Tensor, s: Tensor, p: Tensor, soft: Tensor | None):
        """2.5 for the dominant modality p -> y [B,1], gate [B,n_layers], mean of X_p^[N] [B,d]."""
        order = other.Order(self.order_aux(self.perm[p], s), self.perm, p, soft)  # p, a1, a2 of each sample
        ordered, keys = self.rule.permute(Xw, order), self.rule.permute_mask(mask, order)  # [B,M,T,d], [B,M,T]
        Xp, first = ordered[:, 0], self.x0(ordered[:, 0], X, order, self.rule.permute)
        XN, valid, gate = self.layers(first, ordered, keys, order.roles)  # Eqs. 6-13
        Q = self.tb(Xp, keys[:, 0])  # Eq. 14
        Xpred = self.cma_out(self.query(Q, keys[:, 0]), XN, valid)  # Eq. 15, [B,T,d]
        y = self.out(self.readout(self.pool(Xpred, keys[:, 0])), self.range)  # Eq. 16, [B,1]
        return y, gate, masked_mean(XN, valid)

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        """`task`, `align` (unweighted), `cor` (unweighted) and `total` (the paper calls it L_task)."""
        t = Trace(**output.extras)
        L_reg = self.task(output.prediction, batch.labels)  # Eq. 17
        L_align = self.align(t.shared)  # Eq. 2
        L_cor = self.to_modality(t)  # Eq. 18
        return weighted(task=(1.0, L_reg), align=(self.c.alpha, L_align), cor=(self.c.beta, L_cor))  # Eq. 19
