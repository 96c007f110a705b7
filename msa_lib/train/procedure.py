"""How a network is trained: what the loop asks about one. A model with a recipe of its own names it (`Procedure`).

The default is one AdamW, one pass per epoch and one step per batch. A model overrides what its recipe does otherwise.
Whatever a later epoch depends on lives in the five dictionaries made in `__init__`: the state of a killed run holds
them, and the weights of a finished one do not. Nothing in a step may wait for the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from msa_lib.data import Batch, Dataset
from msa_lib.models.parts.layers import Output

if TYPE_CHECKING:
    from msa_lib.train import TrainConfig


class Procedure:
    """How `network` is trained on `dataset`. Made once per run, before the first epoch."""

    every = (
        1  # batches whose gradients are summed for one step of the optimiser; a rest at the end of a pass is dropped
    )
    selects = "total"  # the loss term that selection="val_loss" goes by
    first_epoch = 1  # the first epoch that may be kept; patience counts from there

    def __init__(self, network: nn.Module, dataset: Dataset, config: TrainConfig) -> None:
        self.network, self.dataset, self.config = network, dataset, config
        if config.optimiser != "adamw" and type(self).optimiser is not Procedure.optimiser:
            raise ValueError(f"optimiser={config.optimiser!r}: {type(network).__name__} has an optimiser of its own.")
        self.parameters = list(network.parameters())  # to walk through all modules takes longer than to clip
        self.optimisers: dict[str, torch.optim.Optimizer] = {"main": self.optimiser(self.groups())}
        self.schedules: dict[str, torch.optim.lr_scheduler.LRScheduler] = {}  # stepped by whoever makes them
        self.companions: dict[str, nn.Module] = {}  # trained along, no part of the network that predicts
        self.memory: dict[str, Tensor] = {}  # anything else; read by name, for a restored run has other tensors
        self.summed = 0  # batches since the last step of an optimiser

    def groups(self) -> list[dict]:
        """A pretrained text encoder has its own rate; biases, norms and other vectors do not decay."""
        groups: dict[tuple[bool, bool], list] = {}
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                vector = parameter.ndim < 2 or ".bias" in name  # the biases of several modalities are one matrix
                groups.setdefault(("text_encoder." in name, vector), []).append(parameter)
        return [
            {
                "params": parameters,
                "lr": self.config.lr_encoder if encoder else self.config.lr,
                "weight_decay": 0.0 if vector else self.config.weight_decay,
            }
            for (encoder, vector), parameters in groups.items()
        ]

    def optimiser(self, groups: list[dict]) -> torch.optim.Optimizer:
        kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[self.config.optimiser]
        return kind(groups, fused=True)

    def begin_epoch(self, epoch: int) -> None:
        """Before an epoch, counted from 1; the network is in training mode. Parts may be frozen or put in eval mode."""

    def passes(self, epoch: int, shuffle: torch.Generator) -> Iterator[tuple[str, Iterable[Batch]]]:
        """Name and batches of each pass over the training set. Terms of "main" are recorded under their own names."""
        c = self.config
        yield "main", self.dataset.train.batches(c.batch_size, shuffle, c.drop_last, c.bucket)

    def step(self, batch: Batch, name: str) -> dict[str, Tensor]:
        """Train on one batch of the pass `name`; -> the loss terms to record, the same ones throughout a pass."""
        output = self.network(batch)
        terms = self.loss(batch, output)
        self.descend(terms["total"])
        with torch.no_grad():
            self.after_step(batch, output)
        return terms

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        """The training loss; one that needs memory overrides this. Validation always goes by the network's own."""
        return self.network.loss(batch, output)

    def descend(self, loss: Tensor, optimiser: str = "main") -> None:
        """Backward, clip and, at every `every`-th batch, one step of an optimiser. Earlier gradients are dropped."""
        if self.summed == 0:
            self.drop_gradients()
        loss.backward()
        self.clip(optimiser)
        self.summed = (self.summed + 1) % self.every
        if self.summed == 0:
            self.optimisers[optimiser].step()

    def clip(self, optimiser: str) -> None:
        """After each backward."""
        if self.config.clip:
            nn.utils.clip_grad_norm_(self.parameters, self.config.clip)

    def drop_gradients(self) -> None:
        self.summed = 0
        for parameter in self.parameters:
            parameter.grad = None
        for module in self.companions.values():
            module.zero_grad(set_to_none=True)

    def after_step(self, batch: Batch, output: Output) -> None:
        """Schedules by step; memory by `batch.index`."""

    def end_epoch(self, record: Mapping, score: float) -> None:
        """After validation: schedules by epoch. `score` is what the selection rule minimises."""

    @property
    def steps(self) -> int:
        """Steps of the optimiser in one default pass."""
        n, size = len(self.dataset.train), self.config.batch_size
        batches = n // size if self.config.drop_last and n >= size else -(-n // size)
        return batches // self.every


class Adam(Procedure):
    """The default with Adam, whose weight decay is in the gradient (L2)."""

    def optimiser(self, groups: list[dict]) -> torch.optim.Optimizer:
        return torch.optim.Adam(groups, fused=True)


class SummedAdam(Adam):
    """Adam down the sum of the gradients of `accumulation` batches, which the network's Config names; each is clipped
    by value after its backward."""

    def __init__(self, network: nn.Module, dataset: Dataset, config: TrainConfig) -> None:
        super().__init__(network, dataset, config)
        self.every = network.c.accumulation

    def clip(self, optimiser: str) -> None:
        if self.config.clip:
            nn.utils.clip_grad_value_(self.parameters, self.config.clip)
