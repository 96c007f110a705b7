"""Verdicts on printed numbers: the statistics against published vectors, the vocabulary, the join with result rows."""

import subprocess
import sys
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from papers_check import load_reported
from papers_check.judge import intervals
from papers_check.judge import verdicts as v
from papers_check.judge.relations import (
    compare,
    differences,
    printed_relations,
    relations,
)
from papers_check.judge.verdicts import Verdict, default_margins, gains, judge, verdict_word

XS = [77.9, 78.6, 78.1, 77.5, 78.8]
MEAN, SD, N = 78.18, 0.5263078946776, 5
INF = np.inf


# --- the statistics, against the vectors of the specification (section 4.10) ----------------------------------------


def test_summary_of_the_vector():
    assert intervals.mean_sd_n(XS) == pytest.approx((MEAN, SD, N))


@pytest.mark.parametrize(
    ("text", "decimals", "p_1", "p_5", "p_inf", "m_star", "best_of", "tost"),
    [
        ("78.34", 2, 0.8013, 0.6657, 0.5462, INF, 1, 0.0119),
        ("79.08", 2, 0.1955, 0.0547, 0.0191, 5.71, 1, 0.3536),
        ("79.9", 1, 0.0443, 0.0074, 0.0021, 0.904, 3, 0.9846),
        ("80.98", 2, 0.0084, 0.0011, 0.0003, 0.289, 12, 0.9992),
    ],
)
def test_vectors(text, decimals, p_1, p_5, p_inf, m_star, best_of, tost):
    r, half = intervals.unrounded(text, decimals)
    found = [intervals.p_value(r, MEAN, SD, N, m, half) for m in (1, 5, INF)]
    assert found == pytest.approx([p_1, p_5, p_inf], abs=5e-5)
    assert intervals.largest_m(r, MEAN, SD, N, half) == pytest.approx(m_star, rel=2e-3)
    assert intervals.best_of(r, MEAN, SD, N, half) == best_of
    assert intervals.tost_p(r, MEAN, SD, N, 1.0, half) == pytest.approx(tost, abs=5e-5)


def test_interval_ends():
    half = intervals.unrounded("78.34", 2)[1]
    ends = [intervals.prediction_interval(MEAN, SD, N, m, half) for m in (1, 5, INF)]
    expected = [(76.5743, 79.7857), (77.2508, 79.1092), (77.5215, 78.8385)]
    assert ends == [pytest.approx(pair, abs=5e-5) for pair in expected]
    assert intervals.prediction_interval(MEAN, SD, N, alpha=0.1) == pytest.approx((77.6782, 78.6818), abs=5e-5)


@pytest.mark.parametrize(
    ("n", "by_m"),
    [
        (3, (4.97, 3.51, 3.14, 2.83, 2.48)),
        (5, (3.04, 2.03, 1.76, 1.52, 1.24)),
        (10, (2.37, 1.49, 1.24, 1.01, 0.72)),
        (20, (2.14, 1.30, 1.05, 0.81, 0.47)),
    ],
)
def test_smallest_detectable_discrepancy(n, by_m):
    found = [intervals.detectable(1.0, n, m) for m in (1, 3, 5, 10, INF)]
    assert found == pytest.approx(by_m, abs=0.006)  # the printed table rounds, and cuts in places


@pytest.mark.parametrize(("n", "half_width"), [(3, 1.69), (5, 0.95), (10, 0.58), (20, 0.39)])
def test_equivalence_can_be_shown_from_this_margin_on(n, half_width):
    assert (
        intervals.tost_p(0, 0, 1.0, n, half_width + 0.006) < 0.05 < intervals.tost_p(0, 0, 1.0, n, half_width - 0.006)
    )
    assert intervals.seeds_for_equivalence(half_width + 0.006, 1.0) == n
    assert intervals.seeds_for_equivalence(half_width - 0.006, 1.0) > n


def test_the_largest_m_is_where_p_is_alpha():
    r, half = intervals.unrounded("79.08", 2)
    m = intervals.largest_m(r, MEAN, SD, N, half)
    assert intervals.p_value(r, MEAN, SD, N, m, half) == pytest.approx(0.05)


def test_equivalence_is_the_90_percent_interval_inside_the_margin():
    low, high = intervals.prediction_interval(MEAN, SD, N, alpha=0.1)
    for r in np.linspace(77, 79.4, 49):
        inside = r - 0.995 < low and high < r + 0.995
        assert (intervals.tost_p(r, MEAN, SD, N, 1.0, 0.005) < 0.05) == inside


def test_no_room_in_the_margin_is_no_test():
    assert np.isnan(intervals.tost_p(1, 1, 0.1, 5, margin=0.0005, half=0.0005))
    assert np.isnan(intervals.tost_p(1, 1, 0.1, 5, margin=np.nan))
    assert intervals.seeds_for_equivalence(0.0005, 0.1, 0.0005) == INF


