"""Every figure: drawn from the real numbers and from a tiny case made by hand, with the marks that matter on it."""

import io

import matplotlib
import numpy as np
import pandas as pd
import papers_text
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from PIL import Image

from papers_check.checks import audit, checklist, score_limits
from papers_check.checks import label_counts as labels
from papers_check.judge import calibration
from papers_check.judge.seed_noise import claimed_gains, load_noise
from papers_check.printed.papers import ABLATIONS, TITLES
from papers_check.printed.rows import Row, rows
from papers_check.show import picture_data, picture_data_facts, pictures, pictures_facts, pictures_noise

PRINTED = rows()


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def texts(figure) -> list[str]:
    """Every text drawn, tick labels included; drawing also shows that nothing warns."""
    figure.canvas.draw()
    return [part.get_text() for part in figure.findobj(matplotlib.text.Text) if part.get_text()]


def marks(axis, marker: str) -> list[tuple[float, float]]:
    """The points that an axis shows with a marker."""
    lines = [line for line in axis.get_lines() if line.get_marker() == marker and line.get_linestyle() == "None"]
    return [(float(x), float(y)) for line in lines for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]


def row(paper, table, dataset, name, **cells) -> Row:
    """A printed row; `acc2_has0="80.00"` is the cell (acc2, has0)."""
    keys = {key: (key.partition("_")[0], key.partition("_")[2]) for key in cells}
    return Row(paper, table, dataset, name, "", {keys[key]: text for key, text in cells.items()})


# --- the audit --------------------------------------------------------------------------------------------------------


def test_overview():
    found = [item for item in audit.run_checks()[0] if item.severity == "high"]
    table = picture_data.overview(found)
    assert table.loc["claims without experiment"].tolist() == [2, 0, 0, 0]
    assert list(table.index) == ["claims without experiment"]
    assert "2 findings, 2 of them high" in texts(pictures.overview(table))
    real = picture_data.overview(audit.run_checks()[0])
    assert {"numbers", "open choices", "high", "note"} <= set(texts(pictures.overview(real)))


def test_readable_keeps_every_word_and_the_width():
    found = [item for item in audit.run_checks()[0] if item.severity == "high"]
    text = picture_data.readable(found, 90)
    assert max(map(len, text.splitlines())) <= 90
    for item in found:
        assert "".join(item.explanation.split()) in "".join(text.split())


def test_allowed_runs_agree_with_the_findings():
    table = picture_data.runs_allowed(PRINTED)
    for paper, part in table[table["cell"] == "all of them"].groupby("paper"):
        own = [row for row in PRINTED if row.paper == paper and row.own and (paper, row.table) not in ABLATIONS]
        said = next(item for item in score_limits.runs_of(own) if item).computed
        fits = {state: list(part.loc[part["state"] == state, "m"]) for state in picture_data.STATES}
        assert fits["possible"] == []
        assert f"none (rounded); none (cut off); {', '.join(map(str, fits[picture_data.STATES[1]]))} (runs" in said
    figure = pictures.allowed_runs(table)
    words = texts(figure)
    assert any("AMSGFN none (9, 10 if runs were rounded); DSRF none (7, 9, 10 if" in text for text in words)
    assert "CMU-MOSI Acc-2 (right) 86.27 of 656" in words


def test_allowed_runs_of_a_single_run():
    # 573/686 = 83.528, 548/656 = 83.537: one run gives both; 83.55 no single run on 686 clips.
    fine = row("amsgfn", "2", "mosi", "Our", acc2_has0="83.53", acc2_non0="83.54")
    table = picture_data.runs_allowed([fine])
    assert set(table.loc[(table["m"] == 1), "state"]) == {"possible"}
    assert "\nAMSGFN 1" in texts(pictures.allowed_runs(table))[-1] or any(
        "AMSGFN 1, " in text for text in texts(pictures.allowed_runs(table))
    )
    odd = picture_data.runs_allowed([row("amsgfn", "2", "mosi", "Our", acc2_has0="83.55")])
    assert set(odd.loc[odd["m"] == 1, "state"]) == {"excluded"}


