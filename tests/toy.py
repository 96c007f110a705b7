"""Small data and models for the tests of the training loop and the run store."""

from __future__ import annotations

import builtins
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from msa_lib.data import Batch, Dataset, Split
from msa_lib.models.layers import Output, masked_mean

DATA = "planted?train=64&valid=32&test=32"
SMALL = {"d": 16, "heads": 2, "n_layers": 1}  # AMSGFN's switches for a network that trains in moments
SHORT = {"epochs": 3, "batch_size": 16, "lr": 1e-3}


@dataclass(frozen=True)
class ToyConfig:
    width: int = 4
    output: Literal["learned", "constant"] = "learned"
    fault: Literal["none", "nan", "inf", "RuntimeError", "ValueError", "KeyboardInterrupt"] = "none"
    at: int = 3  # training step of the fault


class Toy(nn.Module):
    """Two layers on the mean of text, with a fault on demand in the loss term `extra`."""

    Config, VARIANTS, RECORD = ToyConfig, {"full": {}}, ("pooled",)

    def __init__(self, dataset: Dataset, c: ToyConfig) -> None:
        super().__init__()
        if c.width > 100:
            raise ValueError(f"width={c.width}: expected at most 100.")
        self.c, self.steps = c, 0
        self.layers = nn.Sequential(nn.Linear(dataset.feature_dims[0], c.width), nn.Dropout(0.2), nn.Linear(c.width, 1))

    def forward(self, batch: Batch) -> Output:
        pooled = masked_mean(batch.text, batch.masks[0])
        y = self.layers(pooled)[:, 0]
        return Output(y * 0 + 0.5 if self.c.output == "constant" else y, {"pooled": pooled})

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        task = (output.prediction - batch.labels).square().mean()
        extra = output.prediction.square().mean()
        if self.training:
            self.steps += 1
            if self.steps == self.c.at and self.c.fault != "none":
                if self.c.fault[0].isupper():
                    raise getattr(builtins, self.c.fault)("asked for")
                extra = extra * float(self.c.fault)
        return {"task": task, "extra": extra, "total": task + 0.01 * extra}


@dataclass(frozen=True)
class ScriptedConfig:
    valid_noise: tuple[float, ...]  # per epoch; correlation falls with it
    valid_shift: tuple[float, ...]
    test_shift: tuple[float, ...]
    valid_loss: tuple[float, ...]
    steps: int  # of an epoch


class Scripted(nn.Module):
    """Validation and test scores of each epoch as told: for testing which epoch is kept and when training stops.

    The epoch is counted in a buffer, so that restoring an epoch's weights restores its predictions. The data tell the
    split in `truth["split"]` (0, 1, 2) and alternate the sign of `truth["noise"]`.
    """

    Config, VARIANTS, RECORD = ScriptedConfig, {"full": {}}, ()

    def __init__(self, dataset: Dataset, c: ScriptedConfig) -> None:
        super().__init__()
        self.c, self.weight = c, nn.Parameter(torch.zeros(1))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def forward(self, batch: Batch) -> Output:
        self.seen += int(self.training)
        epoch = max(int(self.seen) - 1, 0) // self.c.steps
        split = int(batch.truth["split"][0])
        noise = self.c.valid_noise[epoch] if split == 1 else 0.0
        shift = (0.0, self.c.valid_shift[epoch], self.c.test_shift[epoch])[split]
        return Output(batch.labels + noise * batch.truth["noise"] + shift + 0 * self.weight, {})

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        epoch = max(int(self.seen) - 1, 0) // self.c.steps
        return {"total": self.weight.sum() * 0 + (1.0 if self.training else self.c.valid_loss[epoch])}


def split(n: int, part: int = 0, seed: int = 0, steps: tuple[int, int, int] = (6, 5, 4), **more) -> Split:
    """`n` random samples of 3, 2 and 4 features; padding holds garbage, on purpose."""
    g = torch.Generator().manual_seed(100 * seed + part)
    lengths = torch.stack([torch.randint(1, t + 1, (n,), generator=g) for t in steps], 1)
    features = [torch.randn(n, t, d, generator=g) for t, d in zip(steps, (3, 2, 4), strict=True)]
    fields = {
        "lengths": lengths,
        "labels": torch.linspace(-2, 2, n) if n > 1 else torch.ones(n),
        "ids": tuple(f"{part}-{i}" for i in range(n)),
        "unimodal_labels": torch.randn(n, 3, generator=g),
        "tokens": torch.stack([torch.randint(5, 50, (n, steps[0]), generator=g)] * 3, 1),
        "truth": {"split": torch.full((n,), part), "noise": 1.0 - 2.0 * (torch.arange(n) % 2)},
    }
    return Split(*features, **(fields | more))


def dataset(sizes: tuple[int, int, int] = (20, 9, 7), seed: int = 0, **more) -> Dataset:
    parts = [split(n, part, seed) for part, n in enumerate(sizes)]
    return Dataset("hand-made", *parts, **({"scale": "mosi"} | more))
