"""DSRF against a second implementation of its equations in plain loops, and what its switches promise."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from dsrf_loops import Reference
from torch import nn
from toy import (
    check_stacking,
    close,
    total,
)

from msa_lib.data import Batch, Dataset, planted
from msa_lib.models import build_model
from msa_lib.models.dsrf import AMB, CTX, DSRF, EMO, FACTORS, NOI, VARIANTS, Trace, loss_usf, squash
from msa_lib.models.parts.layers import fixed_draw
from papers_check.printed import papers

SIZE, D = 6, 8  # samples of a batch, width


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small tensors are slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@cache
def data(kind: str = "mosi") -> Dataset:
    small = {"train": "12", "valid": "4", "test": "4", "dims": "8,6,7", "fill": "0.5"}
    if kind == "mosi":
        return planted.load("planted", {**small, "steps": "8,8,8"})
    return planted.load("planted-sims", {**small, "steps": "6,12,9"})


def batch_of(kind: str = "mosi", index=range(SIZE), gaps: bool = False) -> Batch:
    """With gaps, sample 1 has no audio, sample 2 only audio, sample 3 no text."""
    batch = data(kind).train.batch(list(index))
    lengths = batch.lengths.clone()
    for sample, missing in ((1, [1]), (2, [0, 2]), (3, [0])) if gaps else ():
        lengths[sample, missing] = 0
    return batch._replace(lengths=lengths)


def make(dataset: Dataset | None = None, seed: int = 0, **switches) -> DSRF:
    """A small model in eval mode, its weights large enough that factors, couplings and uncertainties differ."""
    torch.manual_seed(seed)
    small = {"d": D, "heads": 2, "n_layers": 1, "dropout": 0.0}
    small["K"] = 4 if switches.get("fuse_input") == "recon_factors" else 3  # 3, so that K is not F
    network = build_model("dsrf", data() if dataset is None else dataset, **{**small, **switches}).eval()
    for norm in (module for module in network.modules() if isinstance(module, nn.LayerNorm)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
    with torch.no_grad():
        for name, p in network.named_parameters():
            if name.startswith(("factors.", "P_e", "gate", "routing")):
                p.mul_(2)
            if name == "absent":
                p.normal_()
    return network


def losses(network: DSRF, batch: Batch) -> dict[str, torch.Tensor]:
    return network.loss(batch, network(batch))


def shown(network: DSRF, batch: Batch) -> dict[str, torch.Tensor]:
    output = network(batch)
    names = (*network.RECORD, "couplings", "factors", "reconstruction", "fused_factors")
    return {"prediction": output.prediction} | {k: output.extras[k] for k in names if k in output.extras}


def usf(network: DSRF, R: torch.Tensor) -> dict[str, torch.Tensor]:
    """The extras of USF for given factors [B,M,F,d], all of them present; its output under `fused`."""
    names = ("fused", "uncertainty", "factor_weight", "gate")
    return dict(zip(names, network.usf(network, R, torch.ones(*R.shape[:2], 1), {}), strict=True))


def route(network: DSRF, R: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Capsules, and couplings of every iteration, for given factors [B,M,F,d], all of them present."""
    return network.routing(R, torch.ones(*R.shape[:2], 1))[:2]


# --- Eqs. 1-17, in loops (dsrf_loops.py) ---

