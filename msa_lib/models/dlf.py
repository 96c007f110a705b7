"""DLF: "DLF: Disentangled-Language-Focused Multimodal Sentiment Analysis" (AAAI 2025). Written from its description and
compared with pwang322/DLF at 251bf2c (a descendant of DMD's code).

Read top-down: convolutions -> a specific and a shared transformer per modality, their reconstruction -> the shared
vectors C -> Language-Focused Attractor: text looks at itself, at audio and at vision -> residual readouts -> sigmoids
of everything, read by one more residual.

Specified by the code: all of it, for MOSI and MOSEI. Ours: CH-SIMS (MOSI's settings); masks (the code has none: it
reads the padding of its 50 steps, we a sample's own steps, the last valid one, and causal masks by its own lengths);
samples without a modality are left out of that modality's terms.

What the released code does differently from this file:
- It builds crossmodal transformers to audio and to vision, projections of s, readouts of each shared part and (in the
  launcher) distillation units, and uses none of them: 1,294,703 idle parameters (without those units) beside the
  1,628,605 that act, at MOSI's shape.
- `ort_rows=fifth`: for MOSEI the orthogonality of s and c takes rows of 10 numbers, a fifth of a step's vector, where
  for MOSI (and here) it takes the vector.
- The configured weight decay is never passed to Adam.

Published (result files of the repository, one seed): MOSI MAE .731, Corr .781, Acc-2 85.06; MOSEI MAE .536, Corr .764,
Acc-2 85.42. No CH-SIMS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from msa_lib.data import Batch, Dataset
from msa_lib.models.card import Card, Stated, lacking
from msa_lib.models.parts.crossmodal import Convolutions, CrossEncoder, SelfEncoder, last
from msa_lib.models.parts.decoupled import DecoupledProcedure, Residual, l1, label_margin, overlap, squared_gap, stacked
from msa_lib.models.parts.inputs import Inputs
from msa_lib.models.parts.layers import Output, as_extras, unchanged
from msa_lib.models.parts.losses import weighted


@dataclass(frozen=True)
class DLFConfig:
    """MOSI's settings."""

    d: int = 50
    heads: int = 10
    n_layers: int = 2
    k_text: int = 5  # width of the convolutions
    k_audio: int = 5
    k_vision: int = 5
    text_dropout: float = 0.5  # on the input
    attn_text: float = 0.3  # on the attention to text, and of the memories
    attn_audio: float = 0.2
    attn_vision: float = 0.0
    embed_dropout: float = 0.2
    relu_dropout: float = 0.0
    res_dropout: float = 0.0
    out_dropout: float = 0.5
    bert: Literal["precomputed", "frozen", "finetune"] = "precomputed"
    alignment: Literal["aligned", "padded"] = "aligned"
    w_text: float = 3.0  # of the loss of text's own prediction; the other two have 1
    ort_rows: Literal["vector", "fifth"] = "vector"
    accumulation: int = 10  # batches per step of the optimiser, their gradients summed


VARIANTS = {"full": {}, "as released": {"ort_rows": "fifth"}}
CARD = Card(
    paper="DLF: Disentangled-Language-Focused Multimodal Sentiment Analysis (AAAI 2025)",
    fidelity="specified",
    specified="Everything for MOSI and MOSEI, by the released code.",
    ours="CH-SIMS and its v2, with MOSI's settings; masks; what a sample that lacks a modality contributes; text "
    "features that are given (the code trains BERT along: bert=finetune).",
    choices=("bert",),
)
_CODE, _OURS = "pwang322/DLF 251bf2c, config/config.json", "ours: MOSI's; the code has no CH-SIMS"


def _recipe(source: str, **differing: float) -> dict[str, Stated]:
    training = {"batch_size": 16, "lr": 1e-4, "lr_encoder": 1e-4, "clip": 0.6, "patience": 10, "drop_last": False}
    stated = {name: Stated(value, source) for name, value in (training | differing).items()}
    return stated | {
        "weight_decay": Stated(0.0, "pwang322/DLF 251bf2c, trains/singleTask/DLF.py: Adam is not given any")
    }


_MOSEI = dict.fromkeys(("k_text", "k_audio", "k_vision"), 3) | {
    "text_dropout": 0.1, "attn_text": 0.5, "attn_audio": 0.0, "embed_dropout": 0.0}  # fmt: skip
RECIPES = {"mosi": _recipe(_CODE), "mosei": _recipe(_CODE, **_MOSEI), "sims": _recipe(_OURS), "simsv2": _recipe(_OURS)}
SMALL = {"d": 20, "heads": 2, "n_layers": 1, "accumulation": 1}


class Trace(NamedTuple):
    """What a forward leaves behind for the losses; zeros after a length."""

    available: Tensor  # [B,M]
    mask: Tensor  # [B,M,L]
    X: Tensor  # [B,M,L,d]
    s: Tensor  # specific
    c: Tensor  # shared
    reconstruction: Tensor  # X-hat
    again: Tensor  # s-hat, of X-hat
    aligned: Tensor  # c-bar [B,M,d], for the margin
    own: Tensor  # predictions of the attractor's paths [B,M]
    shared: Tensor  # prediction of C [B]


def fifths(x: Tensor) -> Tensor:
    """Rows of a fifth of a step's vector: [B,M,L,d] -> [B,M,5L,d/5]."""
    return x.unflatten(-1, (5, -1)).flatten(2, 3)


ROWS = {"vector": (unchanged, unchanged), "fifth": (fifths, lambda mask: mask.repeat_interleave(5, -1))}


