"""AMSGFN: Adaptive Modality Selection and Guided Fusion Network (He, "Multimodal sentiment analysis based on dynamic
mode selection and contrastive learning alignment"). No code was released; this is written from the paper.

Read top-down it follows Figure 2: features (2.2) -> contrastive alignment, CCAM (Eqs. 1-2) -> dominant modality
selection, DMSM (Eqs. 3-5) -> guided fusion, DMGF (Eqs. 6-13) -> prediction (Eqs. 14-16) -> losses (Eqs. 17-19).

Stated by the paper: the equations. Not stated: every size, rate, weight and temperature, the form of L_NCE (Eq. 18),
what is pooled before Eq. 16, positions, how sequences of unequal length meet, and what the ablations remove exactly.
Each of these is a switch of `AMSGFNConfig` with our default and the reason beside it. Symbols are the paper's, except
that y is the prediction and `labels` the target. The dominant modality differs per sample: tensors are gathered by
it, nothing branches on it. A sample that lacks a modality never has it as dominant one (unless `fixed:`), and enters
the contrastive terms with that modality's zeros.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msa_lib.data import Batch, Dataset
from msa_lib.data.dataset import LABEL_RANGE
from msa_lib.models.features import Features
from msa_lib.models.layers import Attention, EncoderBlock, Output, attend, feed_forward, fixed_draw, masked_mean, mlp

PAIRS = ((0, 1), (0, 2), (1, 2))  # (t,a), (t,v), (a,v) of Eq. 2
PERM = ((0, 1, 2), (1, 0, 2), (2, 0, 1))  # row p: the dominant modality, then its two auxiliaries


@dataclass(frozen=True)
class AMSGFNConfig:
    """The switches. No hyper-parameter is given in the paper: all values are ours; `literal` marks the printed text."""

    d: int = 128  # common width
    heads: int = 8
    n_layers: int = 3  # the paper's second N (2.5.2)
    dropout: float = 0.1
    modalities: Literal["tav", "ta", "tv", "av", "t", "a", "v"] = "tav"  # Table 5
    missing: Literal["mask", "zero_fill"] = "mask"  # how Table 5 removes a modality: unavailable | zeros, still scored

    # 2.2 Features: "a linear layer" (literal); nothing is said of positions, so attention is blind to order
    bert: Literal["precomputed", "frozen", "finetune"] = (
        "precomputed"  # BERT is used; whether it is trained is not said
    )
    proj: Literal["linear", "conv1", "conv3"] = "linear"
    pos: Literal["none", "sin", "learned"] = "none"
    length_mode: Literal["aligned", "padded"] = "aligned"  # all have L_t steps in 2.2, but L_m in 2.3

    # 2.3 CCAM
    ccam: bool = True  # False removes heads and L_align ("w/o CCAM")
    head: Literal["mlp", "linear", "shared", "none"] = "mlp"  # "projected onto the shared space", form not given
    ntxent: Literal["rowwise", "full"] = "rowwise"  # literal Eq. 1: cross-modal candidates only | 2B-1 as in [15]
    align_reduction: Literal["paper", "mean6"] = "paper"  # sum of the six batch means | their mean
    pair_weights: tuple[float, float, float] = (1.0, 1.0, 1.0)  # "weights and sums", the weights missing
    shared_space: Literal["loss_only", "downstream"] = "loss_only"  # Eqs. 3 and 5 use X', X, not the projections
    tau: float = 0.07  # Eq. 1

    # 2.4 DMSM. Eq. 4 prints "arg", read as argmax. "hard" (literal) trains the scorer only through Eq. 5
    select: Literal["hard", "st", "gumbel", "soft", "fixed:t", "fixed:a", "fixed:v", "random", "oracle", "argmin"] = (
        "hard"
    )
    soft_mode: Literal["mix_inputs", "mix_outputs"] = "mix_inputs"  # select=soft: blend the roles, or three outputs
    scores: Literal["softmax", "ones"] = "softmax"  # ones: Eq. 5 without re-weighting; the scorer then stays untrained
    weight_scale: Literal["paper", "times3", "ln_after"] = "paper"  # Eq. 5 shrinks features about threefold
    order_aux: Literal["fixed", "by_score"] = "fixed"  # irrelevant while both auxiliaries share one CMA

    # 2.5.1 DMGF
    fusion: Literal["guided", "concat_mlp"] = "guided"  # concat_mlp: control with as many parameters, no selection
    dmgf: Literal["on", "concat_time", "sum", "dominant_only"] = "on"  # three readings of "w/o DMGF"
    x0: Literal["weighted", "raw"] = "weighted"  # X_p^[0]: 2.5.2 calls it the weighted representation
    cma_share: Literal["tied", "role", "modality"] = "tied"  # Eqs. 6 and 7 print the same symbol
    layer_share: bool = False
    gate: Literal["on", "off", "scalar"] = "on"  # Eq. 10, per step and channel
    attn_norm: Literal["none", "pre"] = "none"  # literal Eqs. 6-8: no norm before attention

    # 2.5.2 Prediction
    tb: bool = True  # False: Q := X_p ("w/o TB")
    tb_norm: Literal["post", "pre"] = "post"
    readout: Literal["mean", "first", "attn", "pooled_query"] = "mean"  # Eq. 16 feeds a sequence to an MLP
    out: Literal["linear", "scaled_tanh"] = "linear"

    # 2.6 Losses
    task_loss: Literal["mse", "l1", "smooth_l1"] = "mse"  # literal Eq. 17
    alpha: float = 0.1  # Eq. 19
    beta: float = 0.1  # Eq. 19; 0 is "w/o Cor"
    tau_cor: float = 0.1
    cor_score: Literal["cos", "bilinear"] = "cos"  # L_NCE of Eq. 18 has no formula; CPC-style, fused -> modality
    cor_direction: Literal["f2m", "both"] = "f2m"
    cor_target: Literal["pooled", "projected", "detached"] = "pooled"
    cor_modalities: Literal["all", "aux_only", "score_weighted"] = "all"  # literal Eq. 18: all three


# Named settings: the rows of the paper's Tables 5 and 6, their other readings, and controls that it does not have.
VARIANTS: dict[str, dict] = {
    "full": {},
    "T": {"modalities": "t"},  # Table 5: depth, TB and readout unchanged, nothing to fuse
    "V": {"modalities": "v"},
    "A": {"modalities": "a"},
    "V+A": {"modalities": "av"},
    "T+V": {"modalities": "tv"},
    "T+A": {"modalities": "ta"},
    "w/o CCAM": {"ccam": False},  # Table 6: L_cor stays
    "t-oriented": {"select": "fixed:t"},  # s is still computed and used in Eq. 5
    "v-oriented": {"select": "fixed:v"},
    "a-oriented": {"select": "fixed:a"},
    "w/o DMGF": {"dmgf": "concat_time"},  # X^N := the three sequences along time
    "w/o DMGF (sum)": {"dmgf": "sum"},
    "w/o DMGF (dominant only)": {"dmgf": "dominant_only"},  # in effect unimodal
    "w/o TB": {"tb": False},
    "w/o Cor": {"beta": 0.0},  # discussed in the text, absent from the table
    "t-oriented, s=1": {"select": "fixed:t", "scores": "ones"},  # controls: what is dynamic *selection* worth?
    "v-oriented, s=1": {"select": "fixed:v", "scores": "ones"},
    "a-oriented, s=1": {"select": "fixed:a", "scores": "ones"},
    "random dominant": {"select": "random"},
    "argmin dominant": {"select": "argmin"},
    "oracle dominant": {"select": "oracle"},  # planted data only
    "s=1, dynamic p": {"scores": "ones"},  # nothing trains the scorer then: p is what its initial weights say
    "s=1, trained p": {"scores": "ones", "select": "st"},
    "gate off": {"gate": "off"},
    "w/o both contrastive": {"ccam": False, "beta": 0.0},
    "concat MLP": {"fusion": "concat_mlp"},
}


class Alignment(nn.Module):
    """CCAM, section 2.3: one head per modality into the shared space, and L_align."""

    def __init__(self, c: AMSGFNConfig) -> None:
        super().__init__()
        self.c = c
        kinds = {"linear": lambda: nn.Linear(c.d, c.d), "none": nn.Identity}
        kind = kinds.get(c.head, lambda: mlp(c.d, c.d, c.d))
        self.heads = nn.ModuleList(kind() for _ in range(1 if c.head == "shared" else 3))

    def forward(self, x: Tensor) -> Tensor:
        """[B,M,...,d] -> the same shape, in the shared space."""
        return torch.stack([self.heads[m % len(self.heads)](x[:, m]) for m in range(3)], 1)

    def loss(self, Z: Tensor, letters: str) -> Tensor:
        """Eqs. 1-2 for Z [B,M,d], over the pairs of available modalities."""
        Z = F.normalize(Z, dim=-1)
        terms = [
            w * self._pair(Z[:, m], Z[:, n])
            for (m, n), w in zip(PAIRS, self.c.pair_weights, strict=True)
            if "tav"[m] in letters and "tav"[n] in letters
        ]
        if not terms:
            return Z.new_zeros(())
        total = torch.stack(terms).sum()
        return total / (2 * len(terms)) if self.c.align_reduction == "mean6" else total

    def _pair(self, Zm: Tensor, Zn: Tensor) -> Tensor:
        """Mean over the batch of L^(m,n) + L^(n,m)."""
        B = len(Zm)
        if self.c.ntxent == "rowwise":
            return _nce(Zm @ Zn.T / self.c.tau, both=True)  # Eq. 1
        Z = torch.cat([Zm, Zn])  # [2B,d]; the cited work's 2B-1 candidates
        S = (Z @ Z.T / self.c.tau).masked_fill(torch.eye(2 * B, dtype=torch.bool, device=Z.device), -1e9)
        return 2 * F.cross_entropy(S, torch.arange(2 * B, device=Z.device).roll(B))


def _nce(S: Tensor, both: bool) -> Tensor:
    """Cross-entropy of similarities S [B,B] with the diagonal as the right answer; with `both`, plus that of S^T."""
    target = torch.arange(len(S), device=S.device)
    loss = F.cross_entropy(S, target)
    return loss + F.cross_entropy(S.T, target) if both else loss


class ModalityAttention(nn.Module):
    """cma_share=modality: Q, K, V maps belong to the modality, gathered per sample; one output map."""

    def __init__(self, d: int, heads: int, dropout: float) -> None:
        super().__init__()
        bound = d**-0.5
        self.q, self.k, self.v = (nn.Parameter(torch.empty(3, d, d).uniform_(-bound, bound)) for _ in range(3))
        self.out, self.heads, self.dropout = nn.Linear(d, d), heads, dropout

    def forward(self, query: Tensor, keys: Tensor, mask: Tensor, of_query: Tensor, of_keys: Tensor) -> Tensor:
        q = torch.einsum("bld,bde->ble", query, self.q[of_query])
        k, v = (torch.einsum("bld,bde->ble", keys, W[of_keys]) for W in (self.k, self.v))
        x = attend(q, k, v, mask, self.heads, self.dropout if self.training else 0.0)
        return self.out(x) * mask.any(-1)[:, None, None].to(x.dtype)


class GuidedFusionLayer(nn.Module):
    """DMGF, one layer of section 2.5.1: what the auxiliaries say to the dominant modality, through a gate."""

    def __init__(self, c: AMSGFNConfig, alone: bool) -> None:
        super().__init__()
        self.c, self.alone = c, alone
        kind = ModalityAttention if c.cma_share == "modality" else Attention
        self.cma = nn.ModuleList(kind(c.d, c.heads, c.dropout) for _ in range(2 if c.cma_share == "role" else 1))
        self.sa = Attention(c.d, c.heads, c.dropout)
        self.gate = None if c.gate == "off" else nn.Linear(2 * c.d, 1 if c.gate == "scalar" else c.d)
        self.norm, self.ffn = nn.LayerNorm(c.d), feed_forward(c.d, 4 * c.d, c.dropout)
        self.pre = nn.LayerNorm(c.d) if c.attn_norm == "pre" else nn.Identity()

    def forward(self, Xp: Tensor, aux: Tensor, mask: Tensor, roles: Tensor) -> tuple[Tensor, Tensor]:
        """Xp [B,T,d], aux [B,2,T,d]; mask [B,M,T], roles [B,M] in the order p, a1, a2 -> X^[i+1] [B,T,d], G [B,T,.]"""
        query = self.pre(Xp)
        if self.alone:  # one modality: U = 0 whatever the gate says, so Eqs. 6-7 and 9-12 are not computed
            Xhat = self.sa(query, query, mask[:, 0]) + Xp  # Eq. 8
            return self.ffn(self.norm(Xhat)) + Xhat, torch.zeros_like(Xhat)
        R1 = self._cross(0, query, aux[:, 0], mask[:, 1], roles[:, 0], roles[:, 1])  # Eq. 6
        R2 = self._cross(-1, query, aux[:, 1], mask[:, 2], roles[:, 0], roles[:, 2])  # Eq. 7
        Xtmp = self.sa(query, query, mask[:, 0]) + Xp  # Eq. 8
        U = R1 + R2  # Eq. 9
        G = torch.ones_like(U) if self.gate is None else torch.sigmoid(self.gate(torch.cat([Xtmp, U], -1)))  # Eq. 10
        U = G * U  # Eq. 11
        Xhat = Xtmp + U  # Eq. 12
        return self.ffn(self.norm(Xhat)) + Xhat, G  # Eq. 13

    def _cross(self, which: int, query: Tensor, keys: Tensor, mask: Tensor, p: Tensor, a: Tensor) -> Tensor:
        keys = self.pre(keys)
        if self.c.cma_share == "modality":
            return self.cma[0](query, keys, mask, p, a)
        return self.cma[which](query, keys, mask)


class AMSGFN(nn.Module):
    """The whole network. Extras: contribution s [B,M], dominant p [B], gate [B,n_layers] (mean opening per layer)."""

    Config, VARIANTS = AMSGFNConfig, VARIANTS
    RECORD = ("contribution", "dominant", "gate")

    def __init__(self, dataset: Dataset, c: AMSGFNConfig) -> None:
        super().__init__()
        if c.select == "oracle" and "dominant" not in dataset.train.truth:
            raise ValueError(f"select='oracle' needs the planted dominant modality, which {dataset.name} has not.")
        self.c, self.range = c, LABEL_RANGE[dataset.scale]
        self.features = Features(  # 2.2
            dataset, c.d, c.modalities, c.missing, c.bert, c.proj, c.pos, c.length_mode
        )
        self.letters = self.features.letters  # available modalities
        if c.select.startswith("fixed:") and c.select[-1] not in self.letters:
            raise ValueError(f"select={c.select!r} fixes a modality other than the available {self.letters}.")
        if c.select == "oracle" and self.letters != "tav":
            raise ValueError(f"select='oracle' needs all three modalities, but only {self.letters} are available.")
        self.ccam = Alignment(c) if c.ccam or c.shared_space == "downstream" else None  # 2.3
        self.register_buffer("perm", torch.tensor(PERM), persistent=False)
        if c.fusion == "concat_mlp":
            hidden = _matching_width(dataset, c)
            self.readout = mlp(3 * c.d, hidden, hidden, 1, dropout=c.dropout)
        else:
            self.scorer = mlp(3 * c.d, c.d, 3)  # 2.4
            if c.weight_scale == "ln_after":
                self.weight_norm = nn.LayerNorm(c.d)
            depth = 0 if c.dmgf != "on" else 1 if c.layer_share else c.n_layers
            self.layers = nn.ModuleList(GuidedFusionLayer(c, len(self.letters) == 1) for _ in range(depth))  # 2.5.1
            self.tb = EncoderBlock(c.d, c.heads, 4 * c.d, c.dropout, c.tb_norm) if c.tb else None  # 2.5.2
            self.cma_out = Attention(c.d, c.heads, c.dropout)
            self.pool = nn.Linear(c.d, 1) if c.readout == "attn" else None
            self.readout = mlp(c.d, c.d, 1, dropout=c.dropout)
        self.to_modality = nn.ModuleList(nn.Linear(c.d, c.d) for _ in range(3)) if c.beta else None  # Eq. 18
        self.from_fused = nn.Linear(3 * c.d, c.d) if c.beta and c.fusion == "concat_mlp" else None

    def forward(self, batch: Batch) -> Output:
        X, mask, available = self.features(batch)  # [B,M,T,d], [B,M,T], [B,M]
        G = masked_mean(X, mask)  # X' of 2.3, [B,M,d]
        extras = {"pooled": G}
        if self.ccam is not None:
            extras["shared"] = self.ccam(G)  # [B,M,d]
            if self.c.shared_space == "downstream":
                X, G = self.ccam(X).masked_fill(~mask[..., None], 0.0), extras["shared"]
        if self.c.fusion == "concat_mlp":
            return self._concat(G, available, extras)

        logits = self.scorer((G * available[..., None]).flatten(1)).masked_fill(~available, -1e9)
        s = torch.softmax(logits, -1)  # Eq. 3, [B,M]
        p, h = self._dominant(s, logits, available, batch)  # Eq. 4, [B], and [B,M] if differentiable
        weight = s if self.c.scores == "softmax" else torch.ones_like(s)
        if self.c.weight_scale == "times3" and self.c.scores == "softmax":
            weight = s * available.sum(-1, keepdim=True)
        Xw = weight[..., None, None] * X  # Eq. 5, [B,M,T,d]
        if self.c.weight_scale == "ln_after":
            Xw = self.weight_norm(Xw).masked_fill(~mask[..., None], 0.0)

        if self.c.select == "soft" and self.c.soft_mode == "mix_outputs":
            each = [self._fuse(Xw, X, mask, torch.full_like(p, m), None, s) for m in range(3)]
            y, fused, gate = (
                sum(s[:, m, None] * part for m, part in enumerate(parts)) for parts in zip(*each, strict=True)
            )
        else:
            y, fused, gate = self._fuse(Xw, X, mask, p, h, s)
        return Output(y[:, 0], extras | {"contribution": s, "dominant": p, "gate": gate, "fused": fused})

    def _dominant(self, s: Tensor, logits: Tensor, available: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Eq. 4: the dominant modality [B]; for the differentiable rules also one-hot-like weights [B,M]."""
        select = self.c.select
        if select.startswith("fixed:"):
            return torch.full_like(batch.index, "tav".index(select[-1])), None
        if select == "oracle":
            return batch.truth["dominant"], None
        if select == "argmin":
            return s.masked_fill(~available, 2.0).argmin(-1), None
        if select == "random":  # arbitrary but fixed per sample, so that evaluation is reproducible
            draw = fixed_draw(batch.index, available.sum(-1).clamp(min=1))  # [B]
            return ((available.cumsum(-1) - 1 == draw[:, None]) & available).long().argmax(-1), None
        soft = F.gumbel_softmax(logits) if select == "gumbel" and self.training else s
        p = soft.argmax(-1)
        if select == "st" or soft is not s:  # the forward value of the one-hot, the gradient of the soft weights
            return p, F.one_hot(p, 3).to(s.dtype) + soft - soft.detach()
        return p, s if select == "soft" and self.c.soft_mode == "mix_inputs" else None

    def _fuse(self, Xw: Tensor, X: Tensor, mask: Tensor, p: Tensor, h: Tensor | None, s: Tensor):
        """Sections 2.5.1 and 2.5.2 for the dominant modality p -> y [B,1], mean of X^[N] [B,d], gate [B,n_layers]."""
        roles = self.perm[p]  # [B,M]: p, a1, a2
        if self.c.order_aux == "by_score":
            a1, a2 = roles[:, 1:].unbind(1)
            swap = (s.gather(1, a2[:, None]) > s.gather(1, a1[:, None]))[:, 0]
            roles = torch.where(swap[:, None], roles[:, [0, 2, 1]], roles)
        ordered = self._permute(Xw, roles, p, h)  # [B,M,T,d]
        raw = self._permute(X, roles, p, h) if self.c.x0 == "raw" else ordered
        keys = mask.gather(1, roles[..., None].expand_as(mask))  # [B,M,T]
        if self.c.select == "soft" and h is not None:  # a blended step is valid where any modality in the blend is
            keys = self._permute(mask.to(X.dtype)[..., None], roles, p, h)[..., 0] > 0
        Xp, aux = ordered[:, 0], ordered[:, 1:]

        XN, valid, gates = raw[:, 0], keys[:, 0], []
        for i in range(self.c.n_layers if self.c.dmgf == "on" else 0):
            XN, G = self.layers[0 if self.c.layer_share else i](XN, aux, keys, roles)  # Eqs. 6-13
            gates.append(masked_mean(G, keys[:, 0]).mean(-1))
        if self.c.dmgf == "concat_time":
            XN, valid = ordered.flatten(1, 2), keys.flatten(1)  # [B,3T,d]
        elif self.c.dmgf == "sum":
            XN, valid = ordered.sum(1), keys.any(1)

        Q = Xp if self.tb is None else self.tb(Xp, keys[:, 0])  # Eq. 14
        y = self.readout(self._read(Q, XN, keys[:, 0], valid))  # Eq. 16, [B,1]
        if self.c.out == "scaled_tanh":
            y = self.range * torch.tanh(y)
        gate = torch.stack(gates, -1) if gates else Xp.new_ones(len(Xp), 0)
        return y, masked_mean(XN, valid), gate

    def _permute(self, X: Tensor, roles: Tensor, p: Tensor, h: Tensor | None) -> Tensor:
        """[B,M,T,d] in the order p, a1, a2: a gather, or for differentiable rules a product with mixed permutations."""
        if h is None:
            return X.gather(1, roles[..., None, None].expand_as(X))
        hot = F.one_hot(self.perm, 3).to(X.dtype)  # [p,role,modality]
        P = torch.einsum("bp,prm->brm", h, hot)
        if self.c.order_aux == "by_score":  # the hard order of the auxiliaries, the soft weights of the dominant one
            flip = (roles != self.perm[p]).any(-1)
            P = torch.where(flip[:, None, None], P[:, [0, 2, 1]], P)
        return torch.einsum("brm,bmtd->brtd", P, X)

    def _read(self, Q: Tensor, XN: Tensor, mask: Tensor, valid: Tensor) -> Tensor:
        """Eq. 15 and the pooling that Eq. 16 leaves open -> [B,d]."""
        if self.c.readout == "pooled_query":
            return self.cma_out(masked_mean(Q, mask)[:, None], XN, valid)[:, 0]
        Xpred = self.cma_out(Q, XN, valid)  # Eq. 15, [B,T,d]
        if self.c.readout == "first":
            return Xpred[:, 0]
        if self.c.readout == "attn":
            weight = torch.softmax(self.pool(Xpred)[..., 0].masked_fill(~mask, -1e9), -1)
            return torch.einsum("bt,btd->bd", weight, Xpred)
        return masked_mean(Xpred, mask)

    def _concat(self, G: Tensor, available: Tensor, extras: dict[str, Tensor]) -> Output:
        """The control: the same features, pooled and concatenated, into an MLP of the same number of parameters."""
        flat = (G * available[..., None]).flatten(1)
        if self.from_fused is not None:
            extras["fused"] = self.from_fused(flat)
        even = available / available.sum(-1, keepdim=True).clamp(min=1)
        shown = {"contribution": even, "dominant": even.argmax(-1), "gate": even.new_ones(len(even), 0)}
        return Output(self.readout(flat)[:, 0], extras | shown)

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        """Eqs. 17-19: `task`, `align` (unweighted), `cor` (unweighted) and `total` (the paper calls it L_task)."""
        task = {"mse": F.mse_loss, "l1": F.l1_loss, "smooth_l1": F.smooth_l1_loss}[self.c.task_loss]
        terms = {"task": task(output.prediction, batch.labels)}  # Eq. 17
        total = terms["task"]
        if self.c.ccam:
            terms["align"] = self.ccam.loss(output.extras["shared"], self.letters)  # Eq. 2
            total = total + self.c.alpha * terms["align"]
        if self.c.beta:
            terms["cor"] = self._cor(output.extras)  # Eq. 18
            total = total + self.c.beta * terms["cor"]
        return terms | {"total": total}  # Eq. 19

    def _cor(self, extras: dict[str, Tensor]) -> Tensor:
        """Eq. 18, L_NCE(X_p^[N], X_m) summed over m: from the fused vector, which sample's modality vector is this?"""
        f, G = extras["fused"], extras["pooled"]  # [B,d], [B,M,d]
        total = f.new_zeros(())
        for m in (i for i, letter in enumerate("tav") if letter in self.letters):
            q, k = self.to_modality[m](f), G[:, m]
            k = k.detach() if self.c.cor_target == "detached" else k
            k = extras["shared"][:, m] if self.c.cor_target == "projected" and "shared" in extras else k
            if self.c.cor_score == "cos":
                q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
            S = q @ k.T / self.c.tau_cor
            target = torch.arange(len(S), device=S.device)
            rows = F.cross_entropy(S, target, reduction="none")  # [B]
            if self.c.cor_direction == "both":
                rows = rows + F.cross_entropy(S.T, target, reduction="none")
            if self.c.cor_modalities == "aux_only":
                rows = rows * (extras["dominant"] != m)
            elif self.c.cor_modalities == "score_weighted":
                rows = rows * extras["contribution"][:, m]
            total = total + rows.mean()
        return total


def _matching_width(dataset: Dataset, c: AMSGFNConfig) -> int:
    """Hidden width at which the concat MLP has as many parameters as the guided network it stands in for."""

    def size(model: nn.Module) -> int:
        return sum(x.numel() for name, x in model.named_parameters() if not name.startswith("features."))

    target = size(AMSGFN(dataset, replace(c, fusion="guided", bert="precomputed")))
    ccam = sum(x.numel() for x in Alignment(c).parameters()) if c.ccam or c.shared_space == "downstream" else 0
    cor = (3 * (c.d**2 + c.d) + 3 * c.d**2 + c.d) if c.beta else 0
    free = target - ccam - cor  # = h^2 + (3d + 3) h + 1 for an MLP 3d -> h -> h -> 1
    return max(1, round((-(3 * c.d + 3) + ((3 * c.d + 3) ** 2 + 4 * (free - 1)) ** 0.5) / 2))
