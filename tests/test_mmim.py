"""MMIM: its size, the entropy and the two passes by hand, and the released code."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from replay import count, prepared, reference
from toy import close, dataset

from msa_lib.models import build_model
from msa_lib.models.mmim import MMIM, Bound, Seen, Trace, entropy
from msa_lib.train import TrainConfig

SMALL = {"hidden": 3, "d_av": 8, "d": 5}
CASES = {
    "one direction": {"bound_share": 0.5, "entropy_from": "third"},
    "MMSA": {"bound_share": 0.5, "entropy_from": "third", "bidirectional": True, "pairs": "tv,ta,va"},
}


@pytest.mark.parametrize(
    ("data", "both", "one"), [("mosi", 281_673, 277_257), ("mosei", 292_425, 282_633), ("sims", 373_449, 323_145)]
)
def test_it_has_as_many_parameters_as_counted(data, both, one):
    assert count("mmim", data, bidirectional=True) == both
    directions = 4 * 16 * sum({"mosi": (25,), "mosei": (109,), "sims": (742,)}[data]) + 2 * 64 * 18 + 2 * 16 * 16
    assert count("mmim", data) == both - directions == one


def drawn(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 2))


def test_the_entropy_is_a_quarter_of_both_log_determinants():
    y, labels = drawn(14), np.array([1, -2, 0, 3, 1, -1, -1, -3, 2, 0, 1, -2, 2, -1])
    expected = 0.0
    for members in (y[labels > 0], y[labels < 0]):
        expected += np.linalg.slogdet(np.cov(members.T, bias=True))[1] / 4
    classes = torch.tensor(np.stack([labels > 0, labels < 0]))
    seen = Seen(torch.tensor(y)[None], classes[None])
    assert entropy(seen).item() == pytest.approx(expected)
    twice = Seen(torch.tensor(np.stack([y, 2 * y])), torch.stack([classes, classes]))  # of two pairs: the sum
    assert entropy(twice).item() == pytest.approx(2 * expected + 2 * np.log(2), abs=1e-6)


def test_a_class_of_too_few_samples_has_entropy_0():
    """Two features: two samples lie on a line. Also one that is constant stays finite, and its gradient."""
    y = torch.tensor(drawn(5), requires_grad=True)
    few = torch.tensor([[[True, True, False, False, False], [False, False, True, True, True]]])
    assert entropy(Seen(y[None], few)).item() == pytest.approx(
        np.linalg.slogdet(np.cov(y.detach()[2:].T, bias=True))[1] / 4
    )
    constant = torch.ones(1, 5, 2, requires_grad=True)
    value = entropy(Seen(constant, few))
    value.backward()
    assert value.isfinite()
    assert constant.grad.isfinite().all()


def test_what_lacks_a_modality_is_in_no_bound_and_no_class():
    data = dataset()
    network = build_model("mmim", data, **SMALL).eval()
    batch = data.train.batch(range(6))
    lengths = batch.lengths.clone()
    lengths[2, 2] = lengths[4, 1] = lengths[5, 0] = 0
    some = batch._replace(lengths=lengths)
    t = Trace(**network(some).extras)
    by_pair = []
    for bound, m, who in zip(network.bounds, (2, 1), ([0, 1, 3, 4], [0, 1, 2, 3]), strict=True):
        y, x = t[m][who], t.text[who]
        by_pair.append((-((y - bound.mean(x)) ** 2) / 2 / bound.logvar(x).exp()).sum(1).mean())
    close(network.lld(some, t), sum(by_pair))
    members = network.seen(some, t).classes.any(1)  # [P,N]
    assert [row.nonzero()[:, 0].tolist() for row in members] == [[0, 1, 3, 4], [0, 1, 2, 3]]


def procedure_of(**switches):
    data = dataset((20, 9, 7))
    torch.manual_seed(0)
    network = build_model("mmim", data, **SMALL, **switches)
    config = TrainConfig(batch_size=5, lr=1e-2, switches={**SMALL, **switches})
    return network, MMIM.Procedure(network, data, config)


def moved(network, before):
    return {name.split(".")[0] for name, p in network.named_parameters() if not torch.equal(p, before[name])}


def values(network):
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def test_each_pass_trains_its_own_part():
    network, procedure = procedure_of()
    procedure.begin_epoch(1)
    rest = {"audio", "vision", "fusion", "cpc"}
    for name, batches in procedure.passes(1, torch.Generator().manual_seed(0)):
        before = values(network)
        for batch in batches:
            terms = procedure.step(batch, name)
        assert (moved(network, before), list(terms)) == {
            "bound": ({"bounds"}, ["lld"]),
            "main": (rest, ["task", "nce", "lld", "entropy", "total"]),
        }[name]


def test_the_map_of_the_entropy_can_be_trained():
    network, procedure = procedure_of(entropy_map="trained")
    procedure.begin_epoch(1)
    before = values(network)
    for name, batches in procedure.passes(1, torch.Generator().manual_seed(0)):
        for batch in batches:
            procedure.step(batch, name)
    assert "entropy_maps" in moved(network, before)


@pytest.mark.parametrize(("start", "counted"), [("second", [0, 1, 1, 1]), ("third", [0, 0, 1, 1])])
def test_from_which_batch_of_an_epoch_the_entropy_counts(start, counted):
    _, procedure = procedure_of(entropy_from=start)
    for epoch in (1, 2):
        procedure.begin_epoch(epoch)
        for name, batches in procedure.passes(epoch, torch.Generator().manual_seed(0)):
            terms = [procedure.step(batch, name) for batch in batches]
        assert [int(t["entropy"] != 0) for t in terms] == counted
        for t in terms:
            close(t["total"], t["task"] + 0.1 * t["nce"] - 0.1 * t["lld"] - 0.1 * t["entropy"])


def test_the_entropy_is_of_this_batch_and_the_one_before():
    network, procedure = procedure_of()
    procedure.begin_epoch(1)
    with torch.no_grad():
        *_, (_, batches) = ((n, list(b)) for n, b in procedure.passes(1, torch.Generator().manual_seed(0)))
        for batch in batches[:2]:
            procedure.loss(batch, network(batch))
            procedure.after_step(batch, network(batch))
        got = procedure.loss(batches[2], network(batches[2]))["entropy"]
        two = procedure.dataset.train.batch(torch.cat([batches[1].index, batches[2].index]))
        network.eval()
        close(got, entropy(network.seen(two, Trace(**network(two).extras))), atol=1e-4)


def test_without_contrast_there_is_one_pass_and_no_bound():
    _, procedure = procedure_of(contrast=False)
    procedure.begin_epoch(1)
    ((name, batches),) = procedure.passes(1, torch.Generator().manual_seed(0))
    assert name == "main"
    assert list(procedure.step(next(iter(batches)), name)) == ["task", "entropy", "total"]


def test_the_first_pass_can_stop_after_a_share_of_the_batches():
    _, procedure = procedure_of(bound_share=0.4)  # of four
    name, batches = next(procedure.passes(1, torch.Generator().manual_seed(0)))
    assert (name, len(list(batches))) == ("bound", 2)


@pytest.mark.parametrize("case", CASES)
def test_the_released_code_gives_the_same(case):
    """Predictions, every term of one batch with the batch before in memory, and two epochs of both passes."""
    r = reference("mmim")
    r |= {name.partition("/")[2]: value for name, value in r.items() if name.startswith(f"{case}/")}
    switches = {**SMALL, "dropout": 0.0, **CASES[case]}
    settings = {"lr": 1e-2, "weight_decay": 1e-2, "clip": 1.0, "batch_size": 10}
    network, procedure, everything = prepared("mmim", r, switches, **settings)
    network.eval()
    procedure.begin_epoch(1)
    with torch.no_grad():
        close(network(everything).prediction, torch.tensor(r["prediction"]), atol=1e-5)
        first, second = islice(procedure.dataset.train.batches(10), 2)
        procedure.counted = -1
        procedure.loss(first, network(first))
        procedure.after_step(first, network(first))
        terms = procedure.loss(second, network(second))
    got = torch.stack([terms[name] for name in ("task", "nce", "lld", "entropy")])
    close(got, torch.tensor(r["terms"], dtype=got.dtype), atol=1e-5)
    for epoch in (1, 2):
        network.train()
        procedure.begin_epoch(epoch)
        sums = {}
        for name, batches in procedure.passes(epoch, None):  # in their order
            sums[name] = [procedure.step(batch, name) for batch in batches]
        means = [-sum(t["lld"] for t in sums["bound"]) / 4, sum(t["total"] for t in sums["main"]) / 4]
        np.testing.assert_allclose([m.item() for m in means], r["epochs"][epoch - 1], atol=1e-4)
        close(network.eval()(everything).prediction, torch.tensor(r["after"][epoch - 1]), atol=1e-4)
    assert np.abs(r["after"] - r["prediction"]).max() > 0.1


def test_the_rate_halves_after_epochs_without_a_better_validation():
    _, procedure = procedure_of()
    for mae in [1.0, *[1.0] * 21]:
        procedure.end_epoch({"valid": {"mae": mae}}, mae)
    assert procedure.optimisers["main"].param_groups[0]["lr"] == 5e-3
    assert procedure.optimisers["bound"].param_groups[0]["lr"] == 1e-2


def test_the_text_can_be_a_mean():
    data = dataset()
    batch = data.train.batch(range(4))
    for text, expected in (("first", batch.text[:, 0]), ("mean", None)):
        got = build_model("mmim", data, **SMALL, text=text)(batch).extras["text"]
        if expected is None:
            expected = torch.stack([x[:n].mean(0) for x, n in zip(batch.text, batch.lengths[:, 0], strict=True)])
        close(got, expected)


def test_the_bound_has_a_gradient_however_wide_its_guess_is():
    """exp(200) is infinite in float32."""
    bound = Bound(3, 2)
    torch.nn.init.constant_(bound.logvar[2].bias, 200.0)
    bound(torch.ones(4, 3), torch.ones(4, 2)).sum().backward()
    assert all(p.grad.isfinite().all() for p in bound.parameters())
