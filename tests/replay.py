"""Numbers of a reference implementation, and ours run on the same weights and samples.

A file `reference/NAME.npz` holds the samples (`text`, `audio`, `vision`, `lengths`, `labels`, of some `tokens`), the
`names` of our parameters, `repository` and `commit`, and what the reference gave. Weights are in it (`weights`, buffers
too) or drawn here, the same on every machine. `replayed` reads per case: `prediction` and `loss` in evaluation mode,
the `losses` of training steps on all samples at the rate `lr`, and the prediction `after` them.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from torch import nn

from msa_lib.data import Dataset, Split
from msa_lib.models import MODELS, build_model
from msa_lib.models.card import settings
from msa_lib.train import TrainConfig
from msa_lib.train.procedure import Procedure


def reference(name: str) -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "reference" / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def samples(ref: dict, **more) -> Dataset:
    """The samples, as every split."""
    names = ("text", "audio", "vision", "lengths", "labels", "tokens")
    tensors = {name: torch.tensor(ref[name]) for name in names if name in ref}
    split = Split(**tensors, ids=tuple(map(str, range(len(ref["labels"])))))
    return Dataset("reference", split, split, split, **({"scale": "mosi"} | more))


def with_weights(ref: dict, network: nn.Module, scale: float = 0.4) -> nn.Module:
    """The reference's weights put in, every one of ours by name: the stored ones, or drawn from +-scale."""
    if "weights" in ref:
        ours = {n: v for n, v in network.state_dict().items() if not n.endswith("num_batches_tracked")}
        assert set(ours) == set(ref["names"])
        values = torch.from_numpy(ref["weights"]).split([ours[name].numel() for name in ref["names"]])
    else:
        ours = dict(sorted((n, p.detach()) for n, p in network.named_parameters()))
        assert list(ours) == list(ref["names"])
        random = np.random.RandomState(0)  # the frozen generator of numpy, name after name
        values = [torch.tensor(random.uniform(-scale, scale, tuple(value.shape))) for value in ours.values()]
    for name, value in zip(ref["names"], values, strict=True):
        ours[name].copy_(value.view_as(ours[name]))
    return network


def prepared(model: str, ref: dict, switches: dict, scale: float = 0.4, encoder: str | None = None, **training):
    """A network with the reference's weights, its procedure and all samples as one batch."""
    data = samples(ref, encoder=encoder)
    network = build_model(model, data, **switches)
    config = TrainConfig(**{"batch_size": len(data.train), "clip": 0.0, **training}, switches=switches)
    procedure = getattr(network, "Procedure", Procedure)(network, data, config)  # it may draw weights of its own
    return with_weights(ref, network, scale), procedure, data.train.batch(slice(None), trim=False)


def replayed(ref: dict, model: str, case: str, switches: dict, training: dict) -> dict[str, float]:
    """The largest difference of each number of a case from the reference's."""
    network, procedure, batch = prepared(model, ref, switches, lr=float(ref["lr"]), **training)
    output = network.eval()(batch)
    got = {"prediction": output.prediction.detach(), "loss": network.loss(batch, output)["total"].detach()}
    network.train()
    losses = [procedure.step(batch, "main")["total"].detach() for _ in ref[f"{case}/losses"]]
    got |= {"losses": torch.stack(losses), "after": network.eval()(batch).prediction.detach()}
    return {name: float(np.abs(value.numpy() - ref[f"{case}/{name}"]).max()) for name, value in got.items()}


def assert_equal(gaps: dict[str, float]) -> None:
    """To 1e-5 in evaluation mode, to 1e-4 in and after training steps."""
    for name, gap in gaps.items():
        assert gap < (1e-4 if name in ("losses", "after") else 1e-5), f"{name} is {gap:.1e} from the reference"


def of_recipe(model: str, printed: str) -> dict:
    """The switches that a recipe states."""
    names = {f.name for f in fields(MODELS[model].Config)}
    return {name: value for name, value in settings(MODELS[model].RECIPES[printed]).items() if name in names}


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


def count(model: str, printed: str, **switches) -> int:
    return sum(p.numel() for p in build_model(model, public_shape(printed), **switches).parameters())
