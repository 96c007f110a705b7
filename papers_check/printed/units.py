"""The units of the printed columns: which are in percent, how many decimals they show, what ours are called."""

import pandas as pd

MISSING = "–"  # where nothing is printed, or nothing was run


def our_metric(metric: str, side: str) -> str:
    """Our name of a printed column: `acc2` with side `has0` is `acc2_has0`; without a side the name is the same."""
    return f"{metric}_{side}" if side else metric


def is_percent(metric: str) -> bool:
    """Whether the papers print this metric in percent and we keep it as a fraction: accuracies and F1, not counts."""
    return metric.startswith(("acc", "f1")) and not metric.endswith(("_k", "_n"))


def column_decimals(reported: pd.DataFrame) -> dict[str, int]:
    """Decimals of each printed column, by metric: the most any of its cells shows, since trailing zeros get lost.

    A column of dashes only gets the usual two for percent and three otherwise.
    """
    decimals = {}
    for metric, cells in reported.groupby("metric", sort=False):
        shown = [int(k) for k in cells["decimals"] if k != ""]
        decimals[metric] = max(shown, default=2 if is_percent(metric) else 3)
    return decimals
