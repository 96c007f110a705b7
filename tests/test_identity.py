"""Which run is which: what a hash depends on, what versions stand for, and results whose data are gone.

After a new model, a new switch or a raised version, `python tests/test_identity.py` writes tests/defaults.json anew.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import field, make_dataclass, replace
from pathlib import Path

import pytest
from toy import DATA, SHORT, Toy, ToyConfig, dataset

from msa_lib import reference
from msa_lib.data.pack import _own_digest, pack
from msa_lib.models import MODELS
from msa_lib.reference import REFERENCES
from msa_lib.runs import Run, RunFailed, collect, execute, finished, identity, predictions
from msa_lib.runs import store as runs
from msa_lib.runs.identity import parameters, run_id
from msa_lib.train import TrainConfig
from msa_lib.train import loop as train

TABLE = Path(__file__).with_name("defaults.json")
TRAIN = {**SHORT, "batch_size": 8}


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    monkeypatch.setitem(MODELS, "toy", Toy)
    identity.loaded.cache_clear()


# Defaults and versions


def code_today() -> dict[str, dict]:
    """Version and defaults of every model, reference predictor and of the loop."""
    table = {"train": {"version": train.VERSION, "defaults": identity.defaults(TrainConfig)}}
    for name in (*MODELS, *REFERENCES):
        config = identity.configs(name)["switches"]
        table[name] = {"version": identity.versions(name)["model"], "defaults": identity.defaults(config)}
    table.pop("toy", None)
    return table


def complaints(today: dict[str, dict], frozen: dict[str, dict]) -> list[str]:
    """What is wrong with today's defaults, a sentence each that says what to do."""
    found, write = [], "then run `python tests/test_identity.py`"
    for name, now in today.items():
        then = frozen.get(name, {"version": now["version"], "defaults": {}})
        if now["version"] < then["version"]:
            found.append(f"The version of {name} went back from {then['version']} to {now['version']}: raise it.")
        elif now["version"] > then["version"]:
            found.append(f"{name} has a new version: if what a run gives did change, {write[5:]}.")
        else:
            gone = [field for field in then["defaults"] if field not in now["defaults"]]
            other = [f for f, v in then["defaults"].items() if f not in gone and now["defaults"][f] != v]
            if gone or other:
                found.append(
                    f"{name}: {', '.join(gone + other)} changed while the version stayed {now['version']}, so stored "
                    f"runs would be taken for runs with today's default: raise the version by one, {write}."
                )
            elif new := [field for field in now["defaults"] if field not in then["defaults"]]:
                found.append(f"{name}: {', '.join(new)} is new; if its default is what the code did before, {write}.")
    return found + [f"{name} is gone: {write[5:]}." for name in frozen if name not in today]


def test_no_default_changes_without_a_version():
    assert not complaints(code_today(), json.loads(TABLE.read_text()))


def test_the_table_notices_every_kind_of_change():
    before = {"m": {"version": 1, "defaults": {"a": 1, "b": [1.0]}}}

    def told(version=1, **defaults):
        return "\n".join(complaints({"m": {"version": version, "defaults": defaults}}, before))

    assert not told(a=1, b=[1.0])
    assert told(a=2, b=[1.0]).startswith("m: a changed while the version stayed 1, so stored runs would be taken for")
    assert "m: a changed" in told(c=1, b=[1.0])  # renamed
    assert "raise the version by one, then run `python tests/test_identity.py`." in told(b=[1.0])
    assert told(a=1, b=[1.0], c=0).startswith("m: c is new; if its default is what the code did before, then run")
    assert (
        told(2, a=2, b=[1.0])
        == "m has a new version: if what a run gives did change, run `python tests/test_identity.py`."
    )
    assert "went back from 1 to 0" in told(0, a=1, b=[1.0])
    assert complaints({}, before) == ["m is gone: run `python tests/test_identity.py`."]


def with_config(**changes) -> type:
    """Toy with other switches: new fields or other defaults; None takes a field away."""
    names = {name: value for name, value in vars(ToyConfig()).items() if changes.get(name, value) is not None}
    kinds = ToyConfig.__annotations__
    names |= {name: value for name, value in changes.items() if value is not None}
    config = make_dataclass(
        "ToyConfig", [(n, kinds.get(n, type(v).__name__), field(default=v)) for n, v in names.items()], frozen=True
    )
    config.__module__ = ToyConfig.__module__  # where the names in its annotations are looked up
    return type("Toy", (Toy,), {"Config": config})


def toy(seed: int = 1, **switches) -> Run:
    return Run("toy", DATA, seed, switches, SHORT)


def test_a_new_switch_with_a_default_orphans_nothing(tmp_path, monkeypatch):
    old = execute(toy(width=3), tmp_path)
    monkeypatch.setitem(MODELS, "toy", with_config(shiny=0.5))
    monkeypatch.setattr(runs, "fit", None)  # nothing is trained
    assert execute(toy(width=3), tmp_path) == execute(toy(width=3, shiny=0.5), tmp_path) == old
    assert len(predictions(toy(width=3), tmp_path)["predictions"]) == 32
    assert finished([toy(width=3, shiny=0.6)], tmp_path).empty
    assert json.loads(collect(tmp_path)["switches"][0])["shiny"] == 0.5  # so that rows of before and after compare
    assert parameters(toy())["switches"]["shiny"] == 0.5  # what is recorded is complete


