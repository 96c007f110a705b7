"""Seeds stacked into one batched model: each is what its own run would be, but for rounding and draws of dropout."""

from __future__ import annotations

import json
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from toy import DATA, SHORT, SMALL, Toy, dataset

from msa_lib import cli
from msa_lib.data import Dataset, load_dataset
from msa_lib.models import MODELS, build_model
from msa_lib.runs import Run, execute, grid, identity
from msa_lib.runs import store as runs
from msa_lib.runs.grids import in_stacks, together
from msa_lib.train import TrainConfig, fit
from msa_lib.train.loop import Training
from msa_lib.train.procedure import Procedure
from msa_lib.train.stacked import Stack, fit_stacked, unstackable

SEEDS = (1, 2, 3)
STACKABLE = [name for name in MODELS if not unstackable(name)]


class Still(Toy):
    """Toy without dropout: nothing is drawn in training."""

    def __init__(self, data: Dataset, c) -> None:
        super().__init__(data, c)
        self.layers[1].p = 0.0


class Flawed(Still):
    """In its sixth step, the second of epoch 2, the loss of the network that seed 2 made is not a number."""

    def __init__(self, data: Dataset, c) -> None:
        super().__init__(data, c)
        self.register_buffer("flaw", torch.tensor(float("nan") if torch.initial_seed() == 2 else 1.0))
        self.register_buffer("taken", torch.zeros(()))

    def loss(self, batch, output):
        terms = super().loss(batch, output)
        self.taken += int(self.training)
        return terms | {"extra": terms["extra"] * torch.where(self.taken == 6, self.flaw, 1.0)}


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    monkeypatch.setitem(MODELS, "toy", Toy)
    monkeypatch.setitem(MODELS, "still", Still)
    monkeypatch.setitem(MODELS, "flawed", Flawed)
    identity.loaded.cache_clear()


@pytest.fixture(scope="module")
def planted() -> Dataset:
    return load_dataset(DATA)


def weights(result) -> dict[str, torch.Tensor]:
    return result.network.state_dict()


def alike(stacked, alone) -> None:
    """Weights within 1e-4; biases of keys have no gradient but rounding, which Adam makes large."""
    assert (stacked.seed, stacked.status, stacked.reason) == (alone.seed, alone.status, alone.reason)
    assert (stacked.best_epoch, stacked.epochs) == (alone.best_epoch, alone.epochs)
    for name, value in weights(alone).items():
        gap = (weights(stacked)[name] - value).abs().max()
        assert gap < (1e-3 if name.endswith("k.bias") else 1e-4), name
    for one, other in zip(stacked.history, alone.history, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4, abs=1e-5)
    for name, value in alone.outputs.items():
        np.testing.assert_allclose(stacked.outputs[name], value, atol=1e-3)


def identical(some, others) -> None:
    for one, other in zip(some, others, strict=True):
        assert one.history == other.history
        assert all(torch.equal(weights(other)[name], value) for name, value in weights(one).items())
        assert all(np.array_equal(other.outputs[name], value) for name, value in one.outputs.items())


# What a seed of a stack is


SUBNETS = {"d_t": 8, "d_a": 6, "d_v": 6, "dropout_t": 0.0, "dropout_a": 0.0, "dropout_v": 0.0}
TEN_STEPS = {
    "amsgfn": ("amsgfn", {**SMALL, "dropout": 0.0}, {}),
    "clipped": ("amsgfn", {**SMALL, "dropout": 0.0}, {"clip": 0.05, "weight_decay": 0.5, "bucket": 2}),
    "idle weights": ("amsgfn", {**SMALL, "dropout": 0.0, "modalities": "t"}, {"weight_decay": 0.5}),
    "dsrf": ("dsrf", {**SMALL, "dropout": 0.0}, {"optimiser": "adam", "clip": 0.0}),
    "lmf": ("lmf", {**SUBNETS, "rank": 2}, {"batch_size": 30, "drop_last": False, "epochs": 4}),
    "tfn": ("tfn", {**SUBNETS, "text_out": 4, "fusion": 8, "dropout_z": 0.0}, {"bucket": 2}),
}


@pytest.mark.parametrize("case", TEN_STEPS)
def test_without_dropout_ten_steps_lead_to_the_same_weights(planted, case):
    model, switches, settings = TEN_STEPS[case]
    config = {"epochs": 5, "batch_size": 32, "lr": 1e-3, "selection": "last", **settings, "switches": switches}
    for stacked, alone in zip(
        fit_stacked(model, planted, config, SEEDS), fit(model, planted, config, SEEDS), strict=True
    ):
        alike(stacked, alone)


