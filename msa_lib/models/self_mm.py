"""Self-MM: "Learning Modality-Specific Representations with Self-Supervised Multi-Task Learning for Multimodal
Sentiment Analysis" (Yu, Xu, Yuan, Wu, AAAI 2021). Written after the code of the authors (thuiar/Self-MM, 1786283, equal
in thuiar/MMSA, a94e65d), in our own words; equations carry no numbers because the paper was not at hand.

Read top-down: one vector per modality -> a head for their concatenation, which predicts, and one for each of them ->
what labels the three are trained on: they are made, for every training sample anew in each epoch, from how much nearer
each head's features are to the centre of the positive samples than to that of the negative ones, and from the label.

Specified (by the code): sizes, heads, loss, the order of its steps, groups and rates, four batches per step.
Ours: an absent modality is zeros, in no centre and in no loss of its own; a class without samples has its centre at 0
(the released code gets NaN); `text=mean` for features without a summarising first token.

Distances are plain here, as in the code; `distance=squared` is the paper's equation as we remember it, unverified (its
division by the root of the width cancels in what follows). Labels are held within the range of the data set's, also as
in the code, save for SIMSv2, where MMSA has 3 for labels within 1: its recipe says so (`reach`). In the first epoch
features not yet seen are zeros, labels do not change and the three tasks have weight 0: that is the code's, kept.
MMSA's `t_bert_dropout` does nothing. MMSA and the authors' repository have different settings; the recipes are MMSA's.

Published: MOSI MAE .713, Corr .798, Acc-2 84.00/85.98; MOSEI .530, .765, 82.81/85.17 (secondary; SIMS .419, .616 is
from memory). The authors lost the settings of the paper. MMSA (its result-stat.md, five seeds): MOSI .708, .796; MOSEI
.531, .765; SIMS .425, .595; SIMSv2 .311, .695. Others' runs on MOSI: .725, .794 (an issue) and .758, .779 (secondary).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msa_lib import MODALITIES
from msa_lib.data import Batch, Dataset
from msa_lib.data.dataset import LABEL_RANGE
from msa_lib.models.card import Card, Stated, lacking
from msa_lib.models.parts.dropout import Dropout
from msa_lib.models.parts.inputs import TEXT_VECTOR, Inputs
from msa_lib.models.parts.layers import Output, as_extras
from msa_lib.models.parts.losses import mean_of, weighted
from msa_lib.models.parts.recurrent import SequenceEncoder
from msa_lib.train.procedure import Procedure


@dataclass(frozen=True)
class SelfMMConfig:
    """Sizes and rates are those of MMSA for MOSI; its recipes say the others. `t`, `a`, `v` stand for modalities."""

    hidden_a: int = 16  # of the LSTMs
    hidden_v: int = 32
    out_a: int = 16  # of the vectors
    out_v: int = 32
    d: int = 128  # of the features of the fusion
    d_t: int = 32  # of each modality's own
    d_a: int = 16
    d_v: int = 32
    dropout: float = 0.0  # on what is fused
    dropout_t: float = 0.1  # on the vector before its own head
    dropout_a: float = 0.1
    dropout_v: float = 0.0
    unimodal: bool = True  # the three tasks with generated labels
    distance: Literal["plain", "squared"] = "plain"
    reach: Literal["labels", "three"] = "labels"  # of generated labels
    accumulation: int = 4  # batches per step of the optimiser, their gradients summed
    lr_a: float = 5e-3  # of the encoders; all else has those of the training settings
    lr_v: float = 5e-3
    decay_a: float = 1e-3
    decay_v: float = 1e-3
    decay_encoder: float = 1e-3  # of a text encoder that is trained along
    bert: Literal["precomputed", "frozen", "finetune"] = "precomputed"
    text: Literal["first", "mean"] = "first"  # token that stands for the text


CARD = Card(
    paper="Yu, Xu, Yuan, Wu, Learning Modality-Specific Representations with Self-Supervised Multi-Task Learning for "
    "Multimodal Sentiment Analysis, AAAI 2021",
    fidelity="specified",
    specified="Sizes, heads, generated labels, the order of steps and the optimiser's groups, by the authors' code.",
    ours="What lacks a modality is in no centre and no loss of it; a class without samples has its centre at 0; "
    "distances are the code's, not the paper's as remembered; features without a first token can be averaged.",
    choices=("text", "bert", "distance"),
)
VARIANTS = {"full": {}, "one task": {"unimodal": False}, "squared distances": {"distance": "squared"}}
SMALL = {"hidden_a": 6, "hidden_v": 6, "out_a": 6, "out_v": 6, "d": 12, "d_t": 8, "d_a": 6, "d_v": 6, "accumulation": 1}
SMALL |= {"text": "mean"}  # planted text begins with no token that sums it up


def _recipe(batch_size: int, lr: tuple, decay: tuple, d: tuple, dropout: tuple, **more) -> dict[str, Stated]:
    """As MMSA writes it: rates and decays of encoder, audio, vision and all else; `d` and `dropout` of text, audio,
    vision, the latter of the fusion first."""
    values = dict(zip(("lr_encoder", "lr_a", "lr_v", "lr"), lr, strict=True))
    values |= dict(zip(("decay_encoder", "decay_a", "decay_v", "weight_decay"), decay, strict=True))
    values |= dict(zip(("d_t", "d_a", "d_v"), d, strict=True))
    values |= dict(zip(("dropout", "dropout_t", "dropout_a", "dropout_v"), dropout, strict=True))
    values |= {"batch_size": batch_size, "patience": 8, "accumulation": 4, **more}
    stated = {name: Stated(value, "thuiar/MMSA a94e65d, config_regression.json") for name, value in values.items()}
    trainer = {"clip": 0.0, "drop_last": False}
    return stated | {name: Stated(value, "thuiar/MMSA a94e65d, trainer of Self-MM") for name, value in trainer.items()}


RECIPES = {
    "mosi": _recipe(16, (5e-5, 5e-3, 5e-3, 1e-3), (1e-3,) * 4, (32, 16, 32), (0.0, 0.1, 0.1, 0.0)),
    "mosei": _recipe(32, (5e-5, 5e-3, 1e-4, 1e-3), (1e-3, 0.0, 0.0, 1e-2), (32, 16, 32), (0.1, 0.0, 0.0, 0.0)),
    "sims": _recipe(
        32, (5e-5, 5e-3, 5e-3, 1e-3), (1e-3, 1e-2, 1e-2, 1e-3), (64, 16, 32), (0.0, 0.1, 0.1, 0.0), hidden_v=64
    ),
    "simsv2": _recipe(
        16, (5e-5, 1e-3, 1e-3, 1e-3), (1e-2, 0.0, 0.0, 1e-3), (64, 32, 32), (0.0, 0.0, 0.1, 0.0),
        hidden_v=64, reach="three",
    ),
}  # fmt: skip
HEADS = ("fusion", *MODALITIES)


class Trace(NamedTuple):
    """What a forward leaves behind: each head's features, by which labels are made, and what the three predict."""

    fusion: Tensor  # [B,d]
    text: Tensor  # [B,d_t]
    audio: Tensor  # [B,d_a]
    vision: Tensor  # [B,d_v]
    unimodal: Tensor  # [B,M]


