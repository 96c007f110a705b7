"""What DSRF's paper leaves open: the switches with our defaults, the named settings of its ablations and of our
controls, and what can stand in place of a default.

Every table below maps the other values of one switch to a function or part with the signature of the default in
`dsrf.py`, which joins its own entry to the table. `net` is the network, `t` its
`Trace`, `here` 1 where a modality is there and 0 where it is absent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msa_lib.data import Batch
from msa_lib.models.parts.heads import HeadKind, Target
from msa_lib.models.parts.layers import Bank, EncoderBlock, absent, at_step, fixed_draw, masked_mean
from msa_lib.models.parts.losses import contrast, mean_of, printed_contrast

EMO, CTX, AMB, NOI = range(4)  # emotion, context, ambiguity, noise


@dataclass(frozen=True)
class DSRFConfig:
    """The switches. Values are ours unless a comment names a place in the paper; `literal` marks the printed text."""

    d: int = 128  # section 4.2: 128, 128, 64, 128 on MOSI, MOSEI, SIMS, SIMSv2
    heads: int = 4
    n_layers: int = 2
    dropout: float = 0.1
    modalities: Literal["tav", "ta", "tv", "av", "t", "a", "v"] = "tav"  # Table 3 removes one at a time
    missing: Literal["mask", "zero_fill"] = "mask"
    absent: Literal["zeros", "learned"] = "zeros"  # what stands in the fusion for an absent modality

    # 3.3 Preprocessing. "Kernel size 3x3" of a 1D convolution is read as 3
    bert: Literal["precomputed", "frozen", "finetune"] = "precomputed"  # BERT is used; whether trained is not said
    proj: Literal["conv3", "conv1", "linear"] = "conv3"
    pos: Literal["sin", "learned", "none"] = "sin"
    readout: Literal["last", "mean", "first"] = "last"  # literal: "the last element", here the last valid one

    # Prediction. "Softmax" and "cross-entropy" (Eq. 16), yet MAE and Corr are reported: softmax over ordered values
    head: HeadKind = "bins_ev"  # argmax: softmax and cross-entropy read strictly
    target: Target = "two_hot"
    ce_plus_l1: bool = False
    gauss_loss: Literal["nll", "l1"] = "nll"  # head=gauss: the task loss
    emo_head: Literal["shared", "per_modality"] = "shared"  # P_e: p(y|.) of a d-vector in Eqs. 1, 17 and section 3.6

    # 3.4 HSF
    hsf: Literal["on", "copy", "bypass", "wide"] = "on"  # two readings of "w/o HSF"; wide: as many weights, no factors
    factor_roles: Literal["own", "random"] = "own"  # random: which vector is which factor is drawn per sample (control)
    ctx_input: Literal["h_plus_e", "h_only"] = "h_plus_e"  # r_ho, undefined, is read as the shared encoder's output
    detach_e: bool = True
    w_emo: float = 1.0
    emo_agg: Literal["per_modality", "mean_factor"] = "per_modality"  # Eq. 1
    mi_label: Literal["none", "supcon"] = "none"  # I(z_e; y): Eq. 1 is a bound already
    w_ctx: float = 0.1  # alpha of Eq. 7
    ctx_target: Literal["mean_conv", "H", "raw_mean", "window"] = "mean_conv"  # x_context of Eq. 2, undefined
    norm_sum: bool = False  # True: squared norms of Eqs. 2 and 12 as printed, not means over dimensions
    indep: Literal["cos2", "crosscov", "hsic", "all_pairs", "none"] = "cos2"  # Eq. 3; not in Eq. 7 (none: literal)
    w_orth: float = 0.1
    w_amb: float = 0.1  # beta of Eq. 7
    dist: Literal["cos", "l2"] = "cos"  # Eq. 4
    margin: float = 1.0  # gamma of Eq. 4
    amb_entropy: Literal["feature", "predictive", "none"] = "feature"  # Eq. 5; not in Eq. 7 (none: literal)
    w_H: float = 0.01  # noqa: N815
    w_noise: float = 0.1  # gamma of Eq. 7
    noise_cl: Literal["text", "literal", "none"] = "text"  # Eq. 6 contradicts the sentence above it
    mask_self: bool = True  # Eq. 6 prints sums that contain the anchor itself (False: literal)
    cl_reduction: Literal["mean", "sum"] = "mean"  # sum: literal
    tau: float = 0.1  # Eq. 6

    # 3.5 Routing
    routing: Literal["on", "mean", "concat"] = "on"  # mean, concat: "naive concatenation or averaging" (4.4, iii)
    votes: Literal["per_capsule", "literal", "literal_noise_init"] = "per_capsule"
    caps_share: Literal["modalities", "per_modality"] = "modalities"
    K: int = 4
    T_r: int = 3  # T of 3.5
    d_c: int = 0  # capsule size; 0: d
    detach_routing: bool = True  # gradients flow through the last iteration only, as usual for capsules
    keep_rec: bool = True  # L_DRI
    w_dri: float = 1.0
    dri_detach: bool = True  # the target of Eq. 12 is a constant; otherwise the encoders may shrink H

    # 3.6 USF
    usf: Literal["on", "mean", "half_gate", "flat"] = "on"  # "equal-weighted" (4.4, iv): mean; half_gate, g = 1/2; flat
    unc_source: Literal["own", "planted"] = "own"  # planted: the uncertainties are told, not measured (control)
    perturb: Literal["drop", "gauss", "shuffle"] = "drop"  # of r_a, for u_e
    sigma: float = 0.5  # perturb=gauss, in units of the vector's deviation
    unc_scale: Literal["unit", "literal"] = "unit"  # literal: |r_n| grows with sqrt(d) and decides the softmax
    unc_grad: Literal["detach", "flow"] = "detach"  # flow: the network can shrink r_n, r_a to look reliable
    calib: Literal["amb_only", "all", "none"] = "amb_only"  # Eq. 15; all: literal, cancels in the softmax
    lam: float = 0.1
    att_source: Literal["calibrated", "raw"] = "calibrated"
    gate_source: Literal["calibrated", "raw"] = "calibrated"  # Eq. 14 prints u, Eq. 15 then "refines" it
    gate_dim: Literal["scalar", "d"] = "scalar"
    usf_form: Literal["both", "eq13", "eq14"] = "both"  # two formulas for one symbol: their mean
    fuse_input: Literal["usf_plus_recon", "usf_only", "recon_factors"] = "usf_plus_recon"  # usf_only: literal 13-16
    fuse: Literal["concat", "attention", "transformer"] = "concat"  # Eq. 16 names all three
    w_usf: float = 0.1  # 1: literal
    usf_entropy: Literal["text", "literal"] = (
        "text"  # Eq. 17 prints +, which rewards the over-confidence it should avoid
    )
    w_ent: float = 0.01  # gamma of Eq. 17
    kl_detach_target: bool = False
    sfr_loss: Literal["usf", "none", "dri_twice"] = "usf"  # L_SFR of the total is undefined, L_USF absent from it


# Named settings: rows of the paper's Table 3 under neutral names where the paper's are ambiguous, and controls.
VARIANTS: dict[str, dict] = {
    "full": {},
    "w/o language": {"modalities": "av"},
    "w/o Audio": {"modalities": "tv"},
    "w/o Visual": {"modalities": "ta"},
    "T": {"modalities": "t"},
    "A": {"modalities": "a"},
    "V": {"modalities": "v"},
    "w/o HSF": {"hsf": "copy"},  # routing and USF keep their shape
    "w/o HSF (bypass)": {"hsf": "bypass"},  # "directly use the original embeddings": routing and USF go too
    "no_routing": {"routing": "mean"},
    "no_routing (concat)": {"routing": "concat"},
    "no_routing, no_rec_loss": {"routing": "mean", "keep_rec": False},
    "no_usf": {"usf": "mean"},
    "no_usf (g=1/2)": {"usf": "half_gate"},
    "no_usf (matched scale)": {"usf": "flat"},
    "told uncertainty": {"unc_source": "planted"},  # planted data only
    "no_rec_loss": {"keep_rec": False},
    "wide vector": {"hsf": "wide"},  # controls
    "random roles": {"factor_roles": "random"},
    "no factor losses": {"w_emo": 0.0, "w_ctx": 0.0, "w_amb": 0.0, "noise_cl": "none", "indep": "none"},
    "no L_emo": {"w_emo": 0.0},
    "no L_ctx": {"w_ctx": 0.0},
    "no L_amb": {"w_amb": 0.0},
    "no L_n": {"noise_cl": "none"},
    "no independence": {"indep": "none"},
    "literal votes": {"votes": "literal"},
    "one iteration": {"T_r": 1},  # c = 1/K, but each capsule with its own votes
    "literal Eq. 6": {"noise_cl": "literal", "mask_self": False},
    "literal Eq. 15": {"calib": "all"},
    "literal Eq. 17": {"usf_entropy": "literal", "w_usf": 1.0},
    "sign of Eq. 17": {"usf_entropy": "literal"},
    "w_usf = 1": {"w_usf": 1.0},
    "literal uncertainties": {"unc_scale": "literal"},  # norm and entropy of section 3.6 as printed
    "sums in Eqs. 2 and 12": {"norm_sum": True},  # squared norms as printed
    "gradient through r_e": {"detach_e": False},  # the paper names no stop-gradient: each of ours, and all, let through
    "gradient through the routing": {"detach_routing": False},
    "gradient into H of Eq. 12": {"dri_detach": False},
    "gradient into uncertainties": {"unc_grad": "flow"},
    "no stop-gradients": {"detach_e": False, "detach_routing": False, "dri_detach": False, "unc_grad": "flow"},
    "Eq. 13 only": {"usf_form": "eq13"},
    "Eq. 14 only": {"usf_form": "eq14"},
    "literal fusion input": {"fuse_input": "usf_only"},
    "mean readout": {"readout": "mean"},
    "head gauss": {"head": "gauss"},
    "head argmax": {"head": "argmax"},
    "head point": {"head": "point"},
}


def check(c: DSRFConfig) -> None:
    """Raises ValueError where switches contradict each other."""
    if c.K < 1 or c.T_r < 1:
        raise ValueError(f"Routing needs at least one capsule and one iteration, but K={c.K}, T_r={c.T_r}.")
    if c.fuse_input == "recon_factors" and (c.K != 4 or c.d_c not in (0, c.d) or c.routing != "on"):
        raise ValueError("fuse_input='recon_factors' puts capsules in place of factors: needs routing, K=4, d_c=d.")
    if c.unc_source == "planted" and (c.usf != "on" or c.hsf == "bypass"):
        raise ValueError(f"unc_source='planted' feeds the weights of usf='on', but usf={c.usf!r}, hsf={c.hsf!r}.")
    if c.absent == "learned" and c.fuse != "concat":
        raise ValueError(f"absent='learned' fills a slot of fuse='concat'; fuse={c.fuse!r} leaves absent slots out.")


# ------------------------------------------------------------------------------------------------ 3.3 Preprocessing


def no_modality(x: Tensor, mask: Tensor) -> Tensor:
    return x.new_zeros(len(x), x.shape[-1])


READOUT = {"mean": masked_mean, "first": lambda x, mask: at_step(x, mask.new_zeros(len(x)).long(), mask)}

# --------------------------------------------------------------------------------------------- 3.4 HSF, Eqs. 1-7


class Copies(nn.Linear):
    """hsf=copy: one linear map for each factor."""

    def __init__(self, c: DSRFConfig, context_size: int) -> None:
        super().__init__(c.d, 4 * c.d)

    def forward(self, H: Tensor) -> Tensor:
        return super().forward(H).unflatten(-1, (4, -1))


class Wide(Bank):
    """hsf=wide: one MLP per modality, its output cut in four."""

    def forward(self, H: Tensor) -> Tensor:
        return super().forward(H).unflatten(-1, (4, -1))


def wide(full: type, c: DSRFConfig, context_size: int) -> Wide:
    """Of the hidden width at which it has as many weights as the factor encoders and the decoder, `full`."""
    target = sum(p.numel() for p in full(replace(c, hsf="on"), context_size).parameters())
    return Wide(c.d, max(1, round((target / 3 - 4 * c.d) / (5 * c.d + 1))), 4 * c.d)


class RandomRoles(nn.Module):
    """factor_roles=random: arbitrary but fixed per sample."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("order", torch.tensor(list(permutations(range(4)))), persistent=False)

    def forward(self, R: Tensor, index: Tensor) -> Tensor:
        order = self.order[fixed_draw(index, 24)]  # [B,F]
        return R.gather(2, order[:, None, :, None].expand_as(R))


