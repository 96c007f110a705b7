"""One finding about a printed number, equation or sentence: the row that every check hands out.

A check says what is printed and what it computed. What clears the authors, and whether the finding survives it, is
judged by a person and kept as data in `innocent/`: `findings.csv` for one finding, `checks.csv` for whatever else a
check finds. How severe a finding is follows from that by `severity`, and by nothing else.
"""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

import pandas as pd

from papers_check.printed.papers import DATA, PAPERS

FOLDER = DATA / "innocent"
KINDS = ("claim", "arithmetic", "duplicate", "swap", "missing", "conflict", "literature", "gap", "reference")
SUBJECTS = (*PAPERS, "both")
SEVERITIES = ("high", "medium", "low", "note")  # worst first
GROUPS = ("numbers", "equations", "claims without experiment", "comparisons", "references", "open choices")
SURVIVES = ("yes", "no", "unknown")  # the innocent readings listed, all of them
NEEDS = ("paper", "first-hand source", "unread source")  # what it rests on, the paper aside
TOUCHES = ("conclusion", "result", "detail")
QUOTED = ("words", "cells", "nothing")  # verbatim words, a list of printed cells, or no sentence to quote
JUDGED = ["title", "group", "place", "survives", "needs", "touches", "innocent_reading", "part_of"]


def severity(survives: str, needs: str, touches: str) -> str:
    """The one rule. High: holds under every reading listed, needs nothing unread, and changes a conclusion.

    Medium: the same for a printed result. What is only possible, or rests on a source that nobody here has read, is low
    at most; a slip is low while it stands and a note where a reading clears it.
    """
    if survives == "yes" and needs != "unread source":
        return {"conclusion": "high", "result": "medium", "detail": "low"}[touches]
    return "note" if touches == "detail" else "low"


@dataclass(frozen=True)
class Finding:
    """What is printed, what would clear the authors, what can be computed, and how much hangs on it."""

    id: str  # stable and unique: <paper>-<kind>-<short words>
    kind: str
    paper: str
    where: str  # "Table 4", "Eq. 6"
    quote: str  # what is printed, one quotation a line; `quoted` says which sort
    computed: str
    verdict: str  # what is shown, in a few words
    explanation: str  # one or two sentences that can be verified by hand
    check: str  # which check made it, as in innocent/checks.csv
    title: str  # the fact in one sentence
    innocent_reading: str  # the best explanation that would clear the authors, and what is left of the finding then
    survives: str
    needs: str
    touches: str
    group: str
    place: int = 0  # among the facts that matter most, from 1; 0: not among them
    quoted: str = "words"
    instances: tuple[str, ...] = field(default=())  # where one fact shows in several places, a line each
    control: str = ""  # how often its check flags rows known to be real runs

    @property
    def severity(self) -> str:
        return severity(self.survives, self.needs, self.touches)

    def __post_init__(self):
        choices = (KINDS, SUBJECTS, SURVIVES, NEEDS, TOUCHES, GROUPS, QUOTED)
        names = ("kind", "paper", "survives", "needs", "touches", "group", "quoted")
        for name, allowed in zip(names, choices, strict=True):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{self.id}: {name} {getattr(self, name)!r} is none of {', '.join(allowed)}")
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.id) or not self.id.startswith(f"{self.paper}-{self.kind}-"):
            raise ValueError(f"{self.id!r} is not a slug that starts with {self.paper}-{self.kind}-")
        texts = ("where", "quote", "computed", "verdict", "explanation", "check", "title", "innocent_reading")
        if empty := [name for name in texts if not getattr(self, name).strip()]:
            raise ValueError(f"{self.id}: {', '.join(empty)} left empty")

    def row(self) -> dict:
        """The finding as plain data, `severity` included."""
        return asdict(self) | {"severity": self.severity, "instances": list(self.instances)}


@cache
def load_innocent(folder: Path = FOLDER) -> tuple[dict[str, dict], dict[str, dict]]:
    """What would clear the authors, as people judged it: finding id -> row of findings.csv, check -> row of checks.csv.

    Columns `JUDGED`; `part_of` names the finding that this one is an instance of ("{paper}" stands for its paper); if
    no check makes that one, it is made of them. ValueError names the first row out of shape.
    """
    tables = []
    for name, key in (("findings", "id"), ("checks", "check")):
        table = pd.read_csv(folder / f"{name}.csv", dtype=str, keep_default_na=False)
        if list(table.columns) != [key, *JUDGED]:
            raise ValueError(
                f"innocent/{name}.csv has columns {', '.join(table)}: expected {', '.join([key, *JUDGED])}"
            )
        if table[key].duplicated().any():
            raise ValueError(f"innocent/{name}.csv has {table[key][table[key].duplicated()].iloc[0]!r} twice")
        tables.append({row[key]: row for row in table.to_dict("records")})
    return tables[0], tables[1]


def innocent(check: str, id: str) -> dict:
    """The row of `innocent/` for a finding: its own, or that of its check."""
    of_finding, of_check = load_innocent()
    if id not in of_finding and check not in of_check:
        raise ValueError(f"{id}: neither it nor its check {check!r} has an innocent reading in papers_check/innocent")
    return of_check.get(check, {}) | {k: v for k, v in of_finding.get(id, {}).items() if v}


def new_finding(
    check: str,
    id: str,
    where: str,
    quote: str,
    computed: str,
    verdict: str,
    explanation: str,
    quoted: str = "words",
    instances: Iterable[str] = (),
) -> Finding:
    """A finding with its innocent reading from `innocent/`; `id` begins with the paper and the kind."""
    paper, kind, _ = id.split("-", 2)
    reading = innocent(check, id)
    return Finding(
        id=id,
        kind=kind,
        paper=paper,
        where=where,
        quote=quote,
        computed=computed,
        verdict=verdict,
        explanation=explanation,
        check=check,
        title=reading["title"] or verdict,
        innocent_reading=reading["innocent_reading"],
        survives=reading["survives"],
        needs=reading["needs"],
        touches=reading["touches"],
        group=reading["group"],
        place=int(reading["place"] or 0),
        quoted=quoted,
        instances=tuple(instances),
    )


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Worst first, then by kind, paper and id."""

    def key(finding: Finding) -> tuple:
        place = KINDS.index(finding.kind), SUBJECTS.index(finding.paper)
        return SEVERITIES.index(finding.severity), *place, finding.id

    return sorted(findings, key=key)
