"""The committed reference run: read as the store is, bound to the code and data it was made with."""

import gzip
import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest

from msa_lib import runs, study
from msa_lib.models import MODELS
from msa_lib.runs import Run
from msa_lib.runs.identity import dataset_of
from msa_lib.study import readme, reference_run, renewal

DATA = "planted?train=40&valid=16&test=24"
ABOUT = {
    "scale": "smoke",
    "first_seed": 1111,
    "seeds": 2,
    "baseline_seeds": "1",
    "pages": {"figure_routing": (2, 1), "multiverse": (1, 1)},
    "commit": "",
    "command": "msa reference",
    "date": "2026-01-02",
}


def asked(seeds: int = 2) -> list[Run]:
    small = MODELS["amsgfn"].SMALL
    train = {"epochs": 1, "batch_size": 16}
    networks = [Run("amsgfn", DATA, 1111 + k, small, train, label="full") for k in range(seeds)]
    return [*networks, Run("ridge", DATA, 0, {}, {}, label="ridge")]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    store, folder = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("reference")
    rows = runs.grid(asked(), store)
    assert reference_run.write(asked(), store, ABOUT, folder) == 3
    return store, folder, rows


@pytest.fixture
def changed(kept, tmp_path):
    """A copy of the reference run with one text of its lines replaced: (from, to) -> folder."""

    def change(old: str, new: str):
        for path in kept[1].iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        text = gzip.decompress((tmp_path / "rows.csv.gz").read_bytes()).decode()
        assert old in text
        (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(text.replace(old, new).encode()))
        return tmp_path

    return change