def bypass(net, H: Tensor, available: Tensor, batch: Batch) -> tuple[Tensor]:
    """hsf=bypass: "directly use the original embeddings"."""
    return (H,)


def no_factor_losses(net, y: Tensor, t) -> tuple[None, ...]:
    return (None,) * 5


def mean_factor(net, y: Tensor, r_e: Tensor, here: Tensor) -> Tensor:
    """Eq. 1 on the mean of the modalities' emotion factors; each sample counts once."""
    there = here.sum(1, keepdim=True).clamp(min=1)
    mean = (r_e.sum(1) / there)[:, None].expand_as(r_e)
    return mean_of(net.head.loss(net.P_e(mean), y[:, None]), here / there)


def supervised(emo: Tensor, net, y: Tensor, r_e: Tensor, here: Tensor) -> Tensor:
    """Eq. 1 and a contrast of the emotion factors by label, in seven classes."""
    group = torch.round(y * 3 / net.range)[:, None].expand(len(y), 3)
    return emo + contrast(r_e, group, here, net.c.tau, True, "mean")


# the target of Eq. 2, a constant: [B,M,d], or raw features [B,M,largest D]


def mean_conv(features: nn.Module, batch: Batch, conv: list[Tensor], masks: list[Tensor], H: Tensor) -> Tensor:
    """The mean of C^m over its steps."""
    return torch.stack([masked_mean(x, mask) for x, mask in zip(conv, masks, strict=True)], 1).detach()


