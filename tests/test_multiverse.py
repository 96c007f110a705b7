"""Universes: what is drawn, that the networks can be built, and the arithmetic of what hangs on which switch."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from msa_lib.data import load_dataset
from msa_lib.models import MODELS, build_model
from msa_lib.study import multiverse
from msa_lib.study.multiverse import REMOVED, alternatives, at_random, labelled, moves, one_at_a_time, shares, survival


@pytest.mark.parametrize("model", multiverse.ORDERS)
def test_alternatives_are_open_choices_without_their_default(model):
    found, default = alternatives(model), MODELS[model].Config()
    assert len(found) > 15
    assert not set(found) & {"d", "heads", "n_layers", "bert", "modalities", "missing", "absent"}
    assert all(
        getattr(default, name) not in values and len(set(values)) == len(values) for name, values in found.items()
    )


@pytest.mark.parametrize("model", multiverse.ORDERS)
def test_no_reading_takes_a_part_away_that_the_ablations_take_away(model):
    found, removed = alternatives(model), [MODELS[model].VARIANTS[row] for row in multiverse.ORDERS[model]]
    assert all(len(variant) == 1 for variant in removed)
    assert not [(name, value) for variant in removed for name, value in variant.items() if value in found.get(name, ())]
    for switches in at_random(model, 12).values():
        whole, *parts = (MODELS[model].Config(**switches | variant) for variant in ({}, *removed))
        assert whole not in parts


def test_a_number_is_halved_and_doubled_and_nothing_stays_nothing():
    found = alternatives("dsrf")
    assert found["K"] == (2, 8)
    assert found["margin"] == (0.5, 2.0)
    assert "d_c" not in found
    assert found["norm_sum"] == (True,)


@pytest.mark.parametrize("model", multiverse.ORDERS)
def test_every_universe_can_be_built_with_and_without_each_part(model):
    data = load_dataset("planted?train=16&valid=8&test=8")
    drawn = at_random(model, 3)
    assert drawn == dict(list(at_random(model, 5).items())[:3])
    assert drawn != at_random(model, 3, seed=1)
    rows = labelled(model, drawn, multiverse.ORDERS[model])
    assert len(rows) == 3 * (1 + len(multiverse.ORDERS[model]))
    for name, switches in rows.values():
        build_model(name, data, **(MODELS[name].SMALL | switches))


def test_universes_that_contradict_themselves_are_drawn_again():
    assert "recon_factors" in alternatives("dsrf")["fuse_input"]
    drawn = at_random("dsrf", 200).values()
    assert {switches["fuse"] for switches in drawn} == {"concat", "attention", "transformer"}
    assert "recon_factors" not in {switches["fuse_input"] for switches in drawn}  # nothing to put in without routing
    assert {switches["K"] for switches in drawn} == {2, 4, 8}


def drawn(count: int, rng: np.random.Generator) -> tuple[dict, dict]:
    """Two switches of which the first adds 1 to noise of deviation 0.5."""
    a, b = rng.integers(2, size=count), rng.integers(3, size=count)
    y = a + 0.5 * rng.normal(size=count)
    settings = {f"u{i}": {"a": bool(a[i]), "b": "xyz"[b[i]]} for i in range(count)}
    return settings, {f"u{i}": float(y[i]) for i in range(count)}


def test_the_share_of_a_switch_is_that_of_the_variance_it_makes():
    """0.25 of 0.25 + 0.25 for the first, in the mean nothing for the second, however few universes there are."""
    rng, first, second, low = np.random.default_rng(0), [], [], 0
    for _ in range(300):
        found = shares(*drawn(30, rng)).set_index("switch")
        first.append(found.loc["a", "share"])
        second.append(found.loc["b", "share"])
        low += found.loc["b", "p"] < 0.05
    assert np.mean(first) == pytest.approx(0.5, abs=0.03)
    assert np.mean(second) == pytest.approx(0.0, abs=0.015)
    assert 4 <= low <= 28


def test_shares_come_largest_first_with_p_after_holm():
    found = shares(*drawn(40, np.random.default_rng(3)))
    assert list(found["switch"]) == ["a", "b"]
    assert found.loc[0, "p_holm"] == pytest.approx(2 * found.loc[0, "p"])
    assert found.loc[1, "p_holm"] == pytest.approx(max(found.loc[1, "p"], 2 * found.loc[0, "p"]))


def test_a_switch_without_two_values_twice_says_nothing():
    settings = {f"u{i}": {"a": i, "b": i % 2} for i in range(6)}
    assert list(shares(settings, {name: float(i) for i, name in enumerate(settings)})["switch"]) == ["b"]


def test_survival_counts_universes_that_have_both():
    won, of, low, high = survival({"u1": 1.0, "u2": 1.0, "u3": 1.0, "u4": 0.0}, {"u1": 2.0, "u2": 0.5, "u3": 2.0})
    assert (won, of) == (2, 3)
    assert (low, high) == (pytest.approx(0.2077, abs=1e-4), pytest.approx(0.9385, abs=1e-4))  # Wilson, by hand
    assert survival({}, {})[:2] == (0, 0)


@pytest.mark.parametrize("model", REMOVED)
def test_each_choice_is_read_otherwise_alone_and_can_be_built(model):
    found, every = one_at_a_time(model), alternatives(model)
    assert next(iter(found.items())) == ("default", {})
    named = {f"{name}={value}" for name, values in every.items() for value in values}
    assert named - set(found) <= {"fuse_input=recon_factors"}  # nothing to put in without routing
    assert all(len(switches) == 1 for label, switches in found.items() if label != "default")
    few = one_at_a_time(model, 3)
    assert {label.partition("=")[0] for label in few} - {"default"} == set(list(every)[:: len(every) // 3][:3])
    data = load_dataset("planted?train=16&valid=8&test=8")
    for name, switches in labelled(model, few, (REMOVED[model],)).values():
        build_model(name, data, **(MODELS[name].SMALL | switches))


def test_moves_are_from_the_default_seed_by_seed_and_of_the_gap_as_well():
    seeds, part = range(5), REMOVED["dsrf"]
    full = {"default": 1.0, "a=1": 1.2, "b=1": 0.5}
    without = {"default": 1.1, "a=1": 1.25, "b=1": 0.9}
    values = {f"dsrf {c}: full": [v + 0.1 * s for s in seeds] for c, v in full.items()}
    values |= {f"dsrf {c}: {part}": [v + 0.1 * s for s in seeds] for c, v in without.items()}
    values["dsrf a=1: full"][4] += 0.5
    table = moves(pd.DataFrame(values, index=pd.Index(seeds, name="seed")), "dsrf", list(full))
    assert table["choice"].tolist() == ["b=1", "a=1"]
    b, a = table.loc[0], table.loc[1]
    assert (b["move"], b["gap"], b["gap_move"]) == pytest.approx((-0.5, 0.4, 0.3))
    assert (b["low"], b["high"]) == pytest.approx((-0.5, -0.5))
    assert (a["move"], a["gap_move"]) == pytest.approx((0.3, -0.05 - 0.1))
    reach = 2.776445 * np.std([0, 0, 0, 0, 0.5], ddof=1) / np.sqrt(5)
    assert (a["low"], a["high"]) == pytest.approx((0.3 - reach, 0.3 + reach))
    one = moves(pd.DataFrame(values, index=pd.Index(seeds, name="seed")).head(4), "dsrf", list(full))
    assert one["low"].isna().all()  # four seeds decide nothing
