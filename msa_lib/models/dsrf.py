"""DSRF: "Dynamic Semantic Routing for Multimodal Sentiment Analysis" (anonymous, under review). No code was released;
this is written from the paper.

Read top-down it follows Figure 1: encoders (3.3) -> four semantic factors per modality, HSF (3.4, Eqs. 1-7) -> capsule
routing and reconstruction (3.5, Eqs. 8-12; the paper calls this one module DRI, SFR and SFDR) -> uncertainty-aware
fusion, USF (3.6, Eqs. 13-17) -> total.

Stated by the paper: the equations, width, batch size, learning rate and weight decay per data set. Not stated: layers,
capsules, iterations, every loss weight, temperature and margin, and several definitions; each is a switch of
`DSRFConfig` with our default and the reason beside it; what can stand in a default's place is in `dsrf_open.py`, chosen
when the network is built. The factors are one tensor R [B,M,F,d] in the order emotion,
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

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msa_lib.data import Batch, Dataset
from msa_lib.data.dataset import LABEL_RANGE
from msa_lib.models import dsrf_open as other
from msa_lib.models.card import Card, Stated, all_but, lacking
from msa_lib.models.dsrf_open import AMB, CTX, EMO, NOI, VARIANTS, DSRFConfig
from msa_lib.models.parts.features import Features
from msa_lib.models.parts.heads import sentiment_head
from msa_lib.models.parts.layers import STOP, Bank, EncoderBlock, Output, absent, as_extras, at_step, mlp, unchanged
from msa_lib.models.parts.losses import INDEPENDENCE, contrast, feature_entropy, mean_of, weighted

FACTORS = ("emotion", "context", "ambiguity", "noise")

CARD = Card(
    paper="Dynamic Semantic Routing for Multimodal Sentiment Analysis (anonymous, under review)",
    fidelity="completed",
    specified="Eqs. 1-17; width, batch size, learning rate and weight decay for each data set (section 4.2).",
    ours="Layers, capsules, iterations, every loss weight, temperature and margin; what the context of Eq. 2 is, the "
    "distance of Eq. 4, the form of Eq. 3, how r-hat has two formulas (Eqs. 13, 14), what is fused in Eq. 16, how a "
    "softmax gives MAE and Corr, and the total (its L_SFR is not defined, L_USF absent from it).",
    choices=all_but(
        DSRFConfig, "modalities", "ce_plus_l1", "gauss_loss", "factor_roles", "unc_source", "keep_rec", "w_emo"
    ),
)


def _recipe(lr: float, batch_size: int, d: int, weight_decay: float) -> dict[str, Stated]:
    """Section 4.2: "the learning rates are ..., the batch sizes ..., the hidden size ..., and weight decay ..."."""
    values = {"d": d, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay}
    stated = {name: Stated(value, "DSRF, section 4.2") for name, value in values.items()}
    return stated | {"lr_encoder": Stated(lr, "DSRF, section 4.2, which has one rate for everything")}


RECIPES = {
    "mosi": _recipe(lr=3e-5, batch_size=32, d=128, weight_decay=1e-3),
    "mosei": _recipe(lr=1e-5, batch_size=64, d=128, weight_decay=1e-3),
    "sims": _recipe(lr=1e-5, batch_size=32, d=64, weight_decay=1e-2),
    "simsv2": _recipe(lr=1e-5, batch_size=32, d=128, weight_decay=1e-2),
}
SMALL = {"d": 16, "heads": 2, "n_layers": 1}  # the smallest sensible network


class Trace(NamedTuple):
    """What a forward leaves behind for the losses and the notebooks; zeros where a modality is absent."""

    H: Tensor  # [B,M,d]
    available: Tensor  # [B,M]
    raw: Tensor  # outputs of P_final, [B,classes]
    context: Tensor | None = None  # target of Eq. 2, [B,M,d]
    factors: Tensor | None = None  # R [B,M,F,d]
    reconstruction: Tensor | None = None  # h-hat [B,M,d]
    fused_factors: Tensor | None = None  # r-hat [B,M,d]
    couplings: Tensor | None = None  # c_ik of every iteration, [B,T_r,M,F,K]
    coupling: Tensor | None = None  # of the last one, [B,M,F,K]
    uncertainty: Tensor | None = None  # u-tilde [B,M,F]
    factor_weight: Tensor | None = None  # alpha [B,M,F]
    gate: Tensor | None = None  # g [B,M,1 or d]


# ------------------------------------------------------------------------------------------------ 3.3 Preprocessing


class Encoder(nn.ModuleList):
    """F^m: C^m [B,T,d] and its mask -> H^m [B,d], zeros where the modality is absent."""

    def __init__(self, c: DSRFConfig) -> None:
        super().__init__(EncoderBlock(c.d, c.heads, 4 * c.d, c.dropout) for _ in range(c.n_layers))
        self.read = READOUT[c.readout]

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for block in self:
            x = block(x, mask)
        return self.read(x, mask)


def last(x: Tensor, mask: Tensor) -> Tensor:
    """The last valid step."""
    return at_step(x, (mask.sum(-1) - 1).clamp(min=0), mask)


READOUT = {"last": last} | other.READOUT

# --------------------------------------------------------------------------------------------- 3.4 HSF, Eqs. 1-7


class Factorisation(nn.Module):
    """H [B,M,d] -> R [B,M,F,d]; the decoder of Eq. 2 goes from d to `context_size`."""

    def __init__(self, c: DSRFConfig, context_size: int) -> None:
        super().__init__()
        size, self.seen = CTX_INPUT[c.ctx_input]
        self.emotion = mlp(c.d, c.d, c.d)  # E_e, shared by the modalities
        self.context = Bank(size * c.d, c.d, c.d)  # E_c^m
        self.ambiguity = Bank(c.d, c.d, c.d)  # E_a^m
        self.noise = Bank(c.d, c.d, c.d)  # E_n^m
        self.decoder = Bank(c.d, c.d, context_size) if c.w_ctx else None
        self.hold = STOP[c.detach_e]

    def forward(self, H: Tensor) -> Tensor:
        r_e = self.emotion(H)  # [B,M,d]
        r_c = self.context(self.seen(H, self.hold(r_e)))
        return torch.stack([r_e, r_c, self.ambiguity(H), self.noise(H)], 2)  # [B,M,F,d]


def factor_losses(net: DSRF, y: Tensor, t: Trace) -> tuple[Tensor | None, ...]:
    """The terms of L_HSF, Eq. 7 (and Eq. 3, which it lacks): means over samples and modalities."""
    r_e, r_c, r_a, r_n = t.factors.unbind(2)  # [B,M,d]
    L_emo = net.supervise(net.loss_emo(net, y, r_e, t.available), net, y, r_e, t.available)  # Eq. 1
    L_ctx = net.loss_ctx(net, r_c, t)  # Eq. 2
    L_orth = net.dependence(t.factors[:, :, [CTX, EMO, AMB, NOI]], t.available)  # Eq. 3 as a penalty
    L_amb = net.loss_amb(net, r_a, r_e, t.available)  # Eqs. 4 and 5
    L_n = net.loss_noise(net, r_n, t.available)  # Eq. 6
    return L_emo, L_ctx, L_orth, L_amb, L_n


def loss_emo(net: DSRF, y: Tensor, r_e: Tensor, here: Tensor) -> Tensor:
    return mean_of(net.head.loss(net.P_e(r_e), y[:, None]), here)  # Eq. 1


def loss_ctx(net: DSRF, r_c: Tensor, t: Trace) -> Tensor:
    gap = net.factors.decoder(r_c) - t.context
    return mean_of(net.length(gap * gap), t.available)  # Eq. 2


def loss_amb(net: DSRF, r_a: Tensor, r_e: Tensor, here: Tensor) -> Tensor:
    hinge = mean_of(F.relu(net.c.margin - net.distance(r_a, r_e)), here)  # Eq. 4
    return hinge - net.c.w_H * net.spread(net, r_a, here)  # Eq. 5


def loss_noise(net: DSRF, r_n: Tensor, here: Tensor) -> Tensor:
    """The sentence above Eq. 6: the noise of one modality is alike in all samples."""
    modality = torch.arange(3, device=r_n.device).expand(len(r_n), 3)
    return contrast(r_n, modality, here, net.c.tau, net.c.mask_self, net.c.cl_reduction)


def cosine_distance(x: Tensor, y: Tensor) -> Tensor:
    return 1 - F.cosine_similarity(x, y, dim=-1)


CTX_INPUT = {"h_plus_e": (2, lambda H, r_e: torch.cat([H, r_e], -1))} | other.CTX_INPUT
HSF = {"on": Factorisation, "wide": partial(other.wide, Factorisation)} | other.HSF
ROLES = {"own": lambda: unchanged} | other.ROLES
INDEP = INDEPENDENCE | {"none": absent}
EMO_AGG = {"per_modality": loss_emo} | other.EMO_AGG
MI_LABEL = {"none": unchanged} | other.MI_LABEL
DIST = {"cos": cosine_distance} | other.DIST
AMB_ENTROPY = {"feature": lambda net, r_a, here: mean_of(feature_entropy(r_a), here)} | other.AMB_ENTROPY
NOISE_CL = {"text": loss_noise} | other.NOISE_CL

# ----------------------------------------------------------------------------------------- 3.5 Routing, Eqs. 8-12


class Routing(nn.Module):
    """Factors as input capsules, K output capsules per modality, by agreement."""

    def __init__(self, c: DSRFConfig) -> None:
        super().__init__()
        self.K, self.T_r, self.size = c.K, c.T_r, c.K * (c.d_c or c.d)
        shape, self.equation, self.share = VOTES[c.votes, c.caps_share]
        self.W = nn.Parameter(torch.randn(*shape(c.K), c.d, c.d_c or c.d) * c.d**-0.5)
        self.register_buffer("b0", START[c.votes](4, c.K))  # logits before the first iteration, [F,K]
        self.hold = STOP[c.detach_routing]

    def forward(self, R: Tensor, here: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """R [B,M,F,d] -> capsules [B,M,K,d_c], couplings of all iterations [B,T_r,M,F,K], of the last [B,M,F,K]."""
        v = self.share(torch.einsum(self.equation, R, self.W), self.K)  # votes [B,M,F,K,d_c]
        held = self.hold(v)
        b, couplings = self.b0.expand(v.shape[:-1]), []
        for _ in range(self.T_r - 1):
            couplings.append(torch.softmax(b, -1))  # Eq. 8, over capsules
            capsules = squash(torch.einsum("bmik,bmike->bmke", couplings[-1], held))  # Eq. 9
            b = b + torch.einsum("bmike,bmke->bmik", held, capsules)  # Eq. 10
        couplings.append(torch.softmax(b, -1))  # Eq. 8
        capsules = squash(torch.einsum("bmik,bmike->bmke", couplings[-1], v))  # Eq. 9
        return capsules, torch.stack(couplings, 1) * here[:, None, ..., None], couplings[-1] * here[..., None]


def squash(s: Tensor) -> Tensor:
    """Eq. 9: the direction of s, with a length of |s|^2 / (1 + |s|^2)."""
    n2 = (s * s).sum(-1, keepdim=True)
    return n2 / (1 + n2) * s * torch.rsqrt(n2 + 1e-9)


def loss_dri(net: DSRF, t: Trace) -> Tensor:
    """Eq. 12."""
    gap = t.reconstruction - net.hold_h(t.H)
    return mean_of(net.length(gap * gap), t.available)


VOTES = {("per_capsule", "modalities"): (lambda K: (4, K), "bmid,ikde->bmike", unchanged)} | other.VOTES
START = {"per_capsule": torch.zeros} | other.START
ROUTING = {"on": Routing} | other.ROUTING
NORM_SUM = {False: lambda squares: squares.mean(-1), True: lambda squares: squares.sum(-1)}

# -------------------------------------------------------------------------------------------- 3.6 USF, Eqs. 13-17


def loss_usf(net: DSRF, t: Trace) -> Tensor:
    """Eq. 17; the sign of the entropy is that of the text."""
    p, q = net.P_e(t.fused_factors), net.hold_e(net.P_e(t.factors[:, :, EMO]))
    divergence = mean_of(net.head.kl(p, q), t.available)
    return divergence + net.entropy_sign * net.c.w_ent * mean_of(net.head.entropy(p), t.available)


class Concat(nn.Module):
    """Eq. 16: the modalities' vectors [B,M,w] -> one vector [B,d]."""

    def __init__(self, c: DSRFConfig, width: int) -> None:
        super().__init__()
        self.mix = mlp(3 * width, c.d, c.d, dropout=c.dropout)

    def forward(self, slots: Tensor, available: Tensor) -> Tensor:
        return self.mix(slots.flatten(1))


