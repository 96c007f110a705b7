"""The printed numbers judged by the runs in a store: what `msa check` and the report rest on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from msa_lib.study.captions import words
from msa_lib.study.pages import FIRST_SEED, SCALES, amount
from msa_lib.study.standins import expect_data
from msa_lib.study.tables import table_rows
from msa_lib.train.state import write_atomically
from papers_check.judge.judged_tables import JudgedTables, TablePage, assemble, pages_from, records, verdict_counts
from papers_check.show import report
from papers_check.show.plain_text import as_text


@dataclass(frozen=True)
class JudgedStore:
    """Every printed table beside what a store holds for it; `notes` say what had to be left out, a sentence each."""

    store: str
    pages: list[TablePage]
    tables: JudgedTables
    notes: list[str]
    provenance: dict[str, str]  # what stands at the top of the report

    def as_json(self) -> dict[str, list[dict]]:
        """Lines for `--json`: a line per printed cell and reading, and one per printed relation."""
        return {"cells": records(self.tables.cells), "relations": records(self.tables.relations)}

    def as_text(self) -> str:
        """How many printed cells, and how many relations between rows, got which verdict."""
        compared = verdict_counts(self.tables.relations).drop(columns="not attempted", errors="ignore")
        compared = compared[compared.sum(axis=1) > 0]
        return "\n".join(
            [
                as_text(verdict_counts(self.tables.cells)),
                "\nRelations between rows, as printed and in our runs:",
                as_text(compared) if len(compared) else f"no two rows of a table have runs in {self.store}",
            ]
        )


def judge_store(
    data: str,
    seeds: int | None = None,
    scale: str | None = None,
    store: str | Path = "runs",
    device: str = "cpu",
    stack: int = 0,
) -> JudgedStore:
    """Judge every printed table by the runs that `msa tables` with the same arguments would make; nothing is trained.

    Raises FileNotFoundError or ValueError, one sentence, where `data` cannot stand for the data set of any table.
    """
    seeds, scale = amount(data, seeds, scale)
    expect_data(data)
    tables = table_rows(data, seeds, scale, store, device, stack)
    notes = list(dict.fromkeys(reason for table in tables for reason in table["skipped"]))
    if not any(table["data"] for table in tables):
        raise ValueError(f"{data!r} cannot stand for the data set of any printed table: {' '.join(notes)}")
    pages = pages_from(tables)
    provenance = {
        "Command": words("check", "", data, seeds, scale, stack),
        "Seeds": f"{seeds}, from {FIRST_SEED} on",
        "Scale": SCALES[scale].cost,
    }
    return JudgedStore(str(store), pages, assemble(pages), notes, provenance)


def write_report(judged: JudgedStore, path: str | Path) -> None:
    """The whole report as one self-contained HTML page, with the audit of the papers; written whole or not at all."""
    page = report.whole(judged.pages, judged.provenance, judged.notes)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(Path(path), page.encode())
