"""ICCN: its size, canonical correlations against closed forms, outer products, and its two stages."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from replay import count
from toy import close, dataset

from msa_lib.models import build_model
from msa_lib.models.iccn import ICCN, Trace, canonical_correlations
from msa_lib.train import TrainConfig, fit

TINY = {"d_av": 4, "channels": 2, "k": 3, "dropout": 0.0}
RHO = np.array([0.9, 0.5, 0.2])


def counted(dims: tuple[int, int, int], d: int = 32, c: int = 4, k: int = 50) -> int:
    """By hand; both poolings halve, rounding up."""
    sequences = sum(3 * D * d + d + 8 * d * (d + 1) for D in dims[1:])
    halved = [((size + 1) // 2 + 1) // 2 for size in (dims[0], d)]
    product = 9 * c + c + 9 * c * 2 * c + 2 * c + 2 * c * halved[0] * halved[1] * k + k
    return sequences + 2 * product + dims[0] + 2 * k + 1


@pytest.mark.parametrize(("data", "dims"), [("mosi", (768, 5, 20)), ("mosei", (768, 74, 35)), ("sims", (768, 33, 709))])
def test_it_has_as_many_parameters_as_counted(data, dims):
    assert count("iccn", data) == counted(dims)


def gaussian(n: int, exact: bool) -> tuple[torch.Tensor, torch.Tensor, np.ndarray, np.ndarray]:
    """Two views [n,3] of a Gaussian with canonical correlations RHO, mixed by A and B. `exact`: also in the sample."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(n, 6))
    if exact:
        z = z - z.mean(0)
        z = z @ np.linalg.inv(np.linalg.cholesky(z.T @ z / (n - 1))).T
    A, B = rng.normal(size=(3, 3)), rng.normal(size=(3, 3))
    x, y = z[:, :3], RHO * z[:, :3] + np.sqrt(1 - RHO**2) * z[:, 3:]
    return torch.tensor(x @ A.T + 5), torch.tensor(y @ B.T - 2), A, B


def test_the_correlations_of_a_gaussian_are_its_closed_form():
    """Whitened and mixed, the sample has exactly RHO; a free one nearly. A ridge only lowers them."""
    x, y, _, _ = gaussian(50, exact=True)
    everyone = torch.ones(50).bool()
    np.testing.assert_allclose(canonical_correlations(x, y, everyone, 1e-14).numpy(), RHO, atol=1e-9)
    assert (canonical_correlations(x, y, everyone, 0.1).numpy() < RHO).all()
    x, y, A, B = gaussian(200_000, exact=False)
    roots = np.linalg.eigvals(np.linalg.inv(A @ A.T) @ (A * RHO @ B.T) @ np.linalg.inv(B @ B.T) @ (A * RHO @ B.T).T)
    np.testing.assert_allclose(np.sort(np.sqrt(roots))[::-1], RHO)  # of the population, from its covariances
    got = canonical_correlations(x, y, torch.ones(200_000).bool(), 1e-9).numpy()
    np.testing.assert_allclose(got, RHO, atol=0.01)


def test_they_are_the_singular_values_of_the_whitened_covariance():
    """With the ridge, and symmetric roots from an eigendecomposition, over the samples that are there."""
    x, y, _, _ = gaussian(30, exact=False)
    here = torch.arange(30) % 3 > 0
    spoilt = torch.where(here[:, None], x, 1e3), torch.where(here[:, None], y, -1e3)
    x, y = x[here].numpy(), y[here].numpy()
    S = np.cov(x.T, y.T) + 0.05 * np.eye(6)

    def root(M):
        values, V = np.linalg.eigh(M)
        return V @ np.diag(values**-0.5) @ V.T

    T = root(S[:3, :3]) @ S[:3, 3:] @ root(S[3:, 3:])
    got = canonical_correlations(*spoilt, here, 0.05)
    np.testing.assert_allclose(got.numpy(), np.linalg.svd(T, compute_uv=False), atol=1e-12)
    assert canonical_correlations(*(z.float() for z in spoilt), here, 0.05).dtype == torch.float64


def test_their_gradient_by_finite_differences():
    x, y, _, _ = gaussian(8, exact=False)
    here = torch.arange(8) != 2
    inputs = x.requires_grad_(), y.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: canonical_correlations(a, b, here, 0.01).sum(), inputs)
    alike = torch.ones(4, 3, dtype=torch.double, requires_grad=True)  # all eigenvalues are the ridge
    for who in (torch.ones(4).bool(), torch.zeros(4).bool()):
        canonical_correlations(alike, alike, who, 0.01).sum().backward()
    assert alike.grad.isfinite().all()


def test_a_batch_no_larger_than_the_width_correlates_whatever_it_is():
    """Why such batches are refused."""
    noise = torch.randn(2, 4, 3, dtype=torch.double)
    assert canonical_correlations(*noise, torch.ones(4).bool(), 1e-10).min() > 0.999