class DLF(nn.Module):
    """The whole network."""

    Config, VARIANTS, CARD, RECIPES, SMALL, Procedure = DLFConfig, VARIANTS, CARD, RECIPES, SMALL, DecoupledProcedure
    RECORD = ()

    @staticmethod
    def fits(dataset: Dataset, switches: Mapping) -> str:
        return lacking(dataset, "tav")

    def __init__(self, dataset: Dataset, c: DLFConfig) -> None:
        super().__init__()
        if c.ort_rows == "fifth" and c.d % 5:
            raise ValueError(f"ort_rows='fifth' cuts a vector of width d={c.d} in five; expected a multiple of 5.")
        self.c, d, attn = c, c.d, (c.attn_text, c.attn_audio, c.attn_vision)
        self.inputs = Inputs(dataset, c.bert, c.alignment)
        self.convolve = Convolutions(self.inputs.dims, d, (c.k_text, c.k_audio, c.k_vision), c.text_dropout)
        self.steps = self.convolve.steps(self.inputs.steps)

        def encoder(kind: type, dropout: float, n_layers: int = 0) -> nn.Module:
            n_layers = max(c.n_layers, n_layers)
            return kind(d, c.heads, n_layers, dropout, c.relu_dropout, c.res_dropout, c.embed_dropout)

        self.specific = nn.ModuleList(encoder(SelfEncoder, p) for p in attn)  # E_m
        self.shared = encoder(SelfEncoder, c.attn_text)  # E_c
        self.decode = nn.ModuleList(nn.Linear(2 * d, d, bias=False) for _ in range(3))  # D_m
        self.align = nn.ModuleList(nn.Linear(L * d, d) for L in self.steps)
        self.pool = nn.ModuleList(encoder(SelfEncoder, p) for p in attn)
        self.shared_readout, self.shared_out = Residual(3 * d, c.out_dropout), nn.Linear(3 * d, 1)
        self.attract = nn.ModuleList(encoder(CrossEncoder, p) for p in attn[1:])  # text to audio, to vision
        self.remember = nn.ModuleList(encoder(SelfEncoder, c.attn_text, n) for n in (0, 3, 3))
        self.readout = nn.ModuleList(Residual(d, c.out_dropout) for _ in range(3))
        self.own = nn.ModuleList(nn.Linear(d, 1) for _ in range(3))
        self.project = nn.ModuleList(nn.Linear(size, size) for size in (d, d, d, 3 * d))
        self.fuse, self.out = Residual(6 * d, c.out_dropout), nn.Linear(6 * d, 1)
        self.rows, self.rows_mask = ROWS[c.ort_rows]

    def forward(self, batch: Batch) -> Output:
        X, masks = self.convolve(*self.inputs(batch))  # [B,L,d] and [B,L] of each modality
        s = [E(x, mask) for E, x, mask in zip(self.specific, X, masks, strict=True)]
        c = [self.shared(x, mask) for x, mask in zip(X, masks, strict=True)]
        Xhat = [D(torch.cat(both, -1)) for D, *both in zip(self.decode, s, c, strict=True)]
        again = [E(x, mask) for E, x, mask in zip(self.specific, Xhat, masks, strict=True)]  # s-hat
        whole = [stacked([y], L)[:, 0].flatten(1) for y, L in zip(c, self.steps, strict=True)]  # [B,L_m d]
        cbar = torch.stack([align(y) for align, y in zip(self.align, whole, strict=True)], 1)  # [B,M,d]

        C = torch.cat([last(E(y, mask), mask) for E, y, mask in zip(self.pool, c, masks, strict=True)], -1)  # [B,3d]
        text = [s[0], *(E(s[0], masks[0], s[m], masks[m]) for m, E in enumerate(self.attract, 1))]  # [B,L_t,d]
        h = [last(E(y, masks[0]), masks[0]) for E, y in zip(self.remember, text, strict=True)]  # [B,d]
        p = [readout(x) for readout, x in zip(self.readout, h, strict=True)]
        own = torch.cat([out(x) for out, x in zip(self.own, p, strict=True)], -1)  # [B,M]
        z = torch.cat([torch.sigmoid(P(x)) for P, x in zip(self.project, [*p, C], strict=True)], -1)  # [B,6d]
        y = self.out(self.fuse(z))[:, 0]

        L = max(mask.shape[1] for mask in masks)
        X, s, c, Xhat, again = (stacked(part, L) for part in (X, s, c, Xhat, again))  # [B,M,L,d]
        mask = stacked(masks, L)
        shared = self.shared_out(self.shared_readout(C))[:, 0]
        return Output(y, as_extras(Trace(mask.any(-1), mask, X, s, c, Xhat, again, cbar, own, shared)))

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        t, y = Trace(**output.extras), batch.labels
        own = l1(t.own, y, t.available)
        return weighted(
            task=(1.0, (output.prediction - y).abs().mean()),
            shared=(1.0, (t.shared - y).abs().mean()),
            text=(self.c.w_text, own[0]),
            audio=(1.0, own[1]),
            vision=(1.0, own[2]),
            cycle=(0.1, squared_gap(t.s, t.again, t.mask)),
            reconstruction=(0.1, squared_gap(t.reconstruction, t.X, t.mask)),
            margin=(0.01, label_margin(t.aligned, y, t.available)),
            orthogonal=(0.01, overlap(self.rows(t.s), self.rows(t.c), self.rows_mask(t.mask))),
        )
