"""The audit: every check on tables with planted errors, on the papers, and as files."""

import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pandas as pd
import papers_text
import pytest

from papers_check import PAPERS, checks, load_reported
from papers_check.checks import audit, controls, gaps, one_table, score_limits, two_papers
from papers_check.checks.finding import FOLDER, SEVERITIES, Finding, by_severity, innocent, load_innocent, severity
from papers_check.printed.rows import Row, column, rows, slug
from papers_check.show import finding_pages

ROOT = Path(__file__).resolve().parents[1]
SLASH = [("acc2", "has0"), ("acc2", "non0"), ("f1", "has0"), ("f1", "non0"), ("acc7", ""), ("mae", ""), ("corr", "")]
# A table without any error: two-decimal means of five runs on CMU-MOSI.
CLEAN = {
    "TFN": "77.99 79.08 77.95 79.11 34.46 0.947 0.673",
    "LMF": "77.90 79.18 77.80 79.15 33.82 0.950 0.651",
    "MuT": "79.71 80.98 79.63 80.95 36.91 0.879 0.702",
    "MISA": "81.84 83.54 81.82 83.58 41.37 0.776 0.778",
    "Self-MM": "83.44 85.46 83.36 85.43 46.67 0.708 0.796",
    "Our": "83.53 85.67 83.47 85.66 47.08 0.700 0.799",
}


def table(changes=None, paper="amsgfn", number="2", dataset="mosi") -> list[Row]:
    """The clean table, with whole rows replaced; "-" is a dash."""
    found = []
    for name, line in (CLEAN | (changes or {})).items():
        cells = dict(zip(SLASH, line.split(), strict=True))
        found.append(Row(paper, number, dataset, name, "", {key: text for key, text in cells.items() if text != "-"}))
    return found


def ids(items) -> list[str]:
    return [item.id for item in items if item is not None]


def made(id: str, check: str = "claim", computed: str = "c", **changes) -> Finding:
    paper, kind, _ = id.split("-", 2)
    judgement = dict(survives="yes", needs="paper", touches="result", group="numbers", innocent_reading="a slip")
    texts = dict(where="Eq. 1", quote="q", computed=computed, verdict="v", explanation="e", title="t")
    return Finding(id, kind, paper, check=check, **(texts | judgement | changes))


def no_sizes() -> pd.DataFrame:
    return load_reported("dsrf", 1).iloc[:0]


# --- planted errors -------------------------------------------------------------------------------------------------


def test_the_clean_table_has_no_finding():
    assert ids(one_table.examine(table(), no_sizes())) == []
    assert ids(score_limits.examine(table())) == []


@pytest.mark.parametrize(
    ("row", "line", "expected"),
    [
        ("Copy", CLEAN["TFN"], "amsgfn-duplicate-table2-mosi-copy-tfn"),
        ("MISA", "81.84 83.54 81.82 83.58 41.37 0.776 1.778", "amsgfn-arithmetic-out-of-range-table2-mosi-misa-corr"),
        (
            "MISA",
            "181.8 83.54 81.82 83.58 41.37 0.776 0.778",
            "amsgfn-arithmetic-out-of-range-table2-mosi-misa-acc-2-left",
        ),
        ("MISA", "81.84 83.54 81.82 83.58 41.37 7.760 0.778", "amsgfn-arithmetic-out-of-range-table2-mosi-misa-mae"),
        ("MISA", "81.84 83.5 81.82 83.58 41.37 0.776 0.778", "amsgfn-reference-precision-table2-mosi"),
        (
            "MISA",
            "81.84 83.54 81.82 80.00 41.37 0.776 0.778",
            "amsgfn-arithmetic-f1-far-below-accuracy-table2-mosi-misa",
        ),
        ("MISA", "81.80 83.50 81.80 83.50 41.30 0.776 0.778", "amsgfn-reference-padded-zeros-table2-mosi"),
    ],
)
def test_planted_within(row, line, expected):
    found = ids(one_table.examine(table({row: line}), no_sizes()))
    assert any(name.startswith(expected) for name in found), found


