"""Which rows of the tables of components are trained until they converge, what each is compared with, what is said."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from msa_lib.cli import main
from msa_lib.data import load_dataset
from msa_lib.models import build_model
from msa_lib.study import components, effects, mechanisms
from msa_lib.study.components import GROUPS
from msa_lib.study.pages import PAGES, REFERENCE_ROWS
from papers_check.judge.intervals import gap_of

ELSEWHERE = {"mean readout", "head argmax", "head gauss", "head point"}  # no component, no equation: in the multiverse


def test_every_row_of_the_two_tables_is_in_one_group():
    pages = {group.page for group in GROUPS.values()}
    assert pages == {"amsgfn_table6_components", "dsrf_table3_ablation"}
    for page in pages:
        labels = [label for group in GROUPS.values() if group.page == page for label in group.rows]
        assert len(labels) == len(set(labels))
        rows = {**PAGES[page].rows, **PAGES[page].detail}
        assert set(rows) - set(labels) - set(REFERENCE_ROWS) - ELSEWHERE == {"full"}


@pytest.mark.parametrize("name", GROUPS)
def test_each_row_is_another_network_or_training_than_what_it_is_compared_with(name):
    group = GROUPS[name]
    for label, other in group.rows.items():
        (model, own), (same, base) = group.settings(label), group.settings(other)
        assert model == same
        assert dict(own) != dict(base)
    data = {}
    for run in components.runs_of([name], 1, "smoke"):
        data[run.data] = data.get(run.data) or load_dataset(run.data)
        build_model(run.model, data[run.data], **run.switches)
    assert len(data) == 1


def test_runs_come_seed_by_seed_each_once_on_data_of_their_seed():
    runs = components.runs_of(components.NAMES, 2, "full")
    assert [run.seed for run in runs] == sorted(run.seed for run in runs)
    assert len({repr(run) for run in runs}) == len(runs) == 2 * (2 + sum(len(group.rows) for group in GROUPS.values()))
    assert all(run.data.endswith(f"train=1284&valid=229&test=686&seed={run.seed}") for run in runs)
    places = [(run.seed, run.data) for run in runs]
    assert len(dict.fromkeys(places)) == 1 + sum(a != b for a, b in pairwise(places))  # drawn once
    (adam,) = {tuple(run.train.items()) for run in runs if run.label == "Adam with L2"}
    assert dict(adam) == mechanisms.TRAIN["full"] | {"optimiser": "adam"}
    nested = components.runs_of(["AMSGFN, readings"], 2, "smoke", draws=3)
    assert len(nested) == 3 * 2 * 3
    assert len({run.data for run in nested}) == 3
    with pytest.raises(ValueError, match="No group of rows 'AMSGFN': expected one of AMSGFN, components; DSRF"):
        components.runs_of(["AMSGFN"], 1, "smoke")


def made_up(seeds: int = 8) -> pd.DataFrame:
    """Rows of the group of AMSGFN's components: one clearly worse, one better, one the same, one anything."""
    rng = np.random.default_rng(0)
    full = rng.normal(0.3, 0.05, seeds)
    gaps = {"w/o TB": 0.1, "w/o Cor": -0.1, "w/o CCAM": 0.0}
    scores = {"full": full} | {arm: full + gap + rng.normal(0, 0.004, seeds) for arm, gap in gaps.items()}
    scores["w/o DMGF"] = full + rng.normal(0, 0.3, seeds)
    lines = [
        {"data": "planted-mosei", "model": "amsgfn", "arm": arm, "draw": s, "seed": s, "mae": mae, "best_epoch": 15 + s}
        for arm, values in scores.items()
        for s, mae in enumerate(values)
    ]
    return pd.DataFrame(lines).assign(epochs=60)


def test_the_word_of_a_row_and_the_answer_of_its_group():
    found = components.table(made_up(), gap_of, margin=0.02)
    lines = found[found["group"] == "AMSGFN, components"].set_index("row")
    words = lines["word"].dropna().to_dict()
    assert words == {
        "w/o TB": "worse", "w/o Cor": "better", "w/o CCAM": "no effect larger than 0.02", "w/o DMGF": "undecided"
    }  # fmt: skip
    assert lines.loc["w/o TB", ["seeds", "largest share"]].tolist() == [8, pytest.approx(22 / 60)]
    assert lines.loc["t-oriented", "seeds"] == 0
    theirs, base = effects.pairs(made_up(), "w/o TB", "full")
    alone = effects.judged(gap_of(theirs, base, paired=True), 0.02, comparisons=9)
    assert lines.loc["w/o TB", ["gain", "low", "high"]].tolist() == pytest.approx([alone.gain, alone.low, alone.high])
    first, second, *_ = components.answers(found)
    assert first.startswith("AMSGFN, components (8 seeds and draws, smallest visible ")
    assert f"worse: w/o TB {alone.gain:+.3f} ({alone.low:+.3f} to {alone.high:+.3f}); better: w/o Cor -0.0" in first
    assert first.endswith("); no effect larger than 0.02: w/o CCAM; undecided: w/o DMGF.")
    assert second == "DSRF, components: undecided for want of seeds."


def test_the_margin_of_the_notebooks_is_the_one_set_before_any_run():
    from msa_lib.notebooks import declared_parameters
    from msa_lib.study import NOTEBOOKS

    for page in ("components", "planted_truth"):
        assert declared_parameters(NOTEBOOKS / f"{page}.ipynb")["margin"] == effects.MARGIN
    gains = [mechanisms.oracle_gain(c, "positive").gain for c in mechanisms.COMPARISONS.values()]
    assert min(gain for gain in gains if gain > 0.01) > 3 * effects.MARGIN


def test_the_committed_rows_are_of_these_groups_and_say_which_runs_they_are():
    rows = pd.read_csv(components.ROWS)
    assert list(rows) == components.COLUMNS
    assert not rows.duplicated(["data", "arm", "draw", "seed"]).any()
    known = {(group.data, label) for group in GROUPS.values() for label in (*group.rows, *group.rows.values())}
    assert set(zip(rows["data"], rows["arm"], strict=True)) <= known
    assert (rows["best_epoch"] < mechanisms.TRAIN["full"]["epochs"]).mean() > 0.95


def test_the_command_trains_a_group_and_keeps_its_rows_apart_from_others(tmp_path, capsys):
    path = tmp_path / "x.csv"
    call = ["mechanisms", "--components", "AMSGFN, readings", "--scale", "smoke", "--store", str(tmp_path / "runs")]
    assert main([*call, "--seeds", "1", "--csv", str(path)]) == 0
    assert "planted (synthetic) data" in capsys.readouterr().out
    rows = pd.read_csv(path)
    assert list(rows) == components.COLUMNS
    assert set(rows["arm"]) == {"full", "shared space downstream", "w/o CCAM, downstream"}
    assert main([*call, "--draws", "2", "--seeds", "2", "--csv", str(path)]) == 0
    apart = components.variance_table(pd.read_csv(path))
    assert apart.loc[apart["mae of"] == "w/o CCAM, downstream minus full", ["training", "draws"]].notna().all(axis=None)
    with pytest.raises(ValueError, match=r"x\.csv has the columns data, model, arm.*; expected design, control"):
        mechanisms.kept(pd.DataFrame(columns=mechanisms.COLUMNS), path)
