"""What the words can say: the rates of the words themselves, against the numbers an independent reader found."""

import numpy as np
import pandas as pd
import pytest

from papers_check import load_reported
from papers_check.judge import intervals, power
from papers_check.judge.seed_noise import load_noise
from papers_check.judge.verdicts import default_margins


@pytest.fixture(scope="module")
def words():
    return power.called(n=(5,), m=(1, 5), draws=4000).set_index(["m", "printed", "cells"])


def test_not_reproduced_is_rarely_wrong_and_rarely_said(words):
    assert words.loc[(1, "better", 1), "false_alarms"] == pytest.approx(0.031, abs=0.008)
    assert words.loc[(5, "better", 1), "false_alarms"] == pytest.approx(0.004, abs=0.004)
    for m in (1, 5):
        assert 0.04 < words.loc[(m, "better", 1), "at_2_sd"] < 0.10
        # A printed value that is too good may be the best of several: a worse one has no such excuse.
        assert words.loc[(m, "worse", 1), "at_2_sd"] > 2 * words.loc[(m, "better", 1), "at_2_sd"]
        assert words.loc[(m, "worse", 1), "called_from"] < words.loc[(m, "better", 1), "called_from"]
        assert words.loc[(m, "worse", power.TABLE), "called_from"] > words.loc[(m, "worse", 1), "called_from"]


def test_the_shift_called_in_four_of_five_cases_is_so(words):
    generator, m = np.random.default_rng(9), 1
    ours, printed = generator.standard_normal((20_000, 5)), generator.standard_normal(20_000)
    shift = words.loc[(m, "worse", 1), "called_from"]
    assert power.not_reproduced(ours, printed - shift, higher=True).mean() == pytest.approx(0.8, abs=0.02)
    assert np.isnan(power.rates_of(np.array([0.0, 0.1, 0.2, 0.7]), np.arange(4.0))[2])


def test_a_printed_value_taken_as_exact_is_called_reproduced_too_often():
    table = power.wrongly_reproduced(n=(5,), m=(1,), margins=(1.5,), draws=20_000).iloc[0]
    assert table["exact"] > 0.10
    assert table["one_run"] < 0.05


def test_in_how_many_columns_equivalence_can_pass():
    noise, reported = load_noise("seeds"), load_reported()
    table = power.reachable(noise, reported).set_index(["sd", "m"])
    assert table["columns"].unique() == [56]
    assert table.loc[("lower quartile", np.inf), ["n = 5", "never"]].tolist() == [9, 5]
    assert table.loc[("median", np.inf), "n = 5"] == 6
    assert (table["never"].unstack()[1] > table["never"].unstack()[np.inf]).all()
    seeds = power.seeds_by_column(noise, reported)
    assert np.isinf(seeds["exact"]).sum() == 5
    assert (seeds["m = 1"] >= seeds["m = 5"]).all()
    assert (seeds["m = 5"] >= seeds["exact"]).all()
    margins = default_margins(reported)
    assert len(seeds) == len(margins[margins["dataset"] != "simsv2"])


def test_choosing_the_interval_by_what_was_observed_inflates_the_error():
    table = power.pairing(correlations=(-0.5, 0.0, 0.6), gaps=(0.0,), draws=8000).set_index("correlation")
    assert table["paired"].to_numpy() == pytest.approx(0.05, abs=0.008)
    assert table.loc[-0.5, "welch"] > 0.08 > 0.02 > table.loc[0.6, "welch"]
    assert (table.loc[[-0.5, 0.0], ["chosen", "narrower"]] > 0.058).all(axis=None)
    kept = load_noise("pairing").set_index(["correlation", "gap"])
    for correlation, line in table.iterrows():
        assert kept.loc[(correlation, 0.0), "paired"] == pytest.approx(line["paired"], abs=0.01)


def test_correlation_over_seeds_is_found_where_it_is():
    generator, lines = np.random.default_rng(5), []
    shared = generator.standard_normal(5)
    for model, values in (("a", shared), ("b", shared + 1), ("c", generator.standard_normal(5))):
        lines += [
            {"kind": "seeded", "dataset": "mosi", "model": model, "train_mode": "regression", "config": model,
             "metric": "mae", "seed": seed, "value": value}
            for seed, value in zip(range(1111, 1116), values, strict=True)
        ]  # fmt: skip
    frame = pd.DataFrame(lines)
    (line,) = power.seed_correlations(frame[frame["model"] != "c"]).to_dict("records")
    assert (line["pairs"], line["mean"]) == pytest.approx((1, 1.0))
    assert power.seed_correlations(frame)["pairs"].tolist() == [3]
    assert intervals.POWER == 0.8
