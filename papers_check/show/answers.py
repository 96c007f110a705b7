"""The last line of a page: its answer as a sentence, made from the numbers it rests on."""

import math
from collections.abc import Iterable, Sequence

import pandas as pd

from papers_check.judge.leads import AHEAD, BEHIND, OPEN
from papers_check.judge.verdicts import FLOOR


def number(value: float, low: float, high: float, decimals: int = 3, sign: bool = True) -> str:
    """ "+0.012 [0.003, 0.021]", or without an interval where there is none."""
    text = f"{value:{'+' if sign else ''}.{decimals}f}"
    return text if math.isnan(low) else f"{text} [{low:.{decimals}f}, {high:.{decimals}f}]"


def lead_of(line: pd.Series | dict, decimals: int = 3) -> str:
    """A line of `leads` as text: "ridge +0.254 [0.240, 0.268]"."""
    return f"{line['row']} {number(line['lead'], line['low'], line['high'], decimals)}"


def answer_of_leads(own: str, metric: str, where: str, found: pd.DataFrame, named: Sequence[str] = ()) -> str:
    """Of which rows `own` is ahead: "X in MAE here: clearly ahead of ridge; undecided against y.". Those in `named` are
    given with lead and interval.

    `where` says on which data and with how many seeds. Of rows with fewer than `FLOOR` seeds nothing is said, said so.
    """
    judged = found[found["seeds"] >= FLOOR]
    words = {AHEAD: "clearly ahead of", BEHIND: "clearly behind", OPEN: "undecided against"}
    parts = {start: list(judged.loc[judged["says"] == word, "row"]) for word, start in words.items()}
    told = "; ".join(f"{start} {listed(rows)}" for start, rows in parts.items() if rows)
    text = f"{own} in {metric} {where}: {told or 'no row has seeds enough'}."
    shown = [lead_of(line) for line in found.to_dict("records") if line["row"] in named]
    if shown:
        text += f" Lead in {metric} with 95 % interval: {'; '.join(shown)}."
    return text + wanting(found["row"], found["seeds"])


def wanting(rows: Iterable[str], seeds: Iterable[int]) -> str:
    """Of which rows nothing is said for want of seeds, a sentence; nothing where all have enough."""
    known = list(zip(rows, seeds, strict=True))
    short = [row for row, n in known if n < FLOOR]
    if 0 < len(short) < len(known):
        return f" For want of {FLOOR} seeds nothing is said of {listed(short)}."
    return few([n for _, n in known])


def few(seeds: Iterable[int]) -> str:
    """What must be said where there are too few seeds for a verdict; else nothing."""
    least = min(seeds, default=0)
    return f" With {least} seed{'s' * (least != 1)} nothing is decided: {FLOOR} are needed." if least < FLOOR else ""


def listed(names: Sequence[str]) -> str:
    """ "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"