CASES = {
    "default": {},
    "two layers, other sizes": {"n_layers": 2, "K": 5, "d_c": 3, "T_r": 4},
    "sums": {"norm_sum": True, "cl_reduction": "sum", "w_H": 0.5, "w_ent": 0.7, "w_usf": 1.0},
    "heads per modality": {"emo_head": "per_modality", "caps_share": "per_modality", "ce_plus_l1": True},
    "mean factor": {"emo_agg": "mean_factor", "ctx_input": "h_only", "readout": "mean"},
    "mean factor, own heads": {"emo_agg": "mean_factor", "emo_head": "per_modality"},
    "supcon": {"mi_label": "supcon", "readout": "first", "pos": "learned"},
    "context H": {"ctx_target": "H", "proj": "conv1", "pos": "none"},
    "raw context": {"ctx_target": "raw_mean", "proj": "linear"},
    "window": {"ctx_target": "window"},
    "all pairs, l2": {"indep": "all_pairs", "dist": "l2", "margin": 5.0, "amb_entropy": "predictive"},
    "crosscov": {"indep": "crosscov", "amb_entropy": "none", "margin": 0.4},
    "hsic": {"indep": "hsic", "w_orth": 10.0},
    "literal Eq. 6": {"noise_cl": "literal", "mask_self": False, "tau": 0.5},
    "literal Eq. 6, sum": {"noise_cl": "literal", "cl_reduction": "sum"},
    "anchor in its sum": {"mask_self": False},
    "literal 7": {"noise_cl": "none", "indep": "none", "amb_entropy": "none"},
    "no routing": {"routing": "mean"},
    "no routing, concat": {"routing": "concat", "sfr_loss": "dri_twice"},
    "literal votes": {"votes": "literal"},
    "noise init": {"votes": "literal_noise_init", "caps_share": "per_modality"},
    "noise init, one bank": {"votes": "literal_noise_init", "T_r": 1},
    "no rec loss": {"keep_rec": False, "sfr_loss": "none"},
    "no usf": {"usf": "mean"},
    "half gate": {"usf": "half_gate"},
    "gauss perturbation": {"perturb": "gauss", "sigma": 0.8},
    "literal uncertainty": {"unc_scale": "literal", "usf_entropy": "literal"},
    "calib all": {"calib": "all", "lam": 2.0, "gate_dim": "d"},
    "calib none": {"calib": "none", "usf_form": "eq13"},
    "raw attention": {"att_source": "raw", "lam": 2.0, "usf_form": "eq14"},
    "raw gate": {"gate_source": "raw", "lam": 2.0},
    "eq13, raw": {"usf_form": "eq13", "att_source": "raw", "lam": 2.0},
    "usf only": {"fuse_input": "usf_only"},
    "capsules for factors": {"fuse_input": "recon_factors", "T_r": 2},
    "attention": {"fuse": "attention"},
    "transformer": {"fuse": "transformer", "absent": "zeros"},
    "learned absence": {"absent": "learned"},
    "copy": {"hsf": "copy"},
    "bypass": {"hsf": "bypass", "absent": "learned"},
    "wide": {"hsf": "wide"},
    "gauss": {"head": "gauss"},
    "gauss, literal": {"head": "gauss", "unc_scale": "literal"},
    "point": {"head": "point"},
    "w/o language": {"modalities": "av"},
    "w/o Audio": {"modalities": "tv", "noise_cl": "literal", "fuse": "attention"},
    "V, zeros": {"modalities": "v", "missing": "zero_fill"},
}


@pytest.mark.parametrize("case", CASES)
def test_a_batch_is_the_equations_sample_by_sample(case):
    kind = ("mosi", "sims")[list(CASES).index(case) % 2]
    network, batch = make(data(kind), **CASES[case]), batch_of(kind, gaps=True)
    if len(CASES[case].get("modalities", "tav")) < 3:
        batch = batch_of(kind)  # or some would have nothing
    output, reference = network(batch), Reference(network, data(kind))
    samples = [reference(batch, i) for i in range(SIZE)]
    got = shown(network, batch)
    for i, sample in enumerate(samples):
        for name in got.keys() & sample["shown"].keys():
            value, expected = got[name][i].detach(), sample["shown"][name]
            if name == "factor_weight" and case == "half gate":
                continue
            np.testing.assert_allclose(value, expected, atol=2e-5, rtol=1e-4, err_msg=f"{name} of {i}")
    terms, expected = network.loss(batch, output), reference.losses(batch, samples)
    assert set(terms) == set(expected)
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-4, abs=2e-5), name


def test_the_reference_sees_different_factors_couplings_and_weights():
    """Or the comparison above would prove little."""
    extras = make()(batch_of()).extras
    assert extras["coupling"].std(-1).amax((1, 2)).min() > 0.05
    assert extras["uncertainty"].std((0, 1)).min() > 0.01
    assert extras["factor_weight"].std(0).min() > 0.005
    assert extras["gate"].std() > 0.01


# --- routing ---


@pytest.mark.parametrize("K", [1, 2, 4, 7])
def test_literal_votes_make_all_capsules_the_same(K):
    """Eqs. 8-10 as printed: coupling 1/K in every iteration, capsules without any spread, no use of iterations."""
    batch, capsules = batch_of(), {}
    for T_r in (1, 2, 5):
        network = make(votes="literal", K=K, T_r=T_r)
        capsules[T_r], couplings = route(network, network(batch).extras["factors"])
        assert couplings.shape == (SIZE, T_r, 3, 4, K)
        assert (couplings == 1 / K).all() or K == 7  # exactly
        assert (couplings - 1 / K).abs().max() < 1e-7
        assert (couplings == couplings[..., :1]).all()
        assert (capsules[T_r] - capsules[T_r][:, :, :1] == 0).all()
        assert torch.equal(capsules[T_r], capsules[1])
    assert (capsules[1].norm(dim=-1) > 0.05).all()


