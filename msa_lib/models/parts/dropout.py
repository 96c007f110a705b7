"""Dropout and attention with dropout, cheap on the CPU.

PyTorch draws one float per element for a mask, which costs a training step of these small networks more than any of
their products, and attention with dropout leaves the fused kernel. Here a mask compares 16-bit random words, four from
one draw, and attention has its gradient written out, without what the unfused path computes beside it. Compiled,
stacked over seeds or on a GPU, PyTorch's own are used: there the draws cost nothing.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

WORDS = 1 << 16  # values of a random word: a rate is exact to half of 1/WORDS
HIDDEN = -1e9  # the score of a hidden key; finite, so that a row of only hidden keys is uniform and not NaN
ROW = 16  # PyTorch's softmax takes ten times longer for rows shorter than one vector of the CPU


class Dropout(nn.Dropout):
    """`nn.Dropout` with masks of `kept`."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and 0 < self.p < 1 and draws_here(x)):
            return super().forward(x)
        return x * kept(x.shape, self.p, x.dtype)


def draws_here(x: Tensor) -> bool:
    """Whether masks for x can be drawn by `kept`: on the CPU, not in bfloat16, while compiling or under torch.func."""
    if torch.compiler.is_compiling():
        return False
    return x.device.type == "cpu" and x.dtype != torch.bfloat16 and torch._C._functorch.maybe_current_level() is None


def kept(shape: torch.Size, p: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """A mask of `shape`: 0 with probability p, rounded to 1/65536, otherwise the inverse of what is then kept.

    Its seed is drawn from PyTorch's generator: the same state of that gives the same mask, to the bit.
    """
    n, bar = math.prod(shape), min(max(round(p * WORDS), 1), WORDS - 1)
    seed = torch.empty(1, dtype=torch.int64).random_().numpy()[0]
    source = np.random.SFC64(int(seed))
    words = source.random_raw(-(-n // 4)).view(np.uint16)[:n]
    mask = np.multiply(words >= bar, WORDS / (WORDS - bar), dtype=torch.empty((), dtype=dtype).numpy().dtype)
    return torch.from_numpy(mask).view(shape)


def dot_product(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: float, scale: float | None = None) -> Tensor:
    """`F.scaled_dot_product_attention` of q [B,heads,T,e] over k, v [B,heads,T',e]; mask [B,1,T or 1,T'], True
    where a key is seen (in every row one), or numbers that are added to the scores. `dropout` is 0 outside training."""
    if not (0 < dropout < 1 and draws_here(q)):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale)
    return _DotProduct.apply(q, k, v, mask, dropout, q.shape[-1] ** -0.5 if scale is None else scale)


class _DotProduct(torch.autograd.Function):
    """With P = softmax(scale q k' + mask) and a dropout mask M: D = P * M, out = D v. Its gradient, written out."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, p: float, scale: float) -> Tensor:
        batch, heads = q.shape[:2]
        keys, short = k.shape[2], max(0, ROW - k.shape[2])
        bias = mask if mask.is_floating_point() else (~mask).to(q.dtype).mul_(HIDDEN)
        if short:  # keys that nothing sees
            k, v, bias = F.pad(k, (0, 0, 0, short)), F.pad(v, (0, 0, 0, short)), F.pad(bias, (0, short), value=HIDDEN)
        q, k, v = (x.reshape(batch * heads, -1, x.shape[-1]) for x in (q, k, v))
        bias = bias.expand(batch, heads, -1, -1).reshape(batch * heads, -1, keys + short)
        P = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=scale).softmax(-1)
        D = kept(P.shape, p, P.dtype).mul_(P)
        out = torch.bmm(D, v)
        ctx.save_for_backward(q, k, v, P, D, out)
        ctx.sizes = batch, heads, keys, scale
        return out.unflatten(0, (batch, heads))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, P, D, out = ctx.saved_tensors
        batch, heads, keys, scale = ctx.sizes
        grad = grad.reshape(out.shape)
        shift = (grad * out).sum(-1, keepdim=True)  # what the softmax takes off each row's gradient
        scores = torch.bmm(grad, v.transpose(1, 2)).mul_(D).addcmul_(P, shift, value=-1).mul_(scale)
        dq, dk = torch.bmm(scores, k), torch.bmm(scores.transpose(1, 2), q)[:, :keys]
        dv = torch.bmm(D.transpose(1, 2), grad)[:, :keys]
        return *(x.unflatten(0, (batch, heads)) for x in (dq, dk, dv)), None, None, None
