"""MSG: "Dynamically Shifting Multimodal Representations via Hybrid-Modal Attention for Multimodal Sentiment Analysis"
(Lin, Hu, IEEE Transactions on Multimedia 26, 2024). No code was released and the paper was not at hand: this is built
from its abstract, and from the shift of MAG (Rahman et al., ACL 2020), whose successor it is.

Read top-down, in stages: a sequence per modality; text after its first Transformer layer is its syntactic level ->
masked bimodal adjustment (MBA): text asks audio, and vision -> the rest of text's layers give its semantic level -> a
shifting gate on each modality: what hybrid-modal attention to the other two finds moves it, by a share of its own
length at most -> means over time and the prediction. The shifting Huber loss counts how far things were moved.

Stated (abstract): several stages; gates that shift all three modalities by hybrid-modal attention; masked bimodal
adjustment of text against the gap between modalities; syntactic and semantic text from different Transformer layers;
a Huber loss with the shift's variation in it.
Ours: the form of all that, each with one alternative. `levels`: both are read in the end (semantic: that one alone).
The layers are of our own Transformer over the text features, where the paper may mean those of BERT.
`masking`: in training, the adjustment is of a text in which a share of steps is zero (none: of the whole text). `gate`:
sigmoid of modality and finding (none: the finding as it is, as in a sketch by others). `hybrid`: one attention to the
other two sequences, one after the other (separate: one each, summed). `huber`: the size of the shift, under a Huber
function too, is added (threshold: it widens the quadratic part of the error's). All sizes, weights and settings.
A modality that a sample lacks is neither moved nor read.

Published, as others quote it (MAE, Corr, Acc-2, Acc-7): MOSI .748, .782, 85.6, 47.3; MOSEI .583, .787, 85.4, 52.8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from msa_lib.data import Batch, Dataset
from msa_lib.models.card import Card, Stated, all_but, lacking
from msa_lib.models.parts.dropout import Dropout
from msa_lib.models.parts.inputs import Inputs
from msa_lib.models.parts.layers import (
    Attention,
    EncoderBlock,
    Output,
    as_extras,
    masked_mean,
    mlp,
    sinusoid,
    unchanged,
)
from msa_lib.models.parts.losses import mean_of, weighted
from msa_lib.train.procedure import Adam

OTHERS = ((1, 2), (0, 2), (0, 1))


@dataclass(frozen=True)
class MSGConfig:
    d: int = 128
    heads: int = 4
    n_layers: int = 3  # of text: the first is the syntactic level, the last the semantic one; audio and vision have one
    dropout: float = 0.1
    mask_rate: float = 0.15  # of the steps of text, in training
    delta: float = 1.0  # where the Huber function turns from square to straight, in points of the label
    shift_weight: float = 0.1  # of the shift in the loss
    levels: Literal["both", "semantic"] = "both"
    masking: Literal["steps", "none"] = "steps"
    gate: Literal["sigmoid", "none"] = "sigmoid"
    hybrid: Literal["joint", "separate"] = "joint"
    huber: Literal["added", "threshold"] = "added"
    bert: Literal["precomputed", "frozen", "finetune"] = "precomputed"


VARIANTS = {
    "full": {},
    "semantic level only": {"levels": "semantic"},
    "no masking": {"masking": "none"},
    "shift without gate": {"gate": "none"},
    "separate attention": {"hybrid": "separate"},
    "shift in the threshold": {"huber": "threshold"},
}
CARD = Card(
    paper="Lin, Hu, Dynamically Shifting Multimodal Representations via Hybrid-Modal Attention for Multimodal "
    "Sentiment Analysis, IEEE Transactions on Multimedia 2024",
    fidelity="partial",
    specified="That three gates shift all modalities by hybrid-modal attention, text is adjusted under a mask and has "
    "two levels, and the Huber loss knows of the shift.",
    ours="The form of every part and loss, from the abstract alone; all sizes, weights and training settings.",
    choices=all_but(MSGConfig),
)
_TRAINING = {"batch_size": 32, "lr": 1e-4, "lr_encoder": 2e-5, "weight_decay": 0.0, "clip": 1.0, "patience": 10}
_OURS = {name: Stated(value, "ours: nothing is known") for name, value in _TRAINING.items()}
RECIPES = {
    "mosi": _OURS,
    "mosei": _OURS,
    "sims": _OURS | {"delta": Stated(0.3, "ours: labels in a third of the range")},
    "simsv2": _OURS | {"delta": Stated(0.3, "ours: labels in a third of the range")},
}
SMALL = {"d": 16, "heads": 2, "n_layers": 2}


class Trace(NamedTuple):
    """What a forward leaves behind for the losses and the notebooks."""

    shift: Tensor  # mean over steps of how far each modality was moved, as a share of its length, [B,M]
    available: Tensor  # [B,M]


# --------------------------------------------------------------------------------- masked bimodal adjustment (MBA)


class MaskedSteps(nn.Module):
    """In training a share of the steps of x [B,T,d] is zero."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.drop = Dropout(rate)

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(self.drop(torch.ones_like(x[..., :1])) > 0, x, 0.0)


