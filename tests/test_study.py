"""The study's grid, the command line, the batch that executes notebooks, and the environment files."""

import ast
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from msa_lib import cli, runs, study
from msa_lib.data import load_dataset
from msa_lib.data.oracle import ceilings_on
from msa_lib.models import MODELS
from msa_lib.notebooks import declared_parameters
from msa_lib.study import batch, captions, pages
from msa_lib.train.stacked import unstackable
from papers_check import load_reported
from papers_check.judge.judged_tables import assemble, pages_from
from papers_check.printed import papers

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
SMOKE = "planted?train=48&valid=24&test=32"


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# ---------------------------------------------------------------------------------------------------- environment


def test_pins_cover_every_dependency_and_satisfy_its_range():
    from packaging.requirements import Requirement
    from packaging.version import Version

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            pins.setdefault(normal(requirement.name), []).append(Version(str(requirement.specifier)[2:]))
    wanted = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    for requirement in map(Requirement, wanted):
        versions = pins[normal(requirement.name)]
        assert all(version in requirement.specifier for version in versions), requirement
    assert pins["torch"][0] == Version("2.13.0")


def test_conda_environment_uses_the_same_pins_and_project():
    text = (ROOT / "environment.yml").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "--constraint constraints.txt" in text
    extras = re.search(r"--editable \.\[(.*)\]", text).group(1).split(",")
    assert set(extras) <= set(project["optional-dependencies"])
    assert f"-e '.[{','.join(extras)}]'" in (ROOT / "Makefile").read_text()
    python = re.search(r"python=(\d+)\.(\d+)", text).groups()
    assert tuple(map(int, python)) >= (3, 10)
    assert project["requires-python"] == ">=3.10"


def test_tests_run_on_the_pinned_versions():
    assert torch.__version__.split("+")[0] == "2.13.0"


# ----------------------------------------------------------------------------------------------------------- grid


def test_every_page_has_its_notebook_and_every_notebook_its_page():
    assert {path.stem for path in study.NOTEBOOKS.glob("*.ipynb")} == set(study.PAGES)


def test_a_page_that_can_train_is_told_to_by_yes_or_no():
    """`msa tables` passes train=True to every notebook that declares it."""
    declared = {path.stem: declared_parameters(path) for path in study.NOTEBOOKS.glob("*.ipynb")}
    assert {name for name, given in declared.items() if not isinstance(given.get("train", False), bool)} == set()
    assert sum("train" in given for given in declared.values()) > 5


@pytest.mark.parametrize("page", [name for name, page in study.PAGES.items() if page.table])
def test_printed_rows_of_ours_have_a_label_in_the_grid(page):
    table = study.PAGES[page]
    if table.table == 1:
        return
    printed = set(load_reported(table.paper, table.table)["row"])
    readings = papers.readings(table.paper, table.table)
    names = {"Our", "DSRF (Ours)", "DSRF (Full)"}
    ours = {"full" if row in names else row for row in printed} & set(table.rows)
    assert "full" in ours
    assert {label for reading in readings.values() for label in reading.values()} <= set(table.rows)
    if (table.paper, table.table) in (("amsgfn", 5), ("amsgfn", 6)):  # every printed row is one of ours
        assert len(ours) == len(printed)
    if (table.paper, table.table) == ("dsrf", 3):  # two rows are ambiguous: each reading is one of ours
        assert printed - names - ours == set(readings)


