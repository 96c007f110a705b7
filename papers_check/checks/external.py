"""Printed baseline rows against what others publish for the same method and data, and strong results left out.

`external/*.csv` hold one number per row in the papers' units (percent for accuracies and F1), as a string with the
decimals of its source. `grade` says how the number was come by: C read in a repository, P in a paper's own text, I in
an issue of its repository, A in an abstract or digest, S in another paper's table. Numbers known from memory only are
not in these files. `caveat` says why a number may not be comparable; a result with a caveat never counts alone.
`external/sources.csv` dates each source and says whether it was read itself; what is later than a paper's newest
reference cannot have been left out of it. `external/facts.csv` holds what was read elsewhere and bears on a printed
statement, written out by hand.
"""

from collections import Counter
from decimal import Decimal

import numpy as np
import pandas as pd

from papers_check.checks.finding import Finding, new_finding
from papers_check.printed.cells import load_reported
from papers_check.printed.expressions import is_better
from papers_check.printed.papers import BEST, COMPARISONS, DATA, NAMES, NEWEST, PAPERS, is_own, method_of
from papers_check.printed.rows import column

FOLDER = DATA / "external"
COLUMNS = ("method", "dataset", "metric", "side", "value", "source", "grade", "caveat")
GRADES = ("C", "P", "I", "A", "S")
SOURCES = {"mmsa": "MMSA's result table", "mods": "MODS", "published": "the method's own or a copied row"}
SHORT = {"mmsa": "MMSA", "mods": "MODS", "published": "published"}


def load_external() -> pd.DataFrame:
    """Every published number, columns `COLUMNS` plus `file` (mmsa, mods, published); strings, "" where empty."""
    parts = []
    for name in SOURCES:
        part = pd.read_csv(FOLDER / f"{name}.csv", dtype=str, keep_default_na=False)
        if tuple(part.columns) != COLUMNS:
            raise ValueError(f"external/{name}.csv has columns {', '.join(part)}: expected {', '.join(COLUMNS)}")
        if strange := sorted(set(part["grade"]) - set(GRADES)):
            raise ValueError(f"external/{name}.csv has grade {strange[0]!r}: expected one of {', '.join(GRADES)}")
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
    """Published numbers better than the paper's own row by more than rounding, from sources read here, no caveat.

    Columns: table, dataset, metric, side, ours, plus method, value, source of the published number, and `later`: the
    source is younger than the paper's newest reference. The best value of each method and column is kept.
    """
    own = _result_cells(paper, own=True)
    own = own[["table", "dataset", "metric", "side", "value"]].rename(columns={"value": "ours"})
    both = own.merge(_usable(), on=["dataset", "metric", "side"])
    triples = both[["metric", "value", "ours"]].to_numpy()
    better = [is_better(m, Decimal(v), Decimal(o)) and agreement(o, v) != "equal" for m, v, o in triples]
    both = both[pd.Series(better, index=both.index, dtype=bool)]
    rank = both["value"].map(Decimal) * both["metric"].map(lambda metric: 1 if metric == "mae" else -1)
    both = both.assign(later=both["year"] > NEWEST[paper], rank=rank).sort_values("rank", kind="stable")
    both = both.drop_duplicates(["table", "dataset", "metric", "side", "method"])
    order = ["table", "dataset", "metric", "side", "method"]
    kept = [*order[:-1], "ours", "method", "value", "source", "later"]
    return both.sort_values(order, kind="stable")[kept].reset_index(drop=True)


def _usable() -> pd.DataFrame:
    """The published numbers without a caveat from a source that was read itself, with its `year`."""
    sources = pd.read_csv(FOLDER / "sources.csv", dtype={"year": int})
    table = load_external().merge(sources, on="source")
    return table[(table["caveat"] == "") & (table["read"] == "yes")]


def examined() -> int:
    """How many comparisons of a printed with a published number were made, the paper's own rows included."""
    return sum(len(compare(paper)) + len(_result_cells(paper, own=True)) for paper in PAPERS)


def findings() -> list[Finding]:
    """Rows without a known source, marked rows that differ from theirs, rows that coincide, better published rows."""
    checks = (_differing, _better, _own_list, _coinciding, _starred)
    items = [item for paper in PAPERS for check in checks for item in check(paper)]
    facts = pd.read_csv(FOLDER / "facts.csv", dtype=str, keep_default_na=False)
    return items + [new_finding("read-by-hand", **row) for row in facts.to_dict("records")]


