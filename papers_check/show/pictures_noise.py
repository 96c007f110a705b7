"""The figures of seed noise and of the calibration of verdicts: a table in, a matplotlib figure out. See `pictures`."""

from collections.abc import Sequence
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from papers_check.judge.intervals import ALPHA
from papers_check.printed.papers import NAMES, PAPERS, TITLES
from papers_check.printed.rows import METRICS, column
from papers_check.show.picture_data import EFFECTS, points
from papers_check.show.pictures import BLUE, GREY, INK, ORANGE, PURPLE, SKY, SMALL, _titled

MARKS = zip(PAPERS, cycle("vDsP"), cycle((ORANGE, PURPLE)))
PAPER_MARKS = {paper: dict(marker=marker, color=color) for paper, marker, color in MARKS}


def _score_name(score: str) -> str:
    metric, _, side = score.partition("_")
    return column(metric, side)


def _place(score: str) -> tuple[int, str]:
    metric, _, side = score.partition("_")
    return list(METRICS).index(metric), side


def seed_sds(noise: pd.DataFrame, gains: pd.DataFrame, least: int = 5) -> Figure:
    """The seed SD of every public model with `least` seeds, per score, beside the gains the papers print; in points.

    noise: `seed_noise.seed_noise`; gains: `picture_data.comparisons`. Runs that collapsed are left out.
    """
    noise = noise[(noise["seeds"] >= least) & (noise["collapsed"] == 0)]
    gains = gains.assign(score=(gains["metric"] + "_" + gains["side"]).str.strip("_"))
    datasets = [name for name in NAMES if name in set(noise["dataset"])]
    figure, axes = plt.subplots(1, len(datasets), figsize=(4.8 * len(datasets), 5), squeeze=False)
    for axis, dataset in zip(axes[0], datasets, strict=True):
        part, claimed = (frame[frame["dataset"] == dataset] for frame in (noise, gains))
        scores = sorted(set(claimed["score"]) & set(part["metric"]), key=_place)
        for y, score in enumerate(scores):
            sd = points(score, part.loc[part["metric"] == score, "sd"].to_numpy())
            axis.plot(sd, np.full(len(sd), y), "o", color=BLUE, ms=6, alpha=0.55, mew=0)
            axis.plot(np.median(sd), y, "|", color=INK, ms=17, mew=2.5)
            for place, (paper, style) in enumerate(PAPER_MARKS.items()):
                value = claimed.loc[(claimed["score"] == score) & (claimed["paper"] == paper), "gain"].to_numpy()
                offset = 0.56 * place / max(1, len(PAPERS) - 1) - 0.28
                axis.plot(points(score, value), np.full(len(value), y + offset), ls="", ms=8, mec=INK, mew=0.6, **style)
        axis.set(yticks=range(len(scores)), yticklabels=map(_score_name, scores), ylim=(len(scores) - 0.5, -0.5))
        axis.set(xscale="log", xlabel="points (log scale)", title=NAMES[dataset])
        axis.set_xticks([0.1, 0.3, 1, 3, 10], ["0.1", "0.3", "1", "3", "10"])
        axis.minorticks_off()
    handles = [plt.Line2D([], [], ls="", marker="o", color=BLUE, label="seed SD of one public model")]
    handles.append(plt.Line2D([], [], ls="", marker="|", ms=14, mew=2.5, color=INK, label="median of the models"))
    handles += [plt.Line2D([], [], ls="", mec=INK, label=f"gain printed by {TITLES[p]}", **s)
                for p, s in PAPER_MARKS.items()]  # fmt: skip
    known = gains.dropna(subset="sd_median")
    smaller = int((known["gain"] < known["sd_median"]).sum())
    _titled(figure, f"{smaller} of {len(known)} printed gains are smaller than the median SD over seeds")
    figure.legend(handles=handles, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 0.01), fontsize=SMALL)
    return figure


