"""Printed baseline rows against what others publish for the same method and data, and strong results left out.

`external/*.csv` hold one number per row in the papers' units (percent for accuracies and F1), as a string with the
decimals of its source. `grade` says how the number was come by: C read in a repository, P in a paper's own text, I in
an issue of its repository, A in an abstract or digest, S in another paper's table. Numbers known from memory only are
not in these files. `caveat` says why a number may not be comparable; a result with a caveat never counts alone.
`external/facts.csv` holds what was read elsewhere and bears on a printed statement, written out by hand.
"""

from collections import Counter
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd

from papers_check import PAPERS, load_reported
from papers_check.expressions import is_better
from papers_check.finding import Finding
from papers_check.papers import BEST, COMPARISONS, is_own, method_of

FOLDER = Path(__file__).parent / "external"
COLUMNS = ("method", "dataset", "metric", "side", "value", "source", "grade", "caveat")
GRADES = ("C", "P", "I", "A", "S")
SOURCES = {"mmsa": "MMSA's result table", "mods": "MODS", "published": "the method's own or a copied row"}


def load_external() -> pd.DataFrame:
    """Every published number, columns `COLUMNS` plus `file` (mmsa, mods, published); strings, "" where empty."""
    parts = []
    for name in SOURCES:
        part = pd.read_csv(FOLDER / f"{name}.csv", dtype=str, keep_default_na=False)
        if tuple(part.columns) != COLUMNS:
            raise ValueError(f"external/{name}.csv has columns {', '.join(part)}: expected {', '.join(COLUMNS)}")
        parts.append(part.assign(file=name))
    return pd.concat(parts, ignore_index=True)


def agreement(printed: str, published: str) -> str:
    """How two decimal strings relate: `equal` up to the coarser rounding, `truncated`, or `differs`.

    "0.776" equals "0.7765" (either way of rounding), "85.42" equals "85.4", "0.572" is "0.5726" truncated.
    """
    ours, theirs = Decimal(printed), Decimal(published)
    unit, coarser = _unit(ours), max(_unit(ours), _unit(theirs))
    if abs(ours - theirs) <= coarser / 2:
        return "equal"
    return "truncated" if 0 < theirs - ours < unit else "differs"


def compare(paper: str) -> pd.DataFrame:
    """Every printed baseline cell of the result tables next to every published number for it.

    Columns: table, dataset, row, marker, metric, side, printed, published, file, source, grade, caveat, agreement.
    """
    cells = baseline_cells(paper)
    names = [method_of(paper, row).name for row in cells["row"]]
    cells = cells.assign(method=names).rename(columns={"value": "printed"})
    external = load_external().rename(columns={"value": "published"})
    joined = cells.merge(external, on=["method", "dataset", "metric", "side"])
    pairs = zip(joined["printed"], joined["published"], strict=True)
    joined["agreement"] = [agreement(printed, published) for printed, published in pairs]
    kept = ["table", "dataset", "row", "marker", "metric", "side", "printed"]
    return joined[[*kept, "published", "file", "source", "grade", "caveat", "agreement"]]


def baseline_cells(paper: str) -> pd.DataFrame:
    """The printed cells of the paper's result tables without its own row and without dashes."""
    return _result_cells(paper, own=False)


def _result_cells(paper: str, own: bool) -> pd.DataFrame:
    cells = load_reported(paper)
    compared = [(paper, table) in COMPARISONS for table in cells["table"]]
    chosen = [is_own(paper, row) == own for row in cells["row"]]
    return cells[np.array(compared) & np.array(chosen) & (cells["value"] != "")]