def test_a_new_training_setting_with_a_default_orphans_nothing(tmp_path, monkeypatch):
    old = execute(toy(), tmp_path)
    wider = make_dataclass("TrainConfig", [("shiny", int, 0)], bases=(TrainConfig,), frozen=True)
    monkeypatch.setattr(identity, "TrainConfig", wider)
    monkeypatch.setattr(runs, "fit", None)
    assert execute(toy(), tmp_path) == old
    assert json.loads(collect(tmp_path)["train"][0])["shiny"] == 0
    assert finished([replace(toy(), train={**SHORT, "shiny": 1})], tmp_path).empty


CHANGED = [
    ({"width": 5}, "width=4, which is 5 today"),
    ({"width": None, "size": 4}, "width=4, which does not exist today"),
]


@pytest.mark.parametrize(("change", "message"), CHANGED)
def test_another_default_under_the_same_version_is_refused(tmp_path, monkeypatch, change, message):
    old = execute(toy(), tmp_path)
    monkeypatch.setitem(MODELS, "toy", with_config(**change))
    for ask in (
        lambda: execute(toy(), tmp_path),
        lambda: predictions(toy(), tmp_path),
        lambda: finished([toy()], tmp_path),
    ):
        with pytest.raises(
            ValueError, match=rf"made with {message} under the same version: expected a new VERSION of toy\.$"
        ):
            ask()
    monkeypatch.setattr(MODELS["toy"], "VERSION", 2, raising=False)
    assert finished([toy()], tmp_path).empty
    rows = collect(tmp_path)
    assert set(rows["version"]) == {f"model 1, loop {train.VERSION}"}
    assert rows["run"].iloc[0] == Path(old["folder"]).name


def test_a_run_that_was_killed_is_not_taken_up_with_another_default(tmp_path, monkeypatch):
    run = toy(fault="KeyboardInterrupt", at=6)
    with pytest.raises(KeyboardInterrupt):
        execute(run, tmp_path)
    monkeypatch.setitem(MODELS, "toy", with_config(width=5))
    with pytest.raises(ValueError, match="width=4, which is 5 today"):
        execute(run, tmp_path)


def test_a_version_makes_another_run(monkeypatch):
    before = {model: run_id(parameters(Run(model, DATA))) for model in ("toy", "amsgfn", "ridge")}
    monkeypatch.setattr(Toy, "VERSION", 2, raising=False)
    after = {model: run_id(parameters(Run(model, DATA))) for model in before}
    assert [model for model in before if before[model] != after[model]] == ["toy"]
    monkeypatch.setattr(train, "VERSION", train.VERSION + 1)
    loop = {model: run_id(parameters(Run(model, DATA))) for model in before}
    assert [model for model in before if after[model] != loop[model]] == ["toy", "amsgfn"]
    monkeypatch.setattr(reference, "VERSION", reference.VERSION + 1)
    assert run_id(parameters(Run("ridge", DATA))) != before["ridge"]


def test_a_store_of_before_is_named_and_left_out(tmp_path):
    new, old = execute(toy(1), tmp_path), execute(toy(2), tmp_path)
    path = Path(old["folder"]) / "result.json"
    content = json.loads(path.read_text())
    for later in ("run", "files", "checksum"):
        del content[later]
    path.write_text(json.dumps(content))
    with pytest.warns(
        UserWarning, match=rf"^1 runs in .* versions and checksums \({path.parent.name}, \.\.\.\): they are"
    ):
        rows = collect(tmp_path)
    assert set(rows["run"]) == {Path(new["folder"]).name}
    assert set(finished([toy(1)], tmp_path)["run"]) == {Path(new["folder"]).name}
    path.rename(path.with_name("other.json"))
    assert finished([toy(2)], tmp_path).empty  # nothing of before, nothing to say
    path.with_name("other.json").rename(path)
    with pytest.warns(UserWarning, match="before runs had versions"):
        assert finished([toy(3)], tmp_path).empty


# Data that are gone, changed or unchanged


@pytest.fixture
def loads(monkeypatch) -> list[str]:
    """The names that were loaded."""
    names, load = [], identity.load_dataset
    monkeypatch.setattr(identity, "load_dataset", lambda name, root: (names.append(name), load(name, root))[1])
    monkeypatch.setattr(identity, "SETTLED", 0.0)
    return names


def packed(folder: Path, seed: int = 0) -> Run:
    shutil.rmtree(folder, ignore_errors=True)
    pack(dataset(seed=seed), folder)
    return Run("toy", str(folder), 1, {}, TRAIN)