def test_each_seed_stops_and_keeps_as_it_would_alone(planted):
    seeds, config = tuple(range(1, 7)), {"epochs": 12, "batch_size": 16, "lr": 0.05, "patience": 2}
    alone, stacked = fit("still", planted, config, seeds), fit_stacked("still", planted, config, seeds)
    assert len({result.epochs for result in alone}) > 1  # else the test shows nothing
    assert any(result.best_epoch < result.epochs < 12 for result in alone)
    for one, other in zip(stacked, alone, strict=True):
        alike(one, other)
        assert one.metrics["test"]["mae"] == pytest.approx(other.metrics["test"]["mae"], rel=1e-4)


def test_clipping_sees_one_seed_at_a_time(planted):
    stack = stack_of("still", planted, SEEDS, clip=0.5)
    grads = {
        n: torch.randn_like(v) * torch.tensor([0.01, 1.0, 9.0]).view(-1, *[1] * (v.ndim - 1))
        for n, v in stack.trained.items()
    }
    share = stack._clipped(grads)
    assert share[0] == 1
    for seed in range(3):
        loose = [nn.Parameter(torch.zeros_like(g[seed])) for g in grads.values()]
        for parameter, g in zip(loose, grads.values(), strict=True):
            parameter.grad = g[seed].clone()
        nn.utils.clip_grad_norm_(loose, 0.5)
        for parameter, g in zip(loose, grads.values(), strict=True):
            torch.testing.assert_close(g[seed] * share[seed], parameter.grad)


@pytest.mark.parametrize("bucket", [1, 2])
def test_batches_are_those_of_each_seed_as_wide_as_the_longest(bucket):
    split = dataset((23, 9, 7)).train
    shuffles = [[torch.Generator().manual_seed(seed) for seed in SEEDS] for _ in range(2)]
    for _ in range(2):  # epochs
        whole = list(split.stacked_batches(5, shuffles[0], False, bucket))
        each = [list(split.batches(5, shuffle, False, bucket)) for shuffle in shuffles[1]]
        assert len(whole) == 5
        for step, batch in enumerate(whole):
            ones = [batches[step] for batches in each]
            assert batch.text.shape[2] == max(one.text.shape[1] for one in ones)
            for seed, one in enumerate(ones):
                for name in ("lengths", "labels", "index", "unimodal_labels"):
                    assert torch.equal(getattr(batch, name)[seed], getattr(one, name))
                for name in ("text", "audio", "vision"):
                    steps = getattr(one, name).shape[1]
                    assert torch.equal(getattr(batch, name)[seed, :, :steps], getattr(one, name))
                assert torch.equal(batch.truth["noise"][seed], one.truth["noise"])


def test_a_seed_whose_loss_is_not_a_number_fails_alone(planted):
    stacked, alone = fit_stacked("flawed", planted, SHORT, SEEDS), fit("flawed", planted, SHORT, SEEDS)
    assert [result.status for result in stacked] == ["done", "failed", "done"]
    assert stacked[1].reason == alone[1].reason == "Loss term 'extra' was nan at step 2 of epoch 2."
    assert (stacked[1].metrics, stacked[1].best_epoch, len(stacked[1].history)) == ({}, None, 1)
    for seed in (0, 2):
        alike(stacked[seed], alone[seed])


def test_a_stack_of_only_failures_ends(planted):
    results = fit_stacked("toy", planted, {**SHORT, "switches": {"fault": "nan", "at": 6}}, SEEDS)
    assert [result.reason for result in results] == ["Loss term 'extra' was nan at step 2 of epoch 2."] * 3


# What is drawn


def stack_of(model: str, data: Dataset, seeds, procedure: type = Procedure, device: str = "cpu", **settings) -> Stack:
    config = TrainConfig(**settings)
    data = data.to(device)
    networks = [Training(model, data, config, seed, "cpu").network.to(device) for seed in seeds]
    return Stack([procedure(network, data, config) for network in networks])


