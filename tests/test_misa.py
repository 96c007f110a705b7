"""MISA: its parameters, its losses by hand, what its switches do, and the numbers of the harness."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from replay import count, of_recipe, prepared, reference
from toy import close, dataset

from msa_lib.data import Batch
from msa_lib.models import build_model
from msa_lib.models.misa import CMD, MISA, SMALL, Adversary, MISAConfig, Trace, difference
from msa_lib.train import TrainConfig

IDLE = 2 * 2 * 768 + 4 * 129  # the harness's norm of text and its discriminator of parts


@pytest.mark.parametrize(("name", "expected"), [("mosi", 1_138_033), ("mosei", 1_435_105), ("sims", 21_664_749)])
def test_as_many_parameters_as_the_harness_has_without_those_it_does_not_use(name, expected):
    assert count("misa", name, **of_recipe("misa", name)) == expected - IDLE


@pytest.mark.parametrize("similarity", ["cmd", "adversarial"])
def test_it_equals_the_harness(similarity):
    """Prediction and terms in evaluation mode; the prediction after three steps, each down two clipped gradients."""
    ref = reference("misa")
    case = {name.removeprefix(f"{similarity}/"): value for name, value in ref.items()}
    switches = MISA.VARIANTS["as released"] | {"d": 6, "dropout": 0.0, "attention_dropout": 0.0}
    settings = {"lr": 1e-2, "weight_decay": 0.0, "clip": 0.05, "batch_size": 4}
    made, procedure, whole = prepared("misa", case, switches | {"similarity": similarity}, 0.6, **settings)
    with torch.no_grad():
        output = made.eval()(whole)
        terms = made.loss(whole, output)
    close(output.prediction, torch.tensor(case["prediction"]), atol=1e-5)
    for name, value in terms.items():
        torch.testing.assert_close(value, torch.tensor(case[name]), atol=1e-5, rtol=1e-6)
    made.train()
    for batch in procedure.dataset.train.batches(4):
        procedure.step(batch, "main")
    after = made.eval()(whole).prediction.detach()
    assert (after - output.prediction).abs().max() > 0.5
    close(after, torch.tensor(case["after"]), atol=1e-4)


# ------------------------------------------------------------------------------------------------------ Losses by hand


def parts(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Of seven samples: vectors [B,M,d] between 0 and 1, and which there are."""
    random = np.random.default_rng(seed)
    here = np.ones((7, 3), dtype=bool)
    here[1, 0] = here[2, 1] = here[5, 1] = here[5, 2] = False
    return random.uniform(size=(7, 3, 4)), here


def test_moments_are_compared_over_the_samples_that_have_a_modality():
    s, here = parts()
    expected = 0.0
    for i, j in combinations(range(3), 2):
        x, y = s[here[:, i], i], s[here[:, j], j]
        expected += np.linalg.norm(x.mean(0) - y.mean(0)) / 3
        for k in range(2, 6):
            moments = (((z - z.mean(0)) ** k).mean(0) for z in (x, y))
            expected += np.linalg.norm(np.subtract(*moments)) / 3
    assert CMD(MISAConfig())(torch.tensor(s), torch.tensor(here)).item() == pytest.approx(expected)


def test_a_batch_of_two_has_a_gradient():
    """Its odd moments are zero, where a square root has none."""
    s = torch.rand(2, 3, 4, requires_grad=True)
    CMD(MISAConfig())(s, torch.ones(2, 3, dtype=torch.bool)).backward()
    assert s.grad.isfinite().all()


def test_parts_are_told_apart_over_the_samples_that_have_both():
    (p, here), (s, _) = parts(), parts(1)
    pairs = [(p[:, m], s[:, m], here[:, m]) for m in range(3)]
    pairs += [(p[:, i], p[:, j], here[:, i] & here[:, j]) for i, j in combinations(range(3), 2)]
    expected = 0.0
    for x, y, both in pairs:
        x, y = (z[both] - z[both].mean(0) for z in (x, y))
        x, y = (z / (np.linalg.norm(z, axis=1, keepdims=True) + 1e-6) for z in (x, y))
        expected += ((x.T @ y) ** 2).mean()
    assert difference(*map(torch.tensor, (p, s, here))).item() == pytest.approx(expected)


