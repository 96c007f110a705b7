"""The front end that models share: raw sequences of three modalities -> one tensor of width d on one time axis."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msa_lib.data import Batch, Dataset
from msa_lib.data.dataset import steps_mask
from msa_lib.models.layers import TextEncoder, sinusoid, to_grid

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
        self.d, self.missing, self.pos, self.length_mode = d, missing, pos, length_mode
        used = [m for m in range(3) if dataset.available[m] and LETTERS[m] in modalities]
        if not used:
            raise ValueError(f"{dataset.name} has none of the modalities asked for, {modalities!r}.")
        counted = [m for m in range(3) if m in used or (missing == "zero_fill" and dataset.available[m])]
        self.letters = "".join(LETTERS[m] for m in counted)
        self.bert = bert if 0 in used else "precomputed"
        self.grid = 0 if 0 in used else min(used, key=lambda m: dataset.max_steps[m])
        self.register_buffer("used", torch.tensor([m in used for m in range(3)]), persistent=False)

        dims = list(dataset.feature_dims)
        if self.bert != "precomputed":
            if dataset.encoder is None or dataset.train.tokens is None:
                raise ValueError(f"bert={bert!r} needs tokens and an encoder name, which {dataset.name} has not.")
            self.text_encoder = TextEncoder(dataset.encoder, train_weights=bert == "finetune")
            dims[0] = self.text_encoder.size
        if proj == "linear":
            self.proj = nn.ModuleList(nn.Linear(D, d) for D in dims)
        else:
            kernel = int(proj[-1])
            self.proj = nn.ModuleList(nn.Conv1d(D, d, kernel, padding=kernel // 2) for D in dims)
        self.convolves = proj != "linear"
        if pos == "learned":
            self.position = nn.Parameter(torch.randn(max(dataset.max_steps), d) * 0.02)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """-> X [B,M,T,d], mask [B,M,T], available [B,M]: the sequences of all modalities, padded to one length."""
        X, masks = self.sequences(batch)
        steps = max(x.shape[1] for x in X)
        mask = torch.stack([F.pad(mask, (0, steps - mask.shape[1])) for mask in masks], 1)  # [B,M,T]
        return torch.stack([F.pad(x, (0, 0, 0, steps - x.shape[1])) for x in X], 1), mask, mask.any(-1)

    def sequences(self, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
        """-> per modality X [B,T,d] and mask [B,T], with its own number of steps."""
        raw, lengths = list(batch.features), batch.lengths
        if self.bert != "precomputed":
            raw[0] = self.text_encoder(batch.tokens)  # [B,T,D]
        valid = [mask & self.used[m] for m, mask in enumerate(batch.masks)]
        raw = [x.masked_fill(~mask[..., None], 0.0) for x, mask in zip(raw, valid, strict=True)]
        if self.length_mode == "aligned":
            grid, steps = lengths[:, self.grid].clamp(min=1), raw[self.grid].shape[1]
            raw = [x if m == self.grid else to_grid(x, lengths[:, m], grid, steps) for m, x in enumerate(raw)]
            lengths = torch.where(lengths > 0, grid[:, None], 0)  # [B,M]
        X, masks = [], []
        for m, x in enumerate(raw):
            x, mask = self._placed(self._project(m, x)), steps_mask(lengths[:, m], x.shape[1])
            if self.missing == "zero_fill":
                x = x * self.used[m]
            else:
                mask = mask & self.used[m]
            X.append(x.masked_fill(~mask[..., None], 0.0))
            masks.append(mask)
        return X, masks

    def _placed(self, x: Tensor) -> Tensor:
        """[B,T,d] with positions added."""
        steps = x.shape[1]
        if self.pos == "sin":
            return x + sinusoid(steps, self.d, x.device)
        if self.pos == "learned":
            return x + F.pad(self.position, (0, 0, 0, max(0, steps - len(self.position))))[:steps]
        return x

    def _project(self, m: int, x: Tensor) -> Tensor:
        return self.proj[m](x.transpose(1, 2)).transpose(1, 2) if self.convolves else self.proj[m](x)
