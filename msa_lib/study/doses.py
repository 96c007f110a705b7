"""At which level of information in audio and vision does a mechanism begin to pay? Real text, labels and splits, with
planted audio and vision (data/semi.py) at four levels: which runs answer that, the rows they leave, what they say.

Reliability differs from sample to sample, and a cue in the features shows it (positive control); at the highest level,
where most is to be gained, the same runs are made with the cue hidden (negative control). Every seed draws its own
audio and vision, the same for all rows and, but for the level, the same at all levels; text and test set stay the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from msa_lib.data import Dataset, load_dataset, short_name, split_options
from msa_lib.data.oracle import expectation
from msa_lib.data.semi import MOST, OPTIONS
from msa_lib.models import MODELS
from msa_lib.reference import fit_ridge, pooled_features, ridge
from msa_lib.runs import Run
from msa_lib.runs.identity import dataset_of
from msa_lib.study.effects import judged, pairs
from msa_lib.study.mechanisms import MEASURED, SIZES, measured, places, those
from papers_check import load_reported
from papers_check.judge.intervals import Gap

ROWS = Path(__file__).parent / "doses.csv"  # of the committed runs
WHICH = ["data", "level", "audio", "vision", "control", "model", "arm"]
COLUMNS = [*WHICH, *MEASURED]
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
NAMES = list(COMPARISONS)
ALONE = "T"  # text alone, where audio and vision tell nothing anyway: what they are worth to a network at all
RIDGE = {"ridge T": "t", "ridge": "tav"}
ORACLES = ("fixed weights", "no cue", "cue")
_CONVERGING = {"epochs": 40, "patience": 6, "batch_size": 128, "lr": 3e-3, "bucket": 4}  # 40: well above what is needed
TRAIN = {"smoke": {"epochs": 2, "batch_size": 16, "lr": 2e-3}, "quick": _CONVERGING, "full": _CONVERGING}


# ------------------------------------------------------------------------------------------------------- which runs


def reported() -> tuple[float, float]:
    """Corr of audio alone and of vision alone as the field reports it: AMSGFN Table 5 (MOSEI), rows A and V."""
    cells = load_reported("amsgfn")
    corr = cells[(cells["table"] == "5") & (cells["metric"] == "corr")].set_index("row")["value"]
    return float(corr["A"]), float(corr["V"])


def levels(text: str) -> dict[str, tuple[float, float]]:
    """level -> correlations of audio's and of vision's evidence with the label. That of text is measured: the test Corr
    of ridge regression on it, on the data set `text`."""
    audio, vision = reported()
    r = round(_text_corr(text), 2)
    if not 0 < r <= MOST:
        raise ValueError(f"The Corr of ridge regression on the text of {short_name(text)} is {r}; expected above 0.")
    return {
        "none": (0.0, 0.0),
        "reported": (audio, vision),
        "half-way": (round((audio + r) / 2, 2), round((vision + r) / 2, 2)),
        "as text": (r, r),
    }


@lru_cache
def _text_corr(text: str) -> float:
    return float(ridge(load_dataset(text), "t").metrics["test"]["corr"])


def runs_of(names: Sequence[str], seeds: int, scale: str, draws: int = 0, text: str = "planted") -> list[Run]:
    """The runs of the comparisons `names` on the text of a data set, seed by seed: stopped at any time, all conditions
    have as many seeds. "planted" stands in for a text, with as many samples as the scale says; others are never cut."""
    those(names, COMPARISONS)
    seeded = places(seeds, scale)
    if draws:
        raise ValueError("Each seed draws its own audio and vision; expected no number of draws beside a text.")
    text = f"planted?{SIZES[scale]}" if text == "planted" else text
    found, asked = [], levels(text)
    for _, seed in seeded:
        for level, control in CONDITIONS:
            data = _data_of(text, asked[level], control)
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


def _data_of(text: str, level: tuple[float, float], control: str) -> str:
    """The text's data with audio and vision planted at a level, drawn by the seed of the run."""
    base, options = split_options(text)
    own = {"planted_av": ",".join(f"{r:g}" for r in level), "av_cue": CUES[control], "av_seed": "run"}
    return _named(base, {"standardise": "yes"} | options | own)


def _named(base: str, options: dict[str, str]) -> str:
    return base + "?" * bool(options) + "&".join(f"{key}={value}" for key, value in options.items())


# ------------------------------------------------------------------------------------------------------- their rows


def rows_of(runs: Sequence[Run], store: str | Path) -> pd.DataFrame:
    """What the store holds of `runs`, one row each (`COLUMNS`), and three oracles for each data set of theirs."""
    rows = measured(runs, store, WHICH, _which)
    first = {run.data: run for run in reversed(runs)}
    for run in [run for run in runs if first[run.data] is run]:
        guesses = oracles(dataset_of(run.data, run.root))
        if _which(run)[WHICH.index("control")] == "negative":
            del guesses["cue"]  # no feature shows it
        lines = [dict(zip(WHICH, (*_which(run)[:-2], "oracle", name), strict=True)) for name in guesses]
        rows = _joined(rows, pd.DataFrame(lines).assign(draw=run.seed, seed=run.seed, **_scores(guesses, run)))
    return rows[COLUMNS]


