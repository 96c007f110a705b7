"""The one training loop. Every model goes through `fit`; what differs between models is their `loss` and, where a
recipe needs more than the default, their `Procedure` (procedure.py).

Nothing in a step waits for the device: losses stay there until the epoch ends, batches are indices into resident data.
The state after each epoch is saved, so that a run killed at any moment continues to the same result, to the bit on CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from msa_lib import models  # not its names: a model file imports the procedure from here
from msa_lib.data import Batch, Dataset, Split
from msa_lib.metrics import evaluate, nonzero, swapped_f1
from msa_lib.switches import checked
from msa_lib.train import arithmetic
from msa_lib.train.arithmetic import Precision
from msa_lib.train.procedure import Procedure
from msa_lib.train.state import State, load_weights, trained_names, trained_weights

VERSION = 2  # of the loop and of the defaults below; raised when either changes what a run gives
Selection = Literal["val_mae", "val_loss", "val_corr", "last", "test_oracle"]


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained. AMSGFN states none of these values; what a study takes from a paper it passes here."""

    batch_size: int = 64
    lr: float = 1e-4
    lr_encoder: float = 2e-5  # for a pretrained text encoder that is trained along
    weight_decay: float = 1e-3  # not on biases and norms
    optimiser: Literal["adamw", "adam"] = "adamw"  # adam: the weight decay is an L2 term of the gradient
    clip: float = 1.0  # gradient norm; 0 turns it off
    epochs: int = 100
    patience: int = 10  # epochs without improvement on the selection rule
    selection: Selection = (
        "val_mae"  # which epoch's weights are kept; val_loss: by the term that the procedure names, the
    )
    # total unless it says otherwise; test_oracle only measures what cheating is worth
    drop_last: bool = True  # contrastive terms depend on the batch size
    bucket: int = 1  # > 1: batches of like length, sorted within that many shuffled batches; less padding
    stack: tuple[int, ...] = ()  # seeds that train at once as one batched model (stacked.py): msa run --stack N
    precision: Precision = "float32"  # of the products in a training step (arithmetic.py)
    compiled: bool = False  # the network by torch.compile: for a GPU; on a CPU slower, and a minute or two to begin
    threads: int = 1  # CPU threads: the order of sums, and so the last bits, depend on it
    switches: Mapping = field(default_factory=dict)  # of the model

    def __post_init__(self) -> None:
        numbers = ("lr", "lr_encoder", "weight_decay", "clip", "batch_size", "epochs", "patience", "bucket", "threads")
        for name in numbers:
            value, least = getattr(self, name), int(isinstance(getattr(TrainConfig, name), int))
            if not least <= value < float("inf"):
                raise ValueError(f"training setting {name}={value!r}: expected a number of at least {least}.")
        if len(set(self.stack)) < len(self.stack):
            raise ValueError(f"training setting stack={self.stack!r}: expected every seed once.")
        if self.stack and self.compiled:
            raise ValueError("compiled=True and stack do not go together; expected one of them.")


@dataclass
class RunResult:
    """One trained seed. Metrics are fractions, as `metrics.evaluate` gives them, per split; empty if it failed."""

    model: str
    seed: int
    status: str  # "done" or "failed"
    reason: str = ""
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    best_epoch: int | None = None  # counted from 1
    epochs: int = 0
    n_parameters: int = 0
    history: list[dict] = field(default_factory=list)  # one entry per epoch
    outputs: dict[str, np.ndarray] = field(default_factory=dict)  # test set: labels, predictions, recorded extras
    network: nn.Module | None = field(default=None, repr=False)


class TrainingFailed(RuntimeError):
    """Training cannot go on; the message says at which step and in which term."""


def fit(
    model_name: str,
    dataset: Dataset,
    config: TrainConfig | Mapping | None = None,
    seeds: Sequence[int] = (1111, 1112, 1113, 1114, 1115),
    device: str = "cpu",
    folder: Path | None = None,
    report: Callable[[dict], None] | None = None,
) -> list[RunResult]:
    """Train `model_name` on `dataset` once per seed and evaluate the selected epoch on validation and test.

    With `folder` (one seed, or one stack) the state is saved there after each epoch and taken up again if it is found.
    `report` is called with each epoch's record. A run whose numbers fail is returned with its reason, not raised.
    Raises ValueError for a wrong name or value; an error inside a model comes as RuntimeError.
    """
    config = requested(model_name, config, seeds, device)
    if config.stack:
        from msa_lib.train.stacked import fit_stacked  # which trains by the parts of this loop

        if others := [seed for seed in seeds if seed not in config.stack]:
            raise ValueError(f"Seed {others[0]} is none of stack={config.stack}, the seeds that train at once.")
        trained = fit_stacked(model_name, dataset, config, config.stack, device, folder, report)
        return [trained[config.stack.index(seed)] for seed in seeds]
    if folder is not None and len(seeds) != 1:
        raise ValueError(f"A folder holds the state of one seed; {len(seeds)} were given.")
    dataset = dataset.to(device)
    with arithmetic.computing(config.threads, config.precision):
        return [_fit_seed(model_name, dataset, config, seed, device, folder, report) for seed in seeds]


