"""Every figure of the study. Each function takes plain arrays and returns a matplotlib figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from msa_lib import MODALITIES

# One language for all figures, told apart by people who see few colours: a modality and a factor have the same colour
# everywhere, rows (models) have colours of their own and a marker each, shares are in greys.
FACTORS = ("emotion", "context", "ambiguity", "noise")
_PALETTE = sns.color_palette("colorblind", 10)
COLOURS = dict(zip(MODALITIES, _PALETTE[:3], strict=True))
FACTOR_COLOURS = dict(zip(FACTORS, (_PALETTE[i] for i in (3, 9, 4, 7)), strict=True))
OWN = {"AMSGFN": "black", "DSRF": "#882255"}  # among many rows these have a colour, the others are grey
FIXED = OWN | {"ridge": "0.5"}  # the same in every figure
ROW_COLOURS = ("#332288", "#999933", "#44AA99", *_PALETTE)  # of other rows, in their order
ORACLE = "#999933"
SHARES = "Greys"
sns.set_theme(style="whitegrid", context="notebook")
plt.rcParams.update({"figure.dpi": 72, "svg.fonttype": "none", "svg.hashsalt": "msa"})  # text stays text; no random ids


def save(figure: Figure, store: str | Path, name: str, caption: str = "") -> Path:
    """Write `<store>/figures/<name>.png` and `.svg`, the caption inside both; -> the PNG. Nothing without a store.

    The same figure gives the same bytes: no dates, no random ids.
    """
    path = Path(store) / "figures" / f"{name}.png"
    if not store:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    title = figure.get_suptitle() or name
    figure.savefig(path, dpi=110, bbox_inches="tight",
                   metadata={"Software": None, "Title": title, "Description": caption})  # fmt: skip
    figure.savefig(path.with_suffix(".svg"), bbox_inches="tight",
                   metadata={"Date": None, "Creator": None, "Title": title, "Description": caption})  # fmt: skip
    return path


def _titled(figure: Figure, title: str, synthetic: bool) -> Figure:
    figure.suptitle(f"{title}{' (synthetic data)' if synthetic else ''}", fontsize=13)
    figure.tight_layout()
    return figure


def contributions(samples: pd.DataFrame, synthetic: bool) -> Figure:
    """Distribution of the contributions and the share of each dominant modality: `measured.contributions`."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    parts = left.violinplot(samples[list(MODALITIES)].to_numpy(), positions=range(3), showmedians=True, widths=0.8)
    for body, colour in zip(parts["bodies"], COLOURS.values(), strict=True):
        body.set(facecolor=colour, alpha=0.6)
    for line in ("cbars", "cmins", "cmaxes", "cmedians"):
        parts[line].set(color="0.25", lw=1)
    left.axhline(1 / 3, color="0.5", lw=1, ls="--")
    left.set(xticks=range(3), xticklabels=MODALITIES, ylabel="contribution s (Eq. 3)", ylim=(0, 1))
    shares = dominance(samples).to_numpy()  # [S,M]
    right.bar(range(3), shares.mean(0), color=list(COLOURS.values()), alpha=0.6)
    for m in range(3):
        right.plot(np.full(len(shares), m), shares[:, m], "k.", ms=7)
    right.set(xticks=range(3), xticklabels=MODALITIES, ylabel="share it dominates (Eq. 4)", ylim=(0, 1.02))
    right.set_title("bar: mean over seeds, dot: one seed", fontsize=10)
    return _titled(figure, "Modality contributions", synthetic)


def dominance(samples: pd.DataFrame) -> pd.DataFrame:
    """Share of the samples that each modality dominates: index seed, columns the modalities."""
    counted = pd.crosstab(samples["seed"], samples["dominant"], normalize="index")
    return counted.reindex(columns=range(3), fill_value=0.0).set_axis(list(MODALITIES), axis=1)


