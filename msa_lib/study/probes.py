"""What a vector carries: linear probes, each beside the same probe on shuffled targets.

A probe is ridge regression, fitted and scored by cross-validation within one split that the network never trained on.
Its score: R^2 for numbers, accuracy for classes (regression on one-hot targets), area under the ROC curve for a flag.
`skill` puts the three on one scale, (score - control) / (1 - control), where the control is the mean score on shuffled
targets: 0 is nothing, 1 everything. A linear probe sees only what is linearly there: a flag that needs the product of
two modalities is not in either.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV
from sklearn.metrics import accuracy_score, r2_score, roc_auc_score
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

ALPHAS = np.logspace(-1, 5, 7)


def probe(x: np.ndarray, targets: Mapping[str, np.ndarray], shuffles: int = 5, seed: int = 0) -> pd.DataFrame:
    """How well x [N,d] gives each target [N] linearly: numbers (float), classes (integers) or flags (bool).

    -> one line per target: target, score, control (mean over `shuffles`), skill; NaN for a target of one value.
    """
    rng = np.random.default_rng(seed)
    varied = {name: y for name, y in targets.items() if len(np.unique(y)) > 1}
    answers = [(name, y) for name, y in varied.items()]
    answers += [(name, rng.permutation(y)) for name, y in varied.items() for _ in range(shuffles)]
    columns = [_columns(y) for _, y in answers]
    if not columns:
        return pd.DataFrame({"target": list(targets), "score": np.nan, "control": np.nan, "skill": np.nan})
    model = make_pipeline(StandardScaler(), RidgeCV(ALPHAS, alpha_per_target=True))  # all answers in one fit
    with threadpool_limits(1):  # the order of sums, and so the last bits, depend on the threads
        guess = cross_val_predict(model, x, np.concatenate(columns, 1), cv=KFold(5, shuffle=True, random_state=0))
    guesses = np.split(guess, np.cumsum([c.shape[1] for c in columns])[:-1], axis=1)
    scores = [(name, _score(y, g)) for (name, y), g in zip(answers, guesses, strict=True)]
    lines = []
    for name in targets:
        own = [score for found, score in scores if found == name] or [np.nan, np.nan]
        score, control = own[0], float(np.mean(own[1:]))
        lines.append({"target": name, "score": score, "control": control, "skill": (score - control) / (1 - control)})
    return pd.DataFrame(lines)


def _columns(y: np.ndarray) -> np.ndarray:
    if y.dtype.kind == "i":
        return (y[:, None] == np.unique(y)).astype(float)
    return y.astype(float)[:, None]


def _score(y: np.ndarray, guess: np.ndarray) -> float:
    if y.dtype.kind == "i":
        return float(accuracy_score(y, np.unique(y)[guess.argmax(1)]))
    return float(roc_auc_score(y, guess[:, 0]) if y.dtype.kind == "b" else r2_score(y, guess[:, 0]))


def planted_targets(truth: Mapping[str, np.ndarray], labels: np.ndarray, m: int) -> dict[str, np.ndarray]:
    """What is planted and could be in modality m: sentiment, context, the conflict flag, its own noise level (log)."""
    return {
        "sentiment": labels.astype(float),
        "context": truth["context"].astype(int),
        "conflict": truth["conflict"].astype(bool),
        "noise": np.log(truth["noise"][:, m]),
    }
