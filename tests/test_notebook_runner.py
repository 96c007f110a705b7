"""Executing notebooks: each way of failing that papermill alone passes over, as a notebook of a few cells.

They also recheck what `msa_lib.notebooks` assumes of papermill, nbclient and ipykernel: run them after any
upgrade.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from msa_lib import notebook_process, notebooks
from msa_lib.notebooks import NotebookFailed, declared_parameters, execute, joined, read_result, refresh

ROOT = Path(__file__).resolve().parent.parent
PARAMETERS = 'epochs: int = 3  # how long\nname: str = "tiny"\nwidths: dict = {"a": [1, 2]}\nresult: str = ""'
IMPORT = "from msa_lib.notebooks import write_result"
WRITE = "write_result(result, dict(epochs=epochs, name=name, widths=widths), {'total': epochs * 2})"


def notebook(folder: Path, *cells: str, parameters: str = PARAMETERS, name: str = "table.ipynb") -> Path:
    """A notebook with a title, a parameters cell and the code cells given; code cell 2 of it is the first given."""
    first = new_code_cell(parameters, metadata={"tags": ["parameters"]}, id="parameters")
    code = [new_code_cell(source, id=f"cell-{number}") for number, source in enumerate(cells)]
    node = new_notebook(cells=[new_markdown_cell("# A table", id="title"), first, *code])
    node.metadata["kernelspec"] = {"name": "someone-elses", "display_name": "private", "language": "python"}
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(node, folder / name)
    return folder / name


def assert_fails(source: Path, output: Path, *words: str, parameters: dict | None = None, **limits) -> str:
    """`execute` fails with a sentence holding `words`, and neither it nor anything stale lies under the final names."""
    output.parent.mkdir(exist_ok=True)
    for stale in (output, output.with_suffix(".json")):
        stale.write_text('{"parameters": {}, "content": {}}')
    with pytest.raises(NotebookFailed) as caught:
        execute(source, output, parameters or {}, **limits)
    sentence = str(caught.value)
    assert all(word in sentence for word in (source.name, *words)), sentence
    assert "\n" not in sentence
    assert [path.name for path in output.parent.iterdir()] in ([], [f"{output.stem}.partial.ipynb"])
    return sentence


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until(condition, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def written(path: Path) -> bool:
    return path.exists() and path.read_text().endswith("\n")


# ------------------------------------------------------------------------------------------ a good notebook


def test_good_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Parameters arrive, the content comes back, what is stored is clean, the kernel is ours whoever has its name."""
    elsewhere = tmp_path / "data" / "kernels" / "python3" / "kernel.json"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_text(json.dumps({"argv": ["false"], "display_name": "another", "language": "python"}))
    profile = tmp_path / "profile" / "profile_default" / "startup" / "mine.py"
    profile.parent.mkdir(parents=True)
    profile.write_text("print = None  # would be the notebook's own print")
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "profile"))
    look = "import os, sys\nkernel = dict(python=sys.executable, prefix=sys.prefix, cwd=os.getcwd(), pid=os.getpid())"
    last = WRITE.replace("{'total'", "{**kernel, 'no': float('nan'), 'total'")
    source = notebook(tmp_path / "in {a}", IMPORT, look, "print(name)", "", last)
    before = source.read_bytes()
    output = tmp_path / "out {b}" / "table.x.ipynb"
    odd = "q\"uo'te {x} \\n é\n"
    passed = {"epochs": 4, "name": odd, "widths": {"b": [1.5, None, True], "c": {}}}

    content = execute(source, output, passed, timeout=60, log=tmp_path / "log")

    assert content["total"] == 8
    assert content["no"] is None
    assert (content["python"], content["prefix"]) == (sys.executable, sys.prefix)
    assert content["cwd"] == str(source.parent.resolve())
    assert not is_alive(content["pid"])
    assert sorted(path.name for path in output.parent.iterdir()) == ["table.x.ipynb", "table.x.json"]
    assert read_result(output.with_suffix(".json")) == {"parameters": passed, "content": content}
    assert source.read_bytes() == before

    text = output.read_text(encoding="utf-8")
    node = nbformat.reads(text, as_version=4)
    assert str(tmp_path) not in text
    assert "papermill" not in text
    assert node.metadata.kernelspec.name == "python3"
    assert [cell.id for cell in node.cells][:4] == ["title", "parameters", "injected-parameters", "cell-0"]
    assert "result = 'table.x.json'" in node.cells[2].source
    namespace: dict = {}
    exec(node.cells[2].source, namespace)
    assert {name: namespace[name] for name in passed} == passed
    assert node.cells[5].outputs[0].text == odd + "\n"