def odd_mae(mae: str) -> list[Row]:
    """Four rows with nearly the same Corr, one of them with a MAE of its own."""
    return table({"A": "- - - - - 0.705 0.797", "B": f"- - - - - {mae} 0.790"})


def test_a_mae_far_from_its_neighbours():
    assert ids(one_table.mae_out_of_order(odd_mae("0.990"))) == ["amsgfn-arithmetic-mae-against-corr-table2-mosi-b"]
    assert ids(one_table.mae_out_of_order(odd_mae("0.720"))) == []


@pytest.mark.parametrize(("mae", "corr", "swapped"), [("0.779", "0.579", True), ("0.605", "0.779", False)])
def test_planted_swap(mae, corr, swapped):
    lines = ["0.573 0.714", "0.576 0.717", "0.559 0.733", "0.555 0.756", "0.529 0.801", f"{mae} {corr}"]
    keys = [("mae", ""), ("corr", "")]
    cells = [dict(zip(keys, line.split(), strict=True)) for line in lines]
    found = [Row("amsgfn", "3", "mosei", name, "", row) for name, row in zip("ABCDEF", cells, strict=True)]
    assert ids(one_table.exchanged_columns(found)) == ["amsgfn-swap-table3-mosei-f-mae-corr"] * swapped


@pytest.mark.parametrize(
    "line", ["84.35 86.27 84.21 86.21 48.02 0.698 0.803", "77.90 79.18 77.80 79.15 33.82 0.960 0.641"]
)
def test_the_best_and_the_worst_row_are_not_called_swapped(line):
    assert ids(one_table.exchanged_columns(table({"Our": line}))) == []


def test_finer_accuracy_above_coarser():
    row = Row("dsrf", "2", "sims", "X", "", {("acc3", ""): "39.00", ("acc5", ""): "45.86"})
    assert ids(one_table.finer_above_coarser(row)) == ["dsrf-arithmetic-class-order-table2-sims-x-acc3-acc5"]
    assert ids(one_table.finer_above_coarser(replace(row, cells={("acc3", ""): "45.86", ("acc5", ""): "45.86"}))) == []


def test_own_row_with_two_values():
    first, second = table()[-1], replace(table()[-1], table="5", cells=table()[-1].cells | {("mae", ""): "0.701"})
    assert ids(one_table.own_rows_agree([first, second])) == ["amsgfn-conflict-own-row-table5-mosi-our-mae"]
    assert ids(one_table.own_rows_agree([first, replace(first, table="5")])) == []


def test_sizes_that_do_not_add_up():
    cells = load_reported("amsgfn", 1)
    assert ids(one_table.sizes(cells)) == []
    wrong = cells.assign(value=cells["value"].replace("16,326", "16,316"))
    assert ids(one_table.sizes(wrong)) == [
        "amsgfn-conflict-size-table1-mosei-train",
        "amsgfn-conflict-size-table1-mosei-total",
    ]


@pytest.mark.parametrize(
    ("row", "line", "expected"),
    [
        ("MISA", "81.84 83.54 81.82 83.84 41.37 0.776 0.778", "amsgfn-arithmetic-f1-above-accuracy-table2-mosi-misa"),
        ("MISA", "55.00 54.00 54.00 53.00 41.37 0.776 0.778", "amsgfn-arithmetic-below-constant-table2-mosi-misa"),
        ("MISA", "81.84 83.54 81.82 83.58 22.00 0.776 0.778", "amsgfn-arithmetic-below-constant-table2-mosi-misa"),
        ("MISA", "81.84 83.54 81.82 83.58 41.37 1.390 0.778", "amsgfn-arithmetic-below-constant-table2-mosi-misa"),
        ("MISA", "88.84 83.54 88.82 83.58 41.37 0.776 0.778", "amsgfn-arithmetic-zero-labels-table2-mosi-misa"),
        ("MISA", "81.84 83.54 81.82 83.58 41.37 0.020 0.778", "amsgfn-arithmetic-mae-floor-table2-mosi-misa-acc-7"),
        ("MISA", "81.84 83.54 81.82 83.58 41.37 0.020 0.078", "amsgfn-arithmetic-mae-floor-table2-mosi-misa-corr"),
        ("Our", "84.35 86.27 84.21 86.21 48.02 0.699 0.803", "amsgfn-arithmetic-runs"),
    ],
)
def test_planted_scores_that_do_not_fit(row, line, expected):
    assert expected in ids(score_limits.examine(table({row: line})))


