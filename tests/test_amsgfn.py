"""AMSGFN against a second implementation of its equations in plain loops, and what its switches promise."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import cache
from itertools import zip_longest
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toy import (
    Loops,
    check_stacking,
    close,
    same,
    total,
)

from msa_lib.data import Batch, Dataset, planted
from msa_lib.models import build_model
from msa_lib.models.amsgfn import AMSGFN, PERM, VARIANTS, Alignment, AMSGFNConfig, GuidedFusionLayer, LoneLayer, Trace
from msa_lib.models.amsgfn_open import Order, by_index, by_weight, open_gate

N, D, LAYERS = 12, 8, 2
SELECT = get_args(get_type_hints(AMSGFNConfig)["select"])
SOFT = {"soft, inputs": {"select": "soft"}, "soft, outputs": {"select": "soft", "soft_mode": "mix_outputs"}}
RULES = {**{rule: {"select": rule} for rule in SELECT if rule != "soft"}, **SOFT}
UNIMODAL = {"T": "t", "V": "v", "A": "a", "V+A": "av", "T+V": "tv", "T+A": "ta"}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small tensors are slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def data(kind: str = "aligned") -> Dataset:
    small = {"train": str(N), "valid": "4", "test": "4", "dims": "8,6,7", "fill": "0.5"}
    if kind == "aligned":
        return planted.load("planted", {**small, "steps": "8,8,8"})
    return planted.load("planted-sims", {**small, "steps": "6,14,9"})


def batch_of(kind: str = "aligned", index=range(N)) -> Batch:
    return data(kind).train.batch(list(index))


def make(dataset: Dataset | None = None, seed: int = 0, **switches) -> AMSGFN:
    """A small model in eval mode whose untrained scorer tells samples apart."""
    torch.manual_seed(seed)
    small = {"d": D, "heads": 2, "n_layers": LAYERS, "dropout": 0.0}
    dataset = data() if dataset is None else dataset
    network, batch = build_model("amsgfn", dataset, **{**small, **switches}).eval(), dataset.train.batch(range(N))
    for norm in (module for module in network.modules() if isinstance(module, nn.LayerNorm)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
    if hasattr(network, "scorer"):
        with torch.no_grad():
            network.scorer[-1].weight.mul_(10)
            pooled = network(batch).extras["pooled"]
            network.scorer[-1].bias.sub_(network.scorer(pooled.flatten(1)).mean(0))
    return network


def shown(network: AMSGFN, batch: Batch) -> dict[str, torch.Tensor]:
    output = network(batch)
    return {"prediction": output.prediction} | {name: output.extras[name] for name in ("fused", *network.RECORD)}


# --- Eqs. 3-16, one sample at a time, in loops and double precision ---


class Reference(Loops):
    """The paper's equations for one sample, sharing nothing with the network but its weights."""

    def layer(self, i: int, x: list, aux: list[list]) -> tuple[list, float]:
        name = f"layers.{0 if self.c.layer_share else i}"
        pre = (lambda v: self.norm(f"{name}.pre", v)) if self.c.attn_norm == "pre" else lambda v: v
        q = [pre(v) for v in x]
        crossed = []
        for which, sequence in enumerate(aux):
            cma = f"{name}.cma.{which if self.c.cma_share == 'role' else 0}"
            crossed.append(self.attention(cma, q, [pre(v) for v in sequence]))  # Eqs. 6-7
        attended, out, opening = self.attention(f"{name}.sa", q, q), [], []
        for t in range(len(x)):
            tmp = attended[t] + x[t]  # Eq. 8
            u = crossed[0][t] + crossed[1][t]  # Eq. 9
            if self.c.gate == "off":
                g = np.ones(1)
            else:
                g = 1 / (1 + np.exp(-self.linear(f"{name}.gate", np.concatenate([tmp, u]))))  # Eq. 10
            hat = tmp + g * u  # Eqs. 11-12
            out.append(self.ffn(f"{name}.ffn", self.norm(f"{name}.norm", hat)) + hat)  # Eq. 13
            opening.append(g.mean())
        return out, float(np.mean(opening))

    def block(self, x: list) -> list:
        """Eq. 14: TB."""
        if self.c.tb_norm == "pre":
            h = [self.norm("tb.norm1", v) for v in x]
            x = [v + a for v, a in zip(x, self.attention("tb.attention", h, h), strict=True)]
            return [v + self.ffn("tb.ffn", self.norm("tb.norm2", v)) for v in x]
        x = [self.norm("tb.norm1", v + a) for v, a in zip(x, self.attention("tb.attention", x, x), strict=True)]
        return [self.norm("tb.norm2", v + self.ffn("tb.ffn", v)) for v in x]

    def __call__(self, batch: Batch, i: int) -> dict[str, np.ndarray]:
        """Sample i of the batch; its modalities keep their own lengths."""
        c, X = self.c, []
        for m, raw in enumerate(batch.features):
            steps = int(batch.lengths[i, m]) if "tav"[m] in c.modalities else 0
            X.append([self.linear(f"features.proj.{m}", raw[i, t].double().numpy()) for t in range(steps)])
        there = [m for m in range(3) if X[m]]
        G = [np.mean(x, 0) if x else np.zeros(c.d) for x in X]
        if c.shared_space == "downstream":
            X = [[self.mlp(f"ccam.heads.{m}", v) for v in X[m]] for m in range(3)]
            G = [self.mlp(f"ccam.heads.{m}", G[m]) if m in there else G[m] for m in range(3)]
        logits = self.mlp("scorer", np.concatenate(G))
        s = np.array([math.exp(logits[m]) if m in there else 0.0 for m in range(3)])
        s /= s.sum()  # Eq. 3
        p = "tav".index(c.select[-1]) if c.select.startswith("fixed:") else max(there, key=lambda m: s[m])  # Eq. 4
        if c.select == "argmin":
            p = min(there, key=lambda m: s[m])
        weight = np.ones(3) if c.scores == "ones" else s * len(there) if c.weight_scale == "times3" else s
        weighted = [[weight[m] * v for v in X[m]] for m in range(3)]  # Eq. 5
        if c.weight_scale == "ln_after":
            weighted = [[self.norm("weight_norm", v) for v in x] for x in weighted]
        others = [m for m in range(3) if m != p]
        if c.order_aux == "by_score" and s[others[1]] > s[others[0]]:
            others.reverse()

        Xp, aux = weighted[p], [weighted[m] for m in others]  # no steps where the modality is absent
        XN, gates = X[p] if c.x0 == "raw" else Xp, []
        if c.dmgf == "on":
            for n in range(c.n_layers):
                XN, opening = self.layer(n, XN, aux)
                gates.append(opening if len(there) > 1 else 0.0)
        elif c.dmgf == "concat_time":
            XN = Xp + aux[0] + aux[1]
        elif c.dmgf == "sum":
            XN = [sum(vectors) for vectors in zip_longest(*weighted, fillvalue=np.zeros(c.d))]
        Q = self.block(Xp) if c.tb else Xp  # Eq. 14
        if c.readout == "pooled_query":
            Q = [np.mean(Q, 0)]
        Xpred = self.attention("cma_out", Q, XN)  # Eq. 15
        if c.readout == "first":
            pooled = Xpred[0]
        elif c.readout == "attn":
            e = np.exp([self.linear("pool", v)[0] for v in Xpred])
            pooled = sum(a * v for a, v in zip(e / e.sum(), Xpred, strict=True))
        else:
            pooled = np.mean(Xpred, 0)
        y = self.mlp("readout", pooled)[0]  # Eq. 16
        y = 3 * math.tanh(y) if c.out == "scaled_tanh" else y
        return {"prediction": y, "fused": np.mean(XN, 0), "contribution": s, "dominant": p, "gate": np.array(gates)}


