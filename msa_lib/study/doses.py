"""At which level of information in audio and vision does a mechanism begin to pay? Real text, labels and splits, with
planted audio and vision (data/semi.py) at four levels: which runs answer that, and the rows they leave.

Reliability differs from sample to sample, and a cue in the features shows it (positive control); at the highest level,
where most is to be gained, the same runs are made with the cue hidden (negative control). Every seed draws its own
audio and vision, the same for all arms and, but for the level, the same at all levels; the text stays what it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from msa_lib.data import load_dataset, split_options
from msa_lib.models import MODELS
from msa_lib.reference import ridge
from msa_lib.runs import Run
from msa_lib.study.mechanisms import SIZES
from msa_lib.study.pages import FIRST_SEED
from papers_check import load_reported

ROWS = Path(__file__).parent / "doses.csv"  # of the committed runs
LEVELS = ("none", "reported", "half-way", "as text")
CUES = {"positive": "visible", "negative": "hidden"}
CONDITIONS = (("as text", "positive"), *((level, "positive") for level in LEVELS[:-1]), ("as text", "negative"))
COMPARISONS: dict[str, tuple[str, str]] = {  # mechanism -> model, the row without it
    "selection": ("amsgfn", "t-oriented"),
    "guided fusion": ("amsgfn", "w/o DMGF (dominant only)"),  # what is left reads one modality
    "guided fusion, or concatenated": ("amsgfn", "w/o DMGF"),
    "alignment": ("amsgfn", "w/o CCAM"),
    "four factors": ("dsrf", "w/o HSF"),
    "routing": ("dsrf", "no_routing"),
    "uncertainty weights": ("dsrf", "no_usf"),
}
ALONE = "T"  # text alone, where audio and vision tell nothing anyway: what they are worth to a network at all
RIDGE = {"ridge T": "t", "ridge": "tav"}
_CONVERGING = {"epochs": 40, "patience": 6, "batch_size": 128, "lr": 3e-3, "bucket": 4}  # 40: well above what is needed
TRAIN = {"smoke": {"epochs": 2, "batch_size": 16, "lr": 2e-3}, "quick": _CONVERGING, "full": _CONVERGING}


def reported() -> tuple[float, float]:
    """Corr of audio alone and of vision alone as the field reports it: AMSGFN Table 5 (MOSEI), rows A and V."""
    cells = load_reported("amsgfn")
    corr = cells[(cells["table"] == "5") & (cells["metric"] == "corr")].set_index("row")["value"]
    return float(corr["A"]), float(corr["V"])


def levels(text: str, scale: str = "full") -> dict[str, tuple[float, float]]:
    """level -> correlations of audio's and of vision's evidence with the label. That of text is measured: the test Corr
    of ridge regression on it."""
    audio, vision = reported()
    r = round(text_corr(sized(text, scale)), 2)
    return {
        "none": (0.0, 0.0),
        "reported": (audio, vision),
        "half-way": (round((audio + r) / 2, 2), round((vision + r) / 2, 2)),
        "as text": (r, r),
    }


@lru_cache
def text_corr(text: str) -> float:
    return float(ridge(load_dataset(text), "t").metrics["test"]["corr"])


def sized(text: str, scale: str) -> str:
    """The stand-in with the number of samples of the scale; real text is never cut."""
    if scale not in SIZES:
        raise ValueError(f"No scale {scale!r} of these runs: expected one of {', '.join(SIZES)}.")
    return f"planted?{SIZES[scale]}" if text == "planted" else text


def runs_of(text: str, names: Sequence[str], seeds: int, scale: str = "full") -> list[Run]:
    """The runs of the comparisons `names` on the text of a data set, seed by seed: stopped at any time, all conditions
    have as many seeds."""
    if unknown := [name for name in names if name not in COMPARISONS]:
        raise ValueError(f"No comparison {unknown[0]!r}: expected one of {', '.join(COMPARISONS)}.")
    found, asked = [], levels(text, scale)
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        for level, control in CONDITIONS:
            data = data_of(sized(text, scale), asked[level], control)
            for model, arm in arms(names, level):
                switches = MODELS[model].SMALL | MODELS[model].VARIANTS[arm]
                found.append(Run(model, data, seed, switches, TRAIN[scale], label=arm))
            found += [Run("ridge", data, seed, {"modalities": kept}, label=arm) for arm, kept in RIDGE.items()]
    return found


def arms(names: Sequence[str], level: str) -> list[tuple[str, str]]:
    """(model, row) of the networks that are trained at a level, each once."""
    compared = [COMPARISONS[name] for name in names]
    models = dict.fromkeys(model for model, _ in compared)
    own = [(model, "full") for model in models] + compared
    return own + [(model, ALONE) for model in models if level == "none"]


def data_of(text: str, level: tuple[float, float], control: str) -> str:
    """The text's data with audio and vision planted at a level, drawn by the seed of the run."""
    base, options = split_options(text)
    own = {"planted_av": ",".join(f"{r:g}" for r in level), "av_cue": CUES[control], "av_seed": "run"}
    told: Mapping[str, str] = {"standardise": "yes"} | options | own
    return f"{base}?" + "&".join(f"{key}={value}" for key, value in told.items())
