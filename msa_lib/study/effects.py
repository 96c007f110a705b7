"""What a paired comparison on planted data says, in one of a few words.

The statistics of a gap are `papers_check`'s; what comes here is a gap already taken (anything with `gap`, `interval`
and `smallest_effect`), pair by pair: the same seed, and so the same data, trains both arms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd

ALPHA = 0.05
MARGIN = 0.02  # the gain in MAE that would matter on planted data, chosen before the runs
FAMILY = (
    6  # mechanisms among which the 5 % are shared out: selection, fusion, alignment, factors, ambiguity, uncertainty
)


class PairedGap(Protocol):
    gap: float

    def interval(self, alpha: float) -> tuple[float, float]: ...

    def smallest_effect(self, alpha: float) -> float: ...


class Effect(NamedTuple):
    """What a mechanism is worth: MAE without it minus MAE with it, so that more is better."""

    gain: float
    low: float  # simultaneous 95 % interval
    high: float
    smallest: float  # the true gain that would have been seen in 80 % of such experiments
    word: str


def judged(gap: PairedGap, margin: float, comparisons: int = 1) -> Effect:
    """The effect and its word, by one interval, at level 1 - 0.05 / `comparisons` (Bonferroni).

    "helps": it lies above 0; "harms": below; "no effect larger than X": within `margin` = X, a size that was chosen
    before the runs; else "undecided". What is shown to help may still be smaller than X: the sizes stand beside it.
    """
    if not margin > 0:
        raise ValueError(f"The margin is {margin!r}; expected a gain in MAE above 0 that would matter.")
    alpha = ALPHA / comparisons
    low, high = gap.interval(alpha)
    smallest = gap.smallest_effect(alpha)
    if np.isnan([low, high]).any():  # one pair has no interval
        word = "undecided"
    elif low > 0 or high < 0:
        word = "helps" if low > 0 else "harms"
    else:
        word = f"no effect larger than {margin:g}" if max(-low, high) < margin else "undecided"
    return Effect(float(gap.gap), float(low), float(high), float(smallest), word)


def pairs(rows: pd.DataFrame, arm: str, other: str, score: str = "mae") -> tuple[np.ndarray, np.ndarray]:
    """Scores of two arms of one design, seed by seed; seeds that one of them lacks are left out."""
    both = rows.pivot_table(index=["draw", "seed"], columns="arm", values=score, aggfunc="first")
    if not {arm, other} <= set(both):
        return np.empty(0), np.empty(0)
    both = both[[arm, other]].dropna()
    return both[arm].to_numpy(), both[other].to_numpy()


def variances(rows: pd.DataFrame, score: str = "mae") -> dict[str, float]:
    """Standard deviations of a score from `rows` with several seeds per draw of the data, the same number in each:
    `training` (seeds on one draw) and `draws` (of the data, training noise taken out; 0 where that leaves nothing).

    One-way analysis of variance, method of moments. NaN without two draws of two seeds.
    """
    groups = [g[score].to_numpy() for _, g in rows.groupby("draw") if len(g) > 1]
    if len(groups) < 2:
        return {"training": np.nan, "draws": np.nan}
    if len({len(g) for g in groups}) > 1:
        raise ValueError(f"Draws have {sorted({len(g) for g in groups})} seeds; expected the same number in each.")
    within = np.mean([g.var(ddof=1) for g in groups])
    between = np.var([g.mean() for g in groups], ddof=1) - within / len(groups[0])
    return {"training": float(np.sqrt(within)), "draws": float(np.sqrt(max(0.0, between)))}


def variance_table(rows: pd.DataFrame) -> pd.DataFrame:
    """`variances` of each arm with several seeds on several draws, and of its difference to the full arm; `over`: how
    many. Seeds that some of these draws lack (runs still to be made) are left out."""
    lines = []
    for design, part in rows[rows["control"] == "positive"].groupby("design", sort=False):
        wide = part.pivot_table(index=["draw", "seed"], columns="arm", values="mae")
        gaps = wide.drop(columns="full").sub(wide["full"], axis=0).add_suffix(" minus full") if "full" in wide else None
        for name, values in pd.concat([wide, gaps], axis=1).items():
            square = values.dropna().unstack("seed")  # draws x seeds
            square = square[square.notna().sum(axis=1) > 1].dropna(axis=1)
            if min(square.shape) > 1:
                over = f"{len(square)} draws, {square.shape[1]} seeds each"
                found = variances(square.stack().rename("mae").reset_index())
                lines.append({"design": design, "mae of": name, "over": over} | found)
    return pd.DataFrame(lines, columns=["design", "mae of", "over", "training", "draws"])


def convergence(rows: pd.DataFrame, cap: int, which: Sequence[str] = ("design", "control", "arm")) -> pd.DataFrame:
    """One line per arm, told by the columns `which`: the kept epoch (median), the largest as a share of the `cap` on
    epochs, how many runs kept their very last one, and the scores."""
    marked = rows.assign(share=rows["best_epoch"] / cap, last=rows["best_epoch"] == rows["epochs"])
    of = {"seeds": ("seed", "size"), "kept epoch": ("best_epoch", "median"), "largest share": ("share", "max")}
    of |= {"at the end": ("last", "sum"), "mae": ("mae", "mean"), "sd": ("mae", "std")}
    return marked.groupby(list(which), sort=False).agg(**of).reset_index()


def table(
    rows: pd.DataFrame, comparisons, gap_of: Callable[..., PairedGap], margin: float, family: int
) -> pd.DataFrame:
    """One line per comparison and control: the oracle's gain, the learned one, and the word.

    `rows`: one per run (`mechanisms.rows_of`); `gap_of(a, b, paired=True)` takes the gap of two arrays.
    """
    from msa_lib.study.mechanisms import oracle_gain  # that module builds the rows

    lines = []
    for name, c in comparisons.items():
        for control in ("positive", "negative"):
            there = rows[(rows["design"] == c.design) & (rows["control"] == control) & (rows["model"] == c.model)]
            without, full = pairs(there, c.without, c.full)
            best = oracle_gain(c, control)
            line = {"comparison": name, "control": control, "oracle": best.gain, "seeds": len(full)}
            if len(full) > 1:
                effect = judged(gap_of(without, full, paired=True), margin, family)
                line |= {"full": full.mean(), "without": without.mean(), **effect._asdict()}
            lines.append(line)
    return pd.DataFrame(lines)


def verdict(job: Mapping, none: Mapping) -> str:
    """The word of a comparison, from its lines of a `table`: with a job, and with nothing to find."""
    if not (isinstance(job.get("word"), str) and isinstance(none.get("word"), str)):
        return "not enough seeds"
    if job["word"] == none["word"] == "helps":
        if job["low"] > none["high"]:
            return "helps; by less, too, where there is nothing to find"
        return "helps, and as well where there is nothing to find, so not by what it is named for"
    return job["word"]


def answers(found: pd.DataFrame) -> list[str]:
    """One sentence per comparison of a `table`, with interval, seeds and both controls.

    "Helps" is earned only if the mechanism helps where it has a job, and there by more than where it has none.
    """
    said, lacking = [], []
    for name, part in found.groupby("comparison", sort=False):
        lines = part.set_index("control")
        if "word" not in lines or lines["word"].isna().any():
            lacking.append(name)
            continue
        job, none = lines.loc["positive"], lines.loc["negative"]
        word = verdict(job, none)
        gains = [f"{line['gain']:+.3f} ({line['low']:+.3f} to {line['high']:+.3f})" for line in (job, none)]
        said.append(
            f"{name[0].upper()}{name[1:]}: {word}. Gain {gains[0]} of {job['oracle']:.3f} for the oracle, "
            f"{job['seeds']} seeds and draws, smallest visible {job['smallest']:.3f}; negative control {gains[1]}, "
            f"{none['word']}{'' if none['seeds'] == job['seeds'] else ', ' + str(none['seeds']) + ' seeds'}."
        )
    return said + ([f"Undecided for want of seeds: {'; '.join(lacking)}."] if lacking else [])
