"""MIM: its size, gates by their analytic expectation, reactions and optimisers by hand, the released modules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from replay import count, prepared, reference, samples
from toy import close, dataset

from msa_lib.models import build_model
from msa_lib.models.mim import (
    MIM,
    Trace,
    adjuster,
    binary,
    fixed_noise,
    follow_the_better,
    hard_concrete,
    open_probability,
)
from msa_lib.train import TrainConfig

NO_DROPOUT = dict.fromkeys(("attn_dropout", "relu_dropout", "res_dropout", "embed_dropout"), 0.0)
TINY = {"d": 4, "heads": 2, "n_layers": 1, "ratio": 2, **NO_DROPOUT}


@pytest.mark.parametrize(("data", "dims", "steps"), [("mosi", (768, 5, 20), 50), ("sims", (768, 33, 709), 39)])
def test_it_has_as_many_parameters_as_counted(data, dims, steps):
    """By hand; at MOSI's shape the released modules have 19,523 more, never used: another fusion and three poolers."""
    d = 80
    transformer = 3 * (12 * d * d + 13 * d) + 2 * d
    purify = 2 * 4 * (d // 2) * (d + d // 2 + 2) + (d * d // 2 + d // 2) + (d // 2 + 1)
    compare = sum(n * (n // 5) + n // 5 + n // 5 * n + n for n in (steps - 1, steps, steps))
    by_hand = 3 * d * sum(dims) + 2 * transformer + 3 * purify + compare + 3 * (d + 1) + d * d + d + d + 1
    assert count("mim", data) == by_hand
    if data == "mosi":
        assert by_hand == 814_030 - 19_523


# ------------------------------------------------------------------------------------------------------------ the gates


def midpoints(n: int = 200_000) -> torch.Tensor:
    """Every quantile of the noise once: an average over them is an integral over the noise."""
    return (torch.arange(n).double() + 0.5) / n


@pytest.mark.parametrize("logit", [-6.0, -3.0, -2.0, 0.0, 1.5])
def test_gates_have_their_analytic_expectation(logit):
    """Louizos et al., Eq. 12: P(gate > 0); P(gate > 0.6), where it is rounded to 1; E[gate], the tail's integral."""
    u = midpoints()
    gate = hard_concrete(torch.full_like(u, logit), u)

    def above(t):  # P(gate > t), from the inverse of the stretched sigmoid
        s = (t + 0.2) / 1.2
        return 1 / (1 + np.exp(-(logit + 3 - np.log(s / (1 - s)) / 3)))

    assert open_probability(torch.tensor(logit)).item() == pytest.approx(above(0.0), abs=1e-6)
    assert (gate > 0).double().mean().item() == pytest.approx(above(0.0), abs=1e-4)
    assert binary(gate).mean().item() == pytest.approx(above(0.6), abs=1e-4)
    expectation = np.mean([above(t) for t in (np.arange(20_000) + 0.5) / 20_000])  # E[g] is the integral of P(g > t)
    assert gate.mean().item() == pytest.approx(expectation, abs=1e-4)
    assert gate.min() >= 0
    assert gate.max() <= 1


def test_a_binary_gate_passes_the_gradient_of_the_soft_one():
    logits, u = torch.linspace(-5, 2, 8, dtype=torch.double), torch.full((8,), 0.4, dtype=torch.double)
    x, weight, step = logits.clone().requires_grad_(), torch.arange(8.0), 1e-6
    got = torch.autograd.grad((weight * binary(hard_concrete(x, u))).sum(), x)[0]
    soft = (hard_concrete(logits + step, u) - hard_concrete(logits - step, u)) / (2 * step)
    close(got, weight * soft, atol=1e-7)
    assert set(binary(hard_concrete(logits, u)).tolist()) == {0.0, 1.0}


def test_the_noise_of_a_sample_is_uniform_and_its_own():
    index = torch.arange(3000)
    u = fixed_noise(torch.zeros(3000, 3, 7), index)
    assert u.mean().item() == pytest.approx(0.5, abs=0.005)
    assert u.var().item() == pytest.approx(1 / 12, abs=0.001)
    assert torch.equal(fixed_noise(torch.zeros(2, 3, 7), index[[5, 9]]), u[[5, 9]])
    assert np.abs(np.corrcoef(u.flatten(1).T) - np.eye(21)).max() < 0.08


# -------------------------------------------------------------------------------------------------------- the reactions


def test_the_adjuster_by_its_printed_form():
    l, a, v = 0.2, 0.5, 0.3  # noqa: E741
    below = (1 + a) * (1 + l) + (1 + v) * (1 + l) + (1 + a) * (1 + v)
    expected = [3 * x / below for x in ((1 + a) * (1 + v), (1 + l) * (1 + v), (1 + l) * (1 + a))]
    close(adjuster(4 * torch.tensor([l, a, v])), torch.tensor(expected))


def test_the_worse_prediction_follows_the_better():
    raw, pure = (
        torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True),
        torch.tensor([[0.0, 4.0, 3.5]], requires_grad=True),
    )
    gap = follow_the_better(raw, pure, torch.tensor([True, False, False]))
    close(gap, torch.tensor([[1.0, 4.0, 0.25]]))
    gap.sum().backward()
    close(raw.grad, torch.tensor([[2.0, 0.0, 0.0]]))
    close(pure.grad, torch.tensor([[0.0, 4.0, 1.0]]))


@pytest.mark.parametrize("softening", ["weight", "logits"])
def test_the_others_follow_the_best_modality(softening):
    """In loops. One sample lacks vision: it is in no divergence with it. The best modality has no gradient."""
    torch.manual_seed(1)
    network = build_model("mim", dataset(), **TINY, softening=softening)
    here = torch.tensor([[True, True, True], [True, True, False], [True, True, True]])
    pure = torch.randn(3, 3, 4, dtype=torch.double, requires_grad=True)
    error = torch.tensor([0.9, 0.4, 0.6], dtype=torch.double)
    got = network.follow_the_best(Trace(here, pure, *[torch.zeros(3, 3)] * 3), error)
    scale = 10 * adjuster(error)[1].item()
    p = [[np.array(row) / (scale if softening == "logits" else 1) for row in sample] for sample in pure.tolist()]
    p = [[np.exp(row) / np.exp(row).sum() for row in sample] for sample in p]
    kl = [[(s[1] * np.log(s[1] / s[m])).sum() for m in (0, 2)] for s in p]
    expected = np.mean([k[0] for k in kl]) + (kl[0][1] + kl[2][1]) / 2
    assert got.item() == pytest.approx(scale**2 / 2 * expected)
    got.backward()
    assert pure.grad[:, 0].any()
    assert not pure.grad[:, 1].any()
    assert not pure.grad[1, 2].any()


def test_a_missing_modality_leaves_the_product_and_the_losses():
    data = dataset()
    network = build_model("mim", data, **TINY).eval()
    batch = data.train.batch(range(8))
    lengths = batch.lengths.clone()
    lengths[2, 2] = 0
    some = batch._replace(lengths=lengths)
    t = Trace(**network(some).extras)
    product = torch.tanh(network.fuse.linear(t.pure[2, 0] * t.pure[2, 1]))
    close(network(some).prediction[2], network.out(product)[0])
    terms = network.loss(some, network(some))
    errors = (t.own - some.labels[:, None]).abs()
    who = [lengths[:, 0] > 1, torch.arange(8) >= 0, torch.arange(8) != 2]  # a text of one token has none to read
    close(terms["raw"], sum(errors[having, m].mean() for m, having in enumerate(who)))


# ------------------------------------------------------------------------------------------------------- two optimisers


def trained(forwards: str):
    data = dataset()
    torch.manual_seed(0)
    network = build_model("mim", data, **TINY, forwards=forwards).train()
    config = TrainConfig(batch_size=9, lr=0.05, clip=0.0, weight_decay=0.0)
    calls = []
    network.register_forward_hook(lambda *_: calls.append(1))
    return network, MIM.Procedure(network, data, config), data.train.batch(range(9)), calls


@pytest.mark.parametrize("forwards", ["one", "two"])
def test_each_optimiser_takes_its_step_by_its_own_losses(forwards, monkeypatch):
    """By hand, the first step of Adam: the rate times the sign of the gradient, for gates twice."""
    monkeypatch.setattr(torch, "rand_like", lambda x: torch.full_like(x, 0.06))
    network, procedure, batch, calls = trained(forwards)
    start = {name: p.detach().clone() for name, p in network.named_parameters()}

    def gradients(part):
        network.zero_grad()
        procedure.halves(network.loss(batch, network(batch)))[part].backward()
        return {
            name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in network.named_parameters()
        }

    first, second = gradients(0), gradients(1)
    if forwards == "two":  # the second gradient is taken where the first step has led
        with torch.no_grad():
            for name, p in network.named_parameters():
                if name.startswith("purify."):
                    p.sub_(0.05 * first[name].sign())
        second = gradients(1)
        network.load_state_dict(start, strict=False)
    calls.clear()
    terms = procedure.step(batch, "main")
    assert len(calls) == {"one": 1, "two": 2}[forwards]
    assert list(terms) == ["task", "raw", "pure", "penalty", "intra", "inter", "total"]
    for name, p in network.named_parameters():
        gates = name.startswith("purify.")
        clear = (second[name].abs() > 1e-4) & ((first[name].abs() > 1e-4) | torch.tensor(not gates))
        expected = second[name].sign() + (first[name].sign() if gates else 0)
        close((start[name] - p.detach())[clear], 0.05 * expected[clear], atol=1e-4)
    assert any(first[name].any() for name in first if name.startswith("purify."))
    assert any(first[name].any() for name in first if name.startswith("encode."))  # and the encoders do not go by it


# ------------------------------------------------------------------------------------------------- the released modules

CASES = {"full": {}, "tanh": {"activation": "tanh", "fusion": "concat"}}
RELEASED = {"d": 10, "heads": 5, "n_layers": 3, **NO_DROPOUT}


def recorded(case: str) -> dict[str, np.ndarray]:
    ref = reference("mim")
    return ref | {name.partition("/")[2]: value for name, value in ref.items() if name.startswith(f"{case}/")}


@pytest.mark.parametrize("forwards", ["one", "two"])
@pytest.mark.parametrize("case", CASES)
def test_it_gives_the_numbers_of_the_released_modules(case, forwards, monkeypatch):
    """Their encoders, gates, predictors and fusion, put together as their training does, on the noise stored."""
    ref = recorded(case)
    switches = RELEASED | CASES[case] | {"forwards": forwards}
    network, procedure, batch = prepared("mim", ref, switches, lr=3e-2, weight_decay=0.0)
    close(network.eval()(batch).prediction, torch.tensor(ref["at_median"]), atol=1e-5)
    monkeypatch.setattr(torch, "rand_like", lambda x: torch.tensor(ref["u"]))
    output = network.train()(batch)
    close(output.prediction, torch.tensor(ref["prediction"]), atol=1e-5)
    terms = network.loss(batch, output)
    for name, expected in zip(("task", "raw", "pure", "penalty", "intra", "inter"), ref["terms"], strict=True):
        close(terms[name], torch.tensor(expected, dtype=torch.float32), atol=1e-5)
    for _ in range(3):
        procedure.step(batch, "main")
    close(network(batch).prediction, torch.tensor(ref[f"after_{forwards}"]), atol=1e-4)
    assert np.abs(ref[f"after_{forwards}"] - ref["prediction"]).min() > 0.03


def test_with_noise_always_evaluation_is_as_training(monkeypatch):
    ref = recorded("full")
    network, _, batch = prepared("mim", ref, RELEASED | {"noise": "always"})
    monkeypatch.setattr(torch, "rand_like", lambda x: fixed_noise(x, batch.index))
    close(network.eval()(batch).prediction, network.train()(batch).prediction)


def test_the_first_token_of_text_is_not_read():
    ref = recorded("full")
    network, _, batch = prepared("mim", ref, RELEASED)
    changed = batch.text.clone()
    changed[:, 0] += 1
    assert torch.equal(network.eval()(batch._replace(text=changed)).prediction, network(batch).prediction)
    changed[:, 1] += 1
    assert not torch.equal(network(batch._replace(text=changed)).prediction, network(batch).prediction)
    assert network.steps == [8, 9, 9] == [samples(ref).max_steps[m] - (m == 0) for m in range(3)]


@pytest.mark.parametrize("wrong", [{"d": 5, "heads": 1}, {"ratio": 0}])
def test_sizes_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="even d"):
        build_model("mim", dataset(), **{**TINY, **wrong})
