"""How large seed, tuning and test-selection effects are on the real benchmarks, beside the gains the papers claim.

Read from the public training logs of the MMSA authors (thuiar/MMSA, MIT): `runs.csv.gz`, one line per run with test
scores at the epoch of the best validation loss, and `epochs.csv.gz`, validation scores of every epoch. The logs stay
outside the repository; what is committed are the summaries in `noise/`, written by
`python -m papers_check.judge.calibration`.

Only runs marked `clean`. A pool is a set of runs of equal configuration, seed aside; a seeded run that repeats MAE,
Corr and every accuracy of an earlier one of the same model, data and seed is that run again and counts once. Scores are
in the unit the papers print: accuracies and F1 in percent.
"""

import hashlib
import json
from collections.abc import Iterator
from math import comb
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from papers_check.judge.intervals import seeds_for_equivalence
from papers_check.judge.verdicts import LOWER_IS_BETTER, gains
from papers_check.printed.cells import load_reported
from papers_check.printed.papers import DATA
from papers_check.printed.units import is_percent

NOISE = DATA / "noise"
NAMES = ("seeds", "tuning", "epochs", "gains", "matches", "models", "simulated")
NAMES += ("words", "reproduced", "pairing", "correlations")

# Their names of the scores, ours. In classification runs only the three-class accuracy means what its name says.
REGRESSION = {
    "MAE": "mae",
    "Corr": "corr",
    "Has0_acc_2": "acc2_has0",
    "Non0_acc_2": "acc2_non0",
    "Has0_F1_score": "f1_has0",
    "Non0_F1_score": "f1_non0",
    "Mult_acc_7": "acc7",
    "Mult_acc_2": "acc2",
    "Mult_acc_3": "acc3",
    "Mult_acc_5": "acc5",
    "F1_score": "f1",
}
CLASSIFICATION = {"Acc_3": "acc3_class"}
NOT_SETTINGS = (
    "seed",
    "seeds",
    "is_tune",
    "save_labels",
)  # of a configuration: they do not change a run's distribution
POOL = ["kind", "dataset", "model", "train_mode", "config"]
COLLAPSED = 0.1  # a test correlation below this: the run predicts a constant, or as good as
SEEDS = 5
TRIALS = 10  # of a random search, for effects that do not depend on how long each search was


def load_noise(name: str) -> pd.DataFrame:
    """A committed summary, one of `NAMES`; what its columns mean is said at the function that makes it."""
    if name not in NAMES:
        raise ValueError(f"no summary {name!r}: expected one of {', '.join(NAMES)}")
    texts = dict.fromkeys(("table", "value", "runner_up_value", "config"), str)  # "86.50" keeps its zero
    frame = pd.read_csv(NOISE / f"{name}.csv", dtype=texts)
    return frame.fillna({"side": ""}) if "side" in frame else frame


def load_runs(folder: Path | str) -> pd.DataFrame:
    """The clean runs of `runs.csv.gz` in `folder`, `config` shortened to a name that is equal for equal settings."""
    runs = pd.read_csv(Path(folder) / "runs.csv.gz", low_memory=False)
    runs = runs[runs["clean"]].sort_values("start", kind="stable")
    # Not F1: from April 2021 on, the same predictions have other F1 scores than before.
    scores = ["test_MAE", "test_Corr", *(name for name in runs if name.startswith("test_") and "acc" in name.lower())]
    again = runs.duplicated(["model", "dataset", "train_mode", "seed", *scores]) & (runs["kind"] == "seeded")
    return runs[~again].assign(config=runs["config"].map(_settings)).reset_index(drop=True)


def _settings(config: str) -> str:
    kept = {name: value for name, value in json.loads(config).items() if name not in NOT_SETTINGS}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]


def long(runs: pd.DataFrame) -> pd.DataFrame:
    """One line per run and score: `POOL`, run, seed, metric, value, valid (the same score on the validation set).

    Runs of a random search have one configuration each; their pool is the search itself, config "search".
    """
    parts = []
    for mode, names in (("regression", REGRESSION), ("classification", CLASSIFICATION)):
        there = runs[runs["train_mode"] == mode]
        for theirs, ours in names.items():
            columns = [*POOL, "run", "seed", f"test_{theirs}", f"sel_val_{theirs}"]
            part = there[columns].rename(columns={f"test_{theirs}": "value", f"sel_val_{theirs}": "valid"})
            part[["value", "valid"]] *= 100 if is_percent(ours) else 1
            parts.append(part.assign(metric=ours))
    scores = pd.concat(parts, ignore_index=True).dropna(subset="value")
    scores.loc[scores["kind"] == "tune", "config"] = "search"
    return scores


