"""The scores against hand values, scikit-learn, SciPy, exact arithmetic, and the class counts of real label files."""

import csv
import math
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn.metrics import f1_score

from msa_lib.metrics import LOWER_IS_BETTER, METRICS, evaluate, nonzero, swapped_f1

ROOT = Path(__file__).resolve().parent.parent
LABELS = ROOT.parent / "shared" / "data" / "labels"
SCALES = ("mosi", "sims")
LIMIT = {"mosi": 3.0, "sims": 1.0}
ACCURACIES = {scale: [key for key in METRICS[scale] if key.startswith("acc")] for scale in SCALES}

# Label-like values that meet every class edge, both zeros, halves and values out of range.
EDGES = [x * sign for x in (0.0, 0.1, 0.2, 0.5, 0.7, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 9.0) for sign in (1.0, -1.0)]
VALUES = st.sampled_from(EDGES) | st.floats(-4, 4, width=32)
unhurried = settings(deadline=None)  # shared machines stall; speed is not what these tests judge
PAIRS = st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=40)


def same(a: dict, b: dict, tolerance: float = 0.0) -> bool:
    return list(a) == list(b) and all(
        a[key] == b[key] or abs(a[key] - b[key]) <= tolerance or (math.isnan(a[key]) and math.isnan(b[key]))
        for key in a
    )


def all_nan(scores: dict) -> bool:
    return all(math.isnan(value) for value in scores.values())


# Hand values


def test_mosi_by_hand():
    labels = [-3.0, -1.5, 0.0, 0.5, 2.0, 2.5]
    predictions = [-2.5, -1.0, -0.25, 0.0, 1.5, 4.0]
    scores = evaluate(labels, predictions, counts=True)
    assert list(scores) == [
        *("mae", "corr", "acc7", "acc5", "acc2_has0", "acc2_non0", "f1_has0", "f1_non0"),
        *("acc7_k", "acc7_n", "acc5_k", "acc5_n", "acc2_has0_k", "acc2_has0_n", "acc2_non0_k", "acc2_non0_n"),
    ]
    # Absolute errors 0.5 0.5 0.25 0.5 0.5 1.5.
    assert scores["mae"] == 3.75 / 6
    # Rounded labels -3 -2 0 0 2 2, predictions -2 -1 0 0 2 3 (halves to even, 4 clipped to 3).
    assert (scores["acc7_k"], scores["acc7_n"], scores["acc7"]) == (3, 6, 3 / 6)
    # Clipped to 2: labels -2 -2 0 0 2 2, predictions -2 -1 0 0 2 2.
    assert (scores["acc5_k"], scores["acc5_n"], scores["acc5"]) == (5, 6, 5 / 6)
    # >= 0: labels - - + + + +, predictions - - - + + +.
    assert (scores["acc2_has0_k"], scores["acc2_has0_n"], scores["acc2_has0"]) == (5, 6, 5 / 6)
    assert scores["f1_has0"] == pytest.approx((2 * (4 / 5) + 4 * (6 / 7)) / 6, rel=1e-15)
    # > 0 where the label is not 0: labels - - + + +, predictions - - - + +.
    assert (scores["acc2_non0_k"], scores["acc2_non0_n"], scores["acc2_non0"]) == (4, 5, 4 / 5)
    assert scores["f1_non0"] == pytest.approx((2 * (4 / 5) + 3 * (4 / 5)) / 5, rel=1e-15)
    # Sums 0.5 and 1.75, of squares 21.75 and 25.5625, of products 22; six times each minus the product of the sums.
    assert scores["corr"] == pytest.approx(131.125 / math.sqrt(130.25 * 150.3125), rel=1e-14)
    # Weights of the predictions: 3 negative, 3 non-negative; 3 negative, 2 positive.
    swapped = swapped_f1(labels, predictions)
    assert list(swapped) == ["f1_has0_swapped", "f1_non0_swapped"]
    assert swapped["f1_has0_swapped"] == pytest.approx((3 * (4 / 5) + 3 * (6 / 7)) / 6, rel=1e-15)
    assert swapped["f1_non0_swapped"] == pytest.approx(4 / 5, rel=1e-15)