def test_the_adversary_learns_what_the_shared_parts_unlearn():
    torch.manual_seed(0)
    adversary = Adversary(MISAConfig(d=4, reversal=0.5)).double().eval()
    s, here = (torch.tensor(x) for x in parts())
    s.requires_grad_()
    loss = adversary(s, here)
    log_p = torch.log_softmax(adversary.guess(s), -1)
    plain = -torch.stack([log_p[b, m, m] for b in range(7) for m in range(3) if here[b, m]]).mean()
    close(loss, plain)
    (reversed_, *learned), (straight, *same) = (
        torch.autograd.grad(x, [s, *adversary.parameters()]) for x in (loss, plain)
    )
    close(reversed_, -0.5 * straight)
    for ours, expected in zip(learned, same, strict=True):
        close(ours, expected)


def test_the_reconstruction_is_of_what_is_there():
    made, whole = network(), batch()
    lengths = whole.lengths.clone()
    lengths[0, 1] = lengths[3, 2] = lengths[4, 0] = 0
    some = whole._replace(lengths=lengths)
    t = Trace(**(output := made(some)).extras)
    errors = [((t.again[b, m] - t.u[b, m]) ** 2).mean() for b in range(8) for m in range(3) if lengths[b, m]]
    close(made.loss(some, output)["reconstruction"], torch.stack(errors).mean())


# ------------------------------------------------------------------------------------------------------------ Switches


def network(**switches) -> MISA:
    torch.manual_seed(0)
    return build_model("misa", dataset(), **{**SMALL, **switches}).eval()


def batch(*lengths: int, **changes) -> Batch:
    whole = dataset().train.batch(range(8), trim=False)
    return whole._replace(lengths=torch.tensor([lengths or (6, 5, 4)]).repeat(8, 1), **changes)


def moved(made: MISA, one: Batch, other: Batch) -> float:
    return (made(one).prediction - made(other).prediction).abs().max().item()


def test_the_harness_reads_as_many_frames_as_there_are_tokens():
    some, audio = batch(2, 5, 4), batch().audio.clone()
    audio[:, 2:] += 1.0
    changed = some._replace(audio=audio)
    assert moved(network(frames="first"), some, changed) == 0
    assert moved(network(frames="own"), some, changed) > 1e-3
    close(network(frames="first")(some).prediction, network(frames="own")(batch(2, 2, 2)).prediction)


def test_and_zeros_where_there_are_fewer():
    some = batch(6, 3, 4)
    audio, vision = some.audio.clone(), some.vision.clone()
    audio[:, 3:], vision[:, 4:] = 0, 0
    zeros = batch(6, 6, 6, audio=torch.nn.functional.pad(audio, (0, 0, 0, 1)),
                  vision=torch.nn.functional.pad(vision, (0, 0, 0, 2)))  # fmt: skip
    assert (audio.shape[1], vision.shape[1]) == (5, 4)
    close(network(frames="first")(some).prediction, network(frames="own")(zeros).prediction)


def test_aligned_frames_are_the_sequences_own_where_all_are_as_long():
    close(network(frames="aligned")(batch(4, 4, 4)).prediction, network(frames="own")(batch(4, 4, 4)).prediction)
    assert moved(network(frames="aligned"), batch(4, 4, 4), batch(2, 4, 4)) > 1e-3


def test_recurrent_weights_start_orthogonal():
    for kind in ("orthogonal", "uniform"):
        W = network(recurrent=kind).vision.second.weight_hh[1]
        gap = (W.T @ W - torch.eye(W.shape[1])).abs().max()
        assert (gap < 1e-5) == (kind == "orthogonal")


def test_a_step_is_down_two_batches():
    data = dataset()
    made = build_model("misa", data, **SMALL | {"accumulation": 2})
    procedure = MISA.Procedure(made, data, TrainConfig())
    start = [p.detach().clone() for p in made.parameters()]
    for after in (False, True):
        procedure.step(data.train.batch(range(5)), "main")
        assert any(not torch.equal(p, q) for p, q in zip(made.parameters(), start, strict=True)) == after


def test_what_is_absent_is_not_read():
    """The columns of the readout for the private and shared part of audio."""
    made, some = network(), batch(6, 0, 4)
    before = made(some).prediction
    with torch.no_grad():
        made.read[0].weight.view(-1, 6, SMALL["d"])[:, [1, 4]] += 1.0
    assert torch.equal(made(some).prediction, before)
    assert moved(made, batch(6, 5, 4), some) > 1e-3