CASES = {
    "default": {},
    "role": {"cma_share": "role"},
    "by score": {"cma_share": "role", "order_aux": "by_score"},
    "fixed:v": {"select": "fixed:v"},
    "argmin": {"select": "argmin"},
    "s=1": {"scores": "ones"},
    "times3": {"weight_scale": "times3"},
    "ln_after": {"weight_scale": "ln_after"},
    "raw x0": {"x0": "raw"},
    "layer_share": {"layer_share": True},
    "scalar gate": {"gate": "scalar"},
    "gate off": {"gate": "off"},
    "pre norms": {"attn_norm": "pre", "tb_norm": "pre"},
    "no TB": {"tb": False},
    "concat_time": {"dmgf": "concat_time"},
    "sum": {"dmgf": "sum"},
    "dominant_only": {"dmgf": "dominant_only"},
    "first": {"readout": "first"},
    "attn": {"readout": "attn"},
    "pooled_query": {"readout": "pooled_query"},
    "tanh": {"out": "scaled_tanh"},
    "T": {"modalities": "t"},
    "V+A": {"modalities": "av"},
    "T+A, concat_time": {"modalities": "ta", "dmgf": "concat_time"},
    "own lengths": {"length_mode": "padded"},
    "own lengths, concat_time": {"length_mode": "padded", "dmgf": "concat_time"},
    "own lengths, T+V": {"length_mode": "padded", "modalities": "tv"},
    "own lengths, sum": {"length_mode": "padded", "dmgf": "sum"},
    "own lengths, ln_after, sum": {"length_mode": "padded", "dmgf": "sum", "weight_scale": "ln_after"},
    "raw x0, concat_time": {"x0": "raw", "dmgf": "concat_time"},
    "downstream": {"shared_space": "downstream"},
    "downstream, T+A": {"shared_space": "downstream", "modalities": "ta"},
    "own lengths, downstream, sum": {"length_mode": "padded", "dmgf": "sum", "shared_space": "downstream"},
}


