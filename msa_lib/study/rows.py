"""Which runs a page shows on a data set, and which of its rows that data set cannot have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from msa_lib.data import Dataset
from msa_lib.data.encoders import encoder_problem
from msa_lib.models import MODELS, card
from msa_lib.runs import Run
from msa_lib.runs.grids import in_stacks
from msa_lib.study.pages import BASELINES, FIRST_SEED, PAGES, SCALES, amount, tuned_label
from msa_lib.study.standins import stands_in
from msa_lib.train import TrainConfig
from msa_lib.train.stacked import unstackable

TRAINING = {setting.name for setting in fields(TrainConfig)}


def runs_of(
    page: str,
    name: str,
    root: str | None,
    dataset: Dataset,
    seeds: int,
    scale: str,
    device: str = "cpu",
    train: bool = True,
    baseline_seeds: int | None = None,
    stack: int = 0,
) -> list[Run]:
    """Every run of a page on `dataset` (loaded from `name`, `root`): rows x seeds, reference predictors once.

    The seeds of baselines beside a paper's rows are bounded by `baseline_seeds`, or else by the scale (`Scale.others`).
    With `stack` the seeds of each row whose model can be stacked train so many at once, which makes them other runs
    (`train.stacked`); those of the other rows train one by one in any case.

    Rows that the data cannot have are left out (`left_out` says why), and so is a row whose training settings are
    those of the scale anyway. Runs that are only looked up (`train` false) do not need their text encoder here.
    """
    seeds, scale = amount(name, seeds, scale)
    if stack < 0:
        raise ValueError(f"The number of seeds at once is {stack}; expected 1 or more, or 0 for one by one.")
    size, runs, printed = SCALES[scale], [], stands_in(page, name, dataset)
    for label, (model, own) in _rows(page, dataset, scale, train)[0].items():
        if model not in MODELS:
            runs.append(Run(model, name, 0, own, {}, root or None, label=label))
            continue
        common = _settings(model, printed, scale)
        settings = common | dict(own)
        if TRAINING & set(own) and settings == common:
            continue
        switches = _size(page, model, scale) | {k: v for k, v in settings.items() if k not in TRAINING}
        train = {k: v for k, v in settings.items() if k in TRAINING}
        few = (baseline_seeds or size.others) if model in BASELINES and not PAGES[page].on_demand else None
        first = range(FIRST_SEED, FIRST_SEED + min(seeds, few or seeds))
        at_once = {} if not stack or unstackable(model, switches) else in_stacks(first, stack)
        for seed in first:
            runs.append(Run(model, name, seed, switches, train | at_once.get(seed, {}), root or None, device, label))
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
    shown, sizes = PAGES[page], SCALES[scale].larger
    text, tokens = dataset.train.text, dataset.train.tokens
    only_tokens = tokens is not None and text.shape[-1] == 1 and not text.any()  # a file without text features
    possible, reasons = {}, {}
    asked = train and tokens is not None and (only_tokens or scale == "full")
    no_encoder = encoder_problem(dataset.encoder, *_token_range(dataset)) if asked else ""
    larger = {label: (model, sizes[model]) for label, model in shown.larger.items() if model in sizes}
    for label, (model, own) in (shown.rows | larger | (shown.detail if scale == "full" else {})).items():
        own = {**own, "bert": "frozen"} if only_tokens and model in MODELS else own
        fits = MODELS[model].fits(dataset, own) if model in MODELS else card.lacking(dataset, own.get("modalities", ""))
        if reason := fits or (no_encoder if own.get("bert") == "frozen" else ""):
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


def _size(page: str, model: str, scale: str) -> dict:
    """How large a model is on a page: beside baselines as small as they are."""
    size = SCALES[scale]
    return dict(size.switches.get(model, {})) | ({} if PAGES[page].beside_baselines else size.larger.get(model, {}))


def _settings(model: str, printed: str, scale: str) -> dict:
    """Training settings of a scale; at full scale the recipe of the model for the data set, its width included."""
    return dict(SCALES[scale].train) or card.settings(MODELS[model].RECIPES[printed])