def test_one_number_of_runs_is_intersected_over_data_sets():
    five = Row("dsrf", "1", "mosi", "DSRF (Ours)", "", {("acc7", ""): "46.67", ("acc2", "has0"): "83.44"})
    seven = Row("dsrf", "2", "sims", "DSRF (Ours)", "", {("acc2", ""): "81.03", ("acc5", ""): "45.86"})
    assert ids(score_limits.runs_of([five, replace(seven, cells={("acc2", ""): "80.04"})])) == []
    (found,) = [item for item in score_limits.runs_of([five, seven]) if item]
    assert found.id == "dsrf-arithmetic-runs"
    assert found.computed.endswith("together: 7 (rounded); none (cut off); 7, 9, 10 (runs rounded first)")
    assert len(found.instances) == 2
    assert ids(score_limits.runs_of([five])) == []
    assert ids(score_limits.runs_of([])) == []


def test_padded_zeros_widen_what_is_possible():
    # 83.40 / 83.60 is impossible as two decimals, 83.4 / 83.6 is not.
    row = Row(
        "amsgfn", "2", "mosi", "MISA", "", {("acc2", "non0"): "83.40", ("f1", "non0"): "83.60", ("acc7", ""): "42.31"}
    )
    assert len(ids(score_limits.f1_beside_accuracy(row))) == 1
    padded = replace(row, cells=row.cells | {("acc7", ""): "42.30"})
    assert padded.evened() == {("acc2", "non0"): "83.4", ("f1", "non0"): "83.6", ("acc7", ""): "42.3"}
    assert ids(score_limits.f1_beside_accuracy(padded)) == []


def test_a_lost_zero_comes_back_only_where_it_stands_alone():
    cells = {("acc2", ""): "79.3", ("acc3", ""): "72.63", ("acc5", ""): "53.29"}
    assert Row("dsrf", "2", "simsv2", "MuT", "*", cells).evened()["acc2", ""] == "79.30"
    cells |= {("acc3", ""): "72.6"}
    assert Row("dsrf", "2", "simsv2", "MuT", "*", cells).evened() == cells


def between_tables(changes=None, ours=None):
    theirs = [row for row in table(changes, paper="dsrf", number="1") if row.name != "Our"]
    own = replace(table()[-1], paper="dsrf", table="1", name="DSRF (Ours)")
    ours = [replace(row, name="Mult") if row.name == "MuT" else row for row in table(ours)]  # one method, two spellings
    return ids(two_papers.examine([*ours, *theirs, own]))


def test_between_agreeing_papers():
    assert between_tables() == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"TFN": "77.99 79.08 77.95 79.11 34.46 0.673 0.947"}, "both-swap-mosi-tfn-mae-corr"),
        ({"TFN": "77.99 79.08 77.95 79.11 36.46 0.947 0.673"}, "both-conflict-mosi-tfn"),
        ({"New": CLEAN["MuT"]}, "both-duplicate-mosi-mult-new"),
        ({"New": "90.00 90.00 90.00 90.00 60.00 0.500 0.900"}, "amsgfn-conflict-stronger-baselines-table2-mosi"),
    ],
)
def test_planted_between(changes, expected):
    assert expected in between_tables(changes)


def test_rounding_is_no_conflict():
    assert between_tables({"TFN": "78.0 79.1 78.0 79.1 34.5 0.947 0.673"}) == []