def window(features: nn.Module, batch: Batch, conv: list[Tensor], masks: list[Tensor], H: Tensor) -> Tensor:
    """The same over the five steps that end where H is read."""
    masks = [mask & (mask.flip(-1).cumsum(-1).flip(-1) <= 5) for mask in masks]
    return mean_conv(features, batch, conv, masks, H)


def raw_mean(features: nn.Module, batch: Batch, conv: list[Tensor], masks: list[Tensor], H: Tensor) -> Tensor:
    size = max(x.shape[-1] for x in batch.features)
    masks = [mask & features.used[m] for m, mask in enumerate(batch.masks)]
    raw = [x.masked_fill(~mask[..., None], 0.0) for x, mask in zip(batch.features, masks, strict=True)]
    means = [masked_mean(x, mask) for x, mask in zip(raw, masks, strict=True)]
    return torch.stack([F.pad(x, (0, size - x.shape[-1])) for x in means], 1).detach()


def literal_noise(net, r_n: Tensor, here: Tensor) -> Tensor:
    """Eq. 6 as printed."""
    return printed_contrast(r_n, here, net.c.tau, net.c.mask_self, net.c.cl_reduction)


CTX_INPUT = {"h_only": (1, lambda H, r_e: H)}
HSF = {"copy": Copies}
ROLES = {"random": RandomRoles}
EMO_AGG = {"mean_factor": mean_factor}
MI_LABEL = {"supcon": supervised}
CTX_TARGET = {"H": lambda features, batch, conv, masks, H: H.detach(), "raw_mean": raw_mean, "window": window}
DIST = {"l2": lambda x, y: torch.linalg.norm(x - y + 1e-8, dim=-1)}
AMB_ENTROPY = {
    "predictive": lambda net, r_a, here: mean_of(net.head.entropy(net.P_e(r_a)), here),
    "none": lambda net, r_a, here: 0.0,
}
NOISE_CL = {"literal": literal_noise, "none": absent}

