"""How many samples, and which labels, the data sets at hand have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from msa_lib.data import REAL, load_dataset

LABEL_TABLES = {
    "mosi": ("mosi",),
    "mosei": ("mosei_labels_full", "mosei_text"),
    "sims": ("sims",),
    "simsv2": ("simsv2",),
}


def _label_sources(dataset: str, root: str, labels: str) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """(name, labels of each split) of every set there is: label tables, real files, or the one planted set."""
    if labels:
        for name, files in LABEL_TABLES.items():
            paths = [path for file in files if (path := Path(labels) / f"{file}.csv").exists()]
            if paths:
                table = pd.read_csv(paths[0], usecols=["label", "split"]).replace({"split": {"val": "valid"}})
                yield name, {split: part.to_numpy() for split, part in table.groupby("split")["label"]}
        return
    for name in REAL if root else (dataset,):
        try:
            loaded = load_dataset(name, root or None)
        except FileNotFoundError:
            continue  # shown as missing by its absence from the table
        yield name, {split: part.labels.numpy() for split, part in loaded.splits.items()}


def split_sizes(dataset: str, root: str = "", labels: str = "") -> pd.DataFrame:
    """Samples per split of every data set at hand: index dataset, columns train, valid, test, total."""
    sizes = {
        name: {split: len(y) for split, y in parts.items()} for name, parts in _label_sources(dataset, root, labels)
    }
    frame = pd.DataFrame(sizes).T.reindex(columns=["train", "valid", "test"]).rename_axis("dataset")
    return frame.assign(total=frame.sum(axis=1)).astype(int)


def split_labels(dataset: str, root: str = "", labels: str = "") -> dict[str, np.ndarray]:
    """All labels of every data set at hand, its splits joined."""
    return {name: np.concatenate(list(parts.values())) for name, parts in _label_sources(dataset, root, labels)}