@pytest.mark.parametrize("case", CASES)
def test_a_batch_is_the_equations_sample_by_sample(case):
    kind = "unaligned" if case.startswith("own") else "aligned"
    network, batch = make(data(kind), **CASES[case]), batch_of(kind)
    reference, got = Reference(network), shown(network, batch)
    if case == "default":
        assert set(got["dominant"].tolist()) == {0, 1, 2}  # or the test would not see the permutation
    for i in range(N):
        for name, expected in reference(batch, i).items():
            np.testing.assert_allclose(got[name][i].detach(), expected, atol=1e-5, rtol=1e-5, err_msg=f"{name} of {i}")


# --- the dominant modality: gathering and its differentiable forms ---


def test_the_permutation_puts_the_dominant_modality_first():
    network, X = make(), torch.randn(9, 3, 4, D)
    p = torch.tensor([0, 1, 2] * 3)
    roles = network.perm[p]
    got = by_index(X, Order(roles, network.perm, p, None))
    hot = by_weight(X, Order(roles, network.perm, p, F.one_hot(p, 3).float()))
    for i in range(9):
        order = [int(p[i]), *(m for m in range(3) if m != p[i])]
        assert torch.equal(got[i], torch.stack([X[i, m] for m in order]))
    assert torch.equal(hot, got)


def test_soft_roles_are_the_mixture_of_the_three_permutations():
    network, X, s = make(), torch.randn(5, 3, 4, D), torch.rand(5, 3).softmax(-1)
    p = s.argmax(-1)
    got = by_weight(X, Order(network.perm[p], network.perm, p, s))
    for i in range(5):
        close(got[i], sum(s[i, k] * X[i, list(PERM[k])] for k in range(3)))