def test_sims_by_hand():
    labels = [-1.0, -0.6, -0.2, 0.0, 0.2, 0.8]
    predictions = [-2.0, -0.8, 0.3, -0.1, 0.5, 1.5]
    scores = evaluate(labels, predictions, scale="sims", counts=True)
    assert list(scores) == [
        *("mae", "corr", "acc2", "acc3", "acc5", "f1"),
        *("acc2_k", "acc2_n", "acc3_k", "acc3_n", "acc5_k", "acc5_n"),
    ]
    # Clipped predictions -1 -0.8 0.3 -0.1 0.5 1: absolute errors 0 0.2 0.5 0.1 0.3 0.2.
    assert scores["mae"] == pytest.approx(1.3 / 6, rel=1e-6)
    clipped = np.clip(predictions, -1, 1)
    assert scores["corr"] == pytest.approx(exact_corr(labels, clipped), rel=1e-14)
    # > 0: labels - - - - + +, predictions - - + - + +.
    assert (scores["acc2_k"], scores["acc2_n"], scores["acc2"]) == (5, 6, 5 / 6)
    assert scores["f1"] == pytest.approx((4 * (6 / 7) + 2 * (4 / 5)) / 6, rel=1e-15)
    assert swapped_f1(labels, predictions, "sims") == {
        "f1_swapped": pytest.approx((3 * (6 / 7) + 3 * (4 / 5)) / 6, rel=1e-15)
    }
    # Three classes: labels 0 0 0 1 2 2, predictions 0 0 2 0 2 2.
    assert (scores["acc3_k"], scores["acc3_n"], scores["acc3"]) == (4, 6, 4 / 6)
    # Five classes: labels 0 1 1 2 3 4, predictions 0 0 3 1 3 4.
    assert (scores["acc5_k"], scores["acc5_n"], scores["acc5"]) == (3, 6, 3 / 6)


def test_other_conventions_leave_labels_of_0_out_of_mae_and_corr():
    """Of four samples the third has label 0; the prediction 0 of the last is positive here, negative in `acc2_non0`."""
    labels, predictions = [1.0, -0.5, 0.0, 0.75], [0.5, 0.25, 2.0, 0.0]
    scores = nonzero(labels, predictions)
    assert list(scores) == ["mae_nonzero", "corr_nonzero", "acc2_nonzero"]
    assert scores["mae_nonzero"] == pytest.approx(2.0 / 3, rel=1e-15)
    assert scores["corr_nonzero"] == pytest.approx(
        exact_corr(labels[:2] + labels[3:], predictions[:2] + predictions[3:])
    )
    assert scores["acc2_nonzero"] == pytest.approx(2 / 3)
    assert evaluate(labels, predictions)["acc2_non0"] == pytest.approx(1 / 3)
    sims = nonzero([1.0, -0.5, 0.0], [2.0, 0.25, 1.0], "sims")  # clipped: 1, 0.25
    assert sims == {"mae_nonzero": pytest.approx(0.75 / 2), "corr_nonzero": pytest.approx(1.0)}
    for scale in SCALES:
        keys = list(nonzero([1.0, 1.0], [1.0, 0.5], scale))
        assert all_nan(nonzero([0.0, 0.0], [1.0, 0.5], scale))
        assert all_nan(nonzero([1.0, 0.5], [1.0, np.nan], scale))
        assert list(nonzero([0.5], [np.nan], scale)) == keys
    with pytest.raises(ValueError, match="equally many"):
        nonzero([1.0], [1.0, 2.0])


def test_nothing_is_rounded():
    scores = evaluate([1.0, 1.0, -1.0], [1.0, -1.0, -1.25])
    assert scores["acc7"] == 2 / 3
    assert scores["mae"] == 2.25 / 3


def test_results_are_plain_numbers():
    for scale in SCALES:
        scores = evaluate(np.float32([1, -1, 0.5]), np.float32([1, 1, -0.5]), scale, counts=True)
        assert {type(value) for key, value in scores.items() if key in METRICS[scale]} == {float}
        assert {type(value) for key, value in scores.items() if key not in METRICS[scale]} == {int}
        assert {type(value) for value in swapped_f1([1, -1], [1, 1], scale).values()} == {float}


def test_constants_name_the_keys():
    assert set(METRICS) == set(SCALES)
    for scale, keys in METRICS.items():
        assert tuple(evaluate([1.0, -1.0], [0.5, -0.5], scale)) == keys
    assert {"mae"} == LOWER_IS_BETTER


# Class edges