def pools(scores: pd.DataFrame, kind: str, least: int) -> Iterator[tuple[tuple, pd.DataFrame]]:
    """Pools of at least `least` runs, one run per seed: the key (`POOL` and metric) and the lines of `scores`.

    kind: "seeded" (one configuration, several seeds) or "tune" (one random search: exchangeable, but not seed noise).
    """
    there = scores[scores["kind"] == kind]
    if kind == "seeded":  # the same seed twice with different scores: the later one
        there = there.drop_duplicates([*POOL, "metric", "seed"], keep="last")
    for key, pool in there.groupby([*POOL, "metric"], sort=True):
        if len(pool) >= least:
            yield key, pool


def seed_noise(scores: pd.DataFrame) -> pd.DataFrame:
    """Seed noise per data set, model, configuration and metric, regression runs with at least three seeds.

    Columns: seeds (distinct), mean, sd (ddof 1), low, high, best_seed (how much better the best seed is than the mean,
    which is what printing the best of so many seeds is worth), collapsed (runs with a test correlation below 0.1).
    """
    there = scores[scores["train_mode"] == "regression"]
    alive = there.loc[(there["metric"] == "corr") & (there["value"] >= COLLAPSED), "run"]
    lines = []
    for (_, dataset, model, _, config, metric), pool in pools(there, "seeded", 3):
        x = pool["value"].to_numpy()
        best = x.mean() - x.min() if metric in LOWER_IS_BETTER else x.max() - x.mean()
        collapsed = int((~pool["run"].isin(alive)).sum())
        lines.append(
            (dataset, model, config, metric, len(x), x.mean(), x.std(ddof=1), x.min(), x.max(), best, collapsed)
        )
    columns = ["dataset", "model", "config", "metric", "seeds", "mean", "sd", "low", "high", "best_seed", "collapsed"]
    return pd.DataFrame(lines, columns=columns)


def tuning(scores: pd.DataFrame, draws: int = TRIALS) -> pd.DataFrame:
    """What tuning is worth, and choosing the trial on the test set, in a random search of `draws` trials (regression).

    Per data set, model and metric, exact expectations over all subsets of the trials there are (at least 2 * draws):
    trials, median and sd of the test score over them; tuning_gain, test score of the trial with the best validation MAE
    over the median trial; test_selection, test score of the trial that is best on the test set in that metric over the
    former. Both positive where better. The spread over trials contains seed noise: every trial has a seed of its own.
    """
    there = scores[(scores["kind"] == "tune") & (scores["train_mode"] == "regression")]
    mae = there.loc[there["metric"] == "mae"].set_index("run")["valid"]
    lines = []
    for (dataset, model, metric), trials in there.groupby(["dataset", "model", "metric"], sort=True):
        n = len(trials)
        if n < 2 * draws:
            continue
        sign = -1 if metric in LOWER_IS_BETTER else 1
        value = sign * trials["value"].to_numpy()
        by_validation = np.argsort(-trials["run"].map(mae).to_numpy(), kind="stable")  # best last
        weight = np.array([comb(j, draws - 1) / comb(n, draws) for j in range(n)])  # that trial j is the best drawn
        picked, best = weight @ value[by_validation], weight @ np.sort(value)
        middle = np.median(value)
        lines.append((dataset, model, metric, n, sign * middle, value.std(ddof=1), picked - middle, best - picked))
    columns = ["dataset", "model", "metric", "trials", "median", "sd", "tuning_gain", "test_selection"]
    return pd.DataFrame(lines, columns=columns)


