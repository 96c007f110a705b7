"""What every model of the registry promises, in each of its variants and under each value of each of its switches.

A new model is tested here by being registered; its own test file holds its equations.
"""

from __future__ import annotations

import copy
from dataclasses import fields
from functools import cache
from typing import get_args, get_type_hints

import pytest
import torch
from torch import Tensor, nn
from toy import (
    NAMES,
    Toy,
    check_stacking,
    close,
    finite_step,
    padded,
    same,
    switch_values,
    text_only,
    total,
    with_encoder,
)

from msa_lib.data import Batch, Dataset, planted
from msa_lib.models import MODELS, build_model
from msa_lib.train import fit

REGISTRY = MODELS | {"toy": Toy}
VARIANTS = {(m, label): v for m, model in REGISTRY.items() for label, v in model.VARIANTS.items()}
SWITCHED = {
    (name, f"{switch}={value}"): {switch: value}
    for name, model in MODELS.items()
    for switch, value in switch_values(model.Config, skip=("bert", "pair_weights"))
    if value != getattr(model.Config(), switch)
}
CASES = VARIANTS | SWITCHED
BATCHWISE = {("dsrf", "perturb=shuffle")}  # reads other samples of the batch, on purpose


def cases(table: dict, *without: tuple[str, str]):
    chosen = [case for case in table if case not in without]
    return pytest.mark.parametrize("case", chosen, ids=[f"{model}-{label}" for model, label in chosen])


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(MODELS, "toy", Toy)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small tensors are slower on several
    yield
    torch.set_num_threads(threads)


@cache
def data() -> Dataset:
    """Unaligned; modalities of different lengths."""
    options = {"train": "16", "valid": "6", "test": "6", "dims": "8,6,7", "fill": "0.5", "steps": "6,12,9"}
    return planted.load("planted-sims", options)


def batch_of(index=range(6)) -> Batch:
    """Of which sample 1 has no audio, sample 2 only audio, sample 3 no text."""
    batch = data().train.batch(list(index))
    has = torch.ones(16, 3, dtype=torch.long)
    has[1, 1] = has[2, 0] = has[2, 2] = has[3, 0] = 0
    return batch._replace(lengths=batch.lengths * has[batch.index])


def make(case: tuple[str, str], dataset: Dataset | None = None, seed: int = 0) -> nn.Module:
    """A small network in eval mode, its weights larger than at the start, so that samples differ."""
    name, _ = case
    torch.manual_seed(seed)
    network = build_model(name, dataset or data(), **{**REGISTRY[name].SMALL, **CASES[case]}).eval()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn_like(p)).mul_(1.5)
    return network


def shown(network: nn.Module, batch: Batch) -> dict[str, Tensor]:
    output = network(batch)
    return {"prediction": output.prediction} | {k: output.extras[k] for k in network.RECORD if k in output.extras}


def everything(network: nn.Module, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor], list[Tensor | None]]:
    """What is shown, the loss terms, and the gradient of every parameter."""
    output = network(batch)
    terms = network.loss(batch, output)
    used = [p for p in network.parameters() if p.requires_grad]
    return shown(network, batch), terms, torch.autograd.grad(terms["total"], used, allow_unused=True)


@cases(CASES)
def test_an_output_has_the_form_that_the_loop_reads(case):
    network, batch = make(case), batch_of()
    output = network(batch)
    assert output.prediction.shape == batch.labels.shape
    assert output.prediction.isfinite().all()
    assert all(len(value) == len(batch.labels) for value in output.extras.values())
    terms = network.loss(batch, output)
    assert all(value.shape == () for value in terms.values())
    assert list(terms)[-1] == "total"


@cases(CASES)
def test_a_step_is_finite_whatever_is_missing(case):
    network, batch = make(case), batch_of()
    finite_step(network, batch._replace(lengths=batch.lengths * 0))
    finite_step(network, batch._replace(audio=batch.audio * 0, vision=batch.vision * 0))
    finite_step(network, batch_of([4]))


