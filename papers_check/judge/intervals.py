"""The statistics of one printed number against our runs, and of one set of runs against another.

Every function takes numbers or arrays that broadcast. Throughout: `reported` is the centre and `half` the half-width of
the values that would be printed so (`unrounded`); `mean`, `sd` (ddof 1) and `n` describe our runs, one per seed; `m` is
the number of runs behind the printed value, mostly unknown and then taken at its two ends, 1 and infinity.

Seeds measure training noise only: same split, same test set. The formulas assume roughly normal seed noise;
`calibration.py` measures what that costs. Sources: Hahn & Meeker, Statistical Intervals (prediction intervals);
Schuirmann 1987 (two one-sided tests); Holm 1979; Benjamini & Hochberg 1995.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from functools import lru_cache
from math import comb

import numpy as np
from scipy import stats
from scipy.optimize import brentq

ALPHA = 0.05


# --- a printed value ------------------------------------------------------------------------------------------------


def unrounded(text: str, decimals: int, truncated: bool = False) -> tuple[float, float]:
    """Centre and half-width of the numbers that print as `text`; `decimals` are those of the column, not of the cell.

    Rounded, they lie within half a unit either side; `truncated`, between the value and one unit further from zero.
    """
    value, half = Decimal(text), Decimal(5).scaleb(-int(decimals) - 1)
    if not truncated:
        return float(value), float(half)
    if value == 0:  # cut from either side
        return 0.0, float(2 * half)
    return float(value + half.copy_sign(value)), float(half)


def rounds_to(value: float, text: str, decimals: int, truncated: bool = False) -> bool:
    """Whether `value` prints as `text`, under half-up or half-even (or truncation): the test where seeds do not vary.

    `value` counts to 12 significant digits, so that 100 * 0.83435 is the tie it should be.
    """
    unit, exact = Decimal(1).scaleb(-int(decimals)), Decimal(f"{value:.12g}")
    rules = ("ROUND_DOWN",) if truncated else (ROUND_HALF_UP, ROUND_HALF_EVEN)
    return any(exact.quantize(unit, rule) == Decimal(text) for rule in rules)


def mean_sd_n(values: Sequence[float]) -> tuple[float, float, int]:
    """Mean, standard deviation (ddof 1) and number; the deviation of equal values is exactly 0, of one value NaN."""
    values = np.asarray(values, float)
    n = len(values)
    if n == 0:
        return np.nan, np.nan, 0
    if n > 1 and values.min() == values.max():  # float sums may leave 1e-17
        return float(values[0]), 0.0, n
    return float(values.mean()), float(values.std(ddof=1)) if n > 1 else np.nan, n


# --- compatible? Prediction interval with rounding ------------------------------------------------------------------


def distance(reported, mean, half=0.0):
    """How far our mean is from the nearest number that prints as the reported one."""
    return np.maximum(0.0, np.abs(np.subtract(reported, mean)) - half)


def p_value(reported, mean, sd, n, m=np.inf, half=0.0):
    """Two-sided p of the printed mean of `m` runs against ours; m = inf gives the interval of our mean alone.

    With sd = 0 it is 1 inside the printed value's half-width and 0 outside. NaN for n < 2.
    """
    gap, sd, freedom = distance(reported, mean, half), np.asarray(sd, float), _freedom(n)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stats.t.sf(gap / (sd * np.sqrt(1 / np.asarray(n) + 1 / np.asarray(m, float))), freedom)
    return np.where(sd == 0, (gap <= 1e-9).astype(float), p)[()]


def prediction_interval(mean, sd, n, m=np.inf, half=0.0, alpha=ALPHA):
    """Low and high end of where the printed mean of `m` further runs falls with probability 1 - alpha."""
    reach = detectable(sd, n, m, half, alpha)
    return mean - reach, mean + reach


def detectable(sd, n, m=np.inf, half=0.0, alpha=ALPHA):
    """The smallest discrepancy that would be called incompatible: half the width of the prediction interval."""
    return _t(1 - alpha / 2, n) * sd * np.sqrt(1 / np.asarray(n) + 1 / np.asarray(m, float)) + half


def largest_m(reported, mean, sd, n, half=0.0, alpha=ALPHA):
    """The largest number of averaged runs for which the reported value is still compatible; infinite if it always is.

    Below 1: incompatible whatever the paper averaged.
    """
    gap, sd = distance(reported, mean, half), np.asarray(sd, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        bracket = (gap / (_t(1 - alpha / 2, n) * sd)) ** 2 - 1 / np.asarray(n)
        m = np.where(bracket <= 0, np.inf, 1 / bracket)  # NaN stays NaN
    return np.where(sd == 0, np.where(gap <= 1e-9, np.inf, 0.0), m)[()]


# --- equivalent? Two one-sided tests --------------------------------------------------------------------------------


def tost_p(reported, mean, sd, n, margin, half=0.0, m=np.inf):
    """p of the two one-sided tests that our mean is within `margin` of the reported value; small means equivalent.

    The margin is shrunk by `half`; NaN where nothing is left of it, or where there is no margin. `m` carries the noise
    of the reported value where the number of its runs is stated.
    """
    room, e, sd = np.subtract(margin, half), np.subtract(mean, reported), np.asarray(sd, float)
    error = sd * np.sqrt(1 / np.asarray(n) + 1 / np.asarray(m, float))
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = stats.t.sf((e + room) / error, _freedom(n)), stats.t.cdf((e - room) / error, _freedom(n))
    p = np.where(sd == 0, (np.abs(e) >= room).astype(float), np.maximum(low, high))
    return np.where(room > 0, p, np.nan)[()]


def seeds_for_equivalence(
    margin: float, sd: float, half: float = 0.0, alpha: float = ALPHA, m: float = np.inf
) -> float:
    """Fewest seeds, of 2 to 10,000, with which equivalence can pass at all: when our mean is on the reported value.

    `m` runs stand behind the reported value, as noisy as ours; m = inf takes it as exact. Infinite where no number of
    seeds is enough: half a gain within rounding, or, with m stated, within the noise of the reported value itself.
    """
    enough = np.flatnonzero(_half_widths(alpha, m) * sd < margin - half)
    return float(enough[0] + 2) if len(enough) else np.inf


@lru_cache(maxsize=16)
def _half_widths(alpha: float, m: float) -> np.ndarray:
    """Half-width of the 1 - 2 alpha interval of a gap to a mean of m runs, in standard deviations, by seeds."""
    n = np.arange(2, 10_001)
    return _t(1 - alpha, n) * np.sqrt(1 / n + 1 / m)


# --- the best of several? -------------------------------------------------------------------------------------------


def best_of(reported, mean, sd, n, half=0.0, higher=True, alpha=ALPHA):
    """Smallest M such that the best of M further runs may reach the reported value (Bonferroni); 1 if a single one may.

    `higher`: whether larger values are better; broadcasts like the rest. Infinite where no M is enough (sd = 0).
    """
    ahead = np.where(higher, np.subtract(reported, mean), np.subtract(mean, reported)) - half
    with np.errstate(divide="ignore", invalid="ignore"):
        tail = stats.t.sf(ahead / (np.asarray(sd, float) * np.sqrt(1 + 1 / np.asarray(n))), _freedom(n))
        # The last digits of a tail must not turn an exact M into the next one.
        fewest = np.maximum(1.0, np.ceil(alpha / tail - 1e-9))
    return np.where(np.isnan(tail), np.nan, np.where(ahead <= 0, 1.0, fewest))[()]


def expected_best(values: Sequence[float], draws: int, higher: bool = True, by: Sequence[float] | None = None) -> float:
    """Expected best of `draws` runs, estimated without bias from len(values) >= draws runs.

    `by`: another score of the same runs (on validation), which chooses the run whose value counts.
    """
    n = len(values)
    if not 1 <= draws <= n:
        raise ValueError(f"expected best of {draws} from {n} runs: expected 1 to {n} draws")
    chosen = sorted(zip(values if by is None else by, values, strict=True), reverse=not higher)
    ordered = [value for _, value in chosen]
    return sum(comb(j - 1, draws - 1) / comb(n, draws) * ordered[j - 1] for j in range(draws, n + 1))


# --- one set of runs against another --------------------------------------------------------------------------------

POWER = 0.8  # how often an effect of the size that is called the smallest is to be seen


@dataclass(frozen=True)
class Gap:
    """The gap a - b of two sets of runs: its estimate, standard error and degrees of freedom, and how it was taken."""

    gap: float
    error: float
    freedom: float
    kind: str  # "paired" or "Welch"
    correlation: float  # over the pairs; NaN where there are none

    def interval(self, alpha: float = ALPHA) -> tuple[float, float]:
        reach = stats.t.ppf(1 - alpha / 2, self.freedom) * self.error if self.error else 0 * self.gap
        return self.gap - reach, self.gap + reach

    def p(self) -> float:
        """Two-sided p of no gap."""
        if self.error == 0:  # rows that do not vary differ, or do not
            return float(self.gap == 0)
        return float(2 * stats.t.sf(abs(self.gap) / self.error, self.freedom))

    def p_within(self, margin: float) -> float:
        """p of the two one-sided tests that the gap is smaller than `margin`, either way; NaN without a margin."""
        if not margin > 0:
            return np.nan
        if self.error == 0:
            return float(abs(self.gap) >= margin)
        return float(stats.t.sf((margin - abs(self.gap)) / self.error, self.freedom))

    def smallest_effect(self, alpha: float = ALPHA, power: float = POWER) -> float:
        """The true gap that a two-sided test at `alpha` calls with probability `power`, at this spread."""
        if np.isnan(self.error) or self.error == 0:
            return self.error
        return self.error * _noncentrality(round(self.freedom, 2), alpha, power)


def gap_of(a: Sequence[float], b: Sequence[float], paired: bool = False) -> Gap:
    """The gap of two sets of runs, pair by pair if `paired` (as many values, in the order of the seeds), else Welch's.

    A paired interval has its level whatever the correlation of the pairs; Welch's only if there is none.
    """
    (mean_a, sd_a, n_a), (mean_b, sd_b, n_b) = mean_sd_n(a), mean_sd_n(b)
    if not paired:
        error, freedom = _welch_error(sd_a, n_a, sd_b, n_b)
        return Gap(float(mean_a - mean_b), float(error), float(freedom), "Welch", np.nan)
    if n_a != n_b:
        raise ValueError(f"{n_a} and {n_b} runs are no pairs: expected as many")
    gap, sd, n = mean_sd_n(np.subtract(a, b))
    known = n > 2 and sd_a > 0 and sd_b > 0
    return Gap(gap, float(sd / np.sqrt(n)), n - 1.0, "paired", float(np.corrcoef(a, b)[0, 1]) if known else np.nan)


@lru_cache(maxsize=512)
def _noncentrality(freedom: float, alpha: float, power: float) -> float:
    """The true gap, in standard errors, at which |t| exceeds its critical value with probability `power`."""
    critical = stats.t.ppf(1 - alpha / 2, freedom)
    return float(brentq(lambda x: stats.nct.sf(critical, freedom, x) - power, 0, 20 * critical))


def welch(mean_a, sd_a, n_a, mean_b, sd_b, n_b, alpha=ALPHA):
    """Gap a - b with its Welch interval and two-sided p: gap, low, high, p. Seeds in common are not pairs."""
    gap, (error, freedom) = np.subtract(mean_a, mean_b), _welch_error(sd_a, n_a, sd_b, n_b)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stats.t.sf(np.abs(gap) / error, freedom)
        reach = stats.t.ppf(1 - alpha / 2, freedom) * error
    still = error == 0  # two rows that do not vary differ, or do not
    p, reach = np.where(still, (gap == 0).astype(float), p)[()], np.where(still, 0.0, reach)[()]
    return gap, gap - reach, gap + reach, p


def _welch_error(sd_a, n_a, sd_b, n_b):
    """Standard error of the gap of two means, and its degrees of freedom."""
    a, b = np.square(sd_a) / n_a, np.square(sd_b) / n_b
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = (a + b) ** 2 / (a**2 / np.subtract(n_a, 1) + b**2 / np.subtract(n_b, 1))
    return np.sqrt(a + b), freedom


def probability_better(a: Sequence[float], b: Sequence[float], higher: bool = True) -> float:
    """Share of pairs in which a run of `a` is better than one of `b`, ties counting one half (Mann-Whitney U)."""
    gaps = np.subtract.outer(np.asarray(a, float), np.asarray(b, float)) * (1 if higher else -1)
    return float(((gaps > 0) + 0.5 * (gaps == 0)).mean()) if gaps.size else np.nan


# --- many cells -----------------------------------------------------------------------------------------------------


def holm(p: Sequence[float]) -> np.ndarray:
    """p values adjusted for "at least one of these is a discrepancy" (Holm); NaN stays NaN and does not count."""
    p = np.asarray(p, float)
    adjusted, known = np.full(len(p), np.nan), np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted


def benjamini_hochberg(p: Sequence[float]) -> np.ndarray:
    """p values adjusted for the share of false entries in a list of flagged cells; NaN stays NaN and does not count."""
    p = np.asarray(p, float)
    adjusted, known = np.full(len(p), np.nan), ~np.isnan(p)
    if known.any():
        adjusted[known] = stats.false_discovery_control(p[known])
    return adjusted


def _freedom(n):
    freedom = np.asarray(n, float) - 1
    return np.where(freedom > 0, freedom, np.nan)


def _t(q, n):
    return stats.t.ppf(q, _freedom(n))