def test_swapping_the_auxiliaries_changes_nothing_while_they_share_one_cma():
    network, batch = make(), batch_of()
    before = shown(network, batch)
    network.perm = network.perm[:, [0, 2, 1]]
    same(shown(network, batch), before)
    network = make(cma_share="role")
    before = network(batch).prediction
    network.perm = network.perm[:, [0, 2, 1]]
    assert (network(batch).prediction - before).abs().max() > 1e-4


@pytest.mark.parametrize("share", ["tied", "role", "modality"])
def test_cma_share_counts_what_it_says(share):
    per_layer = {"tied": 4 * D * D + 4 * D, "role": 8 * D * D + 8 * D, "modality": 10 * D * D + D}
    assert sum(p.numel() for p in make(cma_share=share).layers[0].cma.parameters()) == per_layer[share]


def test_modality_maps_belong_to_the_modality():
    """With the three maps equal, cma_share=modality is the tied one."""
    tied, bank, batch = make(), make(cma_share="modality"), batch_of()
    bank.load_state_dict(tied.state_dict(), strict=False)
    with torch.no_grad():
        for ours, theirs in zip(bank.layers, tied.layers, strict=True):
            for name in "qkv":
                linear = getattr(theirs.cma[0], name)
                linear.bias.zero_()
                getattr(ours.cma[0], name).copy_(linear.weight.T.expand(3, -1, -1))
    same(shown(bank, batch), shown(tied, batch))
    audio = tied(batch).extras["dominant"] == 1
    for maps, noticing in (("q", audio), ("k", ~audio), ("v", ~audio)):  # changed for audio only
        other = copy.deepcopy(bank)
        with torch.no_grad():
            getattr(other.layers[0].cma[0], maps)[1] *= -3
            moved = (other(batch).prediction - bank(batch).prediction).abs() > 0
        assert torch.equal(moved, noticing)


def test_st_has_the_value_of_hard_and_its_own_gradient():
    hard, st, batch = make(), make(select="st"), batch_of()
    st.load_state_dict(hard.state_dict())
    same(shown(st, batch), shown(hard, batch), atol=1e-6)
    grads = [torch.autograd.grad(total(m, batch), m.scorer[-1].weight)[0] for m in (hard, st)]
    assert (grads[0] - grads[1]).abs().max() > 1e-5


def test_st_keeps_the_order_of_auxiliaries_by_score():
    switches, batch = {"cma_share": "role", "order_aux": "by_score"}, batch_of()
    hard, st, fixed = make(**switches), make(select="st", **switches), make(cma_share="role")
    for other in (st, fixed):
        other.load_state_dict(hard.state_dict())
    assert not torch.equal(fixed(batch).prediction, hard(batch).prediction)
    same(shown(st, batch), shown(hard, batch), atol=1e-6)


@pytest.mark.parametrize("weights", [{}, {"alpha": 0.0, "beta": 0.0}, {"alpha": 3.0, "beta": 2.0}])
def test_under_hard_the_scorer_learns_through_eq_5_only(weights):
    batch = batch_of()
    ones = make(scores="ones", **weights)
    total(ones, batch).backward()
    assert all(p.grad is None for p in ones.scorer.parameters())
    network = make(**weights)
    total(network, batch).backward()
    assert all(p.grad.any() for p in network.scorer.parameters())
    through_h = make(scores="ones", select="st", **weights)
    total(through_h, batch).backward()
    assert all(p.grad.any() for p in through_h.scorer.parameters())


def test_the_alignment_loss_does_not_reach_the_scorer():
    network, batch = make(), batch_of()
    align = network.loss(batch, network(batch))["align"]
    assert torch.autograd.grad(align, list(network.scorer.parameters()), allow_unused=True) == (None,) * 4


@pytest.mark.parametrize("letter", "tav")
def test_fixed_equals_hard_when_the_scores_force_it(letter):
    hard, fixed, batch = make(), make(select=f"fixed:{letter}"), batch_of()
    with torch.no_grad():
        hard.scorer[-1].weight.zero_()
        hard.scorer[-1].bias.copy_(torch.tensor([float(letter == other) for other in "tav"]))
    fixed.load_state_dict(hard.state_dict())
    got, expected = shown(fixed, batch), shown(hard, batch)
    assert all(torch.equal(got[name], expected[name]) for name in expected)