def agreement(samples: pd.DataFrame, planted: np.ndarray) -> Figure:
    """Chosen against planted [N] dominant modality, as shares of each planted class: mean over seeds, and the seeds."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.9), width_ratios=(1, 1.1))
    chosen = samples.pivot(index="seed", columns="sample", values="dominant").to_numpy()  # [S,N]
    table = np.array([[np.mean(chosen[:, planted == t] == m) for m in range(3)] for t in range(3)])
    sns.heatmap(table, annot=True, fmt=".2f", vmin=0, vmax=1, cmap=SHARES, cbar=False, ax=left,
                xticklabels=MODALITIES, yticklabels=MODALITIES)  # fmt: skip
    left.set(xlabel="chosen", ylabel="planted")
    left.set_title("mean over seeds; rows sum to 1", fontsize=10)
    hits = (chosen == planted).mean(1)
    right.plot(np.arange(1, len(hits) + 1), hits, "ko")
    majority = np.bincount(planted, minlength=3).max() / len(planted)
    right.axhline(majority, color="0.5", ls="--", label="always the most frequent one")
    right.axhline(1 / 3, color="0.5", ls=":", label="chance")
    right.set(xlabel="seed", ylabel="share chosen as planted", ylim=(0, 1), xticks=range(1, len(hits) + 1))
    right.legend(fontsize=9)
    return _titled(figure, "Dominant modality, chosen against planted", synthetic=True)


def against(s: np.ndarray, x: np.ndarray, xlabel: str, synthetic: bool, bins: int = 8) -> Figure:
    """Mean contribution of each modality within quantile bins of x; x [N] for all modalities, or [N,M] its own each."""
    columns = np.repeat(x[:, None], 3, 1) if x.ndim == 1 else x
    figure, axis = plt.subplots(figsize=(6.5, 4))
    for m, (name, colour) in enumerate(COLOURS.items()):
        edges = np.unique(np.quantile(columns[:, m], np.linspace(0, 1, bins + 1)))
        group = np.clip(np.searchsorted(edges, columns[:, m], side="right") - 1, 0, len(edges) - 2)
        present = [g for g in range(len(edges) - 1) if (group == g).sum() > 1]
        centre = [columns[group == g, m].mean() for g in present]
        mean = [s[group == g, m].mean() for g in present]
        error = [1.96 * s[group == g, m].std(ddof=1) / np.sqrt((group == g).sum()) for g in present]
        axis.errorbar(centre, mean, error, marker="o", color=colour, label=name, capsize=2)
    axis.set(xlabel=xlabel, ylabel="mean contribution s", ylim=(0, 1))
    axis.legend(title="bars: 95 % of the mean", fontsize=9, title_fontsize=9)
    return _titled(figure, f"Contribution against {xlabel}", synthetic)


def labels(named: Mapping[str, np.ndarray], title: str, synthetic: bool) -> Figure:
    """Label histograms side by side, as shares of samples."""
    figure, axes = plt.subplots(1, len(named), figsize=(4 * len(named), 3), squeeze=False)
    for axis, (name, values) in zip(axes[0], named.items(), strict=True):
        span = 3 if np.abs(values).max() > 1 else 1
        axis.hist(
            values,
            bins=np.arange(-span - 0.1, span + 0.2, 0.2),
            weights=np.full(len(values), 1 / len(values)),
            color="0.4",
        )
        axis.set(title=name, xlabel="label", ylabel="share")
    return _titled(figure, title, synthetic)


def learning_curves(history: Sequence[Mapping], floor: float, title: str, synthetic: bool) -> Figure:
    """Training loss terms and validation MAE by epoch, with the MAE of the label mean as a line."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5))
    epochs = [record["epoch"] for record in history]
    for term in dict.fromkeys(term for record in history for term in record["loss"]):  # stages differ in theirs
        left.plot(epochs, [record["loss"].get(term, math.nan) for record in history], label=term)
    left.set(xlabel="epoch", ylabel="training loss term", yscale="log")
    left.legend(fontsize=9, ncols=2)
    right.plot(epochs, [record["valid"]["mae"] for record in history], color="k")
    right.axhline(floor, color="0.5", ls="--", label="label mean")
    right.set(xlabel="epoch", ylabel="validation MAE", ylim=(0, None))
    right.legend()
    return _titled(figure, title, synthetic)


def couplings(found: pd.DataFrame, synthetic: bool) -> Figure:
    """Mean coupling of each factor with each capsule, first seed, one column per iteration: `measured.routing`."""
    found = found[found["seed"] == found["seed"].min()]
    rows, iterations = list(found["row"].unique()), sorted(found["iteration"].unique())
    size = (3.1 * len(iterations) + 1.2, 2.7 * len(rows))
    figure, axes = plt.subplots(len(rows), len(iterations), figsize=size, squeeze=False, sharex=True, sharey=True)
    for line, name in zip(axes, rows, strict=True):
        for axis, i in zip(line, iterations, strict=True):
            part = found[(found["row"] == name) & (found["iteration"] == i)]
            table = part.pivot(index="factor", columns="capsule", values="coupling").loc[list(FACTORS)]
            sns.heatmap(table, annot=True, fmt=".2f", vmin=0, vmax=1, cmap=SHARES, cbar=False, ax=axis)
            axis.set(xlabel="", ylabel="")
            axis.set_title(f"{name}, iteration {i}", fontsize=10)
            axis.tick_params(axis="y", rotation=0)
    figure.supxlabel("capsule", fontsize=11)
    return _titled(figure, "Routing coefficients, mean over samples and modalities, one seed", synthetic)