@pytest.mark.parametrize(
    ("text", "decimals", "low", "high"),
    [("78.34", 2, 78.34, 78.35), ("-0.25", 2, -0.26, -0.25), ("77.9", 2, 77.90, 77.91), ("0.00", 2, -0.01, 0.01)],
)
def test_truncated_values_lie_further_from_zero(text, decimals, low, high):
    centre, half = intervals.unrounded(text, decimals, truncated=True)
    assert (centre - half, centre + half) == pytest.approx((low, high))


def test_half_unit_is_that_of_the_column():
    assert intervals.unrounded("77.9", 2) == (77.9, 0.005)
    assert intervals.unrounded("77.9", 1) == (77.9, 0.05)


@pytest.mark.parametrize(
    ("value", "text", "same"),
    [
        (83.425, "83.43", True),  # half up
        (83.425, "83.42", True),  # half even
        (83.435, "83.44", True),
        (83.435, "83.43", False),
        (100 * 0.83425, "83.43", True),
        (100 * 0.83435, "83.43", False),  # a float a little below the tie
        (83.4349, "83.44", False),
    ],
)
def test_deterministic_values_compare_as_printed(value, text, same):
    assert intervals.rounds_to(value, text, 2) is same
    assert intervals.rounds_to(83.4399, "83.43", 2, truncated=True)


def test_without_spread_there_is_no_interval():
    assert intervals.mean_sd_n([0.1] * 3) == (0.1, 0.0, 3)  # a naive sum leaves 1e-17
    assert intervals.p_value(78.34, 78.344, 0.0, 5, 1, 0.005) == 1
    assert intervals.p_value(78.34, 78.346, 0.0, 5, 1, 0.005) == 0
    assert intervals.largest_m(78.34, 78.344, 0.0, 5, 0.005) == INF
    assert intervals.largest_m(78.34, 78.346, 0.0, 5, 0.005) == 0
    assert np.isnan(intervals.p_value(78.34, 78.3, np.nan, 1, 1, 0.005))


def test_best_of_m_is_a_bound_and_has_a_direction():
    generator = np.random.default_rng(2)
    for most, expected in ((3, 0.957), (10, 0.963)):
        ours, others = generator.standard_normal((20_000, 5)), generator.standard_normal((20_000, most))
        fewest = intervals.best_of(others.max(1), ours.mean(1), ours.std(1, ddof=1), 5)
        assert (fewest <= most).mean() == pytest.approx(expected, abs=0.007)
    assert intervals.best_of(0.70, 0.75, 0.01, 5, higher=False) == intervals.best_of(0.80, 0.75, 0.01, 5) > 1
    assert intervals.best_of(0.80, 0.75, 0.01, 5, higher=False) == 1


def test_one_set_of_runs_against_another():
    a, b = [1.0, 2.0, 4.0, 4.5], [0.5, 1.0, 3.0]
    test = stats.ttest_ind(a, b, equal_var=False)
    bounds = test.confidence_interval()
    (mean_a, sd_a, n_a), (mean_b, sd_b, n_b) = intervals.mean_sd_n(a), intervals.mean_sd_n(b)
    found = intervals.welch(mean_a, sd_a, n_a, mean_b, sd_b, n_b)
    assert found == pytest.approx((mean_a - mean_b, bounds.low, bounds.high, test.pvalue))
    assert intervals.probability_better(a, b) == pytest.approx(stats.mannwhitneyu(a, b).statistic / 12)
    assert intervals.probability_better(a, b, higher=False) == pytest.approx(
        1 - stats.mannwhitneyu(a, b).statistic / 12
    )
    assert intervals.welch(1, 0, 5, 2, 0, 5) == (-1, -1, -1, 0)


def test_a_gap_in_pairs_and_not():
    a, b = [1.0, 2.0, 4.0, 4.5], [0.5, 1.0, 3.0, 4.4]
    for paired, test in ((True, stats.ttest_rel(a, b)), (False, stats.ttest_ind(a, b, equal_var=False))):
        found, bounds = intervals.gap_of(a, b, paired), test.confidence_interval()
        assert (found.gap, *found.interval(), found.p()) == pytest.approx(
            (np.mean(a) - np.mean(b), bounds.low, bounds.high, test.pvalue)
        )
        low, high = found.interval(0.1)  # two one-sided tests: the 90 % interval inside the margin
        edge = max(abs(low), abs(high))
        assert found.p_within(edge + 1e-9) < 0.05 < found.p_within(edge - 1e-9)
    assert intervals.gap_of(a, b, True).correlation == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert np.isnan(intervals.gap_of(a, b).p_within(np.nan))
    still = intervals.gap_of([1, 1, 1], [2, 2, 2], True)
    assert (still.interval(), still.p(), still.p_within(1.5), still.smallest_effect()) == ((-1, -1), 0, 0, 0)
    with pytest.raises(ValueError, match="4 and 3 runs are no pairs"):
        intervals.gap_of(a, b[:3], True)


