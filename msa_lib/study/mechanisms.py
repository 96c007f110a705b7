"""The mechanisms of the two papers, each on the planted design that gives it a job (data/designs.py) and on that
design's negative control: which runs answer whether it helps, and the rows they leave.

Every run of a comparison draws its own data by its own seed; both arms of a pair have the same seed, and so the same
data, and batches in the same order.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import pandas as pd

from msa_lib.data import split_options
from msa_lib.data.oracle import Gain, ceilings, gain
from msa_lib.data.planted import recipe_of
from msa_lib.models import MODELS
from msa_lib.runs import Run, execute, finished
from msa_lib.study.pages import FIRST_SEED
from msa_lib.train.state import write_atomically

T = TypeVar("T")
CONTROLS = ("positive", "negative")
ROWS = Path(__file__).parent / "mechanisms.csv"  # of the committed reference runs
WHICH = ["design", "control", "model", "arm"]  # columns that say which row a run is of
MEASURED = ["draw", "seed", "mae", "corr", "best_epoch", "epochs", "seconds", "run"]
COLUMNS = [*WHICH, *MEASURED]


@dataclass(frozen=True)
class Comparison:
    """A network with and without a mechanism. `levels`: what an oracle may know without what the mechanism is there to
    find out, and with it. The network without the mechanism may have other ways to find it out, and labels to learn
    from: the oracle's gain is what there is to be gained, not what must be lost."""

    model: str
    design: str
    without: str  # a named setting of the model
    full: str = "full"
    levels: tuple[str, str] = ("no cue", "cue")
    base: Mapping = field(default_factory=dict)  # switches of both arms


TEXT = {"select": "fixed:t"}  # these designs have one dominant modality, so that a wrong selection hides nothing
LINEAR = ("fixed weights", "cue")  # without it, equal or constant weights
TWO_LAYERS = TEXT | {"n_layers": 2}  # what the first finds guides the second
SAME = ("cue", "cue")  # the part that is left is an attention over the same steps: nothing to gain by design
COMPARISONS: dict[str, Comparison] = {
    "uncertainty weights": Comparison("dsrf", "uncertainty", "no_usf", levels=LINEAR),
    "guided fusion": Comparison("amsgfn", "fusion", "w/o DMGF (dominant only)", base=TEXT),
    "guided fusion, or concatenated": Comparison("amsgfn", "fusion", "w/o DMGF", levels=SAME, base=TEXT),
    "four factors": Comparison("dsrf", "factors", "w/o HSF"),
    "selection": Comparison("amsgfn", "selection", "t-oriented"),
    "alignment": Comparison("amsgfn", "alignment", "w/o CCAM, downstream", "shared space downstream", base=TEXT),
    "alignment, as a loss only": Comparison("amsgfn", "alignment", "w/o CCAM", base=TEXT),
    "gate": Comparison("amsgfn", "gate", "gate off", levels=LINEAR, base=TEXT),
    "routing": Comparison("dsrf", "factors", "one iteration"),
    "ambiguity": Comparison("dsrf", "ambiguity", "no L_amb"),
    "uncertainty weights, matched scale": Comparison("dsrf", "uncertainty", "no_usf (matched scale)", levels=LINEAR),
    "uncertainty weights, told the uncertainty": Comparison(
        "dsrf", "uncertainty", "no_usf (matched scale)", "told uncertainty", levels=LINEAR
    ),
    "guided fusion, over two hops": Comparison("amsgfn", "hops", "w/o DMGF", base=TWO_LAYERS),
    "depth of the fusion": Comparison("amsgfn", "hops", "one fusion layer", base=TWO_LAYERS),
    # No design can give the transformer block a job of its own. It only forms the query of Eq. 15 from the dominant
    # sequence; the keys X_p^[N] have been through self-attention over that sequence (Eq. 8) and a feed-forward part
    # (Eq. 13) as well, and in a product of query and key it does not matter which of the two has looked.
    "transformer block": Comparison("amsgfn", "fusion", "w/o TB", levels=SAME, base=TEXT),
}
NAMES = list(COMPARISONS)
SIZES = {  # samples; full: as many as MOSI has
    "smoke": "train=48&valid=24&test=32",
    "quick": "train=400&valid=200&test=400",
    "full": "train=1284&valid=229&test=686",
}
_CONVERGING = {"epochs": 60, "patience": 8, "batch_size": 64, "lr": 3e-3, "bucket": 4}  # 60: well above what is needed
TRAIN = {"smoke": {"epochs": 2, "batch_size": 16, "lr": 2e-3}, "quick": _CONVERGING, "full": _CONVERGING}


def oracle_gain(comparison: Comparison, control: str) -> Gain:
    """What the mechanism is worth to who knows all else: the most that could be learned."""
    return gain(_ceilings(comparison.design, control), *comparison.levels)


@lru_cache
def _ceilings(design: str, control: str):
    return ceilings(recipe_of("planted", {"design": design, "control": control}))