def requested(model_name: str, config, seeds: Sequence[int], device: str) -> TrainConfig:
    """The settings, checked with the rest of a request. Raises ValueError for a wrong name or value."""
    config = vars(config) if isinstance(config, TrainConfig) else config or {}
    config = checked(TrainConfig, dict(config), "training setting")
    if model_name not in models.MODELS:
        raise ValueError(f"No model {model_name!r}: expected one of {', '.join(models.MODELS)}.")
    check_device(device)
    arithmetic.check(config.precision, device)
    if twice := [seed for seed in dict.fromkeys(seeds) if list(seeds).count(seed) > 1]:
        raise ValueError(f"seeds hold {twice[0]} more than once; expected every seed once.")
    return config


def check_device(device: str) -> None:
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"The device {device!r} was asked for, and PyTorch finds no CUDA device here.")


class Training:
    """One seed on its way: its network and procedure, what each epoch gave, and the best weights so far."""

    def __init__(self, model_name: str, dataset: Dataset, config: TrainConfig, seed: int, device: str) -> None:
        torch.manual_seed(seed)
        self.network = models.build_model(model_name, dataset, **config.switches).to(device)
        if config.compiled:
            self.network.compile(fullgraph=True, dynamic=True)  # one graph for batches of all widths
        size = sum(p.numel() for p in self.network.parameters())
        self.result = RunResult(model_name, seed, "failed", n_parameters=size)
        self.names = trained_names(self.network)  # before a procedure freezes some for a while
        self.procedure = getattr(self.network, "Procedure", Procedure)(self.network, dataset, config)
        if config.epochs < self.procedure.first_epoch:
            first = self.procedure.first_epoch
            raise ValueError(f"epochs={config.epochs}: {model_name} keeps no epoch before {first}.")
        self.shuffle = torch.Generator().manual_seed(seed)
        self.best = {"score": float("inf"), "epoch": 0, "weights": None}

    @property
    def over(self) -> bool:
        """Failed, out of patience, or at its last epoch."""
        done = len(self.result.history)
        return bool(self.result.reason) or _finished(done, self.best["epoch"], self.procedure)

    def end_epoch(self, epoch: int, losses: dict[str, float]) -> dict:
        """Validates, and keeps the weights if they are the best so far; -> the record of the epoch."""
        score, valid = _score(self.procedure, epoch)
        record = {"epoch": epoch, "loss": losses, "valid": valid}
        if epoch >= self.procedure.first_epoch and score < self.best["score"]:  # NaN is never an improvement
            copy = {name: value.clone() for name, value in trained_weights(self.network, self.names).items()}
            self.best |= {"score": score, "epoch": epoch, "weights": copy}
        self.result.history.append(record)
        self.procedure.end_epoch(record, score)
        return record

    def conclude(self) -> None:
        """Evaluates the epoch that is kept on validation and test."""
        network, result, procedure = self.network, self.result, self.procedure
        dataset, config = procedure.dataset, procedure.config
        if self.best["weights"] is None:
            raise TrainingFailed(f"{config.selection} was not a finite number in any of {len(result.history)} epochs.")
        load_weights(network, self.best["weights"], self.names)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in self.names)
        metrics = {}
        for name in ("valid", "test"):
            outputs = predict(network, dataset.splits[name], config.batch_size)
            if not np.isfinite(outputs["predictions"]).all():
                raise TrainingFailed(f"The network of epoch {self.best['epoch']} predicts NaN or infinity on {name}.")
            metrics[name] = scores(outputs, dataset.scale)
        result.status, result.metrics, result.outputs, result.network = "done", metrics, outputs, network
        result.best_epoch, result.epochs = self.best["epoch"], len(result.history)


def _fit_seed(model_name, dataset, config, seed, device, folder, report) -> RunResult:
    one = Training(model_name, dataset, config, seed, device)
    state = State(folder and Path(folder), one.names, one.procedure, one.shuffle, one.best, one.result.history)
    state.restore()
    try:
        while not one.over:
            epoch = len(one.result.history) + 1
            record = one.end_epoch(epoch, _train_epoch(one.procedure, one.shuffle, epoch))
            state.save()
            if report:
                report(record)
        one.conclude()
    except TrainingFailed as problem:
        one.result.reason = str(problem)
    except ValueError as problem:  # of the model, not of the request: that was checked when the network was built
        raise RuntimeError(f"ValueError: {problem}") from problem
    return one.result


def _finished(done: int, best_epoch: int, procedure: Procedure) -> bool:
    config, first = procedure.config, procedure.first_epoch
    patience = config.epochs if config.selection == "last" else config.patience
    return done >= config.epochs or (done >= first and done - max(best_epoch, first - 1) >= patience)