@pytest.mark.parametrize(
    ("prediction", "label", "seven", "five"),
    [
        (0.5, 0.0, True, True),  # halves go to the even neighbour
        (-0.5, 0.0, True, True),
        (0.5, 1.0, False, False),
        (1.5, 2.0, True, True),
        (-1.5, -2.0, True, True),
        (2.5, 2.0, True, True),
        (2.5, 3.0, False, True),
        (-2.5, -3.0, False, True),
        (np.nextafter(np.float32(2.5), np.float32(3)), 3.0, True, True),
        (7.0, 3.0, True, True),  # out of range is clipped
        (-7.0, -3.0, True, True),
        (7.0, 2.0, False, True),
        (-0.25, 0.0, True, True),
    ],
)
def test_acc7_and_acc5_edges(prediction, label, seven, five):
    scores = evaluate([label], [prediction])
    assert (scores["acc7"], scores["acc5"]) == (seven, five)
    assert evaluate([prediction], [label])["acc7"] == seven  # labels are rounded too


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_zero_of_either_sign(zero):
    # MOSI: zero is non-negative for has0; a predicted zero is not positive for non0, a zero label is left out.
    scores = evaluate([1.0, -1.0], [zero, zero], counts=True)
    assert scores["acc2_has0_k"] == 1
    assert scores["acc2_non0_k"] == 1
    assert evaluate([1.0], [zero])["acc2_has0"] == 1
    assert evaluate([1.0], [zero])["acc2_non0"] == 0
    assert evaluate([zero, 1.0], [1.0, 1.0], counts=True)["acc2_non0_n"] == 1
    assert evaluate([zero], [1.0])["acc2_has0"] == 1
    # SIMS: zero is negative, as label and as prediction.
    assert evaluate([zero], [-0.5], "sims")["acc2"] == 1
    assert evaluate([-0.5], [zero], "sims")["acc2"] == 1
    assert evaluate([0.5], [zero], "sims")["acc2"] == 0
    assert evaluate([zero], [0.05], "sims")["acc3"] == 1


# The middle of each SIMS class, and the class edge that belongs to it: the upper one.
@pytest.mark.parametrize("kind", [float, np.float32, np.float64])
@pytest.mark.parametrize(
    ("edge", "below", "above", "keys"),
    [
        (-0.7, -0.9, -0.5, {"acc5"}),
        (-0.1, -0.5, -0.05, {"acc3", "acc5"}),
        (0.1, 0.05, 0.5, {"acc3", "acc5"}),
        (0.7, 0.5, 0.9, {"acc5"}),
        (0.0, -0.05, 0.05, {"acc2"}),
    ],
)
def test_sims_edges_are_compared_in_float32(edge, below, above, keys, kind):
    just_above = np.nextafter(np.float32(edge), np.float32(2))
    for key in keys:
        assert evaluate([below], [kind(edge)], "sims")[key] == 1
        assert evaluate([kind(edge)], [below], "sims")[key] == 1
        assert evaluate([above], [kind(edge)], "sims")[key] == 0
        assert evaluate([above], [just_above], "sims")[key] == 1
        assert evaluate([below], [just_above], "sims")[key] == 0


def test_clipping_is_for_classes_only_on_mosi_and_for_everything_on_sims():
    labels, predictions = [-1.0, 0.0, 1.0], [-5.0, 0.0, 3.0]
    assert evaluate(labels, predictions)["mae"] == 2.0
    assert evaluate(labels, predictions)["corr"] < 1.0
    assert evaluate(labels, predictions, "sims")["mae"] == 0.0
    assert evaluate(labels, predictions, "sims")["corr"] == 1.0
    assert evaluate([9.0, -9.0], [1.0, -1.0], "sims")["mae"] == 0.0  # labels too


# Undefined metrics


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("value", [0.0, -0.0, 0.1, 1 / 3, -0.7, 1e-40])
@pytest.mark.parametrize("n", [1, 2, 3, 10, 686])
def test_constant_side_has_no_correlation(value, n, scale):
    constant = np.full(n, value, np.float32)
    varied = np.linspace(-1, 1, n, dtype=np.float32)
    for pair in ((varied, constant), (constant, varied), (constant, constant)):
        scores = evaluate(*pair, scale)
        assert math.isnan(scores["corr"])
        assert not any(math.isnan(v) for k, v in scores.items() if k not in ("corr", "acc2_non0", "f1_non0"))


