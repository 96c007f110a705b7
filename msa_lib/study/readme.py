"""The tables of the README and of docs/, made from the committed rows: `python -m msa_lib.study.readme` fills them in
again.

A table stands between two comments, `<!-- made: NAME -->` and `<!-- end: NAME -->`; what is between them is replaced.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
import pandas as pd

from msa_lib.study import effects, mechanisms, reference_run
from msa_lib.study.captions import NOTEBOOKS
from msa_lib.study.pages import PAGES
from msa_lib.study.tables import table_rows
from msa_lib.train.state import write_atomically

ROOT = Path(__file__).resolve().parents[2]
FILES = ("README.md", "docs/findings.md")
COMMAND = "python -m msa_lib.study.readme"
REGION = re.compile(r"<!-- made: (\w+) -->\n(.*?)<!-- end: \1 -->", re.DOTALL)


def verdicts() -> str:
    """One line per printed table: its printed numbers, and what became of the order of its rows in our runs."""
    from papers_check.judge import relations
    from papers_check.judge.judged_tables import PART, assemble, pages_from, verdict_counts
    from papers_check.printed.cells import load_reported
    from papers_check.printed.papers import NAMES, TITLES

    about = reference_run.meta()
    judged = assemble(pages_from(table_rows("planted", about["seeds"], about["scale"], None)))
    counts = verdict_counts(judged.relations).groupby(level=["paper", "table"]).sum()
    printed = load_reported().query("value != ''")
    words = (relations.HOLDS, relations.UNDECIDED, relations.NO_EFFECT, relations.REVERSED)
    lines = [
        "| | printed numbers | order of two rows: holds / undecided / no effect larger than X / reversed "
        "| the same, by construction | no runs |",
        "|---|---|---|---|---|",
    ]
    for (paper, table), cells in printed.groupby(list(PART[:2]), sort=False):
        name = f"{TITLES[paper]} Table {table}, {', '.join(NAMES[data] for data in cells['dataset'].unique())}"
        found = counts.loc[(paper, table)] if (paper, table) in counts.index else {}

        def told(mark: str = "", found=found) -> str:
            numbers = [int(found.get(word + mark, 0)) for word in words]
            return " / ".join(map(str, numbers)) if sum(numbers) else "–"

        absent = int(found.get(relations.NOT_ATTEMPTED, 0)) or "–"
        lines.append(f"| {name} | {len(cells)} | {told()} | {told(relations.CONSTRUCTED)} | {absent} |")
    note = (
        "Planted data: synthetic. Beside baselines all networks are of the smallest sensible size; a model beside "
        "itself without a part is 32 wide. All learn at one rate, and the planted cue is what a selector needs: an "
        "order that holds here tests the code more than the methods."
    )
    return "\n".join([*lines, "", f"{reference_run.said()} {note}"])


def answers() -> str:
    """The question and the computed answer of every page that has one, from the committed notebooks."""
    lines = ["| page | question | answer |", "|---|---|---|"]
    for name, page in PAGES.items():
        if page.on_demand and not page.kept_seeds:
            continue
        node = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=nbformat.NO_CONVERT)
        question = re.search(r"\*\*Question: (.*?)\*\*", node.cells[0].source, re.DOTALL)
        said = [output.text for output in node.cells[-1].get("outputs", []) if output.get("name") == "stdout"]
        if question and said:
            texts = [re.sub(r"\s+", " ", text).strip().replace("|", "\\|") for text in (question.group(1), said[-1])]
            lines.append(f"| [{name}](../notebooks/{name}.ipynb) | {texts[0][0].upper()}{texts[0][1:]} | {texts[1]} |")
    return "\n".join(lines)


def mechanism_table() -> str:
    """What each mechanism is worth on the data made for it, from the committed runs."""
    from papers_check.judge.intervals import gap_of

    rows = pd.read_csv(mechanisms.ROWS)
    own = rows[rows["draw"] == rows["seed"]]
    found = effects.table(own, mechanisms.COMPARISONS, gap_of, effects.MARGIN, effects.FAMILY)
    lines = ["| mechanism | an oracle gains | learned gain in MAE | with nothing to find | seeds | verdict |"]
    lines += ["|---|---|---|---|---|---|"]
    for name, part in found.groupby("comparison", sort=False):
        job, none = part.to_dict("records")
        told = [
            f"{line['gain']:+.3f} [{line['low']:+.3f}, {line['high']:+.3f}]" if line["gain"] == line["gain"] else "–"
            for line in (job, none)
        ]
        counted = " / ".join(str(seeds) for seeds in dict.fromkeys((job["seeds"], none["seeds"])))
        cells = (name, f"{job['oracle']:.3f}", *told, counted, effects.verdict(job, none))
        lines.append(f"| {' | '.join(cells)} |")
    note = (
        f"Intervals are at 95 % for {effects.FAMILY} mechanisms together, not for all rows. Before the runs, a gain of "
        f"{effects.MARGIN:g} was chosen as the least worth having. *Guided fusion* is against a network that reads the "
        "dominant modality alone; what guidance adds is the row below it. Every seed draws its own planted data "
        "(synthetic); networks are small."
    )
    return "\n".join([*lines, "", note])


TABLES = {"verdicts": verdicts, "answers": answers, "mechanisms": mechanism_table}


def filled(text: str) -> str:
    """The text with its tables made again. Raises ValueError for a table that nothing makes, or none at all."""
    names = [match.group(1) for match in REGION.finditer(text)]
    if unknown := [name for name in names if name not in TABLES]:
        raise ValueError(f"No table {unknown[0]!r} is made here: expected {', '.join(TABLES)}.")
    if not names:
        raise ValueError("There is no table between '<!-- made: NAME -->' and '<!-- end: NAME -->'.")
    return REGION.sub(lambda m: f"<!-- made: {m[1]} -->\n{TABLES[m[1]]()}\n<!-- end: {m[1]} -->", text)


def fill(root: Path = ROOT) -> None:
    """Fill the tables in."""
    for name in FILES:
        if (root / name).exists():
            write_atomically(root / name, filled((root / name).read_text(encoding="utf-8")).encode())


if __name__ == "__main__":
    try:
        fill()
    except ValueError as problem:
        sys.exit(str(problem))
