"""Printed cells next to our runs: the bridge between `reported/*.csv` and the table of result rows.

Only what was printed sets the unit and the number of decimals; ours is converted to it, never the other way round.
Whatever is missing, failed or undefined stays visible, and is never shown as a number.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from papers_check.printed.units import MISSING, column_decimals, is_percent, our_metric

ROW_COLUMNS = ("label", "seed", "split", "metric", "value", "status")
SIDE_COLUMNS = ("row", "label", "metric", "side", "printed", "column_decimals", "ours", "sd")
SIDE_COLUMNS += ("n", "failed", "undefined")


def side_by_side(reported: pd.DataFrame, rows: pd.DataFrame, labels: Mapping[str, str] | None = None) -> pd.DataFrame:
    """One line per printed cell of one table and data set, with what our runs gave; then our rows it does not print.

    `reported`: from `load_reported`, narrowed to one table and data set. `rows`: our results in long format, columns
    `ROW_COLUMNS` at least, `value` a fraction for accuracies and F1, `status` done or failed; no rows means no runs.
    `labels`: printed row name -> our `label`, where the two differ.

    Returns columns `SIDE_COLUMNS`, in printed order: `printed` is the string of the paper (empty for a dash or a row it
    does not have), `ours` the mean over the `n` successful seeds whose value is defined and `sd` their standard
    deviation (ddof 1, NaN for n < 2), both in the printed unit; `failed` counts failed runs, `undefined` the successful
    ones without a finite value (such as the correlation of a constant prediction).
    Raises ValueError for cells of more than one table, missing columns, an unknown status, a seed that occurs twice,
    an accuracy outside [0, 1], and a row name that would appear twice.
    """
    _check_reported(reported)
    rows = _checked_rows(rows)
    labels = dict(labels or {})
    done = rows[(rows["status"] == "done") & (rows["split"] == "test")]
    values = {key: cell["value"].to_numpy(float) for key, cell in done.groupby(["label", "metric"])}
    failures = rows[rows["status"] == "failed"].groupby("label")["seed"].nunique(dropna=False).to_dict()
    decimals = column_decimals(reported)

    def line(row: str, label: str, metric: str, side: str, printed: str) -> tuple:
        found = values.get((label, our_metric(metric, side)), np.empty(0))
        found = found * 100 if is_percent(metric) else found
        kept = found[np.isfinite(found)]
        mean = kept.mean() if len(kept) else np.nan
        sd = kept.std(ddof=1) if len(kept) > 1 else np.nan
        counts = len(kept), failures.get(label, 0), len(found) - len(kept)
        return row, label, metric, side, printed, decimals[metric], mean, sd, *counts

    printed = reported[["row", "metric", "side", "value"]].itertuples(index=False, name=None)
    lines = [line(row, labels.get(row, row), metric, side, value) for row, metric, side, value in printed]
    used = {labels.get(row, row) for row in reported["row"]}
    columns = reported[["metric", "side"]].drop_duplicates()
    for label in rows["label"].unique():
        if label not in used:
            lines += [line(label, label, metric, side, "") for metric, side in columns.itertuples(index=False)]

    table = pd.DataFrame(lines, columns=list(SIDE_COLUMNS))
    twice = table[table.duplicated(["row", "metric", "side"])]
    if len(twice):
        row, metric = twice.iloc[0][["row", "metric"]]
        raise ValueError(f"row {row!r} has two lines for {metric}: expected one printed row or label of that name")
    return table


def wide(side: pd.DataFrame) -> pd.DataFrame:
    """For display: one line per row, one column per metric and side, cells `printed | ours ± sd`.

    `side` comes from `side_by_side`. Ours is shown with the decimals of the printed column; what is missing is a dash.
    """
    names = (side["metric"] + " " + side["side"]).str.strip()
    cells = {name: {} for name in names}
    for name, (_, line) in zip(names, side.iterrows(), strict=True):
        cells[name][line["row"]] = f"{line['printed'] or MISSING} | {ours_text(line)}"
    index = pd.Index(side["row"].unique(), name="row")
    return pd.DataFrame(cells, index=index, columns=list(cells)).fillna(f"{MISSING} | {MISSING}")


def ours_text(line: Mapping) -> str:
    """Our half of a cell: `84.10 ± 0.32`, then failed and undefined runs as k of all runs; a dash without any run."""
    runs = line["n"] + line["failed"] + line["undefined"]
    notes = [f"{word} {line[word]}/{runs}" for word in ("failed", "undefined") if line[word]]
    if not line["n"]:
        return ", ".join(notes) or MISSING
    spread = _fixed(line["sd"], line["column_decimals"])
    text = f"{_fixed(line['ours'], line['column_decimals'])} ± {spread}"
    return f"{text} ({', '.join(notes)})" if notes else text


def _fixed(value: float, decimals: int) -> str:
    # Adding zero turns the -0.0 of a tiny negative number into 0.0.
    return MISSING if np.isnan(value) else f"{round(float(value), decimals) + 0.0:.{decimals}f}"


def _check_reported(reported: pd.DataFrame) -> None:
    tables = [" ".join(key) for key, _ in reported.groupby(["paper", "table", "dataset"])]
    if len(tables) != 1:
        raise ValueError(f"reported holds {', '.join(tables) or 'no cells'}: expected one paper, table and data set")


def _checked_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with `value` as float, or one sentence about what cannot be averaged honestly."""
    if rows.empty:
        return pd.DataFrame(columns=list(ROW_COLUMNS))
    absent = [name for name in ROW_COLUMNS if name not in rows.columns]
    if absent:
        raise ValueError(f"result rows lack {', '.join(absent)}: expected the columns {', '.join(ROW_COLUMNS)}")
    rows = rows[list(ROW_COLUMNS)].astype({"value": float})

    wrong = sorted(set(rows["status"].map(str)) - {"done", "failed"})
    if wrong:
        raise ValueError(f"result rows have status {wrong[0]!r}: expected done or failed")
    done = rows[rows["status"] == "done"]
    failed = rows[rows["status"] == "failed"]
    twice = done[done.duplicated(["label", "seed", "split", "metric"])]
    both = done[["label", "seed"]].merge(failed[["label", "seed"]])
    for clash in (twice, both):
        if len(clash):
            label, seed = clash.iloc[0][["label", "seed"]]
            raise ValueError(f"result rows of {label!r} hold seed {seed} twice: expected one run per label and seed")
    outside = done[done["metric"].map(is_percent) & ((done["value"] < 0) | (done["value"] > 1))]
    if len(outside):
        label, metric, value = outside.iloc[0][["label", "metric", "value"]]
        raise ValueError(f"result rows of {label!r} have {metric} = {value:g}: expected a fraction in [0, 1]")
    return rows
