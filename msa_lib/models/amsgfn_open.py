"""What AMSGFN's paper leaves open: the switches with our defaults, the named settings of its ablations and of our
controls, and what can stand in place of a default.

Every table below maps the other values of one switch to a function or part with the signature of the default in
`amsgfn.py`, which joins its own entry to the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msa_lib.data import Batch, Dataset
from msa_lib.models.parts.layers import Attention, attend, fixed_draw, in_order, masked_mean, mlp, one_hot, unchanged


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
    "shared space downstream": {"shared_space": "downstream"},  # section 2.1: what is aligned is what is fused
    "w/o CCAM, downstream": {"shared_space": "downstream", "ccam": False},  # the projections stay, L_align goes
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
    "one fusion layer": {"n_layers": 1},
    "w/o both contrastive": {"ccam": False, "beta": 0.0},
    "concat MLP": {"fusion": "concat_mlp"},
}

# ------------------------------------------------------------------------------------------------------- 2.3 CCAM

HEADS: dict[str, Callable] = {  # width -> the heads of three modalities, or one for all
    "linear": lambda d: [nn.Linear(d, d) for _ in range(3)],
    "shared": lambda d: [mlp(d, d, d)],
    "none": lambda d: [nn.Identity() for _ in range(3)],
}


def full(Zm: Tensor, Zn: Tensor, tau: float) -> Tensor:
    """NT-Xent of the cited work: all other 2B-1 vectors are candidates; both directions."""
    B, Z = len(Zm), torch.cat([Zm, Zn])  # [2B,d]
    S = (Z @ Z.T / tau).masked_fill(torch.eye(2 * B, dtype=torch.bool, device=Z.device), -1e9)
    return 2 * F.cross_entropy(S, torch.arange(2 * B, device=Z.device).roll(B))


def downstream(ccam: nn.Module, X: Tensor, Xbar: Tensor, Z: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Eqs. 3 and 5 read the projections of every step and of the means."""
    return ccam(X).masked_fill(~mask[..., None], 0.0), Z


NTXENT = {"full": full}
ALIGN_REDUCTION = {"mean6": lambda total, pairs: total / max(1, 2 * pairs)}
SPACE = {"downstream": downstream}

# ------------------------------------------------------------------------------------------------------- 2.4 DMSM


class Order(NamedTuple):
    """Which modality has which role in each sample."""

    roles: Tensor  # [B,M]: p, a1, a2
    perm: Tensor  # [M,M] roles for each p, the auxiliaries in their fixed order
    p: Tensor  # [B]
    soft: Tensor | None  # [B,M] weights of the modalities as dominant one, of a differentiable rule


class Rule(NamedTuple):
    """How Eq. 4 is read: (s, logits, available, batch, training) -> p, soft weights; how sequences and masks follow."""

    dominant: Callable[..., tuple[Tensor, Tensor | None]]
    permute: Callable[[Tensor, Order], Tensor]
    permute_mask: Callable[[Tensor, Order], Tensor]


def by_index(X: Tensor, order: Order) -> Tensor:
    """[B,M,...] in the order p, a1, a2: a gather."""
    return in_order(X, order.roles)


def by_weight(X: Tensor, order: Order) -> Tensor:
    """[B,M,T,d] in the order p, a1, a2: a product with mixed permutations, so that gradients reach the scorer."""
    if order.soft is None:  # gumbel in evaluation
        return by_index(X, order)
    P = torch.einsum("bp,prm->brm", order.soft, one_hot(order.perm, 3).to(X.dtype))  # [p,role,modality]
    flip = (order.roles != order.perm[order.p]).any(-1)  # the hard order of the auxiliaries, the soft dominant one
    P = torch.where(flip[:, None, None], P[:, [0, 2, 1]], P)
    return torch.einsum("brm,bmtd->brtd", P, X)


def any_blended(mask: Tensor, order: Order) -> Tensor:
    """A blended step is valid where any modality in the blend is."""
    return by_weight(mask.to(order.soft.dtype)[..., None], order)[..., 0] > 0


def fixed(m: int, s: Tensor, *_) -> tuple[Tensor, None]:
    return s.new_full((len(s),), m, dtype=torch.long), None


def random(s: Tensor, logits: Tensor, available: Tensor, batch: Batch, training: bool) -> tuple[Tensor, None]:
    """Arbitrary but fixed per sample, so that evaluation is reproducible."""
    draw = fixed_draw(batch.index, available.sum(-1).clamp(min=1))  # [B]
    return ((available.cumsum(-1) - 1 == draw[:, None]) & available).long().argmax(-1), None


