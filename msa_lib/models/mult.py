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

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msa_lib import MODALITIES
from msa_lib.data import Batch, Dataset
from msa_lib.data.dataset import steps_mask
from msa_lib.models.card import Card, Stated, lacking
from msa_lib.models.parts.inputs import Inputs
from msa_lib.models.parts.layers import Output, at_step
from msa_lib.models.parts.losses import weighted
from msa_lib.models.parts.subnets import PADDING
from msa_lib.train.procedure import Procedure


@dataclass(frozen=True)
class MulTConfig:
    """Sizes and rates are those of the harness for MOSI; its recipes say the others."""

    d: int = 50
    heads: int = 10
    n_layers: int = 4  # the transformers after fusion have at least 3
    kernel_t: int = 5
    kernel_a: int = 5
    kernel_v: int = 5
    drop_text: float = 0.5  # on the raw text
    drop_embed: float = 0.2
    drop_attn_t: float = 0.3  # where text is read, and after fusion
    drop_attn_a: float = 0.2
    drop_attn_v: float = 0.0
    drop_relu: float = 0.0
    drop_res: float = 0.0
    drop_out: float = 0.5
    accumulate: int = 8  # batches per step
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
    values |= dict(zip(("kernel_t", "kernel_a", "kernel_v"), kernels, strict=True))
    values |= dict(zip(("drop_text", "drop_embed", "drop_relu", "drop_res", "drop_out"), drop, strict=True))
    values |= dict(zip(("drop_attn_t", "drop_attn_a", "drop_attn_v"), attn, strict=True))
    values |= dict(zip(("batch_size", "lr", "clip", "plateau"), training, strict=True))
    values |= {"patience": 8, "accumulate": 8}
    stated = {name: Stated(value, "thuiar/MMSA a94e65d, config_regression.json") for name, value in values.items()}
    trainer = {"weight_decay": 0.0, "drop_last": False}
    return stated | {name: Stated(value, "thuiar/MMSA a94e65d, trainer of MulT") for name, value in trainer.items()}


RECIPES = {
    "mosi": _recipe((50, 10, 4), (5, 5, 5), (0.5, 0.2, 0.0, 0.0, 0.5), (0.3, 0.2, 0.0), (16, 2e-3, 0.6, 5)),
    "mosei": _recipe((30, 6, 4), (5, 1, 3), (0.3, 0.0, 0.0, 0.0, 0.5), (0.4, 0.0, 0.0), (4, 5e-4, 0.6, 20)),
    "sims": _recipe((50, 10, 2), (5, 1, 1), (0.3, 0.1, 0.0, 0.2, 0.1), (0.2, 0.1, 0.0), (16, 2e-3, 0.6, 10)),
    "simsv2": _recipe((30, 6, 4), (5, 3, 1), (0.5, 0.2, 0.1, 0.0, 0.3), (0.1, 0.2, 0.0), (16, 5e-4, 1.0, 10)),
}
# The smallest sensible network
SMALL = {
    "d": 12,
    "heads": 2,
    "n_layers": 1,
    "kernel_t": 3,
    "kernel_a": 1,
    "kernel_v": 3,
    "accumulate": 1,
}

# ------------------------------------------------------------------------------------- 3.2 Convolution and positions


class TimeConv(nn.Conv1d):
    """The low-level steps of one modality: x [B,T,D], lengths [B] -> [B,T-k+1,d], mask. No bias, no padding."""

    def __init__(self, size: int, d: int, kernel: int) -> None:
        super().__init__(size, d, kernel, bias=False)
        self.k = kernel

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x = F.pad(x, (0, 0, 0, max(0, self.k - x.shape[1])))
        x = super().forward(x.transpose(1, 2)).transpose(1, 2)
        lengths = mask.sum(-1)
        mask = steps_mask((lengths - self.k + 1).clamp(min=1) * (lengths > 0), x.shape[1])
        return x * mask[..., None], mask