# ----------------------------------------------------------------------------------------- 3.5 Routing, Eqs. 8-12


def to_all(v: Tensor, K: int) -> Tensor:
    """The same vote for every capsule: [B,M,F,d_c] -> [B,M,F,K,d_c]."""
    return v[:, :, :, None].expand(-1, -1, -1, K, -1)


class MeanFactor(nn.Module):
    """routing=mean: what Eq. 11 gets in place of capsules, and no couplings."""

    def __init__(self, c: DSRFConfig) -> None:
        super().__init__()
        self.size = c.d

    def forward(self, R: Tensor, here: Tensor) -> tuple[Tensor, None, None]:
        return R.mean(2, keepdim=True), None, None


class AllFactors(nn.Module):
    """routing=concat."""

    def __init__(self, c: DSRFConfig) -> None:
        super().__init__()
        self.size = 4 * c.d

    def forward(self, R: Tensor, here: Tensor) -> tuple[Tensor, None, None]:
        return R, None, None


ROUTING = {"mean": MeanFactor, "concat": AllFactors}
VOTES: dict[tuple[str, str], tuple[Callable, str, Callable]] = {  # shape before [d,d_c], einsum, for every capsule
    ("per_capsule", "per_modality"): (lambda K: (3, 4, K), "bmid,mikde->bmike", lambda v, K: v),
    ("literal", "modalities"): (lambda K: (4,), "bmid,ide->bmie", to_all),
    ("literal", "per_modality"): (lambda K: (3, 4), "bmid,mide->bmie", to_all),
}
VOTES |= {("literal_noise_init", share): votes for (kind, share), votes in VOTES.items() if kind == "literal"}
START = {"literal": torch.zeros, "literal_noise_init": lambda *shape: torch.randn(*shape) * 0.1}