def left_out(paper: str) -> pd.DataFrame:
    """Published numbers better than the paper's own row by more than rounding.

    Columns: table, dataset, metric, side, ours, plus method, value, source, grade, caveat of the published number.
    The best value of each method and column is kept, one without a caveat before one with.
    """
    own = _result_cells(paper, own=True)
    own = own[["table", "dataset", "metric", "side", "value"]].rename(columns={"value": "ours"})
    both = own.merge(load_external(), on=["dataset", "metric", "side"])
    triples = both[["metric", "value", "ours"]].to_numpy()
    better = [is_better(m, Decimal(v), Decimal(o)) and agreement(o, v) != "equal" for m, v, o in triples]
    both = both[pd.Series(better, index=both.index, dtype=bool)]
    rank = both["value"].map(Decimal) * both["metric"].map(lambda metric: 1 if metric == "mae" else -1)
    both = both.assign(_caveat=both["caveat"] != "", _rank=rank).sort_values(["_caveat", "_rank"], kind="stable")
    both = both.drop_duplicates(["table", "dataset", "metric", "side", "method"])
    order = ["table", "dataset", "metric", "side", "_caveat", "method"]
    return both.sort_values(order, kind="stable").drop(columns=["_caveat", "_rank", "file"]).reset_index(drop=True)


def checked() -> int:
    """How many comparisons of a printed with a published number were made, the paper's own rows included."""
    return sum(len(compare(paper)) + len(_result_cells(paper, own=True)) for paper in PAPERS)


def findings() -> list[Finding]:
    """Rows that match no published source, named sources that disagree, rows that coincide, results left out."""
    found = [finding for paper in PAPERS for finding in (*_differing(paper), *_left_out(paper))]
    found += [finding for paper in PAPERS for finding in _coinciding(paper)]
    facts = pd.read_csv(FOLDER / "facts.csv", dtype=str, keep_default_na=False)
    return found + [Finding(**row) for row in facts.to_dict("records")]


def _differing(paper: str) -> list[Finding]:
    """One finding per printed row with cells that no published source gives; a row with a source that fits is fine."""
    table = compare(paper)
    found = []
    for (number, dataset, row), cells in table.groupby(["table", "dataset", "row"], sort=False):
        named = cells[cells["file"] == "mmsa"] if cells["marker"].iloc[0] == "†" else cells.iloc[:0]
        if len(named):
            off = named[named["agreement"] == "differs"]
            if len(off):
                found.append(_row_finding(paper, number, dataset, row, off, len(named), named_source=True))
            continue
        per_cell = cells.groupby(["metric", "side"], sort=False)["agreement"].agg(lambda a: (a == "differs").all())
        wrong = {key for key, differs in per_cell.items() if differs}
        if wrong:
            off = cells[[key in wrong for key in zip(cells["metric"], cells["side"], strict=True)]]
            found.append(_row_finding(paper, number, dataset, row, off, len(per_cell), named_source=False))
    return found


def _row_finding(paper, number, dataset, row, off: pd.DataFrame, n: int, named_source: bool) -> Finding:
    shown = []
    for (metric, side), cells in off.groupby(["metric", "side"], sort=False):
        values = ", ".join(
            f"{v} ({_short(f)})" for v, f in dict.fromkeys(zip(cells["published"], cells["file"], strict=True))
        )
        shown.append(f"{_column(metric, side)} {cells['printed'].iloc[0]} against {values}")
    n_off = len(off.groupby(["metric", "side"]))
    slug = row.lower().replace("-", "")
    if named_source:
        verdict, kind = "differs from the source named in the caption", "conflict"
        why = (
            f"The dagger says that this row comes from the M-SENA/MMSA authors; their public table gives other values"
            f" in {n_off} of {n} cells. An older version of that table would explain it."
        )
    else:
        verdict, kind = "matches none of the published values collected", "literature"
        why = (
            f"{n_off} of the {n} cells that can be compared agree with none of the values collected for {row} on this"
            " data set (external/*.csv, not a full survey), beyond rounding; where the row comes from is not stated."
        )
    above = off.merge(left_out(paper), on=["table", "dataset", "metric", "side"], suffixes=("", "_best"))
    above = above[(above["method"] == method_of(paper, row).name) & (above["caveat_best"] == "")]
    if len(above):
        columns = ", ".join(dict.fromkeys(_column(m, side) for m, side in above[["metric", "side"]].to_numpy()))
        why += f" In {columns} the published value is also better than the paper's own row."
    quote = "; ".join(
        f"{_column(m, s)} {p}" for m, s, p in off[["metric", "side", "printed"]].drop_duplicates().to_numpy()
    )
    return Finding(
        id=f"{paper}-{kind}-table{number}-{dataset}-{slug}",
        kind=kind,
        paper=paper,
        where=f"Table {number}, {dataset.upper()}, row {row}",
        quote=f"{row}: {quote}",
        computed="; ".join(shown),
        verdict=verdict,
        severity="medium" if len(above) else "low",
        explanation=why,
    )


