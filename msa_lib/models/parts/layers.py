"""Building blocks that several models share. Masks are True on valid steps; padding never reaches a result."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msa_lib.models.parts.dropout import Dropout, dot_product


class Output(NamedTuple):
    """What every model returns."""

    prediction: Tensor  # [B]
    extras: dict[str, Tensor]  # what its losses and the notebooks need, [B,...] each


def as_extras(trace: NamedTuple) -> dict[str, Tensor]:
    """A model's `Trace` by name, without fields that a variant lacks (None). `Trace(**extras)` is the way back."""
    return {name: value for name, value in zip(trace._fields, trace, strict=True) if value is not None}


def absent(*_) -> None:
    """Stands for a part that a variant does not have."""


def unchanged(x: Tensor, *_) -> Tensor:
    """Stands for a part that leaves its first argument as it is."""
    return x


STOP = {True: Tensor.detach, False: unchanged}  # whether a gradient stops here


def at_step(x: Tensor, step: Tensor, mask: Tensor) -> Tensor:
    """Step `step` [B] of x [B,T,d], zeros where the mask [B,T] has no valid step -> [B,d]."""
    return x.gather(1, step[:, None, None].expand(-1, 1, x.shape[-1]))[:, 0] * mask.any(-1, keepdim=True)


def one_hot(index: Tensor, n: int) -> Tensor:
    """[...] of numbers below n -> [...,n] of booleans. `F.one_hot` looks at its values: it waits for a GPU for that,
    and cannot be stacked over seeds."""
    return index[..., None] == torch.arange(n, device=index.device)


def in_order(X: Tensor, roles: Tensor) -> Tensor:
    """X [B,M,...] with its modalities in the order `roles` [B,M], which differs per sample."""
    return X.gather(1, roles[(...,) + (None,) * (X.ndim - 2)].expand_as(X))


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x [...,T,d] over the steps where mask [...,T] is True; zeros where there is none -> [...,d]."""
    weight = mask.to(x.dtype)
    return torch.einsum("...td,...t->...d", x, weight) / weight.sum(-1, keepdim=True).clamp(min=1)


def convolved(x: Tensor, weight: Tensor, padding: int = 0) -> Tensor:
    """Convolution over time of x [B,T,D] with weight [d,D,k], `padding` zeros at both ends -> [B,T+2*padding-k+1,d].

    One product for all places of the kernel, then a sum of shifted steps: a third of the time of `F.conv1d` on a CPU.
    """
    k = weight.shape[-1]
    steps = x.shape[1] + 2 * padding - k + 1
    places = F.linear(x, weight.permute(2, 0, 1).flatten(0, 1))  # [B,T,k*d]
    places = F.pad(places, (0, 0, padding, padding)).chunk(k, -1)
    return sum(place[:, i : i + steps] for i, place in enumerate(places))


def mlp(*sizes: int, dropout: float = 0.0) -> nn.Sequential:
    """Linear layers of the given sizes with ReLU (and dropout) between them."""
    layers: list[nn.Module] = []
    for size_in, size_out in pairwise(sizes):
        layers += [nn.Linear(size_in, size_out), nn.ReLU(), Dropout(dropout)]
    return nn.Sequential(*layers[:-2])


class Bank(nn.Module):
    """One MLP of the given sizes per modality, ReLU between its layers: [B,M,...,in] -> [B,M,...,out]."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        bounds = [size_in**-0.5 for size_in in sizes[:-1]]
        shapes = list(zip(pairwise(sizes), bounds, strict=True))
        self.weight = nn.ParameterList(torch.empty(3, i, o).uniform_(-bound, bound) for (i, o), bound in shapes)
        self.bias = nn.ParameterList(torch.empty(3, o).uniform_(-bound, bound) for (_, o), bound in shapes)

    def forward(self, x: Tensor) -> Tensor:
        for i, (W, b) in enumerate(zip(self.weight, self.bias, strict=True)):
            x = torch.einsum("bm...i,mio->bm...o", F.relu(x) if i else x, W)
            x = x + b.view(3, *[1] * (x.ndim - 3), -1)
        return x


def feed_forward(d: int, hidden: int, dropout: float, activation: type = nn.GELU) -> nn.Sequential:
    return nn.Sequential(nn.Linear(d, hidden), activation(), Dropout(dropout), nn.Linear(hidden, d), Dropout(dropout))


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, heads: int, dropout: float, scale: float | None = None
) -> Tensor:
    """Dot-product attention of q [B,T,d] over k, v [B,T',d] with key mask [B,T'] -> [B,T,d]. `scale` multiplies the
    scores; without it they are divided by the root of a head's width.

    A row without a single valid key yields zeros, not NaN: it attends to everything and is then multiplied by 0.
    """
    any_key = mask.any(-1)[:, None, None]  # [B,1,1]
    return _attend(q, k, v, mask | ~any_key[..., 0], heads, dropout, scale) * any_key.to(q.dtype)