def test_the_smallest_effect_is_seen_in_four_of_five_cases():
    generator = np.random.default_rng(4)
    for alpha in (0.05, 0.05 / 7):
        effect = intervals.Gap(0, 5**-0.5, 4, "paired", 0).smallest_effect(alpha)
        pairs = generator.standard_normal((40_000, 5)) + effect
        t = pairs.mean(1) / pairs.std(1, ddof=1) * 5**0.5
        assert (2 * stats.t.sf(np.abs(t), 4) < alpha).mean() == pytest.approx(0.8, abs=0.01)


def test_equivalence_needs_more_seeds_if_the_printed_value_is_noisy():
    exact, five, one = (intervals.seeds_for_equivalence(0.8, 1.0, m=m) for m in (INF, 5, 1))
    assert (exact, one) == (7, INF)  # the mean of one run is off by 1.64 SD too often
    assert exact < five < one
    for n in (five - 1, five):
        assert (intervals.tost_p(0, 0, 1.0, n, 0.8, m=5) < 0.05) == (n >= five)


def test_adjusted_p_values():
    p = [0.01, np.nan, 0.04, 0.03, 0.005]
    assert intervals.holm(p) == pytest.approx([0.03, np.nan, 0.06, 0.06, 0.02], nan_ok=True)
    assert intervals.benjamini_hochberg(p) == pytest.approx([0.02, np.nan, 0.04, 0.04, 0.02], nan_ok=True)
    assert np.isnan(intervals.benjamini_hochberg([np.nan])).all()
    assert intervals.holm([0.6, 0.9]) == pytest.approx([1, 1])


# --- the vocabulary -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "verdict"),
    [
        # n, p_1, p_inf, tost_p, best_of
        ((5, 0.9, 0.8, 0.01, 1), v.REPRODUCED),
        ((5, 0.9, 0.8, 0.06, 1), v.COMPATIBLE),
        ((5, 0.9, 0.8, np.nan, 1), v.COMPATIBLE),
        ((5, 0.2, 0.01, 0.01, 1), v.FEW_RUNS),
        ((5, 0.01, 0.001, 0.01, 3), v.BEST_OF),
        ((5, 0.01, 0.001, 0.01, 11), v.SMALL_DIFFERENCE),
        ((5, 0.01, 0.001, 0.9, 11), v.NOT_REPRODUCED),
        ((5, 0.01, 0.001, 0.9, 1), v.NOT_REPRODUCED),
        ((4, 0.9, 0.8, 0.01, 1), v.COMPATIBLE),  # below five seeds
        ((4, 0.2, 0.01, 0.01, 1), v.FEW_RUNS),
        ((4, 0.01, 0.001, 0.01, 3), v.NOT_ATTEMPTED),
        ((1, np.nan, np.nan, np.nan, np.nan), v.NOT_ATTEMPTED),
    ],
)
def test_headline_order(numbers, verdict):
    assert verdict_word(*numbers) == verdict


def test_headline_of_test_selection_and_of_many_cells():
    outside = (5, 0.01, 0.001, 0.9, 11)
    assert verdict_word(*outside, oracle_p_1=0.2) == v.TEST_SELECTION
    assert verdict_word(*outside, oracle_p_1=0.01) == v.NOT_REPRODUCED
    assert verdict_word(*outside, p_1_holm=0.2) == v.FEW_RUNS
    best = (5, 0.01, 0.001, 0.9, 4)
    assert verdict_word(*best, oracle_p_1=0.2) == v.BEST_OF  # then test selection is not the only explanation
    assert list(verdict_word(*np.array([outside, (5, 0.9, 0.8, 0.01, 1)]).T)) == [v.NOT_REPRODUCED, v.REPRODUCED]


# --- the join -------------------------------------------------------------------------------------------------------

LABELS = {"Our": "full"}


def cells(values=("0.699", "0.740"), metric="mae", rows=("Our", "Other"), dataset="mosi", side=""):
    """A printed table of one column."""
    return pd.DataFrame(
        {
            "paper": "amsgfn", "table": "2", "dataset": dataset, "row": rows, "metric": metric, "side": side,
            "value": values, "decimals": [str(len(text.partition(".")[2])) if text else "" for text in values],
            "marker": "",
        }
    )  # fmt: skip


def runs(values, metric="mae", label="full", **more):
    """Result rows, one seed each."""
    base = {
        "label": label, "seed": range(1111, 1111 + len(values)), "split": "test", "metric": metric, "value": values,
        "status": "done", "synthetic": False, "selection": "val_mae", "dataset": "mosi",
    }  # fmt: skip
    return pd.DataFrame(base | more)


