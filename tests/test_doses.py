"""Which runs say from which level of audio and vision on a mechanism pays, the rows they leave, what is said."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from msa_lib.cli import main
from msa_lib.data import load_dataset
from msa_lib.models import MODELS, build_model
from msa_lib.notebooks import declared_parameters, execute
from msa_lib.runs.identity import parameters
from msa_lib.study import NOTEBOOKS, doses, effects, plots
from msa_lib.study.doses import COMPARISONS, CONDITIONS, LEVELS
from papers_check.judge.intervals import gap_of


def test_the_levels_go_from_nothing_over_what_is_printed_to_what_text_tells():
    found = doses.levels("planted?train=400&valid=100&test=400")
    assert list(found) == list(LEVELS)
    assert found["none"] == (0, 0)
    assert found["reported"] == doses.reported() == (0.293, 0.145)  # AMSGFN Table 5, rows A and V, as printed
    for m in (0, 1):
        middle = (found["reported"][m] + found["as text"][m]) / 2
        assert found["half-way"][m] == pytest.approx(middle, abs=0.006)
    assert found["as text"][0] == found["as text"][1] > 0.4


def test_runs_come_seed_by_seed_each_once_with_the_same_draw_for_every_row():
    runs = doses.runs_of(doses.NAMES, 2, "smoke")
    assert [run.seed for run in runs] == sorted(run.seed for run in runs)
    assert all(run.data.endswith(f"av_seed={run.seed}") for run in runs)
    some = [run for run in runs if run.seed == 1111 and run.model != "ridge"]
    assert len({str(parameters(run)) for run in some}) == len(some) == 5 * 9 + 2
    assert len({run.data for run in some}) == len(CONDITIONS)
    for run in some[:9]:
        build_model(run.model, load_dataset(run.data), **run.switches)
    for model, arm in COMPARISONS.values():
        assert MODELS[model].VARIANTS[arm] != MODELS[model].VARIANTS["full"]
    assert {r.label for r in doses.runs_of(["routing"], 1, "smoke")} == {"full", "no_routing", "T", *doses.RIDGE}
    real = doses.runs_of(["routing"], 1, "full", text="planted?train=300&valid=60&test=100&standardise=no")
    assert {"train=300", "standardise=no"} <= set(
        real[0].data.partition("?")[2].split("&")
    )  # never cut, as it is asked
    with pytest.raises(ValueError, match="No comparison 'fusion': expected one of selection; guided fusion"):
        doses.runs_of(["fusion"], 1, "smoke")
    with pytest.raises(ValueError, match="No scale 'large'"):
        doses.runs_of(["routing"], 1, "large")
    with pytest.raises(ValueError, match="expected no number of draws"):
        doses.runs_of(["routing"], 1, "smoke", 3)


def test_oracles_know_more_and_more_and_nothing_where_there_is_nothing():
    base = "planted?train=800&valid=300&test=800&av_cue=visible"

    def mae(level, cue="visible"):
        dataset = load_dataset(f"{base}&planted_av={level}".replace("visible", cue))
        y = dataset.test.labels.numpy()
        return {name: np.abs(guess - y).mean() for name, guess in doses.oracles(dataset).items()}

    top, even, none = mae(0.6), mae(0.6, "even"), mae(0)
    assert top["cue"] < top["no cue"] - 0.05 < top["fixed weights"]
    assert top["no cue"] < none["no cue"] - 0.1
    assert even["cue"] == pytest.approx(even["no cue"])  # one reliability: nothing to know
    assert none["cue"] == pytest.approx(none["no cue"], abs=1e-4)


def made_up(n: int = 6) -> pd.DataFrame:
    """Rows on which selection pays from half-way on, routing everywhere, the factors harm, all else does nothing."""
    rng, lines = np.random.default_rng(0), []
    worth = {"t-oriented": (0, 0, 0.1, 0.2), "no_routing": (0.1,) * 4, "w/o HSF": (-0.1,) * 4}
    correlations = dict(zip(LEVELS, ((0, 0), (0.3, 0.1), (0.5, 0.4), (0.7, 0.7)), strict=True))
    for seed in range(n):
        for level, control in CONDITIONS:
            audio, vision = correlations[level]
            at = {"data": "text", "level": level, "audio": audio, "vision": vision, "control": control}
            at |= {"draw": seed, "seed": seed, "best_epoch": 5, "epochs": 9, "seconds": 1.0}
            for model, arm in doses.arms(doses.NAMES, level):
                lost = worth.get(arm, (0,) * 4)[LEVELS.index(level)] * (control == "positive")
                mae = 1 - audio / 2 + lost + rng.normal(0, 0.002)
                lines.append(at | {"model": model, "arm": arm, "mae": mae})
            lines += [at | {"model": "ridge", "arm": arm, "mae": 1.0} for arm in doses.RIDGE]
            lines += [at | {"model": "oracle", "arm": arm, "mae": 0.9} for arm in doses.ORACLES]
    return pd.DataFrame(lines)


def test_a_mechanism_begins_to_pay_where_its_interval_lies_above_0():
    rows = made_up()
    found, slopes = doses.table(rows, 0.02), doses.trends(rows)
    said = dict(zip(COMPARISONS, doses.answers(found, slopes), strict=True))
    assert said["selection"].startswith("Selection: begins to pay at half-way; gain in MAE +0.199 (+0.19")
    assert "helps; cue hidden " in said["selection"]
    assert said["selection"].endswith("6 seeds.")
    assert "begins to pay at none, where audio and vision tell nothing, so not by them;" in said["routing"]
    assert "seen to pay at no level, and harms at none and reported and half-way and as text;" in said["four factors"]
    assert "seen to pay at no level; gain" in said["uncertainty weights"]
    trend = slopes.set_index("comparison")
    assert trend.loc["selection", "slope"] == pytest.approx(0.031, abs=0.003)
    assert trend.loc["selection", "low"] > 0 > trend.loc["routing", "low"]
    assert len(found) == len(COMPARISONS) * len(CONDITIONS)
    one = made_up(1)
    assert doses.answers(doses.table(one, 0.02), doses.trends(one))[0].endswith("for want of seeds.")


def test_one_spread_for_all_conditions_is_as_wide_as_it_says():
    rng, shown = np.random.default_rng(0), []
    for _ in range(400):
        gains = [level + rng.normal(0, 0.03, 3) for level in (0.0, 0.1, 0.2)]
        shown.append([low <= true <= high for true, (low, high) in zip((0, 0.1, 0.2), _ends(gains), strict=True)])
    assert np.mean(shown) == pytest.approx(0.95, abs=0.02)
    alone = np.array([0.1, 0.14, 0.09])
    assert doses.pooled([alone])[0].interval() == pytest.approx(gap_of(alone, np.zeros(3), paired=True).interval())
    assert np.isnan(doses.pooled([np.array([0.1]), np.array([0.2])])[0].interval()).all()


def _ends(gains):
    return [gap.interval() for gap in doses.pooled(gains)]


def test_what_audio_and_vision_are_worth_to_a_network_at_all():
    found = doses.over_text(made_up()).set_index(["model", "level"])
    assert found.loc[("amsgfn", "as text"), "gain"] == pytest.approx(0.35, abs=0.01)
    assert found.loc[("dsrf", "none"), "low"] < 0 < found.loc[("dsrf", "none"), "high"]


def test_the_picture_shows_every_gain_with_its_interval_and_the_hidden_cue_beside():
    rows = made_up()
    found = doses.table(rows, 0.02)
    first, *panels = plots.doses(doses.worth(rows), found, 0.02, synthetic=False).axes
    assert [axis.get_title() for axis in (first, *panels)] == ["test MAE", *COMPARISONS]
    circles, square = panels[0].containers
    gains = found[(found["comparison"] == "selection") & (found["control"] == "positive")]
    assert circles.lines[0].get_ydata() == pytest.approx(gains["gain"])
    assert [bar[:, 1].tolist() for bar in circles.lines[2][0].get_segments()] == [
        pytest.approx(ends) for ends in gains[["low", "high"]].to_numpy()
    ]
    assert len(square.lines[0].get_ydata()) == 1


def test_the_command_trains_resumes_and_keeps_rows(tmp_path, capsys):
    path, store = tmp_path / "x.csv", str(tmp_path / "runs")
    call = ["mechanisms", "routing", "--text", "planted", "--scale", "smoke", "--store", store, "--csv", str(path)]
    assert main([*call, "--seeds", "1"]) == 0
    assert "Test MAE on a text with planted audio and vision" in capsys.readouterr().out
    rows = pd.read_csv(path)
    assert list(rows) == doses.COLUMNS
    assert len(rows) == 5 * (2 + 2) + 1 + 5 * 3 - 1  # networks and ridge, text alone, oracles but for the hidden cue
    assert set(rows["level"]) == set(LEVELS)
    assert (rows["draw"] == 1111).all()
    assert rows.loc[rows["model"] == "dsrf", "best_epoch"].notna().all()
    assert main([*call, "--seeds", "2"]) == 0
    assert len(pd.read_csv(path)) == 2 * len(rows)
    assert main([*call, "--draws", "2"]) == 2
    assert "expected no number of draws" in capsys.readouterr().err


def test_the_page_shows_a_planted_stand_in_and_says_so(tmp_path):
    page = NOTEBOOKS / "semi_synthetic.ipynb"
    assert declared_parameters(page)["margin"] == effects.MARGIN
    content = execute(page, tmp_path / "out.ipynb", {"comparisons": "routing", "seeds": 2})
    assert content["answer"].startswith("Planted text (a stand-in), planted audio and vision")
    assert "Routing: " in content["answer"]


def test_the_committed_rows_are_real_text_at_its_real_size_and_converged():
    rows = pd.read_csv(doses.ROWS)
    assert list(rows) == doses.COLUMNS
    assert not rows["data"].str.startswith("planted").any()
    assert not rows.duplicated([*doses.WHICH, "draw", "seed"]).any()
    networks = rows[~rows["model"].isin(["ridge", "oracle"])]
    known = {pair for name in doses.NAMES for level in LEVELS for pair in doses.arms([name], level)}
    assert set(zip(networks["model"], networks["arm"], strict=True)) <= known
    assert (networks["best_epoch"] < doses.TRAIN["full"]["epochs"]).mean() > 0.95
    assert set(zip(rows["level"], rows["control"], strict=True)) <= set(CONDITIONS)
    assert "/" not in "".join(rows["data"])  # a name, no folder of a machine
