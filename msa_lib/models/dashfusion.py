"""DashFusion: "Dual-stream Alignment with Hierarchical Bottleneck Fusion for Multimodal Sentiment Analysis" (Wen et
al., TNNLS 2025). Written from a description of the authors' code (ultramarineX/DashFusion, 37ba417), in our own words;
the equations carry no numbers because the paper itself was not at hand.

Read top-down: an encoder per modality -> temporal alignment: text asks audio and vision, which gives a tri-modal
sequence -> semantic alignment: contrast of the mean vectors of a sample with those of six companions -> bottleneck
fusion: a few tokens of the tri-modal sequence read the modalities and write to them, fewer at every level -> sentiment.

Specified (by the code): every layer and size, optimiser and schedule, the loss and how companions are chosen.
Ours: masks. The released code does not mask padding behind its encoders (`padding=read`: zeros up to the longest sample
of the data set take part in every softmax; there the text goes to the longest of the batch, and so a result depends on
its neighbours). Companions of an epoch are drawn at its beginning. Text comes from `bert`; a sample for which a kind of
companion is lacking does without the pairs, where the code stops. MOSEI trains for the 25 epochs of its configuration
(its comment says 125), MOSI and SIMS for the 100 of the comment (the configuration's 4 end in the warm-up). SIMSv2
has the settings of SIMS.
The released code besides: keeps, for companions, the *rank* at which a candidate was found and takes it for the number
of a sample (`companions=ranks`), so that they are the first and last rows of the training set, whatever their labels;
holds layers that it never uses; gives the layers of an encoder the same initial weights. Pairs of a companion's own
modalities count as positive pairs, but have no negatives: their terms are zero, and they only thin out the mean (kept).
What nothing reads behind the last level is not computed.

Published: SIMS MAE .416, Corr .601, Acc-2 79.21, F1 79.39, Acc-5 44.24 (a third party's digest of the paper). MOSI:
MAE .712, Corr .786 as AMSGFN's table quotes it. The paper's own MOSI and MOSEI numbers were not at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import get_linear_schedule_with_warmup

from msa_lib.data import Batch, Dataset
from msa_lib.models.card import Card, Stated, lacking
from msa_lib.models.parts.dropout import Dropout
from msa_lib.models.parts.inputs import Inputs
from msa_lib.models.parts.layers import EncoderBlock, Output, as_extras, attend, feed_forward, masked_mean
from msa_lib.train.procedure import Procedure


@dataclass(frozen=True)
class DashFusionConfig:
    d: int = 128
    heads: int = 8
    n_layers: int = 2  # of the audio and vision encoders
    levels: int = 2  # of the fusion
    tokens: int = 8  # of the bottleneck at its first level; half of it at the next one
    dropout: float = 0.5  # in the audio and vision encoders
    dropout_in: float = 0.1  # of what they read
    bert: Literal["precomputed", "frozen", "finetune"] = "precomputed"
    w_contrast: float = 0.2
    tau: float = 0.5
    companions: Literal["samples", "ranks"] = "samples"  # ranks: as released
    search_top: float = 1.0  # share of the ranking in which alike companions are looked for
    search_bottom: float = 1.0  # and unlike ones
    padding: Literal["masked", "read"] = "masked"  # read: as released
    warm_up: int = 10  # epochs
    keep_from: int = 2  # the first epoch that may be kept


CARD = Card(
    paper="Wen et al., DashFusion: Dual-stream Alignment with Hierarchical Bottleneck Fusion for Multimodal Sentiment "
    "Analysis, TNNLS 36(10), 2025",
    fidelity="specified",
    specified="Layers, sizes, losses, companions, optimiser and schedule, by the authors' code.",
    ours="Padding is masked and companions are samples (`padding=read`, `companions=ranks` are the code); which of the "
    "two numbers of epochs in its configuration; SIMSv2 has the settings of SIMS.",
    choices=("padding", "companions", "bert"),
)
VARIANTS = {
    "full": {},
    "without contrast": {"w_contrast": 0.0},
    "as released": {"padding": "read", "companions": "ranks"},
}
SMALL = {"d": 16, "heads": 2, "n_layers": 1, "warm_up": 1, "keep_from": 1}


def _recipe(batch_size: int, lr: float, epochs: tuple[int, str], source: str = "DashFusion, config.py", **switches):
    values = {"batch_size": batch_size, "lr": lr, "lr_encoder": lr, "weight_decay": 1e-3, "clip": 0.0}
    stated = {name: Stated(value, source) for name, value in (values | switches).items()}
    stated |= {"epochs": Stated(*epochs), "patience": Stated(epochs[0], f"{source}: it never stops early")}
    return stated | {"drop_last": Stated(False, source)}


_SIMS = {"search_top": 1 / 1.6, "search_bottom": 1 / 2}
_COMMENT = (100, "DashFusion, config.py, in a comment; its value of 4 is less than the warm-up")
RECIPES = {
    "mosi": _recipe(16, 5e-5, _COMMENT),
    "mosei": _recipe(
        8,
        2e-5,
        (25, "DashFusion, config.py; 125 in a comment"),
        n_layers=4,
        levels=3,
        warm_up=1,
        search_top=1 / 2,
        search_bottom=1 / 8,
    ),
    "sims": _recipe(16, 5e-5, _COMMENT, **_SIMS),
    "simsv2": _recipe(16, 5e-5, (100, "ours: that of SIMS"), "ours: that of SIMS", **_SIMS),
}


class Trace(NamedTuple):
    """What a forward leaves behind for the contrast and the choice of companions."""

    means: Tensor  # of text, vision and audio [B,3,d]
    first: Tensor  # of the tri-modal sequence [B,d]
    available: Tensor  # text, vision, audio [B,3]


# ---------------------------------------------------------------------------------------------------------- Encoders


class TextProjector(nn.Sequential):
    """[B,T,D] -> [B,T,d]."""

    def __init__(self, size: int, d: int) -> None:
        super().__init__(
            nn.Linear(size, d, bias=False), nn.GELU(), nn.Linear(d, d, bias=False), nn.GELU(), nn.LayerNorm(d)
        )


class FrameEncoder(nn.Module):
    """Frames [B,T,D] -> a class token and the frames [B,1+T,d], zeros behind the length, and their mask."""

    def __init__(self, size: int, steps: int, c: DashFusionConfig) -> None:
        super().__init__()
        self.proj = nn.Linear(size, c.d)
        self.cls = nn.Parameter(torch.ones(1, 1, c.d))
        self.position = nn.Parameter(torch.zeros(1, 1 + steps, c.d))
        self.drop = Dropout(c.dropout_in)
        self.layers = nn.ModuleList(EncoderBlock(c.d, c.heads, 2 * c.d, c.dropout) for _ in range(c.n_layers))
        self.norm = nn.LayerNorm(c.d)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([self.cls.expand(len(x), -1, -1), self.proj(x)], 1)
        x = self.drop(x + to_width(self.position, x.shape[1]))
        mask = torch.cat([mask.any(1, keepdim=True), mask], 1)  # the class token is there if a frame is
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x) * mask[..., None], mask


def to_width(x: Tensor, steps: int) -> Tensor:
    """x [B,T,d] cut, or filled up with zeros, to `steps` steps."""
    return F.pad(x, (0, 0, 0, max(0, steps - x.shape[1])))[:, :steps]


def masked(X: list[Tensor], masks: list[Tensor], steps: list[int]) -> tuple[list[Tensor], list[Tensor]]:
    return X, masks


def read(X: list[Tensor], masks: list[Tensor], steps: list[int]) -> tuple[list[Tensor], list[Tensor]]:
    """Zeros up to the longest sample of the data set, and nothing masked."""
    X = [to_width(x, n) for x, n in zip(X, steps, strict=True)]
    return X, [torch.ones_like(x[..., 0], dtype=torch.bool) for x in X]


PADDING = {"masked": masked, "read": read}

# ------------------------------------------------------------------------------------------------ Dual-stream alignment


class TemporalAlignment(nn.Module):
    """H = X_t + W_o (CA(X_t, X_a) + CA(X_t, X_v)): the first `rows` steps of the tri-modal sequence [B,rows,d]."""

    def __init__(self, c: DashFusionConfig) -> None:
        super().__init__()
        self.q, self.k_a, self.k_v, self.v_a, self.v_v = (nn.Linear(c.d, 2 * c.d, bias=False) for _ in range(5))
        self.out, self.heads = nn.Linear(2 * c.d, c.d), c.heads

    def forward(self, x: Tensor, a: Tensor, v: Tensor, mask_a: Tensor, mask_v: Tensor) -> Tensor:
        q = self.q(x)
        from_a = attend(q, self.k_a(a), self.v_a(a), mask_a, self.heads, 0.0)
        from_v = attend(q, self.k_v(v), self.v_v(v), mask_v, self.heads, 0.0)
        return x + self.out(from_a + from_v)


def ntxent(groups: Tensor, there: Tensor, tau: float) -> Tensor:
    """Contrast of an anchor with its companions, a mean over the pairs that are there, then over the samples.

    groups [B,4,7,d]: text, vision, audio and tri-modal vectors of the anchor, two positives and four negatives; there
    [B,4,7]. Positive pairs (22): the text of each of the seven with its vision and its audio, and in every group the
    anchor with its positives. Negatives of a pair: those of its first member, which only anchors have.
    """
    z, here = F.normalize(groups, dim=-1), there.to(groups.dtype)
    within = torch.einsum("bgd,bgid->bgi", z[:, :, 0], z[:, :, 1:]) / tau  # [B,4,6]
    pair = here[:, :, :1] * here[:, :, 1:]
    negatives = within[:, :, 2:].masked_fill(pair[:, :, 2:] == 0, -torch.inf)  # [B,4,4]
    across = torch.einsum("bd,bmd->bm", z[:, 0, 0], z[:, 1:3, 0]) / tau  # text with vision and audio [B,2]
    positives = torch.cat([within[:, :, :2], F.pad(across[:, None], (0, 0, 0, 3))], -1)  # [B,4,4]
    denominator = torch.cat([positives[..., None], negatives[:, :, None].expand(-1, -1, 4, -1)], -1).logsumexp(-1)
    across_here = here[:, :1] * here[:, 1:3]  # [B,2,7]
    counted = torch.cat([pair[:, :, :2], F.pad(across_here[:, None, :, 0], (0, 0, 0, 3))], -1)
    count = counted.sum((1, 2)) + across_here[:, :, 1:].sum((1, 2))  # the companions' own pairs, with terms of 0
    return (((denominator - positives) * counted).sum((1, 2)) / count.clamp(min=1)).mean()


def four(t: Trace) -> tuple[Tensor, Tensor]:
    """Vectors [B,4,d] to contrast, and which are there [B,4]; the tri-modal one lives as long as any modality does."""
    return torch.cat([t.means, t.first[:, None]], 1), torch.cat([t.available, t.available.any(1, keepdim=True)], 1)


def candidates(vectors: Tensor, classes: Tensor, c: DashFusionConfig, block: int = 256, most: int = 10) -> Tensor:
    """For each sample up to `most` companions of each kind [N,3,most], -1 where there are no more.

    vectors [N,D], compared by their cosine; classes [N]. Kinds: alike and of the same class; unlike and of another
    class; alike and of another class. With companions=ranks, the rank where one was found stands in its place.
    """
    n, z = len(vectors), F.normalize(vectors, dim=-1)
    rank = torch.arange(n, device=z.device)
    top, bottom = rank < int(n * c.search_top), rank > n - max(1, int(n * c.search_bottom))
    found = []
    for own in rank.split(block):
        order = (z[own] @ z.T).argsort(dim=1, descending=True, stable=True)  # [b,N]
        same = classes[order] == classes[own, None]
        other = (order if c.companions == "samples" else rank.expand_as(order)) != own[:, None]
        kinds = []
        for wanted, place in ((same & top & other, rank), (~same & bottom, n - 1 - rank), (~same & top & other, rank)):
            near = torch.where(wanted, place, n).topk(min(most, n), 1, largest=False, sorted=True).values  # [b,most]
            position = (near if place is rank else n - 1 - near).clamp(0, n - 1)
            chosen = order.gather(1, position) if c.companions == "samples" else position
            kinds.append(F.pad(torch.where(near < n, chosen, -1), (0, max(0, most - n)), value=-1))
        found.append(torch.stack(kinds, 1))
    return torch.cat(found)


def drawn(found: Tensor) -> Tensor:
    """Two of each kind at random, without repetition [N,3,most] -> [N,6]; -1 where a kind has fewer."""
    order = torch.rand(found.shape, device=found.device).masked_fill(found < 0, 2.0).argsort(-1)
    return found.gather(2, order[..., :2]).flatten(1)


CLASSES = {"mosi": torch.round, "sims": lambda labels: labels}  # whose equality makes two samples of one class


class Companions(Procedure):
    """AdamW with a linear warm-up and decay by step; every odd epoch new candidates, every epoch new companions."""

    def __init__(self, network: DashFusion, dataset: Dataset, config) -> None:
        super().__init__(network, dataset, config)
        self.first_epoch, total = network.c.keep_from, self.steps * config.epochs
        warm_up = network.c.warm_up * self.steps
        self.schedules["main"] = get_linear_schedule_with_warmup(self.optimisers["main"], warm_up, total)
        self.loss = self.contrast if network.c.w_contrast else network.loss

    def groups(self) -> list[dict]:
        """The norms of the text encoder do not decay; ours, which have another name in the code, do."""
        groups = {}
        for name, p in self.network.named_parameters():
            if p.requires_grad:
                free = "bias" in name or "LayerNorm.weight" in name
                groups.setdefault(("text_encoder." in name, free), []).append(p)
        rates = {True: self.config.lr_encoder, False: self.config.lr}
        return [
            {"params": p, "lr": rates[encoder], "weight_decay": 0.0 if free else self.config.weight_decay}
            for (encoder, free), p in groups.items()
        ]

    @torch.no_grad()
    def begin_epoch(self, epoch: int) -> None:
        if not self.network.c.w_contrast:
            return
        if epoch % 2:
            self.network.eval()
            means = [self.network.encode(batch)[2].flatten(1) for batch in self.dataset.train.batches(128)]
            self.network.train()
            classes = CLASSES[self.dataset.scale](self.dataset.train.labels)
            self.memory["candidates"] = candidates(torch.cat(means), classes, self.network.c)
        self.memory["companions"] = drawn(self.memory["candidates"])

    def contrast(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        terms, chosen = self.network.loss(batch, output), self.memory["companions"][batch.index]  # [B,6]
        on_host = chosen.device.type == "cpu"  # elsewhere trimming would wait for the device
        other = self.dataset.train.batch(chosen.clamp(min=0).flatten(), trim=on_host)
        vectors, there = four(Trace(**output.extras))
        others, others_there = (x.unflatten(0, (-1, 6)) for x in self.network.contrasted(other))  # [B,6,4,...]
        groups = torch.cat([vectors[:, None], others], 1).transpose(1, 2)  # [B,4,7,d]
        there = torch.cat([there[:, None], others_there & (chosen >= 0)[..., None]], 1).transpose(1, 2)
        contrast = ntxent(groups, there, self.network.c.tau)
        return terms | {"contrast": contrast, "total": terms["task"] + self.network.c.w_contrast * contrast}

    def after_step(self, batch: Batch, output: Output) -> None:
        self.schedules["main"].step()


# -------------------------------------------------------------------------------------------- Hierarchical bottleneck


class Block(nn.Module):
    """x [B,T,d] asks `source`: x + LN(attention), then x + LN(FFN). Logits are divided by sqrt(d), not of a head."""

    def __init__(self, c: DashFusionConfig) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(c.d, c.d) for _ in range(3))
        self.norm1, self.norm2 = nn.LayerNorm(c.d), nn.LayerNorm(c.d)
        self.ffn, self.heads = feed_forward(c.d, 2 * c.d, 0.0), c.heads

    def forward(self, x: Tensor, source: Tensor, mask: Tensor) -> Tensor:
        q = self.q(x) * self.heads**-0.5
        x = x + self.norm1(attend(q, self.k(source), self.v(source), mask, self.heads, 0.0))
        return x + self.norm2(self.ffn(x))


class Gather(nn.Module):
    """Q [B,n,d] asks text, vision and audio: LN(Q + sum of CA(Q, X_m)), then LN(Q + FFN(Q))."""

    def __init__(self, c: DashFusionConfig) -> None:
        super().__init__()
        self.q = nn.Linear(c.d, c.d, bias=False)
        self.k, self.v = (nn.ModuleList(nn.Linear(c.d, c.d, bias=False) for _ in range(3)) for _ in range(2))
        self.norm1, self.norm2 = nn.LayerNorm(c.d), nn.LayerNorm(c.d)
        self.ffn, self.heads = feed_forward(c.d, 2 * c.d, 0.0), c.heads

    def forward(self, Q: Tensor, X: list[Tensor], masks: list[Tensor]) -> Tensor:
        q, out = self.q(Q), Q
        for x, mask, k, v in zip(X, masks, self.k, self.v, strict=True):
            out = out + attend(q, k(x), v(x), mask, self.heads, 0.0)
        Q = self.norm1(out)
        return self.norm2(Q + self.ffn(Q))


class Level(nn.Module):
    """`keep` tokens ask the modalities, and the modalities, up to step `rows`, ask them."""

    def __init__(self, c: DashFusionConfig, keep: int, rows: int | None) -> None:
        super().__init__()
        self.own, self.gather, self.keep, self.rows = Block(c), Gather(c), keep, rows
        self.spread = nn.ModuleList(Block(c) for _ in range(3))

    def forward(self, Q: Tensor, mask: Tensor, X: list[Tensor], masks: list[Tensor]):
        Q, mask = self.own(Q[:, : self.keep], Q, mask), mask[:, : self.keep]
        Q = self.gather(Q, X, masks)
        return Q, mask, [block(x[:, : self.rows], Q, mask) for block, x in zip(self.spread, X, strict=True)]


class DashFusion(nn.Module):
    """The whole network; what `forward` reads first is in the order text, vision, audio."""

    Config, VARIANTS, CARD, RECIPES, SMALL = DashFusionConfig, VARIANTS, CARD, RECIPES, SMALL
    RECORD, Procedure = (), Companions

    @staticmethod
    def fits(dataset: Dataset, switches: Mapping) -> str:
        return lacking(dataset, "tav")

    def __init__(self, dataset: Dataset, c: DashFusionConfig) -> None:
        super().__init__()
        self.c, steps = c, dataset.max_steps
        self.inputs = Inputs(dataset, c.bert)
        self.project = TextProjector(self.inputs.dims[0], c.d)
        self.audio = FrameEncoder(self.inputs.dims[1], steps[1], c)
        self.vision = FrameEncoder(self.inputs.dims[2], steps[2], c)
        self.steps, self.padding = [steps[0], 1 + steps[2], 1 + steps[1]], PADDING[c.padding]
        self.align = TemporalAlignment(c)
        self.levels = nn.ModuleList(
            Level(c, max(1, c.tokens // 2**i), 1 if i == c.levels - 1 else None) for i in range(c.levels)
        )
        self.head = nn.Sequential(
            nn.Linear(4 * c.d, 2 * c.d), nn.GELU(), nn.Linear(2 * c.d, c.d), nn.GELU(), nn.Linear(c.d, 1)
        )

    def encode(self, batch: Batch) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor]:
        """Text, vision and audio [B,T,d], their masks, their mean vectors [B,3,d] and which are there [B,3]."""
        (t, a, v), (mask_t, mask_a, mask_v) = self.inputs(batch)
        t = self.project(t) * mask_t[..., None]
        (v, mask_v), (a, mask_a) = self.vision(v, mask_v), self.audio(a, mask_a)
        X, masks = [t, v, a], [mask_t, mask_v, mask_a]
        means = torch.stack([masked_mean(x, mask) for x, mask in zip(X, masks, strict=True)], 1)
        there = torch.stack([mask.any(1) for mask in masks], 1)
        return *self.padding(X, masks, self.steps), means, there

    def contrasted(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The four vectors of a sample [B,4,d] and whether they are there; the tri-modal one is its first step."""
        (t, v, a), (_, mask_v, mask_a), means, there = self.encode(batch)
        return four(Trace(means, self.align(t[:, :1], a, v, mask_a, mask_v)[:, 0], there))

    def forward(self, batch: Batch) -> Output:
        X, masks, means, there = self.encode(batch)
        t, v, a = X
        H = self.align(t, a, v, masks[2], masks[1])  # [B,T_t,d]
        Q, mask = H, masks[0] | (torch.arange(H.shape[1], device=H.device) == 0)  # without text, its first step
        for level in self.levels:
            Q, mask, X = level(Q, mask, X, masks)
        fused = torch.cat([x[:, 0] for x in (Q, *X)], -1)  # [B,4d]
        return Output(self.head(fused)[:, 0], as_extras(Trace(means, H[:, 0], there)))

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        """As the authors' code does at evaluation; training adds the contrast with companions (`Companions`)."""
        task = (output.prediction - batch.labels).square().mean()
        return {"task": task, "total": task}
