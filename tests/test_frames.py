"""Tables for notebooks, the leads and answers made from them, and what is done with baselines that are not whole."""

import numpy as np
import pandas as pd
import pytest

from papers_check.judge import relations, verdicts
from papers_check.judge.judged_tables import WITHHELD, assemble, judge_table, pages_from, verdict_counts
from papers_check.judge.leads import concordance, leads, rank_agreement
from papers_check.show import answers
from papers_check.show.frames import SHADES, frame, judged_frame

SEEDS = range(1111, 1117)


def table(fidelity: str = "specified", synthetic: bool = True, tfn: float = 0.9) -> dict:
    """AMSGFN's Table 2 with six runs of the paper's own row and of one baseline."""
    rng, lines = np.random.default_rng(0), []
    for label, model, centre in (("full", "amsgfn", 0.6), ("tfn", "tfn", tfn), ("ours only", "amsgfn", 0.7)):
        for seed in SEEDS:
            lines.append({"label": label, "model": model, "seed": seed, "split": "test", "metric": "mae",
                          "value": centre + 0.01 * rng.normal(), "status": "done", "synthetic": synthetic,
                          "selection": "val_mae", "dataset": "d", "reason": ""})  # fmt: skip
    return {"paper": "amsgfn", "table": 2, "data": {"mosi": ("d", synthetic, 400)}, "rows": pd.DataFrame(lines),
            "ours": ["full", "tfn"], "readings": {}, "conditions": {}, "fidelity": {"tfn": fidelity}}  # fmt: skip


def cell_of(judged, row: str) -> dict:
    (line,) = judged.cells.query("row == @row and metric == 'mae'").to_dict("records")
    return line


@pytest.mark.parametrize("synthetic", [True, False])
def test_a_partial_baseline_is_shown_and_never_judged(synthetic: bool):
    judged = judge_table(table("partial", synthetic))
    line = cell_of(judged, "TFN")
    assert (line["n"], line["verdict"], line["reason"]) == (6, verdicts.NOT_ATTEMPTED, WITHHELD)
    assert line["mean"] == pytest.approx(0.9, abs=0.02)
    assert np.isnan(line["pi_1_low"])
    compared = judged.relations.query("metric == 'mae' and worse == 'TFN'")
    assert compared["verdict"].tolist() == [verdicts.NOT_ATTEMPTED]
    assert compared["reason"].tolist() == [WITHHELD]
    shown = judged_frame(judged, "mosi")
    assert "TFN°°" in shown.html
    assert "0.90" in shown.html
    assert "holds" not in shown.text


@pytest.mark.parametrize(("fidelity", "mark"), [("specified", ""), ("completed", "°")])
def test_other_baselines_are_judged_and_marked(fidelity: str, mark: str):
    judged = judge_table(table(fidelity))
    assert judged.relations.query("metric == 'mae' and worse == 'TFN'")["verdict"].tolist() == [relations.HOLDS]
    line = next(line for line in judged_frame(judged, "mosi").text.splitlines() if line.startswith("TFN"))
    assert line.split()[0] == f"TFN{mark}"


def test_one_table_is_judged_as_among_all():
    one, every = judge_table(table()), assemble(pages_from([table()]))
    same = every.cells.query("paper == 'amsgfn' and table == '2'").reset_index(drop=True)
    pd.testing.assert_frame_equal(one.cells.drop(columns="p_1_bh"), same.drop(columns="p_1_bh"), check_dtype=False)
    assert "not attempted" in verdict_counts(one.cells)


def mae_line(text: str, row: str) -> str:
    return next(line for line in text.splitlines() if line.split()[:2] == [row, "MAE"])


def test_a_cell_says_printed_ours_interval_verdict():
    text = judged_frame(judge_table(table()), "mosi", "caption").text
    line = mae_line(text, "TFN")
    assert line.split()[2:5:2] == ["0.901", "±"]
    assert "+0." in line  # the lead of the own row
    assert line.endswith("holds")
    own = mae_line(text, "Our")
    assert own.endswith("–")  # its number is on synthetic data, and it leads itself by nothing
    assert "Without runs: LMF" in text
    assert "ours only" in text
    real = judged_frame(judge_table(table(synthetic=False, tfn=0.5)), "mosi").text
    assert mae_line(real, "TFN").endswith(verdicts.NOT_REPRODUCED)


