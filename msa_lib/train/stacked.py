"""Seeds of one configuration, trained at once: their networks are one batched model (torch.func).

Each seed keeps what a run of its own has: initialisation, order of the samples, dropout, clipping, the epoch it keeps
and when it stops. What differs are the last bits (another order of sums, and batches as wide as the longest sample of
all seeds) and which random numbers the dropout draws; both depend on all seeds of the stack, so the setting `stack`
names them. A seed that has stopped is computed along, unused, until all have.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state
from torch.nn.attention import SDPBackend, sdpa_kernel

from msa_lib import models
from msa_lib.data import Batch, Dataset
from msa_lib.switches import checked
from msa_lib.train import arithmetic
from msa_lib.train.loop import (
    RunResult,
    TrainConfig,
    Training,
    TrainingFailed,
    losses_of,
    mean_terms,
    requested,
)
from msa_lib.train.procedure import Procedure
from msa_lib.train.state import packed, random_state, set_random_state, unpacked, write_atomically

FORMAT = "stack 1"  # of the state
FREE = {"groups", "optimiser", "selects"}  # what a recipe may change of the default procedure and still be stacked
ELEMENTWISE = (torch.optim.Adam, torch.optim.AdamW)  # no seed sees another through them
ALONE = "train its seeds one by one, without stack"


def fit_stacked(
    model_name: str,
    dataset: Dataset,
    config: TrainConfig | Mapping | None,
    seeds: Sequence[int],
    device: str = "cpu",
    folder: Path | None = None,
    report: Callable[[dict], None] | None = None,
) -> list[RunResult]:
    """`fit` for all `seeds` at once; -> a result per seed. A seed that fails does so alone.

    With `folder` the state of the whole stack is saved there after each epoch and taken up again if it is found there.
    `report` is called with each record, which then also names its `seed`. Raises ValueError for a wrong name or value
    and for a model that cannot be stacked.
    """
    config = requested(model_name, config, seeds, device)
    if config.stack not in ((), tuple(seeds)):
        raise ValueError(f"The seeds {tuple(seeds)} are not those of stack={config.stack}; expected the same.")
    if problem := unstackable(model_name, config.switches):
        raise ValueError(problem)
    dataset = dataset.to(device)
    with arithmetic.computing(config.threads, config.precision):
        runs = [Training(model_name, dataset, config, seed, device) for seed in seeds]
        return _train(runs, Stack([run.procedure for run in runs]), folder, report)


def unstackable(model_name: str, switches: Mapping | None = None) -> str:
    """Why seeds of a model with these switches cannot be stacked: what its procedure changes of the default, or a text
    encoder; empty if they can."""
    recipe = getattr(models.MODELS[model_name], "Procedure", Procedure)
    own = {name for part in recipe.__mro__ if part not in Procedure.__mro__ for name in vars(part)}
    own = {name for name in own if name == "__init__" or not name.startswith("__")} - FREE
    if own:
        names = ", ".join(sorted(own))
        return f"{model_name} has a training procedure of its own ({names}) and cannot be stacked: {ALONE}."
    config = checked(models.MODELS[model_name].Config, dict(switches or {}), f"{model_name} switch")
    if getattr(config, "bert", "precomputed") != "precomputed":
        return f"{model_name} with a text encoder inside cannot be stacked: {ALONE}."
    return ""


class Objective(nn.Module):
    """A network with its loss as the forward, so that both can be called with other weights."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self.network.loss(batch, self.network(batch))


