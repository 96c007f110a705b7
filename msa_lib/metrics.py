"""The field's scores, computed from regression outputs: what MOSI, MOSEI, SIMS and SIMSv2 papers print.

The definitions are those of the public harness thuiar/MMSA (commit a94e65d), with three deliberate differences: nothing
is rounded, a metric that is undefined for its input is NaN instead of an exception or a warning, and MAE is summed in
float64.

Inputs are taken to float32 first and every class boundary is compared in float32: a float32 0.1 lies on the boundary
0.1, while the same number compared in float64 would lie above it.
"""

from typing import Any

import numpy as np

METRICS = {
    "mosi": ("mae", "corr", "acc7", "acc5", "acc2_has0", "acc2_non0", "f1_has0", "f1_non0"),
    "sims": ("mae", "corr", "acc2", "acc3", "acc5", "f1"),
}
LOWER_IS_BETTER = frozenset({"mae"})

# SIMS classes: a value belongs to the first boundary it does not exceed, so each class includes its upper edge.
_SIMS_EDGES = {
    "acc2": np.array([0.0], np.float32),
    "acc3": np.array([-0.1, 0.1], np.float32),
    "acc5": np.array([-0.7, -0.1, 0.1, 0.7], np.float32),
}
_F1_CLASSES = {"f1_has0": "acc2_has0", "f1_non0": "acc2_non0", "f1": "acc2"}


def evaluate(labels: Any, predictions: Any, scale: str = "mosi", counts: bool = False) -> dict[str, float]:
    """The scores of `predictions` [N] against `labels` [N], in the order of `METRICS[scale]`.

    Both are 1-d array-likes or tensors of real numbers on the label scale. Accuracies and F1 are fractions in [0, 1].

    `scale="mosi"` (MOSI, MOSEI; labels in [-3, 3]):
        mae, corr   on the values as they are
        acc7, acc5  clip both to [-3, 3] or [-2, 2], round half to even, count equals
        *_has0      negative against non-negative, all samples (0 and -0.0 are non-negative)
        *_non0      positive against the rest, samples whose label is not 0 (a prediction of 0 is not positive)
    `scale="sims"` (SIMS, SIMSv2; labels in [-1, 1]): everything after clipping both to [-1, 1]
        acc2, f1    classes split at 0; acc3 at -0.1, 0.1; acc5 at -0.7, -0.1, 0.1, 0.7; an edge belongs to the class
                    below it

    F1 is weighted by the class frequencies of the labels: scikit-learn's `f1_score(labels, predictions,
    average="weighted")`. With `counts`, each accuracy `a` also has `a_k` correct samples out of `a_n`, as integers.

    NaN marks what is undefined: every metric of no samples, the non0 metrics when all labels are 0, corr when either
    side is constant or, on the mosi scale, a prediction is infinite. One NaN prediction makes every metric and count
    NaN: a broken model has no score. An infinite prediction (or one beyond float32) is out of range like any other:
    its class is that of the clipped value, and the mosi mae is infinite.

    Raises ValueError for an unknown scale, inputs that are not 1-d real numbers or differ in length, and labels that
    are not finite.
    """
    y, p = _checked(labels, predictions, scale)
    accuracies = [key for key in METRICS[scale] if key.startswith("acc")]
    if np.isnan(p).any():
        names = [f"{key}_{part}" for key in accuracies for part in "kn"] if counts else []
        return dict.fromkeys([*METRICS[scale], *names], float("nan"))

    classes = _classes(y, p, scale)
    correct = {key: int(np.count_nonzero(truth == guess)) for key, (truth, guess) in classes.items()}
    scores = {"mae": _mae(y, p), "corr": _corr(y, p)}
    scores |= {key: _ratio(correct[key], len(classes[key][0])) for key in accuracies}
    scores |= {key: _weighted_f1(*classes[source]) for key, source in _F1_CLASSES.items() if source in classes}
    if counts:
        for key in accuracies:
            scores[f"{key}_k"] = correct[key]
            scores[f"{key}_n"] = len(classes[key][0])
    return scores


def swapped_f1(labels: Any, predictions: Any, scale: str = "mosi") -> dict[str, float]:
    """Weighted F1 with labels and predictions exchanged, as some published code calls it (MISA, KuDA).

    Per class F1 does not depend on the order; the weights do: here they are the class frequencies of the predictions.
    Samples are chosen as in `evaluate` (non0 still by label). Keys: `f1_has0_swapped`, `f1_non0_swapped` for mosi,
    `f1_swapped` for sims. Undefined values and errors as in `evaluate`.
    """
    y, p = _checked(labels, predictions, scale)
    keys = [key for key in METRICS[scale] if key.startswith("f1")]
    if np.isnan(p).any():
        return dict.fromkeys([f"{key}_swapped" for key in keys], float("nan"))
    classes = _classes(y, p, scale)
    scores = {}
    for key in keys:
        truth, guess = classes[_F1_CLASSES[key]]
        scores[f"{key}_swapped"] = _weighted_f1(guess, truth)
    return scores


