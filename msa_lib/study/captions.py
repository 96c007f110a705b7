"""What stands around a table in a notebook: where its runs are, what they were made on, the command."""

from __future__ import annotations

import atexit
import json
import shlex
import tempfile
from dataclasses import replace
from pathlib import Path

import pandas as pd

from msa_lib.data import Dataset, Split, short_name
from msa_lib.data.oracle import ceilings_on
from msa_lib.study.pages import FIRST_SEED, PAGES, SCALES
from msa_lib.study.rows import left_out
from msa_lib.study.tables import fidelity
from papers_check.show.plain_text import as_text

FOOTNOTES = {
    "completed": "° completed: the equations are its paper's, gaps in them we filled",
    "partial": "°° partial: some of what its paper has is not in our build; shown, and no verdict is given on it",
}
KNOWN = {  # levels of `oracle.ceilings`, as they stand under a table
    "nothing": "nothing",
    "dominant alone": "dominant modality alone",
    "no cue": "all, no cue",
    "cue": "all and the cue",
    "truth": "all, the whole truth",
}
NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"  # of the checkout


def folder(store: str) -> str:
    """Where runs are kept: `store` itself, or, if it is empty, a folder that goes away with this process."""
    if store:
        return store
    temporary = tempfile.TemporaryDirectory(prefix="msa-")
    atexit.register(temporary.cleanup)
    return temporary.name


def headline(dataset: Dataset) -> str:
    """The line above every table: what the right side of its cells was measured on."""
    return f"Right of the bar: ours, on {'SYNTHETIC (planted)' if dataset.synthetic else 'real'} data, {dataset.name}"


def command(name: str, root: str | None, seeds: int, scale: str, page: str = "", stack: int = 0) -> str:
    """The command line that makes a page (or all) again; folders of this machine are left out of it."""
    short = short_name(name)
    data = "FOLDER" + "".join(short.partition("?")[1:]) if root else short
    return words("tables", page, data, seeds, scale, stack)


def words(verb: str, page: str, data: str, seeds: int, scale: str, stack: int) -> str:
    """The command line of a verb that takes the amount of a study."""
    told = ["msa", verb, page, "--data", data, "--seeds", str(seeds), "--scale", scale]
    return shlex.join([*filter(None, told), *(["--stack", str(stack)] if stack else [])])


def caption(dataset: Dataset, rows: pd.DataFrame, scale: str, command: str, page: str = "") -> str:
    """What must stand under every table: the data, on planted data what can be reached there, the seeds, the spread,
    the selection rule, the command.

    With `page`, also the rows of it that these data cannot have.
    """
    trained = rows[rows["selection"] != ""]
    seeds = ", ".join(map(str, sorted(trained["seed"].unique())))
    n, rules = trained["seed"].nunique(), ", ".join(sorted(trained["selection"].unique()))
    absent = left_out(page, dataset, scale) if page else {}
    marks = footnotes(page, rows) if page else []
    kind = "real data"
    if dataset.synthetic:
        kind = "SYNTHETIC (planted): relations only, no number compares with a printed one"
    return "\n".join(
        [
            f"Data: {dataset.name} [{dataset.fingerprint}], {kind}; test n = {len(dataset.test)}.",
            *(f"      {note}" for note in dataset.notes),
            *reachable(dataset),
            f"Ours: mean ± sample SD (ddof 1) over {n} seed{'s' * (n != 1)} ({seeds}); reference rows have none.",
            f"Epoch kept by: {rules}. Scale: {scale} ({SCALES[scale].cost}).",
            *(f"Not possible here: {', '.join(r)}. {why}" for why, r in absent.items()),
            *at_once(trained),
            *marks,
            f"Command: {command}",
        ]
    )


def at_once(trained: pd.DataFrame) -> list[str]:
    """Which rows are of seeds that trained at once, a line; none if every seed trained alone."""
    sizes = trained["train"].map(lambda text: len(json.loads(text).get("stack", ())))
    if not sizes.any():
        return []
    alone = ", ".join(trained.loc[sizes == 0, "label"].unique())
    said = f"Seeds trained at most {sizes.max()} at once: other runs than seed by seed."
    return [said + (f" Trained seed by seed: {alone}." if alone else "")]


def reachable(dataset: Dataset) -> list[str]:
    """What could be reached on planted data: MAE of the best predictions on their test samples, by an oracle; lines.

    None where the recipe of the data is not known, or they are real.
    """
    found = ceilings_on(dataset)
    if not found:
        return []
    line = {KNOWN[level]: [round(float(errors.mean()), 3)] for level, errors in found.items() if level in KNOWN}
    title = "Reachable there: MAE of an oracle on the same test samples, by what it knows of each."
    return [title, *(f"      {text}" for text in as_text(pd.DataFrame(line)).splitlines())]


def footnotes(page: str, rows: pd.DataFrame) -> list[str]:
    """What the marks ° and °° of baselines in a page's table mean: a sentence for each that occurs in its rows."""
    words = fidelity(PAGES[page])
    found = {words[label] for label in rows["label"].unique() if label in words}
    return [f"{said}." for word, said in FOOTNOTES.items() if word in found]


def picture(
    text: str, dataset: Dataset, seeds: int, name: str, root: str | None, scale: str, page: str, stack: int = 0
) -> str:
    """What stands under a figure of a page: what it shows, the data, the seeds, the command; one paragraph."""
    kind = "SYNTHETIC (planted) data" if dataset.synthetic else "Real data"
    last = FIRST_SEED + seeds - 1
    which = f"seed {FIRST_SEED}" if seeds == 1 else f"seeds {FIRST_SEED} to {last}"
    again = command(name, root, seeds, scale, page, stack)
    return f"{text} {kind}, {dataset.name}; {which}; {scale} scale. Command: {again}"


def first_samples(dataset: Dataset, n: int) -> Dataset:
    """The first `n` training samples as training, validation and test set at once."""
    full = dataset.train
    arrays = {name: getattr(full, name) for name in ("text", "audio", "vision", "lengths", "labels", "unimodal_labels")}
    arrays["tokens"] = full.tokens
    few = Split(
        **{name: value[:n] for name, value in arrays.items() if value is not None},
        ids=full.ids[:n],
        truth={name: value[:n] for name, value in full.truth.items()},
    )
    return replace(dataset, name=f"{dataset.name} (first {n})", train=few, valid=few, test=few, fingerprint="")
