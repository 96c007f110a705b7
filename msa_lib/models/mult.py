"""MulT: "Multimodal Transformer for Unaligned Multimodal Language Sequences" (Tsai et al., ACL 2019).

Read top-down it follows the paper's section 3.2: temporal convolution -> positions -> six crossmodal transformers, in
which a target modality reads the *low-level* steps of a source -> a self-attention transformer per target -> the last
steps of the three, a residual block, a line.

Stated: the network, by the paper and its code (yaohungt/Multimodal-Transformer, a670936). Sizes, rates and training
settings are those of the field's harness, thuiar/MMSA (a94e65d), which knows all four data sets with BERT features; the
authors' command line has width 30, 5 heads, 5 layers, kernels of 1, batches of 24, clips the gradient's norm at 0.8 and
does not accumulate.
Ours: padding is no key, and the causal mask and the last step go by a sample's own lengths, so that padding has no
effect (and is not computed beyond a batch's longest sample). An absent modality adds nothing where it is a source and
is zeros where it is the target. A sample shorter than a kernel keeps one step.
What released code does differently is a switch:
- `positions="none"`: the harness builds its encoders without positions. `"heard"`: the authors' code takes a step whose
  first feature is exactly zero for padding, and gives it no position (silence in audio, a lost face in vision).
- `padding="counted"`: both read padding as if it were data, up to the width of the data file; the last step is then
  mostly padding. (Here it is zeros; in the harness's files the BERT features of padded steps are not.)
Both leave the convolution out where a raw size already equals d, which no real file has. The harness steps every 8
batches down the *sum* of their gradients (clipped by value after each), drops a rest of fewer, and has a weight decay
in its configuration that nothing reads: so do the recipes and the procedure.

Published, MAE and Corr: MOSI .889, .686 (unaligned) and .871, .698 (aligned); MOSEI .591, .694 and .580, .703 (as other
papers and issue 8 of the authors' repository quote them). .861, .711 is a re-run with BERT features that papers print
as MulT's own. By the harness (result-stat.md, five seeds): MOSI .8799, .7022; MOSEI .5593, .7331; SIMS .4532, .5641;
SIMSv2 .2905, .7378.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msa_lib import MODALITIES
from msa_lib.data import Batch, Dataset
from msa_lib.models.card import Card, Stated, lacking
from msa_lib.models.parts.crossmodal import (
    Convolutions,
    CrossEncoder,
    SelfEncoder,
    causal,
    counted_positions,
    last,
    positions,
)
from msa_lib.models.parts.decoupled import Residual
from msa_lib.models.parts.inputs import Inputs
from msa_lib.models.parts.layers import Output
from msa_lib.models.parts.losses import weighted
from msa_lib.models.parts.subnets import PADDING
from msa_lib.train.procedure import SummedAdam


@dataclass(frozen=True)
class MulTConfig:
    """Sizes and rates are those of the harness for MOSI; its recipes say the others."""

    d: int = 50
    heads: int = 10
    n_layers: int = 4  # the transformers after fusion have at least 3
    k_text: int = 5
    k_audio: int = 5
    k_vision: int = 5
    text_dropout: float = 0.5  # on the raw text
    embed_dropout: float = 0.2
    attn_text: float = 0.3  # where text is read, and after fusion
    attn_audio: float = 0.2
    attn_vision: float = 0.0
    relu_dropout: float = 0.0
    res_dropout: float = 0.0
    out_dropout: float = 0.5
    accumulation: int = 8  # batches per step
    plateau: int = 5  # epochs without a better validation before the rate falls to a tenth
    bert: Literal["precomputed", "frozen", "finetune"] = "precomputed"
    positions: Literal["sin", "heard", "none"] = "sin"
    causal: bool = True  # step i reads no source step after i + |difference of the lengths|; a default of both codes
    padding: Literal["masked", "counted"] = "masked"


VARIANTS = {
    "full": {},
    "as released": {"positions": "none", "padding": "counted"},  # by the harness, whose numbers papers copy
    "as released by the authors": {"positions": "heard", "padding": "counted"},
}
CARD = Card(
    paper="Tsai et al., Multimodal Transformer for Unaligned Multimodal Language Sequences, ACL 2019",
    fidelity="specified",
    specified="The network, by the paper and its code; sizes and training for each data set, by thuiar/MMSA.",
    ours="Padding is masked, and the causal mask goes by a sample's own lengths; an absent modality is zeros.",
    choices=("padding", "bert"),
)


def _recipe(size: tuple, kernels: tuple, drop: tuple, attn: tuple, training: tuple) -> dict[str, Stated]:
    """As the harness writes it; `drop` is that of text, embedding, ReLU, residual and output."""
    values = dict(zip(("d", "heads", "n_layers"), size, strict=True))
    values |= dict(zip(("k_text", "k_audio", "k_vision"), kernels, strict=True))
    values |= dict(zip((f"{part}_dropout" for part in ("text", "embed", "relu", "res", "out")), drop, strict=True))
    values |= dict(zip(("attn_text", "attn_audio", "attn_vision"), attn, strict=True))
    values |= dict(zip(("batch_size", "lr", "clip", "plateau"), training, strict=True))
    values |= {"patience": 8, "accumulation": 8}
    stated = {name: Stated(value, "thuiar/MMSA a94e65d, config_regression.json") for name, value in values.items()}
    trainer = {"weight_decay": 0.0, "drop_last": False}
    return stated | {name: Stated(value, "thuiar/MMSA a94e65d, trainer of MulT") for name, value in trainer.items()}


RECIPES = {
    "mosi": _recipe((50, 10, 4), (5, 5, 5), (0.5, 0.2, 0.0, 0.0, 0.5), (0.3, 0.2, 0.0), (16, 2e-3, 0.6, 5)),
    "mosei": _recipe((30, 6, 4), (5, 1, 3), (0.3, 0.0, 0.0, 0.0, 0.5), (0.4, 0.0, 0.0), (4, 5e-4, 0.6, 20)),
    "sims": _recipe((50, 10, 2), (5, 1, 1), (0.3, 0.1, 0.0, 0.2, 0.1), (0.2, 0.1, 0.0), (16, 2e-3, 0.6, 10)),
    "simsv2": _recipe((30, 6, 4), (5, 3, 1), (0.5, 0.2, 0.1, 0.0, 0.3), (0.1, 0.2, 0.0), (16, 5e-4, 1.0, 10)),
}
SMALL = {"d": 12, "heads": 2, "n_layers": 1, "k_text": 3, "k_audio": 1, "k_vision": 3, "accumulation": 1}

# ------------------------------------------------------------------------------- 3.1 and 3.2 Crossmodal transformers


def heard(mask: Tensor, x: Tensor) -> Tensor:
    """A step whose first feature is exactly 0 has no position."""
    return positions(mask, x.shape[-1]) * (x[..., :1] != 0)


POSITIONS = {"sin": counted_positions, "heard": heard, "none": lambda mask, x: torch.zeros_like(x)}
READABLE = {True: causal, False: lambda mask, keys: keys[:, None, None].expand(-1, -1, mask.shape[1], -1)}


class Memory(SelfEncoder):
    """Self-attention, of which only the last step is read: x [B,T,d], mask [B,T] -> [B,d]."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        see, x, here = self.readable(mask, mask), self.embed(x, mask), mask.any(-1)[:, None, None]
        for layer in self.layers[:-1]:
            x = layer.alone(x, see | ~here[..., None], here)
        tip = last(x, mask)[:, None]  # [B,1,d]: no other step of the last layer is needed
        return self.norm(self.layers[-1](tip, x, mask[:, None, None] | ~here[..., None], here))[:, 0] * here[:, 0]