def test_only_votes_per_capsule_or_a_random_start_break_the_tie():
    batch = batch_of()
    for votes, first in (("per_capsule", 0.0), ("literal_noise_init", 0.01)):
        network = make(votes=votes, T_r=3)
        capsules, couplings = route(network, network(batch).extras["factors"])
        assert (capsules - capsules[:, :, :1]).abs().max() > 1e-3
        spread = couplings.std(-1).amax((0, 2, 3))  # of each iteration
        assert (spread[0] > first) if first else (spread[0] == 0)
        assert spread[2] > spread[1] > spread[0]
    assert set(make(votes="literal_noise_init").routing.state_dict()) == {
        "W",
        "b0",
    }  # the start is kept with the weights


def test_a_coupling_is_a_distribution_over_capsules_that_follows_agreement():
    network = make(K=2, T_r=3)
    with torch.no_grad():
        network.routing.W.zero_()
        network.routing.W[:, 0] = torch.eye(D)  # capsule 0 sees the factors, capsule 1 nothing
    R = torch.zeros(1, 3, 4, D)
    R[..., 0] = torch.tensor([3.0, 3.0, 3.0, -1.0])  # three agree, one opposes
    u, couplings = route(network, R)
    close(couplings.sum(-1), torch.ones(1, 3, 3, 4))
    assert (couplings[0, 0] == 0.5).all()
    assert (couplings[0, -1, :, :3, 0] > 0.9).all()
    assert (couplings[0, -1, :, 3, 0] < 0.5).all()
    assert (u[:, :, 1] == 0).all()
    close(u[0, 0, 0].norm(), torch.tensor(0.98), atol=0.02)


def test_squash_keeps_the_direction_and_bounds_the_length():
    s = torch.randn(50, D) * torch.logspace(-3, 3, 50)[:, None]
    u = squash(s)
    n2 = (s**2).sum(-1)
    close(u.norm(dim=-1), n2 / (1 + n2), atol=1e-5)
    close(F.cosine_similarity(u, s, dim=-1)[5:], torch.ones(45), atol=1e-5)
    zero = torch.zeros(2, D, requires_grad=True)
    assert not squash(zero).any()
    assert torch.autograd.grad(squash(zero).sum(), zero)[0].isfinite().all()


# --- uncertainty-aware fusion ---


@pytest.mark.parametrize("switches", [{}, {"fuse_input": "recon_factors"}, {"head": "gauss"}, {"unc_scale": "literal"}])
def test_factor_weights_are_shares(switches):
    extras, available = make(**switches)(batch_of(gaps=True)).extras, batch_of(gaps=True).lengths > 0
    close(extras["factor_weight"].sum(-1), available.float())
    assert (extras["factor_weight"][available] > 0).all()
    assert not extras["factor_weight"][~available].any()
    assert not extras["uncertainty"][~available].any()
    assert not extras["coupling"][~available].any()
    close(extras["coupling"].sum(-1)[available], torch.ones(int(available.sum()), 4))


@pytest.mark.parametrize("head", ["bins_ev", "gauss", "point", "argmax", "binary"])
@pytest.mark.parametrize("perturb", ["drop", "gauss", "shuffle"])
def test_uncertainties_are_divergences(head, perturb):
    network, R = make(head=head, perturb=perturb), torch.randn(SIZE, 3, 4, D)
    u = network.uncertainty(R)
    assert u.shape == (SIZE, 3, 4)
    assert (u[..., [EMO, CTX, NOI]] >= -1e-6).all()
    assert u[..., [EMO, CTX]].mean() > 0.01
    quiet = R.clone()
    quiet[:, :, AMB] = 0
    assert network.uncertainty(quiet)[..., EMO].abs().max() < 1e-6
    close(network.uncertainty(quiet)[..., CTX], u[..., CTX])
    quiet = R.clone()
    quiet[:, :, CTX] = 0
    assert network.uncertainty(quiet)[..., CTX].abs().max() < 1e-6
    close(network.uncertainty(quiet)[..., EMO], u[..., EMO])
    close(u[..., NOI], R[:, :, NOI].norm(dim=-1) / D**0.5)


