"""MSG: its size, gates and attention in loops, the mask of the adjustment, the shifting Huber loss by hand."""

from __future__ import annotations

import math

import pytest
import torch
from replay import count
from toy import close, dataset

from msa_lib.models import build_model
from msa_lib.models.msg import MSGConfig, ShiftingGate, Trace, added, huber, threshold
from msa_lib.models.parts.layers import sinusoid

TINY = {"d": 4, "heads": 2, "n_layers": 2, "dropout": 0.0}
SOME = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 1], [1, 1, 0], [1, 1, 1], [0, 0, 0]]).bool()


def made(**switches):
    data = dataset((20, 9, 7))
    torch.manual_seed(0)
    network = build_model("msg", data, **{**TINY, **switches}).eval()
    with torch.no_grad():
        for p in network.parameters():
            p.mul_(2.0)
    batch = data.train.batch(range(6))
    return network, batch._replace(lengths=batch.lengths * SOME)


def counted(dims: tuple[int, ...], d: int = 128, n_layers: int = 3) -> int:
    """By hand."""
    linear, norm = d * d + d, 2 * d
    attention = 4 * linear
    block = attention + 8 * d * d + 5 * d + 2 * norm
    mba, gate = 2 * attention + norm, attention + 2 * d * d + d + norm
    return sum(D * d + d for D in dims) + (2 + n_layers) * block + mba + 3 * gate + 1 + 4 * d * d + d + d + 1


@pytest.mark.parametrize(("data", "dims"), [("mosi", (768, 5, 20)), ("mosei", (768, 74, 35)), ("sims", (768, 33, 709))])
def test_it_has_as_many_parameters_as_counted(data, dims):
    assert count("msg", data) == counted(dims)


def attended(f, query, keys):
    """Two heads of two features, one query at a time."""
    if not len(keys):
        return torch.zeros_like(query)
    rows = []
    for q in query:
        heads = []
        for h in (slice(0, 2), slice(2, 4)):
            scores = torch.stack([f.q(q)[h] @ f.k(k)[h] / math.sqrt(2) for k in keys])
            heads.append(sum(a * f.v(k)[h] for a, k in zip(scores.softmax(0), keys, strict=True)))
        rows.append(f.out(torch.cat(heads)))
    return torch.stack(rows)


@pytest.mark.parametrize("hybrid", ["joint", "separate"])
@pytest.mark.parametrize("gated", ["sigmoid", "none"])
def test_a_gate_shifts_by_what_the_other_two_say(hybrid, gated):
    torch.manual_seed(0)
    c = MSGConfig(d=4, heads=2, dropout=0.0, hybrid=hybrid, gate=gated)
    gate, mu = ShiftingGate(c), torch.tensor([0.3])
    x, a, v = torch.randn(5, 4), torch.randn(3, 4), 3 * torch.randn(2, 4)
    others = [a[None], torch.cat([v, 9 * torch.ones(2, 4)])[None]]  # padded by two
    masks = [torch.ones(1, 3).bool(), torch.tensor([[True, True, False, False]])]
    if hybrid == "joint":
        h = attended(gate.hybrid.attention, x, torch.cat([a, v]))
    else:
        h = sum(attended(f, x, keys) for f, keys in zip(gate.hybrid.attention, (a, v), strict=True))
    if gated == "sigmoid":
        h = torch.stack([torch.sigmoid(gate.gate.linear(torch.cat([p, q]))) * q for p, q in zip(x, h, strict=True)])
    eta = torch.stack([(0.3 * p.norm() / q.norm()).clamp(max=1.0) for p, q in zip(x, h, strict=True)])
    assert gated == "sigmoid" or (eta < 1).any()
    moved, share = gate(x[None], others, masks, mu)
    close(moved[0], gate.norm(x + eta[:, None] * h), atol=1e-5)
    close(share[0], eta * h.norm(dim=-1) / x.norm(dim=-1), atol=1e-5)
    assert (share <= 0.3 + 1e-5).all()


def test_the_shift_that_is_told_is_the_mean_over_valid_steps():
    network, batch = made()
    t = Trace(**network(batch).extras)
    assert torch.equal(t.available, SOME)
    assert not t.shift[~SOME].any()
    assert (t.shift[:5].sum(1) > 0).all()
    assert (t.shift <= network.mu).all()
    alone = batch._replace(lengths=batch.lengths * torch.tensor([1, 0, 0]))
    assert (Trace(**network(alone).extras).shift < 1e-2).all()  # nobody to ask


