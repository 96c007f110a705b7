"""Which runs say whether a mechanism helps, the rows they leave, and the word that is said of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from msa_lib.cli import main
from msa_lib.models import MODELS, build_model
from msa_lib.runs.identity import parameters
from msa_lib.study import effects, mechanisms, plots
from msa_lib.study.mechanisms import COMPARISONS
from papers_check.judge.intervals import gap_of


def effect(gains, margin=0.02, comparisons=1):
    gains = np.asarray(gains, float)
    return effects.judged(gap_of(gains + 1, np.ones_like(gains), paired=True), margin, comparisons)


@pytest.mark.parametrize(
    ("gains", "word"),
    [
        ([0.10, 0.11, 0.09, 0.10, 0.12], "helps"),
        ([-0.10, -0.11, -0.09, -0.10, -0.12], "harms"),
        ([0.001, -0.002, 0.002, -0.001, 0.0], "no effect larger than 0.02"),
        ([0.1, -0.1, 0.05, -0.06, 0.02], "undecided"),
        ([0.03, 0.03], "helps"),  # no spread: what is there is there
        ([0.03], "undecided"),
    ],
)
def test_the_word_follows_the_interval(gains, word):
    assert effect(gains).word == word


def test_more_comparisons_ask_for_more():
    gains = [0.02, 0.01, 0.03, 0.02, 0.005]
    alone, among = effect(gains), effect(gains, comparisons=11)
    assert (alone.word, among.word) == ("helps", "undecided")
    assert among.low < alone.low < alone.gain < alone.high < among.high
    assert among.smallest > alone.smallest > 0
    with pytest.raises(ValueError, match="The margin is 0"):
        effect(gains, margin=0)


def test_the_words_are_wrong_as_rarely_as_they_say_and_the_smallest_effect_is_seen_as_often():
    rng, sd, n = np.random.default_rng(0), 0.02, 9
    null = [effect(rng.normal(0, sd, n), comparisons=6).word for _ in range(600)]
    assert sum(word in ("helps", "harms") for word in null) <= 600 * 0.05 / 6 + 8
    smallest = np.median([effect(rng.normal(0, sd, n), comparisons=6).smallest for _ in range(50)])
    seen = [effect(rng.normal(smallest, sd, n), comparisons=6).word == "helps" for _ in range(600)]
    assert np.mean(seen) == pytest.approx(0.8, abs=0.1)
    at_margin = [effect(rng.normal(0.02, sd, n), margin=0.02, comparisons=6).word for _ in range(600)]
    assert sum(word.startswith("no effect") for word in at_margin) <= 600 * 0.05


def rows(**scores) -> pd.DataFrame:
    lines = [
        {"arm": arm, "draw": 1111 + i, "seed": 1111 + i, "mae": mae}
        for arm, values in scores.items()
        for i, mae in enumerate(values)
    ]
    return pd.DataFrame(lines)


def test_pairs_are_of_one_seed():
    a, b = effects.pairs(rows(full=[1.0, 2.0, 3.0], off=[1.5, 2.5]), "off", "full")
    assert (b - a).tolist() == [-0.5, -0.5]
    assert effects.pairs(rows(full=[1.0]), "off", "full")[0].size == 0


def test_two_variances():
    rng = np.random.default_rng(0)
    draws = rng.normal(0, 0.03, 400)[:, None] + rng.normal(0, 0.05, (400, 3))
    lines = pd.DataFrame([{"draw": i, "mae": mae} for i, group in enumerate(draws) for mae in group])
    found = effects.variances(lines)
    assert found["training"] == pytest.approx(0.05, rel=0.1)
    assert found["draws"] == pytest.approx(0.03, rel=0.15)
    assert np.isnan(effects.variances(lines.drop_duplicates("draw"))["draws"])
    with pytest.raises(ValueError, match="expected the same number in each"):
        effects.variances(lines.iloc[1:])


def test_variances_and_kept_epochs_are_shown_by_arm():
    lines = [
        {"design": "gate", "control": "positive", "arm": arm, "draw": d, "seed": s, "mae": d + s / 10 + (arm == "off")}
        for arm in ("full", "off")
        for d in (1, 2, 3)
        for s in (1, 2)
    ]
    lines = pd.DataFrame(lines).assign(best_epoch=[3, 6] * 6, epochs=6)
    found = effects.variance_table(lines).set_index("mae of")
    assert found.loc["off minus full", ["training", "draws"]].tolist() == pytest.approx([0, 0])
    assert found.loc["full", "training"] == pytest.approx(0.1 / 2**0.5)
    assert found.loc["full", "draws"] == pytest.approx((1 - 0.005 / 2) ** 0.5)
    assert set(found["over"]) == {"3 draws, 2 seeds each"}
    assert effects.variance_table(lines[lines["seed"] == 1]).empty
    more = pd.concat(
        [lines, lines[(lines["draw"] == 1) & (lines["seed"] == 1)].assign(seed=7), lines.assign(draw=9)[:1]]
    )
    pd.testing.assert_frame_equal(effects.variance_table(more).set_index("mae of"), found)  # runs still to be made
    kept = effects.convergence(lines, cap=12).iloc[0]
    assert (kept["seeds"], kept["largest share"], kept["at the end"]) == (6, 0.5, 3)


@pytest.mark.parametrize("name", COMPARISONS)
def test_a_comparison_is_a_mechanism_removed_where_it_has_a_job(name):
    c = COMPARISONS[name]
    variants = MODELS[c.model].VARIANTS
    assert variants[c.full] != variants[c.without]
    positive, negative = (mechanisms.oracle_gain(c, control) for control in mechanisms.CONTROLS)
    assert positive.low > 0.05 or c.levels == mechanisms.SAME
    assert abs(negative.gain) < 0.005
    runs = mechanisms.runs_of([name], 2, "smoke")
    assert len(runs) == 8
    assert len({str(parameters(run)) for run in runs}) == 8
    for run in runs[:4]:
        build_model(run.model, mechanisms_data(run.data), **run.switches)


def mechanisms_data(name: str):
    from msa_lib.data import load_dataset

    return load_dataset(name)


def test_runs_come_seed_by_seed_each_once_and_draw_their_data():
    runs = mechanisms.runs_of(["guided fusion", "transformer block"], 3, "smoke")
    assert len(runs) == 3 * 2 * 3  # three arms, the full one in common
    assert [run.seed for run in runs] == sorted(run.seed for run in runs)
    assert all(f"seed={run.seed}" in run.data for run in runs)
    nested = mechanisms.runs_of(["gate"], 2, "smoke", draws=3)
    assert {(run.data.partition("seed=")[2], run.seed) for run in nested} == {
        (str(d), s) for d in (1111, 1112, 1113) for s in (1111, 1112)
    }
    assert {run.data for run in nested if "negative" in run.data} == set()
    with pytest.raises(ValueError, match="No comparison 'fusion': expected one of uncertainty weights"):
        mechanisms.runs_of(["fusion"], 1, "smoke")
    with pytest.raises(ValueError, match="No scale 'large' of these runs"):
        mechanisms.runs_of(["gate"], 1, "large")


def test_the_command_trains_resumes_and_keeps_rows(tmp_path, capsys):
    call = [
        "mechanisms",
        "gate",
        "--scale",
        "smoke",
        "--store",
        str(tmp_path / "runs"),
        "--csv",
        str(tmp_path / "x.csv"),
    ]
    assert main([*call, "--seeds", "1"]) == 0
    assert "planted (synthetic) data" in capsys.readouterr().out
    first = pd.read_csv(tmp_path / "x.csv")
    assert list(first.columns) == mechanisms.COLUMNS
    assert len(first) == 4
    assert main([*call, "--seeds", "2"]) == 0
    both = pd.read_csv(tmp_path / "x.csv")
    assert len(both) == 8
    assert set(first["run"]) < set(both["run"])
    table = effects.table(both, {"gate": COMPARISONS["gate"]}, gap_of, margin=0.02, family=1)
    assert table["seeds"].tolist() == [2, 2]
    assert table["word"].notna().all()
    assert main(["mechanisms", "gates", "--store", str(tmp_path / "runs")]) == 2
    assert "No comparison 'gates'" in capsys.readouterr().err


def test_helps_is_earned_on_both_controls():
    def lines(*gains):
        rng, parts = np.random.default_rng(0), []
        for control, gain in zip(mechanisms.CONTROLS, gains, strict=True):
            full = rng.normal(0, 0.01, 6)
            both = rows(full=full, **{"no L_amb": full + gain + rng.normal(0, 0.002, 6)})
            parts.append(both.assign(design="ambiguity", control=control, model="dsrf"))
        chosen = {name: COMPARISONS[name] for name in ("ambiguity", "gate")}
        return effects.answers(effects.table(pd.concat(parts), chosen, gap_of, margin=0.02, family=6))

    earned, same, none = lines(0.1, 0.0), lines(0.1, 0.1), lines(0.0, 0.0)
    assert lines(0.1, 0.02)[0].startswith("Ambiguity: helps; by less, too, where there is nothing to find. Gain +0.1")
    assert earned[0].startswith("Ambiguity: helps. Gain +0.1")
    assert earned[0].endswith("no effect larger than 0.02.")
    assert "not by what it is named for" in same[0]
    assert none[0].startswith("Ambiguity: no effect larger than 0.02. Gain")
    assert earned[1] == "Undecided for want of seeds: gate."


def test_intervals_of_gains_lie_along_the_axis_of_gains():
    lines = [
        {"comparison": "a", "control": control, "oracle": 0.3, "gain": 0.1, "low": 0.0, "high": 0.3}
        for control in ("positive", "negative")
    ]
    for axis in plots.gains(pd.DataFrame(lines), 0.02).axes:
        (drawn,) = axis.containers
        (bar,) = drawn.lines[2]
        (start, end) = bar.get_segments()[0]
        assert (start[0], end[0]) == pytest.approx((0.0, 0.3))
        assert start[1] == end[1]
