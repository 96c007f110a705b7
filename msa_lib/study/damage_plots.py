"""Figures of the page robustness, in the language of `plots`: many rows, damaged test samples, poorer training data."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from msa_lib.study.plots import OWN, SHARES, _titled, row_colours

WORDS = {"noise": "noise / signal (deviations)", "missing": "share of samples without it",
         "frames": "share of its steps zero", "shuffled": "share of its steps shuffled",
         "mispaired": "share from another sample", "label noise": "share of labels swapped",
         "fewer samples": "share of samples left out"}  # fmt: skip
LITTLE = 0.05  # shares below it are not written out


def damage(found: pd.DataFrame, synthetic: bool) -> Figure:
    """MAE against every damage to one modality, means over seeds: columns row, kind, modality, level, mae.

    The two studied models and ridge in their colours, all others grey, the label mean dotted.
    """
    present, kinds = list(found["modality"].unique()), list(found["kind"].unique())
    size = (2.3 * len(kinds), 2 * len(present) + 0.9)
    figure, axes = plt.subplots(len(present), len(kinds), figsize=size, sharey=True, sharex="col", squeeze=False)
    for line, modality in zip(axes, present, strict=True):
        for axis, kind in zip(line, kinds, strict=True):
            part = found[(found["kind"] == kind) & (found["modality"] == modality)]
            means = part.pivot_table(index="level", columns="row", values="mae", sort=False)
            for row in means:
                axis.plot(means.index, means[row], **_among_many(row), zorder=3 if row in OWN else 2)
            axis.set_title(f"{modality}: {kind}", fontsize=10)
            if modality == present[-1]:
                axis.set_xlabel(WORDS[kind], fontsize=9)
        line[0].set_ylabel("MAE")
    handles = {label: handle for handle, label in zip(*axes[0, 0].get_legend_handles_labels(), strict=True)}
    _titled(figure, "What a damaged modality costs", synthetic)
    figure.legend(handles.values(), handles, loc="upper center", bbox_to_anchor=(0.5, 0.01), fontsize=9, ncols=5)
    return figure


def _among_many(row: str) -> dict:
    """How the line of a row looks among those of the whole registry."""
    if row in OWN:
        return {"color": OWN[row], "label": row, "lw": 2, "marker": "o", "ms": 4}
    if row in ("ridge", "label mean"):
        return {"color": "0.25", "label": row, "lw": 1.6, "ls": "--" if row == "ridge" else ":"}
    return {"color": "0.75", "label": "a baseline, one line each", "lw": 0.9}


def losses(cells: pd.DataFrame, whole: pd.DataFrame, synthetic: bool) -> Figure:
    """Share of its lead that each row loses: by kind and modality (a table), and over all of them with interval.

    `cells`: index row, columns (kind, modality); `whole`: row, mean, low, high, seeds, best first.
    """
    size = (11.5, 0.27 * len(whole) + 2)
    figure, (left, right) = plt.subplots(1, 2, figsize=size, width_ratios=(1.9, 1), sharey=True)
    values = cells.loc[whole["row"]].to_numpy()
    seen = np.where(values >= LITTLE, np.char.mod("%.2f", values), "")
    names = [f"{kind}, {modality}" for kind, modality in cells]
    sns.heatmap(values, annot=seen, fmt="", vmin=0, vmax=1, cmap=SHARES, cbar=False, annot_kws={"fontsize": 7}, ax=left,
                xticklabels=names, yticklabels=list(whole["row"]))  # fmt: skip
    left.tick_params(axis="x", rotation=90, labelsize=9)
    left.tick_params(axis="y", rotation=0)
    left.set_title(f"by kind of damage and modality; blank: below {LITTLE:g}", fontsize=10)
    place = np.arange(len(whole)) + 0.5
    for i, line in zip(place, whole.to_dict("records"), strict=True):
        one = np.isnan(line["low"])
        reach = None if one else [[line["mean"] - line["low"]], [line["high"] - line["mean"]]]
        right.errorbar(line["mean"], i, xerr=reach, fmt="o", ms=6, capsize=3, color=OWN.get(line["row"], "0.35"),
                       mfc="white" if one else None)  # fmt: skip
    right.set_xlabel("share of the lead over the label mean that is lost", fontsize=10)
    right.set_title("mean of all; bar: 95 % interval; hollow: one seed or none", fontsize=10)
    return _titled(figure, "Who loses least when test samples are damaged", synthetic)


def retrained(found: pd.DataFrame, synthetic: bool) -> Figure:
    """MAE on clean test samples after training on poorer data: columns row, seed, kind, level, mae; band: all seeds."""
    kinds, names = list(found["kind"].unique()), list(found["row"].unique())
    figure, axes = plt.subplots(1, len(kinds), figsize=(4.6 * len(kinds), 3.8), sharey=True, squeeze=False)
    for axis, kind in zip(axes[0], kinds, strict=True):
        sns.lineplot(found[found["kind"] == kind], x="level", y="mae", hue="row", style="row", markers=True, ax=axis,
                     dashes=False, palette=row_colours(names),
                     errorbar=("pi", 100), legend=kind == kinds[0])  # fmt: skip
        axis.set(title=kind, xlabel=WORDS[kind], ylabel="test MAE")
    sns.move_legend(axes[0, 0], "upper left", title="", fontsize=8, ncols=2)
    return _titled(figure, "Trained on poorer data, tested on clean samples; band over seeds", synthetic)
