"""What several test files share: small data and models for the training loop and the run store; comparisons, padded
batches and plain-loop layers for the tests of models."""

from __future__ import annotations

import builtins
import copy
import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, get_args, get_type_hints

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state
from torch.nn.attention import SDPBackend, sdpa_kernel

from msa_lib.data import Batch, Dataset, Split
from msa_lib.data.dataset import steps_mask
from msa_lib.models.card import Card
from msa_lib.models.parts.layers import Output, masked_mean
from msa_lib.train.stacked import Objective

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
    CARD = Card("none", "specified", "everything", "nothing", ())
    RECIPES, SMALL = {}, {}

    @staticmethod
    def fits(dataset: Dataset, switches: dict) -> str:
        return ""

    def __init__(self, dataset: Dataset, c: ToyConfig) -> None:
        super().__init__()
        if c.width > 100:
            raise ValueError(f"width={c.width}: expected at most 100.")
        self.c, self.steps = c, 0
        self.layers = nn.Sequential(nn.Linear(dataset.feature_dims[0], c.width), nn.Dropout(0.2), nn.Linear(c.width, 1))

    def forward(self, batch: Batch) -> Output:
        mask = batch.masks[0]
        pooled = masked_mean(batch.text.masked_fill(~mask[..., None], 0.0), mask)
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


# --- for the tests of models ---

NAMES = ("text", "audio", "vision")


def total(network: nn.Module, batch: Batch) -> torch.Tensor:
    return network.loss(batch, network(batch))["total"]


def close(got: torch.Tensor, expected: torch.Tensor, atol: float = 2e-6) -> None:
    torch.testing.assert_close(got, expected, atol=atol, rtol=1e-5)


def same(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], atol: float = 2e-6) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(
            got[name], value, atol=atol, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def finite_step(network: nn.Module, batch: Batch) -> None:
    network.train()
    network.zero_grad()
    terms = network.loss(batch, network(batch))
    assert all(value.isfinite() for value in terms.values()), terms
    terms["total"].backward()
    bad = [n for n, p in network.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    assert not bad


def padded(batch: Batch, value: float, extra: int) -> Batch:
    changed = {}
    for m, (name, x) in enumerate(zip(NAMES, batch.features, strict=True)):
        x = F.pad(x, (0, 0, 0, extra))
        changed[name] = x.masked_fill(~steps_mask(batch.lengths[:, m], x.shape[1])[..., None], value)
    return batch._replace(**changed)


def text_only(whole: Dataset) -> Dataset:
    """The data set without audio and vision."""

    def strip(split: Split) -> Split:
        nothing, lengths = torch.zeros(len(split), 1, 1), split.lengths.clone()
        lengths[:, 1:] = 0
        return replace(split, audio=nothing, vision=nothing, lengths=lengths, host_lengths=None)

    return replace(whole, train=strip(whole.train), valid=strip(whole.valid), test=strip(whole.test), fingerprint="")


def with_encoder(whole: Dataset, path: Path) -> Dataset:
    """The data set with random tokens for its training split, and a tiny encoder for them stored at `path`."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    BertModel(
        BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    ).save_pretrained(path)
    mask = steps_mask(whole.train.lengths[:, 0], whole.train.text.shape[1]).long()
    tokens = torch.stack([torch.randint(1, 30, mask.shape) * mask, mask, mask * 0], 1)
    return replace(whole, train=replace(whole.train, tokens=tokens), encoder=str(path))


def switch_values(config: type, skip: tuple[str, ...] = ()) -> list[tuple[str, object]]:
    """Every value of every switch that has a choice."""
    hints, values = get_type_hints(config), []
    for name in (f.name for f in fields(config) if f.name not in skip):
        choices = (True, False) if hints[name] is bool else get_args(hints[name])
        values += [(name, value) for value in choices]
    return values


def check_stacking(networks: list[nn.Module], batch: Batch) -> None:
    """Networks of several seeds, stacked: predictions and gradients are those of each alone; dropout can differ."""
    objectives = [Objective(network) for network in networks]
    parameters, buffers = stack_module_state(objectives)
    parameters = {name: value.detach() for name, value in parameters.items()}
    whole = copy.deepcopy(objectives[0])

    def loss(p, b):
        return functional_call(whole, (p, b), (batch,))["total"]

    def predict(p, b):
        inner = ({k.removeprefix("network."): v for k, v in part.items()} for part in (p, b))
        return functional_call(whole.network, tuple(inner), (batch,)).prediction

    with sdpa_kernel(SDPBackend.MATH):  # the others have no batching rule on CPU, and warn
        close(torch.vmap(predict)(parameters, buffers), torch.stack([o.network(batch).prediction for o in objectives]))
        grads = torch.vmap(grad(loss))(parameters, buffers)
        for seed, objective in enumerate(objectives):
            objective(batch)["total"].backward()
            for name, p in objective.named_parameters():
                expected = torch.zeros_like(p) if p.grad is None else p.grad
                close(grads[name][seed], expected, atol=1e-5 * max(1.0, float(expected.abs().max())))
        whole.train()
        for module in whole.modules():
            if isinstance(getattr(module, "dropout", None), float):
                module.dropout = 0.3
            elif isinstance(module, nn.Dropout):
                module.p = 0.3
        drawn = torch.vmap(predict, randomness="different")(parameters, buffers)
        assert drawn.isfinite().all()
        alike = {name: value[:1].expand_as(value) for name, value in parameters.items()}
        drawn = torch.vmap(predict, randomness="different")(alike, buffers)
        assert (drawn[0] - drawn[1]).abs().max() > 0


class Loops:
    """A network's linear layers, norms and attention for one sample, in loops and double precision."""

    def __init__(self, network: nn.Module) -> None:
        self.w = {name: value.detach().double().numpy() for name, value in network.named_parameters()}
        self.c = network.c

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return self.w[f"{name}.weight"] @ x + self.w[f"{name}.bias"]

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        x = (x - x.mean()) / math.sqrt(((x - x.mean()) ** 2).mean() + 1e-5)
        return x * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def ffn(self, name: str, x: np.ndarray) -> np.ndarray:
        hidden = [a * 0.5 * (1 + math.erf(a / math.sqrt(2))) for a in self.linear(f"{name}.0", x)]
        return self.linear(f"{name}.3", np.array(hidden))

    def mlp(self, name: str, x: np.ndarray) -> np.ndarray:
        return self.linear(f"{name}.3", np.maximum(self.linear(f"{name}.0", x), 0))

    def attention(self, name: str, queries: list, keys: list) -> list:
        """CMA or SA: one vector per query; zeros where there are no keys."""
        if not keys:
            return [np.zeros(self.c.d) for _ in queries]
        size, out = self.c.d // self.c.heads, []
        for query in queries:
            q, read = self.linear(f"{name}.q", query), np.zeros(self.c.d)
            for head in range(self.c.heads):
                part = slice(head * size, (head + 1) * size)
                scores = [q[part] @ self.linear(f"{name}.k", key)[part] / math.sqrt(size) for key in keys]
                weights = np.exp(scores) / np.exp(scores).sum()
                for weight, key in zip(weights, keys, strict=True):
                    read[part] += weight * self.linear(f"{name}.v", key)[part]
            out.append(self.linear(f"{name}.out", read))
        return out