def gains_in_sd(gains: pd.DataFrame, seeds: int = 5) -> Figure:
    """Each printed gain in seed SDs, with its range over the models: a table of `picture_data.comparisons`.

    Filled: larger than what `seeds` runs a side would tell from nothing, at the median SD.
    """
    known = gains.dropna(subset="sd_median")
    papers = list(dict.fromkeys(known["paper"]))
    height = 0.27 * known["paper"].value_counts().max() + 2
    figure, axes = plt.subplots(1, len(papers), figsize=(7 * len(papers), height), squeeze=False, sharex=True)
    told = known["gain"] > known["detectable"]
    for axis, paper in zip(axes[0], papers, strict=True):
        part = known[known["paper"] == paper].reset_index(drop=True)
        low, high = part["gain"] / part["sd_high"], part["gain"] / part["sd_low"]
        axis.hlines(part.index, low, high, color="0.75", lw=3)
        tells = part["gain"] > part["detectable"]
        for yes, style in (
            (False, dict(marker="o", mfc="white", mec=BLUE)),
            (True, dict(marker="^", color=ORANGE, mec=INK)),
        ):
            there = part[tells == yes]
            axis.plot(there["gain_in_sd"], there.index, ls="", ms=8, mew=1.3, **style)
        axis.axvline((part["detectable"] / part["sd_median"]).iloc[0], color=INK, ls=":", lw=1.5)
        names = [f"{NAMES[d]} {c}" for d, c in part[["dataset", "column"]].to_numpy()]
        axis.set(yticks=part.index, yticklabels=names, ylim=(len(part) - 0.5, -0.5), title=TITLES[paper], xlim=(0, 10))
        axis.set_xlabel(f"printed gain / SD over seeds (dotted: what {seeds} seeds a side can tell)")
        axis.tick_params(axis="y", labelsize=SMALL)
    return _titled(figure, f"{int(told.sum())} of {len(known)} printed gains exceed what {seeds} seeds a side can tell")


def effects(table: pd.DataFrame, scores: Sequence[Sequence[str]]) -> Figure:
    """All that moves a score, one dot per model, median as a bar: a table of `picture_data.effects`.

    scores: one line of panels each, the first name that the data set has (SIMS: acc2 where others have acc2_non0).
    Values far beyond the rest are written at the right edge.
    """
    datasets = [name for name in NAMES if name in set(table.loc[~table["effect"].isin(EFFECTS[5:]), "dataset"])]
    size = (4.1 * len(datasets) + 2, 2.7 * len(scores))
    figure, axes = plt.subplots(len(scores), len(datasets), figsize=size, squeeze=False, sharey=True)
    for line, names in zip(axes, scores, strict=True):
        for axis, dataset in zip(line, datasets, strict=True):
            part = table[(table["dataset"] == dataset) & table["score"].isin(names)]
            part = part[part["score"] == next((name for name in names if name in set(part["score"])), "")]
            if part.empty:
                axis.set_axis_off()
                continue
            edge = 2 * part["value"].quantile(0.9)
            axis.axvline(0, color=INK, lw=1)
            for y, effect in enumerate(EFFECTS):
                values = part.loc[part["effect"] == effect, "value"].to_numpy()
                if not len(values):
                    continue
                if y >= 5:
                    style = list(PAPER_MARKS.values())[y - 5]
                    axis.plot(values, np.full(len(values), y), ls="", ms=9, mec=INK, mew=0.6, **style)
                    continue
                inside = values[values <= edge]
                axis.plot(inside, np.full(len(inside), y), "o", color=BLUE, ms=5, alpha=0.5, mew=0)
                axis.plot(np.median(values), y, "|", color=INK, ms=15, mew=2.5)
                if len(beyond := np.sort(values[values > edge])):
                    axis.annotate(", ".join(f"{x:.0f}" for x in beyond) + " →", (0.99, y), fontsize=8, ha="right",
                                  xycoords=("axes fraction", "data"), va="center")  # fmt: skip
            axis.axhline(4.5, color=GREY, lw=0.8)
            if (part["value"] > edge).any():
                axis.set_xlim(None, 1.2 * axis.get_xlim()[1])
            axis.set(yticks=range(len(EFFECTS)), yticklabels=EFFECTS, ylim=(len(EFFECTS) - 0.5, -0.5))
            axis.set(title=f"{NAMES[dataset]}, {_score_name(part['score'].iloc[0])}")
            axis.tick_params(axis="y", labelsize=SMALL)
    for axis in axes[-1]:
        axis.set_xlabel("points")
    return _titled(figure, "What seeds, tuning and choosing on the reported set are worth, beside the printed gains")


