"""The sentences of the papers, recomputed from the papers' own cells.

`claims/<paper>.csv` holds every numeric or comparative sentence, one row per number or statement: the quote, an
`expression` over the printed cells (`papers_check.expressions`), the `printed` number or `true`, and the `tolerance`,
the largest difference that rounding of the printed cells can explain. `reads_as` is another expression that does give
the printed number. Where no cell bears on a sentence the expression is empty and `reason` says why; such a row is a
finding only if it has a severity. `claims/names.csv` holds names, citations and abbreviations that do not resolve or
collide, and words left over from elsewhere: read by hand, not computed.
"""

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pandas as pd

from papers_check import PAPERS, load_reported
from papers_check.expressions import evaluate
from papers_check.finding import Finding

FOLDER = Path(__file__).parent / "claims"
COLUMNS = ["id", "paper", "where", "quote", "kind", "expression", "printed", "tolerance"]
COLUMNS += ["reads_as", "severity", "verdict", "reason"]
KINDS = ("gain", "drop", "total", "restated", "best", "all", "order", "significance", "existence", "other")
RECOMPUTES, WITHIN, FAILS, NOT_EXPRESSIBLE = "recomputes", "within rounding", "does not recompute", "not expressible"


@dataclass(frozen=True)
class Checked:
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


def load_names() -> list[Finding]:
    """The findings about names, citations and left-over words, as written in `claims/names.csv`."""
    return [
        Finding(**row) for row in pd.read_csv(FOLDER / "names.csv", dtype=str, keep_default_na=False).to_dict("records")
    ]


def check(claim: dict[str, str], reported: pd.DataFrame) -> Checked:
    """Recompute one claim from the printed cells of its paper."""
    if not claim["expression"]:
        return Checked(claim, NOT_EXPRESSIBLE, claim["reason"])
    found = evaluate(claim["expression"], reported)
    notes = "; ".join(dict.fromkeys(found.notes))
    if isinstance(found.value, bool):
        return Checked(claim, RECOMPUTES if found.value == (claim["printed"] == "true") else FAILS, notes)
    if claim["printed"] in ("true", "false"):
        raise ValueError(f"claim {claim['id']!r}: the expression gives {found.value}, expected a truth")
    off = abs(found.value - _decimal(claim["printed"]))
    status = RECOMPUTES if off == 0 else WITHIN if off <= Decimal(claim["tolerance"]) else FAILS
    computed = f"{format(found.value, 'f')} from the cells, printed {claim['printed']}"
    computed += f" ({notes})" if notes else ""
    if status == FAILS and claim["reads_as"]:
        other = evaluate(claim["reads_as"], reported)
        if other.value == _decimal(claim["printed"]):
            computed += f"; {claim['printed']} is {claim['reads_as']}"
    return Checked(claim, status, computed)


def check_all(paper: str) -> list[Checked]:
    """Every sentence of one paper, in reading order."""
    reported = load_reported(paper)
    return [check(claim, reported) for claim in load_claims(paper).to_dict("records")]


def summary() -> pd.DataFrame:
    """How many sentences of each paper and kind recompute, fail or cannot be expressed over the cells."""
    rows = [(c.claim["paper"], c.claim["kind"], c.status) for paper in PAPERS for c in check_all(paper)]
    frame = pd.DataFrame(rows, columns=["paper", "kind", "status"])
    return frame.value_counts().rename("n").reset_index().sort_values(["paper", "kind", "status"], ignore_index=True)


def checked() -> int:
    """How many sentences and names were looked at."""
    return sum(len(load_claims(paper)) for paper in PAPERS) + len(load_names())


def findings() -> list[Finding]:
    """What does not recompute, is not best or not all, is said without evidence, or does not resolve."""
    results = [result for paper in PAPERS for result in check_all(paper)]
    return [_finding(result) for result in results if _is_finding(result)] + load_names()


def _is_finding(result: Checked) -> bool:
    # Within rounding is for the count only: the cells are rounded, so the paper may well be right.
    return result.status == FAILS or (result.status == NOT_EXPRESSIBLE and result.claim["severity"] != "")


def _finding(result: Checked) -> Finding:
    claim = result.claim
    kind = "missing" if claim["kind"] in ("existence", "significance") else "claim"
    plain = "is not true of the printed cells" if claim["printed"] == "true" else result.status
    return Finding(
        id=f"{claim['paper']}-{kind}-{claim['id'].removeprefix(claim['paper'] + '-')}",
        kind=kind,
        paper=claim["paper"],
        where=claim["where"],
        quote=claim["quote"],
        computed="no printed cell bears on it" if result.status == NOT_EXPRESSIBLE else result.computed,
        verdict=claim["verdict"] or plain,
        severity=claim["severity"],
        explanation=claim["reason"] or f"Recomputed from the cells of the tables: {result.computed}.",
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
    if not claim["printed"] or not claim["severity"]:
        return "an expression needs the printed value and the severity if it fails"
    number = claim["printed"] not in ("true", "false")
    return "a printed number needs a tolerance, a truth has none" if number != bool(claim["tolerance"]) else ""
