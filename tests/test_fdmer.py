"""FDMER: its size, its losses in loops, attention to the others, the reversed gradient and its ramp."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from replay import count
from toy import close, dataset

from msa_lib.models import build_model
from msa_lib.models.fdmer import CONSISTENCY, FDMER, Trace, all_parts, own_parts
from msa_lib.train import TrainConfig

TINY = {"d": 6, "heads": 2, "dropout": 0.0}
SOME = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 1], [1, 1, 0], [1, 1, 1], [0, 0, 0]]).bool()


def made(seed: int = 0, **switches):
    data = dataset((20, 9, 7))
    torch.manual_seed(seed)
    network = build_model("fdmer", data, **TINY, **switches).double().eval()
    batch = data.train.batch(range(6))
    fields = batch._asdict().items()
    doubled = {name: x.double() for name, x in fields if getattr(x, "dtype", 0) == torch.float}
    return network, batch._replace(**doubled, lengths=batch.lengths * SOME)


def counted(dims: tuple[int, ...], d: int = 128) -> int:
    """By hand."""
    linear = d * d + d
    block = 4 * linear + (d * 4 * d + 4 * d) + (4 * d * d + d) + 4 * d
    encoders = sum(3 * D * d + d + block for D in dims)
    parts = 2 * linear + 3 * 2 * linear
    return encoders + parts + linear + 3 * d + 3 + 4 * linear + 6 * d + 1


@pytest.mark.parametrize(("data", "dims"), [("mosi", (768, 5, 20)), ("mosei", (768, 74, 35)), ("sims", (768, 33, 709))])
def test_it_has_as_many_parameters_as_counted(data, dims):
    assert count("fdmer", data) == counted(dims)


def test_consistency_compares_the_similarities_of_samples():
    C = torch.randn(6, 3, 4, dtype=torch.float64)
    expected = 0.0
    for m, n in ((0, 1), (0, 2), (1, 2)):
        both = [i for i in range(6) if SOME[i, m] and SOME[i, n]]
        gaps = [
            (F.cosine_similarity(C[i, m], C[j, m], 0) - F.cosine_similarity(C[i, n], C[j, n], 0)) ** 2
            for i in both
            for j in both
        ]
        expected += np.mean(gaps)
    assert CONSISTENCY["similarity"](C, SOME).item() == pytest.approx(expected)
    turned = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    same = torch.stack([C[:, 0], 3 * C[:, 0], C[:, 0] @ turned], 1)
    assert CONSISTENCY["similarity"](same, SOME).item() == pytest.approx(0, abs=1e-12)
    assert CONSISTENCY["cmd"](same, SOME) > 0.01


def test_disparity_is_between_common_and_private_and_between_private():
    t = Trace(torch.randn(6, 3, 4), torch.randn(6, 3, 4), SOME)
    R, here = all_parts(t)
    expected = [(t.common[:, m], t.private[:, m], SOME[:, m]) for m in range(3)]
    expected += [(t.private[:, m], t.private[:, n], SOME[:, m] & SOME[:, n]) for m, n in ((0, 1), (0, 2), (1, 2))]
    for i, (x, y, both) in enumerate(expected):
        assert torch.equal(R[:, i, 0], x)
        assert torch.equal(R[:, i, 1], y)
        assert torch.equal(here[:, i], both)
    assert own_parts(t)[0].shape == (6, 3, 2, 4)


def test_each_part_attends_to_the_others_that_are_there():
    network, batch = made()
    f, t = network.fusion, Trace(**network(batch).extras)
    x, y = torch.cat([t.common, t.private], 1), []
    for b in range(6):
        row = []
        for i in range(6):
            others = [j for j in range(6) if j != i and SOME[b, j % 3]]
            if not SOME[b, i % 3]:
                row.append(torch.zeros(6).double())
                continue
            heads = []
            for h in (slice(0, 3), slice(3, 6)):
                scores = torch.stack([f.q(x[b, i])[h] @ f.k(x[b, j])[h] / math.sqrt(3) for j in others])
                heads.append(sum(a * f.v(x[b, j])[h] for a, j in zip(scores.softmax(0), others, strict=True)))
            row.append(x[b, i] + f.out(torch.cat(heads)))
        y.append(network.out(torch.cat(row))[0])
    close(network(batch).prediction, torch.stack(y))


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
def test_the_common_encoder_climbs_what_the_private_ones_descend(weight):
    """By finite differences of the adversary: the sign is turned for one, and not for the others."""
    network, batch = made()
    network.reversal.fill_(weight)

    def adversary():
        return network.adversary(Trace(**network(batch).extras))

    t = Trace(**network(batch).extras)
    c, p = t.common.detach(), t.private.detach()
    told = [(z[i, m], m) for z in (c, p) for i, m in SOME.nonzero()]
    costs = torch.stack([F.cross_entropy(network.discriminator(x), m) for x, m in told])
    assert adversary().item() == pytest.approx(2 * costs.mean().item())
    network.zero_grad()
    adversary().backward()
    told = network.private.weight[1], network.discriminator[3].weight
    cases = [(network.common[3].weight, -weight), *((parameter, 1.0) for parameter in told)]
    for parameter, sign in cases:
        for i in range(0, parameter.numel(), 7):
            with torch.no_grad():
                place = parameter.view(-1)[i]
                old = place.item()
                values = []
                for step in (1e-6, -1e-6):
                    place.fill_(old + step)
                    values.append(adversary().item())
                place.fill_(old)
            slope = (values[0] - values[1]) / 2e-6
            assert parameter.grad.view(-1)[i].item() == pytest.approx(sign * slope, abs=1e-7)


@pytest.mark.parametrize(
    ("reversal", "weights"), [("ramp", [0.0, 0.848284, 0.986614, 0.998894]), ("constant", [1.0] * 4)]
)
def test_the_reversal_rises_with_the_epochs(reversal, weights):
    """2 / (1 + exp(-10 p)) - 1 at p = 0, 1/4, 1/2, 3/4."""
    data = dataset((20, 9, 7))
    network = build_model("fdmer", data, **TINY, reversal=reversal)
    procedure = FDMER.Procedure(network, data, TrainConfig(epochs=4))
    got = []
    for epoch in range(1, 5):
        procedure.begin_epoch(epoch)
        got.append(network.reversal.item())
    assert got == pytest.approx(weights, abs=1e-6)
    assert "reversal" not in network.state_dict()


def test_the_terms_have_their_weights():
    network, batch = made(alpha=0.5, beta=0.25, gamma=2.0)
    terms = network.loss(batch, network(batch))
    total = terms["task"] + 0.5 * terms["consistency"] + 0.25 * terms["disparity"] + 2.0 * terms["adversary"]
    assert terms["total"].item() == pytest.approx(total.item())
    close(terms["task"], (network(batch).prediction - batch.labels).abs().mean())