def test_dropout_is_drawn_per_seed_and_as_it_is_alone(planted):
    """96 seeds of one network on one batch: mean and spread of the loss are those of 96 passes of the network alone."""
    n, switches = 96, {**SMALL, "dropout": 0.3}
    stack = stack_of("amsgfn", planted, [1] * n, switches=switches)
    one = planted.train.batch(range(16))
    given = {k: torch.stack([v] * n) for k, v in one._asdict().items() if isinstance(v, torch.Tensor)}
    torch.manual_seed(0)
    _, terms = stack.gradient(stack.trained, stack.rest, given)
    network = build_and_train(planted, switches)
    with torch.no_grad():
        alone = torch.stack([network.loss(one, network(one))["total"] for _ in range(n)])
    together = terms["total"]
    assert len(together.unique()) == n
    error = ((together.var() + alone.var()) / n).sqrt()
    assert abs(together.mean() - alone.mean()) < 4 * error
    assert 0.5 < together.std() / alone.std() < 2  # 7 standard errors of a ratio of two such spreads
    assert error < 0.1 * alone.mean()


def build_and_train(data: Dataset, switches: dict) -> nn.Module:
    torch.manual_seed(1)
    return build_model("amsgfn", data, **switches).train()


def test_the_same_stack_gives_the_same_bits_and_another_one_others(planted):
    config = {**SHORT, "switches": SMALL}
    first, again = (fit_stacked("amsgfn", planted, config, (1, 2)) for _ in range(2))
    identical(first, again)
    assert first[0].history != fit_stacked("amsgfn", planted, config, (1, 3))[0].history


# A step


class Unfused(Procedure):
    """For the meta device, which has no fused AdamW."""

    def optimiser(self, groups):
        return torch.optim.AdamW(groups)


@pytest.mark.filterwarnings("ignore:.*batching rule")
def test_a_step_reads_no_value_at_all(planted):
    """On the meta device, which has no values."""
    stack = stack_of("amsgfn", planted, (1, 2), Unfused, "meta", switches=SMALL, batch_size=16)
    shuffles = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    steps = [stack.step(batch) for batch in stack.batches(shuffles)]
    assert [terms["total"].shape for terms in steps] == [(2,)] * 4


ONE_HOT = [("amsgfn", {"select": "gumbel"}), ("amsgfn", {"select": "soft"}), ("dsrf", {"head": "argmax"}),
           ("dsrf", {"head": "binary"})]  # fmt: skip


@pytest.mark.parametrize(("model", "switches"), [*((name, {}) for name in STACKABLE), *ONE_HOT])
def test_every_model_with_the_plain_procedure_can_be_stacked(model, switches):
    data = load_dataset("planted-sims?train=16&valid=6&test=6&dims=8,6,7&fill=0.5&steps=6,12,9")
    config = {"epochs": 1, "batch_size": 8, "switches": {**MODELS[model].SMALL, **switches}}
    results = fit_stacked(model, data, config, (1, 2))
    assert [result.status for result in results] == ["done", "done"]
    for result in results:  # the weights moved
        torch.manual_seed(result.seed)
        fresh = dict(build_model(model, data, **config["switches"]).named_parameters())
        assert any(not torch.equal(value, fresh[name]) for name, value in result.network.named_parameters())


# What cannot be stacked


class Rprop(Procedure):
    def optimiser(self, groups):
        return torch.optim.Rprop(groups)


def test_what_cannot_be_stacked_is_refused_in_a_sentence_that_says_what_to_do(planted, monkeypatch):
    assert {"amsgfn", "dsrf", "tfn", "lmf", "mfn"} <= set(STACKABLE)
    assert {"kuda", "mmim", "self_mm", "mult", "cenet"}.isdisjoint(STACKABLE)
    monkeypatch.setitem(MODELS, "other", type("Other", (Toy,), {"Procedure": Rprop}))
    for model, switches, message in (
        ("mmim", {}, r"^mmim has a training procedure of its own \(__init__, after_step, .*step\) and cannot"),
        ("amsgfn", {"bert": "frozen"}, "^amsgfn with a text encoder inside cannot be stacked"),
        ("other", {}, "^The optimiser of Other may mix the seeds of a stack"),
    ):
        with pytest.raises(ValueError, match=message + ".*: train its seeds one by one, without stack.$"):
            fit_stacked(model, planted, {"switches": switches}, (1, 2))


