"""Self-MM: its size, generated labels by hand, what its memory keeps, and the released code over four epochs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from replay import count, of_recipe, prepared, reference
from toy import close, dataset, with_encoder

from msa_lib.data import load_dataset
from msa_lib.models import build_model
from msa_lib.models.self_mm import SMALL, SelfMM, Trace, all_tasks, centres, generated, lean
from msa_lib.train import TrainConfig, fit

STORED = {"hidden_a": 3, "hidden_v": 4, "out_a": 3, "out_v": 2, "d": 6, "d_t": 5, "d_a": 3, "d_v": 4}
STORED |= {"dropout_t": 0.0, "dropout_a": 0.0, "accumulation": 2, "lr_v": 2e-3, "decay_a": 1e-2, "decay_v": 0.0}


@pytest.mark.parametrize(("data", "parameters"), [("mosi", 159_332), ("mosei", 165_668), ("sims", 381_380)])
def test_it_has_as_many_parameters_as_counted(data, parameters):
    assert count("self_mm", data, **of_recipe("self_mm", data)) == parameters


def procedure_of(data=None, **switches):
    data = data or dataset()
    torch.manual_seed(0)
    network = build_model("self_mm", data, **{**SMALL, **switches})
    return network, SelfMM.Procedure(network, data, TrainConfig(batch_size=5, lr=1e-2, weight_decay=0.3, clip=0.0))


def test_centres_are_means_over_who_is_there():
    """A label of 0 is in neither class; a class of nobody is at 0."""
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 0.0], [7.0, 7.0], [9.0, 1.0]])
    labels, here = torch.tensor([1.0, 2.0, -1.0, 0.0, 0.5]), torch.tensor([True, True, True, True, False])
    close(centres(features, labels, here), torch.tensor([[2.0, 3.0], [5.0, 0.0]]))
    close(centres(features, labels.abs(), here)[1], torch.zeros(2))


@pytest.mark.parametrize(("distance", "expected"), [("plain", (10 - 5) / 5), ("squared", (100 - 25) / 25)])
def test_the_lean_is_the_relative_difference_of_two_distances(distance, expected):
    """From (0, 0), (3, 4) is 5 away and (6, 8) 10."""
    got = lean(torch.zeros(1, 2), torch.tensor([[3.0, 4.0], [6.0, 8.0]]), distance)
    close(got, torch.tensor([expected]))


def test_a_generated_label_is_the_mean_of_one_scaled_and_one_shifted():
    """y = 2, leans 0.5 and 0.25: scaled 4, shifted 2.25. y = -2, 0.2 and 0.5: -0.8 and -2.3. The third is cut."""
    y, lean_s, lean_m = torch.tensor([[2.0, -2.0, 3.0], [0.5, 0.2, 4.0], [0.25, 0.5, 1.0]])
    close(generated(y, lean_s, lean_m, 4.0), torch.tensor([3.125, -1.55, 4.0]))


def test_labels_move_from_the_second_epoch_on_by_what_was_there_before():
    """In epoch 3 a label is half its old value and half the new one, of the batch's samples alone."""
    network, procedure = procedure_of()
    i = torch.tensor([1, 4, 7])
    batch, before = procedure.dataset.train.batch(i), {k: v.clone() for k, v in procedure.memory.items()}
    assert torch.equal(before["labels"], procedure.dataset.train.labels[:, None].expand(-1, 4))
    with torch.no_grad():
        output = network.eval()(batch)
        for epoch in (1, 3):
            procedure.begin_epoch(epoch)
            for name in ("fusion", "text", "audio", "vision"):
                procedure.memory[name].copy_(torch.arange(20.0)[:, None].sin() + before[name])
            memory = {k: v.clone() for k, v in procedure.memory.items()}
            procedure.after_step(batch, output)
            if epoch == 1:
                assert torch.equal(procedure.memory["labels"], before["labels"])
    f, labels = {k: v.numpy() for k, v in Trace(**output.extras)._asdict().items()}, before["labels"].numpy()
    y, a = labels[:, 0], {}
    for name in ("fusion", "text", "audio", "vision"):
        M = memory[name].numpy()
        far = [np.linalg.norm(f[name] - M[who].mean(0), axis=1) for who in (y > 0, y < 0)]
        a[name] = far[1] / far[0] - 1
    for k, name in enumerate(("text", "audio", "vision"), 1):
        new = (a[name] / a["fusion"] * y[i] + y[i] + a[name] - a["fusion"]) / 2
        close(procedure.memory["labels"][i, k], torch.tensor(y[i] / 2 + new.clip(-3, 3) / 2, dtype=torch.float32), 1e-4)
    rest = [n for n in range(20) if n not in i]
    assert torch.equal(procedure.memory["labels"][rest], before["labels"][rest])
    assert torch.equal(procedure.memory["labels"][:, 0], before["labels"][:, 0])
    for name in ("fusion", "text", "audio", "vision"):
        close(procedure.memory[name][i], output.extras[name])
        assert torch.equal(procedure.memory[name][rest], memory[name][rest])