def test_f1_pairs_and_the_line():
    pairs = picture_data.f1_pairs(PRINTED)
    assert not pairs.duplicated(["paper", "table", "dataset", "side", "row"]).any()
    flagged = {item.where for item in score_limits.findings() if "-f1-above-accuracy-" in item.id}
    assert len(pairs.loc[pairs["above"], ["paper", "table", "dataset", "row"]].drop_duplicates()) == len(flagged)
    # What the picture shows, the bar wholly above the line, is what the exact check finds.
    above = pairs["f1"] - pairs["acc"] - pairs["half"] > pairs["most"] - pairs["acc"]
    assert (above == pairs["above"]).all()
    figure = pictures.f1_bound(pairs, picture_data.f1_limit)
    odd = pairs[pairs["above"]]
    names = {f"{TITLES[p]} {t}: {r}" for p, t, r in odd[["paper", "table", "row"]].to_numpy()}
    assert names <= set(texts(figure))
    assert sum(len(marks(axis, "^")) for axis in figure.axes) == len(odd)
    assert sum(len(marks(axis, "o")) for axis in figure.axes) == len(pairs[pairs["acc"] >= 70]) - len(odd)
    assert any(text.startswith("Mult -3.00") for text in texts(figure))


def test_f1_of_one_pair():
    found = [row("dsrf", "1", "mosi", "A", acc2_has0="84.02", f1_has0="84.25")]
    pairs = picture_data.f1_pairs(found)
    assert pairs["above"].tolist() == [True]
    assert "DSRF 1: A" in texts(pictures.f1_bound(pairs, picture_data.f1_limit))
    low = pairs.assign(acc=60.0)
    assert any("1 pairs below 70 % not shown" in text for text in texts(pictures.f1_bound(low, picture_data.f1_limit)))


def test_mae_against_corr():
    constant = labels.best_constant_mae("mosei")
    table = picture_data.mae_and_corr(PRINTED, "mosei")
    odd = {(paper, name) for paper, name in table.loc[table["odd"], ["paper", "row"]].to_numpy()}
    assert {("amsgfn", "MIM"), ("amsgfn", "T")} <= odd
    figure = pictures.mae_against_corr(table, constant, "mosei")
    words = texts(figure)
    assert {
        "AMSGFN 3: MIM; dashed: exchanged",
        "AMSGFN 5: T",
        "AMSGFN 5: V",
        f"best constant, MAE {constant:.3f}",
    } <= set(words)
    dashed = [line.get_xydata().tolist() for line in figure.axes[0].get_lines() if line.get_linestyle() == "--"]
    assert dashed == [[[0.579, 0.779], [0.779, 0.579]]]
    for dataset in ("mosi", "sims", "simsv2"):  # none odd, or few: the figure still works
        small = picture_data.mae_and_corr(PRINTED, dataset)
        assert texts(pictures.mae_against_corr(small, labels.best_constant_mae(dataset), dataset))


def test_constant_floors():
    table = picture_data.against_constant(PRINTED)
    figure = pictures.constant_floors(table)
    assert {"57.36", "0.992", "54.5", "V+A", "w/o language"} <= set(texts(figure))
    assert sum(len(marks(axis, "^")) for axis in figure.axes) == table["below"].sum() == 11
    one = picture_data.against_constant([row("dsrf", "3", "mosi", "w/o Audio", acc2_has0="55.25", mae="1.2")])
    assert not one["below"].any()  # 379 of 686 is 55.248: equal up to rounding is not below
    assert "0 cells are worse than the best constant prediction (dotted)" in texts(pictures.constant_floors(one))


def test_capsules():
    readings = picture_data.capsules()
    (c, u), (c_own, u_own) = readings.values()
    assert np.ptp(u, axis=0).max() == pytest.approx(0, abs=1e-12)
    assert c == pytest.approx(np.full_like(c, 0.25))
    assert np.ptp(u_own, axis=0).max() > 0.1
    assert np.ptp(c_own[-1]) > 0.1
    assert c_own[0] == pytest.approx(np.full((4, 4), 0.25))
    assert any("capsules at most 0.0 apart" in text for text in texts(pictures.capsules(readings)))
    tiny = {"one": (np.full((1, 2, 2), 0.5), np.eye(2))}
    assert any("capsules at most 1.0 apart" in text for text in texts(pictures.capsules(tiny)))


def test_checklist():
    counts = checklist.status_counts()
    assert {"34", "29", "absent", "AMSGFN"} <= set(texts(pictures.checklist(counts)))
    tiny = pd.DataFrame({"stated": [1], "absent": [0]}, index=["dsrf"])
    assert "absent" not in texts(pictures.checklist(tiny))


# --- the facts ------------------------------------------------------------------------------------------------------


