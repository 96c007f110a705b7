"""How the labels of the real data sets are distributed: counts are facts, so they are kept here and the labels are not.

    python -m papers_check.checks.label_counts FOLDER

reads the label tables in FOLDER (`mosi.csv`, `mosei_labels_full.csv`, `sims.csv`, `simsv2.csv`, each with the columns
`label` and `split`) and writes three files to `counts/`:

- `values.csv`   dataset, split, value, count: how often each label occurs, as printed in the source
- `classes.csv`  dataset, split, metric, class, count: the classes of each accuracy, lowest class first
- `summary.csv`  dataset, split, n, zeros, negatives, positives, and what the best constant prediction scores

Every check here reads `values.csv` only; the other two are for people.
"""

import argparse
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from papers_check.printed.papers import DATA, DATASETS

COUNTS = DATA / "counts"
FILES = {name: known["labels"] for name, known in DATASETS.items()}
SPLITS = ("train", "valid", "test")
RANGE = {name: known["bound"] for name, known in DATASETS.items()}  # labels lie in [-RANGE, RANGE]

# A SIMS value belongs to the class below an edge it equals; both MOSI sets round half to even instead.
_EDGES = {"acc2": (0.0,), "acc3": (-0.1, 0.1), "acc5": (-0.7, -0.1, 0.1, 0.7)}
_ACCURACIES = {3: ("acc7", "acc5", "acc2_has0", "acc2_non0"), 1: ("acc5", "acc3", "acc2")}


def metrics_of(dataset: str) -> tuple[str, ...]:
    """The accuracies the field computes on this data set, finest first."""
    return _ACCURACIES[RANGE[dataset]]


def class_of(dataset: str, metric: str, values: np.ndarray) -> np.ndarray:
    """The class of each label value [N] under one accuracy, as an integer; -99 where it leaves a value out."""
    values = np.asarray(values, np.float32)  # the field compares with the edges in float32
    if metric not in metrics_of(dataset):
        raise ValueError(f"{dataset} has no accuracy {metric!r}: expected one of {', '.join(metrics_of(dataset))}")
    if RANGE[dataset] == 1:
        return np.searchsorted(np.array(_EDGES[metric], np.float32), np.clip(values, -1, 1), side="left")
    if metric in ("acc7", "acc5"):
        bound = 3 if metric == "acc7" else 2
        return np.rint(np.clip(values, -bound, bound)).astype(int)
    classes = (values >= 0 if metric == "acc2_has0" else values > 0).astype(int)
    return np.where(values == 0, -99, classes) if metric == "acc2_non0" else classes


@cache
def load_values(dataset: str, split: str = "test") -> tuple[np.ndarray, np.ndarray]:
    """The distinct labels of a split, ascending, and how often each occurs; from `counts/values.csv`."""
    table = pd.read_csv(COUNTS / "values.csv")
    table = table[(table["dataset"] == dataset) & (table["split"] == split)]
    if table.empty:
        raise ValueError(f"no label counts of {dataset!r}, {split!r}: expected {', '.join(FILES)} and a split of them")
    return table["value"].to_numpy(float), table["count"].to_numpy(int)


@cache
def class_counts(dataset: str, metric: str, split: str = "test") -> dict[int, int]:
    """Class -> number of samples, lowest class first; samples that the accuracy leaves out are not counted."""
    values, counts = load_values(dataset, split)
    classes = class_of(dataset, metric, values)
    return {int(c): int(counts[classes == c].sum()) for c in np.unique(classes) if c != -99}


def best_constant_mae(dataset: str, split: str = "test") -> float:
    """The smallest mean absolute error any constant prediction has on a split: that of the split's own median."""
    values, counts = load_values(dataset, split)
    return min(float((counts * np.abs(values - c)).sum() / counts.sum()) for c in values)


def majority(dataset: str, metric: str, split: str = "test") -> tuple[int, int, int]:
    """The most frequent class of an accuracy, its count, and the number of samples counted."""
    counts = class_counts(dataset, metric, split)
    best = max(counts, key=counts.get)
    return best, counts[best], sum(counts.values())


# --- making the files -------------------------------------------------------------------------------------------------


def count_values(folder: Path) -> pd.DataFrame:
    """The rows of `values.csv` from the label tables in `folder`. Raises FileNotFoundError where one is missing."""
    parts = []
    for dataset, name in FILES.items():
        table = pd.read_csv(folder / name, usecols=["label", "split"])
        if unknown := set(table["split"]) - set(SPLITS):
            raise ValueError(f"{name} has a split {min(unknown)!r}: expected {', '.join(SPLITS)}")
        table["split"] = pd.Categorical(table["split"], SPLITS, ordered=True)
        counts = table.groupby(["split", "label"], observed=True).size().reset_index(name="count")
        parts.append(counts.rename(columns={"label": "value"}).assign(dataset=dataset))
    return pd.concat(parts, ignore_index=True)[["dataset", "split", "value", "count"]]


def _class_rows() -> Iterator[dict]:
    for dataset in FILES:
        for split in SPLITS:
            for metric in metrics_of(dataset):
                for name, count in class_counts(dataset, metric, split).items():
                    yield {"dataset": dataset, "split": split, "metric": metric, "class": name, "count": count}


def _summary_rows() -> Iterator[dict]:
    for dataset in FILES:
        for split in SPLITS:
            values, counts = load_values(dataset, split)
            signs = {"zeros": values == 0, "negatives": values < 0, "positives": values > 0}
            row = {"dataset": dataset, "split": split, "n": counts.sum()}
            row |= {name: counts[chosen].sum() for name, chosen in signs.items()}
            row["constant_mae"] = f"{best_constant_mae(dataset, split):.6f}"
            for metric in ("acc7", "acc5", "acc3", "acc2", "acc2_has0", "acc2_non0"):
                known = metric in metrics_of(dataset)
                _, count, n = majority(dataset, metric, split) if known else (0, 0, 1)
                row[f"constant_{metric}"] = f"{count / n:.6f}" if known else ""
            yield row


def write(folder: Path) -> None:
    """Count the label tables of `folder` and replace the three files in `counts/`."""
    COUNTS.mkdir(exist_ok=True)
    count_values(folder).to_csv(COUNTS / "values.csv", index=False)
    load_values.cache_clear()
    class_counts.cache_clear()
    pd.DataFrame(_class_rows()).to_csv(COUNTS / "classes.csv", index=False)
    pd.DataFrame(_summary_rows()).to_csv(COUNTS / "summary.csv", index=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Count the labels of the real data sets into papers_check/counts/.")
    parser.add_argument("folder", type=Path, help="the folder with the label tables")
    write(parser.parse_args().folder)
