"""What the pages of the study (`pages.py`) need to run: data in the place of each printed set, runs, rows, captions.

A notebook asks for the `runs_of` its page; the command line asks for those of all notebooks first, so that one
progress bar knows all the work. Whatever a page asks for and cannot have is said: `places`, `left_out`.
"""

from __future__ import annotations

import atexit
import json
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd

from msa_lib.data import PLANTED, REAL, Dataset, Split, load_dataset, locate, short_name, split_options
from msa_lib.data.check import SIZES
from msa_lib.data.encoders import encoder_problem
from msa_lib.identity import dataset_of
from msa_lib.models import MODELS, card
from msa_lib.pages import (  # fmt: skip
    FIRST_SEED,
    FROZEN,
    PAGES,
    SCALES,
    SHORTER,
    TUNED,
    Page,
    tuned_label,
)
from msa_lib.runs import Run, finished
from msa_lib.train import TrainConfig

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"  # of the checkout
TRAINING = {setting.name for setting in fields(TrainConfig)}


def amount(data: str, seeds: int | None, scale: str | None) -> tuple[int, str]:
    """Seeds and scale, defaults filled in: quick on planted data, full otherwise; as many seeds as the scale has."""
    scale = scale or ("quick" if split_options(data)[0].startswith("planted") else "full")
    default = _scale(scale).seeds
    seeds = default if seeds is None else seeds
    if seeds < 1:
        raise ValueError(f"The number of seeds is {seeds}; expected 1 or more.")
    return seeds, scale


def _scale(name: str):
    if name not in SCALES:
        raise ValueError(f"No scale {name!r}: expected one of {', '.join(SCALES)}.")
    return SCALES[name]


# --- which data stand where ------------------------------------------------------------------------------------------


def data_of(page: str, data: str, scale: str) -> tuple[str, str | None]:
    """(name, root) of the data set a notebook uses when the study is asked to run on `data`.

    `data` is "planted" (then the planted stand-in of the page's own set), another planted name, a file or packed
    folder (then every notebook uses it), or a folder that holds the real sets: then each notebook takes its own, and
    one that shows nothing printed for its set takes the first there is. Options after '?' stay with the name.
    """
    own = PAGES[page].dataset
    place = _data_for(own, data, scale)
    if place[1] and PAGES[page].any_set and _absence(*place):
        others = (_data_for(real, data, scale) for real in REAL if real != own)
        return next((other for other in others if not _absence(*other)), place)
    return place


def places(page: str, data: str, scale: str) -> tuple[dict[str, tuple[str, str | None]], list[str]]:
    """What stands in for each printed data set of a page, {printed: (name, root)}, and a sentence for each without.

    One data set for a page of two printed ones stands in for the one it is taken for (`stands_in`).
    """
    own = PAGES[page]
    found = {printed: _data_for(printed, data, scale) for printed in own.printed}
    if own.any_set:
        found = {own.dataset: data_of(page, data, scale)}
    absent = {printed: reason for printed, place in found.items() if (reason := _absence(*place))}
    there = {printed: place for printed, place in found.items() if printed not in absent}
    if len(there) == 2 and len(set(there.values())) == 1:
        place = next(iter(there.values()))
        there = {stands_in(page, place[0], dataset_of(*place)): place}
    return there, list(dict.fromkeys(absent.values()))


def second_of(page: str, data: str, scale: str) -> str:
    """Name of the data set of a table's right half, in the same root; empty if there is none or one file is for all."""
    there, _ = places(page, data, scale)
    return there[PAGES[page].second][0] if len(there) == 2 else ""


def stands_in(page: str, name: str, dataset: Dataset) -> str:
    """The printed data set for which a page takes `dataset`, loaded as `name`: of two the one that it is, if it is one.

    Settings and verdicts go by this, never by the name under which a file was given.
    """
    first, second = PAGES[page].dataset, PAGES[page].second
    if not second:
        return first
    if dataset.synthetic:
        return second if split_options(name)[0] == f"planted-{second}" else first
    sizes = tuple(map(len, dataset.splits.values()))
    return second if sizes[-1] == SIZES[second][-1] and sizes[-1] != SIZES[first][-1] else first


