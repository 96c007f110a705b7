"""Numbers published elsewhere, and how the printed baseline rows compare with them."""

from decimal import Decimal

import pandas as pd
import pytest
from papers_text import FOLDER, paper_text, plain

from papers_check import PAPERS, load_reported
from papers_check.checks import external
from papers_check.checks.external import agreement, compare, findings, left_out, load_external
from papers_check.printed.papers import method_of


@pytest.mark.parametrize(
    ("printed", "published", "expected"),
    [
        ("0.947", "0.9473", "equal"),
        ("0.776", "0.7765", "equal"),  # either way of rounding
        ("0.777", "0.7765", "equal"),
        ("0.572", "0.5726", "truncated"),
        ("0.575", "0.5759", "truncated"),
        ("0.573", "0.5724", "differs"),  # too high to be truncated
        ("0.574", "0.5726", "differs"),
        ("0.571", "0.5726", "differs"),
        ("85.42", "85.4", "equal"),  # the coarser rounding counts
        ("85.46", "85.4", "differs"),
        ("83.0", "83.07", "truncated"),
        ("79.3", "79.30", "equal"),
        ("0.59", "0.594", "equal"),
    ],
)
def test_agreement(printed, published, expected):
    assert agreement(printed, published) == expected


def test_external_numbers_are_sane():
    table = load_external()
    assert set(table["dataset"]) == {"mosi", "mosei", "sims", "simsv2"}
    values = table["value"].map(Decimal)
    small = table["metric"].isin(["mae", "corr"])
    assert values[small].between(0, 1).all()
    assert values[~small].between(20, 100).all()
    assert (table["source"] != "").all()
    key = ["file", "method", "dataset", "metric", "side", "source"]
    assert not table.duplicated(key).any()
    binary = table["metric"].isin(["acc2", "f1"])
    sided = table["dataset"].isin(["mosi", "mosei"])
    assert ((table["side"] != "") == (binary & sided)).all()


@pytest.mark.parametrize(
    ("where", "value"),
    [  # from MMSA's table, where MAE and Corr are printed times 100
        ("mmsa TFN mosi mae", "0.9473"),
        ("mmsa LMF mosi acc2 has0", "77.9"),
        ("mmsa CENet mosei acc2 non0", "86.38"),
        ("mmsa MFN simsv2 acc2", "81.14"),
        ("mods DTN sims acc5", "44.26"),
        ("mods MODS mosei acc7", "54.32"),
        ("published ALMT mosi mae", "0.683"),
    ],
)
def test_cells_checked_by_eye(where, value):
    table = load_external()
    names = table[["file", "method", "dataset", "metric", "side"]].agg(" ".join, axis=1).str.strip()
    assert table[names == where]["value"].tolist() == [value]


def test_every_method_with_published_numbers_is_joined():
    """A spelling that does not resolve would drop a row in silence; MSG, ICCN and the like are in one file only."""
    known = set(load_external()["method"])
    for paper in PAPERS:
        rows = set(external.baseline_cells(paper)["row"])
        assert {method_of(paper, row).name for row in rows} <= known
        assert set(compare(paper)["row"]) == rows


def test_dsrf_rows_marked_as_reproduced_equal_mods():
    table = compare("dsrf")
    starred = table[(table["marker"] == "*") & (table["file"] == "mods")]
    assert len(starred) == 100
    assert (starred["printed"] == starred["published"]).all()


def test_left_out_respects_direction_and_rounding():
    rows = left_out("dsrf")
    keyed = rows.set_index(["dataset", "metric", "side", "method"])["value"]
    assert keyed["mosei", "acc2", "non0", "CENet"] == "86.38"
    assert keyed["simsv2", "acc2", "", "MFN"] == "81.14"
    assert ("simsv2", "mae", "", "MulT") not in keyed  # 0.2905 may be the printed 0.291
    for metric, ours, theirs in rows[["metric", "ours", "value"]].to_numpy():
        assert (Decimal(theirs) < Decimal(ours)) == (metric == "mae")


def one_number(tmp_path, monkeypatch, year=2023, read="yes", **row):
    shape = dict.fromkeys(external.COLUMNS, "") | {"source": "made up", "grade": "C"} | row
    for name in external.SOURCES:
        frame = pd.DataFrame([shape] if name == "mmsa" else [], columns=list(external.COLUMNS))
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    (tmp_path / "sources.csv").write_text(f"source,year,read\nmade up,{year},{read}\n", encoding="utf-8")
    monkeypatch.setattr(external, "FOLDER", tmp_path)