CLOSE = [0.701, 0.695, 0.704, 0.698, 0.702]  # mean 0.7000, sd 0.0035


def first(reported, rows, **more):
    return judge(reported, rows, labels=LABELS, **more).iloc[0]


def test_one_line_per_printed_cell_of_both_papers():
    reported = load_reported()
    judged = judge(reported, runs(CLOSE), labels=LABELS)
    assert len(judged) == len(reported)
    assert judged["reported"].tolist() == reported["value"].tolist()
    assert set(judged["verdict"]) == {v.NOT_ATTEMPTED, v.COMPATIBLE}
    attempted = judged[judged["verdict"] != v.NOT_ATTEMPTED]
    assert attempted[["table", "row", "metric"]].to_numpy().tolist() == [["2", "Our", "mae"]]
    assert (judged["reason"] != "").all()
    assert judged.loc[judged["reported"] == "", "reason"].unique() == ["the paper prints a dash"]
    assert judged.loc[judged["table"].eq("1") & judged["paper"].eq("amsgfn"), "reason"].unique() == [
        "a count, not the result of a run"
    ]


def test_a_cell_carries_what_its_verdict_rests_on():
    line = first(cells(), runs(CLOSE, commit="abc"))
    mean, sd, n = intervals.mean_sd_n(CLOSE)
    assert (line["n"], line["values"], line["commit"], line["selection"]) == (5, tuple(CLOSE), "abc", "val_mae")
    assert (line["mean"], line["sd"]) == pytest.approx((mean, sd))
    assert line["margin"] == pytest.approx(0.0205)
    assert line["p_1"] == pytest.approx(intervals.p_value(0.699, mean, sd, n, 1, 0.0005))
    assert line["tost_p"] == pytest.approx(intervals.tost_p(0.699, mean, sd, n, 0.0205, 0.0005, m=1))
    for m in (1, 5, INF):
        needed = intervals.seeds_for_equivalence(0.0205, sd, 0.0005, m=m)
        assert line[f"equivalence_seeds_{m:.0f}"] == needed <= 5
    assert line["mdd_1"] == pytest.approx(intervals.detectable(sd, n, 1, 0.0005))
    assert (line["decimals"], line["direction"], line["reported_is"]) == (3, "lower", "better")
    assert line["verdict"] == v.REPRODUCED
    assert line["reason"] == "inside the interval of our 5 seeds and within 0.0205 of their mean"


def test_accuracies_are_compared_in_percent():
    reported = cells(("78.34", "77.00"), "acc2", side="non0")
    line = first(reported, runs([x / 100 for x in XS], "acc2_non0"))
    assert (line["mean"], line["p_1"]) == pytest.approx((MEAN, 0.8013), abs=5e-5)
    assert line["margin"] == pytest.approx(0.67)


@pytest.mark.parametrize(
    ("printed", "verdict", "reason"),
    [
        ("0.700", v.COMPATIBLE, "inside the interval of our 5 seeds whatever was averaged; equivalence is not shown"),
        ("0.706", v.FEW_RUNS, "at most 8 runs"),
        ("0.688", v.BEST_OF, "compatible with the best of 3 runs"),
        ("0.715", v.NOT_REPRODUCED, "worse than our 5 seeds allow, whatever was averaged (Holm)"),
        ("0.650", v.NOT_REPRODUCED, "better than our 5 seeds allow, whatever was averaged (Holm)"),
    ],
)
def test_verdicts_by_distance(printed, verdict, reason):
    line = first(cells((printed, "0.740")), runs(CLOSE), margins=cells()[list(v.COLUMN)].assign(margin=0.0045))
    assert line["verdict"] == verdict
    assert reason in line["reason"]


def test_a_small_real_difference():
    line = first(cells(("0.715", "0.740")), runs(CLOSE), margins=cells()[list(v.COLUMN)].assign(margin=0.03))
    assert line["verdict"] == v.SMALL_DIFFERENCE


def test_below_five_seeds_nothing_is_called_reproduced_or_not():
    few = runs(CLOSE[:4])
    assert first(cells(("0.700", "0.800")), few)["verdict"] == v.COMPATIBLE
    line = first(cells(("0.650", "0.800")), few)
    assert line["verdict"] == v.NOT_ATTEMPTED
    assert line["reason"] == "4 seeds, outside their interval whatever was averaged; a verdict needs 5 seeds"
    one = first(cells(), runs(CLOSE[:1]))
    assert one["reason"] == "one seed has no spread; a verdict needs 5 seeds"
    assert np.isnan(one["sd"])


