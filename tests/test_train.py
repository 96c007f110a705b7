"""The training loop: what is kept, when it stops, what it does when numbers or models go wrong, and that it goes on."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from toy import DATA, SHORT, SMALL, Scripted, Toy, dataset, split

from msa_lib.data import load_dataset
from msa_lib.data.dataset import Dataset
from msa_lib.metrics import evaluate
from msa_lib.models import MODELS, build_model
from msa_lib.train import TrainConfig, evaluate_split, fit, mean_loss, predict
from msa_lib.train import loop as train
from msa_lib.train.procedure import Procedure
from msa_lib.train.state import packed, unpacked


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    monkeypatch.setitem(MODELS, "toy", Toy)
    monkeypatch.setitem(MODELS, "scripted", Scripted)


@pytest.fixture(scope="module")
def planted() -> Dataset:
    return load_dataset(DATA)


# What is kept, and when training stops

SCRIPT = {  # best epoch by correlation 3, by MAE 2, by loss 5, by the test set 4; nothing improves after
    "valid_noise": (0.9, 0.8, 0.1, 0.6, 0.7, 0.8, 0.9, 0.9, 0.9),
    "valid_shift": (0.5, 0.1, 1.5, 1.0, 1.0, 1.2, 1.5, 1.5, 1.5),
    "test_shift": (0.9, 0.8, 0.7, 0.1, 0.5, 0.6, 0.9, 0.9, 0.9),
    "valid_loss": (9.0, 8.0, 7.0, 6.0, 5.0, 5.0, 5.5, 6.0, 7.0),
}


def scripted(selection: str, patience: int = 3, **script):
    """The result of a run whose scores are as told; an epoch of 20 samples in batches of 10 is two steps."""
    config = {"selection": selection, "patience": patience, "epochs": 9, "batch_size": 10}
    return fit("scripted", dataset(), {**config, "switches": {**SCRIPT, **script, "steps": 2}}, [1])[0]


BEST = [("val_mae", 2, 5), ("val_corr", 3, 6), ("val_loss", 5, 8), ("test_oracle", 4, 7), ("last", 9, 9)]


@pytest.mark.parametrize(("selection", "best", "epochs"), BEST)
def test_each_rule_keeps_its_epoch_and_waits_for_patience(selection, best, epochs):
    result = scripted(selection)
    assert (result.status, result.best_epoch, result.epochs) == ("done", best, epochs)
    assert [record["epoch"] for record in result.history] == list(range(1, epochs + 1))
    noise, shift = SCRIPT["valid_noise"][best - 1], SCRIPT["valid_shift"][best - 1]
    expected = np.abs(noise * (1.0 - 2.0 * (np.arange(9) % 2)) + shift).mean()
    assert result.metrics["valid"]["mae"] == pytest.approx(expected, abs=1e-5)
    assert result.metrics["test"]["mae"] == pytest.approx(SCRIPT["test_shift"][best - 1], abs=1e-5)
    assert int(result.network.seen) == 2 * best


@pytest.mark.parametrize(("patience", "epochs"), [(1, 3), (4, 6), (100, 9)])
def test_patience_counts_epochs_without_improvement(patience, epochs):
    assert scripted("val_mae", patience).epochs == epochs


def test_an_equal_score_is_no_improvement():
    assert scripted("val_mae", 3, valid_noise=(0.5,) * 9, valid_shift=(0.0,) * 9).best_epoch == 1


def test_a_score_that_is_not_a_number_is_passed_over():
    loss = (3.0, math.nan, 2.0, *[math.nan] * 6)
    result = scripted("val_loss", 4, valid_loss=loss)
    assert (result.best_epoch, result.epochs) == (3, 7)
    result = scripted("val_loss", 4, valid_loss=(math.nan,) * 9)
    assert (result.status, result.metrics, result.best_epoch) == ("failed", {}, None)
    assert result.reason == "val_loss was not a finite number in any of 4 epochs."


def test_constant_predictions_have_no_correlation_to_select_by(planted):
    config = {**SHORT, "switches": {"output": "constant"}}
    result = fit("toy", planted, {**config, "selection": "val_corr"}, [1])[0]
    assert result.reason == "val_corr was not a finite number in any of 3 epochs."
    result = fit("toy", planted, config, [1])[0]
    assert (result.status, result.best_epoch) == ("done", 1)
    assert math.isnan(result.metrics["test"]["corr"])
    assert math.isnan(result.history[0]["valid"]["corr"])


@pytest.mark.parametrize("selection", ["val_mae", "val_loss", "val_corr", "test_oracle"])
def test_the_network_returned_is_the_one_that_was_scored(planted, selection):
    config = {**SHORT, "epochs": 5, "lr": 0.02, "selection": selection, "switches": SMALL}
    result = fit("amsgfn", planted, config, [3])[0]
    best = result.history[result.best_epoch - 1]
    valid = evaluate_split(result.network, planted.valid, "mosi", 16)
    assert {k: result.metrics["valid"][k] for k in valid} == valid == best["valid"]
    if selection in ("val_mae", "val_corr"):
        sign = 1 if selection == "val_mae" else -1
        scores = [sign * record["valid"][selection[4:]] for record in result.history]
        assert scores.index(min(scores)) + 1 == result.best_epoch
    outputs = predict(result.network, planted.test, 16)
    assert set(outputs) == set(result.outputs) == {"labels", "predictions", "contribution", "dominant", "gate"}
    assert all(np.array_equal(outputs[k], result.outputs[k]) for k in outputs)
    assert np.array_equal(outputs["labels"], planted.test.labels.numpy())
    assert result.metrics["test"]["mae"] == evaluate(outputs["labels"], outputs["predictions"])["mae"]
    assert {"acc7_k", "acc7_n", "f1_non0_swapped"} <= set(result.metrics["test"])


def test_validation_loss_counts_every_sample_once(planted):
    network = build_model("toy", planted).eval()
    batch = planted.valid.batch(range(32))
    with torch.no_grad():
        whole = float(network.loss(batch, network(batch))["total"])
    assert mean_loss(network, planted.valid, 5) == pytest.approx(whole, rel=1e-5)


# Numbers and models that go wrong


@pytest.mark.parametrize(("fault", "shown"), [("nan", "nan"), ("inf", "inf")])
@pytest.mark.parametrize(("at", "step", "epoch"), [(1, 1, 1), (3, 3, 1), (6, 2, 2)])
def test_a_loss_that_is_not_a_number_stops_the_run(planted, fault, shown, at, step, epoch):
    result = fit("toy", planted, {**SHORT, "switches": {"fault": fault, "at": at}}, [1])[0]
    assert (result.status, result.metrics, result.outputs, result.best_epoch) == ("failed", {}, {}, None)
    assert result.reason == f"Loss term 'extra' was {shown} at step {step} of epoch {epoch}."
    assert len(result.history) == epoch - 1


def test_a_diverging_network_is_a_failed_run(planted):
    result = fit("amsgfn", planted, {**SHORT, "lr": 1e30, "switches": SMALL}, [1])[0]
    assert result.status == "failed"
    assert "at step 2 of epoch 1" in result.reason


def test_a_network_broken_by_its_last_step_is_a_failed_run(planted):
    """With `last` no score stands between a broken network and the result."""
    config = {**SHORT, "batch_size": 64, "epochs": 1, "lr": 1e30, "selection": "last"}
    result = fit("toy", planted, config, [1])[0]
    assert (result.status, result.metrics) == ("failed", {})
    assert result.reason == "The network of epoch 1 predicts NaN or infinity on valid."


def test_an_error_inside_a_model_is_not_taken_for_a_wrong_request(planted):
    for fault in ("RuntimeError", "ValueError"):
        with pytest.raises(RuntimeError, match="asked for"):
            fit("toy", planted, {**SHORT, "switches": {"fault": fault}}, [1])
    with pytest.raises(KeyboardInterrupt):
        fit("toy", planted, {**SHORT, "switches": {"fault": "KeyboardInterrupt"}}, [1])


WRONG = [
    ({"sed": 1}, r"^No training setting 'sed': .*names are batch_size, lr, .*threads, switches\.$"),
    ({"selection": "val"}, r"^training setting selection='val': expected one of 'val_mae', .*'test_oracle'\.$"),
    ({"epochs": 1.5}, r"^training setting epochs=1\.5: expected an integer\.$"),
    ({"batch_size": 0}, r"^training setting batch_size=0: expected a number of at least 1\.$"),
    ({"epochs": 0}, r"epochs=0: expected a number of at least 1\.$"),
    ({"patience": 0}, r"patience=0: expected a number of at least 1\.$"),
    ({"threads": 0}, r"threads=0: expected a number of at least 1\.$"),
    ({"lr": -1}, r"lr=-1\.0: expected a number of at least 0\.$"),
    ({"clip": math.nan}, r"clip=nan: expected a number of at least 0\.$"),
    ({"lr": math.inf}, r"lr=inf: expected a number of at least 0\.$"),
    ({"switches": {"widht": 3}}, r"^No toy switch 'widht': did you mean 'width'\? The names are width, output, fault,"),
    ({"switches": {"fault": "no"}}, r"^toy switch fault='no': expected one of 'none', "),
    ({"switches": {"width": 101}}, r"^width=101: expected at most 100\.$"),
]


@pytest.mark.parametrize(("config", "message"), WRONG)
def test_a_wrong_setting_or_switch_raises_one_sentence(planted, config, message):
    with pytest.raises(ValueError, match=message):
        fit("toy", planted, config, [1])


def test_wrong_values_in_a_config_object_and_wrong_models(planted):
    with pytest.raises(ValueError, match="training setting selection='val_mea': expected one of"):
        fit("toy", planted, TrainConfig(selection="val_mea"), [1])
    with pytest.raises(ValueError, match=r"^No model 'toi': expected one of amsgfn, .*toy"):
        fit("toi", planted, None, [1])
    with pytest.raises(ValueError, match=r"one seed; 2 were given"):
        fit("toy", planted, None, [1, 2], folder="x")


# The contract of `fit`


def test_settings_as_object_mapping_or_none(planted, monkeypatch):
    config = {**SHORT, "switches": {"width": 3}}
    results = [fit("toy", planted, c, [1])[0] for c in (config, TrainConfig(**config))]
    assert results[0].metrics == results[1].metrics
    assert results[0].n_parameters == 32 * 3 + 3 + 3 + 1
    seen = []
    monkeypatch.setattr(train, "_fit_seed", lambda name, data, config, seed, *rest: seen.append((config, seed)))
    fit("toy", planted, None)
    fit("toy", planted)
    assert seen == [(TrainConfig(), seed) for seed in (1111, 1112, 1113, 1114, 1115)] * 2


def test_one_result_per_seed_and_seeds_differ(planted):
    results = fit("toy", planted, SHORT, (5, 6)) + fit("toy", planted, SHORT, [5])
    assert [(r.model, r.seed, r.status, r.epochs) for r in results] == [("toy", s, "done", 3) for s in (5, 6, 5)]
    predictions = [r.outputs["predictions"] for r in results]
    assert np.array_equal(predictions[0], predictions[2])
    assert not np.array_equal(predictions[0], predictions[1])
    assert results[0].history == results[2].history != results[1].history
    alone = fit("toy", planted, SHORT, [6])[0]
    assert np.array_equal(alone.outputs["predictions"], predictions[1])


def test_the_number_of_threads_is_set_and_put_back(planted):
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        fit("toy", planted, SHORT, [1], report=lambda _: seen.append(torch.get_num_threads()))
        assert (seen, torch.get_num_threads()) == ([1, 1, 1], 2)
        with pytest.raises(RuntimeError):
            fit("toy", planted, {**SHORT, "switches": {"fault": "RuntimeError"}}, [1])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_each_epoch_is_reported(planted):
    told = []
    result = fit("toy", planted, SHORT, [1], report=told.append)[0]
    assert told == result.history
    assert [set(record) for record in told] == [{"epoch", "loss", "valid"}] * 3
    assert set(told[0]["loss"]) == {"task", "extra", "total"}


def test_the_last_small_batch_is_left_out_or_trained_on(planted):
    sizes = []

    class Counting(Toy):
        def loss(self, batch, output):
            if self.training:
                sizes.append(len(batch.labels))
            return super().loss(batch, output)

    MODELS["toy"] = Counting  # put back by the fixture
    fit("toy", planted, {**SHORT, "epochs": 1, "batch_size": 30}, [1])
    fit("toy", planted, {**SHORT, "epochs": 1, "batch_size": 30, "drop_last": False}, [1])
    fit("toy", planted, {**SHORT, "epochs": 1, "batch_size": 100}, [1])
    assert sizes == [30, 30, 30, 30, 4, 64]


# The step


class Unfused(Procedure):
    """For the meta device, which has no fused AdamW."""

    def optimiser(self, groups):
        return torch.optim.AdamW(groups)


def epoch_parts(data: Dataset, procedure: type = Procedure, device: str = "cpu", **config):
    """What an epoch of AMSGFN is trained with."""
    network = build_model("amsgfn", data, **SMALL).to(device)
    return procedure(network, data.to(device), TrainConfig(**config)), torch.Generator().manual_seed(0)


def groups_of(network, config: TrainConfig) -> list[dict]:
    return Procedure(network, None, config).groups()


class Watch(TorchDispatchMode):
    """Counts the operations that would make the host wait for a device."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal", "item")

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.waits += func.name().split("::")[1].split(".")[0].strip("_") in [w.strip("_") for w in self.WAITING]
        return func(*args, **(kwargs or {}))


