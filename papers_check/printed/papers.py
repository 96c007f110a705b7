"""What the papers are, as data: titles, kinds of tables, what each printed row is, and how an unclear one can be read.

    papers.toml    papers and data sets: titles, kinds of tables
    methods.csv    paper, row (as printed), role (one of `ROLES`), method (key of the model), name (usual spelling)
    readings.csv   paper, table, row, reading, label: which of our rows an unclear printed row can mean

Adding a paper edits these files and adds `reported/<paper>.csv`; no module names a paper's rows or tables.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import pandas as pd

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DATA = Path(__file__).parents[1]  # reported/, claims/, counts/ ... lie in the package itself
KINDS = ("sizes", "results", "ablation")  # of tables
# own: the paper's model; modalities: without some modality; component: without, or with another, part.
ROLES = ("own", "baseline", "modalities", "component")


class Method(NamedTuple):
    """What a printed row is."""

    role: str
    method: str
    name: str


def _csv(name: str, columns: list[str]) -> pd.DataFrame:
    frame = pd.read_csv(DATA / name, dtype=str, keep_default_na=False)
    if list(frame.columns) != columns:
        raise ValueError(f"{name} has columns {', '.join(frame)}: expected {', '.join(columns)}")
    if (strange := frame[~frame["paper"].isin(PAPERS)]).size:
        raise ValueError(f"{name} has a paper {strange.iloc[0]['paper']!r}: expected one of {', '.join(PAPERS)}")
    return frame


def _methods() -> dict[tuple[str, str], Method]:
    frame = _csv("methods.csv", ["paper", "row", "role", "method", "name"])
    for line in frame.to_dict("records"):
        if line["role"] not in ROLES or not line["method"] or not line["name"]:
            raise ValueError(f"methods.csv, {line['row']!r}: expected a method, a name and one of {', '.join(ROLES)}")
    if (twice := frame[frame.duplicated(["paper", "row"])]).size:
        raise ValueError(f"methods.csv has row {twice.iloc[0]['row']!r} twice: expected a line per paper and row")
    keys = zip(frame["paper"], frame["row"], strict=True)
    return dict(zip(keys, map(Method, frame["role"], frame["method"], frame["name"]), strict=True))


def _readings() -> dict[tuple[str, str], dict[str, dict[str, str]]]:
    found: dict = {}
    for line in _csv("readings.csv", ["paper", "table", "row", "reading", "label"]).to_dict("records"):
        row = found.setdefault((line["paper"], line["table"]), {}).setdefault(line["row"], {})
        if line["reading"] in row or not line["reading"] or not line["label"]:
            raise ValueError(f"readings.csv, {line['row']!r}: expected a label for each reading, named once")
        row[line["reading"]] = line["label"]
    return found


def _tables() -> dict[tuple[str, str], str]:
    kinds = {
        (paper, table): kind for paper, known in _DATA["papers"].items() for table, kind in known["tables"].items()
    }
    for (paper, table), kind in kinds.items():
        if kind not in KINDS:
            raise ValueError(f"papers.toml, {paper} table {table} is {kind!r}: expected one of {', '.join(KINDS)}")
    return kinds


_DATA = tomllib.loads((DATA / "papers.toml").read_text(encoding="utf-8"))
PAPERS: tuple[str, ...] = tuple(_DATA["papers"])
TITLES: dict[str, str] = {paper: known["title"] for paper, known in _DATA["papers"].items()}
BEST: dict[str, str] = {paper: known["best"] for paper, known in _DATA["papers"].items()}
NEWEST: dict[str, int] = {paper: known.get("newest_reference", 9999) for paper, known in _DATA["papers"].items()}
DATASETS: dict[str, dict] = _DATA["datasets"]
NAMES: dict[str, str] = {name: known["title"] for name, known in DATASETS.items()}
TABLES = _tables()  # (paper, table) -> kind
METHODS = _methods()  # (paper, printed row) -> what it is


def tables_of(kind: str) -> frozenset[tuple[str, str]]:
    """(paper, table) of every table of a kind."""
    return frozenset(key for key, one in TABLES.items() if one == kind)


ABLATIONS, COMPARISONS = tables_of("ablation"), tables_of("results")


def method_of(paper: str, row: str) -> Method:
    """What a printed row is; ValueError if methods.csv does not say."""
    if (paper, row) not in METHODS:
        raise ValueError(f"methods.csv has no line for row {row!r} of {paper}: expected one for every printed row")
    return METHODS[paper, row]


def is_own(paper: str, row: str) -> bool:
    """Whether a printed row is the paper's own model, whole."""
    known = METHODS.get((paper, row))  # rows of a table of data sets are no methods
    return known is not None and known.role == "own"


def by_construction(role: str) -> str:
    """Why rows of this role relate to the own row on planted data as they do, whatever the mechanisms; or ""."""
    return _DATA["by_construction"].get(role, "")


def readings(paper: str, table: str | int) -> dict[str, dict[str, str]]:
    """Printed row -> {reading: our label}, for the rows of a table that can be read in several ways."""
    return {row: dict(labels) for row, labels in _readings().get((paper, str(table)), {}).items()}