def test_zeros_of_both_signs_are_constant():
    assert math.isnan(evaluate([1.0, -1.0, 0.5], [0.0, -0.0, 0.0])["corr"])


def test_sims_predictions_constant_only_after_clipping_have_no_correlation():
    assert math.isnan(evaluate([-0.5, 0.5], [2.0, 3.0], "sims")["corr"])
    assert evaluate([-0.5, 0.5], [2.0, 3.0])["corr"] == 1.0


@pytest.mark.parametrize("base", [0.1, 3.0, -0.7, 1000.0])
def test_correlation_of_nearly_constant_predictions_is_exact(base):
    rng = np.random.default_rng(0)
    labels = rng.uniform(-3, 3, 200).astype(np.float32)
    predictions = np.full(200, base, np.float32)
    predictions[::7] = np.nextafter(predictions[::7], np.float32(2000))
    assert evaluate(labels, predictions)["corr"] == pytest.approx(exact_corr(labels, predictions), abs=1e-13)


def test_correlation_of_extreme_float32_values():
    for size in (1e-45, 1e-38, 1e38, 3.4e38):
        assert evaluate([-1.0, 0.0, 1.0], [-size, 0.0, size])["corr"] == 1.0
        assert evaluate([-size, 0.0, size], [size, 0.0, -size])["corr"] == -1.0


def test_one_sample():
    scores = evaluate([2.0], [1.75], counts=True)
    assert math.isnan(scores.pop("corr"))
    assert scores.pop("mae") == 0.25
    assert set(scores.values()) == {1}


@pytest.mark.parametrize("scale", SCALES)
def test_no_samples(scale):
    for empty in ([], (), np.empty(0, np.float32)):
        assert all_nan(evaluate(empty, empty, scale))
        assert all_nan(swapped_f1(empty, empty, scale))
    scores = evaluate([], [], scale, counts=True)
    assert all(scores[f"{key}_k"] == scores[f"{key}_n"] == 0 for key in ACCURACIES[scale])


def test_all_labels_zero():
    scores = evaluate([0.0, -0.0, 0.0], [0.0, 1.0, -1.0], counts=True)
    assert math.isnan(scores["acc2_non0"])
    assert math.isnan(scores["f1_non0"])
    assert (scores["acc2_non0_k"], scores["acc2_non0_n"]) == (0, 0)
    assert (scores["acc2_has0"], scores["acc7"]) == (2 / 3, 1 / 3)
    assert scores["f1_has0"] == pytest.approx(4 / 5)
    assert math.isnan(swapped_f1([0.0], [1.0])["f1_non0_swapped"])
    # On SIMS zero is a class like any other.
    assert evaluate([0.0, 0.0], [0.0, 1.0], "sims")["acc2"] == 0.5


@pytest.mark.parametrize("scale", SCALES)
def test_one_nan_prediction_leaves_no_score(scale):
    scores = evaluate([0.5, 0.0, -0.5], [0.5, np.nan, -0.5], scale, counts=True)
    assert all_nan(scores)
    assert list(scores) == list(evaluate([0.5, 0.0], [0.5, 0.5], scale, counts=True))
    assert all_nan(swapped_f1([0.5, 0.0], [0.5, np.nan], scale))
    assert list(swapped_f1([0.5], [np.nan], scale)) == list(swapped_f1([0.5], [0.5], scale))


@pytest.mark.parametrize("huge", [np.inf, 1e39, 1e300])
def test_infinite_predictions_are_out_of_range(huge):
    # 1e39 is finite in float64 and infinite in float32.
    scores = evaluate([3.0, -3.0, 1.0], np.array([huge, -huge, 1.0]))
    assert scores.pop("mae") == math.inf
    assert math.isnan(scores.pop("corr"))
    assert set(scores.values()) == {1.0}
    assert evaluate([1.0, -1.0], np.array([huge, -huge]), "sims") == evaluate([1.0, -1.0], [1.0, -1.0], "sims")


# Bad input


