"""TFN: the tensor in loops, the reference implementation's numbers, its switches, parameter counts, that it learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from replay import assert_equal, count, of_recipe, reference, replayed, samples
from toy import close

from msa_lib.data import load_dataset
from msa_lib.models import build_model
from msa_lib.models.card import settings
from msa_lib.models.parts.subnets import BatchNorm
from msa_lib.models.tfn import RECIPES, SMALL, VARIANTS
from msa_lib.train import TrainConfig, fit
from msa_lib.train.procedure import Procedure

PLAIN = {"weight_decay": 0.0, "clip": 0.0}
DRY = {f"dropout_{m}": 0.0 for m in "tavz"}
TINY = {"d_t": 5, "d_a": 3, "d_v": 4, "text_out": 3, "fusion": 6, **DRY}  # of the stored reference


@pytest.mark.parametrize(("printed", "parameters"), [("mosi", 9_497_043), ("mosei", 5_042_539), ("sims", 35_632_077)])
def test_parameters_are_as_many_as_in_the_harness(printed, parameters):
    assert count("tfn", printed, **of_recipe("tfn", printed)) == parameters


@pytest.mark.parametrize("case", VARIANTS)
def test_it_equals_the_reference_implementation(case):
    """The harness's network; for the described reading with means and last states of the valid steps."""
    ref = reference("tfn")
    assert (str(ref["repository"]), str(ref["commit"])) == ("thuiar/MMSA", "a94e65d")
    assert np.abs(ref["full/prediction"] - ref["as released/prediction"]).max() > 1e-3
    assert np.abs(ref["full/after"] - ref["full/prediction"]).max() > 1e-3
    assert_equal(replayed(ref, "tfn", case, {**TINY, **VARIANTS[case], **DRY}, PLAIN))


def test_the_tensor_holds_every_product():
    """One sample, the sums of the first inference layer written out over unimodal, bimodal and trimodal products."""
    ref = reference("tfn")
    net = build_model("tfn", samples(ref), **TINY).eval()
    batch = samples(ref).train.batch([2])
    t, a, v = (z[0].detach().double() for z in net.subnets(batch))
    assert t[0] == a[0] == v[0] == 1
    W, b = (p.detach().double() for p in net.inference[0].parameters())
    places = [(i, j, k) for i in range(4) for j in range(5) for k in range(4)]  # audio, vision, text
    first = torch.stack([W[:, n] * a[i] * v[j] * t[k] for n, (i, j, k) in enumerate(places)]).sum(0) + b
    hidden = net.inference[3](torch.relu(first).float())
    y = net.inference[6](torch.relu(hidden))
    close(net(batch).prediction, 6 * torch.sigmoid(y) - 3)


def test_padding_counts_only_as_released():
    """As the file has room for 7 and 5 steps, means of fewer are smaller by that share; text reads on over zeros."""
    data, lengths = samples(reference("tfn")), reference("tfn")["lengths"]
    seen = {}
    for padding in ("masked", "counted"):
        net = build_model("tfn", data, **TINY, padding=padding).eval().subnets
        net.audio = net.vision = torch.nn.Identity()
        seen[padding] = net(data.train.batch([1, 2, 3]))
    for m, room in ((1, 7), (2, 5)):
        share = torch.from_numpy(lengths[[1, 2, 3], m] / room).float()[:, None]
        close(seen["counted"][m][:, 1:], seen["masked"][m][:, 1:] * share)
    assert (seen["counted"][0] - seen["masked"][0]).abs().max() > 1e-3


def test_predictions_lie_in_the_range_of_the_labels_unless_released():
    data = replace(samples(reference("tfn")), scale="sims")
    for switches, bound in (({}, 1.0), ({"out_range": "three"}, 3.0)):
        net = build_model("tfn", data, **TINY, **switches).eval()
        with torch.no_grad():
            net.inference[6].bias.fill_(50.0)
        close(net(data.train.batch([0])).prediction, torch.tensor([bound]))


def test_a_batch_of_one_is_normalised_by_the_running_statistics():
    norm = BatchNorm(2)
    norm.running_mean.copy_(torch.tensor([1.0, 2.0]))
    norm.running_var.copy_(torch.tensor([4.0, 9.0]))
    close(norm.train()(torch.tensor([[3.0, 8.0]])), torch.tensor([[1.0, 2.0]]), atol=1e-5)
    close(norm(torch.tensor([[3.0, 8.0], [1.0, 2.0]])), torch.tensor([[1.0, 1.0], [-1.0, -1.0]]), atol=1e-5)


def test_the_recipe_is_adam_without_decay_on_all_batches():
    """One step from fresh moments: every parameter with a gradient moves by the rate, whatever the gradient's size."""
    data = samples(reference("tfn"))
    net = build_model("tfn", data, **TINY)
    values = settings(RECIPES["mosi"])
    config = TrainConfig(**{k: v for k, v in values.items() if k not in of_recipe("tfn", "mosi")})
    procedure: Procedure = net.Procedure(net, data, config)
    assert isinstance(procedure.optimisers["main"], torch.optim.Adam)
    before = [p.detach().clone() for p in net.parameters()]
    assert len(list(procedure.passes(1, torch.Generator()))) == 1
    procedure.step(data.train.batch(slice(None)), "main")
    for p, old in zip(net.parameters(), before, strict=True):
        moved = (p - old)[p.grad.abs() > 1e-4].abs()
        close(moved, torch.full_like(moved, 1e-3), atol=1e-6)
    assert (config.weight_decay, config.clip, config.drop_last, config.batch_size) == (0.0, 0.0, False, 32)


def test_it_learns():
    data = load_dataset("planted?train=200&valid=60&test=60")
    settings = {"lr": 3e-3, "batch_size": 32, "epochs": 8, **PLAIN, "switches": SMALL}
    result = fit("tfn", data, settings, seeds=[1])[0]
    constant = float((data.test.labels - data.train.labels.mean()).abs().mean())
    assert result.metrics["test"]["mae"] < 0.9 * constant