def expect_data(data: str, scale: str = "full") -> dict[str, str]:
    """Which real sets a folder holds, {name: file or what was looked for}; empty for anything that is no such folder.

    Raises FileNotFoundError with one sentence if `data` is nothing that the study could run on.
    """
    base, options = split_options(data)
    if base in PLANTED or (Path(base).exists() and not _holds_sets(base)):
        return {}
    if not Path(base).exists():
        hint = "give the folder that holds it" if base in REAL else f"expected one of {', '.join(PLANTED)}, or a path"
        raise FileNotFoundError(f"No data set {base!r}: {hint}.")
    found = {}
    for name in REAL:
        try:
            found[name] = str(locate(name, base, dict(options)).relative_to(base))
        except FileNotFoundError as missing:
            found[name] = str(missing)
    if all(_absence(name + data[len(base) :], base) for name in REAL):
        files = ", ".join(choices[0] for choices in REAL.values())
        parent = Path(base).resolve().parent
        above = any(not _absence(name, str(parent)) for name in REAL)
        hint = f"; its parent {parent} holds one" if above else ""
        raise FileNotFoundError(f"No data set under {base}: expected {files}, or a packed <name>.packed{hint}.")
    return found


def sized(name: str, scale: str) -> str:
    """A planted name with the sizes of the scale, for a notebook's default; any other name as it is."""
    base, options = split_options(name)
    if base not in PLANTED or options:
        return name
    sizes = [_scale(scale).sizes, SHORTER.get(base, "")] if _scale(scale).sizes else []
    return f"{base}?{'&'.join(filter(None, sizes))}".rstrip("?")


def _data_for(real: str, data: str, scale: str) -> tuple[str, str | None]:
    base, options = split_options(data)
    if base == "planted" and not options:
        base = data = f"planted-{real}"
    if base in PLANTED:
        return sized(data, scale), None
    if _holds_sets(base):
        return real + data[len(base) :], str(Path(base).resolve())
    return (str(Path(base).resolve()) + data[len(base) :] if Path(base).exists() else data), None


def _holds_sets(base: str) -> bool:
    return Path(base).is_dir() and not (Path(base) / "meta.json").exists()


def _absence(name: str, root: str | None) -> str:
    """Why a real set is not under `root`; empty if it is. Other names are looked for where they are loaded."""
    base, options = split_options(name)
    if root is None or base not in REAL:
        return ""
    try:
        locate(base, root, options)
    except (FileNotFoundError, ValueError) as missing:
        return str(missing)
    return ""


# --- which runs a page shows -----------------------------------------------------------------------------------------


def runs_of(
    page: str,
    name: str,
    root: str | None,
    dataset: Dataset,
    seeds: int,
    scale: str,
    device: str = "cpu",
    train: bool = True,
) -> list[Run]:
    """Every run of a page on `dataset` (loaded from `name`, `root`): rows x seeds, reference predictors once.

    Rows that the data cannot have are left out (`left_out` says why), and so is a row whose training settings are
    those of the scale anyway. Runs that are only looked up (`train` false) do not need their text encoder here.
    """
    seeds, scale = amount(name, seeds, scale)
    size, runs, printed = SCALES[scale], [], stands_in(page, name, dataset)
    for label, (model, own) in _rows(page, dataset, scale, train)[0].items():
        if model not in MODELS:
            runs.append(Run(model, name, 0, own, {}, root or None, label=label))
            continue
        common = _settings(model, printed, scale)
        settings = common | dict(own)
        if own and settings == common:
            continue
        switches = dict(size.switches.get(model, {})) | {k: v for k, v in settings.items() if k not in TRAINING}
        train = {k: v for k, v in settings.items() if k in TRAINING}
        for seed in range(FIRST_SEED, FIRST_SEED + seeds):
            runs.append(Run(model, name, seed, switches, train, root or None, device, label))
    return runs


def left_out(page: str, dataset: Dataset, scale: str) -> dict[str, list[str]]:
    """The rows of a page that the data cannot have: reason, a sentence -> their labels."""
    reasons: dict[str, list[str]] = {}
    for label, reason in _rows(page, dataset, scale)[1].items():
        reasons.setdefault(reason, []).append(label)
    return reasons


