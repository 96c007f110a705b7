"""The list of what the papers leave open, and that each switch named there exists with the stated default."""

import importlib.util
from dataclasses import fields

import pandas as pd
import pytest
from papers_text import FOLDER, paper_text, plain

from papers_check import PAPERS
from papers_check.checks import checklist, gaps
from papers_check.checks.checklist import load_checklist
from papers_check.checks.gaps import load_gaps


def switches(paper: str) -> list[dict]:
    return load_gaps(paper).query("switch != ''").to_dict("records")


def configs(paper: str) -> tuple[dict[str, type], dict[str, dict]]:
    """The configuration classes by name, and the named settings of the model."""
    if importlib.util.find_spec(f"msa_lib.models.{paper}") is None:
        pytest.skip(f"msa_lib has no model {paper} yet")
    train = importlib.import_module("msa_lib.train").TrainConfig
    module = importlib.import_module(f"msa_lib.models.{paper}")
    name = f"{paper.upper()}Config"
    return {name: getattr(module, name), "TrainConfig": train}, module.VARIANTS


@pytest.mark.parametrize("paper", PAPERS)
def test_every_switch_exists_with_its_default(paper):
    known, variants = configs(paper)
    wrong = []
    for gap in switches(paper):
        config, _, name = gap["switch"].partition(".")
        defaults = {field.name: field.default for field in fields(known[config])}
        if name not in defaults:
            wrong.append(f"{gap['id']}: {config} has no {name}")
            continue
        value = variants[gap["variant"]].get(name, defaults[name]) if gap["variant"] else defaults[name]
        if str(value) != gap["default"]:
            wrong.append(f"{gap['id']}: {gap['switch']} is {value}, the list says {gap['default']}")
    assert not wrong


def test_amsgfn_has_no_switch_without_a_gap():
    """Each switch of the model stands for something the paper leaves open, or is a control of ours named here."""
    known, _ = configs("amsgfn")
    ours = {"modalities", "soft_mode", "order_aux", "fusion", "weight_scale"}
    # Departures that can be tried, although an equation or a sentence settles them.
    ours |= {"pair_weights", "align_reduction", "ntxent", "proj", "gate", "attn_norm", "task_loss"}
    ours |= {"cor_modalities", "cor_direction"}
    named = {gap["switch"].partition(".")[2] for gap in switches("amsgfn")}
    assert {field.name for field in fields(known["AMSGFNConfig"])} - named == ours


def test_one_finding_per_paper_and_a_line_per_choice():
    found = {f.id: f for f in gaps.findings()}
    assert set(found) == {f"{paper}-gap-open-choices" for paper in PAPERS}
    assert gaps.examined() == len(load_gaps()) == sum(len(gaps.table(paper)) for paper in PAPERS)
    lines = {line[0]: line for line in gaps.table("amsgfn")}
    assert lines["tau"][4:] == ("0.07", "AMSGFNConfig.tau")
    assert lines["without dmgf"][4:] == ("concat_time", "AMSGFNConfig.dmgf (in w/o DMGF)")
    assert lines["seeds"][4:] == ("", "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"default": ""}, "needs a default"),
        ({"switch": ""}, "needs a default"),
        ({"quote": ""}, "quote left empty"),
        ({"id": "dsrf-gap-tau"}, "begins with amsgfn-gap-"),
        ({"switch": "", "default": "", "variant": "w/o TB"}, "variant needs a switch"),
    ],
)
def test_rows_out_of_shape_are_named(tmp_path, monkeypatch, change, message):
    row = load_gaps("amsgfn").query("id == 'amsgfn-gap-tau'").iloc[0].to_dict() | change
    pd.DataFrame([row]).to_csv(tmp_path / "amsgfn.csv", index=False)
    monkeypatch.setattr(gaps, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match=message):
        load_gaps("amsgfn")


def test_unknown_paper():
    with pytest.raises(ValueError, match="unknown paper 'misa'"):
        load_gaps("misa")


@pytest.mark.skipif(not FOLDER.exists(), reason="the papers are not at hand")
@pytest.mark.parametrize("paper", PAPERS)
def test_quotes_are_verbatim(paper):
    text = paper_text(paper)
    rows = [*load_gaps(paper)[["id", "quote"]].to_numpy(), *load_checklist(paper)[["item", "quote"]].to_numpy()]
    assert not [name for name, quote in rows if plain(quote) not in text]


# --- the checklist ----------------------------------------------------------------------------------------------------


def test_both_papers_have_the_same_items():
    items = {paper: load_checklist(paper)["item"].tolist() for paper in PAPERS}
    assert items["amsgfn"] == items["dsrf"]
    assert len(set(items["dsrf"])) == len(items["dsrf"])
    assert set(checklist.DECISIVE) <= set(items["dsrf"])


def test_checklist_counts():
    counts = checklist.status_counts()
    assert counts.sum(axis=1).tolist() == [len(load_checklist(paper)) for paper in PAPERS]
    assert counts.loc["amsgfn", "stated"] < counts.loc["dsrf", "stated"]


def test_checklist_findings():
    found = {f.id: f for f in checklist.findings()}
    assert set(found) == {f"{paper}-missing-{what}" for paper in PAPERS for what in ("checklist", "runs-and-selection")}
    assert "number of runs" in found["dsrf-missing-runs-and-selection"].computed
    assert "margin" not in found["amsgfn-missing-checklist"].computed  # AMSGFN has none


@pytest.mark.parametrize(
    "change", [{"status": "maybe"}, {"status": "stated", "quote": ""}, {"status": "absent", "quote": "x"}]
)
def test_checklist_rows_out_of_shape_are_named(tmp_path, monkeypatch, change):
    row = load_checklist("dsrf").iloc[0].to_dict() | change
    pd.DataFrame([row]).to_csv(tmp_path / "dsrf.csv", index=False)
    monkeypatch.setattr(checklist, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"data sets.*expected paper dsrf"):
        load_checklist("dsrf")
