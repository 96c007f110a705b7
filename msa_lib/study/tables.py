"""What the store holds of every printed table, and what of it may be judged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from msa_lib.data import Dataset, short_name
from msa_lib.data.check import SIZES
from msa_lib.models import MODELS
from msa_lib.runs import finished
from msa_lib.runs.identity import dataset_of
from msa_lib.study import reference_run
from msa_lib.study.pages import BASELINES, FROZEN, PAGES, TUNED, Page, tuned_label
from msa_lib.study.rows import runs_of
from msa_lib.study.standins import places, stands_in


def table_rows(
    data: str, seeds: int, scale: str, store: str | Path | None, device: str = "cpu", stack: int = 0
) -> list[dict]:
    """What the store holds of every printed table when the study is asked to run on `data`; nothing is trained.

    Without a store, what the reference run holds. One dict per table: see `printed_table`.
    """
    tables = []
    for name, page in PAGES.items():
        if page.table is None or not page.rows:
            continue
        there, skipped = places(name, data, scale)
        parts = []
        for half, root in there.values():
            try:
                dataset = dataset_of(half, root)
            except (ValueError, OSError) as problem:  # a damaged file leaves its own tables empty, not all
                skipped.append(str(problem))
                continue
            few = reference_run.seeds_of(name)[1] if store is None else None
            which = {"train": False, "baseline_seeds": few, "stack": stack}
            runs = runs_of(name, half, root, dataset, seeds, scale, device, **which)
            parts.append((half, dataset, reference_run.find(runs) if store is None else finished(runs, store)))
        tables.append(printed_table(name, parts, scale, skipped))
    return tables


def printed_table(
    name: str, parts: Sequence[tuple[str, Dataset, pd.DataFrame]], scale: str, skipped: Sequence[str] = ()
) -> dict:
    """One printed table and our rows of it, from (name, data set, result rows) for each half of its page.

    paper, table, data (printed data set -> name, synthetic, test samples of ours), rows (result
    rows, perhaps none), ours (the labels that rows can have), readings, conditions (frozen or fine-tuned BERT, where
    there are runs of both: name -> {label: label under it}), fidelity (label of a baseline -> how much of it is its
    paper's, see `card.Card`), skipped (why a data set cannot stand for the printed one, a sentence each).
    """
    page, used, kept, skipped = PAGES[name], {}, [], list(skipped)
    for half, dataset, rows in parts:
        printed = stands_in(name, half, dataset)
        if reason := not_judged_because(printed, dataset, scale):
            skipped.append(reason)
            continue
        if len(rows) and not dataset.synthetic:
            other = _other_settings(page, printed, rows)
            skipped += other.values()
            rows = rows[~rows["label"].isin(other)]
        used[printed] = (short_name(half), dataset.synthetic, len(dataset.test))
        kept.append(rows)
    kept = [rows for rows in kept if len(rows)]
    rows = pd.concat(kept, ignore_index=True) if kept else pd.DataFrame()
    readings = {
        row: {f"reading {letter}, {label}": label for letter, label in options.items()}
        for row, options in page.readings.items()
    }
    there = set(rows["label"]) if len(rows) else set()
    twins = {label: tuned_label(label) for label in page.tuned if tuned_label(label) in there}
    conditions = {FROZEN: {label: label for label in page.tuned}, TUNED: twins} if twins else {}
    table = {"paper": page.paper, "table": page.table, "data": used, "rows": rows}
    table |= {"ours": list(page.rows), "readings": readings, "conditions": conditions, "fidelity": fidelity(page)}
    return table | {"skipped": skipped}


def fidelity(page: Page) -> dict[str, str]:
    """How much of each baseline of a page is its paper's: label, its twin with a trained encoder too -> the word."""
    models = {label: model for label, (model, _) in page.rows.items()} | dict(page.larger)
    words = {label: MODELS[model].CARD.fidelity for label, model in models.items() if model in BASELINES}
    return words | {tuned_label(label): word for label, word in words.items() if label in page.tuned}


def not_judged_because(printed: str, dataset: Dataset, scale: str) -> str:
    """Why runs on `dataset` at `scale` say nothing about numbers printed for a data set; empty if they do.

    Planted data stand in for any (only relations are read off them). Real data must be that set, whole, at full scale.
    """
    if dataset.synthetic:
        return ""
    name, n = Path(dataset.name).name, SIZES[printed][-1]
    if len(dataset.test) != n:
        return f"{name} has {len(dataset.test)} test samples; {printed}, for which numbers are printed, has {n}."
    if not all(dataset.available):
        return f"{name} lacks a modality that the numbers printed for {printed} rest on."
    if scale != "full":
        return f"Printed numbers for {printed} are judged at full scale only, not at {scale}."
    return ""


def _other_settings(page: Page, printed: str, rows: pd.DataFrame) -> dict[str, str]:
    """label -> why its rows were not made with the settings that are stated for its model; no others.

    A row may change what it is about (its own switches); every other stated setting has to be the stated one.
    """
    labels = {twin: label for label in page.tuned for twin in (label, tuned_label(label))}
    wrong = {}
    for _, row in rows.drop_duplicates("run").iterrows():
        if row["label"] not in labels or row["model"] not in MODELS:
            continue
        stated = MODELS[row["model"]].RECIPES[printed]
        used = json.loads(row["switches"]) | json.loads(row["train"])
        own = {"bert", *page.rows[labels[row["label"]]][1]}
        for name, (value, source) in stated.items():
            if not source.startswith("ours") and name not in own and used[name] != value:
                said = (
                    f"Runs of {row['label']} for {printed} have {name} = {used[name]!r}, stated is {value!r}: they are "
                    f"not judged."
                )
                wrong.setdefault(row["label"], said)
    return wrong
