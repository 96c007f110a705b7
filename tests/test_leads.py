"""Rows beside rows over seeds: pairs against scipy's tests, Holm over all of them, and means with their intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from papers_check.judge.leads import leads, pairwise, spread

A, B = [0.5, 0.7, 0.6, 0.9, 0.8], [0.4, 0.5, 0.6, 0.6, 0.5]


def values(**rows: list[float]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(scores) for name, scores in rows.items()}).rename_axis("seed")


def test_a_pair_is_taken_seed_by_seed():
    table = pairwise(values(a=A, b=B, c=A[:1]), {"b, not a": ("b", "a"), "a, not b": ("a", "b"), "one": ("c", "a")})
    test, first = stats.ttest_rel(A, B), table.iloc[0]
    assert (first["row"], first["how"], first["seeds"]) == ("b, not a", "paired", 5)
    assert (first["lead"], first["p_holm"]) == (pytest.approx(0.18), pytest.approx(2 * test.pvalue))
    assert (first["low"], first["high"]) == pytest.approx(tuple(test.confidence_interval()))
    assert table.iloc[1]["lead"] == -first["lead"]
    assert first["smallest"] > first["high"] - first["lead"]
    alone = table.iloc[2]
    assert (alone["lead"], alone["says"]) == (0, "undecided")
    assert alone[["low", "high", "p_holm", "smallest"]].isna().all()


def test_only_seeds_that_both_have_count_and_a_row_without_runs_has_no_lead():
    there = values(a=[np.nan, *A[1:]], b=B)
    table = pairwise(there, {"x": ("b", "a"), "y": ("b", "never run")}).set_index("row")
    assert table.loc["x", "seeds"] == 4
    assert table.loc["x", "lead"] == pytest.approx(np.mean(A[1:]) - np.mean(B[1:]))
    assert table.loc["y", "seeds"] == 0
    assert np.isnan(table.loc["y", "lead"])


def test_two_models_are_compared_by_welch():
    line = pairwise(values(a=A, b=B), {"x": ("b", "a")}, unpaired=["x"]).iloc[0]
    test = stats.ttest_ind(A, B, equal_var=False)
    assert (line["how"], line["p_holm"]) == ("Welch", pytest.approx(test.pvalue))
    assert (line["low"], line["high"]) == pytest.approx(tuple(test.confidence_interval()))


def test_words_need_five_seeds_and_hold_over_all_pairs():
    far = [x + 1 for x in B]
    far[0] += 0.01
    told = pairwise(values(a=far, b=B), {"b": ("b", "a"), "a": ("a", "b")})
    assert list(told["says"]) == ["ahead", "behind"]
    assert pairwise(values(a=far[:4], b=B[:4]), {"b": ("b", "a")}).loc[0, "says"] == "undecided"
    some = {"b": ("b", "a")}
    assert pairwise(values(a=A, b=B), some).loc[0, "says"] == "ahead"
    many = some | {f"nothing {i}": ("a", "c") for i in range(5)}
    assert pairwise(values(a=A, b=B, c=A[::-1]), many).loc[0, "says"] == "undecided"  # Holm over six


def test_pairs_with_one_row_in_common_are_its_leads():
    rows = values(full=A, x=B, y=[0.9, 0.3, 0.5, 0.8, 0.6])
    pairs = {name: ("full", name) for name in ("x", "y")}
    pd.testing.assert_frame_equal(pairwise(rows, pairs).drop(columns="smallest"), leads(rows, "full", ["x", "y"]))


def test_the_spread_of_a_value_has_an_interval_from_five_seeds_on():
    found = pd.DataFrame({"row": ["a"] * 5 + ["b"] * 4, "seed": [*range(5), *range(4)], "x": [*A, *A[:4]]})
    table = spread(found, ["row"], "x").set_index("row")
    assert table.loc["a", "mean"] == pytest.approx(np.mean(A))
    test = stats.ttest_1samp(A, 0).confidence_interval()
    assert tuple(table.loc["a", ["low", "high"]]) == pytest.approx(tuple(test))
    assert table.loc["b", ["low", "high"]].isna().all()
    assert list(table["seeds"]) == [5, 4]
