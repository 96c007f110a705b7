"""CENet: "Cross-modal Enhancement Network for Multimodal Sentiment Analysis" (Wang, Liu, Wang, Tian, He, Gao, IEEE
Transactions on Multimedia, 2022). Written after the authors' code (Say2L/CENet, e208a83) and its port in thuiar/MMSA
(a94e65d), in our own words; equations carry no numbers because the paper was not at hand.

Read top-down: what the states of the words read in vision and in audio becomes a shift of these states -> it is added
to them once, inside the language model, between its first and second layer -> the other layers -> the first token.

Specified (by the code): all of it, with `bert=finetune`, which trains the language model of the data's tokens.
Partial with precomputed features: all layers of the language model then lie before the enhancement, none after it, and
what is read off the shifted first token (`text=mean`: off all) is what one enhancement of the last states can give.
Ours: masks (`padding=counted` reads padding, as the code does); a sample without text has nothing to be enhanced, and
gets zeros; scores divided by the root of the width (`scale=root`), the usual reading.

The released code multiplies them by 8 (`scale=eight`). MMSA feeds frames through two linear layers, and computes the
embedding layer without a gradient, so that it stays as pretrained (`embeddings=frozen`). The authors read, instead of
frames, the numbers of 16 clusters of them, of 50 steps at most (`nonverbal=clusters`); how they made these is not
released: k-means on training frames here. They train SentiLARE, a RoBERTa that also knows parts of speech and the
sentiment of words, which is not here, by squared error (`error=squared`) with a rate that rises over the first 40 % of
the steps and falls to 0 (`warm_up=0.4`), 6e-5 for all; with BERT 3e-5 and .5, batches of 32. Recipes are MMSA's.

Published: MOSI with BERT, Acc-2 84.40/86.74 (an issue of the authors'). With SentiLARE a re-run printed elsewhere has
.588, .862, 88.1. The authors keep the best *test* accuracy of all epochs; users stay below (83.2, MAE .745). MMSA (its
result-stat.md, five seeds): MOSI .725, .795; MOSEI .526, .778; SIMS .471, .540; SIMSv2 .310, .699.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import get_linear_schedule_with_warmup

from msa_lib import MODALITIES
from msa_lib.data import Batch, Dataset
from msa_lib.data.dataset import steps_mask
from msa_lib.models.card import Card, Stated, lacking
from msa_lib.models.parts.dropout import Dropout
from msa_lib.models.parts.features import encoder_of
from msa_lib.models.parts.inputs import TEXT_VECTOR, Inputs
from msa_lib.models.parts.layers import Output, TextEncoder, attend, unchanged
from msa_lib.models.parts.losses import weighted
from msa_lib.models.parts.recurrent import along_time
from msa_lib.models.parts.subnets import PADDING, room_of
from msa_lib.train.procedure import Procedure


@dataclass(frozen=True)
class CENetConfig:
    dropout: float = 0.1  # in the head
    nonverbal: Literal["frames", "clusters"] = "frames"  # what is read; clusters: the authors'
    scale: Literal["root", "eight"] = "root"  # of the scores; eight: as released
    error: Literal["absolute", "squared"] = "absolute"  # squared: the authors'
    warm_up: float = 0.0  # share of all steps over which the rate rises, before it falls to 0; 0: it stays
    eps: float = 3e-8  # of Adam
    bert: Literal["precomputed", "frozen", "finetune"] = "precomputed"
    embeddings: Literal["trained", "frozen"] = "trained"  # of a language model that is trained; frozen: as in MMSA
    text: Literal["first", "mean"] = "first"  # token that stands for the text
    padding: Literal["masked", "counted"] = "masked"  # counted: as released


CARD = Card(
    paper="Wang, Liu, Wang, Tian, He, Gao, Cross-modal Enhancement Network for Multimodal Sentiment Analysis, IEEE "
    "Transactions on Multimedia, 2022",
    fidelity="partial",
    specified="With bert=finetune the network and its training, by thuiar/MMSA.",
    ours="With precomputed features no layer comes after the enhancement; padding is masked; a sample without text "
    "gets zeros; scores are divided by the root of the width; frames are read as they are, and how clusters of them "
    "are found; features without a first token can be averaged. The sentiment of words, which the authors' language "
    "model knows, is missing.",
    choices=("bert", "text", "padding", "scale", "nonverbal"),
)
RELEASED = {"scale": "eight", "padding": "counted"}
VARIANTS = {
    "full": {},
    "as in MMSA": {**RELEASED, "embeddings": "frozen"},
    "as released": {**RELEASED, "nonverbal": "clusters", "error": "squared", "warm_up": 0.4, "eps": 1e-8},
}
SMALL = {"text": "mean"}  # planted text begins with no token that sums it up


def _recipe(lr: float, weight_decay: float, eps: float, batch_size: int) -> dict[str, Stated]:
    values = {"lr": lr, "lr_encoder": lr, "weight_decay": weight_decay, "eps": eps, "batch_size": batch_size}
    stated = {name: Stated(value, "thuiar/MMSA a94e65d, config_regression.json") for name, value in values.items()}
    trainer = {"clip": 2.0, "drop_last": False, "patience": 8}
    return stated | {name: Stated(value, "thuiar/MMSA a94e65d, trainer of CENet") for name, value in trainer.items()}


RECIPES = {
    "mosi": _recipe(1e-5, 1e-4, 3e-8, 64),
    "mosei": _recipe(1e-5, 1e-4, 1e-8, 64),
    "sims": _recipe(2e-6, 0.0, 2e-8, 32),
    "simsv2": _recipe(3e-5, 0.0, 3e-8, 64),
}

# ---------------------------------------------------------------------------------------------- The enhancement (CE)

SCALE = {"root": None, "eight": 8.0}


class Reading(nn.Module):
    """What states X [B,T,D] read in frames [B,T',D]: one head, no output map; zeros where there is no frame."""

    def __init__(self, D: int, scale: float | None) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(D, D) for _ in range(3))
        self.scale = scale

    def forward(self, X: Tensor, frames: Tensor, mask: Tensor) -> Tensor:
        return attend(self.q(X), self.k(frames), self.v(frames), mask, 1, 0.0, self.scale)


