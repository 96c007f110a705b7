"""MulT: its parameters, its attention and steps by hand, what its switches do, and the numbers of the harness."""

from __future__ import annotations

import pytest
import torch
from replay import count, of_recipe, prepared, reference
from toy import close, dataset

from msa_lib.data import Batch
from msa_lib.data.dataset import steps_mask
from msa_lib.models import build_model
from msa_lib.models.mult import SMALL, Memory, MulT
from msa_lib.models.parts.crossmodal import SelfEncoder, last
from msa_lib.train import TrainConfig

STILL = {f"{part}_dropout": 0.0 for part in ("text", "embed", "relu", "res", "out")}
STILL |= dict.fromkeys(("attn_text", "attn_audio", "attn_vision"), 0.0)
TINY = {**STILL, "d": 4, "heads": 2, "n_layers": 2, "k_text": 3, "k_audio": 1, "k_vision": 2, "accumulation": 2}
CASES = {"full": {}, **{label: MulT.VARIANTS[label] for label in ("as released", "as released by the authors")}}


@pytest.mark.parametrize(("name", "expected"), [("mosi", 2_571_551), ("mosei", 982_951), ("sims", 1_870_701)])
def test_as_many_parameters_as_the_harness_has(name, expected):
    assert count("mult", name, **of_recipe("mult", name)) == expected


def test_the_memory_is_the_last_step_of_the_whole_encoder():
    torch.manual_seed(0)
    memory = Memory(6, 2, 3, *[0.0] * 4).eval()
    whole = SelfEncoder(6, 2, 3, *[0.0] * 4).eval()
    whole.load_state_dict(memory.state_dict())
    x, mask = torch.randn(3, 5, 6), steps_mask(torch.tensor([5, 2, 0]), 5)
    close(memory(x, mask), last(whole(x, mask), mask), atol=1e-5)


def network(**switches) -> MulT:
    torch.manual_seed(0)
    made = build_model("mult", dataset(), **{**SMALL, **STILL, **switches}).eval()
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return made


def batch(**changes) -> Batch:
    whole = dataset().train.batch(range(8), trim=False)
    return whole._replace(lengths=torch.tensor([[6, 5, 4]]).repeat(8, 1), **changes)


def turned(b: Batch) -> Batch:
    """The first two steps of audio change places: a kernel of 1 reads it, and no last step is touched."""
    return b._replace(audio=b.audio[:, [1, 0, 2, 3, 4]])


def test_without_positions_the_order_of_steps_is_not_seen():
    for kind, seen in (("none", False), ("sin", True), ("heard", True)):
        made = network(positions=kind, causal=False)
        gap = (made(turned(batch())).prediction - made(batch()).prediction).abs().max()
        assert (gap > 1e-3) == seen, kind
        if not seen:
            assert gap < 1e-5


def test_a_silent_step_has_no_position_in_the_authors_code():
    silent = batch(audio=batch().audio.clone())
    silent.audio[:, 2] = 0
    sin, heard = network(positions="sin"), network(positions="heard")
    assert torch.equal(sin(batch()).prediction, heard(batch()).prediction)
    assert (sin(silent).prediction - heard(silent).prediction).abs().max() > 1e-3


def test_counted_padding_is_read_as_steps():
    masked, counted = network(padding="masked"), network(padding="counted")
    close(masked(batch()).prediction, counted(batch()).prediction)
    short = batch()._replace(lengths=torch.tensor([[4, 3, 2]]).repeat(8, 1))
    assert (masked(short).prediction - counted(short).prediction).abs().max() > 1e-3


def test_a_step_sums_batches_clips_each_time_and_drops_the_rest():
    made = network(accumulation=2).train()
    by_hand = network(accumulation=2).train()
    data = dataset()
    procedure = MulT.Procedure(made, data, TrainConfig(lr=0.01, weight_decay=0.0, clip=0.02))
    adam = torch.optim.Adam(by_hand.parameters(), lr=0.01)
    batches = [data.train.batch(range(i, i + 5)) for i in range(0, 20, 5)]
    for _ in range(2):  # two epochs of three batches
        procedure.drop_gradients()
        for b in batches[:3]:
            procedure.step(b, "main")
        totals = {n: torch.zeros_like(p) for n, p in by_hand.named_parameters()}
        for b in batches[:2]:
            grads = torch.autograd.grad((by_hand(b).prediction - b.labels).abs().mean(), list(by_hand.parameters()))
            totals = {n: (v + g).clamp(-0.02, 0.02) for (n, v), g in zip(totals.items(), grads, strict=True)}
        for n, p in by_hand.named_parameters():
            p.grad = totals[n]
        adam.step()
    for (name, p), q in zip(made.named_parameters(), by_hand.parameters(), strict=True):
        if name.endswith("qkv.bias"):  # softmax does not see a key's: its gradient is noise, and Adam steps by signs
            (p, _, p_v), (q, _, q_v) = p.chunk(3), q.chunk(3)
            p, q = torch.cat([p, p_v]), torch.cat([q, q_v])
        torch.testing.assert_close(p, q, atol=1e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_the_rate_falls_when_validation_does_not():
    made = network(plateau=1)
    procedure = MulT.Procedure(made, dataset(), TrainConfig(lr=0.01))
    rates = []
    for mae in (1.0, 0.9, 0.9, 0.9, 0.8):
        procedure.end_epoch({"valid": {"mae": mae}}, 0.0)
        rates.append(procedure.optimisers["main"].param_groups[0]["lr"])
    assert rates == pytest.approx([0.01, 0.01, 0.01, 0.001, 0.001])


@pytest.mark.parametrize("case", CASES)
def test_it_equals_the_harness(case):
    """`full` where no padding is; the authors' encoder by the harness's copy of it, its positions turned on."""
    file, prefix = reference("mult"), case.replace(" ", "_") + "."
    stored = {key.removeprefix(prefix): value for key, value in file.items() if key.startswith(prefix)}
    numbers = {key: torch.from_numpy(stored[key]) for key in ("prediction", "loss.task", "after")}
    training = {"lr": 1e-2, "weight_decay": 0.0, "clip": 0.05, "batch_size": 3}
    made, procedure, whole = prepared("mult", stored | {"names": file["names"]}, TINY | CASES[case], **training)
    with torch.no_grad():
        output = made.eval()(whole)
    torch.testing.assert_close(output.prediction, numbers["prediction"], atol=1e-5, rtol=0)
    torch.testing.assert_close(made.loss(whole, output)["task"], numbers["loss.task"], atol=1e-5, rtol=0)
    for b in procedure.dataset.train.batches(3):  # six, three steps
        made.train()
        procedure.step(b, "main")
    with torch.no_grad():
        after = made.eval()(whole).prediction
    assert (after - output.prediction).abs().max() > 0.05
    torch.testing.assert_close(after, numbers["after"], atol=1e-4, rtol=0)


def test_a_width_that_cannot_be_is_refused():
    for wrong in ({"d": 3}, {"k_audio": 0}, {"accumulation": 0}, {"heads": 5}):
        with pytest.raises(ValueError, match=r"expected at least|must be a multiple"):
            build_model("mult", dataset(), **{**SMALL, **wrong})
