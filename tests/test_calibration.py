"""The error rates of the verdicts, by simulation and on real runs, and the committed summaries of seed noise."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from papers_check.judge import calibration, seed_noise
from papers_check.judge.calibration import (
    by_gap,
    common_rules,
    many_cells,
    matches,
    model_shifts,
    rates,
    simulate,
    splits,
)
from papers_check.judge.seed_noise import NAMES, NOISE, claimed_gains, load_noise, load_runs, usual_sd

LOGS = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "mmsa_logs"
needs_logs = pytest.mark.skipif(not (LOGS / "runs.csv.gz").exists(), reason="the public logs are not here")


# --- by simulation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "shift", "expected"),
    [
        (5, 0, (0.88, 0.11, 0.01)),
        (5, 1, (0.58, 0.37, 0.05)),
        (5, 2, (0.13, 0.62, 0.25)),
        (5, 3, (0.01, 0.43, 0.56)),
        (10, 0, (0.78, 0.22, 0.00)),
        (10, 1, (0.30, 0.66, 0.04)),
        (10, 2, (0.01, 0.64, 0.35)),
        (10, 3, (0.00, 0.18, 0.82)),
    ],
)
def test_power_against_the_specification(n, shift, expected):
    line = simulate(["normal"], [n], [5], [shift], halves=[0.0], draws=10_000).iloc[0]
    assert (line["compatible"], line["depends"], line["incompatible"]) == pytest.approx(expected, abs=0.018)


@pytest.mark.parametrize("half", [0.0, 0.005, 0.05, 0.5, 5 / 3])
def test_coverage_with_and_without_the_rounding(half):
    found = simulate(["normal"], [3, 5, 10], [1, 5, 10], [0.0], halves=[half], draws=6000)
    with_half, without = 1 - found["flagged_known_m"], 1 - found["flagged_without_half"]
    assert with_half.between(0.94, 1).all()  # the specification has .949 to .996
    if half == 0:
        assert (with_half == without).all()
    if half > 1:  # the specification has .63 to .91 for coarse rounding, without saying how coarse
        assert without.max() < 0.93
        assert without.min() < 0.65


def test_false_alarms_on_discrete_and_on_failing_runs():
    found = simulate(n=[5, 10], m=[1, 5], shifts=[0.0], draws=4000).set_index("kind")
    assert found.loc["normal", "flagged_known_m"].between(0.038, 0.062).all()
    assert found.loc["accuracy", "flagged_known_m"].between(0.035, 0.065).all()
    assert found.loc["collapse", "flagged_known_m"].min() > 0.065  # the price of assuming normal noise
    assert (found["not_reproduced"] <= found["incompatible"]).all()
    assert simulate(["normal"], [4], [1], [6.0], draws=200)["not_reproduced"].tolist() == [0]  # below five seeds
    with pytest.raises(ValueError, match="unknown kind of runs 'cauchy'"):
        simulate(["cauchy"])


def test_rules_in_common_use():
    found = common_rules().set_index(["n", "m"])
    expected = {
        (3, 1): (0.95, 0.84, 0.45, 0.70, 0.50),
        (5, 1): (0.95, 0.68, 0.54, 0.83, 0.67),
        (10, 1): (0.95, 0.49, 0.61, 0.90, 0.82),
        (5, 5): (0.95, 0.88, 0.77, 0.95, 0.86),
        (10, 5): (0.95, 0.78, 0.88, 0.99, 0.97),
    }
    for key, shares in expected.items():
        assert found.loc[key].tolist() == pytest.approx(shares, abs=0.013)


def test_many_cells_need_an_adjustment():
    found = many_cells().set_index("cells")
    assert found.loc[40, "any_raw"] == pytest.approx(0.87, abs=0.025)
    assert found["any_holm"].max() < 0.07
    assert (found["any_holm_m_1"] < found["any_holm"]).all()


# --- on runs --------------------------------------------------------------------------------------------------------


def test_splits_are_all_the_ways_and_never_share_a_run():
    ways = splits(5, 3, 2, 200, np.random.default_rng(0))
    assert len(ways) == len({(frozenset(way[:3]), frozenset(way[3:])) for way in ways.tolist()}) == 10
    many = splits(40, 10, 5, 200, np.random.default_rng(0))
    assert many.shape == (200, 15)
    assert all(len(set(way)) == 15 for way in many.tolist())
    assert len(np.unique(many)) == 40


def made_up(pools=400, models=2, shift=0.0, kind="seeded", runs=5):
    """Scores of normal seed noise: a data set per pair of models, the second `shift` deviations worse."""
    generator = np.random.default_rng(5)
    lines = [
        {
            "kind": kind, "dataset": f"set {pool}", "model": f"model {model}", "train_mode": "regression",
            "config": "c", "run": f"{pool} {model} {i}", "seed": 1111 + i, "metric": "mae",
            "value": 0.5 + 0.02 * (generator.standard_normal() + shift * model), "valid": 0.0,
        }
        for pool in range(pools) for model in range(models) for i in range(runs)
    ]  # fmt: skip
    return pd.DataFrame(lines)


def test_matches_find_the_nominal_rate_and_the_shift():
    found = rates(matches(made_up()), ["n", "m", "shift"]).set_index(["n", "m", "shift"])
    assert (found["lines"] == 800).all()
    true = found.xs(0.0, level="shift")
    assert true["flagged_known_m"].between(0.035, 0.065).all()
    assert found.loc[(4, 1, 6.0), "flagged_known_m"] > 0.6
    assert found.loc[(4, 1, 2.0), "incompatible"] > true.loc[(4, 1), "incompatible"] + 0.05
    assert (found["not_reproduced"] == 0).all()


def test_a_random_search_is_split_at_random():
    found = matches(made_up(pools=60, models=1, kind="tune", runs=30), shifts=(0.0, 4.0), most=40)
    assert found["splits"].unique() == [40]
    table = rates(found, ["n", "m", "shift"]).set_index(["n", "m", "shift"])
    assert table.xs(0.0, level="shift")["flagged_known_m"].between(0.02, 0.09).all()
    assert table.loc[(10, 10, 4.0), "flagged_known_m"] > 0.99
    assert table.loc[(5, 1, 4.0), "not_reproduced"] > 0.1


def test_model_shifts_compare_models_of_one_column_only():
    found = model_shifts(made_up(pools=30, shift=6.0))
    assert len(found) == 30 * 2 * 3
    assert (found["ours"] != found["theirs"]).all()
    assert found["gap"].between(2, 30).all()
    m_5 = found[found["m"] == 5]
    assert (m_5["flagged_known_m"] > 0.9).mean() > 0.9
    assert rates(found, ["m"])["lines"].tolist() == [60] * 3
    assert by_gap(found)["lines"].sum() == len(found)
    same = model_shifts(made_up(pools=200, shift=0.0))
    assert rates(same, ["m"]).set_index("m").loc[5, "flagged_known_m"] == pytest.approx(0.05, abs=0.03)


# --- reading logs ---------------------------------------------------------------------------------------------------


def write_logs(folder: Path, second_model: bool = False) -> None:
    """Five seeds and 24 trials of one model, with a repeated run, an unclean one and three epochs each."""
    generator = np.random.default_rng(6)
    lines, epochs = [], []

    def run(name, kind, seed, config, **more):
        mae = 0.9 + 0.02 * generator.standard_normal()
        line = {
            "run": name, "kind": kind, "seed": seed, "config": json.dumps(config), "dataset": "mosi", "model": "tfn",
            "train_mode": "regression", "start": f"{len(lines):03}", "clean": True, "best_epoch_logged": 2.0,
        }  # fmt: skip
        for theirs in (*seed_noise.REGRESSION, *seed_noise.CLASSIFICATION):
            line[f"test_{theirs}"] = line[f"sel_val_{theirs}"] = np.nan
        line |= {"test_MAE": mae, "sel_val_MAE": mae + 0.01 * generator.standard_normal()}
        line |= {"test_Corr": 0.6, "sel_val_Corr": 0.6, "test_Mult_acc_7": 0.35, "sel_val_Mult_acc_7": 0.35}
        lines.append(line | more)
        for epoch, loss in enumerate((0.8, 0.6, 0.7), start=1):
            scores = dict.fromkeys((f"val_{theirs}" for theirs in seed_noise.REGRESSION), np.nan)
            scores |= {"val_MAE": loss, "val_Mult_acc_7": 0.3 + 0.02 * epoch}
            epochs.append({"run": name, "epoch": epoch} | scores)

    for i in range(5):
        run(f"s{i}", "seeded", 1111 + i, {"lr": 0.1, "seed": 1111 + i, "seeds": [1111]})
    run("again", "seeded", 1111, {"lr": 0.1, "grad_clip": 0, "seed": 1111})
    lines[-1] |= {name: lines[0][name] for name in lines[0] if name.startswith("test_")}
    run("broken", "seeded", 1116, {"lr": 0.1, "seed": 1116}, clean=False)
    for i in range(24):
        run(f"t{i}", "tune", np.nan, {"lr": i})
    for i in range(5 * second_model):
        run(f"l{i}", "seeded", 1111 + i, {"rank": 3, "seed": 1111 + i}, model="lmf")
    lines[3]["test_Corr"] = 0.02  # this seed collapsed
    pd.DataFrame(lines).to_csv(folder / "runs.csv.gz", index=False)
    pd.DataFrame(epochs).to_csv(folder / "epochs.csv.gz", index=False)


@pytest.fixture
def logs(tmp_path):
    write_logs(tmp_path)
    return tmp_path


def test_reading_keeps_clean_runs_once_and_pools_by_settings(logs):
    runs = load_runs(logs)
    assert sorted(runs.loc[runs["kind"] == "seeded", "run"]) == ["s0", "s1", "s2", "s3", "s4"]
    assert runs.loc[runs["kind"] == "seeded", "config"].nunique() == 1  # the seed is no setting
    assert runs.loc[runs["kind"] == "tune", "config"].nunique() == 24


def test_seed_noise_by_hand(logs):
    scores = seed_noise.long(load_runs(logs))
    noise = seed_noise.seed_noise(scores).set_index("metric")
    x = load_runs(logs).query("kind == 'seeded'")["test_MAE"].to_numpy()
    line = noise.loc["mae"]
    assert (line["seeds"], line["collapsed"]) == (5, 1)
    assert (line["mean"], line["sd"], line["best_seed"]) == pytest.approx((x.mean(), x.std(ddof=1), x.mean() - x.min()))
    assert (noise.loc["acc7", "mean"], noise.loc["acc7", "sd"]) == pytest.approx((35, 0))  # percent
    assert usual_sd(noise.reset_index()).empty  # a pool with a collapsed seed is no measure of noise


def test_tuning_is_exact_over_all_subsets(logs):
    scores = seed_noise.long(load_runs(logs))
    found = seed_noise.tuning(scores, draws=3).set_index("metric").loc["mae"]
    trials = load_runs(logs).query("kind == 'tune'")[["test_MAE", "sel_val_MAE"]].to_numpy()
    subsets = [trials[list(chosen)] for chosen in combinations(range(len(trials)), 3)]
    picked = np.mean([part[part[:, 1].argmin(), 0] for part in subsets])
    best = np.mean([part[:, 0].min() for part in subsets])
    median = np.median(trials[:, 0])
    expected = (24, median, median - picked, picked - best)
    names = ["trials", "median", "tuning_gain", "test_selection"]
    assert found[names].tolist() == pytest.approx(expected)
    assert seed_noise.tuning(scores, draws=13).empty


def test_epoch_selection_by_hand(logs):
    runs, epochs = load_runs(logs), pd.read_csv(logs / "epochs.csv.gz")
    found = seed_noise.epoch_selection(runs, epochs).set_index("metric")
    assert found.index.tolist() == ["acc7", "mae"]
    assert found.loc["mae", ["runs", "gain_mean"]].tolist() == [5, 0]  # epoch 2 was kept and is the best
    assert found.loc["acc7", "gain_max"] == pytest.approx(2.0)  # epoch 3 was better in accuracy


def test_command_writes_summaries_only(tmp_path, capsys):
    write_logs(tmp_path, second_model=True)
    out = tmp_path / "out"
    assert calibration.main([str(tmp_path), "--out", str(out)]) == 0
    assert {path.stem for path in out.iterdir()} == set(NAMES)
    assert "Wrote" in capsys.readouterr().out


# --- what is committed ----------------------------------------------------------------------------------------------


def test_committed_summaries_hold_no_runs():
    assert {path.stem for path in NOISE.glob("*.csv")} == set(NAMES)
    for name in NAMES:
        frame = load_noise(name)
        assert not {"run", "log", "log_blob", "epoch"} & set(frame.columns)
        assert 10 < len(frame) < 500
    with pytest.raises(ValueError, match="no summary 'runs'"):
        load_noise("runs")


def test_committed_gains_follow_from_the_cells_and_the_seeds():
    fresh, kept = claimed_gains(load_noise("seeds")), load_noise("gains")
    pd.testing.assert_frame_equal(kept, fresh, check_dtype=False, rtol=1e-3)
    line = kept[(kept["paper"] == "amsgfn") & (kept["table"] == "3") & (kept["metric"] == "mae")].iloc[0]
    assert line["gain"] == 0.001
    assert line["gain_in_sd"] < 0.3
    assert np.isinf(line["equivalence_seeds"])  # half of the gain is the rounding
    assert kept.loc[kept["dataset"] == "simsv2", "sd_median"].isna().all()


@needs_logs
def test_committed_summaries_are_those_of_the_logs():
    for name, fresh in calibration.summaries(LOGS).items():
        kept = load_noise(name)
        assert kept.columns.tolist() == fresh.columns.tolist()
        for column in kept:
            if pd.api.types.is_numeric_dtype(kept[column]):
                np.testing.assert_allclose(
                    kept[column], fresh[column].astype(float), rtol=1e-3, atol=2e-3, err_msg=name
                )
            else:
                assert kept[column].tolist() == fresh[column].astype(str).tolist()


@needs_logs
def test_real_matches_are_not_flagged_more_often_than_promised():
    scores = seed_noise.long(load_runs(LOGS))
    seeds = rates(matches(scores[scores["kind"] == "seeded"], shifts=(0.0,)), ["n", "m"])
    assert seeds["flagged_known_m"].between(0.03, 0.07).all()
