"""KuDA's encoders: hidden states of a transformer, from which adapters, trained by single modalities, gather what they
know in general. The model is in kuda.py, `c` is its Config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from msa_lib.data import Batch
from msa_lib.models.parts.inputs import Inputs
from msa_lib.models.parts.layers import EncoderBlock


class Adapter(nn.Module):
    """[B,T,d] through a narrow transformer and back, added to what it came from."""

    def __init__(self, d: int, dropout: float) -> None:
        super().__init__()
        narrow = max(4, d // 8 * 4)  # half, for four heads
        self.down, self.up = nn.Linear(d, narrow), nn.Linear(narrow, d)
        self.blocks = nn.ModuleList(EncoderBlock(narrow, 4, narrow // 2, dropout) for _ in range(2))

    def forward(self, x: Tensor, keys: Tensor) -> Tensor:
        h = self.down(x)
        for block in self.blocks:
            h = block(h, keys)
        return x + self.up(h)


class Injection(nn.Module):
    """Hidden states [B,T,d] of an encoder, from its input upwards -> general knowledge [B,T,d]."""

    def __init__(self, d: int, n: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.adapters = nn.LayerNorm(d), nn.ModuleList(Adapter(d, dropout) for _ in range(n))

    def forward(self, states: Sequence[Tensor], keys: Tensor) -> Tensor:
        g = states[0]
        for adapter, h in zip(self.adapters, states[1:], strict=True):
            g = adapter(self.norm(g + h), keys)
        return g


class Encoder(nn.Module):
    """A transformer over audio or vision, and its injection: specific and general knowledge, [B,T,2d_av]."""

    def __init__(self, size: int, room: int, c: Any) -> None:
        super().__init__()
        d = c.d_av
        self.proj, self.position = nn.Linear(size, d), nn.Parameter(torch.zeros(room, d))
        blocks = (EncoderBlock(d, c.encoder_heads, d // 2, c.encoder_dropout) for _ in range(c.n_layers))
        self.blocks, self.injection = nn.ModuleList(blocks), Injection(d, c.n_layers - 1, c.adapter_dropout)

    def forward(self, x: Tensor, keys: Tensor) -> Tensor:
        states = [self.proj(x) + self.position[: x.shape[1]]]
        for block in self.blocks:
            states.append(block(states[-1], keys))
        return torch.cat([self.injection.norm(states[-1]), self.injection(states[:-1], keys)], -1)


class Text(nn.Module):
    """The same of a text encoder's hidden states, side by side [B,T,6D]; -> [B,T,2D]."""

    def __init__(self, size: int, c: Any) -> None:
        super().__init__()
        self.injection = Injection(size, 4, c.adapter_dropout)

    def forward(self, x: Tensor, keys: Tensor) -> Tensor:
        *states, last = x.chunk(6, -1)
        return torch.cat([last, self.injection(states, keys)], -1)


def given(inputs: Inputs, batch: Batch) -> Tensor:
    return batch.text.repeat(1, 1, 6)


def hidden(inputs: Inputs, batch: Batch) -> Tensor:
    """Of 12 layers: the embedding, the layers 3, 6, 9 and 11, and the last one."""
    states = inputs.text_encoder.states(batch.tokens)
    n = len(states) - 1
    layers = (0, *(max(1, n * quarter // 4) for quarter in (1, 2, 3)), max(1, n - 1), n)
    return torch.cat([states[i] for i in layers], -1)


STATES = {"precomputed": given, "frozen": hidden, "finetune": hidden}
