"""The two papers as data, and everything that judges numbers against them.

`reported/` holds every cell the papers print in a table, one CSV row per number, kept as the printed string. This
package imports neither torch nor msa_lib: what joins it to our runs is a table of result rows.
"""

from pathlib import Path

import pandas as pd

REPORTED = Path(__file__).parent / "reported"
PAPERS = ("amsgfn", "dsrf")
COLUMNS = ("paper", "table", "dataset", "row", "metric", "side", "value", "decimals", "marker")


def load_reported(paper: str | None = None, table: str | int | None = None) -> pd.DataFrame:
    """The printed cells, in the papers' order, as strings; an empty string where nothing is printed, never NaN.

    Columns, `COLUMNS`: `value` is the printed string, with sides `has0` and `non0` (left and right of a slash) as two
    rows; `decimals` counts the decimals of that cell; accuracies and F1 are in percent, as printed; `marker` is the
    dagger or star on the row's name. Source: the result tables of the papers, AMSGFN 1 to 6 and DSRF 1 to 3.
    Raises ValueError for an unknown paper or a table the chosen papers do not have.
    """
    if paper is not None and paper not in PAPERS:
        raise ValueError(f"unknown paper {paper!r}: expected one of {', '.join(PAPERS)}")
    names = PAPERS if paper is None else (paper,)
    # Plain strings, so that "52.30" keeps its zero and a dash never turns into a number.
    parts = [pd.read_csv(REPORTED / f"{name}.csv", dtype=str, keep_default_na=False) for name in names]
    cells = pd.concat(parts, ignore_index=True)
    if table is None:
        return cells
    chosen = cells[cells["table"] == str(table)].reset_index(drop=True)
    if chosen.empty:
        known = ", ".join(sorted(cells["table"].unique()))
        raise ValueError(f"unknown table {str(table)!r} of {' and '.join(names)}: expected one of {known}")
    return chosen