def _train_epoch(procedure: Procedure, shuffle: torch.Generator, epoch: int) -> dict[str, float]:
    """All passes of an epoch; -> mean of every loss term. Raises TrainingFailed at the first that is not finite."""
    for module in (procedure.network, *procedure.companions.values()):
        module.train()
    procedure.begin_epoch(epoch)
    loss = {}
    for name, batches in procedure.passes(epoch, shuffle):
        procedure.drop_gradients()
        means = _train_pass(procedure, name, batches, epoch)
        loss |= {term if name == "main" else f"{name}.{term}": mean for term, mean in means.items()}
    return loss


def _train_pass(procedure: Procedure, name: str, batches: Iterable[Batch], epoch: int) -> dict[str, float]:
    with arithmetic.of_a_step(procedure.config.precision, procedure.dataset.train.device):
        values, names = losses_of((procedure.step(batch, name) for batch in batches), name)
    return mean_terms(values, names, f"epoch {epoch}" if name == "main" else f"pass {name!r} of epoch {epoch}")


def losses_of(steps: Iterable[Mapping[str, Tensor]], name: str = "main") -> tuple[Tensor, list[str]]:
    """Takes all steps of the pass `name`; -> the terms of each on the host [steps,...,terms], and their names."""
    taken, names = [], None
    for terms in steps:
        names = names or list(terms)
        if list(terms) != names:
            raise ValueError(f"The loss terms of pass {name!r} were {names} and then {list(terms)}: expected the same.")
        taken.append(torch.stack([value.detach() for value in terms.values()], -1))
    return torch.stack(taken).cpu(), names  # the only wait of the pass


def mean_terms(values: Tensor, names: Sequence[str], where: str) -> dict[str, float]:
    """Of values [steps,terms]. Raises TrainingFailed at the first that is not finite."""
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        step, term = bad[0].tolist()
        raise TrainingFailed(f"Loss term {names[term]!r} was {values[step, term]} at step {step + 1} of {where}.")
    return dict(zip(names, values.double().mean(0).tolist(), strict=True))


def _score(procedure: Procedure, epoch: int) -> tuple[float, dict[str, float]]:
    """The value to minimise under the selection rule, and the validation metrics."""
    network, dataset, config = procedure.network, procedure.dataset, procedure.config
    valid = evaluate_split(network, dataset.valid, dataset.scale, config.batch_size)
    if config.selection == "val_loss":
        return mean_loss(network, dataset.valid, config.batch_size, procedure.selects), valid
    if config.selection == "test_oracle":
        return evaluate_split(network, dataset.test, dataset.scale, config.batch_size)["mae"], valid
    if config.selection == "last":
        return -float(epoch), valid  # every epoch wins
    return (-valid["corr"] if config.selection == "val_corr" else valid["mae"]), valid


@torch.inference_mode()
def predict(
    network: nn.Module, split: Split, batch_size: int = 64, extras: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """`labels`, `predictions` [N] and extras [N,...], those the model records or `extras`, in the split's order."""
    network.eval()
    rows: dict[str, list[Tensor]] = {"labels": [], "predictions": []}
    place = []
    for batch in split.batches(batch_size, by_length=True):  # half of the work is padding otherwise
        output = network(batch)
        place.append(batch.index)
        rows["labels"].append(batch.labels)
        rows["predictions"].append(output.prediction)
        for name in getattr(network, "RECORD", ()) if extras is None else extras:
            if name in output.extras:  # an ablation may lack it
                rows.setdefault(name, []).append(output.extras[name])
    order = torch.cat(place).argsort()
    return {name: torch.cat(parts)[order].cpu().numpy() for name, parts in rows.items()}


def scores(outputs: Mapping[str, np.ndarray], scale: str) -> dict[str, float]:
    """All metrics of `predict`'s outputs, the counts behind accuracies, and what other conventions give."""
    pair = outputs["labels"], outputs["predictions"]
    return evaluate(*pair, scale=scale, counts=True) | swapped_f1(*pair, scale=scale) | nonzero(*pair, scale=scale)


def evaluate_split(network: nn.Module, split: Split, scale: str, batch_size: int = 64) -> dict[str, float]:
    outputs = predict(network, split, batch_size, extras=())
    return evaluate(outputs["labels"], outputs["predictions"], scale=scale)


@torch.inference_mode()
def mean_loss(network: nn.Module, split: Split, batch_size: int, term: str = "total") -> float:
    """A loss term per sample; contrastive terms see the batches as they come, the last one being smaller."""
    network.eval()
    parts = []
    for batch in split.batches(batch_size):
        terms = network.loss(batch, network(batch))
        if term not in terms:
            raise ValueError(f"The loss has no term {term!r} to select by: expected one of {', '.join(terms)}.")
        parts.append(terms[term] * len(batch.labels))
    return float(torch.stack(parts).sum() / len(split))
