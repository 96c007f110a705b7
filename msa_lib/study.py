"""The study as data: which runs each notebook shows, on which data set, and how much of it at which scale.

A notebook asks for the `runs_of` its page; the command line asks for those of all notebooks first, so that one
progress bar knows all the work. The names of rows are ours; what a paper prints for them is in `papers_check`.
"""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd

from msa_lib.data import PLANTED, REAL, Dataset, Split, load_dataset, locate, split_options
from msa_lib.models import MODELS
from msa_lib.runs import Run, finished
from msa_lib.train import TrainConfig

FIRST_SEED = 1111
NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"  # of the checkout


@dataclass(frozen=True)
class Scale:
    """How much of the study to run. `full` takes the defaults of models and loop; the others are for small machines.

    Sizes apply to planted data only: real data are never cut.
    """

    seeds: int
    cost: str
    sizes: str = ""  # options of a planted data set
    switches: Mapping[str, Mapping] = field(default_factory=dict)  # per model
    train: Mapping = field(default_factory=dict)


SMALL = {  # the smallest sensible width of each model
    "amsgfn": {"d": 16, "heads": 2, "n_layers": 1},
    "dsrf": {"d": 16, "heads": 2, "n_layers": 1},
}
SCALES: dict[str, Scale] = {
    "smoke": Scale(
        seeds=1,
        cost="seconds; numbers without meaning",
        sizes="train=48&valid=24&test=32",
        switches=SMALL,
        train={"epochs": 2, "batch_size": 16, "lr": 1e-3},
    ),
    "quick": Scale(
        seeds=3,
        cost="minutes on two cores; small models",
        sizes="train=400&valid=200&test=400",
        switches={"amsgfn": {"d": 32, "heads": 4, "n_layers": 2}, "dsrf": {"d": 32, "heads": 4, "n_layers": 1}},
        train={"epochs": 12, "batch_size": 32, "lr": 1e-3, "bucket": 4},
    ),
    "full": Scale(seeds=5, cost="the defaults of models and loop, what a paper states; hours, or a GPU"),
}
SHORTER = {"planted-sims": "steps=39,100,55", "planted-simsv2": "steps=50,116,58"}  # audio 400, 925 steps otherwise
BATCH_SIZES = {"mosi": 32, "sims": 32}  # at full scale; 64 otherwise
TEST_SIZES = {"mosi": 686, "mosei": 4659, "sims": 457, "simsv2": 1034}  # of the real sets on their standard split
SLOW = {"lr": 1e-5, "lr_encoder": 1e-5, "weight_decay": 1e-3}
PRINTED: dict[str, dict[str, dict]] = {  # what a paper states for a data set, taken at full scale: DSRF, section 4.2
    "dsrf": {
        "mosi": {"d": 128, "batch_size": 32, **SLOW, "lr": 3e-5, "lr_encoder": 3e-5},
        "mosei": {"d": 128, "batch_size": 64, **SLOW},
        "sims": {"d": 64, "batch_size": 32, **SLOW, "weight_decay": 1e-2},
        "simsv2": {"d": 128, "batch_size": 32, **SLOW, "weight_decay": 1e-2},
    }
}


@dataclass(frozen=True)
class Page:
    """One notebook: its paper's table, the real data set it is on (empty: it needs none), label -> (model, switches).

    Training settings may stand among the switches. `detail` are rows for full scale only; `second` is the data set of
    the table's right half; `readings` say which of our labels a printed row can mean, beside those that are
    data of `papers_check`.
    `whole`: shows the whole study and is given its data argument as it is.
    """

    title: str
    dataset: str
    rows: Mapping[str, tuple[str, Mapping]]
    paper: str = ""
    table: int | None = None
    detail: Mapping[str, tuple[str, Mapping]] = field(default_factory=dict)
    second: str = ""
    readings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    whole: bool = False


def _variants(model: str, *labels: str) -> dict[str, tuple[str, Mapping]]:
    return {label: (model, MODELS[model].VARIANTS[label]) for label in labels}


REFERENCE_ROWS = {"ridge": ("ridge", {}), "label mean": ("label_mean", {})}
MODALITY_ROWS = ("T", "V", "A", "V+A", "T+V", "T+A")
COMPONENT_ROWS = ("w/o CCAM", "t-oriented", "v-oriented", "a-oriented", "w/o DMGF", "w/o DMGF (sum)",
                  "w/o DMGF (dominant only)", "w/o TB", "w/o Cor", "full")  # fmt: skip
