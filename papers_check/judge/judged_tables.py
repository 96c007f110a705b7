"""All printed tables beside our runs: the join that `report.py` shows and `msa check` counts.

One `TablePage` per printed table says which of our rows stand for which printed ones; `assemble` judges them all.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from papers_check.judge import relations, verdicts
from papers_check.judge.our_runs import ORACLE
from papers_check.judge.side_by_side import ours_text, side_by_side
from papers_check.printed import papers
from papers_check.printed.cells import load_reported

PART = ("paper", "table", "dataset")
NO_RUNS = "no run of this table is in the store"
RUN_COLUMNS = (*PART, "data", "synthetic", "n_test", "seeds", "selection", "commit")
EXTRA_COLUMNS = (*PART, "label", "metric", "side", "ours", "fidelity")
MADE_OF = {True: "synthetic", False: "real"}
MARKS = {"completed": "°", "partial": "°°"}  # of a baseline, by how much of it is its paper's
PARTIAL = "partial"  # a baseline that lacks some of what its paper has
WITHHELD = "our build of this baseline is partial (some of what its paper has is not in it): shown, and not judged"


@dataclass(frozen=True)
class Data:
    """What our runs were made on in the place of one printed data set: `name` as in the rows' column `dataset`."""

    name: str
    synthetic: bool
    n_test: int


@dataclass(frozen=True)
class TablePage:
    """One printed table and our runs of it.

    data           printed data set ("mosi") -> what our rows of it are on; those without runs may be left out
    rows           result rows in long format, as `verdicts.judge` takes them, with `dataset`; may be empty
    labels         printed row -> our `label` where the two differ, or, for a row that can be read in several ways,
                   {reading: label}
    not_attempted  printed row -> why there are no runs of it
    fidelity       label of a baseline -> how much of it is its paper's: specified, completed or partial. Of a partial
                   one the numbers are shown, and no verdict and no relation is given
    """

    paper: str
    table: str | int
    data: Mapping[str, Data]
    rows: pd.DataFrame
    labels: Mapping[str, str | Mapping[str, str]] = field(default_factory=dict)
    not_attempted: Mapping[str, str] = field(default_factory=dict)
    fidelity: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.paper} table {self.table}"


@dataclass(frozen=True)
class JudgedTables:
    """Both papers beside our runs.

    cells      a line per printed cell and reading: the columns of `verdicts.Verdict`, printed_row, reading, marker,
               fidelity, withheld (why the line is not judged, or "")
    relations  from `relations.relations`
    extras     our rows that a table does not print: `EXTRA_COLUMNS`, with `ours` as text
    runs       what each printed data set of a table was run on: `RUN_COLUMNS`, only where there are runs
    """

    cells: pd.DataFrame
    relations: pd.DataFrame
    extras: pd.DataFrame
    runs: pd.DataFrame


def pages_from(tables: Iterable[Mapping]) -> list[TablePage]:
    """Pages from plain tables of result rows, one dict per printed table:

    paper, table; data: printed data set -> (name, synthetic, test samples); rows; ours: the labels a row can have;
    readings: printed row -> {reading: label}, beside those of readings.csv; conditions: name -> {label: our label under
    it}, if all rows were run under several; fidelity: see `TablePage`. The papers' own rows are our `full`.
    """
    pages = []
    for table in tables:
        where = table["paper"], table["table"]
        printed = set(load_reported(*where)["row"])
        labels = our_labels(*where, table["ours"])
        for row, known in papers.readings(*where).items():
            labels[row] = {f"reading {reading}, {label}": label for reading, label in known.items()}
        labels |= table["readings"]
        if table.get("conditions"):
            plain = {row: row for row in printed & set(table["ours"])} | labels
            labels = {row: _conditioned(label, table["conditions"]) for row, label in plain.items()}
        absent = printed - set(labels) - set(table["ours"])
        data = {dataset: Data(*known) for dataset, known in table["data"].items()}
        excuses = dict.fromkeys(absent, "this study has not built this baseline")
        pages.append(TablePage(*where, data, table["rows"], labels, excuses, table.get("fidelity", {})))
    return pages


def records(frame: pd.DataFrame) -> list[dict]:
    """Lines as plain JSON: missing is null; an infinite number ("for any number of runs") is the text "inf", "-inf"."""

    def plain(value: object) -> object:
        if isinstance(value, list | tuple | np.ndarray):
            return [plain(item) for item in value]
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, float) and not math.isfinite(value):
            return None if math.isnan(value) else str(value)
        return None if value is pd.NA else value

    return [{name: plain(value) for name, value in line.items()} for line in frame.to_dict("records")]


