"""ALMT: "Learning Language-guided Adaptive Hyper-modality Representation for Multimodal Sentiment Analysis" (Zhang et
al., EMNLP 2023). Written after the authors' code (Haoyu-ha/ALMT, da94610) and its port in thuiar/MMSA
(a94e65d), in our own words; equations carry no numbers because the paper itself was not at hand.

Read top-down: each modality is embedded into a few tokens -> the language tokens are read at three scales -> at each
scale the language asks audio and vision, and the answers are added to the hyper-modality (AHL) -> one token asks the
hyper-modality for the sentiment.

Specified (by the code): every layer, size and rate; AdamW with decay on everything, the text encoder included; the rate
goes up linearly over the first tenth of the epochs and down by a cosine afterwards.
Ours: masks. The released code attends to padding (`padding=read`: every sequence is filled up with zeros to the longest
of the data set), and so the number of padded frames reaches the result. SIMSv2 has no published setting.
The released code besides: trains its first epoch at rate 0 and reaches the full rate one epoch later for it
(`first_epoch=idle`); adds to the *normalised* hyper-modality, which is kept here; reads what a text encoder gives at
padding tokens, where we have zeros. In its last cross-attention the language is the query, but only the token in front
of it is read, and queries do not see each other: the language reaches the output through AHL alone. We compute only
what is read.

Published: MOSI MAE .683, Corr .805, Acc-2 84.55/86.43, Acc-7 49.42 (the authors, ALMT issue 10). Their code keeps the
best *test* value of each metric over 200 epochs; `selection=test_oracle` picks one epoch by test MAE. A user's run of
the same code: MAE .721, Corr .792, again best over the epochs (same issue); another: .716, .773 (quoted in later
papers, secondary). MOSEI MAE .526, Corr .779 (same issue and secondary). SIMS Acc-2 81.19 (same issue). Not in
MMSA's table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msa_lib.data import Batch, Dataset
from msa_lib.models.card import Card, Stated, lacking
from msa_lib.models.parts.dropout import Dropout
from msa_lib.models.parts.inputs import Inputs
from msa_lib.models.parts.layers import HeadedAttention, Output, attend
from msa_lib.models.parts.losses import weighted
from msa_lib.models.parts.rates import RATE
from msa_lib.train.procedure import Procedure


@dataclass(frozen=True)
class ALMTConfig:
    d: int = 128
    tokens: int = 8  # that stand for a modality
    heads: int = 8
    head_size: int = 64  # of the attention in blocks; in AHL it is d / heads
    hidden: int = 128  # of the feed-forward layers
    n_layers: int = 1  # of each embedding
    scales: int = 3  # of the language, one AHL layer each
    fusion_layers: int = 2
    dropout: float = 0.0
    bert: Literal["precomputed", "frozen", "finetune"] = "precomputed"
    padding: Literal["masked", "read"] = "masked"  # read: as released
    first_epoch: Literal["trained", "idle"] = "trained"  # idle: at rate 0, as released


CARD = Card(
    paper="Zhang et al., Learning Language-guided Adaptive Hyper-modality Representation for Multimodal Sentiment "
    "Analysis, EMNLP 2023",
    fidelity="specified",
    specified="Layers, sizes, optimiser and schedule, by the authors' code.",
    ours="Padding is masked (`padding=read` is the code); SIMSv2 has the settings of SIMS.",
    choices=("padding", "bert", "dropout"),
)
VARIANTS = {"full": {}, "as released": {"padding": "read", "first_epoch": "idle"}}
SMALL = {"d": 16, "tokens": 2, "heads": 2, "head_size": 8, "hidden": 16, "fusion_layers": 1}


def _recipe(fusion_layers: int, source: str = "ALMT, configs; equal in MMSA") -> dict[str, Stated]:
    values = {"batch_size": 64, "lr": 1e-4, "lr_encoder": 1e-4, "weight_decay": 1e-4, "epochs": 200, "clip": 0.0}
    stated = {name: Stated(value, source) for name, value in (values | {"fusion_layers": fusion_layers}).items()}
    return stated | {"drop_last": Stated(False, "MMSA"), "patience": Stated(32, "MMSA; the authors' code never stops")}


RECIPES = {
    "mosi": _recipe(2),
    "mosei": _recipe(4),
    "sims": _recipe(4),
    "simsv2": _recipe(4, "ours: that of SIMS"),
}


class Block(nn.Module):
    """Norms first: x [B,T,d] asks `source` [B,T',d] with mask [B,T']; then a feed-forward layer."""

    def __init__(self, c: ALMTConfig) -> None:
        super().__init__()
        self.norm_q, self.norm_k, self.norm_v, self.norm = (nn.LayerNorm(c.d) for _ in range(4))
        self.attention = HeadedAttention(c.d, c.heads, c.head_size, c.dropout)
        self.ffn = nn.Sequential(
            nn.Linear(c.d, c.hidden),
            nn.GELU(),
            Dropout(c.dropout),
            nn.Linear(c.hidden, c.d),
            Dropout(c.dropout),
        )

    def forward(self, x: Tensor, source: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attention(self.norm_q(x), self.norm_k(source), self.norm_v(source), mask)
        return x + self.ffn(self.norm(x))


# ------------------------------------------------------------------------------------------ modalities as few tokens


class Embedding(nn.Module):
    """A sequence [B,T,D] of at most `steps` steps -> h [B,tokens,d]: learnable tokens that have read it."""

    def __init__(self, c: ALMTConfig, size: int, steps: int) -> None:
        super().__init__()
        self.proj = nn.Linear(size, c.d)
        self.tokens = nn.Parameter(torch.zeros(c.tokens, c.d))
        self.position = nn.Parameter(torch.randn(c.tokens + steps, c.d))  # of the tokens, then of the steps
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.n_layers))
        self.steps, self.fill = steps, FILL[c.padding]

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x, mask = self.fill(x, mask, self.steps)
        n = len(self.tokens)
        x = torch.cat([self.tokens.expand(len(x), -1, -1), self.proj(x)], 1)  # [B,tokens+T,d]
        x = x + F.pad(self.position, (0, 0, 0, max(0, x.shape[1] - len(self.position))))[: x.shape[1]]
        mask = F.pad(mask, (n, 0), value=True)
        for block in self.blocks[:-1]:
            x = block(x, x, mask)
        return self.blocks[-1](x[:, :n], x, mask)  # the other outputs are not read


def read_all(x: Tensor, mask: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """As released: zeros up to `steps`, read like anything else."""
    x = F.pad(x[:, :steps], (0, 0, 0, max(0, steps - x.shape[1])))
    return x, mask.new_ones(x.shape[:2])


FILL = {"masked": lambda x, mask, steps: (x, mask), "read": read_all}

# ------------------------------------------------------------------------- adaptive hyper-modality learning (AHL)


class AHL(nn.Module):
    """One scale: what the language h_t finds in audio and vision is added to the hyper-modality H [B,tokens,d]."""

    def __init__(self, c: ALMTConfig) -> None:
        super().__init__()
        if c.heads < 1 or c.d % c.heads:
            raise ValueError(f"The width d={c.d} must be a multiple of heads={c.heads}, which is at least 1.")
        self.norm_t, self.norm_a, self.norm_v, self.norm_h = (nn.LayerNorm(c.d) for _ in range(4))
        self.q, self.k_a, self.k_v, self.v_a, self.v_v = (nn.Linear(c.d, c.d, bias=False) for _ in range(5))
        self.out, self.heads, self.dropout = nn.Linear(c.d, c.d), c.heads, c.dropout

    def forward(self, h_t: Tensor, h_a: Tensor, h_v: Tensor, H: Tensor) -> Tensor:
        a, v, q = self.norm_a(h_a), self.norm_v(h_v), self.q(self.norm_t(h_t))
        everything, dropout = a.new_ones(a.shape[:2], dtype=torch.bool), self.dropout if self.training else 0.0
        alpha_V = attend(q, self.k_a(a), self.v_a(a), everything, self.heads, dropout)  # alpha V_a
        beta_V = attend(q, self.k_v(v), self.v_v(v), everything, self.heads, dropout)  # beta V_v
        return self.norm_h(H) + self.out(alpha_V + beta_V)


# ------------------------------------------------------------------------------------------------ fusion and output


class Fusion(nn.Module):
    """The token in front of the language asks the hyper-modality [B,tokens,d] and the same token in front of that.

    -> [B,d]. The language's own tokens stand behind it, but nothing lets it see them; so they are not here.
    """

    def __init__(self, c: ALMTConfig) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, c.d))  # the same for both
        self.position_h, self.position_t = (nn.Parameter(torch.randn(1 + c.tokens, c.d)) for _ in range(2))
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.fusion_layers))

    def forward(self, H: Tensor) -> Tensor:
        token = self.token.expand(len(H), -1, -1)
        source = torch.cat([token, H], 1) + self.position_h  # [B,1+tokens,d]
        x = token + self.position_t[:1]  # of the whole table only its row can be reached
        everything = source.new_ones(source.shape[:2], dtype=torch.bool)
        for block in self.blocks:
            x = block(x, source, everything)
        return x[:, 0]


class Recipe(Procedure):
    """AdamW with decay on everything; per epoch the rate rises to full in a tenth of them, then falls by a cosine."""

    def __init__(self, network: nn.Module, dataset: Dataset, config) -> None:
        super().__init__(network, dataset, config)
        rate = RATE[network.c.first_epoch]
        total, rising = config.epochs, max(1, round(config.epochs / 10))
        schedule = torch.optim.lr_scheduler.LambdaLR
        self.schedules["main"] = schedule(self.optimisers["main"], lambda done: rate(done + 1, rising, total))

    def groups(self) -> list[dict]:
        encoder, rest = [], []
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                (encoder if "text_encoder." in name else rest).append(parameter)
        decay = self.config.weight_decay
        groups = [(rest, self.config.lr), (encoder, self.config.lr_encoder)]
        return [{"params": group, "lr": lr, "weight_decay": decay} for group, lr in groups if group]

    def end_epoch(self, record: Mapping, score: float) -> None:
        self.schedules["main"].step()


class ALMT(nn.Module):
    Config, VARIANTS, CARD, RECIPES, SMALL, Procedure = ALMTConfig, VARIANTS, CARD, RECIPES, SMALL, Recipe
    RECORD = ()

    @staticmethod
    def fits(dataset: Dataset, switches: Mapping) -> str:
        return lacking(dataset, "tav")

    def __init__(self, dataset: Dataset, c: ALMTConfig) -> None:
        super().__init__()
        for name in ("tokens", "head_size", "n_layers", "scales", "fusion_layers"):
            if getattr(c, name) < 1:
                raise ValueError(f"{name}={getattr(c, name)}: expected at least 1.")
        self.c, self.inputs = c, Inputs(dataset, c.bert)
        sizes = zip(self.inputs.dims, dataset.max_steps, strict=True)
        self.embeddings = nn.ModuleList(Embedding(c, size, steps) for size, steps in sizes)
        self.position_t = nn.Parameter(torch.randn(c.tokens, c.d))
        self.language = nn.ModuleList(Block(c) for _ in range(c.scales - 1))
        self.hyper = nn.Parameter(torch.ones(c.tokens, c.d))
        self.ahl = nn.ModuleList(AHL(c) for _ in range(c.scales))
        self.fusion, self.out = Fusion(c), nn.Linear(c.d, 1)

    def forward(self, batch: Batch) -> Output:
        raw, masks = self.inputs(batch)  # [B,T,D], [B,T] each
        h_t, h_a, h_v = (e(x, m) for e, x, m in zip(self.embeddings, raw, masks, strict=True))  # [B,tokens,d]
        h_t, H = h_t + self.position_t, self.hyper.expand(len(h_t), -1, -1)
        H = self.ahl[0](h_t, h_a, h_v, H)
        everything = h_t.new_ones(h_t.shape[:2], dtype=torch.bool)
        for block, ahl in zip(self.language, self.ahl[1:], strict=True):
            h_t = block(h_t, h_t, everything)  # the language at its next scale
            H = ahl(h_t, h_a, h_v, H)
        return Output(self.out(self.fusion(H))[:, 0], {})

    def loss(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        return weighted(task=(1.0, F.mse_loss(output.prediction, batch.labels)))
