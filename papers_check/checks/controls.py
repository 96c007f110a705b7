"""False alarms: every check of numbers on rows that are known to be real runs.

Three sources: the rows that MMSA publishes (means of five runs each), the rows that MODS prints as its own or its own
re-runs, and the means of five seeds in the public training logs of MMSA (`noise/seeds.csv`). A check that marks many
of them marks something that real runs do. Checks of one row alone have run on the single runs of those logs, too; the
logs stay outside the repository; `python -m papers_check.checks.controls FOLDER` writes the counts to
`innocent/controls.csv`.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import pandas as pd

from papers_check.checks import one_table, score_limits
from papers_check.checks.external import load_external
from papers_check.checks.finding import FOLDER, Finding
from papers_check.judge.seed_noise import REGRESSION, load_noise, load_runs
from papers_check.printed.papers import PAPERS
from papers_check.printed.rows import Row, tables

NONE = "not a check of numbers in a row; no row of real runs enters."
PERCENT, SMALL = 2, 3  # decimals as printed, of percentages and of MAE and Corr


def real_rows() -> dict[str, list[Row]]:
    """Source in words -> rows known to be real runs, in the shape of printed rows; a table number per source."""
    external = load_external()
    mods = external[(external["file"] == "mods") & (external["caveat"] != "marked as taken from MMSA")]
    return {
        "that MMSA publishes": list(_rows(external[external["file"] == "mmsa"], "mmsa")),
        "that MODS prints as its own runs": list(_rows(mods, "mods")),
        "made from five seeds in MMSA's public logs": list(_pools()),
    }


def _rows(numbers: pd.DataFrame, table: str) -> Iterator[Row]:
    for (method, dataset), part in numbers.groupby(["method", "dataset"], sort=False):
        cells = {(metric, side): text for metric, side, text in part[["metric", "side", "value"]].to_numpy()}
        yield Row(PAPERS[0], table, dataset, method, "", cells)


def _pools() -> Iterator[Row]:
    pools = load_noise("seeds")
    pools = pools[(pools["seeds"] == 5) & (pools["collapsed"] == 0)]
    for (dataset, model, config), part in pools.groupby(["dataset", "model", "config"], sort=False):
        cells = {}
        for name, mean in part[["metric", "mean"]].to_numpy():
            metric, _, side = name.partition("_")
            cells[metric, side] = f"{mean:.{SMALL if metric in ('mae', 'corr') else PERCENT}f}"
        yield Row(PAPERS[0], "logs", dataset, f"{model} {config}", "", cells)


def single_runs(folder: Path | str) -> list[Row]:
    """Every regression run of the public logs in `folder`, as it would be printed."""
    runs = load_runs(folder)
    found = []
    for run in runs[runs["train_mode"] == "regression"].to_dict("records"):
        cells = {}
        for theirs, ours in REGRESSION.items():
            value = run.get(f"test_{theirs}", float("nan"))
            metric, _, side = ours.partition("_")
            sided = metric not in ("acc2", "f1") or bool(side) == (run["dataset"] in ("mosi", "mosei"))
            if value == value and sided:
                small = metric in ("mae", "corr")
                cells[metric, side] = f"{value:.{SMALL}f}" if small else f"{100 * value:.{PERCENT}f}"
        found.append(Row(PAPERS[0], "runs", run["dataset"], run["run"], "", cells))
    return found


def by_row(check: Callable[[Row], Iterable[Finding | None] | Finding | None]):
    """Rows of `rows` that a check of single rows marks."""

    def flagged(rows: list[Row]) -> int:
        found = (check(row) for row in rows)
        return sum(any(_items(item)) for item in found)

    return flagged


def _items(found) -> list:
    return [found] if found is None or isinstance(found, Finding) else list(found)


def by_table(check: Callable[[list[Row]], Iterable[Finding | None]]):
    """Findings of a check of whole tables, over the data sets of `rows`."""
    return lambda rows: sum(item is not None for group in tables(rows).values() for item in check(group))


def no_usual_runs(rows: list[Row]) -> int:
    """Rows whose accuracies no number of runs up to five gives."""
    cells = [score_limits.accuracy_cells(row) for row in rows]
    return sum(not score_limits.USUAL & frozenset.union(*score_limits.allowed(part).values()) for part in cells if part)


def mae_out_of_order(rows: list[Row]) -> int:
    groups = ([row for row in rows if row.dataset == dataset] for dataset in dict.fromkeys(r.dataset for r in rows))
    return sum(item is not None for group in groups for item in one_table.mae_out_of_order(group))


# check -> how many of the rows it marks
CHECKS: dict[str, Callable[[list[Row]], int]] = {
    "out-of-range": by_row(one_table.out_of_range),
    "class-order": by_row(one_table.finer_above_coarser),
    "equal-rows": by_table(one_table.identical_rows),
    "exchanged-columns": by_table(one_table.exchanged_columns),
    "precision": by_table(one_table.changing_precision),
    "f1-far-below": by_table(one_table.accuracy_far_from_f1),
    "mae-against-corr": mae_out_of_order,
    "runs": no_usual_runs,
    "f1-above-accuracy": by_row(score_limits.f1_beside_accuracy),
    "zero-labels": by_row(score_limits.zero_labels),
    "below-constant": by_row(score_limits.below_constant),
    "mae-floor": by_row(score_limits.mae_floors),
}
SINGLE = ("out-of-range", "class-order", "f1-above-accuracy", "zero-labels", "below-constant", "mae-floor")
OF_TABLES = ("precision",)  # marks tables, not rows


@cache
def rates() -> pd.DataFrame:
    """How often each check marks real runs: columns check, source, marked, of."""
    lines = []
    for source, rows in real_rows().items():
        for check, marked in CHECKS.items():
            of = len(tables(rows)) if check in OF_TABLES else len(rows)
            lines.append((check, source, marked(rows), of))
    single = pd.read_csv(FOLDER / "controls.csv").assign(source="of single runs in the same logs")
    lines += single[["check", "source", "marked", "of"]].itertuples(index=False, name=None)
    return pd.DataFrame(lines, columns=["check", "source", "marked", "of"])


def lines() -> dict[str, str]:
    """Check -> its rate in words."""
    said = {}
    for check, part in rates().groupby("check", sort=False):
        what = "tables" if check in OF_TABLES else "rows"
        parts = (
            f"{marked} of {of} {what} {source}" for source, marked, of in part[["source", "marked", "of"]].to_numpy()
        )
        said[check] = f"on rows known to be real runs this check marks {', '.join(parts)}."
    return said


def of_single_runs(folder: Path | str) -> pd.DataFrame:
    """How many single runs of the logs in `folder` each check of one row marks: columns check, marked, of."""
    rows = single_runs(folder)
    return pd.DataFrame(
        [(check, CHECKS[check](rows), len(rows)) for check in SINGLE], columns=["check", "marked", "of"]
    )


if __name__ == "__main__":
    of_single_runs(sys.argv[1]).to_csv(FOLDER / "controls.csv", index=False)
