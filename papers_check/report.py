"""The one page to read: every printed cell beside our runs, the claims, the findings, and what was not attempted.

`report` turns what `joined.assemble` judged, the findings and the claims into one HTML page that needs no server, no
network and, to be read, no JavaScript; its layout is `report.html.j2`. `whole` does everything from the result rows on.
On synthetic data the page holds relations between rows and no verdict on a printed number.
"""

import base64
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from papers_check import PAPERS, audit, claims, gaps, relations, verdicts
from papers_check.claims import FAILS, NOT_EXPRESSIBLE, RECOMPUTES, WITHIN, Checked
from papers_check.finding import SEVERITIES, Finding, by_severity
from papers_check.joined import PART, Joined, TablePage, assemble, summary
from papers_check.papers import NAMES, is_own
from papers_check.rows import METRICS, column
from papers_check.tables import MISSING, ours_text

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
MEANINGS = {
    verdicts.REPRODUCED: "inside our interval, and shown to be within the margin, however many runs were averaged",
    verdicts.COMPATIBLE: "inside our interval however many runs were averaged; being close is not shown",
    verdicts.FEW_RUNS: "inside only if the paper averaged few runs",
    verdicts.BEST_OF: "outside for a single run, inside for the best of M runs",
    verdicts.TEST_SELECTION: "inside only if the epoch is chosen on the test set",
    verdicts.SMALL_DIFFERENCE: "outside for every number of runs, yet within the margin of our mean",
    verdicts.NOT_REPRODUCED: "outside for every number of runs, the number of cells of the table allowed for",
    verdicts.NOT_ATTEMPTED: "no runs, or too few for a verdict; the reason stands beside it",
    verdicts.SYNTHETIC: "our runs are on synthetic data, so that no printed number can be judged by them",
    relations.HOLDS: "the row that is printed as better is better in our runs, more than chance would have it",
    relations.UNDECIDED: "neither a gap nor its absence is shown, or there are fewer than five seeds",
    relations.NO_EFFECT: "any gap in our runs is smaller than X, the printed gap, either way",
    relations.REVERSED: "the row that is printed as better is worse in our runs, more than chance would have it",
}
TABLE = re.compile(r"Tables? (\d+)(?: (and|to) (\d+))?")
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters["tone"] = lambda word: next((tone for tone, words in TONES.items() if word in words), "neither")


def whole(pages: Iterable[TablePage], provenance: Mapping[str, str], notes: Sequence[str] = ()) -> str:
    """The page from the result rows on: judge them, run all checks of the audit, recompute all claims."""
    found, counts = audit.collect()
    checked = [result for paper in PAPERS for result in claims.check_all(paper)]
    from papers_check.pictures_facts import drawn  # slow to import, and not needed for the rest

    return report(found, checked, assemble(pages), provenance, counts, notes, drawn())


def report(
    findings: Iterable[Finding],
    checked: Iterable[Checked],
    joined: Joined,
    provenance: Mapping[str, str],
    counts: Mapping[str, tuple[int, int]] | None = None,
    notes: Sequence[str] = (),
    pictures: Mapping[str, bytes] | None = None,
) -> str:
    """One self-contained HTML page, the same for the same input.

    findings    all of them, in any order; shown worst first
    checked     the claims, from `claims.check_all`
    joined      from `joined.assemble`
    provenance  name -> text, shown at the top in this order: command, commit, scale; no dates
    counts      module -> (things checked, findings), from `audit.collect`
    notes       what else was not attempted, a sentence each
    pictures    finding id -> PNG, shown beside that finding
    Raises ValueError for a verdict on a printed number that rests on synthetic data.
    """
    _refuse_absolute(joined.cells)
    found, results = by_severity(findings), list(checked)
    cells = joined.cells[joined.cells["reported"] != ""]
    n_printed, dashes = (
        len(part.drop_duplicates([*PART, "printed_row", "metric", "side"]))
        for part in (cells, joined.cells[joined.cells["reported"] == ""])
    )
    # A table of data sets is one table, not one per data set.
    cells = cells.assign(dataset=cells["dataset"].where(~cells["metric"].isin(verdicts.COUNTS), ""))
    return _ENVIRONMENT.get_template("report.html.j2").render(
        provenance=dict(provenance),
        runs=_runs(joined),
        facts=[_finding(finding, pictures) for finding in audit.facts(found)],
        groups={name: [_finding(finding, pictures) for finding in part] for name, part in audit.grouped(found).items()},
        gap_tables={paper: gaps.table(paper) for paper in PAPERS},
        findings=[_finding(finding) for finding in found],
        severities={word: sum(finding.severity == word for finding in found) for word in SEVERITIES},
        counts=dict(counts or {}),
        claims=[_claim(result) for result in results],
        claim_words=list(CLAIM_WORDS.values()),
        claim_counts=_claim_counts(results),
        tables=[_table(key, part, joined, found) for key, part in cells.groupby(list(PART), sort=False)],
        printed=n_printed,
        dashes=dashes,
        counted=_counted(cells, joined.relations),
        absent=_absent(cells),
        meanings=MEANINGS,
        notes=list(notes),
        papers=audit.TITLES,
        heading=f"{_listed([audit.TITLES[paper] for paper in PAPERS])}: the printed numbers, checked",
        shown_papers=PAPERS,
        dash=MISSING,
    )


