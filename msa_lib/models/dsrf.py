"""DSRF: "Dynamic Semantic Routing for Multimodal Sentiment Analysis" (anonymous, under review). No code was released;
this is written from the paper.

Read top-down it follows Figure 1: encoders (3.3) -> four semantic factors per modality, HSF (3.4, Eqs. 1-7) -> capsule
routing and reconstruction (3.5, Eqs. 8-12; the paper calls this one module DRI, SFR and SFDR) -> uncertainty-aware
fusion, USF (3.6, Eqs. 13-17) -> total.

Stated by the paper: the equations, width, batch size, learning rate and weight decay per data set. Not stated: layers,
capsules, iterations, every loss weight, temperature and margin, and several definitions; each is a switch of
`DSRFConfig` with our default and the reason beside it. The factors are one tensor R [B,M,F,d] in the order emotion,
context, ambiguity, noise; after the encoders nothing loops over modalities. A sample that lacks a modality has zeros
there: in no loss, no contrast pair, no calibration, and an empty slot in the fusion.

Four printed equations are degenerate, and their literal readings are kept as switches to show it:
- Eq. 8-10, `votes=literal`: the vote v_i does not depend on the capsule, so every capsule gets the same input, c_ik
  stays 1/K, all capsules coincide and the number of iterations has no effect.
- Eq. 15, `calib=all`: the same number is added to all four uncertainties, and the softmax that follows cancels it.
- Eq. 6, `noise_cl=literal`: pulls the noise vectors of different modalities together where the text above it wants
  each modality's own; either form is content with vectors that do not depend on the sample.
- Eq. 5 on predictions, `amb_entropy=predictive`: drives the factor's own uncertainty u_a to its maximum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise, permutations
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msa_lib.data import Batch, Dataset
from msa_lib.data.dataset import LABEL_RANGE
from msa_lib.models.features import Features
from msa_lib.models.heads import HeadKind, Target, sentiment_head
from msa_lib.models.layers import EncoderBlock, Output, fixed_draw, masked_mean, mlp
from msa_lib.models.losses import contrast, feature_entropy, independence, mean_of, printed_contrast

E, C, A, N = range(4)  # emotion, context, ambiguity, noise
FACTORS = ("emotion", "context", "ambiguity", "noise")


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
    bert: Literal["precomputed", "frozen", "finetune"] = (
        "precomputed"  # BERT is used; whether it is trained is not said
    )
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
    usf: Literal["on", "mean", "half_gate"] = (
        "on"  # mean: "equal-weighted fusion" (4.4, iv); half_gate: Eq. 14, g = 1/2
    )
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
    "Eq. 13 only": {"usf_form": "eq13"},
    "Eq. 14 only": {"usf_form": "eq14"},
    "literal fusion input": {"fuse_input": "usf_only"},
    "mean readout": {"readout": "mean"},
    "head gauss": {"head": "gauss"},
    "head argmax": {"head": "argmax"},
    "head point": {"head": "point"},
}


class Bank(nn.Module):
    """One MLP of the given sizes per modality, ReLU between its layers: [B,M,...,in] -> [B,M,...,out]."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        bounds = [size_in**-0.5 for size_in in sizes[:-1]]
        shapes = list(zip(pairwise(sizes), bounds, strict=True))
        self.weight = nn.ParameterList(torch.empty(3, i, o).uniform_(-bound, bound) for (i, o), bound in shapes)
        self.bias = nn.ParameterList(torch.empty(3, o).uniform_(-bound, bound) for (_, o), bound in shapes)

    def forward(self, x: Tensor) -> Tensor:
        for i, (W, b) in enumerate(zip(self.weight, self.bias, strict=True)):
            x = torch.einsum("bm...i,mio->bm...o", F.relu(x) if i else x, W)
            x = x + b.view(3, *[1] * (x.ndim - 3), -1)
        return x