def positions(x: Tensor) -> Tensor:
    """Sines, then cosines, of the steps 1..T, for x [B,T,d] -> [T,d]."""
    half = x.shape[-1] // 2
    rate = torch.exp(torch.arange(half, device=x.device) * (-math.log(10000.0) / (half - 1)))
    angle = torch.arange(1, x.shape[1] + 1, device=x.device)[:, None] * rate
    return F.pad(torch.cat([torch.sin(angle), torch.cos(angle)], -1), (0, x.shape[-1] - 2 * half))


POSITIONS = {
    "sin": lambda x: math.sqrt(x.shape[-1]) * x + positions(x),
    "heard": lambda x: math.sqrt(x.shape[-1]) * x + positions(x) * (x[..., :1] != 0),
    "none": lambda x: math.sqrt(x.shape[-1]) * x,
}

# ------------------------------------------------------------------------------- 3.1 and 3.2 Crossmodal transformers


def causal(query: Tensor, keys: Tensor) -> Tensor:
    """Which steps may be read, by masks [B,T] and [B,T'] -> [B,T,T']: j <= i + |difference of the lengths|."""
    i, j = (torch.arange(m.shape[1], device=m.device) for m in (query, keys))
    ahead = (keys.sum(-1) - query.sum(-1)).abs()[:, None, None]
    return keys[:, None] & (j <= i[:, None] + ahead)


READABLE = {True: causal, False: lambda query, keys: keys[:, None].expand(-1, query.shape[1], -1)}


class Layer(nn.Module):
    """Pre-norm attention from x to a source, then a feed-forward net; each is added to what it starts from."""

    def __init__(self, c: MulTConfig, d: int, drop_attn: float) -> None:
        super().__init__()
        if c.heads < 1 or d % c.heads:
            raise ValueError(f"The width d={d} must be a multiple of heads={c.heads}, which is at least 1.")
        self.heads, self.dropout = c.heads, drop_attn
        self.query, self.keys, self.out = nn.Linear(d, d), nn.Linear(d, 2 * d), nn.Linear(d, d)
        up, down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        self.ffn = nn.Sequential(up, nn.ReLU(), nn.Dropout(c.drop_relu), down)
        self.norm1, self.norm2, self.drop = nn.LayerNorm(d), nn.LayerNorm(d), nn.Dropout(c.drop_res)
        for linear in (self.query, self.keys, self.out, up, down):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        for linear in (self.query, self.keys):  # one matrix of three blocks in the authors' code
            nn.init.uniform_(linear.weight, -math.sqrt(1.5 / d), math.sqrt(1.5 / d))

    def forward(self, x: Tensor, source: Tensor, readable: Tensor) -> Tensor:
        """x [B,T,d], source [B,T',d], readable [B,T,T'] -> [B,T,d]. A source without steps adds nothing."""
        q, (k, v) = self.query(self.norm1(x)), self.keys(self.norm1(source)).chunk(2, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))  # [B,heads,T,d/heads]
        there = readable.any(-1, keepdim=True)  # [B,T,1]
        rate = self.dropout if self.training else 0.0
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=(readable | ~there)[:, None], dropout_p=rate)
        x = x + self.drop(self.out(read.transpose(1, 2).flatten(-2)) * there)
        return x + self.drop(self.ffn(self.norm2(x)))


class Transformer(nn.Module):
    """Layers that all read the same low-level source: x, source -> [B,T,d]."""

    def __init__(self, c: MulTConfig, d: int, n_layers: int, drop_attn: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(c, d, drop_attn) for _ in range(n_layers))
        self.norm, self.drop, self.readable = nn.LayerNorm(d), nn.Dropout(c.drop_embed), READABLE[c.causal]

    def forward(self, x: Tensor, mask: Tensor, source: Tensor, source_mask: Tensor) -> Tensor:
        readable = self.readable(mask, source_mask)
        x, source = self.drop(x), self.drop(source)
        for layer in self.layers:
            x = layer(x, source, readable)
        return self.norm(x) * mask[..., None]


