"""Figures of one sample, in the language of `plots`: what networks predict of it, and what goes on inside them."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msa_lib import MODALITIES
from msa_lib.study.plots import COLOURS, FACTORS, SHARES, _titled, row_colours

MARKS = "osD^vP*X"


def predicted(found: pd.Series, span: float, title: str, synthetic: bool) -> Figure:
    """The label of one sample as a line, and what each network predicts of it: `explore.predictions`, one row."""
    guesses = found.drop("label")
    figure, axis = plt.subplots(figsize=(8, 0.45 * len(guesses) + 1.5))
    place = np.arange(len(guesses))[::-1]
    axis.axvline(found["label"], color="0.4", ls="--", label=f"label {found['label']:+.1f}")
    axis.hlines(place, found["label"], guesses, color="0.75", lw=2, zorder=1)
    for y, value, colour, mark in zip(
        place, guesses, row_colours(list(guesses.index)).values(), MARKS * len(place), strict=False
    ):
        axis.plot(value, y, mark, color=colour, ms=8)
    axis.set(yticks=place, yticklabels=guesses.index, xlim=(-1.15 * span, 1.15 * span), ylim=(-0.6, len(place) - 0.4))
    axis.set_xlabel("prediction")
    axis.legend(fontsize=9, loc="lower right")
    return _titled(figure, title, synthetic)


def inside(label: str, seen: Mapping[str, np.ndarray], synthetic: bool) -> Figure | None:
    """What `explore.inside` found in a network, a panel each; None where it records nothing that is shown here."""
    panels = [(name, value) for name, value in seen.items() if name in _PANELS]
    if not panels:
        return None
    parts = [(name, title, part) for name, value in panels for title, part in _PANELS[name][0](value)]
    width = [_PANELS[name][2] for name, _, _ in parts]
    figure, axes = plt.subplots(1, len(parts), figsize=(sum(width) + 1, 3.4), width_ratios=width, squeeze=False)
    for axis, (name, title, part) in zip(axes[0], parts, strict=True):
        _PANELS[name][1](axis, part)
        axis.set_title(title, fontsize=10)
    if "dominant" in seen:
        label += f": {MODALITIES[int(seen['dominant'])]} is dominant"
    return _titled(figure, label, synthetic)


def under_noise(found: pd.DataFrame, label: float, modality: str, synthetic: bool, at: float | None = None) -> Figure:
    """Predictions of one sample as one modality gets noisy: `explore.under_noise`; `at`: where a slider stands."""
    rows = found.set_index("level")
    figure, axis = plt.subplots(figsize=(8, 3.4))
    for name, colour, mark in zip(rows, row_colours(list(rows)).values(), MARKS * len(rows.columns), strict=False):
        axis.plot(rows.index, rows[name], color=colour, marker=mark, label=name)
    axis.axhline(label, color="0.4", ls="--", label="label")
    if at is not None:
        axis.axvline(at, color=COLOURS[modality], lw=3, alpha=0.4)
    axis.set(xlabel=f"noise in {modality} / its signal (deviations)", ylabel="prediction")
    axis.legend(fontsize=9, ncols=4)
    return _titled(figure, f"One sample, {modality} getting noisy", synthetic)


def _bars(axis: Axes, values: np.ndarray) -> None:
    """[M] or [M,d] of the modalities: the mean of each."""
    axis.bar(range(3), values.reshape(3, -1).mean(1), color=list(COLOURS.values()), alpha=0.7)
    axis.set(xticks=range(3), xticklabels=MODALITIES, ylim=(0, 1))


def _gate(axis: Axes, values: np.ndarray) -> None:
    """AMSGFN has one opening per layer [n_layers], DSRF one per modality [M,1 or d]."""
    if values.ndim > 1:
        _bars(axis, values)
        return
    axis.bar(range(len(values)), values, color="0.5", alpha=0.7)
    axis.set(xticks=range(len(values)), xticklabels=[f"layer {i + 1}" for i in range(len(values))], ylim=(0, 1))


def _grid(axis: Axes, table: np.ndarray, rows=MODALITIES, columns=FACTORS) -> None:
    sns.heatmap(table, annot=True, fmt=".2f", vmin=0, vmax=1, cmap=SHARES, cbar=False, ax=axis,
                xticklabels=columns, yticklabels=rows, annot_kws={"fontsize": 8})  # fmt: skip
    axis.tick_params(axis="y", rotation=0, labelsize=9)
    axis.tick_params(axis="x", rotation=30, labelsize=9)


def _routing(axis: Axes, coupling: np.ndarray) -> None:
    """coupling [M,F,K] of one iteration: mean over the modalities."""
    _grid(axis, coupling.mean(0), FACTORS, [f"capsule {k + 1}" for k in range(coupling.shape[-1])])


# extra -> (its panels as (title, array), how one is drawn, its width)
_PANELS = {
    "contribution": (lambda v: [("contribution (Eq. 3)", v)], _bars, 2.4),
    "gate": (lambda v: [("gate, mean opening", v)], _gate, 2.4),
    "uncertainty": (lambda v: [("uncertainty", v)], _grid, 3.2),
    "factor_weight": (lambda v: [("weight (Eq. 13)", v)], _grid, 3.2),
    "couplings": (lambda v: [(f"routing, iteration {i + 1}", c) for i, c in enumerate(v)], _routing, 3.2),
}