def _joined(rows: pd.DataFrame, more: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([rows, more], ignore_index=True) if len(rows) else more.reindex(columns=COLUMNS)


def _which(run: Run) -> tuple:
    base, options = split_options(run.data)
    own = {key: options.pop(key) for key in OPTIONS}
    options.pop("standardise", None)
    text = _named(base, options)
    level = tuple(float(number) for number in own["planted_av"].split(","))
    name = {value: name for name, value in levels(text).items()}[level]
    control = {cue: control for control, cue in CUES.items()}[own["av_cue"]]
    return short_name(text), name, *level, control, run.model, run.label


def _scores(guesses: dict[str, np.ndarray], run: Run) -> dict[str, list[float]]:
    y = dataset_of(run.data, run.root).test.labels.numpy()
    corr = [np.corrcoef(guess, y)[0, 1] for guess in guesses.values()]
    return {"mae": [np.abs(guess - y).mean() for guess in guesses.values()], "corr": corr}


def oracles(dataset: Dataset) -> dict[str, np.ndarray]:
    """Test predictions of who reads the evidence of audio and vision without error, and text as ridge reads it.

    "fixed weights": the best linear use, fitted on the validation split; "no cue": the best use, not knowing the
    reliabilities; "cue": knowing them. The last two take text for one more reading, as good as it is in validation.
    """
    labels = dataset.train.labels.numpy()
    best, z, r, y = fit_ridge(dataset, "t"), {}, {}, {}
    for name in ("valid", "test"):
        split = dataset.splits[name]
        text = best.predict(pooled_features(split, "t"))
        z[name] = np.column_stack([text, split.truth["av_evidence"].numpy()])
        r[name] = split.truth["av_reliability"].numpy()
        y[name] = split.labels.numpy()
    middle, spread = z["valid"][:, 0].mean(), z["valid"][:, 0].std()
    linear = np.linalg.lstsq(_with_one(z["valid"]), y["valid"], rcond=None)[0]
    guesses = {"fixed weights": _with_one(z["test"]) @ linear}
    z["test"][:, 0] = (z["test"][:, 0] - middle) / spread
    of_text = np.clip(np.corrcoef(z["valid"][:, 0], y["valid"])[0, 1], 0.01, 0.99)
    known = np.column_stack([np.full(len(r["test"]), of_text), r["test"]])[:, None]
    pairs_of = np.array(np.meshgrid(*(np.unique(column) for column in r["test"].T))).reshape(2, -1).T
    possible = np.column_stack([np.full(len(pairs_of), of_text), pairs_of])[None]  # each as likely as any other
    for name, each in (("no cue", possible), ("cue", known)):
        each = np.maximum(each, 0.01)
        guess = expectation(z["test"][:, None], np.sqrt(1 - each**2) / each)
        guesses[name] = guess * labels.std() + labels.mean()
    return guesses


def _with_one(x: np.ndarray) -> np.ndarray:
    return np.column_stack([x, np.ones(len(x))])


# -------------------------------------------------------------------------------------------------- what they say


def dose(rows: pd.DataFrame) -> pd.Series:
    """One number for a level: the mean correlation of audio and vision with the label."""
    return (rows["audio"] + rows["vision"]) / 2


def worth(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean test MAE by condition (level, control) of ridge, the oracles and the full networks."""
    chosen = rows[(rows["arm"] == "full") | rows["model"].isin(["ridge", "oracle"])]
    named = chosen.assign(dose=dose(chosen), who=chosen["arm"].where(chosen["arm"] != "full", chosen["model"]))
    table = named.pivot_table(index=["control", "dose", "level"], columns="who", values="mae")
    order = [*RIDGE, *ORACLES, *dict.fromkeys(model for model, _ in COMPARISONS.values())]
    return table.reindex(columns=order).sort_index(level=[0, 1], ascending=[False, True]).reset_index()


def pooled(gains: Sequence[np.ndarray]) -> list[Gap]:
    """The mean gain of each condition, seeds [n] in each, with one spread for all of them: that within conditions,
    which a mechanism's gains are taken to have in common. A few seeds at several levels are thus worth more than at
    one; without two seeds anywhere no gain has an interval."""
    freedom = sum(len(part) - 1 for part in gains)
    squares = sum(((part - part.mean()) ** 2).sum() for part in gains)
    spread = np.sqrt(squares / freedom) if freedom else np.nan
    return [Gap(float(g.mean()), float(spread / np.sqrt(len(g))), freedom, "pooled", np.nan) for g in gains]


def over_text(rows: pd.DataFrame) -> pd.DataFrame:
    """What audio and vision are worth to each full network at each level, over the network that reads text alone."""
    lines = []
    for model in dict.fromkeys(model for model, _ in COMPARISONS.values()):
        own = rows[(rows["model"] == model) & (rows["control"] == "positive")]
        alone = own[own["arm"] == ALONE]
        at = {level: own[(own["level"] == level) & (own["arm"] == "full")] for level in LEVELS}
        gains = {level: np.subtract(*pairs(pd.concat([alone, full]), ALONE, "full")) for level, full in at.items()}
        gains = {level: values for level, values in gains.items() if len(values)}
        for (level, values), gap in zip(gains.items(), pooled(list(gains.values())), strict=True):
            low, high = gap.interval(0.05 / len(LEVELS))
            line = {"model": model, "level": level, "seeds": len(values), "gain": gap.gap}
            lines.append(line | {"low": low, "high": high})
    return pd.DataFrame(lines)


def table(rows: pd.DataFrame, margin: float) -> pd.DataFrame:
    """One line per comparison and condition of the `rows` (as `rows_of`): the gain in MAE, seed by seed, and the word
    of `effects.judged`. The intervals hold at 95 % for the conditions of one comparison together; their spread is
    `pooled` over these."""
    lines = []
    for name in COMPARISONS:
        both = _both(rows, name)
        gains = [np.subtract(without, full) for _, without, full in both]
        for (line, without, full), gap in zip(both, pooled(gains), strict=True):
            told = line | {"seeds": len(full), "full": full.mean(), "without": without.mean()}
            lines.append({"comparison": name} | told | judged(gap, margin, len(CONDITIONS))._asdict())
    return pd.DataFrame(lines)


def _both(rows: pd.DataFrame, name: str) -> list[tuple[dict, np.ndarray, np.ndarray]]:
    """Each condition that has runs of a comparison, the errors [n] without the mechanism and with it, seed by seed."""
    model, arm = COMPARISONS[name]
    found = []
    for control in CUES:
        for level in LEVELS:
            there = rows[(rows["level"] == level) & (rows["control"] == control) & (rows["model"] == model)]
            without, full = pairs(there, arm, "full")
            if len(full):
                found.append(({"control": control, "level": level, "dose": dose(there).iloc[0]}, without, full))
    return found


def trends(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per comparison: by how much the gain grows with the dose, per 0.1 of correlation (least squares through
    the means of the levels), with an interval at 95 % for all comparisons together, of the `pooled` spread."""
    lines = []
    for name in COMPARISONS:
        both = [part for part in _both(rows, name) if part[0]["control"] == "positive"]
        gaps = pooled([np.subtract(without, full) for _, without, full in both])
        x = np.array([line["dose"] for line, _, _ in both])
        if len(x) > 1:
            weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum() / 10
            slope = float(weights @ [gap.gap for gap in gaps])
            error = float(np.sqrt(weights**2 @ np.square([gap.error for gap in gaps])))
            low, high = replace(gaps[0], gap=slope, error=error).interval(0.05 / len(COMPARISONS))
            lines.append({"comparison": name, "levels": len(x), "slope": slope, "low": low, "high": high})
    return pd.DataFrame(lines, columns=["comparison", "levels", "slope", "low", "high"])


def answers(found: pd.DataFrame, slopes: pd.DataFrame) -> list[str]:
    """One sentence per comparison: from which level on it pays, the gain at the highest, the trend, both controls."""
    said, trend = [], slopes.set_index("comparison")
    for name in COMPARISONS:
        lines = found[found["comparison"] == name] if len(found) else found
        own = lines[lines["control"] == "positive"].set_index("level") if len(lines) else lines
        if "as text" not in own.index or name not in trend.index or np.isnan(own.loc["as text", "low"]):
            said.append(f"{name}: undecided for want of seeds.")
            continue
        top, grows = own.loc["as text"], trend.loc[name]
        hidden = lines[lines["control"] == "negative"]
        other = f"; cue hidden {_told(hidden.iloc[0])}" if len(hidden) else ""
        said.append(
            f"{name}: {_begins(own['word'])}; gain in MAE {_told(top)} with audio and vision as telling as text, "
            f"{top['word']}{other}; per 0.1 of correlation {grows['slope']:+.4f} "
            f"({grows['low']:+.4f} to {grows['high']:+.4f}); {top['seeds']} seeds."
        )
    return [sentence[0].upper() + sentence[1:] for sentence in said]


def _begins(words: pd.Series) -> str:
    """From which level on a mechanism is seen to help; index the level."""
    helping = [level for level in LEVELS if level in words.index and words[level] == "helps"]
    harming = [level for level in LEVELS if level in words.index and words[level] == "harms"]
    harm = f", and harms at {' and '.join(harming)}" if harming else ""
    if not helping:
        return f"seen to pay at no level{harm}"
    nothing = ", where audio and vision tell nothing, so not by them" if helping[0] == "none" else ""
    later = [level for level in LEVELS[LEVELS.index(helping[0]) :] if level not in helping and level in words.index]
    gaps = f" (not shown at {' and '.join(later)})" if later else ""
    return f"begins to pay at {helping[0]}{nothing}{gaps}{harm}"


def _told(line: pd.Series) -> str:
    return f"{line['gain']:+.3f} ({line['low']:+.3f} to {line['high']:+.3f})"
