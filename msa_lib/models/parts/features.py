"""The front end that models share: raw sequences of three modalities -> one tensor of width d on one time axis."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msa_lib.data import Batch, Dataset
from msa_lib.data.dataset import steps_mask
from msa_lib.models.parts.layers import TextEncoder, convolved, sinusoid, to_grid, unchanged

LETTERS = "tav"


class Features(nn.Module):
    """Every modality projected to width d. Missing steps and modalities are zeros, whatever the data hold there.

    bert         precomputed (the data's text features) | frozen | finetune (an encoder over the data's tokens)
    proj         linear | conv1 | conv3 (kernel over time)
    pos          none | sin | learned
    length_mode  aligned: the other modalities are segment-mean-pooled onto the steps of text (one step in a sample that
                 has no text), or, without text, of the modality with the fewest steps | padded: each keeps its own
    missing      mask: a modality left out of `modalities` is unavailable | zero_fill: it is zeros that count as present
    """

    def __init__(
        self,
        dataset: Dataset,
        d: int,
        modalities: str = LETTERS,
        missing: str = "mask",
        bert: str = "precomputed",
        proj: str = "linear",
        pos: str = "none",
        length_mode: str = "aligned",
    ) -> None:
        super().__init__()
        used = [m for m in range(3) if dataset.available[m] and LETTERS[m] in modalities]
        if not used:
            raise ValueError(f"{dataset.name} has none of the modalities asked for, {modalities!r}.")
        counted = [m for m in range(3) if m in used or (missing == "zero_fill" and dataset.available[m])]
        self.letters = "".join(LETTERS[m] for m in counted)
        bert = bert if 0 in used else "precomputed"
        self.grid = 0 if 0 in used else min(used, key=lambda m: dataset.max_steps[m])
        self.register_buffer("used", torch.tensor([m in used for m in range(3)]), persistent=False)

        dims = list(dataset.feature_dims)
        if bert != "precomputed":
            self.text_encoder = encoder_of(dataset, bert)
            dims[0] = self.text_encoder.size
        self.proj = nn.ModuleList(PROJ[proj](D, d) for D in dims)
        self.position = nn.Parameter(torch.randn(max(dataset.max_steps), d) * 0.02) if pos == "learned" else None
        self.text, self.place = TEXT[bert], POS[pos]
        self.one_grid, self.leave_out = LENGTH_MODE[length_mode], MISSING[missing]

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """-> X [B,M,T,d], mask [B,M,T], available [B,M]: the sequences of all modalities, padded to one length."""
        X, masks = self.sequences(batch)
        steps = max(x.shape[1] for x in X)
        mask = torch.stack([F.pad(mask, (0, steps - mask.shape[1])) for mask in masks], 1)  # [B,M,T]
        return torch.stack([F.pad(x, (0, 0, 0, steps - x.shape[1])) for x in X], 1), mask, mask.any(-1)

    def sequences(self, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
        """-> per modality X [B,T,d] and mask [B,T], with its own number of steps."""
        raw = [self.text(self, batch), batch.audio, batch.vision]  # [B,T,D] each
        valid = [mask & self.used[m] for m, mask in enumerate(batch.masks)]
        raw = [zeroed(x, mask) for x, mask in zip(raw, valid, strict=True)]
        raw, lengths = self.one_grid(raw, batch.lengths, self.grid)
        X, masks = [], []
        for m, x in enumerate(raw):
            x, mask = self.place(self.proj[m](x), self.position), steps_mask(lengths[:, m], x.shape[1])
            x, mask = self.leave_out(x, mask, self.used[m])
            X.append(x.masked_fill(~mask[..., None], 0.0))
            masks.append(mask)
        return X, masks


def encoder_of(dataset: Dataset, bert: str, kind: type[TextEncoder] = TextEncoder) -> TextEncoder:
    """The encoder of the data's tokens, for bert=frozen or finetune. Raises ValueError if they have none."""
    if dataset.encoder is None or dataset.train.tokens is None:
        raise ValueError(f"bert={bert!r} needs tokens and an encoder name, which {dataset.name} has not.")
    return kind(dataset.encoder, train_weights=bert == "finetune")


def zeroed(x: Tensor, mask: Tensor) -> Tensor:
    """x [B,T,D] with zeros where the mask [B,T] is False, whatever it holds there, NaN too.

    Where no gradient is wanted, by the bits of the numbers: a third of the time of `masked_fill` on a CPU.
    """
    if x.requires_grad or x.dtype != torch.float32:
        return x.masked_fill(~mask[..., None], 0.0)
    return (x.view(torch.int32) & -mask.to(torch.int32)[..., None]).view(torch.float32)


class TimeConv(nn.Conv1d):
    """A convolution over time that keeps the number of steps: [B,T,D] -> [B,T,d]."""

    def __init__(self, size: int, d: int, kernel: int) -> None:
        super().__init__(size, d, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return convolved(x, self.weight, self.padding[0]) + self.bias


def sinusoidal(x: Tensor, position: None) -> Tensor:
    return x + sinusoid(x.shape[1], x.shape[2], x.device)


def learned(x: Tensor, position: Tensor) -> Tensor:
    steps = x.shape[1]
    return x + F.pad(position, (0, 0, 0, max(0, steps - len(position))))[:steps]


def aligned(raw: list[Tensor], lengths: Tensor, grid: int) -> tuple[list[Tensor], Tensor]:
    """All sequences on the steps of modality `grid`, and their new lengths [B,M]."""
    target, steps = lengths[:, grid].clamp(min=1), raw[grid].shape[1]
    raw = [x if m == grid else to_grid(x, lengths[:, m], target, steps) for m, x in enumerate(raw)]
    return raw, torch.where(lengths > 0, target[:, None], 0)


TEXT = {"precomputed": lambda features, batch: batch.text} | dict.fromkeys(
    ("frozen", "finetune"), lambda features, batch: features.text_encoder(batch.tokens)
)
PROJ = {"linear": nn.Linear, "conv1": partial(TimeConv, kernel=1), "conv3": partial(TimeConv, kernel=3)}
POS = {"none": unchanged, "sin": sinusoidal, "learned": learned}
LENGTH_MODE = {"aligned": aligned, "padded": lambda raw, lengths, grid: (raw, lengths)}
MISSING = {
    "mask": lambda x, mask, used: (x, mask & used),
    "zero_fill": lambda x, mask, used: (x * used, mask),
}
