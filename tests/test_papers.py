"""The papers as data: a third paper is added by editing data files only, and everything that judges sees it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import papers_check
from papers_check import load_reported
from papers_check.printed import papers

PACKAGE = Path(papers_check.__file__).parent
TOY = """
[papers.toy]
title = "TOYNET"
best = "TOYNET is the best"
tables = { 1 = "results", 2 = "ablation" }
"""
CELLS = """paper,table,dataset,row,metric,side,value,decimals,marker
toy,1,mosi,TFN,mae,,0.970,3,
toy,1,mosi,MuT,mae,,0.880,3,
toy,1,mosi,TOYNET,mae,,0.700,3,
toy,1,mosi,TFN,acc7,,33.10,2,
toy,1,mosi,TOYNET,acc7,,140.00,2,
toy,2,mosi,TOYNET,mae,,0.700,3,
toy,2,mosi,without ears,mae,,0.720,3,
"""
METHODS = """toy,TFN,baseline,tfn,TFN
toy,MuT,baseline,mult,MulT
toy,TOYNET,own,toynet,TOYNET
toy,without ears,component,toynet,without ears
"""
CLAIM = {"id": "toy-gain", "paper": "toy", "where": "Table 1", "quote": "better by 0.5", "kind": "gain"} | {
    "expression": "cell(1, mosi, MuT, mae) - cell(1, mosi, TOYNET, mae)", "printed": "0.5",
    "tolerance": "0.001"}  # fmt: skip
JUDGE = """
import json, sys
import pandas as pd
from papers_check.judge import judged_tables
from papers_check.show import report
rows = pd.DataFrame(
    [dict(label=label, seed=seed, split="test", metric="mae", value=value + 0.01 * seed, status="done",
          synthetic=False, selection="best validation MAE", dataset="mosi")
     for label, value in (("full", 0.68), ("deaf", 0.9), ("blind", 0.95)) for seed in range(5)])
pages = judged_tables.pages_from([
    dict(paper="toy", table=table, data={"mosi": ("mosi", False, 686)}, rows=rows, ours=["full"], readings={})
    for table in (1, 2)])
found = judged_tables.assemble(pages)
toy = found.cells[found.cells["paper"] == "toy"]
held = found.relations[(found.relations["paper"] == "toy") & (found.relations["table"] == "2")]
print(json.dumps({
    "verdicts": [list(line) for line in toy[["table", "row", "metric", "verdict"]].to_numpy()],
    "relations": [list(line) for line in held[["better", "worse", "verdict"]].to_numpy()]}))
open(sys.argv[1], "w", encoding="utf-8").write(report.whole(pages, {"Command": "toy"}))
"""


def rewritten(path: Path, more: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + more, encoding="utf-8")


@pytest.fixture(scope="module")
def with_toy(tmp_path_factory):
    """A copy of the package in which only data files were edited."""
    package = tmp_path_factory.mktemp("copy") / "papers_check"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("findings", "__pycache__"))
    rewritten(package / "papers.toml", TOY)
    rewritten(package / "methods.csv", METHODS)
    rewritten(package / "readings.csv", "toy,2,without ears,one,deaf\ntoy,2,without ears,other,blind\n")
    (package / "reported" / "toy.csv").write_text(CELLS)
    columns = pd.read_csv(package / "claims" / "amsgfn.csv", nrows=0).columns
    pd.DataFrame([CLAIM], columns=columns).to_csv(package / "claims" / "toy.csv", index=False)
    return package


def python(package: Path, *arguments: str) -> str:
    env = os.environ | {"PYTHONPATH": str(package.parent), "PYTHONSAFEPATH": "1"}
    done = subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, cwd=package.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_third_paper_is_checked_from_data_alone(with_toy):
    python(with_toy, "-m", "papers_check", "--json", "found.json")
    found = {line["id"]: line for line in json.loads((with_toy.parent / "found.json").read_text(encoding="utf-8"))}
    assert found["toy-claim-gain"]["computed"].startswith("0.880 - 0.700 = 0.180; printed 0.5")
    assert "toy-arithmetic-out-of-range-table1-mosi-toynet-acc-7" in found
    assert any("TOYNET Table 1, CMU-MOSI, row TFN" in line for line in found["both-conflict-two-values"]["instances"])
    assert "TOYNET" in found["toy-conflict-stronger-baselines"]["quote"]
    assert all(line["innocent_reading"] and line["severity"] for line in found.values())


def test_a_third_paper_is_judged_and_reported_from_data_alone(with_toy):
    out = json.loads(python(with_toy, "-c", JUDGE, "report.html"))
    words = {(table, row): word for table, row, metric, word in out["verdicts"] if metric == "mae"}
    assert words["1", "TOYNET"] in ("compatible", "reproduced")
    assert words["1", "TFN"] == "not attempted"
    assert ["TOYNET", "without ears, read as reading one, deaf", "holds"] in out["relations"]
    page = (with_toy.parent / "report.html").read_text(encoding="utf-8")
    assert "AMSGFN, DSRF and TOYNET" in page
    assert "TOYNET Table 1, CMU-MOSI" in page
    assert "better by 0.5" in page


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("methods.csv", "toy,Extra,rival,tfn,TFN\n", "one of own, baseline, modalities, component"),
        ("methods.csv", "toy,TFN,baseline,tfn,TFN\n", "row 'TFN' twice"),
        ("methods.csv", "tou,TFN,baseline,tfn,TFN\n", "a paper 'tou': expected one of amsgfn, dsrf, toy"),
        (
            "reported/toy.csv",
            "toy,1,mosi,Unknown,mae,,0.9,3,\n",
            "row 'Unknown': expected a line for it in methods.csv",
        ),
        ("reported/toy.csv", "toy,7,mosi,TFN,mae,,0.9,3,\n", "table '7': expected a table of that paper"),
        ("readings.csv", "toy,2,without ears,one,mute\n", "a label for each reading, named once"),
        (
            "papers.toml",
            'x = 1\n[papers.p]\ntitle="P"\nbest="."\ntables={1="rank"}\n',
            "one of sizes, results, ablation",
        ),
    ],
)
def test_wrong_data_of_a_paper_is_refused_in_one_sentence(with_toy, tmp_path, name, more, message):
    package = tmp_path / "papers_check"
    shutil.copytree(with_toy, package, ignore=shutil.ignore_patterns("__pycache__"))
    rewritten(package / name, more)
    code = "from papers_check.printed import cells, papers; cells.load_reported(); papers.readings('toy', 2)"
    env = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode
    assert message in done.stderr.splitlines()[-1]


def test_every_line_of_the_data_is_used():
    printed = {tuple(key) for key in load_reported()[["paper", "row"]].to_numpy()}
    assert set(papers.METHODS) <= printed
    tables = set(map(tuple, load_reported()[["paper", "table"]].drop_duplicates().to_numpy()))
    assert set(papers.TABLES) == tables
    for paper, table in papers.TABLES:
        rows = set(load_reported(paper, table)["row"])
        assert set(papers.readings(paper, table)) <= rows
        if papers.TABLES[paper, table] != "sizes":
            assert sum(papers.is_own(paper, row) for row in rows) == 1
