"""What is said of two rows over seeds: against scipy's paired test, and in words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from msa_lib.study.differences import by_seed, paired, word


def rows(**labels: list[float]) -> pd.DataFrame:
    lines = [
        {"label": label, "seed": seed, "split": split, "metric": "mae", "value": value, "status": "done"}
        for label, values in labels.items()
        for seed, value in enumerate(values)
        for split in ("valid", "test")
    ]
    return pd.DataFrame(lines)


A, B = [0.5, 0.7, 0.6, 0.9], [0.4, 0.5, 0.6, 0.6]


def test_a_gap_is_taken_seed_by_seed():
    table = paired(by_seed(rows(a=A, b=B, c=A[:1])), {"a to b": ("a", "b"), "b to a": ("b", "a"), "a to c": ("a", "c")})
    test = stats.ttest_rel(A, B)
    first = table.iloc[0]
    assert (first["gap"], first["p"], first["n"]) == (pytest.approx(0.15), pytest.approx(test.pvalue), 4)
    assert (first["low"], first["high"]) == pytest.approx(tuple(test.confidence_interval()))
    assert first["p_holm"] == pytest.approx(2 * test.pvalue)
    assert table.iloc[1]["gap"] == -first["gap"]
    assert first["smallest"] > first["high"] - first["gap"]
    alone = table.iloc[2]
    assert alone["gap"] == 0
    assert alone[["low", "high", "p", "p_holm", "smallest"]].isna().all()


def test_failed_runs_and_other_splits_do_not_count():
    frame = rows(a=A, b=B)
    frame.loc[(frame["label"] == "a") & (frame["seed"] == 0), "status"] = "failed"
    values = by_seed(frame)
    assert list(values) == ["a", "b"]
    assert np.isnan(values.loc[0, "a"])
    assert paired(values, {"x": ("a", "b")}).iloc[0]["n"] == 3


def test_words():
    line = {"gap": 0.02, "p_holm": 0.001, "n": 5}
    assert word(line) == "better"
    assert word(line | {"gap": -0.02}) == "worse"
    assert word(line | {"p_holm": 0.8}) == word(line | {"p_holm": np.nan}) == word(line | {"n": 4}) == "undecided"