def test_calibrating_all_four_cancels_in_the_softmax():
    """Eq. 15 as printed changes nothing, unless the gate of Eq. 14 reads what it made."""
    batch, switches = batch_of(), {"lam": 3.0, "K": 3}

    def predictions(gate_source: str) -> dict[str, torch.Tensor]:
        made = {calib: make(calib=calib, gate_source=gate_source, **switches) for calib in ("none", "all", "amb_only")}
        return {calib: network(batch).prediction for calib, network in made.items()}

    raw, calibrated = predictions("raw"), predictions("calibrated")
    close(raw["all"], raw["none"])
    assert (raw["amb_only"] - raw["none"]).abs().max() > 1e-3
    assert (calibrated["all"] - calibrated["none"]).abs().max() > 1e-4
    close(calibrated["none"], raw["none"])
    shown = [make(calib=calib, **switches)(batch).extras for calib in ("none", "all")]
    close(shown[0]["factor_weight"], shown[1]["factor_weight"])
    assert (shown[0]["uncertainty"] - shown[1]["uncertainty"]).abs().min(-1).values.max() > 0.5


def mean_weights(unc_scale: str, d: int, norm: float) -> torch.Tensor:
    """Mean weight of each factor when the entries of the noise vector have deviation `norm`, the others' 1."""
    R = torch.randn(40, 3, 4, d)
    R[:, :, NOI] *= norm
    return usf(make(d=d, unc_scale=unc_scale), R)["factor_weight"].mean((0, 1))


def test_the_printed_norm_decides_the_weight_of_noise():
    by_width = [mean_weights("literal", d, 1.0)[NOI].item() for d in (8, 64, 512)]
    assert by_width == sorted(by_width, reverse=True)
    assert by_width[2] < 1e-6
    by_norm = [mean_weights("literal", 64, norm)[NOI].item() for norm in (0.0, 0.1, 1.0, 10.0)]
    assert by_norm == sorted(by_norm, reverse=True)
    assert by_norm[3] < 1e-6
    assert mean_weights("literal", 64, 0.0).argmax() == NOI
    assert min(mean_weights("unit", d, 1.0)[NOI].item() for d in (8, 64, 512)) > 0.15


def test_a_vanishing_noise_takes_all_that_entropy_leaves_it():
    """Eq. 13 with literal uncertainties, all at their worst but for noise: its weight is C / (C + 1), and no larger."""
    network, R = make(unc_scale="literal", calib="none"), torch.zeros(1, 3, 4, D)
    with torch.no_grad():
        network.P_e.weight.copy_(torch.eye(7, D))
        network.P_e.bias.copy_(20 * torch.eye(7)[0])  # class 0, surely
    R[:, :, AMB, 0] = -20  # undoes that: a uniform p(y | r_a), a large change for r_e
    R[:, :, CTX, 1] = 40  # class 1, surely
    close(usf(network, R)["factor_weight"][0, 0], torch.tensor([0.0, 0, 1 / 8, 7 / 8]), atol=1e-5)


def test_no_usf_weights_all_factors_alike():
    batch = batch_of(gaps=True)
    available = (batch.lengths > 0)[..., None].float()
    for usf_switch in ("mean", "half_gate"):
        network = make(usf=usf_switch)
        output = network(batch)
        extras, R = output.extras, output.extras["factors"]
        expected = R.mean(2) if usf_switch == "mean" else R[:, :, EMO] + (R[:, :, CTX] + R[:, :, AMB]) / 2
        close(extras["fused_factors"], expected)
        assert "uncertainty" not in extras
        assert network.gate is None
        assert "usf" not in network.loss(batch, output)
        if usf_switch == "mean":
            close(extras["factor_weight"], available / 4 * torch.ones(4))