def test_every_fact_has_its_picture():
    assert list(pictures_facts.PICTURES) == [item.id for item in audit.key_facts(audit.run_checks()[0])]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dsrf-claim-ablation-modalities", ["3 of 14 scores are higher", "-0.48", "+4.32"]),
        ("amsgfn-missing-ablation-cor-row", ["w/o Cor (text only)", "1.15", "1.39", "4.24"]),
        ("dsrf-missing-module-names", ["no loss defined: SFR, SFDR", "USF"]),
        ("dsrf-conflict-eq11-unused-reconstruction", ["reconstruction", "made", "read"]),
        ("dsrf-missing-eq16-softmax-mae", ["likeliest class: -1.00", "expected value: -0.46"]),
        ("both-missing-spread", ["32 of 39 printed gains", "CMU-MOSI Acc-2 (right)"]),
        ("both-missing-robustness", ["the last 3 columns stand in none", "DSRF Table 3"]),
        ("amsgfn-conflict-own-list-sims", ["+1.93 Self-MM", "+0.42 Self-MM", "+0.10 Self-MM"]),
    ],
)
def test_what_the_picture_of_a_fact_says(name, words):
    said = " ".join(texts(pictures_facts.PICTURES[name]()))
    assert [word for word in words if word not in said] == []


def test_odd_bars_are_hatched():
    for name in ("dsrf-claim-ablation-modalities", "amsgfn-missing-ablation-cor-row"):
        figure = pictures_facts.PICTURES[name]()
        hatched = [bar for axis in figure.axes for bar in axis.patches if bar.get_hatch()]
        assert len(hatched) == 3


@pytest.mark.skipif(not papers_text.FOLDER.exists(), reason="the papers are not at hand")
def test_marks_are_in_the_papers():
    marks = pd.read_csv(picture_data_facts.MARKS, dtype=str, keep_default_na=False)
    wrong = [
        q for p, q in marks[["paper", "quote"]].to_numpy() if papers_text.plain(q) not in papers_text.paper_text(p)
    ]
    assert not wrong


def test_a_table_shows_what_its_rows_are():
    table = picture_data_facts.tested()
    assert table.loc["AMSGFN Table 5"].tolist()[:3] == ["stands", "stands", ""]
    assert table.loc["DSRF Table 3"].tolist()[:3] == ["stands", "stands", "stands"]
    assert "AMSGFN Table 1" not in table.index


# --- seed noise -------------------------------------------------------------------------------------------------------