def _left_out(paper: str) -> list[Finding]:
    """One finding per data set: published numbers above the row that is called state of the art."""
    found = []
    for (number, dataset), rows in left_out(paper).groupby(["table", "dataset"], sort=False):
        shown = []
        for (metric, side, ours), cells in rows.groupby(["metric", "side", "ours"], sort=False):
            values = (f"{m} {v}{'*' if c else ''}" for m, v, c in cells[["method", "value", "caveat"]].to_numpy())
            shown.append(f"{_column(metric, side)} {ours}: {', '.join(values)}")
        doubts = rows[rows["caveat"] != ""][["method", "caveat"]].drop_duplicates().to_numpy()
        plain = rows[rows["caveat"] == ""]
        n_plain, n_all = len(plain.groupby(["metric", "side"])), len(rows.groupby(["metric", "side"]))
        # Only what was read at its own source, and without a caveat, touches the headline by itself.
        severity = "high" if (plain["grade"] != "S").any() else "medium" if len(plain) else "low"
        sources = ", ".join((plain if len(plain) else rows)["source"].unique())
        found.append(
            Finding(
                id=f"{paper}-literature-left-out-{dataset}",
                kind="literature",
                paper=paper,
                where=f"Table {number}, {dataset.upper()}",
                quote=BEST[paper],
                computed="; ".join(shown) + (". * " + "; ".join(f"{m}: {c}" for m, c in doubts) if len(doubts) else ""),
                verdict="better published results are not in the table",
                severity=severity,
                explanation=(
                    f"In {n_all} columns a published number is better than the paper's own; in {n_plain} of them"
                    f" without a caveat such as selection on the test set or use of unimodal labels ({sources})."
                ),
            )
        )
    return found


def _coinciding(paper: str) -> list[Finding]:
    """Baseline cells that coincide to the last digit with the rows that MODS prints as its own re-runs."""
    table = compare(paper)
    rerun = table[(table["file"] == "mods") & table["caveat"].str.contains("re-run by MODS")]
    same = rerun[rerun["printed"].map(Decimal) == rerun["published"].map(Decimal)]
    if same.empty:
        return []
    rows = Counter(f"{row} {dataset.upper()}" for row, dataset in same[["row", "dataset"]].to_numpy())
    starred = same[same["marker"] == "*"]
    stated = "marked as reproduced by the authors" if len(starred) else "printed without a source"
    return [
        Finding(
            id=f"{paper}-literature-coincides-with-mods",
            kind="literature",
            paper=paper,
            where=" and ".join(f"Table {number}" for number in sorted(same["table"].unique())),
            quote="*: the results are reproduced from the open-source codebase" if len(starred) else ", ".join(rows),
            computed=f"{len(same)} of {len(rerun)} cells equal: "
            + ", ".join(f"{row} ({n})" for row, n in rows.items()),
            verdict="coincides to the last digit",
            severity="medium" if len(starred) else "low",
            explanation=(
                f"These cells, {stated}, have the values of the MODS paper (arXiv 2511.06328), which marks them as its"
                " own re-runs; independent re-runs rarely agree to the last digit. Which came first is not known."
            ),
        )
    ]


def _column(metric: str, side: str) -> str:
    return f"{metric} {side}".strip()


def _short(file: str) -> str:
    return {"mmsa": "MMSA", "mods": "MODS", "published": "published"}[file]


def _unit(value: Decimal) -> Decimal:
    return Decimal(1).scaleb(value.as_tuple().exponent)