def test_told_the_uncertainty_the_fusion_weighs_by_the_planted_noise():
    """A control: clear readings get the weight, all get the same where none is clearer, and nothing else is changed."""
    network, own = make(unc_source="planted", calib="none"), make(calib="none")
    assert set(network.state_dict()) == set(own.state_dict())
    R, here = torch.randn(2, 3, 4, D), torch.ones(2, 3, 1)
    noise = torch.tensor([[0.3, 3.0, 0.9]] * 2, dtype=torch.float64)
    rhat, u, weight, g = network.usf(network, R, here, {"noise": noise, "noise_second": noise.flip(1)})
    close(u[0, 0], torch.tensor([0.3, 0.9, 0.3, 0.9]))
    close(weight, torch.softmax(-u, -1))
    u13 = torch.einsum("bmf,bmfd->bmd", weight, R)
    close(rhat, (u13 + R[:, :, EMO] + g * (R[:, :, CTX] + R[:, :, AMB])) / 2)
    _, _, even, _ = network.usf(network, R, here, {"noise": noise})  # one reading of each modality
    close(even, torch.full((2, 3, 4), 0.25))
    bare = replace(data(), train=replace(data().train, truth={}))
    assert "planted reliabilities" in DSRF.fits(bare, {"unc_source": "planted"})
    with pytest.raises(ValueError, match="needs the planted reliabilities"):
        build_model("dsrf", bare, unc_source="planted")
    with pytest.raises(ValueError, match="unc_source='planted' feeds the weights of usf='on', but usf='mean'"):
        build_model("dsrf", data(), unc_source="planted", usf="mean")


@pytest.mark.parametrize("switches", [{"usf": "mean"}, {"usf": "half_gate"}, {"usf_form": "eq13"}])
def test_what_is_called_factor_weight_is_what_the_factors_are_weighted_with(switches):
    extras = make(**switches)(batch_of(gaps=True)).extras
    if "factor_weight" in extras:
        mixed = torch.einsum("bmf,bmfd->bmd", extras["factor_weight"], extras["factors"])
        close(extras["fused_factors"], mixed)


def test_shuffled_ambiguity_depends_on_the_batch():
    network = make(perturb="shuffle")
    together, alone = network(batch_of()), network(batch_of(index=[2]))
    assert (together.prediction[2] - alone.prediction[0]).abs() > 1e-4
    assert alone.extras["uncertainty"][..., EMO].abs().max() < 1e-6  # its own neighbour


# --- gradients that are stopped ---


def reached(value: torch.Tensor, *sources: torch.Tensor) -> list[bool]:
    """Whether a gradient arrives at each source."""
    if not value.requires_grad:
        return [False] * len(sources)
    grads = torch.autograd.grad(value, sources, allow_unused=True, retain_graph=True)
    return [g is not None and bool(g.any()) for g in grads]


@pytest.mark.parametrize("detach", [True, False])
def test_detach_e_keeps_the_context_out_of_the_emotion_encoder(detach):
    network, H = make(detach_e=detach), torch.randn(4, 3, D)
    R = network.factors(H)
    assert reached(R[:, :, CTX].square().sum(), *network.factors.emotion.parameters()) == [not detach] * 4
    assert reached(R[:, :, CTX].sum(), network.factors.context.weight[0]) == [True]
    close(R, make(detach_e=not detach).factors(H))


@pytest.mark.parametrize("detach", [True, False])
def test_dri_detach_holds_the_target_of_eq_12(detach):
    network, batch = make(dri_detach=detach), batch_of()
    output = network(batch)
    H = output.extras["H"].detach().requires_grad_()
    dri = network.loss(batch, output._replace(extras=output.extras | {"H": H}))["dri"]
    assert reached(dri, H) == [not detach]
    through_reconstruction = [network.rebuild.weight[0], network.features.proj[0].weight, network.routing.W]
    assert reached(dri, *through_reconstruction) == [True] * 3
    gap = (output.extras["reconstruction"] - output.extras["H"]).square()
    close(dri, gap.mean())
    printed = make(dri_detach=detach, norm_sum=True)
    close(losses(printed, batch)["dri"], gap.sum(-1).mean(), atol=1e-5)


@pytest.mark.parametrize("grad", ["detach", "flow"])
def test_unc_grad_stops_uncertainties_from_being_minimised(grad):
    network, R = make(unc_grad=grad, usf_form="eq13"), torch.randn(4, 3, 4, D, requires_grad=True)
    extras = usf(network, R)
    assert reached(extras["uncertainty"].sum(), R, network.P_e.weight) == [grad == "flow"] * 2
    assert reached(extras["factor_weight"].square().sum(), R) == [grad == "flow"]
    assert reached(extras["fused"].sum(), R) == [True]
    weights = extras["factor_weight"].detach()
    gradient = torch.autograd.grad(extras["fused"].sum(), R)[0]
    constant = weights[..., None].expand_as(R)
    assert torch.allclose(gradient, constant, atol=1e-6) == (grad == "detach")
    gated = usf(make(unc_grad=grad), R)
    assert gated["gate"].requires_grad  # its own weights learn either way
    assert reached(gated["gate"].sum(), R) == [grad == "flow"]


