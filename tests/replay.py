"""Numbers of a reference implementation, and ours run on the same weights and samples.

A file `reference/NAME.npz` holds the samples (`text`, `audio`, `vision`, `lengths`, `labels`), `names` and `weights` of
our parameters, the rate `lr`, `repository`, `commit`; per case what the reference gave: `prediction` and `loss` in
evaluation mode, the `losses` of training steps on all samples, and the prediction `after` them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from msa_lib.data import Dataset, Split
from msa_lib.models import build_model
from msa_lib.train import TrainConfig
from msa_lib.train.procedure import Procedure


def reference(name: str) -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "reference" / f"{name}.npz") as file:
        return dict(file)


def samples(ref: dict, **more) -> Dataset:
    """The samples as training set; the other splits hold the first of them, as wide."""
    tensors = {name: torch.from_numpy(ref[name]) for name in ("text", "audio", "vision", "lengths", "labels")}
    train = Split(**tensors, ids=tuple(map(str, range(len(ref["labels"])))))
    first = {name: value[:1] for name, value in tensors.items()}
    other = replace(train, **first, ids=("0",), host_lengths=None)
    return Dataset("reference", train, other, other, **({"scale": "mosi"} | more))


def with_weights(ref: dict, network: nn.Module) -> nn.Module:
    """The reference's weights put in, every one of ours by name."""
    ours = {n: v for n, v in network.state_dict().items() if not n.endswith("num_batches_tracked")}
    assert set(ours) == set(ref["names"])
    sizes = [ours[name].numel() for name in ref["names"]]
    assert sum(sizes) == len(ref["weights"])
    for name, values in zip(ref["names"], torch.from_numpy(ref["weights"]).split(sizes), strict=True):
        ours[name].copy_(values.view_as(ours[name]))
    return network


def replayed(ref: dict, model: str, case: str, switches: dict, settings: dict) -> dict[str, float]:
    """The largest difference of each number of a case from the reference's."""
    data = samples(ref)
    network = with_weights(ref, build_model(model, data, **switches)).eval()
    config = TrainConfig(lr=float(ref["lr"]), batch_size=len(data.train), **settings)
    procedure, batch = getattr(network, "Procedure", Procedure)(network, data, config), data.train.batch(slice(None))
    got = {"prediction": network(batch).prediction.detach()}
    got["loss"] = network.loss(batch, network(batch))["total"].detach()
    network.train()
    losses = [procedure.step(batch, "main")["total"].detach() for _ in ref[f"{case}/losses"]]
    got |= {"losses": torch.stack(losses), "after": network.eval()(batch).prediction.detach()}
    return {name: float(np.abs(value.numpy() - ref[f"{case}/{name}"]).max()) for name, value in got.items()}


def assert_equal(gaps: dict[str, float]) -> None:
    """To 1e-5 in evaluation mode, to 1e-4 in and after training steps."""
    for name, gap in gaps.items():
        assert gap < (1e-4 if name in ("losses", "after") else 1e-5), f"{name} is {gap:.1e} from the reference"