# -------------------------------------------------------------------------------------------- 3.6 USF, Eqs. 13-17


def planted_noise(net, R: Tensor, truth: Mapping[str, Tensor]) -> Tensor:
    """unc_source=planted: the noise levels of a modality's readings, as u^m [B,M,F]. Of two readings the first one's go
    to emotion and ambiguity, the second one's to context and noise; what these learn to carry, training must show."""
    return torch.stack([truth["noise"], truth.get("noise_second", truth["noise"])] * 2, -1).to(R.dtype)


def equal(net, R: Tensor, here: Tensor, truth: Mapping[str, Tensor]) -> tuple[Tensor, None, Tensor, None]:
    """usf=mean: equal weights, no uncertainties, no gate."""
    return R.mean(2), None, here.expand(-1, -1, 4) * 0.25, None


def half_gate(net, R: Tensor, here: Tensor, truth: Mapping[str, Tensor]) -> tuple[Tensor, None, Tensor, None]:
    """usf=half_gate: Eq. 14 with g = 1/2."""
    rhat = R[:, :, EMO] + 0.5 * (R[:, :, CTX] + R[:, :, AMB])
    return rhat, None, torch.cat([here, here * 0.5, here * 0.5, here * 0.0], -1), None


def shuffled(net, r_e: Tensor, r_a: Tensor) -> Tensor:
    """The ambiguity of another sample: a prediction then depends on its batch."""
    return (r_e + r_a.roll(1, 0))[:, :, None]


def gauss(net, r_e: Tensor, r_a: Tensor) -> Tensor:
    """[B,M,draws,d]: one draw in training, the fixed eight in evaluation."""
    draws = torch.randn_like(r_a)[:, :, None] if net.training else net.draws  # [.,.,1,d] or [8,d]
    spread = net.c.sigma * r_a.std(-1, keepdim=True, correction=0)
    return (r_e + r_a)[:, :, None] + spread[:, :, None] * draws


def flat(net, R: Tensor, here: Tensor, truth: Mapping[str, Tensor]) -> tuple[Tensor, None, Tensor, None]:
    """usf=flat: the form and scale of Eqs. 13 and 14, where all uncertainties are equal: alpha = 1/4, g = 1/2."""
    _, _, alpha, _ = equal(net, R, here, truth)
    u14, _, _, _ = half_gate(net, R, here, truth)
    return net.form(R.mean(2), u14), None, alpha, None


class AttentionFusion(nn.Module):
    """fuse=attention: a learned weight for every modality that is there."""

    def __init__(self, c: DSRFConfig, width: int) -> None:
        super().__init__()
        self.mix, self.score = nn.Linear(width, c.d), nn.Linear(c.d, 1)

    def forward(self, slots: Tensor, available: Tensor) -> Tensor:
        tokens = self.mix(slots)  # [B,M,d]
        weight = torch.softmax(self.score(torch.tanh(tokens))[..., 0].masked_fill(~available, -1e9), -1)
        return torch.einsum("bm,bmd->bd", weight, tokens)


class TransformerFusion(nn.Module):
    """fuse=transformer: a block over the modalities, and the mean of those that are there."""

    def __init__(self, c: DSRFConfig, width: int) -> None:
        super().__init__()
        self.mix, self.block = nn.Linear(width, c.d), EncoderBlock(c.d, c.heads, 4 * c.d, c.dropout)

    def forward(self, slots: Tensor, available: Tensor) -> Tensor:
        return masked_mean(self.block(self.mix(slots), available), available)


USF = {"mean": equal, "half_gate": half_gate, "flat": flat}
UNC_SOURCE = {"planted": planted_noise}
PERTURB = {"shuffle": shuffled, "gauss": gauss}
UNC_SCALE = {"literal": (lambda head, raw: head.entropy(raw), lambda d: 1.0)}
SOURCE = {"raw": lambda calibrated, raw: raw}
USF_FORM = {"eq13": lambda u13, u14: u13, "eq14": lambda u13, u14: u14}
FUSE_INPUT: dict[str, tuple[Callable, Callable]] = {  # what USF weighs, what Eq. 16 reads
    "usf_only": (lambda R, capsules, here: R, lambda rhat, hhat: rhat),
    "recon_factors": (lambda R, capsules, here: capsules * here[..., None], lambda rhat, hhat: rhat),
}
FUSE = {"attention": AttentionFusion, "transformer": TransformerFusion}
FILL = {"learned": lambda net, slots, available: torch.where(available[..., None], slots, net.absent)}
