"""DIB: its size, the entropy by the full eigendecomposition, the kernel and the fusion in loops, its switches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from replay import count
from toy import close, dataset

from msa_lib.models import build_model
from msa_lib.models.dib import BottleneckFusion, Trace, drawn, information, kernel, renyi

SMALL = {"d": 4, "heads": 2, "n_layers": 1, "hidden": 6}


@pytest.mark.parametrize(("data", "dims"), [("mosi", (768, 5, 20)), ("mosei", (768, 74, 35)), ("sims", (768, 33, 709))])
def test_it_has_as_many_parameters_as_counted(data, dims):
    """By hand: convolutions, two transformers of three layers, four bottlenecks, the latents, four readouts."""
    d, hidden = 50, 1024
    transformer = 3 * (12 * d * d + 13 * d) + 2 * d
    bottleneck = d * hidden + hidden + hidden * 2 * d + 2 * d
    by_hand = 3 * d * sum(dims) + 2 * transformer + 4 * bottleneck + 4 * d + 3 + 4 * (d + 1)
    assert count("dib", data) == by_hand


def drawn_vectors(n: int = 14, d: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=(1, n, d)))


def by_decomposition(K: np.ndarray, alpha: float, rank: int | None = None) -> float:
    """Independent: singular values of the unit-trace kernel; all of them, or the tail replaced by its mean."""
    values = np.linalg.svd(K / np.trace(K), compute_uv=False)
    if rank is not None and rank < len(values):
        values = np.concatenate([values[:rank], np.full(len(values) - rank, values[rank:].mean())])
    return np.log2((values**alpha).sum()) / (1 - alpha)


def gaussian(x: np.ndarray, neighbours: int) -> np.ndarray:
    """In loops."""
    distance = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
    width = np.mean([sorted(row)[1 : neighbours + 1] for row in distance])
    return np.exp(-((distance / width) ** 2))


@pytest.mark.parametrize("alpha", [1.9, 1.01, 3.0])
@pytest.mark.parametrize("rank", [1, 4, 13, 14, 30])
def test_the_entropy_is_that_of_the_full_eigendecomposition(alpha, rank):
    x = drawn_vectors()
    K = kernel(x, torch.ones(1, 14, dtype=torch.bool))
    np.testing.assert_allclose(K[0], gaussian(x[0].numpy(), 5), atol=1e-12)
    got = renyi(K, torch.tensor([14]), alpha, rank)[0]
    assert got.item() == pytest.approx(by_decomposition(K[0].numpy(), alpha, rank), abs=1e-9)
    if rank >= 13:  # a tail of one is its own mean: nothing is lost
        assert got.item() == pytest.approx(by_decomposition(K[0].numpy(), alpha), abs=1e-9)
    else:  # a flatter spectrum has more entropy
        assert got.item() > by_decomposition(K[0].numpy(), alpha)


def test_the_entropy_at_its_ends():
    """All alike: 0 bits. All apart: log2 n, at any order and rank. Nothing there: 0."""
    n = torch.tensor([8, 8, 0, 1])
    one = torch.zeros(8, 8)
    one[3, 3] = 1
    K = torch.stack([torch.ones(8, 8), torch.eye(8), torch.zeros(8, 8), one]).double()
    for alpha in (1.5, 2.0):
        for rank in (1, 3, 9):
            expected = [by_decomposition(np.ones((8, 8)), alpha, None), 3.0, 0.0, 0.0]
            np.testing.assert_allclose(renyi(K, n, alpha, rank), expected, atol=1e-6)


def test_the_information_is_of_the_product_of_the_kernels():
    x, z = drawn_vectors(), drawn_vectors(seed=1)
    K_x, K_z = (kernel(v, torch.ones(1, 14, dtype=torch.bool)) for v in (x, z))
    got = information(K_x, K_z, torch.tensor([14]), 1.9, 14)[0].item()
    a, b = K_x[0].numpy(), K_z[0].numpy()
    assert got == pytest.approx(by_decomposition(a, 1.9) + by_decomposition(b, 1.9) - by_decomposition(a * b, 1.9))
    constant = torch.ones_like(K_z)  # z that says nothing
    assert information(K_x, constant, torch.tensor([14]), 1.9, 14)[0].item() == pytest.approx(0, abs=1e-9)


def test_the_gradient_of_the_entropy_is_that_of_finite_differences():
    x = drawn_vectors(7, 2).requires_grad_()
    here, n = torch.ones(1, 7, dtype=torch.bool), torch.tensor([7])
    with torch.no_grad():
        width = kernel(x, here)[0, 0, 1].log().neg().rsqrt() * (x[0, 0] - x[0, 1]).norm()  # it has no gradient

    def entropy(v):
        square = (v[:, :, None] - v[:, None]).square().sum(-1)
        return renyi(torch.exp(-square / width**2), n, 1.9, 3)

    assert torch.autograd.gradcheck(entropy, (x,))
    ours = torch.autograd.grad(renyi(kernel(x, here), n, 1.9, 3).sum(), x)[0]
    close(ours, torch.autograd.grad(entropy(x).sum(), x)[0])


@pytest.mark.parametrize("width", ["neighbours", "median"])
def test_samples_without_the_modality_are_not_in_its_kernel(width):
    x, here = drawn_vectors(9), torch.tensor([[True, False, True, True, True, False, True, True, True]])
    K = kernel(x, here, width)
    alone = kernel(x[:, here[0]], torch.ones(1, 7, dtype=torch.bool), width)
    close(K[:, here[0]][:, :, here[0]], alone)
    assert not K[:, ~here[0]].any()
    close(renyi(K, here.sum(-1), 1.9, 3), renyi(alone, torch.tensor([7]), 1.9, 3))
    for few in (0, 1):  # no pair, and so no distance
        none = torch.arange(9)[None] < few
        assert renyi(kernel(x, none, width), none.sum(-1), 1.9, 3).item() == pytest.approx(0)


def test_the_median_width_is_the_median_of_the_pairs():
    x = drawn_vectors(5)
    distance = np.array([np.linalg.norm(a - b) for i, a in enumerate(x[0].numpy()) for b in x[0].numpy()[:i]])
    middle = np.sort(distance)[4]  # of ten the lower one
    got = -torch.log(kernel(x, torch.ones(1, 5, dtype=torch.bool), "median")[0, 1, 0])
    assert got.item() == pytest.approx((distance[0] / middle) ** 2)


def attention(q: np.ndarray, keys: np.ndarray) -> np.ndarray:
    weights = np.exp(keys @ q / np.sqrt(len(q)))
    return weights @ keys / weights.sum()


@pytest.mark.parametrize("missing", [(), (1,), (0,), (0, 1, 2)])
def test_the_fusion_in_loops(missing):
    torch.manual_seed(0)
    fuse, here = BottleneckFusion(4, 2, 3).double(), [m for m in range(3) if m not in missing]
    latents, scale = torch.randn(2, 4).double(), [0.5, -0.7, 1.2]
    fuse.latents.data, fuse.scale.data = latents, torch.tensor(scale).double()
    z = np.random.default_rng(0).normal(size=(3, 4))
    z[list(missing)] = 0
    given = torch.tensor(z)[None], torch.tensor([[m in here for m in range(3)]])
    for _ in range(3):
        shared = np.array([attention(latent, z[here]) if here else np.zeros(4) for latent in latents.numpy()])
        z = z + np.array([s * attention(row, shared) for s, row in zip(scale, z, strict=True)])
    close(fuse(*given)[0], torch.tensor(z[0]))


def test_a_draw_has_the_mean_and_the_deviation_it_was_given():
    raw = torch.cat([torch.full((20_000, 1), 2.0), torch.full((20_000, 1), 5.5)], 1)
    torch.manual_seed(0)
    z = drawn(raw, training=True)
    assert z.mean().item() == pytest.approx(2, abs=0.03)
    assert z.std().item() == pytest.approx(np.log1p(np.exp(0.5)), abs=0.03)
    assert (drawn(raw, training=False) == 2).all()


def loss_terms(**switches):
    data = dataset()
    torch.manual_seed(0)
    network = build_model("dib", data, **SMALL, **switches).eval()
    batch = data.train.batch(range(12))
    output = network(batch)
    return network, batch, output, network.loss(batch, output)


def test_the_loss_by_hand():
    _, batch, output, terms = loss_terms(beta=0.5, rank=4)
    t = Trace(**output.extras)
    own = sum((t.own[:, m, 0] - batch.labels).abs().mean() for m in range(3))
    kept = 0.0
    for x, z in [*((t.x[:, m], t.z[:, m]) for m in range(3)), (t.fused, t.compact)]:
        a, b = (gaussian(v.detach().double().numpy(), 5) for v in (x, z))
        kept += by_decomposition(a, 1.9, 4) + by_decomposition(b, 1.9, 4) - by_decomposition(a * b, 1.9, 4)
    assert terms["compression"].item() == pytest.approx(kept, abs=1e-4)
    close(terms["own"], own)
    close(terms["total"], (output.prediction - batch.labels).abs().mean() + own + 0.5 * terms["compression"])


def test_each_switch_changes_what_it_says():
    _, _, output, terms = loss_terms()
    network, _, _, fewer = loss_terms(sufficiency="fused")
    assert list(fewer) == ["task", "compression", "total"]
    assert not any(name.startswith("own") for name, _ in network.named_parameters())
    _, _, _, entropy = loss_terms(compression="entropy")
    t = Trace(**output.extras)
    kept = sum(by_decomposition(gaussian(z.detach().double().numpy(), 5), 1.9, 10) for z in (*t.z.unbind(1), t.compact))
    assert entropy["compression"].item() == pytest.approx(kept, abs=1e-4)
    assert loss_terms(kernel_width="median")[3]["compression"] != terms["compression"]
    network, batch, output, _ = loss_terms(pool="last")
    text = network.encode(*network.inputs(batch))[0]
    close(
        Trace(**output.extras).x[:, 0],
        torch.stack([row[n - 1] for row, n in zip(text, batch.lengths[:, 0], strict=True)]),
    )


@pytest.mark.parametrize("wrong", [{"alpha": 1.0}, {"rank": 0}, {"latents": 0}])
def test_what_cannot_be_measured_is_refused(wrong):
    with pytest.raises(ValueError, match="alpha above 1"):
        build_model("dib", dataset(), **SMALL, **wrong)