def test_a_step_does_not_wait_for_the_device(planted):
    """Waits per epoch are the same for 2 and for 16 steps: only the end of the epoch looks at numbers."""
    waits = []
    for size in (32, 4):
        with Watch() as watch:
            train._train_epoch(*epoch_parts(planted, batch_size=size), 1)
        waits.append(watch.waits)
    assert waits[0] == waits[1] <= 2


def test_a_step_reads_no_value_at_all(planted):
    """On the meta device, which has no values: all steps pass, and only the end of the epoch asks for numbers."""
    steps = []
    procedure, shuffle = epoch_parts(planted, Unfused, "meta", batch_size=16)
    procedure.optimisers["main"].register_step_post_hook(lambda *_: steps.append(1))
    with pytest.raises(NotImplementedError, match="meta"):
        train._train_epoch(procedure, shuffle, 1)
    assert len(steps) == 4


def test_the_watch_sees_a_wait(planted):
    with Watch() as watch:
        float(planted.train.labels.sum())
    assert watch.waits == 1


def test_parameter_groups(planted):
    network = build_model("amsgfn", planted, **SMALL)
    groups = groups_of(network, TrainConfig(lr=0.5, weight_decay=0.25))
    assert [(g["lr"], g["weight_decay"]) for g in groups] in ([(0.5, 0.25), (0.5, 0.0)], [(0.5, 0.0), (0.5, 0.25)])
    for group in groups:
        assert all((p.ndim < 2) == (group["weight_decay"] == 0) for p in group["params"])
    assert sum(len(g["params"]) for g in groups) == len(list(network.parameters()))