def _refuse_absolute(cells: pd.DataFrame) -> None:
    allowed = (verdicts.SYNTHETIC, verdicts.NOT_ATTEMPTED)
    wrong = cells[cells["synthetic"].astype(bool) & ~cells["verdict"].isin(allowed)]
    if len(wrong):
        row, metric, verdict = wrong.iloc[0][["row", "metric", "verdict"]]
        raise ValueError(f"{row} {metric} on synthetic data is {verdict!r}: expected {verdicts.SYNTHETIC!r}")


# --- one table ------------------------------------------------------------------------------------------------------


def _table(key: tuple, cells: pd.DataFrame, joined: Joined, found: Sequence[Finding]) -> dict:
    """What is shown of one printed table and data set: cells with runs, relations, our other rows, cells without."""
    paper, table, _ = key
    # A row is shown as a whole only if nothing can be said about any cell of it; else each cell has its line.
    silent = (
        ((cells["n"] == 0) & (cells["failed"] == 0) & (cells["verdict"] == verdicts.NOT_ATTEMPTED))
        .groupby(cells["row"])
        .transform("all")
    )
    compared = joined.relations[_is(joined.relations, key)]
    # A reading without runs is shown beside one that has some.
    names = ["metric", "side", "printed_better", "printed_worse"]
    compared = compared.merge(compared.loc[compared["verdict"] != verdicts.NOT_ATTEMPTED, names].drop_duplicates())
    order = {row: place for place, row in enumerate(cells["row"].unique())}
    lines = sorted(compared.to_dict("records"), key=lambda line: order[_other(line)])
    best = verdicts.printed_cells(cells)
    chosen = best.set_index(["printed_row", "metric", "side"])[["row", "verdict", "readings"]].to_dict("index")
    once = [
        line["row"] == chosen[line["printed_row"], line["metric"], line["side"]]["row"]
        for line in cells.to_dict("records")
    ]
    cells = cells.assign(once=once)
    judged = cells[~silent]
    run = [run for run in _runs(joined) if all(run[name] == value for name, value in zip(PART, key, strict=True))]
    whole_table = joined.cells[(joined.cells["paper"] == paper) & (joined.cells["table"] == table)]
    columns = list(dict.fromkeys(zip(whole_table["metric"], whole_table["side"], strict=True)))  # in printed order
    decimals = {(line["metric"], line["side"]): line["decimals"] for line in cells.to_dict("records")}
    place = f"{paper}-{table}"
    return {
        "name": _name(dict(zip(PART, key, strict=True))),
        "slug": _slug(key),
        "paper": paper,
        "place": place,
        "run": run[0] if run else None,
        "synthetic": bool(judged["synthetic"].any()),
        "judged": [
            _cell(line, chosen[line["printed_row"], line["metric"], line["side"]]) for line in judged.to_dict("records")
        ],
        "word_counts": _words(best.loc[best["row"].isin(judged["row"]), "verdict"]),
        "relations": [_relation(line, decimals) for line in lines],
        "relation_tests": int(sum(part["test"].nunique() for _, part in compared.groupby(["metric", "side"]))),
        "relation_counts": _relation_words(compared),
        "extras": _wide(joined.extras[_is(joined.extras, key)], "label", "ours", columns),
        "silent": _wide(cells[silent], "row", "reported", columns),
        "silent_cells": cells[silent].groupby("row")["once"].sum().to_dict(),
        "reasons": cells[silent].groupby("row")["reason"].first().to_dict(),
        "findings": [finding for finding in found if place in places(finding.where, finding.paper)],
    }