class Factorisation(nn.Module):
    """HSF, section 3.4: H [B,M,d] -> R [B,M,F,d], and the losses of Eqs. 1-7 that need weights of their own."""

    def __init__(self, c: DSRFConfig, context_size: int) -> None:
        super().__init__()
        self.c = c
        self.emotion = mlp(c.d, c.d, c.d)  # E_e, shared by the modalities
        self.context = Bank(2 * c.d if c.ctx_input == "h_plus_e" else c.d, c.d, c.d)  # E_c^m
        self.ambiguity = Bank(c.d, c.d, c.d)  # E_a^m
        self.noise = Bank(c.d, c.d, c.d)  # E_n^m
        self.decoder = Bank(c.d, c.d, context_size) if c.w_ctx else None  # Eq. 2

    def forward(self, H: Tensor) -> Tensor:
        r_e = self.emotion(H)  # [B,M,d]
        seen = r_e.detach() if self.c.detach_e else r_e
        r_c = self.context(torch.cat([H, seen], -1) if self.c.ctx_input == "h_plus_e" else H)
        return torch.stack([r_e, r_c, self.ambiguity(H), self.noise(H)], 2)  # [B,M,F,d]


class Routing(nn.Module):
    """Section 3.5: factors as input capsules, K output capsules per modality, by agreement."""

    def __init__(self, c: DSRFConfig) -> None:
        super().__init__()
        self.c, d_c = c, c.d_c or c.d
        banks = (3,) if c.caps_share == "per_modality" else ()
        each = (c.K,) if c.votes == "per_capsule" else ()
        self.W = nn.Parameter(torch.randn(*banks, 4, *each, c.d, d_c) * c.d**-0.5)
        start = torch.randn(4, c.K) * 0.1 if c.votes == "literal_noise_init" else torch.zeros(4, c.K)
        self.register_buffer("b0", start)  # logits before the first iteration, [F,K]

    def forward(self, R: Tensor) -> tuple[Tensor, Tensor]:
        """R [B,M,F,d] -> capsules [B,M,K,d_c], couplings c of every iteration [B,T_r,M,F,K]."""
        bank = "m" if self.c.caps_share == "per_modality" else ""
        each = "k" if self.c.votes == "per_capsule" else ""
        v = torch.einsum(f"bmid,{bank}i{each}de->bmi{each}e", R, self.W)  # votes
        if not each:  # literal: the same vote for every capsule
            v = v[:, :, :, None].expand(-1, -1, -1, self.c.K, -1)  # [B,M,F,K,d_c]
        b, couplings = self.b0.expand(v.shape[:-1]), []
        for i in range(self.c.T_r):
            last = i == self.c.T_r - 1
            votes = v if last or not self.c.detach_routing else v.detach()
            c = torch.softmax(b, -1)  # Eq. 8, over capsules
            u = squash(torch.einsum("bmik,bmike->bmke", c, votes))  # Eq. 9
            couplings.append(c)
            if not last:
                b = b + torch.einsum("bmike,bmke->bmik", votes, u)  # Eq. 10
        return u, torch.stack(couplings, 1)


def squash(s: Tensor) -> Tensor:
    """Eq. 9: the direction of s, with a length of |s|^2 / (1 + |s|^2)."""
    n2 = (s * s).sum(-1, keepdim=True)
    return n2 / (1 + n2) * s * torch.rsqrt(n2 + 1e-9)