def printed(row: str, metric: str) -> str:
    cells = load_reported("dsrf", 1).query("dataset == 'mosi' and row == @row and metric == @metric")
    return cells["value"].item()


def test_a_grade_that_means_nothing_is_refused(tmp_path, monkeypatch):
    one_number(tmp_path, monkeypatch, grade="X")
    with pytest.raises(ValueError, match=r"mmsa\.csv has grade 'X': expected one of C, P, I, A, S"):
        load_external()


def test_a_better_number_elsewhere_is_found(tmp_path, monkeypatch):
    ours = printed("DSRF (Ours)", "mae")
    new = dict(method="New", dataset="mosi", metric="mae")
    one_number(tmp_path, monkeypatch, **new, value="0.6")
    (found,) = external._better("dsrf")
    assert (found.severity, found.computed) == ("note", f"published for CMU-MOSI: MAE {ours}: New 0.6")
    one_number(tmp_path, monkeypatch, **new, value="0.6", year=2025)
    (found,) = external._better("dsrf")
    assert found.computed.endswith("New 0.6 (later)")
    for change in ({"value": "0.7"}, {"value": "0.6", "caveat": "test-selected"}, {"value": "0.6", "read": "no"}):
        one_number(tmp_path, monkeypatch, **new, **change)
        assert external._better("dsrf") == []


def test_a_listed_baseline_that_is_published_better_is_found(tmp_path, monkeypatch):
    ours, best = printed("DSRF (Ours)", "mae"), printed("Self-MM", "mae")
    row = dict(method="TFN", dataset="mosi", metric="mae")
    one_number(tmp_path, monkeypatch, **row, value="0.690")
    (found,) = external._own_list("dsrf")
    assert found.computed == f"MAE: {best} - {ours} = +0.029 over Self-MM, the best printed; " \
        f"0.690 - {ours} = +0.011 over TFN as published"  # fmt: skip
    one_number(tmp_path, monkeypatch, **row, value="0.6791")
    assert external._own_list("dsrf")[0].computed.endswith("= +0.0001 (equal as printed) over TFN as published")
    for change in ({"value": "0.708"}, {"value": "0.690", "year": 2025}, {"value": "0.690", "method": "New"}):
        one_number(tmp_path, monkeypatch, **(row | change))
        assert external._own_list("dsrf") == []


def test_the_named_source_is_held_to(tmp_path, monkeypatch):
    one_number(tmp_path, monkeypatch, method="TFN", dataset="mosi", metric="mae", value="0.950")
    (found,) = external._differing("dsrf")
    assert found.kind == "conflict"
    assert found.computed == "1 of 1 cells: MAE 0.947 against 0.950 (MMSA)"
    one_number(tmp_path, monkeypatch, method="TFN", dataset="mosi", metric="mae", value="0.9473")
    assert external._differing("dsrf") == []


def test_every_source_is_dated():
    sources = pd.read_csv(external.FOLDER / "sources.csv", dtype=str)
    assert set(sources["source"]) == set(load_external()["source"])
    assert sources["source"].is_unique
    assert set(sources["read"]) == {"yes", "no"}


def test_findings_are_sound():
    found = {f.id: f for f in findings()}
    assert len(found) == len(findings())
    assert "MAE 0.779 against 0.579 (MODS)" in found["amsgfn-literature-table3-mosei-mim"].computed
    assert "MulT 80.68" in found["dsrf-literature-left-out-simsv2"].computed
    assert "MODS" not in found["dsrf-literature-left-out-simsv2"].computed  # it has a caveat
    assert found["dsrf-literature-coincides-with-mods"].computed.startswith("237 of the 237 cells")
    assert "amsgfn-literature-table2-mosi-selfmm" not in found or "1 of 7" in found[
        "amsgfn-literature-table2-mosi-selfmm"].computed  # fmt: skip
    assert external.examined() > 800


@pytest.mark.skipif(not FOLDER.exists(), reason="the papers are not at hand")
def test_quotes_of_facts_are_verbatim():
    facts = [f for f in findings() if f.quoted == "words"]
    assert len(facts) > 7
    assert not [f.id for f in facts if plain(f.quote) not in paper_text(f.paper)]
