"""What many runs at a time gain, and what handing them out costs: measured, for notebooks/speed, and never judged."""

from __future__ import annotations

import time
from tempfile import TemporaryDirectory

from msa_lib.models import MODELS
from msa_lib.runs.cluster import dask_executor
from msa_lib.runs.grids import grid, handed_out
from msa_lib.runs.store import Run

DATA = "planted?train=512&valid=64&test=64"


def scheduling(runs: int = 1000, workers: int = 16, sleep: float = 0.5) -> dict[str, float]:
    """A grid of `runs` tasks that sleep `sleep` seconds, on Dask processes of this machine.

    "overhead per run" is what a run adds to the grid's time beyond its share of sleep, and "beyond its sleep, per task"
    what it takes of its worker's time; seconds. Starting the workers is not counted.
    """
    with dask_executor("local", workers) as executor:
        begin = time.perf_counter()
        for _ in handed_out(time.sleep, [sleep] * runs, executor):
            pass
        seconds = time.perf_counter() - begin
    share = seconds / runs
    return {
        "runs": runs,
        "workers": workers,
        "seconds": seconds,
        "overhead per run": share - sleep / workers,
        "beyond its sleep, per task": share * workers - sleep,
    }


def throughput(workers: int, runs: int = 8) -> dict[str, float]:
    """A grid of `runs` small networks on planted data, on `workers` Dask processes; as many runs before, in which each
    process imports what it needs, are not counted."""
    settings = MODELS["amsgfn"].SMALL
    wanted = [Run("amsgfn", DATA, seed, settings, {"epochs": 4}) for seed in range(runs + workers)]
    with TemporaryDirectory() as store, dask_executor("local", workers) as executor:
        grid(wanted[:workers], store, title="warming up", executor=executor)
        begin = time.perf_counter()
        grid(wanted[workers:], store, title=f"{workers} workers", executor=executor)
        seconds = time.perf_counter() - begin
    return {"workers": workers, "runs": runs, "seconds": seconds, "runs per minute": 60 * runs / seconds}
