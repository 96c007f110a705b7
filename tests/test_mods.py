"""MODS: its size, routing and graph in loops, the selection and layers around the primary modality, the contrast."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from replay import count, of_recipe
from toy import close, dataset

from msa_lib.models import build_model
from msa_lib.models.mods import DEGREE, GDC, FactoredRouting, MODSConfig, Routing, Trace
from msa_lib.train import TrainConfig

TINY = {"d": 4, "heads": 2, "n_layers": 2, "dropout": 0.0}
SOME = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 1], [1, 1, 0], [1, 1, 1], [1, 1, 1]]).bool()


def made(**switches):
    data = dataset((20, 9, 7))
    torch.manual_seed(0)
    network = build_model("mods", data, **{**TINY, **switches}).eval()
    with torch.no_grad():
        for p in network.parameters():
            p.mul_(2.0)
    batch = data.train.batch(range(6))
    return network, batch._replace(lengths=batch.lengths * SOME)


def counted(dims: tuple[int, int, int], n: int, d: int, n_layers: int) -> int:
    """By hand."""
    linear, norm, pff = d * d + d, 2 * d, 8 * d * d + 5 * d
    gdc = sum(n * d * D + 2 * d * d + 2 * linear + norm for D in dims[1:])
    forth, back = 3 * norm + 8 * linear + pff, 4 * linear + norm + pff
    selector = 3 * d + 3 * d * d + d + 3 * d + 3
    return dims[0] * d + d + gdc + selector + n_layers * forth + (n_layers - 1) * back + d + linear + d + 1 + 3 * linear


@pytest.mark.parametrize(
    ("data", "dims", "n", "d", "n_layers"),
    [("mosi", (768, 5, 20), 50, 128, 3), ("mosei", (768, 74, 35), 50, 128, 3), ("sims", (768, 33, 709), 39, 64, 3)],
)
def test_it_has_as_many_parameters_as_counted(data, dims, n, d, n_layers):
    assert count("mods", data, **of_recipe("mods", data)) == counted(dims, n, d, n_layers)


def test_votes_per_frame_have_a_matrix_for_each():
    gap = count("mods", "mosi", votes="per frame") - count("mods", "mosi")
    assert gap == 50 * 128 * (374 * 5 + 499 * 20)


def slow_routing(W: np.ndarray, x: np.ndarray, frames: int, elementwise: bool, iterations: int) -> np.ndarray:
    """One sample; W [T,n,d,D] -> N [n,d]."""
    n, d = W.shape[1:3]
    b = np.zeros((frames, n, d))
    for turn in range(iterations):
        N = np.zeros((n, d))
        for i in range(frames):
            r = np.exp(b[i]) / np.exp(b[i]).sum(0)
            for j in range(n):
                N[j] += r[j] * (W[i, j] @ x[i])
        if turn < iterations - 1:
            for i in range(frames):
                for j in range(n):
                    agreement = (W[i, j] @ x[i]) * np.tanh(N[j])
                    b[i, j] += agreement if elementwise else agreement.sum()
    return N


@pytest.mark.parametrize("votes", ["shared", "per frame"])
@pytest.mark.parametrize("agreement", ["scalar", "elementwise"])
@pytest.mark.parametrize("iterations", [1, 3])
def test_routing_by_agreement_in_loops(votes, agreement, iterations):
    torch.manual_seed(0)
    c = MODSConfig(d=4, votes=votes, agreement=agreement, routing=iterations)
    route = GDC(3, 5, 6, c).route.double()
    assert isinstance(route, FactoredRouting) == ((votes, agreement) == ("shared", "scalar"))
    x, lengths = torch.randn(2, 7, 3).double(), (5, 3)  # padded by two steps more than the data have
    mask = torch.arange(7) < torch.tensor(lengths)[:, None]
    got = route(x * mask[..., None], mask)
    W = route.weight.detach().numpy()
    W = W if votes == "per frame" else np.broadcast_to(W, (5, *W.shape))
    for row, sample, frames in zip(got, x.numpy(), lengths, strict=True):
        expected = slow_routing(W, sample, frames, agreement == "elementwise", iterations)
        np.testing.assert_allclose(row.detach().numpy(), expected, atol=1e-12)
    if isinstance(route, FactoredRouting):
        close(Routing.forward(route, x * mask[..., None], mask), got)


@pytest.mark.parametrize("degree", DEGREE)
def test_the_graph_of_capsules_in_loops(degree):
    torch.manual_seed(1)
    gdc = GDC(3, 5, 6, MODSConfig(d=4, degree=degree)).double()
    with torch.no_grad():
        for p in gdc.parameters():
            p.mul_(3.0)
    x, mask = torch.randn(1, 5, 3).double(), torch.ones(1, 5).bool()
    N = gdc.route(x, mask)[0].detach()
    E = [[max(0.0, (gdc.q(a) @ gdc.k(b)).item() / 2) for b in N] for a in N]  # sqrt(4) = 2
    rows, columns = [max(sum(e), 1e-6) for e in E], [max(sum(e), 1e-6) for e in zip(*E, strict=True)]
    other = columns if degree == "both" else rows
    H = list(N)
    for layer in gdc.layers:
        mixed = [sum(E[i][j] / math.sqrt(rows[i] * other[j]) * H[j] for j in range(6)) for i in range(6)]
        H = [torch.relu(layer(h)) for h in mixed]
    got, valid = gdc(x, mask)
    close(got[0], gdc.norm(torch.stack(H)))
    assert valid.all()
    assert valid.shape == (1, 6)


def test_a_graph_that_is_symmetric_is_normalised_as_printed():
    E = torch.rand(2, 5, 5)
    E = E + E.mT
    root = torch.diag_embed(E.sum(-1).rsqrt())
    for normalise in DEGREE.values():
        close(normalise(E), root @ E @ root)


def parts(network, batch):
    """H_m and their masks, one modality at a time."""
    raw, masks = network.inputs(batch)
    H = [(network.text(raw[0]) * masks[0][..., None], masks[0])]
    return H + [gdc(x, mask) for gdc, x, mask in zip(network.compress, raw[1:], masks[1:], strict=True)]


@pytest.mark.parametrize("switches", [{}, {"maps": "by role", "aux_residual": True}, {"primary": "vision"}])
def test_each_sample_is_read_around_its_own_primary_modality(switches):
    """The equations of one sample at a time, with lists in place of gathered tensors."""
    network, batch = made(**switches)
    output = network(batch)
    t = Trace(**output.extras)
    everything, chosen = parts(network, batch), []
    for i in range(6):
        H = [h[i : i + 1, : int(m[i].sum())] for h, m in everything]
        h = []
        for pool, x in zip(network.pools, H, strict=True):
            a = torch.softmax(x @ pool.w.weight[0] / math.sqrt(4), -1)
            h.append((a[..., None] * x).sum(1))
        logits = network.selector(torch.cat(h, -1))[0].detach()
        w = torch.softmax(logits.masked_fill(~SOME[i], -torch.inf), -1)
        close(t.contribution[i], w)
        p = 2 if "primary" in switches else max(range(3), key=lambda m: w[m].item())
        chosen.append(p)
        assert t.dominant[i] == p
        x = [weight * one for weight, one in zip(w, H, strict=True)]
        aux = [m for m in range(3) if m != p]
        for layer in network.layers:

            def attend(f, q, k):
                everywhere = torch.ones(1, k.shape[1], dtype=torch.bool)
                return f(q, k, everywhere) if k.shape[1] else torch.zeros_like(q)

            q = layer.norm_p(x[p])
            P = x[p] + attend(layer.sa, q, q)
            for role, m in enumerate(aux):
                P = P + attend(layer.to_primary[role % len(layer.to_primary)], q, layer.norm_a(x[m]))
            if layer is not network.layers[-1]:
                for role, m in enumerate(aux):
                    maps = layer.back.from_primary
                    new = attend(maps[role % len(maps)], layer.norm_a(x[m]), P)
                    new = new + (x[m] if switches.get("aux_residual") else 0)
                    x[m] = layer.back.pff(layer.back.norm(new)) + new
            x[p] = layer.pff(layer.norm(P)) + P
        a = torch.softmax(x[p] @ network.pool.w.weight[0] / 2, -1)
        close(output.prediction[i], network.out((a[..., None] * x[p]).sum(1))[0, 0])
    assert len(set(chosen)) > 1 or switches


@pytest.mark.parametrize("similarity", ["once", "twice"])
def test_the_contrast_is_with_the_guesses_from_the_primary_vector(similarity):
    network, batch = made(alpha=0.5, similarity=similarity)
    output = network(batch)
    t, total = Trace(**output.extras), 0.0
    for m in range(3):
        guess, terms = network.guess[m](t.fused), []
        for i in range(6):
            if SOME[i, m]:
                s = torch.cosine_similarity(t.pooled[i, m][None], guess)
                s = s.exp() if similarity == "twice" else s
                terms.append(-(s[i].exp() / s.exp().sum()).log())
        total += torch.stack(terms).mean().item()
    terms = network.loss(batch, output)
    assert terms["nce"].item() == pytest.approx(total, rel=1e-5)
    assert terms["total"].item() == pytest.approx((terms["task"] + 0.5 * terms["nce"]).item())


def test_adam_decays_in_the_gradient():
    """By hand, at the first step: the rate times the sign of gradient plus decay, on matrices; biases do not decay."""
    data = dataset((20, 9, 7))
    network = build_model("mods", data, **TINY)
    procedure = network.Procedure(network, data, TrainConfig(lr=1e-3, weight_decay=10.0, clip=0.0))
    batch = data.train.batch(range(6))
    network.zero_grad()
    network.loss(batch, network(batch))["total"].backward()
    W, b = network.text.weight, network.text.bias
    signs = (W.grad + 10.0 * W).sign().clone(), b.grad.sign().clone()
    before = W.detach().clone(), b.detach().clone()
    procedure.step(batch, "main")
    close(before[0] - W.detach(), 1e-3 * signs[0], atol=1e-5)
    close(before[1] - b.detach(), 1e-3 * signs[1], atol=1e-5)
