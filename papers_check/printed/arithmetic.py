"""What a printed score can be at all, in exact arithmetic: no training, no assumption about the model.

Every function takes the printed string, because "78.30" and "78.3" say different things. An accuracy is a count of
right answers over a count of samples; that alone rules out many printed values (GRIM; Brown & Heathers 2017), many
pairs of accuracy and F1, and many pairs of the two accuracies left and right of a slash.

A value that no count gives has innocent explanations: another test set, metrics averaged over mini-batches, runs
rounded before averaging, another order of arguments, a typing slip. What follows from it is judged in `innocent/`.
"""

from collections.abc import Iterable
from decimal import Decimal
from functools import cache
from math import ceil, floor

import numpy as np

RULES = ("round", "truncate")


def decimals_of(text: str) -> int:
    """The decimals a printed number shows: 2 for "78.30"."""
    return -Decimal(text).as_tuple().exponent


def interval(text: str, rule: str = "round", decimals: int | None = None) -> tuple[Decimal, Decimal]:
    """Where the unrounded value of a printed number lies, both ends included, so that any tie rule is covered.

    `decimals`: those of the column, where the cell may have lost trailing zeros. Raises ValueError for an unknown rule.
    """
    if rule not in RULES:
        raise ValueError(f"unknown rule {rule!r}: expected one of {', '.join(RULES)}")
    value = Decimal(text)
    half = Decimal(5).scaleb(-1 - (decimals_of(text) if decimals is None else decimals))
    return (value - half, value + half) if rule == "round" else (value, value + 2 * half)


def grim(
    text: str,
    n: int,
    m: int = 1,
    unit: int = 100,
    rule: str = "round",
    decimals: int | None = None,
    run_decimals: int | None = None,
) -> range:
    """The totals c for which `unit * c / (n * m)` prints as `text`: empty if no such count of right answers exists.

    n: samples; m: runs averaged; unit: 100 for percent, 1 for a mean of integers. `run_decimals`: each run was rounded
    to that many decimals (in the printed unit) before averaging, which widens the interval for m > 1.
    Source: Brown & Heathers 2017, doi 10.1177/1948550616673876.
    """
    low, high = interval(text, rule, decimals)
    if run_decimals is not None and m > 1:
        slack = Decimal(5).scaleb(-1 - run_decimals)
        low, high = low - slack, high + slack
    items = n * m
    return range(max(0, ceil(low * items / unit)), floor(high * items / unit) + 1)


def possible_runs(cells: Iterable[tuple[str, int]], up_to: int = 10, **options) -> frozenset[int]:
    """The numbers of averaged runs 1..`up_to` under which all `cells` (printed accuracy, samples) are possible.

    Options are those of `grim`. An m that passes is a hypothesis; an m that fails is excluded, given the sample counts.
    """
    cells = tuple(cells)
    return frozenset(m for m in range(1, up_to + 1) if all(grim(text, n, m, **options) for text, n in cells))


# --- accuracy and weighted F1 -----------------------------------------------------------------------------------------


def weighted_f1(tp, p: int, tn, q: int, swapped: bool = False):
    """Weighted F1 of a two-class table, as a fraction; arrays welcome.

    p, q: samples of the positive and the negative class; tp, tn: how many of each are right. The weights are the class
    sizes of the labels; `swapped`, those of the predictions, which is what exchanging the two arguments computes.
    """
    fp, fn = q - tn, p - tp
    positive = _ratio(2 * tp, 2 * tp + fp + fn)
    negative = _ratio(2 * tn, 2 * tn + fp + fn)
    weight = tp + fp if swapped else p
    return (weight * positive + (p + q - weight) * negative) / (p + q)


def joint(acc: str, f1: str, p: int, q: int, swapped: bool = False, rule: str = "round") -> list[tuple[int, int]]:
    """The tables (tp, tn) of one single run that print both the accuracy and the F1, both in percent."""
    low, high = (float(end) for end in interval(f1, rule))
    found = []
    for c in grim(acc, p + q, rule=rule):
        tp = np.arange(max(0, c - q), min(p, c) + 1)
        score = 100 * weighted_f1(tp, p, c - tp, q, swapped)
        found += [(int(t), int(c - t)) for t in tp[(score >= low - 1e-9) & (score <= high + 1e-9)]]
    return found


def f1_limits(acc: str, p: int, q: int, swapped: bool = False, slack: float = 0.0) -> tuple[float, float]:
    """The smallest and largest weighted F1 (percent) beside a printed accuracy, for any number of averaged runs.

    A mean over runs lies in the convex hull of what single runs can reach, so the hull is searched over the interval
    of the accuracy, widened by `slack` (percent).
    """
    low, high = (min(max(float(end) / 100, 0), 1) for end in interval(acc))
    low, high = max(low - slack / 100, 0), min(high + slack / 100, 1)
    (x_low, y_low), (x_high, y_high) = _hull(p, q, swapped)
    # Each hull is piecewise linear: its extremes over an interval lie at the interval's ends or at a corner inside.
    lows = np.concatenate([[low, high], x_low[(x_low > low) & (x_low < high)]])
    highs = np.concatenate([[low, high], x_high[(x_high > low) & (x_high < high)]])
    return 100 * float(np.interp(lows, x_low, y_low).min()), 100 * float(np.interp(highs, x_high, y_high).max())


