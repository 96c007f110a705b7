"""LMF: its low-rank map against the whole tensor, the reference's numbers, its groups, that it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from replay import assert_equal, count, of_recipe, reference, replayed, samples, with_weights
from toy import close

from msa_lib.data import load_dataset
from msa_lib.models import build_model
from msa_lib.models.lmf import SMALL, VARIANTS
from msa_lib.train import TrainConfig, fit

DRY = {f"dropout_{m}": 0.0 for m in "tav"}
TINY = {"d_t": 6, "d_a": 3, "d_v": 4, "rank": 2, "lr_factors": 5e-4, **DRY}  # of the stored reference
SETTINGS = {"weight_decay": 5e-3, "clip": 0.0}
PLAIN = {"weight_decay": 0.0, "clip": 0.0}


@pytest.mark.parametrize(("printed", "parameters"), [("mosi", 505_071), ("mosei", 508_475), ("sims", 272_381)])
def test_parameters_are_as_many_as_in_the_harness(printed, parameters):
    assert count("lmf", printed, **of_recipe("lmf", printed)) == parameters


@pytest.mark.parametrize("case", ["full", "as released"])
def test_it_equals_the_reference_implementation(case):
    """The harness's network and trainer; for the described reading with means and last states of the valid steps, and
    with all parameters in its optimiser."""
    ref = reference("lmf")
    assert (str(ref["repository"]), str(ref["commit"])) == ("thuiar/MMSA", "a94e65d")
    assert np.abs(ref["full/prediction"] - ref["as released/prediction"]).max() > 1e-3
    assert np.abs(ref["full/after"] - ref["full/prediction"]).max() > 1e-3
    assert_equal(replayed(ref, "lmf", case, {**TINY, **VARIANTS[case], **DRY}, SETTINGS))


@pytest.mark.parametrize("mix", ["learned", "sum"])
def test_the_fusion_is_a_linear_map_of_the_whole_tensor(mix):
    """The weights of the map are a sum of outer products; the tensor is written out, a sample at a time."""
    ref = reference("lmf")
    learned = with_weights(ref, build_model("lmf", samples(ref), **TINY))
    net = build_model("lmf", samples(ref), **TINY, mix=mix).eval()
    net.load_state_dict(learned.state_dict(), strict=mix == "learned")
    batch = samples(ref).train.batch(range(5))
    w = net.mix.weight[0].tolist() if mix == "learned" else [1.0, 1.0]
    factors = [net.factors[m].detach().double().numpy() for m in "tav"]
    weights = sum(w[r] * outer(*(factor[r] for factor in factors)) for r in range(2))  # [1+3,1+3,1+4]
    vectors = [z.detach().double().numpy() for z in net.subnets(batch)]
    expected = [(weights * outer(*(z[i] for z in vectors))).sum() + net.mix.bias.item() for i in range(5)]
    close(net(batch).prediction, torch.tensor(expected, dtype=torch.float32))


def outer(t, a, v):
    return np.multiply.outer(np.multiply.outer(t, a), v)


def after_a_step(**switches):
    """-> the network before and after one step of its recipe, by name, and the gradients."""
    ref = reference("lmf")
    data = samples(ref)
    net = build_model("lmf", data, **TINY, **switches)
    with torch.no_grad():
        net.mix.bias.fill_(0.2)
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    procedure = net.Procedure(net, data, TrainConfig(lr=2e-3, **SETTINGS))
    procedure.step(data.train.batch(slice(None)), "main")
    return before, dict(net.named_parameters())


def test_factors_have_their_own_rate_and_everything_decays():
    """From fresh moments Adam moves every entry by its rate, against the sign of the gradient plus decay x value."""
    before, after = after_a_step()
    for name, p in after.items():
        slope = p.grad + 5e-3 * before[name]
        rate = 5e-4 if name.startswith("factors.") else 2e-3
        sure = slope.abs() > 1e-4
        close((p - before[name])[sure], -rate * slope.sign()[sure], atol=2e-6)


def test_the_weights_of_the_sum_stay_as_drawn_only_if_frozen():
    for mix in ("learned", "frozen"):
        before, after = after_a_step(mix=mix)
        same = [torch.equal(after[n], before[n]) for n in ("mix.weight", "mix.bias")]
        assert same == [mix == "frozen"] * 2


def test_it_learns():
    data = load_dataset("planted?train=200&valid=60&test=60")
    settings = {"lr": 5e-3, "batch_size": 16, "epochs": 8, **PLAIN, "switches": SMALL}
    result = fit("lmf", data, settings, seeds=[1])[0]
    constant = float((data.test.labels - data.train.labels.mean()).abs().mean())
    assert result.metrics["test"]["mae"] < 0.9 * constant
