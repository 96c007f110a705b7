"""Every figure of the study. Each function takes plain arrays and returns a matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from msa_lib import MODALITIES

COLOURS = dict(zip(MODALITIES, sns.color_palette("colorblind", 3), strict=True))
sns.set_theme(style="whitegrid", context="notebook")


def save(figure: Figure, store: str | Path, name: str) -> Path:
    """Write `<store>/figures/<name>.png`."""
    path = Path(store) / "figures" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})
    return path


def _titled(figure: Figure, title: str, synthetic: bool) -> Figure:
    figure.suptitle(f"{title}{' (synthetic data)' if synthetic else ''}")
    figure.tight_layout()
    return figure


def contributions(s: Sequence[np.ndarray], dominant: Sequence[np.ndarray], synthetic: bool) -> Figure:
    """Distribution of the contributions s [N,M] and the share of each dominant modality [N]; one entry per seed."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    parts = left.violinplot(np.concatenate(list(s)), positions=range(3), showmedians=True, widths=0.8)
    for body, colour in zip(parts["bodies"], COLOURS.values(), strict=True):
        body.set(facecolor=colour, alpha=0.6)
    left.axhline(1 / 3, color="0.5", lw=1, ls="--")
    left.set(xticks=range(3), xticklabels=MODALITIES, ylabel="contribution s (Eq. 3)", ylim=(0, 1))
    shares = np.array([[np.mean(p == m) for m in range(3)] for p in dominant])  # [S,M]
    right.bar(range(3), shares.mean(0), color=list(COLOURS.values()), alpha=0.6)
    for m in range(3):
        right.plot(np.full(len(shares), m), shares[:, m], "k.", ms=7)
    right.set(xticks=range(3), xticklabels=MODALITIES, ylabel="share it dominates (Eq. 4)", ylim=(0, 1.02))
    right.set_title("bar: mean over seeds, dot: one seed", fontsize=10)
    return _titled(figure, "Modality contributions", synthetic)


def agreement(dominant: Sequence[np.ndarray], planted: np.ndarray) -> Figure:
    """Chosen against planted dominant modality, as shares of each planted class, one panel per seed."""
    figure, axes = plt.subplots(1, len(dominant), figsize=(3.6 * len(dominant) + 1, 3.6), squeeze=False)
    for axis, (p, number) in zip(axes[0], zip(dominant, range(len(dominant)), strict=True), strict=True):
        table = np.array([[np.mean(p[planted == t] == m) for m in range(3)] for t in range(3)])
        sns.heatmap(table, annot=True, fmt=".2f", vmin=0, vmax=1, cmap="Blues", cbar=False, ax=axis,
                    xticklabels=MODALITIES, yticklabels=MODALITIES)  # fmt: skip
        axis.set(xlabel="chosen", ylabel="planted" if number == 0 else "")
        axis.set_title(f"seed {number + 1}: {np.mean(p == planted):.2f} agree", fontsize=10)
    return _titled(figure, "Dominant modality, chosen against planted", synthetic=True)


def against(s: np.ndarray, x: np.ndarray, xlabel: str, synthetic: bool, bins: int = 8) -> Figure:
    """Mean contribution of each modality within quantile bins of x; x [N] for all modalities, or [N,M] its own each."""
    columns = np.repeat(x[:, None], 3, 1) if x.ndim == 1 else x
    figure, axis = plt.subplots(figsize=(6, 4))
    for m, (name, colour) in enumerate(COLOURS.items()):
        edges = np.unique(np.quantile(columns[:, m], np.linspace(0, 1, bins + 1)))
        group = np.clip(np.searchsorted(edges, columns[:, m], side="right") - 1, 0, len(edges) - 2)
        present = [g for g in range(len(edges) - 1) if (group == g).sum() > 1]
        centre = [columns[group == g, m].mean() for g in present]
        mean = [s[group == g, m].mean() for g in present]
        error = [1.96 * s[group == g, m].std(ddof=1) / np.sqrt((group == g).sum()) for g in present]
        axis.errorbar(centre, mean, error, marker="o", color=colour, label=name, capsize=2)
    axis.set(xlabel=xlabel, ylabel="mean contribution s", ylim=(0, 1))
    axis.legend(title="bars: 95 % of the mean", fontsize=9)
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
    for term in history[0]["loss"]:
        left.plot(epochs, [record["loss"][term] for record in history], label=term)
    left.set(xlabel="epoch", ylabel="training loss term", yscale="log")
    left.legend(fontsize=9, ncols=2)
    right.plot(epochs, [record["valid"]["mae"] for record in history], color="k")
    right.axhline(floor, color="0.5", ls="--", label="label mean")
    right.set(xlabel="epoch", ylabel="validation MAE", ylim=(0, None))
    right.legend()
    return _titled(figure, title, synthetic)
