"""What the source notebooks must look like for papermill, nbval and a diff to be trusted with them.

`problems` holds the rules; the tests at the end break each of them once.
"""

import ast
import copy
import re
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(path for path in ROOT.glob("notebooks/*.ipynb") if not path.stem.endswith(".partial"))

TAGS = {"parameters", "nbval-check-output", "nbval-ignore-output", "nbval-skip", "hide-input"}
MACHINE_PATH = re.compile(r"(?<![\w.])(?:/(?:home|root|work|workspace|tmp|Users)\b|[A-Z]:[\\/]Users\b|~/)")
EXITS = {"exit", "quit", "sys.exit", "os._exit"}
MOST_CELLS, MOST_LINES, MOST_BYTES = 39, 15, 400_000


def problems(node: NotebookNode) -> list[str]:
    """One sentence for each rule that the notebook breaks, cells numbered from 1."""
    return [*form(node), *parameters_cell(node), *execution(node), *traces(node), *code(node)]


def form(node: NotebookNode) -> list[str]:
    """Title, kernel, format, size in cells, tags."""
    found = []
    first = node.cells[0] if node.cells else new_markdown_cell()
    if first.cell_type != "markdown" or not first.source.startswith("# "):
        found.append("the first cell is no markdown title ('# ...')")
    if node.metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("the kernel is not python3")
    if (node.nbformat, node.nbformat_minor) < (4, 5) or not all(cell.get("id") for cell in node.cells):
        found.append("the format is not nbformat 4.5 with cell ids")
    if len(node.cells) > MOST_CELLS:
        found.append(f"{len(node.cells)} cells are more than {MOST_CELLS}")
    unknown = {tag for cell in node.cells for tag in cell.metadata.get("tags", [])} - TAGS
    if unknown:
        found.append(f"unknown tags {sorted(unknown)}")
    if not any("nbval-check-output" in cell.metadata.get("tags", []) for cell in node.cells):
        found.append("no cell is tagged nbval-check-output, so nbval would compare nothing")
    return found


