"""What a reader needs to repeat the work, item by item: stated, inferable or absent.

`checklist/<paper>.csv`: `item` in a `group` (data, model, training, search, evidence), its `status`, and for what is
stated or inferable where and in which words. The items follow the reproducibility checklists of NeurIPS and ACL, plus
what these two models need. An item that a model does not have is `not applicable`.
"""

import pandas as pd

from papers_check.checks.finding import Finding, new_finding
from papers_check.printed.papers import DATA, PAPERS

FOLDER = DATA / "checklist"
COLUMNS = ["item", "group", "paper", "status", "where", "quote", "note"]
STATUSES = ("stated", "inferable", "absent", "not applicable")
# Without these a printed number cannot be compared with another one.
DECISIVE = ("seeds", "number of runs", "variance or interval", "checkpoint selection rule")


def load_checklist(paper: str | None = None) -> pd.DataFrame:
    """One row per item and paper, strings, columns `COLUMNS`; ValueError names the first row out of shape."""
    names = PAPERS if paper is None else (paper,)
    return pd.concat([_read(name) for name in names], ignore_index=True)


def status_counts() -> pd.DataFrame:
    """Items per paper (rows) and status (columns)."""
    items = load_checklist()
    return pd.crosstab(items["paper"], items["status"]).reindex(columns=list(STATUSES), fill_value=0)


def examined() -> int:
    """How many items of both papers were looked up."""
    return len(load_checklist())


def findings() -> list[Finding]:
    """Per paper: the items that decide whether numbers can be compared, and all that is absent."""
    return [finding for paper in PAPERS for finding in (_decisive(paper), _overview(paper)) if finding]


def _decisive(paper: str) -> Finding | None:
    items = load_checklist(paper)
    absent = items[(items["status"] == "absent") & items["item"].isin(DECISIVE)]["item"].tolist()
    if not absent:
        return None
    return new_finding(
        "checklist",
        f"{paper}-missing-runs-and-selection",
        "whole paper",
        "(no sentence)",
        f"absent: {', '.join(absent)}",
        "not stated",
        "Look for these items in the paper.",
        "nothing",
    )


def _overview(paper: str) -> Finding | None:
    items = load_checklist(paper)
    items = items[items["status"] != "not applicable"]
    by_status = {status: items[items["status"] == status]["item"].tolist() for status in STATUSES[:3]}
    if not by_status["absent"]:
        return None
    counts = ", ".join(f"{len(names)} {status}" for status, names in by_status.items())
    return new_finding(
        "checklist",
        f"{paper}-missing-checklist",
        "whole paper",
        "(no sentence)",
        f"of {len(items)} items that a repetition needs, {counts}; absent: {', '.join(by_status['absent'])}",
        "incomplete for a repetition",
        f"The list, with quotes, is in checklist/{paper}.csv.",
        "nothing",
    )


def _read(paper: str) -> pd.DataFrame:
    if not (FOLDER / f"{paper}.csv").exists():
        return pd.DataFrame(columns=COLUMNS)  # none collected
    items = pd.read_csv(FOLDER / f"{paper}.csv", dtype=str, keep_default_na=False)
    if list(items.columns) != COLUMNS:
        raise ValueError(f"checklist/{paper}.csv has columns {', '.join(items)}: expected {', '.join(COLUMNS)}")
    for item in items.to_dict("records"):
        quoted = item["status"] in ("stated", "inferable")
        if item["paper"] != paper or item["status"] not in STATUSES or quoted != bool(item["quote"]):
            raise ValueError(
                f"checklist/{paper}.csv, {item['item']!r}: expected paper {paper}, a status among"
                f" {', '.join(STATUSES)}, and a quote exactly where it is stated or inferable"
            )
    return items