def f1_possible(acc: str, f1: str, p: int, q: int, swapped: bool = False, run_decimals: int | None = None) -> bool:
    """Whether an accuracy and a weighted F1 can stand in one row, whatever the predictions and the number of runs."""
    slack = 0.5 * 10.0**-run_decimals if run_decimals is not None else 0.0
    smallest, largest = f1_limits(acc, p, q, swapped, slack)
    low, high = (float(end) for end in interval(f1))
    return low - slack <= largest + 1e-9 and high + slack >= smallest - 1e-9


@cache
def _hull(p: int, q: int, swapped: bool) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Lower and upper convex hull of (accuracy, F1) over all two-class tables: corner x and y of each, fractions."""
    n = p + q
    best, worst = [], []
    for c in range(n + 1):
        tp = np.arange(max(0, c - q), min(p, c) + 1)
        score = weighted_f1(tp, p, c - tp, q, swapped)
        best.append((c / n, float(score.max())))
        worst.append((c / n, -float(score.min())))
    (x_high, y_high), (x_low, y_low) = _upper(best), _upper(worst)
    return (x_low, -y_low), (x_high, y_high)


def _upper(points: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """The upper convex hull of points in ascending x (Andrew's monotone chain)."""
    hull: list[tuple[float, float]] = []
    for x, y in points:
        while len(hull) > 1:
            (x1, y1), (x0, y0) = hull[-1], hull[-2]
            if (x1 - x0) * (y - y0) < (y1 - y0) * (x - x0):
                break
            hull.pop()
        hull.append((x, y))
    xs, ys = zip(*hull, strict=True)
    return np.array(xs), np.array(ys)


def _ratio(part, whole):
    return np.divide(part, whole, out=np.zeros(np.shape(whole)), where=np.asarray(whole) != 0)


# --- inequalities -----------------------------------------------------------------------------------------------------


def zeros_right(has0: str, non0: str, n: int, n_non0: int) -> tuple[Decimal, Decimal]:
    """How many zero-label samples the two accuracies of a slash say were called non-negative: from, to.

    has0 counts `prediction >= 0` against `label >= 0` on all n samples, non0 counts `> 0` on the n_non0 samples whose
    label is not 0. What the first counts beyond the second are zero labels, so the number lies in [0, n - n_non0],
    per run and for means over the same runs. This holds only if no sample with a nonzero label is predicted exactly 0:
    such a sample is right in one count and wrong in the other.
    """
    (a, b), (c, d) = interval(has0), interval(non0)
    return (n * a - n_non0 * d) / 100, (n * b - n_non0 * c) / 100


def zeros_possible(has0: str, non0: str, n: int, n_non0: int) -> bool:
    """Whether `zeros_right` can lie in [0, n - n_non0]."""
    low, high = zeros_right(has0, non0, n, n_non0)
    return low <= n - n_non0 and high >= 0


def coarser_possible(coarse: str, fine: str) -> bool:
    """Whether an accuracy over merged classes can be what it is: never below the one over the classes it merges.

    Acc-5 against Acc-7, Acc-3 against Acc-5. (Acc-2 does not merge the classes of Acc-3: a small positive prediction
    for a label of 0 is right in one and wrong in the other.)
    """
    return interval(coarse)[1] >= interval(fine)[0]


def mae_floor(accuracy: str, values: np.ndarray, counts: np.ndarray, distance: np.ndarray) -> float:
    """The smallest MAE beside a printed accuracy: each wrong answer costs at least the way to the nearest other class.

    `distance` [K]: that way for each distinct label value; `counts` [K]: how often the value occurs; `values` [K].
    Provable and weak: it says what cannot be, not what is likely.
    """
    if len(values) != len(counts) or len(values) != len(distance):
        raise ValueError(
            f"{len(values)} values, {len(counts)} counts, {len(distance)} distances: expected equal numbers"
        )
    n = counts.sum()
    wrong = max(0.0, n * (1 - float(interval(accuracy)[1]) / 100))
    order = np.argsort(distance)
    taken = np.clip(wrong - np.concatenate([[0], np.cumsum(counts[order])[:-1]]), 0, counts[order])
    return float((taken * distance[order]).sum() / n)


def mae_floor_from_corr(corr: str, values: np.ndarray, counts: np.ndarray, bound: float) -> float:
    """The smallest MAE beside a printed Pearson correlation r, for predictions inside [-bound, bound].

    No prediction with correlation r has a mean squared error below var(y) (1 - r^2), and no error exceeds 2 * bound,
    so MAE >= var(y) (1 - r^2) / (2 * bound). There is no ceiling: correlation does not see scale or offset.
    """
    mean = np.average(values, weights=counts)
    variance = np.average((values - mean) ** 2, weights=counts)
    low, high = (float(end) for end in interval(corr))
    largest = max(abs(low), abs(high))
    return max(0.0, variance * (1 - largest**2) / (2 * bound))