def _attend(q, k, v, seen: Tensor, heads: int, dropout: float, scale: float | None = None) -> Tensor:
    """`attend` where every row has a key that is seen."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))  # [B,heads,T,d/heads]
    return dot_product(q, k, v, seen[:, None, None], dropout, scale).transpose(1, 2).flatten(-2)  # [B,T,d]


class Attention(nn.Module):
    """Multi-head attention with its own Q, K, V and output maps; no residual, no norm."""

    def __init__(self, d: int, heads: int, dropout: float) -> None:
        super().__init__()
        if heads < 1 or d % heads:
            raise ValueError(f"The width d={d} must be a multiple of heads={heads}, which is at least 1.")
        self.q, self.k, self.v, self.out = (nn.Linear(d, d) for _ in range(4))
        self.heads, self.dropout = heads, dropout

    def forward(self, query: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        dropout, any_key = self.dropout if self.training else 0.0, mask.any(-1)[:, None, None]
        seen = mask | ~any_key[..., 0]
        x = self.out(_attend(self.q(query), self.k(keys), self.v(keys), seen, self.heads, dropout))
        return x * any_key.to(x.dtype)  # the output bias too is 0 without keys


class HeadedAttention(nn.Module):
    """Attention of `heads` heads of a size of their own; no biases but of the output."""

    def __init__(self, d: int, heads: int, size: int, dropout: float) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(d, heads * size, bias=False) for _ in range(3))
        self.out, self.heads, self.dropout = nn.Linear(heads * size, d), heads, dropout

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        return self.out(attend(self.q(q), self.k(k), self.v(v), mask, self.heads, dropout))


class EncoderBlock(nn.Module):
    """Standard Transformer encoder block: self-attention, residual, norm, FFN, residual, norm."""

    def __init__(self, d: int, heads: int, hidden: int, dropout: float, activation: type = nn.GELU) -> None:
        super().__init__()
        self.attention = Attention(d, heads, dropout)
        self.ffn = feed_forward(d, hidden, dropout, activation)
        self.norm1, self.norm2, self.drop = nn.LayerNorm(d), nn.LayerNorm(d), Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.norm1(x + self.drop(self.attention(x, x, mask)))
        return self.norm2(x + self.ffn(x))


class PreNormBlock(EncoderBlock):
    """The same with the norms first."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        h = self.norm1(x)
        x = x + self.drop(self.attention(h, h, mask))
        return x + self.ffn(self.norm2(x))


BLOCKS = {"post": EncoderBlock, "pre": PreNormBlock}


def fixed_draw(index: Tensor, n: int | Tensor) -> Tensor:
    """A number below n for each sample [B]: arbitrary, but the same in every epoch and run."""
    mixed = index * -7046029254386353131  # a hash (splitmix64): wraps around, neighbours differ
    mixed = (mixed ^ (mixed >> 30)) * -4658895280553007687
    return (mixed >> 33 & 0x3FFFFFFF) % n


def sinusoid(steps: int, d: int, device: torch.device | None = None) -> Tensor:
    """The fixed sine and cosine position code [T,d]."""
    position = torch.arange(steps, device=device)[:, None]
    rate = torch.exp(torch.arange(0, d, 2, device=device) * (-math.log(10000.0) / d))
    return torch.stack([torch.sin(position * rate), torch.cos(position * rate)], -1).flatten(1)[:, :d]


def to_grid(x: Tensor, lengths: Tensor, grid: Tensor, steps: int) -> Tensor:
    """Segment means: the `lengths` [B] valid steps of x [B,T',D] onto `grid` [B] steps -> [B,steps,D].

    Step i of n takes the mean of the source steps that its share [i/n, (i+1)/n) of the utterance touches (adaptive
    average pooling per sample). Equal lengths leave x unchanged to the bit; steps at or after `grid` are zero.
    """
    i, j = torch.arange(steps, device=x.device)[:, None], torch.arange(x.shape[1], device=x.device)
    n, size = lengths[:, None, None], grid.clamp(min=1)[:, None, None]
    first, last = i * n // size, ((i + 1) * n + size - 1) // size  # the last one excluded
    inside = ((j >= first) & (j < last) & (j < n) & (i < grid[:, None, None])).to(x.dtype)  # [B,steps,T']
    return (inside / inside.sum(-1, keepdim=True).clamp(min=1)) @ x


class TextEncoder(nn.Module):
    """A pretrained `transformers` encoder over token ids; `train_weights=False` freezes it (and its dropout).

    Give it the attribute name `text_encoder` in a model: the training loop has a learning rate of its own for it.
    """

    def __init__(self, name: str, train_weights: bool) -> None:
        super().__init__()
        from msa_lib.data.encoders import load_encoder

        self.model = load_encoder(name, tokenizer=False)[1]
        if getattr(self.model, "pooler", None) is not None:
            self.model.pooler = None  # token features only
        self.train_weights = train_weights
        self.requires_grad_(train_weights)

    @property
    def size(self) -> int:
        return self.model.config.hidden_size

    def train(self, mode: bool = True) -> TextEncoder:
        return super().train(mode and self.train_weights)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids, attention mask, segment ids [B,3,T] -> last hidden states [B,T,D]."""
        return self.states(tokens)[-1]

    def states(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """The embedding, and the output of each layer, [B,T,D] each."""
        ids, mask, segments = tokens.unbind(1)
        extra = {"token_type_ids": segments} if getattr(self.model.config, "type_vocab_size", 0) > 1 else {}
        with torch.set_grad_enabled(self.train_weights and torch.is_grad_enabled()):
            output = self.model(input_ids=ids, attention_mask=mask, output_hidden_states=True, **extra)
        return output.hidden_states