def _rows(
    page: str, dataset: Dataset, scale: str, train: bool = True
) -> tuple[dict[str, tuple[str, Mapping]], dict[str, str]]:
    """label -> (model, switches) of the rows that can be had on `dataset`, and label -> reason of the others.

    At full scale each row that stands for a printed one has a twin with a fine-tuned text encoder, where the data have
    the token ids of one: which of the two the printed numbers are is for the verdicts to weigh.
    """
    shown = PAGES[page]
    text, tokens = dataset.train.text, dataset.train.tokens
    only_tokens = tokens is not None and text.shape[-1] == 1 and not text.any()  # a file without text features
    possible, reasons = {}, {}
    no_encoder = (
        encoder_problem(dataset.encoder) if train and (only_tokens or scale == "full") and tokens is not None else ""
    )
    for label, (model, own) in (shown.rows | (shown.detail if scale == "full" else {})).items():
        own = {"bert": "frozen", **own} if only_tokens and model in MODELS else own
        fits = MODELS[model].fits(dataset, own) if model in MODELS else card.lacking(dataset, own.get("modalities", ""))
        if reason := fits or (no_encoder if "bert" in own else ""):
            reasons[label] = reason
        else:
            possible[label] = model, own
        tuned = scale == "full" and label in shown.tuned and tokens is not None and "t" in own.get("modalities", "t")
        if tuned and label in possible:
            if no_encoder:
                reasons[tuned_label(label)] = no_encoder
            else:
                possible[tuned_label(label)] = model, {**own, "bert": "finetune"}
    return possible, reasons


def _token_range(dataset: Dataset) -> tuple[int, int]:
    """The largest token id of the data, and their longest sequence."""
    tokens = [split.tokens for split in dataset.splits.values() if split.tokens is not None]
    return max(int(t[:, 0].max()) for t in tokens if len(t)), max(t.shape[-1] for t in tokens)


def _settings(model: str, printed: str, scale: str) -> dict:
    """Training settings of a scale; at full scale the recipe of the model for the data set, its width included."""
    return dict(SCALES[scale].train) or card.settings(MODELS[model].RECIPES[printed])


# --- what the store holds of the printed tables ----------------------------------------------------------------------


def table_rows(data: str, seeds: int, scale: str, store: str | Path, device: str = "cpu") -> list[dict]:
    """What the store holds of every printed table when the study is asked to run on `data`; nothing is trained.

    One dict per table: paper, table, data (printed data set -> name, synthetic, test samples of ours), rows (result
    rows, perhaps none), ours (the labels that rows can have), readings, conditions (frozen or fine-tuned BERT, where
    there are runs of both: name -> {label: label under it}), skipped (why a data set cannot stand for the
    printed one, a sentence each: see `_stands_for`).
    """
    tables = []
    for name, page in PAGES.items():
        if page.table is None or not page.rows:
            continue
        there, skipped = places(name, data, scale)
        used, parts = {}, []
        for printed, (half, root) in there.items():
            try:
                dataset = dataset_of(half, root)
            except (ValueError, OSError) as problem:  # a damaged file leaves its own tables empty, not all
                skipped.append(str(problem))
                continue
            rows = finished(runs_of(name, half, root, dataset, seeds, scale, device, train=False), store)
            reason = _stands_for(printed, dataset, scale)
            if reason := reason or ("" if dataset.synthetic else _other_settings(page, printed, rows)):
                skipped.append(reason)
                continue
            used[printed] = (short_name(half), dataset.synthetic, len(dataset.test))
            parts.append(rows)
        parts = [part for part in parts if len(part)]
        rows = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
        readings = {
            row: {f"reading {letter}, {label}": label for letter, label in options.items()}
            for row, options in page.readings.items()
        }
        there = set(rows["label"]) if len(rows) else set()
        twins = {label: tuned_label(label) for label in page.tuned if tuned_label(label) in there}
        conditions = {FROZEN: {label: label for label in page.tuned}, TUNED: twins} if twins else {}
        table = {"paper": page.paper, "table": page.table, "data": used, "rows": rows}
        table |= {"ours": list(page.rows), "readings": readings, "conditions": conditions, "skipped": skipped}
        tables.append(table)
    return tables


def _stands_for(printed: str, dataset: Dataset, scale: str) -> str:
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


