"""How rows differ over seeds, for pages that no printed table asks for: gap, interval, what could have been seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from papers_check.judge.intervals import ALPHA, gap_of, holm
from papers_check.judge.verdicts import FLOOR

COLUMNS = ("what", "gap", "low", "high", "n", "p", "p_holm", "smallest")


def by_seed(rows: pd.DataFrame, metric: str = "mae") -> pd.DataFrame:
    """Result rows -> the test values of a metric, one line per seed, one column per label; NaN where a run failed."""
    test = rows[(rows["split"] == "test") & (rows["metric"] == metric) & (rows["status"] == "done")]
    return test.pivot(index="seed", columns="label", values="value")[list(dict.fromkeys(test["label"]))]


def paired(values: pd.DataFrame, pairs: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """The gap a - b of each pair of labels over the seeds that both have, in the order given.

    Columns: what; gap; low, high: its 95 % interval; n seeds; p of no gap, p_holm over all pairs; smallest: the true
    gap that these seeds would have shown in 80 % of cases, after Holm. A label without runs, or one seed, gives NaN.
    """
    lines = []
    for what, (a, b) in pairs.items():
        both = values.reindex(columns=[a, b]).dropna()
        if len(both) < 2:
            lines.append((what, (both[a] - both[b]).mean(), np.nan, np.nan, len(both), np.nan, np.nan))
            continue
        gap = gap_of(both[a], both[b], paired=True)
        lines.append((what, gap.gap, *gap.interval(), len(both), gap.p(), gap.smallest_effect(ALPHA / len(pairs))))
    table = pd.DataFrame(lines, columns=[name for name in COLUMNS if name != "p_holm"])
    table["p_holm"] = holm(table["p"])
    return table[list(COLUMNS)]


def word(line: Mapping) -> str:
    """What a line of `paired` allows to say, where a positive gap means that the second row has the lower error:
    "better" or "worse" (Holm below 5 %, from `FLOOR` seeds on), else "undecided".
    """
    if not line["p_holm"] < ALPHA or line["n"] < FLOOR:
        return "undecided"
    return "better" if line["gap"] > 0 else "worse"


def spread(found: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """A value over the seeds of each group: columns `by`; mean; low, high: its 95 % interval; seeds.

    Below `FLOOR` seeds there is no interval. Groups keep the order in which they come; seeds are told by `seed`.
    """
    lines = []
    for key, part in found.groupby(list(by), sort=False):
        values = part.groupby("seed")[value].mean().dropna().to_numpy()
        enough = len(values) >= FLOOR
        interval = gap_of(values, np.zeros(len(values)), paired=True).interval() if enough else (np.nan, np.nan)
        lines.append((*key, values.mean() if len(values) else np.nan, *interval, len(values)))
    return pd.DataFrame(lines, columns=[*by, "mean", "low", "high", "seeds"])
