"""The figures of the audit and of seed noise: a table of `picture_data` or of `noise/` in, a matplotlib figure out.

Blue circles are as expected, orange triangles with a label are what a finding is about; nothing is told by colour
alone, and no figure sets red against green.
"""

import io
from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from papers_check.printed.papers import NAMES, TITLES
from papers_check.printed.rows import column
from papers_check.show.picture_data import STATES

BLUE, ORANGE, PURPLE, SKY = (sns.color_palette("colorblind")[k] for k in (0, 1, 4, 9))
INK, GREY = "0.15", "0.55"
FINE = dict(marker="o", ls="", ms=6, color=BLUE, mec="white", mew=0.5)
ODD = dict(marker="^", ls="", ms=9, color=ORANGE, mec=INK, mew=0.8)
SMALL = 9
sns.set_theme(style="whitegrid", context="notebook")


def compact(figure: Figure) -> bytes:
    """The figure as a PNG of 64 colours, a third of the usual size, for notebooks that are committed with outputs.

    Closes the figure. (The octree keeps the few orange marks; a median cut gives their colour away to shades of grey.)
    """
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, dpi=80, bbox_inches="tight")
    plt.close(figure)
    with Image.open(drawn) as image:
        few = image.convert("RGB").quantize(64, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(small, "PNG", optimize=True)
    return small.getvalue()


def _titled(figure: Figure, title: str) -> Figure:
    figure.suptitle(title, fontsize=13)
    figure.tight_layout()
    return figure


def _spread(places: Sequence[float], gap: float) -> np.ndarray:
    """The places, moved apart as little as it takes for no two to be closer than `gap`; in the order given."""
    order = np.argsort(places, kind="stable")
    blocks: list[list[float]] = []  # [sum of wished starts, number]: neighbours that touch move as one
    for k, place in enumerate(np.asarray(places, float)[order]):
        blocks.append([place - k * gap, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, number = blocks.pop()
            blocks[-1] = [blocks[-1][0] + total, blocks[-1][1] + number]
    starts = np.repeat([total / number for total, number in blocks], [number for _, number in blocks])
    moved = np.empty(len(order))
    moved[order] = starts + gap * np.arange(len(order))
    return moved


def _labels(axis: Axes, xs: Sequence[float], ys: Sequence[float], names: Sequence[str], above: bool = False) -> None:
    """A name for each point, with a line to it: in a column right of the axis, or upright above the points."""
    (x_low, x_high), (y_low, y_high) = axis.get_xlim(), axis.get_ylim()
    line = dict(arrowstyle="-", color=GREY, lw=0.7, shrinkB=4)
    style = dict(textcoords="axes fraction", fontsize=SMALL, annotation_clip=False, arrowprops=line)
    across, up = (np.asarray(xs) - x_low) / (x_high - x_low), (np.asarray(ys) - y_low) / (y_high - y_low)
    if above:
        for x, y, name, place in zip(xs, ys, names, _spread(across, 0.055), strict=True):
            height = max(up) + 0.08
            axis.annotate(name, (x, y), (place, height), rotation=90, ha="center", va="bottom", **style)
    else:
        for x, y, name, place in zip(xs, ys, names, _spread(up, 0.065), strict=True):
            axis.annotate(name, (x, y), (1.03, place), va="center", **style)


# --- the audit --------------------------------------------------------------------------------------------------------


def overview(table: pd.DataFrame) -> Figure:
    """Number of findings by group (index) and severity (columns)."""
    figure, axis = plt.subplots(figsize=(6.5, 0.45 * len(table) + 1.4))
    # A square root, or the many notes would hide the few that matter.
    sns.heatmap(np.sqrt(table), annot=table, fmt="d", cmap="Blues", cbar=False, ax=axis, linewidths=1)
    axis.set(xlabel="severity", ylabel="")
    axis.tick_params(axis="y", rotation=0)
    high = int(table["high"].sum()) if "high" in table else 0
    return _titled(figure, f"{int(table.to_numpy().sum())} findings, {high} of them high")


def allowed_runs(table: pd.DataFrame) -> Figure:
    """Which numbers of averaged runs each accuracy allows, a panel per paper: from `picture_data.runs_allowed`."""
    papers = list(dict.fromkeys(table["paper"]))
    sizes = [table.loc[table["paper"] == paper, "cell"].nunique() for paper in papers]
    figure, axes = plt.subplots(len(papers), 1, figsize=(9.5, 0.36 * sum(sizes) + 1.6 + 0.9 * len(papers)),
                                squeeze=False, height_ratios=sizes, sharex=True)  # fmt: skip
    styles = {STATES[2]: dict(marker="s", color=BLUE, ms=11), STATES[1]: dict(marker="s", mfc="white", mec=BLUE, ms=11),
              STATES[0]: dict(marker="x", color=GREY, ms=6)}  # fmt: skip
    for axis, paper in zip(axes[:, 0], papers, strict=True):
        part = table[table["paper"] == paper]
        cells = list(dict.fromkeys(part["cell"]))
        for state, style in styles.items():
            here = part[part["state"] == state]
            axis.plot(here["m"], here["cell"].map(cells.index), ls="", label=state, **style)
        axis.axhspan(len(cells) - 1.5, len(cells) - 0.5, color=ORANGE, alpha=0.25, lw=0)
        axis.set(yticks=range(len(cells)), yticklabels=cells, ylim=(len(cells) - 0.5, -0.5), title=TITLES[paper])
        axis.set_xticks(sorted(part["m"].unique()))
    axes[-1, 0].set_xlabel("number of averaged runs m")
    axes[-1, 0].legend(loc="upper center", bbox_to_anchor=(0.3, -0.14), ncols=3, fontsize=SMALL)
    whole = table[table["cell"] == "all of them"]

    def fits(paper: str, *states: str) -> str:
        chosen = whole.loc[(whole["paper"] == paper) & whole["state"].isin(states), "m"]
        return ", ".join(map(str, chosen)) or "none"

    said = "; ".join(f"{TITLES[p]} {fits(p, STATES[2])} ({fits(p, *STATES[1:])} if runs were rounded)" for p in papers)
    return _titled(figure, f"Numbers of averaged runs that give all own accuracies:\n{said}")


def f1_bound(pairs: pd.DataFrame, limit: Callable[[str, str, np.ndarray], np.ndarray], least: float = 70) -> Figure:
    """F1 minus Acc-2 against the largest it can be: from `picture_data.f1_pairs`, with `f1_limit` for the line.

    Bars: what rounding can change. Accuracies below `least` are left out and counted; differences below -1 stand on
    the lower edge with their value.
    """
    keys = set(zip(pairs["dataset"], pairs["side"], strict=True))
    keys = sorted(keys, key=lambda key: (list(NAMES).index(key[0]), key[1]))
    columns = min(3, len(keys))
    figure, axes = plt.subplots(-(-len(keys) // columns), columns, squeeze=False, sharey=True,
                                figsize=(4.6 * columns, 4.4 * -(-len(keys) // columns)))  # fmt: skip
    for axis in axes.flat[len(keys) :]:
        axis.remove()
    bottom = -1.0
    for axis, (dataset, side) in zip(axes.flat, keys, strict=False):
        part = pairs[(pairs["dataset"] == dataset) & (pairs["side"] == side)]
        part = part[part["acc"] >= least]
        if part.empty:
            continue
        grid = np.linspace(part["acc"].min() - 0.6, part["acc"].max() + 0.6, 60)
        axis.plot(grid, limit(dataset, side, grid) - grid, color=INK, lw=1.6)
        axis.set(ylim=(bottom - 0.08, 3.1), xlim=(grid[0], grid[-1]), xlabel=column("acc2", side))
        gap = part["f1"] - part["acc"]
        for odd, style in ((False, FINE), (True, ODD)):
            here = part["above"] == odd
            bars = dict(capsize=2, elinewidth=1, ecolor=GREY)
            shown = gap[here].clip(lower=bottom)
            axis.errorbar(part["acc"][here], shown, part["half"][here], **bars, **style)
        for k in part.index[gap < bottom]:
            axis.annotate(f"{part['row'][k]} {gap[k]:.2f} ↓", (part["acc"][k], bottom), (0, 9), fontsize=SMALL,
                          textcoords="offset points", ha="center")  # fmt: skip
        odd = part[part["above"]]
        names = [f"{TITLES[p]} {t}: {r}" for p, t, r in odd[["paper", "table", "row"]].to_numpy()]
        _labels(axis, list(odd["acc"]), list(gap[odd.index]), names, above=True)
        axis.set_title(NAMES[dataset])
    for axis in axes[:, 0]:
        axis.set_ylabel("F1 − Acc-2 (points)")
    left = int((pairs["acc"] < least).sum())
    note = f"; {left} pairs below {least:g} % not shown" if left else ""
    return _titled(figure, f"{int(pairs['above'].sum())} of {len(pairs)} pairs lie above the line, the largest F1 "
                   f"weighted by the labels; real runs do, too (predictions first){note}")  # fmt: skip


def mae_against_corr(rows: pd.DataFrame, constant: float, dataset: str) -> Figure:
    """MAE against Corr of every row, all and the crowded corner: a table of `picture_data.mae_and_corr`.

    `constant`: the MAE of the best constant prediction. A dashed line leads from a row whose two numbers are exchanged
    to where they would be.
    """
    figure, (whole, corner) = plt.subplots(1, 2, figsize=(13.5, 5.2))
    odd = rows[rows["odd"]]
    usual = rows[~rows["odd"]]
    for axis in (whole, corner):
        axis.plot(usual["corr"], usual["mae"], **FINE)
        axis.plot(odd["corr"], odd["mae"], **ODD)
        axis.set(xlabel="Corr", ylabel="MAE")
    low, high = np.quantile(usual["corr"], 0.2) - 0.05, rows["corr"].max() + 0.01
    close = rows["corr"].between(low, high)
    corner.set(xlim=(low, high), ylim=(rows["mae"][close].min() - 0.01, rows["mae"][close].max() + 0.01))
    # An exchanged row is far from its place: MAE above the others with this Corr, and Corr where MAE should be.
    for _, row in odd[odd["corr"] < low].iterrows():
        whole.plot([row["corr"], row["mae"]], [row["mae"], row["corr"]], ls="--", color=ORANGE, lw=1.5)
        whole.plot(row["mae"], row["corr"], marker="^", mfc="none", mec=ORANGE, ms=13, mew=1.8)
        whole.annotate(f"{_name(row)}; dashed: exchanged", (row["corr"], row["mae"]), (0, 12), fontsize=SMALL,
                       textcoords="offset points", ha="center")  # fmt: skip
    whole.axhline(constant, color=INK, ls=":", lw=1.5)
    whole.annotate(f"best constant, MAE {constant:.3f}", (0.99, constant), (0, 4), fontsize=SMALL, ha="right",
                   xycoords=("axes fraction", "data"), textcoords="offset points")  # fmt: skip
    for _, row in usual[usual["mae"] > constant].iterrows():
        whole.annotate(_name(row), (row["corr"], row["mae"]), (8, -3), textcoords="offset points", fontsize=SMALL)
    near = odd[odd["corr"] >= low]
    _labels(corner, list(near["corr"]), list(near["mae"]), [_name(row) for _, row in near.iterrows()])
    whole.set_title("all rows")
    corner.set_title("the crowded corner")
    return _titled(figure, f"{NAMES[dataset]}: {len(odd)} of {len(rows)} rows stand out from the rows with their Corr")


def _name(row: pd.Series) -> str:
    return f"{TITLES[row['paper']]} {row['table']}: {row['row']}"


def constant_floors(cells: pd.DataFrame) -> Figure:
    """Ablated models beside the best constant prediction, a line per table: from `picture_data.against_constant`."""
    tables = list(dict.fromkeys(zip(cells["paper"], cells["table"], cells["dataset"], strict=True)))
    metrics = list(dict.fromkeys(zip(cells["metric"], cells["side"], strict=True)))
    figure, axes = plt.subplots(len(tables), len(metrics), figsize=(4 * len(metrics) + 1.5, 3.2 * len(tables)),
                                squeeze=False)  # fmt: skip
    for line, (paper, number, dataset) in zip(axes, tables, strict=True):
        here = cells[(cells["paper"] == paper) & (cells["table"] == number)]
        names = list(dict.fromkeys(here["row"]))
        for axis, (metric, side) in zip(line, metrics, strict=True):
            part = here[(here["metric"] == metric) & (here["side"] == side)]
            place = part["row"].map(names.index)
            axis.hlines(place, part["constant"], part["value"], color="0.8", lw=2, zorder=1)
            for below, style in ((False, FINE), (True, ODD)):
                axis.plot(part["value"][part["below"] == below], place[part["below"] == below], **style)
            for k in part.index[part["below"]]:
                left = part["value"][k] < part["constant"][k]
                axis.annotate(f"{part['value'][k]:g}", (part["value"][k], place[k]), (-9 if left else 9, 0),
                              fontsize=SMALL, textcoords="offset points", va="center",
                              ha="right" if left else "left")  # fmt: skip
            if len(part):
                axis.axvline(part["constant"].iloc[0], color=INK, ls=":", lw=1.5)
            better = "smaller is better" if metric == "mae" else "larger is better"
            axis.set(yticks=range(len(names)), yticklabels=names if axis is line[0] else [],
                     ylim=(len(names) - 0.5, -0.5), xlabel=f"{column(metric, side)} ({better})")  # fmt: skip
            axis.margins(x=0.2)
        line[0].set_title(f"{TITLES[paper]} Table {number}, {NAMES[dataset]}", loc="left", fontsize=11)
    return _titled(figure, f"{int(cells['below'].sum())} cells are worse than the best constant prediction (dotted)")


def capsules(readings: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Capsule vectors and couplings by reading of the votes: `picture_data.capsules`."""
    figure, axes = plt.subplots(2, len(readings), figsize=(5.6 * len(readings), 5.6), squeeze=False, sharey="row",
                                height_ratios=(1, 1.2))  # fmt: skip
    bound = max(np.abs(u).max() for _, u in readings.values())
    for (upper, lower), (name, (c, u)) in zip(axes.T, readings.items(), strict=True):
        sns.heatmap(u, cmap="PuOr", vmin=-bound, vmax=bound, cbar=False, ax=upper, xticklabels=False,
                    yticklabels=range(1, len(u) + 1))  # fmt: skip
        upper.set(xlabel="entry of the capsule vector", ylabel="capsule" if upper is axes[0, 0] else "")
        apart = np.abs(u - u[0]).max()
        upper.set_title(f"votes {name}: capsules at most {apart:.1f} apart", fontsize=11)
        steps = np.arange(1, len(c) + 1)
        lower.plot(steps, c.reshape(len(c), -1), color=BLUE, lw=1, alpha=0.7, marker="o", ms=4)
        lower.axhline(1 / c.shape[-1], color=INK, ls=":", lw=1.5)
        lower.set(xlabel="iteration", xticks=steps, ylim=(0, 1))
    axes[1, 0].set_ylabel("coupling c (dotted: 1/K)")
    return _titled(figure, "Eqs. 8 to 10 of DSRF on random votes: as printed, and with one vote per capsule")


def checklist(counts: pd.DataFrame) -> Figure:
    """What a repetition needs, per paper: `checklist.status_counts()`, index paper, columns status."""
    figure, axis = plt.subplots(figsize=(9, 0.7 * len(counts) + 1.9))
    shown = counts[[name for name in counts if counts[name].sum()]]
    left = np.zeros(len(shown))
    for (status, numbers), colour in zip(shown.items(), (BLUE, SKY, ORANGE, "0.85"), strict=False):
        bars = axis.barh([TITLES[paper] for paper in shown.index], numbers, left=left, color=colour, label=status,
                         edgecolor="white")  # fmt: skip
        ink = "white" if status == "stated" else INK
        axis.bar_label(bars, [f"{n}" if n else "" for n in numbers], label_type="center", fontsize=10, color=ink)
        left = left + numbers.to_numpy()
    axis.set(xlabel="items", ylim=(len(shown) - 0.5, -0.5))
    axis.grid(False)
    axis.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.35), fontsize=SMALL)
    total = counts.get("absent", pd.Series(dtype=int)).sum()
    return _titled(figure, f"Of what a repetition needs, {total} of {int(counts.to_numpy().sum())} items are absent")
