"""What the papers leave open, as data: every undefined symbol, missing value and contradiction an implementer meets.

`gaps/<paper>.csv`: `quote` from the paper, what it `could_mean`, our `default` and the `switch` that changes it,
written `AMSGFNConfig.tau`, `DSRFConfig.votes` or `TrainConfig.lr`; where the default belongs to a named setting of the
model, such as a row of an ablation, `variant` names it. A gap without a switch has its default in words in
`could_mean`. This module only reads names; that every switch exists and has this default is tested where msa_lib is at
hand.
"""

from pathlib import Path

import pandas as pd

from papers_check import PAPERS
from papers_check.finding import SEVERITIES, Finding

FOLDER = Path(__file__).parent / "gaps"
COLUMNS = ["id", "paper", "where", "quote", "could_mean", "default", "switch", "variant", "severity"]


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


def checked() -> int:
    """How many open choices are listed."""
    return len(load_gaps())


def findings() -> list[Finding]:
    """Every gap as a finding."""
    return [_finding(gap) for gap in load_gaps().to_dict("records")]


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
    if gap["severity"] not in SEVERITIES:
        return f"severity {gap['severity']!r} is none of {', '.join(SEVERITIES)}"
    if empty := [name for name in ("where", "quote", "could_mean") if not gap[name]]:
        return f"{', '.join(empty)} left empty"
    if bool(gap["switch"]) != bool(gap["default"]):
        return "a switch needs a default, and a default a switch"
    return "a variant needs a switch" if gap["variant"] and not gap["switch"] else ""


def _finding(gap: dict[str, str]) -> Finding:
    setting = f" in the setting {gap['variant']!r}" if gap["variant"] else ""
    choice = f"{gap['switch']} = {gap['default']}{setting}" if gap["switch"] else "no switch"
    return Finding(
        id=gap["id"],
        kind="gap",
        paper=gap["paper"],
        where=gap["where"],
        quote=gap["quote"],
        computed=f"our choice: {choice}",
        verdict="not stated",
        severity=gap["severity"],
        explanation=f"{gap['could_mean'][0].upper()}{gap['could_mean'][1:]}.",
    )