# ------------------------------------------------------------------------------------------------- Network, training


class MulTProcedure(SummedAdam):
    """With a plateau on the validation MAE."""

    selects = "task"

    def __init__(self, network: MulT, dataset: Dataset, config) -> None:
        super().__init__(network, dataset, config)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
        self.schedules["main"] = plateau(self.optimisers["main"], factor=0.1, patience=network.c.plateau)

    def end_epoch(self, record: Mapping, score: float) -> None:
        self.schedules["main"].step(record["valid"]["mae"])


class MulT(nn.Module):
    """The whole network. It leaves no extras."""

    Config, VARIANTS, CARD, RECIPES, SMALL, Procedure = MulTConfig, VARIANTS, CARD, RECIPES, SMALL, MulTProcedure
    RECORD = ()

    @staticmethod
    def fits(dataset: Dataset, switches: Mapping) -> str:
        """Why this model is not possible on the data set; empty if it is."""
        return lacking(dataset, "tav")

    def __init__(self, dataset: Dataset, c: MulTConfig) -> None:
        super().__init__()
        kernels, attn = (c.k_text, c.k_audio, c.k_vision), (c.attn_text, c.attn_audio, c.attn_vision)
        if min(*kernels, c.accumulation) < 1:
            raise ValueError(f"kernels={kernels}, accumulation={c.accumulation}: expected at least 1.")
        self.c, self.inputs, self.seen = c, Inputs(dataset, c.bert), PADDING[c.padding]
        self.room = [max(getattr(split, m).shape[1] for split in dataset.splits.values()) for m in MODALITIES]
        self.convolve = Convolutions(self.inputs.dims, c.d, kernels, c.text_dropout)
        reading = {"place": POSITIONS[c.positions], "readable": READABLE[c.causal]}

        def encoder(kind: type, d: int, n_layers: int, dropout: float) -> nn.Module:
            rates = dropout, c.relu_dropout, c.res_dropout, c.embed_dropout
            return kind(d, c.heads, n_layers, *rates, **reading)

        self.pairs = list(permutations(range(3), 2))  # target, source: ta, tv, at, av, vt, va
        self.cross = nn.ModuleList(encoder(CrossEncoder, c.d, c.n_layers, attn[s]) for _, s in self.pairs)
        self.memory = nn.ModuleList(encoder(Memory, 2 * c.d, max(c.n_layers, 3), attn[0]) for _ in range(3))
        self.readout, self.out = Residual(6 * c.d, c.out_dropout), nn.Linear(6 * c.d, 1)

    def forward(self, batch: Batch) -> Output:
        X, masks = self.convolve(*self.seen(*self.inputs(batch), self.room))  # [B,T_m,d], [B,T_m]
        Z = [net(X[m], masks[m], X[s], masks[s]) for net, (m, s) in zip(self.cross, self.pairs, strict=True)]
        both = [torch.cat(Z[2 * m : 2 * m + 2], -1) for m in range(3)]  # [B,T_m,2d]
        h = torch.cat([self.memory[m](both[m], masks[m]) for m in range(3)], -1)  # [B,6d]
        return Output(self.out(self.readout(h))[:, 0], {})

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        """Mean absolute error."""
        return weighted(task=(1.0, F.l1_loss(output.prediction, batch.labels)))
