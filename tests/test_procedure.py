"""The seam between the loop and a recipe: a toy per kind gives what its arithmetic says, and is killed and resumed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from recipes import HANDS, SEED, SETTINGS, SGD, TOYS, Hand, Line, NoSwitches, TwoPasses
from test_train import Watch
from toy import close, dataset

from msa_lib.data.pack import pack
from msa_lib.models import MODELS
from msa_lib.runs import Run, execute, network
from msa_lib.train import TrainConfig, fit, mean_loss
from msa_lib.train import loop as train
from msa_lib.train.procedure import Procedure
from msa_lib.train.state import packed, unpacked


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    for name, model in TOYS.items():
        monkeypatch.setitem(MODELS, name, model)


@pytest.mark.parametrize("kind", HANDS, ids=lambda kind: kind.__name__)
def test_the_arithmetic_of_each_recipe(tmp_path, kind):
    result = fit(kind.__name__, dataset(), SETTINGS, [SEED], folder=tmp_path)[0]
    hand = Hand(dataset())
    HANDS[kind](hand)
    assert np.abs(hand.p[[0, 3]]).min() > 0.001
    got = torch.cat([result.network.w[0], result.network.b]).detach()
    close(got, torch.from_numpy(hand.p).float(), atol=2e-5)
    state = unpacked((tmp_path / "state.pt").read_bytes())
    assert set(result.network.state_dict()) == set(state["weights"]) == set(state["best"]["weights"]) == {"w", "b"}
    assert result.n_parameters == 4
    assert all(p.requires_grad for p in result.network.parameters())
    kept = state["memory"] | {name: part["weight"][0, 0] for name, part in state["companions"].items()}
    assert kept.keys() == hand.memory.keys()
    for name, value in hand.memory.items():
        close(kept[name].double(), torch.as_tensor(value).double(), atol=2e-5)


# Killed (SIGKILL, in a process of its own), twice: in the second and in the last epoch, between two steps


def child(run: Run, store: str, epoch: int) -> None:
    MODELS.update(TOYS)
    step, count = Procedure.descend, [0]

    def deadly(self, *args):
        step(self, *args)
        count[0] += train_epochs() == epoch - 1
        if count[0] == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    def train_epochs() -> int:
        paths = list(Path(store).glob("*/metrics.jsonl"))
        return len(paths[0].read_text().splitlines()) if paths else 0

    Procedure.descend = deadly
    execute(run, store)


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["msa_lib.runs", "msa_lib.data.pack", "transformers", "torch._dynamo", "pytest"])
    return context


FILES = ("metrics.jsonl", "predictions.npz", "weights.safetensors", "result.json", "params.json")


@pytest.mark.parametrize("name", TOYS)
def test_killed_twice_each_recipe_ends_with_the_same_bytes(tmp_path, processes, name):
    pack(dataset(), tmp_path / "set")
    settings = SETTINGS | {"selection": "val_mae", "patience": 9}
    run = Run(name, str(tmp_path / "set"), SEED, {}, settings)
    whole = Path(execute(run, tmp_path / "whole")["folder"])
    store = tmp_path / "store"
    for epoch in (2, 4):
        process = processes.Process(target=child, args=(run, str(store), epoch))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        assert len((store / whole.name / "metrics.jsonl").read_text().splitlines()) == epoch - 1
    assert execute(run, store)["status"] == "done"
    assert json.loads((store / whole.name / "env.json").read_text())["attempts"] == 3
    for file in FILES:
        assert (store / whole.name / file).read_bytes() == (whole / file).read_bytes(), file
    assert set(network(run, store).state_dict()) == {"w", "b"}


# The rules of the seam


def parts_of(name: str, size: int):
    data = dataset()
    config = TrainConfig(**SETTINGS | {"batch_size": size})
    model = TOYS[name](data, NoSwitches())
    return model.Procedure(model, data, config), torch.Generator().manual_seed(0)


@pytest.mark.parametrize("name", TOYS)
def test_no_recipe_waits_for_the_device_in_a_step(name):
    """Waits per epoch are the same for few and for many steps."""
    waits = []
    for size in (10, 2):
        procedure, shuffle = parts_of(name, size)
        for epoch in (1, 2):
            with Watch() as watch:
                train._train_epoch(procedure, shuffle, epoch)
        waits.append(watch.waits)
    assert waits[0] == waits[1] <= 4


@pytest.mark.parametrize(("size", "drop_last"), [(6, True), (6, False), (20, True), (30, True), (1, True)])
@pytest.mark.parametrize("name", ["WarmUp", "Accumulation"])
def test_steps_per_epoch_are_foreseen(size, drop_last, name):
    data = dataset()
    model = TOYS[name](data, NoSwitches())
    procedure = model.Procedure(model, data, TrainConfig(batch_size=size, drop_last=drop_last))
    taken = []
    procedure.optimisers["main"].register_step_post_hook(lambda *_: taken.append(1))
    train._train_epoch(procedure, torch.Generator().manual_seed(0), 1)
    assert len(taken) == procedure.steps


def test_only_epochs_of_the_last_stage_are_kept_and_counted():
    """Patience of one would have ended the first stage; its second epoch predicts best."""
    for epochs, patience in ((4, 1), (9, 2)):
        settings = SETTINGS | {"epochs": epochs, "selection": "val_mae", "patience": patience}
        result = fit("Stages", dataset(), settings, [SEED])[0]
        assert result.best_epoch >= 3
        assert result.epochs >= 3
    assert [list(r["loss"]) for r in result.history[:3]] == [["first.gap"]] * 2 + [["task", "total"]]
    with pytest.raises(ValueError, match=r"^epochs=2: Stages keeps no epoch before 3\.$"):
        fit("Stages", dataset(), SETTINGS | {"epochs": 2}, [SEED])


def variant(monkeypatch, base: type = SGD, **members) -> None:
    monkeypatch.setitem(MODELS, "variant", type("Variant", (Line,), {"Procedure": type("Own", (base,), members)}))


def test_val_loss_goes_by_the_term_that_is_named(monkeypatch):
    scored = []
    monkeypatch.setattr(train, "mean_loss", lambda *args: scored.append(args[-1]) or mean_loss(*args))
    for term in ("total", "task"):
        variant(monkeypatch, selects=term)
        fit("variant", dataset(), SETTINGS | {"selection": "val_loss", "epochs": 1}, [SEED])
    assert scored == ["total", "task"]
    variant(monkeypatch, selects="tasks")
    with pytest.raises(
        RuntimeError, match=r"The loss has no term 'tasks' to select by: expected one of task, total\.$"
    ):
        fit("variant", dataset(), SETTINGS | {"selection": "val_loss"}, [SEED])


def test_a_term_is_averaged_over_samples(monkeypatch):
    data, model = dataset(), Line(dataset(), NoSwitches())
    model.loss = lambda batch, output: {"total": batch.labels.sum() * 0, "own": batch.labels.square().mean()}
    assert mean_loss(model, data.valid, 4, "own") == pytest.approx(float(data.valid.labels.square().mean()), rel=1e-6)


def test_what_a_state_could_not_hold_is_refused(monkeypatch, tmp_path):
    def late(self, epoch):
        self.optimisers = {**self.optimisers, "late": self.optimisers["main"]}

    variant(monkeypatch, begin_epoch=late)
    with pytest.raises(
        RuntimeError, match=r"^Own changed its optimisers after the start: expected all of them to be made"
    ):
        fit("variant", dataset(), SETTINGS, [SEED], folder=tmp_path)


def test_terms_that_come_and_go_are_refused(monkeypatch):
    def loss(self, batch, output):
        self.odd = not getattr(self, "odd", False)
        return self.network.loss(batch, output) | ({} if self.odd else {"extra": output.prediction.mean()})

    variant(monkeypatch, loss=loss)
    with pytest.raises(
        RuntimeError, match=r"of pass 'main' were \['task', 'total'\] and then \['task', 'total', 'extra'\]"
    ):
        fit("variant", dataset(), SETTINGS, [SEED])


def test_a_term_that_is_not_a_number_names_its_pass(monkeypatch):
    def step(self, batch, name):
        terms = TwoPasses.step(self, batch, name)
        return terms if name == "main" else {"gap": terms["gap"] * torch.nan}

    variant(monkeypatch, TwoPasses, step=step)
    result = fit("variant", dataset(), SETTINGS, [SEED])[0]
    assert result.reason == "Loss term 'gap' was nan at step 1 of pass 'bound' of epoch 1."


def test_a_state_of_another_loop_is_not_gone_on_with(tmp_path):
    whole = fit("Adam", dataset(), SETTINGS, [SEED], folder=tmp_path)[0]
    state = unpacked((tmp_path / "state.pt").read_bytes())
    (tmp_path / "state.pt").write_bytes(packed(state | {"format": 1, "history": "[]"}))
    again = fit("Adam", dataset(), SETTINGS, [SEED], folder=tmp_path)[0]
    assert again.history == whole.history


PATIENCE = [(1, 0, False), (2, 0, False), (3, 0, False), (4, 0, True), (4, 3, False), (5, 3, True)]


@pytest.mark.parametrize(("done", "best", "over"), PATIENCE)
def test_patience_counts_from_the_first_epoch_that_may_be_kept(done, best, over):
    procedure = SimpleNamespace(config=TrainConfig(epochs=9, patience=2), first_epoch=3)
    assert train._finished(done, best, procedure) == over


def test_what_was_frozen_later_comes_back_as_it_was_in_the_kept_epoch(monkeypatch):
    """The third epoch freezes a part that went on changing after the first, which is kept."""
    variant(monkeypatch, begin_epoch=lambda self, epoch: self.network.w.requires_grad_(epoch < 3))
    score = train._score
    monkeypatch.setattr(train, "_score", lambda procedure, epoch: (epoch, score(procedure, epoch)[1]))
    short, long = (fit("variant", dataset(), SETTINGS | {"epochs": n}, [SEED])[0] for n in (1, 4))
    assert (long.best_epoch, long.epochs) == (1, 4)
    assert torch.equal(long.network.w, short.network.w)
