"""A run is its parameters. Runs live in a store, one directory each, named by the hash of what determines the result
(identity.py):

    params.json      model, data (name and content fingerprint), seed, every switch and training setting, device kind
    metrics.jsonl    one line per epoch
    env.json         versions, machine, commit, times: recorded, not hashed
    predictions.npz  test labels, predictions and the extras the model records
    weights.safetensors  of the kept epoch; not kept if a pretrained text encoder was trained along, for its size
    result.json      status and metrics, written last by rename; the only file that state is read from

Asking for a run that is there returns it; asking for one that another process is training waits for it; asking for
one that was killed takes it up where it was. A failed run keeps its reason and has no numbers. Of seeds that train at
once (the setting `stack` names them) the first asked for trains all, and each gets its folder; the state of the stack
is in that of its first seed.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
import platform
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, SoftFileLock, Timeout
from safetensors.torch import load, save
from threadpoolctl import threadpool_limits
from torch import nn

from msa_lib import __version__
from msa_lib.data import Dataset
from msa_lib.data.planted import drawn_by
from msa_lib.models import MODELS, build_model
from msa_lib.reference import REFERENCES
from msa_lib.runs.identity import completed, confirm, dataset_of, parameters, run_id
from msa_lib.runs.seal import contents, is_unsealed, sealed, unsealed
from msa_lib.switches import checked
from msa_lib.train import RunResult, TrainConfig, check_device, fit
from msa_lib.train.state import load_weights, plain, trained_weights, write_atomically, write_history

STORE = Path("runs")
RUN_ID = re.compile("[0-9a-f]{16}")  # the names of folders of runs
PATIENCE = 2.0  # seconds until waiting for another process is said


class RunFailed(RuntimeError):
    """A run was asked for as a number and has none."""


@dataclass(frozen=True)
class Run:
    """What is asked for. `label` is the name of the row it belongs to; it does not change the run.

    `data` with seed=run becomes the planted data that this run's seed draws: its name and parameters say so.
    """

    model: str
    data: str
    seed: int = 1111
    switches: Mapping = field(default_factory=dict)
    train: Mapping = field(default_factory=dict)
    root: str | None = None
    device: str = "cpu"
    label: str = ""

    def __post_init__(self) -> None:
        drawn = drawn_by(self.data, self.seed)
        if drawn != self.data and self.train.get("stack"):
            raise ValueError(f"{self.data} are other data for every seed; the seeds of a stack train on the same.")
        object.__setattr__(self, "data", drawn)


def execute(run: Run, store: Path | str = STORE, retry_failed: bool = False, report=None) -> dict:
    """The stored result of `run`, trained first if it is not there. -> the content of result.json.

    A wrong name or value raises ValueError and leaves no result; what goes wrong in training is a failed result.
    """
    asked = parameters(run, opened(store, make=False), remember=True)
    seeds = _at_once(asked)
    params = [asked | {"seed": seed} for seed in seeds]
    folders = [opened(store) / run_id(of_one) for of_one in params]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    own, state = seeds.index(asked["seed"]), folders[0] / "state.pt"
    with _locked(folders[0]):
        results = [_found(folder, of_one) for folder, of_one in zip(folders, params, strict=True)]
        if None not in results:
            state.unlink(missing_ok=True)  # of a process that was killed after its last write
        todo = [i for i, one in enumerate(results) if one is None or (retry_failed and one["status"] == "failed")]
        if own not in todo:
            return results[own]
        if run.model in MODELS:  # a finished run can be read on any machine
            check_device(run.device)
        dataset = dataset_of(run.data, run.root)
        if dataset.fingerprint != asked["data"]["fingerprint"]:
            raise ValueError(f"The data {run.data} changed while they were read; ask again.")
        begun = _begun(folders[0])
        if begun is not None:
            confirm(begun, params[0], folders[0])
        elif state.exists():  # of which nothing says whose it is
            state.unlink()
        environments = {i: _begin(folders[i], run, params[i], begun is not None) for i in todo}
        started = time.perf_counter()
        try:
            outcomes = _train(run, dataset, asked, seeds, folders[0], report)
        except (ValueError, OSError):
            raise  # the request was wrong, or the disk is full: nothing that the run's parameters decide
        except Exception as problem:  # recorded, not hidden: out of memory, a bug in a model
            reason = f"{type(problem).__name__}: {problem}"
            outcomes = [RunResult(run.model, seed, "failed", reason=reason) for seed in seeds]
        seconds = (time.perf_counter() - started) / len(seeds)
        for i, environment in environments.items():
            environment["seconds"] += seconds
            write_atomically(folders[i] / "env.json", _json(environment))
            if asked.get("train", {}).get("stack"):  # a run alone wrote it as it went
                write_history(folders[i], outcomes[i].history)
            results[i] = _write(folders[i], params[i], outcomes[i], dataset)
        state.unlink(missing_ok=True)
        return results[own]


def _at_once(params: Mapping) -> list[int]:
    """The seeds that train at once with that of a run, itself among them; alone if it names no stack."""
    seeds = params.get("train", {}).get("stack") or [params["seed"]]
    if params["seed"] not in seeds:
        raise ValueError(f"Seed {params['seed']} is none of stack={tuple(seeds)}, the seeds that train at once.")
    return seeds


def _found(folder: Path, params: Mapping) -> dict | None:
    """The result in a folder, if there is one."""
    for partial in folder.glob("*.partial"):  # of a process that was killed while writing
        partial.unlink()
    return result_in(folder, params)


def _begin(folder: Path, run: Run, params: Mapping, goes_on: bool) -> dict:
    """Notes in the folder of a run what is trained, and where; -> the latter."""
    if not goes_on:
        (folder / "metrics.jsonl").unlink(missing_ok=True)  # of an attempt that does not go on
    write_atomically(folder / "params.json", _json(params))
    environment = _environment(folder, run)
    write_atomically(folder / "env.json", _json(environment))
    return environment


def _begun(folder: Path) -> dict | None:
    """The parameters of a run that was killed after an epoch; None if there is none, or one of which they are lost."""
    if not (folder / "state.pt").exists():
        return None
    with suppress(OSError, ValueError):
        stored = json.loads((folder / "params.json").read_text())
        return stored if isinstance(stored, dict) else None
    return None


def opened(store: Path | str, make: bool = True) -> Path:
    """The folder of a store, made (if asked) where it is not there; NotADirectoryError if a file is in its place."""
    store = Path(store).resolve()
    for place in (store, *store.parents):
        if place.exists() and not place.is_dir():
            raise NotADirectoryError(f"{place} is a file; expected a folder for the store of runs.")
    if make:
        store.mkdir(parents=True, exist_ok=True)
    return store


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process per run. The system releases the lock if this process dies; waiting for another one is said."""
    lock = FileLock(folder / "lock")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of falling back to a lock that would outlive this process
            try:
                lock.acquire(timeout=PATIENCE)
            except Timeout:
                print(f"Another process is at this run: waiting for {lock.lock_file}.", file=sys.stderr, flush=True)
                lock.acquire()
        has_locks = not isinstance(lock, SoftFileLock)
    except NotImplementedError:
        has_locks = False
    except OSError as problem:
        if problem.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        has_locks = False
    if not has_locks:
        lock.release()
        raise OSError(
            f"The file system of {folder.parent} has no file locks, without which two processes could train one run: "
            f"expected a store on a disk that has them (--store)."
        )
    try:
        yield
    finally:
        lock.release()


