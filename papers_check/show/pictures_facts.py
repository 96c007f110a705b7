"""A picture for each of the facts that matter most: finding id -> figure, made of a table of `picture_data`
or `picture_data_facts`.

Nothing is told by colour alone: an orange bar is hatched, a mark has its word beside it.
"""

import textwrap
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from papers_check.checks import checklist
from papers_check.printed.papers import TITLES
from papers_check.show import picture_data, picture_data_facts, pictures
from papers_check.show.pictures import BLUE, GREY, INK, ORANGE, SKY, SMALL, _titled


def _bars(axis, places, values, odd, **style) -> None:
    """Horizontal bars: blue, or orange and hatched where `odd`."""
    for chosen, look in ((~odd, dict(color=BLUE)), (odd, dict(color=ORANGE, hatch="//"))):
        axis.barh(places[chosen], values[chosen], edgecolor=INK, lw=0.6, **look, **style)


def dots(table: pd.DataFrame, title: str) -> Figure:
    """A mark where something stands, with its word where it is more than "stands"; a dash of the grid where not."""
    width = 1.2 * table.shape[1] + 0.11 * max(map(len, table.index)) + 1
    figure, axis = plt.subplots(figsize=(width, 0.5 * len(table) + 2.2))
    for y, (_, line) in enumerate(table.iterrows()):
        for x, word in enumerate(line):
            if word:
                axis.plot(x, y, marker="o", ms=15, color=BLUE if word != "made" else SKY, mec=INK, mew=0.8)
                if word != "stands":
                    axis.annotate(word, (x, y), (12, 0), textcoords="offset points", va="center", fontsize=SMALL)
    names = [textwrap.fill(name, 15) for name in table.columns]
    axis.set(xticks=range(table.shape[1]), yticks=range(len(table)), yticklabels=table.index,
             xlim=(-0.5, table.shape[1] - 0.3), ylim=(len(table) - 0.5, -0.5))  # fmt: skip
    axis.set_xticks(range(table.shape[1]), names, fontsize=SMALL)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    return _titled(figure, title)


def modalities() -> Figure:
    """DSRF Table 3, the rows without a modality that cost little: drop per column."""
    table = picture_data_facts.without_a_modality()
    table = table[(table["paper"] == "dsrf") & (table["row"] != "w/o language")]
    groups = list(table.groupby("row", sort=False))
    figure, axes = plt.subplots(1, len(groups), figsize=(10, 3.6), sharey=True, sharex=True, squeeze=False)
    for axis, (row, part) in zip(axes[0], groups, strict=True):
        places = np.arange(len(part))
        _bars(axis, places, part["drop"].to_numpy(), part["wrong"].to_numpy())
        for y, value in zip(places, part["drop"], strict=True):
            axis.annotate(f"{value:+.2f}", (max(value, 0), y), (4, 0), textcoords="offset points", va="center",
                          fontsize=SMALL)  # fmt: skip
        axis.axvline(0, color=INK, lw=1.2)
        axis.set(title=row, xlabel="lost against the full model (points)")
        axis.set_yticks(places, part["column"])
        axis.margins(x=0.18)
    axes[0, 0].invert_yaxis()
    wrong = int(table["wrong"].sum())
    return _titled(figure, f"DSRF Table 3: {wrong} of {len(table)} scores are higher without the modality (hatched)")


def missing_row() -> Figure:
    """AMSGFN Table 6: the drops per row, and those stated of a row that is not there."""
    table = picture_data_facts.unprinted_row()
    columns = [
        name for name in dict.fromkeys(table["column"]) if not table.loc[~table["printed"], "column"].ne(name).all()
    ]
    rows = list(dict.fromkeys(table["row"]))
    figure, axes = plt.subplots(1, len(columns), figsize=(11, 3.6), sharey=True, squeeze=False)
    for axis, name in zip(axes[0], columns, strict=True):
        part = table[table["column"] == name].set_index("row").reindex(rows)
        places = np.arange(len(rows))
        _bars(axis, places, part["drop"].to_numpy(), ~part["printed"].to_numpy(bool))
        for y, value in zip(places, part["drop"], strict=True):
            axis.annotate(f"{value:.2f}", (value, y), (3, 0), textcoords="offset points", va="center", fontsize=SMALL)
        axis.set(title=name, xlabel="drop (points)")
        axis.set_yticks(places, [f"{row} (text only)" if row == "w/o Cor" else row for row in rows])
        axis.margins(x=0.18)
    axes[0, 0].invert_yaxis()
    return _titled(figure, "AMSGFN Table 6: the drops of w/o Cor stand in the text, the row in no table (hatched)")