def test_outer_products_are_read_by_convolutions():
    torch.manual_seed(0)
    data = dataset((20, 9, 7))
    network = build_model("iccn", data, **TINY).eval()
    batch = data.train.batch(range(6))
    lengths = batch.lengths.clone()
    lengths[1, 1] = lengths[2, 2] = lengths[3, 0] = 0
    batch = batch._replace(lengths=lengths)
    output = network(batch)
    t = Trace(**output.extras)
    assert t.both.tolist() == [True, False, False, False, True, True]
    for i in range(6):
        n_t, n_a, n_v = lengths[i].tolist()
        H_t = batch.text[i, :n_t].mean(0) if n_t else torch.zeros(3)
        K = []
        for n, x, sequence, product in (
            (n_a, batch.audio, network.audio, network.with_audio),
            (n_v, batch.vision, network.vision, network.with_vision),
        ):
            if not (n and n_t):
                K.append(torch.zeros(3))
                continue
            H = sequence(x[i : i + 1, :n], torch.ones(1, n).bool())[0]
            picture = torch.tensor([[[[(a * b).item() for b in H] for a in H_t]]])
            for conv in (product.conv1, product.conv2):
                picture = F.relu(conv(picture))
                picture = F.pad(picture, (0, picture.shape[-1] % 2, 0, picture.shape[-2] % 2))  # 0 is least
                picture = picture.unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2)).amax((-1, -3))
            K.append(product.out(picture.flatten()))
        close(t.ta[i], K[0])
        close(t.tv[i], K[1])
        close(output.prediction[i], network.head(torch.cat([K[0], H_t, K[1]]))[0])


def procedure_of(epochs: int = 10, batch_size: int = 5, **switches):
    data = dataset((20, 9, 7))
    torch.manual_seed(0)
    network = build_model("iccn", data, **TINY, **switches)
    return network, ICCN.Procedure(network, data, TrainConfig(epochs=epochs, batch_size=batch_size, lr=1e-2, clip=0.0))


def epoch_of(network, procedure, epoch):
    """Trains one; -> pass, terms, and which parts moved."""
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    network.train()
    procedure.begin_epoch(epoch)
    ((name, batches),) = procedure.passes(epoch, torch.Generator().manual_seed(epoch))
    for batch in batches:
        terms = procedure.step(batch, name)
    moved = {n.split(".")[0] for n, p in network.named_parameters() if not torch.equal(p, before[n])}
    procedure.end_epoch({}, 0.0)
    return name, list(terms), moved


def test_the_first_stage_is_the_correlation_and_the_second_the_task():
    network, procedure = procedure_of(epochs=10)
    assert procedure.first_epoch == 4  # a share of 0.3
    encoders = {"audio", "vision", "with_audio", "with_vision"}
    for epoch in (1, 2, 3):
        assert epoch_of(network, procedure, epoch) == ("cca", ["correlation"], encoders)
    kept = {name: value.clone() for name, value in procedure.memory.items()}
    name, terms, moved = epoch_of(network, procedure, 4)
    assert (name, terms) == ("main", ["task", "total"])
    assert moved <= encoders | {"head"}
    assert epoch_of(network, procedure, 5)[2] == {"head"}
    for name, p in network.named_parameters():
        assert name.startswith("head.") or torch.equal(p, kept[name])


def test_what_correlates_best_on_validation_is_kept():
    network, procedure = procedure_of()
    whole = procedure.dataset.valid.batch(range(9))
    found = []
    for epoch in range(1, 4):
        epoch_of(network, procedure, epoch)
        weights = {n: p.detach().clone() for n, p in network.named_parameters() if not n.startswith("head.")}
        with torch.no_grad():
            found.append((network.correlation(Trace(**network.eval()(whole).extras)).item(), weights))
        best, weights = max(found, key=lambda pair: pair[0])
        assert procedure.memory["correlation"].item() == pytest.approx(best, abs=1e-5)
        assert all(torch.equal(procedure.memory[name], value) for name, value in weights.items())


def test_the_first_step_climbs_the_correlation():
    """Adam's first: the rate times the sign of the gradient."""
    network, procedure = procedure_of()
    procedure.begin_epoch(1)
    batch = procedure.dataset.train.batch(range(8))
    network.zero_grad()
    network.correlation(Trace(**network(batch).extras)).backward()
    W = network.with_audio.out.weight
    gradient, before = W.grad.clone(), W.detach().clone()
    procedure.step(batch, "cca")
    clear = gradient.abs() > 1e-3  # of a rank-deficient covariance the rest is rounding
    assert clear.sum() > 5
    close((W.detach() - before)[clear], 1e-2 * gradient[clear].sign(), atol=1e-4)


def test_jointly_there_is_one_stage_and_one_loss():
    network, procedure = procedure_of(training="joint", cca_weight=0.5)
    assert procedure.first_epoch == 1
    name, terms, moved = epoch_of(network, procedure, 1)
    assert (name, terms) == ("main", ["task", "correlation", "total"])
    assert moved == {"audio", "vision", "with_audio", "with_vision", "head"}
    batch = procedure.dataset.train.batch(range(8))
    terms = network.loss(batch, network(batch))
    close(terms["total"], terms["task"] - 0.5 * terms["correlation"])


@pytest.mark.parametrize("training", ["stages", "joint"])
def test_a_batch_must_be_larger_than_the_width(training):
    with pytest.raises(ValueError, match="A batch of 3 samples is no larger than k=3"):
        procedure_of(batch_size=3, training=training)
    _, procedure = procedure_of(batch_size=6, training=training)
    ((_, batches),) = procedure.passes(1, torch.Generator().manual_seed(0))
    assert [len(batch.labels) for batch in batches] == [6, 6, 6]  # of 20: the rest of two is dropped


def test_a_run_needs_an_epoch_for_each_stage():
    with pytest.raises(ValueError, match="keeps no epoch before 2"):
        fit("iccn", dataset((20, 9, 7)), {"epochs": 1, "batch_size": 8, "switches": TINY}, seeds=(1,))