def test_synthetic_data_are_never_compared_with_a_printed_number():
    judged = judge(cells(), runs(CLOSE, synthetic=True, dataset="planted-mosi?train=48"), labels=LABELS)
    line = judged.iloc[0]
    assert line["verdict"] == line["verdict_truncated"] == v.SYNTHETIC
    assert line["values"] == tuple(CLOSE)  # relations may be read
    numbers = ["p_1", "p_inf", "m_star", "tost_p", "pi_1_low", "mdd_1", "p_1_holm", "p_1_bh", "oracle_p_1", "best_of"]
    assert line[numbers].isna().all()
    assert line["reported_is"] == ""
    unmarked = first(cells(), runs(CLOSE, dataset="planted-mosi"))
    assert unmarked["verdict"] == v.SYNTHETIC
    fields = line.to_dict()
    with pytest.raises(ValueError, match="on synthetic data is 'reproduced'"):
        Verdict(**fields | {"verdict": v.REPRODUCED})
    with pytest.raises(ValueError, match="verdict 'close enough'"):
        Verdict(**fields | {"verdict": "close enough"})


def test_real_runs_come_before_synthetic_ones():
    both = pd.concat([runs(CLOSE), runs([0.3] * 5, synthetic=True, dataset="planted-mosi")])
    line = first(cells(), both)
    assert (line["verdict"], line["values"]) == (v.REPRODUCED, tuple(CLOSE))


def test_only_test_selection_explains_it():
    printed = cells(("0.650", "0.660"))
    oracle = runs([0.652, 0.647, 0.655, 0.649, 0.651], selection="test_oracle")
    line = first(printed, pd.concat([runs(CLOSE), oracle]))
    assert line["verdict"] == v.TEST_SELECTION
    assert (line["oracle_n"], line["oracle_mean"]) == pytest.approx((5, 0.6508))
    assert line["values"] == tuple(CLOSE)
    assert first(printed, pd.concat([runs(CLOSE), oracle[:4]]))["verdict"] == v.NOT_REPRODUCED
    alone = first(printed, oracle)
    assert (alone["verdict"], alone["reason"]) == (v.NOT_ATTEMPTED, "no validation-selected run of this row")


def test_failed_and_undefined_runs_stay_visible():
    failed = runs([np.nan], "", status="failed", seed=[7], reason="OutOfMemory")
    line = first(cells(), pd.concat([runs([*CLOSE, np.nan]), failed]))
    assert (line["n"], line["failed"], line["undefined"]) == (5, 1, 1)
    assert line["reason"].endswith("; 1 of 7 runs failed")
    assert first(cells(), failed)["reason"] == "all 1 runs failed: OutOfMemory"
    assert first(cells(), runs([np.nan, np.nan]))["reason"] == "mae is undefined in all 2 runs"


def test_what_was_not_attempted_says_why():
    judged = judge(cells(), runs(CLOSE), labels=LABELS, not_attempted={"Other": "not built"})
    assert judged["reason"].tolist()[1] == "not built"
    assert first(cells(dataset="mosei"), runs(CLOSE))["reason"] == "no run of this row on mosei, only on mosi"
    assert first(cells(), runs(CLOSE, "corr"))["reason"] == "no run of this row has mae"
    mapped = first(cells(), runs(CLOSE, dataset="x.npz"), datasets={"x.npz": "mosi"})
    assert mapped["verdict"] == v.REPRODUCED


def test_a_deterministic_row_is_compared_by_rounding():
    rows = runs([0.6994], dataset="mosi")
    assert first(cells(), rows)["verdict"] == v.NOT_ATTEMPTED
    assert first(cells(), rows, deterministic=["full"])["verdict"] == v.COMPATIBLE
    assert first(cells(), runs([0.6994] * 5))["verdict"] == v.REPRODUCED
    assert first(cells(), runs([0.6996] * 5))["verdict"] == v.SMALL_DIFFERENCE
    assert first(cells(), runs([0.6996] * 5))["verdict_truncated"] == v.REPRODUCED


def test_holm_counts_the_cells_of_a_table():
    alone = judge(cells(("0.715", "0.740")), runs(CLOSE), labels=LABELS)
    assert alone["verdict"].iloc[0] == v.NOT_REPRODUCED
    names = [f"row {i}" for i in range(30)]
    many = cells(("0.715", "0.740", *["0.700"] * 30), rows=("Our", "Other", *names))
    rows = pd.concat([runs(CLOSE), *(runs(CLOSE, label=name) for name in names)])
    line = judge(many, rows, labels=LABELS).iloc[0]
    assert line["p_1"] < 0.05 < line["p_1_holm"]
    assert line["verdict"] == v.FEW_RUNS
    assert line["reason"].endswith("once the cells of this table are counted (Holm)")