@pytest.mark.parametrize("letter", "tav")
@pytest.mark.parametrize("mode", ["mix_inputs", "mix_outputs"])
@pytest.mark.parametrize("kind", ["aligned", "unaligned"])
def test_soft_with_one_hot_scores_is_hard(letter, mode, kind):
    switches = {"length_mode": "padded", "cma_share": "role"}
    hard = make(data(kind), **switches)
    soft = make(data(kind), select="soft", soft_mode=mode, **switches)
    with torch.no_grad():
        hard.scorer[-1].bias.copy_(torch.tensor([1e4 * (letter == other) for other in "tav"]))
    soft.load_state_dict(hard.state_dict())
    same(shown(soft, batch_of(kind)), shown(hard, batch_of(kind)), atol=1e-6)


def test_soft_outputs_are_the_three_fixed_outputs_mixed():
    soft, batch = make(select="soft", soft_mode="mix_outputs"), batch_of()
    expected, s = 0, soft(batch).extras["contribution"]
    for m, letter in enumerate("tav"):
        fixed = make(select=f"fixed:{letter}")
        fixed.load_state_dict(soft.state_dict())
        expected = expected + s[:, m] * fixed(batch).prediction
    close(soft(batch).prediction, expected)


@pytest.mark.parametrize("modalities", ["tav", "ta", "v"])
def test_times3_leaves_features_unchanged_under_uniform_scores(modalities):
    scaled, ones = make(weight_scale="times3", modalities=modalities), make(scores="ones", modalities=modalities)
    with torch.no_grad():
        scaled.scorer[-1].weight.zero_()
        scaled.scorer[-1].bias.zero_()
    ones.load_state_dict(scaled.state_dict())
    same(shown(scaled, batch_of()), shown(ones, batch_of()))
    both = make(weight_scale="times3", scores="ones", modalities=modalities)
    both.load_state_dict(scaled.state_dict())
    same(shown(both, batch_of()), shown(ones, batch_of()))


def test_oracle_takes_the_planted_modality():
    batch = batch_of()
    assert torch.equal(make(select="oracle")(batch).extras["dominant"], batch.truth["dominant"])


def test_random_is_even_fixed_per_sample_and_keeps_to_what_is_available():
    lengths = torch.full((3000, 3), 2)
    batch = Batch(*(torch.zeros(3000, 2, size) for size in (8, 6, 7)), lengths, torch.zeros(3000), torch.arange(3000))
    for modalities, shares in (("tav", (1 / 3, 1 / 3, 1 / 3)), ("tv", (0.5, 0, 0.5)), ("a", (0, 1, 0))):
        network = make(select="random", modalities=modalities)
        p = network(batch).extras["dominant"]
        np.testing.assert_allclose(torch.bincount(p, minlength=3) / 3000, shares, atol=0.03)
        assert torch.equal(network.train()(batch).extras["dominant"], p)


def test_gumbel_draws_in_training_only():
    network, batch = make(select="gumbel"), batch_of()
    same(shown(network, batch), shown(network, batch))
    assert torch.equal(network(batch).extras["dominant"], network(batch).extras["contribution"].argmax(-1))
    network.train()
    extras = network(batch_of(index=[*range(N)] * 200)).extras
    drawn = F.one_hot(extras["dominant"], 3).double().unflatten(0, (200, N)).mean(0)
    np.testing.assert_allclose(drawn, extras["contribution"][:N].detach(), atol=0.12)


