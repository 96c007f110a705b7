"""Training data made poorer on purpose: fewer samples, labels of other samples. The test split is never touched.

The options train_share and label_noise of any data set (`load_dataset`). A smaller share is part of a larger one, and
the samples that lose their label at one level are among those that lose it at a higher one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from msa_lib.data.dataset import Dataset, Split

SEED = 0  # of the draw: every run of a level has the same poorer data


def fewer(dataset: Dataset, share: float) -> Dataset:
    """The data set with a random share of its training samples, in their order; at least one."""
    if not 0 < share <= 1:
        raise ValueError(f"The option train_share of {dataset.name} is {share:g}; expected a share in (0, 1].")
    order = torch.randperm(len(dataset.train), generator=torch.Generator().manual_seed(SEED))
    kept = order[: max(1, round(share * len(order)))].sort().values
    note = f"Only {len(kept)} of {len(order)} training samples, drawn at random."
    return replace(dataset, train=part(dataset.train, kept), notes=(*dataset.notes, note), fingerprint="")


def noisy_labels(dataset: Dataset, share: float) -> Dataset:
    """A share of the training and validation samples pass their labels on to each other: none of them keeps its own.

    The labels are as many of each value as before. Labels of single modalities go along.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"The option label_noise of {dataset.name} is {share:g}; expected a share in [0, 1].")
    note = f"A share of {share:g} of the training and validation samples have the label of another sample."
    poorer = {name: _passed_on(dataset.splits[name], share, SEED + i) for i, name in enumerate(("train", "valid"))}
    return replace(dataset, **poorer, notes=(*dataset.notes, note), fingerprint="")


OPTIONS: dict[str, Callable[[Dataset, float], Dataset]] = {"train_share": fewer, "label_noise": noisy_labels}


def by_options(dataset: Dataset, options: dict[str, str]) -> Dataset:
    """The data set as its options say: name -> a number, as text. Raises ValueError for anything else."""
    for name, text in options.items():
        try:
            share = float(text)
        except ValueError:
            raise ValueError(f"The option {name}={text!r} of {dataset.name}: expected a share such as 0.5.") from None
        dataset = OPTIONS[name](dataset, share)
    return dataset


def cycled(n: int, share: float, seed: int) -> Tensor:
    """[n] where each of n samples gets something from: a share of them from each other, the others from themselves."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(n, generator=generator)[: round(share * n)]
    source = torch.arange(n)
    source[chosen] = chosen.roll(1)
    return source


def _passed_on(split: Split, share: float, seed: int) -> Split:
    source = cycled(len(split), share, seed).to(split.device)
    own = split.unimodal_labels
    return replace(split, labels=split.labels[source], unimodal_labels=None if own is None else own[source])


def part(split: Split, index: Tensor) -> Split:
    """The samples of a split at `index`."""
    there = index.to(split.device)
    names = ("text", "audio", "vision", "lengths", "labels", "unimodal_labels", "tokens")
    parts = {name: getattr(split, name)[there] for name in names if getattr(split, name) is not None}
    words = {name: tuple(getattr(split, name)[i] for i in index.tolist()) for name in ("ids", "raw_text")
             if getattr(split, name) is not None}  # fmt: skip
    truth = {name: value[there] for name, value in split.truth.items()}
    return replace(split, **parts, **words, truth=truth, host_lengths=None)