class Memory(Transformer):
    """Self-attention, of which only the last step is read: x [B,T,d], mask -> [B,d]."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        readable, x = self.readable(mask, mask), self.drop(x)
        for layer in self.layers[:-1]:
            x = layer(x, x, readable)
        last = at_step(x, (mask.sum(-1) - 1).clamp(min=0), mask)[:, None]
        last = self.layers[-1](last, x, mask[:, None])  # [B,1,d]: no other step of the last layer is needed
        return self.norm(last)[:, 0] * mask.any(-1, keepdim=True)


# ------------------------------------------------------------------------------------------------- Network, training


class MulTProcedure(Procedure):
    """Adam down the sum over `accumulate` batches, clipped by value after each; a plateau on the validation MAE."""

    selects = "task"

    def __init__(self, network: MulT, dataset: Dataset, config) -> None:
        super().__init__(network, dataset, config)
        self.every = network.c.accumulate
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
        self.schedules["main"] = plateau(self.optimisers["main"], factor=0.1, patience=network.c.plateau)

    def optimiser(self, groups: list[dict]) -> torch.optim.Optimizer:
        return torch.optim.Adam(groups, fused=True)

    def clip(self, optimiser: str) -> None:
        if self.config.clip:
            nn.utils.clip_grad_value_(self.network.parameters(), self.config.clip)

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
        kernels, rates = (c.kernel_t, c.kernel_a, c.kernel_v), (c.drop_attn_t, c.drop_attn_a, c.drop_attn_v)
        if c.d < 4 or min(*kernels, c.accumulate) < 1:
            raise ValueError(f"d={c.d}, kernels={kernels}, accumulate={c.accumulate}: expected at least 4, 1 and 1.")
        self.c, self.inputs, self.seen = c, Inputs(dataset, c.bert), PADDING[c.padding]
        self.room = [max(getattr(split, m).shape[1] for split in dataset.splits.values()) for m in MODALITIES]
        self.drop_text = nn.Dropout(c.drop_text)
        self.conv = nn.ModuleList(TimeConv(D, c.d, k) for D, k in zip(self.inputs.dims, kernels, strict=True))
        self.place = POSITIONS[c.positions]
        self.pairs = list(permutations(range(3), 2))  # target, source: ta, tv, at, av, vt, va
        self.cross = nn.ModuleList(Transformer(c, c.d, c.n_layers, rates[s]) for _, s in self.pairs)
        self.memory = nn.ModuleList(Memory(c, 2 * c.d, max(c.n_layers, 3), rates[0]) for _ in range(3))
        self.block = nn.Sequential(nn.Linear(6 * c.d, 6 * c.d), nn.ReLU(), nn.Dropout(c.drop_out))
        self.back, self.out = nn.Linear(6 * c.d, 6 * c.d), nn.Linear(6 * c.d, 1)

    def forward(self, batch: Batch) -> Output:
        raw, masks = self.seen(*self.inputs(batch), self.room)
        raw = [self.drop_text(raw[0]), *raw[1:]]
        X, masks = zip(*(conv(x, mask) for conv, x, mask in zip(self.conv, raw, masks, strict=True)), strict=True)
        Z = [self.place(x) for x in X]  # Z_m^[0], [B,T_m,d]
        read = [net(Z[m], masks[m], Z[s], masks[s]) for net, (m, s) in zip(self.cross, self.pairs, strict=True)]
        both = [torch.cat(read[2 * m : 2 * m + 2], -1) for m in range(3)]  # [B,T_m,2d]
        h = torch.cat([self.memory[m](self.place(both[m]), masks[m]) for m in range(3)], -1)  # [B,6d]
        return Output(self.out(self.back(self.block(h)) + h)[:, 0], {})

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        """Mean absolute error."""
        return weighted(task=(1.0, F.l1_loss(output.prediction, batch.labels)))
