"""Figures of the page selector, in the language of `plots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from msa_lib.study.plots import ROW_COLOURS, _titled

MARKERS = "osD^vP"


def over_training(rows: pd.DataFrame) -> Figure:
    """Share of samples whose dominant modality is named (left) and test MAE (right) by epochs, one line per rule: mean
    over seeds, whiskers the sample SD. Columns level ("epoch 4"), arm, seed, named, majority, mae."""
    found = rows.assign(epoch=rows["level"].str.removeprefix("epoch ").astype(int))
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.9))
    _lines(left, found, "epoch", "named", found["arm"].unique())
    _lines(right, found, "epoch", "mae", found["arm"].unique())
    left.axhline(found["majority"].mean(), color="0.5", ls="--", lw=1, label="always the most frequent one")
    left.axhline(1 / 3, color="0.5", ls=":", lw=1, label="chance")
    left.set(ylabel="share named as planted (Eq. 4)", ylim=(0, 1.02))
    right.set(ylabel="test MAE", ylim=(0, None))
    for axis in (left, right):
        axis.set(xscale="log", xlabel="epochs of training", xticks=sorted(found["epoch"].unique()))
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.xaxis.set_minor_locator(plt.NullLocator())
    _titled(figure, "What the selector names, over training", synthetic=True)
    handles = left.get_legend_handles_labels()
    figure.legend(*handles, loc="upper center", bbox_to_anchor=(0.5, 0.02), fontsize=9, ncols=3)
    return figure


def by_level(rows: pd.DataFrame, xlabel: str) -> Figure:
    """Test MAE of each arm by level (the number that the level's name ends in): mean over seeds, whiskers the SD."""
    found = rows.assign(x=rows["level"].str.split().str[-1].astype(float))
    figure, axis = plt.subplots(figsize=(6, 3.9))
    _lines(axis, found, "x", "mae", found["arm"].unique())
    axis.set(xlabel=xlabel, ylabel="test MAE", ylim=(0, None), xticks=sorted(found["x"].unique()))
    axis.legend(fontsize=9)
    return _titled(figure, f"Error by {xlabel}", synthetic=True)


def _lines(axis, found: pd.DataFrame, x: str, y: str, arms: Sequence[str]) -> None:
    for k, arm in enumerate(arms):
        told = found[found["arm"] == arm].groupby(x)[y].agg(["mean", "std"]).fillna(0.0)
        axis.errorbar(told.index, told["mean"], told["std"], **_look(k), label=arm)


def _look(k: int) -> Mapping:
    return {
        "color": ROW_COLOURS[k % len(ROW_COLOURS)],
        "marker": MARKERS[k % len(MARKERS)],
        "ms": 5,
        "capsize": 2,
        "lw": 1.5,
    }