def test_under_every_table_on_planted_data_stands_what_could_be_reached_there():
    data, row = load_dataset(SMOKE), {"selection": "val_mae", "seed": 1111, "label": "full", "train": "{}"}
    rows = pd.DataFrame([row])
    told = study.caption(data, rows, "smoke", "COMMAND", "amsgfn_table2_mosi").splitlines()
    (line,) = [number for number, text in enumerate(told) if text.startswith("Reachable there: MAE of an oracle")]
    numbers = [float(text) for text in told[line + 3].split()]
    expected = [ceilings_on(data)[level].mean() for level in ("nothing", "dominant alone", "no cue", "cue", "truth")]
    assert numbers == pytest.approx(expected, abs=6e-4)
    real = replace(data, synthetic=False)
    assert "Reachable" not in study.caption(real, rows, "smoke", "COMMAND", "amsgfn_table2_mosi")
    for name, page in study.PAGES.items():  # no page with a table of rows goes without
        text = (study.NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8")
        assert "caption(" in text or not (page.rows and (page.table or page.on_demand))


def test_runs_of_leaves_out_what_the_data_cannot_have():
    data = load_dataset(SMOKE)
    labels = {r.label for r in study.runs_of("amsgfn_table6_components", SMOKE, None, data, 1, "smoke")}
    assert "oracle dominant" in labels
    few = study.first_samples(data, 8)
    silent = few.train.lengths.clone()
    silent[:, 1:] = 0

    split = replace(few.train, lengths=silent, truth={}, host_lengths=None)
    text_only = replace(few, train=split, valid=split, test=split, fingerprint="")
    wanted = study.runs_of("amsgfn_table5_modalities", SMOKE, None, text_only, 1, "smoke")
    assert {r.label for r in wanted} == {"T", "full", "ridge T", "ridge full", "label mean"} - {"ridge full"}
    labels = {r.label for r in study.runs_of("amsgfn_table6_components", SMOKE, None, text_only, 1, "smoke")}
    assert "oracle dominant" not in labels
    assert "v-oriented" not in labels


def test_seeds_and_scales():
    data = load_dataset(SMOKE)
    wanted = study.runs_of("amsgfn_table2_mosi", SMOKE, None, data, 3, "quick")
    assert [r.seed for r in wanted if r.label == "full"] == [1111, 1112, 1113]
    assert sum(r.label == "ridge" for r in wanted) == 1
    with pytest.raises(ValueError, match="smoke, quick, full"):
        study.runs_of("sanity", SMOKE, None, data, 1, "huge")


@pytest.mark.parametrize(
    ("page", "data", "expected"),
    [
        ("amsgfn_table4_sims", "planted", "planted-sims?train=400&valid=200&test=400&steps=39,100,55"),
        ("amsgfn_table4_sims", "planted-mosi", "planted-mosi?train=400&valid=200&test=400"),
        ("amsgfn_table4_sims", "planted?cue=hidden", "planted?cue=hidden"),
    ],
)
def test_data_of_planted_names(page, data, expected):
    assert study.data_of(page, data, "quick") == (expected, None)


def test_data_of_paths(tmp_path):
    (tmp_path / "x.npz").touch()
    assert study.data_of("sanity", f"{tmp_path}/x.npz?split=s", "full") == (f"{tmp_path}/x.npz?split=s", None)
    assert study.data_of("amsgfn_table3_mosei", str(tmp_path), "full") == ("mosei", str(tmp_path))


def test_a_table_of_two_data_sets_has_a_second():
    page = "dsrf_table1_mosi_mosei"
    assert study.places(page, "planted", "smoke")[0]["mosei"] == ("planted-mosei?train=48&valid=24&test=32", None)
    assert list(study.places(page, "planted-mosi", "quick")[0]) == ["mosi"]  # one data set was asked for
    assert list(study.places(page, "planted?cue=hidden", "quick")[0]) == ["mosi"]
    assert list(study.places("amsgfn_table2_mosi", "planted", "quick")[0]) == ["mosi"]


def test_the_second_real_data_set_may_be_missing(tmp_path):
    assert study.data_of("dsrf_table2_sims_simsv2", str(tmp_path), "full") == ("sims", str(tmp_path))
    assert not study.places("dsrf_table2_sims_simsv2", str(tmp_path), "full")[0]


def test_full_scale_takes_what_the_paper_states():
    page, data = "dsrf_table2_sims_simsv2", load_dataset("planted-sims?train=24&valid=12&test=12")
    wanted = {r.label: r for r in study.runs_of(page, "planted-sims", None, data, 1, "full") if r.model == "dsrf"}
    assert wanted["full"].switches == {"d": 64}
    assert wanted["full"].train == {"batch_size": 32, "lr": 1e-5, "lr_encoder": 1e-5, "weight_decay": 1e-2}
    assert wanted["full, lr 1e-3"].train == wanted["full"].train | {"lr": 1e-3}
    quick = {r.label for r in study.runs_of(page, "planted-sims", None, data, 1, "quick")}
    assert "full, lr 1e-3" not in quick  # that is the rate of the scale anyway
    ablation = [{r.label for r in study.runs_of("dsrf_table3_ablation", SMOKE, None, data, 1, scale)}
                for scale in ("quick", "full")]  # fmt: skip
    assert ablation[1] - ablation[0] == {*pages.ABLATION_DETAIL, *pages.ADAM}


def test_beside_baselines_no_network_is_larger_than_the_smallest_sensible_one():
    data = load_dataset(SMOKE)
    for name, page in pages.PAGES.items():
        for run in study.runs_of(name, SMOKE, None, data, 1, "quick") if page.rows else ():
            small = run.model in MODELS and run.switches.items() >= dict(MODELS[run.model].SMALL).items()
            if page.beside_baselines and run.model in MODELS:
                assert small != run.label.endswith(" (larger)"), (name, run.label)
            elif run.model in ("amsgfn", "dsrf"):
                assert run.switches["d"] == 32, (name, run.label)


def test_the_larger_rows_are_those_of_the_pages_without_baselines():
    data = load_dataset(SMOKE)

    def rows(page, scale="quick"):
        return {run.label: run for run in study.runs_of(page, SMOKE, None, data, 1, scale)}

    wide, alone = rows("dsrf_table1_mosi_mosei")["full (larger)"], rows("dsrf_table3_ablation")["full"]
    assert (wide.model, dict(wide.switches), wide.train) == (alone.model, dict(alone.switches), alone.train)
    for scale in ("smoke", "full"):  # where a model has one size
        assert not [label for label in rows("dsrf_table1_mosi_mosei", scale) if label.endswith(" (larger)")]


def test_split_sizes_from_label_tables(tmp_path):
    table = pd.DataFrame({"label": [0.5, -1.0, 0.0, 2.0], "split": ["train", "train", "val", "test"]})
    table.to_csv(tmp_path / "mosi.csv", index=False)
    assert study.split_sizes("", labels=str(tmp_path)).loc["mosi"].tolist() == [2, 1, 1, 4]
    assert sorted(study.split_labels("", labels=str(tmp_path))["mosi"]) == [-1.0, 0.0, 0.5, 2.0]


# --------------------------------------------------------------------------------------------------- command line


def test_assignments():
    assert cli.assignments(["pos=none"]) == {"pos": "none"}  # a choice, not a missing value
    values = cli.assignments(["alpha=0.1", "select=fixed:t", "tb=false", "pair_weights=(1.0,2.0,3.0)", "d=16"])
    assert values == {"alpha": 0.1, "select": "fixed:t", "tb": False, "pair_weights": (1.0, 2.0, 3.0), "d": 16}
    with pytest.raises(ValueError, match="NAME=VALUE"):
        cli.assignments(["alpha"])


def test_run_collect_and_their_json(tmp_path, capsys):
    store, out = str(tmp_path / "runs"), tmp_path / "out.json"
    words = ["run", "--model", "amsgfn", "--data", SMOKE, "--seeds", "1111", "1112", "--epochs", "1", "--store", store]
    words += ["--set", "d=16", "heads=2", "n_layers=1", "lr=1e-3", "--json", str(out)]
    assert cli.main(words) == 0
    assert "synthetic data" in capsys.readouterr().out
    rows = json.loads(out.read_text())
    assert {row["seed"] for row in rows} == {1111, 1112}
    assert cli.main(["collect", "--store", store, "--csv", str(tmp_path / "rows.csv"), "--json", str(out)]) == 0
    assert len(pd.read_csv(tmp_path / "rows.csv")) == len(json.loads(out.read_text())) == len(rows)
    assert "2 runs" in capsys.readouterr().out


def test_mistakes_end_in_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for words, hint in [
        (["run", "--model", "amsgnf"], "amsgfn"),
        (["run", "--model", "amsgfn", "--set", "slect=hard"], "select"),
        (["run", "--model", "amsgfn", "--set", "epochs=many"], "integer"),
        (["run", "--model", "ridge", "--data", "nothing.npz"], "planted"),
        (["run", "--model", "amsgfn", "--data", SMOKE, "--device", "cuda"], "CUDA"),
        (["tables", "amsgfn_tabel2"], "amsgfn_table2_mosi"),
        (["tables", "sanity", "--scale", "huge"], "smoke"),
    ]:
        assert cli.main([*words, "--store", str(tmp_path)]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("msa: ")
        assert hint in error


def test_switches_are_listed(capsys):
    assert cli.main(["run", "--model", "amsgfn", "--switches"]) == 0
    listed = capsys.readouterr().out
    assert "n_layers = 3  (an integer)\n      the paper's second N (2.5.2)\n" in listed
    assert "selection = 'val_mae'  (one of 'val_mae', 'val_loss'" in listed
    assert cli.main(["run", "--model", "amsgnf", "--switches"]) == 2
    assert "expected one of amsgfn, dsrf" in capsys.readouterr().err


def test_a_reference_takes_no_training_setting_and_no_seed(tmp_path, capsys):
    words = ["run", "--model", "ridge", "--data", SMOKE, "--store", str(tmp_path)]
    assert cli.main([*words, "--epochs", "3"]) == 2
    assert "No ridge switch 'epochs'" in capsys.readouterr().err
    assert cli.main([*words, "--seeds", "1111", "1112"]) == 0
    assert "ridge does not depend on a seed: it runs once." in capsys.readouterr().err


def test_data_pack_and_check(tmp_path, capsys):
    assert cli.main(["data", "pack", SMOKE, str(tmp_path / "p")]) == 0
    assert load_dataset(str(tmp_path / "p")).fingerprint == load_dataset(SMOKE).fingerprint
    assert cli.main(["data", "check", str(tmp_path / "p"), "--json", str(tmp_path / "c.json")]) in (0, 1)
    assert json.loads((tmp_path / "c.json").read_text())["problems"] is not None
    capsys.readouterr()


# ---------------------------------------------------------------------------------------------------------- batch


def test_one_page_through_the_batch(tmp_path):
    name = "amsgfn_table5_modalities"
    (outcome,) = batch.execute_pages([name], "planted", 2, "smoke", tmp_path, jobs=1)
    assert outcome["status"] == "done"
    content = json.loads((tmp_path / f"notebooks/{name}.json").read_text())["content"]
    (own,) = [c for c in content["cells"] if c["row"] == "Our" and c["metric"] == "mae"]
    assert (own["reported"], own["n"]) == ("0.528", 2)
    assert "With 2 seeds nothing is decided" in content["answer"]
    trained = pd.DataFrame(content["rows"]).query("label == 'full' and split == 'test' and metric == 'mae'")
    assert np.isclose(own["mean"], trained["value"].mean())
    stored = pd.read_csv(tmp_path / "rows.csv")
    assert set(trained["run"]) <= set(stored["run"])  # trained here, not read from the reference run
    page = (tmp_path / f"notebooks/{name}.html").read_text()
    assert "SYNTHETIC" in page
    assert "printed | ours" in page
    assert "http://" not in page
    assert "https://" not in page
    assert f"{name}.html" in (tmp_path / "index.html").read_text()


def test_a_page_of_stacked_seeds_shows_the_runs_that_were_trained(tmp_path, capsys):
    name = "amsgfn_table5_modalities"
    amount = ["--seeds", "2", "--scale", "smoke", "--store", str(tmp_path)]
    assert cli.main(["tables", name, *amount, "--stack", "2", "--jobs", "1"]) == 0
    assert "Not stacked" not in capsys.readouterr().err  # every row of this page can be
    stored = pd.read_csv(tmp_path / "rows.csv")
    networks = stored[stored["model"] == "amsgfn"].drop_duplicates("run")
    assert {tuple(json.loads(text)["stack"]) for text in networks["train"]} == {(1111, 1112)}
    content = json.loads((tmp_path / f"notebooks/{name}.json").read_text())["content"]
    assert {row["run"] for row in content["rows"]} == set(stored["run"])  # the page has trained none of its own
    page = (tmp_path / f"notebooks/{name}.html").read_text()
    assert "Seeds trained at most 2 at once: other runs than seed by seed." in page
    for text in (page, (tmp_path / "index.html").read_text()):
        assert "--seeds 2 --scale smoke --stack 2" in text

    def rows(**how) -> int:
        tables = study.table_rows("planted", 2, "smoke", tmp_path, **how)
        (table,) = [table for table in tables if (table["paper"], table["table"]) == ("amsgfn", 5)]
        return table["rows"]["model"].eq("amsgfn").sum() if len(table["rows"]) else 0

    assert rows(stack=2) > 0
    assert rows() == rows(stack=1) == 0  # other runs, which are not there
    assert cli.main(["check", *amount, "--stack", "2", "--json", str(tmp_path / "c.json")]) == 0
    cells = pd.DataFrame(json.loads((tmp_path / "c.json").read_text())["cells"])
    assert cells.query("paper == 'amsgfn' and table == '5'")["n"].max() == 2


def test_rows_that_cannot_be_stacked_are_named_once_and_train_as_ever(tmp_path, monkeypatch, capsys):
    asked = []

    def stopped(runs, *_):
        asked.extend(runs)
        raise KeyboardInterrupt

    monkeypatch.setattr(batch, "grid", stopped)
    pages = ["baselines", "amsgfn_table2_mosi"]
    with pytest.raises(KeyboardInterrupt):
        batch.execute_pages(pages, "planted", 3, "smoke", tmp_path, stack=2)
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Not stacked")]
    named = said.rstrip(".").partition(": ")[2].split(", ")
    can = [model for model in MODELS if not unstackable(model)]
    assert sorted(named) == sorted(set(MODELS) - set(can))
    stacks = {(run.model, run.seed): run.train.get("stack") for run in asked if run.model in MODELS}
    assert stacks == {
        (model, seed): stack if model in can else None
        for model in MODELS
        for seed, stack in ((1111, (1111, 1112)), (1112, (1111, 1112)), (1113, (1113,)))
    }
    data = load_dataset(SMOKE)
    usual = study.runs_of("baselines", SMOKE, None, data, 2, "smoke")
    assert usual == study.runs_of("baselines", SMOKE, None, data, 2, "smoke", stack=0)
    assert not any("stack" in run.train for run in usual)


def test_a_caption_says_which_seeds_trained_at_once():
    def line(*stacks) -> list[str]:
        rows = [{"label": f"row {i}", "train": json.dumps({"stack": stack})} for i, stack in enumerate(stacks)]
        return captions.at_once(pd.DataFrame(rows, columns=["label", "train"]))

    assert line() == line([], []) == []
    (mixed,) = line([1111, 1112], [], [1113])
    assert mixed == "Seeds trained at most 2 at once: other runs than seed by seed. Trained seed by seed: row 1."


def test_every_page_of_rows_can_be_told_of_stacks():
    """What `msa tables --stack` trains is what its notebooks have to ask for."""
    declared = {path.stem: declared_parameters(path) for path in study.NOTEBOOKS.glob("*.ipynb")}
    told = {name for name, given in declared.items() if given.get("stack") == 0}
    assert told == {name for name, page in study.PAGES.items() if page.rows or page.whole}
    for name in told:
        cells = json.loads((study.NOTEBOOKS / f"{name}.ipynb").read_text())["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        uses = [node for text in code for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
        given = [
            call.func.attr
            for call in uses
            if isinstance(call.func, ast.Attribute) and "stack" in map(ast.unparse, [*call.args, *values(call)])
        ]
        starred = "rest = root, seeds, scale, train, store, jobs, device, stack" in "\n".join(code)
        assert starred or {"shown", "runs_of", "every_table"} & set(given), name


def values(call: ast.Call) -> list[ast.expr]:
    return [keyword.value for keyword in call.keywords]


def test_plain_papermill_runs_a_notebook_on_a_path(tmp_path):
    from msa_lib.data import pack

    pack.pack(load_dataset(SMOKE), tmp_path / "mine")
    source, out = study.NOTEBOOKS / "figure_modality_contributions.ipynb", tmp_path / "out.ipynb"
    command = [sys.executable, "-m", "papermill", str(source), str(out), "-p", "dataset", str(tmp_path / "mine")]
    command += ["-p", "scale", "smoke", "-p", "seeds", "1"]
    subprocess.run([*command, "--no-progress-bar", "-k", "python3"], check=True, capture_output=True, cwd=tmp_path)
    assert "Trained here. The reference run" in out.read_text()


def test_library_does_not_know_the_printed_numbers():
    code = "import sys, msa_lib.runs, msa_lib.train, msa_lib.cli; print('papers_check' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
    assert Path("runs") == runs.STORE


# --------------------------------------------------------------------------------------------- the study and the papers


@pytest.fixture(scope="module")
def small_store(tmp_path_factory) -> Path:
    """The runs of two pages at smoke scale, five seeds."""
    store = tmp_path_factory.mktemp("store")
    for page in ("amsgfn_table5_modalities", "dsrf_table3_ablation"):
        name, root = study.data_of(page, "planted", "smoke")
        few = [r for r in study.runs_of(page, name, root, load_dataset(name), 5, "smoke")
               if r.label in ("full", "T", "no_usf", "ridge")]  # fmt: skip
        runs.grid(few, store)
    return store


def test_rows_of_every_printed_table(small_store):
    tables = {(t["paper"], t["table"]): t for t in study.table_rows("planted", 5, "smoke", small_store)}
    assert set(tables) == {("amsgfn", n) for n in range(2, 7)} | {("dsrf", n) for n in range(1, 4)}
    table = tables["dsrf", 3]
    assert table["data"] == {"mosi": ("planted-mosi?train=48&valid=24&test=32", True, 32)}
    assert set(table["rows"]["label"]) == {"full", "no_usf", "ridge"}
    assert table["rows"]["seed"].nunique() == 6  # ridge has seed 0
    assert tables["amsgfn", 3]["rows"]["label"].unique().tolist() == ["full"]  # the run of Table 5 serves Table 3 too
    assert set(tables["dsrf", 2]["data"]) == {"sims", "simsv2"}
    assert tables["amsgfn", 4]["rows"].empty


def test_printed_cells_are_joined_to_the_rows(small_store):
    joined = assemble(pages_from(study.table_rows("planted", 5, "smoke", small_store)))
    own = joined.cells.query("paper == 'dsrf' and table == '3' and row == 'DSRF (Full)' and metric == 'mae'")
    assert own["n"].item() == 5
    assert own["verdict"].item() == "not comparable: synthetic"
    readings = joined.cells.query("paper == 'dsrf' and printed_row == 'w/o SFR' and metric == 'mae'")
    assert readings["n"].tolist() == [0, 5, 0]  # reading B is no_usf
    mae = joined.cells.query("paper == 'dsrf' and table == '1' and dataset == 'mosi' and metric == 'mae'").set_index(
        "row"
    )
    absent = [row for row in mae.index if mae.loc[row, "label"] not in study.PAGES["dsrf_table1_mosi_mosei"].rows]
    assert all("not built" in mae.loc[row, "reason"] for row in absent if row != "DSRF (Ours)")
    assert mae.loc["TFN", "label"] == "tfn"
    assert "not built" not in mae.loc["TFN", "reason"]
    relation = joined.relations.query("paper == 'amsgfn' and table == '5' and worse == 'T' and metric == 'mae'")
    assert relation["verdict"].item() in ("holds", "undecided", "reversed")
    assert relation["scope"].item() == "synthetic data"


def test_msa_check_writes_what_it_found(small_store, tmp_path, capsys):
    options = ["--scale", "smoke", "--seeds", "5", "--store", str(small_store)]
    assert cli.main(["check", *options, "--json", str(tmp_path / "c.json"), "--html", str(tmp_path / "r.html")]) == 0
    found = json.loads((tmp_path / "c.json").read_text())
    assert len(found["cells"]) > 660  # all printed cells, ambiguous rows once per reading
    assert "<h1>" in (tmp_path / "r.html").read_text()
    assert "not comparable: synthetic" in capsys.readouterr().out
    assert cli.main(["check", "--scale", "smoke", "--store", str(tmp_path / "empty")]) == 0
    assert "no two rows of a table have runs" in capsys.readouterr().out
    assert cli.main(["check", "--data", str(tmp_path / "nothing.npz")]) == 2
    assert "No data set" in capsys.readouterr().err


def test_real_data_are_judged_only_as_what_they_are(monkeypatch):

    planted = load_dataset("planted?train=8&valid=4&test=686")
    real, few = replace(planted, synthetic=False, name="/some/where/mosi.npz"), study.first_samples(planted, 8)
    text = replace(real.train, lengths=real.train.lengths * torch.tensor([1, 0, 0]), host_lengths=None)
    assert study.not_judged_because("mosi", planted, "smoke") == ""
    assert study.not_judged_because("mosi", real, "full") == ""
    assert "full scale only" in study.not_judged_because("mosi", real, "quick")
    assert "mosi.npz has 686 test samples" in study.not_judged_because("mosei", real, "full")
    assert "lacks a modality" in study.not_judged_because("mosi", replace(real, train=text), "full")
    assert "has 8 test samples" in study.not_judged_because("mosi", replace(few, synthetic=False), "full")


def test_amounts():
    assert study.amount("planted-mosi", None, None) == (study.SCALES["quick"].seeds, "quick")
    assert study.amount("/some/file.npz", None, None) == (5, "full")
    assert study.amount("planted", 7, "smoke") == (7, "smoke")
    with pytest.raises(ValueError, match="smoke, quick, full"):
        study.amount("planted", None, "huge")