@pytest.mark.parametrize("detach", [True, False])
def test_detach_routing_takes_the_couplings_as_given(detach):
    network, R = make(detach_routing=detach), torch.randn(4, 3, 4, D, requires_grad=True)
    u, couplings = route(network, R)
    assert reached(couplings[:, -1].square().sum(), R) == [not detach]
    c, direction = couplings[:, -1].detach(), torch.randn_like(u)
    votes = torch.einsum("bmid,ikde->bmike", R, network.routing.W)
    given = squash(torch.einsum("bmik,bmike->bmke", c, votes))
    close(u, given)
    grads = [torch.autograd.grad((value * direction).sum(), R)[0] for value in (u, given)]
    assert torch.allclose(*grads, atol=1e-5) == detach


@pytest.mark.parametrize("target", ["mean_conv", "H", "raw_mean", "window"])
def test_the_context_target_is_a_constant(target):
    network, batch = make(ctx_target=target), batch_of()
    extras = network(batch).extras
    assert not extras["context"].requires_grad
    assert extras["context"].abs().min(-1).values.shape == (SIZE, 3)
    assert reached(losses(network, batch)["ctx"], network.factors.decoder.weight[0]) == [True]


@pytest.mark.parametrize("detach", [True, False])
def test_kl_detach_target_holds_the_emotion_factor(detach):
    network, batch = make(kl_detach_target=detach), batch_of()
    extras = network(batch).extras
    R, rhat = (extras[name].detach().requires_grad_() for name in ("factors", "fused_factors"))
    value = loss_usf(network, Trace(**extras | {"factors": R, "fused_factors": rhat}))
    assert reached(value, R, rhat) == [not detach, True]


# --- what the readings of the losses reward ---


def trained_on(term: str, steps: int, **switches) -> tuple[DSRF, Batch]:
    """A network after some steps on one of its terms alone."""
    network, batch = make(**switches), batch_of()
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(steps):
        optimiser.zero_grad()
        losses(network, batch)[term].backward()
        optimiser.step()
    return network, batch


def test_predictive_entropy_drives_the_ambiguity_factors_own_doubt_to_its_maximum():
    doubt = {}
    for amb_entropy in ("predictive", "feature"):
        switches = {"amb_entropy": amb_entropy, "margin": 0.0, "w_H": 1.0, "calib": "none"}
        before = make(**switches)(batch_of()).extras["uncertainty"][..., AMB]
        network, batch = trained_on("amb", 25, **switches)
        doubt[amb_entropy] = network(batch).extras["uncertainty"][..., AMB]
        assert before.mean() < 0.9
    assert doubt["predictive"].min() > 0.99
    assert doubt["predictive"].std() < 0.005  # the same for every sample: it tells nothing any more
    assert doubt["feature"].mean() < 0.95


@pytest.mark.parametrize("noise_cl", ["text", "literal"])
def test_mask_self_in_the_models_noise_loss_on_two_samples(noise_cl):
    """Two samples, three modalities; all noise vectors equal: each of the others is 1 in 5, or 1 in 6 with itself."""
    batch = batch_of(index=[0, 1])
    for mask_self, choices in ((True, 5), (False, 6)):
        network = make(noise_cl=noise_cl, mask_self=mask_self)
        with torch.no_grad():
            network.factors.noise.weight[1].zero_()
            network.factors.noise.bias[1].fill_(0.7)
        positives = 1 if noise_cl == "text" else 3  # literal: next modality, then both others
        assert losses(network, batch)["noise"].item() == pytest.approx(positives * math.log(choices), abs=1e-5)


def test_the_text_of_eq_6_makes_noise_a_constant_of_its_modality():
    network, batch = trained_on("noise", 30, tau=0.5)
    unit = F.normalize(network(batch).extras["factors"][:, :, NOI], dim=-1)
    within = torch.einsum("imd,jmd->mij", unit, unit)
    across = torch.einsum("imd,ind->imn", unit, unit)[:, ~torch.eye(3).bool()]
    assert within.min() > 0.9
    assert across.max() < 0.2
    aligned = trained_on("noise", 30, tau=0.5, noise_cl="literal")[0](batch).extras["factors"][:, :, NOI]
    unit = F.normalize(aligned, dim=-1)
    assert torch.einsum("imd,ind->imn", unit, unit).mean() > 0.6  # the opposite