def test_errors_weigh_more_the_further_a_label_is_from_the_samples():
    """By hand; a sample without the modality counts for nothing."""
    network, procedure = procedure_of()
    procedure.here[2, 2] = False
    batch = procedure.dataset.train.batch([0, 2, 5])
    procedure.memory["labels"][batch.index, 1:] += torch.tensor([[0.0, 0.5, -1.0], [1.0, 2.0, 0.0], [0.3, 0.3, 0.3]])
    output = network.eval()(batch)
    terms = all_tasks(procedure, batch, output)
    labels, got = procedure.memory["labels"][batch.index].numpy(), output.extras["unimodal"].detach().numpy()
    expected = {"task": np.abs(output.prediction.detach().numpy() - batch.labels.numpy()).mean()}
    for m, (name, who) in enumerate([("text", [0, 1, 2]), ("audio", [0, 2]), ("vision", [0, 1, 2])]):
        y = labels[who, 1 + m]
        expected[name] = (np.tanh(np.abs(y - labels[who, 0])) * np.abs(got[who, m] - y)).mean()
    expected["total"] = sum(expected.values())
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, abs=1e-6)


def test_without_generated_labels_only_the_fusion_learns():
    network, procedure = procedure_of(unimodal=False)
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    for epoch in (1, 2, 3):
        procedure.begin_epoch(epoch)
        for name, batches in procedure.passes(epoch, torch.Generator().manual_seed(0)):
            terms = [procedure.step(batch, name) for batch in batches]
    assert list(terms[0]) == ["task", "total"]
    same = {name for name, p in network.named_parameters() if torch.equal(p, before[name])}
    assert same == {name for name in before if name.startswith(("heads.text", "heads.audio", "heads.vision"))}


@pytest.mark.parametrize(("reach", "bound"), [("labels", 1.0), ("three", 3.0)])
def test_generated_labels_stay_within_a_range(reach, bound):
    _, procedure = procedure_of(dataset(scale="sims"), reach=reach)
    assert procedure.reach == bound


def test_every_part_has_its_rate_and_decay(tmp_path):
    """Biases and norms of the text encoder do not decay; all else does."""
    data = with_encoder(dataset(), tmp_path)
    network, procedure = procedure_of(data, bert="finetune", lr_a=1.0, lr_v=2.0, decay_a=0.1, decay_v=0.2)
    of = {id(p): (g["lr"], g["weight_decay"]) for g in procedure.optimisers["main"].param_groups for p in g["params"]}
    seen = {(name.split(".")[0], name.startswith("inputs.") and p.ndim < 2): of[id(p)]
            for name, p in network.named_parameters()}  # fmt: skip
    assert seen == {
        ("inputs", False): (2e-5, 1e-3),
        ("inputs", True): (2e-5, 0.0),
        ("audio", False): (1.0, 0.1),
        ("vision", False): (2.0, 0.2),
        ("heads", False): (1e-2, 0.3),
    }
    assert len(of) == len(list(network.parameters()))


def test_the_memory_is_no_weight():
    network, procedure = procedure_of()
    assert set(procedure.memory) == {"labels", "fusion", "text", "audio", "vision"}
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}


def test_the_released_code_gives_the_same():
    """Predictions of all heads, each term of each batch of four epochs, the labels and predictions after each of them.
    Of five batches every second one makes a step; the last is dropped."""
    ref = reference("self_mm")
    training = {"lr": 3e-3, "weight_decay": 5e-3, "batch_size": 4, "drop_last": False}
    network, procedure, everything = prepared("self_mm", ref, STORED, **training)

    def shown():
        with torch.no_grad():
            output = network.eval()(everything)
        return torch.cat([output.prediction[:, None], output.extras["unimodal"]], 1)

    close(shown(), torch.tensor(ref["prediction"]), atol=1e-5)
    for epoch in (1, 2, 3, 4):
        network.train()
        procedure.begin_epoch(epoch)
        procedure.drop_gradients()
        ((name, batches),) = procedure.passes(epoch, None)  # in their order
        terms = [procedure.step(batch, name) for batch in batches]
        got = np.array([[t[key].item() for key in ("task", "text", "audio", "vision")] for t in terms])
        np.testing.assert_allclose(got, ref["terms"][epoch - 1], atol=1e-4)
        close(procedure.memory["labels"][:, 1:], torch.tensor(ref["generated"][epoch - 1]), atol=1e-4)
        close(shown(), torch.tensor(ref["after"][epoch - 1]), atol=1e-4)
    assert np.abs(ref["generated"][-1] - ref["labels"][:, None]).max() > 1
    assert (np.abs(ref["after"][-1] - ref["prediction"]).max(0) > 0.01).all()


def test_it_learns():
    data = load_dataset("planted?train=200&valid=60&test=60")
    settings = {"lr": 5e-3, "batch_size": 16, "epochs": 6, "weight_decay": 1e-3, "clip": 0.0, "switches": SMALL}
    result = fit("self_mm", data, settings, seeds=[1])[0]
    constant = float((data.test.labels - data.train.labels.mean()).abs().mean())
    assert result.metrics["test"]["mae"] < 0.9 * constant


def test_a_class_of_nobody_leaves_numbers_finite():
    data = dataset()
    data = replace(data, train=replace(data.train, labels=data.train.labels.abs()))
    _, procedure = procedure_of(data)
    for epoch in (1, 2):
        procedure.begin_epoch(epoch)
        for name, batches in procedure.passes(epoch, torch.Generator().manual_seed(0)):
            assert all(t.isfinite() for batch in batches for t in procedure.step(batch, name).values())
    assert procedure.memory["labels"].isfinite().all()