def coupling_entropy(found: pd.DataFrame, capsules: int, synthetic: bool) -> Figure:
    """Entropy of a factor's coupling over the capsules, by iteration: `measured.routing`; thin lines are seeds."""
    rows = list(found["row"].unique())
    figure, axes = plt.subplots(1, len(rows), figsize=(4.6 * len(rows), 3.8), squeeze=False, sharey=True)
    for axis, name in zip(axes[0], rows, strict=True):
        for factor, colour in FACTOR_COLOURS.items():
            part = found[(found["row"] == name) & (found["factor"] == factor)]
            lines = part.pivot(index="iteration", columns="seed", values="entropy")
            axis.plot(lines.index, lines, color=colour, lw=0.8, alpha=0.5)
            axis.plot(lines.index, lines.mean(axis=1), color=colour, marker="o", label=factor)
        axis.axhline(np.log(capsules), color="0.5", ls="--", lw=1, label="ln K (uniform)")
        axis.set(title=name, xlabel="iteration", xticks=lines.index, ylim=(0, None))
    axes[0, 0].set_ylabel("entropy of c (nats)")
    axes[0, -1].legend(fontsize=8)
    return _titled(figure, "How decided is the routing?", synthetic)


def factor_bars(found: pd.DataFrame, synthetic: bool) -> Figure:
    """Mean uncertainty and weight by factor and modality: `measured.routing`; a dot is one seed."""
    titles = {"uncertainty": "uncertainty u", "weight": "weight (Eq. 13)"}
    present = [name for name in MODALITIES if name in set(found["modality"])]
    figure, axes = plt.subplots(1, 2, figsize=(10.4, 3.8))
    for axis, (column, title) in zip(axes, titles.items(), strict=True):
        for f, (factor, colour) in enumerate(FACTOR_COLOURS.items()):
            table = found[found["factor"] == factor].pivot(index="modality", columns="seed", values=column)
            place = np.arange(len(present)) + (f - 1.5) * 0.2
            axis.bar(place, table.loc[present].mean(axis=1), 0.2, color=colour, alpha=0.7, label=factor)
            axis.plot(place, table.loc[present], "k.", ms=4)
        axis.set(xticks=range(len(present)), xticklabels=present, title=title, ylim=(0, 1.3 * found[column].max()))
    axes[0].legend(fontsize=8, ncols=4, loc="upper center")
    return _titled(figure, "Uncertainty and weight of the factors", synthetic)


def probe_grid(found: pd.DataFrame, synthetic: bool) -> Figure:
    """Skill and shuffled control of every factor on every target: columns vector, target, skill, control; means."""
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 3.9))
    for axis, column, title in zip(
        axes,
        ("skill", "control"),
        ("skill: 0 nothing, 1 everything", "shuffled targets: $R^2$, accuracy, area under ROC, $R^2$"),
        strict=True,
    ):
        table = found.pivot_table(index="vector", columns="target", values=column, sort=False, dropna=False)
        sns.heatmap(table, annot=True, fmt=".2f", vmin=0, vmax=1, cmap=SHARES, cbar=False, ax=axis)
        axis.set(xlabel="", ylabel="")
        axis.set_title(title, fontsize=10)
        axis.tick_params(axis="y", rotation=0)
    return _titled(figure, "What each factor carries, by linear probes", synthetic)


def weights_under_noise(found: pd.DataFrame, synthetic: bool) -> Figure:
    """Factor weights of the modality that gets noisy: columns seed, modality, level, factor, weight."""
    present = list(found["modality"].unique())
    figure, axes = plt.subplots(1, len(present), figsize=(4 * len(present), 3.8), sharey=True, squeeze=False)
    for axis, modality in zip(axes[0], present, strict=True):
        sns.lineplot(found[found["modality"] == modality], x="level", y="weight", hue="factor", marker="o", ax=axis,
                     palette=FACTOR_COLOURS, errorbar=("pi", 100), legend=modality == present[-1])  # fmt: skip
        axis.axhline(0.25, color="0.5", ls="--", lw=1)
        axis.set(title=f"noise in {modality}", xlabel="noise / signal (deviations)")
    axes[0, 0].set(ylabel="factor weight of that modality", ylim=(0, 1.25 * found["weight"].max()))
    axes[0, -1].legend(fontsize=8, ncols=2, loc="upper center")
    return _titled(figure, "Factor weights under test-time noise, band over seeds", synthetic)


