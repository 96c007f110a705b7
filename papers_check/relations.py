"""Relations between rows: does A beat B in our runs as printed, and do the rows come in the printed order?

Everything here takes what `verdicts.judge` returns. Relations may be read from synthetic data, where printed numbers
may not; every line says which it rests on. `sign_test` compares with printed numbers and so leaves synthetic data out.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from decimal import Decimal

import numpy as np
import pandas as pd
from scipy import stats

from papers_check import intervals
from papers_check.intervals import ALPHA
from papers_check.papers import is_own
from papers_check.verdicts import COLUMN, FLOOR, LOWER_IS_BETTER, NOT_ATTEMPTED

HOLDS, UNDECIDED, REVERSED = "holds", "undecided", "reversed"
RELATIONS = (HOLDS, UNDECIDED, REVERSED, NOT_ATTEMPTED)


@dataclass(frozen=True)
class Relation:
    """ "Better beats worse" in our runs; gaps in the unit of the values, positive where `better` is the better one."""

    better: str
    worse: str
    claimed_gap: float  # as printed; NaN if the claim is no number
    gap: float
    low: float  # Welch interval of the gap
    high: float
    p: float
    probability: float  # that a run of `better` beats one of `worse`
    n_better: int
    n_worse: int
    scope: str  # "real data", "synthetic data" or ""
    claimed_inside: bool | None  # whether the claimed gap lies in the interval; None if it cannot be asked
    verdict: str
    reason: str


def compare(
    a: Sequence[float],
    b: Sequence[float],
    higher: bool = True,
    synthetic: bool = False,
    names: tuple[str, str] = ("A", "B"),
    claimed_gap: float = np.nan,
    half: float = 0.0,
    alpha: float = ALPHA,
    p_adjusted: float | None = None,
) -> Relation:
    """The claim "A is better than B" from the runs of both, one value per seed; `higher`: larger values are better.

    `half` is the rounding half-width of one printed value; a printed gap carries two. `p_adjusted` replaces p in the
    decision where several relations are judged together. Below `FLOOR` seeds on either side nothing is decided.
    """
    (mean_a, sd_a, n_a), (mean_b, sd_b, n_b) = intervals.summary(a), intervals.summary(b)
    scope = "synthetic data" if synthetic else "real data"
    if min(n_a, n_b) == 0:
        missing = " and ".join(name for name, n in zip(names, (n_a, n_b), strict=True) if n == 0)
        nothing = (np.nan,) * 5
        return Relation(*names, claimed_gap, *nothing, n_a, n_b, "", None, NOT_ATTEMPTED, f"no runs of {missing}")
    sign = 1 if higher else -1
    gap, low, high, p = intervals.welch(sign * mean_a, sd_a, n_a, sign * mean_b, sd_b, n_b, alpha)
    inside = None
    if not (synthetic or np.isnan(claimed_gap) or np.isnan(low)):
        inside = bool(low - 2 * half <= claimed_gap <= high + 2 * half)
    decisive = p if p_adjusted is None else p_adjusted
    if min(n_a, n_b) < FLOOR:
        verdict, reason = UNDECIDED, f"{min(n_a, n_b)} seeds; a verdict needs {FLOOR}"
    elif decisive < alpha:
        verdict, reason = (
            (HOLDS, "the interval of the gap excludes 0") if gap > 0 else (REVERSED, "the gap is negative")
        )
    else:
        verdict, reason = UNDECIDED, "the gap could be 0"
    better = intervals.probability_better(a, b, higher)
    numbers = tuple(float(value) for value in (gap, low, high, p, better))
    return Relation(*names, claimed_gap, *numbers, n_a, n_b, scope, inside, verdict, f"{scope}: {reason}")


def relations(judged: pd.DataFrame, alpha: float = ALPHA) -> pd.DataFrame:
    """The relations each table prints between the paper's own row and every other one, column by column.

    judged: from `verdicts.judge`. One line per pair of printed numbers that differ: `COLUMN`, the fields of `Relation`
    and `p_holm`, adjusted over the pairs of that column; the verdict uses it.
    """
    lines = []
    for key, cells in judged[judged["reported"] != ""].groupby(list(COLUMN), sort=False):
        own = cells[cells["row"].map(lambda row, paper=key[0]: is_own(paper, row))]
        if len(own) != 1:
            continue
        higher = key[3] not in LOWER_IS_BETTER
        printed = {row: Decimal(text) for row, text in cells[["row", "reported"]].to_numpy()}
        line = {row["row"]: row for row in cells.to_dict("records")}
        studied, half = own["row"].iloc[0], 0.5 * 10.0 ** -int(own["decimals"].iloc[0])
        calls = []
        for other in (row for row in line if row != studied and printed[row] != printed[studied]):
            ahead = (printed[studied] > printed[other]) == higher
            a, b = (studied, other) if ahead else (other, studied)
            mixed = line[a]["synthetic"] != line[b]["synthetic"] and line[a]["n"] and line[b]["n"]
            values = ((), ()) if mixed else (line[a]["values"], line[b]["values"])
            calls.append(
                {
                    "a": values[0],
                    "b": values[1],
                    "higher": higher,
                    "synthetic": line[a]["synthetic"],
                    "names": (a, b),
                    "claimed_gap": float(abs(printed[a] - printed[b])),
                    "half": half,
                    "alpha": alpha,
                }
            )
        adjusted = intervals.holm([compare(**call).p for call in calls])
        for call, p in zip(calls, adjusted, strict=True):
            lines.append(dict(zip(COLUMN, key, strict=True)) | asdict(compare(**call, p_adjusted=p)) | {"p_holm": p})
    return pd.DataFrame(lines, columns=[*COLUMN, *(field.name for field in fields(Relation)), "p_holm"])


def ranking_agreement(judged: pd.DataFrame, alpha: float = ALPHA) -> pd.DataFrame:
    """Do our means put the rows in the printed order? One line per column with at least three rows of both.

    Columns: `COLUMN`, rows, tau and p (Kendall's tau-b), pairs (printed apart), flipped (ours the other way round),
    flipped_clearly (and the Welch interval of our gap excludes 0), which (those pairs, "A over B" as ours have it),
    scope.
    """
    lines = []
    there = judged[(judged["reported"] != "") & (judged["n"] > 0)]
    for key, cells in there.groupby([*COLUMN, "synthetic"], sort=False):
        if len(cells) < 3:
            continue
        *column, synthetic = key
        sign = -1 if column[3] in LOWER_IS_BETTER else 1
        printed = sign * cells["reported"].map(float).to_numpy()
        mean, sd, n, rows = (cells[name].to_numpy() for name in ("mean", "sd", "n", "row"))
        tau = stats.kendalltau(printed, sign * mean)
        a, b = np.triu_indices(len(cells), 1)
        a, b = np.where(printed[a] >= printed[b], a, b), np.where(printed[a] >= printed[b], b, a)  # a printed ahead
        gap, _, high, _ = intervals.welch(sign * mean[a], sd[a], n[a], sign * mean[b], sd[b], n[b], alpha)
        apart = printed[a] > printed[b]
        flipped = apart & (gap < 0)
        clearly = flipped & (np.where(np.isnan(high), np.inf, high) < 0)
        which = "; ".join(f"{rows[j]} over {rows[i]}" for i, j in zip(a[clearly], b[clearly], strict=True))
        counts = int(apart.sum()), int(flipped.sum()), int(clearly.sum())
        scope = "synthetic data" if synthetic else "real data"
        lines.append((*column, len(cells), float(tau.statistic), float(tau.pvalue), *counts, which, scope))
    names = ["rows", "tau", "p", "pairs", "flipped", "flipped_clearly", "which", "scope"]
    return pd.DataFrame(lines, columns=[*COLUMN, *names])


def sign_test(judged: pd.DataFrame, metric: str = "mae") -> pd.DataFrame:
    """Are the printed values better (or worse) than ours in more rows than chance allows? One primary metric decides.

    One line per table, data set and side: rows (untied, on real data), reported_better, ties, p (exact, two-sided).
    """
    lines = []
    there = judged[(judged["metric"] == metric) & (judged["reported_is"] != "") & ~judged["synthetic"]]
    for key, cells in there.groupby(["paper", "table", "dataset", "side"], sort=False):
        better, ties = (int((cells["reported_is"] == word).sum()) for word in ("better", "equal"))
        rows = len(cells) - ties
        lines.append((*key, metric, rows, better, ties, intervals.sign_p(better, rows)))
    names = ["paper", "table", "dataset", "side", "metric", "rows", "reported_better", "ties", "p"]
    return pd.DataFrame(lines, columns=names)