def _other_settings(page: Page, printed: str, rows: pd.DataFrame) -> str:
    """Why rows that stand for printed ones were not made with the settings that the paper prints; empty if they were.

    A row may change what it is about (its own switches); every other printed setting has to be the printed one.
    """
    recipe = MODELS[page.paper].RECIPES[printed]
    stated = {name: value for name, (value, source) in recipe.items() if not source.startswith("ours")}
    labels = {twin: label for label in page.tuned for twin in (label, tuned_label(label))}
    for _, row in rows.drop_duplicates("run").iterrows() if len(rows) else ():
        if row["label"] not in labels or row["model"] != page.paper:
            continue
        used = json.loads(row["switches"]) | json.loads(row["train"])
        own = page.rows[labels[row["label"]]][1]
        for name, value in stated.items():
            if name not in own and used[name] != value:
                return (
                    f"Runs of {row['label']} for {printed} have {name} = {used[name]:g}, the paper prints {value:g}: "
                    f"they are not judged."
                )
    return ""


# --- what stands around a table --------------------------------------------------------------------------------------


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


def command(name: str, root: str | None, seeds: int, scale: str, page: str = "") -> str:
    """The command line that makes a page (or all) again; folders of this machine are left out of it."""
    short = short_name(name)
    data = "FOLDER" + "".join(short.partition("?")[1:]) if root else short
    words = ["msa", "tables", page, "--data", data, "--seeds", str(seeds), "--scale", scale]
    return shlex.join(filter(None, words))


def caption(dataset: Dataset, rows: pd.DataFrame, scale: str, command: str, page: str = "") -> str:
    """What must stand under every table: the data, the seeds, the spread, the selection rule, the command.

    With `page`, also the rows of it that these data cannot have.
    """
    trained = rows[rows["selection"] != ""]
    seeds = ", ".join(map(str, sorted(trained["seed"].unique())))
    n, rules = trained["seed"].nunique(), ", ".join(sorted(trained["selection"].unique()))
    absent = left_out(page, dataset, scale) if page else {}
    kind = "real data"
    if dataset.synthetic:
        kind = "SYNTHETIC (planted): relations only, no number compares with a printed one"
    return "\n".join(
        [
            f"Data: {dataset.name} [{dataset.fingerprint}], {kind}; test n = {len(dataset.test)}.",
            *(f"      {note}" for note in dataset.notes),
            f"Ours: mean ± sample SD (ddof 1) over {n} seeds ({seeds}); reference rows have none.",
            f"Epoch kept by: {rules}. Scale: {scale} ({SCALES[scale].cost}).",
            *(f"Not possible here: {', '.join(r)}. {why}" for why, r in absent.items()),
            f"Command: {command}",
        ]
    )


LABEL_TABLES = {
    "mosi": ("mosi",),
    "mosei": ("mosei_labels_full", "mosei_text"),
    "sims": ("sims",),
    "simsv2": ("simsv2",),
}


def _label_sources(dataset: str, root: str, labels: str) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """(name, labels of each split) of every set there is: label tables, real files, or the one planted set."""
    if labels:
        for name, files in LABEL_TABLES.items():
            paths = [path for file in files if (path := Path(labels) / f"{file}.csv").exists()]
            if paths:
                table = pd.read_csv(paths[0], usecols=["label", "split"]).replace({"split": {"val": "valid"}})
                yield name, {split: part.to_numpy() for split, part in table.groupby("split")["label"]}
        return
    for name in REAL if root else (dataset,):
        try:
            loaded = load_dataset(name, root or None)
        except FileNotFoundError:
            continue  # shown as missing by its absence from the table
        yield name, {split: part.labels.numpy() for split, part in loaded.splits.items()}


def split_sizes(dataset: str, root: str = "", labels: str = "") -> pd.DataFrame:
    """Samples per split of every data set at hand: index dataset, columns train, valid, test, total."""
    sizes = {
        name: {split: len(y) for split, y in parts.items()} for name, parts in _label_sources(dataset, root, labels)
    }
    frame = pd.DataFrame(sizes).T.reindex(columns=["train", "valid", "test"]).rename_axis("dataset")
    return frame.assign(total=frame.sum(axis=1)).astype(int)


def split_labels(dataset: str, root: str = "", labels: str = "") -> dict[str, np.ndarray]:
    """All labels of every data set at hand, its splits joined."""
    return {name: np.concatenate(list(parts.values())) for name, parts in _label_sources(dataset, root, labels)}


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
