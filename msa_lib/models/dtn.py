"""DTN: "Disentanglement Translation Network for multimodal sentiment analysis" (Zeng, Yan, Mai, Hu, Information Fusion
102, 2024). A model of our own by its abstract: the repository (zengy268/DTN, 0b4073e) holds settings and no model, and
the paper was not at hand. Its printed numbers are therefore not judged by this one.

Read top-down: one vector x per modality -> a common part c and a specific part s. First stage of translation: no
discriminator can tell from which modality a c is (adversarial). Second stage: the distribution of s is moved onto that
of c. Decoder: x is rebuilt from both, within a slack -> all six parts are read for the prediction.

Known from the abstract: modality-common and -specific parts by an encoder and decoder; two stages of translation, the
first adversarial, the second by matching the distributions of specific and common parts; slack reconstruction, which
lets redundancy go and looks at relations between samples. From the repository: width, batch, rate, epochs, BERT.
Ours: all else, see the card.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msa_lib.data import Batch, Dataset
from msa_lib.models.card import Card, Stated, all_but, lacking
from msa_lib.models.parts.inputs import Inputs
from msa_lib.models.parts.layers import Bank, Output, as_extras, masked_mean, mlp
from msa_lib.models.parts.losses import central_moments, mean_of, reverse, weighted
from msa_lib.models.parts.wordwise import WordEncoders


@dataclass(frozen=True)
class DTNConfig:
    d: int = 80
    heads: int = 5
    n_layers: int = 3
    attn_dropout: float = 0.5
    relu_dropout: float = 0.3
    res_dropout: float = 0.3
    embed_dropout: float = 0.2
    adversary: Literal["modality", "text"] = "modality"  # which of three is it? | is it text's? the others move to it
    matching: Literal["moments", "mmd"] = "moments"  # of specific onto common
    reconstruction: Literal["slack", "exact"] = "slack"
    slack: float = 0.1  # mean squared error of a vector that is not punished
    w_adversary: float = 0.1
    w_matching: float = 0.1
    w_reconstruction: float = 0.1
    bert: Literal["precomputed", "frozen", "finetune"] = "precomputed"
    alignment: Literal["aligned", "padded"] = "aligned"


VARIANTS = {
    "full": {},
    "translation to text": {"adversary": "text"},
    "mean discrepancy": {"matching": "mmd"},
    "exact reconstruction": {"reconstruction": "exact"},
    "weights 1": {"w_adversary": 1.0, "w_matching": 1.0, "w_reconstruction": 1.0},
}
CARD = Card(
    paper="Zeng, Yan, Mai, Hu, Disentanglement Translation Network for multimodal sentiment analysis, Information "
    "Fusion 102, 2024",
    fidelity="partial",
    specified="By the abstract: common and specific parts, adversarial translation, matching of their distributions, "
    "slack reconstruction. By the authors' settings file: width, batch, rate, epochs.",
    ours="Nothing but the abstract was read, and no code exists. Encoders are MIM's, by the same authors. Common "
    "parts by one network, specific parts by one per modality, of two layers. The discriminator has two layers, "
    "learns in the same step through a reversed gradient, and tells three modalities apart. Matching is the central "
    "moment discrepancy behind sigmoids, per modality, and moves the specific part only. Slack is a squared error "
    "below 0.1, plus squared gaps between the cosines of all pairs of samples before and after. All weights are 0.1. "
    "Two layers read the six parts; L1. What a sample lacks is 0 and in no loss. Other data sets have MOSI's "
    "settings.",
    choices=all_but(DTNConfig, "d"),
)


def _recipe(source: str = "zengy268/DTN 0b4073e, README.md") -> dict[str, Stated]:
    values = {"batch_size": 16, "lr": 1e-5, "lr_encoder": 1e-5, "epochs": 100}
    ours = {"weight_decay": 0.0, "clip": 0.0, "patience": 100, "drop_last": True}
    stated = {name: Stated(value, source) for name, value in values.items()}
    return stated | {name: Stated(value, "ours: as MIM's code, of the same authors") for name, value in ours.items()}


_OURS = _recipe("ours: MOSI's")
RECIPES = {"mosi": _recipe(), "mosei": _recipe(), "sims": _OURS, "simsv2": _OURS}
SMALL = {"d": 10, "heads": 2, "n_layers": 1}


class Trace(NamedTuple):
    """What a forward leaves behind for the losses; zeros where a modality is missing."""

    available: Tensor  # [B,M]
    x: Tensor  # [B,M,d]
    common: Tensor  # [B,M,d]
    specific: Tensor  # [B,M,d]
    rebuilt: Tensor  # [B,M,d]


# ---------------------------------------------------------------------------------------- first stage: no one can tell


def which_modality(logits: Tensor, here: Tensor) -> Tensor:
    """Cross-entropy of telling from logits [B,M,3] which modality it is."""
    return mean_of(-torch.log_softmax(logits, -1).diagonal(dim1=1, dim2=2), here)


def is_it_text(logits: Tensor, here: Tensor) -> Tensor:
    """Cross-entropy of telling from logits [B,M,1] whether it is text."""
    truth = logits.new_tensor([1.0, 0.0, 0.0]).expand(here.shape)
    return mean_of(F.binary_cross_entropy_with_logits(logits[..., 0], truth, reduction="none"), here)


def held_text(common: Tensor) -> Tensor:
    """The others move to text, which does not move to them."""
    return torch.cat([common[:, :1].detach(), common[:, 1:]], 1)


ADVERSARY = {"modality": (3, which_modality, lambda common: common), "text": (1, is_it_text, held_text)}


# --------------------------------------------------------------------------- second stage: specific moves onto common


def moments(specific: Tensor, common: Tensor, here: Tensor) -> Tensor:
    """Central moment discrepancy of one modality's parts [B,d] behind sigmoids."""
    return central_moments(torch.sigmoid(specific), torch.sigmoid(common), here, here)


