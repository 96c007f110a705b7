"""One test sample seen by any networks, clean or noisy: what `notebooks/explore` shows. Its widgets only call this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import nn

from msa_lib import MODALITIES, runs
from msa_lib.data import Dataset, Split
from msa_lib.data.degraded import part
from msa_lib.models import MODELS
from msa_lib.runs import Run
from msa_lib.study import corruption
from msa_lib.study.multiverse import survival
from msa_lib.study.pages import FIRST_SEED
from msa_lib.train import predict

INSIDE = ("contribution", "dominant", "gate", "uncertainty", "factor_weight", "couplings")  # extras that are shown
SETTINGS = {"epochs": 10, "lr": 2e-3, "batch_size": 16}  # of networks that train in seconds
OWN_NAMES = {"amsgfn": "AMSGFN", "dsrf": "DSRF"}
LEVELS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)


def small(models: Sequence[str], name: str, root: str | None = None, device: str = "cpu") -> list[Run]:
    """Runs of the smallest networks of these models, which train in seconds on few samples."""
    if unknown := [model for model in models if model not in MODELS]:
        raise ValueError(f"No model {unknown[0]!r}: expected some of {', '.join(MODELS)}.")
    common = name, FIRST_SEED
    return [Run(m, *common, MODELS[m].SMALL, SETTINGS, root, device, OWN_NAMES.get(m, m)) for m in models]


def kept(ids: Sequence[str], store: str | Path, name: str, root: str | None = None) -> list[Run]:
    """The finished runs of a store by the names of their folders (or how these begin), which must be on this data set.

    Raises ValueError, one sentence, for a name that fits no run or several, and for a run on other data.
    """
    results = {Path(result["folder"]).name: result["params"] for result in runs.store.results_in(store)}
    found = []
    for given in ids:
        fitting = [run for run in results if run.startswith(given)]
        if len(fitting) != 1:
            raise ValueError(
                f"{given!r} fits {len(fitting)} runs of the store; expected the name of one of its folders."
            )
        params = results[fitting[0]]
        label = f"{OWN_NAMES.get(params['model'], params['model'])} ({fitting[0][:6]})"
        wanted = (params[part] for part in ("seed", "switches", "train"))
        found.append(Run(params["model"], name, *wanted, root, params["device"], label))
        if runs.run_id(runs.parameters(found[-1], Path(store))) != fitting[0]:
            raise ValueError(f"Run {fitting[0]} is on {params['data']['name']}; expected one on {name}.")
    return found


def networks(wanted: Sequence[Run], store: str | Path, jobs: int = 1) -> dict[str, nn.Module]:
    """label -> trained network; those that the store lacks are trained."""
    runs.grid(wanted, store, jobs, "networks")
    return {run.label: runs.network(run, store) for run in wanted}


def predictions(trained: Mapping[str, nn.Module], split: Split) -> pd.DataFrame:
    """Index: position in the split; columns: the label, and what each network predicts."""
    found = {"label": split.labels.cpu().numpy()}
    found |= {label: predict(network, split, 128, ())["predictions"] for label, network in trained.items()}
    return pd.DataFrame(found).astype(float).rename_axis("sample")


def disagreements(found: pd.DataFrame, first: str, second: str, most: int = 10) -> pd.DataFrame:
    """The samples on which two networks differ most, largest first: columns sample, label, both predictions, apart."""
    for name in (first, second):
        if name not in found:
            raise ValueError(f"No network {name!r}: expected two of {', '.join(found.columns.drop('label'))}.")
    apart = (found[first] - found[second]).abs()
    table = found[["label", first, second]].assign(apart=apart)
    return table.sort_values("apart", ascending=False, kind="stable").head(most).reset_index()


def apart(found: pd.DataFrame, first: str, second: str, by: float) -> str:
    """On how many samples two networks differ by more than `by`, and which is nearer there: a sentence."""
    far = found[(found[first] - found[second]).abs() > by]
    share = stats.binomtest(len(far), len(found)).proportion_ci(method="wilson")
    errors = [(far[name] - far["label"]).abs().to_dict() for name in (first, second)]
    won, of, low, high = survival(*errors)
    said = f"{first} and {second} differ by more than {by:g} on {len(far)} of {len(found)} test samples "
    said += f"({len(far) / len(found):.0%}, 95 % interval {share.low:.0%} to {share.high:.0%})"
    return f"{said}; there {first} is the nearer one in {won} of {of} ({low:.0%} to {high:.0%})." if of else f"{said}."


def facts(dataset: Dataset, i: int) -> pd.DataFrame:
    """What is known of a test sample, in words: its text, label, lengths, and the planted truth where there is one."""
    split = dataset.test
    lines = {"id": split.ids[i], "text": split.raw_text[i] if split.raw_text else "–", "label": f"{split.labels[i]:g}"}
    lines["valid steps"] = _by_modality(split.lengths[i].tolist())
    if split.unimodal_labels is not None:
        lines["label by modality alone"] = _by_modality(split.unimodal_labels[i].tolist())
    for name, value in split.truth.items():
        value = value[i]
        if name in ("dominant", "rival", "conflict_modality"):
            text = MODALITIES[int(value)] if value >= 0 else "none"
        elif value.dtype == torch.bool:
            text = "yes" if value else "no"
        else:
            text = _by_modality(value.tolist()) if value.shape == (3,) else f"{value.item():.3g}"
        lines[f"planted: {name.replace('_', ' ')}"] = text
    return pd.DataFrame(lines.items(), columns=["what", "value"])


def _by_modality(values: Sequence[float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in zip(MODALITIES, values, strict=True))


def sample(dataset: Dataset, i: int, modality: str = "text", level: float = 0.0) -> Split:
    """One test sample alone, with noise of `level` deviations on one modality (`corruption.noisy`)."""
    m = MODALITIES.index(modality)
    one = part(dataset.test, torch.tensor([i]))
    return corruption.noisy(one, m, level, corruption.deviation(dataset.train, m), seed=i)


def under_noise(
    trained: Mapping[str, nn.Module], dataset: Dataset, i: int, modality: str, levels: Sequence[float] = LEVELS
) -> pd.DataFrame:
    """What each network predicts of one sample as one modality gets noisy: columns level, and the networks."""
    lines = [predictions(trained, sample(dataset, i, modality, level)).iloc[0] for level in levels]
    return pd.DataFrame(lines, index=pd.Index(levels, name="level")).drop(columns="label").reset_index()


def inside(network: nn.Module, one: Split) -> dict[str, np.ndarray]:
    """What a network records on its way to the prediction of one sample: name of `INSIDE` -> array without batch."""
    return {name: value[0] for name, value in predict(network, one, 1, INSIDE).items() if name in INSIDE}
