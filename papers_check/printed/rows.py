"""The printed cells as rows, the unit in which the checks read a table."""

import re
from dataclasses import dataclass

import pandas as pd

from papers_check.printed.arithmetic import decimals_of
from papers_check.printed.cells import load_reported
from papers_check.printed.papers import NAMES, is_own

METRICS = {"mae": "MAE", "corr": "Corr", "acc2": "Acc-2", "acc3": "Acc-3", "acc5": "Acc-5", "acc7": "Acc-7", "f1": "F1"}
SIDES = {"has0": " (left)", "non0": " (right)", "": ""}  # of the slash


@dataclass(frozen=True)
class Row:
    """One printed row of one data set: `cells` maps (metric, side) to the printed string, dashes left out."""

    paper: str
    table: str
    dataset: str
    name: str
    marker: str
    cells: dict[tuple[str, str], str]

    @property
    def own(self) -> bool:
        return is_own(self.paper, self.name)

    @property
    def where(self) -> str:
        return f"Table {self.table}, {NAMES[self.dataset]}, row {self.name}"

    @property
    def slug(self) -> str:
        return f"table{self.table}-{self.dataset}-{slug(self.name)}"

    def evened(self) -> dict[tuple[str, str], str]:
        """The percentages with the zeros set right that say nothing about precision.

        Where every percentage of a row (three at least) ends in 0 after two decimals, the zeros merely pad and are
        taken off; where a single one shows a decimal less than all others, it has lost a zero and gets it back.
        """
        cells = {key: text for key, text in self.cells.items() if key[0] not in ("mae", "corr")}
        shown = {key: decimals_of(text) for key, text in cells.items()}
        most = max(shown.values(), default=0)
        if len(cells) > 2 and most == 2 and all(text.endswith("0") and shown[key] == 2 for key, text in cells.items()):
            return {key: text[:-1] for key, text in cells.items()}
        short = [key for key, k in shown.items() if k < most]
        if len(short) == 1 and len(cells) > 2:
            return {key: f"{float(text):.{most}f}" for key, text in cells.items()}
        return cells

    def quote(self, *keys: tuple[str, str]) -> str:
        """The named cells with their column names, as printed; all of them without a name."""
        keys, parts = keys or tuple(self.cells), []
        for metric, side in keys:
            if side == "has0" and (metric, "non0") in keys:
                parts.append(f"{METRICS[metric]} {self.cells[metric, 'has0']}/{self.cells[metric, 'non0']}")
            elif side != "non0" or (metric, "has0") not in keys:
                parts.append(f"{column(metric, side)} {self.cells[metric, side]}")
        return ", ".join(parts)


def rows(cells: pd.DataFrame | None = None) -> list[Row]:
    """The result rows (not the table of data set sizes) in printed order; of all papers unless `cells` says which."""
    cells = load_reported() if cells is None else cells
    cells = cells[cells["metric"].isin(METRICS)]
    found = []
    for key, group in cells.groupby(["paper", "table", "dataset", "row"], sort=False):
        shown = group[group["value"] != ""]
        values = dict(zip(zip(shown["metric"], shown["side"], strict=True), shown["value"], strict=True))
        found.append(Row(*key, group["marker"].iloc[0], values))
    return found


def tables(found: list[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """The rows by (paper, table, data set), in printed order."""
    grouped: dict[tuple[str, str, str], list[Row]] = {}
    for row in found:
        grouped.setdefault((row.paper, row.table, row.dataset), []).append(row)
    return grouped


def column(metric: str, side: str = "") -> str:
    """The name of a column for people: "Acc-2 (left)" is what stands left of the slash."""
    return METRICS[metric] + SIDES[side]


def slug(text: str) -> str:
    """A name in lower case with single dashes: "DSRF (Ours)" -> "dsrf-ours"."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("+", " plus ").replace("w/o", "without")).strip("-")
