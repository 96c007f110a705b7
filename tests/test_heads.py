"""Heads: targets, predictions, and the divergence and entropy of each against torch.distributions and scipy."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence
from toy import close

import msa_lib.data
from msa_lib.metrics import evaluate
from msa_lib.models.parts.heads import sentiment_head

KINDS = ("bins_ev", "gauss", "point", "argmax", "binary")
RANGE = {"mosi": 3, "sims": 1}
STEP = {"mosi": 1.0, "sims": 0.2}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def labels_of(scale: str) -> torch.Tensor:
    """Every label value of the real sets of this scale."""
    with open(Path(msa_lib.data.__file__).parent / "label_counts.csv") as file:
        values = {float(row["value"]) for row in csv.DictReader(file) if row["labels"].startswith(scale[:3])}
    assert len(values) > 10
    return torch.tensor(sorted(values))


def raw_of(head, *shape: int, spread: float = 3.0) -> torch.Tensor:
    return torch.randn(*shape, head.size) * spread


@pytest.mark.parametrize("scale", RANGE)
def test_two_hot_targets_have_the_label_as_mean(scale):
    head, r = sentiment_head("bins_ev", scale), RANGE[scale]
    grid = torch.arange(-5 * r, 5 * r + 1) / 5  # steps of 0.2
    for labels in (grid, labels_of(scale), torch.empty(200).uniform_(-r, r)):
        targets = head.targets(labels)
        assert targets.shape == (len(labels), head.size)
        assert (targets >= 0).all()
        assert ((targets > 1e-5).sum(-1) <= 2).all()  # the neighbours of the label
        close(targets.sum(-1), torch.ones(len(labels)))
        close(targets @ head.centres, labels)
    hot = head.targets(torch.tensor([-r - 1.0, r + 0.5]))  # outside: clipped
    close(hot, F.one_hot(torch.tensor([0, head.size - 1]), head.size).float())


@pytest.mark.parametrize("scale", RANGE)
def test_centres_are_the_labels_own_grid(scale):
    for kind in ("bins_ev", "argmax"):
        head, r = sentiment_head(kind, scale), RANGE[scale]
        close(head.centres, torch.arange(head.size) * STEP[scale] - r)
        assert head.size == round(2 * r / STEP[scale]) + 1


@pytest.mark.parametrize("scale", RANGE)
def test_one_hot_targets_are_the_nearest_centre(scale):
    labels = labels_of(scale)
    for head in (sentiment_head("bins_ev", scale, "onehot"), sentiment_head("argmax", scale)):
        targets = head.targets(labels)
        assert ((targets == 0) | (targets == 1)).all()
        assert targets.sum(-1).tolist() == [1] * len(labels)
        assert ((targets @ head.centres - labels).abs() <= STEP[scale] / 2 + 1e-6).all()


def test_a_class_head_that_meets_its_targets_is_always_right():
    """Acc-7 rounds half to even, and so must the targets: 0.5 belongs to class 0."""
    labels = labels_of("mosi")
    head = sentiment_head("argmax", "mosi")
    scores = evaluate(labels.numpy(), head.prediction(head.targets(labels)).numpy(), scale="mosi")
    assert scores["acc7"] == 1


@pytest.mark.parametrize("scale", RANGE)
def test_gauss_targets_are_a_bump_around_the_label(scale):
    head, labels = sentiment_head("bins_ev", scale, "gauss"), labels_of(scale)
    targets, step = head.targets(labels), STEP[scale]
    for y, row in zip(labels.tolist(), targets, strict=True):
        density = scipy.stats.norm.pdf(
            head.centres.double().numpy(), loc=min(max(y, -RANGE[scale]), RANGE[scale]), scale=step / 2
        )
        np.testing.assert_allclose(row, density / density.sum(), atol=1e-5)


@pytest.mark.parametrize("scale", RANGE)
def test_the_bins_predict_an_expected_value_within_the_label_range(scale):
    head, r = sentiment_head("bins_ev", scale), RANGE[scale]
    raw = torch.cat([raw_of(head, 300), raw_of(head, 300, spread=100.0)])
    prediction = head.prediction(raw)
    assert (prediction.abs() <= r + 1e-5).all()
    assert prediction.abs().max() > 0.99 * r  # and may reach it
    p = torch.softmax(raw.double(), -1)
    close(prediction.double(), sum(p[:, k] * (-r + k * STEP[scale]) for k in range(head.size)), atol=1e-5)
    labels = labels_of(scale).clamp(-r, r)
    close(head.prediction(torch.log(head.targets(labels) + 1e-12)), labels, atol=1e-4)


@pytest.mark.parametrize("scale", RANGE)
def test_the_class_losses_are_cross_entropy(scale):
    labels = torch.empty(40).uniform_(-RANGE[scale], RANGE[scale])
    for kind in ("bins_ev", "argmax", "binary"):
        head = sentiment_head(kind, scale)
        raw = raw_of(head, 40)
        close(head.loss(raw, labels), F.cross_entropy(raw, head.targets(labels), reduction="none"), atol=1e-5)
        both = sentiment_head(kind, scale, ce_plus_l1=True)
        expected = torch.softmax(raw, -1) @ head.centres
        close(both.loss(raw, labels) - head.loss(raw, labels), (expected - labels).abs(), atol=1e-5)


def test_argmax_predicts_the_value_of_the_likeliest_class():
    head = sentiment_head("argmax", "mosi", "two_hot")  # its targets stay one-hot
    raw = raw_of(head, 50)
    assert head.prediction(raw).tolist() == [float(row.argmax()) - 3 for row in raw]
    assert (head.targets(torch.tensor([0.4])) == F.one_hot(torch.tensor([3]), 7)).all()


@pytest.mark.parametrize("scale", RANGE)
def test_binary_treats_zero_as_acc2_does(scale):
    head = sentiment_head("binary", scale)
    assert head.size == 2
    classes = head.targets(torch.tensor([-0.2, 0.0, 0.2])).argmax(-1).tolist()
    assert classes == ([0, 1, 1] if scale == "mosi" else [0, 0, 1])
    close(
        head.prediction(torch.tensor([[50.0, 0.0], [0.0, 0.0], [0.0, 50.0]])), torch.tensor([-1.0, 0, 1]) * RANGE[scale]
    )
    labels = labels_of(scale)
    confident = head.prediction((head.targets(labels) - 0.5) * 50)
    key = "acc2_has0" if scale == "mosi" else "acc2"
    assert evaluate(labels.numpy(), confident.numpy(), scale=scale)[key] == 1


@pytest.mark.parametrize("kind", ["bins_ev", "argmax", "binary"])
def test_divergence_and_entropy_of_bins_are_scipys(kind):
    head = sentiment_head(kind, "sims")
    p, q = raw_of(head, 5, 3), raw_of(head, 5, 3)
    P, Q = (torch.softmax(x.double(), -1).numpy() for x in (p, q))
    np.testing.assert_allclose(head.kl(p, q), scipy.stats.entropy(P, Q, axis=-1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(head.entropy(p), scipy.stats.entropy(P, axis=-1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(head.vagueness(p), scipy.stats.entropy(P, axis=-1, base=head.size), rtol=1e-4, atol=1e-6)
    uniform = torch.zeros(head.size)
    assert head.vagueness(uniform).item() == pytest.approx(1)
    assert head.entropy(uniform).item() == pytest.approx(math.log(head.size))


@pytest.mark.parametrize("scale", RANGE)
def test_gauss_is_torchs_normal(scale):
    head, labels = sentiment_head("gauss", scale), torch.randn(6, 3)
    p, q = raw_of(head, 6, 3), raw_of(head, 6, 3)

    def normal(raw: torch.Tensor) -> Normal:
        return Normal(raw[..., 0], (F.softplus(raw[..., 1]) + 1e-3).sqrt())

    close(head.kl(p, q), kl_divergence(normal(p), normal(q)), atol=1e-4)
    close(head.entropy(p), normal(p).entropy(), atol=1e-5)
    close(head.loss(p, labels), -normal(p).log_prob(labels), atol=1e-4)
    assert torch.equal(head.prediction(p), p[..., 0])
    close(sentiment_head("gauss", scale, gauss_loss="l1").loss(p, labels), (p[..., 0] - labels).abs())
    uniform = torch.distributions.Uniform(-RANGE[scale], RANGE[scale]).entropy()
    close(head.vagueness(p), torch.exp(normal(p).entropy() - uniform), atol=1e-5)


def test_point_is_a_number():
    head = sentiment_head("point", "mosi")
    p, q, labels = raw_of(head, 4, 3), raw_of(head, 4, 3), torch.randn(4, 3)
    assert torch.equal(head.prediction(p), p[..., 0])
    close(head.loss(p, labels), (p[..., 0] - labels).abs())
    close(head.kl(p, q), (p[..., 0] - q[..., 0]) ** 2)
    assert not head.entropy(p).any()
    assert not head.vagueness(p).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", RANGE)
def test_every_head_keeps_to_the_contract(kind, scale):
    """Shapes broadcast, a divergence is not negative and zero for equal arguments, extremes stay finite."""
    head = sentiment_head(kind, scale)
    assert not list(head.parameters())
    assert not head.state_dict()
    raw, labels = raw_of(head, 4, 3), torch.linspace(-RANGE[scale], RANGE[scale], 4)
    assert head.prediction(raw).shape == head.entropy(raw).shape == head.vagueness(raw).shape == (4, 3)
    assert head.loss(raw, labels[:, None]).shape == (4, 3)
    close(head.loss(raw, labels[:, None])[2, 1], head.loss(raw[2, 1], labels[2]))
    assert (head.kl(raw, raw_of(head, 4, 3)) >= -1e-6).all()
    close(head.kl(raw, raw), torch.zeros(4, 3), atol=1e-6)
    assert head.kl(raw[:, :, None], raw_of(head, 4, 3, 8)).shape == (4, 3, 8)
    for size in (0.0, 1e4):
        extreme = (raw.sign() * size).requires_grad_()
        value = head.loss(extreme, labels[:, None]) + head.kl(extreme, raw) + head.entropy(extreme)
        assert value.isfinite().all()
        assert torch.autograd.grad(value.sum(), extreme)[0].isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_teaches_the_label(kind):
    """Gradient steps on raw outputs alone: the prediction becomes the label, as far as the head can say it."""
    labels = torch.tensor([-2.4, -1.0, 0.2, 1.6])
    head = sentiment_head(kind, "mosi")
    raw = torch.zeros(4, head.size, requires_grad=True)
    optimiser = torch.optim.Adam([raw], lr=0.1)
    for _ in range(400):
        optimiser.zero_grad()
        head.loss(raw, labels).sum().backward()
        optimiser.step()
    expected = {"argmax": labels.round(), "binary": labels.sign() * 3}.get(kind, labels)
    close(head.prediction(raw.detach()), expected, atol=0.15)