class Head(nn.Module):
    """A vector [B,size] -> its features [B,d] and a prediction [B]."""

    def __init__(self, size: int, d: int, dropout: float) -> None:
        super().__init__()
        self.drop, self.linear1, self.linear2 = Dropout(dropout), nn.Linear(size, d), nn.Linear(d, d)
        self.out = nn.Linear(d, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        f = torch.relu(self.linear1(self.drop(x)))
        return f, self.out(torch.relu(self.linear2(f)))[:, 0]


# ------------------------------------------------------------------------------------------- labels of each modality

EPS = 1e-8
DISTANCE = {"plain": lambda gap: gap.norm(dim=-1), "squared": lambda gap: gap.square().sum(-1)}
REACH = {"labels": lambda scale: LABEL_RANGE[scale], "three": lambda scale: 3.0}


def centres(features: Tensor, labels: Tensor, here: Tensor) -> Tensor:
    """Means of features [N,d] over the samples with a positive and with a negative label [N] -> [2,d]."""
    w = (torch.stack([labels > 0, labels < 0]) & here).to(features.dtype)  # [2,N]
    return w @ features / w.sum(1, keepdim=True).clamp(min=1)


def lean(features: Tensor, centres: Tensor, distance: str) -> Tensor:
    """How much nearer to the positive centre than to the negative one features [B,d] are, relative to it: [B]."""
    to_positive, to_negative = DISTANCE[distance](features[:, None] - centres).unbind(1)
    return (to_negative - to_positive) / (to_positive + EPS)


def generated(y: Tensor, lean_s: Tensor, lean_m: Tensor, reach: float) -> Tensor:
    """A modality's label, by its lean [B] and that of the fusion [B]: the mean of y scaled and of y shifted."""
    return (lean_s / (lean_m + EPS) * y + y + lean_s - lean_m).div(2).clamp(-reach, reach)


class LabelGeneration(Procedure):
    """One Adam with a rate and a decay for each part. A label per training sample and modality moves towards the
    generated one, from the second epoch on; the memory also holds every sample's last features."""

    selects = "task"

    def __init__(self, network: SelfMM, dataset: Dataset, config) -> None:
        super().__init__(network, dataset, config)
        c, train = network.c, dataset.train
        self.every, self.reach = c.accumulation, REACH[c.reach](dataset.scale)
        self.here = F.pad(train.lengths > 0, (1, 0), value=True)  # [N,1+M]: the fusion is always there
        self.memory["labels"] = train.labels[:, None].repeat(1, 4)  # of the fusion (they stay), text, audio, vision
        for name, head in network.heads.items():
            self.memory[name] = train.labels.new_zeros(len(train), head.linear1.out_features)

    def groups(self) -> list[dict]:
        c, rest = self.network.c, self.config
        rates = {
            "inputs.": (rest.lr_encoder, c.decay_encoder),
            "audio.": (c.lr_a, c.decay_a),
            "vision.": (c.lr_v, c.decay_v),
            "heads.": (rest.lr, rest.weight_decay),
        }
        groups: dict[tuple[float, float], list] = {}
        for name, p in self.network.named_parameters():
            if p.requires_grad:
                lr, decay = next(rates[part] for part in rates if name.startswith(part))
                vector = name.startswith("inputs.") and p.ndim < 2  # of the text encoder: its biases and norms
                groups.setdefault((lr, 0.0 if vector else decay), []).append(p)
        return [{"params": p, "lr": lr, "weight_decay": decay} for (lr, decay), p in groups.items()]

    def optimiser(self, groups: list[dict]) -> torch.optim.Optimizer:
        return torch.optim.Adam(groups, fused=True)

    def begin_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        return TASKS[self.network.c.unimodal](self, batch, output)

    def after_step(self, batch: Batch, output: Output) -> None:
        n, i, t = self.epoch, batch.index, Trace(**output.extras)
        if n > 1:  # the first epoch only fills the memory
            target = self.target(i, t)
            self.memory["labels"][i, 1:] = (n - 1) / (n + 1) * self.memory["labels"][i, 1:] + 2 / (n + 1) * target
        for name, features in zip(HEADS, t[:4], strict=True):
            self.memory[name][i] = features.to(self.memory[name].dtype)  # in bfloat16 training they come shorter

    def target(self, index: Tensor, t: Trace) -> Tensor:
        """Labels generated for samples of the training set, by what was in memory before them: [B,M]."""
        labels, distance = self.memory["labels"], self.network.c.distance
        of_m, *of_s = (
            lean(features, centres(self.memory[name], labels[:, k], self.here[:, k]), distance)
            for k, (name, features) in enumerate(zip(HEADS, t[:4], strict=True))
        )
        return torch.stack([generated(labels[index, 0], of_one, of_m, self.reach) for of_one in of_s], 1)


def all_tasks(procedure: LabelGeneration, batch: Batch, output: Output) -> dict[str, Tensor]:
    """The error of each modality weighs the more, the further its label is from the sample's."""
    terms, labels = procedure.network.loss(batch, output), procedure.memory["labels"][batch.index]
    y = labels[:, 1:]
    errors = torch.tanh((y - labels[:, :1]).abs()) * (output.extras["unimodal"] - y).abs()  # [B,M]
    here = procedure.here[batch.index, 1:]
    own = {name: (1.0, mean_of(errors[:, m], here[:, m])) for m, name in enumerate(MODALITIES)}
    return weighted(task=(1.0, terms["task"]), **own)


TASKS = {True: all_tasks, False: lambda procedure, batch, output: procedure.network.loss(batch, output)}


class SelfMM(nn.Module):
    Config, VARIANTS, CARD, RECIPES, SMALL, Procedure = SelfMMConfig, VARIANTS, CARD, RECIPES, SMALL, LabelGeneration
    RECORD = ("unimodal",)

    @staticmethod
    def fits(dataset: Dataset, switches: Mapping) -> str:
        return lacking(dataset, "tav")

    def __init__(self, dataset: Dataset, c: SelfMMConfig) -> None:
        super().__init__()
        self.c, self.inputs, self.read = c, Inputs(dataset, c.bert), TEXT_VECTOR[c.text]
        D_t, D_a, D_v = self.inputs.dims
        self.audio = SequenceEncoder(D_a, c.hidden_a, c.out_a)
        self.vision = SequenceEncoder(D_v, c.hidden_v, c.out_v)
        sizes = (D_t + c.out_a + c.out_v, D_t, c.out_a, c.out_v), (c.d, c.d_t, c.d_a, c.d_v)
        rates = c.dropout, c.dropout_t, c.dropout_a, c.dropout_v
        heads = zip(HEADS, *sizes, rates, strict=True)
        self.heads = nn.ModuleDict({name: Head(size, d, rate) for name, size, d, rate in heads})

    def forward(self, batch: Batch) -> Output:
        (text, audio, vision), masks = self.inputs(batch)  # [B,T,D], [B,T] each
        x = self.read(text, masks[0]), self.audio(audio, masks[1]), self.vision(vision, masks[2])  # [B,.]
        vectors = zip(self.heads.values(), (torch.cat(x, -1), *x), strict=True)
        features, predictions = zip(*(head(x_m) for head, x_m in vectors), strict=True)
        return Output(predictions[0], as_extras(Trace(*features, torch.stack(predictions[1:], 1))))

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        """Mean absolute error. What the other heads learn from is made and remembered by the procedure."""
        return weighted(task=(1.0, F.l1_loss(output.prediction, batch.labels)))
