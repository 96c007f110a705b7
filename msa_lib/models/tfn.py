"""TFN: Tensor Fusion Network (Zadeh et al., "Tensor Fusion Network for Multimodal Sentiment Analysis", EMNLP 2017).

Read top-down: one vector per modality (parts/subnets.py) -> the outer product of the three, each with a 1 in front,
which holds all unimodal, bimodal and trimodal products -> an inference network -> a sigmoid scaled to the labels.

Stated: the network, by the paper. Its code is in theano and for other features, so sizes, rates and settings are those
of the field's harness, thuiar/MMSA (a94e65d), for BERT features; the recipes below are its own, per data set.
Ours: an absent modality is zeros. A limit of epochs is stated nowhere.

What the harness does differently is a switch, and "as released" its reading:
- `padding="counted"`: means of audio and vision go over all steps of the data file, and text is read after the LSTM has
  gone through its padding too. Padding is zeros here, whatever a file holds at padded steps of text.
- `dropout_t=0`: the dropout of text is set aside because its LSTM has one layer.
- `out_range="three"`: predictions lie in [-3,3] for labels in [-1,1] too.
The authors' code has decision layers of 160 units, a text vector of 64, and Adamax at 0.01 with batches of 128.

Published (Acc-2, F1 in %): MOSI 77.1, 77.9, MAE .87, Corr .70, the paper's as others quote it, on features of its time.
With BERT features, a re-run of unknown origin that papers copy: MOSI MAE .901, Corr .698; MOSEI .593, .700.
The harness (its result-stat.md, five seeds): MOSI .947, .673; MOSEI .573, .714; SIMS .432, .591; SIMSv2 .303, .707.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msa_lib.data import Batch, Dataset
from msa_lib.data.dataset import LABEL_RANGE
from msa_lib.models.card import Card, Stated, lacking
from msa_lib.models.parts.dropout import Dropout
from msa_lib.models.parts.layers import Output, mlp
from msa_lib.models.parts.losses import weighted
from msa_lib.models.parts.subnets import Subnets
from msa_lib.train.procedure import Procedure


@dataclass(frozen=True)
class TFNConfig:
    """Sizes and rates are those of the harness for MOSI; its recipes say the others."""

    d_t: int = 128  # the LSTM of text
    d_a: int = 32
    d_v: int = 128
    text_out: int = 32
    fusion: int = 64  # width of the inference network
    dropout_t: float = 0.3  # set, but not applied, by the harness
    dropout_a: float = 0.3
    dropout_v: float = 0.3
    dropout_z: float = 0.5  # on the tensor
    bert: Literal["precomputed", "frozen", "finetune"] = "precomputed"
    padding: Literal["masked", "counted"] = "masked"
    out_range: Literal["labels", "three"] = "labels"


VARIANTS = {"full": {}, "as released": {"padding": "counted", "dropout_t": 0.0, "out_range": "three"}}
CARD = Card(
    paper="Zadeh et al., Tensor Fusion Network for Multimodal Sentiment Analysis, EMNLP 2017",
    fidelity="specified",
    specified="The network, by the paper; sizes, rates and training settings for each data set, by thuiar/MMSA.",
    ours="An absent modality is zeros; padding is not counted; the range of SIMS labels is [-1,1].",
    choices=("bert", "padding", "out_range"),
)


def _recipe(lr: float, batch_size: int, d: tuple[int, int, int], text_out: int, fusion: int, dropout: tuple) -> dict:
    """As the harness writes it: widths of text, audio, vision; dropout of text, audio, vision and the tensor."""
    names = ("d_t", "d_a", "d_v", "dropout_t", "dropout_a", "dropout_v", "dropout_z")
    values = {"lr": lr, "batch_size": batch_size, "text_out": text_out, "fusion": fusion}
    values |= dict(zip(names, (*d, *dropout), strict=True)) | {"patience": 8}
    stated = {name: Stated(value, "thuiar/MMSA a94e65d, config_regression.json") for name, value in values.items()}
    trainer = {"weight_decay": 0.0, "clip": 0.0, "drop_last": False}
    return stated | {name: Stated(value, "thuiar/MMSA a94e65d, trainer of TFN") for name, value in trainer.items()}


RECIPES = {
    "mosi": _recipe(1e-3, 32, (128, 32, 128), 32, 64, (0.3, 0.3, 0.3, 0.5)),
    "mosei": _recipe(5e-3, 128, (128, 16, 128), 128, 16, (0.4, 0.4, 0.4, 0.4)),
    "sims": _recipe(5e-4, 32, (128, 32, 128), 256, 32, (0.4, 0.4, 0.4, 0.4)),
    "simsv2": _recipe(2e-3, 128, (128, 32, 128), 128, 32, (0.3, 0.3, 0.3, 0.5)),
}
SMALL = {"d_t": 8, "d_a": 6, "d_v": 6, "text_out": 4, "fusion": 8}  # the smallest sensible network


class TFNProcedure(Procedure):
    def optimiser(self, groups: list[dict]) -> torch.optim.Optimizer:
        return torch.optim.Adam(groups, fused=True)


RANGE = {"labels": lambda scale: LABEL_RANGE[scale], "three": lambda scale: 3.0}


class TFN(nn.Module):
    """The whole network. It leaves no extras."""

    Config, VARIANTS, CARD, RECIPES, SMALL, Procedure = TFNConfig, VARIANTS, CARD, RECIPES, SMALL, TFNProcedure
    RECORD = ()

    @staticmethod
    def fits(dataset: Dataset, switches: Mapping) -> str:
        """Why this model is not possible on the data set; empty if it is."""
        return lacking(dataset, "tav")

    def __init__(self, dataset: Dataset, c: TFNConfig) -> None:
        super().__init__()
        self.c, self.range = c, RANGE[c.out_range](dataset.scale)
        self.subnets = Subnets(dataset, c, c.text_out)
        size = (c.text_out + 1) * (c.d_a + 1) * (c.d_v + 1)
        self.drop, self.inference = Dropout(c.dropout_z), mlp(size, c.fusion, c.fusion, 1)

    def forward(self, batch: Batch) -> Output:
        z_t, z_a, z_v = self.subnets(batch)  # [B,1+d_m]
        Z = z_a[:, :, None] * z_v[:, None, :]  # [B,1+d_a,1+d_v]
        Z = Z.flatten(1)[:, :, None] * z_t[:, None, :]  # z_a x z_v x z_t, [B,(1+d_a)(1+d_v),1+text_out]
        y = self.inference(self.drop(Z.flatten(1)))[:, 0]
        return Output(self.range * (2 * torch.sigmoid(y) - 1), {})

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        """Mean absolute error."""
        return weighted(task=(1.0, F.l1_loss(output.prediction, batch.labels)))