def epoch_selection(runs: pd.DataFrame, epochs: pd.DataFrame) -> pd.DataFrame:
    """What choosing the epoch on the very set and metric that is reported is worth: seen on the validation set.

    The logs hold no test scores by epoch, so the test-set effect itself cannot be had from them. This is its like on
    the validation set: the score at that set's best epoch for the metric over the score at the epoch that was kept
    (lowest validation loss on the same set, so for MAE it is small by construction, and for the rest smaller than on
    a test set would be). Seeded regression runs; per data set, model and metric: runs, mean and largest of that gain.
    """
    kept = runs[(runs["kind"] == "seeded") & (runs["train_mode"] == "regression")]
    joined = epochs.merge(kept[["run", "dataset", "model", "best_epoch_logged"]], on="run")
    lines = []
    for theirs, ours in REGRESSION.items():
        sign = -1 if ours in LOWER_IS_BETTER else 1
        score = sign * joined[f"val_{theirs}"] * (100 if is_percent(ours) else 1)
        best = score.groupby(joined["run"]).max()
        at = joined["epoch"] == joined["best_epoch_logged"]
        chosen = score[at].groupby(joined.loc[at, "run"]).first()
        gain = (best - chosen).dropna().rename("gain").reset_index().merge(kept[["run", "dataset", "model"]], on="run")
        for (dataset, model), part in gain.groupby(["dataset", "model"]):
            lines.append((dataset, model, ours, len(part), part["gain"].mean(), part["gain"].max()))
    columns = ["dataset", "model", "metric", "runs", "gain_mean", "gain_max"]
    return pd.DataFrame(lines, columns=columns).sort_values(columns[:3], ignore_index=True)


def usual_sd(noise: pd.DataFrame) -> pd.DataFrame:
    """Per data set and metric the usual seed SD, from `seed_noise`.

    Columns pools (of five seeds, none collapsed; a model with two configurations has two), sd_median, sd_pooled (by
    degrees of freedom), sd_low, sd_high, sd_self_mm: Self-MM is the model whose scores are nearest to the two papers'.
    """
    there = noise[(noise["seeds"] >= SEEDS) & (noise["collapsed"] == 0)]
    lines = []
    for (dataset, metric), part in there.groupby(["dataset", "metric"], sort=True):
        pooled = np.sqrt(np.average(part["sd"] ** 2, weights=part["seeds"] - 1))
        self_mm = part.loc[part["model"] == "self_mm", "sd"]
        near = np.sqrt((self_mm**2).mean()) if len(self_mm) else np.nan
        spread = part["sd"].median(), pooled, part["sd"].min(), part["sd"].max(), near
        lines.append((dataset, metric, len(part), *spread))
    columns = ["dataset", "metric", "pools", "sd_median", "sd_pooled", "sd_low", "sd_high", "sd_self_mm"]
    return pd.DataFrame(lines, columns=columns)


def claimed_gains(noise: pd.DataFrame, reported: pd.DataFrame | None = None) -> pd.DataFrame:
    """The gain each paper prints over the runner-up, in units of seed SDs. Needs no logs: `noise` is `seed_noise`.

    Columns of `verdicts.gains`, those of `usual_sd`, then gain_in_sd (median SD), gain_in_sd_self_mm, detectable (the
    smallest gap that a Welch test with five seeds a side would call real, at the median SD) and equivalence_seeds (how
    many seeds it takes to show equivalence within half of the gain, at the median SD, if the means agree exactly;
    infinite where half of the gain is within rounding). Data sets without public runs, SIMSv2, have no SD.
    """
    table = gains(load_reported() if reported is None else reported)
    table["score"] = (table["metric"] + "_" + table["side"]).str.strip("_")
    sds = usual_sd(noise).rename(columns={"metric": "score"})
    table = table.merge(sds, on=["dataset", "score"], how="left").drop(columns="score")
    table["gain_in_sd"] = table["gain"] / table["sd_median"]
    table["gain_in_sd_self_mm"] = table["gain"] / table["sd_self_mm"]
    table["detectable"] = stats.t.ppf(0.975, 2 * SEEDS - 2) * table["sd_median"] * np.sqrt(2 / SEEDS)
    halves = [0.5 * 10.0 ** -len(text.partition(".")[2]) for text in table["value"]]
    known = zip(table["gain"] / 2, table["sd_median"], halves, strict=True)
    table["equivalence_seeds"] = [seeds_for_equivalence(*line) if line[1] > 0 else np.nan for line in known]
    return table
