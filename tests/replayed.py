"""Replays of public implementations. `tests/reference/NAME.npz` holds what such code gave (repository and commit are in
it) for the inputs stored there and for weights drawn here, which are the same on every machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from msa_lib.data import Dataset, Split
from msa_lib.models import build_model
from msa_lib.train import TrainConfig

FOLDER = Path(__file__).with_name("reference")


def recorded(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def dataset_of(arrays: dict[str, np.ndarray]) -> Dataset:
    """The stored inputs, as every split."""
    fields = {name: torch.tensor(arrays[name]) for name in ("text", "audio", "vision", "lengths", "labels")}
    split = Split(**fields, ids=tuple(map(str, range(len(fields["labels"])))))
    return Dataset("replayed", split, split, split, scale="mosi")


def draw(network: nn.Module, scale: float = 0.4) -> list[str]:
    """Weights by the frozen generator of numpy, name after name; -> the names."""
    values, weights = np.random.RandomState(0), dict(sorted(network.named_parameters()))
    with torch.no_grad():
        for value in weights.values():
            value.copy_(torch.tensor(values.uniform(-scale, scale, tuple(value.shape))))
    return list(weights)


def prepared(name: str, arrays: dict[str, np.ndarray], switches: dict, scale: float = 0.4, **training):
    """A network with the drawn weights (checked by name), its procedure and all samples as one batch."""
    data = dataset_of(arrays)
    network = build_model(name, data, **switches)
    config = TrainConfig(**{"batch_size": len(data.train), "clip": 0.0, **training}, switches=switches)
    procedure = network.Procedure(network, data, config)  # it may draw weights of its own
    assert draw(network, scale) == list(arrays["names"])
    return network, procedure, data.train.batch(slice(None), trim=False)


PUBLIC = {  # feature sizes and steps (text, audio, vision) of the files that the field shares
    "mosi": ((768, 5, 20), (50, 375, 500)),
    "mosei": ((768, 74, 35), (50, 500, 500)),
    "sims": ((768, 33, 709), (39, 400, 55)),
}


def public_shape(name: str) -> Dataset:
    """One sample of zeros per split, in the shapes of a public file."""
    dims, steps = PUBLIC[name]
    features = [torch.zeros(1, t, d) for t, d in zip(steps, dims, strict=True)]
    split = Split(*features, lengths=torch.tensor([steps]), labels=torch.zeros(1), ids=("0",))
    return Dataset(name, split, split, split, scale="sims" if name == "sims" else "mosi")


def count(name: str, data: str, **switches) -> int:
    return sum(p.numel() for p in build_model(name, public_shape(data), **switches).parameters())
