"""KuDA: "Knowledge-Guided Dynamic Modality Attention Fusion Framework for Multimodal Sentiment Analysis" (Feng et al.,
Findings of EMNLP 2024). Written from its description and compared with MKMaS-GUET/KuDA at e60ef6b.

Read top-down: an encoder per modality, whose adapters and head first learn sentiment from that modality alone
("knowledge injection", stage 1) and are then frozen -> all on one axis of slots -> blocks in which a common sequence
reads each modality, weighted by how near its own verdict is to the whole's -> the prediction, and a contrast of the
common sequence with each modality.

Specified (by the code, for CH-SIMS): sizes, both stages, losses, schedules. Ours:
- `weights=consensus`: a modality's verdict is measured against the mean of the verdicts. The code measures it against
  the *true label* while it trains, and drops weights and the norms around them at validation and test
  (`weights=label`): what it selects by is never there when it predicts.
- `weigh=after`: the weight of a modality is applied to its normed sequence. The code weighs first (`weigh=before`), and
  the norm over features undoes it: there, weights change nothing beyond the norm's epsilon.
- Stage 1 is on the labels of single modalities of the data set itself, or on its labels where it has none of those.
  The code takes CH-SIMS v2, with texts translated for MOSI and MOSEI; weights of its sizes (177, 25) do not fit the
  sizes its second stage has written in (709, 33), so how the published numbers came about is not in it.
- Without a text encoder (`bert=precomputed`) the given features stand for all of its hidden states.
- MOSI and MOSEI have CH-SIMS's settings (older commits show others, not those published); the best epoch by
  validation is kept, where the code prints the test's every epoch; a modality that a sample lacks is read by nothing.

Other slips of the released code: `padding="counted"`: padding is no key but is read by everything else, up to the width
of the file; `first_epoch="idle"`: the rate of the first epoch of either stage is 0.

Published: MOSI MAE .705, Corr .795, Acc-2 84.40/86.43; MOSEI .529, .776, 83.26/86.46; SIMS MAE .408.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msa_lib.data import Batch, Dataset
from msa_lib.models.card import Card, Stated, lacking
from msa_lib.models.kuda_encoders import STATES, Encoder, Text
from msa_lib.models.parts.dropout import Dropout
from msa_lib.models.parts.inputs import Inputs
from msa_lib.models.parts.layers import HeadedAttention, Output, absent, as_extras, feed_forward, masked_mean
from msa_lib.models.parts.losses import infonce, mean_of, weighted
from msa_lib.models.parts.rates import RATE
from msa_lib.models.parts.subnets import room_of
from msa_lib.train.procedure import Procedure


@dataclass(frozen=True)
class KuDAConfig:
    """Those of CH-SIMS."""

    d: int = 256  # of the fusion
    heads: int = 8
    head_size: int = 64
    d_hidden: int = 512
    n_blocks: int = 3
    d_av: int = 128  # of the encoders of audio and vision
    encoder_heads: int = 8
    n_layers: int = 4  # of those; the number of their adapters is one less
    encoder_dropout: float = 0.2
    adapter_dropout: float = 0.1
    dropout: float = 0.3  # where the common sequence reads modalities
    sharpness: float = 0.1  # of the weights
    w_contrast: float = 0.1
    inject_text: int = 100  # epochs of stage 1, all before the first epoch of stage 2
    inject_audio: int = 50
    inject_vision: int = 100
    inject_lr: float = 1e-4
    inject_decay: float = 1e-3
    bert: Literal["precomputed", "frozen", "finetune"] = "precomputed"
    weights: Literal["consensus", "label", "none"] = "consensus"
    weigh: Literal["after", "before"] = "after"  # the norm of what was read of a modality
    padding: Literal["masked", "counted"] = "masked"
    first_epoch: Literal["trained", "idle"] = "trained"


VARIANTS = {
    "full": {},
    "equal weights": {"weights": "none"},
    "as released": {"weights": "label", "weigh": "before", "padding": "counted", "first_epoch": "idle"},
}
CARD = Card(
    paper="Feng et al., Knowledge-Guided Dynamic Modality Attention Fusion Framework for Multimodal Sentiment "
    "Analysis, Findings of EMNLP 2024",
    fidelity="completed",
    specified="The network, its losses and both stages for CH-SIMS, by the authors' code.",
    ours="Weights by the consensus of the modalities, where the code takes the true label, and after the norm that "
    "would undo them; stage 1 on the data set's "
    "own labels; the settings of all sets but CH-SIMS; padding is masked; the epoch is chosen by validation; without a "
    "text encoder the given features stand for its hidden states.",
    choices=("bert", "weights", "weigh", "padding", "first_epoch"),
)


def _recipe(source: str = "ours: CH-SIMS's; the code has no other") -> dict[str, Stated]:
    values = {"batch_size": 32, "lr": 3e-5, "lr_encoder": 3e-5, "weight_decay": 1e-5, "epochs": 50, "clip": 0.0}
    stated = {name: Stated(value, source) for name, value in (values | {"drop_last": False}).items()}
    return stated | {"patience": Stated(50, "MKMaS-GUET/KuDA e60ef6b: it never stops early")}


RECIPES = {
    "mosi": _recipe(),
    "mosei": _recipe(),
    "sims": _recipe("MKMaS-GUET/KuDA e60ef6b, opts.py and train.py"),
    "simsv2": _recipe(),
}
SMALL = {"d": 32, "heads": 2, "head_size": 8, "d_hidden": 16, "n_blocks": 1, "d_av": 16, "encoder_heads": 2}
SMALL |= {"n_layers": 2} | dict.fromkeys(("inject_text", "inject_audio", "inject_vision"), 1)

# ---------------------------------------------------------------------- One modality: what is read of it, its verdict


def masked(x: Tensor, mask: Tensor, room: int) -> tuple[Tensor, Tensor, Tensor]:
    """x [B,T,D] -> x, which steps may be attended to, and which are read by everything else, [B,T] each."""
    return x[:, :room], mask[:, :room], mask[:, :room]


def counted(x: Tensor, mask: Tensor, room: int) -> tuple[Tensor, Tensor, Tensor]:
    """All steps that the file has room for are read."""
    x, keys = F.pad(x, (0, 0, 0, room - x.shape[1])), F.pad(mask, (0, room - x.shape[1]))
    return x, keys, torch.ones_like(keys)


PADDING = {"masked": masked, "counted": counted}


class Verdict(nn.Sequential):
    """What one modality says by itself: a mean over time [B,2d] -> [B,1]."""

    def __init__(self, d: int) -> None:
        sizes = [2 * d, *(max(1, d // part) for part in (2, 4, 8))]
        layers = [layer for i, o in pairwise(sizes) for layer in (nn.Linear(i, o), nn.GELU())]
        super().__init__(*layers, nn.Linear(sizes[-1], 1))


# ------------------------------------------------------------------------------------------------------------- Weights


def near(u: Tensor, here: Tensor, y: Tensor, k: float) -> Tensor:
    """How much more than once each modality counts, [B,M]: r_m = e_m / sum e, e_m = exp(-k |u_m - y|^2)."""
    e = torch.exp(-k * (u - y[:, None]).square()) * here
    return e / e.sum(-1, keepdim=True).clamp(min=1e-8)


def by_consensus(net: KuDA, u: Tensor, here: Tensor, labels: Tensor) -> Tensor:
    """y is the mean verdict."""
    return near(u, here, (u * here).sum(-1) / here.sum(-1).clamp(min=1), net.c.sharpness)


def by_label(net: KuDA, u: Tensor, here: Tensor, labels: Tensor) -> Tensor | None:
    """y is the label, in training; otherwise there are no weights."""
    return near(u, here, labels, net.c.sharpness) if net.training else None


WEIGHTS = {"consensus": by_consensus, "label": by_label, "none": absent}

# -------------------------------------------------------------------------------------------------------------- Fusion


class Attention(HeadedAttention):
    """Of every slot to all; dropout on what comes out of it."""

    def __init__(self, c: KuDAConfig, dropout: float) -> None:
        super().__init__(c.d, c.heads, c.head_size, 0.0)
        self.drop = Dropout(dropout)

    def forward(self, q: Tensor, source: Tensor) -> Tensor:
        everything = source.new_ones(source.shape[:2], dtype=torch.bool)
        return self.drop(super().forward(q, source, source, everything))


def normed_ffn(c: KuDAConfig, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(c.d), feed_forward(c.d, c.d_hidden, dropout))


class Reader(nn.Module):
    """The common sequence reads a modality: C_m [B,L,d]."""

    def __init__(self, c: KuDAConfig) -> None:
        super().__init__()
        self.attention, self.ffn = Attention(c, c.dropout), normed_ffn(c, c.dropout)
        self.norm1, self.norm2 = nn.LayerNorm(c.d), nn.LayerNorm(c.d)

    def forward(self, s: Tensor, h: Tensor) -> Tensor:
        x = self.norm1(self.attention(s, h) + s)
        return self.norm2(self.ffn(x) + x)


WEIGH = {"after": lambda norm, w, x: w * norm(x), "before": lambda norm, w, x: norm(w * x)}


class Block(nn.Module):
    """The common sequence s [B,L,d] reads all modalities H, then itself."""

    def __init__(self, c: KuDAConfig) -> None:
        super().__init__()
        self.readers, self.norm = nn.ModuleList(Reader(c) for _ in range(3)), nn.LayerNorm(c.d)
        self.weighed, self.weigh = nn.ModuleList(nn.LayerNorm(c.d) for _ in range(3)), WEIGH[c.weigh]
        self.attention, self.ffn = Attention(c, 0.0), normed_ffn(c, 0.0)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(c.d, eps=1e-6) for _ in range(3))

    def forward(self, s: Tensor, H: Sequence[Tensor], here: Tensor, r: Tensor | None) -> Tensor:
        C = [reader(s, h) for reader, h in zip(self.readers, H, strict=True)]
        if r is not None:
            weight = (1 + r)[..., None, None].unbind(1)  # [B,1,1] each
            C = [self.weigh(*part) for part in zip(self.weighed, weight, C, strict=True)]
        s = self.norm1(s + self.norm(sum(x * here[:, m, None, None] for m, x in enumerate(C))))
        s = self.norm2(s + self.attention(s, s))
        return self.norm3(s + self.ffn(s))


class Slots(nn.Module):
    """Knowledge [B,T,size] of at most `room` steps -> h [B,L,d]: to width d, then each slot a mixture of steps."""

    def __init__(self, size: int, room: int, slots: int, d: int) -> None:
        super().__init__()
        self.width, self.time = nn.Linear(size, d), nn.Linear(room, slots)

    def forward(self, x: Tensor, steps: Tensor) -> Tensor:
        x = self.width(x) * steps[..., None]
        return F.linear(x.mT, self.time.weight[:, : x.shape[1]], self.time.bias).mT


# ------------------------------------------------------------------------------------------------------------ Training


class TwoStages(Procedure):
    """At the start of the first epoch each modality learns alone; then adapters and verdicts are frozen. AdamW,
    everything decays; in either stage the rate rises in a tenth of the epochs and falls by a cosine."""

    def __init__(self, network: KuDA, dataset: Dataset, config) -> None:
        super().__init__(network, dataset, config)
        c, rate = network.c, RATE[network.c.first_epoch]

        def schedule(total: int):
            return lambda done: rate(done + 1, max(1, round(total / 10)), total)

        self.epochs = c.inject_text, c.inject_audio, c.inject_vision
        groups = [{"params": list(part), "lr": c.inject_lr} for part in network.alone()]
        self.optimisers["inject"] = torch.optim.AdamW(groups, weight_decay=c.inject_decay, fused=True)
        make = torch.optim.lr_scheduler.LambdaLR
        self.schedules["inject"] = make(self.optimisers["inject"], [schedule(n) for n in self.epochs])
        self.schedules["main"] = make(self.optimisers["main"], schedule(config.epochs))

    def groups(self) -> list[dict]:
        encoder, rest, taught = [], [], {id(p) for p in self.network.taught()}
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad and id(parameter) not in taught:
                (encoder if "text_encoder." in name else rest).append(parameter)
        pairs = (rest, self.config.lr), (encoder, self.config.lr_encoder)
        return [{"params": p, "lr": lr, "weight_decay": self.config.weight_decay} for p, lr in pairs if p]

    def passes(self, epoch: int, shuffle: torch.Generator) -> Iterator[tuple[str, Iterable[Batch]]]:
        for done in range(max(self.epochs) if epoch == 1 else 0):
            self.learning = [m for m, n in enumerate(self.epochs) if done < n]
            for _, batches in super().passes(epoch, shuffle):
                yield "inject", batches
            self.schedules["inject"].step()
        for parameter in self.network.taught():
            parameter.requires_grad_(False)
        yield from super().passes(epoch, shuffle)

    def step(self, batch: Batch, name: str) -> dict[str, Tensor]:
        if name == "main":
            return super().step(batch, name)
        _, here, u = self.network.unimodal(batch)
        labels = batch.labels[:, None].expand_as(u) if batch.unimodal_labels is None else batch.unimodal_labels
        errors = (u - labels).square()
        terms = {NAMES[m]: mean_of(errors[:, m], here[:, m]) for m in self.learning}
        self.descend(sum(terms.values()), "inject")
        return terms

    def end_epoch(self, record: Mapping, score: float) -> None:
        self.schedules["main"].step()


NAMES = ("text", "audio", "vision")


class Trace(NamedTuple):
    """What a forward leaves behind for the losses."""

    modalities: Tensor  # means of h_m over the slots [B,M,d]
    common: Tensor  # mean of s [B,d]
    verdicts: Tensor  # u [B,M]


class KuDA(nn.Module):
    """The whole network."""

    Config, VARIANTS, CARD, RECIPES, SMALL, Procedure = KuDAConfig, VARIANTS, CARD, RECIPES, SMALL, TwoStages
    RECORD = ("verdicts",)

    @staticmethod
    def fits(dataset: Dataset, switches: Mapping) -> str:
        """Why this model is not possible on the data set; empty if it is."""
        return lacking(dataset, "tav")

    def __init__(self, dataset: Dataset, c: KuDAConfig) -> None:
        super().__init__()
        if c.n_layers < 2:
            raise ValueError(f"n_layers={c.n_layers}: expected at least 2, for an adapter needs two states.")
        self.c, self.inputs, self.room, self.seen = c, Inputs(dataset, c.bert), room_of(dataset), PADDING[c.padding]
        (D_t, D_a, D_v), (_, T_a, T_v) = self.inputs.dims, self.room
        self.inputs.text = STATES[c.bert]
        self.encoders = nn.ModuleList([Text(D_t, c), Encoder(D_a, T_a, c), Encoder(D_v, T_v, c)])
        sizes = D_t, c.d_av, c.d_av
        self.verdicts = nn.ModuleList(Verdict(size) for size in sizes)
        pairs = zip(sizes, self.room, strict=True)
        self.slots = nn.ModuleList(Slots(2 * size, steps, self.room[0], c.d) for size, steps in pairs)
        self.weights, self.blocks = WEIGHTS[c.weights], nn.ModuleList(Block(c) for _ in range(c.n_blocks))
        self.head = nn.Sequential(nn.Linear(c.d, c.d // 4), nn.GELU(), nn.Linear(c.d // 4, c.d // 8), nn.GELU(),
                                  nn.Linear(c.d // 8, 1))  # fmt: skip

    def unimodal(self, batch: Batch) -> tuple[list[tuple[Tensor, Tensor]], Tensor, Tensor]:
        """-> knowledge [B,T,2d] of each modality with its steps [B,T]; which there are, and verdicts, [B,M] each."""
        seen = [self.seen(*part) for part in zip(*self.inputs(batch), self.room, strict=True)]
        knowledge = [(encoder(x, keys), steps) for encoder, (x, keys, steps) in zip(self.encoders, seen, strict=True)]
        u = [verdict(masked_mean(*part)) for verdict, part in zip(self.verdicts, knowledge, strict=True)]
        return knowledge, torch.stack([keys.any(-1) for _, keys, _ in seen], 1), torch.cat(u, -1)

    def forward(self, batch: Batch) -> Output:
        knowledge, here, u = self.unimodal(batch)
        H = [slots(*pair) for slots, pair in zip(self.slots, knowledge, strict=True)]  # [B,L,d]
        s, r = sum(h * here[:, m, None, None] for m, h in enumerate(H)), self.weights(self, u, here, batch.labels)
        for block in self.blocks:
            s = block(s, H, here, r)
        common = s.mean(1)
        return Output(self.head(common)[:, 0], as_extras(Trace(torch.stack([h.mean(1) for h in H], 1), common, u)))

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        t, here = Trace(**output.extras), batch.lengths > 0
        contrasts = [infonce(t.modalities[:, m], t.common, here[:, m]) for m in range(3)]
        task = F.mse_loss(output.prediction, batch.labels)
        return weighted(task=(1.0, task), contrast=(self.c.w_contrast, sum(contrasts)))

    def taught(self) -> list[nn.Parameter]:
        """What only stage 1 trains."""
        return [*self.verdicts.parameters(), *(p for e in self.encoders for p in e.injection.adapters.parameters())]

    def alone(self) -> list[list[nn.Parameter]]:
        """What stage 1 trains, per modality."""
        parts = [[*e.parameters(), *v.parameters()] for e, v in zip(self.encoders, self.verdicts, strict=True)]
        parts[0] += [p for p in self.inputs.parameters() if p.requires_grad]
        return parts