def one_softmax() -> Figure:
    """One class distribution, and two scores that can be read from it."""
    table = picture_data_facts.readouts()
    likeliest = table.loc[table["probability"].idxmax(), "label"]
    expected = float((table["label"] * table["probability"]).sum())
    figure, axis = plt.subplots(figsize=(7.5, 3.4))
    axis.bar(table["label"], table["probability"], color=SKY, edgecolor=INK, lw=0.6, width=0.8)
    for value, style, name in ((likeliest, "-", "likeliest class"), (expected, "--", "expected value")):
        axis.axvline(value, color=INK, ls=style, lw=2, label=f"{name}: {value:.2f}")
    axis.set(xlabel="sentiment class (a toy distribution)", ylabel="probability")
    axis.legend(fontsize=SMALL)
    return _titled(
        figure, f"One softmax, two scores {abs(likeliest - expected):.2f} apart; which one MAE is of is not said"
    )


def margins() -> Figure:
    """The printed gains in standard deviations over seeds of public runs."""
    table = picture_data_facts.margins_in_noise()
    papers = list(dict.fromkeys(table["paper"]))
    figure, axes = plt.subplots(1, len(papers), figsize=(12, 0.26 * table["paper"].value_counts().max() + 1.6),
                                squeeze=False, sharex=True)  # fmt: skip
    for axis, paper in zip(axes[0], papers, strict=True):
        part = table[table["paper"] == paper].sort_values("gain_in_sd", ascending=False)
        places = np.arange(len(part))
        _bars(axis, places, part["gain_in_sd"].to_numpy(), part["gain_in_sd"].to_numpy() < 1)
        axis.axvline(1, color=INK, lw=1.5, ls="--")
        axis.set_yticks(places, part["name"], fontsize=SMALL)
        axis.set(title=TITLES[paper], xlabel="gain over the runner-up, in SD over seeds of public runs")
    small = int((table["gain_in_sd"] < 1).sum())
    return _titled(
        figure, f"{small} of {len(table)} printed gains are below one standard deviation over seeds (hatched)"
    )


def two_sources() -> Figure:
    """AMSGFN on CH-SIMS: each gain over the best printed baseline and over a listed one as published."""
    table = picture_data_facts.two_sources()
    figure, axis = plt.subplots(figsize=(8.5, 0.6 * len(table) + 1.9))
    places = np.arange(len(table))
    axis.hlines(places, table["published"], table["printed"], color=GREY, lw=2)
    axis.plot(table["printed"], places, ls="", marker="o", ms=10, color=BLUE, mec=INK, label="best baseline it prints")
    axis.plot(
        table["published"],
        places,
        ls="",
        marker="^",
        ms=11,
        color=ORANGE,
        mec=INK,
        label="listed baseline as published",
    )
    for value, name, by in (("printed", 9, "printed_by"), ("published", -16, "published_by")):
        for y, number, who in zip(places, table[value], table[by], strict=True):
            axis.annotate(f"{number:+.2f} {who}", (number, y), (0, name), textcoords="offset points", ha="center",
                          fontsize=SMALL)  # fmt: skip
    axis.axvline(0, color=INK, lw=1.2)
    axis.margins(x=0.15)
    axis.set_yticks(places, table["column"])
    axis.set(xlabel="gain of AMSGFN on CH-SIMS (points)", ylim=(len(table) - 0.4, -0.6))
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.28), ncols=2, fontsize=SMALL)
    return _titled(figure, "The same own row, over two rows of its baselines")


def names() -> Figure:
    table = picture_data_facts.marks("names")
    lost = [
        name for name in table.index if (table.loc[name] != "").sum() and not table.loc[name, "its loss is defined"]
    ]
    return dots(table, f"DSRF: names of modules and losses, and where they stand; no loss defined: {', '.join(lost)}")


def reads() -> Figure:
    return dots(
        picture_data_facts.marks("reads"),
        "DSRF: the equations that make and read each quantity; Eq. 16 gives the prediction",
    )


def robustness() -> Figure:
    table = picture_data_facts.tested()
    never = int((table == "").all().sum())
    return dots(table, f"What the result tables show; the last {never} columns stand in none")


PICTURES: dict[str, Callable[[], Figure]] = {
    "dsrf-claim-ablation-modalities": modalities,
    "amsgfn-missing-ablation-cor-row": missing_row,
    "dsrf-missing-module-names": names,
    "dsrf-conflict-eq11-unused-reconstruction": reads,
    "dsrf-arithmetic-eq8-equal-capsules": lambda: pictures.capsules(picture_data.capsules()),
    "dsrf-missing-eq16-softmax-mae": one_softmax,
    "amsgfn-gap-open-choices": lambda: pictures.checklist(checklist.status_counts()),
    "both-missing-spread": margins,
    "both-missing-robustness": robustness,
    "amsgfn-conflict-own-list-sims": two_sources,
}


def drawn() -> dict[str, bytes]:
    """Finding id -> the picture of that fact as a small PNG."""
    return {name: pictures.compact(draw()) for name, draw in PICTURES.items()}
