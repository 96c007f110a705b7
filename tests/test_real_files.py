"""The main command on files shaped like the field's: what is there is used, what is missing said, nothing guessed."""

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import papermill
import pytest
from filelock import FileLock
from mmsa_files import SIMS, parts, write
from toy import DATA, SHORT, SMALL
from transformers import BertConfig, BertModel

from msa_lib import cli, runs, study
from msa_lib.data import REAL, encoders, load_dataset, pack, short_name
from msa_lib.notebooks import declared_parameters, read_result, write_result
from msa_lib.runs import Run, grid, grids, store
from msa_lib.study import batch, pages, tables
from msa_lib.train import fit
from papers_check.judge.judged_tables import assemble, pages_from, records
from papers_check.judge.verdicts import printed_cells

ROOT = Path(__file__).resolve().parent.parent
SMALL_SET = {"train": 40, "valid": 16, "test": 20}
WHOLE = {"mosi": 686, "mosei": 4659, "sims": 457, "simsv2": 1034}


def mmsa_file(root: Path, name: str, test: int = 20, **shapes) -> Path:
    return write(
        root / REAL[name][0], parts(0, SMALL_SET | {"test": test}, **(SIMS if "sims" in name else {}), **shapes)
    )


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> str:
    """A tiny BERT with random weights, by path."""
    folder = tmp_path_factory.mktemp("bert")
    config = BertConfig(vocab_size=1000, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    BertModel(config).save_pretrained(folder)
    return str(folder)


# ------------------------------------------------------------------------------------------------ a folder of the sets


def test_the_main_command_does_what_is_possible_and_says_what_is_missing(tmp_path, capsys):
    folder = tmp_path / "my data (1) & more"
    mmsa_file(folder, "mosi")
    mmsa_file(folder, "simsv2")
    names = ["amsgfn_table2_mosi", "amsgfn_table3_mosei", "dsrf_table2_sims_simsv2"]
    words = ["tables", *names, "--data", str(folder), "--seeds", "1", "--scale", "smoke"]
    assert cli.main([*words, "--store", str(tmp_path / "s")]) == 0
    shown = capsys.readouterr()
    assert "mosi: MOSI/Processed/aligned_50.pkl" in shown.err
    assert "amsgfn_table3_mosei, not attempted: No mosei under" in shown.err
    assert "dsrf_table2_sims_simsv2, goes without: No sims under" in shown.err
    assert "3 pages: 2 done, 1 not attempted." in shown.out
    for page in ("sanity", "figure_modality_contributions"):  # nothing printed is shown there: the first set will do
        assert study.places(page, str(folder), "smoke")[0][pages.PAGES[page].dataset][0] == "mosi"
    right = json.loads((tmp_path / "s/notebooks/dsrf_table2_sims_simsv2.json").read_text())["content"]
    assert set(right["rows"]) == {"simsv2"}
    assert cli.main(["check", "--data", str(folder), "--store", str(tmp_path / "s")]) == 0 or "cannot stand" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("verb", [["tables"], ["tables", "sanity"], ["check"]])
def test_nothing_usable_is_refused(tmp_path, capsys, verb):
    (tmp_path / "data").mkdir()
    for data in (tmp_path / "data", tmp_path / "none.pkl", "mosi"):
        assert cli.main([*verb, "--data", str(data), "--store", str(tmp_path / "s")]) == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert len(error) == 1
        assert error[0].startswith("msa: No data set")
    mmsa_file(tmp_path / "data", "mosi")
    assert cli.main([*verb, "--data", str(tmp_path / "data" / "MOSI"), "--store", str(tmp_path / "s")]) == 2
    assert f"its parent {tmp_path / 'data'} holds one" in capsys.readouterr().err


def test_a_page_without_its_set_among_sets_is_refused_when_it_is_all_that_was_asked(tmp_path, capsys):
    mmsa_file(tmp_path, "sims")
    words = ["tables", "amsgfn_table3_mosei", "--data", str(tmp_path), "--store", str(tmp_path / "s")]
    assert cli.main(words) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("msa: No mosei under")


def test_a_damaged_set_fails_its_own_pages_only(tmp_path, capsys):
    mmsa_file(tmp_path, "mosi")
    mmsa_file(tmp_path, "sims").write_bytes(b"<html>quota exceeded</html>")
    names = ["amsgfn_table2_mosi", "amsgfn_table4_sims"]
    outcomes = batch.execute_pages(names, str(tmp_path), 1, "smoke", tmp_path / "s")
    assert [o["status"] for o in outcomes] == ["done", "failed"]
    assert "unaligned_39.pkl" in outcomes[1]["reason"]


def test_options_of_a_folder_reach_its_sets(tmp_path):
    mmsa_file(tmp_path, "mosi")
    place = study.data_of("sanity", f"{tmp_path}?standardise=yes", "full")
    assert place == ("mosi?standardise=yes", str(tmp_path))
    assert any("standardised" in note for note in load_dataset(*place).notes)
    with pytest.raises(FileNotFoundError, match=r"aligned|unaligned"):
        load_dataset("mosi?aligned=no", tmp_path)


# ------------------------------------------------------------------------------------- settings go by what is printed


@pytest.mark.parametrize("name", ["mosi", "sims"])
def test_settings_do_not_depend_on_how_a_set_is_named(tmp_path, name):
    file = mmsa_file(tmp_path, name, WHOLE[name])
    pack.pack(load_dataset(name, tmp_path), tmp_path / "elsewhere")
    page = {"mosi": "dsrf_table1_mosi_mosei", "sims": "dsrf_table2_sims_simsv2"}[name]
    printed = {"mosi": (128, 3e-5, 1e-3), "sims": (64, 1e-5, 1e-2)}[name]  # width, rates, decay: section 4.2
    for data in (tmp_path, file, tmp_path / "elsewhere"):
        there, _ = study.places(page, str(data), "full")
        place = there[name]
        dataset = load_dataset(*place)
        run = next(r for r in study.runs_of(page, *place, dataset, 1, "full") if r.label == "full")
        settings = run.switches | run.train
        assert (settings["d"], settings["lr"], settings["weight_decay"]) == printed
        assert settings["lr_encoder"] == settings["lr"]
        assert study.not_judged_because(name, dataset, "full") == ""


def test_a_file_fills_the_half_of_a_table_that_it_is(tmp_path):
    file = mmsa_file(tmp_path, "simsv2", WHOLE["simsv2"])
    there, missing = study.places("dsrf_table2_sims_simsv2", str(file), "full")
    assert there == {"simsv2": (str(file), None)}
    assert not missing
    runs_there = study.runs_of("dsrf_table2_sims_simsv2", str(file), None, load_dataset(str(file)), 1, "full")
    assert next(r for r in runs_there if r.label == "full").switches["d"] == 128


def test_other_settings_than_the_printed_ones_are_not_judged():
    page = pages.PAGES["dsrf_table3_ablation"]
    right = {"label": "no_usf", "run": "a", "model": "dsrf", "switches": json.dumps({"d": 128})}
    right["train"] = json.dumps({"batch_size": 32, "lr": 3e-5, "lr_encoder": 3e-5, "weight_decay": 1e-3})
    wrong = right | {"run": "b", "train": right["train"].replace("3e-05", "0.0001")}
    assert tables._other_settings(page, "mosi", pd.DataFrame([right])) == {}
    other = wrong | {"label": "literal votes"}  # stands for no printed row
    found = tables._other_settings(page, "mosi", pd.DataFrame([right | {"label": "full"}, wrong, other]))
    assert found == {"no_usf": "Runs of no_usf for mosi have lr = 0.0001, stated is 3e-05: they are not judged."}


# ----------------------------------------------------------------------------------------------- BERT, two readings


def test_every_table_has_both_readings_of_bert_at_full_scale(tmp_path, bert):
    mmsa_file(tmp_path, "mosi", WHOLE["mosi"])
    for name in ("amsgfn_table2_mosi", "dsrf_table1_mosi_mosei", "dsrf_table3_ablation"):
        place = study.data_of(name, f"{tmp_path}?encoder={bert}", "full")
        dataset = load_dataset(*place)
        wanted = {r.label: r for r in study.runs_of(name, *place, dataset, 1, "full")}
        tuned = wanted["full (BERT fine-tuned)"]
        assert tuned.switches == {**wanted["full"].switches, "bert": "finetune"}
        assert tuned.train == wanted["full"].train
        quick = {r.label for r in study.runs_of(name, *place, dataset, 1, "quick")}
        assert not any("fine-tuned" in label for label in quick)
    assert "w/o Audio (BERT fine-tuned)" in wanted
    assert "w/o language (BERT fine-tuned)" not in wanted  # without text there is nothing to tune
    assert wanted["full (BERT fine-tuned)"].train["lr_encoder"] == 3e-5


def made_up(label: str, mae: float, **more) -> list[dict]:
    """Result rows of five seeds around a value."""
    row = {"label": label, "model": "dsrf", "split": "test", "metric": "mae", "status": "done", "synthetic": False}
    row |= {"dataset": "mosi", "selection": "val_mae", "commit": "", "run": label, "switches": "{}", "train": "{}"}
    return [row | {"seed": seed, "value": mae + 0.002 * seed} | more for seed in range(5)]


def test_a_cell_is_not_reproduced_only_if_both_readings_fail():
    """Printed for DSRF (Full) on CMU-MOSI: MAE .679; without audio .748, without DRI .712."""
    tuned = pages.tuned_label
    rows = made_up("full", 0.85) + made_up(tuned("full"), 0.675) + made_up("w/o Audio", 0.86)
    rows += made_up(tuned("w/o Audio"), 0.87) + made_up("no_usf", 0.88) + made_up(tuned("no_usf"), 0.69)
    rows += made_up("w/o language", 1.2)
    page = pages.PAGES["dsrf_table3_ablation"]
    conditions = {pages.FROZEN: {label: label for label in page.tuned}}
    conditions[pages.TUNED] = {label: tuned(label) for label in ("full", "w/o Audio", "no_usf")}
    table = {"paper": "dsrf", "table": 3, "data": {"mosi": ("mosi", False, 686)}, "rows": pd.DataFrame(rows)}
    table |= {"ours": list(page.rows), "readings": {}, "conditions": conditions}
    joined = assemble(pages_from([table]))
    mae = joined.cells.query("paper == 'dsrf' and table == '3' and metric == 'mae'")
    words = mae.set_index(["printed_row", "reading"])["verdict"]
    assert words["DSRF (Full)", "frozen features"] == "not reproduced"
    assert words["DSRF (Full)", "BERT fine-tuned"] in ("compatible", "reproduced")
    assert ("w/o DRI", "BERT fine-tuned: reading A, no_usf") in words.index
    whole = printed_cells(mae).set_index("printed_row")["verdict"]
    assert whole["DSRF (Full)"] in ("compatible", "reproduced")
    assert whole["w/o Audio"] == "not reproduced"  # .748 is printed
    pairs = joined.relations.query("paper == 'dsrf' and table == '3' and metric == 'mae'")
    pairs = pairs[pairs["verdict"] != "not attempted"]
    for pair in pairs[["better", "worse"]].to_numpy():  # never frozen against fine-tuned
        assert len({"fine-tuned" in row for row in pair}) == 1
    assert any("w/o language" in row for row in pairs["worse"])  # no text, one reading: beside the frozen ones


def test_what_is_infinite_survives_the_result_of_the_report(tmp_path):
    """A mean on the printed value is compatible with any number of runs: m_star is infinite, and no reason to fail."""
    rows = pd.DataFrame(made_up("full", 0.675))
    table = {"paper": "dsrf", "table": 3, "data": {"mosi": ("mosi", False, 686)}, "rows": rows}
    joined = assemble(pages_from([table | {"ours": ["full"], "readings": {}}]))
    cells = records(joined.cells)
    assert "inf" in {cell["m_star"] for cell in cells}
    write_result(tmp_path / "r.json", {}, {"cells": cells, "relations": records(joined.relations)})
    stored = read_result(tmp_path / "r.json")["content"]["cells"]
    assert stored == cells
    assert None in {cell["m_star"] for cell in stored}  # not attempted: missing stays missing


def test_an_encoder_that_is_not_there_is_said(tmp_path, bert, monkeypatch):
    mmsa_file(tmp_path, "mosi")
    monkeypatch.setattr(encoders, "_hub_is_reachable", lambda: False)
    encoders._sizes.cache_clear()
    for name, reason in (
        ("mosi", "bert-base-uncased is neither here"),
        (f"mosi?encoder={tmp_path}", "is neither here"),
    ):
        dataset = load_dataset(name, tmp_path)
        left = study.left_out("amsgfn_table2_mosi", dataset, "full")
        assert next(labels for why, labels in left.items() if reason in why)[0] == "full (BERT fine-tuned)"
        assert "fine-tuned" not in str(study.runs_of("amsgfn_table2_mosi", name, str(tmp_path), dataset, 1, "full"))
        looked_up = study.runs_of("amsgfn_table2_mosi", name, str(tmp_path), dataset, 1, "full", train=False)
        assert "full (BERT fine-tuned)" in {r.label for r in looked_up}  # trained elsewhere, perhaps
    assert "knows 1,000 tokens, and the data hold the token id 1,000" in encoders.encoder_problem(bert, 1000, 50)
    assert "reads 512 steps, and the data have 600" in encoders.encoder_problem(bert, 999, 600)
    assert encoders.encoder_problem(bert, 999, 50) == ""
    with pytest.raises(ValueError, match="has no token ids"):
        load_dataset(f"planted?encoder={bert}")


def test_a_fine_tuned_run_trains_the_encoder_and_is_named_by_it(tmp_path, bert):
    file = mmsa_file(tmp_path, "mosi")
    switches, train = SMALL | {"bert": "finetune"}, SHORT | {"epochs": 1, "lr_encoder": 1e-3}
    run = Run("amsgfn", f"{file}?encoder={bert}", switches=switches, train=train)
    result = runs.execute(run, tmp_path / "s")
    assert result["status"] == "done"
    assert result["params"]["data"]["encoder"] == bert
    frozen = runs.execute(replace(run, switches=SMALL), tmp_path / "s")
    assert "encoder" not in frozen["params"]["data"]
    assert result["n_parameters"] - frozen["n_parameters"] > 8 * 1000  # the embeddings, at least
    assert short_name(run.data) == f"aligned_50.pkl?encoder={Path(bert).name}"


def test_tokens_without_features_are_not_read_as_features_of_zeros(tmp_path, bert):
    content = {s: {k: v for k, v in p.items() if k != "text"} for s, p in parts(0, SMALL_SET).items()}
    file = write(tmp_path / "tokens.pkl", content)
    name = f"{file}?encoder={bert}"
    wanted = study.runs_of("amsgfn_table2_mosi", name, None, load_dataset(name), 1, "quick")
    assert next(r for r in wanted if r.label == "full").switches["bert"] == "frozen"


# --------------------------------------------------------------------------------------------- counts, seeds, Makefile


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--model", "amsgfn", "--data", DATA, "--seeds", "1111", "1111"],
        ["run", "--model", "amsgfn", "--data", DATA, "--epochs", "0"],
        ["run", "--model", "amsgfn", "--data", DATA, "--jobs", "0"],
        ["run", "--model", "amsgfn", "--data", DATA, "--seeds", "-3"],
        ["tables", "sanity", "--seeds", "0"],
        ["tables", "sanity", "--seeds", "-2"],
        ["tables", "sanity", "--jobs", "-1"],
        ["tables", "amsgfn_table5_modalities", "--stack", "0"],
        ["tables", "amsgfn_table5_modalities", "--stack", "two"],
        ["check", "--seeds", "0"],
    ],
)
def test_counts_and_seeds_are_refused_in_one_sentence(tmp_path, capsys, words):
    try:
        code = cli.main([*words, "--store", str(tmp_path)])
    except SystemExit as stop:  # of the parser
        code = stop.code
    assert code == 2
    assert "1111" in (error := capsys.readouterr().err) or "whole number" in error or "no seed" in error
    assert not list(tmp_path.iterdir())


