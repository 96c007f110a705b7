"""What a run leaves on the disk while it trains: the state after each epoch, so that a killed run can go on."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn


def trained_weights(network: nn.Module) -> dict[str, Tensor]:
    """What training changes: parameters and buffers, except frozen parameters (a pretrained encoder is large)."""
    frozen = {name for name, p in network.named_parameters(remove_duplicate=False) if not p.requires_grad}
    return {name: value for name, value in network.state_dict().items() if name not in frozen}


def load_weights(network: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Puts back what `trained_weights` gave. Raises KeyError or RuntimeError if it is of another network."""
    for name, value in trained_weights(network).items():
        value.copy_(saved[name])


@dataclass
class State:
    """Everything the next epoch depends on, written by rename: a killed run finds either the old or the new state."""

    folder: Path | None
    network: nn.Module
    optimiser: torch.optim.Optimizer
    shuffle: torch.Generator
    best: dict
    history: list[dict]

    def save(self) -> None:
        if self.folder is None:
            return
        lines = "".join(json.dumps(plain(record), allow_nan=False) + "\n" for record in self.history)
        write_atomically(self.folder / "metrics.jsonl", lines.encode())  # first: the state never runs ahead of it
        device = next(self.network.parameters()).device
        state = {
            "weights": trained_weights(self.network),
            "optimiser": self.optimiser.state_dict(),
            "shuffle": self.shuffle.get_state(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
            "best": self.best,
            "history": json.dumps(self.history),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(self.folder / "state.pt", buffer.getbuffer())

    def restore(self) -> None:
        if self.folder is None or not (self.folder / "state.pt").exists():
            return
        try:
            saved = torch.load(self.folder / "state.pt", map_location="cpu", weights_only=True)
        except Exception:  # damaged on the disk, and torch has no one error for that: start from the beginning
            return
        load_weights(self.network, saved["weights"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.shuffle.set_state(saved["shuffle"])
        torch.set_rng_state(saved["rng"])
        if saved["cuda_rng"] is not None:
            torch.cuda.set_rng_state(saved["cuda_rng"], next(self.network.parameters()).device)
        self.best.update(saved["best"])
        self.history[:] = json.loads(saved["history"])


def plain(value):
    """What strict JSON can hold: NaN and infinity become null, so that missing stays missing."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write beside the target, flush to the disk, rename: a reader sees the old file or the whole new one."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as problem:  # a full disk names no file of its own accord
        partial.unlink(missing_ok=True)
        raise type(problem)(problem.errno, problem.strerror, str(path)) from None
