"""LMF: Low-rank Multimodal Fusion (Liu, Shen et al., "Efficient Low-rank Multimodal Fusion with Modality-Specific
Factors", ACL 2018).

Read top-down: one vector per modality, by the subnetworks of TFN (parts/subnets.py) -> the linear map of TFN's tensor,
its weights being a sum of `rank` outer products, so that the tensor is never made -> the prediction.

Stated: the fusion, by the paper; that the products are summed with learned weights, by the authors' code. The authors
lost their best setting for MOSI, so sizes, rates and settings are those of the field's harness, thuiar/MMSA (a94e65d),
for BERT features; the recipes below are its own, per data set.
Ours: an absent modality is zeros. A limit of epochs is stated nowhere.

What others do is a switch; "as released" is the harness's reading:
- `mix="sum"`: the paper's equation, which sums the products as they are.
- `mix="frozen"`: the harness gives its optimiser neither the weights of the sum nor the bias: they stay as drawn. The
  authors' code had that fault too, until April 2020.
- `padding="counted"`, `dropout_t=0`: as in TFN (tfn.py).
Its `dropouts` hold a fourth rate, for after the fusion, which no code applies. The authors sum the error over a batch
where it is averaged here.

Published (Acc-2, F1 in %): MOSI 76.4, 75.7, MAE .912, Corr .668, the paper's as others quote it, on its features.
With BERT features, a re-run of unknown origin that papers copy: MOSI MAE .917, Corr .695; MOSEI .623, .677.
The harness (its result-stat.md, five seeds): MOSI .950, .651; MOSEI .576, .717; SIMS .441, .576; SIMSv2 .367, .557.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msa_lib.data import Batch, Dataset
from msa_lib.models.card import Card, Stated, lacking
from msa_lib.models.parts.layers import Output
from msa_lib.models.parts.losses import weighted
from msa_lib.models.parts.subnets import Subnets
from msa_lib.train.procedure import Procedure


@dataclass(frozen=True)
class LMFConfig:
    """Sizes and rates are those of the harness for MOSI; its recipes say the others."""

    d_t: int = 128  # the LSTM of text; its vector has half of it
    d_a: int = 16
    d_v: int = 128
    rank: int = 3
    dropout_t: float = 0.3  # set, but not applied, by the harness
    dropout_a: float = 0.3
    dropout_v: float = 0.3
    lr_factors: float = 1e-3  # the learning rate of the factors; all else has that of the training settings
    bert: Literal["precomputed", "frozen", "finetune"] = "precomputed"
    padding: Literal["masked", "counted"] = "masked"
    mix: Literal["learned", "sum", "frozen"] = "learned"  # how the products of the ranks become one number


VARIANTS = {
    "full": {},
    "plain sum": {"mix": "sum"},
    "as released": {"padding": "counted", "dropout_t": 0.0, "mix": "frozen"},
}
CARD = Card(
    paper="Liu, Shen et al., Efficient Low-rank Multimodal Fusion with Modality-Specific Factors, ACL 2018",
    fidelity="specified",
    specified="The network, by the paper and its code; sizes, rates and training settings, by thuiar/MMSA.",
    ours="An absent modality is zeros; padding is not counted; the weights of the sum are trained.",
    choices=("bert", "padding", "mix"),
)


def _recipe(
    lr: float,
    lr_factors: float,
    weight_decay: float,
    batch_size: int,
    d: tuple[int, int, int],
    rank: int,
    dropout: float,
) -> dict[str, Stated]:
    """As the harness writes it: widths of text, audio, vision."""
    values = {"lr": lr, "lr_factors": lr_factors, "weight_decay": weight_decay, "batch_size": batch_size, "patience": 8}
    values |= dict(zip(("d_t", "d_a", "d_v"), d, strict=True)) | {"rank": rank}
    values |= {f"dropout_{m}": dropout for m in "tav"}
    stated = {name: Stated(value, "thuiar/MMSA a94e65d, config_regression.json") for name, value in values.items()}
    trainer = {"clip": 0.0, "drop_last": False}
    return stated | {name: Stated(value, "thuiar/MMSA a94e65d, trainer of LMF") for name, value in trainer.items()}


RECIPES = {
    "mosi": _recipe(1e-3, 1e-3, 5e-3, 64, (128, 16, 128), 3, 0.3),
    "mosei": _recipe(1e-3, 1e-3, 1e-3, 32, (128, 16, 128), 4, 0.2),
    "sims": _recipe(2e-3, 5e-4, 5e-3, 64, (64, 16, 64), 4, 0.2),
    "simsv2": _recipe(2e-3, 5e-4, 1e-4, 32, (64, 32, 64), 4, 0.3),
}
SMALL = {"d_t": 8, "d_a": 6, "d_v": 6, "rank": 2}  # the smallest sensible network


class LMFProcedure(Procedure):
    """Adam, with a rate of its own for the factors; everything decays (L2, in the gradient), biases and norms too."""

    def groups(self) -> list[dict]:
        rates = {"factors.": self.network.c.lr_factors, "subnets.inputs.": self.config.lr_encoder, "": self.config.lr}
        groups: dict[str, list] = {part: [] for part in rates}
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad and not name.startswith(self.network.untrained):
                groups[next(part for part in rates if name.startswith(part))].append(parameter)
        decay = self.config.weight_decay
        return [{"params": p, "lr": rates[part], "weight_decay": decay} for part, p in groups.items() if p]

    def optimiser(self, groups: list[dict]) -> torch.optim.Optimizer:
        return torch.optim.Adam(groups, fused=True)


class Sum(nn.Module):
    """[B,rank] -> [B,1]."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(-1, keepdim=True) + self.bias


class WeightedSum(nn.Linear):
    """[B,rank] -> [B,1]."""

    def __init__(self, rank: int) -> None:
        super().__init__(rank, 1)
        nn.init.xavier_normal_(self.weight)
        nn.init.zeros_(self.bias)


NOTHING = ()  # no name starts with one of none
MIX = {"learned": (WeightedSum, NOTHING), "sum": (Sum, NOTHING), "frozen": (WeightedSum, ("mix.",))}


class LMF(nn.Module):
    """The whole network. It leaves no extras."""

    Config, VARIANTS, CARD, RECIPES, SMALL, Procedure = LMFConfig, VARIANTS, CARD, RECIPES, SMALL, LMFProcedure
    RECORD = ()

    @staticmethod
    def fits(dataset: Dataset, switches: Mapping) -> str:
        """Why this model is not possible on the data set; empty if it is."""
        return lacking(dataset, "tav")

    def __init__(self, dataset: Dataset, c: LMFConfig) -> None:
        super().__init__()
        self.c = c
        self.subnets = Subnets(dataset, c, c.d_t // 2)
        self.factors = nn.ParameterDict(
            {name: torch.empty(c.rank, 1 + d) for name, d in (("t", c.d_t // 2), ("a", c.d_a), ("v", c.d_v))}
        )
        for factor in self.factors.values():
            nn.init.xavier_normal_(factor)
        kind, self.untrained = MIX[c.mix]
        self.mix = kind(c.rank)

    def forward(self, batch: Batch) -> Output:
        z_t, z_a, z_v = self.subnets(batch)  # [1; h_m], [B,1+d_m]
        W = self.factors
        products = (z_t @ W["t"].T) * (z_a @ W["a"].T) * (z_v @ W["v"].T)  # one per rank, [B,rank]
        return Output(self.mix(products)[:, 0], {})

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        """Mean absolute error."""
        return weighted(task=(1.0, F.l1_loss(output.prediction, batch.labels)))
