"""What the papers leave open, as data: every undefined symbol, missing value and contradiction an implementer meets.

`gaps/<paper>.csv`: `quote` from the paper, what it `could_mean`, our `default` and the `switch` that changes it,
written `AMSGFNConfig.tau`, `DSRFConfig.votes` or `TrainConfig.lr`; where the default belongs to a named setting of the
model, such as a row of an ablation, `variant` names it. A gap without a switch has its default in words in
`could_mean`. This module only reads names; that every switch exists and has this default is tested where msa_lib is at
hand.
"""

import pandas as pd

from papers_check.checks.finding import Finding, new_finding
from papers_check.printed.papers import DATA, PAPERS

FOLDER = DATA / "gaps"
COLUMNS = ["id", "paper", "where", "quote", "could_mean", "default", "switch", "variant"]


def load_gaps(paper: str | None = None) -> pd.DataFrame:
    """The gaps of one paper or both, strings, columns `COLUMNS`; ValueError names the first row out of shape."""
    if paper is not None and paper not in PAPERS:
        raise ValueError(f"unknown paper {paper!r}: expected one of {', '.join(PAPERS)}")
    names = PAPERS if paper is None else (paper,)
    gaps = pd.concat([_read(name) for name in names], ignore_index=True)
    twice = gaps[gaps.duplicated("id")]
    if len(twice):
        raise ValueError(f"gap {twice.iloc[0]['id']!r} occurs twice: expected one row per gap")
    return gaps


def examined() -> int:
    """How many open choices are listed."""
    return len(load_gaps())


def findings() -> list[Finding]:
    """One finding per paper: how many choices it leaves open; the table of them is `table`."""
    return [_finding(paper) for paper in PAPERS if len(load_gaps(paper))]


def table(paper: str) -> list[tuple[str, str, str, str, str, str]]:
    """The open choices of a paper, a line each: item, where, quote, what it could mean, our choice, switch."""
    lines = []
    for gap in load_gaps(paper).to_dict("records"):
        item = gap["id"].removeprefix(f"{paper}-gap-").replace("-", " ")
        setting = f" (in {gap['variant']})" if gap["variant"] else ""
        lines.append((item, gap["where"], gap["quote"], gap["could_mean"], gap["default"], gap["switch"] + setting))
    return lines


def _read(paper: str) -> pd.DataFrame:
    if not (FOLDER / f"{paper}.csv").exists():
        return pd.DataFrame(columns=COLUMNS)  # none collected
    gaps = pd.read_csv(FOLDER / f"{paper}.csv", dtype=str, keep_default_na=False)
    if list(gaps.columns) != COLUMNS:
        raise ValueError(f"gaps/{paper}.csv has columns {', '.join(gaps)}: expected {', '.join(COLUMNS)}")
    for gap in gaps.to_dict("records"):
        if problem := _problem(gap, paper):
            raise ValueError(f"gap {gap['id']!r}: {problem}")
    return gaps


def _problem(gap: dict[str, str], paper: str) -> str:
    if gap["paper"] != paper or not gap["id"].startswith(f"{paper}-gap-"):
        return f"expected paper {paper} and an id that begins with {paper}-gap-"
    if empty := [name for name in ("where", "quote", "could_mean") if not gap[name]]:
        return f"{', '.join(empty)} left empty"
    if bool(gap["switch"]) != bool(gap["default"]):
        return "a switch needs a default, and a default a switch"
    return "a variant needs a switch" if gap["variant"] and not gap["switch"] else ""


def _finding(paper: str) -> Finding:
    gaps = load_gaps(paper)
    with_switch = int((gaps["switch"] != "").sum())
    return new_finding(
        "gaps",
        f"{paper}-gap-open-choices",
        "whole paper",
        "(the quotes stand in the table)",
        f"{len(gaps)} choices are open; {with_switch} of them have a switch in our code",
        "open choices",
        f"Each choice with its quote, what it could mean and what we chose: gaps/{paper}.csv, printed as a table.",
        "nothing",
    )