STYLES = {
    "normal runs, split the same way": dict(color=INK, ls="-", lw=1.5),
    "one run in ten collapses": dict(color=GREY, ls="--", lw=1.5),
    "public runs": dict(color=ORANGE, ls="", marker="^", ms=8, mec=INK, mew=0.6),
}
POOLS = {"seeded": "five seeds", "tune": "random search"}


def flag_rates(table: pd.DataFrame, sizes: Sequence[tuple[str, int, int]]) -> Figure:
    """How often a cell is flagged against the true shift, a panel per (kind, n, m): from `picture_data.flag_rates`."""
    columns = min(4, len(sizes))
    lines = -(-len(sizes) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(3.6 * columns, 3.3 * lines + 0.6), squeeze=False, sharey=True)
    for axis in axes.flat[len(sizes) :]:
        axis.remove()
    named, start = {}, []
    for axis, (kind, n, m) in zip(axes.flat, sizes, strict=False):
        part = table[(table["kind"] == kind) & (table["n"] == n) & (table["m"] == m)]
        for source, style in STYLES.items():
            here = part[part["source"] == source]
            if len(here):
                (named[source],) = axis.plot(here["shift"], here["flagged"], **style)
        start += list(part.loc[(part["source"] == "public runs") & (part["shift"] == 0), "flagged"])
        axis.axhline(ALPHA, color=GREY, ls=":", lw=1.2)
        axis.set_title(f"{POOLS[kind]}: n = {n}, m = {m}", fontsize=11)
        axis.set(ylim=(-0.02, 1.02), xlabel="true shift (SD)")
    for axis in axes[:, 0]:
        axis.set_ylabel("share flagged")
    said = f" in {min(start):.1%} to {max(start):.1%} of splits of public runs" if start else ""
    _titled(figure, f"A true match (shift 0) is flagged{said}; nominal {ALPHA:.0%}")
    figure.legend(named.values(), named.keys(), ncols=3, loc="upper center", bbox_to_anchor=(0.5, 0.01), fontsize=SMALL)
    return figure


OUTCOMES = (("compatible", SKY, "compatible, whatever m"), ("depends", "0.85", "depends on m"),
            ("incompatible", ORANGE, "outside, whatever m"))  # fmt: skip


def outcomes_by_gap(table: pd.DataFrame) -> Figure:
    """What is said where the printed mean is another model's, by the true gap: `calibration.by_gap`, a panel per m."""
    sizes = sorted(table["m"].unique())
    figure, axes = plt.subplots(1, len(sizes), figsize=(4.2 * len(sizes) + 0.5, 4.2), squeeze=False, sharey=True)
    for axis, m in zip(axes[0], sizes, strict=True):
        part = table[table["m"] == m].reset_index(drop=True)
        left = np.zeros(len(part))
        for name, colour, label in OUTCOMES:
            bars = axis.barh(part.index, part[name], left=left, color=colour, label=label, edgecolor="white")
            axis.bar_label(bars, [f"{x:.0%}" if x >= 0.08 else "" for x in part[name]], label_type="center",
                           fontsize=SMALL, color=INK)  # fmt: skip
            left = left + part[name].to_numpy()
        axis.set(yticks=part.index, yticklabels=part["gap"], ylim=(len(part) - 0.5, -0.5), xlim=(0, 1))
        axis.set(title=f"printed: mean of {m} run{'s' if m > 1 else ''}", xlabel="share")
        axis.grid(False)
    axes[0, 0].set_ylabel("gap of the two means (SD over seeds)")
    _titled(figure, "Our five seeds are of one public model, the printed mean is another's: what the verdict sees")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), ncols=3, loc="upper center", bbox_to_anchor=(0.5, 0.01),
                  fontsize=SMALL)  # fmt: skip
    return figure