class DSRF(nn.Module):
    """The whole network. Extras: coupling [B,M,F,K] (last iteration), uncertainty [B,M,F], factor_weight [B,M,F]; an
    ablation that has no such thing lacks the key. For an absent modality they are zeros."""

    Config, VARIANTS = DSRFConfig, VARIANTS
    RECORD = ("coupling", "uncertainty", "factor_weight")

    def __init__(self, dataset: Dataset, c: DSRFConfig) -> None:
        super().__init__()
        if c.K < 1 or c.T_r < 1:
            raise ValueError(f"Routing needs at least one capsule and one iteration, but K={c.K}, T_r={c.T_r}.")
        if c.fuse_input == "recon_factors" and (c.K != 4 or c.d_c not in (0, c.d) or c.routing != "on"):
            raise ValueError("fuse_input='recon_factors' puts capsules in place of factors: needs routing, K=4, d_c=d.")
        if c.absent == "learned" and c.fuse != "concat":
            raise ValueError(
                f"absent='learned' fills a slot of fuse='concat'; fuse={c.fuse!r} leaves absent slots out."
            )
        self.c, self.range = c, LABEL_RANGE[dataset.scale]
        self.features = Features(dataset, c.d, c.modalities, c.missing, c.bert, c.proj, c.pos, "padded")  # 3.3
        self.letters = self.features.letters
        self.encoders = nn.ModuleDict(
            {
                letter: nn.ModuleList(EncoderBlock(c.d, c.heads, 4 * c.d, c.dropout) for _ in range(c.n_layers))
                for letter in self.letters
            }
        )
        self.head = sentiment_head(c.head, dataset.scale, c.target, c.ce_plus_l1, c.gauss_loss)
        classes, raw = self.head.size, max(dataset.feature_dims)
        if c.hsf == "on":  # 3.4
            self.factors = Factorisation(c, raw if c.ctx_target == "raw_mean" else c.d)
        elif c.hsf == "copy":
            self.factors = nn.Linear(c.d, 4 * c.d)  # Linear_i for each factor i
        elif c.hsf == "wide":
            self.factors = Bank(c.d, _matching_width(c, raw), 4 * c.d)
        self.has_factors = c.hsf != "bypass"
        self.register_buffer("order", torch.tensor(list(permutations(range(4)))), persistent=False)
        if self.has_factors:  # 3.5
            self.P_e = nn.Linear(c.d, classes) if c.emo_head == "shared" else Bank(c.d, classes)
            self.routing = Routing(c) if c.routing == "on" else None
            width = {"on": c.K * (c.d_c or c.d), "mean": c.d, "concat": 4 * c.d}[c.routing]
            self.rebuild = Bank(width, c.d, c.d)  # Eq. 11
            self.gate = nn.Linear(2, c.d if c.gate_dim == "d" else 1) if c.usf == "on" else None  # Eq. 14
            if c.perturb == "gauss":
                self.register_buffer("draws", torch.randn(8, c.d))  # so that evaluation is reproducible
        width = 2 * c.d if self.has_factors and c.fuse_input == "usf_plus_recon" else c.d
        self.absent = nn.Parameter(torch.zeros(3, width)) if c.absent == "learned" else None
        self.fuse = Fusion(c, width)  # Eq. 16
        self.P_final = nn.Linear(c.d, classes)

    # ------------------------------------------------------------------------------------------------- forward

    def forward(self, batch: Batch) -> Output:
        conv, masks = self.features.sequences(batch)  # C^m [B,T_m,d], [B,T_m]
        available = torch.stack([mask.any(-1) for mask in masks], 1)  # [B,M]
        H = torch.stack([self._encode(m, conv[m], masks[m]) for m in range(3)], 1)  # H^m, [B,M,d]
        extras = {"H": H, "available": available}
        if self.has_factors:
            slots = self._factor_path(batch, H, available, extras)
            if self.c.hsf == "on" and self.c.w_ctx:
                extras["context"] = self._context_target(batch, conv, masks, H)
        else:
            slots = H
        if self.absent is not None:
            slots = torch.where(available[..., None], slots, self.absent)
        raw = self.P_final(self.fuse(slots, available))  # Eq. 16, [B,C]
        return Output(self.head.prediction(raw), extras | {"raw": raw})

    def _encode(self, m: int, x: Tensor, mask: Tensor) -> Tensor:
        """3.3: C^m [B,T,d] -> H^m [B,d], zeros where the modality is absent."""
        letter = "tav"[m]
        if letter not in self.letters:
            return x.new_zeros(len(x), x.shape[-1])
        for block in self.encoders[letter]:
            x = block(x, mask)
        if self.c.readout == "mean":
            return masked_mean(x, mask)
        last = (mask.sum(-1) - 1).clamp(min=0) if self.c.readout == "last" else mask.new_zeros(len(x)).long()
        return x.gather(1, last[:, None, None].expand(-1, 1, x.shape[-1]))[:, 0] * mask.any(-1, keepdim=True)

    def _factor_path(self, batch: Batch, H: Tensor, available: Tensor, extras: dict[str, Tensor]) -> Tensor:
        """3.4-3.6: H [B,M,d] -> what each modality gives to the fusion [B,M,w]; fills the extras on the way."""
        c, here = self.c, available[..., None].to(H.dtype)  # [B,M,1]
        R = self.factors(H)
        R = (R if c.hsf == "on" else R.unflatten(-1, (4, c.d))) * here[..., None]  # [B,M,F,d]
        if c.factor_roles == "random":  # arbitrary but fixed per sample
            order = self.order[fixed_draw(batch.index, 24)]  # [B,F]
            R = R.gather(2, order[:, None, :, None].expand_as(R))
        extras["factors"] = R

        if self.routing is not None:
            capsules, couplings = self.routing(R)
            extras["coupling"] = couplings[:, -1] * here[..., None]
            extras["couplings"] = couplings * here[:, None, ..., None]
            parts = capsules
        else:
            parts = R.mean(2, keepdim=True) if c.routing == "mean" else R
        hhat = self.rebuild(parts.flatten(2)) * here  # Eq. 11, [B,M,d]
        extras["reconstruction"] = hhat

        if c.fuse_input == "recon_factors":
            R = capsules * here[..., None]
        rhat = self._usf(R, available, extras) * here  # [B,M,d]
        extras["fused_factors"] = rhat
        return torch.cat([rhat, hhat], -1) if c.fuse_input == "usf_plus_recon" else rhat

    def _usf(self, R: Tensor, available: Tensor, extras: dict[str, Tensor]) -> Tensor:
        """3.6: r-hat [B,M,d] of Eqs. 13 and 14."""
        c, here = self.c, available[..., None].to(R.dtype)
        if c.usf != "on":
            extras["factor_weight"] = here * here.new_tensor([0.25] * 4 if c.usf == "mean" else [1.0, 0.5, 0.5, 0.0])
            return R.mean(2) if c.usf == "mean" else R[:, :, E] + 0.5 * (R[:, :, C] + R[:, :, A])
        raw = self._uncertainty(R)
        raw = raw.detach() if c.unc_grad == "detach" else raw
        calibrated = raw + self._calibration(R)  # Eq. 15, u-tilde
        att = torch.softmax(-(calibrated if c.att_source == "calibrated" else raw), -1)  # [B,M,F]
        extras["uncertainty"], extras["factor_weight"] = calibrated * here, att * here
        u13 = torch.einsum("bmf,bmfd->bmd", att, R)  # Eq. 13
        seen = (calibrated if c.gate_source == "calibrated" else raw)[:, :, [C, A]]
        g = torch.sigmoid(self.gate(seen))  # Eq. 14, [B,M,1 or d]
        extras["gate"] = g
        u14 = R[:, :, E] + g * (R[:, :, C] + R[:, :, A])
        return {"both": (u13 + u14) / 2, "eq13": u13, "eq14": u14}[c.usf_form]

    def _uncertainty(self, R: Tensor) -> Tensor:
        """u^m [B,M,F]: four measures of doubt, one per factor."""
        r_e, r_c, r_a, r_n = R.unbind(2)
        emotion = self.head.kl(self.P_e(r_e + r_a)[..., None, :], self.P_e(self._perturbed(r_e, r_a))).mean(-1)
        context = self.head.kl(self.P_e(r_e), self.P_e(r_e + r_c))
        unit = self.c.unc_scale == "unit"
        ambiguity = (self.head.vagueness if unit else self.head.entropy)(self.P_e(r_a))
        noise = torch.sqrt((r_n * r_n).sum(-1) + 1e-12) / (self.c.d**0.5 if unit else 1.0)
        return torch.stack([emotion, context, ambiguity, noise], -1)

    def _perturbed(self, r_e: Tensor, r_a: Tensor) -> Tensor:
        """r_e + perturbed r_a, [B,M,draws,d]; one draw but for the fixed eight of gauss in evaluation."""
        if self.c.perturb == "drop":
            return r_e[:, :, None]
        if self.c.perturb == "shuffle":  # that of another sample: a prediction then depends on its batch
            return (r_e + r_a.roll(1, 0))[:, :, None]
        draws = torch.randn_like(r_a)[:, :, None] if self.training else self.draws  # [.,.,1,d] or [8,d]
        spread = self.c.sigma * r_a.std(-1, keepdim=True, correction=0)
        return (r_e + r_a)[:, :, None] + spread[:, :, None] * draws

    def _calibration(self, R: Tensor) -> Tensor:
        """Eq. 15: what is added to u^m, [B,M,F] or broadcast. An absent modality has similarity 0 to every other."""
        Z = F.normalize(R[:, :, A], dim=-1, eps=1e-8)
        S = torch.einsum("bmd,bnd->bmn", Z, Z)
        total = self.c.lam * (S.sum(-1) - S.diagonal(dim1=1, dim2=2))[..., None]  # [B,M,1]
        total = total.detach() if self.c.unc_grad == "detach" else total
        which = {"amb_only": [0.0, 0.0, 1.0, 0.0], "all": [1.0] * 4, "none": [0.0] * 4}[self.c.calib]
        return total * total.new_tensor(which)

    def _context_target(self, batch: Batch, conv: list[Tensor], masks: list[Tensor], H: Tensor) -> Tensor:
        """x_context of Eq. 2, a constant: [B,M,d], or raw features [B,M,largest D]."""
        if self.c.ctx_target == "H":
            return H.detach()
        if self.c.ctx_target == "raw_mean":
            size = max(x.shape[-1] for x in batch.features)
            masks = [mask & self.features.used[m] for m, mask in enumerate(batch.masks)]
            raw = [x.masked_fill(~mask[..., None], 0.0) for x, mask in zip(batch.features, masks, strict=True)]
            means = [masked_mean(x, mask) for x, mask in zip(raw, masks, strict=True)]
            return torch.stack([F.pad(x, (0, size - x.shape[-1])) for x in means], 1).detach()
        if self.c.ctx_target == "window":  # the five steps that end where H is read
            masks = [mask & (mask.flip(-1).cumsum(-1).flip(-1) <= 5) for mask in masks]
        return torch.stack([masked_mean(x, mask) for x, mask in zip(conv, masks, strict=True)], 1).detach()

    # -------------------------------------------------------------------------------------------------- losses

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        c, x = self.c, output.extras
        terms = {"task": self.head.loss(x["raw"], batch.labels).mean()}
        total = terms["task"]
        if c.hsf == "on":
            for weight, name, term in self._factor_losses(batch.labels, x):  # Eq. 7
                terms[name] = term
                total = total + weight * term
        if self.has_factors:
            if c.keep_rec and c.w_dri:
                target = x["H"].detach() if c.dri_detach else x["H"]
                terms["dri"] = self._squares(x["reconstruction"] - target, x["available"])  # Eq. 12
                total = total + c.w_dri * (2 if c.sfr_loss == "dri_twice" else 1) * terms["dri"]
            if c.usf == "on" and c.w_usf and c.sfr_loss == "usf":
                terms["usf"] = self._usf_loss(x)  # Eq. 17
                total = total + c.w_usf * terms["usf"]
        return terms | {"total": total}

    def _factor_losses(self, labels: Tensor, x: dict[str, Tensor]) -> list[tuple[float, str, Tensor]]:
        """Eqs. 1-6: weight, name and value of every term of L_HSF in force."""
        c, here, R = self.c, x["available"], x["factors"]
        r_e, r_c, r_a, r_n = R.unbind(2)  # [B,M,d]
        modality = torch.arange(3, device=R.device).expand(len(R), 3)
        terms = []
        if c.w_emo:
            if c.emo_agg == "mean_factor":
                r_e_mean = (r_e.sum(1) / here.sum(1, keepdim=True).clamp(min=1))[:, None].expand_as(r_e)
                emo = self.head.loss(self.P_e(r_e_mean), labels[:, None])  # Eq. 1
                emo = mean_of(emo, here / here.sum(1, keepdim=True).clamp(min=1))  # each sample counts once
            else:
                emo = mean_of(self.head.loss(self.P_e(r_e), labels[:, None]), here)  # Eq. 1, [B,M]
            if c.mi_label == "supcon":
                group = torch.round(labels * 3 / self.range)[:, None].expand(len(R), 3)  # seven classes
                emo = emo + contrast(r_e, group, here, c.tau, True, "mean")
            terms.append((c.w_emo, "emo", emo))
        if c.w_ctx:
            gap = self.factors.decoder(r_c) - x["context"]
            terms.append((c.w_ctx, "ctx", self._squares(gap, here)))  # Eq. 2
        if c.indep != "none":
            terms.append((c.w_orth, "orth", independence(R[:, :, [C, E, A, N]], here, c.indep)))  # Eq. 3
        if c.w_amb:
            d = (
                1 - F.cosine_similarity(r_a, r_e, dim=-1)
                if c.dist == "cos"
                else torch.linalg.norm(r_a - r_e + 1e-8, dim=-1)
            )
            amb = mean_of(F.relu(c.margin - d), here)  # Eq. 4
            if c.amb_entropy == "feature":  # Eq. 5
                amb = amb - c.w_H * mean_of(feature_entropy(r_a), here)
            elif c.amb_entropy == "predictive":
                amb = amb - c.w_H * mean_of(self.head.entropy(self.P_e(r_a)), here)
            terms.append((c.w_amb, "amb", amb))
        if c.w_noise and c.noise_cl == "text":  # Eq. 6
            terms.append((c.w_noise, "noise", contrast(r_n, modality, here, c.tau, c.mask_self, c.cl_reduction)))
        elif c.w_noise and c.noise_cl == "literal":
            terms.append((c.w_noise, "noise", printed_contrast(r_n, here, c.tau, c.mask_self, c.cl_reduction)))
        return terms

    def _usf_loss(self, x: dict[str, Tensor]) -> Tensor:
        """Eq. 17."""
        p, q = self.P_e(x["fused_factors"]), self.P_e(x["factors"][:, :, E])
        divergence = mean_of(self.head.kl(p, q.detach() if self.c.kl_detach_target else q), x["available"])
        entropy = mean_of(self.head.entropy(p), x["available"])
        return divergence + (self.c.w_ent if self.c.usf_entropy == "literal" else -self.c.w_ent) * entropy

    def _squares(self, gap: Tensor, available: Tensor) -> Tensor:
        squares = gap * gap
        return mean_of(squares.sum(-1) if self.c.norm_sum else squares.mean(-1), available)


