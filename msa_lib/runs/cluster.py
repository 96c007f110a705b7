"""Runs on a Dask cluster: one per task, results into the shared store.

The workers need this package, the data under the same path, and the store on a file system that all of them see. A run
whose worker dies is given to another, which goes on from its last epoch; two clients that ask for the same run wait for
one another, for a run is locked in the store.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor
from contextlib import ExitStack, contextmanager

from msa_lib.runs.store import RunFailed

RETRIES = 3  # of a run whose worker was lost


@contextmanager
def dask_executor(address: str, jobs: int = 1, device: str = "cpu") -> Iterator[Executor]:
    """An executor on the scheduler at `address`, or on `jobs` processes of this machine (`local`).

    With device cuda a run asks for one unit of the resource GPU: start workers with `--resources GPU=1`. Raises
    ValueError if Dask is not installed, ConnectionError if no scheduler answers.
    """
    try:
        from distributed import Client, KilledWorker, LocalCluster
    except ImportError:
        raise ValueError(
            "--dask needs dask.distributed: python -m pip install 'msa-reproducibility[cluster]'."
        ) from None
    needs = {"resources": {"GPU": 1}} if device == "cuda" else {}
    with ExitStack() as stack:
        stack.enter_context(_silent())
        if address == "local":  # no limit of memory: pages of mapped data would count
            own = {"n_workers": jobs, "threads_per_worker": 1, "memory_limit": 0, "silence_logs": logging.CRITICAL}
            own |= {"dashboard_address": "127.0.0.1:0", "resources": needs.get("resources", {})}
            cluster = stack.enter_context(LocalCluster(**own))
            client = stack.enter_context(Client(cluster))
        else:
            client = stack.enter_context(_connected(Client, address))
        try:
            yield _Cluster(client, needs)
        except KilledWorker as problem:
            raise RunFailed(
                f"{problem.allowed_failures + 1} workers died of one run (out of memory?); what is finished is kept, "
                f"and the same command goes on from there."
            ) from None


class _Cluster(Executor):
    """The part of an executor that a grid needs. Dask's own waits for ever for a result that was on its way when the
    connection was lost."""

    def __init__(self, client, needs: dict) -> None:
        self.client, self.how = client, {"pure": False, "retries": RETRIES, **needs}

    def submit(self, function: Callable, /, *arguments) -> _Task:
        return _Task(self.client.submit(function, *arguments, **self.how))


class _Task:
    """A task on the cluster, waited for and taken back as a future is."""

    def __init__(self, future) -> None:
        self.future = future

    def result(self):
        """Raises what the task raised, and CancelledError if the client lost its scheduler: Dask drops its tasks then,
        even if the connection comes back, and whatever it raises amid a transfer is of the lost connection."""
        try:
            return self.future.result()
        except Exception as problem:
            if self.future.status == "error":
                raise
            raise CancelledError from problem

    def cancel(self) -> None:
        if self.future.status == "pending":
            self.future.cancel()


def _connected(client: type, address: str):
    try:
        return client(address, timeout=10)
    except (OSError, ValueError) as problem:
        reason = " ".join(str(problem).split())[:160].rstrip(".")
        raise ConnectionError(f"No Dask scheduler answers at {address!r}: {reason}.") from None


@contextmanager
def _silent() -> Iterator[None]:
    """Dask tells of lost workers and schedulers in pages of traceback; `grid` says in a sentence what it means."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        yield
    finally:
        logging.disable(before)