def oracle(s: Tensor, logits: Tensor, available: Tensor, batch: Batch, training: bool) -> tuple[Tensor, None]:
    return batch.truth["dominant"], None


def argmin(s: Tensor, logits: Tensor, available: Tensor, batch: Batch, training: bool) -> tuple[Tensor, None]:
    return s.masked_fill(~available, 2.0).argmin(-1), None


def straight_through(s: Tensor, *_) -> tuple[Tensor, Tensor]:
    """The forward value of the one-hot, the gradient of the soft weights."""
    p = s.argmax(-1)
    return p, one_hot(p, 3).to(s.dtype) + s - s.detach()


def gumbel(s: Tensor, logits: Tensor, available: Tensor, batch: Batch, training: bool) -> tuple[Tensor, Tensor | None]:
    """Drawn in training, the largest contribution in evaluation."""
    return straight_through(F.gumbel_softmax(logits)) if training else (s.argmax(-1), None)


RULES = {
    "st": Rule(straight_through, by_weight, by_index),
    "gumbel": Rule(gumbel, by_weight, by_index),
    "soft": Rule(lambda s, *_: (s.argmax(-1), s), by_weight, any_blended),  # soft_mode=mix_inputs
    "fixed:t": Rule(partial(fixed, 0), by_index, by_index),
    "fixed:a": Rule(partial(fixed, 1), by_index, by_index),
    "fixed:v": Rule(partial(fixed, 2), by_index, by_index),
    "random": Rule(random, by_index, by_index),
    "oracle": Rule(oracle, by_index, by_index),
    "argmin": Rule(argmin, by_index, by_index),
}


def mixed_outputs(model, Xw: Tensor, X: Tensor, mask: Tensor, s: Tensor, p: Tensor, soft: None) -> tuple[Tensor, ...]:
    """soft_mode=mix_outputs: every modality as dominant one in turn; what comes out, mixed by s."""
    each = [model.fuse(Xw, X, mask, s, torch.full_like(p, m), None) for m in range(3)]
    return tuple(sum(s[:, m, None] * part for m, part in enumerate(parts)) for parts in zip(*each, strict=True))


class MaskedNorm(nn.LayerNorm):
    """weight_scale=ln_after: a norm that leaves padding at zero."""

    def forward(self, X: Tensor, mask: Tensor) -> Tensor:
        return super().forward(X).masked_fill(~mask[..., None], 0.0)


def by_score(roles: Tensor, s: Tensor) -> Tensor:
    """The auxiliary of the larger contribution first."""
    a1, a2 = roles[:, 1:].unbind(1)
    swap = (s.gather(1, a2[:, None]) > s.gather(1, a1[:, None]))[:, 0]
    return torch.where(swap[:, None], roles[:, [0, 2, 1]], roles)


SCORES = {"ones": torch.ones_like}
WEIGHT_SCALE = {"times3": lambda s, available: s * available.sum(-1, keepdim=True), "ln_after": unchanged}
AFTER_WEIGHTING: dict[str, Callable] = {"times3": lambda d: unchanged, "ln_after": MaskedNorm}
ORDER_AUX = {"by_score": by_score}

# ----------------------------------------------------------------------------------------------------- 2.5.1 DMGF


class RoleCMA(nn.ModuleList):
    """cma_share=role: one set of maps for each auxiliary role."""

    def __init__(self, c: AMSGFNConfig) -> None:
        super().__init__(Attention(c.d, c.heads, c.dropout) for _ in range(2))

    def forward(self, role: int, query: Tensor, keys: Tensor, mask: Tensor, roles: Tensor) -> Tensor:
        return self[role - 1](query, keys, mask[:, role])


class ModalityCMA(nn.ModuleList):
    """cma_share=modality: the maps belong to the modality, whichever role it has."""

    def __init__(self, c: AMSGFNConfig) -> None:
        super().__init__([ModalityAttention(c.d, c.heads, c.dropout)])

    def forward(self, role: int, query: Tensor, keys: Tensor, mask: Tensor, roles: Tensor) -> Tensor:
        return self[0](query, keys, mask[:, role], roles[:, 0], roles[:, role])


class ModalityAttention(nn.Module):
    """Attention whose Q, K, V maps are those of given modalities [B], gathered per sample; one output map."""

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


CMA_SHARE = {"role": RoleCMA, "modality": ModalityCMA}


