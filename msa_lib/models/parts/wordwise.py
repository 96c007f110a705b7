"""The encoders of a family of word-aligned models that grew out of MIB (Mai, Zeng, Hu, TMM 2022): MIM, DTN and DIB.

Each modality: a convolution over three steps to width d; audio and vision also a transformer of MulT's kind in which
every step sees every other.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from msa_lib.models.parts.crossmodal import SelfEncoder


def all_steps(mask: Tensor, keys: Tensor) -> Tensor:
    """Every step may see every valid key: mask [B,T], keys [B,T'] -> [B,1,1,T']."""
    return keys[:, None, None]


class WordEncoders(nn.Module):
    """x [B,T,D] of text, audio and vision, zeros after its length, and mask [B,T] -> [B,T,d] each, likewise.

    The rates are those of dropout on the attention, inside the feed-forward network, on residuals and on the input.
    """

    def __init__(
        self,
        dims: Sequence[int],
        d: int,
        heads: int = 5,
        n_layers: int = 3,
        attn: float = 0.5,
        relu: float = 0.3,
        res: float = 0.3,
        embed: float = 0.2,
    ) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Conv1d(D, d, 3, padding=1, bias=False) for D in dims)
        self.audio, self.vision = (
            SelfEncoder(d, heads, n_layers, attn, relu, res, embed, readable=all_steps) for _ in range(2)
        )

    def forward(self, raw: Sequence[Tensor], masks: Sequence[Tensor]) -> list[Tensor]:
        text, audio, vision = (
            conv(x.transpose(1, 2)).transpose(1, 2) * mask[..., None]
            for conv, x, mask in zip(self.project, raw, masks, strict=True)
        )
        return [text, self.audio(audio, masks[1]), self.vision(vision, masks[2])]
