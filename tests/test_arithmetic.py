"""What printed scores can be at all: GRIM, accuracy with F1, inequalities, and the counts of the real labels."""

from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from msa_lib.metrics import evaluate
from papers_check.checks import label_counts as counts
from papers_check.printed import arithmetic as a

LABELS = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "labels"
MOSI = (277, 379)  # positive, negative clips of the test set, zeros left out


# --- GRIM -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "n", "m", "unit", "possible"),
    [
        ("5.19", 28, 1, 1, False),
        ("5.19", 32, 1, 1, True),
        ("71", 43, 1, 100, False),
        ("5.27", 43, 1, 1, False),
        ("83.53", 686, 1, 100, True),
        ("83.44", 686, 1, 100, False),
        ("83.44", 686, 5, 100, True),
        ("100.00", 686, 1, 100, True),
        ("0.00", 686, 1, 100, True),
    ],
)
def test_grim_vectors(text, n, m, unit, possible):
    assert bool(a.grim(text, n, m, unit=unit)) is possible


def test_grim_counts():
    assert list(a.grim("83.53", 686)) == [573]
    assert list(a.grim("83.44", 686, 5)) == [2862]
    assert list(a.grim("50", 4)) == [2]
    assert list(a.grim("12.5", 40, rule="truncate")) == [5]
    assert list(a.grim("12.3", 40, rule="truncate")) == []


@pytest.mark.parametrize("text", ["83.44", "77.38", "81.84", "77.14"])
def test_the_public_harness_averages_five(text):
    assert not a.possible_runs([(text, 686)], up_to=4)
    assert 5 in a.possible_runs([(text, 686)], run_decimals=2)


def test_run_rounding_slack():
    assert a.possible_runs([("81.84", 686)], up_to=6) == {5}
    assert a.possible_runs([("81.84", 686)], up_to=6, run_decimals=2) == {5}
    # 0.5 * 10^-2 on either side admits a neighbour that is otherwise excluded
    assert not a.grim("84.35", 686, 5)
    assert a.grim("84.35", 686, 8, run_decimals=2)
    # a single run is rounded once
    assert a.grim("83.44", 686, 1, run_decimals=2) == a.grim("83.44", 686, 1)


@pytest.mark.parametrize(("n", "m", "share"), [(457, 1, 0.05), (457, 5, 0.23), (686, 3, 0.21), (4659, 1, 0.47)])
def test_share_of_two_decimal_values_that_pass(n, m, share):
    values = [f"{k / 100:.2f}" for k in range(0, 10000, 7)]
    assert np.mean([bool(a.grim(v, n, m)) for v in values]) == pytest.approx(share, abs=0.02)


def test_interval_is_exact_and_column_decimals_count():
    assert a.interval("78.30") == (Decimal("78.295"), Decimal("78.305"))
    assert a.interval("78.3") == (Decimal("78.25"), Decimal("78.35"))
    assert a.interval("78.3", decimals=2) == a.interval("78.30")
    assert a.interval("78.3", "truncate") == (Decimal("78.3"), Decimal("78.4"))
    with pytest.raises(ValueError, match="unknown rule"):
        a.interval("78.3", "up")


# --- accuracy and F1 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("swapped", [False, True])
def test_weighted_f1_is_scikit_learns(swapped):
    rng = np.random.default_rng(0)
    for _ in range(20):
        truth, guess = rng.integers(0, 2, (2, 37))
        p, q = truth.sum(), (1 - truth).sum()
        tp, tn = ((truth == 1) & (guess == 1)).sum(), ((truth == 0) & (guess == 0)).sum()
        arguments = (guess, truth) if swapped else (truth, guess)
        ours = a.weighted_f1(tp, int(p), tn, int(q), swapped)
        assert ours == pytest.approx(f1_score(*arguments, average="weighted", zero_division=0))


def test_joint_finds_the_table_and_nothing_else():
    tp, tn = 221, 339
    acc = f"{100 * (tp + tn) / sum(MOSI):.2f}"
    f1 = f"{100 * float(a.weighted_f1(tp, MOSI[0], tn, MOSI[1])):.2f}"
    assert (tp, tn) in a.joint(acc, f1, *MOSI)
    assert a.joint(acc, "86.50", *MOSI) == []  # more than a point above the accuracy
    assert a.joint("83.44", "83.00", 307, 379) == []  # no single run has this accuracy


def test_half_of_the_plausible_f1_values_are_impossible_for_one_run():
    acc = "85.37"  # 560 of 656
    values = [f"{85.37 - k / 100:.2f}" for k in range(100)]
    share = np.mean([not a.joint(acc, f1, *MOSI) for f1 in values])
    assert 0.3 < share < 0.8


def test_hull_contains_every_run_and_every_mean():
    rng = np.random.default_rng(1)
    p, q = 40, 60
    for m in (1, 3):
        for _ in range(200):
            tp, tn = rng.integers(0, p + 1, m), rng.integers(0, q + 1, m)
            for swapped in (False, True):
                acc = f"{100 * ((tp + tn) / (p + q)).mean():.2f}"
                f1 = f"{100 * a.weighted_f1(tp, p, tn, q, swapped).mean():.2f}"
                assert a.f1_possible(acc, f1, p, q, swapped)


