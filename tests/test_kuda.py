"""KuDA: its parameters, weights and stages by hand, what its switches do, and the numbers of the released code."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from replay import count, of_recipe, prepared, reference
from toy import close, dataset, with_encoder

from msa_lib.data import Batch
from msa_lib.models import build_model
from msa_lib.models.kuda import SMALL, KuDA, KuDAConfig, by_consensus, by_label
from msa_lib.models.kuda_encoders import hidden
from msa_lib.train import TrainConfig

STILL = dict.fromkeys(("encoder_dropout", "adapter_dropout", "dropout"), 0.0)
RELEASED = KuDA.VARIANTS["as released"]
TINY = {**STILL, "d": 16, "d_hidden": 24, "n_blocks": 2, "d_av": 16, "inject_lr": 2e-2}
TINY |= dict.fromkeys(("inject_text", "inject_audio", "inject_vision"), 10)


def test_as_many_parameters_as_the_released_code_has_for_ch_sims():
    assert count("kuda", "sims", **of_recipe("kuda", "sims")) == 20_223_931  # without BERT


def counted(dims: tuple[int, int, int], room: tuple[int, int, int]) -> int:
    """By hand, for the other data sets."""
    linear = lambda i, o: i * o + o  # noqa: E731
    block = lambda d, f: 4 * linear(d, d) + linear(d, f) + linear(f, d) + 4 * d  # noqa: E731
    adapter = lambda d: linear(d, d // 2) + linear(d // 2, d) + 2 * block(d // 2, d // 4)  # noqa: E731
    verdict = lambda d: linear(2 * d, d // 2) + linear(d // 2, d // 4) + linear(d // 4, d // 8) + d // 8 + 1  # noqa: E731
    total = 4 * adapter(dims[0]) + 2 * dims[0] + verdict(dims[0])
    for size, steps in zip(dims[1:], room[1:], strict=True):
        total += linear(size, 128) + steps * 128 + 4 * block(128, 64) + 3 * adapter(128) + 2 * 128 + verdict(128)
    total += sum(linear(2 * size, 256) for size in (dims[0], 128, 128)) + sum(linear(T, room[0]) for T in room)
    attention, ffn = 3 * 256 * 512 + linear(512, 256), linear(256, 512) + linear(512, 256) + 2 * 256
    fusion = 3 * (attention + ffn + 3 * 2 * 256) + 2 * 256 + attention + ffn + 3 * 2 * 256
    return total + 3 * fusion + linear(256, 64) + linear(64, 32) + 33


@pytest.mark.parametrize(("data", "dims", "room"), [
    ("mosi", (768, 5, 20), (50, 375, 500)), ("sims", (768, 33, 709), (39, 400, 55))
])  # fmt: skip
def test_and_as_many_as_counted_by_hand(data, dims, room):
    assert count("kuda", data) == counted(dims, room)


def test_it_gives_the_numbers_of_the_released_code():
    """In evaluation and in training mode, after stage 1 (10 epochs) and after three epochs of stage 2."""
    ref = {name: torch.tensor(value) if value.dtype.kind == "f" else value for name, value in reference("kuda").items()}
    training = {"lr": 1e-2, "weight_decay": 1e-5, "clip": 0.0, "epochs": 10, "drop_last": False}
    network, procedure, batch = prepared("kuda", reference("kuda"), TINY | RELEASED, 0.8, **training)
    output = network.eval()(batch)
    close(output.prediction, ref["prediction"], atol=1e-5)
    close(output.extras["verdicts"], ref["verdicts"], atol=1e-5)
    close(network.loss(batch, output)["contrast"], ref["contrast"], atol=1e-5)
    output = network.train()(batch)
    close(output.prediction, ref["trained_prediction"], atol=1e-5)
    close(network.loss(batch, output)["total"], ref["trained_total"], atol=1e-5)
    assert (ref["trained_prediction"] - ref["prediction"]).abs().max() > 1e-3  # the label was there, or not
    for epoch in (1, 2, 3):
        network.train()
        for name, batches in procedure.passes(epoch, None):
            if (epoch, name) == (1, "main"):
                close(network.eval()(batch).extras["verdicts"], ref["injected"], atol=1e-4)
                network.train()
            for one in batches:
                procedure.step(one, name)
        procedure.end_epoch({}, 0.0)
    close(network.eval()(batch).prediction, ref["after"], atol=1e-4)


# -------------------------------------------------------------------------------------------------------------- By hand


def network(**switches) -> KuDA:
    torch.manual_seed(0)
    made = build_model("kuda", dataset(), **{**SMALL, **STILL, **switches}).eval()
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return made


def some(*lengths: tuple[int, int, int]) -> Batch:
    whole = dataset().train.batch(range(len(lengths)), trim=False)
    return whole._replace(lengths=torch.tensor(lengths))


def test_weights_by_consensus_by_hand():
    u, here = torch.tensor([[1.0, 2.0, -1.0], [0.5, 9.0, 1.5]]), torch.tensor([[True] * 3, [True, False, True]])
    r = by_consensus(network(sharpness=0.5), u, here, torch.zeros(2))
    e = [np.exp(-0.5 * (x - 2 / 3) ** 2) for x in (1.0, 2.0, -1.0)]
    close(r[0], torch.tensor(e).float() / sum(e))
    close(r[1], torch.tensor([0.5, 0.0, 0.5]))


def test_weights_by_the_label_are_there_in_training_only():
    made, u, here = network(sharpness=0.5), torch.tensor([[1.0, 2.0, -1.0]]), torch.ones(1, 3, dtype=torch.bool)
    assert by_label(made, u, here, torch.tensor([2.0])) is None
    e = [np.exp(-0.5 * (x - 2) ** 2) for x in (1.0, 2.0, -1.0)]
    close(by_label(made.train(), u, here, torch.tensor([2.0]))[0], torch.tensor(e).float() / sum(e))


@pytest.mark.parametrize(
    ("weights", "weigh", "seen"),
    [("consensus", "after", False), ("label", "after", True), ("label", "before", False), ("none", "after", False)],
)
def test_only_weights_by_the_label_read_it_and_the_norm_undoes_them(weights, weigh, seen):
    made, batch = network(weights=weights, weigh=weigh, sharpness=2.0), some((6, 5, 4), (3, 2, 4))
    other = batch._replace(labels=batch.labels + 2)
    close(made(batch).prediction, made(other).prediction)
    made.train()
    gap = (made(batch).prediction - made(other).prediction).abs().max()
    assert gap > 1e-3 if seen else gap < 1e-4


def test_a_block_by_its_parts():
    s, h, here = torch.randn(1, 6, 32), torch.randn(3, 1, 6, 32), torch.ones(1, 3, dtype=torch.bool)
    r = torch.tensor([[0.2, 0.5, 0.3]])
    for weigh in ("after", "before"):
        block = network(weigh=weigh).blocks[0]
        C = [reader(s, x) for reader, x in zip(block.readers, h, strict=True)]
        after = sum((1 + r[0, m]) * norm(C[m]) for m, norm in enumerate(block.weighed))
        before = sum(norm((1 + r[0, m]) * C[m]) for m, norm in enumerate(block.weighed))
        s1 = block.norm1(s + block.norm(after if weigh == "after" else before))
        s2 = block.norm2(s1 + block.attention(s1, s1))
        close(block(s, h, here, r), block.norm3(s2 + block.ffn(s2)))
    unweighed = sum(norm(C[m]) for m, norm in enumerate(block.weighed))
    assert (before - unweighed).abs().max() < 1e-3 < 0.1 < (after - unweighed).abs().max()


def test_an_absent_modality_is_in_no_sum_and_no_contrast():
    made, batch = network(), some((6, 5, 4), (3, 0, 4), (0, 2, 2), (4, 5, 1))
    output = made(batch)
    terms = made.loss(batch, output)
    by_hand = 0.0
    for m in range(3):
        x, z = (v / v.norm(dim=-1, keepdim=True) for v in (output.extras["modalities"][:, m], output.extras["common"]))
        S, rows = x @ z.T, [i for i in range(4) if batch.lengths[i, m]]
        by_hand += torch.stack([S[i].logsumexp(0) - S[i, i] for i in rows]).mean()
    close(terms["contrast"], by_hand)


def test_what_is_absent_is_not_read():
    made, batch = network(), some((6, 0, 4), (3, 0, 4))
    before = made(batch).prediction
    with torch.no_grad():
        for part in (made.slots[1], made.blocks[0].readers[1], made.blocks[0].weighed[1], made.verdicts[1]):
            for p in part.parameters():
                p.add_(1.0)
    assert torch.equal(made(batch).prediction, before)


def test_counted_padding_is_no_key_but_is_read():
    masked, counted = network(padding="masked"), network(padding="counted")
    full = some((6, 5, 4), (6, 5, 4))
    close(masked(full).prediction, counted(full).prediction)
    short = some((4, 3, 2), (2, 5, 4))
    assert (masked(short).prediction - counted(short).prediction).abs().max() > 1e-4


def test_a_text_encoder_gives_its_states(tmp_path):
    data = with_encoder(dataset(), tmp_path)
    made = build_model("kuda", data, **SMALL, bert="frozen")
    batch = data.train.batch(range(3))
    states = made.inputs.text_encoder.states(batch.tokens)
    close(states[-1], made.inputs.text_encoder(batch.tokens))
    got = hidden(made.inputs, batch).chunk(6, -1)
    assert torch.equal(got[0], states[0])
    assert torch.equal(got[-1], states[-1])


# ----------------------------------------------------------------------------------------------------------- Two stages


def staged(data=None, **switches):
    data = data or dataset()
    torch.manual_seed(0)
    made = build_model("kuda", data, **SMALL | STILL | switches)
    return made, KuDA.Procedure(made, data, TrainConfig(lr=1e-2, batch_size=10, epochs=10))


def values(made: KuDA) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in made.named_parameters()}


def test_each_stage_trains_its_own_part():
    made, procedure = staged(inject_text=2, inject_audio=1, inject_vision=3)
    seen, before = [], values(made)
    for name, batches in procedure.passes(1, torch.Generator().manual_seed(0)):
        for batch in batches:
            terms = procedure.step(batch, name)
        moved = {n for n, p in made.named_parameters() if not torch.equal(p, before[n])}
        seen.append((name, tuple(terms)))
        taught = {n for n in before if n.startswith("verdicts.") or ".adapters." in n}
        alone = taught | {n for n in before if n.startswith("encoders.")}
        assert moved <= (alone if name == "inject" else before.keys() - taught)
        before = values(made)
    assert seen == [
        ("inject", ("text", "audio", "vision")),
        ("inject", ("text", "vision")),
        ("inject", ("vision",)),
        ("main", ("task", "contrast", "total")),
    ]
    assert [name for name, _ in procedure.passes(2, torch.Generator())] == ["main"]
    assert not any(p.requires_grad for p in made.taught())


def test_stage_1_learns_the_label_of_each_modality_where_there_is_one():
    own = torch.stack([torch.full((20,), v) for v in (1.0, -1.0, 0.5)], 1)
    data = dataset((20, 6, 6))
    for labels in (own, None):
        source = replace(data, train=replace(data.train, unimodal_labels=labels))
        made, procedure = staged(source)
        procedure.learning = [0, 1, 2]
        batch = source.train.batch(range(20))
        _, here, u = made.unimodal(batch)
        terms = procedure.step(batch, "inject")
        error = (u.detach() - (batch.labels[:, None] if labels is None else labels)) ** 2
        close(torch.stack(list(terms.values())), (error * here).sum(0) / here.sum(0))


def test_rates_of_both_stages():
    _, procedure = staged(inject_text=20, inject_audio=10, inject_vision=1, first_epoch="idle")
    batch = dataset().train.batch(range(6))
    rates = []
    for name, _ in procedure.passes(1, torch.Generator()):
        if name == "inject":
            rates.append([g["lr"] / 1e-4 for g in procedure.optimisers["inject"].param_groups[:2]])
            procedure.step(batch, name)
    cosine = [(1 + np.cos(np.pi * k / 9)) / 2 for k in range(4)]
    np.testing.assert_allclose([audio for _, audio in rates[:6]], [0, 1, *cosine], atol=1e-6)
    np.testing.assert_allclose([text for text, _ in rates[:4]], [0, 0.5, 1, 1], atol=1e-6)
    _, procedure = staged()
    assert procedure.optimisers["main"].param_groups[0]["lr"] == pytest.approx(1e-2)  # of 10 epochs one rises


def test_an_adapter_needs_two_states():
    with pytest.raises(ValueError, match="n_layers=1: expected at least 2"):
        network(n_layers=1)
    assert KuDAConfig().n_layers == 4