def test_refresh_stores_outputs_and_keeps_ids(tmp_path: Path):
    source = notebook(tmp_path, IMPORT, "print(epochs)", WRITE)
    refresh(source, timeout=60)
    node = nbformat.read(source, as_version=4)
    assert [cell.id for cell in node.cells] == ["title", "parameters", "cell-0", "cell-1", "cell-2"]
    assert [cell.execution_count for cell in node.cells[1:]] == [1, 2, 3, 4]
    assert node.cells[3].outputs[0].text == "3\n"
    assert "papermill" not in source.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["table.ipynb"]


def test_refresh_leaves_a_failing_source_alone(tmp_path: Path):
    source = notebook(tmp_path, "1 / 0")
    before = source.read_bytes()
    with pytest.raises(NotebookFailed, match=r"code cell 2: ZeroDivisionError: division by zero; .*partial"):
        refresh(source, timeout=60)
    assert source.read_bytes() == before
    with pytest.raises(NotebookFailed, match="empty 'result'"):
        refresh(notebook(tmp_path, parameters='result: str = "x.json"'))


# ------------------------------------------------------------------------------------------ what must not look green


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", ("code cell 3", "kernel died")),
        ("import sys\nsys.exit(0)", ("code cell 3", "SystemExit")),
        ("raise ValueError('first line\\nsecond')", ("code cell 3: ValueError: first line;",)),
    ],
    ids=["killed", "exited", "raised"],
)
def test_notebook_that_stops_fails(tmp_path: Path, cell: str, words: tuple[str, ...]):
    """Stopped after the result was written, so that the result alone would look like success."""
    sentence = assert_fails(notebook(tmp_path, f"{IMPORT}\n{WRITE}", cell, "1"), tmp_path / "out" / "x.ipynb", *words)
    assert "x.partial.ipynb" in sentence


def test_expected_exception_fails(tmp_path: Path):
    """A cell tagged `raises-exception` does not stop papermill; later cells run, and it fails all the same."""
    source = notebook(tmp_path, IMPORT, "1 / 0", WRITE)
    node = nbformat.read(source, as_version=4)
    node.cells[3].metadata["tags"] = ["raises-exception"]
    nbformat.write(node, source)
    assert_fails(source, tmp_path / "out" / "x.ipynb", "code cell 3: ZeroDivisionError")


def test_skipped_cell_fails(tmp_path: Path):
    """A cell that nbclient skips keeps no count, not even the one it was stored with."""
    source = notebook(tmp_path, IMPORT, "print(1)", WRITE)
    node = nbformat.read(source, as_version=4)
    node.cells[3].metadata["tags"] = ["skip-execution"]
    node.cells[3].execution_count = 4
    nbformat.write(node, source)
    assert_fails(source, tmp_path / "out" / "x.ipynb", "code cell 3: it was not executed")


@pytest.mark.parametrize("line", ["!false", "files = !ls /nowhere", "if True:\n    !false"])
def test_shell_line_is_refused(tmp_path: Path, line: str):
    """A failing shell line raises nothing in the kernel."""
    source = notebook(tmp_path, "text = '''\n! only words'''", line, f"{IMPORT}\n{WRITE}")
    assert_fails(source, tmp_path / "out" / "x.ipynb", "code cell 3: a shell line")


@pytest.mark.parametrize(
    ("last", "words"),
    [
        ("1", "finished without writing its result"),
        ("open(result, 'w').write('{\"total\":')", "not JSON"),
        (f"{IMPORT}\nwrite_result(result, dict(name=name), {{}})", "does not record the parameter 'epochs'"),
        (f"{IMPORT}\nepochs = 3\n{WRITE}", "records epochs=3 where 5 was passed"),
    ],
    ids=["missing", "truncated", "unrecorded", "disagreeing"],
)
def test_result_decides(tmp_path: Path, last: str, words: str):
    assert_fails(notebook(tmp_path, last), tmp_path / "out" / "x.ipynb", words, parameters={"epochs": 5})