def _differing(paper: str) -> list[Finding]:
    """One finding per printed row with cells that no collected source gives; a row with a source that fits is fine."""
    items = []
    for (number, dataset, row), cells in compare(paper).groupby(["table", "dataset", "row"], sort=False):
        dagger = cells["marker"].iloc[0] == "†"
        if dagger:
            cells = cells[cells["file"] == "mmsa"]
        per_cell = cells.groupby(["metric", "side"], sort=False)["agreement"].agg(lambda a: (a == "differs").all())
        wrong = {key for key, differs in per_cell.items() if differs}
        if wrong:
            off = cells[[key in wrong for key in zip(cells["metric"], cells["side"], strict=True)]]
            items.append(_row_finding(paper, number, dataset, row, off, len(per_cell), dagger))
    return items


def _row_finding(paper, number, dataset, row, off: pd.DataFrame, n: int, dagger: bool) -> Finding:
    shown = []
    for (metric, side), cells in off.groupby(["metric", "side"], sort=False):
        pairs = dict.fromkeys(zip(cells["published"], cells["file"], strict=True))
        values = ", ".join(f"{value} ({SHORT[file]})" for value, file in pairs)
        shown.append(f"{column(metric, side)} {cells['printed'].iloc[0]} against {values}")
    kind = "conflict" if dagger else "literature"
    printed = off[["metric", "side", "printed"]].drop_duplicates().to_numpy()
    return new_finding(
        "dagger-rows" if dagger else "no-source-found",
        f"{paper}-{kind}-table{number}-{dataset}-{row.lower().replace('-', '')}",
        f"Table {number}, {NAMES[dataset]}, row {row}",
        f"{row}: " + "; ".join(f"{column(m, s)} {p}" for m, s, p in printed),
        f"{len(shown)} of {n} cells: " + "; ".join(shown),
        "differs from MMSA's public table" if dagger else "not among the values collected",
        "Compare the row with the published values collected in external/*.csv, which are no full survey.",
        "cells",
    )


def _better(paper: str) -> list[Finding]:
    """One finding per data set: published numbers above the row that is called state of the art."""
    items = []
    for (number, dataset), rows in left_out(paper).groupby(["table", "dataset"], sort=False):
        shown = []
        for (metric, side, ours), cells in rows.groupby(["metric", "side", "ours"], sort=False):
            values = (
                f"{m} {v}{' (later)' if late else ''}" for m, v, late in cells[["method", "value", "later"]].to_numpy()
            )
            shown.append(f"{column(metric, side)} {ours}: {', '.join(values)}")
        items.append(
            new_finding(
                "better-published",
                f"{paper}-literature-left-out-{dataset}",
                f"Table {number}, {NAMES[dataset]}",
                BEST[paper],
                f"published for {NAMES[dataset]}: " + "; ".join(shown),
                "higher in single columns",
                "Numbers from " + ", ".join(rows["source"].unique()) + ", in the columns named.",
            )
        )
    return items


def listed_gains(paper: str) -> pd.DataFrame:
    """The columns in which a listed baseline is published better than the best baseline that the paper prints.

    Columns: table, dataset, metric, side, own, printed, printed_by, published, published_by, source. Only numbers
    without a caveat, from a source read here and not later than the paper's newest reference.
    """
    usable = _usable()
    usable = usable[usable["year"] <= NEWEST[paper]]
    rivals, own = (_result_cells(paper, own=which) for which in (False, True))
    rivals = rivals.assign(method=[method_of(paper, row).name for row in rivals["row"]])
    key, lines = ["dataset", "metric", "side"], []
    for table, *cell, value in own[["table", *key, "value"]].to_numpy():
        printed, there = (part[(part[key] == cell).all(axis=1)] for part in (rivals, usable))
        listed = rivals.loc[rivals["dataset"] == cell[0], "method"]
        there = there[there["method"].isin(listed)]
        if printed.empty or there.empty:
            continue
        best, other = (_best(cell[1], part["value"], part["method"]) for part in (printed, there))
        if is_better(cell[1], Decimal(other[0]), Decimal(best[0])) and agreement(best[0], other[0]) == "differs":
            source = there.loc[there["method"] == other[1], "source"].iloc[0]
            lines.append((table, *cell, value, *best, *other, source))
    columns = ["table", *key, "own", "printed", "printed_by", "published", "published_by", "source"]
    return pd.DataFrame(lines, columns=columns)


