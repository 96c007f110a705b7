"""Auxiliary losses against slow loops over pairs of vectors, with absent ones among them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from toy import close

from msa_lib.models.parts.losses import (
    INDEPENDENCE,
    central_moments,
    contrast,
    feature_entropy,
    hsic,
    infonce,
    mean_of,
    printed_contrast,
    reverse,
)

D = 6
SOME = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 0]]).bool()  # who has what, [B,M]
PRESENCE = {"all": torch.ones(5, 3).bool(), "some": SOME, "no audio": torch.tensor([True, False, True]).expand(5, 3)}
MODALITY = torch.arange(3).expand(5, 3)
LABEL = torch.tensor([0, 1, 0, 1, 2])[:, None].expand(5, 3)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def vectors(*shape: int, here: Tensor | None = None) -> Tensor:
    x = torch.randn(*shape, D)
    return x if here is None else x * here[(...,) + (None,) * (x.ndim - 2)]


# --- contrasts, in loops; dsrf's losses are compared with these as well ---


def log_share(Z: Tensor, here: Tensor, anchor: tuple, other: tuple, tau: float, mask_self: bool) -> Tensor:
    """log of exp(sim(anchor, other)/tau) over its sum for all vectors that are there; with the anchor or without."""
    cosine = {
        (j, b): F.cosine_similarity(Z[anchor], Z[j, b], dim=0) / tau
        for j in range(len(Z))
        for b in range(3)
        if here[j, b] and not (mask_self and (j, b) == anchor)
    }
    return cosine[other] - torch.logsumexp(torch.stack(list(cosine.values())), 0)


def slow_contrast(Z: Tensor, group: Tensor, here: Tensor, tau: float, mask_self: bool, reduction: str) -> Tensor:
    places, terms = [(i, m) for i in range(len(Z)) for m in range(3) if here[i, m]], []
    for a in places:
        positives = [p for p in places if p != a and group[p] == group[a]]
        if positives:
            terms.append(-sum(log_share(Z, here, a, p, tau, mask_self) for p in positives) / len(positives))
    if not terms:
        return torch.zeros(())
    return sum(terms) / (len(terms) if reduction == "mean" else 1)


def slow_printed(Z: Tensor, here: Tensor, tau: float, mask_self: bool, reduction: str) -> Tensor:
    total, anchors = torch.zeros(()), 0
    for i in range(len(Z)):
        for m in range(3):
            if not here[i, m]:
                continue
            anchors += 1
            following = (m + 1) % 3
            if here[i, following]:  # first sum: m-bar
                total = total - log_share(Z, here, (i, m), (i, following), tau, mask_self)
            for b in range(3):
                if b != m and here[i, b]:  # second sum
                    total = total - log_share(Z, here, (i, m), (i, b), tau, mask_self)
    return total / max(anchors, 1) if reduction == "mean" else total


@pytest.mark.parametrize("presence", PRESENCE)
@pytest.mark.parametrize("mask_self", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_contrasts_are_their_sums_over_pairs(presence, mask_self, reduction):
    here = PRESENCE[presence]
    Z = vectors(5, 3, here=here)
    for tau in (0.1, 1.0):
        for group in (MODALITY, LABEL):
            got = contrast(Z, group, here, tau, mask_self, reduction)
            close(got, slow_contrast(Z, group, here, tau, mask_self, reduction), atol=1e-4)
        got = printed_contrast(Z, here, tau, mask_self, reduction)
        close(got, slow_printed(Z, here, tau, mask_self, reduction), atol=1e-4)


@pytest.mark.parametrize("loss", ["text", "literal"])
def test_absent_vectors_are_in_no_pair(loss):
    Z = vectors(5, 3).requires_grad_()
    other = torch.where(SOME[..., None], Z.detach(), 100.0).requires_grad_()

    def value(x: Tensor) -> Tensor:
        if loss == "text":
            return contrast(x, MODALITY, SOME, 0.1, True, "mean")
        return printed_contrast(x, SOME, 0.1, True, "mean")

    assert torch.equal(value(Z), value(other))
    for x in (Z, other):
        gradient = torch.autograd.grad(value(x), x)[0]
        assert not gradient[~SOME].any()
        assert gradient[SOME].any(-1).sum() > 5


def test_the_contrast_with_guesses_by_hand():
    x, guess, here = vectors(4), vectors(4), torch.tensor([True, False, True, True])
    for score, expected in ((None, []), (torch.exp, [])):
        for i in (0, 2, 3):
            cos = np.array([float(x[i] @ g / (x[i].norm() * g.norm())) for g in guess])
            cos = np.exp(cos) if score else cos
            expected.append(np.log(np.exp(cos).sum()) - cos[i])
        got = infonce(x, guess, here, score) if score else infonce(x, guess, here)
        assert got.item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_a_batch_without_a_pair_has_no_contrast():
    alone = torch.tensor([[False, True, False]])
    for here in (alone, torch.zeros(1, 3).bool()):
        Z = vectors(1, 3, here=here).requires_grad_()
        for loss in (contrast(Z, MODALITY[:1], here, 0.1, True, "mean"), printed_contrast(Z, here, 0.1, True, "mean")):
            assert loss == 0
            assert not torch.autograd.grad(loss, Z)[0].any()


def test_mask_self_by_hand_on_two_samples():
    """Text e1 for both samples, audio e2 for both; vision absent. With tau = 1, by hand."""
    here = torch.tensor([[True, True, False]] * 2)
    Z = torch.zeros(2, 3, D)
    Z[:, 0, 0] = 2.0  # lengths do not matter
    Z[:, 1, 1] = 1.0
    e = math.e
    # an anchor sees itself and the same modality of the other sample at similarity 1, two others at 0
    for mask_self, terms in ((True, e + 2), (False, 2 * e + 2)):
        same = contrast(Z, MODALITY[:2], here, 1.0, mask_self, "mean").item()
        assert same == pytest.approx(math.log(terms) - 1, abs=1e-6)
        # literal: the positive is the other modality at 0. Text's next is audio: twice; audio's next is vision: once
        printed = printed_contrast(Z, here, 1.0, mask_self, "sum").item()
        assert printed == pytest.approx(2 * (2 + 1) * math.log(terms), abs=1e-5)


# --- what the two readings of Eq. 6 reward ---


def apart(B: int) -> Tensor:
    """One constant per modality, as far from each other as three vectors can be: 120 degrees."""
    angle = torch.arange(3) * (2 * math.pi / 3)
    Z = torch.zeros(B, 3, D)
    Z[:, :, 0], Z[:, :, 1] = angle.cos(), angle.sin()
    return Z


def test_the_text_of_eq_6_wants_one_constant_per_modality():
    B, here = 5, PRESENCE["all"]
    Z = apart(B)
    least = contrast(Z, MODALITY, here, 0.1, True, "mean").item()
    low, high = math.exp(-0.5 / 0.1), math.exp(1 / 0.1)  # similarities -1/2 and 1
    assert least == pytest.approx(math.log(((B - 1) * high + 2 * B * low) / high), abs=1e-5)
    for size in (1e-2, 0.1, 1.0, 10.0):
        for _ in range(20):
            assert contrast(Z + size * vectors(B, 3), MODALITY, here, 0.1, True, "mean").item() > least - 1e-6
    for size, alike in ((2, 0.95), (D, 0.0)):  # in D dimensions equal distances do nearly as well as none
        free = torch.randn(B, 3, size).requires_grad_()
        optimiser = torch.optim.Adam([free], lr=0.05)
        for _ in range(200):
            optimiser.zero_grad()
            loss = contrast(free, MODALITY, here, 0.1, True, "mean")
            loss.backward()
            optimiser.step()
        assert least - 1e-5 <= loss.item() < least + 0.01
        unit = F.normalize(free.detach(), dim=-1)
        cosine = torch.einsum("imd,jmd->mij", unit, unit)[:, ~torch.eye(B).bool()]  # of pairs of samples
        assert (cosine - cosine.mean(1, keepdim=True)).abs().max() < 0.02  # no sample differs from the others
        assert cosine.min() > alike


def test_the_printed_eq_6_wants_the_opposite():
    here, Z = PRESENCE["all"], apart(5)
    own = F.one_hot(torch.arange(5), D).float()[:, None].expand(5, 3, D)  # the modalities alike, the samples apart
    for mask_self in (True, False):
        printed = [printed_contrast(x, here, 0.1, mask_self, "mean").item() for x in (Z, own)]
        text = [contrast(x, MODALITY, here, 0.1, mask_self, "mean").item() for x in (Z, own)]
        assert printed[0] > printed[1] + 10
        assert text[1] > text[0] + 5
    nudged = Z + vectors(5, 3) * 0.3
    assert printed_contrast(nudged, here, 0.1, True, "mean") < printed_contrast(Z, here, 0.1, True, "mean")


# --- means, entropies, independence ---


def test_mean_of_counts_what_is_there():
    x = torch.randn(5, 3)
    values = [x[i, m].item() for i in range(5) for m in range(3) if SOME[i, m]]
    assert mean_of(x, SOME).item() == pytest.approx(np.mean(values), abs=1e-6)
    assert mean_of(x, torch.zeros(5, 3).bool()) == 0


def test_feature_entropy_is_that_of_the_softmax():
    x = torch.randn(4, 3, D) * 4
    p = torch.softmax(x.double(), -1)
    close(feature_entropy(x).double(), -(p * p.log()).sum(-1), atol=1e-5)
    assert feature_entropy(torch.zeros(D)).item() == pytest.approx(math.log(D))
    assert feature_entropy(torch.eye(D)[0] * 1000).item() == pytest.approx(0, abs=1e-6)


def slow_independence(R: Tensor, here: Tensor, kind: str) -> float:
    """Per modality over the samples that have it, then the mean over modalities that any sample has."""
    R = R.double().numpy()
    if kind in ("cos2", "all_pairs"):
        pairs, values = [(0, 1)] if kind == "cos2" else [(i, j) for j in range(R.shape[2]) for i in range(j)], []
        for b, m in np.argwhere(here.numpy()):
            for i, j in pairs:
                x, y = R[b, m, i], R[b, m, j]
                values.append((x @ y) ** 2 / (x @ x) / (y @ y))
        return float(np.mean(values))
    per_modality = []
    for m in range(3):
        x, y = (R[here[:, m].numpy(), m, i] for i in (0, 1))
        n = len(x)
        if n == 0:
            continue
        if kind == "crosscov":
            d = x.shape[1]
            covariance = [[np.cov(x[:, i], y[:, j])[0, 1] for j in range(d)] for i in range(d)]
            per_modality.append(np.mean(np.square(covariance)))
            continue
        H, kernels = np.eye(n) - 1 / n, []
        for v in (x, y):
            square = np.array([[np.sum((a - b) ** 2) for b in v] for a in v])
            kernels.append(np.exp(-square / (2 * square.mean())))
        per_modality.append(np.trace(kernels[0] @ H @ kernels[1] @ H) / (n - 1) ** 2)
    return float(np.mean(per_modality))


@pytest.mark.parametrize("presence", PRESENCE)
@pytest.mark.parametrize("kind", ["cos2", "all_pairs", "crosscov", "hsic"])
def test_independence_is_its_definition(kind, presence):
    here = PRESENCE[presence]
    R = vectors(5, 3, 4) + vectors(5, 3, 1)  # related
    expected = slow_independence(R, here, kind)
    assert expected > 1e-3
    assert INDEPENDENCE[kind](R * here[..., None, None], here).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["cos2", "all_pairs", "crosscov", "hsic"])
def test_independence_tells_dependent_from_independent(kind):
    n, here = 400, torch.ones(400, 3).bool()
    free = torch.randn(n, 3, 4, D)
    tied = free.clone()
    tied[:, :, 1] = -2 * free[:, :, 0] + 0.1
    if kind in ("cos2", "all_pairs"):
        free = torch.eye(D)[:4].expand(n, 3, 4, D) * torch.rand(n, 3, 4, 1)  # orthogonal
    value = {name: INDEPENDENCE[kind](R, here).item() for name, R in (("free", free), ("tied", tied))}
    assert abs(value["free"]) < 5e-3
    assert value["tied"] > 10 * abs(value["free"])
    assert value["tied"] > 0.01


def test_only_hsic_sees_a_dependence_without_covariance():
    x = torch.randn(400, 3, 1, D)
    R, here = torch.cat([x, x**2 - 1], 2), torch.ones(400, 3).bool()
    shuffled = torch.cat([x, (x**2 - 1).roll(1, 0)], 2)
    seen, null = INDEPENDENCE["hsic"](R, here), INDEPENDENCE["hsic"](shuffled, here)
    assert seen > 5 * null
    assert INDEPENDENCE["crosscov"](R, here) < 2 * INDEPENDENCE["crosscov"](shuffled, here)


@pytest.mark.parametrize("kind", ["cos2", "all_pairs", "crosscov", "hsic"])
def test_absent_vectors_do_not_count_towards_independence(kind):
    R = vectors(5, 3, 4)
    other = torch.where(SOME[..., None, None], R, 50.0 * torch.randn_like(R)).requires_grad_()
    value = INDEPENDENCE[kind](other, SOME)
    close(value, INDEPENDENCE[kind](R, SOME))
    gradient = torch.autograd.grad(value, other)[0]
    assert not gradient[~SOME].any()
    assert gradient[SOME].any()
    zeros = (R * SOME[..., None, None]).requires_grad_()  # as the model has them
    assert torch.autograd.grad(INDEPENDENCE[kind](zeros, SOME), zeros)[0].isfinite().all()


@pytest.mark.parametrize("kind", ["crosscov", "hsic"])
def test_one_sample_says_nothing_of_its_distribution(kind):
    R = vectors(1, 3, 4).requires_grad_()
    value = INDEPENDENCE[kind](R, torch.ones(1, 3).bool())
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert torch.autograd.grad(value, R)[0].abs().max() < 1e-6
    assert INDEPENDENCE[kind](R, torch.zeros(1, 3).bool()) == 0


# --- HSIC with inner products, moments, a reversed gradient ---


@pytest.mark.parametrize("presence", PRESENCE)
def test_hsic_of_linear_kernels_by_sums_over_four_samples(presence):
    """E k(i,j) l(i,j) + E k(i,j) l(q,r) - 2 E k(i,j) l(i,q), over all i, j, q, r."""
    here, R = PRESENCE[presence], vectors(5, 3, 2) + vectors(5, 3, 1)
    values = []
    for m in range(3):
        x, y = (R[here[:, m], m, i].double() for i in (0, 1))
        n = len(x)
        if n:
            k, other = x @ x.T, y @ y.T
            total = 0.0
            for i in range(n):
                for j in range(n):
                    total += k[i, j] * (other[i, j] / n**2 + other.sum() / n**4 - 2 * other[i].sum() / n**3)
            values.append(float(total) * n**2 / (n - 1) ** 2)
    got = hsic(R * here[..., None, None], here, "linear").item()
    assert got == pytest.approx(np.mean(values), rel=1e-4)


def test_central_moments_by_direct_sums():
    x, y, hx, hy = vectors(5), vectors(5) + 1, SOME[:, 0], SOME[:, 1]
    a, b = x[hx].double().numpy(), y[hy].double().numpy()
    expected = np.sqrt(sum((a[:, i].mean() - b[:, i].mean()) ** 2 for i in range(D)))
    for k in range(2, 6):
        gaps = [((a[:, i] - a[:, i].mean()) ** k).mean() - ((b[:, i] - b[:, i].mean()) ** k).mean() for i in range(D)]
        expected += np.sqrt(np.sum(np.square(gaps)))
    assert central_moments(x, y, hx, hy).item() == pytest.approx(expected, rel=1e-5)
    moved = torch.where(hx[:, None], x, 7.0)
    assert torch.equal(central_moments(moved, y, hx, hy), central_moments(x, y, hx, hy))


def test_moments_of_the_same_or_of_nothing_are_0_with_a_gradient():
    x, here = vectors(5).requires_grad_(), torch.ones(5).bool()
    for value in (central_moments(x, x.clone(), here, here), central_moments(x, vectors(5), here, ~here)):
        assert value == 0
        assert torch.autograd.grad(value, x)[0].isfinite().all()
    one = central_moments(x[:1], vectors(1), here[:1], here[:1])
    assert one > 0  # the means differ
    assert torch.autograd.grad(one, x)[0].isfinite().all()


def test_a_reversed_gradient_by_finite_differences():
    x = vectors(2).double().requires_grad_()

    def loss(z):
        return (z.sin() * z).sum()

    assert torch.equal(reverse(x, 0.3), x)
    (got,) = torch.autograd.grad(loss(reverse(x, 0.3)), x)
    for i in np.ndindex(2, D):
        step = torch.zeros_like(x)
        step[i] = 1e-6
        slope = (loss(x + step) - loss(x - step)) / 2e-6
        assert got[i].item() == pytest.approx(-0.3 * slope.item(), abs=1e-7)