class MBA(nn.Module):
    """Text [B,T,d] with masked steps asks audio, and asks vision; text is added to the answers."""

    def __init__(self, c: MSGConfig) -> None:
        super().__init__()
        self.mask, self.norm = MASKING[c.masking](c), nn.LayerNorm(c.d)
        self.ask = nn.ModuleList(Attention(c.d, c.heads, c.dropout) for _ in range(2))
        self.drop = Dropout(c.dropout)

    def forward(self, text: Tensor, others: list[Tensor], masks: list[Tensor]) -> Tensor:
        query = self.mask(text)
        for ask, x, mask in zip(self.ask, others, masks, strict=True):
            text = text + self.drop(ask(query, x, mask))
        return self.norm(text)


MASKING = {"steps": lambda c: MaskedSteps(c.mask_rate), "none": lambda c: unchanged}

# ------------------------------------------------------------------------ hybrid-modal attention and shifting gates


class Joint(nn.Module):
    """x [B,T,d] asks the steps of both other modalities at once."""

    def __init__(self, c: MSGConfig) -> None:
        super().__init__()
        self.attention = Attention(c.d, c.heads, c.dropout)

    def forward(self, x: Tensor, others: list[Tensor], masks: list[Tensor]) -> Tensor:
        return self.attention(x, torch.cat(others, 1), torch.cat(masks, 1))


class Separate(nn.Module):
    """It asks each of them; the sum of the answers."""

    def __init__(self, c: MSGConfig) -> None:
        super().__init__()
        self.attention = nn.ModuleList(Attention(c.d, c.heads, c.dropout) for _ in range(2))

    def forward(self, x: Tensor, others: list[Tensor], masks: list[Tensor]) -> Tensor:
        return sum(ask(x, *other) for ask, *other in zip(self.attention, others, masks, strict=True))


class SigmoidGate(nn.Module):
    """How much of each feature of the finding h passes, by h and the modality x."""

    def __init__(self, c: MSGConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * c.d, c.d)

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        return torch.sigmoid(self.linear(torch.cat([x, h], -1))) * h


HYBRID = {"joint": Joint, "separate": Separate}
GATE = {"sigmoid": SigmoidGate, "none": lambda c: unchanged}


class ShiftingGate(nn.Module):
    """One modality x [B,T,d], moved by what it finds in the others -> [B,T,d] and the share of its length, [B,T].

    x + eta h, eta = min(1, mu |x| / |h|): it is not moved farther than mu of its own length.
    """

    def __init__(self, c: MSGConfig) -> None:
        super().__init__()
        self.hybrid, self.gate, self.norm = HYBRID[c.hybrid](c), GATE[c.gate](c), nn.LayerNorm(c.d)
        self.drop = Dropout(c.dropout)

    def forward(self, x: Tensor, others: list[Tensor], masks: list[Tensor], mu: Tensor) -> tuple[Tensor, Tensor]:
        h = self.gate(self.hybrid(x, others, masks), x)
        own, found = length(x), length(h)  # [B,T]
        eta = (mu * own / found).clamp(max=1.0)
        return self.norm(self.drop(x + eta[..., None] * h)), eta * found / own


def length(x: Tensor) -> Tensor:
    """Of the vectors x [...,d]; never 0, so that its gradient is finite."""
    return (x.square().sum(-1) + 1e-7).sqrt()


