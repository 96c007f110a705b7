"""The open choices of a paper as a multiverse: each alone, many jointly at random, and what hangs on which.

A universe is a setting of every switch that `papers_check` lists as open. Sizes are those of the scale and stay. What
is asked of it: how far the error moves, by which switches, and in which share of universes the paper's order of two of
its rows (the model above itself without a part) holds.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import get_args, get_type_hints

import numpy as np
import pandas as pd
from scipy import stats

from msa_lib.models import MODELS
from papers_check.checks.gaps import load_gaps
from papers_check.judge.intervals import holm
from papers_check.judge.leads import spread

FIXED = ("bert", "pair_weights", "modalities")  # what the text encoder is, a triple, which modalities there are
ABSENT = ("missing", "absent")  # of use only where a modality is taken away
# Rows of the ablations and controls of ours, that no one could mean by Eq. 4.
NO_READING = {"select": ("fixed:t", "fixed:a", "fixed:v", "random", "oracle", "argmin")}
FACTORS = (0.5, 2.0)  # a number that is open is halved and doubled
# The printed rows that take one part away, by the names of ours: the orders of the papers that a universe can upset.
ORDERS = {
    "amsgfn": ("w/o CCAM", "t-oriented", "v-oriented", "a-oriented", "w/o DMGF", "w/o TB"),
    "dsrf": ("w/o HSF", "no_routing", "no_usf", "no_rec_loss"),
}

REMOVED = {"amsgfn": "t-oriented", "dsrf": "no_routing"}  # the part that each paper is named for: selection, routing


def alternatives(model: str) -> dict[str, tuple]:
    """Switch -> the values it could also have, for every open choice of a paper that has one; sizes left out, and what
    is open about an ablation only (what stands in its place): there the whole model is none any more.
    """
    config = MODELS[model].Config
    hints, default = get_type_hints(config), config()
    gaps = load_gaps(model)
    opened = gaps.loc[gaps["variant"] == "", "switch"].str.partition(".")
    names = set(opened[opened[0] == config.__name__][2]) - {*FIXED, *ABSENT, *MODELS[model].SMALL}
    found = {}
    for name in (f.name for f in fields(config) if f.name in names):
        value = getattr(default, name)
        if choices := (True, False) if hints[name] is bool else get_args(hints[name]):
            found[name] = tuple(choice for choice in choices if choice not in (value, *NO_READING.get(name, ())))
        elif value:  # 0 stands for "none"
            found[name] = tuple(type(value)(value * factor) for factor in FACTORS)
    return found


def one_at_a_time(model: str, most: int | None = None) -> dict[str, dict]:
    """ "default" -> nothing, then "switch=value" -> that switch alone changed, for every alternative of every choice.

    Those that the model refuses, whole or without the part that is taken away (`REMOVED`), are left out. `most`: of so
    many switches only, spread over the list.
    """
    variants = [MODELS[model].VARIANTS[row] for row in ("full", REMOVED[model])]
    choices = list(alternatives(model).items())
    chosen = choices[:: max(1, len(choices) // most)][:most] if most else choices
    changed = {f"{name}={value}": {name: value} for name, values in chosen for value in values}
    possible = {k: v for k, v in changed.items() if not any(_refused(model, v | variant) for variant in variants)}
    return {"default": {}} | possible


def moves(values: pd.DataFrame, model: str, choices: Sequence[str]) -> pd.DataFrame:
    """By how much each choice moves the error, and the gap between the model without a part and whole.

    `values`: MAE by seed and label (`labelled`). Columns: choice; move, low, high: MAE with the choice minus that of
    the default, seed by seed, with its interval from five seeds on; gap: MAE without the part minus whole, under this
    choice; gap_move, gap_low, gap_high: the same of the gap; seeds. Largest move first.
    """

    def of(choice: str) -> pd.DataFrame:
        full = values[f"{model} {choice}: full"]
        return pd.DataFrame({"move": full, "gap_move": values[f"{model} {choice}: {REMOVED[model]}"] - full})

    default = of("default")
    by_seed = pd.concat([(of(c) - default).assign(choice=c) for c in choices if c != "default"]).reset_index()
    error, gap = (spread(by_seed, ["choice"], what) for what in ("move", "gap_move"))
    table = error.rename(columns={"mean": "move"})
    table["gap"] = [of(choice)["gap_move"].mean() for choice in table["choice"]]
    table[["gap_move", "gap_low", "gap_high"]] = gap[["mean", "low", "high"]]
    return table.sort_values("move", key=abs, ascending=False, ignore_index=True)


def at_random(model: str, count: int, seed: int = 0) -> dict[str, dict]:
    """ "universe 01" -> every open switch drawn, its default as likely as each alternative.

    The first n of a larger count are those of n. Combinations that the model refuses, whole or
    without one of its parts, are drawn again.
    """
    draw, found = random.Random(f"{model} {seed}"), {}
    choices = {name: (getattr(MODELS[model].Config(), name), *v) for name, v in alternatives(model).items()}
    variants = [MODELS[model].VARIANTS[row] for row in ("full", *ORDERS[model])]
    while len(found) < count:
        switches = {name: draw.choice(values) for name, values in choices.items()}
        if not any(_refused(model, switches | variant) for variant in variants):
            found[f"universe {len(found) + 1:02}"] = switches
    return found


def _refused(model: str, switches: Mapping) -> bool:
    """Whether these switches contradict each other; what a data set lacks is another question (`fits`)."""
    try:
        getattr(MODELS[model], "check", bool)(MODELS[model].Config(**switches))
    except ValueError:
        return True
    return False


def shares(universes: Mapping[str, Mapping], values: Mapping[str, float]) -> pd.DataFrame:
    """How much of the variance of a value over universes each switch explains alone, largest first.

    `universes` as from `at_random`, `values` by the same names. Columns: switch; share, omega squared of a one-way
    analysis of variance (0 is what chance gives on average; it can be below); p, of its F test; p_holm, over switches.
    """
    frame = pd.DataFrame({name: universes[name] for name in values}).T
    y = pd.Series(values, dtype=float)
    lines = []
    for switch in frame:
        groups = [part.to_numpy() for _, part in y.groupby(frame[switch].map(str)) if len(part) > 1]
        if len(groups) < 2:
            continue
        together = np.concatenate(groups)
        within = sum(((g - g.mean()) ** 2).sum() for g in groups)
        total, freedom = ((together - together.mean()) ** 2).sum(), len(groups) - 1
        noise = within / (len(together) - len(groups))
        share = (total - within - freedom * noise) / (total + noise)
        lines.append((switch, share, float(stats.f_oneway(*groups).pvalue)))
    table = pd.DataFrame(lines, columns=["switch", "share", "p"])
    table["p_holm"] = holm(table["p"])
    return table.sort_values("share", ascending=False, ignore_index=True)


def survival(full: Mapping[str, float], without: Mapping[str, float]) -> tuple[int, int, float, float]:
    """Universes in which the whole model has the lower error, of how many, with the 95 % interval of the share."""
    both = sorted(set(full) & set(without))
    won = sum(full[name] < without[name] for name in both)
    interval = stats.binomtest(won, len(both)).proportion_ci(method="wilson") if both else (np.nan, np.nan)
    return won, len(both), float(interval[0]), float(interval[1])


def labelled(model: str, universes: Mapping[str, Mapping], rows: Sequence[str] = ()) -> dict[str, tuple[str, dict]]:
    """label -> (model, switches): each universe whole and with each of `rows` of the model's variants."""
    found = {}
    for name, switches in universes.items():
        for row in ("full", *rows):
            found[f"{model} {name}: {row}"] = model, dict(switches) | MODELS[model].VARIANTS[row]
    return found
