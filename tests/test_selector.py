"""Which runs say what AMSGFN's selector learns, what is read off their outputs, and what is said of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from msa_lib.cli import main
from msa_lib.data import load_dataset
from msa_lib.models import build_model
from msa_lib.notebooks import execute
from msa_lib.study import NOTEBOOKS, mechanisms, selector, selector_plots
from msa_lib.study.selector import QUESTIONS, RULES
from papers_check.judge.intervals import gap_of


def test_runs_come_seed_by_seed_and_share_the_data_of_a_level():
    runs = selector.runs_of(selector.NAMES, 2, "smoke")
    assert [run.seed for run in runs] == sorted(run.seed for run in runs)
    levels = {name: len(selector._levels(question)) for name, question in QUESTIONS.items()}
    assert levels == {"rules": 2, "training": 6, "shares": 3, "conflict": 3, "gate": 2}
    assert (
        len(runs)
        == len({(run.label, run.seed) for run in runs})
        == 2 * sum(levels[name] * len(question.arms) for name, question in QUESTIONS.items())
    )
    data = {}
    for run in (run for run in runs if run.seed == 1111):
        question, level, _ = run.label.split(": ")
        assert data.setdefault((question, level), run.data) == run.data
    assert len(set(data.values())) == 2 + 2 + 2 + 2  # cues, shares, conflicts, gates beside the ordinary data
    for name in dict.fromkeys(data.values()):
        load_dataset(name.replace("=run", "=1"))
    for run in runs[: len(RULES)]:
        build_model(run.model, load_dataset(run.data.replace("=run", "=1")), **run.switches)
    with pytest.raises(ValueError, match="No question 'rule': expected one of rules; training"):
        selector.runs_of(["rule"], 1, "smoke")
    with pytest.raises(ValueError, match="expected no --draws"):
        selector.runs_of(["rules"], 1, "smoke", 3)


def test_training_is_stopped_at_its_level_and_the_others_when_they_have_converged():
    epochs = {run.label.split(": ")[1]: dict(run.train) for run in selector.runs_of(["training"], 1, "full")}
    assert [train["epochs"] for train in epochs.values()] == list(selector.EPOCHS)
    assert {train["selection"] for train in epochs.values()} == {"last"}
    assert {repr(run.train) for run in selector.runs_of(["rules"], 1, "full")} == {repr(mechanisms.TRAIN["full"])}


def outputs(dominant, scored=None, gate=None):
    s = np.full((len(dominant), 3), 0.1)
    s[np.arange(len(dominant)), dominant if scored is None else scored] = 0.8
    found = {"contribution": s, "dominant": np.array(dominant)}
    return found if gate is None else found | {"gate": np.array(gate)[:, None]}


def test_what_is_seen_of_a_choice():
    truth = {"dominant": np.array([0, 0, 1, 2])}
    right = selector.seen(outputs([0, 0, 1, 2]), truth)
    assert {name: right[name] for name in ("named", "scored", "majority")} == {"named": 1, "scored": 1, "majority": 0.5}
    assert right["information"] == pytest.approx(1)
    assert right["doubt"] == pytest.approx(-(0.8 * np.log(0.8) + 0.2 * np.log(0.1)))
    always = selector.seen(outputs([0, 0, 0, 0]), truth)
    assert (always["named"], always["information"]) == (0.5, pytest.approx(0))
    fixed = selector.seen(outputs([0, 0, 0, 0], scored=[0, 0, 1, 2]), truth)
    assert (fixed["named"], fixed["scored"]) == (0.5, 1)
    turned = selector.seen(outputs([1, 1, 2, 0]), truth)  # always wrong, and yet it tells everything
    assert (turned["named"], turned["information"]) == (0, pytest.approx(1))


def test_what_is_seen_of_a_gate():
    truth = {"dominant": np.zeros(4, int), "match": np.array([True, True, False, False])}
    found = selector.seen(outputs([0] * 4, gate=[0.9, 0.5, 0.6, 0.1]), truth)
    assert "named" not in found  # one dominant modality: nothing to name
    assert (found["opening"], found["opening on decoys"]) == (pytest.approx(0.7), pytest.approx(0.35))
    assert found["auc"] == 0.75
    never = selector.seen(outputs([0] * 4, gate=[0.9, 0.5, 0.6, 0.1]), truth | {"match": np.ones(4, bool)})
    assert set(never) == {"doubt", "opening"}


def made_up(seeds: int = 6) -> pd.DataFrame:
    """Rows in which choosing pays only where nothing is weighed, and alignment harms under much conflict."""
    rng, lines = np.random.default_rng(0), []
    worth = {"always text, s = 1": 0.2, "straight-through, s = 1": 0.1}
    for run in selector.runs_of(selector.NAMES, seeds, "smoke"):
        question, level, arm = run.label.split(": ")
        mae = 0.3 + worth.get(arm, 0) + 0.1 * ((level, arm) == ("conflict in 0.5", "hard"))
        line = {"question": question, "level": level, "arm": arm, "draw": run.seed, "seed": run.seed}
        line |= {"mae": mae + rng.normal(0, 0.002), "named": 0.9, "majority": 0.6}
        line |= {"opening": 0.6, "opening on decoys": 0.5, "auc": 0.8} if question == "gate" else {}
        lines.append(line)
    return pd.DataFrame(lines, columns=selector.COLUMNS)


def test_the_answers_follow_the_rows():
    rows = made_up()
    said = selector.answers(rows, gap_of, 0.02)
    assert said[0] == (
        "Cue visible, the selector names the planted dominant modality in 0.900 of the samples; always the most "
        "frequent one: 0.600."
    )
    told = dict(sentence.split(": ", 1) for sentence in said[2:-1])
    assert told["Choosing, against always text"].count("no effect larger than 0.02") == 2
    assert told["Choosing, by how often text dominates"].count("no effect larger than 0.02") == 3
    assert told["A trained choice where nothing is weighed (s = 1)"].count("helps") == 2
    assert told["The planted choice there"].startswith("cue visible +0.20")
    assert told["Alignment"].count("no effect larger than 0.02") == 2
    assert told["Alignment"].endswith("harms.")
    assert said[-1].endswith("by 0.500 where they mislead (AUC 0.80).")
    assert selector.answers(rows[rows["question"] == "shares"], gap_of, 0.02)[0].startswith("Choosing")
    one = made_up(1)
    assert len(selector.answers(one, gap_of, 0.02)) == 3  # what is named, and the gate; no interval of one pair


def test_rows_come_in_the_order_of_the_questions():
    rows = made_up(2)
    mixed = selector.in_order(rows.sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(mixed, selector.in_order(rows))
    assert list(mixed["arm"].unique()[: len(RULES)]) == list(RULES)
    assert list(mixed.query("question == 'training'")["level"].unique()) == [f"epoch {k}" for k in selector.EPOCHS]


def test_figures_show_every_arm():
    rows = made_up(2)
    figure = selector_plots.over_training(rows[rows["question"] == "training"])
    shown = {text.get_text() for text in figure.legends[0].get_texts()}
    assert shown == {*selector.LEARNED, "always the most frequent one", "chance"}
    second = selector_plots.by_level(rows[rows["question"] == "shares"], "share")
    assert [round(tick, 2) for tick in second.axes[0].get_xticks()] == [0.34, 0.6, 0.9]


def test_one_command_and_a_page_that_shows_its_rows(tmp_path, capsys):
    command = ["mechanisms", "gate", "--selector", "--scale", "smoke", "--seeds", "1"]
    assert main([*command, "--store", str(tmp_path / "runs"), "--csv", str(tmp_path / "rows.csv")]) == 0
    assert "positive" in capsys.readouterr().out
    kept = pd.read_csv(tmp_path / "rows.csv")
    assert list(kept) == selector.COLUMNS
    assert kept["auc"].notna().tolist() == [False, True]  # negative, positive
    asked = {"questions": "gate", "seeds": 1, "store": str(tmp_path / "runs")}
    content = execute(NOTEBOOKS / "selector.ipynb", tmp_path / "out.ipynb", asked)
    assert content["answers"] == [f"The gate is open by {kept.loc[1, 'opening']:.3f} where auxiliaries tell something "
                                  f"and by {kept.loc[1, 'opening on decoys']:.3f} where they mislead "
                                  f"(AUC {kept.loc[1, 'auc']:.2f})."]  # fmt: skip


def test_the_committed_rows_are_those_of_the_questions():
    rows = pd.read_csv(selector.ROWS)
    asked = {tuple(run.label.split(": ")) for run in selector.runs_of(selector.NAMES, 1, "full")}
    assert set(zip(rows["question"], rows["level"], rows["arm"], strict=True)) <= asked
    assert not rows.duplicated([*selector.WHICH, "draw", "seed"]).any()