class Fusion(nn.Module):
    """Eq. 16: the modalities' vectors [B,M,w] -> one vector [B,d]."""

    def __init__(self, c: DSRFConfig, width: int) -> None:
        super().__init__()
        self.kind = c.fuse
        if c.fuse == "concat":
            self.mix = mlp(3 * width, c.d, c.d, dropout=c.dropout)
            return
        self.mix = nn.Linear(width, c.d)
        self.score = nn.Linear(c.d, 1) if c.fuse == "attention" else None
        self.block = EncoderBlock(c.d, c.heads, 4 * c.d, c.dropout) if c.fuse == "transformer" else None

    def forward(self, slots: Tensor, available: Tensor) -> Tensor:
        if self.kind == "concat":
            return self.mix(slots.flatten(1))
        tokens = self.mix(slots)  # [B,M,d]
        if self.kind == "transformer":
            return masked_mean(self.block(tokens, available), available)
        weight = torch.softmax(self.score(torch.tanh(tokens))[..., 0].masked_fill(~available, -1e9), -1)
        return torch.einsum("bm,bmd->bd", weight, tokens)


def _matching_width(c: DSRFConfig, raw: int) -> int:
    """Hidden width at which one MLP d -> 4d per modality has as many weights as the factor encoders and the decoder."""
    full = Factorisation(replace(c, hsf="on"), raw if c.ctx_target == "raw_mean" else c.d)
    target = sum(p.numel() for p in full.parameters())
    return max(1, round((target / 3 - 4 * c.d) / (5 * c.d + 1)))