def test_margins_are_half_of_the_printed_gain():
    found = gains(load_reported()).set_index(["paper", "table", "dataset", "metric", "side"])
    mosi = found.loc[("amsgfn", "2", "mosi", "mae", "")]
    assert (mosi["runner_up"], mosi["runner_up_value"], mosi["gain"]) == ("Self-MM", "0.712", 0.013)
    assert found.loc[("amsgfn", "4", "sims", "acc2", ""), "gain"] == 1.93
    assert found.loc[("dsrf", "3", "mosi", "corr", ""), "gain"] == -0.006
    margin = default_margins(load_reported()).set_index(["paper", "table", "dataset", "metric", "side"])["margin"]
    assert margin[("amsgfn", "2", "mosi", "mae", "")] == 0.0065
    assert np.isnan(margin[("dsrf", "3", "mosi", "corr", "")])
    assert not any(table == "1" and paper == "amsgfn" for paper, table, *_ in found.index)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drop": "synthetic"}, "result rows lack synthetic"),
        ({"status": "running"}, "status 'running'"),
        ({"metric": "acc7", "value": 47.0}, "expected a fraction"),
        ({"seed": 1}, "hold a seed twice"),
        ({"switches": list("aaaab")}, "mix switches"),
        ({"selection": ["last", *["val_mae"] * 4]}, "mix selection"),
    ],
)
def test_rows_that_cannot_be_judged_honestly(change, message):
    rows = runs(CLOSE)
    rows = rows.drop(columns=change["drop"]) if "drop" in change else rows.assign(**change)
    with pytest.raises(ValueError, match=message):
        judge(cells(), rows, labels=LABELS)


def test_rows_without_a_data_set_serve_one_data_set_only():
    rows = runs(CLOSE).drop(columns="dataset")
    assert first(cells(), rows)["verdict"] == v.REPRODUCED
    with pytest.raises(ValueError, match="do not say their dataset"):
        judge(load_reported(), rows, labels=LABELS)


# --- relations ------------------------------------------------------------------------------------------------------

WORSE = [x + 0.05 for x in CLOSE]


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        (CLOSE, WORSE, "holds"),
        (WORSE, CLOSE, "reversed"),
        (CLOSE, [x + y for x, y in zip(CLOSE, (0.1, -0.1, 0.05, -0.02, 0), strict=True)], "undecided"),
        (CLOSE, [x + 0.0005 for x in CLOSE], "no effect larger than X"),
        (CLOSE[:4], WORSE, "undecided"),
        (CLOSE, [], "not attempted"),
    ],
)
def test_a_is_better_than_b(a, b, verdict):
    for scope in (False, True):
        relation = compare(a, b, higher=False, synthetic=scope, claimed_gap=0.05)
        assert relation.verdict == verdict
        if b:
            assert relation.reason.startswith("synthetic data: " if scope else "real data: ")
    if verdict == "holds":
        assert relation.claimed_inside is None  # synthetic: no printed number is compared
        assert compare(a, b, higher=False, claimed_gap=0.05).claimed_inside
        assert not compare(a, b, higher=False, claimed_gap=0.01).claimed_inside
        assert relation.probability == 1


def planted(values, label):
    return runs(values, label=label, synthetic=True, dataset="planted-mosi")


def test_relations_of_a_table_are_read_from_synthetic_runs_and_say_so():
    reported = cells(("0.699", "0.712", "0.720", "0.699"), rows=("Our", "B", "C", "tied"))
    rows = pd.concat([planted(CLOSE, "full"), planted(WORSE, "B"), planted([x - 0.05 for x in CLOSE], "C")])
    found = relations(judge(reported, rows, labels=LABELS)).set_index("worse")
    assert found["better"].tolist() == ["Our", "Our"]  # the tied row is no relation
    assert found["verdict"].to_dict() == {"B": "holds", "C": "reversed"}
    assert found["claimed_gap"].to_dict() == {"B": 0.013, "C": 0.021}
    assert found["scope"].unique() == ["synthetic data"]
    assert (found["p_holm"] >= found["p"]).all()


def test_a_relation_needs_runs_of_the_same_kind():
    rows = pd.concat([runs(CLOSE), planted(WORSE, "Other")])
    assert relations(judge(cells(), rows, labels=LABELS))["verdict"].tolist() == ["not attempted"]


def judged_readings(readings, values, synthetic=True):
    """A judged column: printed value by (row, reading), and the runs behind each label."""
    lines = pd.concat(
        [
            cells((text,), rows=(f"{row}, read as {reading}" if reading else row,)).assign(
                printed_row=row, reading=reading
            )
            for (row, reading), (text, _) in readings.items()
        ],
        ignore_index=True,
    )
    labels = dict(zip(lines["row"], (label for _, label in readings.values()), strict=True))
    rows = pd.concat([planted(x, label) if synthetic else runs(x, label=label) for label, x in values.items()])
    judged = judge(lines, rows.assign(model="amsgfn"), labels=labels)
    return judged.assign(printed_row=lines["printed_row"], reading=lines["reading"])