@cases(CASES, *BATCHWISE)
def test_a_sample_does_not_depend_on_its_batch(case):
    network = make(case)
    together = shown(network, batch_of())
    for i in (1, 2, 5):  # alone, and so in other widths
        same(shown(network, batch_of([i])), {name: value[i : i + 1] for name, value in together.items()}, atol=5e-6)


@cases(CASES)
def test_padding_reaches_nothing(case):
    """Neither outputs nor losses nor gradients, whatever it holds and however much of it there is."""
    network, batch = make(case), batch_of()
    expected, terms, grads = everything(network, batch)
    got, got_terms, got_grads = everything(network, padded(batch, float("nan"), 5))
    same(got, expected, atol=5e-6)
    same(got_terms, terms, atol=2e-5)
    for a, b in zip(got_grads, grads, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", REGISTRY)
def test_a_trimmed_batch_equals_the_whole_width(name):
    split, network = data().train, make((name, "full"))
    short = split.host_lengths.amax(1).argsort()[:4].tolist()
    batch = split.batch(short)
    assert batch.audio.shape[1] < split.audio.shape[1]
    whole = batch._replace(**{part: getattr(split, part)[short] for part in NAMES})
    same(shown(network, batch), shown(network, whole))


@cases(CASES)
def test_what_a_sample_lacks_is_not_read(case):
    """The features of a missing modality may hold anything, in single samples and in all."""
    network, batch = make(case), batch_of()
    absent = [m for m in range(3) if "tav"[m] not in CASES[case].get("modalities", "tav")]
    expected, terms, grads = everything(network, batch)
    content = {}
    for m, name in enumerate(NAMES):
        gone = (batch.lengths[:, m] == 0) | (m in absent)
        content[name] = batch.features[m].masked_fill(gone[:, None, None], float("nan"))
    got, got_terms, got_grads = everything(network, batch._replace(**content))
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    assert all(torch.equal(got_terms[name], terms[name]) for name in terms)
    assert all(a is b or torch.equal(a, b) for a, b in zip(got_grads, grads, strict=True))


@cases(VARIANTS)
def test_data_that_lack_modalities(case):
    """A variant that fits them trains on them; what it cannot have comes with a reason."""
    model, dataset = REGISTRY[case[0]], text_only(data())
    if not model.fits(dataset, CASES[case]):
        finite_step(make(case, dataset), dataset.train.batch(range(5)))


# Parameters without a gradient, on purpose: the beginnings of their names. In all models the biases of keys, because
# softmax does not see a shift of all its arguments, and what belongs to a modality that is left out.
PER_MODALITY = ("features.proj", "ccam.heads", "to_modality")
IDLE = {("amsgfn", one): ("ccam.", "scorer.", "layers.0.cma.", "layers.0.gate.") for one in "TVA"}  # nothing to weigh
IDLE |= {("amsgfn", f"{one}-oriented, s=1"): ("scorer.",) for one in "tva"}
IDLE |= {("amsgfn", "s=1, dynamic p"): ("scorer.",), ("dsrf", "Eq. 13 only"): ("gate.",)}
DEAD = ("purify.2.lstm.", "purify.2.score.", "purify.2.compare.0.weight")  # a ReLU on one number, and here it is 0
IDLE |= {("mim", label): DEAD for label in MODELS["mim"].VARIANTS}
IDLE |= {("mmim", label): ("entropy_maps.",) for label in ("full", "as released", "as in MMSA")}  # needs a memory
IDLE |= {  # labels for them are in the procedure's memory
    ("self_mm", label): ("heads.text.", "heads.audio.", "heads.vision.") for label in MODELS["self_mm"].VARIANTS
}
IDLE |= {  # what weighs is of the first stage, or there in training only
    ("kuda", label): ("verdicts.", "blocks.0.weighed.") for label in ("equal weights", "as released")
}


@cases(VARIANTS)
def test_gradients_reach_every_parameter(case):
    network, named = make(case), IDLE.get(case, ())
    absent = [m for m in range(3) if "tav"[m] not in CASES[case].get("modalities", "tav")]
    total(network, batch_of(range(15))).backward()  # an odd number: signs, of an L1 loss, can cancel otherwise
    idle = [n for n, p in network.named_parameters() if p.grad is None or not (p.grad.any() or n.endswith("k.bias"))]
    assert all(any(n.startswith(part) for n in idle) for part in named)
    allowed = (*named, *(f"{part}.{m}." for part in PER_MODALITY for m in absent))
    assert [n for n in idle if not n.startswith(allowed)] == []


@cases(VARIANTS)
def test_the_same_seed_gives_the_same_bits(case):
    """The network, and three steps of training, dropout included; a copy and a restored state go on alike."""
    batch, runs = batch_of(), []
    for again in (make(case), make(case), copy.deepcopy(make(case)), make(case, seed=9)):
        again.load_state_dict(make(case).state_dict() if len(runs) == 3 else again.state_dict())
        optimiser = torch.optim.AdamW(again.train().parameters(), lr=1e-2)
        torch.manual_seed(5)
        for _ in range(3):
            optimiser.zero_grad()
            total(again, batch).backward()
            optimiser.step()
        runs.append(again.eval()(batch).prediction)
    assert all(torch.equal(prediction, runs[0]) for prediction in runs)


def kill(record: dict) -> None:
    """After the first epoch is saved."""
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", REGISTRY)
def test_a_run_taken_up_again_ends_in_the_same_bytes(name, tmp_path):
    config = {"batch_size": 8, "lr": 1e-3, "switches": dict(REGISTRY[name].SMALL)}
    config["epochs"] = 3  # also of the killed run: schedules depend on it
    whole = fit(name, data(), config, seeds=(1,))[0]
    with pytest.raises(KeyboardInterrupt):
        fit(name, data(), config, seeds=(1,), folder=tmp_path, report=kill)
    resumed = fit(name, data(), config, seeds=(1,), folder=tmp_path)[0]
    assert whole.status == resumed.status == "done"
    assert whole.history == resumed.history
    assert whole.outputs["predictions"].tobytes() == resumed.outputs["predictions"].tobytes()


GRAPHS = {case: v for case, v in VARIANTS.items() if case[1] in ("full", "T", "concat MLP", "w/o HSF (bypass)")}


@cases(GRAPHS)
def test_the_forward_is_one_graph(case):
    network, batch = make(case), batch_of()
    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    assert torch.equal(compiled(batch).prediction, network(batch).prediction)


@cases(GRAPHS)
def test_seeds_can_be_stacked(case):
    check_stacking([make(case, seed=seed) for seed in range(3)], batch_of())


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if hasattr(model.Config(), "bert")])
def test_a_text_encoder_can_be_frozen_or_trained(name, tmp_path):
    dataset = with_encoder(data(), tmp_path)
    for bert in ("frozen", "finetune"):
        torch.manual_seed(0)
        network = build_model(name, dataset, **MODELS[name].SMALL, bert=bert)
        finite_step(network, dataset.train.batch(range(6)))
        trained = [p.grad is not None and p.grad.any() for n, p in network.named_parameters() if "text_encoder" in n]
        assert any(trained) == (bert == "finetune")
        together = network.eval()(dataset.train.batch(range(6))).prediction
        close(network(dataset.train.batch([2])).prediction, together[2:3])
        if hasattr(MODELS[name].Config(), "modalities"):
            without = build_model(name, dataset, **MODELS[name].SMALL, bert=bert, modalities="av")
            assert not any("text_encoder" in n for n, _ in without.named_modules())


@pytest.mark.parametrize("name", MODELS)
def test_a_wrong_switch_is_answered_with_the_right_ones(name):
    config = MODELS[name].Config
    with pytest.raises(ValueError, match=f"No {name} switch 'nonsense'.*{fields(config)[0].name}"):
        build_model(name, data(), nonsense=1)
    for switch, hint in get_type_hints(config).items():
        with pytest.raises(ValueError, match=f"{name} switch {switch}=.*expected") as raised:
            build_model(name, data(), **{switch: ["nonsense"]})
        assert "\n" not in str(raised.value)
        assert all(repr(value) in str(raised.value) for value in get_args(hint) if isinstance(value, str))