CONTROL_ROWS = ("t-oriented, s=1", "v-oriented, s=1", "a-oriented, s=1", "random dominant", "argmin dominant",
                "oracle dominant", "w/o both contrastive", "concat MLP")  # fmt: skip
CONTROL_DETAIL = ("s=1, dynamic p", "s=1, trained p", "gate off")
DSRF_ROWS = {
    "full": ("dsrf", {}),
    "full, lr 1e-3": ("dsrf", {"lr": 1e-3}),  # the printed rates are those of fine-tuning; from scratch they are slow
    "AMSGFN": ("amsgfn", {}),
} | REFERENCE_ROWS
ABLATION_ROWS = ("full", "w/o language", "w/o Audio", "w/o Visual", "w/o HSF", "w/o HSF (bypass)", "no_routing",
                 "no_usf", "no_rec_loss", "wide vector", "no factor losses", "no L_emo", "literal votes",
                 "one iteration", "literal Eq. 15", "mean readout")  # fmt: skip
ABLATION_DETAIL = ("no_routing (concat)", "no_routing, no_rec_loss", "no_usf (g=1/2)", "random roles", "no L_ctx",
                   "no L_amb", "no L_n", "no independence", "literal Eq. 6", "literal Eq. 17", "Eq. 13 only",
                   "Eq. 14 only", "literal fusion input", "head argmax", "head gauss", "head point")  # fmt: skip

PAGES: dict[str, Page] = {
    "sanity": Page("Sanity before any table", "mosi", {}),
    "amsgfn_table1_datasets": Page("AMSGFN Table 1: the data sets", "mosi", {}, "amsgfn", 1),
    "amsgfn_table2_mosi": Page(
        "AMSGFN Table 2: CMU-MOSI", "mosi", _variants("amsgfn", "full") | REFERENCE_ROWS, "amsgfn", 2
    ),
    "amsgfn_table3_mosei": Page(
        "AMSGFN Table 3: CMU-MOSEI", "mosei", _variants("amsgfn", "full") | REFERENCE_ROWS, "amsgfn", 3
    ),
    "amsgfn_table4_sims": Page(
        "AMSGFN Table 4: CH-SIMS", "sims", _variants("amsgfn", "full") | REFERENCE_ROWS, "amsgfn", 4
    ),
    "amsgfn_table5_modalities": Page(
        "AMSGFN Table 5: modalities",
        "mosei",
        _variants("amsgfn", *MODALITY_ROWS, "full")
        | {
            f"ridge {label}": ("ridge", switches)
            for label, (_, switches) in _variants("amsgfn", *MODALITY_ROWS).items()
        }
        | {"ridge full": ("ridge", {"modalities": "tav"})}
        | {"label mean": ("label_mean", {})},
        "amsgfn",
        5,
    ),
    "amsgfn_table6_components": Page(
        "AMSGFN Table 6: components",
        "mosei",
        _variants("amsgfn", *COMPONENT_ROWS, *CONTROL_ROWS) | REFERENCE_ROWS,
        "amsgfn",
        6,
        detail=_variants("amsgfn", *CONTROL_DETAIL),
    ),
    "figure_modality_contributions": Page("Modality contributions", "mosei", _variants("amsgfn", "full")),
    "dsrf_table1_mosi_mosei": Page(
        "DSRF Table 1: CMU-MOSI and CMU-MOSEI", "mosi", DSRF_ROWS, "dsrf", 1, second="mosei"
    ),
    "dsrf_table2_sims_simsv2": Page(
        "DSRF Table 2: CH-SIMS and CH-SIMS v2", "sims", DSRF_ROWS, "dsrf", 2, second="simsv2"
    ),
    "dsrf_table3_ablation": Page(
        "DSRF Table 3: ablation",
        "mosi",
        _variants("dsrf", *ABLATION_ROWS) | REFERENCE_ROWS,
        "dsrf",
        3,
        detail=_variants("dsrf", *ABLATION_DETAIL),
    ),
    "figure_routing": Page(
        "Routing, uncertainty and factors", "mosi", _variants("dsrf", "full", "literal votes", "no_routing")
    ),
    "paper_audit": Page("The papers audited, without training", "", {}),
    "seed_noise": Page("Seed noise, and how far verdicts can be trusted", "", {}),
    "report": Page("Report: every printed number, and what became of it", "", {}, whole=True),
    "figure_robustness": Page(
        "Noisy and missing modalities",
        "mosi",
        _variants("dsrf", "full", "no_usf", "w/o HSF") | {"AMSGFN": ("amsgfn", {})},
    ),
}


