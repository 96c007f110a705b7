"""PriSA: "Multimodal Sentiment Analysis with Preferential Fusion and Distance-aware Contrastive Learning" (Ma, Zhang,
Sun, ICME 2023). Written from its description and compared with the authors' code, FeipengMa6/PriSA at d0a09d0.

Read top-down: audio and vision get a summarising first step -> private path: each by itself -> preferential fusion:
each reads text, the preferred modality, and then itself -> a head on the four summaries together and one on each ->
a contrast that takes samples for alike by the distance of their labels.

Specified (by the code): sizes, losses and training for MOSEI; feature sizes for MOSI. Ours: MOSI and CH-SIMS have
MOSEI's settings, and CH-SIMS, on its narrower scale of labels, a third of its label distance; a modality that a sample
lacks consists of the summarising step alone, and its own losses and contrasts leave it out; a sample none differs from
has no negative term (the code divides 0 by 0); the last pooled step may hold less than three.

What the released code does differently is a switch:
- `heads_order="scrambled"`: the attention's result [B,heads,T,d/heads] is reinterpreted as [B,T,d] without putting the
  heads of a step together, so that the summarising step is of the first head at the first steps, and all depends on the
  padded width: that of the file, of which the code drops the last step to make room for the summary. (A batch that is
  augmented is narrower there; here its width stays.)
- `private="last"`: of three private layers each reads the input again, and only the last one's result is used.
- `flip="features"`: the flip that augments training reverses features, not time.
- `summary_score=1`: the additive mask has 1 where the summary should have 0.
- `w_private=0`: the contrast of private and fused summaries is computed and not added.
Idle in it besides: two private layers each, two unused networks and a head for text. What is augmented passes no
gradient to the projections (kept).

Published: by re-runs of MODS, MOSI MAE .719, Corr .782, Acc-2 83.3/85.4; MOSEI .536, .761, 82.1/85.2. The paper's own
table was not at hand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msa_lib.data import Batch, Dataset
from msa_lib.data.dataset import steps_mask
from msa_lib.models.card import Card, Stated, lacking
from msa_lib.models.parts.crossmodal import CrossLayer, joined, positions
from msa_lib.models.parts.dropout import Dropout
from msa_lib.models.parts.inputs import Inputs
from msa_lib.models.parts.layers import Output, as_extras
from msa_lib.models.parts.losses import mean_of, weighted
from msa_lib.models.parts.recurrent import along_time
from msa_lib.models.parts.subnets import room_of
from msa_lib.train.procedure import Procedure


@dataclass(frozen=True)
class PriSAConfig:
    """MOSEI's settings."""

    d: int = 128
    heads: int = 4
    n_private: int = 3
    n_layers: int = 3  # of self-attention after the one that reads text
    embed_dropout: float = 0.1
    attn_dropout: float = 0.0
    relu_dropout: float = 0.1
    res_dropout: float = 0.1
    out_dropout: float = 0.5
    flip_rate: float = 0.1  # of batches whose audio, or vision, is flipped
    pool_rate: float = 0.08  # of batches in which means of three steps stand for them
    tau: float = 0.1
    distance: float = 0.9  # of labels: beyond it, or with another sign, samples are negatives
    w_fused: float = 0.01  # of the contrast between the two fused summaries
    w_private: float = 0.01  # of that between a fused and a private one
    lr_audio: float = 1e-3  # of the layers by which audio reads text, and itself thereafter
    bert: Literal["precomputed", "frozen", "finetune"] = "precomputed"
    heads_order: Literal["joined", "scrambled"] = "joined"
    private: Literal["stacked", "last"] = "stacked"
    flip: Literal["time", "features"] = "time"
    summary_score: float = 0.0  # added to the attention scores of the summarising step