def test_results_are_read_without_the_data(tmp_path):
    run, store = packed(tmp_path / "here" / "set"), tmp_path / "store"
    first = execute(run, store)
    before = predictions(run, store), finished([run], store), collect(store)
    shutil.rmtree(tmp_path / "here")
    identity.loaded.cache_clear()
    assert execute(run, store) == first
    after = predictions(run, store), finished([run], store), collect(store)
    assert all((before[0][name] == after[0][name]).all() for name in before[0])
    assert before[1].equals(after[1])
    assert before[2].equals(after[2])
    same = replace(run, data="set", root=str(tmp_path / "here"))
    assert len(finished([run, same, replace(run, data=os.path.relpath(run.data))], store)) == 3 * len(after[1])
    with pytest.raises(FileNotFoundError, match=r"No data set .*The network of run \w+ is built from them\.$"):
        runs.network(run, store)
    with pytest.raises(RunFailed, match="it was never run"):
        predictions(replace(run, seed=2), store)
    with pytest.raises(FileNotFoundError, match=r"^No data set"):
        execute(replace(run, seed=2), store)
    with pytest.raises(FileNotFoundError, match=r"^No data set"):  # the same last name is not the same place
        finished([replace(run, data=str(tmp_path / "there" / "set"))], store)
    with pytest.raises(FileNotFoundError, match=r"^No data set"):  # another option is other data
        finished([replace(run, data=run.data + "?standardise=yes")], store)


def test_another_content_under_one_name_is_another_run(tmp_path):
    place, store = tmp_path / "set", tmp_path / "store"
    run = packed(place)
    first = execute(run, store)
    packed(place, seed=1)
    assert finished([run], store).empty
    second = execute(run, store)
    assert second["folder"] != first["folder"]
    packed(place)
    assert execute(run, store) == first
    shutil.rmtree(place)
    prints = sorted(result["params"]["data"]["fingerprint"] for result in (first, second))
    message = rf"^No data set .*The store has runs on 2 contents of .*set \({', '.join(prints)}\): without the files"
    for ask in (lambda: finished([run], store), lambda: predictions(run, store), lambda: execute(run, store)):
        with pytest.raises(FileNotFoundError, match=message):
            ask()
    assert len(set(collect(store)["run"])) == 2


def test_files_that_did_not_change_are_not_loaded_to_be_named(tmp_path, loads):
    run, store = packed(tmp_path / "set"), tmp_path / "store"
    execute(run, store)
    assert len(loads) == 1  # once for the name, the content and the training
    identity.loaded.cache_clear()
    assert len(finished([run], store))
    assert len(predictions(run, store))
    execute(run, store)
    assert len(loads) == 1
    assert finished([run], tmp_path / "other").empty  # another store knows nothing
    assert len(loads) == 2


def test_a_file_that_was_touched_is_looked_at_again(tmp_path, loads, monkeypatch):
    """Also one of the same size and time of writing; and any file, once the code that reads it is another."""
    run, store = packed(tmp_path / "set"), tmp_path / "store"
    execute(run, store)
    path = tmp_path / "set" / "meta.json"
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    content = path.read_text()
    meta = json.loads(content) | {"fingerprint": "f" * 16}
    meta["checksum"] = _own_digest(meta)  # packed anew, not damaged
    path.write_text(json.dumps(meta, ensure_ascii=False, indent=1))
    os.utime(path, ns=times)
    assert parameters(run, store)["data"]["fingerprint"] == "f" * 16
    path.write_text(content)
    loads.clear()
    execute(run, store)
    assert len(loads) == 1
    identity.loaded.cache_clear()
    execute(run, store)
    assert len(loads) == 1
    monkeypatch.setattr(identity, "_reader", lambda: "other code")
    execute(run, store)
    assert len(loads) == 2


def test_a_file_written_just_now_is_not_trusted_to_stay(tmp_path, loads, monkeypatch):
    """It could change again within the resolution of the file system's clock."""
    monkeypatch.setattr(identity, "SETTLED", 1e9)
    run, store = packed(tmp_path / "set"), tmp_path / "store"
    execute(run, store)
    identity.loaded.cache_clear()
    finished([run], store)
    assert len(loads) == 2


def test_a_damaged_record_of_data_is_none(tmp_path, loads):
    run, store = packed(tmp_path / "set"), tmp_path / "store"
    first = execute(run, store)
    (record,) = (store / "data").glob("*/*.json")
    for content in ("", "[]", '{"data": 1}', "null"):
        record.write_text(content)
        identity.loaded.cache_clear()
        assert finished([run], store)["run"].iloc[0] == Path(first["folder"]).name
    assert len(loads) == 5


def test_data_that_change_between_naming_and_training_are_refused(tmp_path, monkeypatch):
    run, store = packed(tmp_path / "set"), tmp_path / "store"
    monkeypatch.setattr(runs, "dataset_of", lambda name, root: dataset(seed=1))
    with pytest.raises(ValueError, match=r"changed while they were read; ask again\.$"):
        execute(run, store)
    assert collect(store).empty


if __name__ == "__main__":
    TABLE.write_text(json.dumps(code_today(), indent=1) + "\n")