PERTURB = {"drop": lambda net, r_e, r_a: r_e[:, :, None]} | other.PERTURB
UNC_SCALE = {"unit": (lambda head, raw: head.vagueness(raw), lambda d: d**0.5)} | other.UNC_SCALE
UNC_SOURCE = {"own": lambda net, R, truth: net.uncertainty(R)} | other.UNC_SOURCE
SOURCE = {"calibrated": lambda calibrated, raw: calibrated} | other.SOURCE
CALIB = {"amb_only": (0.0, 0.0, 1.0, 0.0), "all": (1.0, 1.0, 1.0, 1.0), "none": (0.0, 0.0, 0.0, 0.0)}
USF_FORM = {"both": lambda u13, u14: (u13 + u14) / 2} | other.USF_FORM
FUSE_INPUT = {"usf_plus_recon": (unchanged, lambda rhat, hhat: torch.cat([rhat, hhat], -1))} | other.FUSE_INPUT
FUSE = {"concat": Concat} | other.FUSE
FILL = {"zeros": lambda net, slots, available: slots} | other.FILL
EMO_HEAD = {"shared": nn.Linear, "per_modality": Bank}
CTX_TARGET = {"mean_conv": other.mean_conv} | other.CTX_TARGET


class DSRF(nn.Module):
    """The whole network. Extras: coupling [B,M,F,K] (last iteration), uncertainty [B,M,F], factor_weight [B,M,F]; an
    ablation that has no such thing lacks the key. For an absent modality they are zeros."""

    Config, VARIANTS, CARD, RECIPES, SMALL = DSRFConfig, VARIANTS, CARD, RECIPES, SMALL
    check = staticmethod(other.check)
    RECORD = ("coupling", "uncertainty", "factor_weight")

    @staticmethod
    def fits(dataset: Dataset, switches: Mapping) -> str:
        """Why these switches are not possible on the data set; empty if they are."""
        if switches.get("unc_source") == "planted" and "noise" not in dataset.train.truth:
            return f"It needs the planted reliabilities, which {dataset.name} does not know."
        return lacking(dataset, switches.get("modalities", ""))

    def __init__(self, dataset: Dataset, c: DSRFConfig) -> None:
        super().__init__()
        self.check(c)
        if c.unc_source == "planted" and "noise" not in dataset.train.truth:
            raise ValueError(f"unc_source='planted' needs the planted reliabilities, which {dataset.name} has not.")
        self.c, self.range = c, LABEL_RANGE[dataset.scale]
        self.features = Features(dataset, c.d, c.modalities, c.missing, c.bert, c.proj, c.pos, "padded")  # 3.3
        self.letters = self.features.letters
        self.encoders = nn.ModuleDict({letter: Encoder(c) for letter in self.letters})
        self.encode = tuple(self.encoders[m] if m in self.letters else other.no_modality for m in "tav")
        self.head = sentiment_head(c.head, dataset.scale, c.target, c.ce_plus_l1, c.gauss_loss)
        classes, raw = self.head.size, max(dataset.feature_dims)
        self.has_factors = c.hsf != "bypass"
        self.path = DSRF.factor_path if self.has_factors else other.bypass
        if self.has_factors:
            self._build(c, classes, raw if c.ctx_target == "raw_mean" else c.d)
        width = 2 * c.d if self.has_factors and c.fuse_input == "usf_plus_recon" else c.d
        self.absent = nn.Parameter(torch.zeros(3, width)) if c.absent == "learned" else None
        self.fill, self.fuse = FILL[c.absent], FUSE[c.fuse](c, width)  # Eq. 16
        self.P_final = nn.Linear(c.d, classes)
        self._choose_losses(c)

    def _build(self, c: DSRFConfig, classes: int, context_size: int) -> None:
        self.factors = HSF[c.hsf](c, context_size)  # 3.4
        self.roles = ROLES[c.factor_roles]()
        self.P_e = EMO_HEAD[c.emo_head](c.d, classes)
        self.routing = ROUTING[c.routing](c)  # 3.5
        self.rebuild = Bank(self.routing.size, c.d, c.d)  # Eq. 11
        self.usf = ({"on": DSRF.weigh} | other.USF)[c.usf]  # 3.6
        self.gate = nn.Linear(2, c.d if c.gate_dim == "d" else 1) if c.usf == "on" else None  # Eq. 14
        self.perturbed = PERTURB[c.perturb]
        if c.perturb == "gauss":
            self.register_buffer("draws", torch.randn(8, c.d))  # so that evaluation is reproducible
        doubt, unit = UNC_SCALE[c.unc_scale]
        self.doubt, self.unit, self.hold_u = doubt, unit(c.d), STOP[c.unc_grad == "detach"]
        self.doubts = UNC_SOURCE[c.unc_source]
        self.register_buffer("calibrates", torch.tensor(CALIB[c.calib]), persistent=False)
        self.att_source, self.gate_source = SOURCE[c.att_source], SOURCE[c.gate_source]
        self.form, (self.to_weigh, self.slots) = USF_FORM[c.usf_form], FUSE_INPUT[c.fuse_input]

    def _choose_losses(self, c: DSRFConfig) -> None:
        self.factor_losses = factor_losses if c.hsf == "on" else other.no_factor_losses
        self.context = CTX_TARGET[c.ctx_target] if c.hsf == "on" and c.w_ctx else absent
        self.loss_emo = EMO_AGG[c.emo_agg] if c.w_emo else absent
        self.supervise = MI_LABEL[c.mi_label] if c.w_emo else absent
        self.loss_ctx, self.loss_amb = loss_ctx if c.w_ctx else absent, loss_amb if c.w_amb else absent
        self.loss_noise, self.dependence = NOISE_CL[c.noise_cl] if c.w_noise else absent, INDEP[c.indep]
        self.loss_dri = loss_dri if self.has_factors and c.keep_rec and c.w_dri else absent
        usf = self.has_factors and c.usf == "on" and c.w_usf and c.sfr_loss == "usf"
        self.loss_usf = loss_usf if usf else absent
        self.length, self.distance, self.spread = NORM_SUM[c.norm_sum], DIST[c.dist], AMB_ENTROPY[c.amb_entropy]
        self.hold_h, self.hold_e = STOP[c.dri_detach], STOP[c.kl_detach_target]
        self.entropy_sign = 1 if c.usf_entropy == "literal" else -1
        self.w_dri = c.w_dri * (2 if c.sfr_loss == "dri_twice" else 1)

    def forward(self, batch: Batch) -> Output:
        conv, masks = self.features.sequences(batch)  # C^m [B,T_m,d], [B,T_m]
        available = torch.stack([mask.any(-1) for mask in masks], 1)  # [B,M]
        H = torch.stack([self.encode[m](conv[m], masks[m]) for m in range(3)], 1)  # [B,M,d]
        slots, *shown = self.path(self, H, available, batch)  # 3.4-3.6: [B,M,w]
        context = self.context(self.features, batch, conv, masks, H)  # of Eq. 2
        raw = self.P_final(self.fuse(self.fill(self, slots, available), available))  # Eq. 16, [B,classes]
        return Output(self.head.prediction(raw), as_extras(Trace(H, available, raw, context, *shown)))

    def factor_path(self, H: Tensor, available: Tensor, batch: Batch) -> tuple[Tensor | None, ...]:
        """What each modality gives to the fusion [B,M,w], and the fields of `Trace` from `factors` on."""
        here = available[..., None].to(H.dtype)  # [B,M,1]
        R = self.roles(self.factors(H) * here[..., None], batch.index)  # r_e, r_c, r_a, r_n [B,M,F,d]
        capsules, couplings, coupling = self.routing(R, here)  # Eqs. 8-10
        hhat = self.rebuild(capsules.flatten(2)) * here  # Eq. 11, [B,M,d]
        rhat, uncertainty, weight, g = self.usf(self, self.to_weigh(R, capsules, here), here, batch.truth)
        rhat = rhat * here  # [B,M,d]
        return self.slots(rhat, hhat), R, hhat, rhat, couplings, coupling, uncertainty, weight, g

    def weigh(self, R: Tensor, here: Tensor, truth: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Eqs. 13-15 -> r-hat [B,M,d], u-tilde [B,M,F], alpha [B,M,F], g [B,M,1 or d]."""
        u = self.hold_u(self.doubts(self, R, truth))  # [B,M,F]
        refined = u + self.calibration(R[:, :, AMB])  # Eq. 15, u-tilde
        alpha = torch.softmax(-self.att_source(refined, u), -1)
        u13 = torch.einsum("bmf,bmfd->bmd", alpha, R)  # Eq. 13
        g = torch.sigmoid(self.gate(self.gate_source(refined, u)[:, :, [CTX, AMB]]))
        u14 = R[:, :, EMO] + g * (R[:, :, CTX] + R[:, :, AMB])  # Eq. 14
        return self.form(u13, u14), refined * here, alpha * here, g

    def uncertainty(self, R: Tensor) -> Tensor:
        """u^m [B,M,F]: four measures of doubt, one per factor."""
        r_e, r_c, r_a, r_n = R.unbind(2)
        u_e = self.head.kl(self.P_e(r_e + r_a)[..., None, :], self.P_e(self.perturbed(self, r_e, r_a))).mean(-1)
        u_c = self.head.kl(self.P_e(r_e), self.P_e(r_e + r_c))
        u_a = self.doubt(self.head, self.P_e(r_a))
        u_n = torch.sqrt((r_n * r_n).sum(-1) + 1e-12) / self.unit
        return torch.stack([u_e, u_c, u_a, u_n], -1)

    def calibration(self, r_a: Tensor) -> Tensor:
        """Eq. 15: what is added to u^m, [B,M,F]. An absent modality has similarity 0 to every other."""
        Z = F.normalize(r_a, dim=-1, eps=1e-8)
        S = torch.einsum("bmd,bnd->bmn", Z, Z)
        similar = self.c.lam * (S.sum(-1) - S.diagonal(dim1=1, dim2=2))[..., None]  # [B,M,1]
        return self.hold_u(similar) * self.calibrates

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        """The terms of L_HSF (Eq. 7), L_DRI and L_USF, each without its weight, and `total`."""
        t, y, c = Trace(**output.extras), batch.labels, self.c
        L_task = self.head.loss(t.raw, y).mean()
        L_emo, L_ctx, L_orth, L_amb, L_n = self.factor_losses(self, y, t)  # Eqs. 1-6
        L_dri = self.loss_dri(self, t)  # Eq. 12
        L_usf = self.loss_usf(self, t)  # Eq. 17
        hsf = {"emo": (c.w_emo, L_emo), "ctx": (c.w_ctx, L_ctx), "orth": (c.w_orth, L_orth)}
        hsf |= {"amb": (c.w_amb, L_amb), "noise": (c.w_noise, L_n)}  # Eq. 7
        return weighted(task=(1.0, L_task), **hsf, dri=(self.w_dri, L_dri), usf=(c.w_usf, L_usf))
