"""The audit: every check on tables with planted errors, on the papers, and as files."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from papers_check import audit, between, load_reported, possible, within
from papers_check.finding import SEVERITIES, Finding, by_severity
from papers_check.rows import Row, column, rows, slug

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


def no_sizes() -> pd.DataFrame:
    return load_reported("dsrf", 1).iloc[:0]


# --- planted errors -------------------------------------------------------------------------------------------------


def test_the_clean_table_has_no_finding():
    assert ids(within.examine(table(), no_sizes())) == []
    assert ids(possible.examine(table()[:-1])) == []
    # The own row is that of one run among means of five, and that is all there is to say.
    assert ids(possible.examine(table())) == ["amsgfn-arithmetic-single-runs-table2-mosi"]


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
        ("MISA", "81.84 83.54 81.82 83.58 41.37 0.990 0.778", "amsgfn-arithmetic-mae-against-corr-table2-mosi-misa"),
    ],
)
def test_planted_within(row, line, expected):
    found = ids(within.examine(table({row: line}), no_sizes()))
    assert any(name.startswith(expected) for name in found), found


@pytest.mark.parametrize(("mae", "corr", "swapped"), [("0.779", "0.579", True), ("0.605", "0.779", False)])
def test_planted_swap(mae, corr, swapped):
    lines = ["0.573 0.714", "0.576 0.717", "0.559 0.733", "0.555 0.756", "0.529 0.801", f"{mae} {corr}"]
    keys = [("mae", ""), ("corr", "")]
    cells = [dict(zip(keys, line.split(), strict=True)) for line in lines]
    found = [Row("amsgfn", "3", "mosei", name, "", row) for name, row in zip("ABCDEF", cells, strict=True)]
    assert ids(within.exchanged_columns(found)) == ["amsgfn-swap-table3-mosei-f-mae-corr"] * swapped


@pytest.mark.parametrize(
    "line", ["84.35 86.27 84.21 86.21 48.02 0.698 0.803", "77.90 79.18 77.80 79.15 33.82 0.960 0.641"]
)
def test_the_best_and_the_worst_row_are_not_called_swapped(line):
    assert ids(within.exchanged_columns(table({"Our": line}))) == []


def test_finer_accuracy_above_coarser():
    row = Row("dsrf", "2", "sims", "X", "", {("acc3", ""): "39.00", ("acc5", ""): "45.86"})
    assert ids(within.finer_above_coarser(row)) == ["dsrf-arithmetic-class-order-table2-sims-x-acc3-acc5"]
    assert ids(within.finer_above_coarser(replace(row, cells={("acc3", ""): "45.86", ("acc5", ""): "45.86"}))) == []


def test_own_row_with_two_values():
    first, second = table()[-1], replace(table()[-1], table="5", cells=table()[-1].cells | {("mae", ""): "0.701"})
    assert ids(within.own_rows_agree([first, second])) == ["amsgfn-conflict-own-row-table5-mosi-our-mae"]
    assert ids(within.own_rows_agree([first, replace(first, table="5")])) == []


def test_sizes_that_do_not_add_up():
    cells = load_reported("amsgfn", 1)
    assert ids(within.sizes(cells)) == []
    wrong = cells.assign(value=cells["value"].replace("16,326", "16,316"))
    assert ids(within.sizes(wrong)) == [
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
        ("Our", "84.35 86.27 84.21 86.21 48.02 0.699 0.803", "amsgfn-arithmetic-runs-table2-mosi-our"),
        ("X", "83.38 85.82 83.29 85.81 46.65 0.718 0.797", "amsgfn-arithmetic-single-runs-table2-mosi"),
    ],
)
def test_planted_impossible(row, line, expected):
    assert expected in ids(possible.examine(table({row: line})))


def test_one_number_of_runs_is_intersected_over_data_sets():
    five = Row("dsrf", "1", "mosi", "DSRF (Ours)", "", {("acc7", ""): "46.67", ("acc2", "has0"): "83.44"})
    seven = Row("dsrf", "2", "sims", "DSRF (Ours)", "", {("acc2", ""): "81.03", ("acc5", ""): "45.86"})
    assert possible.one_number_of_runs([five, replace(seven, cells={("acc2", ""): "80.04"})]) is None
    found = possible.one_number_of_runs([five, seven])
    assert found.id == "dsrf-arithmetic-runs-all-tables"
    assert "{7} (rounded), none (truncated)" in found.computed
    assert possible.one_number_of_runs([seven]) is None


def test_padded_zeros_widen_what_is_possible():
    # 83.40 / 83.60 is impossible as two decimals, 83.4 / 83.6 is not.
    row = Row(
        "amsgfn", "2", "mosi", "MISA", "", {("acc2", "non0"): "83.40", ("f1", "non0"): "83.60", ("acc7", ""): "42.31"}
    )
    assert len(ids(possible.f1_beside_accuracy(row))) == 1
    padded = replace(row, cells=row.cells | {("acc7", ""): "42.30"})
    assert padded.evened() == {("acc2", "non0"): "83.4", ("f1", "non0"): "83.6", ("acc7", ""): "42.3"}
    assert ids(possible.f1_beside_accuracy(padded)) == []


def test_a_lost_zero_comes_back_only_where_it_stands_alone():
    cells = {("acc2", ""): "79.3", ("acc3", ""): "72.63", ("acc5", ""): "53.29"}
    assert Row("dsrf", "2", "simsv2", "MuT", "*", cells).evened()["acc2", ""] == "79.30"
    cells |= {("acc3", ""): "72.6"}
    assert Row("dsrf", "2", "simsv2", "MuT", "*", cells).evened() == cells


def between_tables(changes=None, ours=None):
    theirs = [row for row in table(changes, paper="dsrf", number="1") if row.name != "Our"]
    own = replace(table()[-1], paper="dsrf", table="1", name="DSRF (Ours)")
    ours = [replace(row, name="Mult") if row.name == "MuT" else row for row in table(ours)]  # one method, two spellings
    return ids(between.examine([*ours, *theirs, own]))


def test_between_agreeing_papers():
    assert between_tables() == ["both-reference-two-best-mosi"]


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


def test_rounding_is_no_conflict_and_a_dropped_digit_is_a_note():
    assert between_tables({"TFN": "78.0 79.1 78.0 79.1 34.5 0.947 0.673"}) == ["both-reference-two-best-mosi"]
    first = table()[0]
    second = replace(first, paper="dsrf", cells=first.cells | {("acc2", "has0"): "77.9"})
    assert between.two_values(first, second).severity == "note"


def test_overtaken_own_model_is_high():
    own, stronger = table(), table({"New": "90.00 90.00 90.00 90.00 60.00 0.500 0.900"}, paper="dsrf", number="1")
    slightly = table({"Self-MM": CLEAN["Self-MM"].replace("85.46", "85.50")}, paper="dsrf", number="1")
    stronger, slightly = ([row for row in rows if row.name != "Our"] for rows in (stronger, slightly))
    assert between.stronger_baselines(own, stronger).severity == "high"
    assert between.stronger_baselines(own, slightly).severity == "low"


# --- the papers -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def collected():
    return audit.collect()


@pytest.mark.parametrize(
    "expected",
    [
        "amsgfn-duplicate-table4-sims-prisa-tfn medium",
        "amsgfn-swap-table3-mosei-mim-mae-corr medium",
        "both-swap-mosei-mim-mae-corr medium",
        "amsgfn-arithmetic-below-constant-table5-mosei-v medium",
        "amsgfn-arithmetic-below-constant-table5-mosei-v-plus-a medium",
        "amsgfn-arithmetic-mae-against-corr-table5-mosei-t medium",
        "amsgfn-conflict-stronger-baselines-table4-sims high",
        "amsgfn-arithmetic-runs-table2-mosi-our medium",
        "dsrf-arithmetic-below-constant-table3-mosi-without-language medium",
        "dsrf-arithmetic-f1-above-accuracy-table1-mosi-dsrf-ours high",
        "dsrf-arithmetic-single-runs-table2-simsv2 medium",
        "dsrf-arithmetic-eq8-equal-capsules high",
    ],
)
def test_known_findings(collected, expected):
    name, severity = expected.split()
    assert {finding.id: finding.severity for finding in collected[0]}[name] == severity


def test_numbers_of_known_findings(collected):
    by_id = {finding.id: finding for finding in collected[0]}
    assert "84.02/86.21" in by_id["dsrf-arithmetic-f1-above-accuracy-table1-mosi-dsrf-ours"].quote
    assert (
        "at most F1 86.30, printed 86.50" in by_id["dsrf-arithmetic-f1-above-accuracy-table1-mosi-dsrf-ours"].computed
    )
    assert "3309/4659" in by_id["amsgfn-arithmetic-below-constant-table5-mosei-v"].computed
    assert "gain 0.42 instead of 1.93" in by_id["amsgfn-conflict-stronger-baselines-table4-sims"].computed
    assert "806/1034" in by_id["dsrf-arithmetic-single-runs-table2-simsv2"].explanation


def test_everything_is_examined(collected):
    _, counts = collected
    assert set(counts) == set(audit.MODULES)
    cells = load_reported()
    shown = ((cells["value"] != "") & ~cells["metric"].isin(["train", "valid", "test", "total"])).sum()
    assert counts["within"][0] > shown  # each printed cell at least once
    assert all(checked >= found for checked, found in counts.values())


def test_findings_are_in_order_and_never_accuse(collected):
    found, _ = collected
    assert found == by_severity(found)
    assert len({finding.id for finding in found}) == len(found)
    for finding in found:
        words = " ".join(finding.row().values()).lower()
        assert not any(word in words for word in ("fraud", "fabricat", "fake", "invented", "manipulat", "dishonest")), (
            finding.id
        )


def test_a_gap_shown_by_an_equation_is_said_once(collected):
    names = {finding.id for finding in collected[0]}
    for gap, equation in audit.SHOWN_BY.items():
        assert gap not in names
        assert equation in names
    gap = Finding("dsrf-gap-x", "gap", "dsrf", "Eq. 1", "q", "our choice: C.x = 1", "not stated", "high", "e")
    shown = replace(gap, id="dsrf-arithmetic-x", kind="arithmetic", computed="0", severity="low")
    assert audit.merged([gap, shown], {gap.id: shown.id}) == [replace(shown, computed="0; our choice: C.x = 1")]
    with pytest.raises(ValueError, match="'dsrf-gap-x' occurs twice"):
        audit.merged([gap, gap])


# --- findings as data, text and files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "rumour"}, "'rumour' is none of"),
        ({"severity": "awful"}, "'awful' is none of"),
        ({"paper": "mods"}, "'mods' is none of"),
        ({"id": "dsrf-gap-X y"}, "is not a slug"),
        ({"id": "both-gap-x"}, "is not a slug"),
        ({"quote": " "}, "quote left empty"),
    ],
)
def test_a_finding_is_checked_when_made(change, message):
    good = Finding("dsrf-gap-x", "gap", "dsrf", "Eq. 1", "q", "c", "not stated", "low", "e")
    with pytest.raises(ValueError, match=message):
        replace(good, **change)


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
    assert audit.stale(found) == [], "run python -m papers_check --write"


def test_staleness_is_noticed_and_writing_is_idempotent(tmp_path, collected):
    found = collected[0][:3]
    audit.write(found, tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    audit.write(found, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first
    assert audit.stale(found, tmp_path) == []
    assert audit.stale(found[:2], tmp_path) == sorted([f"{found[2].id}.md", "README.md"])
    page = tmp_path / f"{found[0].id}.md"
    page.write_text(page.read_text() + "more\n")
    assert audit.stale(found, tmp_path) == [page.name]
    audit.write(found[:1], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["README.md", page.name])


def test_every_page_is_linked_and_says_everything(collected):
    found, _ = collected
    made = audit.pages(found)
    for finding in found:
        assert f"]({finding.id}.md)" in made["README.md"]
        assert finding.quote.strip() in made[f"{finding.id}.md"]
    index = [line for line in made["README.md"].splitlines() if line.startswith("| [")]
    assert len(index) == len(found)
    order = [SEVERITIES.index(line[3:]) for line in made["README.md"].splitlines() if line[3:] in SEVERITIES]
    assert order == sorted(order)


def test_command_line_needs_no_training_library(tmp_path):
    out = tmp_path / "deep" / "findings.json"
    code = "import runpy, sys; runpy.run_module('papers_check', run_name='__main__', alter_sys=True); "
    code += "assert not {'torch', 'msa_lib'} & set(sys.modules)"
    command = [sys.executable, "-c", code, "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    written = json.loads(out.read_text(encoding="utf-8"))
    needed = {"id", "kind", "paper", "where", "quote", "computed", "verdict", "severity"}
    assert all(needed <= row.keys() for row in written)
    assert [row["severity"] for row in written] == sorted((row["severity"] for row in written), key=SEVERITIES.index)
    assert all(row["id"] in done.stdout for row in written)