def test_f1_far_above_accuracy_is_impossible_unless_swapped():
    assert not a.f1_possible("86.21", "86.50", *MOSI)
    assert a.f1_possible("86.21", "86.50", *MOSI, swapped=True)
    assert a.f1_possible("86.21", "86.29", *MOSI)
    assert not a.f1_possible("86.21", "70.00", *MOSI)
    smallest, largest = a.f1_limits("86.21", *MOSI)
    assert smallest < 82 < 86.21 < largest < 86.31


# --- inequalities ---------------------------------------------------------------------------------------------------


def test_zero_labels():
    low, high = a.zeros_right("83.44", "85.46", 686, 656)
    assert 11 <= float(low) <= float(high) <= 12
    assert a.zeros_possible("83.44", "85.46", 686, 656)
    assert not a.zeros_possible("80.00", "85.46", 686, 656)  # fewer than none
    assert not a.zeros_possible("88.00", "85.46", 686, 656)  # 43 of 30


def test_zeros_inequality_needs_nonzero_predictions():
    labels, predictions = np.array([-1.0, -1.0, 1.0]), np.array([0.0, -1.0, 1.0])
    scores = evaluate(labels, predictions)
    assert 3 * scores["acc2_has0"] - 3 * scores["acc2_non0"] == -1  # outside [0, 0], and nothing is wrong


def test_coarser_accuracy_is_not_below():
    assert a.coarser_possible("45.00", "45.00")
    assert a.coarser_possible("45.0", "45.04")  # within rounding
    assert not a.coarser_possible("45.00", "45.02")


def test_mae_floors_hold_for_random_predictions_and_bite():
    values, number = counts.load_values("mosi")
    labels = np.repeat(values, number)
    distance = np.minimum(np.abs(values - (np.rint(values) - 0.5)), np.abs(values - (np.rint(values) + 0.5)))
    rng = np.random.default_rng(2)
    for noise in (0.3, 1.0, 3.0):
        guess = np.clip(labels + noise * rng.normal(size=len(labels)), -3, 3)
        scores = evaluate(labels, guess)
        assert a.mae_floor(f"{100 * scores['acc7']:.2f}", values, number, distance) <= scores["mae"]
        assert a.mae_floor_from_corr(f"{scores['corr']:.3f}", values, number, 3) <= scores["mae"]
    assert a.mae_floor("0.00", values, number, distance) > 0.2
    assert a.mae_floor("100.00", values, number, distance) == 0
    assert a.mae_floor_from_corr("0.000", values, number, 3) > 0.3
    with pytest.raises(ValueError, match="expected equal numbers"):
        a.mae_floor("50.00", values, number, distance[1:])


# --- the labels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dataset", "sizes", "signs"),
    [
        ("mosi", (1284, 229, 686), (30, 379, 277)),
        ("mosei", (16326, 1871, 4659), (1025, 1350, 2284)),
        ("sims", (1368, 456, 457), (69, 248, 140)),
        ("simsv2", (2722, 647, 1034), (123, 488, 423)),
    ],
)
def test_sizes_and_signs(dataset, sizes, signs):
    assert tuple(counts.load_values(dataset, split)[1].sum() for split in counts.SPLITS) == sizes
    values, number = counts.load_values(dataset)
    assert tuple(number[chosen].sum() for chosen in (values == 0, values < 0, values > 0)) == signs


@pytest.mark.parametrize("dataset", counts.FILES)
def test_constants_agree_with_the_metrics(dataset):
    values, number = counts.load_values(dataset)
    labels = np.repeat(values, number)
    scale = "mosi" if counts.RANGE[dataset] == 3 else "sims"
    reached = pd.DataFrame([evaluate(labels, np.full(len(labels), c), scale) for c in np.linspace(-3, 3, 241)])
    assert reached["mae"].min() == pytest.approx(counts.best_constant_mae(dataset), abs=1e-3)
    for metric in counts.metrics_of(dataset):
        _, count, n = counts.majority(dataset, metric)
        assert reached[metric].max() == pytest.approx(count / n)
        if metric.startswith("acc2"):
            weighted = count / n * 2 * count / (n + count)  # F1 of always answering the larger class, times its share
            assert reached[metric.replace("acc2", "f1")].max() == pytest.approx(weighted)


def test_unknown_names_are_named():
    with pytest.raises(ValueError, match="no accuracy 'acc7'"):
        counts.class_of("sims", "acc7", np.zeros(2))
    with pytest.raises(ValueError, match="no label counts"):
        counts.load_values("mosi", "all")


@pytest.mark.skipif(not LABELS.exists(), reason="the real label tables are not here")
def test_counts_come_from_the_label_tables(tmp_path, monkeypatch):
    kept = {path.name: path.read_bytes() for path in counts.COUNTS.glob("*.csv")}
    monkeypatch.setattr(counts, "COUNTS", tmp_path / "counts")
    counts.write(LABELS)
    made = {path.name: path.read_bytes() for path in (tmp_path / "counts").glob("*.csv")}
    assert sorted(made) == ["classes.csv", "summary.csv", "values.csv"]
    assert made == kept
