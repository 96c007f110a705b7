"""What the words can and cannot say: error rates of the words that `judge` and `relations` issue, not of their parts.

Simulated with normal runs, in units of their standard deviation over seeds; `calibration.py` holds the rates on public
runs. Everything is counted for the word itself, which comes after others in the order of `verdicts.verdict_word`.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
from scipy import stats

from papers_check.judge import intervals
from papers_check.judge.intervals import ALPHA, POWER
from papers_check.judge.seed_noise import pools
from papers_check.judge.verdicts import COLUMN, NOT_REPRODUCED, REPRODUCED, default_margins, verdict_word

GRID = np.arange(0, 14.01, 0.5)  # shifts, in standard deviations
CALLED = ["source", "n", "m", "printed", "cells", "false_alarms", "at_2_sd", "called_from"]
TABLE = 40  # cells of a printed table with runs, for what Holm costs


def not_reproduced(ours: np.ndarray, printed: np.ndarray, half=0.0, higher=True, cells: int = 1) -> np.ndarray:
    """Whether that is the word on each cell [draws]; ours: [draws, n], a column per seed; no margin.

    With `cells` above 1 the cell stands in a table with so many others: Holm then asks for p below alpha / cells at
    the first step.
    """
    n, mean, sd = ours.shape[1], ours.mean(axis=1), ours.std(axis=1, ddof=1)
    sd = np.where(ours.min(axis=1) == ours.max(axis=1), 0.0, sd)
    p_1, p_inf = (intervals.p_value(printed, mean, sd, n, k, half) for k in (1, np.inf))
    best = intervals.best_of(printed, mean, sd, n, half, higher)
    return verdict_word(n, p_1, p_inf, np.nan, best, p_1_holm=np.minimum(1, p_1 * cells)) == NOT_REPRODUCED


def rates_of(share: np.ndarray, shifts: np.ndarray) -> tuple[float, float, float]:
    """Of the shares called by shift: at 0, at 2, and the shift from which on `POWER` are called, NaN if none."""
    enough = np.flatnonzero(share >= POWER)
    start = np.nan
    if len(enough) and (i := enough[0]):
        start = float(np.interp(POWER, share[i - 1 : i + 1], shifts[i - 1 : i + 1]))
    return float(share[0]), float(share[np.searchsorted(shifts, 2.0)]), start


def called(
    n: Sequence[int] = (5, 10, 20), m: Sequence[int] = (1, 2, 3, 4, 5), draws: int = 10_000, seed: int = 0
) -> pd.DataFrame:
    """How often "not reproduced" is said of a match, and of a shift, and which shift is called in 80 % of cases.

    Columns `CALLED`: source, n, m, printed ("better" or "worse" than ours), cells (the cell alone, or one of `TABLE`),
    false_alarms, at_2_sd, called_from (the shift in SD from which on 80 % are called; NaN beyond `GRID`). A better
    printed value may be the best of several runs, and a word says so before this one: worse ones are called earlier.
    """
    lines = []
    for n_, m_, better, cells in product(n, m, (True, False), (1, TABLE)):
        generator = np.random.default_rng(seed)
        ours, printed = generator.standard_normal((draws, n_)), generator.standard_normal((draws, m_)).mean(axis=1)
        share = np.array([not_reproduced(ours, printed + x, higher=better, cells=cells).mean() for x in GRID])
        lines.append(("normal runs", n_, m_, "better" if better else "worse", cells, *rates_of(share, GRID)))
    return pd.DataFrame(lines, columns=CALLED)


def wrongly_reproduced(
    n: Sequence[int] = (5, 20), m: Sequence[int] = (1, 3, 5), margins: Sequence[float] = (1.5, 3.0, 5.0), draws=40_000
) -> pd.DataFrame:
    """How often "reproduced" is said though the true shift is as large as the margin (in SD): at most alpha.

    Columns n, m, margin, exact (the printed value taken as exact), one_run (what `judge` does: as if one run were
    printed), possible (said of a true match by what `judge` does).
    """
    generator, lines = np.random.default_rng(0), []
    for n_, m_, margin in product(n, m, margins):
        ours = generator.standard_normal((draws, n_))
        printed = generator.standard_normal((draws, m_)).mean(axis=1)
        mean, sd, shares = ours.mean(axis=1), ours.std(axis=1, ddof=1), []
        for shift, k in ((margin, np.inf), (margin, 1), (0.0, 1)):
            p_1, p_inf = (intervals.p_value(printed + shift, mean, sd, n_, j) for j in (1, np.inf))
            tost = intervals.tost_p(printed + shift, mean, sd, n_, margin, m=k)
            shares.append(float((verdict_word(n_, p_1, p_inf, tost, 1) == REPRODUCED).mean()))
        lines.append((n_, m_, margin, *shares))
    return pd.DataFrame(lines, columns=["n", "m", "margin", "exact", "one_run", "possible"])


def reachable(noise: pd.DataFrame, reported: pd.DataFrame, n: Sequence[int] = (5, 10, 20, 100)) -> pd.DataFrame:
    """In how many printed columns equivalence can pass at all, our mean on the printed value, at the public SDs.

    noise: `seed_noise.seed_noise`. Columns sd ("lower quartile" or "median" of the public models), m (runs behind the
    printed value; inf: taken as exact), columns (with a public SD), one per n, never (no number of seeds is enough).
    """
    table = columns_with_sd(noise, reported)
    lines = []
    for sd, m in product(("lower quartile", "median"), (np.inf, 5, 1)):
        known = zip(table["margin"], table[sd], table["half"], strict=True)
        needed = np.array([intervals.seeds_for_equivalence(*line, m=m) if line[0] > 0 else np.inf for line in known])
        lines.append((sd, m, len(table), *((needed <= k).sum() for k in n), int(np.isinf(needed).sum())))
    return pd.DataFrame(lines, columns=["sd", "m", "columns", *(f"n = {k}" for k in n), "never"])


def columns_with_sd(noise: pd.DataFrame, reported: pd.DataFrame) -> pd.DataFrame:
    """The printed columns with a runner-up and public runs: `verdicts.COLUMN`, margin, half (rounding), both SDs."""
    table = default_margins(reported)
    table["score"] = (table["metric"] + "_" + table["side"]).str.strip("_")
    pools = noise[(noise["seeds"] >= 5) & (noise["collapsed"] == 0)].groupby(["dataset", "metric"])["sd"]
    sds = pd.DataFrame({"lower quartile": pools.quantile(0.25), "median": pools.median()}).reset_index()
    table = table.merge(sds.rename(columns={"metric": "score"}), on=["dataset", "score"])
    decimals = {"mae": 3, "corr": 3}
    return table.assign(half=[0.5 * 10.0 ** -decimals.get(metric, 2) for metric in table["metric"]])


def seeds_by_column(noise: pd.DataFrame, reported: pd.DataFrame) -> pd.DataFrame:
    """`verdicts.COLUMN`, margin, and how many seeds equivalence takes at the median public SD, by runs printed.

    Columns exact (the printed value without noise), m = 5, m = 1; infinite where no number is enough, or no margin.
    """
    table = columns_with_sd(noise, reported)
    for name, m in (("exact", np.inf), ("m = 5", 5), ("m = 1", 1)):
        known = zip(table["margin"], table["median"], table["half"], strict=True)
        table[name] = [intervals.seeds_for_equivalence(*line, m=m) if line[0] > 0 else np.inf for line in known]
    return table[[*COLUMN, "margin", "exact", "m = 5", "m = 1"]]


def pairing(
    n: int = 5,
    correlations: Sequence[float] = (-0.5, 0.0, 0.3, 0.6, 0.9),
    gaps: Sequence[float] = (0.0, 1.0, 2.0),
    draws: int = 20_000,
    seed: int = 0,
) -> pd.DataFrame:
    """How often a gap is called (alpha 5 %, one test) under four ways to choose the interval, by correlation of pairs.

    At gap 0 (in SD) it is the error rate. paired, welch: always that one; chosen: paired where the observed correlation
    is above 0; narrower: whichever is narrower. The last two look at the data they judge.
    """
    generator, lines = np.random.default_rng(seed), []
    critical = stats.t.ppf(1 - ALPHA / 2, n - 1)
    for correlation, gap in product(correlations, gaps):
        a = generator.standard_normal((draws, n))
        b = correlation * a + np.sqrt(1 - correlation**2) * generator.standard_normal((draws, n)) - gap
        difference = a - b
        reach = critical * difference.std(axis=1, ddof=1) / np.sqrt(n)
        centre = difference.mean(axis=1)
        moments = a.mean(1), a.std(1, ddof=1), n, b.mean(1), b.std(1, ddof=1), n
        _, low, high, p = intervals.welch(*moments)
        paired, welch = np.abs(centre) > reach, p < ALPHA
        u, v = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
        chosen = np.where((u * v).sum(axis=1) > 0, paired, welch)
        narrower = np.where(reach < (high - low) / 2, paired, welch)
        lines.append((correlation, gap, *(float(x.mean()) for x in (paired, welch, chosen, narrower))))
    return pd.DataFrame(lines, columns=["correlation", "gap", "paired", "welch", "chosen", "narrower"])


def seed_correlations(scores: pd.DataFrame) -> pd.DataFrame:
    """Correlation over seeds between two public models of one data set and metric: are equal seeds pairs?

    scores: from `seed_noise.long`. Columns dataset, metric, pairs (of pools with the same five seeds), mean, low, high
    (quartiles). About 0 is what independent runs give.
    """
    there, lines = {}, []
    for (_, dataset, model, mode, _, metric), pool in pools(scores, "seeded", 5):
        if mode == "regression":
            there.setdefault((dataset, metric), []).append((model, pool.set_index("seed")["value"]))
    for (dataset, metric), members in there.items():
        found = []
        for i, (model, a) in enumerate(members):
            for other, b in members[i + 1 :]:
                both = pd.concat([a, b], axis=1, join="inner")
                if model != other and len(both) >= 5 and (both.std() > 0).all():
                    found.append(both.corr().iloc[0, 1])
        if found:
            low, high = np.quantile(found, (0.25, 0.75))
            lines.append((dataset, metric, len(found), float(np.mean(found)), float(low), float(high)))
    return pd.DataFrame(lines, columns=["dataset", "metric", "pairs", "mean", "low", "high"])