def test_shades_follow_the_words_and_no_text_is_markup():
    holds = judged_frame(judge_table(table()), "mosi").html
    reversed_ = judged_frame(judge_table(table(tfn=0.3)), "mosi").html
    assert SHADES["for"] in holds
    assert SHADES["against"] not in holds
    assert SHADES["against"] in reversed_
    shown = frame(pd.DataFrame({"<b>": ["<script>alert(1)</script>", "a & b"]}), "<i>")
    for text in ("<script>", "<b>", "<i>", "a & b"):
        assert text not in shown.html
    assert "<script>" in shown.text


def test_the_same_table_is_the_same_text():
    first, second = (judged_frame(judge_table(table()), "mosi") for _ in range(2))
    assert (first.html, first.text) == (second.html, second.text)
    assert max(map(len, first.text.splitlines())) < 200


def values(**means: float) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame({name: mean + 0.01 * rng.normal(size=6) for name, mean in means.items()}, index=SEEDS)


def test_leads_are_ahead_behind_or_undecided():
    scores = values(full=0.5, worse=0.6, better=0.4, same=0.5)
    found = leads(scores, "full", ["worse"], {"ridge": 0.7}).set_index("row")
    assert found["says"].to_dict() == {"worse": "ahead", "better": "behind", "same": "undecided", "ridge": "ahead"}
    assert found["how"].tolist() == ["paired", "Welch", "Welch", "fixed value"]
    gaps = scores["worse"] - scores["full"]
    reach = 2.5705818 * gaps.std(ddof=1) / np.sqrt(6)  # t of 5 degrees of freedom
    assert found.loc["worse", ["lead", "low", "high"]].tolist() == pytest.approx(
        [gaps.mean(), gaps.mean() - reach, gaps.mean() + reach]
    )
    other = leads(scores, "full", ["worse"], higher=True).set_index("row")["lead"]
    assert other.to_list() == pytest.approx((-found["lead"].drop("ridge")).to_list())
    few = leads(scores.iloc[:4], "full")
    assert set(few["says"]) == {"undecided"}


def test_order_and_concordance():
    scores = values(a=0.1, b=0.2, c=0.3, d=0.4)
    assert rank_agreement(scores, scores + 1)[0] == 1.0
    tau, low, high = rank_agreement(values(a=0.4, b=0.3, c=0.2, d=0.1), scores.iloc[:1])
    assert (tau, low, high) == (-1.0, -1.0, -1.0)
    assert np.isnan(rank_agreement(scores.iloc[:1], scores.iloc[:1])[1])
    alone = scores.copy()
    alone.iloc[1:, 0] = np.nan  # one seed of one row: no spread, no interval
    assert rank_agreement(alone, scores.iloc[:1])[0] == 1.0
    assert np.isnan(rank_agreement(alone, scores.iloc[:1])[1:]).all()
    assert np.isnan(concordance({"x": alone, "y": alone})[1:]).all()
    assert concordance({"x": scores, "y": scores * 2})[0] == 1.0
    assert concordance({"x": scores, "y": -scores})[0] == 0.0


def test_answers_count_and_say_when_seeds_are_few():
    scores = values(full=0.5, worse=0.6, same=0.5)
    found = leads(scores, "full", ["worse", "same"], {"ridge": 0.45})
    said = answers.answer_of_leads("X", "MAE", "here", found, ["ridge"])
    assert said.startswith("X in MAE here: clearly ahead of worse; clearly behind ridge; undecided against same. Lead")
    assert "ridge -0.0" in said
    assert "nothing is" not in said
    scores.loc[scores.index[1:], "same"] = np.nan
    said = answers.answer_of_leads("X", "MAE", "here", leads(scores, "full"))
    assert said == "X in MAE here: clearly ahead of worse. For want of 5 seeds nothing is said of same."
    said = answers.answer_of_leads("X", "MAE", "here", leads(scores.iloc[:1], "full"))
    assert said == "X in MAE here: no row has seeds enough. With 1 seed nothing is decided: 5 are needed."
    assert answers.few([3, 10]) == " With 3 seeds nothing is decided: 5 are needed."
    assert answers.number(0.5, np.nan, np.nan) == "+0.500"
    assert answers.listed([]) == "none"
