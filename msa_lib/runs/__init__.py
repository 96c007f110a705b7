"""Runs: what one is (`identity`), where it is kept (`store`), and many of them (`grids`)."""

from msa_lib.runs.grids import finished, grid
from msa_lib.runs.identity import parameters, run_id
from msa_lib.runs.store import (
    STORE,
    Run,
    RunFailed,
    collect,
    execute,
    network,
    opened,
    predictions,
    rows_of,
)

__all__ = ["STORE", "Run", "RunFailed", "collect", "execute", "finished", "grid", "network", "opened", "parameters",
           "predictions", "rows_of", "run_id"]  # fmt: skip