FAR = [x - 0.3 for x in CLOSE]


def test_readings_that_are_the_same_runs_are_one_test():
    readings = {("Our", ""): ("0.699", "full"), ("w/o TB", ""): ("0.720", "no_tb")}
    apart = judged_readings(readings, {"full": CLOSE, "no_tb": WORSE})
    more = {("w/o CCAM", name): ("0.730", "no_tb") for name in ("a", "b", "c")}
    twice = judged_readings(readings | more, {"full": CLOSE, "no_tb": WORSE})
    one, many = relations(apart), relations(twice)
    assert len(many) == 4
    assert many["test"].nunique() == 1
    assert many["p_holm"].unique() == one["p_holm"].unique() == one["p"].unique()
    assert set(many["smallest_effect"]) == set(one["smallest_effect"])


def test_a_printed_relation_counts_once_by_its_best_reading():
    readings = {("Our", ""): ("0.699", "full")}
    readings |= {("w/o DMGF", name): ("0.720", name) for name in ("sum", "concat")}
    judged = judged_readings(readings, {"full": CLOSE, "sum": [x - 0.05 for x in CLOSE], "concat": WORSE})
    compared = relations(judged)
    assert compared["verdict"].tolist() == ["reversed", "holds"]
    (line,) = printed_relations(compared).to_dict("records")
    assert (line["verdict"], line["worse"], line["readings"]) == ("holds", "w/o DMGF, read as concat", 2)
    without = relations(judged_readings(readings, {"full": CLOSE, "sum": [x - 0.05 for x in CLOSE]}))
    assert without["verdict"].tolist() == ["reversed", "not attempted"]
    assert printed_relations(without)["verdict"].tolist() == ["not attempted"]  # reversed only if all are


def test_frozen_is_never_compared_with_fine_tuned():
    readings = {("Our", "frozen"): ("0.699", "full"), ("Our", "tuned"): ("0.699", "full, tuned")}
    readings |= {("w/o TB", "frozen"): ("0.720", "tb"), ("w/o TB", "tuned"): ("0.720", "tb, tuned")}
    readings |= {("w/o CCAM", ""): ("0.720", "ccam"), ("w/o DMGF", "tuned: sum"): ("0.720", "sum, tuned")}
    values = {label: CLOSE for label in ("full", "tb", "ccam", "full, tuned", "tb, tuned", "sum, tuned")}
    compared = relations(judged_readings(readings, values))
    assert sorted(zip(compared["better"], compared["worse"], strict=True)) == [
        ("Our, read as frozen", "w/o CCAM"),  # read in one way: under the own row's first
        ("Our, read as frozen", "w/o TB, read as frozen"),
        ("Our, read as tuned", "w/o DMGF, read as tuned: sum"),
        ("Our, read as tuned", "w/o TB, read as tuned"),
    ]
    assert len(printed_relations(compared)) == 3


def test_a_cell_is_not_reproduced_only_if_every_reading_fails():
    readings = {("Our", "frozen"): ("0.699", "full"), ("Our", "tuned"): ("0.699", "tuned"), ("Mult", ""): ("0.9", "x")}
    for values, word in (
        ({"full": FAR, "tuned": CLOSE}, v.REPRODUCED),
        ({"full": FAR, "tuned": FAR}, v.NOT_REPRODUCED),
        ({"full": FAR}, v.NOT_ATTEMPTED),
    ):
        judged = judged_readings(readings, values, synthetic=False)
        assert v.NOT_REPRODUCED in set(judged["verdict"])
        line = v.printed_cells(judged).set_index("printed_row").loc["Our"]
        assert (line["verdict"], line["readings"]) == (word, 2)
        assert line["margin"] == pytest.approx(0.1005)  # of the printed gain, whatever the row is read as
    assert v.printed_cells(judge(cells(), runs(CLOSE), labels=LABELS))["readings"].tolist() == [1, 1]


def test_readings_do_not_make_a_table_larger():
    """A rejected cell is rejected under every reading, so that Holm counts cells."""
    names = [f"row {i}" for i in range(6)]
    readings = {("Our", name): ("0.699", f"full {name}") for name in "abc"} | {(n, ""): ("0.699", n) for n in names}
    values = {f"full {name}": [x - 0.011 - 0.001 * i for x in CLOSE] for i, name in enumerate("abc")}
    judged = judged_readings(readings, values | dict.fromkeys(names, CLOSE), synthetic=False)
    ours = judged[judged["printed_row"] == "Our"]
    assert ours["p_1_holm"].tolist() == pytest.approx((7 * ours["p_1"]).tolist())
    assert ours["p_1_bh"].nunique() == 1
    # One reading of the own row fails by far, another does not: to the other cells the row is no failure.
    values |= {"full a": FAR, "full b": CLOSE, "row 0": [x - 0.03 for x in CLOSE]}
    judged = judged_readings(readings, values | dict.fromkeys(names[1:], CLOSE), synthetic=False)
    line = judged[judged["printed_row"] == "row 0"].iloc[0]
    assert judged["p_1"].min() < line["p_1"]
    assert line["p_1_holm"] == pytest.approx(7 * line["p_1"])