def test_rows_are_those_of_the_store(kept):
    _, folder, rows = kept
    found = reference_run.find(asked(), folder)
    shown = rows[~rows["metric"].str.contains("_[kn]$") & ((rows["split"] == "test") | (rows["metric"] == "mae"))]
    shown = shown[shown["split"].isin(["test", "valid"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(found.sort_values(["run", "split", "metric"], ignore_index=True)[shown.columns],
                                  shown.sort_values(["run", "split", "metric"], ignore_index=True))  # fmt: skip


def test_the_same_results_give_the_same_bytes(kept, tmp_path):
    store, folder, _ = kept
    reference_run.write(asked()[::-1], store, ABOUT, tmp_path)
    for name in ("rows.csv.gz", "meta.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_what_it_covers(kept):
    folder = kept[1]

    def covers(runs, scale="smoke", page="figure_routing", folder=folder):
        return reference_run.covers(page, runs, scale, folder)

    assert covers(asked())
    assert not covers(asked(), "quick")
    assert not covers(asked(3))
    assert covers(asked(1), page="multiverse")  # of which it has one seed
    assert not covers(asked(), page="multiverse")
    assert not covers(asked(1), page="selection")  # which it does not have
    assert not covers([replace(asked()[0], data="planted?train=41&valid=16&test=24")])
    assert not covers([replace(asked()[0], device="cuda")])
    assert not covers(asked(), folder=folder / "nothing")


def test_it_says_how_many_seeds_it_has(kept):
    assert "2 seeds, baselines 1;" in reference_run.said(folder=kept[1])
    assert "2 seeds, baselines 1;" in reference_run.said("figure_routing", kept[1])
    assert "(smoke scale, 1 seed; " in reference_run.said("multiverse", kept[1])
    assert reference_run.seeds_of("selection", kept[1]) == (0, 0)


def test_pages_have_the_seeds_that_they_ask_for(monkeypatch):
    pages = {
        "baselines": replace(study.PAGES["baselines"], baseline_seeds=3),
        "selection": replace(study.PAGES["selection"], kept_seeds=2),
    }
    monkeypatch.setattr(renewal, "PAGES", pages)
    assert renewal.about(4, "")["pages"] == {"baselines": (4, 3), "selection": (2, 2)}
    assert renewal.about(4, "")["baseline_seeds"] == "3"
    counted = pd.Series([run.label for run in renewal.wanted(4)]).value_counts()
    assert counted[["DSRF", "AMSGFN", "mult", "dsrf, test_oracle"]].tolist() == [4, 4, 3, 2]
    monkeypatch.setattr(renewal, "PAGES", {"baseline_choices": study.PAGES["baseline_choices"]})
    assert renewal.wanted(4) == []


def test_differences_are_sentences_with_the_command(kept, changed):
    content = {DATA: dataset_of(DATA, None).fingerprint}
    assert reference_run.differences(asked(3), content, kept[1]) == []  # a third seed is no difference
    (said,) = reference_run.differences(asked(), {DATA: "0" * 16}, kept[1])
    assert "other content of planted" in said
    (said,) = reference_run.differences([replace(asked()[0], switches={}, label="wide")], content, kept[1])
    assert said == "wide: not in the reference run."
    folder = changed(
        f"model {MODELS['amsgfn'].VERSION if hasattr(MODELS['amsgfn'], 'VERSION') else 1}, loop", "model 0, loop"
    )
    (said,) = reference_run.differences(asked(), content, folder)
    assert said.startswith("full: made with version model 0, loop")
    assert len(reference_run.find(asked(), folder)) > 0  # shown all the same
    assert set(reference_run.find(asked(), folder).query("label == 'full'")["selection"]) == {"val_mae"}


def test_failed_and_undefined_runs_stay_so(kept, changed):
    folder = changed(",done,,", ",failed,out of memory,")
    found = reference_run.find(asked(), folder)
    assert set(found["status"]) == {"failed"}
    assert found["value"].isna().all()


def test_a_missing_run_is_said_and_nothing_written(kept, tmp_path):
    with pytest.raises(ValueError, match="no finished run of full, seed 1113"):
        reference_run.write(asked(3), kept[0], ABOUT, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_tables_of_figures(tmp_path):
    frame = pd.DataFrame({"row": ["a", "b"], "value": [0.123456789, float("nan")], "n": [1, 2]})
    reference_run.write_tables("page", {"one": frame}, tmp_path)
    found = reference_run.tables("page", tmp_path)["one"]
    assert found["value"].tolist()[0] == 0.123457
    assert found["value"].isna().tolist() == [False, True]
    assert found[["row", "n"]].equals(frame[["row", "n"]])
    assert reference_run.tables("other", tmp_path) == {}


def test_a_page_says_where_its_rows_come_from(kept, tmp_path, monkeypatch):
    monkeypatch.setattr(study.shown.__globals__["reference_run"], "meta", lambda folder=None: {})
    page = study.shown("figure_modality_contributions", DATA, seeds=1, scale="smoke", store=str(tmp_path))
    assert page.source == "Trained here."
    assert page.where() == "on planted (synthetic) data (planted, 1 seed; a smoke run, numbers without meaning)"
    monkeypatch.undo()
    page = study.shown("figure_modality_contributions", DATA, seeds=1, scale="smoke", store=str(tmp_path))
    assert "does not have planted?train=40" in page.source
    page = study.shown("figure_modality_contributions", DATA, seeds=1, scale="smoke", train=True, store=str(tmp_path))
    assert page.source == "Trained here."


def test_one_command_renews_everything(tmp_path, monkeypatch):
    """With one page, one seed and smoke scale, in a folder of its own."""
    name, said = "figure_modality_contributions", []
    monkeypatch.setattr(renewal, "SCALE", "smoke")
    monkeypatch.setattr(renewal, "PAGES", {name: study.PAGES[name]})
    (tmp_path / "notebooks").mkdir()
    shutil.copy(study.NOTEBOOKS / f"{name}.ipynb", tmp_path / "notebooks")
    (tmp_path / "README.md").write_text("<!-- made: one -->\n<!-- end: one -->\n")
    monkeypatch.setattr(readme, "TABLES", {"one": lambda: "| made |"})
    renewal.renew(tmp_path / "runs", 1, 1, said.append, tmp_path)
    assert said[0] == "1 runs are the reference run."
    assert json.loads((tmp_path / "reference/meta.json").read_text())["seeds"] == 1
    assert len(reference_run.tables(name, tmp_path / "reference")["samples"]) == 32
    listed = (tmp_path / "figures/README.md").read_text()
    assert "SYNTHETIC (planted) data, planted-mosei" in listed
    for figure in ("contributions", "dominance_agreement"):
        assert "![Modality contributions (synthetic data)](contributions.png)" in listed
        assert (tmp_path / f"figures/{figure}.svg").exists()
    assert "| made |" in (tmp_path / "README.md").read_text()


def test_the_committed_run_is_of_todays_code_and_data():
    assert (found := renewal.stale()) == [], f"{' '.join(found)} `{reference_run.RENEW}` makes it again."


def test_the_readme_shows_what_the_reference_run_and_the_notebooks_say():
    for name in readme.FILES:
        text = (readme.ROOT / name).read_text(encoding="utf-8")
        assert readme.filled(text) == text, f"`{readme.COMMAND}` fills the tables of {name} in again"


def test_tables_of_the_readme(monkeypatch):
    monkeypatch.setattr(readme, "TABLES", {"one": lambda: "| new |"})
    text = "# T\n<!-- made: one -->\n| old |\n<!-- end: one -->\nrest\n"
    assert readme.filled(text) == text.replace("old", "new")
    with pytest.raises(ValueError, match="No table 'two'"):
        readme.filled(text.replace("one", "two"))
    with pytest.raises(ValueError, match="no table between"):
        readme.filled("# T\n")


def test_the_committed_run_is_small_and_synthetic():
    sizes = {path.name: path.stat().st_size for path in reference_run.FOLDER.iterdir()}
    assert sum(sizes.values()) < 1_000_000, sizes
    assert set(json.loads((reference_run.FOLDER / "meta.json").read_text())["data"]) <= {
        run.data for run in renewal.wanted(1)
    }
    text = gzip.decompress((reference_run.FOLDER / "rows.csv.gz").read_bytes()).decode()
    assert ",False," not in text
