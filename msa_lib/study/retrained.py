"""The rows of a page trained again on poorer data: what label noise and fewer samples cost (`data/degraded`).

Each run has its own seed and settings of before; the name of its data has an option more, and where an epoch is
shorter there are more of them, so that fewer samples do not mean fewer steps. The test split is that of the page, so
that scores compare with the page's own, which stand for level 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from msa_lib.models import MODELS
from msa_lib.runs import Run, grid
from msa_lib.study.shown import Shown
from msa_lib.train import TrainConfig

# kind -> option of the data, and its values with the level that each is: the share of samples that is of no use
LEVELS: dict[str, tuple[str, dict[float, float]]] = {
    "label noise": ("label_noise", {0.25: 0.25, 0.5: 0.5, 0.75: 0.75}),
    "fewer samples": ("train_share", {0.5: 0.5, 0.25: 0.75}),
}
COLUMNS = ("row", "seed", "kind", "modality", "level", "mae", "corr")


def runs_of(page: Shown, models: Sequence[str]) -> dict[tuple[str, float], list[Run]]:
    """(kind, level) -> the runs of the page's `models`, and ridge, on data so much poorer; level 0: as they are.

    Raises ValueError, one sentence, for a model that the page does not have.
    """
    there = list(dict.fromkeys(run.model for run in page.runs))
    if unknown := [model for model in models if model not in there]:
        raise ValueError(f"No model {unknown[0]!r} on this page to train again: expected some of {', '.join(there)}.")
    chosen = [run for run in page.runs if run.model in models and run.model in MODELS]
    chosen.append(Run("ridge", page.name, 0, {}, {}, page.root, label="ridge"))
    found = {}
    for kind, (option, values) in LEVELS.items():
        found[kind, 0.0] = chosen
        for value, level in values.items():
            longer = 1 / value if option == "train_share" else 1
            extra = f"{'&' if '?' in page.name else '?'}{option}={value:g}"
            found[kind, level] = [replace(run, data=run.data + extra, train=_train(run, longer)) for run in chosen]
    return found


def _train(run: Run, longer: float) -> dict:
    """The training settings of a run with so many times its epochs, and its patience in epochs."""
    if run.model not in MODELS or longer == 1:
        return dict(run.train)
    usual = TrainConfig()
    told = {name: run.train.get(name, getattr(usual, name)) for name in ("epochs", "patience")}
    return dict(run.train) | {name: round(longer * value) for name, value in told.items()}


def curves(page: Shown, models: Sequence[str], jobs: int = 1) -> dict[str, pd.DataFrame]:
    """retrained: row, seed, kind, modality ("", for it is all of them), level, mae, corr on the clean test split.

    Trains what the page's store lacks. No rows without `models`; runs that fail are left out.
    """
    parts = [pd.DataFrame(columns=list(COLUMNS))]
    for (kind, level), runs in runs_of(page, models).items() if models else ():
        rows = grid(runs, page.store, jobs, f"{kind} {level:g}")
        rows = rows[(rows["split"] == "test") & rows["metric"].isin(["mae", "corr"])]
        wide = rows.pivot(index=["label", "seed"], columns="metric", values="value").reset_index()
        parts.append(wide.rename(columns={"label": "row"}).assign(kind=kind, modality="", level=level))
    return {"retrained": pd.concat(parts[1:] or parts, ignore_index=True)[list(COLUMNS)]}