def mean_discrepancy(specific: Tensor, common: Tensor, here: Tensor) -> Tensor:
    """Squared maximum mean discrepancy; Gaussian kernel, its width the mean square distance of all pairs of both."""
    both, weight = torch.cat([specific, common]), torch.cat([here, here]).to(common.dtype)  # [2B,d], [2B]
    pair = weight[:, None] * weight
    square = (both[:, None] - both).square().sum(-1)
    width = ((square * pair).sum() / pair.sum().clamp(min=1)).detach().clamp(min=1e-6)
    side = torch.cat([torch.ones_like(common[:, 0]), -torch.ones_like(common[:, 0])]) * weight
    return side @ torch.exp(-square / (2 * width)) @ side / here.sum().clamp(min=1) ** 2


MATCHING = {"moments": moments, "mmd": mean_discrepancy}


# ------------------------------------------------------------------------------------------------------ reconstruction


def exact(x: Tensor, rebuilt: Tensor, here: Tensor, slack: float) -> Tensor:
    """Mean squared error of vectors [B,M,d]."""
    return mean_of((rebuilt - x).square().mean(-1), here)


def slackened(x: Tensor, rebuilt: Tensor, here: Tensor, slack: float) -> Tensor:
    """Only errors above the slack count; and cosines between the samples of a modality should stay."""
    error = mean_of(F.relu((rebuilt - x).square().mean(-1) - slack), here)
    gaps = (cosines(rebuilt) - cosines(x)).square()  # [M,B,B]
    pair = torch.einsum("bm,am->mba", here.to(x.dtype), here.to(x.dtype))
    return error + (gaps * pair).sum() / pair.sum().clamp(min=1)


def cosines(x: Tensor) -> Tensor:
    """Of all pairs of samples: [B,M,d] -> [M,B,B]."""
    x = F.normalize(x, dim=-1, eps=1e-4)
    return torch.einsum("bmd,amd->mba", x, x)


RECONSTRUCTION = {"slack": slackened, "exact": exact}


class DTN(nn.Module):
    """The whole network."""

    Config, VARIANTS, CARD, RECIPES, SMALL = DTNConfig, VARIANTS, CARD, RECIPES, SMALL
    RECORD = ()

    @staticmethod
    def fits(dataset: Dataset, switches: Mapping) -> str:
        return lacking(dataset, "tav")

    def __init__(self, dataset: Dataset, c: DTNConfig) -> None:
        super().__init__()
        self.c, self.inputs, d = c, Inputs(dataset, c.bert, c.alignment), c.d
        dropout = c.attn_dropout, c.relu_dropout, c.res_dropout, c.embed_dropout
        self.encode = WordEncoders(self.inputs.dims, d, c.heads, c.n_layers, *dropout)
        self.common, self.specific, self.decode = mlp(d, d, d), Bank(d, d, d), Bank(2 * d, d, d)
        classes, self.told, self.shown = ADVERSARY[c.adversary]
        self.discriminate, self.out = mlp(d, d // 2, classes), mlp(6 * d, d, 1)
        self.match, self.gap = MATCHING[c.matching], RECONSTRUCTION[c.reconstruction]

    def forward(self, batch: Batch) -> Output:
        raw, masks = self.inputs(batch)  # [B,T,D], [B,T] each
        X = self.encode(raw, masks)  # [B,T,d] each
        x = torch.stack([masked_mean(F.relu(y), mask) for y, mask in zip(X, masks, strict=True)], 1)  # [B,M,d]
        here = torch.stack([mask.any(-1) for mask in masks], 1)  # [B,M]
        common, specific = (part(x) * here[..., None] for part in (self.common, self.specific))  # [B,M,d]
        parts = torch.cat([common, specific], -1)  # [B,M,2d]
        return Output(self.out(parts.flatten(1))[:, 0], as_extras(Trace(here, x, common, specific, self.decode(parts))))

    def adversary(self, t: Trace) -> Tensor:
        """The discriminator goes down this loss and what is before it up, for the gradient is reversed between them."""
        return self.told(self.discriminate(reverse(self.shown(t.common))), t.available)

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        t, c = Trace(**output.extras), self.c
        pairs = zip(t.specific.unbind(1), t.common.detach().unbind(1), t.available.unbind(1), strict=True)
        return weighted(
            task=(1.0, F.l1_loss(output.prediction, batch.labels)),
            adversary=(c.w_adversary, self.adversary(t)),
            matching=(c.w_matching, sum(self.match(*pair) for pair in pairs)),
            reconstruction=(c.w_reconstruction, self.gap(t.x, t.rebuilt, t.available, c.slack)),
        )