def robustness(found: pd.DataFrame, metric: str, synthetic: bool) -> Figure:
    """Curves of a metric against noise and against missing rate: columns row, seed, kind, modality, level, <metric>."""
    present, names = list(found["modality"].unique()), list(found["row"].unique())
    figure, axes = plt.subplots(2, len(present), figsize=(4 * len(present), 7), sharey=True, squeeze=False)
    palette = row_colours(names)
    word = {"mae": "MAE", "corr": "Corr"}[metric]
    for line, kind in zip(axes, ("noise", "missing"), strict=True):
        for axis, modality in zip(line, present, strict=True):
            part = found[(found["kind"] == kind) & (found["modality"] == modality)]
            legend = kind == "noise" and modality == present[-1]
            sns.lineplot(part, x="level", y=metric, hue="row", style="row", markers=True, dashes=False, ax=axis,
                         palette=palette, errorbar=("pi", 100), legend=legend)  # fmt: skip
            what = "noise / signal (deviations)" if kind == "noise" else "share of test samples without it"
            axis.set(title=f"{modality}, {kind}", xlabel=what, ylabel=word)
    handles, names = axes[0, -1].get_legend_handles_labels()
    axes[0, -1].get_legend().remove()
    _titled(figure, f"{word} with one modality corrupted", synthetic)
    figure.legend(handles, names, loc="upper center", bbox_to_anchor=(0.5, 0.01), fontsize=10, ncols=len(names))
    return figure


def row_colours(names: Sequence[str]) -> dict:
    """The studied models and ridge look the same everywhere; other rows take the colours that are left, in order."""
    left = list(ROW_COLOURS)
    return {name: FIXED[name] if name in FIXED else left.pop(0) for name in names}


