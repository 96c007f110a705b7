"""Executing a notebook so that success means success.

Papermill alone calls a notebook finished when its kernel was killed, when a cell called `sys.exit(0)` and when a
parameter was misspelt, and it writes the output under its final name from the first cell on. Here a notebook counts as
executed only when every cell ran, in order and without error, and the result its last cell wrote names the parameters.

    content = execute(Path("notebooks/table_1.ipynb"), Path("runs/tables/table_1.ipynb"), {"epochs": 3})

    python -m msa_lib.notebooks notebooks/*.ipynb      runs source notebooks in place (`refresh`), for maintainers
"""

from __future__ import annotations

import ast
import difflib
import json
import math
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msa_lib.notebook_process import run_in_own_process

if TYPE_CHECKING:
    from nbformat import NotebookNode

WIDGET = "application/vnd.jupyter.widget-view+json"  # kind of an output that is a live control
_SHELL_LINE = re.compile(r"^\s*(?:[\w, ]+=\s*)?!", re.MULTILINE)


class NotebookFailed(RuntimeError):
    """A notebook did not run, or cannot be believed; the message is one sentence: which, where (if known), why."""


# ---------------------------------------------------------------------------------------------- the result file


def write_result(path: str | Path, parameters: dict[str, Any], content: dict[str, Any]) -> None:
    """Write a notebook's result as JSON, whole or not at all; an empty `path` only checks them.

    `parameters` are the values the notebook ran with (`result` itself is left out), `content` is what it found. Numpy
    values become plain ones and NaN becomes null: missing stays missing. An empty `path` only checks the values.

    Raises ValueError for an infinity, TypeError for whatever else JSON cannot hold, such as keys that are no strings.
    """
    passed = {name: value for name, value in parameters.items() if name != "result"}
    record = {"parameters": _plain(passed, "parameters"), "content": _plain(content, "content")}
    if str(path) == "":
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    draft.write_text(json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(draft, target)


def read_result(path: str | Path) -> dict[str, dict[str, Any]]:
    """Read what `write_result` wrote: `{"parameters": ..., "content": ...}`.

    Raises FileNotFoundError where there is no file, ValueError where it is something else.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError:
        raise ValueError(f"{path} is not JSON, a notebook's result was expected") from None
    if not isinstance(record, dict) or not all(isinstance(record.get(k), dict) for k in ("parameters", "content")):
        raise ValueError(f"{path} is no notebook's result: an object with 'parameters' and 'content' was expected")
    return record


def _plain(value: Any, place: str) -> Any:
    """`value` in JSON's own types, NaN as None; `place` names it in errors."""
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        value = value.tolist()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isinf(value):
            raise ValueError(f"{place} is {value}, a finite number, NaN or a string was expected")
        return None if math.isnan(value) else value
    if isinstance(value, dict):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"{place} has the key {odd[0]!r}, a string was expected")
        return {key: _plain(item, f"{place}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
    raise TypeError(f"{place} is a {type(value).__name__}: a number, string, list, dict or None was expected")


# ---------------------------------------------------------------------------------------------- the parameters


def declared_parameters(notebook: Path) -> dict[str, Any]:
    """Name and default of each parameter, from the cell tagged `parameters`: one `name: type = literal` per line.

    Parsed here because papermill's own inspection misses lines with a second `=`. Raises NotebookFailed when there is
    not exactly one such cell, or it holds anything but literals (a derived value would not follow an injected one).
    """
    notebook = Path(notebook)
    cells = [cell for cell in _read(notebook).cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1 or cells[0].cell_type != "code":
        raise NotebookFailed(f"{notebook.name} has {len(cells)} cells tagged 'parameters', one code cell was expected")
    defaults: dict[str, Any] = {}
    try:
        for statement in ast.parse(cells[0].source).body:
            targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
            if len(targets) != 1 or not isinstance(targets[0], ast.Name):
                raise ValueError
            defaults[targets[0].id] = ast.literal_eval(statement.value)
    except (SyntaxError, ValueError, AttributeError, TypeError) as error:
        line = error.lineno if isinstance(error, SyntaxError) else statement.lineno
        text = cells[0].source.splitlines()[(line or 1) - 1].strip()
        raise NotebookFailed(f"{notebook.name}: the parameter {text!r} is not 'name: type = literal'") from None
    return defaults


def _checked(notebook: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    """`parameters` as the kernel will see them, or NotebookFailed: each declared, each the same after JSON."""
    declared = declared_parameters(notebook)
    if "result" not in declared:
        raise NotebookFailed(f"{notebook.name} declares no parameter 'result', the file its last cell writes")
    names = sorted(set(declared) - {"result"})
    for name, value in parameters.items():
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f" (closest: {near[0]!r})" if near else ""
            takes = ", ".join(names) or "none"
            raise NotebookFailed(f"{notebook.name} has no parameter {name!r}{hint}, it takes {takes}")
        try:
            same = json.loads(json.dumps(value, allow_nan=False)) == value
        except (TypeError, ValueError):
            same = False
        if not same:
            raise NotebookFailed(
                f"{notebook.name}: {name}={value!r} ({type(value).__name__}) would not reach the notebook unchanged, "
                "plain JSON was expected: numbers, strings, lists, dicts with string keys, None"
            )
    return json.loads(json.dumps(parameters))


# ---------------------------------------------------------------------------------------------- executing


def execute(
    notebook: Path,
    output: Path,
    parameters: dict[str, Any],
    *,
    timeout: float = 3600,
    cell_timeout: float | None = None,
    start_timeout: float = 120,
    log: Path | None = None,
) -> dict[str, Any]:
    """Run `notebook` with `parameters` in a process of its own and return the content of its result.

    The executed notebook goes to `output` (`<name>.ipynb`), its result beside it (`<name>.json`), by rename and only
    once verified; files of those names are removed before the run. `timeout` bounds the whole run, `cell_timeout` one
    cell, `start_timeout` the kernel's start (tried twice), in seconds. `log` takes, appended, what papermill and the
    kernel print outside of cells. The notebook runs in its own folder, by this interpreter, without the user's IPython
    profile. When the call ends, also by an interrupt, every process of the run is ended with it.

    Raises NotebookFailed: at once and with nothing touched for a parameter that is unknown or not plain JSON, otherwise
    with nothing under the final names and the unfinished notebook in `<name>.partial.ipynb`.
    """
    notebook, output = Path(notebook).resolve(), Path(output).resolve()
    if output.suffix != ".ipynb" or output == notebook:
        raise NotebookFailed(f"{notebook.name} cannot be executed into {output}: another .ipynb file was expected")
    parameters = _checked(notebook, parameters)
    result = output.with_suffix(".json")
    partial = _partial(output)
    partial_result = result.with_name(f"{result.name}.partial")  # no *.json, lest it be collected
    output.parent.mkdir(parents=True, exist_ok=True)
    for stale in (output, result, partial, partial_result):
        stale.unlink(missing_ok=True)

    passed = {**parameters, "result": str(partial_result)}
    limits = {"cell_timeout": cell_timeout, "start_timeout": start_timeout}
    try:
        node = _executed(notebook, {"parameters": passed, "partial": str(partial), **limits}, timeout, log)
        content = _agreed(partial_result, parameters)
        injected = next(cell for cell in node.cells if _is_injected(cell))
        injected.id = "injected-parameters"  # papermill draws a new one each time
        shown = {**parameters, "result": result.name}
        injected.source = "\n".join(["# Parameters", *(f"{name} = {value!r}" for name, value in shown.items())])
        _store(node, partial, output)
        os.replace(partial_result, result)
    except ValueError as error:
        raise _failed(notebook, partial, None, str(error)) from None
    finally:
        partial_result.unlink(missing_ok=True)
    return content


def _agreed(result: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    """The content of a result that records the parameters passed; ValueError says why there is none."""
    try:
        record = read_result(result)
    except FileNotFoundError:
        raise ValueError("it finished without writing its result") from None
    for name, value in parameters.items():
        if name not in record["parameters"]:
            raise ValueError(f"its result does not record the parameter {name!r}")
        if (recorded := record["parameters"][name]) != value:
            raise ValueError(f"its result records {name}={recorded!r} where {value!r} was passed")
    return record["content"]


def refresh(notebook: Path, *, timeout: float = 3600) -> None:
    """Run a source notebook with its own defaults and store the clean outputs in it, cell ids kept.

    No result file is written: `result` must be empty by default. Raises NotebookFailed and leaves the source as it was.
    """
    notebook = Path(notebook).resolve()
    if declared_parameters(notebook).get("result") != "":
        raise NotebookFailed(f"{notebook.name} cannot be run in place: an empty 'result' by default was expected")
    partial = _partial(notebook)
    partial.unlink(missing_ok=True)
    _store(_executed(notebook, {"parameters": {}, "partial": str(partial)}, timeout), partial, notebook)


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def _read(path: Path) -> NotebookNode:
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # absent, cut off, or no notebook by nbformat's schema
        raise NotebookFailed(f"{path} cannot be read as a notebook ({type(error).__name__})") from None


def _store(node: NotebookNode, partial: Path, final: Path) -> None:
    """Write `node` without what differs between runs or tells of the machine (times, paths, versions), by rename.

    Widgets go too: without their kernel they are an error message where they stood, and have another id each time.
    """
    import nbformat

    node.metadata.pop("widgets", None)
    node.metadata.pop("papermill", None)
    node.metadata["kernelspec"] = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    node.metadata["language_info"] = {"name": "python"}
    for cell in node.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = joined([output for output in cell.outputs if WIDGET not in output.get("data", {})])
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
    nbformat.write(node, partial)
    os.replace(partial, final)


def joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """The outputs of a cell with what was printed in one go in one piece: a busy machine sends it in several."""
    whole: list[NotebookNode] = []
    for output in outputs:
        before = whole[-1] if whole else {}
        if output.output_type == before.get("output_type") == "stream" and output.name == before.name:
            before.text += output.text
        else:
            whole.append(output)
    return whole


def _failed(notebook: Path, partial: Path, cell: int | None, reason: str) -> NotebookFailed:
    where = f"{notebook.name}, code cell {cell}" if cell else notebook.name
    left = f"; what there is of it lies in {partial}" if partial.exists() else ""
    return NotebookFailed(f"{where}: {reason}{left}")


def _executed(notebook: Path, job: dict[str, Any], timeout: float, log: Path | None = None) -> NotebookNode:
    """Run the job, read the partial notebook back and return it once every cell is known to have run."""
    _refuse_shell_lines(notebook)
    partial = Path(job["partial"])
    limits = {name: math.ceil(job.get(name) or timeout) for name in ("cell_timeout", "start_timeout")}
    reason = run_in_own_process({**job, **limits, "notebook": str(notebook)}, timeout, log)
    try:
        node = _read(partial)
    except NotebookFailed:
        raise _failed(notebook, partial, None, reason or "it left no readable notebook") from None
    # The status papermill records says "completed" for cells that never ran; counts and outputs do not.
    ran = begun = 0
    for number, cell in _numbered(node):
        if errors := [output for output in cell.outputs if output.output_type == "error"]:
            raise _failed(notebook, partial, number, reason or f"it ended in {errors[0].ename}")
        ran += bool(cell.source.strip())
        begun = number if cell.metadata.get("papermill", {}).get("start_time") else begun
        if not reason and cell.source.strip() and cell.execution_count != ran:
            raise _failed(notebook, partial, number, "it was not executed, or not in order")
    if reason:
        raise _failed(notebook, partial, begun, reason)
    return node


def _numbered(node: NotebookNode) -> list[tuple[int, NotebookNode]]:
    """The code cells, with their numbers in the source: an injected one has that of the cell before it."""
    code = [cell for cell in node.cells if cell.cell_type == "code"]
    return [(sum(not _is_injected(cell) for cell in code[: i + 1]), cell) for i, cell in enumerate(code)]


def _is_injected(cell: NotebookNode) -> bool:
    return "injected-parameters" in cell.metadata.get("tags", [])


def _refuse_shell_lines(notebook: Path) -> None:
    """A shell line that fails raises nothing, so none is let through."""
    for number, cell in _numbered(_read(notebook)):
        try:
            compile(cell.source, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)
        except SyntaxError:  # not plain Python: a magic, a shell line, or a real error that the kernel will report
            if _SHELL_LINE.search(cell.source):
                reason = "a shell line ('!') fails unnoticed, subprocess.run(..., check=True) was expected"
                raise NotebookFailed(f"{notebook.name}, code cell {number}: {reason}") from None


def _main(arguments: list[str]) -> None:
    if not arguments:
        sys.exit("python -m msa_lib.notebooks NOTEBOOK ...: one or more notebooks to run in place were expected")
    for notebook in arguments:
        try:
            refresh(Path(notebook))
        except NotebookFailed as error:
            sys.exit(str(error))
        print(f"{notebook}: outputs stored")


if __name__ == "__main__":
    _main(sys.argv[1:])