@pytest.mark.parametrize("call", [evaluate, swapped_f1])
@pytest.mark.parametrize(
    ("labels", "predictions", "scale", "message"),
    [
        ([1.0, np.nan], [1.0, 1.0], "mosi", r"labels\[1\] is nan"),
        ([np.inf, 1.0], [1.0, 1.0], "sims", r"labels\[0\] is inf"),
        ([1.0, -1e39], [1.0, 1.0], "mosi", r"labels\[1\] is -inf"),
        ([1.0, 2.0], [1.0], "mosi", "2 labels and 1 predictions"),
        ([[1.0], [2.0]], [1.0, 2.0], "mosi", r"labels have shape \(2, 1\)"),
        ([1.0, 2.0], [[1.0, 2.0]], "mosi", r"predictions have shape \(1, 2\)"),
        (1.0, [1.0], "mosi", r"labels have shape \(\)"),
        (["a"], [1.0], "mosi", "labels hold values of type"),
        ([1.0], [None], "mosi", "predictions hold values of type object"),
        ([1.0], [1j], "mosi", "predictions hold values of type complex128"),
        ([[1.0], [1.0, 2.0]], [1.0, 2.0], "mosi", "labels cannot be read as an array"),
        ([1.0], [1.0], "mosei", "scale is 'mosei', expected 'mosi' or 'sims'"),
        ([1.0], [1.0], ["mosi"], "expected 'mosi' or 'sims'"),
    ],
)
def test_bad_input_gets_one_sentence(call, labels, predictions, scale, message):
    with pytest.raises(ValueError, match=message) as caught:
        call(labels, predictions, scale)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


# Kinds of input


def test_array_kinds_agree():
    torch = pytest.importorskip("torch")
    labels, predictions = [-1.0, 0.0, 2.0, 0.5], [-0.5, 0.25, 1.5, -0.25]  # exact in bfloat16
    expected = evaluate(labels, predictions)
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        tensors = (torch.tensor(labels, dtype=dtype), torch.tensor(predictions, dtype=dtype, requires_grad=True))
        assert evaluate(*tensors) == expected
    assert evaluate(tuple(labels), np.float16(predictions)) == expected
    assert evaluate(np.repeat(labels, 2)[::2], np.float32(predictions)[::-1][::-1]) == expected
    assert evaluate([1, -1, 0], torch.tensor([1, -1, 0])) == evaluate([1.0, -1.0, 0.0], [1.0, -1.0, 0.0])
    with pytest.raises(ValueError, match="predictions have shape"):
        evaluate(labels, torch.tensor(predictions)[:, None])
    assert all_nan(evaluate(torch.empty(0), torch.empty(0)))
    assert math.isnan(evaluate([1.0], torch.tensor([torch.nan]))["mae"])


def test_inputs_are_left_as_they_were():
    labels, predictions = np.float32([-5, 0, 5]), np.float32([5, 0.5, -5])
    before = labels.copy(), predictions.copy()
    for scale in SCALES:
        evaluate(labels, predictions, scale)
        swapped_f1(labels, predictions, scale)
    assert np.array_equal(labels, before[0])
    assert np.array_equal(predictions, before[1])


def test_metrics_needs_no_torch():
    load = "import runpy, sys; sys.modules['torch'] = None; evaluate = runpy.run_path('msa_lib/metrics.py')['evaluate']"
    subprocess.run([sys.executable, "-c", f"{load}; evaluate([1.0], [1.0])"], cwd=ROOT, check=True)


# Properties


def exact_corr(labels, predictions) -> float:
    """Pearson correlation of the float32 inputs in rational arithmetic, up to the final root."""
    y, p = ([Fraction(float(v)) for v in np.asarray(side, np.float32)] for side in (labels, predictions))
    n = len(y)
    sy, sp = sum(y), sum(p)
    cov = n * sum(a * b for a, b in zip(y, p, strict=True)) - sy * sp
    square = (n * sum(a * a for a in y) - sy * sy) * (n * sum(b * b for b in p) - sp * sp)
    return math.copysign(math.sqrt(cov * cov / square), cov)


def columns(pairs) -> tuple[np.ndarray, np.ndarray]:
    y, p = np.array(pairs, np.float32).T
    return y, p


@unhurried
@given(PAIRS, st.sampled_from(SCALES))
def test_values_are_in_range_and_counts_match(pairs, scale):
    y, p = columns(pairs)
    scores = evaluate(y, p, scale, counts=True)
    assert tuple(scores)[: len(METRICS[scale])] == METRICS[scale]
    for key, value in scores.items():
        if key == "corr":
            assert math.isnan(value) or -1 <= value <= 1
        elif key == "mae":
            assert 0 <= value < math.inf
        elif key in METRICS[scale]:
            assert 0 <= value <= 1 or (key.endswith("non0") and not y.any())
    for key in ACCURACIES[scale]:
        k, n = scores[f"{key}_k"], scores[f"{key}_n"]
        assert n == (np.count_nonzero(y) if key == "acc2_non0" else len(y))
        assert 0 <= k <= n
        assert n == 0 or scores[key] == k / n
    assert same(evaluate(y, p, scale), {key: scores[key] for key in METRICS[scale]})