def _cell(line: Mapping, best: Mapping) -> dict:
    """A line of cells; `best` is what its printed cell comes to over all readings."""
    k, real = line["decimals"], not line["synthetic"]
    ours = ours_text(line | {"ours": line["mean"], "column_decimals": k})
    return {
        "row": line["row"],
        "column": _column(line["metric"], line["side"]),
        "printed": line["reported"],
        "ours": ours,
        "n": line["n"],
        "values": " ".join(_number(value, k) for value in line["values"]) if line["n"] > 1 else "",
        "one": _interval(line["pi_1_low"], line["pi_1_high"], k),
        "many": _interval(line["pi_inf_low"], line["pi_inf_high"], k),
        "detectable": f"{_number(line['mdd_1'], k)} / {_number(line['mdd_inf'], k)}" if line["mdd_1"] >= 0 else "",
        "needed": _needed(line),
        "verdict": line["verdict"],
        "reason": line["reason"] if real or line["verdict"] != verdicts.SYNTHETIC else "",
        "of_cell": f"{best['verdict']}, over its {best['readings']} readings" if best["readings"] > 1 else "",
        "counts": int(line["once"]),
        "truncated": line["verdict_truncated"] if line["verdict_truncated"] != line["verdict"] else "",
    }


def _needed(line: Mapping) -> str:
    """Seeds with which equivalence could pass, if one run was printed, five were averaged, or the value were exact."""
    counts = [line[f"equivalence_seeds_{m}"] for m in ("1", "5", "inf")]
    return " / ".join(f"{n:.0f}" if np.isfinite(n) else "never" for n in counts) if not np.isnan(counts[-1]) else ""


def _other(line: Mapping) -> str:
    """The row of a relation that is not the paper's own."""
    return line["worse"] if is_own(line["paper"], line["printed_better"]) else line["better"]


def _relation(line: Mapping, decimals: Mapping[tuple[str, str], int]) -> dict:
    k = decimals[line["metric"], line["side"]]
    return {
        "better": line["better"],
        "worse": line["worse"],
        "column": _column(line["metric"], line["side"]),
        "claimed": _number(line["claimed_gap"], k),
        "inside": {True: "yes", False: "no"}.get(line["claimed_inside"], ""),
        "gap": _number(line["gap"], k, sign=True),
        "interval": _interval(line["low"], line["high"], k, sign=True),
        "how": line["interval"] + (f", r = {line['correlation']:.2f}" if line["correlation"] >= -1 else ""),
        "smallest": _number(line["smallest_effect"], k),
        "margin": _number(line["margin"], k),
        "reason": "" if line["verdict"] in (relations.HOLDS, relations.REVERSED) else line["reason"].partition(": ")[2],
        "by_construction": line["by_construction"],
        "p": "below 0.001" if line["p_holm"] < 0.001 else _number(line["p_holm"], 3),
        "n": f"{line['n_better']} / {line['n_worse']}",
        "p_margin": "below 0.001" if line["p_margin_holm"] < 0.001 else _number(line["p_margin_holm"], 3),
        "verdict": line["verdict"],
    }


def _wide(cells: pd.DataFrame, name: str, value: str, order: Sequence[tuple[str, str]]) -> dict:
    """{"columns": names, "rows": [(row, texts)]}: a line per row, an empty text where there is nothing."""
    texts = {tuple(key): text for *key, text in cells[[name, "metric", "side", value]].to_numpy()}
    columns = [one for one in order if one in {key[1:] for key in texts}]
    rows = [(row, [texts.get((row, *one), "") for one in columns]) for row in cells[name].unique()]
    return {"columns": [_column(*one) for one in columns], "rows": rows}


# --- findings and claims --------------------------------------------------------------------------------------------


def places(where: str, paper: str) -> set[str]:
    """The tables a text names, as "amsgfn-2": "Tables 2 to 4" is three; with both papers each part names its own."""
    found = set()
    for part in where.split(";"):
        own = next((name for name in PAPERS if part.strip().startswith(audit.TITLES[name])), paper)
        for first, word, last in TABLE.findall(part):
            numbers = range(int(first), int(last) + 1) if word == "to" else {int(first), int(last or first)}
            found |= {f"{own}-{number}" for number in numbers}
    return found


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


def _claim(result: Checked) -> dict:
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


def _claim_counts(results: Sequence[Checked]) -> dict[str, list[int]]:
    """Paper -> how many claims have each of `CLAIM_WORDS`."""
    counts = Counter((result.claim["paper"], result.status) for result in results)
    return {audit.TITLES[paper]: [counts[paper, status] for status in CLAIM_WORDS] for paper in PAPERS}