def test_no_seed_counts_twice_anywhere():
    with pytest.raises(ValueError, match="expected 1 or more"):
        study.runs_of("sanity", DATA, None, load_dataset(DATA), 0, "smoke")
    with pytest.raises(ValueError, match="seeds at once is -2; expected 1 or more"):
        study.runs_of("sanity", DATA, None, load_dataset(DATA), 1, "smoke", stack=-2)
    with pytest.raises(ValueError, match="1111 more than once"):
        fit("amsgfn", load_dataset(DATA), {"epochs": 1}, seeds=(1111, 1111))


@pytest.mark.parametrize("value", ["/x/my data", "a (b) & c; d | e", "it's $HOME and $$", 'say "x"', "p?aligned=no"])
def test_the_makefile_hands_values_on_as_typed(value):
    command = ["make", "--no-print-directory", "-n", "study", f"DATA={value}", f"STORE={value}", "SEEDS=5", "STACK=2"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip().splitlines()
    words = shlex.split(shown[-1])
    assert words[words.index("--data") + 1] == words[words.index("--store") + 1] == value
    assert (words[words.index("--seeds") + 1], words[words.index("--stack") + 1]) == ("5", "2")


def test_papermill_sees_every_parameter():
    """Its inspection misses lines with a second equals sign, and then warns of parameters that are right."""
    for path in study.NOTEBOOKS.glob("*.ipynb"):
        assert set(papermill.inspect_notebook(str(path))) == set(declared_parameters(path)), path.name


# ------------------------------------------------------------------------------------------------ disks, locks, workers

RUN = Run("amsgfn", DATA, 7, SMALL, SHORT)
WORDS = ["run", "--model", "amsgfn", "--data", DATA, "--set", "d=16", "heads=2", "n_layers=1", "epochs=2"]


def told(capsys) -> str:
    """The one line that msa prints on stderr, progress bars apart."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("msa: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(tmp_path, monkeypatch, capsys, code):
    def flock(fd, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", flock)
    assert cli.main([*WORDS, "--store", str(tmp_path)]) == 2
    assert "has no file locks" in told(capsys)


def test_a_full_disk_is_no_result(tmp_path, monkeypatch, capsys):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert cli.main([*WORDS, "--store", str(tmp_path)]) == 2
    assert "No space left on device" in told(capsys)
    assert not list(tmp_path.rglob("*.partial"))
    assert not list(tmp_path.rglob("result.json"))
    assert cli.main([*WORDS, "--store", str(tmp_path)]) == 0


def test_a_store_that_is_a_file(tmp_path, capsys):
    (tmp_path / "f").touch()
    for place in (tmp_path / "f", tmp_path / "f" / "deeper"):
        assert cli.main([*WORDS, "--store", str(place)]) == 2
        assert f"{tmp_path / 'f'} is a file; expected a folder" in told(capsys)


def test_waiting_names_the_lock(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(store, "PATIENCE", 0.05)
    folder = tmp_path / runs.run_id(runs.parameters(RUN))
    folder.mkdir()
    with FileLock(folder / "lock"):
        waiting = threading.Thread(target=runs.execute, args=(RUN, tmp_path))
        waiting.start()
        time.sleep(1.0)
    waiting.join(60)
    assert f"waiting for {folder / 'lock'}" in capfd.readouterr().err


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for the workers in /proc")
def test_a_killed_worker_says_that_the_same_command_resumes(tmp_path):
    words = [sys.executable, "-m", "msa_lib.cli", *WORDS, "epochs=500", "patience=500", "--seeds", "1", "2", "3"]
    process = subprocess.Popen([*words, "--jobs", "2", "--store", str(tmp_path)], stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 60
    while not list(tmp_path.glob("*/state.pt")) and time.time() < deadline:
        time.sleep(0.1)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        fields = stat.read_text().rpartition(")")[2].split()
        if int(fields[1]) == process.pid and "loky" in (stat.parent / "cmdline").read_text():
            os.kill(int(stat.parent.name), signal.SIGKILL)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "the same command goes on from there" in error
    assert "TerminatedWorkerError" not in error


def test_one_job_inside_a_context_of_joblib_goes_to_its_workers(tmp_path, monkeypatch):
    from joblib import parallel_config

    monkeypatch.setattr(grids, "execute", lambda *_: (seen.append(threading.current_thread().name), failed)[1])
    data = {"name": "x", "fingerprint": "y"}
    params = {"model": "toy", "data": data, "seed": 1, "switches": {}, "train": {}, "versions": {}}
    failed = {"status": "failed", "reason": "", "folder": "z", "params": params, "synthetic": True}
    failed |= {"best_epoch": None, "epochs": 0, "n_parameters": 0}
    for context, elsewhere in ((parallel_config("threading", n_jobs=2), True), (None, False)):
        seen: list[str] = []
        if context is None:
            grid([RUN, RUN], tmp_path)
        else:
            with context:
                grid([RUN, RUN], tmp_path)
        assert len(seen) == 2
        assert all((name != "MainThread") == elsewhere for name in seen)


def test_failed_runs_are_said_and_can_be_tried_again(tmp_path, monkeypatch, capsys):
    words = [*WORDS, "lr=1e30", "--store", str(tmp_path)]
    assert cli.main(words) == 1
    assert "--retry-failed trains it again" in capsys.readouterr().err
    asked = []
    monkeypatch.setattr(batch, "grid", lambda *a: asked.append(a[4]))  # retry_failed
    monkeypatch.setattr(batch, "execute", lambda notebook, target, parameters: target.parent.mkdir(exist_ok=True))
    monkeypatch.setattr(batch, "_html", lambda *a: "")
    page = ["tables", "amsgfn_table2_mosi", "--scale", "smoke", "--store", str(tmp_path)]
    assert cli.main(page) == cli.main([*page, "--retry-failed"]) == 0
    assert asked == [False, True]


def test_a_page_all_of_whose_networks_failed_is_a_failed_page(tmp_path, monkeypatch, capsys):
    smoke = replace(pages.SCALES["smoke"], train={"epochs": 1, "batch_size": 16, "lr": 1e30})
    monkeypatch.setitem(pages.SCALES, "smoke", smoke)
    rows = {label: row for label, row in pages.PAGES["amsgfn_table2_mosi"].rows.items() if label not in pages.BASELINES}
    monkeypatch.setitem(pages.PAGES, "amsgfn_table2_mosi", replace(pages.PAGES["amsgfn_table2_mosi"], rows=rows))
    monkeypatch.setattr(batch, "execute", lambda notebook, target, parameters: target.parent.mkdir(exist_ok=True))
    monkeypatch.setattr(batch, "_html", lambda *a: "")
    words = ["tables", "amsgfn_table2_mosi", "--scale", "smoke", "--seeds", "1", "--store", str(tmp_path)]
    assert cli.main(words) == 1
    shown = capsys.readouterr()
    assert "amsgfn_table2_mosi: 1 of 1 networks failed" in shown.err
    assert "1 pages: 1 failed." in shown.out
    assert "failed" in (tmp_path / "index.html").read_text()


def test_terminals_without_the_signs(tmp_path):
    command = [sys.executable, "-m", "msa_lib.cli", *WORDS, "--store", str(tmp_path)]
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    shown = subprocess.run(command, capture_output=True, env=environment)
    assert shown.returncode == 0, shown.stderr.decode()
    command = [sys.executable, "-m", "msa_lib", "check", "--scale", "smoke", "--store", str(tmp_path)]
    assert subprocess.run(command, capture_output=True, env=environment).returncode == 0


def test_a_reader_that_stops_early_is_no_error(tmp_path):
    command = f"{shlex.quote(sys.executable)} -m msa_lib.cli run --model amsgfn --switches | head -1"
    shown = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert "Traceback" not in shown.stderr
    assert "BrokenPipe" not in shown.stderr


def test_notes_and_the_selection_rule_are_printed(tmp_path, capsys):
    file = mmsa_file(tmp_path, "mosi")
    words = [*WORDS, "--store", str(tmp_path / "s")]
    words[words.index(DATA)] = f"{file}?standardise=yes"
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert "Epoch kept by: val_mae." in shown
    assert "Note: Features are standardised" in shown