# --- missing modalities ---


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule not in ("fixed:t", "fixed:a", "fixed:v", "oracle")])
def test_what_a_sample_lacks_contributes_nothing_and_never_dominates(rule):
    network, batch = make(data("unaligned"), **RULES[rule]), batch_of("unaligned", range(4))
    lengths = batch.lengths.clone()
    for sample, missing in enumerate(([1], [1, 2], [0], [0, 2])):
        lengths[sample, missing] = 0
    extras = network(batch._replace(lengths=lengths)).extras
    assert not extras["contribution"][lengths == 0].any()
    close(extras["contribution"].sum(-1), torch.ones(4))
    assert (lengths[range(4), extras["dominant"]] > 0).all()
    assert extras["gate"].shape == (4, LAYERS)
    assert ((extras["gate"] >= 0) & (extras["gate"] <= 1)).all()


@pytest.mark.parametrize("row", UNIMODAL)
def test_one_modality_alone_takes_a_shortcut_only(row):
    network, batch = make(modalities=UNIMODAL[row]), batch_of()
    expected = network(batch).prediction
    for i, layer in enumerate(network.layers):
        assert isinstance(layer, LoneLayer) == (len(row) == 1)
        network.layers[i] = GuidedFusionLayer(network.c).eval()
        network.layers[i].load_state_dict(layer.state_dict())
    assert torch.equal(network(batch).prediction, expected)


@pytest.mark.parametrize("row", UNIMODAL)
def test_losses_leave_the_absent_modality_out(row):
    network, batch = make(modalities=UNIMODAL[row], alpha=0.5, beta=0.25), batch_of()
    output = network(batch)
    terms, Z, G = network.loss(batch, output), output.extras["shared"], output.extras["pooled"]
    there = [m for m in range(3) if "tav"[m] in UNIMODAL[row]]
    pairs = [(m, n) for m in there for n in there if m != n]
    close(terms["align"], sum((slow_nce(Z[:, m], Z[:, n], 0.07) for m, n in pairs), torch.tensor(0.0)))
    cor = sum(slow_nce(network.to_modality[m](output.extras["fused"]), G[:, m], 0.1) for m in there)
    close(terms["cor"], cor)
    assert terms["align"] == 0 or len(there) > 1
    close(terms["total"], terms["task"] + 0.5 * terms["align"] + 0.25 * cor)


# --- losses ---


def slow_nce(q: torch.Tensor, k: torch.Tensor, tau: float) -> torch.Tensor:
    """Eq. 1 as printed, mean over i."""
    terms = []
    for i in range(len(q)):
        sims = [torch.exp(F.cosine_similarity(q[i], k[j], dim=0) / tau) for j in range(len(k))]
        terms.append(-torch.log(sims[i] / sum(sims)))
    return sum(terms) / len(terms)


def slow_full(a: torch.Tensor, b: torch.Tensor, tau: float) -> torch.Tensor:
    """NT-Xent with 2B-1 candidates: the sum of both directions' means."""
    both, B, terms = torch.cat([a, b]), len(a), []
    for i in range(2 * B):
        others = {j: torch.exp(F.cosine_similarity(both[i], both[j], dim=0) / tau) for j in range(2 * B) if j != i}
        terms.append(-torch.log(others[(i + B) % (2 * B)] / sum(others.values())))
    return sum(terms) / B


@pytest.mark.parametrize("B", [1, 2, 7])
def test_alignment_of_identical_features_is_six_log_batch(B):
    Z = torch.ones(B, 3, D)
    for switches, letters, expected in (
        ({}, "tav", 6 * math.log(B)),
        ({"align_reduction": "mean6"}, "tav", math.log(B)),
        ({"align_reduction": "mean6"}, "ta", math.log(B)),
        ({"ntxent": "full"}, "tav", 6 * math.log(2 * B - 1)),
        ({"pair_weights": [1, 2, 0.5]}, "tav", 7 * math.log(B)),
        ({}, "tv", 2 * math.log(B)),
        ({}, "t", 0.0),
    ):
        assert Alignment(replace(AMSGFNConfig(), **switches), letters)(Z).item() == pytest.approx(expected, abs=1e-5)