class Stack:
    """Networks of S seeds as one: every weight and buffer is [S,...], and one optimiser steps them all."""

    def __init__(self, procedures: Sequence[Procedure]) -> None:
        self.config, self.dataset, self.network = procedures[0].config, procedures[0].dataset, procedures[0].network
        self.device = self.dataset.train.device
        self.each = [Objective(procedure.network).train() for procedure in procedures]
        if type(procedures[0].optimisers["main"]) not in ELEMENTWISE:
            name = type(procedures[0].network).__name__
            raise ValueError(f"The optimiser of {name} may mix the seeds of a stack: {ALONE}.")
        weights, buffers = stack_module_state(self.each)
        self.values = {part: value.detach() for part, value in (weights | buffers).items()}
        self.trained = {part: self.values[part] for part in self._reached()}
        self.rest = {part: value for part, value in self.values.items() if part not in self.trained}
        self.optimiser = procedures[0].optimiser(list(self._groups(procedures[0])))
        self.one = copy.deepcopy(self.each[0])  # the form; its own values are never used
        self.gradient = torch.vmap(grad(self._loss, has_aux=True), randomness="different")

    def _reached(self) -> list[str]:
        """The weights that a gradient reaches: torch.func gives the others zeros, and weight decay would move them."""
        objective = copy.deepcopy(self.each[0])
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            objective(next(self.dataset.train.batches(self.config.batch_size)))["total"].backward()
        return [name for name, parameter in objective.named_parameters() if parameter.grad is not None]

    def _groups(self, procedure: Procedure) -> Iterator[dict]:
        """The procedure's, of the stacked weights; those that no gradient reaches are never stepped, as in the loop."""
        names = {id(parameter): part for part, parameter in self.each[0].named_parameters()}
        for group in procedure.groups():
            parts = [names[id(parameter)] for parameter in group["params"]]
            if chosen := [self.trained[part] for part in parts if part in self.trained]:
                yield {**group, "params": chosen}

    def _loss(self, trained: dict, rest: dict, given: dict) -> tuple[Tensor, dict[str, Tensor]]:
        terms = functional_call(self.one, (trained, rest), (Batch(**given),))
        return terms["total"], terms

    def batches(self, shuffles: Sequence[torch.Generator]) -> Iterator[Batch]:
        """One pass, [S,B,...] each."""
        c = self.config
        yield from self.dataset.train.stacked_batches(c.batch_size, shuffles, c.drop_last, c.bucket)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Train every seed on its batch; -> the loss terms, [S] each."""
        given = {name: value for name, value in batch._asdict().items() if value is not None}
        with sdpa_kernel(SDPBackend.MATH):  # no other attention can be batched on a CPU
            grads, terms = self.gradient(self.trained, self.rest, given)
        share = self._clipped(grads)
        for name, value in self.trained.items():
            value.grad = (grads[name] * share.view(-1, *[1] * (value.ndim - 1))).contiguous()
        self.optimiser.step()
        return terms

    def _clipped(self, grads: dict[str, Tensor]) -> Tensor:
        """What clipping leaves of each seed's gradient, [S], as `nn.utils.clip_grad_norm_` has it."""
        norms = torch.stack([g.reshape(len(g), -1).norm(dim=1) for g in grads.values()]).norm(dim=0)
        return (self.config.clip / (norms + 1e-6)).clamp(max=1.0) if self.config.clip else torch.ones_like(norms)

    @torch.no_grad()
    def hand_out(self) -> None:
        """The values to the networks of the seeds, which then validate as ever."""
        for seed, objective in enumerate(self.each):
            for name, value in (*objective.named_parameters(), *objective.named_buffers()):
                value.copy_(self.values[name][seed])


def _train(
    runs: Sequence[Training], stack: Stack, folder: Path | None, report: Callable[[dict], None] | None
) -> list[RunResult]:
    """The loop, for all seeds at once."""
    _restore(folder, stack, runs)
    try:
        while going := [run for run in runs if not run.over]:
            epoch = len(going[0].result.history) + 1
            with arithmetic.of_a_step(stack.config.precision, stack.device):
                values, names = losses_of(stack.step(batch) for batch in stack.batches([run.shuffle for run in runs]))
            stack.hand_out()
            for run, losses in zip(runs, values.unbind(1), strict=True):  # [steps,terms]
                if run in going:
                    with _failing_alone(run):
                        run.end_epoch(epoch, mean_terms(losses, names, f"epoch {epoch}"))
            _save(folder, stack, runs)
            for run in going:
                if report and not run.result.reason:
                    report({"seed": run.result.seed, **run.result.history[-1]})
        for run in runs:
            if not run.result.reason:
                with _failing_alone(run):
                    run.conclude()
    except ValueError as problem:  # of the model, not of the request
        raise RuntimeError(f"ValueError: {problem}") from problem
    return [run.result for run in runs]


@contextmanager
def _failing_alone(run: Training) -> Iterator[None]:
    try:
        yield
    except TrainingFailed as problem:
        run.result.reason = str(problem)


def _save(folder: Path | None, stack: Stack, runs: Sequence[Training]) -> None:
    """One state for the whole stack: states of single seeds could be of different epochs when a process is killed."""
    if folder is None:
        return
    state = {
        "format": FORMAT,
        "values": stack.values,
        "optimiser": stack.optimiser.state_dict(),
        "shuffles": [run.shuffle.get_state() for run in runs],
        "best": [run.best for run in runs],
        "histories": json.dumps([run.result.history for run in runs]),
        "reasons": [run.result.reason for run in runs],
        **random_state(stack.device),
    }
    write_atomically(Path(folder) / "state.pt", packed(state))


def _restore(folder: Path | None, stack: Stack, runs: Sequence[Training]) -> None:
    if folder is None or not (Path(folder) / "state.pt").exists():
        return
    saved = unpacked((Path(folder) / "state.pt").read_bytes())
    if saved is None or saved.get("format") != FORMAT:  # damaged: start from the beginning
        return
    for name, value in stack.values.items():
        value.copy_(saved["values"][name])
    stack.optimiser.load_state_dict(saved["optimiser"])
    parts = (saved["shuffles"], saved["best"], json.loads(saved["histories"]), saved["reasons"])
    for run, shuffle, best, history, reason in zip(runs, *parts, strict=True):
        run.shuffle.set_state(shuffle)
        run.best.update(best)
        run.result.history[:] = history
        run.result.reason = reason
    set_random_state(saved, stack.device)
