"""By how much one row of ours leads the others, with intervals: what the answer of a page is computed from.

The intervals are those of `relations`: seed by seed where both rows are one model with the same seeds, Welch's
elsewhere; against a value without seeds (ridge) that of the mean. Holm goes over the rows that are compared. Nothing
here looks at a printed number.
"""

from collections.abc import Callable, Collection, Mapping

import numpy as np
import pandas as pd
from scipy import stats

from papers_check.judge import intervals
from papers_check.judge.intervals import ALPHA
from papers_check.judge.verdicts import FLOOR

AHEAD, BEHIND, OPEN = "ahead", "behind", "undecided"
DRAWS = 1000  # of a bootstrap
COLUMNS = ("row", "lead", "low", "high", "how", "p_holm", "seeds", "says")


def leads(
    values: pd.DataFrame,
    own: str,
    paired: Collection[str] = (),
    constants: Mapping[str, float] | None = None,
    higher: bool = False,
    alpha: float = ALPHA,
) -> pd.DataFrame:
    """The lead of `own` over every other row, positive where it is better: columns `COLUMNS`.

    values     index seeds, columns rows; runs that are missing are NaN
    paired     the rows that are the same model as `own`
    constants  row -> the value of one that has no seeds
    higher     whether larger values are better; MAE: no

    `says` is ahead or behind where the gap is not 0 after Holm, else, and below `FLOOR` seeds, undecided.
    """
    sign, mine, lines = 1 if higher else -1, values[own].dropna(), []
    for row in values.columns.drop(own):
        other = values[row].dropna()
        pairs = row in paired and other.index.equals(mine.index)
        found = intervals.gap_of(sign * mine.to_numpy(), sign * other.to_numpy(), pairs)
        lines.append((row, found.gap, *found.interval(alpha), found.kind, found.p(), min(len(mine), len(other))))
    for row, value in (constants or {}).items():
        mean, sd, n = intervals.mean_sd_n(sign * (mine.to_numpy() - value))
        found = intervals.Gap(mean, float(sd / np.sqrt(n)), n - 1.0, "fixed value", np.nan)
        lines.append((row, mean, *found.interval(alpha), found.kind, found.p(), n))
    table = pd.DataFrame(lines, columns=["row", "lead", "low", "high", "how", "p", "seeds"])
    table["p_holm"] = intervals.holm(table["p"].to_list())
    decided = (table["p_holm"] < alpha) & (table["seeds"] >= FLOOR)
    table["says"] = np.select([decided & (table["lead"] > 0), decided], [AHEAD, BEHIND], OPEN)
    return table[list(COLUMNS)]


def rank_agreement(first: pd.DataFrame, second: pd.DataFrame, alpha: float = ALPHA) -> tuple[float, float, float]:
    """Kendall's tau between the mean scores of the rows (columns) that both have, and its bootstrap interval.

    Each draw takes seeds with replacement, in both apart; the same input gives the same interval.
    """
    rows = [row for row in first.columns if row in second.columns]
    a, b = first[rows].to_numpy(), second[rows].to_numpy()

    def tau(i: np.ndarray, j: np.ndarray) -> float:
        return float(stats.kendalltau(np.nanmean(a[i], 0), np.nanmean(b[j], 0)).statistic)

    return _bootstrapped(tau, (len(a), len(b)), alpha)


def concordance(scores: Mapping[str, pd.DataFrame], alpha: float = ALPHA) -> tuple[float, float, float]:
    """Kendall's W of several metrics over the rows: 1 if all rank the rows alike, 0 if they have nothing in common.

    scores: metric -> values (index seeds, columns rows), larger being better in all of them (MAE negated). With a
    bootstrap interval over seeds, the same seeds in every metric.
    """
    values = np.stack([table.to_numpy() for table in scores.values()])  # [metrics, seeds, rows]
    m, _, n = values.shape

    def w(chosen: np.ndarray) -> float:
        ranks = stats.rankdata(np.nanmean(values[:, chosen], 1), axis=1)
        return float(12 * ((ranks.sum(0) - m * (n + 1) / 2) ** 2).sum() / (m**2 * (n**3 - n)))

    return _bootstrapped(w, (values.shape[1],), alpha)


def _bootstrapped(statistic: Callable, sizes: tuple[int, ...], alpha: float) -> tuple[float, float, float]:
    """A statistic of the seeds of each set, and its percentile interval; a set of one is a constant."""
    rng, value = np.random.default_rng(0), statistic(*(np.arange(n) for n in sizes))
    if max(sizes) < 2:
        return value, np.nan, np.nan
    drawn = [statistic(*(rng.integers(n, size=n) for n in sizes)) for _ in range(DRAWS)]
    low, high = np.nanquantile(drawn, [alpha / 2, 1 - alpha / 2])
    return value, float(low), float(high)
