"""DTN: its size, the reversed gradient by finite differences, both stages and the slack in loops."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest
import torch
from replay import count
from toy import close, dataset

from msa_lib.models import build_model
from msa_lib.models.dtn import DTN, Trace, cosines, exact, mean_discrepancy, moments, slackened
from msa_lib.train import TrainConfig
from msa_lib.train.procedure import Procedure

NO_DROPOUT = dict.fromkeys(("attn_dropout", "relu_dropout", "res_dropout", "embed_dropout"), 0.0)
TINY = {"d": 4, "heads": 2, "n_layers": 1, **NO_DROPOUT}


@pytest.mark.parametrize(("data", "dims"), [("mosi", (768, 5, 20)), ("sims", (768, 33, 709))])
def test_it_has_as_many_parameters_as_counted(data, dims):
    d = 80
    transformer = 3 * (12 * d * d + 13 * d) + 2 * d
    parts = (1 + 3) * 2 * (d * d + d) + 3 * (2 * d * d + d + d * d + d)
    readers = (d * d // 2 + d // 2 + 3 * d // 2 + 3) + (6 * d * d + d + d + 1)
    assert count("dtn", data) == 3 * d * sum(dims) + 2 * transformer + parts + readers
    assert count("dtn", data, adversary="text") == count("dtn", data) - 2 * (d // 2 + 1)


def network_of(**switches):
    torch.manual_seed(0)
    return build_model("dtn", dataset(), **TINY, **switches).double().eval()


def batch_of(network, missing=()):
    """Eight samples in double precision; `missing` pairs of sample and modality."""
    batch = dataset().train.batch(range(8))
    lengths = batch.lengths.clone()
    for sample, m in missing:
        lengths[sample, m] = 0
    features = {name: getattr(batch, name).double() for name in ("text", "audio", "vision", "labels")}
    return batch._replace(**features, lengths=lengths)


@pytest.mark.parametrize("adversary", ["modality", "text"])
def test_the_gradient_is_reversed_before_the_discriminator_and_not_in_it(adversary):
    """By central differences of the discriminator's loss, for every parameter of it and of the encoder of common parts;
    text's own vectors stand still where the others move to them."""
    network = network_of(adversary=adversary)
    batch = batch_of(network)
    network.adversary(Trace(**network(batch).extras)).backward()
    held = network(batch).extras["common"][:, :1].detach() if adversary == "text" else None

    def loss():
        t = Trace(**network(batch).extras)
        common = t.common if held is None else torch.cat([held, t.common[:, 1:]], 1)
        return network.told(network.discriminate(common), t.available).item()

    signs = {"discriminate": 1, "common": -1, "encode": -1}
    for name, p in network.named_parameters():
        part = name.split(".")[0]
        if part not in signs or name == "encode.project.0.weight":
            continue
        for i in range(0, p.numel(), max(p.numel() // 3, 1)):
            flat, step = p.data.view(-1), 1e-6
            flat[i] += step
            above = loss()
            flat[i] -= 2 * step
            slope = (above - loss()) / (2 * step)
            flat[i] += step
            assert p.grad.view(-1)[i].item() == pytest.approx(signs[part] * slope, abs=1e-8), (name, i)
    text = network.encode.project[0].weight.grad
    assert (text is None or not text.any()) == (adversary == "text")
    assert all(p.grad is None for name, p in network.named_parameters() if name.split(".")[0] in ("specific", "out"))


def test_a_step_teaches_the_discriminator_and_confuses_it():
    """One Adam step on the adversary's term alone: with the vectors held the discriminator gets better at telling, and
    with the discriminator held the vectors get harder to tell."""
    network = network_of()
    batch, data = batch_of(network), dataset()
    procedure = Procedure(network, data, TrainConfig(batch_size=8, lr=1e-3, weight_decay=0.0, clip=0.0))
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    start = network.adversary(Trace(**network(batch).extras)).item()
    procedure.descend(network.adversary(Trace(**network(batch).extras)))
    after = {name: p.detach().clone() for name, p in network.named_parameters()}
    for part, better in (("discriminate", True), ("", False)):
        mixed = {n: after[n] if n.startswith("discriminate") == (part != "") else before[n] for n in after}
        network.load_state_dict(mixed)
        assert (network.adversary(Trace(**network(batch).extras)).item() < start) == better


@pytest.mark.parametrize("adversary", ["modality", "text"])
def test_the_adversary_in_loops(adversary):
    network = network_of(adversary=adversary)
    batch = batch_of(network, missing=[(1, 2), (4, 0)])
    t = Trace(**network(batch).extras)
    losses = []
    for i in range(8):
        for m in range(3):
            if not batch.lengths[i, m]:
                assert not t.common[i, m].any()
                continue
            scores = network.discriminate(t.common[i, m]).tolist()
            if adversary == "modality":
                losses.append(log(sum(map(exp, scores))) - scores[m])
            else:
                losses.append(log(1 + exp(-scores[0] if m == 0 else scores[0])))
    assert len(losses) == 22
    assert network.adversary(t).item() == pytest.approx(np.mean(losses))


def parts(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(seed)
    here = torch.tensor([True, True, False, True, True, False])
    return torch.tensor(random.normal(size=(6, 3))), torch.tensor(random.normal(size=(6, 3)) + 0.5), here


def test_the_mean_discrepancy_by_direct_sums():
    s, c, here = parts(0)
    rows = [v[here].numpy() for v in (s, c)]
    every = np.concatenate(rows)
    width = 2 * np.mean([np.sum((a - b) ** 2) for a in every for b in every])

    def mean(x, y):
        return np.mean([np.exp(-np.sum((a - b) ** 2) / width) for a in x for b in y])

    expected = mean(rows[0], rows[0]) + mean(rows[1], rows[1]) - 2 * mean(*rows)
    assert mean_discrepancy(s, c, here).item() == pytest.approx(expected)
    assert mean_discrepancy(s, s, here).item() == pytest.approx(0, abs=1e-12)
    assert mean_discrepancy(s, c, torch.zeros(6, dtype=torch.bool)).item() == 0


def test_the_moments_by_direct_sums():
    s, c, here = parts(1)
    rows = [1 / (1 + np.exp(-v[here].numpy())) for v in (s, c)]
    expected = np.linalg.norm(rows[0].mean(0) - rows[1].mean(0))
    for k in range(2, 6):
        expected += np.linalg.norm(np.subtract(*[((x - x.mean(0)) ** k).mean(0) for x in rows]))
    assert moments(s, c, here).item() == pytest.approx(expected)


def test_slack_by_hand():
    """Errors 0.25 and 0 of vectors of one modality; cosines 0 before and 0.6 after, for both orders of the pair."""
    x = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    rebuilt = torch.tensor([[[1.0, 0.0]], [[0.6, 0.8]]])
    here = torch.ones(2, 1, dtype=torch.bool)
    errors = [0.0, (0.36 + 0.04) / 2]
    close(exact(x, rebuilt, here, 0.1), torch.tensor(np.mean(errors), dtype=torch.float32))
    close(cosines(rebuilt), torch.tensor([[[1.0, 0.6], [0.6, 1.0]]]))
    expected = (errors[1] - 0.15) / 2 + 2 * 0.36 / 4
    close(slackened(x, rebuilt, here, 0.15), torch.tensor(expected, dtype=torch.float32))
    within = slackened(x, x * 1.1, here, 0.1)  # a longer vector of the same direction, inside the slack
    assert within.item() == pytest.approx(0, abs=1e-6)
    alone = slackened(x, rebuilt, torch.tensor([[True], [False]]), 0.1)
    assert alone.item() == pytest.approx(0, abs=1e-6)


def test_the_second_stage_moves_the_specific_part_only():
    network = network_of()
    batch = batch_of(network)
    network.loss(batch, network(batch))["matching"].backward()
    moved = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {"specific", "encode"}


@pytest.mark.parametrize(
    ("switch", "value", "function", "term"),
    [("matching", "mmd", mean_discrepancy, "matching"), ("reconstruction", "exact", exact, "reconstruction")],
)
def test_a_switch_chooses_its_function(switch, value, function, term):
    network = network_of(**{switch: value})
    batch = batch_of(network, missing=[(2, 1)])
    t = Trace(**network(batch).extras)
    if term == "matching":
        expected = sum(function(t.specific[:, m], t.common[:, m], t.available[:, m]) for m in range(3))
    else:
        expected = function(t.x, t.rebuilt, t.available, 0.1)
    close(network.loss(batch, network(batch))[term], expected)


def test_the_total_and_what_is_read():
    network = network_of(w_adversary=0.5, w_matching=0.25, w_reconstruction=2.0)
    batch = batch_of(network)
    output = network(batch)
    t, terms = Trace(**output.extras), network.loss(batch, output)
    six = torch.cat([torch.cat([t.common[:, m], t.specific[:, m]], -1) for m in range(3)], -1)
    close(output.prediction, network.out(six)[:, 0])
    close(terms["task"], (output.prediction - batch.labels).abs().mean())
    rest = 0.5 * terms["adversary"] + 0.25 * terms["matching"] + 2 * terms["reconstruction"]
    close(terms["total"], terms["task"] + rest)
    assert DTN.CARD.fidelity == "partial"