def gains(found: pd.DataFrame, margin: float) -> Figure:
    """Gains of `effects.table`: what was learned with its interval, and what an oracle gains; a panel per control."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 0.4 * found["comparison"].nunique() + 2), sharey=True)
    for ax, (control, part) in zip(axes, found.groupby("control", sort=False), strict=True):
        y = np.arange(len(part))[::-1]
        ax.axvspan(-margin, margin, color="0.9", zorder=0)
        ax.axvline(0, color="0.4", lw=1)
        ax.plot(part["oracle"], y, "D", color=ORACLE, mfc="none", label="oracle")
        reach = np.vstack([part["gain"] - part["low"], part["high"] - part["gain"]])
        ax.errorbar(part["gain"], y, xerr=reach, fmt="o", color="black", ms=4, capsize=3, label="learned")
        ax.locator_params(axis="x", nbins=6)
        ax.set_ylim(-0.6, len(part) - 0.4)
        ax.set(title=f"{control} control", yticks=y, yticklabels=part["comparison"])
        ax.set_xlabel("gain in MAE: the mechanism helps ▸")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="upper right", fontsize="small", ncols=2)
    return _titled(figure, "What each mechanism is worth", True)


def doses(errors: pd.DataFrame, found: pd.DataFrame, margin: float, synthetic: bool) -> Figure:
    """Errors by how much audio and vision tell (`doses.worth`), then the gain of each mechanism (`doses.table`); a
    hollow square is the highest level with the cue hidden."""
    names = list(found["comparison"].unique())
    columns = math.ceil((len(names) + 1) / 2)
    figure, axes = plt.subplots(2, columns, figsize=(3.9 * columns, 7.4), squeeze=False)
    first, *panels = axes.flat
    shown = errors[errors["control"] == "positive"]
    styles = {"ridge T": ":", "ridge": "-", "no cue": "--", "cue": "-.", "amsgfn": "-", "dsrf": "-"}
    said = {"ridge T": "ridge, text alone", "no cue": "oracle, no cue", "cue": "oracle, cue",
            "amsgfn": "AMSGFN", "dsrf": "DSRF"}  # fmt: skip
    colours = dict(zip(styles, (FIXED["ridge"], FIXED["ridge"], ORACLE, ORACLE, *OWN.values()), strict=True))
    for name, style in styles.items():
        first.plot(shown["dose"], shown[name], style, color=colours[name], marker="o", ms=4, label=said.get(name, name))
    first.set(title="test MAE", ylim=(0, None))
    first.legend(fontsize=8)
    low, high = found[["low", "gain"]].min().min(), found[["high", "gain"]].max().max()  # one seed has a gain alone
    for axis, name in zip(panels, names, strict=False):
        axis.axhspan(-margin, margin, color="0.9", zorder=0)
        axis.axhline(0, color="0.4", lw=1)
        for control, marker, fill, line, aside in (
            ("positive", "o", "black", "-", 0.0),
            ("negative", "s", "white", "", 0.04),
        ):
            part = found[(found["comparison"] == name) & (found["control"] == control)]
            reach = np.abs(part[["low", "high"]].to_numpy().T - part["gain"].to_numpy())
            axis.errorbar(part["dose"] + aside, part["gain"], reach, fmt=marker + line, color="black", mfc=fill, ms=6,
                          capsize=3, lw=1, zorder=3)  # fmt: skip
        axis.set(title=name, ylim=(max(low, -1.0) * 1.1, min(high, 1.0) * 1.1))
    for axis in panels[len(names) :]:
        axis.set_axis_off()
    for axis in axes[:, 0]:
        axis.set_ylabel("test MAE" if axis is first else "gain in MAE")
    figure.supxlabel("correlation of audio's and vision's evidence with the label (mean of the two)", fontsize=11)
    text = "Planted" if synthetic else "Real"
    return _titled(figure, f"{text} text, planted audio and vision: does the mechanism pay?", synthetic)


def leads(found: pd.DataFrame, own: str, metric: str, synthetic: bool) -> Figure:
    """By how much each row is behind `own`, with its interval: columns row, lead, low, high (own better: positive).

    Filled where `says` decides (after Holm); without that column, where the row's own interval leaves 0 out.
    """
    figure, axis = plt.subplots(figsize=(8, 0.36 * len(found) + 1.4))
    place = np.arange(len(found))[::-1]
    judged = "says" in found
    clear = found["says"] != "undecided" if judged else (found["low"] > 0) | (found["high"] < 0)
    reach = np.abs(found[["low", "high"]].to_numpy().T - found["lead"].to_numpy())
    for chosen, fill in ((clear, "black"), (~clear, "white")):
        axis.errorbar(found["lead"][chosen], place[chosen], xerr=reach[:, chosen], fmt="o", color="black", mfc=fill,
                      capsize=3, ms=6)  # fmt: skip
    axis.axvline(0, color="0.5", ls="--", lw=1)
    axis.set(yticks=place, yticklabels=found["row"], xlabel=f"{metric} of the row minus that of {own}: worse than it ▸")
    none = found["low"].isna().all()
    filled = "after Holm over the rows, not 0" if judged else "without 0, each row for itself"
    axis.set_title("no intervals: too few seeds" if none else f"95 % intervals; filled: {filled}", fontsize=10)
    return _titled(figure, f"What each row loses against {own}", synthetic)


def specification_curve(
    errors: Mapping[str, float],
    settings: Mapping[str, Mapping],
    switches: Sequence[str],
    middle: float,
    title: str,
    synthetic: bool,
) -> Figure:
    """Universes by their error, best first, their `middle` (median) as a line; below, the values of some `switches`."""
    order = sorted(errors, key=errors.get)
    values = {s: list(dict.fromkeys(sorted((settings[u][s] for u in order), key=str))) for s in switches}
    lines = [(s, value) for s in switches for value in values[s]]
    figure, (top, below) = plt.subplots(
        2, 1, figsize=(9, 3 + 0.24 * len(lines)), sharex=True, height_ratios=(3, 0.24 * len(lines))
    )
    top.plot(range(len(order)), [errors[u] for u in order], "ko", ms=5)
    top.axhline(middle, color="0.5", ls="--", lw=1, label="median universe")
    top.set(ylabel="test MAE")
    top.legend()
    for place, (switch, value) in enumerate(lines):
        at = [k for k, u in enumerate(order) if settings[u][switch] == value]
        below.plot(at, [place] * len(at), "|", color=_PALETTE[switches.index(switch) % 10], ms=9, mew=2)
    below.set(yticks=range(len(lines)), yticklabels=[f"{s} = {v}" for s, v in lines], xlabel="universe, by its MAE")
    below.tick_params(labelsize=8)
    below.invert_yaxis()
    return _titled(figure, title, synthetic)