def noise_case() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two pools, SD 1 and 3, and one that collapsed; gains of AMSGFN 1 and of DSRF 9 points on CH-SIMS Acc-2."""
    seeds = pd.DataFrame({"model": ["a", "b", "c"], "sd": [1.0, 3.0, 50.0], "collapsed": [0, 0, 5]})
    seeds = seeds.assign(
        dataset="sims", config="x", metric="acc2", seeds=5, mean=80.0, low=78.0, high=82.0, best_seed=1.0
    )
    cells = [("amsgfn", "4", "Our", "81.00"), ("amsgfn", "4", "B", "80.00")]
    cells += [("dsrf", "2", "DSRF (Ours)", "89.00"), ("dsrf", "2", "B", "80.00")]
    reported = pd.DataFrame(cells, columns=["paper", "table", "row", "value"])
    return seeds, reported.assign(dataset="sims", metric="acc2", side="", decimals="2", marker="")


def test_seed_sds():
    seeds, reported = noise_case()
    gains = picture_data.comparisons(claimed_gains(seeds, reported))
    figure = pictures_noise.seed_sds(seeds, gains)
    (axis,) = figure.axes
    assert [x for x, _ in marks(axis, "o")] == [1, 3]  # the collapsed pool is left out
    assert [x for x, _ in marks(axis, "|")] == [2]
    assert [x for x, _ in marks(axis, "v")] == [1]
    assert [x for x, _ in marks(axis, "D")] == [9]
    assert "1 of 2 printed gains are smaller than the median SD over seeds" in texts(figure)
    real = pictures_noise.seed_sds(load_noise("seeds"), picture_data.comparisons(load_noise("gains")))
    assert {"CMU-MOSI", "CMU-MOSEI", "CH-SIMS", "gain printed by DSRF"} <= set(texts(real))


def test_gains_in_sd():
    gains = picture_data.comparisons(claimed_gains(*noise_case()))
    figure = pictures_noise.gains_in_sd(gains)
    assert marks(figure.axes[0], "o") == [(0.5, 0)]
    assert marks(figure.axes[1], "^") == [(4.5, 0)]
    real = picture_data.comparisons(load_noise("gains"))
    assert not set(zip(real["paper"], real["table"], strict=True)) & ABLATIONS
    assert list(dict.fromkeys(real["dataset"])) == ["mosi", "mosei", "sims", "simsv2"]
    figure = pictures_noise.gains_in_sd(real)
    assert "3 of 39 printed gains exceed what 5 seeds a side can tell" in texts(figure)
    assert sum(len(marks(axis, "^")) for axis in figure.axes) == 3


def test_effects():
    table = picture_data.effects(*(load_noise(name) for name in ("seeds", "tuning", "epochs", "gains")))
    assert set(table["effect"]) == set(picture_data.EFFECTS)
    mae = table[(table["score"] == "mae") & (table["effect"] == "gain, DSRF") & (table["dataset"] == "mosei")]
    assert mae["value"].tolist() == pytest.approx([1.9])  # 0.531 - 0.512 in hundredths
    figure = pictures_noise.effects(table, [("acc2_non0", "acc2"), ("mae",)])
    words = texts(figure)
    assert {"CMU-MOSI, Acc-2 (right)", "CH-SIMS, Acc-2", "trial chosen on test"} <= set(words)
    assert "32 →" in words  # MISA on CMU-MOSI: half of its trials trained badly
    tiny = pd.DataFrame(
        {"dataset": "sims", "score": "f1", "effect": picture_data.EFFECTS[0], "model": "a", "value": [1.0]}
    )
    assert "CH-SIMS, F1" in texts(pictures_noise.effects(tiny, [("f1",), ("mae",)]))


def test_flag_rates():
    line = dict(n=3, m=1, flagged_known_m=[0.04, 0.5], shift=[0.0, 1.0])
    real, normal = (pd.DataFrame(line | {"kind": "seeded"}) for _ in range(2))
    simulated = pd.DataFrame(line | {"kind": ["collapse", "normal"]})
    table = picture_data.flag_rates(simulated, real, normal)
    assert table.groupby("source").size().to_dict() == {
        "public runs": 2, "normal runs, split the same way": 2, "one run in ten collapses": 1
    }  # fmt: skip
    figure = pictures_noise.flag_rates(table, [("seeded", 3, 1)])
    assert marks(figure.axes[0], "^") == [(0, 0.04), (1, 0.5)]
    assert any("in 4.0% to 4.0% of splits" in text for text in texts(figure))


def test_real_pools_of_seeds_are_flagged_like_normal_ones():
    by = ["kind", "n", "m", "shift"]
    normal = calibration.rates(calibration.matches(picture_data.normal_pools("seeded", 150, 5)), by)
    table = picture_data.flag_rates(load_noise("simulated"), load_noise("matches"), normal)
    seeded = table[table["kind"] == "seeded"].pivot(index=["n", "m", "shift"], columns="source", values="flagged")
    assert (seeded["public runs"] - seeded["normal runs, split the same way"]).abs().max() < 0.05
    figure = pictures_noise.flag_rates(table, [("seeded", 4, 1), ("tune", 10, 5)])
    assert {"five seeds: n = 4, m = 1", "random search: n = 10, m = 5"} <= set(texts(figure))


def test_outcomes_by_gap():
    figure = pictures_noise.outcomes_by_gap(load_noise("models"))
    assert {"over 10", "printed: mean of 1 run", "printed: mean of 5 runs", "100%"} <= set(texts(figure))
    tiny = pd.DataFrame({"gap": ["0 to 1"], "m": [1], "compatible": [0.9], "depends": [0.1], "incompatible": [0.0]})
    assert {"90%", "10%"} <= set(texts(pictures_noise.outcomes_by_gap(tiny)))


# --- how they are drawn -----------------------------------------------------------------------------------------------


def test_spread_moves_as_little_as_it_takes():
    assert pictures._spread([0.1, 0.9], 0.1) == pytest.approx([0.1, 0.9])
    assert pictures._spread([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])
    moved = pictures._spread([0.52, 0.5, 0.51, 0.9], 0.1)
    assert moved == pytest.approx([0.61, 0.41, 0.51, 0.9])
    assert len(pictures._spread([], 0.1)) == 0


def test_compact_is_small_and_keeps_the_orange():
    figure = pictures.constant_floors(picture_data.against_constant(PRINTED))
    usual = io.BytesIO()
    figure.savefig(usual, dpi=80)
    data = pictures.compact(figure)
    assert len(data) < 0.5 * len(usual.getvalue())
    assert not plt.fignum_exists(figure.number)
    image = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).reshape(-1, 3).astype(int)
    orange = np.round(255 * np.array(pictures.ORANGE))
    assert (np.abs(image - orange).sum(axis=1) < 30).sum() > 50


def test_colours_are_told_apart_without_red_or_green():
    """The marks differ in lightness, so that they do in print and to the colour-blind too."""
    grey = {name: np.dot(colour, (0.299, 0.587, 0.114)) for name, colour in
            (("fine", pictures.BLUE), ("odd", pictures.ORANGE))}  # fmt: skip
    assert abs(grey["fine"] - grey["odd"]) > 0.15
    assert pictures.FINE["marker"] != pictures.ODD["marker"]