def _train(run: Run, dataset: Dataset, params: Mapping, seeds: list[int], folder: Path, report) -> list[RunResult]:
    if run.model in REFERENCES:
        with threadpool_limits(1):  # the order of sums, and so the last bits, depend on the threads
            return [REFERENCES[run.model](dataset, **params["switches"])]
    config = checked(TrainConfig, {**params["train"], "switches": params["switches"]}, "training setting")
    return fit(run.model, dataset, config, seeds=seeds, device=run.device, folder=folder, report=report)


def _write(folder: Path, params: Mapping, outcome: RunResult, dataset: Dataset) -> dict:
    result = {
        "run": folder.name,
        "status": outcome.status,
        "reason": outcome.reason,
        "params": params,
        "metrics": outcome.metrics,
        "best_epoch": outcome.best_epoch,
        "epochs": outcome.epochs,
        "n_parameters": outcome.n_parameters,
        "scale": dataset.scale,
        "synthetic": dataset.synthetic,
        "version": __version__,
    }
    if outcome.status == "done":
        buffer = io.BytesIO()
        np.savez_compressed(buffer, ids=np.array(dataset.test.ids), **outcome.outputs)
        write_atomically(folder / "predictions.npz", buffer.getbuffer())
        if outcome.network is not None:
            weights = {k: v.detach().cpu().contiguous() for k, v in trained_weights(outcome.network).items()}
            if not any("text_encoder." in name for name in weights):
                write_atomically(folder / "weights.safetensors", save(weights))
    write_atomically(folder / "result.json", _json(sealed(plain(result), folder)))
    return result_in(folder)


def _json(content: Mapping) -> bytes:
    return (json.dumps(plain(content), indent=1, allow_nan=False) + "\n").encode()