@unhurried
@given(PAIRS, st.sampled_from(SCALES), st.randoms(use_true_random=False))
def test_order_of_samples_does_not_matter(pairs, scale, random):
    shuffled = random.sample(pairs, len(pairs))
    assert same(evaluate(*columns(pairs), scale, True), evaluate(*columns(shuffled), scale, True), 1e-9)
    assert same(swapped_f1(*columns(pairs), scale), swapped_f1(*columns(shuffled), scale), 1e-12)


@unhurried
@given(PAIRS)
def test_coarser_classes_are_never_harder(pairs):
    y, p = columns(pairs)
    mosi = evaluate(y, p, "mosi", counts=True)
    assert mosi["acc5_k"] >= mosi["acc7_k"]
    sims = evaluate(y, p, "sims", counts=True)
    assert sims["acc3_k"] >= sims["acc5_k"]


@unhurried
@given(PAIRS, st.sampled_from(SCALES))
def test_labels_predict_themselves(pairs, scale):
    y, _ = columns(pairs)
    scores = evaluate(y, y, scale)
    assert scores.pop("mae") == 0
    corr = scores.pop("corr")
    limited = np.clip(y, -1, 1) if scale == "sims" else y
    assert math.isnan(corr) if limited.min() == limited.max() else corr == 1
    assert all(value == 1 or (key.endswith("non0") and not y.any()) for key, value in scores.items())
    assert all(value == 1 or (math.isnan(value) and not y.any()) for value in swapped_f1(y, y, scale).values())


@unhurried
@given(PAIRS)
def test_has0_and_non0_differ_by_the_zero_labels_at_most(pairs):
    y, p = columns(pairs)
    assume((p[y != 0] != 0).all())  # a predicted zero counts as positive in has0, as negative in non0
    scores = evaluate(y, p, counts=True)
    assert 0 <= scores["acc2_has0_k"] - scores["acc2_non0_k"] <= np.count_nonzero(y == 0)


def test_predicted_zeros_break_the_has0_non0_relation():
    assert evaluate([-1.0], [0.0], counts=True)["acc2_has0_k"] == 0
    assert evaluate([-1.0], [0.0], counts=True)["acc2_non0_k"] == 1


@unhurried
@given(PAIRS)
def test_changing_all_signs(pairs):
    y, p = columns(pairs)
    plain, negated = evaluate(y, p), evaluate(-y, -p)
    symmetric = ["mae", "corr", "acc7", "acc5"]
    if (p[y != 0] != 0).all():
        symmetric += ["acc2_non0", "f1_non0"]
        if (p != 0).all() and y.all():
            symmetric += ["acc2_has0", "f1_has0"]
    assert same({k: plain[k] for k in symmetric}, {k: negated[k] for k in symmetric}, 1e-12)
    sims = [evaluate(sign * y, sign * p, "sims") for sign in (1, -1)]
    on_edge = np.isin(np.abs(np.concatenate([y, p])), np.float32([0, 0.1, 0.7])).any()  # class edges are one-sided
    symmetric = ["mae", "corr"] if on_edge else METRICS["sims"]
    assert same({k: sims[0][k] for k in symmetric}, {k: sims[1][k] for k in symmetric}, 1e-12)


@unhurried
@given(PAIRS)
def test_f1_is_that_of_scikit_learn(pairs):
    y, p = columns(pairs)
    kept = y != 0
    scores = evaluate(y, p) | swapped_f1(y, p) | {"f1": evaluate(y, p, "sims")["f1"]} | swapped_f1(y, p, "sims")
    for name, truth, guess in (
        ("f1_has0", y >= 0, p >= 0),
        ("f1_non0", y[kept] > 0, p[kept] > 0),
        ("f1", y > 0, p > 0),
    ):
        if len(truth):
            assert scores[name] == pytest.approx(f1_score(truth, guess, average="weighted"), abs=1e-12)
            assert scores[f"{name}_swapped"] == pytest.approx(f1_score(guess, truth, average="weighted"), abs=1e-12)


