"""Grids on executors: of threads, and on a Dask cluster that loses a worker, its scheduler, or only its client."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from toy import DATA, SHORT, SMALL

from msa_lib.runs import Run, RunFailed, grid
from msa_lib.runs.cluster import dask_executor
from msa_lib.runs.identity import parameters, run_id

WANTED = [Run("amsgfn", DATA, seed, SMALL, {**SHORT, "epochs": 4, "patience": 4}) for seed in (1, 2, 3, 4)]
LOST = r"scheduler lost, or the way to it\?\) when \d of 4 runs were done; they are kept, and the same command"
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
cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", processes=PROCESSES)
print(cluster.scheduler_address, flush=True)
time.sleep(600)
"""


@contextmanager
def host(processes: bool = True) -> Iterator[tuple[subprocess.Popen, str]]:
    """A process with a scheduler and two workers, which are its children or its threads, and its address."""
    code = HOST.replace("PROCESSES", "True" if processes else "False, protocol='tcp://'")
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
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
        with pytest.raises(RunFailed, match=LOST):
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


class Way:
    """A way to a scheduler that can be cut: a port of this machine behind which every byte is handed on."""

    def __init__(self, address: str, until: bytes = b"") -> None:
        """The way is cut when `until` is on it to the scheduler."""
        host, port = address.removeprefix("tcp://").split(":")
        self.end, self.until, self.ends, self.port = (host, int(port)), until, [], 0
        self.cut, self.lock = threading.Event(), threading.Lock()
        self.open()

    def open(self) -> None:
        self.cut.clear()
        self.server = socket.create_server(("127.0.0.1", self.port))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._take, args=(self.server,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def shut(self) -> None:
        with self.lock:
            self.cut.set()
            for end in (self.server, *self.ends):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            self.ends = []

    def _take(self, server: socket.socket) -> None:
        with server, suppress(OSError):
            while True:
                near = server.accept()[0]
                with self.lock:
                    if self.cut.is_set():
                        return near.close()
                    far = socket.create_connection(self.end)
                    self.ends += [near, far]
                for pair in ((near, far, self.until), (far, near, b"")):
                    threading.Thread(target=self._hand_on, args=pair, daemon=True).start()

    def _hand_on(self, source: socket.socket, target: socket.socket, until: bytes) -> None:
        """Until either side has closed; closes the one that it reads from."""
        with source, suppress(OSError):
            while given := source.recv(1 << 16):
                if until and until in given and not self.cut.is_set():
                    return self.shut()
                target.sendall(given)
            target.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def living() -> Iterator[str]:
    """The address of a scheduler that nothing happens to."""
    pytest.importorskip("distributed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
        with host(processes=False) as (_, address):
            yield address


CLIENT = """
import sys
from test_cluster import WANTED, RunFailed, dask_executor, grid
try:
    with dask_executor(sys.argv[1]) as executor:
        grid(WANTED, sys.argv[2], executor=executor)
except RunFailed as problem:
    print(problem)
"""


@pytest.mark.parametrize("moment", ["amid a run", "amid a run, open again", "amid the transfer of a result"])
def test_a_client_that_loses_its_way_says_so_and_the_same_command_goes_on(serial, tmp_path, living, moment):
    """The scheduler and what runs live on: the second command waits for it, and trains nothing again."""
    way = Way(living, until=b"gather" if moment == "amid the transfer of a result" else b"")
    command = [sys.executable, "-c", CLIENT, way.address, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as client:
        deadline = time.monotonic() + 240
        while not (way.cut.is_set() if way.until else list(tmp_path.rglob("state.pt"))) and time.monotonic() < deadline:
            time.sleep(0.005)
        way.shut()
        if moment == "amid a run, open again":
            way.open()
        try:
            told, complaints = client.communicate(timeout=60)
        finally:
            client.kill()
    assert re.search(LOST, told)
    assert "Traceback" not in complaints
    with dask_executor(way.address if moment == "amid a run, open again" else living) as executor:
        rows = grid(WANTED, tmp_path, executor=executor)
    assert set(rows["seed"]) == {1, 2, 3, 4}
    assert {json.loads(path.read_text())["attempts"] for path in tmp_path.rglob("env.json")} == {1}
    assert results(tmp_path) == serial
    way.shut()


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
