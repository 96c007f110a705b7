"""Numbers published elsewhere, and how the printed baseline rows compare with them."""

from decimal import Decimal

import pandas as pd
import pytest
from papers_text import FOLDER, paper_text, plain

from papers_check import PAPERS, external, load_reported
from papers_check.external import agreement, compare, findings, left_out, load_external
from papers_check.papers import method_of


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
    assert set(table["grade"]) <= set(external.GRADES)
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


def one_number(tmp_path, monkeypatch, **row):
    shape = dict.fromkeys(external.COLUMNS, "") | {"source": "made up", "grade": "C"} | row
    for name in external.SOURCES:
        frame = pd.DataFrame([shape] if name == "mmsa" else [], columns=list(external.COLUMNS))
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    monkeypatch.setattr(external, "FOLDER", tmp_path)


def test_a_better_number_elsewhere_is_found(tmp_path, monkeypatch):
    ours = (
        load_reported("dsrf", 1).query("row == 'DSRF (Ours)' and dataset == 'mosi' and metric == 'mae'")["value"].item()
    )
    one_number(tmp_path, monkeypatch, method="New", dataset="mosi", metric="mae", value="0.6")
    (found,) = external._left_out("dsrf")
    assert found.severity == "high"
    assert found.computed == f"mae {ours}: New 0.6"
    one_number(tmp_path, monkeypatch, method="New", dataset="mosi", metric="mae", value="0.6", caveat="test-selected")
    (found,) = external._left_out("dsrf")
    assert found.severity == "low"
    assert found.computed == f"mae {ours}: New 0.6*. * New: test-selected"
    one_number(tmp_path, monkeypatch, method="New", dataset="mosi", metric="mae", value="0.7")
    assert external._left_out("dsrf") == []


def test_the_named_source_is_held_to(tmp_path, monkeypatch):
    one_number(tmp_path, monkeypatch, method="TFN", dataset="mosi", metric="mae", value="0.950")
    (found,) = external._differing("dsrf")
    assert found.kind == "conflict"
    assert found.computed == "mae 0.947 against 0.950 (MMSA)"
    one_number(tmp_path, monkeypatch, method="TFN", dataset="mosi", metric="mae", value="0.9473")
    assert external._differing("dsrf") == []


def test_findings_are_sound():
    found = {f.id: f for f in findings()}
    assert len(found) == len(findings())
    assert found["amsgfn-literature-table3-mosei-mim"].computed.startswith("mae 0.779 against 0.579")
    assert found["dsrf-literature-left-out-simsv2"].severity == "high"
    assert found["dsrf-literature-coincides-with-mods"].computed.startswith("100 of 100 cells equal")
    assert external.checked() > 800


@pytest.mark.skipif(not FOLDER.exists(), reason="the papers are not at hand")
def test_quotes_of_facts_are_verbatim():
    facts = [f for f in findings() if "table" not in f.id and f.id != "amsgfn-literature-coincides-with-mods"]
    assert len(facts) > 8
    assert not [f.id for f in facts if plain(f.quote) not in paper_text(f.paper)]
