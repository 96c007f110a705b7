"""Grids on executors: of threads, and on a Dask cluster of two processes, of which one is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from toy import DATA, SHORT, SMALL

from msa_lib.runs import Run, RunFailed, grid
from msa_lib.runs.cluster import dask_executor
from msa_lib.runs.identity import parameters, run_id

WANTED = [Run("amsgfn", DATA, seed, SMALL, {**SHORT, "epochs": 4, "patience": 4}) for seed in (1, 2, 3, 4)]
SAME = ("predictions.npz", "weights.safetensors", "metrics.jsonl")


def results(store: Path) -> dict[str, list[bytes]]:
    folders = [store / run_id(parameters(run, store)) for run in WANTED]
    return {folder.name: [(folder / name).read_bytes() for name in SAME] for folder in folders}


@pytest.fixture(scope="module")
def serial(tmp_path_factory) -> dict[str, list[bytes]]:
    store = tmp_path_factory.mktemp("serial")
    grid(WANTED, store)
    return results(store)


def test_threads_of_one_process_take_turns(serial, tmp_path):
    """They share PyTorch's generator: side by side they would draw from each other's."""
    with ThreadPoolExecutor(3) as pool:
        rows = grid(WANTED, tmp_path, executor=pool)
    assert set(rows["seed"]) == {1, 2, 3, 4}
    assert results(tmp_path) == serial


@pytest.mark.filterwarnings("default")
def test_a_cluster_loses_a_worker_and_nothing_else(serial, tmp_path, monkeypatch):
    """Two clients ask for the same runs of two processes; one process is killed while it trains."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    frames = {}
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:

        def ask(name: str) -> None:
            with dask_executor(cluster.scheduler_address) as executor:
                frames[name] = grid(WANTED, tmp_path, executor=executor)

        clients = [threading.Thread(target=ask, args=(name,)) for name in ("first", "second")]
        for client in clients:
            client.start()
        begun, deadline = [], time.monotonic() + 240
        while not begun and time.monotonic() < deadline:
            begun = list(tmp_path.rglob("state.pt"))
            time.sleep(0.02)
        with distributed.Client(cluster) as client:
            pids = client.run(os.getpid)
        os.kill(next(iter(pids.values())), signal.SIGKILL)
        for client in clients:
            client.join(240)
    assert begun
    assert sorted(frames) == ["first", "second"]
    assert frames["first"].equals(frames["second"])
    assert results(tmp_path) == serial


HOST = """
import time
from distributed import LocalCluster
cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0")
print(cluster.scheduler_address, flush=True)
time.sleep(600)
"""


@contextmanager
def host() -> Iterator[tuple[subprocess.Popen, str]]:
    """A process with a scheduler and two workers, and its address."""
    with subprocess.Popen(
        [sys.executable, "-c", HOST], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as p:
        try:
            yield p, p.stdout.readline().strip()
        finally:
            p.kill()


def test_a_scheduler_that_goes_away_is_said_and_the_same_command_goes_on(serial, tmp_path, monkeypatch, caplog):
    """Amid the grid; what was finished is not trained again, what was begun goes on from its last epoch."""
    pytest.importorskip("distributed")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    said = []

    def ask() -> None:
        with dask_executor(address) as executor:
            said.append(grid(WANTED, tmp_path, executor=executor))

    def lost() -> None:
        with pytest.raises(
            RunFailed, match=r"gave up when \d of 4 runs were done; they are kept, and the same command"
        ):
            ask()
        said.append("a sentence")

    with host() as (process, address):
        client = threading.Thread(target=lost)
        client.start()
        deadline = time.monotonic() + 240
        while not list(tmp_path.rglob("result.json")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
        client.join(60)
    assert said == ["a sentence"]
    assert not caplog.records  # nor does Dask print its own account
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    assert kept
    with host() as (_, address):
        ask()
    assert set(said[1]["seed"]) == {1, 2, 3, 4}
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert results(tmp_path) == serial


def test_as_many_workers_as_asked_for():
    """The first argument of LocalCluster is its name."""
    distributed = pytest.importorskip("distributed")
    with dask_executor("local", 3):
        assert list(distributed.default_client().ncores().values()) == [1, 1, 1]


def test_what_is_wrong_with_a_cluster_is_said(monkeypatch):
    pytest.importorskip("distributed")
    nobody = "tcp://127.0.0.1:9"
    with pytest.raises(ConnectionError, match="No Dask scheduler answers at"), dask_executor(nobody):
        pass
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(ValueError, match="--dask needs"), dask_executor("local"):
        pass
