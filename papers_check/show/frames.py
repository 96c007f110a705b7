"""Tables for notebooks: an HTML frame, with the same as plain text where HTML cannot be shown.

Nothing in them depends on the moment or the machine, so that nbval can compare them. All text is escaped. Shades are
said in words, too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import jinja2
import numpy as np
import pandas as pd

from papers_check.judge import relations, verdicts
from papers_check.judge.judged_tables import MARKS, JudgedTables
from papers_check.judge.side_by_side import ours_text
from papers_check.printed.papers import is_own
from papers_check.printed.rows import column
from papers_check.printed.units import MISSING
from papers_check.show.plain_text import as_text, cell_text
from papers_check.show.report import TONES

SHADES = {"for": "#d6e8f7", "against": "#fbdcc0", "between": "#f2eecb"}  # blue, orange, straw: no red against green
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("papers_check.show"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Frame:
    """What a notebook shows of a table: `html` where it can, `text` elsewhere."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Cell:
    """Printed | ours ± SD | interval | verdict, as texts; `why` is the sentence behind the verdict."""

    printed: str
    ours: str
    interval: str = ""
    verdict: str = ""
    why: str = ""

    @property
    def shade(self) -> str:
        """The colour behind the cell; empty for a word that says neither yes nor no."""
        word = self.verdict.removesuffix(relations.CONSTRUCTED)
        if word != self.verdict:
            return ""  # it says nothing about the paper
        return next((SHADES[tone] for tone, words in TONES.items() if word in words), "")


def frame(table: pd.DataFrame, caption: str = "") -> Frame:
    """Any table: floats with six significant digits, missing values a dash, the index unless it merely counts."""
    shown = table if isinstance(table.index, pd.RangeIndex) else table.reset_index()
    lines = [[cell_text(value) for value in line] for line in shown.itertuples(index=False, name=None)]
    numbers = [pd.api.types.is_numeric_dtype(shown.iloc[:, k]) for k in range(shown.shape[1])]
    html = _ENVIRONMENT.get_template("frame.html.j2").render(
        caption=caption, names=[str(name) for name in shown.columns], lines=lines, numbers=numbers
    )
    return Frame(html, "\n".join(filter(None, [caption, as_text(table)])))


def judged_frame(judged: JudgedTables, dataset: str, caption: str = "") -> Frame:
    """One printed table on one data set: printed | ours ± SD | interval | verdict, shaded by the verdict.

    On real data interval and verdict are those of the printed number: where a single run of ours would lie. On
    synthetic data no printed number is judged: the interval is the lead of the paper's own row over this one in our
    runs, in the unit of the column and positive where it is ahead, and the verdict whether the printed order of the two
    is there. Rows that are not printed come last.
    """
    cells = judged.cells[judged.cells["dataset"] == dataset]
    synthetic = bool(cells.loc[cells["n"] > 0, "synthetic"].any())
    leads = _leads(judged.relations[judged.relations["dataset"] == dataset]) if synthetic else {}
    grid: dict[str, dict[str, Cell]] = {}
    for line in cells.to_dict("records"):
        row = line["row"] + MARKS.get(line["fidelity"], "")
        grid.setdefault(row, {})[column(line["metric"], line["side"])] = _cell(line, leads)
    columns = list(dict.fromkeys(name for part in grid.values() for name in part))
    for line in judged.extras[judged.extras["dataset"] == dataset].to_dict("records"):
        row = line["label"] + MARKS.get(line["fidelity"], "")
        grid.setdefault(row, {})[column(line["metric"], line["side"])] = Cell("", line["ours"])
    silent = {row: part for row, part in grid.items() if all(cell.ours == MISSING for cell in part.values())}
    note = INTERVALS[synthetic]
    html = _ENVIRONMENT.get_template("judged_frame.html.j2").render(
        caption=caption, note=note, columns=columns, grid=grid, missing=MISSING, none=Cell("", "")
    )
    return Frame(html, "\n".join([*filter(None, [caption]), _judged_text(grid, silent), note]))


INTERVALS = {
    True: "Interval: lead of the paper's own row over this one in our runs (95 %; seed by seed where both are one "
    "model); verdict: is the printed order of the two there?",
    False: "Interval: where one more run of ours would lie (95 %); verdict: on the printed number.",
}


def _cell(line: Mapping, leads: Mapping[tuple, Mapping]) -> Cell:
    k = line["decimals"]
    ours = ours_text(line | {"ours": line["mean"], "column_decimals": k})
    if not line["synthetic"] or line["withheld"] or not line["n"]:
        word = "" if line["n"] == 0 and not line["failed"] else line["verdict"]
        return Cell(line["reported"], ours, _interval(line["pi_1_low"], line["pi_1_high"], k), word, line["reason"])
    lead = leads.get((line["row"], line["metric"], line["side"]))
    if lead is None:
        return Cell(line["reported"], ours, why=line["reason"])
    word = lead["verdict"] + (relations.CONSTRUCTED if lead["by_construction"] else "")
    return Cell(line["reported"], ours, _interval(lead["low"], lead["high"], k, sign=True), word, lead["reason"])


def _leads(compared: pd.DataFrame) -> dict[tuple, dict]:
    """(row, metric, side) -> by how much the paper's own row is ahead of it in our runs, and the verdict on that."""
    found = {}
    for line in compared[compared["verdict"] != verdicts.NOT_ATTEMPTED].to_dict("records"):
        own_ahead = is_own(line["paper"], line["printed_better"])
        ends = (line["low"], line["high"]) if own_ahead else (-line["high"], -line["low"])
        other = line["worse"] if own_ahead else line["better"]
        found.setdefault((other, line["metric"], line["side"]), line | dict(zip(("low", "high"), ends, strict=True)))
    return found


def _interval(low: float, high: float, decimals: int, sign: bool = False) -> str:
    if np.isnan(low) or np.isnan(high):
        return ""
    low, high = (round(float(end), decimals) + 0.0 for end in (low, high))
    return f"{low:{'+' if sign else ''}.{decimals}f} .. {high:{'+' if sign else ''}.{decimals}f}"


def _judged_text(grid: Mapping[str, Mapping[str, Cell]], silent: Iterable[str]) -> str:
    """A line per cell that has something of ours; rows without are named below."""
    lines = [
        (row, name, cell.printed or MISSING, cell.ours, cell.interval or MISSING, cell.verdict or MISSING)
        for row, part in grid.items()
        if row not in silent
        for name, cell in part.items()
    ]
    names = ["row", "column", "printed", "ours ± SD", "interval", "verdict"]
    text = as_text(pd.DataFrame(lines, columns=names)) if lines else "No row of this table has runs."
    return text + (f"\nWithout runs: {', '.join(silent)}." if silent else "")