def amount(data: str, seeds: int | None, scale: str | None) -> tuple[int, str]:
    """Seeds and scale, defaults filled in: quick on planted data, full otherwise; as many seeds as the scale has."""
    scale = scale or ("quick" if split_options(data)[0].startswith("planted") else "full")
    if scale not in SCALES:
        raise ValueError(f"No scale {scale!r}: expected one of {', '.join(SCALES)}.")
    return seeds or SCALES[scale].seeds, scale


def data_of(page: str, data: str, scale: str) -> tuple[str, str | None]:
    """(name, root) of the data set a notebook uses when the study is asked to run on `data`.

    `data` is "planted" (then the planted stand-in of the page's own set), another planted name, a file or packed
    folder (then every notebook uses it), or a folder that holds the real sets (then each notebook takes its own).
    """
    return _data_for(PAGES[page].dataset, data, scale)


def second_of(page: str, data: str, scale: str) -> str:
    """Name of the data set of a table's right half, in the same root; empty if there is none or one file is for all."""
    first, root = data_of(page, data, scale)
    second, _ = _data_for(PAGES[page].second, data, scale) if PAGES[page].second else ("", None)
    if root:
        try:
            locate(second, root, {})  # loaded where it is used
        except FileNotFoundError:
            return ""
    return "" if second == first else second


def _data_for(real: str, data: str, scale: str) -> tuple[str, str | None]:
    base, options = split_options(data)
    if base == "planted" and not options:
        base = f"planted-{real}"
    if base in PLANTED:
        sizes = [SCALES[scale].sizes, SHORTER.get(base, "")] if SCALES[scale].sizes else []
        sized = f"{base}?{'&'.join(filter(None, sizes))}".rstrip("?")
        return (data if options else sized), None
    if Path(base).is_dir() and not (Path(base) / "meta.json").exists():
        return real, str(Path(base).resolve())
    return (str(Path(base).resolve()) + data[len(base) :] if Path(base).exists() else data), None


def runs_of(
    page: str, name: str, root: str | None, dataset: Dataset, seeds: int, scale: str, device: str = "cpu"
) -> list[Run]:
    """Every run of a page on `dataset` (loaded from `name`, `root`): rows x seeds, reference predictors once.

    Rows that the data cannot have, such as T+A without audio or the oracle without planted facts, are left out, and so
    is a row whose training settings are those of the scale anyway.
    """
    if scale not in SCALES:
        raise ValueError(f"No scale {scale!r}: expected one of {', '.join(SCALES)}.")
    size, runs, possible = SCALES[scale], [], _fits(dataset)
    rows = PAGES[page].rows | (PAGES[page].detail if scale == "full" else {})
    for label, (model, own) in rows.items():
        if not possible(model, own):
            continue
        if model not in MODELS:
            runs.append(Run(model, name, 0, own, {}, root or None, label=label))
            continue
        common = _settings(model, split_options(name)[0], scale)
        settings = common | dict(own)
        if own and settings == common:
            continue
        switches = dict(size.switches.get(model, {})) | {k: v for k, v in settings.items() if k not in TRAINING}
        train = {k: v for k, v in settings.items() if k in TRAINING}
        for seed in range(FIRST_SEED, FIRST_SEED + seeds):
            runs.append(Run(model, name, seed, switches, train, root or None, device, label))
    return runs


def table_rows(data: str, seeds: int, scale: str, store: str | Path, device: str = "cpu") -> list[dict]:
    """What the store holds of every printed table when the study is asked to run on `data`; nothing is trained.

    One dict per table: paper, table, data (printed data set -> name, synthetic, test samples of ours), rows (result
    rows, perhaps none), ours (the labels that rows can have), readings, skipped (why a data set cannot stand for the
    printed one, a sentence each: see `_stands_for`).
    """
    tables = []
    for name, page in PAGES.items():
        if page.table is None or not page.rows:
            continue
        used, parts, skipped = {}, [], []
        for printed, (half, root) in _halves(name, data, scale).items():
            try:
                dataset = load_dataset(half, root)
            except FileNotFoundError as missing:
                skipped.append(str(missing))
                continue
            if reason := _stands_for(printed, dataset, scale):
                skipped.append(reason)
                continue
            used[printed] = (Path(half).name, dataset.synthetic, len(dataset.test))
            parts.append(finished(runs_of(name, half, root, dataset, seeds, scale, device), store))
        parts = [part for part in parts if len(part)]
        rows = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
        readings = {
            row: {f"reading {letter}, {label}": label for letter, label in options.items()}
            for row, options in page.readings.items()
        }
        table = {"paper": page.paper, "table": page.table, "data": used, "rows": rows}
        tables.append(table | {"ours": list(page.rows), "readings": readings, "skipped": skipped})
    return tables