def test_alignment_of_one_sample_repeated_is_six_log_batch():
    network, batch = make(), batch_of(index=[5] * 7)
    assert network.loss(batch, network(batch))["align"].item() == pytest.approx(6 * math.log(7), abs=1e-4)


def test_alignment_is_eqs_1_and_2():
    Z, weights = torch.randn(5, 3, D), [0.5, 1.0, 2.0]
    pairs = [((0, 1), 0.5), ((0, 2), 1.0), ((1, 2), 2.0)]
    for ntxent, slow in (("rowwise", lambda a, b: slow_nce(a, b, 0.3) + slow_nce(b, a, 0.3)), ("full", slow_full)):
        arguments = () if ntxent == "rowwise" else (0.3,)
        expected = sum(weight * slow(Z[:, m], Z[:, n], *arguments) for (m, n), weight in pairs)
        close(make(ntxent=ntxent, tau=0.3, pair_weights=weights).align(Z), expected, atol=1e-5)


@pytest.mark.parametrize("head", ["mlp", "linear", "shared", "none"])
def test_heads_map_each_modality_on_its_own(head):
    network, G = make(head=head), torch.randn(4, 3, D)
    got = network.ccam(G)
    for m in range(3):
        own = network.ccam.heads[0 if head == "shared" else m]
        close(got[:, m], own(G[:, m]))
    sizes = {"mlp": 6 * (D * D + D), "linear": 3 * (D * D + D), "shared": 2 * (D * D + D), "none": 0}
    assert sum(p.numel() for p in network.ccam.parameters()) == sizes[head]


def test_correlation_loss_switches():
    batch = batch_of()
    base = make()
    f, G = (base(batch).extras[name] for name in ("fused", "pooled"))
    Z = base(batch).extras["shared"]
    s, p = (base(batch).extras[name] for name in ("contribution", "dominant"))
    q = [base.to_modality[m](f) for m in range(3)]

    def rows(m, k=G, transpose=False):
        S = F.normalize(q[m], dim=-1) @ F.normalize(k[:, m], dim=-1).T / 0.1
        return -torch.log_softmax(S.T if transpose else S, -1).diagonal()

    for switches, expected in (
        ({}, sum(rows(m).mean() for m in range(3))),
        ({"cor_direction": "both"}, sum((rows(m) + rows(m, transpose=True)).mean() for m in range(3))),
        ({"cor_target": "projected"}, sum(rows(m, Z).mean() for m in range(3))),
        ({"cor_target": "detached"}, sum(rows(m).mean() for m in range(3))),
        ({"cor_modalities": "aux_only"}, sum((rows(m) * (p != m)).mean() for m in range(3))),
        ({"cor_modalities": "score_weighted"}, sum((rows(m) * s[:, m]).mean() for m in range(3))),
        ({"cor_score": "bilinear"}, sum(F.cross_entropy(q[m] @ G[:, m].T / 0.1, torch.arange(N)) for m in range(3))),
    ):
        network = make(**switches)
        network.load_state_dict(base.state_dict())
        close(network.loss(batch, network(batch))["cor"], expected, atol=1e-5)


def test_a_detached_target_is_not_moved():
    for target, moves in (("pooled", True), ("detached", False)):
        network, batch = make(cor_target=target), batch_of()
        extras = network(batch).extras
        pooled = extras["pooled"].detach().requires_grad_()
        cor = network.to_modality(Trace(**extras | {"pooled": pooled}))
        gradient = torch.autograd.grad(cor, pooled, allow_unused=True)[0]
        assert (gradient is not None) == moves