def test_a_gain_is_given_over_both_baselines():
    stronger = table({"New": "90.00 90.00 90.00 90.00 60.00 0.500 0.900"}, paper="dsrf", number="1")
    computed = two_papers.stronger_baselines(table(), stronger).computed
    assert "Acc-2 (left) 83.53: gain -6.47 (New 90.00); in its own table +0.09 (Self-MM 83.44)" in computed
    assert "MAE 0.700: gain -0.200 (New 0.500); in its own table +0.008 (Self-MM 0.708)" in computed


# --- how severe -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("survives", "needs", "touches", "expected"),
    [
        ("yes", "paper", "conclusion", "high"),
        ("yes", "first-hand source", "conclusion", "high"),
        ("yes", "unread source", "conclusion", "low"),
        ("unknown", "paper", "conclusion", "low"),
        ("no", "paper", "conclusion", "low"),
        ("yes", "paper", "result", "medium"),
        ("no", "paper", "result", "low"),
        ("yes", "paper", "detail", "low"),
        ("unknown", "paper", "detail", "note"),
        ("yes", "unread source", "detail", "note"),
    ],
)
def test_the_rule_of_severity(survives, needs, touches, expected):
    assert severity(survives, needs, touches) == expected


def test_high_and_medium_are_what_the_rule_says(collected):
    for finding in collected[0]:
        stands = finding.survives == "yes" and finding.needs != "unread source"
        assert (finding.severity == "high") == (stands and finding.touches == "conclusion"), finding.id
        assert finding.severity in ("low", "note") or stands, finding.id
        assert finding.row()["severity"] == finding.severity


