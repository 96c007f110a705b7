"""The run store: a run is its parameters; killed, doubled, failed and damaged runs; rows; reference predictors."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import Ridge
from toy import DATA, SHORT, SMALL, Toy, dataset

from msa_lib import reference
from msa_lib.data import load_dataset
from msa_lib.data.pack import pack
from msa_lib.models import MODELS
from msa_lib.runs import Run, RunFailed, collect, execute, grid, identity, parameters, predictions, rows_of, run_id
from msa_lib.runs import store as runs
from msa_lib.train import TrainConfig, predict, state

RUN = Run("amsgfn", DATA, 7, SMALL, {**SHORT, "lr": 5e-3})
FILES = {"params.json", "metrics.jsonl", "env.json", "predictions.npz", "weights.safetensors", "result.json", "lock"}
# To the bit, whatever happened meanwhile:
SAME = ("params.json", "metrics.jsonl", "predictions.npz", "weights.safetensors", "result.json")


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    monkeypatch.setitem(MODELS, "toy", Toy)
    identity.loaded.cache_clear()


def toy(seed: int = 1, **switches) -> Run:
    return Run("toy", DATA, seed, switches, SHORT)


def strict(path: Path):
    """JSON without the NaN that the standard does not have."""

    def refuse(token):
        raise AssertionError(f"{path} holds {token}")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def contents(folder) -> dict[str, bytes]:
    assert {path.name for path in Path(folder).iterdir()} == FILES
    return {name: (Path(folder) / name).read_bytes() for name in SAME}


def folder_of(run: Run, store: Path) -> Path:
    return store / run_id(parameters(run))


def attempts(folder) -> int:
    path = Path(folder) / "env.json"
    return json.loads(path.read_text())["attempts"] if path.exists() else 0


# What a finished run is


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    """The files of an uninterrupted run."""
    return contents(execute(RUN, tmp_path_factory.mktemp("whole"))["folder"])


def test_the_files_of_a_run(tmp_path):
    result = execute(RUN, tmp_path)
    folder = Path(result["folder"])
    contents(folder)
    assert folder == folder_of(RUN, tmp_path)
    assert len(folder.name) == 16
    for name in ("params.json", "env.json", "result.json"):
        json.loads((folder / name).read_text())
    assert json.loads((folder / "params.json").read_text()) == result["params"] == parameters(RUN)
    assert [line["epoch"] for line in strict(folder / "metrics.jsonl")] == [1, 2, 3]
    stored, data = predictions(RUN, tmp_path), load_dataset(DATA)
    assert set(stored) == {"ids", "labels", "predictions", "contribution", "dominant", "gate"}
    assert stored["ids"].tolist() == list(data.test.ids)
    assert np.array_equal(stored["labels"], data.test.labels.numpy())
    mae = np.abs(stored["labels"].astype(np.float64) - stored["predictions"]).mean()
    assert result["metrics"]["test"]["mae"] == pytest.approx(mae, rel=1e-12)
    assert (result["status"], result["reason"], result["scale"], result["synthetic"]) == ("done", "", "mosi", True)
    environment = json.loads((folder / "env.json").read_text())
    assert environment["attempts"] == 1
    assert environment["seconds"] > 0
    assert environment["torch"] == torch.__version__


def test_asking_again_trains_nothing(tmp_path, monkeypatch):
    first = execute(toy(), tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in Path(first["folder"]).iterdir() if path.name != "lock"}
    monkeypatch.setattr(runs, "fit", None)
    assert execute(toy(), tmp_path) == first
    assert before.items() <= {p.name: p.stat().st_mtime_ns for p in Path(first["folder"]).iterdir()}.items()


def test_a_machine_without_git_runs_too(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    runs._commit.cache_clear()
    result = execute(toy(), tmp_path)
    runs._commit.cache_clear()
    assert json.loads((Path(result["folder"]) / "env.json").read_text())["commit"] is None


# What makes a run another run


def test_what_is_only_a_name_does_not_change_the_run(tmp_path):
    data = dataset()
    for place in ("here", "there"):
        pack(data, tmp_path / place / "data")
    base = Run("amsgfn", str(tmp_path / "here" / "data"), 1, SMALL)
    same = [
        replace(base, label="a row"),
        replace(base, data=str(tmp_path / "there" / "data")),
        Run("amsgfn", "data", 1, SMALL, root=str(tmp_path / "there")),
        replace(base, switches={**SMALL, "dropout": 0.1, "pair_weights": [1.0, 1.0, 1.0]}),  # the defaults
        replace(base, switches=dict(reversed(SMALL.items()))),
        replace(base, train={"lr": 1e-4, "clip": 1}),
        replace(base, seed=np.int64(1)),
    ]
    assert {run_id(parameters(run)) for run in [base, *same]} == {run_id(parameters(base))}
    cards = [run_id(parameters(replace(base, device=f"cuda:{i}"))) for i in (0, 1)]
    assert cards[0] == cards[1] != run_id(parameters(base))


def test_content_changes_the_run(tmp_path):
    ids = set()
    for i, data in enumerate((dataset(), dataset(seed=1), dataset(scale="sims"))):
        pack(data, tmp_path / str(i) / "data")
        ids.add(run_id(parameters(Run("amsgfn", str(tmp_path / str(i) / "data"), 1, SMALL))))
    assert len(ids) == 3


def other_value(hint, value):
    if get_origin(hint) is Literal:
        return next(choice for choice in get_args(hint) if choice != value)
    if isinstance(value, bool):
        return not value
    return tuple(v * 2 for v in value) or (1, 2) if isinstance(value, tuple) else value * 2


@pytest.mark.parametrize("what", ["switches", "train"])
def test_every_switch_and_setting_changes_the_run(what):
    config = MODELS["amsgfn"].Config if what == "switches" else TrainConfig
    hints, ids, names = get_type_hints(config), [run_id(parameters(Run("amsgfn", DATA)))], []
    for f in fields(config):
        if f.name != "switches":
            names.append(f.name)
            changed = {f.name: other_value(hints[f.name], f.default)}
            ids.append(run_id(parameters(Run("amsgfn", DATA, **{what: changed}))))
    assert len(names) > 5
    assert len(set(ids)) == len(names) + 1
    assert run_id(parameters(Run("amsgfn", DATA, 2))) not in ids
    assert run_id(parameters(Run("toy", DATA))) not in ids


WRONG = [
    (Run("amsgfm", DATA), r"^No model 'amsgfm': expected one of amsgfn, .*ridge, label_mean\.$"),
    (Run("amsgfn", DATA, switches={"head": 2}), r"^No amsgfn switch 'head'|^amsgfn switch head=2: expected one of"),
    (Run("amsgfn", DATA, switches={"hedas": 2}), r"^No amsgfn switch 'hedas': did you mean 'heads'\?"),
    (Run("amsgfn", DATA, train={"epoch": 2}), r"^No training setting 'epoch': did you mean 'epochs'\?"),
    (Run("amsgfn", DATA, train={"lr": math.inf}), r"^training setting lr=inf: expected a number of at least 0\.$"),
    (Run("amsgfn", DATA, train={"switches": SMALL}), r"belong in Run\.switches"),
    (Run("ridge", DATA, switches={"modality": "t"}), r"^No ridge switch 'modality': did you mean 'modalities'\?"),
    (Run("ridge", DATA, switches={"modalities": "x"}), r"^ridge switch modalities='x': expected one of 'tav', "),
    (Run("label_mean", DATA, switches={"modalities": "t"}), r"^No label_mean switch 'modalities'"),
]


@pytest.mark.parametrize(("run", "message"), WRONG)
def test_a_wrong_request_raises_and_leaves_nothing(tmp_path, run, message):
    with pytest.raises(ValueError, match=message):
        execute(run, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_wrong_request_that_only_the_model_can_see_leaves_no_result(tmp_path):
    for run in (toy(width=101), Run("amsgfn", DATA, switches={**SMALL, "heads": 3})):
        with pytest.raises(ValueError, match=r"expected at most 100|must be a multiple of heads=3"):
            execute(run, tmp_path)
    with pytest.raises(FileNotFoundError, match="No data set 'plantd'"):
        execute(Run("toy", "plantd"), tmp_path)
    assert collect(tmp_path).empty
    with pytest.raises(RunFailed, match="it was never run"):
        predictions(toy(width=101), tmp_path)


# Killed. The children are forked from a server that has imported everything; each is killed for good, by SIGKILL


def suicide(*_) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def child(run: Run, store: Path, moment: str, n: int) -> None:
    """Executes `run`; dies at the n-th time of `moment`."""
    count, fsync, step = [0], os.fsync, torch.optim.AdamW.step

    def counted(original):
        def call(*args, **kwargs):
            count[0] += 1
            if count[0] == n:
                if moment == "write":  # half of the file is on the disk
                    size = os.fstat(args[0]).st_size
                    os.ftruncate(args[0], size // 2)
                    fsync(args[0])
                suicide()
            return original(*args, **kwargs)

        return call

    def epoch(record) -> None:
        with open(store / "epochs", "a") as file:
            file.write(f"{os.getpid()} {record['epoch']}\n")
        if (moment, n) == ("epoch", record["epoch"]):
            suicide()
        if (moment, n) == ("hang", record["epoch"]):
            time.sleep(600)

    if moment == "write":
        os.fsync = counted(fsync)
    elif moment == "step":
        torch.optim.AdamW.step = counted(step)
    elif moment == "remove":
        Path.unlink = counted(Path.unlink)
    execute(run, store, report=epoch)


@pytest.fixture(scope="module")
def start():
    """start(run, store, moment, n) -> the running child process."""
    context = multiprocessing.get_context("forkserver")
    slow = ["msa_lib.runs", "msa_lib.data.pack", "msa_lib.data.planted", "msa_lib.data.readers", "sklearn.linear_model"]
    context.set_forkserver_preload([*slow, "torch._dynamo", "pytest"])  # what a run and this file import
    processes = []

    def begin(run, store, moment="none", n=0):
        processes.append(context.Process(target=child, args=(run, store, moment, n)))
        processes[-1].start()
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.join()


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def epochs_of(store: Path) -> list[list[int]]:
    """[process, epoch] of each epoch that was trained."""
    path = store / "epochs"
    return [list(map(int, line.split())) for line in path.read_text().splitlines()] if path.exists() else []


# The files in the order they are written: params, env, 3 x (metrics, state), env, predictions, result
WRITES = ("params.json", "env.json", *("metrics.jsonl", "state.pt") * 3, "env.json", "predictions.npz",
          "weights.safetensors", "result.json")  # fmt: skip
MOMENTS = [
    *(("write", n) for n in range(1, len(WRITES) + 1)),
    *(("step", n) for n in (3, 9)),  # in the middle of an epoch; four steps each
    ("epoch", 3),
    ("remove", 2),  # the result is there, the state still is (first to go is the metrics.jsonl of earlier attempts)
]


def test_the_writes_are_the_ones_listed(tmp_path, monkeypatch):
    """So that the moments above are all there are."""
    written = []
    replace_file = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (written.append(Path(b).name), replace_file(a, b)))
    execute(RUN, tmp_path)
    assert tuple(written) == WRITES


@pytest.mark.parametrize(("moment", "n"), MOMENTS)
def test_killed_at_any_moment_the_run_ends_the_same(tmp_path, whole, start, moment, n):
    process = start(RUN, tmp_path, moment, n)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    folder = folder_of(RUN, tmp_path)
    finished = (folder / "result.json").exists()
    assert finished == (moment == "remove")
    assert len(collect(tmp_path)) == 0 or finished
    if moment == "write":
        assert list(folder.glob(f"{WRITES[n - 1]}.*.partial"))
    told = []
    result = execute(RUN, tmp_path, report=told.append)
    assert contents(folder) == whole
    assert result["status"] == "done"
    trained = {"write": (n - 3) // 2, "step": (n - 1) // 4, "epoch": n, "remove": 3}[moment]
    assert [record["epoch"] for record in told] == list(range(1 + min(max(trained, 0), 3), 4))


def test_killed_from_outside_again_and_again(tmp_path, whole, start):
    """At moments nobody chose; the last attempt is let through."""
    folder = folder_of(RUN, tmp_path)
    for attempt, delay in enumerate((0.3, 0.0, 0.1, 0.2), 1):
        process = start(RUN, tmp_path)
        wait_for(lambda n=attempt: attempts(folder) >= n or (folder / "result.json").exists())
        process.join(delay)
        process.kill()
        process.join()
    assert execute(RUN, tmp_path)["status"] == "done"
    assert contents(folder) == whole


def test_killed_and_left_with_a_damaged_state(tmp_path, whole, start):
    start(RUN, tmp_path, "epoch", 2).join(60)
    folder = folder_of(RUN, tmp_path)
    (folder / "state.pt").write_bytes(b"")
    (folder / "env.json").write_bytes(b"")
    assert execute(RUN, tmp_path)["status"] == "done"
    assert contents(folder) == whole


def test_two_processes_one_run(tmp_path, whole, start):
    pair = [start(RUN, tmp_path), start(RUN, tmp_path)]
    for process in pair:
        process.join(60)
    assert [process.exitcode for process in pair] == [0, 0]
    trained = epochs_of(tmp_path)
    assert [epoch for _, epoch in trained] == [1, 2, 3]
    assert len({process for process, _ in trained}) == 1
    folder = folder_of(RUN, tmp_path)
    assert contents(folder) == whole
    assert attempts(folder) == 1


def test_the_second_waits_and_takes_over_when_the_first_is_killed(tmp_path, whole, start):
    first = start(RUN, tmp_path, "hang", 2)
    wait_for(lambda: len(epochs_of(tmp_path)) == 2)
    second = start(RUN, tmp_path)
    second.join(1.0)
    assert second.is_alive()
    assert {process for process, _ in epochs_of(tmp_path)} == {first.pid}
    first.kill()
    second.join(60)
    assert second.exitcode == 0
    assert epochs_of(tmp_path) == [[first.pid, 1], [first.pid, 2], [second.pid, 3]]
    folder = folder_of(RUN, tmp_path)
    assert contents(folder) == whole
    assert attempts(folder) == 2


# Failed


def test_a_failed_run_keeps_its_reason_and_has_no_numbers(tmp_path):
    run = toy(fault="nan", at=6)
    result = execute(run, tmp_path)
    folder = Path(result["folder"])
    assert {path.name for path in folder.iterdir()} == FILES - {"predictions.npz", "weights.safetensors"}
    assert (result["status"], result["metrics"], result["best_epoch"]) == ("failed", {}, None)
    assert result["reason"] == "Loss term 'extra' was nan at step 2 of epoch 2."
    for rows in (pd.DataFrame(rows_of(result)), collect(tmp_path), grid([run], tmp_path)):
        assert rows["status"].tolist() == ["failed"]
        assert rows["reason"].tolist() == [result["reason"]]
        assert rows["value"].isna().all()
        assert rows["metric"].tolist() == [""]
    with pytest.raises(RunFailed, match=r"has no predictions: Loss term 'extra' was nan at step 2 of epoch 2"):
        predictions(run, tmp_path)


@pytest.mark.parametrize("fault", ["RuntimeError", "ValueError"])
def test_an_error_in_a_model_is_a_failed_run(tmp_path, fault):
    result = execute(toy(fault=fault), tmp_path)
    assert result["status"] == "failed"
    assert result["reason"].startswith("RuntimeError: ")
    assert result["reason"].endswith("asked for")


def test_an_interrupt_is_not_a_result(tmp_path):
    run = toy(fault="KeyboardInterrupt", at=6)
    with pytest.raises(KeyboardInterrupt):
        execute(run, tmp_path)
    folder = folder_of(run, tmp_path)
    assert not (folder / "result.json").exists()
    assert (folder / "state.pt").exists()
    assert collect(tmp_path).empty
    with pytest.raises(KeyboardInterrupt):  # the lock is free again
        execute(replace(run, switches={"fault": "KeyboardInterrupt", "at": 1}), tmp_path)


@pytest.mark.parametrize("model", ["amsgfn", "dsrf"])
def test_the_network_of_a_run_predicts_what_was_stored(tmp_path, model):
    run = replace(RUN, model=model)
    execute(run, tmp_path)
    test = load_dataset(DATA).test
    found, stored = predict(runs.network(run, tmp_path), test, SHORT["batch_size"]), predictions(run, tmp_path)
    assert set(found) <= set(stored)
    for name, value in found.items():
        assert (value == stored[name]).all(), name


def test_a_run_without_weights_has_no_network(tmp_path):
    with pytest.raises(RunFailed, match="it was never run"):
        runs.network(RUN, tmp_path)
    (Path(execute(RUN, tmp_path)["folder"]) / "weights.safetensors").unlink()
    with pytest.raises(ValueError, match=r"weights\.safetensors is missing, damaged"):
        runs.network(RUN, tmp_path)


def test_a_failed_run_is_tried_again_only_when_asked(tmp_path, monkeypatch):
    run = toy(fault="RuntimeError", at=6)
    failed = execute(run, tmp_path)
    told = []
    assert execute(run, tmp_path, report=told.append) == failed
    assert not told
    assert execute(run, tmp_path, retry_failed=True)["status"] == "failed"
    assert attempts(failed["folder"]) == 2

    class Repaired(Toy):
        def __init__(self, dataset, c):
            super().__init__(dataset, replace(c, fault="none"))

    monkeypatch.setitem(MODELS, "toy", Repaired)
    result = execute(run, tmp_path, retry_failed=True, report=told.append)
    assert (result["status"], result["reason"]) == ("done", "")
    assert [record["epoch"] for record in told] == [1, 2, 3]  # from the beginning
    contents(result["folder"])
    assert execute(run, tmp_path, retry_failed=True) == result
    assert attempts(result["folder"]) == 3


def test_a_retry_that_fails_earlier_leaves_no_epochs_of_the_first(tmp_path, monkeypatch):
    run = toy(fault="RuntimeError", at=10)
    folder = Path(execute(run, tmp_path)["folder"])
    assert len(strict(folder / "metrics.jsonl")) == 2

    class Worse(Toy):
        def __init__(self, dataset, c):
            super().__init__(dataset, replace(c, at=1))

    monkeypatch.setitem(MODELS, "toy", Worse)
    execute(run, tmp_path, retry_failed=True)
    assert not (folder / "metrics.jsonl").exists()


def test_what_is_not_a_number_is_missing(tmp_path):
    result = execute(toy(output="constant"), tmp_path)
    folder = Path(result["folder"])
    assert [line["valid"]["corr"] for line in strict(folder / "metrics.jsonl")] == [None] * 3
    assert "NaN" not in (folder / "result.json").read_text()
    assert result["metrics"]["test"]["corr"] is None
    rows = collect(tmp_path).set_index(["split", "metric"])["value"]
    assert math.isnan(rows["test", "corr"])
    assert rows["test", "mae"] == result["metrics"]["test"]["mae"]
    assert rows.dtype == np.float64


# Rows


def test_rows_are_long_unrounded_and_full_of_context(tmp_path):
    for seed in (1, 2):
        execute(toy(seed), tmp_path)
    rows = collect(tmp_path)
    assert not rows.duplicated(["seed", "split", "metric"]).any()
    assert set(rows["seed"]) == {1, 2}
    expected = {"mae", "corr", "acc7", "acc5", "acc2_has0", "acc2_non0", "f1_has0", "f1_non0", "f1_has0_swapped"}
    assert expected | {"acc7_k", "acc7_n"} <= set(rows["metric"])
    for _, row in rows.iterrows():
        stored = json.loads((tmp_path / row["run"] / "result.json").read_text())
        assert row["value"] == stored["metrics"][row["split"]][row["metric"]]
        assert (row["best_epoch"], row["epochs"]) == (stored["best_epoch"], stored["epochs"])
    first = rows.iloc[0]
    assert (first["model"], first["dataset"], first["selection"], first["device"]) == ("toy", DATA, "val_mae", "cpu")
    assert first["fingerprint"] == load_dataset(DATA).fingerprint
    assert first["synthetic"]
    assert json.loads(first["switches"]) == parameters(toy())["switches"]
    assert json.loads(first["train"])["epochs"] == 3
    assert first["n_parameters"] == 32 * 4 + 4 + 4 + 1


def test_what_is_not_a_result_is_not_collected(tmp_path):
    execute(toy(), tmp_path)
    rows = collect(tmp_path)
    half = tmp_path / "0123456789abcdef"
    half.mkdir()
    for name in ("params.json", "metrics.jsonl", "state.pt", "result.json.99.partial", "predictions.npz"):
        (half / name).write_text("{")
    other = tmp_path / "notebooks"
    other.mkdir()
    (other / "result.json").write_text('{"something": "else"}')
    pd.testing.assert_frame_equal(collect(tmp_path), rows)
    assert collect(tmp_path / "nowhere").empty


def edited(change):
    """A result.json whose content is changed and written again as JSON."""
    return lambda text: json.dumps(change(json.loads(text)) or {}, allow_nan=True)


DAMAGE = {
    "another MAE": lambda text: text.replace('"mae": ', '"mae": 1', 1),
    "no MAE": edited(lambda r: r["metrics"]["test"].update(mae=None) or r),
    "NaN": edited(lambda r: r["metrics"]["test"].update(mae=math.nan) or r),
    "infinite": edited(lambda r: r["metrics"]["test"].update(mae=math.inf) or r),
    "true": edited(lambda r: r["metrics"]["test"].update(mae=True) or r),
    "a key twice": lambda text: text.replace('"best_epoch"', '"epochs": 3,\n "best_epoch"', 1),
    "another status": lambda text: text.replace('"done"', '"failed"'),
    "no checksum": edited(lambda r: r.pop("checksum") and r),
    "another seed": lambda text: text.replace('"seed": 1', '"seed": 2'),
    "deep": lambda text: "[" * 100_000,
} | {content: (lambda text, content=content: content) for content in ("", "{", "[1]", "null", "\x00\x00")}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_result_is_named(tmp_path, damage):
    path = Path(execute(toy(), tmp_path)["folder"]) / "result.json"
    text = path.read_text()
    path.write_text(DAMAGE[damage](text))
    assert path.read_text() != text
    for ask in (lambda: collect(tmp_path), lambda: execute(toy(), tmp_path), lambda: predictions(toy(), tmp_path)):
        with pytest.raises(
            ValueError, match=r"^/.*/result\.json is damaged or was changed .* to run it again\.$"
        ) as caught:
            ask()
        assert str(path) in str(caught.value)


def test_a_result_in_the_folder_of_another_run_is_named(tmp_path):
    one, two = (Path(execute(toy(seed), tmp_path)["folder"]) for seed in (1, 2))
    (two / "result.json").write_bytes((one / "result.json").read_bytes())
    for ask in (lambda: collect(tmp_path), lambda: execute(toy(2), tmp_path)):
        with pytest.raises(ValueError, match=rf"is the result of the run {one.name}, in the folder of another"):
            ask()


@pytest.mark.parametrize(("name", "ask"), [("predictions.npz", predictions), ("weights.safetensors", runs.network)])
def test_a_changed_file_of_a_run_is_not_read(tmp_path, name, ask):
    path = Path(execute(RUN, tmp_path)["folder"]) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} is missing, damaged or was changed"):
        ask(RUN, tmp_path)


def test_a_state_with_one_bit_changed_is_not_gone_on_with(tmp_path, whole, start):
    process = start(RUN, tmp_path, "hang", 2)
    wait_for(lambda: len(epochs_of(tmp_path)) == 2)
    process.kill()
    process.join()
    folder = folder_of(RUN, tmp_path)
    content = bytearray((folder / "state.pt").read_bytes())
    content[len(content) * 2 // 3] ^= 16  # amid the weights
    (folder / "state.pt").write_bytes(content)
    execute(RUN, tmp_path)
    assert contents(folder) == whole


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for the workers in /proc")
def test_a_killed_grid_leaves_no_worker_behind(tmp_path):
    words = ["run", "--model", "amsgfn", "--data", DATA, "--seeds", "1", "2", "--jobs", "2", "--store", str(tmp_path)]
    words += ["--set", "d=16", "heads=2", "n_layers=1", "epochs=5000", "patience=5000"]
    process = subprocess.Popen([sys.executable, "-m", "msa_lib.cli", *words], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: len(list(tmp_path.glob("*/state.pt"))) == 2)
    finally:
        process.kill()
        process.wait()

    def quiet() -> bool:
        before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/state.pt")}
        time.sleep(2.5)
        return before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/state.pt")}

    wait_for(quiet)


# Grid


def test_a_grid_keeps_the_order_and_shows_failures(tmp_path, capfd):
    asked = [
        replace(toy(2), label="second"),
        replace(toy(fault="nan"), label="broken"),
        Run("label_mean", DATA, label="constant"),
        toy(1),
        replace(toy(2), label="second again"),
    ]
    rows = grid(asked, tmp_path, title="a title")
    assert rows.columns[0] == "label"
    assert list(dict.fromkeys(rows["label"])) == ["second", "broken", "constant", "toy", "second again"]
    assert rows.groupby("label")["status"].agg(set).to_dict() == {
        "second": {"done"}, "broken": {"failed"}, "constant": {"done"}, "toy": {"done"}, "second again": {"done"}
    }  # fmt: skip
    values = {label: part["value"].to_numpy() for label, part in rows.groupby("label")}
    assert np.array_equal(values["second"], values["second again"], equal_nan=True)
    assert not np.array_equal(values["second"], values["toy"])
    assert np.isnan(values["broken"]).all()
    out, err = capfd.readouterr()
    assert out == ""
    assert "a title: 100%" in err
    assert "5/5" in err
    again = grid(asked, tmp_path)
    pd.testing.assert_frame_equal(again, rows)


def test_a_grid_tries_failed_runs_again_when_asked(tmp_path):
    run = toy(fault="nan")
    folder = Path(execute(run, tmp_path)["folder"])
    grid([run], tmp_path)
    assert attempts(folder) == 1
    grid([run], tmp_path, retry_failed=True)
    assert attempts(folder) == 2


def test_a_parallel_grid_gives_the_same_rows(tmp_path, capfd, whole):
    """The workers are other interpreters, with another hash seed and other threads: so these are compared as well."""
    asked = [replace(RUN, seed=3, label="seed 3"), replace(RUN, label="seed 7")]
    asked += [replace(RUN, train={**SHORT, "lr": 1e30}), Run("ridge", DATA), Run("ridge", DATA, 5)]
    rows = grid(asked, tmp_path / "two", jobs=2)
    assert contents(folder_of(RUN, tmp_path / "two")) == whole
    assert capfd.readouterr().out == ""
    pd.testing.assert_frame_equal(rows, grid(asked, tmp_path / "one", jobs=1), check_exact=True)
    assert list(dict.fromkeys(rows["label"])) == ["seed 3", "seed 7", "amsgfn", "ridge"]
    for run in asked:
        pair = [folder_of(run, tmp_path / store) for store in ("one", "two")]
        for name in SAME:
            if (pair[0] / name).exists():
                assert (pair[0] / name).read_bytes() == (pair[1] / name).read_bytes()


# Writing


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    state.write_atomically(path, b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        state.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


# Reference predictors


@pytest.fixture(scope="module")
def data():
    return load_dataset("planted?train=200&valid=60&test=80")


def pooled(part, names=("text", "audio", "vision")) -> np.ndarray:
    means = []
    for m, name in enumerate(("text", "audio", "vision")):
        if name in names:
            x, n = getattr(part, name).double().numpy(), part.lengths[:, m].numpy()
            means.append(np.stack([row[:k].mean(0) if k else row[0] * 0 for row, k in zip(x, n, strict=True)]))
    return np.concatenate(means, 1)


@pytest.mark.parametrize("letters", ["tav", "t", "av"])
def test_ridge_is_the_formula(data, letters):
    names = [name for name in ("text", "audio", "vision") if name[0] in letters]
    X = {name: pooled(part, names) for name, part in data.splits.items()}
    y = {name: part.labels.double().numpy() for name, part in data.splits.items()}
    center, spread = X["train"].mean(0), X["train"].std(0)
    Z = {name: (x - center) / spread for name, x in X.items()}
    best = None
    for alpha in reference.ALPHAS:
        gram = Z["train"].T @ Z["train"] + alpha * np.eye(Z["train"].shape[1])
        w = np.linalg.solve(gram, Z["train"].T @ (y["train"] - y["train"].mean()))
        guess = {name: z @ w + y["train"].mean() for name, z in Z.items()}
        mae = np.abs(guess["valid"] - y["valid"]).mean()
        if best is None or mae < best[0]:
            best = mae, guess["test"]
    result = reference.ridge(data, letters)
    np.testing.assert_allclose(result.outputs["predictions"], best[1], atol=1e-4)
    assert result.metrics["valid"]["mae"] == pytest.approx(best[0], abs=1e-5)
    assert result.n_parameters == X["train"].shape[1] + 1


def test_ridge_beats_the_label_mean(data):
    ridge, mean = reference.ridge(data), reference.label_mean(data)
    assert ridge.metrics["test"]["mae"] < 0.8 * mean.metrics["test"]["mae"]
    guess = np.float32(float(data.train.labels.mean()))
    assert (mean.outputs["predictions"] == guess).all()
    assert math.isnan(mean.metrics["test"]["corr"])
    assert (mean.model, mean.status, mean.n_parameters) == ("label_mean", "done", 1)


def test_ridge_with_constant_and_missing_features():
    whole = dataset((40, 20, 20))
    parts = {}
    for name, part in whole.splits.items():
        text = part.text.clone()
        text[..., 0] = 3.0
        parts[name] = replace(part, text=text, lengths=part.lengths * torch.tensor([1, 0, 1]))
    odd = replace(whole, **parts)
    result = reference.ridge(odd)
    assert result.status == "done"
    assert np.isfinite(result.outputs["predictions"]).all()
    with pytest.raises(ValueError, match=r"^hand-made has none of the modalities asked for, 'a'\.$"):
        reference.ridge(odd, "a")


def test_ridge_goes_through_the_store(tmp_path, monkeypatch):
    result = execute(Run("ridge", DATA, 5), tmp_path)
    folder = Path(result["folder"])
    assert {path.name for path in folder.iterdir()} == FILES - {"metrics.jsonl", "weights.safetensors"}
    assert result["params"]["seed"] == 0
    assert result["params"]["switches"] == {"modalities": "tav"}
    named = Run("ridge", DATA, 6, {"modalities": "tav"}, device="cuda")
    assert folder_of(named, tmp_path) == folder
    direct = reference.ridge(load_dataset(DATA))
    assert result["metrics"]["test"]["mae"] == pytest.approx(direct.metrics["test"]["mae"], rel=1e-6)
    stored = predictions(named, tmp_path)
    assert set(stored) == {"ids", "labels", "predictions"}
    fitted = []
    monkeypatch.setattr(Ridge, "fit", lambda *args: fitted.append(1))
    assert execute(named, tmp_path) == result
    assert not fitted
    rows = collect(tmp_path)
    assert rows["selection"].eq("").all()
    assert rows["best_epoch"].isna().all()