def test_a_step_of_text_is_masked_in_training_only():
    network, _ = made(mask_rate=0.4)
    x = 1 + torch.rand(50, 20, 4)
    assert torch.equal(network.mba.mask(x), x)
    masked = network.mba.train().mask(x)
    gone = (masked == 0).all(-1)
    assert torch.equal(masked, x * ~gone[..., None])
    assert gone.float().mean().item() == pytest.approx(0.4, abs=0.05)
    whole, _ = made(masking="none")
    assert torch.equal(whole.train().mba.mask(x), x)


def test_text_is_adjusted_by_what_its_masked_steps_ask():
    """Audio, then vision, with steps 1 and 3 masked; the whole text is added to the answers."""
    network, _ = made(masking="none")  # the mask is put in by hand
    mba, kept = network.mba, torch.tensor([1.0, 0.0, 1.0, 0.0])[:, None]
    mba.mask = lambda x: x * kept
    text, audio, vision = torch.randn(4, 4), torch.randn(3, 4), torch.randn(2, 4)
    masks = [torch.ones(1, 3).bool(), torch.tensor([[True, False]])]
    expected = text + attended(mba.ask[0], text * kept, audio) + attended(mba.ask[1], text * kept, vision[:1])
    close(mba(text[None], [audio[None], vision[None]], masks)[0], mba.norm(expected), atol=1e-5)


def test_the_stages_in_their_order():
    """One sample at a time, without padding: first layers, adjustment, deeper layers of text, gates, means."""
    network, batch = made()
    predictions = network(batch).prediction
    for i in (0, 4):
        x = [z[i : i + 1, :n] for z, n in zip((batch.text, batch.audio, batch.vision), batch.lengths[i], strict=True)]
        masks = [torch.ones(z.shape[:2]).bool() for z in x]
        x = [f(z) + sinusoid(z.shape[1], 4) for f, z in zip(network.proj, x, strict=True)]
        t, a, v = (block(z, mask) for block, z, mask in zip(network.first, x, masks, strict=True))
        deep = network.deeper[0](network.mba(t, [a, v], masks[1:]), masks[0])
        others = ((deep, a, v, 1, 2), (a, deep, v, 0, 2), (v, deep, a, 0, 1))
        h = [t.mean(1)]
        for gate, (own, one, two, m, n) in zip(network.gates, others, strict=True):
            h.append(gate(own, [one, two], [masks[m], masks[n]], network.mu)[0].mean(1))
        close(predictions[i], network.out(torch.cat(h, -1))[0, 0], atol=1e-5)


def test_both_levels_of_text_are_read():
    network, batch = made()
    with torch.no_grad():
        for p in network.deeper.parameters():
            p.zero_()  # the semantic level is gone
    changed = batch._replace(text=batch.text + 1)
    assert (network(batch).prediction - network(changed).prediction)[SOME[:, 0]].abs().min() > 1e-4
    deep, _ = made(levels="semantic")
    assert deep.out[0].in_features == 3 * 4
    assert network.out[0].in_features == 4 * 4


def test_the_huber_function_is_that_of_the_library():
    error = torch.linspace(-3, 3, 25)
    close(huber(error, 0.7), torch.nn.functional.huber_loss(error, torch.zeros(25), delta=0.7, reduction="none"))


def test_the_shifting_huber_loss_by_hand():
    """Errors 0.5 and -3; shifts of text 0.2, of audio 0.4 and absent, of vision 2 and 1."""
    t = Trace(torch.tensor([[0.2, 0.4, 2.0], [0.2, 0.0, 1.0]]), torch.tensor([[True] * 3, [True, False, True]]))
    error, c = torch.tensor([0.5, -3.0]), MSGConfig(delta=1.0, shift_weight=0.5)
    terms = added(error, t, c)
    assert terms["task"] == (1.0, torch.tensor([0.125, 2.5]).mean())
    assert terms["shift"][0] == 0.5
    assert terms["shift"][1].item() == pytest.approx((0.02 + 0.08 + 1.5 + 0.02 + 0.5) / 5)
    ((_, task),) = threshold(error, t, c).values()
    delta = 1 + 0.5 * 0.6  # of the second sample; the first is within its own
    assert task.item() == pytest.approx((0.125 + delta * (3 - delta / 2)) / 2)


def test_the_loss_is_of_errors_and_shifts():
    network, batch = made(shift_weight=0.5)
    output = network(batch)
    terms = network.loss(batch, output)
    close(terms["task"], huber(output.prediction - batch.labels, 1.0).mean())
    close(terms["total"], terms["task"] + 0.5 * terms["shift"])


def test_two_levels_need_two_layers():
    with pytest.raises(ValueError, match="at least 2"):
        made(n_layers=1)