def test_a_finding_without_an_innocent_reading_is_refused():
    with pytest.raises(ValueError, match="neither it nor its check 'hunch' has an innocent reading"):
        innocent("hunch", "dsrf-claim-x")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("findings", lambda text: text.replace("id,title", "id,headline", 1), "expected id, title"),
        ("checks", lambda text: text + text.splitlines()[1] + "\n", "twice"),
    ],
)
def test_readings_out_of_shape_are_named(tmp_path, name, change, message):
    for part in ("findings", "checks"):
        text = (FOLDER / f"{part}.csv").read_text(encoding="utf-8")
        (tmp_path / f"{part}.csv").write_text(change(text) if part == name else text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_innocent(tmp_path)


def test_every_reading_is_of_a_finding_or_of_a_part_of_one(collected):
    of_finding, of_check = load_innocent()
    names = {finding.id for finding in collected[0]}
    for id, reading in of_finding.items():
        assert id in names or reading["part_of"] in names, f"{id} judges nothing"
    for check, reading in of_check.items():
        assert reading["innocent_reading"], check


# --- false alarms -----------------------------------------------------------------------------------------------------


def test_the_control_knows_the_real_rows():
    rows = controls.real_rows()
    assert [len(part) for part in rows.values()] == [48, 28, 31]
    rates = controls.rates().set_index(["check", "source"])["marked"]
    of_mmsa = rates.xs("that MMSA publishes", level="source")
    assert of_mmsa["runs"] == 0  # all 48 pass
    assert of_mmsa["f1-above-accuracy"] == 1  # MulT on CH-SIMS
    assert rates.xs("made from five seeds in MMSA's public logs", level="source")["f1-above-accuracy"] == 4


LOGS = ROOT.parent / "shared" / "data" / "mmsa_logs"


@pytest.mark.skipif(not LOGS.exists(), reason="the public logs are not at hand")
def test_the_single_runs_are_counted_as_committed():
    rows = controls.single_runs(LOGS)
    kept = controls.rates().query("source == 'of single runs in the same logs'").set_index("check")
    assert (kept["of"] == len(rows)).all()
    assert set(kept.index) == set(controls.SINGLE)
    for check in ("f1-above-accuracy", "below-constant", "zero-labels"):  # the quick ones
        assert controls.CHECKS[check](rows) == kept.loc[check, "marked"]
    assert kept.loc["f1-above-accuracy", "marked"] > 0.2 * len(rows)  # real runs break the bound


def test_the_control_sees_a_planted_row():
    broken = table({"MISA": "181.8 83.54 81.82 83.58 41.37 0.776 0.778"})
    assert controls.CHECKS["out-of-range"](broken) == 1
    assert controls.CHECKS["equal-rows"](table({"Copy": CLEAN["TFN"]})) == 1
    assert controls.CHECKS["runs"](table({"MISA": "84.35 86.27 81.82 83.58 48.02 0.776 0.778"})) == 1
    assert controls.CHECKS["mae-against-corr"](odd_mae("0.990")) == 1
    assert controls.CHECKS["mae-against-corr"](odd_mae("0.720")) == 0


def test_every_check_of_rows_says_its_rate(collected):
    for finding in collected[0]:
        assert ("known to be real runs" in finding.control) == (finding.check in controls.CHECKS), finding.id


# --- the papers -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def collected():
    return audit.run_checks()


@pytest.mark.parametrize(
    "expected",
    [
        "dsrf-claim-ablation-modalities high",
        "amsgfn-missing-ablation-cor-row high",
        "dsrf-missing-module-names medium",
        "dsrf-conflict-eq11-unused-reconstruction medium",
        "dsrf-arithmetic-eq8-equal-capsules medium",
        "amsgfn-conflict-own-list-sims medium",
        "dsrf-conflict-own-list-simsv2 medium",
        "amsgfn-duplicate-table4-sims-prisa-tfn medium",
        "amsgfn-swap-table3-mosei-mim-mae-corr medium",
        "amsgfn-arithmetic-runs low",
        "amsgfn-claim-stated-numbers medium",
        "both-arithmetic-f1-above-accuracy low",
        "both-arithmetic-below-constant low",
        "dsrf-literature-coincides-with-mods low",
        "amsgfn-claim-without-fusion low",
        "amsgfn-arithmetic-mae-against-corr-table5-mosei-t note",
    ],
)
def test_known_findings(collected, expected):
    name, severity = expected.split()
    assert {finding.id: finding.severity for finding in collected[0]}[name] == severity


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dsrf-claim-ablation-modalities", "Corr: DSRF (Full) 0.805, w/o Visual 0.811"),
        ("amsgfn-claim-stated-numbers", "80.54 - 78.62 = 1.92; printed 2.17"),
        ("amsgfn-claim-stated-numbers", "81.68 - 80.21 = 1.47"),
        ("amsgfn-conflict-own-list-sims", "80.46 - 80.04 = +0.42 over Self-MM as published"),
        ("dsrf-conflict-own-list-simsv2", "0.2905 - 0.291 = -0.0005 (equal as printed) over MulT as published"),
        ("both-arithmetic-f1-above-accuracy", "beside Acc-2 (right) 86.21 weighted F1 is at most 86.30, printed 86.50"),
        ("both-arithmetic-below-constant", "3309/4659"),
        ("both-missing-spread", "32 of 39 gains"),
        ("dsrf-literature-coincides-with-mods", "237 of the 237 cells"),
        ("dsrf-conflict-source-markers", "6 of 6 cells are those of MMSA's table"),
        ("amsgfn-claim-without-fusion", "80.50 is not above 82.54"),
    ],
)
def test_numbers_of_known_findings(collected, name, words):
    finding = {finding.id: finding for finding in collected[0]}[name]
    assert words in "\n".join((finding.computed, *finding.instances))


def test_the_layers(collected):
    found, _ = collected
    first = audit.key_facts(found)
    assert [finding.place for finding in first] == list(range(1, 11))
    groups = audit.grouped(found)
    assert sum(map(len, groups.values())) + len(first) == len(found)
    assert 30 <= sum(len(part) for group, part in groups.items() if group != audit.OPEN) <= 45
    assert [finding.paper for finding in found if finding.group == audit.OPEN] == ["amsgfn", "dsrf"]


def test_everything_is_examined(collected):
    _, counts = collected
    names = (module.name for module in pkgutil.iter_modules(checks.__path__))
    modules = {name: importlib.import_module(f"papers_check.checks.{name}") for name in names}
    assert set(counts) == {name for name, module in modules.items() if hasattr(module, "findings")}  # none is forgotten
    cells = load_reported()
    shown = ((cells["value"] != "") & ~cells["metric"].isin(["train", "valid", "test", "total"])).sum()
    assert counts["one_table"][0] > shown  # each printed cell at least once
    assert all(examined >= found for examined, found in counts.values())