def ceiling_table(designs: Sequence[str]) -> pd.DataFrame:
    """MAE that is left at each level of knowledge, one line per design and control."""
    lines = [
        {"design": design, "control": control}
        | {level: error.mean() for level, error in _ceilings(design, control).items()}
        for design in designs
        for control in CONTROLS
    ]
    return pd.DataFrame(lines)


def data_of(design: str, control: str, scale: str, draw: int | str = "run") -> str:
    return f"planted?design={design}&control={control}&{SIZES[scale]}&seed={draw}"


def runs_of(names: Sequence[str], seeds: int, scale: str, draws: int = 0) -> list[Run]:
    """The runs of the comparisons `names`, each once, seed by seed: stopped at any time, all have as many seeds.

    `draws` > 0: instead, so many draws of the data with `seeds` training seeds each, for the two variances.
    """
    chosen = those(names, COMPARISONS)
    found: dict[tuple, Run] = {}
    for draw, seed in places(seeds, scale, draws):
        for comparison in chosen:
            for control in CONTROLS[: 1 if draws else 2]:
                for arm in (comparison.full, comparison.without):
                    key = comparison.model, comparison.design, control, arm, draw, seed
                    switches = MODELS[comparison.model].SMALL | dict(comparison.base)
                    switches |= MODELS[comparison.model].VARIANTS[arm]
                    data = data_of(comparison.design, control, scale, draw)
                    found[key] = Run(comparison.model, data, seed, switches, TRAIN[scale], label=arm)
    return list(found.values())


def those(names: Sequence[str], known: Mapping[str, T], kind: str = "comparison") -> list[T]:
    """What is `known` under these names. Raises ValueError, one sentence, for a name that nothing has."""
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"No {kind} {unknown[0]!r}: expected one of {'; '.join(known)}.")
    return [known[name] for name in names]


def places(seeds: int, scale: str, draws: int = 0) -> list[tuple[int | str, int]]:
    """(draw of the data, seed) of so many runs of one row; draw "run": each run draws its own."""
    if scale not in SIZES:
        raise ValueError(f"No scale {scale!r} of these runs: expected one of {', '.join(SIZES)}.")
    last = FIRST_SEED + seeds
    if draws:
        return [(d, s) for s in range(FIRST_SEED, last) for d in range(FIRST_SEED, FIRST_SEED + draws)]
    return [("run", seed) for seed in range(FIRST_SEED, last)]


def trained(runs: Sequence[Run], store: str | Path, until: float | None = None) -> Iterator[Run]:
    """Trains what is missing, one after the other; yields each run that is done. No new one begins after `until`."""
    for run in runs:
        if until is not None and time.monotonic() > until:
            return
        execute(run, store)
        yield run


def rows_of(runs: Sequence[Run], store: str | Path) -> pd.DataFrame:
    """What the store holds of `runs`, one row each (`COLUMNS`)."""

    def which(run: Run) -> tuple:
        recipe = recipe_of(run.data)
        return recipe.design, recipe.control, run.model, run.label

    return measured(runs, store, WHICH, which)


def measured(runs: Sequence[Run], store: str | Path, which: Sequence[str], of: Callable[[Run], tuple]) -> pd.DataFrame:
    """What the store holds of `runs` on planted data, one row each: the columns `which`, as `of` gives them from a run,
    and `MEASURED`."""
    lines = []
    for run in runs:
        found = finished([run], store)
        test = found[(found["split"] == "test") & (found["status"] == "done")] if len(found) else found
        if not len(test):
            continue
        score = dict(zip(test["metric"], test["value"], strict=True))
        first, options = test.iloc[0], split_options(run.data)[1]
        line = dict(zip(which, of(run), strict=True))
        line["draw"] = int(options.get("av_seed", options.get("seed", 0)))
        line |= {"seed": run.seed, "mae": score["mae"], "corr": score["corr"]}
        line |= {name: first[name] for name in ("best_epoch", "epochs", "run")}
        environment = json.loads((Path(store) / first["run"] / "env.json").read_text())
        lines.append(line | {"seconds": round(environment["seconds"], 1)})
    return pd.DataFrame(lines, columns=[*which, *MEASURED])


def kept(rows: pd.DataFrame, path: Path) -> pd.DataFrame:
    """`rows` joined to those of the CSV file `path`, if there is one, and written there; a run made again replaces.

    Raises ValueError if that file holds other columns.
    """
    before = [pd.read_csv(path)] if path.exists() else []
    if before and list(before[0]) != list(rows):
        raise ValueError(f"{path} has the columns {', '.join(before[0])}; expected {', '.join(rows)}.")
    key = list(rows)[: list(rows).index("mae")]
    parts = [part for part in (*before, rows) if len(part)]
    whole = pd.concat(parts or [rows]).drop_duplicates(key, keep="last").sort_values(key, ignore_index=True)
    write_atomically(path, whole.to_csv(index=False, float_format="%.5g").encode())
    return whole
