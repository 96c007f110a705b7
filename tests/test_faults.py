"""What surrounds a run goes wrong: a full disk, a store from elsewhere, clocks, odd working folders, odd data. A clear
sentence or the same numbers, and never a wrong one. (Killed processes: test_runs, test_kills; damaged files: test_runs,
test_fuzz.)"""

from __future__ import annotations

import errno
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_fuzz import content
from toy import DATA, SHORT, SMALL, Toy

from msa_lib import cli
from msa_lib.data import Dataset, load_dataset, pack
from msa_lib.models import MODELS
from msa_lib.runs import Run, collect, execute
from msa_lib.train import TrainConfig, fit
from msa_lib.train.procedure import Procedure
from papers_check.__main__ import main as papers_check

RUN = Run("amsgfn", DATA, 7, SMALL, SHORT)
FILES = ("params.json", "metrics.jsonl", "predictions.npz", "weights.safetensors", "result.json")
WRITES = 12  # of a run of three epochs (test_runs)


def bytes_of(folder: str | Path) -> dict[str, bytes]:
    return {name: (Path(folder) / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """A store with one finished run of AMSGFN and one of ridge."""
    path = tmp_path_factory.mktemp("store")
    execute(RUN, path)
    execute(Run("ridge", DATA), path)
    return path


# The disk


@pytest.mark.parametrize("n", range(1, WRITES + 1))
def test_a_disk_that_is_full_at_any_write(n, store, tmp_path, monkeypatch):
    """The run stops with the name of the file; with room again, it ends in the same bytes."""
    flushed, count = os.fsync, [0]

    def full(number: int) -> None:
        count[0] += 1
        if count[0] >= n:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flushed(number)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left on device") as caught:
            execute(RUN, tmp_path)
        assert Path(caught.value.filename).parent.parent == tmp_path
    assert collect(tmp_path).empty
    assert not list(tmp_path.rglob("*.partial"))
    expected = execute(RUN, store)["folder"]
    assert bytes_of(execute(RUN, tmp_path)["folder"]) == bytes_of(expected)


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: what a full disk does, and the system itself says it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


WRITERS = {  # what is written, and the file that the sentence names
    "a run": (["run", "--model", "amsgfn", "--data", DATA, "--epochs", "1", "--store", "OUT/runs"], "state.pt"),
    "rows as JSON": (["collect", "--store", "STORE", "--json", "OUT/x.json"], "x.json"),
    "rows as CSV": (["collect", "--store", "STORE", "--csv", "OUT/x.csv"], "x.csv"),
    "a packed folder": (["data", "pack", DATA, "OUT/packed"], ".npy"),
}


@pytest.mark.parametrize("what", WRITERS)
def test_what_does_not_fit_is_said_and_not_left_half(what, store, tmp_path, capsys):
    words, named = WRITERS[what]
    with files_up_to(4096):
        code = cli.main([word.replace("OUT", str(tmp_path)).replace("STORE", str(store)) for word in words])
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2
    assert said.startswith(f"msa: {tmp_path}")
    assert f"{named}: " in said
    assert not list(tmp_path.glob("x.*"))
    assert not list(tmp_path.glob("*packed*"))


def test_findings_that_do_not_fit_are_not_left_half(tmp_path, capsys):
    with files_up_to(4096):
        assert papers_check(["--json", str(tmp_path / "found.json")]) == 2
    assert f"papers_check: {tmp_path}/found.json: " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_features_that_do_not_fit_are_an_error_and_not_the_end_of_the_process(tmp_path):
    """A mapped array on a full disk is one at the first touch of a page, and then a signal."""
    with pack.Writer(tmp_path / "packed") as writer, files_up_to(4096), pytest.raises(OSError, match=r"text\.npy"):
        writer.array("train", "text", (100, 10, 10))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_output_that_nobody_can_write_is_one_sentence(store):
    words = [sys.executable, "-m", "msa_lib.cli", "collect", "--store", str(store)]
    with open("/dev/full", "w") as full:
        ended = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (2, "msa: output: No space left on device.\n")


def test_json_can_go_to_what_is_no_plain_file(store, tmp_path):
    """A link, as /dev/stdout is one, stays."""
    (tmp_path / "there").write_text("")
    for name, ask in (("one", lambda path: cli.main(["collect", "--store", str(store), "--json", path])),
                      ("two", lambda path: papers_check(["--json", path]))):  # fmt: skip
        link = tmp_path / name
        link.symlink_to(tmp_path / "there")
        assert ask(str(link)) == 0
        assert link.is_symlink()
        assert isinstance(json.loads((tmp_path / "there").read_text()), list)


def test_a_store_that_cannot_be_written(store, tmp_path, capsys):
    """Its numbers can be read; a run that is not there is asked for in vain, in a sentence."""
    copy = shutil.copytree(store, tmp_path / "copy")
    for folder in (copy, *copy.iterdir()):
        folder.chmod(0o555)
    try:
        if os.access(copy, os.W_OK):  # nothing is forbidden to root: a place where the system itself makes no folders
            copy = Path("/proc/self/fd")
        else:
            assert len(collect(copy)) == len(collect(store))
        assert cli.main(["run", "--model", "label_mean", "--data", DATA, "--store", str(copy / "x")]) == 2
        assert capsys.readouterr().err.startswith(f"msa: {copy.resolve().parent}")
    finally:
        for folder in (tmp_path / "copy", *(tmp_path / "copy").iterdir()):
            folder.chmod(0o755)


# The store and the clock


def test_a_store_from_elsewhere(store, tmp_path, monkeypatch):
    """Copied to another place, and two of them put together: everything is there, and nothing is trained again."""
    other = tmp_path / "other"
    execute(Run("label_mean", DATA), other)
    shutil.copytree(store, other, dirs_exist_ok=True)
    monkeypatch.setattr("msa_lib.runs.store._train", None)
    assert bytes_of(execute(RUN, other)["folder"]) == bytes_of(execute(RUN, store)["folder"])
    assert set(collect(other)["model"]) == {"amsgfn", "ridge", "label_mean"}


@pytest.mark.parametrize("year", [1980, 2100])
def test_a_clock_that_was_moved(year, tmp_path):
    """Files may be older than what they are made from, or not be written yet: the content decides."""
    moment = (year - 1970) * 365 * 86400

    def stamped() -> None:
        for path in (path for path in tmp_path.rglob("*") if path.is_file()):
            os.utime(path, (moment, moment))

    data, runs = tmp_path / "a.pkl", tmp_path / "runs"
    data.write_bytes(pickle.dumps(content()))
    pack.pack(load_dataset(str(data)), tmp_path / "a.packed")
    stamped()
    asked = [Run("ridge", str(data)), Run("ridge", str(tmp_path / "a.packed"))]
    first = [execute(run, runs) for run in asked]
    stamped()
    assert [execute(run, runs) for run in asked] == first
    assert first[0]["metrics"] == first[1]["metrics"]

    changed = content()
    changed["test"]["regression_labels"] = changed["test"]["regression_labels"][::-1].copy()
    data.write_bytes(pickle.dumps(changed))
    stamped()
    assert execute(asked[0], runs)["folder"] != first[0]["folder"]


@pytest.mark.parametrize("damage", ["", "{", "[]", None])
def test_a_killed_run_whose_parameters_are_lost_begins_again(damage, store, tmp_path):
    class Stopped(Exception):
        pass

    def stop(record) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        fit(RUN.model, load_dataset(DATA), {**SHORT, "switches": SMALL}, (7,), folder=tmp_path, report=stop)
    folder = Path(execute(RUN, store)["folder"])
    begun = tmp_path / folder.name
    begun.mkdir()
    (tmp_path / "state.pt").rename(begun / "state.pt")
    if damage is not None:
        (begun / "params.json").write_text(damage)
    assert bytes_of(execute(RUN, tmp_path)["folder"]) == bytes_of(folder)


# The working folder

ODD = ("torch", "types", "numpy", "json", "pandas", "random", "logging")


@pytest.mark.parametrize(
    "words",
    [
        [
            os.path.join(os.path.dirname(sys.executable), "msa"),
            "run",
            "--model",
            "amsgfn",
            "--epochs",
            "1",
            "--jobs",
            "2",
        ],
        [sys.executable, "-m", "papers_check"],
    ],
    ids=["msa run", "papers_check"],
)
def test_files_in_the_working_folder_are_nobodys_modules(words, tmp_path):
    """Neither those of the command's own process nor those of its workers."""
    if not Path(words[0]).exists():
        pytest.skip("msa is not installed as a command")
    for name in ODD:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the working folder was imported')")
    if words[-1] != "papers_check":
        words = [*words, "--data", DATA, "--seeds", "1", "2", "--set", "d=16", "heads=2", "n_layers=1"]
    env = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    env.pop("PYTHONSAFEPATH", None)
    ended = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "working folder" not in ended.stdout + ended.stderr


# Gradients and data


class Sick(Toy):
    """Its loss is finite; the gradient at step `at` is not."""

    def forward(self, batch):
        output = super().forward(batch)
        if self.training and self.steps + 1 == self.c.at and self.c.fault != "none":
            output.prediction.register_hook(lambda gradient: gradient * float(self.c.fault))
        return output

    def loss(self, batch, output):
        task = (output.prediction - batch.labels).square().mean()
        self.steps += self.training
        return {"task": task, "total": task}


@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("fault", ["nan", "inf"])
def test_a_gradient_that_is_not_finite_ends_the_run_at_the_next_step(fault, clip, monkeypatch):
    """The weights are lost with it. After the last step of all, the best epoch of before is kept."""
    monkeypatch.setitem(MODELS, "sick", Sick)
    dataset = load_dataset(DATA)  # four steps an epoch
    asked = {**SHORT, "clip": clip}
    for at, told in ((6, "step 3 of epoch 2"), (8, "step 1 of epoch 3")):
        result = fit("sick", dataset, {**asked, "switches": {"fault": fault, "at": at}}, (1,))[0]
        assert (result.status, result.metrics) == ("failed", {})
        assert result.reason == f"Loss term 'task' was nan at {told}."
    result = fit("sick", dataset, {**asked, "switches": {"fault": fault, "at": 12}}, (1,))[0]
    assert (result.status, result.best_epoch) == ("done", 2)
    assert np.isfinite(result.outputs["predictions"]).all()
    assert result.history[2]["valid"]["mae"] != result.history[2]["valid"]["mae"]


def constant(dataset: Dataset) -> Dataset:
    """Every label 0.5."""
    parts = {name: replace(split, labels=split.labels * 0 + 0.5) for name, split in dataset.splits.items()}
    return replace(dataset, **parts, fingerprint="")


@pytest.mark.parametrize("model", MODELS)
def test_data_of_one_sample_or_of_one_label_give_numbers_or_a_sentence(model):
    """A last batch of one sample, too. A correlation that does not exist is none, and no score is selected by it."""
    small = dict(MODELS[model].SMALL)
    train = {name: small.pop(name) for name in list(small) if name in vars(TrainConfig())}
    first = max(2, getattr(MODELS[model], "Procedure", Procedure).first_epoch)
    one = load_dataset("planted?train=1&valid=1&test=1")
    alike = constant(load_dataset("planted?train=9&valid=9&test=9"))
    for dataset, more in ((one, {}), (alike, {"batch_size": 8, "drop_last": False})):
        asked = train | {"epochs": first} | more
        if model == "iccn" and dataset is one:  # what it correlates needs more samples than features
            with pytest.raises(ValueError, match="A batch of 1 samples is no larger than k="):
                fit(model, dataset, {**asked, "switches": small}, (1,))
            continue
        result = fit(model, dataset, {**asked, "switches": small}, (1,))[0]
        assert result.status == "done", result.reason
        assert np.isfinite(result.outputs["predictions"]).all()
        assert np.isfinite(result.metrics["test"]["mae"])
        assert not np.isfinite(result.metrics["test"]["corr"])