def test_findings_are_in_order_and_never_accuse(collected):
    found, _ = collected
    assert found == by_severity(found)
    assert len({finding.id for finding in found}) == len(found)
    for finding in found:
        words = " ".join(map(str, finding.row().values())).lower()
        assert not any(word in words for word in ("fraud", "fabricat", "fake", "invented", "manipulat", "dishonest")), (
            finding.id
        )


def test_parts_of_a_fact_become_its_instances():
    base = made("dsrf-reference-citations", check="read-by-hand")
    part = made("dsrf-reference-mfn", check="read-by-hand", computed="another work")
    (whole,) = audit.merged([part, base])
    assert whole.id == base.id
    assert whole.instances == ("Eq. 1: another work",)
    (alone,) = audit.merged([part])
    assert (alone.id, alone.computed, alone.instances) == (base.id, "another work", ())
    (both,) = audit.merged([part, replace(part, id="dsrf-reference-vae", computed="a third")])
    assert (both.computed, both.instances) == ("2 places, a line each", ("Eq. 1: another work", "Eq. 1: a third"))
    with pytest.raises(ValueError, match="'dsrf-reference-mfn' occurs twice"):
        audit.merged([part, part])


# --- what the pages say -----------------------------------------------------------------------------------------------

# Words that say more than is shown, and names of our code.
BANNED = ["impossible", "degenerate", "not the best baseline", "matches none", "holds not", "does not hold"]
BANNED += ["_has0", "_non0", "Config.", "==", "\\", "cannot change a prediction", "fraud", "fabricat", "invented"]
SUBTRACTION = re.compile(r"(\d[\d.]*) - (\d[\d.]*) = ([+-]?\d[\d.]*\d|\d)")


def test_pages_say_what_is_shown(collected):
    for name, page in finding_pages.pages(collected[0]).items():
        words, _, table = page.partition("| item | where |")  # switches stand in the tables of gaps only
        assert not [word for word in BANNED if word in words], name
        assert "\\" not in table, name


def test_every_subtraction_is_right(collected):
    found = [
        (name, *sum_) for name, page in finding_pages.pages(collected[0]).items() for sum_ in SUBTRACTION.findall(page)
    ]
    assert len(found) > 30
    assert not [line for line in found if Decimal(line[1]) - Decimal(line[2]) != Decimal(line[3])]


@pytest.mark.skipif(not papers_text.FOLDER.exists(), reason="the papers are not at hand")
def test_printed_words_are_verbatim(collected):
    text = {paper: papers_text.paper_text(paper) for paper in PAPERS}
    text["both"] = " ".join(text.values())
    wrong = [
        (finding.id, line)
        for finding in collected[0]
        if finding.quoted == "words"
        for line in finding.quote.splitlines()
        if papers_text.plain(line) not in text[finding.paper]
    ]
    assert not wrong


def test_printed_cells_are_printed(collected):
    """Every number in a list of cells is a cell of the paper."""
    cells = load_reported()
    values = {
        paper: {float(v.replace(",", "")) for v in cells[cells["paper"] == paper]["value"] if v} for paper in PAPERS
    }
    values["both"] = set().union(*values.values())
    for finding in collected[0]:
        if finding.quoted == "cells" and finding.check != "coincides":
            numbers = re.findall(r"(?<![\w/-])\d+\.\d+(?![\d%])", finding.quote.replace("/", " "))
            assert numbers, finding.id
            assert {float(number) for number in numbers} <= values[finding.paper], finding.id


# --- findings as data, text and files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "rumour"}, "'rumour' is none of"),
        ({"survives": "surely"}, "'surely' is none of"),
        ({"needs": "hearsay"}, "'hearsay' is none of"),
        ({"paper": "mods"}, "'mods' is none of"),
        ({"id": "dsrf-gap-X y"}, "is not a slug"),
        ({"id": "both-gap-x"}, "is not a slug"),
        ({"quote": " "}, "quote left empty"),
        ({"innocent_reading": ""}, "innocent_reading left empty"),
    ],
)
def test_a_finding_is_checked_when_made(change, message):
    with pytest.raises(ValueError, match=message):
        replace(made("dsrf-gap-x"), **change)