RELEASED = {"heads_order": "scrambled", "private": "last", "flip": "features", "summary_score": 1.0, "w_private": 0.0}
VARIANTS = {"full": {}, "no contrast": {"w_fused": 0.0, "w_private": 0.0}, "as released": RELEASED}
CARD = Card(
    paper="Ma, Zhang, Sun, Multimodal Sentiment Analysis with Preferential Fusion and Distance-aware Contrastive "
    "Learning, ICME 2023",
    fidelity="specified",
    specified="The network, its losses and training for MOSEI, by the authors' code.",
    ours="MOSI, CH-SIMS and its v2 have MOSEI's settings; heads are joined, private layers stacked, time is flipped "
    "and the private contrast added, where the code has slips; what a sample lacks is in no loss of its own; text "
    "features that are given (the code trains BERT along: bert=finetune).",
    choices=("bert", "heads_order", "private", "flip", "summary_score", "w_private"),
)


def _recipe(source: str, distance: Stated) -> dict[str, Stated]:
    training = {"batch_size": 64, "lr": 1e-4, "lr_encoder": 1e-5, "lr_audio": 1e-3, "epochs": 100, "drop_last": True}
    training |= {"patience": 4, "clip": 0.0, "weight_decay": 0.0}  # it stops at the fourth epoch that is no better
    return {name: Stated(value, source) for name, value in training.items()} | {"distance": distance}


_CODE, _OURS = "FeipengMa6/PriSA d0a09d0, mosei.yml, main.py and its trainer", "ours: MOSEI's; the code has no other"
_NARROW = Stated(0.3, "ours: MOSEI's by the range of labels")
RECIPES = {
    "mosi": _recipe(_OURS, Stated(0.9, _OURS)),
    "mosei": _recipe(_CODE, Stated(0.9, _CODE)),
    "sims": _recipe(_OURS, _NARROW),
    "simsv2": _recipe(_OURS, _NARROW),
}
SMALL = {"d": 16, "heads": 2, "n_private": 2, "n_layers": 1}

# -------------------------------------------------------------------------------------- Sequences with a first step


def scrambled(x: Tensor) -> Tensor:
    """Head after head, each with all its steps, read as if it were step after step: [B,heads,T,d/heads] -> [B,T,d]."""
    return x.reshape(len(x), x.shape[2], -1)


def to_room(x: Tensor, mask: Tensor, room: int) -> tuple[Tensor, Tensor]:
    """As wide as the data file, less the step that the summary takes."""
    more = room - 1 - x.shape[1]
    return F.pad(x, (0, 0, 0, more)), F.pad(mask, (0, more))


ORDER = {"joined": (joined, lambda x, mask, room: (x, mask)), "scrambled": (scrambled, to_room)}


def along_features(x: Tensor, frames: Tensor) -> Tensor:
    return x.flip(-1)


def backwards(x: Tensor, frames: Tensor) -> Tensor:
    """The frames [B,1+T] of each sample in reverse; its first step stays."""
    step = torch.arange(x.shape[1], device=x.device)
    return along_time(x, torch.where(frames, frames.sum(-1, keepdim=True) + 1 - step, step))


FLIP = {"time": backwards, "features": along_features}


