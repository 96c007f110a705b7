"""The sentences of the papers, recomputed from the papers' own cells.

`claims/<paper>.csv` holds every numeric or comparative sentence, one row per number or statement: the quote, an
`expression` over the printed cells (`printed.expressions`), the `printed` number or `true`, and the `tolerance`,
the largest difference that rounding of the printed cells can explain. `reads_as` is another expression that does give
the printed number. Where no cell bears on a sentence the expression is empty and `reason` says why; such a row is a
finding only if it names a `fact`. Rows with one fact are one finding, whose verdict and reason stand in the first of
them. `claims/names.csv` holds names, citations and abbreviations that do not resolve or collide, and words left over
from elsewhere: read by hand, not computed.
"""

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pandas as pd

from papers_check.checks.finding import Finding, new_finding
from papers_check.printed.cells import load_reported
from papers_check.printed.expressions import evaluate
from papers_check.printed.papers import DATA, PAPERS, TITLES

FOLDER = DATA / "claims"
COLUMNS = ["id", "paper", "where", "quote", "kind", "expression", "printed", "tolerance"]
COLUMNS += ["reads_as", "fact", "verdict", "reason"]
KINDS = ("gain", "drop", "total", "restated", "best", "all", "order", "significance", "existence", "other")
NOTHING_PRINTED = "no printed cell bears on it"
RECOMPUTES, WITHIN, FAILS, NOT_EXPRESSIBLE = "recomputes", "within rounding", "does not recompute", "not expressible"


@dataclass(frozen=True)
class ClaimResult:
    """One sentence after recomputing: `status` is one of the four words above, `computed` what was found."""

    claim: dict[str, str]
    status: str
    computed: str


def load_claims(paper: str) -> pd.DataFrame:
    """The rows of `claims/<paper>.csv` as strings, columns `COLUMNS`; ValueError names the first row out of shape."""
    if not (FOLDER / f"{paper}.csv").exists():
        return pd.DataFrame(columns=COLUMNS)  # none collected
    claims = pd.read_csv(FOLDER / f"{paper}.csv", dtype=str, keep_default_na=False)
    if list(claims.columns) != COLUMNS:
        raise ValueError(f"claims/{paper}.csv has columns {', '.join(claims)}: expected {', '.join(COLUMNS)}")
    for claim in claims.to_dict("records"):
        if problem := _problem(claim, paper):
            raise ValueError(f"claim {claim['id']!r}: {problem}")
    return claims


def load_names(path: Path = FOLDER / "names.csv") -> list[Finding]:
    """The findings about names, citations and left-over words, as written in `claims/names.csv`."""
    rows = pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")
    return [new_finding("read-by-hand", **row) for row in rows]


def check(claim: dict[str, str], reported: pd.DataFrame) -> ClaimResult:
    """Recompute one claim from the printed cells of its paper."""
    if not claim["expression"]:
        return ClaimResult(claim, NOT_EXPRESSIBLE, claim["reason"])
    result = evaluate(claim["expression"], reported)
    notes = "; ".join(dict.fromkeys(result.notes))
    if isinstance(result.value, bool):
        return ClaimResult(claim, RECOMPUTES if result.value == (claim["printed"] == "true") else FAILS, notes)
    if claim["printed"] in ("true", "false"):
        raise ValueError(f"claim {claim['id']!r}: the expression gives {result.value}, expected a truth")
    off = abs(result.value - _decimal(claim["printed"]))
    status = RECOMPUTES if off == 0 else WITHIN if off <= Decimal(claim["tolerance"]) else FAILS
    value = format(result.value, "f")
    shown = value if result.shown == value else f"{result.shown} = {value}"
    computed = f"{shown}; printed {claim['printed']}" + (f" ({notes})" if notes else "")
    if status == FAILS and claim["reads_as"]:
        other = evaluate(claim["reads_as"], reported)
        if other.value == _decimal(claim["printed"]):
            computed += f"; {other.shown} = {claim['printed']}"
    return ClaimResult(claim, status, computed)


def check_all(paper: str) -> list[ClaimResult]:
    """Every sentence of one paper, in reading order."""
    reported = load_reported(paper)
    return [check(claim, reported) for claim in load_claims(paper).to_dict("records")]


def status_counts() -> pd.DataFrame:
    """How many sentences of each paper and kind recompute, fail or cannot be expressed over the cells."""
    rows = [(c.claim["paper"], c.claim["kind"], c.status) for paper in PAPERS for c in check_all(paper)]
    frame = pd.DataFrame(rows, columns=["paper", "kind", "status"])
    return frame.value_counts().rename("n").reset_index().sort_values(["paper", "kind", "status"], ignore_index=True)


def examined() -> int:
    """How many sentences and names were looked at."""
    return sum(len(load_claims(paper)) for paper in PAPERS) + len(load_names())


def findings() -> list[Finding]:
    """What does not recompute, is not best or not all, is said without evidence, or does not resolve."""
    results = [result for paper in PAPERS for result in check_all(paper)]
    facts: dict[str, list[ClaimResult]] = {}
    for result in results:
        if _is_finding(result):
            facts.setdefault(_fact(result.claim), []).append(result)
    return [_finding(fact, parts) for fact, parts in facts.items()] + load_names()


def _is_finding(result: ClaimResult) -> bool:
    # Within rounding is for the count only: the cells are rounded, so the paper may well be right.
    return result.status == FAILS or (result.status == NOT_EXPRESSIBLE and result.claim["fact"] != "")


def _fact(claim: dict[str, str]) -> str:
    kind = "missing" if claim["kind"] in ("existence", "significance") else "claim"
    return claim["fact"] or f"{claim['paper']}-{kind}-{claim['id'].removeprefix(claim['paper'] + '-')}"


def _finding(fact: str, parts: list[ClaimResult]) -> Finding:
    # Rows of one fact: the one with a verdict speaks for all.
    main = next((part for part in parts if part.claim["verdict"]), parts[0])
    both = len({part.claim["paper"] for part in parts}) > 1
    places = [(f"{TITLES[part.claim['paper']]}, " if both else "") + part.claim["where"] for part in parts]
    computed = [NOTHING_PRINTED if part.status == NOT_EXPRESSIBLE else part.computed for part in parts]
    untrue = "is not true of the printed cells" if main.claim["printed"] == "true" else main.status
    return new_finding(
        "claim",
        fact,
        "; ".join(dict.fromkeys(places)),
        "\n".join(dict.fromkeys(part.claim["quote"] for part in parts)),
        computed[parts.index(main)] if len(set(computed)) < 3 else f"{len(parts)} places, a line each",
        main.claim["verdict"] or untrue,
        main.claim["reason"] or f"Recomputed from the cells of the tables: {main.computed}.",
        instances=[f"{a}: {b}" for a, b in zip(places, computed, strict=True)] if len(set(computed)) > 1 else (),
    )


def _decimal(printed: str) -> Decimal:
    return Decimal(printed.replace(",", ""))


def _problem(claim: dict[str, str], paper: str) -> str:
    """What is wrong with the shape of a row, or an empty string."""
    if claim["paper"] != paper or not claim["id"].startswith(f"{paper}-"):
        return f"expected paper and id to begin with {paper}"
    if claim["kind"] not in KINDS:
        return f"kind {claim['kind']!r} is none of {', '.join(KINDS)}"
    if not claim["expression"]:
        return "" if claim["reason"] else "an empty expression needs a reason"
    if not claim["printed"]:
        return "an expression needs the printed value"
    number = claim["printed"] not in ("true", "false")
    return "a printed number needs a tolerance, a truth has none" if number != bool(claim["tolerance"]) else ""
