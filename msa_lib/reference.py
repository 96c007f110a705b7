"""Reference predictors that need no training loop: what a network must beat before its score means anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from msa_lib.data import Dataset, Split
from msa_lib.models.parts.features import LETTERS
from msa_lib.models.parts.layers import masked_mean
from msa_lib.train import RunResult, scores

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

VERSION = 1  # raised when a predictor or a default changes
ALPHAS = np.logspace(-1, 6, 15)


@dataclass(frozen=True)
class RidgeSwitches:
    modalities: Literal["tav", "ta", "tv", "av", "t", "a", "v"] = "tav"


@dataclass(frozen=True)
class NoSwitches:
    pass


def pooled_features(split: Split, modalities: str = LETTERS) -> np.ndarray:
    """Mean over the valid steps of each modality, side by side: [N, sum of D]."""
    batches = split.batches(512)
    kept = [m for m, letter in enumerate(LETTERS) if letter in modalities]
    rows = [[masked_mean(b.features[m], b.masks[m]).cpu().numpy() for m in kept] for b in batches]
    return np.concatenate([np.concatenate(row, 1) for row in rows]).astype(np.float64)


def ridge(dataset: Dataset, modalities: str = LETTERS) -> RunResult:
    """Ridge regression on standardised mean-pooled features; the penalty is the one best in validation MAE."""
    best = fit_ridge(dataset, modalities)
    guesses = {name: best.predict(pooled_features(dataset.splits[name], modalities)) for name in ("valid", "test")}
    return _result("ridge", dataset, guesses, best[-1].n_features_in_ + 1)


def fit_ridge(dataset: Dataset, modalities: str = LETTERS) -> Pipeline:
    """The fitted pipeline behind `ridge`; its `predict` takes `pooled_features`."""
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if not any(has and letter in modalities for has, letter in zip(dataset.available, LETTERS, strict=True)):
        raise ValueError(f"{dataset.name} has none of the modalities asked for, {modalities!r}.")
    X = {name: pooled_features(dataset.splits[name], modalities) for name in ("train", "valid")}
    y = {name: dataset.splits[name].labels.cpu().numpy() for name in X}
    models = [make_pipeline(StandardScaler(), Ridge(alpha)).fit(X["train"], y["train"]) for alpha in ALPHAS]
    return min(models, key=lambda model: np.abs(model.predict(X["valid"]) - y["valid"]).mean())


def label_mean(dataset: Dataset) -> RunResult:
    """The mean training label for every sample."""
    mean = float(dataset.train.labels.mean())
    guesses = {name: np.full(len(dataset.splits[name]), mean) for name in ("valid", "test")}
    return _result("label_mean", dataset, guesses, 1)


def _result(name: str, dataset: Dataset, predictions: Mapping[str, np.ndarray], size: int) -> RunResult:
    outputs = {
        split: {"labels": dataset.splits[split].labels.cpu().numpy(), "predictions": values.astype(np.float32)}
        for split, values in predictions.items()
    }
    metrics = {split: scores(output, dataset.scale) for split, output in outputs.items()}
    return RunResult(name, 0, "done", metrics=metrics, n_parameters=size, outputs=outputs["test"])


REFERENCES: dict[str, Callable[..., RunResult]] = {"ridge": ridge, "label_mean": label_mean}
SWITCHES: dict[str, type] = {"ridge": RidgeSwitches, "label_mean": NoSwitches}