# ---------------------------------------------------------------------------------------------- shifting Huber loss


def huber(error: Tensor, delta: float | Tensor) -> Tensor:
    """Half the square up to delta, straight beyond."""
    size = error.abs()
    return torch.where(size <= delta, size * size / 2, delta * (size - delta / 2))


def added(error: Tensor, t: Trace, c: MSGConfig) -> dict[str, tuple[float, Tensor]]:
    """The shift has a Huber function of its own, mean over the modalities that are there."""
    shift = mean_of(huber(t.shift, c.delta), t.available)
    return {"task": (1.0, huber(error, c.delta).mean()), "shift": (c.shift_weight, shift)}


def threshold(error: Tensor, t: Trace, c: MSGConfig) -> dict[str, tuple[float, Tensor]]:
    """A sample that is moved farther is forgiven more: delta (1 + weight x shift), mean shift of its modalities."""
    here = t.available.to(error.dtype)
    shift = (t.shift * here).sum(-1) / here.sum(-1).clamp(min=1)  # [B]
    return {"task": (1.0, huber(error, c.delta * (1 + c.shift_weight * shift)).mean())}


HUBER = {"added": added, "threshold": threshold}
LEVELS = {"both": unchanged, "semantic": lambda levels: levels[1:]}


class MSG(nn.Module):
    Config, VARIANTS, CARD, RECIPES, SMALL, Procedure = MSGConfig, VARIANTS, CARD, RECIPES, SMALL, Adam
    RECORD = ("shift",)

    @staticmethod
    def fits(dataset: Dataset, switches: Mapping) -> str:
        return lacking(dataset, "tav")

    def __init__(self, dataset: Dataset, c: MSGConfig) -> None:
        super().__init__()
        if c.n_layers < 2:
            raise ValueError(f"n_layers={c.n_layers}: the two levels of text need at least 2.")
        if not 0 <= c.mask_rate < 1 or c.delta <= 0:
            raise ValueError("Expected mask_rate in [0,1) and a positive delta.")
        self.c, self.inputs = c, Inputs(dataset, c.bert)
        self.proj = nn.ModuleList(nn.Linear(size, c.d) for size in self.inputs.dims)
        first, self.deeper = (
            nn.ModuleList(EncoderBlock(c.d, c.heads, 4 * c.d, c.dropout) for _ in range(n)) for n in (3, c.n_layers - 1)
        )
        self.first = first  # of each modality; text's is its syntactic level
        self.mba = MBA(c)
        self.gates = nn.ModuleList(ShiftingGate(c) for _ in range(3))
        self.mu = nn.Parameter(torch.tensor([0.5]))  # of all three: one alone may never reach its limit
        self.levels = LEVELS[c.levels]
        self.out = mlp((3 + (c.levels == "both")) * c.d, c.d, 1, dropout=c.dropout)
        self.huber = HUBER[c.huber]

    def forward(self, batch: Batch) -> Output:
        raw, masks = self.inputs(batch)  # [B,T,D], [B,T] each
        X = [f(x) for f, x in zip(self.proj, raw, strict=True)]
        X = [x + sinusoid(x.shape[1], x.shape[2], x.device) for x in X]
        syntactic, *others = (block(x, mask) for block, x, mask in zip(self.first, X, masks, strict=True))
        text = self.mba(syntactic, others, masks[1:])
        for block in self.deeper:
            text = block(text, masks[0])
        X, moved, shift = [text, *others], [], []
        for m, gate in enumerate(self.gates):
            x, share = gate(X[m], [X[n] for n in OTHERS[m]], [masks[n] for n in OTHERS[m]], self.mu)
            moved.append(masked_mean(x, masks[m]))  # [B,d]
            shift.append(masked_mean(share[..., None], masks[m])[..., 0])
        h = self.levels([masked_mean(syntactic, masks[0]), *moved])
        available = torch.stack([mask.any(-1) for mask in masks], 1)
        return Output(self.out(torch.cat(h, -1))[:, 0], as_extras(Trace(torch.stack(shift, 1), available)))

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        return weighted(**self.huber(output.prediction - batch.labels, Trace(**output.extras), self.c))