def result_in(folder: Path, params: Mapping | None = None) -> dict | None:
    """The result in a folder, None if it has none; with `params` it must be of a run with just these."""
    path = folder / "result.json"
    if not path.exists():
        return None
    result = unsealed(path) | {"folder": str(folder)}
    if result["run"] != folder.name:
        raise ValueError(
            f"{path} is the result of the run {result['run']}, in the folder of another: delete the folder {folder} to "
            f"run it again."
        )
    if params is not None:
        confirm(result["params"], params, folder)
    return result


def _environment(folder: Path, run: Run) -> dict:
    try:
        earlier = json.loads((folder / "env.json").read_text())
    except (OSError, ValueError):
        earlier = {}
    device = torch.cuda.get_device_name(run.device) if torch.device(run.device).type == "cuda" else platform.machine()
    return {
        "commit": _commit(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "attempts": earlier.get("attempts", 0) + 1,
        "seconds": earlier.get("seconds", 0.0),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": platform.system(),
        "device": device,
        "cores": os.cpu_count(),
    }


@lru_cache(maxsize=1)
def _commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True).stdout.strip() or None
    except OSError:  # no git on this machine
        return None


def predictions(run: Run, store: Path | str = STORE) -> dict[str, np.ndarray]:
    """What `predictions.npz` holds of a finished run: ids, labels, predictions, recorded extras (test split)."""
    params = parameters(run, Path(store))
    folder = Path(store).resolve() / run_id(params)
    result = result_in(folder, params)
    if result is None or result["status"] != "done":
        raise RunFailed(f"Run {folder.name} has no predictions: {result['reason'] if result else 'it was never run'}.")
    with np.load(io.BytesIO(contents(folder, "predictions.npz", result["files"])), allow_pickle=False) as stored:
        return dict(stored)


def network(run: Run, store: Path | str = STORE) -> nn.Module:
    """The trained network of a finished run, with the weights of the kept epoch, on the run's device, in eval mode.

    The network is built from its data, which say the feature sizes: unlike the numbers, it cannot be had without them.
    """
    params = parameters(run, Path(store))
    folder = Path(store).resolve() / run_id(params)
    result = result_in(folder, params)
    if result is None or result["status"] != "done":
        raise RunFailed(f"Run {folder.name} has no network: {result['reason'] if result else 'it was never run'}.")
    if "weights.safetensors" not in result["files"]:
        raise RunFailed(
            f"Run {folder.name} kept no weights: its text encoder was trained along, or it is an older run."
        )
    try:
        dataset = dataset_of(run.data, run.root)
    except FileNotFoundError as missing:
        raise FileNotFoundError(f"{missing} The network of run {folder.name} is built from them.") from None
    built = build_model(run.model, dataset, **params["switches"])
    load_weights(built, load(contents(folder, "weights.safetensors", result["files"])))
    return built.to(run.device).eval()


def rows_of(result: Mapping) -> list[dict]:
    """Long format: one row per split and metric, unrounded; a failed run gives one row without a number."""
    params = completed(result["params"])
    context = {
        "run": Path(result["folder"]).name,
        "model": params["model"],
        "version": ", ".join(f"{part} {number}" for part, number in params["versions"].items()),
        "dataset": params["data"]["name"],
        "fingerprint": params["data"]["fingerprint"],
        "synthetic": result["synthetic"],
        "seed": params["seed"],
        "selection": params.get("train", {}).get("selection", ""),
        "best_epoch": result["best_epoch"],
        "epochs": result["epochs"],
        "n_parameters": result["n_parameters"],
        "device": params.get("device", "cpu"),
        "switches": json.dumps(params["switches"]),
        "train": json.dumps(params.get("train", {})),
        "status": result["status"],
        "reason": result["reason"],
    }
    if result["status"] != "done":
        return [context | {"split": "test", "metric": "", "value": math.nan}]
    return [
        context | {"split": split, "metric": metric, "value": math.nan if value is None else value}
        for split, metrics in result["metrics"].items()
        for metric, value in metrics.items()
    ]


def collect(store: Path | str = STORE) -> pd.DataFrame:
    """Rows of every finished or failed run in a store. Directories without a result.json are not results."""
    return pd.DataFrame([row for result in results_in(store) for row in rows_of(result)])


def results_in(store: Path | str) -> list[dict]:
    """Every result in a store, but for those of before runs had versions and checksums: one warning names them."""
    folders = [path.parent for path in sorted(Path(store).glob("*/result.json")) if RUN_ID.fullmatch(path.parent.name)]
    old = [folder.name for folder in folders if is_unsealed(folder / "result.json")]
    if old:
        warnings.warn(
            f"{len(old)} runs in {store} were made before runs had versions and checksums ({old[0]}, ...): they are "
            f"left out, for nothing says which code they are of; delete their folders.",
            stacklevel=3,
        )
    return [result_in(folder) for folder in folders if folder.name not in old]
