"""Real processes killed for good, at moments that nobody chose: the same command ends in the same bytes.

One kill here; `MSA_KILLS=50 pytest tests/test_kills.py` takes that many, `MSA_KILLS_SEED` draws others. What is
killed: `msa run`; `msa tables`, one of its workers, its notebook's process or kernel; the kernel of a notebook that
trains. `test_runs.py` kills at each write, so that together no moment is left out.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from msa_lib.notebooks import NotebookFailed, execute, read_result
from msa_lib.study import NOTEBOOKS

KILLS = int(os.environ.get("MSA_KILLS", 2))
SHARE = {"run": 0.6, "tables": 0.24, "kernel": 0.16}  # of the kills
DATA = "planted?train=48&valid=24&test=32"
PAGE = "figure_modality_contributions"
RUN = ["run", "--model", "amsgfn", "--data", DATA, "--seeds", "1", "2", "--epochs", "4", "--set", "d=16",
       "heads=2", "n_layers=1", "batch_size=16"]  # fmt: skip
TABLES = ["tables", PAGE, "--data", DATA, "--scale", "smoke", "--seeds", "2", "--jobs", "2"]

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds child processes in /proc")


def kills(kind: str) -> int:
    return round(KILLS * SHARE[kind])


def family(pid: int) -> list[int]:
    """The process and all that descend from it."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # gone meanwhile
            continue
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def left(store: Path) -> dict[str, bytes]:
    """Every file of every run but what tells of the moment, and the table of all rows."""
    runs = [folder for folder in store.iterdir() if re.fullmatch("[0-9a-f]{16}", folder.name)]
    files = {f"{folder.name}/{path.name}": path for folder in runs for path in folder.iterdir()}
    files = {name: path for name, path in files.items() if path.name not in ("env.json", "lock")}
    found = {name: path.read_bytes() for name, path in files.items()}
    if (store / "rows.csv").exists():
        found["rows.csv"] = (store / "rows.csv").read_bytes()
    if (result := store / "notebooks" / f"{PAGE}.json").exists():
        found["notebook"] = repr(read_result(result)["content"]).encode()
    return found


def files(store: Path) -> set[Path]:
    return {path for path in store.rglob("*") if path.is_file()}


def campaign(kind: str, attempt: Callable, folder: Path) -> None:
    """`attempt(store, kill)` until so many kills have hit; whenever one ends by itself, its store is compared.

    `kill(alive, choose)` waits for the first write to the store and then for a random moment, and kills one of
    `choose()` unless that was too late.
    """
    if not kills(kind):
        pytest.skip("takes half a minute: MSA_KILLS=50")
    rng = random.Random(f"{kind} {os.environ.get('MSA_KILLS_SEED', 0)}")
    whole, hits, stores = folder / "whole", 0, 0
    assert attempt(whole, None)
    span = time.time() - min(path.stat().st_mtime for path in files(whole))
    expected = left(whole)
    assert any(name.endswith("result.json") for name in expected)

    while hits < kills(kind):
        store, done = folder / f"store{stores}", False
        stores += 1
        while not done:
            before = files(store)

            def kill(alive: Callable, choose: Callable, store=store, before=before) -> None:
                nonlocal hits
                while alive() and files(store) == before:
                    time.sleep(0.005)
                time.sleep(rng.uniform(0, span))
                victims = [one for one in choose() if command_line(one)]
                if victims and hits < kills(kind):  # the last one is let through
                    os.kill(rng.choice(victims), signal.SIGKILL)
                    hits += 1

            done = attempt(store, kill)
        assert left(store) == expected
    print(f"{kind}: {hits} kills over {stores} stores, each ended in the bytes of an undisturbed run")


def commanded(words: list[str], victims: Callable[[int], list[int]]) -> Callable:
    """`msa` with these words, in a process of its own."""
    environment = os.environ | {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}

    def attempt(store: Path, kill) -> bool:
        asked = [sys.executable, "-m", "msa_lib.cli", *words, "--store", str(store)]
        with (store.parent / "said").open("ab") as said:
            process = subprocess.Popen(asked, stdout=said, stderr=said, env=environment)

        def alive() -> bool:
            return process.poll() is None

        if kill:
            kill(alive, lambda: victims(process.pid) if alive() else [])
        return process.wait(900) == 0

    return attempt


def test_a_killed_run(tmp_path):
    campaign("run", commanded(RUN, lambda pid: [pid]), tmp_path)


def test_killed_tables_their_workers_and_notebooks(tmp_path):
    campaign("tables", commanded(TABLES, family), tmp_path)


def test_a_killed_kernel(tmp_path):
    """Of a notebook that trains what it shows."""

    def kernels() -> list[int]:
        return [one for one in family(os.getpid()) if "ipykernel_launcher" in command_line(one)]

    def attempt(store: Path, kill) -> bool:
        store.mkdir(exist_ok=True)
        asked = {"dataset": DATA, "scale": "smoke", "seeds": 1, "store": str(store), "jobs": 1, "train": True}
        over = threading.Event()
        killer = threading.Thread(target=kill or (lambda *_: None), args=(lambda: not over.is_set(), kernels))
        killer.start()
        try:
            execute(NOTEBOOKS / f"{PAGE}.ipynb", store / "notebooks" / f"{PAGE}.ipynb", asked)
        except NotebookFailed:
            return False
        finally:
            over.set()
            killer.join()
        return True

    campaign("kernel", attempt, tmp_path)
