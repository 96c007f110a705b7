"""PriSA: its parameters, its parts by hand, what its switches do, and the numbers of the released code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from replay import count, of_recipe, prepared, reference
from toy import close, dataset

from msa_lib.data.dataset import steps_mask
from msa_lib.models import build_model
from msa_lib.models.parts.crossmodal import CrossLayer, joined
from msa_lib.models.prisa import (
    FLIP,
    RELEASED,
    SMALL,
    Augment,
    PriSA,
    PriSAConfig,
    distance_contrast,
    factor,
    scores,
    scrambled,
)
from msa_lib.train import TrainConfig

STILL = {f"{part}_dropout": 0.0 for part in ("embed", "attn", "relu", "res", "out")} | {"flip_rate": 0, "pool_rate": 0}
TINY = {**STILL, "d": 8, "heads": 2, "n_private": 2, "n_layers": 2, "lr_audio": 1e-2}


def counted(dims: tuple[int, int, int], n_layers: int, d: int = 128) -> int:
    """By hand: projections, layers, four last norms, four heads of width d and one of width 4d."""
    layer, head = 12 * d * d + 13 * d, lambda n: n * n + 2 * n + 1
    return d * sum(dims) + n_layers * layer + 4 * 2 * d + 4 * head(d) + head(4 * d)


@pytest.mark.parametrize(("data", "dims"), [("mosi", (768, 5, 20)), ("mosei", (768, 74, 35)), ("sims", (768, 33, 709))])
def test_it_has_as_many_parameters_as_counted(data, dims):
    recipe = of_recipe("prisa", data)
    assert count("prisa", data, **recipe) == counted(dims, 2 * (3 + 4))
    idle = 875_777 - 4 * (12 * 128**2 + 13 * 128)  # of the released code's 3,290,758 at MOSI's shape, besides layers
    assert count("prisa", data, **recipe | RELEASED) == counted(dims, 2 * (1 + 4))
    if data == "mosi":
        assert counted(dims, 2 * (3 + 4)) + idle == 3_290_758


def test_it_gives_the_numbers_of_the_released_code():
    """Prediction and terms in evaluation mode; the prediction after three steps, the rate rising after each."""
    ref = reference("prisa")
    training = {"lr": 1e-3, "weight_decay": 0.0, "clip": 0.0}
    network, procedure, batch = prepared("prisa", ref, TINY | RELEASED, 0.5, **training)
    with torch.no_grad():
        output = network.eval()(batch)
        terms = network.loss(batch, output)
    close(output.prediction, torch.tensor(ref["prediction"]), atol=1e-5)
    for name, value in terms.items():
        close(value, torch.tensor(ref[name]), atol=1e-5)
    network.train()
    for _ in range(3):
        procedure.step(batch, "main")
        procedure.end_epoch({}, 0.0)
    after = network.eval()(batch).prediction.detach()
    assert (after - output.prediction).abs().max() > 0.3
    close(after, torch.tensor(ref["after"]), atol=1e-4)


def test_it_augments_as_the_released_code_does():
    ref = reference("prisa")
    x = torch.nn.functional.pad(torch.tensor(ref["audio"]), (0, 0, 1, 0))
    frames = torch.nn.functional.pad(steps_mask(torch.tensor(ref["lengths"][:, 1]), x.shape[1] - 1), (1, 0))
    flipped = FLIP["features"](x, frames)
    close(flipped[:, : ref["flipped"].shape[1]], torch.tensor(ref["flipped"]))
    pooled, kept = Augment(PriSAConfig()).pooled(x, frames)
    assert pooled.shape == x.shape
    close(pooled[:, : ref["pooled"].shape[1]], torch.tensor(ref["pooled"]))
    assert kept.sum(-1).tolist() == ref["pooled_lengths"].tolist()


# ------------------------------------------------------------------------------------------------------- Parts by hand


def test_time_is_reversed_within_a_sample():
    x, frames = torch.arange(10.0).view(2, 5, 1), torch.tensor([[0, 1, 1, 1, 0], [0, 1, 1, 1, 1]]).bool()
    assert FLIP["time"](x, frames)[..., 0].tolist() == [[0, 3, 2, 1, 4], [5, 9, 8, 7, 6]]


def test_the_last_mean_may_hold_fewer_than_three():
    x = torch.tensor([0.0, 3, 6, 9, 12, 0]).view(1, 6, 1)
    pooled, kept = Augment(PriSAConfig()).pooled(x, torch.tensor([[False, True, True, True, True, False]]))
    assert pooled[0, :, 0].tolist() == [0, 6, 4, 0, 0, 0]
    assert kept.tolist() == [[False, True, True, False, False, False]]


def test_what_is_augmented_has_no_gradient_and_only_training_does_it():
    always = Augment(PriSAConfig(flip_rate=1.0, pool_rate=0.0))
    x, frames = torch.randn(2, 4, 3, requires_grad=True), torch.tensor([[False, True, True, True]] * 2)
    changed, _ = always(x, frames)
    assert not changed.requires_grad or torch.autograd.grad(changed.sum(), x)[0].abs().max() == 0
    close(changed, FLIP["time"](x, frames))
    never, _ = always.eval()(x, frames)
    assert never is x


def test_scores_hide_padding_and_add_to_the_summary():
    assert scores(torch.tensor([[False, True, False]]), 1.0).flatten().tolist() == [1.0, 0.0, -math.inf]


def test_scrambled_heads_are_those_of_other_steps():
    x = torch.arange(2 * 3 * 2.0).view(1, 2, 3, 2)  # two heads, three steps, two features each
    assert joined(x)[0].tolist() == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]
    assert scrambled(x)[0].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    torch.manual_seed(0)
    ours, theirs = CrossLayer(4, 2, 0.0, 0.0, 0.0), torch.nn.MultiheadAttention(4, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.attention.qkv.weight)
        theirs.in_proj_bias.copy_(torch.nn.init.normal_(ours.attention.qkv.bias))
    theirs.out_proj.load_state_dict(ours.attention.out.state_dict())
    y, mask = torch.randn(2, 3, 4), torch.tensor([[1.0, 0.0, -math.inf], [1.0, 0.0, 0.0]])
    expected = theirs(y, y, y, attn_mask=mask.repeat_interleave(2, 0)[:, None].expand(-1, 3, -1))[0]
    close(ours.attention(y, y, mask[:, None, None]), expected)


def test_the_contrast_by_hand():
    random = np.random.default_rng(0)
    x, z = random.normal(size=(2, 6, 3))
    y, here = np.array([1.0, 1.5, -0.2, 0.2, 3.0, 1.2]), np.array([True, True, True, True, True, False])
    rows = []
    for i in np.flatnonzero(here):
        cos = np.array([x[i] @ z[j] / np.linalg.norm(x[i]) / np.linalg.norm(z[j]) for j in range(6)])
        e = np.exp(cos / 0.1) * here
        p = e / e.sum()
        far = [j for j in range(5) if abs(y[i] - y[j]) > 0.9 or (y[i] < 0) != (y[j] < 0)]
        near = [j for j in range(5) if j not in far]
        rows.append(np.mean(-np.log(p[near] + 1e-10)) + np.mean(-np.log(1 - p[far] + 1e-10)))
    got = distance_contrast(*map(torch.tensor, (x, z, y, here)), 0.1, 0.9)
    assert got.item() == pytest.approx(np.mean(rows), abs=1e-6)


def test_a_contrast_without_negatives_is_finite():
    x = torch.randn(3, 4, requires_grad=True)
    value = distance_contrast(x, x, torch.tensor([1.0, 1.1, 1.2]), torch.tensor([True] * 3), 0.1, 0.9)
    value.backward()
    assert value.isfinite()
    assert x.grad.isfinite().all()


# ------------------------------------------------------------------------------------------------ Losses and procedure


def network(**switches) -> PriSA:
    torch.manual_seed(0)
    return build_model("prisa", dataset(), **{**SMALL, **STILL, **switches}).eval()


def test_what_a_sample_lacks_is_in_no_loss_of_its_own():
    made, batch = network(), dataset().train.batch(range(8))
    lengths = batch.lengths.clone()
    lengths[3, 1] = lengths[5, 2] = 0
    some = batch._replace(lengths=lengths)
    t = made(some).extras["own"]
    with_a, with_v = [0, 1, 2, 4, 5, 6, 7], [0, 1, 2, 3, 4, 6, 7]
    error = (t - some.labels[:, None]).abs()
    expected = error[with_a][:, [0, 2]].mean(0).sum() + error[with_v][:, [1, 3]].mean(0).sum()
    close(made.loss(some, made(some))["own"], expected)


def test_rates_rise_for_five_epochs_and_fall_twice():
    assert [factor(epoch) for epoch in (0, 3, 4, 5, 19, 20, 49, 50)] == pytest.approx(
        [0.2, 0.8, 1, 1, 1, 0.1, 0.1, 0.01]
    )
    made = network(lr_audio=0.5)
    procedure = PriSA.Procedure(made, dataset(), TrainConfig(lr=0.1))
    rates = {}
    for group in procedure.optimisers["main"].param_groups:
        for p in group["params"]:
            rates[id(p)] = group["lr"]
    audio = {id(p) for p in made.fused[0].layers.parameters()}
    assert all(rates[id(p)] == pytest.approx(0.1 if id(p) in audio else 0.02) for p in made.parameters())
    procedure.step(dataset().train.batch(range(6)), "main")
    procedure.end_epoch({}, 0.0)
    assert procedure.optimisers["main"].param_groups[0]["lr"] == pytest.approx(0.2)


@pytest.mark.parametrize(("switch", "value"), [i for i in RELEASED.items() if i[0] not in ("flip", "w_private")])
def test_each_slip_of_the_released_code_changes_the_prediction(switch, value):
    batch = dataset().train.batch(range(6))
    slipped = network(**{switch: value})
    whole = network()
    if switch == "private":
        slipped.load_state_dict({k.replace("layers.1", "layers.0") if k.startswith("private") else k: v
                                 for k, v in whole.state_dict().items()
                                 if not (k.startswith("private") and "layers.0" in k)})  # fmt: skip
    assert (whole(batch).prediction - slipped(batch).prediction).abs().max() > 1e-4
