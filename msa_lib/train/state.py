"""What a run leaves on the disk while it trains: the state after each epoch, so that a killed run can go on."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from msa_lib.train.procedure import Procedure


def trained_names(network: nn.Module) -> list[str]:
    """What training changes: parameters and buffers, except frozen parameters (a pretrained encoder is large)."""
    frozen = {name for name, p in network.named_parameters(remove_duplicate=False) if not p.requires_grad}
    return [name for name in network.state_dict() if name not in frozen]


def trained_weights(network: nn.Module, names: Sequence[str] | None = None) -> dict[str, Tensor]:
    """The values behind `trained_names`, or behind those of before a procedure froze a part for a stage."""
    values = network.state_dict()
    return {name: values[name] for name in (trained_names(network) if names is None else names)}


def load_weights(network: nn.Module, saved: Mapping[str, Tensor], names: Sequence[str] | None = None) -> None:
    """Puts back what `trained_weights` gave. Raises KeyError or RuntimeError if it is of another network."""
    for name, value in trained_weights(network, names).items():
        value.copy_(saved[name])


FORMAT = 4
DIGEST = 32  # bytes of the checksum in front of a state
PARTS = ("optimisers", "schedules", "companions")  # of a procedure: what has a state of its own


@dataclass
class State:
    """Everything the next epoch depends on, written by rename: a killed run finds either the old or the new state."""

    folder: Path | None
    names: list[str]  # `trained_names` of the network as it was built
    procedure: Procedure
    shuffle: torch.Generator
    best: dict
    history: list[dict]

    def __post_init__(self) -> None:
        self.network = self.procedure.network
        self.parts = {kind: dict(getattr(self.procedure, kind)) for kind in PARTS}

    def save(self) -> None:
        if self.folder is None:
            return
        write_history(self.folder, self.history)  # first: the state never runs ahead of it
        device = next(self.network.parameters()).device
        for kind, made in self.parts.items():
            if getattr(self.procedure, kind) != made:
                raise RuntimeError(
                    f"{type(self.procedure).__name__} changed its {kind} after the start: expected all of them to be "
                    f"made in __init__, for a killed run could not go on otherwise."
                )
        state = {
            "format": FORMAT,
            "weights": trained_weights(self.network, self.names),
            "frozen": [name for name, p in self.network.named_parameters() if not p.requires_grad],
            **{kind: {name: part.state_dict() for name, part in made.items()} for kind, made in self.parts.items()},
            "memory": self.procedure.memory,
            "shuffle": self.shuffle.get_state(),
            **random_state(device),
            "best": self.best,
            "history": json.dumps(self.history),
        }
        write_atomically(self.folder / "state.pt", packed(state))

    def restore(self) -> None:
        if self.folder is None or not (self.folder / "state.pt").exists():
            return
        saved = unpacked((self.folder / "state.pt").read_bytes())
        if saved is None or saved.get("format") != FORMAT:  # damaged, or of an older loop: start from the beginning
            return
        load_weights(self.network, saved["weights"], self.names)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name not in saved["frozen"])
        for kind, made in self.parts.items():
            for name, part in made.items():
                part.load_state_dict(saved[kind][name])
        device = next(self.network.parameters()).device
        self.procedure.memory.clear()
        self.procedure.memory.update({name: value.to(device) for name, value in saved["memory"].items()})
        self.shuffle.set_state(saved["shuffle"])
        set_random_state(saved, device)
        self.best.update(saved["best"])
        self.history[:] = json.loads(saved["history"])


def random_state(device: torch.device) -> dict[str, Tensor | None]:
    """Of PyTorch's generators: what dropout, noise and soft choices draw from."""
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return {"rng": torch.get_rng_state(), "cuda_rng": cuda}


def set_random_state(saved: Mapping[str, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(saved["rng"])
    if saved["cuda_rng"] is not None:
        torch.cuda.set_rng_state(saved["cuda_rng"], device)


def write_history(folder: Path, history: Sequence[Mapping]) -> None:
    """metrics.jsonl: one line per epoch."""
    lines = "".join(json.dumps(plain(record), allow_nan=False) + "\n" for record in history)
    write_atomically(folder / "metrics.jsonl", lines.encode())


def packed(state: dict) -> memoryview:
    """A state as bytes, its checksum in front: a changed bit would lead to another number, and nobody would know.

    Tensors of one kind are stored as one. A state has hundreds, and each alone takes longer than what it holds: to
    pickle, and to fetch from a GPU.
    """
    kinds: dict[tuple, list[Tensor]] = {}

    def put(value):
        if not isinstance(value, Tensor):
            return value
        kind = value.dtype, value.device
        kinds.setdefault(kind, []).append(value.detach().flatten())
        return list(kinds).index(kind), value.shape

    places = _leaves(put, state)
    buffer = io.BytesIO(bytes(DIGEST))
    buffer.seek(DIGEST)
    torch.save({"places": places, "tensors": [torch.cat(parts) for parts in kinds.values()]}, buffer)
    content = buffer.getbuffer()
    content[:DIGEST] = hashlib.sha256(content[DIGEST:]).digest()
    return content


def unpacked(content: bytes) -> dict | None:
    """What `packed` made into bytes; None if they are not that any more."""
    view = memoryview(content)
    if hashlib.sha256(view[DIGEST:]).digest() != view[:DIGEST]:
        return None
    saved = torch.load(io.BytesIO(view[DIGEST:]), map_location="cpu", weights_only=True)
    if "places" not in saved:  # of an older loop
        return None
    tensors, taken = saved["tensors"], [0] * len(saved["tensors"])

    def take(value):
        if not (isinstance(value, tuple) and isinstance(value[-1], torch.Size)):
            return value
        kind, shape = value
        start, taken[kind] = taken[kind], taken[kind] + shape.numel()
        return tensors[kind][start : taken[kind]].view(shape).clone()

    return _leaves(take, saved["places"])


def _leaves(change: Callable, value):
    """A tree of dictionaries and lists, its leaves changed."""
    if type(value) is dict:
        return {key: _leaves(change, inner) for key, inner in value.items()}
    return [_leaves(change, inner) for inner in value] if type(value) is list else change(value)


def plain(value):
    """What strict JSON can hold: NaN and infinity become null, so that missing stays missing."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write beside the target, flush to the disk, rename: a reader sees the old file or the whole new one.

    What is there and no plain file (a pipe, a link such as /dev/stdout) is written to as it is. Errors name the target.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        path.write_bytes(content)
        return
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