def test_the_sign_of_eq_17():
    """The text avoids over-confidence; the printed sign rewards it."""
    doubt = {}
    for sign in ("text", "literal"):
        network, batch = trained_on("usf", 30, usf_entropy=sign, w_ent=5.0)
        doubt[sign] = network.head.entropy(network.P_e(network(batch).extras["fused_factors"])).mean().item()
    assert doubt["text"] > 0.95 * math.log(7)
    assert doubt["literal"] < 0.3


# --- missing modalities, random roles ---


def test_what_fills_the_slot_of_an_absent_modality():
    batch, seen = batch_of(), []
    for switches in ({}, {"absent": "learned"}):
        network = make(modalities="tv", **switches)
        network.fuse.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
        network(batch)
        assert seen[-1].shape == (SIZE, 3, 2 * D)
    assert not seen[0][:, 1].any()
    assert torch.equal(seen[1][:, 1], network.absent[1].expand(SIZE, -1))
    total(network, batch).backward()
    assert network.absent.grad.any(-1).tolist() == [False, True, False]


@pytest.mark.parametrize("fuse", ["attention", "transformer"])
def test_a_learned_absence_must_not_be_ignored(fuse):
    """Attention leaves absent slots out, so there is nothing to learn: refuse, or use it."""
    try:
        network = make(modalities="tv", absent="learned", fuse=fuse)
    except ValueError as refused:
        assert "absent" in str(refused)  # noqa: PT017
        return
    total(network, batch_of()).backward()
    assert network.absent.grad[1].any()


def test_random_roles_are_drawn_evenly_once_per_sample():
    index = torch.arange(6000)
    drawn = fixed_draw(index, 24)
    assert torch.equal(fixed_draw(index[17:18], 24), drawn[17:18])
    assert (torch.bincount(drawn, minlength=24) / 6000 - 1 / 24).abs().max() < 0.012
    pairs = torch.bincount(drawn[:-1] * 24 + drawn[1:], minlength=576)
    assert (pairs - 6000 / 576).square().mean() < 2 * 6000 / 576  # neighbours are unrelated
    own, random, batch = make(), make(factor_roles="random"), batch_of(index=range(12))
    R, mixed = (network(batch).extras["factors"] for network in (own, random))
    orders = set()
    for i in range(12):
        order = [int((mixed[i, 0, f] - R[i, 0]).abs().sum(-1).argmin()) for f in range(4)]
        close(mixed[i], R[i, :, order])  # one order for all modalities
        assert torch.equal(random.roles.order[fixed_draw(batch.index[i], 24)], torch.tensor(order))
        orders.add(tuple(order))
    assert len(orders) > 5


# --- switches and variants ---


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"heads": 3}, "The width d=128 must be a multiple of heads=3"),
        ({"K": 0}, "Routing needs at least one capsule and one iteration, but K=0, T_r=3"),
        ({"T_r": 0}, "at least one capsule and one iteration"),
        ({"fuse_input": "recon_factors", "K": 3}, "fuse_input='recon_factors' puts capsules in place of factors"),
        ({"fuse_input": "recon_factors", "d_c": 5}, "needs routing, K=4, d_c=d"),
        ({"fuse_input": "recon_factors", "routing": "mean"}, "needs routing, K=4, d_c=d"),
    ],
)
def test_switches_that_contradict_each_other_are_refused(switches, message):
    with pytest.raises(ValueError, match=message):
        build_model("dsrf", data(), **switches)


@pytest.mark.parametrize("name", VARIANTS)
def test_an_ablation_that_has_no_such_thing_lacks_the_extra(name):
    network, batch = make(**VARIANTS[name]), batch_of()
    extras, c = network(batch).extras, network.c
    assert ("coupling" in extras) == (c.hsf != "bypass" and c.routing == "on")
    assert ("uncertainty" in extras) == (c.hsf != "bypass" and c.usf == "on")
    if "coupling" in extras:
        assert extras["coupling"].shape == (SIZE, 3, len(FACTORS), c.K)
        close(extras["coupling"].sum(-1), extras["available"][..., None].expand(-1, -1, 4).float())
    if "uncertainty" in extras:
        assert extras["uncertainty"].shape == extras["factor_weight"].shape == (SIZE, 3, len(FACTORS))
        close(extras["factor_weight"].sum(-1), extras["available"].float())


def test_a_step_down_the_loss_lowers_it():
    network, batch = make(), batch_of()
    optimiser, before = torch.optim.Adam(network.parameters(), lr=5e-3), losses(network, batch)
    for _ in range(25):
        optimiser.zero_grad()
        total(network, batch).backward()
        optimiser.step()
    after = losses(network, batch)
    assert after["total"] < 0.6 * before["total"]
    assert all(after[name] < before[name] for name in ("task", "emo", "ctx", "dri", "noise"))