def nonzero(labels: Any, predictions: Any, scale: str = "mosi") -> dict[str, float]:
    """MAE and Corr on the samples whose label is not 0, as the code of MIM and of DIB has it (from MAG-BERT).

    Keys: `mae_nonzero`, `corr_nonzero`; for mosi also `acc2_nonzero`, where a prediction of 0 is positive, which
    `acc2_non0` calls negative. On the sims scale both sides are clipped as in `evaluate`, which gives errors and
    undefined values too.
    """
    y, p = _checked(labels, predictions, scale)
    keys = ("mae_nonzero", "corr_nonzero", *(("acc2_nonzero",) if scale == "mosi" else ()))
    if np.isnan(p).any():
        return dict.fromkeys(keys, float("nan"))
    y, p = y[y != 0], p[y != 0]
    scores = _mae(y, p), _corr(y, p), _ratio(np.count_nonzero((y > 0) == (p >= 0)), len(y))
    return dict(zip(keys, scores, strict=False))


def _checked(labels: Any, predictions: Any, scale: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels and predictions as float32 [N], labels finite; clipped to [-1, 1] for sims."""
    if scale not in tuple(METRICS):
        raise ValueError(f"scale is {scale!r}, expected 'mosi' or 'sims'.")
    y, p = _float32(labels, "labels"), _float32(predictions, "predictions")
    if len(y) != len(p):
        raise ValueError(f"there are {len(y)} labels and {len(p)} predictions, expected equally many.")
    bad = np.flatnonzero(~np.isfinite(y))
    if bad.size:
        raise ValueError(f"labels[{bad[0]}] is {y[bad[0]]}, expected finite float32 numbers.")
    return (np.clip(y, -1, 1), np.clip(p, -1, 1)) if scale == "sims" else (y, p)


def _float32(values: Any, name: str) -> np.ndarray:
    if hasattr(values, "detach"):  # a torch tensor, known by its method so that this file needs no torch
        values = values.detach().cpu()
        if values.is_floating_point():  # NumPy has no bfloat16
            values = values.float()
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name} cannot be read as an array, expected a 1-d array of real numbers.") from None
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} hold values of type {array.dtype}, expected real numbers.")
    if array.ndim != 1:
        raise ValueError(f"{name} have shape {array.shape}, expected one dimension.")
    with np.errstate(all="ignore"):  # a float64 beyond float32 becomes infinite
        return array.astype(np.float32)


def _classes(y: np.ndarray, p: np.ndarray, scale: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each accuracy the classes of the labels and of the predictions, both over the samples it counts."""
    if scale == "sims":
        # side="left" gives the number of edges strictly below the value
        return {key: (np.searchsorted(edges, y), np.searchsorted(edges, p)) for key, edges in _SIMS_EDGES.items()}
    kept = y != 0
    return {
        "acc7": (np.rint(np.clip(y, -3, 3)), np.rint(np.clip(p, -3, 3))),
        "acc5": (np.rint(np.clip(y, -2, 2)), np.rint(np.clip(p, -2, 2))),
        "acc2_has0": (y >= 0, p >= 0),
        "acc2_non0": (y[kept] > 0, p[kept] > 0),
    }


def _ratio(k: float, n: int) -> float:
    return k / n if n else float("nan")


def _mae(y: np.ndarray, p: np.ndarray) -> float:
    return _ratio(float(np.abs(y.astype(np.float64) - p).sum()), len(y))


def _corr(y: np.ndarray, p: np.ndarray) -> float:
    """Pearson correlation; NaN where it does not exist."""
    if not len(y) or not np.isfinite(p).all() or y.min() == y.max() or p.min() == p.max():
        return float("nan")
    y, p = y.astype(np.float64), p.astype(np.float64)
    y, p = y - y.mean(), p - p.mean()
    return float(np.clip((y * p).sum() / np.sqrt((y * y).sum() * (p * p).sum()), -1, 1))


def _weighted_f1(truth: np.ndarray, guess: np.ndarray) -> float:
    """Mean over the samples of the F1 of each sample's true class."""
    total = 0.0
    for value in np.unique(truth):
        actual, called = truth == value, guess == value
        n = np.count_nonzero(actual)
        total += n * (2 * np.count_nonzero(actual & called) / (n + np.count_nonzero(called)))
    return _ratio(float(total), len(truth))
