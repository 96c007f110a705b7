"""The printed numbers as data, and the tables that put ours next to them."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from papers_check import COLUMNS, load_reported
from papers_check.judge.side_by_side import SIDE_COLUMNS, side_by_side, wide
from papers_check.show.plain_text import as_text

PAPERS = Path(__file__).resolve().parents[1].parent / "shared" / "papers"
KEY = ["paper", "table", "dataset", "row", "metric", "side"]

# rows x printed numbers per row; a slash cell counts twice
COUNTS = {
    ("amsgfn", "1", "mosi"): 1 * 4,
    ("amsgfn", "1", "mosei"): 1 * 4,
    ("amsgfn", "1", "sims"): 1 * 4,
    ("amsgfn", "2", "mosi"): 14 * 7,
    ("amsgfn", "3", "mosei"): 14 * 7,
    ("amsgfn", "4", "sims"): 9 * 5,
    ("amsgfn", "5", "mosei"): 7 * 6,
    ("amsgfn", "6", "mosei"): 7 * 4,
    ("dsrf", "1", "mosi"): 12 * 7,
    ("dsrf", "1", "mosei"): 12 * 7,
    ("dsrf", "2", "sims"): 10 * 6,
    ("dsrf", "2", "simsv2"): 10 * 6,
    ("dsrf", "3", "mosi"): 7 * 7,
}


# --- the cells ------------------------------------------------------------------------------------------------------


def test_counts_per_table():
    assert load_reported().groupby(KEY[:3]).size().to_dict() == COUNTS


@pytest.mark.parametrize(
    ("where", "value", "decimals", "marker"),
    [
        ("amsgfn 1 mosei CMU-MOSEI train", "16,326", "0", ""),
        ("amsgfn 2 mosi TFN acc2 has0", "", "", ""),
        ("amsgfn 2 mosi TFN acc2 non0", "80.80", "2", ""),
        ("amsgfn 2 mosi MMIM acc2 has0", "83.32", "2", ""),
        ("amsgfn 2 mosi MMIM acc2 non0", "85.79", "2", ""),
        ("amsgfn 2 mosi DIB corr", "0.800", "3", ""),
        ("amsgfn 3 mosei DMD mae", "", "", ""),
        ("amsgfn 3 mosei MIM mae", "0.779", "3", ""),
        ("amsgfn 4 sims MMIM corr", "0.59", "2", ""),
        ("amsgfn 5 mosei V+A f1 non0", "61.51", "2", ""),
        ("amsgfn 6 mosei w/o DMGF acc2 has0", "80.12", "2", ""),
        ("dsrf 1 mosi MSG f1 has0", "", "", ""),
        ("dsrf 1 mosi MSG f1 non0", "85.6", "1", ""),
        ("dsrf 1 mosi TFN mae", "0.947", "3", "†"),
        ("dsrf 1 mosei MISA acc7", "", "", "†"),
        ("dsrf 1 mosei DTN f1 non0", "85.5", "1", "*"),
        ("dsrf 2 sims TFN acc5", "39.3", "1", "†"),
        ("dsrf 2 simsv2 DSRF (Ours) f1", "80.04", "2", ""),
        ("dsrf 2 simsv2 MuT acc2", "79.3", "1", "*"),
        ("dsrf 3 mosi w/o Visual corr", "0.811", "3", ""),
    ],
)
def test_cells_checked_by_eye(where, value, decimals, marker):
    cells = load_reported()
    names = cells[KEY].agg(" ".join, axis=1).str.strip()
    assert cells[names == where][["value", "decimals", "marker"]].values.tolist() == [[value, decimals, marker]]


def test_schema():
    cells = load_reported()
    assert tuple(cells.columns) == COLUMNS
    assert cells.map(lambda cell: type(cell) is str).all(axis=None)
    assert not cells.duplicated(KEY).any()
    assert set(cells["dataset"]) == {"mosi", "mosei", "sims", "simsv2"}
    assert set(cells["side"]) == {"", "has0", "non0"}
    assert set(cells["marker"]) == {"", "†", "*"}
    statistics = cells["metric"].isin(["train", "valid", "test", "total"])
    assert (statistics == ((cells["paper"] == "amsgfn") & (cells["table"] == "1"))).all()
    assert set(cells[~statistics]["metric"]) == {"acc2", "acc3", "acc5", "acc7", "f1", "mae", "corr"}
    # A slash separates with and without the zero labels, which only MOSI and MOSEI have.
    sided = cells["metric"].isin(["acc2", "f1"]) & cells["dataset"].isin(["mosi", "mosei"])
    assert ((cells["side"] != "") == sided).all()


def test_values_and_decimals_agree():
    for value, decimals in load_reported()[["value", "decimals"]].itertuples(index=False):
        assert re.fullmatch(r"(\d+(,\d{3})*(\.\d+)?)?", value)
        assert decimals == (str(len(value.partition(".")[2])) if value else "")


def test_load_reported_narrows_and_explains():
    assert len(load_reported("amsgfn")) + len(load_reported("dsrf")) == len(load_reported())
    assert load_reported("dsrf", 3).equals(load_reported("dsrf", "3"))
    assert set(load_reported(table=2)["paper"]) == {"amsgfn", "dsrf"}
    with pytest.raises(ValueError, match=r"unknown paper 'dsfr': expected one of amsgfn, dsrf"):
        load_reported("dsfr")
    with pytest.raises(ValueError, match=r"unknown table '4' of dsrf: expected one of 1, 2, 3"):
        load_reported("dsrf", 4)


# --- the papers, read again -----------------------------------------------------------------------------------------

METRICS = {"acc-2": "acc2", "acc-5": "acc5", "acc-7": "acc7", "acc₂": "acc2", "acc₃": "acc3", "acc₅": "acc5"}
METRICS |= {"acc₇": "acc7", "f1": "f1", "mae": "mae", "cor": "corr", "corr": "corr"}
METRICS |= {name: name for name in ("train", "valid", "test", "total")}
DATASETS = {"MOSI": "mosi", "MOSEI": "mosei", "SIMS": "sims", "SIMSv2": "simsv2"}


def metric_names(header):
    return [METRICS[re.sub(r"[\s↑↓]", "", cell).lower()] for cell in header if cell]


def tabbed_blocks(text):
    """Runs of tab-separated lines, each with the text before it and after it."""
    parts = re.split(r"((?:^[^\n]*\t[^\n]*\n)+)", text, flags=re.M)
    return [(parts[k - 1], parts[k].splitlines(), parts[k + 1]) for k in range(1, len(parts), 2)]


def parse_cells(paper, text):
    """{key: (value, marker)} read from the paper's text; shares no code with what wrote the CSV files."""
    found = {}
    for before, lines, after in tabbed_blocks(text):
        grid = [line.split("\t") for line in lines]
        captions = re.findall(r"Table (\d)[.:]", before[-200:])
        if paper == "amsgfn":
            table = captions[-1]
            caption = re.findall(rf"\*\*Table {table}\.\*\* (?!Continued)(.*)", text)[0]
            if grid[0][0] in ("Model", "DataSets"):
                columns = metric_names(grid.pop(0)[1:])
            sets = re.findall(r"(?:CMU|CH)-(MOSEI|MOSI|SIMS)", caption) or [None]
        else:
            # Tables 1 and 2 have their caption below, table 3 above.
            table = captions[-1] if captions else re.search(r"Table (\d)[.:]", after)[1]
            sets = re.findall(r"(\w+) Dataset", lines[0]) or ["MOSI"]
            columns = metric_names(grid[1])[: len(metric_names(grid[1])) // len(sets)]
            grid = grid[2:]
        for name, *cells in grid:
            if not any(cells):
                continue  # a heading inside the table
            marker = "".join(re.findall("[†*]", name))
            row = re.sub(r"\s+[A-Z][\w]*( et al\.| & \w+) \(\d{4}\w?\).*", "", name).strip()
            assert len(cells) == len(sets) * len(columns)
            for place, cell in enumerate(cells):
                dataset = DATASETS[sets[place // len(columns)] or name.split("-")[1]]
                values = cell.split("/")
                for side, value in zip(["has0", "non0"] if len(values) == 2 else [""], values, strict=True):
                    key = (paper, table, dataset, row, columns[place % len(columns)], side)
                    assert key not in found
                    found[key] = (value.replace("-", ""), marker)
    return found


@pytest.mark.skipif(not PAPERS.is_dir(), reason="the papers' text is not at hand")
@pytest.mark.parametrize("paper", ["amsgfn", "dsrf"])
def test_reparse(paper):
    printed = parse_cells(paper, (PAPERS / f"{paper}.txt").read_text(encoding="utf-8"))
    cells = load_reported(paper)
    stored = {tuple(line[:6]): (line[6], line[8]) for line in cells.values.tolist()}
    assert {key: value for key, value in printed.items() if stored.get(key) != value} == {}
    assert {key: value for key, value in stored.items() if printed.get(key) != value} == {}
    # Same order, so that a table shown from the CSV reads like the printed one.
    for table in cells["table"].unique():
        for dataset in cells[cells["table"] == table]["dataset"].unique():
            wanted = [key for key in printed if key[1:3] == (table, dataset)]
            assert [key for key in stored if key[1:3] == (table, dataset)] == wanted


# --- printed next to ours -------------------------------------------------------------------------------------------


def mosi_cells(*names):
    cells = load_reported("amsgfn", 2)
    return cells[cells["row"].isin(names) & cells["metric"].isin(["acc2", "mae", "corr"])]


def row(label, seed, metric, value, status="done", split="test"):
    return {"label": label, "seed": seed, "split": split, "metric": metric, "value": value, "status": status}


def made_rows():
    rows = []
    for seed, (accuracy, mae) in enumerate([(0.84, 0.70), (0.85, 0.72)]):
        rows += [row("amsgfn", seed, "acc2_has0", accuracy), row("amsgfn", seed, "acc2_non0", accuracy + 0.02)]
        rows += [row("amsgfn", seed, "mae", mae), row("amsgfn", seed, "corr", [0.8, np.nan][seed])]
        rows += [row("amsgfn", seed, "mae", 0.1, split="valid")]
    # A failed run may have left numbers behind: they do not count.
    rows += [row("amsgfn", 2, "mae", 9.9, status="failed"), row("amsgfn", 2, "corr", np.nan, status="failed")]
    rows += [row("TFN", 0, "mae", 0.9), row("TFN", 0, "corr", -0.0001)]
    rows += [row("LMF", seed, "", np.nan, status="failed", split="") for seed in (0, 1, 2)]
    rows += [row("cenet", 0, "acc2_has0", 0.8)]
    return pd.DataFrame(rows)


@pytest.fixture
def side():
    return side_by_side(mosi_cells("TFN", "LMF", "DMD", "Our"), made_rows(), {"Our": "amsgfn", "Mult": "mult"})


def cell(side, name, metric, where=""):
    found = side[(side["row"] == name) & (side["metric"] == metric) & (side["side"] == where)]
    assert len(found) == 1
    return found.iloc[0]


def test_side_by_side_converts_ours_to_the_printed_unit(side):
    assert tuple(side.columns) == SIDE_COLUMNS
    ours = cell(side, "Our", "acc2", "has0")
    assert ours["printed"] == "84.35"
    assert (ours["ours"], ours["sd"]) == (pytest.approx(84.5), pytest.approx(np.sqrt(0.5)))
    assert (ours["n"], ours["failed"], ours["undefined"]) == (2, 1, 0)
    assert cell(side, "Our", "acc2", "non0")["ours"] == pytest.approx(86.5)
    assert cell(side, "Our", "mae")["ours"] == pytest.approx(0.71)  # test split only, failed run left out


def test_side_by_side_keeps_what_is_missing_visible(side):
    undefined = cell(side, "Our", "corr")
    assert (undefined["n"], undefined["undefined"], undefined["failed"]) == (1, 1, 1)
    one = cell(side, "TFN", "mae")
    assert (one["ours"], one["n"]) == (pytest.approx(0.9), 1)
    assert np.isnan(one["sd"])
    failed = cell(side, "LMF", "mae")
    assert (failed["n"], failed["failed"]) == (0, 3)
    assert np.isnan(failed["ours"])
    absent = cell(side, "DMD", "mae")
    assert (absent["printed"], absent["n"], absent["failed"]) == ("", 0, 0)
    extra = cell(side, "cenet", "acc2", "has0")
    assert (extra["printed"], extra["ours"]) == ("", pytest.approx(80))
    assert side["row"].unique().tolist() == ["TFN", "LMF", "DMD", "Our", "cenet"]
    assert len(side) == 5 * 4


def test_wide_and_as_text(side):
    table = wide(side)
    assert table.columns.tolist() == ["acc2 has0", "acc2 non0", "mae", "corr"]
    assert as_text(table[["acc2 has0", "mae"]]).splitlines() == [
        "row    acc2 has0                          mae",
        "-----  ---------------------------------  ----------------------------------",
        "TFN    – | –                              0.901 | 0.900 ± –",
        "LMF    – | failed 3/3                     0.917 | failed 3/3",
        "DMD    – | –                              – | –",
        "Our    84.35 | 84.50 ± 0.71 (failed 1/3)  0.699 | 0.710 ± 0.014 (failed 1/3)",
        "cenet  – | 80.00 ± –                      – | –",
    ]
    assert table["acc2 non0"]["Our"] == "86.27 | 86.50 ± 0.71 (failed 1/3)"
    assert table["corr"]["Our"] == "0.803 | 0.800 ± – (failed 1/3, undefined 1/3)"
    assert table["corr"]["TFN"] == "0.698 | 0.000 ± –"  # never -0.000


def test_as_text_of_any_frame():
    frame = pd.DataFrame({"name": ["a", None], "value": [0.1 + 0.2, np.nan], "count": [1, 20]})
    assert as_text(frame) == "name  value  count\n----  -----  -----\na     0.3    1\n–     –      20"
    assert as_text(pd.DataFrame({"a": []})) == "a\n-"


def test_decimals_come_from_the_column():
    cells = load_reported("dsrf", 2)
    cells = cells[(cells["dataset"] == "sims") & (cells["metric"] == "acc5")]
    side = side_by_side(cells, pd.DataFrame([row("TFN", seed, "acc5", 0.4) for seed in (1, 2)]))
    assert wide(side).loc["TFN", "acc5"] == "39.3 | 40.00 ± 0.00"


def test_no_runs_yet():
    side = side_by_side(mosi_cells("Our"), pd.DataFrame())
    assert wide(side).loc["Our", "mae"] == "0.699 | –"
    assert side["printed"].tolist() == mosi_cells("Our")["value"].tolist()


@pytest.mark.parametrize("paper", ["amsgfn", "dsrf"])
def test_every_printed_table_can_be_shown(paper):
    for _, cells in load_reported(paper).groupby(["table", "dataset"]):
        table = wide(side_by_side(cells, made_rows()))
        assert table.index[: cells["row"].nunique()].tolist() == cells["row"].unique().tolist()
        printed = table.map(lambda text: text.split(" | ")[0]).iloc[: cells["row"].nunique()].to_numpy().ravel()
        assert printed.tolist() == [value or "–" for value in cells["value"]]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([row("TFN", 0, "mae", 0.8)], r"'TFN' hold seed 0 twice"),
        ([row("TFN", 0, "", np.nan, status="failed")], r"'TFN' hold seed 0 twice"),
        ([row("TFN", 1, "acc2_has0", 84.0)], r"'TFN' have acc2_has0 = 84: expected a fraction"),
        ([row("TFN", 1, "mae", 0.8, status="running")], r"status 'running': expected done or failed"),
        ([row("Our", 1, "mae", 0.8)], r"row 'Our' has two lines for acc2"),
    ],
)
def test_rows_that_cannot_be_averaged(extra, message):
    rows = pd.concat([made_rows(), pd.DataFrame(extra)], ignore_index=True)
    with pytest.raises(ValueError, match=message):
        side_by_side(mosi_cells("TFN", "Our"), rows, {"Our": "amsgfn"})


def test_side_by_side_takes_one_table():
    with pytest.raises(ValueError, match=r"dsrf 1 mosei, dsrf 1 mosi: expected one paper, table and data set"):
        side_by_side(load_reported("dsrf", 1), made_rows())
    with pytest.raises(ValueError, match=r"result rows lack status: expected the columns"):
        side_by_side(mosi_cells("TFN"), made_rows().drop(columns="status"))


def test_papers_check_stands_alone():
    code = (
        "import importlib, pkgutil, sys, papers_check\n"
        "walk = pkgutil.walk_packages(papers_check.__path__, 'papers_check.')\n"
        "names = {module.name for module in walk} - {'papers_check.__main__'}\n"
        "assert {'papers_check.judge.side_by_side', 'papers_check.show.report'} <= names\n"
        "for name in sorted(names):\n"
        "    importlib.import_module(name)\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'msa_lib', 'transformers'}))"
    )
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