@unhurried
@given(PAIRS, st.sampled_from(SCALES))
def test_corr_and_mae_are_exact(pairs, scale):
    y, p = columns(pairs)
    scores = evaluate(y, p, scale)
    if scale == "sims":
        y, p = np.clip(y, -1, 1), np.clip(p, -1, 1)
    errors = [abs(Fraction(float(a)) - Fraction(float(b))) for a, b in zip(y, p, strict=True)]
    assert scores["mae"] == pytest.approx(float(sum(errors) / len(errors)), rel=1e-13, abs=1e-300)
    if y.min() < y.max() and p.min() < p.max():
        assert scores["corr"] == pytest.approx(exact_corr(y, p), abs=1e-12)
    else:
        assert math.isnan(scores["corr"])


@pytest.mark.parametrize("n", [2, 3, 100, 4659])
def test_corr_is_that_of_numpy_and_scipy(n):
    rng = np.random.default_rng(n)
    y = np.float32(rng.integers(-15, 16, n) / 5)
    y[0], y[1] = -1, 2
    p = (0.7 * y + rng.normal(size=n)).astype(np.float32)
    corr = evaluate(y, p)["corr"]
    assert corr == pytest.approx(np.corrcoef(y, p)[0, 1], abs=1e-12)
    assert corr == pytest.approx(pearsonr(y.astype(np.float64), p.astype(np.float64)).statistic, abs=1e-12)


def test_corr_of_exact_lines_stays_within_one():
    # Unclipped, about one in five of these rounds to 1.0000000000000002.
    for seed in range(100):
        y = np.random.default_rng(seed).integers(-300, 300, 7).astype(np.float32)
        for slope in (3, 5, 7, -3):
            corr = evaluate(y, slope * y + 1)["corr"]
            assert abs(corr) <= 1
            assert corr == pytest.approx(math.copysign(1, slope), abs=1e-15)


# Real labels


def real_labels(name: str, split: str = "test") -> np.ndarray:
    path = LABELS / f"{name}.csv"
    if not path.exists():
        pytest.skip(f"{path.name} is not here")
    with path.open(encoding="utf-8", newline="") as file:
        return np.array([float(row["label"]) for row in csv.DictReader(file) if row["split"] == split])


@pytest.mark.parametrize(
    ("name", "split", "n", "zeros"),
    [
        ("mosi", "train", 1284, 53),
        ("mosi", "valid", 229, 13),
        ("mosi", "test", 686, 686 - 656),
        ("mosei_labels_full", "test", 4659, 1025),
    ],
)
def test_real_mosi_and_mosei_counts(name, split, n, zeros):
    labels = real_labels(name, split)
    scores = evaluate(labels, np.ones(n), counts=True)
    assert scores["acc7_n"] == scores["acc5_n"] == scores["acc2_has0_n"] == n
    assert scores["acc2_non0_n"] == n - zeros
    # Always positive: every non-negative label is right for has0, every positive one for non0.
    assert scores["acc2_has0_k"] - scores["acc2_non0_k"] == zeros
    assert scores["acc2_non0_k"] == sum(label > 0 for label in labels.tolist())


def test_real_mosi_test_split_is_277_to_379():
    scores = evaluate(real_labels("mosi"), np.full(686, -1.0), counts=True)
    assert (scores["acc2_non0_k"], scores["acc2_non0_n"]) == (379, 656)


@pytest.mark.parametrize(("name", "n"), [("sims", 457), ("simsv2", 1034)])
def test_real_sims_class_sizes(name, n):
    labels = real_labels(name)
    tenths = Counter(round(10 * label) for label in labels.tolist())  # labels are multiples of 0.1: exact classes
    edges = {"acc2": [-11, 0, 11], "acc3": [-11, -1, 1, 11], "acc5": [-11, -7, -1, 1, 7, 11]}
    middles = {"acc2": [-0.5, 0.5], "acc3": [-0.5, 0.05, 0.5], "acc5": [-0.9, -0.5, 0.05, 0.5, 0.9]}
    for key, values in middles.items():
        for value, low, high in zip(values, edges[key], edges[key][1:], strict=False):
            scores = evaluate(labels, np.full(n, value), "sims", counts=True)
            assert scores[f"{key}_n"] == n
            assert scores[f"{key}_k"] == sum(count for tenth, count in tenths.items() if low < tenth <= high)
