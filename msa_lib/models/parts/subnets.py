"""The three subnetworks that TFN and LMF share: one vector per modality, audio and vision from their mean over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msa_lib import MODALITIES
from msa_lib.data import Batch, Dataset
from msa_lib.models.parts.dropout import Dropout
from msa_lib.models.parts.inputs import Inputs
from msa_lib.models.parts.layers import masked_mean
from msa_lib.models.parts.recurrent import LSTM


class BatchNorm(nn.BatchNorm1d):
    """A batch of one sample has no variance: it is normalised by the running statistics, as at evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class SubNet(nn.Sequential):
    """[B,size] -> [B,d]: normalise over the batch, then three layers with ReLU."""

    def __init__(self, size: int, d: int, dropout: float) -> None:
        layers = [layer for d_in in (size, d, d) for layer in (nn.Linear(d_in, d), nn.ReLU())]
        super().__init__(BatchNorm(size), Dropout(dropout), *layers)


class TextNet(nn.Module):
    """[B,T,size], mask [B,T] -> [B,out]: the LSTM's hidden state after the last valid step, then a linear map."""

    def __init__(self, size: int, d: int, out: int, dropout: float) -> None:
        super().__init__()
        self.lstm, self.drop, self.linear = LSTM(size, d), Dropout(dropout), nn.Linear(d, out)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.linear(self.drop(self.lstm(x, mask)[1]))


class Subnets(nn.Module):
    """Batch -> [1; h_m] of text, audio, vision, [B,1+d_m] each.

    `c` has the hidden sizes `d_t`, `d_a`, `d_v`, the rates `dropout_t`, `dropout_a`, `dropout_v`, `bert` and `padding`:
    masked (means and the LSTM's last step are those of the valid steps) | counted (of all steps that the data file has
    room for, zeros included).
    """

    def __init__(self, dataset: Dataset, c: Any, text_out: int) -> None:
        super().__init__()
        self.inputs = Inputs(dataset, c.bert)
        D_t, D_a, D_v = self.inputs.dims
        self.text = TextNet(D_t, c.d_t, text_out, c.dropout_t)
        self.audio, self.vision = SubNet(D_a, c.d_a, c.dropout_a), SubNet(D_v, c.d_v, c.dropout_v)
        self.room, self.seen = room_of(dataset), PADDING[c.padding]

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        (t, a, v), (valid_t, valid_a, valid_v) = self.seen(*self.inputs(batch), self.room)
        h = self.text(t, valid_t), self.audio(masked_mean(a, valid_a)), self.vision(masked_mean(v, valid_v))
        return tuple(F.pad(h_m, (1, 0), value=1.0) for h_m in h)  # [B,1+d_m]


def room_of(dataset: Dataset) -> list[int]:
    """How many steps the data file has room for, of text, audio, vision."""
    return [max(getattr(split, m).shape[1] for split in dataset.splits.values()) for m in MODALITIES]


def masked(x: list[Tensor], masks: list[Tensor], room: Sequence[int]) -> tuple[list[Tensor], list[Tensor]]:
    return x, masks


def counted(x: list[Tensor], masks: list[Tensor], room: Sequence[int]) -> tuple[list[Tensor], list[Tensor]]:
    """Every sequence as wide as the file, all of its steps valid."""
    x = [F.pad(x_m, (0, 0, 0, steps - x_m.shape[1])) for x_m, steps in zip(x, room, strict=True)]
    return x, [torch.ones(x_m.shape[:2], dtype=torch.bool, device=x_m.device) for x_m in x]


PADDING = {"masked": masked, "counted": counted}