@pytest.mark.parametrize(("same", "kind"), [(True, "paired"), (False, "Welch")])
def test_pairs_need_the_same_model_and_the_same_seeds(same, kind):
    rows = pd.concat([planted(CLOSE, "full"), planted(WORSE[::-1], "Other")]).assign(model="amsgfn")
    rows.loc[rows["label"] == "Other", "seed"] = range(1115, 1110, -1)  # in another order
    for change in ({}, {"seed": range(1, 6)}, {"model": "tfn"}):
        changed = rows.copy()
        for name, value in {} if same else change.items():
            changed.loc[changed["label"] == "Other", name] = value
        if not same and not change:
            continue
        (line,) = relations(judge(cells(), changed, labels=LABELS)).to_dict("records")
        assert line["interval"] == kind
        assert line["correlation"] == pytest.approx(1) if same else np.isnan(line["correlation"])


def test_what_the_seeds_could_show_is_said():
    noisy = [x + y for x, y in zip(CLOSE, (0.1, -0.1, 0.05, -0.02, 0), strict=True)]
    relation = compare(CLOSE, noisy, higher=False, claimed_gap=0.01, paired=True, synthetic=True)
    spread = np.std(np.subtract(CLOSE, noisy), ddof=1)
    assert relation.margin_seeds == intervals.seeds_for_equivalence(0.01, spread) > 5
    assert f"cannot be shown by 5 seeds, even with a gap of 0, it takes about {relation.margin_seeds:.0f}" in (
        relation.reason
    )
    seven = compare(CLOSE, noisy, higher=False, claimed_gap=0.01, paired=True, tests=7)
    assert seven.smallest_effect > relation.smallest_effect > relation.high - relation.gap
    within = compare(CLOSE, [x + 0.0005 for x in noisy[:0] + CLOSE], higher=False, claimed_gap=0.02, synthetic=True)
    assert within.reason == "synthetic data: any gap is smaller than 0.02, the printed one"


def test_relations_that_hold_by_construction_say_so_on_planted_data_only():
    reported = cells(("0.699", "0.740", "0.740"), rows=("Our", "T+A", "w/o TB"))
    for make, said in ((planted, True), (lambda x, label: runs(x, label=label), False)):
        rows = pd.concat([make(CLOSE, "full"), make(WORSE, "T+A"), make(WORSE, "w/o TB")])
        found = relations(judge(reported, rows, labels=LABELS)).set_index("worse")["by_construction"]
        assert ("dominates" in found["T+A"]) is said
        assert found["w/o TB"] == ""


def test_differences_of_a_notebook_are_those_of_the_verdicts():
    values = pd.DataFrame({"full": CLOSE, "w/o TB": WORSE}, index=range(5))
    (line,) = differences(values, "full").to_dict("records")
    relation = compare(WORSE, CLOSE, paired=True)
    assert line["95 % interval"] == f"{relation.low:+.3f} .. {relation.high:+.3f}"
    assert (line["minus full"], line["how"], line["correlation"], line["seeds"]) == ("+0.050", "paired", "+1.00", 5)
    assert differences(values.iloc[:1], "full")["95 % interval"][0] == "–"
    values.loc[4, "w/o TB"] = np.nan
    assert differences(values, "full")["how"][0] == "Welch"


def test_the_judging_modules_import_neither_torch_nor_the_models():
    code = "import sys, papers_check.judge.calibration, papers_check.judge.relations; "
    code += "sys.exit(any(name.split('.')[0] in ('torch', 'msa_lib') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_expected_best_has_no_bias():
    generator = np.random.default_rng(3)
    runs = generator.standard_normal((4000, 7))
    found = np.mean([intervals.expected_best(line, 3) for line in runs])
    assert found == pytest.approx(0.846, abs=0.02)  # the plug-in estimate gives 0.73
    by_hand = np.mean([min(subset) for subset in combinations(XS, 2)])
    assert intervals.expected_best(XS, 2, higher=False) == pytest.approx(by_hand)
    other = [3.0, 1.0, 5.0, 2.0, 4.0]  # a score by which the run is chosen
    by_hand = np.mean([max(pair)[1] for pair in combinations(zip(other, XS, strict=True), 2)])
    assert intervals.expected_best(XS, 2, by=other) == pytest.approx(by_hand)
    with pytest.raises(ValueError, match="expected best of 6 from 5 runs"):
        intervals.expected_best(XS, 6)