class Frames(nn.Sequential):
    """[B,T,D_m], mask [B,T] -> frames [B,T',D] and their mask: two linear layers on each."""

    def __init__(self, dataset: Dataset, m: int, D: int, padding: str) -> None:
        super().__init__(nn.Linear(dataset.feature_dims[m], D), nn.ReLU(), nn.Linear(D, D))
        self.room, self.seen = room_of(dataset)[m], PADDING[padding]

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        (x,), (mask,) = self.seen([x], [mask], [self.room])
        return super().forward(x), mask


K, STEPS, ENOUGH = 16, 50, 20_000  # clusters, frames of a sample, frames that the clusters are found in


class Clusters(nn.Embedding):
    """The same: a vector for the cluster that a frame is in; of a long sample, STEPS frames at equal distances.

    Clusters are those of the training frames, each feature over its standard deviation. The last vector is padding's.
    """

    def __init__(self, dataset: Dataset, m: int, D: int, padding: str) -> None:
        x = getattr(dataset.train, MODALITIES[m])
        centres, spread = clusters_of(x, steps_mask(dataset.train.lengths[:, m], x.shape[1]))
        super().__init__(K + 1, D, padding_idx=K)
        self.register_buffer("centres", centres)
        self.register_buffer("spread", spread)
        self.fill = FILL[padding]

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        n, i = mask.sum(-1, keepdim=True), torch.arange(min(STEPS, x.shape[1]), device=x.device)  # [B,1], [T']
        x, there = along_time(x, (i * n // n.clamp(1, len(i))).clamp(max=x.shape[1] - 1)), i < n
        exact = "donot_use_mm_for_euclid_dist"  # the other way depends on the batch in the last bits
        ids = torch.cdist(x / self.spread, self.centres, compute_mode=exact).argmin(-1).masked_fill(~there, K)  # [B,T']
        ids, there = self.fill(ids, there)
        return super().forward(ids), there


def clusters_of(frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Frames [N,T,D] where mask [N,T] -> centres of up to K clusters [K,D], in units of a spread [D]."""
    from sklearn.cluster import KMeans

    sample, step = mask.cpu().numpy().nonzero()
    some = np.random.default_rng(0).permutation(len(sample))[:ENOUGH]
    x = frames[sample[some], step[some]].double().cpu().numpy()
    spread = x.std(0)
    spread[spread == 0] = 1.0
    found = KMeans(min(K, len(np.unique(x, axis=0))), n_init=1, random_state=0).fit(x / spread)
    return torch.tensor(found.cluster_centers_, dtype=torch.float32), torch.tensor(spread, dtype=torch.float32)


def fill_up(ids: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """As released: STEPS frames, all of them read."""
    ids = F.pad(ids, (0, STEPS - ids.shape[1]), value=K)
    return ids, torch.ones_like(ids, dtype=torch.bool)


FILL = {"masked": lambda ids, there: (ids, there), "counted": fill_up}
NONVERBAL = {"frames": Frames, "clusters": Clusters}


class Enhancement(nn.Module):
    """States X [B,T,D] -> X + shift; audio and vision are pairs of a sequence [B,T',D_m] and its mask [B,T']."""

    def __init__(self, dataset: Dataset, D: int, c: CENetConfig) -> None:
        super().__init__()
        self.audio, self.vision = (NONVERBAL[c.nonverbal](dataset, m, D, c.padding) for m in (1, 2))
        self.read_audio, self.read_vision = Reading(D, SCALE[c.scale]), Reading(D, SCALE[c.scale])
        self.shift = nn.Linear(2 * D, D)

    def forward(self, X: Tensor, audio: tuple[Tensor, Tensor], vision: tuple[Tensor, Tensor]) -> Tensor:
        seen = self.read_vision(X, *self.vision(*vision))  # [B,T,D]
        heard = self.read_audio(X, *self.audio(*audio))
        return X + self.shift(torch.cat([seen, heard], -1))


class LayeredEncoder(TextEncoder):
    """A language model whose states are changed after its first layer."""

    KINDS = ("bert", "roberta", "xlm-roberta")  # whose layers are called as here

    def __init__(self, name: str, train_weights: bool) -> None:
        super().__init__(name, train_weights)
        kind = self.model.config.model_type
        if kind not in self.KINDS:
            raise ValueError(
                f"CENet works inside the text encoder: expected one of {', '.join(self.KINDS)}, not {kind}."
            )

    def forward(self, tokens: Tensor, change: Callable[[Tensor], Tensor] = unchanged) -> Tensor:
        """[B,3,T] -> last hidden states [B,T,D]. A gradient goes through it also where its weights are frozen."""
        ids, mask, segments = tokens.unbind(1)
        extra = {"token_type_ids": segments} if self.model.config.type_vocab_size > 1 else {}
        X = self.model.embeddings(input_ids=ids, **extra)
        seen = torch.where(mask[:, None, None] > 0, 0.0, torch.finfo(X.dtype).min)  # [B,1,1,T], added to the scores
        first, *others = self.model.encoder.layer
        X = change(first(X, seen))
        for layer in others:
            X = layer(X, seen)
        return X


# --------------------------------------------------------------------------------------------------------- The network


class CENetProcedure(Procedure):
    """Adam with L2 in the gradient; the enhancement's biases decay too, those of all else and norms do not."""

    def __init__(self, network: CENet, dataset: Dataset, config) -> None:
        super().__init__(network, dataset, config)
        if share := network.c.warm_up:
            total = self.steps * config.epochs
            self.schedules["main"] = get_linear_schedule_with_warmup(self.optimisers["main"], int(share * total), total)

    def groups(self) -> list[dict]:
        config, groups = self.config, {}
        for name, p in self.network.named_parameters():
            if p.requires_grad:
                lr = config.lr_encoder if name.startswith("text_encoder.") else config.lr
                free = p.ndim < 2 and not name.startswith("enhance.")
                groups.setdefault((lr, 0.0 if free else config.weight_decay), []).append(p)
        return [{"params": p, "lr": lr, "weight_decay": decay} for (lr, decay), p in groups.items()]

    def optimiser(self, groups: list[dict]) -> torch.optim.Optimizer:
        return torch.optim.Adam(groups, eps=self.network.c.eps, fused=True)

    def after_step(self, batch: Batch, output: Output) -> None:
        for schedule in self.schedules.values():
            schedule.step()


def on_features(net: CENet, batch: Batch, features: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    return change(features)


def inside(net: CENet, batch: Batch, features: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    return net.text_encoder(batch.tokens, change)


STATES = {"precomputed": on_features, "frozen": inside, "finetune": inside}
ERROR = {"absolute": F.l1_loss, "squared": F.mse_loss}


class CENet(nn.Module):
    """The whole network. It leaves no extras."""

    Config, VARIANTS, CARD, RECIPES, SMALL, Procedure = CENetConfig, VARIANTS, CARD, RECIPES, SMALL, CENetProcedure
    RECORD = ()

    @staticmethod
    def fits(dataset: Dataset, switches: Mapping) -> str:
        return lacking(dataset, "tav")

    def __init__(self, dataset: Dataset, c: CENetConfig) -> None:
        super().__init__()
        if not 0 <= c.warm_up < 1:
            raise ValueError(f"warm_up={c.warm_up}: expected a share of the steps, from 0 to below 1.")
        self.c, self.inputs = c, Inputs(dataset)
        self.states, self.read, self.error = STATES[c.bert], TEXT_VECTOR[c.text], ERROR[c.error]
        D = self.inputs.dims[0]
        if c.bert != "precomputed":
            self.text_encoder = encoder_of(dataset, c.bert, LayeredEncoder)
            self.text_encoder.model.embeddings.requires_grad_(c.bert == "finetune" and c.embeddings == "trained")
            D = self.text_encoder.size
        self.enhance = Enhancement(dataset, D, c)
        self.head = nn.Sequential(Dropout(c.dropout), nn.Linear(D, D), nn.Tanh(), Dropout(c.dropout), nn.Linear(D, 1))
        for part in (*self.enhance.modules(), *self.head):
            if isinstance(part, (nn.Linear, nn.Embedding)):  # as in BERT
                nn.init.normal_(part.weight, std=0.02)
            if isinstance(part, nn.Linear):
                nn.init.zeros_(part.bias)

    def forward(self, batch: Batch) -> Output:
        (text, audio, vision), (mask, mask_a, mask_v) = self.inputs(batch)  # [B,T,D], [B,T] each
        change = partial(self.enhance, audio=(audio, mask_a), vision=(vision, mask_v))
        X = self.states(self, batch, text, change)  # [B,T,D]
        return Output(self.head(self.read(X * mask[..., None], mask))[:, 0], {})

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        """The mean error."""
        return weighted(task=(1.0, self.error(output.prediction, batch.labels)))