def open_gate(Xtmp: Tensor, U: Tensor) -> Tensor:
    return torch.ones_like(U)


GATE: dict[str, Callable] = {"off": lambda d: open_gate}
X0 = {"raw": lambda Xp, X, order, permute: permute(X, order)[:, 0]}

# "w/o DMGF": (X_p^[0], sequences [B,M,T,d] in order, mask [B,M,T], roles) -> X_p^[N], its mask, no gates [B,0]


def concat_time(X: Tensor, ordered: Tensor, mask: Tensor, roles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return ordered.flatten(1, 2), mask.flatten(1), X.new_ones(len(X), 0)  # [B,3T,d]


def summed(X: Tensor, ordered: Tensor, mask: Tensor, roles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return ordered.sum(1), mask.any(1), X.new_ones(len(X), 0)


def dominant_only(X: Tensor, ordered: Tensor, mask: Tensor, roles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return X, mask[:, 0], X.new_ones(len(X), 0)


DMGF: dict[str, Callable] = {
    "concat_time": lambda c, alone: concat_time,
    "sum": lambda c, alone: summed,
    "dominant_only": lambda c, alone: dominant_only,
}

# ------------------------------------------------------------------------------- 2.5.2 Prediction, and 2.6 losses


class AttentionPool(nn.Linear):
    """readout=attn: a learned weight for every step."""

    def __init__(self, d: int) -> None:
        super().__init__(d, 1)

    def forward(self, Xpred: Tensor, mask: Tensor) -> Tensor:
        weight = torch.softmax(super().forward(Xpred)[..., 0].masked_fill(~mask, -1e9), -1)
        return torch.einsum("bt,btd->bd", weight, Xpred)


def first_step(Xpred: Tensor, mask: Tensor) -> Tensor:
    return Xpred[:, 0]


QUERY = {"pooled_query": lambda Q, mask: masked_mean(Q, mask)[:, None]}  # [B,1,d]
READOUT: dict[str, Callable] = {
    "first": lambda d: first_step,
    "attn": AttentionPool,
    "pooled_query": lambda d: first_step,
}
OUT = {"scaled_tanh": lambda y, limit: limit * torch.tanh(y)}


def both_directions(S: Tensor) -> Tensor:
    target = torch.arange(len(S), device=S.device)
    rows = F.cross_entropy(S, target, reduction="none")
    return rows + F.cross_entropy(S.T, target, reduction="none")


COR_TARGET = {
    "projected": lambda pooled, shared: pooled if shared is None else shared,
    "detached": lambda pooled, shared: pooled.detach(),
}
COR_SCORE = {"bilinear": lambda q, k: q @ k.T}
COR_DIRECTION = {"both": both_directions}
COR_MODALITIES = {
    "aux_only": lambda rows, m, p, s: rows * (p != m),
    "score_weighted": lambda rows, m, p, s: rows * s[:, m],
}

# ------------------------------------------------------------------------------------------------ fusion=concat_mlp


def concatenated(model, X: Tensor, Xbar: Tensor, mask: Tensor, available: Tensor, batch: Batch) -> tuple[Tensor, ...]:
    """The control: the same features, pooled and concatenated, into an MLP of the same number of parameters."""
    flat = (Xbar * available[..., None]).flatten(1)
    fused = model.from_fused(flat)
    even = available / available.sum(-1, keepdim=True).clamp(min=1)
    return model.readout(flat), even, even.argmax(-1), even.new_ones(len(even), 0), fused


def concat_readout(dataset: Dataset, c: AMSGFNConfig, network: type, heads: type) -> nn.Sequential:
    """That MLP: of the hidden width at which it has as many parameters as the guided network it stands in for."""
    guided = network(dataset, replace(c, fusion="guided", bert="precomputed"))
    ccam = heads(c) if c.ccam or c.shared_space == "downstream" else nn.Identity()
    own = [x.numel() for name, x in guided.named_parameters() if not name.startswith("features.")]
    cor = (3 * (c.d**2 + c.d) + 3 * c.d**2 + c.d) if c.beta else 0
    free = sum(own) - sum(x.numel() for x in ccam.parameters()) - cor  # = h^2 + (3d + 3) h + 1 for 3d -> h -> h -> 1
    hidden = max(1, round((-(3 * c.d + 3) + ((3 * c.d + 3) ** 2 + 4 * (free - 1)) ** 0.5) / 2))
    return mlp(3 * c.d, hidden, hidden, 1, dropout=c.dropout)
