"""What a training step costs: one row per model and data shape, as `msa bench` and notebooks/speed show them.

Nothing here is judged or tested against a clock: the numbers are those of one machine in one hour. Data are planted,
in the shapes and with the transcript lengths of the printed sets; a model has the settings of its recipe for the set
(`full`) or its smallest sensible ones (`small`).
"""

from __future__ import annotations

import json
import os
import platform
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from itertools import count as count_from
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from msa_lib import models
from msa_lib.data import Batch, load_dataset
from msa_lib.models import card
from msa_lib.train import TrainConfig, check_device
from msa_lib.train.loop import Training
from msa_lib.train.procedure import Procedure
from msa_lib.train.stacked import Stack, unstackable

KEPT = Path(__file__).parents[1] / "reference" / "speed.json"  # measured once, on a quiet core
SETS = ("mosi", "mosei", "sims", "simsv2")
SIZES = {"full": "the model's recipe for the set", "small": "the smallest sensible network"}
WARM, STEPS = 3, 20


def machine(device: str = "cpu", threads: int = 1) -> dict[str, str]:
    """What the numbers were measured on."""
    name = torch.cuda.get_device_name() if device == "cuda" else _processor()
    return {
        "device": f"{name}, {threads} of {os.cpu_count()} cores" if device == "cpu" else name,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load": f"{os.getloadavg()[0]:.1f} runnable processes" if hasattr(os, "getloadavg") else "",
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def kept(path: Path = KEPT) -> dict:
    """What was measured before, as `notebooks/speed` shows it: "machine", a dictionary; "rows" of `bench`, those
    "before" the training step was made faster, "throughput" and "scheduling" of grids, frames."""
    known = json.loads(path.read_text(encoding="utf-8"))
    return {"machine": known.pop("machine")} | {name: pd.DataFrame(lines) for name, lines in known.items()}


def matrix_peak(device: str = "cpu", size: int = 1024, tries: int = 8) -> float:
    """GFLOP/s of the best of several float32 products of two square matrices: what a step is held against."""
    x = torch.randn(size, size, device=device)
    best = float("inf")
    for _ in range(tries + 2):
        begin = _now(device)
        x @ x
        best = min(best, _now(device) - begin)
    return 2 * size**3 / best / 1e9


def bench(
    names: Sequence[str] | None = None,
    sets: Sequence[str] = ("mosi",),
    size: str = "full",
    device: str = "cpu",
    threads: int = 1,
    steps: int = STEPS,
    apart: bool = True,
    stack: int = 1,
) -> pd.DataFrame:
    """One row per model (all, or `names`) and data shape. Each is measured in a process of its own, so that its peak
    memory is its own; with `apart` false in this one, and then the peak on a CPU is not measured.

    With `stack` > 1 so many seeds train at once, and steps and samples are those of all; without `names` then of the
    models that can be stacked. Raises ValueError for a wrong name or size, RuntimeError if a model cannot be measured.
    """
    names = [name for name in models.MODELS if stack == 1 or not unstackable(name)] if names is None else list(names)
    for kind, asked, known in (("model", names, models.MODELS), ("shape", sets, SETS), ("size", [size], SIZES)):
        if wrong := [one for one in asked if one not in known]:
            raise ValueError(f"No {kind} {wrong[0]!r}: expected {', '.join(known)}.")
    if stack > 1 and (problems := list(filter(None, map(unstackable, names)))):
        raise ValueError(problems[0])
    check_device(device)
    return pd.DataFrame([_row(apart, (n, s, size, device, threads, steps, stack)) for s in sets for n in names])


def _row(apart: bool, asked: tuple) -> dict:
    if not apart:
        return measured(*asked)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_alone, asked).result()


def _alone(asked: tuple) -> dict:
    row = measured(*asked)
    if asked[3] == "cpu":  # kilobytes, on macOS bytes
        row["peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return row


def measured(name: str, shape: str, size: str, device: str, threads: int, steps: int, stack: int = 1) -> dict:
    """Trains `name` for a few batches and times the next `steps`, the optimiser and everything between included."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        trained = _trained(name, shape, size, device, steps, stack)
        flop = _counted(trained) / stack
        batches = _batches(trained, WARM + steps)
        for _ in range(WARM):
            trained.step(*next(batches))
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        samples, begin = 0, _now(device)
        for batch, *part in batches:
            trained.step(batch, *part)
            samples += batch.labels.numel()
        seconds, peak = _now(device) - begin, matrix_peak(device)
    finally:
        torch.set_num_threads(before)
    steps *= stack
    rate = flop * steps / seconds / 1e9
    return {
        "model": name,
        "shape": shape,
        **({"seeds": stack} if stack > 1 else {}),
        "batch": trained.config.batch_size,
        "parameters": sum(p.numel() for p in trained.network.parameters()),
        "steps/s": steps / seconds,
        "samples/s": samples / seconds,
        "GFLOP/step": flop / 1e9,
        "GFLOP/s": rate,
        "peak GFLOP/s": peak,
        "share of peak": rate / peak,
        "peak MB": torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else float("nan"),
    }


def _trained(name: str, shape: str, size: str, device: str, steps: int, stack: int = 1) -> Procedure | Stack:
    model, names = models.MODELS[name], {f.name for f in fields(TrainConfig)}
    chosen = card.settings(model.RECIPES[shape]) if size == "full" else dict(model.SMALL)
    switches = {key: value for key, value in chosen.items() if key not in names}
    config = TrainConfig(**{key: value for key, value in chosen.items() if key in names}, switches=switches)
    n = config.batch_size * max(steps, WARM)
    dataset = load_dataset(f"planted-{shape}?train={n}&valid=8&test=8").to(device)
    procedures = [Training(name, dataset, config, seed, device).procedure for seed in range(stack)]
    return procedures[0] if stack == 1 else Stack(procedures)


def _batches(trained: Procedure | Stack, count: int) -> Iterator[tuple]:
    """What `count` steps are taken with, epoch after epoch as the loop would take them: (batch, pass) or (batch,)."""
    yield from islice(_stacked(trained) if isinstance(trained, Stack) else _one_by_one(trained), count)


def _one_by_one(procedure: Procedure) -> Iterator[tuple[Batch, str]]:
    shuffle = torch.Generator().manual_seed(0)
    for epoch in count_from(1):
        for module in (procedure.network, *procedure.companions.values()):
            module.train()
        procedure.begin_epoch(epoch)
        for part, batches in procedure.passes(epoch, shuffle):
            procedure.drop_gradients()
            for batch in batches:
                yield batch, part


def _stacked(stack: Stack) -> Iterator[tuple[Batch]]:
    shuffles = [torch.Generator().manual_seed(seed) for seed in range(len(stack.each))]
    while True:
        yield from zip(stack.batches(shuffles))


def _counted(trained: Procedure | Stack) -> float:
    """Operations of a step's products and attentions, forward and backward, mean of three; what else there is, is not
    counted."""
    with FlopCounterMode(display=False) as counter:
        for taken in _batches(trained, 3):
            trained.step(*taken)
    return counter.get_total_flops() / 3


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def as_shown(rows: pd.DataFrame) -> pd.DataFrame:
    """Rounded for reading; what was not measured says so."""
    digits = {"steps/s": 1, "samples/s": 0, "GFLOP/step": 3, "GFLOP/s": 1, "peak GFLOP/s": 0, "peak MB": 0}
    shown = rows.copy()
    for name, n in digits.items():
        shown[name] = [f"{x:.{n}f}" if x == x else "not measured" for x in rows[name]]
    shown["share of peak"] = [f"{x:.1%}" for x in rows["share of peak"]]
    return shown