def test_biases_of_a_bank_do_not_decay(planted):
    """DSRF keeps the biases of its three modalities as one matrix: still biases."""
    network = build_model("dsrf", planted, **SMALL)
    decay = {id(p): g["weight_decay"] for g in groups_of(network, TrainConfig()) for p in g["params"]}
    banks = [p for name, p in network.named_parameters() if ".bias." in name]
    assert {p.ndim for p in banks} == {2}
    assert all(decay[id(p)] == 0 for p in banks)
    assert decay[id(network.factors.noise.weight[0])] > 0


@pytest.mark.parametrize("clip", [0.0, 0.125])
def test_the_gradient_is_clipped_as_a_whole(planted, clip):
    procedure, shuffle = epoch_parts(planted, batch_size=16, clip=clip)
    network, norms = procedure.network, []
    procedure.optimisers["main"].register_step_pre_hook(
        lambda *_: norms.append(torch.stack([p.grad.norm() for p in network.parameters() if p.grad is not None]).norm())
    )
    train._train_epoch(procedure, shuffle, 1)
    assert len(norms) == 4
    if clip:
        assert max(norms) == pytest.approx(0.125, rel=1e-3)
    else:
        assert min(norms) > 0.2


# Text encoders


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    """A tiny random BERT, saved."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    folder = tmp_path_factory.mktemp("encoder")
    BertModel(BertConfig(vocab_size=60, max_position_embeddings=16, **sizes)).save_pretrained(folder)
    return str(folder)


def with_tokens(encoder: str) -> Dataset:
    parts = [split(n, part) for part, n in enumerate((20, 9, 7))]
    for i, part in enumerate(parts):
        ids = torch.randint(5, 60, (len(part), 6), generator=torch.Generator().manual_seed(i))
        mask = (torch.arange(6) < part.lengths[:, :1]).long()
        parts[i] = replace(part, tokens=torch.stack([ids * mask, mask, torch.zeros_like(mask)], 1))
    return Dataset("spoken", *parts, scale="mosi", encoder=encoder)


def pretrained(network) -> dict[str, torch.Tensor]:
    return {k.split("text_encoder.")[1]: v.clone() for k, v in network.state_dict().items() if "text_encoder." in k}


def test_a_frozen_encoder_stays_as_it_is_and_out_of_the_state(encoder, tmp_path):
    data = with_tokens(encoder)
    config = TrainConfig(**{**SHORT, "batch_size": 10}, switches={**SMALL, "bert": "frozen"})
    fresh = build_model("amsgfn", data, **config.switches)
    assert len(groups_of(fresh, config)) == 2
    fresh.train()
    assert not any(module.training for module in fresh.features.text_encoder.modules())
    batch = data.train.batch(range(10))
    fresh.loss(batch, fresh(batch))["total"].backward()
    assert all(p.grad is None for p in fresh.features.text_encoder.parameters())
    assert all(p.grad is not None for p in fresh.features.proj[0].parameters())

    network = fit("amsgfn", data, config, [1], folder=tmp_path)[0].network
    before, after = pretrained(fresh), pretrained(network)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
    state = unpacked((tmp_path / "state.pt").read_bytes())
    for weights in (state["weights"], state["best"]["weights"]):
        assert weights
        assert not any("text_encoder" in name and v.is_floating_point() for name, v in weights.items())


def test_an_encoder_trained_along_changes_at_its_own_rate(encoder, tmp_path):
    data = with_tokens(encoder)
    config = TrainConfig(**{**SHORT, "batch_size": 10}, lr_encoder=1e-3, switches={**SMALL, "bert": "finetune"})
    fresh = build_model("amsgfn", data, **config.switches)
    rates = {(g["lr"], g["weight_decay"]) for g in groups_of(fresh, config)}
    assert rates == {(1e-3, 1e-3), (1e-3, 0.0)}
    groups = groups_of(fresh, replace(config, lr_encoder=7.0))
    of_encoder = {id(p) for p in fresh.features.text_encoder.parameters()}
    for group in groups:
        assert {id(p) in of_encoder for p in group["params"]} == {group["lr"] == 7.0}
    assert sum(len(g["params"]) for g in groups) == len(list(fresh.parameters()))

    before = pretrained(fresh)
    after = pretrained(fit("amsgfn", data, config, [1], folder=tmp_path)[0].network)
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert "model.encoder.layer.0.attention.self.query.weight" in changed
    still = pretrained(fit("amsgfn", data, replace(config, lr_encoder=0.0), [1])[0].network)
    assert all(torch.equal(before[k], still[k]) for k in before)
    saved = unpacked((tmp_path / "state.pt").read_bytes())["weights"]
    assert any("text_encoder" in name for name in saved)


@pytest.mark.parametrize("bert", ["frozen", "finetune"])
def test_an_interrupted_run_with_an_encoder_goes_on_to_the_same_bits(encoder, tmp_path, bert):
    data, config = with_tokens(encoder), {**SHORT, "batch_size": 10, "switches": {**SMALL, "bert": bert}}
    whole = fit("amsgfn", data, config, [1])[0]
    interrupted(data, config, tmp_path, after=1)
    result = fit("amsgfn", data, config, [1], folder=tmp_path)[0]
    assert result.history == whole.history
    weights = zip(result.network.state_dict().values(), whole.network.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)


# Going on after an interruption (by kill -9: test_runs.py)


def interrupted(data, config, folder, after: int, model: str = "amsgfn") -> None:
    def report(record):
        if record["epoch"] == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, data, config, [1], folder=folder, report=report)


@pytest.mark.parametrize("after", [1, 2, 4])
@pytest.mark.parametrize("switches", [{}, {"select": "gumbel"}], ids=["hard", "gumbel"])
def test_an_interrupted_run_goes_on_to_the_same_bits(planted, tmp_path, after, switches):
    config = {**SHORT, "epochs": 4, "switches": {**SMALL, **switches}}
    whole = fit("amsgfn", planted, config, [1])[0]
    interrupted(planted, config, tmp_path, after)
    told = []
    result = fit("amsgfn", planted, config, [1], folder=tmp_path, report=told.append)[0]
    assert [record["epoch"] for record in told] == list(range(after + 1, 5))
    assert result.history == whole.history
    assert result.metrics == whole.metrics
    assert all(np.array_equal(result.outputs[k], whole.outputs[k]) for k in whole.outputs)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == whole.history


def test_patience_and_the_best_epoch_survive_an_interruption(tmp_path):
    config = {"selection": "val_mae", "patience": 3, "epochs": 9, "batch_size": 10}
    config |= {"switches": {**SCRIPT, "steps": 2}}
    for after in (1, 3, 5):
        interrupted(dataset(), config, tmp_path, after, "scripted")
        result = fit("scripted", dataset(), config, [1], folder=tmp_path)[0]
        assert (result.best_epoch, result.epochs, int(result.network.seen)) == (2, 5, 4)
        (tmp_path / "state.pt").unlink()


@pytest.mark.parametrize("damage", ["empty", "half", "text"])
def test_a_damaged_state_is_not_the_end(planted, tmp_path, damage):
    config = {**SHORT, "switches": {"width": 3}}
    whole = fit("toy", planted, config, [1])[0]
    interrupted(planted, config, tmp_path, 2, "toy")
    state = tmp_path / "state.pt"
    content = state.read_bytes()
    state.write_bytes({"empty": b"", "half": content[: len(content) // 2], "text": b"no state"}[damage])
    told = []
    result = fit("toy", planted, config, [1], folder=tmp_path, report=told.append)[0]
    assert told == result.history == whole.history  # from the beginning
    assert np.array_equal(result.outputs["predictions"], whole.outputs["predictions"])


def test_a_state_comes_back_as_it_was():
    """Tensors of several kinds and of no size among numbers, at any depth; apart from each other."""
    numbers = {0: {"step": torch.tensor(3.0), "exp_avg": torch.randn(2, 3)}, 1: {"step": torch.tensor(4.0)}}
    state = {"state": numbers, "betas": (0.9, 0.999), "kept": [torch.arange(3), None, torch.zeros(0, 2)]}
    state |= {"turned": torch.randn(2, 3).T, "seen": torch.tensor([True]), "rng": torch.get_rng_state(), "names": ["w"]}
    got = unpacked(bytes(packed(state)))
    assert repr(got) == repr(state)
    got["state"][0]["exp_avg"].zero_()
    assert got["state"][1]["step"] == 4
    assert torch.equal(got["rng"], state["rng"])


def test_a_state_is_data_only(planted, tmp_path):
    """A pickle that would run something is not read."""
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return open, (str(marker), "w")

    torch.save({"weights": Evil()}, tmp_path / "state.pt")
    assert fit("toy", planted, SHORT, [1], folder=tmp_path)[0].status == "done"
    assert not marker.exists()