# ------------------------------------------------------------------------------------------ limits, nothing left over

HANG = """
import os, subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
children = [subprocess.Popen(sleep, start_new_session=True) for _ in "12"]
with open(name, "w") as file:
    print(os.getpid(), *(child.pid for child in children), file=file)
while True:
    try:
        time.sleep(600)
    except BaseException:
        pass
"""


def pids_in(path: Path) -> list[int]:
    return [int(word) for word in path.read_text().split()]


def test_hanging_notebook_ends_with_the_outer_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Kernel and its children, in sessions of their own and deaf to interrupts, go with it; so do its files."""
    pids, temporary = tmp_path / "pids", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("TMPDIR", str(temporary))
    started = time.monotonic()
    source, output = notebook(tmp_path, "1", HANG), tmp_path / "out" / "x.ipynb"
    assert_fails(source, output, "not finished after 8 s", parameters={"name": str(pids)}, timeout=8)
    assert time.monotonic() - started < 20
    assert len(pids_in(pids)) == 3
    assert not any(is_alive(pid) for pid in pids_in(pids))
    assert list(temporary.iterdir()) == []


def test_hanging_cell_ends_with_the_cell_timeout(tmp_path: Path):
    source = notebook(tmp_path, "1", "import time\ntime.sleep(600)")
    words = ("code cell 3", "longer than 1 s")
    assert_fails(source, tmp_path / "out" / "x.ipynb", *words, cell_timeout=1, timeout=60)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_the_caller(tmp_path: Path, number: signal.Signals):
    """Interrupted or killed outright, the caller leaves no process and nothing under a final name."""
    pids, output = tmp_path / "pids", tmp_path / "out" / "x.ipynb"
    call = (
        "from msa_lib.notebooks import execute; from pathlib import Path; import signal, sys; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "  # a job in the background may have it ignored
        "execute(Path(sys.argv[1]), Path(sys.argv[2]), {'name': sys.argv[3]})"
    )
    command = [sys.executable, "-c", call, str(notebook(tmp_path, HANG)), str(output), str(pids)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as caller:
        try:
            assert wait_until(lambda: written(pids))
            caller.send_signal(number)
            assert caller.wait(20) != 0
        finally:
            caller.kill()
    assert wait_until(lambda: not any(is_alive(pid) for pid in pids_in(pids)))
    assert [path.name for path in output.parent.iterdir()] == ["x.partial.ipynb"]


@pytest.mark.parametrize(("begun", "calls"), [(False, 2), (True, 1)])
def test_only_a_failed_start_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool, calls: int):
    called = []

    def fail(source, partial, parameters, **limits):
        called.append(limits)
        started = "2020-01-01" if begun else None
        cells = [{"metadata": {"papermill": {"start_time": started}}}]
        Path(partial).write_text(json.dumps({"cells": cells}))
        raise RuntimeError("Kernel died before replying to kernel_info")

    monkeypatch.setitem(sys.modules, "papermill", type("papermill", (), {"execute_notebook": staticmethod(fail)}))
    monkeypatch.setattr(notebook_process, "_why", lambda error, limit: str(error))
    job = {"notebook": "a", "partial": str(tmp_path / "p"), "parameters": {}, "start_timeout": 1, "cell_timeout": 2}
    reason = notebook_process._run_papermill(job)
    assert len(called) == calls
    assert ("did not start, tried twice" in reason) is not begun
    assert called[0]["start_timeout"] == 1
    assert called[0]["execution_timeout"] == 2


def test_worker_that_dies_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "broken" / "papermill").mkdir(parents=True)
    (tmp_path / "broken" / "papermill" / "__init__.py").write_text(
        "import os, sys\nprint('bye')\nsys.stdout.flush()\nos._exit(3)"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    assert_fails(notebook(tmp_path, "1"), tmp_path / "out" / "x.ipynb", "exit code 3", "'bye'")


# ------------------------------------------------------------------------------------------ parameters, no kernel


def test_declared_parameters(tmp_path: Path):
    declared = declared_parameters(
        notebook(tmp_path, parameters=PARAMETERS + "\nrate = -1e-3\nnone: str | None = None")
    )
    expected = {"epochs": 3, "name": "tiny", "widths": {"a": [1, 2]}, "result": "", "rate": -1e-3, "none": None}
    assert declared == expected
    assert list(declared) == list(expected)


@pytest.mark.parametrize(
    "line", ["tag: str = f'lr{epochs}'", "w: dict = dict(a=1)", "import os", "a, b = 1, 2", "x: int", "(", "a = b = 1"]
)
def test_only_literals_are_parameters(tmp_path: Path, line: str):
    with pytest.raises(NotebookFailed, match="is not 'name: type = literal'"):
        declared_parameters(notebook(tmp_path, parameters=f"{PARAMETERS}\n{line}"))


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"epoch": 3}, ("no parameter 'epoch' (closest: 'epochs')", "epochs, name, widths")),
        ({"zzz": 3}, ("no parameter 'zzz', it takes epochs",)),
        ({"result": "x.json"}, ("no parameter 'result'",)),
        ({"widths": (1, 2)}, ("widths=(1, 2) (tuple)",)),
        ({"widths": {"a": {1: 2}}}, ("widths=", "dict")),
        ({"epochs": float("nan")}, ("epochs=nan",)),
        ({"epochs": float("inf")}, ("epochs=inf",)),
        ({"epochs": np.int64(3)}, ("int64",)),
        ({"name": Path("x")}, ("name=",)),
    ],
)
def test_bad_parameters_touch_nothing(tmp_path: Path, parameters: dict, words: tuple[str, ...]):
    source, output = notebook(tmp_path), tmp_path / "x.ipynb"
    output.write_text("an earlier run")
    with pytest.raises(NotebookFailed) as caught:
        execute(source, output, parameters)
    assert all(word in str(caught.value) for word in ("table.ipynb", *words)), str(caught.value)
    assert output.read_text() == "an earlier run"


def test_bad_notebooks_and_outputs_are_refused(tmp_path: Path):
    source = notebook(tmp_path)
    for output in (source, tmp_path / "x.json"):
        with pytest.raises(NotebookFailed, match=r"another \.ipynb file was expected"):
            execute(source, output, {})
    with pytest.raises(NotebookFailed, match="cannot be read as a notebook"):
        execute(tmp_path / "absent.ipynb", tmp_path / "x.ipynb", {})
    (tmp_path / "cut.ipynb").write_text(source.read_text()[:200])
    with pytest.raises(NotebookFailed, match="cannot be read as a notebook"):
        execute(tmp_path / "cut.ipynb", tmp_path / "x.ipynb", {})
    with pytest.raises(NotebookFailed, match="declares no parameter 'result'"):
        execute(notebook(tmp_path, parameters="epochs: int = 3"), tmp_path / "x.ipynb", {})
    nbformat.write(new_notebook(cells=[new_code_cell("1", id="a")]), source)
    with pytest.raises(NotebookFailed, match="has 0 cells tagged 'parameters'"):
        declared_parameters(source)


def test_import_is_light():
    code = "import sys, msa_lib.notebooks; sys.exit(bool({'torch', 'papermill', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_command_line_names_the_failure(tmp_path: Path, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit, match="cannot be read as a notebook"):
        notebooks._main([str(tmp_path / "absent.ipynb")])
    with pytest.raises(SystemExit, match="one or more notebooks"):
        notebooks._main([])


def test_what_was_printed_in_pieces_is_stored_in_one():
    pieces = [new_output("stream", name=name, text=text) for name, text in (("stdout", "a"), ("stdout", "\n"))]
    shown = new_output("display_data", data={"text/plain": "x"})
    after = [new_output("stream", name=name, text="b\n") for name in ("stdout", "stderr")]
    found = joined([*pieces, shown, *after])
    assert [output.get("text") for output in found] == ["a\n", None, "b\n", "b\n"]
    assert joined([]) == []