class Augment(nn.Module):
    """In training, x [B,1+T,d] and its frames are now and then flipped, and now and then pooled, a batch at a time."""

    stride = 3

    def __init__(self, c: PriSAConfig) -> None:
        super().__init__()
        self.rates, self.flip = (c.flip_rate, c.pool_rate), FLIP[c.flip]

    def forward(self, x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        if not self.training:
            return x, frames
        flip, pool = (torch.rand((), device=x.device) < rate for rate in self.rates)
        x = torch.where(flip, self.flip(x, frames).detach(), x)
        pooled, kept = self.pooled(x.detach(), frames)
        return torch.where(pool, pooled, x), torch.where(pool, kept, frames)

    def pooled(self, x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Means of three frames each, padding's zeros included, as wide as before."""
        steps, n = x.shape[1] - 1, frames.sum(-1)
        means = F.pad(x[:, 1:], (0, 0, 0, -steps % self.stride)).unflatten(1, (-1, self.stride)).mean(2)
        means = F.pad(means, (0, 0, 1, steps - means.shape[1]))  # the first step is zeros, as in x
        return means, F.pad(steps_mask(-(-n // self.stride), steps), (1, 0))


def scores(frames: Tensor, summary: float) -> Tensor:
    """What is added to attention scores, [B,1,1,1+T]: nothing for a frame, `summary` for the first step."""
    added = torch.where(frames, 0.0, -math.inf)
    return F.pad(added[:, 1:], (1, 0), value=summary)[:, None, None]


# ----------------------------------------------------------------------------------------------- Paths of a modality


class Private(nn.Module):
    """x [B,1+T,d] and its frames -> its first step after attention to itself, [B,d]."""

    def __init__(self, c: PriSAConfig) -> None:
        super().__init__()
        n_layers = {"stacked": c.n_private, "last": 1}[c.private]
        self.layers, self.norm, self.summary = layers(c, n_layers), nn.LayerNorm(c.d), c.summary_score

    def forward(self, x: Tensor, frames: Tensor) -> Tensor:
        x, see = x + positions(frames, x.shape[-1]), scores(frames, self.summary)
        for layer in self.layers:
            x = layer.alone(x, see)
        return self.norm(x)[:, 0]


class Preferential(nn.Module):
    """The same after attention to the preferred modality, text [B,T',d] of which `there` are steps."""

    def __init__(self, c: PriSAConfig) -> None:
        super().__init__()
        self.layers, self.norm, self.summary = layers(c, 1 + c.n_layers), nn.LayerNorm(c.d), c.summary_score
        self.drop = Dropout(c.embed_dropout)

    def forward(self, x: Tensor, frames: Tensor, text: Tensor, there: Tensor) -> Tensor:
        d, any_step = x.shape[-1], there.any(-1)[:, None, None]
        x = self.drop(math.sqrt(d) * x + positions(frames, d))
        first, *others = self.layers
        x = first(x, text, there[:, None, None] | ~any_step[..., None], any_step)
        for layer in others:
            x = layer.alone(x, scores(frames, self.summary))
        return self.norm(x)[:, 0]


def layers(c: PriSAConfig, n: int) -> nn.ModuleList:
    rates = c.attn_dropout, c.relu_dropout, c.res_dropout
    return nn.ModuleList(CrossLayer(c.d, c.heads, *rates, merge=ORDER[c.heads_order][0]) for _ in range(n))


def head(size: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, size), Dropout(dropout), nn.ReLU(), nn.Linear(size, 1))


# ----------------------------------------------------------------------------------------- Loss, training and network


class Trace(NamedTuple):
    """What a forward leaves behind for the losses. Of audio and vision in both: fused, then private."""

    states: Tensor  # [B,4,d]
    own: Tensor  # predictions [B,4]


def distance_contrast(x: Tensor, z: Tensor, labels: Tensor, here: Tensor, tau: float, distance: float) -> Tensor:
    """Each x [B,d] among all z: mean -log p of those of a near label and equal sign, mean -log(1-p) of the others."""
    S = F.normalize(x, dim=-1) @ F.normalize(z, dim=-1).T / tau  # [B,B]
    p = torch.softmax(S.masked_fill(~here, -1e4), -1)
    negative = labels < 0
    apart = ((labels[:, None] - labels).abs() > distance) | (negative[:, None] != negative)
    both = here[:, None] & here
    near, far = (both & ~apart).to(p.dtype), (both & apart).to(p.dtype)
    rows = -(torch.log(p + 1e-10) * near).sum(-1) / near.sum(-1).clamp(min=1)
    rows = rows - (torch.log(1 - p + 1e-10) * far).sum(-1) / far.sum(-1).clamp(min=1)
    return mean_of(rows, here)


class PriSAProcedure(Procedure):
    """Adam; audio's path to text has its own rate. Rates rise over five epochs and fall to a tenth after 20 and 50."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.schedules["main"] = torch.optim.lr_scheduler.LambdaLR(self.optimisers["main"], factor)

    def groups(self) -> list[dict]:
        c, own = self.config, self.network.c.lr_audio
        rates = {"fused.0.layers.": own, "inputs.text_encoder.": c.lr_encoder, "": c.lr}
        groups: dict[str, list] = {part: [] for part in rates}
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                groups[next(part for part in rates if name.startswith(part))].append(parameter)
        return [{"params": p, "lr": rates[part], "weight_decay": c.weight_decay} for part, p in groups.items() if p]

    def optimiser(self, groups: list[dict]) -> torch.optim.Optimizer:
        return torch.optim.Adam(groups, fused=True)

    def end_epoch(self, record: Mapping, score: float) -> None:
        self.schedules["main"].step()


def factor(epochs: int) -> float:
    """Of the rates after that many epochs."""
    return min((epochs + 1) / 5, 0.1 ** sum(epochs >= milestone for milestone in (20, 50)))


class PriSA(nn.Module):
    """The whole network."""

    Config, VARIANTS, CARD, RECIPES, SMALL, Procedure = PriSAConfig, VARIANTS, CARD, RECIPES, SMALL, PriSAProcedure
    RECORD = ()

    @staticmethod
    def fits(dataset: Dataset, switches: Mapping) -> str:
        """Why this model is not possible on the data set; empty if it is."""
        return lacking(dataset, "tav")

    def __init__(self, dataset: Dataset, c: PriSAConfig) -> None:
        super().__init__()
        self.c, self.inputs, self.room, self.fit = c, Inputs(dataset, c.bert), room_of(dataset), ORDER[c.heads_order][1]
        self.project = nn.ModuleList(nn.Linear(D, c.d, bias=False) for D in self.inputs.dims)
        self.augment, self.drop = Augment(c), Dropout(c.embed_dropout)
        self.private = nn.ModuleList(Private(c) for _ in range(2))
        self.fused = nn.ModuleList(Preferential(c) for _ in range(2))
        self.own = nn.ModuleList(head(c.d, c.out_dropout) for _ in range(4))
        self.head = head(4 * c.d, c.out_dropout)

    def forward(self, batch: Batch) -> Output:
        raw, (there, *masks) = self.inputs(batch)  # [B,T,D], [B,T]
        text, *X = (project(x) for project, x in zip(self.project, raw, strict=True))  # [B,T,d]
        pairs = [self.fit(*pair, room) for *pair, room in zip(X, masks, self.room[1:], strict=True)]
        X = [F.pad(x, (0, 0, 1, 0)) for x, _ in pairs]  # [B,1+T,d], the first step all zeros
        frames = [F.pad(mask, (1, 0)) for _, mask in pairs]  # [B,1+T]
        states = [net(x, frame) for net, x, frame in zip(self.private, X, frames, strict=True)]  # [B,d]

        text = self.drop(math.sqrt(self.c.d) * text)
        fused = [net(*self.augment(x, f), text, there) for net, x, f in zip(self.fused, X, frames, strict=True)]
        states = torch.stack([*fused, *states], 1)  # [B,4,d]
        own = torch.cat([head(states[:, i]) for i, head in enumerate(self.own)], -1)  # [B,4]
        return Output(self.head(states.flatten(1))[:, 0], as_extras(Trace(states, own)))

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        t, c, y, here = Trace(**output.extras), self.c, batch.labels, batch.lengths[:, 1:] > 0  # [B,2]

        def contrast(i: int, j: int, both: Tensor) -> Tensor:
            x, z = t.states[:, i], t.states[:, j]
            return sum(distance_contrast(*pair, y, both, c.tau, c.distance) for pair in ((x, z), (z, x)))

        errors = (t.own - y[:, None]).abs()
        return weighted(
            task=(1.0, F.l1_loss(output.prediction, y)),
            own=(1.0, sum(mean_of(errors[:, i], here[:, i % 2]) for i in range(4))),
            fused=(c.w_fused, contrast(0, 1, here.all(-1))),
            private=(c.w_private, contrast(2, 0, here[:, 0]) + contrast(3, 1, here[:, 1])),
        )
