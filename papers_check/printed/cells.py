"""Every cell the papers print in a table: one CSV row per number in `reported/`, kept as the printed string."""

import pandas as pd

from papers_check.printed.papers import DATA, METHODS, PAPERS, TABLES

REPORTED = DATA / "reported"
COLUMNS = ("paper", "table", "dataset", "row", "metric", "side", "value", "decimals", "marker")


def load_reported(paper: str | None = None, table: str | int | None = None) -> pd.DataFrame:
    """The printed cells, in the papers' order, as strings; an empty string where nothing is printed, never NaN.

    Columns, `COLUMNS`: `value` is the printed string, with sides `has0` and `non0` (left and right of a slash) as two
    rows; `decimals` counts the decimals of that cell; accuracies and F1 are in percent, as printed; `marker` is the
    dagger or star on the row's name. Source: the numbered tables of the papers (`papers.toml`).
    Raises ValueError for an unknown paper or a table the chosen papers do not have, and where a table is not in
    papers.toml or a row not in methods.csv.
    """
    if paper is not None and paper not in PAPERS:
        raise ValueError(f"unknown paper {paper!r}: expected one of {', '.join(PAPERS)}")
    names = PAPERS if paper is None else (paper,)
    # Plain strings, so that "52.30" keeps its zero and a dash never turns into a number.
    parts = [_read(name) for name in names]
    cells = pd.concat(parts, ignore_index=True)
    if table is None:
        return cells
    chosen = cells[cells["table"] == str(table)].reset_index(drop=True)
    if chosen.empty:
        known = ", ".join(sorted(cells["table"].unique()))
        raise ValueError(f"unknown table {str(table)!r} of {' and '.join(names)}: expected one of {known}")
    return chosen


def _read(paper: str) -> pd.DataFrame:
    """The cells of one paper, each of a known table and row."""
    cells = pd.read_csv(REPORTED / f"{paper}.csv", dtype=str, keep_default_na=False)
    for table, row in cells[["table", "row"]].drop_duplicates().itertuples(index=False, name=None):
        if (paper, table) not in TABLES:
            raise ValueError(f"reported/{paper}.csv has table {table!r}: expected a table of that paper in papers.toml")
        if TABLES[paper, table] != "sizes" and (paper, row) not in METHODS:
            raise ValueError(f"reported/{paper}.csv has row {row!r}: expected a line for it in methods.csv")
    return cells