def test_wrong_stacks_are_refused(planted):
    with pytest.raises(ValueError, match=r"stack=\(1, 1\): expected every seed once\.$"):
        fit("toy", planted, {"stack": (1, 1)}, [1])
    with pytest.raises(ValueError, match=r"^Seed 5 is none of stack=\(1, 2\)"):
        fit("toy", planted, {"stack": (1, 2)}, [1, 5])
    with pytest.raises(ValueError, match=r"^The seeds \(1, 3\) are not those of stack=\(1, 2\)"):
        fit_stacked("toy", planted, {"stack": (1, 2)}, (1, 3))
    with pytest.raises(ValueError, match=r"^planted\?seed=run are other data for every seed"):
        Run("toy", "planted?seed=run", 1, {}, {"stack": (1, 2)})
    with pytest.raises(ValueError, match=r"^compiled=True and stack do not go together"):
        identity.parameters(Run("toy", DATA, 1, {}, {"stack": (1, 2), "compiled": True}))
    with pytest.raises(ValueError, match=r"^No model 'toi'"):
        fit_stacked("toi", planted, {}, (1, 2))


def test_fit_takes_a_stack_by_its_name(planted):
    both = fit_stacked("toy", planted, SHORT, (1, 2))
    identical(fit("toy", planted, {**SHORT, "stack": [1, 2]}, [2, 1]), both[::-1])


# Going on after an interruption


def kill(epoch: int):
    def report(record: dict) -> None:
        if record["epoch"] == epoch:
            raise KeyboardInterrupt

    return report


@pytest.mark.parametrize(
    ("model", "switches", "patience", "after"), [("amsgfn", SMALL, 2, 3), ("flawed", {}, 9, 1), ("flawed", {}, 9, 2)]
)
def test_an_interrupted_stack_goes_on_to_the_same_bits(planted, tmp_path, model, switches, patience, after):
    """Also when some seeds are at their end or failed already."""
    config = {**SHORT, "epochs": 5, "patience": patience, "lr": 0.02, "switches": switches}
    whole, told = fit_stacked(model, planted, config, SEEDS), []
    with pytest.raises(KeyboardInterrupt):
        fit_stacked(model, planted, config, SEEDS, folder=tmp_path, report=kill(after))
    again = fit_stacked(model, planted, config, SEEDS, folder=tmp_path, report=told.append)
    assert {record["epoch"] for record in told} == set(range(after + 1, max(len(r.history) for r in whole) + 1))
    assert [result.reason for result in again] == [result.reason for result in whole]
    done = [seed for seed, result in enumerate(whole) if result.status == "done"]
    assert len(done) == (2 if model == "flawed" else 3)
    identical([again[seed] for seed in done], [whole[seed] for seed in done])


