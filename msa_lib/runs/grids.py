"""Many runs: trained where they are missing, several at a time; or only looked up."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path

import pandas as pd

from msa_lib.runs.identity import parameters, run_id
from msa_lib.runs.store import STORE, Run, RunFailed, execute, opened, result_in, results_in, rows_of

_ALONE = threading.Lock()  # PyTorch's generator is one per process: runs in its threads take turns


def grid(
    runs: Sequence[Run],
    store: Path | str = STORE,
    jobs: int = 1,
    title: str = "runs",
    retry_failed: bool = False,
    executor: Executor | None = None,
) -> pd.DataFrame:
    """All `runs`, trained where they are missing, `jobs` at a time; -> result rows with a `label` column.

    `executor` takes the place of own processes: any of `concurrent.futures` (`cluster.dask_executor` gives that of a
    Dask cluster), one run (or one stack of seeds) per task, handed out in the order of `runs`, where the seeds of
    one configuration stand together. Inside `joblib.parallel_config` the same call uses what that names.
    """
    from joblib import Parallel, delayed
    from joblib.parallel import LokyBackend, get_active_backend
    from tqdm import tqdm

    if jobs < 1:
        raise ValueError(f"The number of runs at a time is {jobs}; expected 1 or more.")
    store = str(opened(store))
    bar = tqdm(total=len(runs), desc=title, unit="run")
    backend, configured = get_active_backend()  # what a `joblib.parallel_config` around this call asks for
    elsewhere = configured is not None or not isinstance(backend, LokyBackend)
    parent = None if elsewhere or executor else os.getpid()  # a cluster's workers are not our children
    task = partial(_in_worker, store=store, retry_failed=retry_failed, parent=parent)
    if executor is not None:
        work = handed_out(task, together(runs), executor)
    elif jobs == 1 and not elsewhere:
        work = (_executed(part, store, retry_failed, partial(_epoch_on, bar)) for part in together(runs))
    else:
        calls = (delayed(task)(part) for part in together(runs))
        work = Parallel(n_jobs=None if elsewhere else jobs, return_as="generator", batch_size=1)(calls)
    results = []
    try:
        with bar, closing(work):
            for part in work:
                results += part
                bar.update(len(part))
    except BrokenExecutor:  # of the system, for want of memory, or of a person
        raise _broken_off("A worker process was killed (out of memory?)", runs, store) from None
    except CancelledError:
        raise _broken_off("The executor gave up (was its scheduler lost, or the way to it?)", runs, store) from None
    return _labelled(runs, results)


def _broken_off(why: str, runs: Sequence[Run], store: str) -> RunFailed:
    """What to raise of a grid that cannot go on."""
    done = len(_found(runs, store))
    return RunFailed(
        f"{why} when {done} of {len(runs)} runs were done; they are kept, and the same command goes on from there."
    )


def together(runs: Sequence[Run]) -> list[list[Run]]:
    """One task per run; neighbours of one stack, which train at once, are one."""
    parts = groupby(runs, lambda run: replace(run, seed=0) if run.train.get("stack") else run)
    return [list(part) for _, part in parts]


def in_stacks(seeds: Sequence[int], size: int) -> dict[int, dict]:
    """The training setting of each seed that has `size` of them train at once, in their order; the last stack may be
    smaller."""
    stacks = [tuple(seeds[i : i + size]) for i in range(0, len(seeds), size)]
    return {seed: {"stack": stack} for stack in stacks for seed in stack}


def handed_out(task: Callable, parts: Sequence, executor: Executor) -> Iterator:
    """`task(part)` for each of `parts`, on an executor; the results in their order. What waits is taken back when the
    one who asked has had enough."""
    tasks = [executor.submit(task, part) for part in parts]
    try:
        for waiting in tasks:
            yield waiting.result()
    finally:
        for waiting in tasks:
            waiting.cancel()


def _in_worker(runs: Sequence[Run], store: str, retry_failed: bool, parent: int | None) -> list[dict]:
    """`execute` in a process that does not outlive the one that asked for it: a killed grid leaves no worker behind."""
    if parent is not None and os.getpid() != parent:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    with _ALONE:
        return _executed(runs, store, retry_failed)


def _executed(part: Sequence[Run], store: str, retry_failed: bool, report: Callable = lambda run: None) -> list[dict]:
    """The results of one part; the first of its seeds that had failed trains their stack again, the others do not."""
    again = [run for run, result in _found(part, store) if result["status"] == "failed"][:1] if retry_failed else []
    return [execute(run, store, run in again, report(run)) for run in part]


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)  # the run keeps its last epoch, and the same command goes on from there


def finished(runs: Sequence[Run], store: Path | str = STORE) -> pd.DataFrame:
    """Those of `runs` that the store holds, as `grid` gives them; nothing is trained. No rows if it holds none."""
    found = _found(runs, store)
    if not found:
        results_in(store)  # says so if the store has only runs of before
        return pd.DataFrame()
    return _labelled([run for run, _ in found], [result for _, result in found])


def _found(runs: Sequence[Run], store: Path | str) -> list[tuple[Run, dict]]:
    """Those of `runs` that the store holds, with their results."""
    asked = [(run, parameters(run, Path(store))) for run in runs]
    found = [(run, result_in(Path(store).resolve() / run_id(params), params)) for run, params in asked]
    return [(run, result) for run, result in found if result is not None]


def _labelled(runs: Sequence[Run], results: Sequence[Mapping]) -> pd.DataFrame:
    rows = [
        [{"label": run.label or run.model} | row for row in rows_of(r)] for run, r in zip(runs, results, strict=True)
    ]
    return pd.DataFrame([row for part in rows for row in part])


def _epoch_on(bar, run: Run):
    """A report for `execute` that shows the epoch at the end of the bar."""
    name = run.label or run.model
    return lambda record: bar.set_postfix_str(  # a stack says which of its seeds a record is of
        f"{name} seed {record.get('seed', run.seed)}: epoch {record['epoch']}, valid MAE {record['valid']['mae']:.3f}"
    )