def our_labels(paper: str, table: str | int, ours: Collection[str]) -> dict[str, str]:
    """Printed row -> our label, where the two differ: the paper's own model is our `full`, a baseline has its key."""
    labels = {}
    for row in load_reported(paper, table)["row"].unique():
        known = papers.METHODS.get((paper, row))
        if known and known.role == "own":
            labels[row] = "full"
        elif known and known.role == "baseline" and known.method in ours:
            labels[row] = known.method
    return labels


def _conditioned(label: str | Mapping[str, str], conditions: Mapping[str, Mapping[str, str]]) -> str | dict[str, str]:
    """The readings of a row under several conditions of its runs (see `relations.condition`); itself if under one."""
    known = {"": label} if isinstance(label, str) else label
    under = {
        f"{condition}: {reading}" if reading else condition: labels[one]
        for condition, labels in conditions.items()
        for reading, one in known.items()
        if one in labels
    }
    return under if len(under) > len(known) else label


def assemble(pages: Iterable[TablePage] = ()) -> JudgedTables:
    """Judge every printed cell of both papers; a table without a page or without rows is not attempted.

    Raises ValueError for a table that is not printed or has two pages, a label for a row it does not print, rows on
    another data set than those of the page, and rows that are synthetic where the page says real or the other way.
    """
    pages = list(pages)
    given = {(page.paper, str(page.table)): page for page in pages}
    printed = dict(list(load_reported().groupby(["paper", "table"], sort=False)))
    if len(given) < len(pages):
        raise ValueError("two pages are of one table: expected one page per table")
    if unknown := [page for key, page in given.items() if key not in printed]:
        known = ", ".join(" ".join(key) for key in printed)
        raise ValueError(f"{unknown[0].name} is not printed: expected one of {known}")
    every = {key: TablePage(*key, {}, pd.DataFrame()) for key in printed} | given
    parts = [_join(page, printed[key]) for key, page in every.items()]
    cells, compared, extras, runs = (
        pd.concat([part for part in kind if len(part)] or kind, ignore_index=True) for kind in zip(*parts, strict=True)
    )
    cells["p_1_bh"] = verdicts.bh_over_cells(cells)
    return JudgedTables(cells, compared, extras, runs)


def judge_table(table: Mapping) -> JudgedTables:
    """One printed table judged, from a plain table as `pages_from` takes them."""
    (page,) = pages_from([table])
    return JudgedTables(*_join(page, load_reported(page.paper, page.table)))


def verdict_counts(judged: pd.DataFrame) -> pd.DataFrame:
    """How many printed cells or relations, of `JudgedTables.cells` or `.relations`, got each verdict: index `PART`.

    A cell or relation that can be read in several ways counts once, by its most favourable reading. Relations that hold
    by how planted data are made have columns of their own (`relations.CONSTRUCTED`).
    """
    compared = "printed_better" in judged.columns
    counted = relations.printed_relations(judged) if compared else verdicts.printed_cells(judged)
    words = counted["verdict"]
    if compared:
        made = (counted["by_construction"] != "") & (words != verdicts.NOT_ATTEMPTED)
        words = words.where(~made, words + relations.CONSTRUCTED)
    places = pd.MultiIndex.from_frame(judged[list(PART)].drop_duplicates())  # in printed order
    counts = pd.crosstab([counted[name] for name in PART], words).reindex(places)
    order = [*dict.fromkeys((*verdicts.VERDICTS, *relations.RELATIONS))]
    order += [word + relations.CONSTRUCTED for word in relations.RELATIONS]
    return counts[[word for word in order if word in counts]]


