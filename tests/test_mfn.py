"""MFN: the recursion step by step, the reference's numbers, what audio and vision are, that it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from replay import assert_equal, count, of_recipe, reference, replayed, samples, with_weights
from toy import close

from msa_lib.data import load_dataset
from msa_lib.models import build_model
from msa_lib.models.mfn import SMALL, VARIANTS
from msa_lib.train import TrainConfig, fit

MLPS = ("attend", "propose", "retain", "update", "out")
DRY = {f"drop_{name}": 0.0 for name in MLPS}
TINY = {"d_t": 5, "d_a": 2, "d_v": 3, "memory": 4} | dict(zip(MLPS, (3, 4, 5, 2, 6), strict=True)) | DRY
SETTINGS = {"weight_decay": 5e-3, "clip": 0.0}


@pytest.mark.parametrize(("printed", "parameters"), [("mosi", 2_172_657), ("mosei", 1_276_865), ("sims", 601_505)])
def test_parameters_are_as_many_as_in_the_harness(printed, parameters):
    assert count("mfn", printed, **of_recipe("mfn", printed)) == parameters


@pytest.mark.parametrize("case", ["full", "as released"])
def test_it_equals_the_reference_implementation(case):
    """The harness's network and trainer; for the described reading on the valid steps of one sample after the other."""
    ref = reference("mfn")
    assert (str(ref["repository"]), str(ref["commit"])) == ("thuiar/MMSA", "a94e65d")
    assert np.abs(ref["full/prediction"] - ref["as released/prediction"]).max() > 1e-3
    assert np.abs(ref["full/after"] - ref["full/prediction"]).max() > 1e-3
    assert_equal(replayed(ref, "mfn", case, {**TINY, **VARIANTS[case]}, SETTINGS))


class Steps:
    """The equations for one sample, one step after the other, in double precision."""

    def __init__(self, net) -> None:
        self.w = {name: p.detach().double().numpy() for name, p in net.named_parameters()}

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return self.w[f"{name}.weight"] @ x + self.w[f"{name}.bias"]

    def mlp(self, name: str, x: np.ndarray) -> np.ndarray:
        return self.linear(f"{name}.3", np.maximum(self.linear(f"{name}.0", x), 0))

    def cell(self, m: int, x: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        W, U, b, k = (self.w[f"lstms.{m}.{part}"][0] for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        i, f, g, o = np.split(W @ x + U @ h + b + k, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c

    def predict(self, sequences: list[np.ndarray], widths=(5, 2, 3), memory=4) -> float:
        h, c, u = [np.zeros(d) for d in widths], [np.zeros(d) for d in widths], np.zeros(memory)
        for xs in zip(*sequences, strict=True):
            before = np.concatenate(c)
            h, c = zip(*(self.cell(m, x, h[m], c[m]) for m, x in enumerate(xs)), strict=True)
            pair = np.concatenate([before, *c])
            weight = np.exp(self.mlp("attend", pair))
            found = weight / weight.sum() * pair
            proposed = np.tanh(self.mlp("memory.propose", found))
            s = np.concatenate([found, u])
            u = sigmoid(self.mlp("memory.retain", s)) * u + sigmoid(self.mlp("memory.update", s)) * proposed
        return self.mlp("out", np.concatenate([*h, u]))[0]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_the_memory_is_that_of_the_equations():
    ref = reference("mfn")
    data = samples(ref)
    net = with_weights(ref, build_model("mfn", data, **TINY)).eval()
    expected = []
    for i, n in enumerate(ref["lengths"][:, 0]):
        expected.append(Steps(net).predict([ref[name][i, :n].astype(float) for name in ("text", "audio", "vision")]))
    close(net(data.train.batch(slice(None))).prediction, torch.tensor(expected, dtype=torch.float32))


def test_the_order_of_audio_and_vision_reaches_nothing_when_averaged():
    ref = reference("mfn")
    data = samples(ref)
    batch = data.train.batch([0])
    turned = batch._replace(audio=batch.audio.flip(1), vision=batch.vision.flip(1))
    for av, apart in (("steps", True), ("averaged", False)):
        net = with_weights(ref, build_model("mfn", data, **TINY, av=av)).eval()
        assert ((net(batch).prediction - net(turned).prediction).abs() > 1e-4).all() == apart


def test_averages_go_over_the_steps_that_are_counted():
    ref = reference("mfn")
    data, batch = samples(ref), samples(ref).train.batch([1, 2, 3])
    nets = [build_model("mfn", data, **TINY, av="averaged", padding=padding) for padding in ("masked", "counted")]
    (masked, there), (counted, all_there) = ((x[1], valid) for x, valid in (net.streams(net, batch) for net in nets))
    share = torch.from_numpy(ref["lengths"][[1, 2, 3], 1] / 6).float()[:, None]
    close(counted[:, 0], masked[:, 0] * share)
    assert there.sum(1).tolist() == ref["lengths"][[1, 2, 3], 0].tolist()
    assert all_there.sum(1).tolist() == [6, 6, 6]


def test_dropout_of_the_gates_is_drawn_for_each_step_and_each_gate_at_its_rate():
    """With rate 1 the first layer of that gate says nothing: the gate is the sigmoid of its last bias."""
    net = build_model("mfn", samples(reference("mfn")), **TINY | {"drop_retain": 1.0})
    memory, found = net.memory.train(), torch.randn(3, 2, 20)
    u = memory(found)
    with torch.no_grad():
        first = torch.sigmoid(memory.update(torch.cat([found[:, 0], torch.zeros(3, 4)], 1)))
        second = torch.sigmoid(memory.update(torch.cat([found[:, 1], u[:, 0]], 1)))
        proposed, kept = torch.tanh(memory.propose(found)), torch.sigmoid(memory.retain[3].bias)
        close(u[:, 0], first * proposed[:, 0])
        close(u[:, 1], kept * u[:, 0] + second * proposed[:, 1])
    half = build_model("mfn", samples(reference("mfn")), **TINY | {"drop_retain": 0.5, "retain": 64}).train()
    torch.manual_seed(0)
    seen = []
    half.memory.retain[3].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    half.memory(torch.randn(40, 3, 20))
    zero = [(h == 0).float().mean().item() for h in seen]
    assert all(0.6 < share < 0.9 for share in zero)  # half by ReLU, half of the rest
    assert not torch.equal(seen[0] == 0, seen[1] == 0)


def test_everything_decays():
    """From fresh moments Adam moves every entry by its rate, against the sign of the gradient plus decay x value."""
    data = samples(reference("mfn"))
    net = build_model("mfn", data, **TINY)
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    procedure = net.Procedure(net, data, TrainConfig(lr=2e-3, **SETTINGS))
    procedure.step(data.train.batch(slice(None)), "main")
    for name, p in net.named_parameters():
        slope = p.grad + 5e-3 * before[name]
        sure = slope.abs() > 1e-4
        assert sure.any()
        close((p - before[name])[sure], -2e-3 * slope.sign()[sure], atol=2e-6)


def test_it_learns():
    data = load_dataset("planted?train=200&valid=60&test=60")
    settings = {"lr": 1e-2, "batch_size": 16, "epochs": 6, "weight_decay": 0.0, "clip": 0.0, "switches": SMALL}
    result = fit("mfn", data, settings, seeds=[1])[0]
    constant = float((data.test.labels - data.train.labels.mean()).abs().mean())
    assert result.metrics["test"]["mae"] < 0.9 * constant