def test_rows_and_names():
    assert (
        len(rows())
        == sum(len(group) for group in (load_reported().groupby(["paper", "table", "dataset"])["row"].unique())) - 3
    )
    assert slug("DSRF (Ours)") == "dsrf-ours"
    assert slug("w/o CCAM") == "without-ccam"
    assert slug("V+A") == "v-plus-a"
    assert column("acc2", "has0") == "Acc-2 (left)"
    row = table()[0]
    assert row.quote() == "Acc-2 77.99/79.08, F1 77.95/79.11, Acc-7 34.46, MAE 0.947, Corr 0.673"
    assert row.quote(("acc2", "non0")) == "Acc-2 (right) 79.08"


def test_the_findings_on_disk_are_not_stale(collected):
    found, _ = collected
    assert finding_pages.stale(found) == [], "run python -m papers_check --write"


def test_staleness_is_noticed_and_writing_is_idempotent(tmp_path, collected):
    found = collected[0][:3]
    finding_pages.write(found, tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    finding_pages.write(found, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first
    assert finding_pages.stale(found, tmp_path) == []
    assert finding_pages.stale(found[:2], tmp_path) == sorted([f"{found[2].id}.md", "README.md"])
    page = tmp_path / f"{found[0].id}.md"
    page.write_text(page.read_text() + "more\n")
    assert finding_pages.stale(found, tmp_path) == [page.name]
    finding_pages.write(found[:1], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["README.md", page.name])


def test_every_page_is_linked_and_says_everything(collected):
    found, _ = collected
    made = finding_pages.pages(found)
    for finding in found:
        page = made[f"{finding.id}.md"]
        assert f"]({finding.id}.md)" in made["README.md"]
        assert finding.quoted == "nothing" or finding.quote.strip() in page
        assert page.index("What would clear the authors:") < page.index("Verdict:")
        assert "\nControl: " in page
    index = [line for line in made["README.md"].splitlines() if line.startswith("| ") and "](" in line]
    assert len(index) == len(found) - 1  # one table of open choices is a fact, both are linked below
    assert [line[:4] for line in index[:10]] == [f"| {k} " if k < 10 else "| 10" for k in range(1, 11)]


def test_the_readme_counts_them_right(collected):
    found = collected[0]
    high, medium = (sum(finding.severity == word for finding in found) for word in ("high", "medium"))
    assert f"{len(found)} findings, {high} high, {medium} medium" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_gaps_are_one_table_per_paper(collected):
    made = finding_pages.pages(collected[0])
    for paper in PAPERS:
        page = made[f"{paper}-gap-open-choices.md"]
        assert page.count("\n| ") == 1 + len(gaps.load_gaps(paper))


def test_command_line_needs_no_training_library(tmp_path):
    out = tmp_path / "deep" / "findings.json"
    code = "import sys; from papers_check.__main__ import main; code = main(); "
    code += "assert not {'torch', 'msa_lib'} & set(sys.modules); sys.exit(code)"
    command = [sys.executable, "-c", code, "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    written = json.loads(out.read_text(encoding="utf-8"))
    needed = {"id", "kind", "paper", "where", "quote", "computed", "verdict", "severity"}
    needed |= {"innocent_reading", "survives", "needs", "touches", "group", "control"}
    assert all(needed <= row.keys() for row in written)
    assert [row["severity"] for row in written] == sorted((row["severity"] for row in written), key=SEVERITIES.index)
    assert all(row["id"] in done.stdout for row in written)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_command_line_ends_in_one_sentence_on_every_terminal(tmp_path, encoding):
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "papers_check", "--json", str(tmp_path / "file" / "found.json")]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=120)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"papers_check: {tmp_path / 'file'}: File exists."]
    command[-1] = str(tmp_path / "found.json")
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