def _stands_for(printed: str, dataset: Dataset, scale: str) -> str:
    """Why runs on `dataset` at `scale` say nothing about numbers printed for a data set; empty if they do.

    Planted data stand in for any (only relations are read off them). Real data must be that set, whole, at full scale.
    """
    if dataset.synthetic:
        return ""
    name, n = Path(dataset.name).name, TEST_SIZES[printed]
    if len(dataset.test) != n:
        return f"{name} has {len(dataset.test)} test samples; {printed}, for which numbers are printed, has {n}."
    if not all(dataset.available):
        return f"{name} lacks a modality that the numbers printed for {printed} rest on."
    if scale != "full":
        return f"Printed numbers for {printed} are judged at full scale only, not at {scale}."
    return ""


def _halves(page: str, data: str, scale: str) -> dict[str, tuple[str, str | None]]:
    """Printed data set -> (name, root) of the one in its place."""
    name, root = data_of(page, data, scale)
    halves = {PAGES[page].dataset: (name, root)}
    if second := second_of(page, data, scale):
        halves[PAGES[page].second] = (second, root)
    return halves


TRAINING = {setting.name for setting in fields(TrainConfig)}


def _settings(model: str, name: str, scale: str) -> dict:
    """Training settings of a scale; at full scale what the paper states for the data set, its width included."""
    if SCALES[scale].train:
        return dict(SCALES[scale].train)
    real = name.removeprefix("planted-")
    return PRINTED.get(model, {}).get(real, {"batch_size": BATCH_SIZES.get(real, 64)})


def _fits(dataset: Dataset) -> Callable[[str, Mapping], bool]:
    have = {letter for letter, has in zip("tav", dataset.available, strict=True) if has}

    def applicable(model: str, switches: Mapping) -> bool:
        if switches.get("select") == "oracle" and "dominant" not in dataset.train.truth:
            return False
        fixed = {switches["select"][-1]} if str(switches.get("select", "")).startswith("fixed:") else set()
        return (set(switches.get("modalities", "")) | fixed) <= have

    return applicable


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


def caption(dataset: Dataset, rows: pd.DataFrame, scale: str, command: str) -> str:
    """What must stand under every table: the data, the seeds, the spread, the selection rule, the command."""
    trained = rows[rows["selection"] != ""]
    seeds = ", ".join(map(str, sorted(trained["seed"].unique())))
    n, rules = trained["seed"].nunique(), ", ".join(sorted(trained["selection"].unique()))
    kind = "real data"
    if dataset.synthetic:
        kind = "SYNTHETIC (planted): relations only, no number compares with a printed one"
    return "\n".join(
        [
            f"Data: {dataset.name} [{dataset.fingerprint}], {kind}; test n = {len(dataset.test)}.",
            *(f"      {note}" for note in dataset.notes),
            f"Ours: mean ± sample SD (ddof 1) over {n} seeds ({seeds}); reference rows have none.",
            f"Epoch kept by: {rules}. Scale: {scale} ({SCALES[scale].cost}).",
            f"Command: {command}",
        ]
    )


def paired(values: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Differences to the column `reference`, seed by seed (index: seeds, columns: rows of a table).

    -> one line per other column: mean difference, its 95 % t-interval, the number of seeds both have.
    """
    from scipy import stats

    lines = []
    for label in values.columns.drop(reference):
        difference = (values[label] - values[reference]).dropna()
        n, mean = len(difference), difference.mean()
        half = stats.t.ppf(0.975, n - 1) * difference.std(ddof=1) / n**0.5 if n > 1 else float("nan")
        shown = f"{mean - half:+.3f} .. {mean + half:+.3f}" if n > 1 else "–"
        lines.append({"row": label, f"minus {reference}": f"{mean:+.3f}", "95 % interval": shown, "seeds": n})
    return pd.DataFrame(lines)


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