@pytest.mark.parametrize("task_loss", ["mse", "l1", "smooth_l1"])
@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize("ccam", [True, False])
def test_the_total_is_the_weighted_sum_of_its_terms(task_loss, beta, ccam):
    network, batch = make(task_loss=task_loss, alpha=0.7, beta=beta, ccam=ccam), batch_of()
    output = network(batch)
    terms = network.loss(batch, output)
    error = (output.prediction - batch.labels).abs()
    task = {
        "mse": error**2,
        "l1": error,
        "smooth_l1": torch.where(error < 1, error**2 / 2, error - 0.5),
    }[task_loss].mean()
    close(terms["task"], task)
    assert set(terms) == {"task", "total"} | ({"align"} if ccam else set()) | ({"cor"} if beta else set())
    close(terms["total"], task + 0.7 * terms.get("align", 0) + beta * terms.get("cor", 0))


# --- switches and variants ---


@pytest.mark.parametrize("sizes", [{"d": 8, "n_layers": 1}, {"d": 32}, {"d": 32, "ccam": False, "beta": 0.0}])
def test_the_concat_control_has_as_many_parameters(sizes):
    full, control = (build_model("amsgfn", data(), heads=4, **sizes, **more) for more in ({}, {"fusion": "concat_mlp"}))
    count = [sum(p.numel() for p in network.parameters()) for network in (full, control)]
    assert count[1] == pytest.approx(count[0], rel=0.02)
    assert not any(isinstance(module, nn.LayerNorm) for module in control.modules())  # nothing of the fusion is left


def test_ablations_remove_exactly_what_they_name():
    full = set(make().state_dict())

    def removed(**switches) -> set[str]:
        keys = set(make(**switches).state_dict())
        assert keys <= full
        return {key.split(".")[0] for key in full - keys}

    assert removed(**VARIANTS["w/o CCAM"]) == {"ccam"}
    assert removed(**VARIANTS["w/o TB"]) == {"tb"}
    assert removed(**VARIANTS["w/o Cor"]) == {"to_modality"}
    assert removed(**VARIANTS["w/o both contrastive"]) == {"ccam", "to_modality"}
    for name in ("w/o DMGF", "w/o DMGF (sum)", "w/o DMGF (dominant only)"):
        assert removed(**VARIANTS[name]) == {"layers"}
    assert make(gate="off").layers[0].gate is open_gate
    for name in ("full", "T", "V+A", "t-oriented", "t-oriented, s=1", "random dominant", "s=1, dynamic p"):
        assert removed(**VARIANTS[name]) == set()


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"heads": 3}, "The width d=128 must be a multiple of heads=3"),
        ({"select": "fixed:v", "modalities": "ta"}, "select='fixed:v' fixes a modality other than the available ta"),
        ({"select": "oracle", "modalities": "ta"}, "select='oracle' needs all three modalities"),
    ],
)
def test_switches_that_contradict_each_other_are_refused(switches, message):
    with pytest.raises(ValueError, match=message):
        build_model("amsgfn", data(), **switches)


def test_oracle_needs_planted_truth():
    bare = replace(data(), train=replace(data().train, truth={}))
    with pytest.raises(ValueError, match="needs the planted dominant modality"):
        make(bare, select="oracle")


def test_missing_zero_fill_scores_the_zeros():
    network = make(modalities="tv", missing="zero_fill")
    output = network(batch_of())
    assert (output.extras["contribution"][:, 1] > 0).all()
    assert (output.extras["pooled"][:, 1] == 0).all()


# --- compiling, stacking, copying ---


@pytest.mark.parametrize("case", ["gumbel", "soft, inputs", "soft, outputs"])
def test_the_forward_is_one_graph(case):
    network, batch = make(n_layers=1, **RULES[case]), batch_of()
    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    assert torch.equal(compiled(batch).prediction, network(batch).prediction)
    if case == "gumbel":
        assert compiled.train()(batch).prediction.isfinite().all()


@pytest.mark.parametrize("switches", [{"select": "gumbel"}, {"cma_share": "modality", "head": "shared"}])
def test_seeds_can_be_stacked(switches):
    check_stacking([make(seed=seed, **switches) for seed in range(3)], batch_of())
