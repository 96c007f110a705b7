"""Runs on a Dask cluster: one per task, results into the shared store.

The workers need this package, the data under the same path, and the store on a file system that all of them see. A run
whose worker dies is given to another, which goes on from its last epoch; two clients that ask for the same run wait for
one another, for a run is locked in the store.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

RETRIES = 3  # of a run whose worker was lost


@contextmanager
def dask_executor(address: str, jobs: int = 1, device: str = "cpu") -> Iterator[Executor]:
    """An executor on the scheduler at `address`, or on `jobs` processes of this machine (`local`).

    With device cuda a run asks for one unit of the resource GPU: start workers with `--resources GPU=1`. Raises
    ValueError if Dask is not installed, ConnectionError if no scheduler answers.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise ValueError(
            "--dask needs dask.distributed: python -m pip install 'msa-reproducibility[cluster]'."
        ) from None
    needs = {"resources": {"GPU": 1}} if device == "cuda" else {}
    if address == "local":
        cluster = LocalCluster(
            jobs, threads_per_worker=1, dashboard_address=None, resources={"GPU": 1} if needs else {}
        )
        with cluster, Client(cluster) as client:
            yield client.get_executor(pure=False, retries=RETRIES, **needs)
        return
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError) as problem:
        reason = " ".join(str(problem).split())[:160].rstrip(".")
        raise ConnectionError(f"No Dask scheduler answers at {address!r}: {reason}.") from None
    with client:
        yield client.get_executor(pure=False, retries=RETRIES, **needs)
