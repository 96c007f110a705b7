"""MFN: Memory Fusion Network (Zadeh et al., "Memory Fusion Network for Multi-view Sequential Learning", AAAI 2018).

Read top-down: one LSTM per modality on a common time axis -> attention over what two neighbouring steps hold in their
cells (DMAN) -> a gated memory of what it finds (MGM) -> prediction from the last hidden states and the memory.

Stated: the network, by the paper and its code; that sequences are word-aligned. Sizes, rates and settings are those of
the field's harness, thuiar/MMSA (a94e65d), for BERT features; the recipes below are its own, per data set.
Ours: the steps of an unaligned audio or vision are averaged onto those of text; an absent modality is zeros, and a
sample without text has one step. A limit of epochs is stated nowhere.

What the harness does differently is a switch, and "as released" its reading:
- `av="averaged"`: audio and vision are first averaged over time, and the mean is repeated at every step, so that their
  order in time reaches nothing.
- `padding="counted"`: the last step is that of the data file, padding included, and averages are over all its steps.
  Padding is zeros here; the BERT features of padded steps in the harness's files are not.
The authors permute the training set once, drop the last short batch and keep separate networks for MAE and for Acc-2;
their hyper-parameters are drawn at random from lists.

Why it is written as it is: nothing of the memory goes back into the LSTMs, so cells come first, attention sees all
steps at once, and only the two gates wait for the memory of the step before.

Published (Acc-2, F1 in %): MOSI 77.4, 77.3, MAE .965, Corr .632, the paper's as others quote it, on its features.
The harness (its result-stat.md, five seeds): MOSI .927, .670; MOSEI .573, .718; SIMS .435, .582; SIMSv2 .295, .727.
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
from msa_lib.models.parts.inputs import Inputs
from msa_lib.models.parts.layers import Output, at_step, masked_mean, mlp
from msa_lib.models.parts.losses import weighted
from msa_lib.models.parts.recurrent import LSTM
from msa_lib.models.parts.subnets import PADDING, room_of
from msa_lib.train.procedure import Procedure


@dataclass(frozen=True)
class MFNConfig:
    """Sizes and rates are those of the harness for MOSI; its recipes say the others. `drop_X`: rate in the MLP X."""

    d_t: int = 256
    d_a: int = 32
    d_v: int = 256
    memory: int = 400
    attend: int = 32  # hidden width of the attention over cells
    propose: int = 64  # of what may enter the memory
    retain: int = 256  # of the gate on the memory
    update: int = 32  # of the gate on what may enter
    out: int = 128
    drop_attend: float = 0.2
    drop_propose: float = 0.0
    drop_retain: float = 0.7
    drop_update: float = 0.5
    drop_out: float = 0.0
    bert: Literal["precomputed", "frozen", "finetune"] = "precomputed"
    av: Literal["steps", "averaged"] = "steps"
    padding: Literal["masked", "counted"] = "masked"


VARIANTS = {"full": {}, "averaged": {"av": "averaged"}, "as released": {"av": "averaged", "padding": "counted"}}
CARD = Card(
    paper="Zadeh et al., Memory Fusion Network for Multi-view Sequential Learning, AAAI 2018",
    fidelity="specified",
    specified="The network, by the paper and its code; sizes, rates and training settings, by thuiar/MMSA.",
    ours="How unaligned data come onto the steps of text; an absent modality is zeros; padding is not counted.",
    choices=("bert", "padding"),
)


def _recipe(
    lr: float, weight_decay: float, batch_size: int, d: tuple[int, int, int], memory: int, **mlps: tuple[int, float]
) -> dict[str, Stated]:
    """As the harness writes it: widths of text, audio, vision; hidden width and dropout of each MLP."""
    values = {"lr": lr, "weight_decay": weight_decay, "batch_size": batch_size, "patience": 8, "memory": memory}
    values |= dict(zip(("d_t", "d_a", "d_v"), d, strict=True))
    values |= {name: width for name, (width, _) in mlps.items()}
    values |= {f"drop_{name}": rate for name, (_, rate) in mlps.items()}
    stated = {name: Stated(value, "thuiar/MMSA a94e65d, config_regression.json") for name, value in values.items()}
    trainer = {"clip": 0.0, "drop_last": False}
    return stated | {name: Stated(value, "thuiar/MMSA a94e65d, trainer of MFN") for name, value in trainer.items()}


RECIPES = {
    "mosi": _recipe(
        2e-3, 0.0, 128, (256, 32, 256), 400,
        attend=(32, 0.2), propose=(64, 0.0), retain=(256, 0.7), update=(32, 0.5), out=(128, 0.0),
    ),
    "mosei": _recipe(
        5e-4, 1e-4, 64, (128, 32, 128), 128,
        attend=(128, 0.2), propose=(128, 0.5), retain=(256, 0.7), update=(256, 0.0), out=(128, 0.5),
    ),
    "sims": _recipe(
        1e-3, 0.0, 32, (64, 16, 64), 64,
        attend=(128, 0.2), propose=(128, 0.0), retain=(64, 0.2), update=(64, 0.7), out=(64, 0.7),
    ),
    "simsv2": _recipe(
        1e-3, 0.0, 64, (128, 16, 128), 400,
        attend=(32, 0.2), propose=(128, 0.5), retain=(32, 0.5), update=(32, 0.2), out=(64, 0.2),
    ),
}  # fmt: skip
SMALL = {"d_t": 8, "d_a": 4, "d_v": 4, "memory": 8} | dict.fromkeys(("attend", "propose", "retain", "update", "out"), 8)


class MFNProcedure(Procedure):
    """Adam; everything decays (L2, in the gradient), biases too."""

    def groups(self) -> list[dict]:
        return [group | {"weight_decay": self.config.weight_decay} for group in super().groups()]

    def optimiser(self, groups: list[dict]) -> torch.optim.Optimizer:
        return torch.optim.Adam(groups, fused=True)


# ------------------------------------------------------------------------------------------------ What is at a step


def steps(net: MFN, batch: Batch) -> tuple[list[Tensor], Tensor]:
    """Three sequences [B,T,D] on the steps of text, and which steps there are, [B,T]."""
    x, masks = net.inputs(batch)
    x, masks = net.seen(x, masks, net.room[:1] * 3)
    return x, torch.stack(masks).any(0)


def averaged(net: MFN, batch: Batch) -> tuple[list[Tensor], Tensor]:
    """The same with the mean of audio and of vision at every step."""
    (t, *av), masks = net.seen(*net.inputs(batch), net.room)
    means = [masked_mean(x, mask)[:, None].expand(-1, t.shape[1], -1) for x, mask in zip(av, masks[1:], strict=True)]
    there = torch.cat(masks, 1).any(1, keepdim=True)  # [B,1]
    return [t, *means], torch.cat([there, masks[0][:, 1:]], 1)


AV = {"steps": (steps, "aligned"), "averaged": (averaged, "padded")}

# ------------------------------------------------------------------------------------------------------- The network


class Memory(nn.Module):
    """The multi-view gated memory: what attention found [B,T,2H] -> the memory u after each step, [B,T,memory]."""

    def __init__(self, H2: int, c: MFNConfig) -> None:
        super().__init__()
        self.propose = mlp(H2, c.propose, c.memory, dropout=c.drop_propose)
        self.retain = mlp(H2 + c.memory, c.retain, c.memory, dropout=c.drop_retain)
        self.update = mlp(H2 + c.memory, c.update, c.memory, dropout=c.drop_update)
        self.sizes = [c.retain, c.update]

    def forward(self, found: Tensor) -> Tensor:
        proposed = torch.tanh(self.propose(found))  # u-hat of every step, [B,T,memory]
        W = torch.cat([self.retain[0].weight, self.update[0].weight])  # both gates' first layers, on [found; u]
        given = F.linear(found, W[:, : found.shape[-1]], torch.cat([self.retain[0].bias, self.update[0].bias]))
        ones = torch.ones_like(given).split(self.sizes, -1)
        kept = torch.cat([gate[2](one) for gate, one in zip((self.retain, self.update), ones, strict=True)], -1)
        W_u, second, u = W[:, found.shape[-1] :].T, (self.retain[3], self.update[3]), torch.zeros_like(proposed[:, 0])
        memory = []
        for given_t, kept_t, proposed_t in zip(given.unbind(1), kept.unbind(1), proposed.unbind(1), strict=True):
            hidden = torch.relu(torch.addmm(given_t, u, W_u)) * kept_t  # of both gates
            g1, g2 = (torch.sigmoid(gate(h)) for gate, h in zip(second, hidden.split(self.sizes, -1), strict=True))
            u = g1 * u + g2 * proposed_t
            memory.append(u)
        return torch.stack(memory, 1)


class MFN(nn.Module):
    """The whole network. It leaves no extras."""

    Config, VARIANTS, CARD, RECIPES, SMALL, Procedure = MFNConfig, VARIANTS, CARD, RECIPES, SMALL, MFNProcedure
    RECORD = ()

    @staticmethod
    def fits(dataset: Dataset, switches: Mapping) -> str:
        """Why this model is not possible on the data set; empty if it is."""
        return lacking(dataset, "tav")

    def __init__(self, dataset: Dataset, c: MFNConfig) -> None:
        super().__init__()
        self.c, self.room, self.seen = c, room_of(dataset), PADDING[c.padding]
        self.streams, alignment = AV[c.av]
        self.inputs = Inputs(dataset, c.bert, alignment)
        widths = (c.d_t, c.d_a, c.d_v)
        self.lstms = nn.ModuleList(LSTM(D, d) for D, d in zip(self.inputs.dims, widths, strict=True))
        H = sum(widths)
        self.attend = mlp(2 * H, c.attend, 2 * H, dropout=c.drop_attend)
        self.memory = Memory(2 * H, c)
        self.out = mlp(H + c.memory, c.out, 1, dropout=c.drop_out)

    def forward(self, batch: Batch) -> Output:
        x, valid = self.streams(self, batch)  # [B,T,D_m] each, [B,T]
        states = [lstm.run(x_m[None]) for lstm, x_m in zip(self.lstms, x, strict=True)]
        hidden, cells = (torch.cat([state[i][0] for state in states], -1) for i in (0, 1))  # [B,T,H]
        before = F.pad(cells[:, :-1], (0, 0, 1, 0))  # cells of the step before
        pair = torch.cat([before, cells], -1)  # c*, [B,T,2H]
        found = torch.softmax(self.attend(pair), -1) * pair  # c*-hat
        u = self.memory(found)  # [B,T,memory]
        last = (valid.sum(-1) - 1).clamp(min=0)  # [B]
        return Output(self.out(at_step(torch.cat([hidden, u], -1), last, valid))[:, 0], {})

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        """Mean absolute error."""
        return weighted(task=(1.0, F.l1_loss(output.prediction, batch.labels)))