def _own_list(paper: str) -> list[Finding]:
    """One finding per data set of `listed_gains`."""
    items, cells = [], pd.concat([_result_cells(paper, own=False), _result_cells(paper, own=True)])
    for (table, dataset), lines in listed_gains(paper).groupby(["table", "dataset"], sort=False):
        methods = set(lines["published_by"])
        here = cells[cells["dataset"] == dataset].groupby("row", sort=False)
        rows = [(n, part) for n, part in here if is_own(paper, n) or method_of(paper, n).name in methods]
        items.append(
            new_finding(
                "own-list",
                f"{paper}-conflict-own-list-{dataset}",
                f"Table {table}, {NAMES[dataset]}",
                "\n".join(f"{name}: {_cells(part)}" for name, part in rows),
                "; ".join(_two_gains(line) for line in lines.itertuples()),
                "smaller over the published row of a listed baseline",
                "Published in " + ", ".join(sorted(set(lines["source"]))) + ".",
                "cells",
            )
        )
    return items


def _two_gains(line) -> str:
    """Both gains of a line of `listed_gains` as subtractions."""
    printed, published = (_gain(line.metric, line.own, value) for value in (line.printed, line.published))
    same = " (equal as printed)" if agreement(line.own, line.published) == "equal" else ""
    return (
        f"{column(line.metric, line.side)}: {printed} over {line.printed_by}, the best printed; "
        f"{published}{same} over {line.published_by} as published"
    )


def _best(metric: str, values: pd.Series, names: pd.Series) -> tuple[str, str]:
    pairs = list(zip(values, names, strict=True))
    return (min if metric == "mae" else max)(pairs, key=lambda pair: Decimal(pair[0]))


def _gain(metric: str, own: str, other: str) -> str:
    first, second = (other, own) if metric == "mae" else (own, other)
    return f"{first} - {second} = {Decimal(first) - Decimal(second):+}"


def _cells(part: pd.DataFrame) -> str:
    return ", ".join(f"{column(m, s)} {v}" for m, s, v in part[["metric", "side", "value"]].to_numpy())


def _coinciding(paper: str) -> list[Finding]:
    """Baseline cells equal to those of the MODS paper's tables, digit for digit."""
    table = compare(paper)
    table = table[table["file"] == "mods"]
    same = table[table["printed"].map(Decimal) == table["published"].map(Decimal)]
    if same.empty:
        return []
    rows = Counter(f"{row} {NAMES[dataset]}" for row, dataset in same[["row", "dataset"]].to_numpy())
    marked = Counter(same["marker"].map({"†": "with a dagger", "*": "with a star"}).fillna("unmarked"))
    return [
        new_finding(
            "coincides",
            f"{paper}-literature-coincides-with-mods",
            " and ".join(f"Table {number}" for number in sorted(same["table"].unique())),
            ", ".join(rows),
            f"{len(same)} of the {len(table)} cells that MODS prints, too, are equal"
            f" ({', '.join(f'{n} {word}' for word, n in marked.items())})",
            "the same numbers",
            "Compare with the tables of MODS (arXiv 2511.06328), cell by cell: "
            + ", ".join(f"{row} {n}" for row, n in rows.items())
            + ".",
            "cells",
        )
    ]


def _starred(paper: str) -> list[Finding]:
    """Rows marked as reproduced that are, in every cell, the row of MMSA's public table."""
    table = compare(paper)
    table = table[(table["marker"] == "*") & (table["file"] == "mmsa")]
    items = []
    for (number, dataset, row), cells in table.groupby(["table", "dataset", "row"], sort=False):
        if (cells["agreement"] == "equal").all():
            items.append(
                new_finding(
                    "starred-rows",
                    f"{paper}-literature-starred-{dataset}-{row.lower()}",
                    f"Table {number}, {NAMES[dataset]}, row {row}",
                    f"{row}*: "
                    + ", ".join(f"{column(m, s)} {v}" for m, s, v in cells[["metric", "side", "printed"]].to_numpy()),
                    f"{len(cells)} of {len(cells)} cells are those of MMSA's table: " + ", ".join(cells["published"]),
                    "star and source do not agree",
                    "The star says reproduced by the authors; the values are the published ones.",
                    "cells",
                )
            )
    return items


def _unit(value: Decimal) -> Decimal:
    return Decimal(1).scaleb(value.as_tuple().exponent)