# --- counts and texts -----------------------------------------------------------------------------------------------


def _counted(cells: pd.DataFrame, compared: pd.DataFrame) -> dict:
    """Verdicts on cells and relations: the words of both, and lines (name, slug, numbers) by table, then by paper."""
    both = [summary(frame) for frame in (cells, compared)]
    table = pd.concat(both, axis=1, keys=("cells", "relations")).reindex(both[0].index).fillna(0).astype(int)
    lines = [
        (_name(dict(zip(PART, key, strict=True))), _slug(key), numbers.tolist())
        for key, numbers in zip(table.index, table.to_numpy(), strict=True)
    ]
    for paper, part in table.groupby(level=0):
        lines.append((f"{audit.TITLES[paper]}, all tables", "", part.sum().tolist()))
    return {"words": [list(frame.columns) for frame in both], "lines": lines}


def _absent(cells: pd.DataFrame) -> list[dict]:
    """What was not attempted: a line per table and reason, with the rows it holds for and the number of cells."""
    missing = cells[cells["verdict"] == verdicts.NOT_ATTEMPTED]
    groups = missing.groupby([*PART, "reason"], sort=False)
    return [
        {
            "name": _name(dict(zip(PART, key, strict=False))),
            "paper": key[0],
            "place": f"{key[0]}-{key[1]}",
            "reason": key[3],
            "rows": ", ".join(part["row"].unique()),
            "cells": len(part),
        }
        for key, part in groups
    ]


def _runs(joined: Joined) -> list[dict]:
    """The lines of `Joined.runs` with a name for the table and short words for the seeds."""
    return [line | {"name": _name(line), "seeds": _seeds(line["seeds"])} for line in joined.runs.to_dict("records")]


def _seeds(text: str) -> str:
    """ "3 (1111 to 1113)" for seeds in a row, "2 (1, 5)" for others."""
    seeds = [int(seed) for seed in text.split(", ") if seed]
    in_a_row = len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1
    return f"{len(seeds)} ({f'{seeds[0]} to {seeds[-1]}' if in_a_row else text})" if seeds else ""


def _words(words: pd.Series) -> str:
    """ "3 compatible, 1 not reproduced", in the order of the vocabulary."""
    counts = words.value_counts()
    return ", ".join(f"{counts[word]} {word}" for word in MEANINGS if word in counts)


def _relation_words(compared: pd.DataFrame) -> str:
    """The counts of the words, a relation with readings once, and how often the better row is ahead at all."""
    once = relations.printed_relations(compared)
    made = once["by_construction"] != ""
    text = _words(once.loc[~made, "verdict"])
    if made.any():
        text += f"{'; ' if text else ''}by construction of the planted data: {_words(once.loc[made, 'verdict'])}"
    text += f"; in our runs, too, the better row is ahead in {(once['gap'] > 0).sum()} of {len(once)}"
    paired = once["correlation"].dropna()
    text += f"; median correlation over seeds {paired.median():.2f}" if len(paired) else ""
    few = int((once[["n_better", "n_worse"]].min(axis=1) < verdicts.FLOOR).sum())
    return text + (f"; {few} with fewer than {verdicts.FLOOR} seeds, which decide nothing" if few else "")


def _is(frame: pd.DataFrame, key: tuple) -> pd.Series:
    return (frame[list(PART)] == list(key)).all(axis=1)


def _name(line: Mapping) -> str:
    dataset = f", {NAMES[line['dataset']]}" if line["dataset"] else ""
    return f"{audit.TITLES[line['paper']]} Table {line['table']}{dataset}"


def _listed(names: Sequence[str]) -> str:
    """ "A", "A and B", "A, B and C"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _slug(key: Sequence[str]) -> str:
    return "-".join(part for part in key if part)


def _column(metric: str, side: str) -> str:
    return column(metric, side) if metric in METRICS else metric


def _number(value: float, decimals: int, sign: bool = False) -> str:
    if np.isnan(value):
        return ""
    # Adding zero turns the -0.0 of a tiny negative number into 0.0.
    return f"{round(float(value), decimals) + 0.0:{'+' if sign else ''}.{decimals}f}"


def _interval(low: float, high: float, decimals: int, sign: bool = False) -> str:
    return "" if np.isnan(low) else f"{_number(low, decimals, sign)} to {_number(high, decimals, sign)}"