def parameters_cell(node: NotebookNode) -> list[str]:
    """One `parameters` cell, before all other code, one annotated literal per line, an empty `result` among them."""
    tagged = [cell for cell in node.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        return [f"{len(tagged)} cells are tagged parameters, not one"]
    if next((cell for cell in node.cells if cell.cell_type == "code"), None) is not tagged[0]:
        return ["the parameters cell is not the first code cell"]
    values: dict = {}
    lines = [line.strip() for line in tagged[0].source.splitlines()]
    for line in filter(None, lines):
        if line.startswith("#"):
            continue
        try:
            (statement,) = ast.parse(line).body
            if not isinstance(statement, ast.AnnAssign):
                raise ValueError
            values[statement.target.id] = ast.literal_eval(statement.value)
        except (SyntaxError, ValueError, TypeError, AttributeError):
            return [f"the parameters line {line!r} is not 'name: type = literal'"]
    return [] if values.get("result") == "" else ["the parameters do not declare 'result: str = \"\"'"]


def execution(node: NotebookNode) -> list[str]:
    """Executed from top to bottom, without errors or warnings: nbval compares nothing in a cell without a count."""
    found = []
    filled = [cell for cell in node.cells if cell.cell_type == "code" and cell.source.strip()]
    if [cell.execution_count for cell in filled] != list(range(1, len(filled) + 1)):
        found.append("the code cells were not executed in order 1..n")
    outputs = [output for cell in filled for output in cell.outputs]
    if any(output.output_type == "error" for output in outputs):
        found.append("an output is an error")
    if any(output.get("name") == "stderr" for output in outputs):
        found.append("an output is on stderr")
    return found


def traces(node: NotebookNode) -> list[str]:
    """Nothing of the machine or the moment it was executed on."""
    found = []
    for number, cell in enumerate(node.cells, start=1):
        texts = [str(cell.metadata), cell.source]
        for output in cell.get("outputs", []):
            texts.append(str(output.get("metadata", "")) + str(output.get("text", "")))
            texts += [str(data) for kind, data in output.get("data", {}).items() if not kind.startswith("image/")]
        for text in texts:
            if (match := MACHINE_PATH.search(text)) or str(ROOT) in text:
                found.append(f"cell {number} names a path of a machine ({match.group() if match else ROOT})")
        if {"papermill", "execution"} & set(cell.metadata):
            found.append(f"cell {number} keeps metadata of its execution")
    if MACHINE_PATH.search(str(node.metadata)):
        found.append("the metadata names a path of a machine")
    if "papermill" in node.metadata:
        found.append("the metadata keeps papermill's")
    return found


def code(node: NotebookNode) -> list[str]:
    """Short cells of plain Python, none of which can end the kernel and look finished."""
    found = []
    for number, cell in enumerate(node.cells, start=1):
        if cell.cell_type != "code":
            continue
        if len(cell.source.splitlines()) > MOST_LINES:
            found.append(f"cell {number} has more than {MOST_LINES} lines")
        try:
            tree = ast.parse(cell.source)
        except SyntaxError:
            found.append(f"cell {number} is not plain Python (no '!', no '%')")
            continue
        calls = {ast.unparse(part.func) for part in ast.walk(tree) if isinstance(part, ast.Call)}
        raised = {ast.unparse(part.exc) for part in ast.walk(tree) if isinstance(part, ast.Raise) and part.exc}
        if calls & EXITS or any(text.startswith("SystemExit") for text in raised):
            found.append(f"cell {number} ends the kernel")
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_is_clean(path: Path):
    found = problems(nbformat.read(path, as_version=nbformat.NO_CONVERT))
    size = path.stat().st_size
    found += [f"{size} bytes are more than {MOST_BYTES}"] if size > MOST_BYTES else []
    assert not found, f"{path.name}: " + "; ".join(found)


# ------------------------------------------------------------------------------------------ the rules can fail


def good() -> NotebookNode:
    """A notebook that breaks no rule."""
    lines = '# what to run\nepochs: int = 1  # smoke\nrates: list[float] = [-0.1, 1e-3]\n\nresult: str = ""'
    node = new_notebook(
        cells=[
            new_markdown_cell("# Table 1\n\nSee https://example.org/home/work and runs/tables, tmp/x, 3/root."),
            new_code_cell(lines, execution_count=1, metadata={"tags": ["parameters"]}),
            new_code_cell(""),
            new_code_cell("print(epochs)", execution_count=2, metadata={"tags": ["nbval-check-output"]}),
            new_code_cell("figure", execution_count=3),
        ]
    )
    node.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    node.cells[3].outputs = [new_output("stream", name="stdout", text="1\n")]
    node.cells[4].outputs = [new_output("display_data", data={"image/png": "ab/tmp/cd", "text/plain": "<Figure>"})]
    return node


def test_good_notebook_passes():
    assert problems(good()) == []


def source(number: int, text: str):
    return lambda node: node.cells[number].update(source=text)


def parameter(line: str):
    return lambda node: node.cells[1].update(source=f'{line}\nresult: str = ""')


def output(**fields):
    return lambda node: node.cells[3].outputs.append(new_output(**fields))


BREAKS = {
    "no title": (source(0, "Table 1"), "title"),
    "small title": (source(0, "## Table 1"), "title"),
    "code first": (lambda node: node.cells.pop(0), "title"),
    "empty": (lambda node: node.cells.clear(), "title"),
    "kernel": (lambda node: node.metadata.kernelspec.update(name="mine"), "kernel is not"),
    "format": (lambda node: node.update(nbformat_minor=4), "4.5"),
    "no id": (lambda node: node.cells[0].pop("id"), "cell ids"),
    "many cells": (lambda node: node.cells.extend(new_markdown_cell() for _ in range(35)), "40 cells"),
    "tag": (lambda node: node.cells[3].metadata.tags.append("raises-exception"), "unknown tags"),
    "unchecked": (lambda node: node.cells[3].metadata.pop("tags"), "compare nothing"),
    "no parameters": (lambda node: node.cells[1].metadata.pop("tags"), "0 cells are tagged"),
    "two parameters": (lambda node: node.cells[3].metadata.tags.append("parameters"), "2 cells are tagged"),
    "late parameters": (lambda node: node.cells.insert(1, node.cells.pop(3)), "first code cell"),
    "no result": (source(1, "epochs: int = 1"), "declare 'result"),
    "result set": (source(1, 'result: str = "x.json"'), "declare 'result"),
    "unannotated": (parameter("epochs = 1"), "'epochs = 1' is not"),
    "derived": (parameter("tag: str = f'{1}'"), "is not 'name"),
    "two on a line": (parameter("a: int = 1; b: int = 2"), "is not 'name"),
    "over two lines": (parameter("a: list = [\n1]"), "is not 'name"),
    "no value": (parameter("a: int"), "is not 'name"),
    "cleared": (lambda node: node.cells[3].update(execution_count=None), "in order"),
    "out of order": (lambda node: node.cells[3].update(execution_count=7), "in order"),
    "error": (output(output_type="error", ename="E", evalue="", traceback=[]), "is an error"),
    "warning": (output(output_type="stream", name="stderr", text="careful"), "stderr"),
    "path in source": (source(3, "open('/home/alice/x')"), "cell 4 names a path"),
    "path in markdown": (source(0, "# Table 1\n\nIn /tmp/x."), "cell 1 names a path"),
    "home in source": (source(3, "open('~/x')"), "cell 4 names a path"),
    "path in stdout": (output(output_type="stream", name="stdout", text="/Users/x"), "cell 4 names a path"),
    "path in data": (output(output_type="display_data", data={"text/html": "<a>/Users/al"}), "cell 4 names a path"),
    "other checkout": (source(3, f"open('{ROOT}/x')"), "cell 4 names a path"),
    "windows path": (source(3, "r'C:\\Users\\al'"), "cell 4 names a path"),
    "path in cell metadata": (lambda node: node.cells[3].metadata.update(at="/home/x"), "cell 4 names a path"),
    "path in metadata": (lambda node: node.metadata.update(at="/home/x"), "metadata names a path"),
    "papermill": (lambda node: node.metadata.update(papermill={}), "keeps papermill"),
    "papermill cell": (lambda node: node.cells[3].metadata.update(papermill={}), "cell 4 keeps"),
    "timing": (lambda node: node.cells[3].metadata.update(execution={}), "cell 4 keeps"),
    "long cell": (source(3, "1\n" * 16), "more than 15"),
    "shell": (source(3, "x = !ls"), "plain Python"),
    "magic": (source(3, "%%bash\nls"), "plain Python"),
    "line magic": (source(3, "%matplotlib inline"), "plain Python"),
    "exit": (source(3, "import sys\nif epochs:\n    sys.exit(0)"), "ends the kernel"),
    "quit": (source(3, "quit()"), "ends the kernel"),
    "raise exit": (source(3, "raise SystemExit"), "ends the kernel"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_each_rule_can_fail(name: str):
    spoil, words = BREAKS[name]
    node = copy.deepcopy(good())
    spoil(node)
    assert any(words in problem for problem in problems(node)), problems(node)


def test_each_page_opens_with_its_question_and_closes_with_its_answer():
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        if path.stem == "start_here":  # a tour
            continue
        said = [output.text for output in cells[-1].outputs if output.get("name") == "stdout"]
        assert "**Question: " in cells[0].source, path.stem
        assert any(cell.source.startswith("## Answer") for cell in cells[-5:]), path.stem
        assert said, f"{path.stem} prints no answer in its last cell"


def test_what_nbval_does_not_compare():
    """The sanitizing rules, read as nbval reads them, change what they should and leave scores alone."""
    plugin = pytest.importorskip("nbval.plugin")
    rules = dict(plugin.get_sanitize_patterns((ROOT / "tests" / "nbval.cfg").read_text(encoding="utf-8")))

    def clean(text: str) -> str:
        for regex, replacement in rules.items():
            text = re.sub(regex, replacement, text)
        return text

    assert clean("on 2024-05-06T07:08:09.123Z, 2024-05-06 07:08") == "on DATE, DATE"
    assert clean("took 3.25 s or 12 ms") == "took DURATION or DURATION"
    assert clean("<object at 0x7f00aB>") == "<object at ADDRESS>"
    assert clean("<Figure size 640x480 with 2 Axes>") == "<Figure with 2 Axes>"
    kept = "mae 0.712  acc7 46.36  Acc-2 84.1/86.0  3 seeds, 1111 1112, width 0.5, n=686, 3 samples"
    assert clean(kept) == kept