def test_readings_name_variants():
    readings = papers.readings("dsrf", 3)
    assert {name for reading in readings.values() for name in reading.values()} <= set(VARIANTS)
    for reading in zip(*(readings[name].values() for name in ("w/o SFR", "w/o DRI")), strict=True):
        assert len(set(reading)) == 2  # never one thing under two names


@pytest.mark.parametrize("more", [{}, {"ctx_input": "h_only"}, {"w_ctx": 0.0}, {"ctx_target": "raw_mean"}])
def test_the_wide_vector_has_as_many_parameters(more):
    for d in (32, 64, 128):
        full, wide = (
            sum(p.numel() for p in build_model("dsrf", data(), d=d, hsf=hsf, **more).parameters())
            for hsf in ("on", "wide")
        )
        assert wide == pytest.approx(full, rel=0.01)
    terms = losses(make(hsf="wide"), batch_of())
    assert set(terms) == {"task", "dri", "usf", "total"}


def test_ablations_remove_exactly_what_they_name():
    full = {key.split(".")[0] + "." + key.split(".")[1] for key in make().state_dict()}
    terms = set(losses(make(), batch_of()))
    assert terms == {"task", "emo", "ctx", "orth", "amb", "noise", "dri", "usf", "total"}

    def removed(name: str) -> tuple[set[str], set[str]]:
        network = make(**VARIANTS[name])
        keys = {key.split(".")[0] + "." + key.split(".")[1] for key in network.state_dict()}
        return full - keys, terms - set(losses(network, batch_of()))

    factors = {f"factors.{name}" for name in ("emotion", "context", "ambiguity", "noise", "decoder")}
    hsf = {"emo", "ctx", "orth", "amb", "noise"}
    gate, bank = {"gate.weight", "gate.bias"}, {"routing.W", "routing.b0"}
    assert removed("w/o HSF") == (factors, hsf)
    everything = factors | gate | bank | {"P_e.weight", "P_e.bias", "rebuild.weight", "rebuild.bias"}
    assert removed("w/o HSF (bypass)") == (everything, hsf | {"dri", "usf"})
    assert removed("no_routing") == removed("no_routing (concat)") == (bank, set())
    assert removed("no_routing, no_rec_loss") == (bank, {"dri"})
    assert removed("no_usf") == removed("no_usf (g=1/2)") == (gate, {"usf"})
    assert removed("no_rec_loss") == (set(), {"dri"})
    assert removed("no factor losses") == ({"factors.decoder"}, hsf)
    assert removed("no L_ctx") == ({"factors.decoder"}, {"ctx"})
    for name, term in (("no L_emo", "emo"), ("no L_amb", "amb"), ("no L_n", "noise"), ("no independence", "orth")):
        assert removed(name) == (set(), {term})
    for name in ("random roles", "literal votes", "literal Eq. 6", "literal Eq. 15", "Eq. 13 only", "mean readout"):
        assert removed(name) == (set(), set())


# --- compiling, stacking, copying ---

GRAPHS = {
    "literal": {"votes": "literal_noise_init", "perturb": "gauss", "factor_roles": "random", "modalities": "tv"},
    "attention": {"fuse": "attention", "hsf": "wide", "head": "argmax", "usf": "half_gate", "modalities": "t"},
}


@pytest.mark.parametrize("case", GRAPHS)
def test_the_forward_is_one_graph(case):
    network, batch = make(**GRAPHS[case]), batch_of(gaps=True)
    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    assert torch.equal(compiled(batch).prediction, network(batch).prediction)


def test_seeds_can_be_stacked():
    check_stacking([make(seed=seed, **GRAPHS["literal"]) for seed in range(3)], batch_of(gaps=True))


def test_a_copy_and_a_restored_state_predict_the_same_bits():
    switches = {"votes": "literal_noise_init", "perturb": "gauss", "absent": "learned", "modalities": "tv"}
    network, batch = make(**switches), batch_of()
    expected = shown(network, batch)
    other = make(seed=9, **switches)
    assert not torch.equal(other(batch).prediction, expected["prediction"])
    other.load_state_dict(network.state_dict())
    for again in (copy.deepcopy(network), other):
        got = shown(again, batch)
        assert all(torch.equal(got[name], value) for name, value in expected.items())
