"""What a sample is: `Dataset` has three `Split`s, a split yields `Batch`es; all of them hold plain tensors.

A data set is moved to the device once (`Dataset.to`). A batch is then an index into it, trimmed to its longest
sample. The lengths stay on the host as well, so trimming never waits for the device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from msa_lib import MODALITIES

SPLITS = ("train", "valid", "test")
LABEL_RANGE = {"mosi": 3.0, "sims": 1.0}  # labels lie in [-range, range]


class Batch(NamedTuple):
    """Samples of one step, on the device. Steps at or after a sample's length are padding, whatever they hold."""

    text: Tensor  # [B,T,D]
    audio: Tensor  # [B,T,D], its own T and D
    vision: Tensor  # [B,T,D]
    lengths: Tensor  # [B,M] valid steps of each modality; 0 where the modality is missing
    labels: Tensor  # [B]
    index: Tensor  # [B] position in the split
    unimodal_labels: Tensor | None = None  # [B,M]
    tokens: Tensor | None = None  # [B,3,T] token ids, attention mask, segment ids
    truth: Mapping[str, Tensor] = {}  # planted facts, [B,...] each; empty for real data

    @property
    def features(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.text, self.audio, self.vision

    @property
    def masks(self) -> tuple[Tensor, ...]:
        """One [B,T] mask per modality, True on valid steps."""
        return tuple(steps_mask(self.lengths[:, m], x.shape[1]) for m, x in enumerate(self.features))


def steps_mask(lengths: Tensor, steps: int) -> Tensor:
    """[B] lengths -> [B,T] mask, True on the first `lengths` steps."""
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


@dataclass(frozen=True)
class Split:
    """One split of a data set: N samples as tensors, on one device."""

    text: Tensor  # [N,T,D] float32
    audio: Tensor  # [N,T,D] float32
    vision: Tensor  # [N,T,D] float32
    lengths: Tensor  # [N,M] int64
    labels: Tensor  # [N] float32
    ids: tuple[str, ...]
    unimodal_labels: Tensor | None = None  # [N,M] float32
    raw_text: tuple[str, ...] | None = None
    tokens: Tensor | None = None  # [N,3,T] int64: token ids, attention mask, segment ids
    truth: Mapping[str, Tensor] = field(default_factory=dict)  # planted facts, [N,...] each
    host_lengths: Tensor | None = field(default=None, repr=False)  # [N,M] the lengths, kept on the CPU

    def __post_init__(self) -> None:
        if self.host_lengths is None or self.lengths.device.type == "cpu":  # never those of a split it was made from
            object.__setattr__(self, "host_lengths", self.lengths.cpu())
        n = len(self.labels)
        for name in ("text", "audio", "vision", "lengths", "ids", "unimodal_labels", "raw_text", "tokens"):
            value = getattr(self, name)
            if value is not None and len(value) != n:
                raise ValueError(f"{name} has {len(value)} samples where the split has {n} labels.")
        for name, value in self.truth.items():
            if len(value) != n:
                raise ValueError(f"truth[{name!r}] has {len(value)} samples where the split has {n} labels.")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        return self.labels.device

    def to(self, device: str | torch.device) -> Split:
        names = ("text", "audio", "vision", "lengths", "labels", "unimodal_labels", "tokens")
        moved = {name: getattr(self, name).to(device) for name in names if getattr(self, name) is not None}
        return replace(self, **moved, truth={k: v.to(device) for k, v in self.truth.items()})

    def batch(self, index, trim: bool = True) -> Batch:
        """The samples at `index` (list, array, tensor, slice or int), trimmed to the longest of them.

        With trim=False all steps are kept: the host need not know the index, so nothing waits for one on the device.
        """
        if isinstance(index, slice):
            index = range(*index.indices(len(self)))
        index = torch.as_tensor(np.asarray(index) if not isinstance(index, Tensor) else index).reshape(-1)
        if index.dtype == torch.bool:
            index = index.nonzero()[:, 0]
        whole = [x.shape[1] for x in (self.text, self.audio, self.vision)]
        widths = self._widths(index.long().cpu()) if trim else whole
        return self._gather(index.long().to(self.device), widths)

    def batches(
        self,
        batch_size: int,
        generator: torch.Generator | None = None,
        drop_last: bool = False,
        bucket: int = 1,
        by_length: bool = False,
    ) -> Iterator[Batch]:
        """One pass over the split, shuffled if a (CPU) generator is given. One host-to-device copy for the whole pass.

        `drop_last` leaves out a last batch of fewer than `batch_size` samples, unless it is the only one. `bucket` > 1
        sorts each stretch of that many shuffled batches by length, so that a batch holds samples of like length.
        `by_length` goes through the samples from the shortest to the longest instead of in their order.
        """
        yield from self._parts(self._order(batch_size, generator, bucket, by_length), batch_size, drop_last)

    def stacked_batches(
        self, batch_size: int, generators: Sequence[torch.Generator], drop_last: bool = False, bucket: int = 1
    ) -> Iterator[Batch]:
        """The passes that `batches` makes with each of S generators, side by side: all fields are [S,B,...]. The steps
        of a batch are those of its longest sample over all S."""
        orders = torch.stack([self._order(batch_size, generator, bucket) for generator in generators])
        yield from self._parts(orders, batch_size, drop_last)

    def _order(
        self, batch_size: int, generator: torch.Generator | None, bucket: int, by_length: bool = False
    ) -> Tensor:
        """Every sample once, [N]."""
        n = len(self)
        order = torch.arange(n) if generator is None else torch.randperm(n, generator=generator)
        if bucket > 1 and generator is not None:
            return self._bucketed(order, batch_size, bucket, generator)
        return self.host_lengths.amax(1).argsort(stable=True) if by_length else order

    def _parts(self, order: Tensor, batch_size: int, drop_last: bool) -> Iterator[Batch]:
        """Batch after batch of the samples in `order` [...,N]."""
        n, on_device = len(self), order.to(self.device)
        stop = n - n % batch_size if drop_last and n >= batch_size else n
        for start in range(0, stop, batch_size):
            part = slice(start, min(start + batch_size, stop))
            yield self._gather(on_device[..., part], self._widths(order[..., part].reshape(-1)))

    def _bucketed(self, order: Tensor, batch_size: int, bucket: int, generator: torch.Generator) -> Tensor:
        longest = self.host_lengths.amax(1)
        stretches = [part[longest[part].argsort(stable=True)] for part in order.split(bucket * batch_size)]
        batches = torch.cat(stretches).split(batch_size)  # only the very last one may be short, and it stays last
        full = [b for b in batches if len(b) == batch_size]
        shuffled = [full[i] for i in torch.randperm(len(full), generator=generator).tolist()]
        return torch.cat(shuffled + [b for b in batches if len(b) < batch_size])

    def _widths(self, index: Tensor) -> list[int]:
        """Longest sample of each modality, at least one step; read from the host copy, so nothing waits."""
        return self.host_lengths[index].amax(0).clamp(min=1).tolist()

    def _gather(self, index: Tensor, widths: list[int]) -> Batch:
        trim = [x[:, :w] for x, w in zip((self.text, self.audio, self.vision), widths, strict=True)]
        return Batch(
            *(x[index] for x in trim),
            lengths=self.lengths[index],
            labels=self.labels[index],
            index=index,
            unimodal_labels=None if self.unimodal_labels is None else self.unimodal_labels[index],
            tokens=None if self.tokens is None else self.tokens[:, :, : widths[0]][index],
            truth={name: value[index] for name, value in self.truth.items()},
        )


@dataclass(frozen=True)
class Dataset:
    """Three splits and what is known of them. `notes` are sentences a reader of any table on these data must see."""

    name: str
    train: Split
    valid: Split
    test: Split
    scale: str  # "mosi" (labels in [-3,3]) or "sims" ([-1,1])
    language: str = "en"
    synthetic: bool = False
    encoder: str | None = None  # hub id or path of the text encoder that made `text` and `tokens`
    notes: tuple[str, ...] = ()
    fingerprint: str = ""  # of the content; computed when not given

    def __post_init__(self) -> None:
        if self.scale not in LABEL_RANGE:
            raise ValueError(f"The label scale of {self.name} is {self.scale!r}; it must be one of mosi, sims.")
        if not self.fingerprint:
            object.__setattr__(self, "fingerprint", fingerprint(self.splits))

    @property
    def splits(self) -> dict[str, Split]:
        return {"train": self.train, "valid": self.valid, "test": self.test}

    @property
    def feature_dims(self) -> tuple[int, int, int]:
        """Raw feature size D of text, audio, vision."""
        return tuple(getattr(self.train, m).shape[-1] for m in MODALITIES)

    @property
    def max_steps(self) -> tuple[int, int, int]:
        """Longest valid sample of each modality over all splits."""
        return tuple(torch.cat([s.host_lengths for s in self.splits.values()]).amax(0).tolist())

    @property
    def available(self) -> tuple[bool, bool, bool]:
        """Which modalities the training data have at all."""
        return tuple((self.train.host_lengths > 0).any(0).tolist())

    def to(self, device: str | torch.device) -> Dataset:
        return replace(self, **{name: split.to(device) for name, split in self.splits.items()})


def standardised(dataset: Dataset) -> Dataset:
    """Every feature with mean 0 and deviation 1 over the valid training steps; constant features become 0."""
    parts: dict[str, dict[str, Tensor]] = {name: {} for name in SPLITS}
    for m, modality in enumerate(MODALITIES):
        known = getattr(dataset.train, modality)[
            steps_mask(dataset.train.lengths[:, m], _steps(dataset.train, modality))
        ]
        mean, deviation = (known.mean(0), known.std(0, correction=0)) if len(known) else (0.0, torch.ones(1))
        rate = torch.where(deviation > 0, 1 / deviation, 0.0)
        for name, split in dataset.splits.items():
            mask = steps_mask(split.lengths[:, m], _steps(split, modality))[..., None]
            parts[name][modality] = ((getattr(split, modality) - mean) * rate).masked_fill(~mask, 0.0)
    note = "Features are standardised by the mean and deviation of the valid training steps."
    splits = {name: replace(split, **parts[name]) for name, split in dataset.splits.items()}
    return replace(dataset, **splits, notes=(*dataset.notes, note), fingerprint="")


def _steps(split: Split, modality: str) -> int:
    return getattr(split, modality).shape[1]


def fingerprint(splits: Mapping[str, Split]) -> str:
    """16 hex digits of the content (features, lengths, labels, ids), independent of device and file format."""
    digest = hashlib.sha256()
    for name, split in splits.items():
        digest.update(f"{name} {'|'.join(split.ids)}".encode())
        for part in ("text", "audio", "vision", "lengths", "labels", "unimodal_labels", "tokens"):
            value = getattr(split, part)
            if value is not None:
                digest.update(f"{part} {tuple(value.shape)}".encode())
                digest.update(np.ascontiguousarray(value.cpu().numpy()).reshape(-1).view(np.uint8))
    return digest.hexdigest()[:16]
