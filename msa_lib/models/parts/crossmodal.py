"""The crossmodal transformer of MulT (Tsai et al., ACL 2019) which DMD, DLF and PriSA use too, and its convolutions.

Lengths are a sample's own: the causal mask and the last step are those of its valid steps. Where all samples are of
full length this is the published arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msa_lib.data.dataset import steps_mask
from msa_lib.models.parts.dropout import Dropout, dot_product
from msa_lib.models.parts.layers import at_step, convolved


def positions(mask: Tensor, d: int) -> Tensor:
    """tensor2tensor's code of the valid steps of mask [B,T], counted from 1: all sines, then all cosines -> [B,T,d]."""
    rate = torch.exp(torch.arange(d // 2, device=mask.device) * (-math.log(10000.0) / max(d // 2 - 1, 1)))
    angle = torch.arange(1, mask.shape[1] + 1, device=mask.device)[:, None] * rate
    code = F.pad(torch.cat([torch.sin(angle), torch.cos(angle)], -1), (0, d % 2))  # [T,d]
    return code * mask[..., None]


def counted_positions(mask: Tensor, x: Tensor) -> Tensor:
    """The positions of the valid steps of x [B,T,d]."""
    return positions(mask, x.shape[-1])


def causal(mask: Tensor, keys: Tensor) -> Tensor:
    """Step i of a sample may see step j <= i + |n_k - n_q| of its keys, which have n_k valid steps -> [B,1,T,T']."""
    ahead = (keys.sum(-1) - mask.sum(-1)).abs()[:, None, None]
    i, j = (torch.arange(x.shape[1], device=x.device) for x in (mask, keys))
    return ((j <= i[:, None] + ahead) & keys[:, None])[:, None]


def joined(x: Tensor) -> Tensor:
    """The heads of a step side by side: [B,heads,T,d/heads] -> [B,T,d]."""
    return x.transpose(1, 2).flatten(-2)


class CrossAttention(nn.Module):
    """Multi-head attention of x [B,T,d] over `memory` [B,T',d]; one matrix for Q, K and V, drawn as one."""

    def __init__(self, d: int, heads: int, dropout: float, merge: Callable[[Tensor], Tensor] = joined) -> None:
        super().__init__()
        if heads < 1 or d % heads:
            raise ValueError(f"The width d={d} must be a multiple of heads={heads}, which is at least 1.")
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.d, self.heads, self.dropout, self.merge = d, heads, dropout, merge
        for layer in (self.qkv, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """`mask` [B,1,T or 1,T']: booleans, or numbers that are added to the scores."""
        W, b = self.qkv.weight, self.qkv.bias
        q = F.linear(x, W[: self.d], b[: self.d])
        k, v = F.linear(memory, W[self.d :], b[self.d :]).chunk(2, -1)
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (q, k, v))  # [B,heads,T,d/heads]
        dropout = self.dropout if self.training else 0.0
        return self.out(self.merge(dot_product(q, k, v, mask, dropout)))


class CrossLayer(nn.Module):
    """Pre-norm: attention (one norm for both streams), residual, ReLU network of width 4d, residual."""

    def __init__(self, d: int, heads: int, attn: float, relu: float, res: float, merge=joined) -> None:
        super().__init__()
        self.attention = CrossAttention(d, heads, attn, merge)
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.ffn = nn.Sequential(nn.Linear(d, 4 * d), nn.ReLU(), Dropout(relu), nn.Linear(4 * d, d))
        self.drop = Dropout(res)
        for layer in (self.ffn[0], self.ffn[3]):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor, any_key: Tensor | float = 1.0) -> Tensor:
        """`any_key` [B,1,1] is 0 where a sample has no key: it then gets nothing from here."""
        x = x + self.drop(self.attention(self.norm1(x), self.norm1(memory), mask)) * any_key
        return x + self.drop(self.ffn(self.norm2(x)))

    def alone(self, x: Tensor, mask: Tensor, any_key: Tensor | float = 1.0) -> Tensor:
        return self(x, x, mask, any_key)


class CrossEncoder(nn.Module):
    """x [B,T,d] and mask [B,T] over a source [B,T',d] and its mask -> [B,T,d], zeros after a sample's length.

    The keys are the source at its lowest level in every layer. They and the values share one draw of the dropout.
    `place` makes positions of (mask, x), `readable` says of (mask, keys) which step may see which.
    """

    def __init__(
        self,
        d: int,
        heads: int,
        n_layers: int,
        attn: float,
        relu: float,
        res: float,
        embed: float,
        place: Callable[[Tensor, Tensor], Tensor] = counted_positions,
        readable: Callable[[Tensor, Tensor], Tensor] = causal,
    ) -> None:
        super().__init__()
        self.place, self.readable = place, readable
        self.layers = nn.ModuleList(CrossLayer(d, heads, attn, relu, res) for _ in range(n_layers))
        self.norm, self.drop = nn.LayerNorm(d), Dropout(embed)

    def embed(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.drop(math.sqrt(x.shape[-1]) * x + self.place(mask, x))

    def forward(self, x: Tensor, mask: Tensor, source: Tensor, keys: Tensor) -> Tensor:
        any_key = keys.any(-1)[:, None, None]
        see = self.readable(mask, keys) | ~any_key[..., None]
        x, source = self.embed(x, mask), self.embed(source, keys)
        for layer in self.layers:
            x = layer(x, source, see, any_key)
        return self.norm(x) * mask[..., None]


class SelfEncoder(CrossEncoder):
    """The same over itself."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        any_key = mask.any(-1)[:, None, None]
        see = self.readable(mask, mask) | ~any_key[..., None]
        x = self.embed(x, mask)
        for layer in self.layers:
            x = layer.alone(x, see, any_key)
        return self.norm(x) * mask[..., None]


def last(x: Tensor, mask: Tensor) -> Tensor:
    """The last valid step, [B,d]."""
    return at_step(x, (mask.sum(-1) - 1).clamp(min=0), mask)


class Convolutions(nn.ModuleList):
    """Per modality a convolution over time to width d, with neither padding nor bias: k-1 steps are lost, not more
    than leaves one. Dropout on text before it."""

    def __init__(self, dims: Sequence[int], d: int, kernels: Sequence[int], text_dropout: float) -> None:
        super().__init__(nn.Conv1d(D, d, k, bias=False) for D, k in zip(dims, kernels, strict=True))
        self.drop, self.kernels = Dropout(text_dropout), kernels

    def steps(self, steps: Sequence[int]) -> list[int]:
        """What is left of that many steps of each modality."""
        return [max(T - k + 1, 1) for T, k in zip(steps, self.kernels, strict=True)]

    def forward(self, raw: Sequence[Tensor], masks: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """x [B,T,D] of each modality, zeros after its length, and mask [B,T] -> X [B,L,d] and mask [B,L] of each."""
        X, valid = [], []
        for m, (x, mask) in enumerate(zip([self.drop(raw[0]), *raw[1:]], masks, strict=True)):
            k, n = self.kernels[m], mask.sum(-1)
            x = convolved(F.pad(x, (0, 0, 0, max(0, k - x.shape[1]))), self[m].weight)
            mask = steps_mask((n - k + 1).clamp(min=1) * (n > 0), x.shape[1])
            X.append(x * mask[..., None])
            valid.append(mask)
        return X, valid