def _join(page: TablePage, printed: pd.DataFrame) -> tuple[pd.DataFrame, ...]:
    """The four parts of `JudgedTables` for one table."""
    rows, here = page.rows, {data.name: dataset for dataset, data in page.data.items()}
    _check(page, printed, here)
    lines, labels = _readings(printed, page.labels)
    excuse = NO_RUNS if rows.empty else None
    excuses = {row: page.not_attempted.get(plain, excuse) for row, plain in lines[["row", "printed_row"]].to_numpy()}
    withheld = {label: WITHHELD for label, word in page.fidelity.items() if word == PARTIAL}
    cells = verdicts.judge(
        lines,
        rows,
        labels,
        here,
        not_attempted={row: reason for row, reason in excuses.items() if reason},
        withheld=withheld,
    )
    cells = cells.assign(**{name: lines[name].to_numpy() for name in ("printed_row", "reading", "marker")})
    cells["fidelity"] = cells["label"].map(lambda label: page.fidelity.get(label, ""))
    cells["withheld"] = cells["label"].map(lambda label: withheld.get(label, ""))
    extras, runs = [], []
    for dataset, data in page.data.items() if len(rows) else ():
        kinds = set(cells.loc[(cells["dataset"] == dataset) & (cells["n"] > 0), "synthetic"])
        if kinds - {data.synthetic}:
            found, expected = MADE_OF[not data.synthetic], MADE_OF[data.synthetic]
            raise ValueError(f"result rows of {page.name} on {data.name} are {found}: expected {expected} data")
        own = rows[rows["dataset"] == data.name]
        extras.append(_extras(lines[lines["dataset"] == dataset], own, labels, page.fidelity))
        runs.append(_runs(page, dataset, own[own["label"].isin(labels.values())]))
    extras = pd.concat([part for part in extras if len(part)] or [pd.DataFrame(columns=list(EXTRA_COLUMNS))])
    runs = pd.DataFrame([run for run in runs if run], columns=list(RUN_COLUMNS))
    return cells, relations.relations(cells), extras, runs


def _check(page: TablePage, printed: pd.DataFrame, here: Mapping[str, str]) -> None:
    if strange := {*page.labels, *page.not_attempted} - set(printed["row"]):
        known = ", ".join(printed["row"].unique())
        raise ValueError(f"{page.name} has no row {min(strange)!r}: expected one of {known}")
    if strange := set(page.data) - set(printed["dataset"]):
        known = ", ".join(printed["dataset"].unique())
        raise ValueError(f"{page.name} is not on {min(strange)!r}: expected {known}")
    if len(here) < len(page.data):
        raise ValueError(f"{page.name} has two data sets under one name: expected a name each")
    if len(page.rows) and (others := set(page.rows["dataset"]) - set(here)):
        raise ValueError(
            f"result rows of {page.name} are on {min(others)!r}: expected {' or '.join(here) or 'no rows'}"
        )


def _readings(printed: pd.DataFrame, labels: Mapping) -> tuple[pd.DataFrame, dict[str, str]]:
    """The printed cells, once per reading where a row has several; and the row of each line -> our label."""
    lines, flat = [], {}
    for cell in printed.to_dict("records"):
        label = labels.get(cell["row"], cell["row"])
        for reading, one in ({"": label} if isinstance(label, str) else label).items():
            row = f"{cell['row']}, read as {reading}" if reading else cell["row"]
            flat[row] = one
            lines.append(cell | {"row": row, "printed_row": cell["row"], "reading": reading})
    return pd.DataFrame(lines), flat


def _extras(
    lines: pd.DataFrame, rows: pd.DataFrame, labels: Mapping[str, str], fidelity: Mapping[str, str]
) -> pd.DataFrame:
    """Our rows of one table and data set that it does not print."""
    used = {labels[row] for row in lines["row"]}
    others = rows[~rows["label"].isin(used) & (rows["selection"] != ORACLE)]
    if others.empty:
        return pd.DataFrame(columns=list(EXTRA_COLUMNS))
    side = side_by_side(lines, others, labels)
    side = side[~side["label"].isin(used)]
    texts = [ours_text(line) for line in side.to_dict("records")]
    words = side["label"].map(lambda label: fidelity.get(label, ""))
    side = side.assign(**{name: lines[name].iloc[0] for name in PART}, ours=texts, fidelity=words)
    return side[list(EXTRA_COLUMNS)]


def _runs(page: TablePage, dataset: str, rows: pd.DataFrame) -> dict:
    """What the runs that stand for printed rows have in common; empty if there are none."""
    if rows.empty:
        return {}
    data = page.data[dataset]
    commits = rows["commit"].dropna().map(str).unique() if "commit" in rows.columns else []
    return {
        **dict(zip(PART, (page.paper, str(page.table), dataset), strict=True)),
        "data": data.name,
        "synthetic": data.synthetic,
        "n_test": data.n_test,
        "seeds": ", ".join(map(str, sorted(rows["seed"].dropna().astype(int).unique()))),
        "selection": ", ".join(sorted(rows["selection"].dropna().map(str).unique())),
        "commit": ", ".join(sorted(commits)),
    }
