"""By how much one row of ours leads the others, with intervals: what the answer of a page is computed from.

The intervals are those of `relations`: seed by seed where both rows are one model with the same seeds, Welch's
elsewhere; against a value without seeds (ridge) that of the mean. Holm goes over the rows that are compared. Nothing
here looks at a printed number.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from papers_check.judge import intervals
from papers_check.judge.intervals import ALPHA
from papers_check.judge.verdicts import FLOOR

AHEAD, BEHIND, OPEN = "ahead", "behind", "undecided"
DRAWS = 1000  # of a bootstrap
MEASURED = ["row", "lead", "low", "high", "how", "p", "seeds"]
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
    return _judged(pd.DataFrame(lines, columns=MEASURED), alpha)[list(COLUMNS)]


def pairwise(
    values: pd.DataFrame,
    pairs: Mapping[str, tuple[str, str]],
    unpaired: Collection[str] = (),
    alpha: float = ALPHA,
) -> pd.DataFrame:
    """The lead of the first row of each named pair over the second, positive where its values are smaller.

    Seed by seed over the seeds that both have; the pairs in `unpaired` (two models) by Welch. Columns as of `leads`,
    Holm over all pairs, and `smallest`: the true lead that these seeds would have shown in 80 % of cases, after Holm.
    A row without runs, or one seed, has no interval.
    """
    lines, smallest = [], []
    for what, names in pairs.items():
        own, other = (values.get(name, pd.Series(dtype=float)).dropna() for name in names)
        together = what not in unpaired
        if together:
            both = own.index.intersection(other.index)
            own, other = own.loc[both], other.loc[both]
        found = intervals.gap_of(-own.to_numpy(), -other.to_numpy(), together)
        lines.append((what, found.gap, *found.interval(alpha), found.kind, found.p(), min(len(own), len(other))))
        smallest.append(found.smallest_effect(alpha / len(pairs)))
    return _judged(pd.DataFrame(lines, columns=MEASURED), alpha)[list(COLUMNS)].assign(smallest=smallest)


def _judged(table: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """With p after Holm over the lines, and the word."""
    table["p_holm"] = intervals.holm(table["p"].to_list())
    decided = (table["p_holm"] < alpha) & (table["seeds"] >= FLOOR)
    return table.assign(says=np.select([decided & (table["lead"] > 0), decided], [AHEAD, BEHIND], OPEN))


def spread(found: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """A value over the seeds of each group: columns `by`; mean; low, high: its 95 % interval; seeds.

    Below `FLOOR` seeds there is no interval. Groups keep the order in which they come; seeds are told by `seed`.
    """
    lines = []
    for key, part in found.groupby(list(by), sort=False):
        values = part.groupby("seed")[value].mean().dropna().to_numpy()
        enough = len(values) >= FLOOR
        nothing = np.zeros(len(values))
        interval = intervals.gap_of(values, nothing, paired=True).interval() if enough else (np.nan, np.nan)
        lines.append((*key, values.mean() if len(values) else np.nan, *interval, len(values)))
    return pd.DataFrame(lines, columns=[*by, "mean", "low", "high", "seeds"])


def rank_agreement(first: pd.DataFrame, second: pd.DataFrame, alpha: float = ALPHA) -> tuple[float, float, float]:
    """Kendall's tau between the mean scores of the rows (columns) that both have, and its bootstrap interval.

    Each draw takes the seeds of every row with replacement; a table of one value per row (printed) is constant. No
    interval where another row has one seed. The same input gives the same interval.
    """
    rows = [row for row in first.columns if row in second.columns]
    tables = [[table[row].dropna().to_numpy() for row in rows] for table in (first, second)]

    def tau(rng: np.random.Generator | None) -> float:
        a, b = ([_mean(values, rng) for values in table] for table in tables)
        return float(stats.kendalltau(a, b).statistic)

    counts = [[len(values) for values in table] for table in tables]
    varied = [seeds for seeds in counts if max(seeds, default=0) > 1]  # the other may be printed: constants
    return _bootstrapped(tau, min(map(min, varied), default=0), alpha)


def concordance(scores: Mapping[str, pd.DataFrame], alpha: float = ALPHA) -> tuple[float, float, float]:
    """Kendall's W of several metrics over the rows: 1 if all rank the rows alike, 0 if they have nothing in common.

    scores: metric -> values (index seeds, columns rows), larger being better in all of them (MAE negated). With a
    bootstrap interval over the seeds of every row, the same ones in every metric.
    """
    rows = list(next(iter(scores.values())).columns)
    values = [np.stack([table[row] for table in scores.values()], 1) for row in rows]  # [seeds, metrics] each
    values = [part[~np.isnan(part).any(1)] for part in values]
    m, n = len(scores), len(rows)

    def w(rng: np.random.Generator | None) -> float:
        ranks = stats.rankdata([_mean(part, rng) for part in values], axis=0)  # [rows, metrics]
        return float(12 * ((ranks.sum(1) - m * (n + 1) / 2) ** 2).sum() / (m**2 * (n**3 - n)))

    return _bootstrapped(w, min(map(len, values)), alpha)


def _mean(values: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
    """Mean over the seeds (the first axis), or over as many drawn with replacement."""
    return (values if rng is None else values[rng.integers(len(values), size=len(values))]).mean(0)


def _bootstrapped(statistic: Callable, fewest: int, alpha: float) -> tuple[float, float, float]:
    """A statistic and its percentile interval; none if a row that could vary has one seed (`fewest`)."""
    value = statistic(None)
    if fewest < 2:
        return value, np.nan, np.nan
    rng = np.random.default_rng(0)
    low, high = np.nanquantile([statistic(rng) for _ in range(DRAWS)], [alpha / 2, 1 - alpha / 2])
    return value, float(low), float(high)