def test_a_damaged_state_is_not_the_end(planted, tmp_path):
    whole = fit_stacked("toy", planted, SHORT, (1, 2))
    with pytest.raises(KeyboardInterrupt):
        fit_stacked("toy", planted, SHORT, (1, 2), folder=tmp_path, report=kill(2))
    content = (tmp_path / "state.pt").read_bytes()
    (tmp_path / "state.pt").write_bytes(content[: len(content) // 2])
    identical(fit_stacked("toy", planted, SHORT, (1, 2), folder=tmp_path), whole)


# In the store

SAME = ("params.json", "metrics.jsonl", "predictions.npz", "weights.safetensors", "result.json")


def wanted(seeds=SEEDS, size: int = 3, **settings) -> list[Run]:
    return [Run("toy", DATA, seed, {}, SHORT | settings | own) for seed, own in in_stacks(seeds, size).items()]


def files(store: Path) -> dict[str, dict[str, bytes]]:
    return {f.parent.name: {n: (f.parent / n).read_bytes() for n in SAME} for f in store.glob("*/result.json")}


@pytest.fixture
def fits(monkeypatch) -> list[list[int]]:
    """The seeds of every call that trains."""
    calls, real = [], runs.fit
    monkeypatch.setattr(
        runs, "fit", lambda *a, seeds, **more: (calls.append(list(seeds)), real(*a, seeds=seeds, **more))[1]
    )
    return calls


def test_the_first_seed_asked_for_trains_its_stack_and_each_gets_a_folder(planted, tmp_path, fits):
    asked = wanted()
    second = execute(asked[1], tmp_path)
    assert fits == [[1, 2, 3]]
    assert len(files(tmp_path)) == 3
    assert [execute(run, tmp_path)["params"]["seed"] for run in asked] == [1, 2, 3]
    assert execute(asked[1], tmp_path) == second
    assert len(fits) == 1
    for run, alone in zip(asked, fit_stacked("toy", planted, SHORT, SEEDS), strict=True):
        folder = Path(execute(run, tmp_path)["folder"])
        assert [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] == alone.history
        assert np.array_equal(runs.predictions(run, tmp_path)["predictions"], alone.outputs["predictions"])
        assert json.loads((folder / "env.json").read_text())["seconds"] > 0
    assert execute(Run("toy", DATA, 1, {}, SHORT), tmp_path)["run"] not in {
        execute(run, tmp_path)["run"] for run in asked
    }
    assert not list(tmp_path.rglob("state.pt"))


@pytest.mark.parametrize("moment", ["epoch", "writing"])
def test_a_killed_stack_ends_in_the_same_bytes(tmp_path, monkeypatch, moment):
    asked, whole, store = wanted(), tmp_path / "whole", tmp_path / "killed"
    grid(asked, whole)
    written, write = [], runs._write

    def dying(folder, *more):
        written.append(folder)
        if moment == "writing" and len(written) == 2:
            raise KeyboardInterrupt
        return write(folder, *more)

    monkeypatch.setattr(runs, "_write", dying)
    with pytest.raises(KeyboardInterrupt):
        execute(asked[2], store, report=kill(2) if moment == "epoch" else None)
    assert len(files(store)) == (moment == "writing")
    assert len(list(store.rglob("state.pt"))) == 1
    grid(asked, store)
    assert files(store) == files(whole)
    assert not list(store.rglob("state.pt"))


def test_a_deleted_folder_is_made_again_and_the_others_stay(tmp_path):
    asked = wanted()
    grid(asked, tmp_path)
    before, gone = files(tmp_path), Path(execute(asked[1], tmp_path)["folder"])
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.*") if path.parent != gone}
    for path in gone.iterdir():
        path.unlink()
    execute(asked[1], tmp_path)
    assert len(before) == 3
    assert files(tmp_path) == before
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_a_failed_seed_is_a_failed_run_of_its_own_and_can_be_tried_again(tmp_path, fits):
    asked = [replace(run, model="flawed") for run in wanted()]
    rows = grid(asked, tmp_path)
    assert rows.groupby("seed")["status"].first().tolist() == ["done", "failed", "done"]
    before = {p: p.read_bytes() for p in tmp_path.glob("*/result.json")}
    assert len(fits) == 1
    grid(asked, tmp_path, retry_failed=True)
    assert len(fits) == 2
    assert {p: p.read_bytes() for p in tmp_path.glob("*/result.json")} == before


def test_a_stack_that_failed_whole_is_tried_again_once(tmp_path, fits):
    asked = [replace(run, model="toy", switches={"fault": "nan", "at": 6}) for run in wanted()]
    assert set(grid(asked, tmp_path)["status"]) == {"failed"}
    rows = grid(asked, tmp_path, retry_failed=True)
    assert set(rows["status"]) == {"failed"}
    assert len(fits) == 2


class Counting(Executor):
    """Runs every task at once, and counts them."""

    def __init__(self) -> None:
        self.tasks = 0

    def submit(self, function, *arguments, **more) -> Future:
        self.tasks += 1
        future = Future()
        future.set_result(function(*arguments, **more))
        return future


def test_a_stack_is_one_task(tmp_path, fits):
    asked = [*wanted((1, 2, 3), 2), Run("toy", DATA, 1, {}, SHORT), Run("toy", DATA, 2, {}, SHORT)]
    assert [[run.seed for run in part] for part in together(asked)] == [[1, 2], [3], [1], [2]]
    executor = Counting()
    rows = grid(asked, tmp_path, executor=executor)
    assert executor.tasks == 4
    assert fits == [[1, 2], [3], [1], [2]]
    assert rows.drop_duplicates("run")["seed"].tolist() == [1, 2, 3, 1, 2]


def test_the_command_line_forms_stacks(tmp_path, capsys, fits):
    line = ["run", "--model", "toy", "--data", DATA, "--store", str(tmp_path), "--set", "epochs=1", "batch_size=16"]
    assert cli.main([*line, "--stack", "2", "--seeds", "5", "6", "7", "--json", str(tmp_path / "rows.json")]) == 0
    assert fits == [[5, 6], [7]]
    told = {row["seed"]: json.loads(row["train"])["stack"] for row in json.loads((tmp_path / "rows.json").read_text())}
    assert told == {5: [5, 6], 6: [5, 6], 7: [7]}
    for wrong, message in (
        (["--set", "stack=2"], "--set stack: expected --stack N"),
        (["--model", "ridge"], "--stack trains networks at once; ridge is none."),
        (["--model", "kuda"], "kuda has a training procedure of its own"),
    ):
        assert cli.main([*line[:5], "--store", str(tmp_path), "--stack", "2", "--seeds", "1", "2", *wrong]) == 2
        assert message in capsys.readouterr().err
