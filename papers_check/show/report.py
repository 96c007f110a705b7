"""The one page to read: every printed cell beside our runs, the claims, the findings, and what was not attempted.

`report` turns what `judged_tables.assemble` judged, the findings and the claims into one HTML page that needs no
server, no network and, to be read, no JavaScript; its layout is `templates/report.html.j2`. `whole` does everything
from the result rows on. On synthetic data the page holds relations between rows and no verdict on a printed number.
"""

import base64
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import jinja2
import pandas as pd

from papers_check.checks import audit, claims, gaps
from papers_check.checks.claims import FAILS, NOT_EXPRESSIBLE, RECOMPUTES, WITHIN, ClaimResult
from papers_check.checks.finding import SEVERITIES, Finding, by_severity
from papers_check.judge import relations, verdicts
from papers_check.judge.judged_tables import PART, JudgedTables, TablePage, assemble, verdict_counts
from papers_check.printed.papers import PAPERS
from papers_check.printed.units import MISSING
from papers_check.show.report_tables import MEANINGS, places, runs_shown, slug_of, table_name, table_shown

CLAIM_WORDS = {
    FAILS: "does not recompute",
    NOT_EXPRESSIBLE: "cannot be tested here",
    WITHIN: "recomputes within rounding",
    RECOMPUTES: "recomputes",
}
# How a word is drawn; the word itself always stands there, too.
TONES = {
    "for": (verdicts.REPRODUCED, verdicts.COMPATIBLE, relations.HOLDS, RECOMPUTES, CLAIM_WORDS[WITHIN]),
    "against": (verdicts.NOT_REPRODUCED, relations.REVERSED, relations.NO_EFFECT, FAILS, "high"),
    "between": (verdicts.FEW_RUNS, verdicts.BEST_OF, verdicts.TEST_SELECTION, verdicts.SMALL_DIFFERENCE, "medium"),
}
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("papers_check.show"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters["tone"] = lambda word: next((tone for tone, words in TONES.items() if word in words), "neither")


def whole(pages: Iterable[TablePage], provenance: Mapping[str, str], notes: Sequence[str] = ()) -> str:
    """The page from the result rows on: judge them, run all checks of the audit, recompute all claims."""
    found, counts = audit.run_checks()
    results = [result for paper in PAPERS for result in claims.check_all(paper)]
    from papers_check.show.pictures_facts import drawn  # slow to import, and not needed for the rest

    return report(found, results, assemble(pages), provenance, counts, notes, drawn())


def report(
    findings: Iterable[Finding],
    results: Iterable[ClaimResult],
    judged: JudgedTables,
    provenance: Mapping[str, str],
    counts: Mapping[str, tuple[int, int]] | None = None,
    notes: Sequence[str] = (),
    pictures: Mapping[str, bytes] | None = None,
) -> str:
    """One self-contained HTML page, the same for the same input.

    findings    all of them, in any order; shown worst first
    results     the claims, from `claims.check_all`
    judged      from `judged_tables.assemble`
    provenance  name -> text, shown at the top in this order: command, commit, scale; no dates
    counts      module -> (things examined, findings), from `audit.run_checks`
    notes       what else was not attempted, a sentence each
    pictures    finding id -> PNG, shown beside that finding
    Raises ValueError for a verdict on a printed number that rests on synthetic data.
    """
    _refuse_absolute(judged.cells)
    found, results = by_severity(findings), list(results)
    cells = judged.cells[judged.cells["reported"] != ""]
    n_printed, dashes = (
        len(part.drop_duplicates([*PART, "printed_row", "metric", "side"]))
        for part in (cells, judged.cells[judged.cells["reported"] == ""])
    )
    # A table of data sets is one table, not one per data set.
    cells = cells.assign(dataset=cells["dataset"].where(~cells["metric"].isin(verdicts.COUNTS), ""))
    return _ENVIRONMENT.get_template("report.html.j2").render(
        provenance=dict(provenance),
        runs=runs_shown(judged),
        facts=[_finding(finding, pictures) for finding in audit.key_facts(found)],
        groups={name: [_finding(finding, pictures) for finding in part] for name, part in audit.grouped(found).items()},
        gap_tables={paper: gaps.table(paper) for paper in PAPERS},
        findings=[_finding(finding) for finding in found],
        severities={word: sum(finding.severity == word for finding in found) for word in SEVERITIES},
        counts=dict(counts or {}),
        claims=[_claim(result) for result in results],
        claim_words=list(CLAIM_WORDS.values()),
        claim_counts=_claim_counts(results),
        tables=[table_shown(key, part, judged, found) for key, part in cells.groupby(list(PART), sort=False)],
        printed=n_printed,
        dashes=dashes,
        counted=_counted(cells, judged.relations),
        absent=_absent(cells),
        meanings=MEANINGS,
        notes=list(notes),
        papers=audit.SUBJECT_TITLES,
        heading=f"{_listed([audit.SUBJECT_TITLES[paper] for paper in PAPERS])}: the printed numbers, checked",
        shown_papers=PAPERS,
        dash=MISSING,
    )


def _refuse_absolute(cells: pd.DataFrame) -> None:
    allowed = (verdicts.SYNTHETIC, verdicts.NOT_ATTEMPTED)
    wrong = cells[cells["synthetic"].astype(bool) & ~cells["verdict"].isin(allowed)]
    if len(wrong):
        row, metric, verdict = wrong.iloc[0][["row", "metric", "verdict"]]
        raise ValueError(f"{row} {metric} on synthetic data is {verdict!r}: expected {verdicts.SYNTHETIC!r}")


# --- findings and claims --------------------------------------------------------------------------------------------


def _finding(finding: Finding, pictures: Mapping[str, bytes] | None = None) -> dict:
    picture = (pictures or {}).get(finding.id)
    return finding.row() | {
        "papers": " ".join(PAPERS) if finding.paper == "both" else finding.paper,
        "places": " ".join(sorted(places(finding.where, finding.paper))),
        "stands": audit.SURVIVES[finding.survives],
        "heading": audit.PRINTED[finding.quoted],
        "quotes": finding.quote.splitlines() if finding.quoted != "nothing" else [],
        "picture": f"data:image/png;base64,{base64.b64encode(picture).decode()}" if picture else "",
    }


def _claim(result: ClaimResult) -> dict:
    claim = result.claim
    # Where nothing can be computed, `computed` is the reason already.
    why = claim["reason"] if result.status == FAILS and claim["reason"] != result.computed else ""
    return {
        "paper": claim["paper"],
        "places": " ".join(sorted(places(claim["where"], claim["paper"]))),
        "where": claim["where"],
        "quote": claim["quote"],
        "kind": claim["kind"],
        "status": CLAIM_WORDS[result.status],
        "computed": result.computed,
        "why": why,
    }


def _claim_counts(results: Sequence[ClaimResult]) -> dict[str, list[int]]:
    """Paper -> how many claims have each of `CLAIM_WORDS`."""
    counts = Counter((result.claim["paper"], result.status) for result in results)
    return {audit.SUBJECT_TITLES[paper]: [counts[paper, status] for status in CLAIM_WORDS] for paper in PAPERS}


# --- counts and texts -----------------------------------------------------------------------------------------------


def _counted(cells: pd.DataFrame, compared: pd.DataFrame) -> dict:
    """Verdicts on cells and relations: the words of both, and lines (name, slug, numbers) by table, then by paper."""
    both = [verdict_counts(frame) for frame in (cells, compared)]
    table = pd.concat(both, axis=1, keys=("cells", "relations")).reindex(both[0].index).fillna(0).astype(int)
    lines = [
        (table_name(dict(zip(PART, key, strict=True))), slug_of(key), numbers.tolist())
        for key, numbers in zip(table.index, table.to_numpy(), strict=True)
    ]
    for paper, part in table.groupby(level=0):
        lines.append((f"{audit.SUBJECT_TITLES[paper]}, all tables", "", part.sum().tolist()))
    return {"words": [list(frame.columns) for frame in both], "lines": lines}


def _absent(cells: pd.DataFrame) -> list[dict]:
    """What was not attempted: a line per table and reason, with the rows it holds for and the number of cells."""
    missing = cells[cells["verdict"] == verdicts.NOT_ATTEMPTED]
    groups = missing.groupby([*PART, "reason"], sort=False)
    return [
        {
            "name": table_name(dict(zip(PART, key, strict=False))),
            "paper": key[0],
            "place": f"{key[0]}-{key[1]}",
            "reason": key[3],
            "rows": ", ".join(part["row"].unique()),
            "cells": len(part),
        }
        for key, part in groups
    ]


def _listed(names: Sequence[str]) -> str:
    """ "A", "A and B", "A, B and C"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
