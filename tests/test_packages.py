"""The two packages as wholes: what may import what (arrows point one way, and `papers_check` is reached through
modules of `msa_lib.study` alone), and that an installation holds every folder and every file of theirs.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
# From the ground up; the longest name that fits a module says where it stands, and it imports nothing above itself.
ORDER = {
    "msa_lib": ("msa_lib", "msa_lib.metrics", "msa_lib.switches", "msa_lib.notebooks", "msa_lib.notebook_process"),
    "data": ("msa_lib.data",),
    "parts": ("msa_lib.models.parts", "msa_lib.models.card"),
    "procedure": ("msa_lib.train.procedure",),  # a model file names its own
    "models": ("msa_lib.models", "msa_lib.models.parts.decoupled"),
    "train": ("msa_lib.train",),
    "reference": ("msa_lib.reference",),
    "bench": ("msa_lib.bench",),
    "runs": ("msa_lib.runs",),
    "papers_check": ("papers_check", "papers_check.printed"),
    "judge": ("papers_check.judge",),
    "checks": ("papers_check.checks",),
    "show": ("papers_check.show",),
    "audit command": ("papers_check.__main__",),
    "study": ("msa_lib.study",),
    "msa command": ("msa_lib.cli", "msa_lib.__main__"),
}
RANK = {name: rank for rank, names in enumerate(ORDER.values()) for name in names}
JOINT = "msa_lib.study."  # some of its modules set our runs beside what is printed


def modules() -> dict[str, ast.Module]:
    """Every module of the two packages by its dotted name."""
    paths = [path for package in ("msa_lib", "papers_check") for path in (ROOT / package).rglob("*.py")]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return {name: ast.parse(path.read_text("utf-8")) for name, path in zip(names, paths, strict=True)}


def imported(tree: ast.AST) -> Iterator[str]:
    """What a module imports when it runs, at any depth; imports for type checkers alone are left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                path = ROOT.joinpath(*whole.split("."))
                yield whole if path.is_dir() or path.with_suffix(".py").exists() else node.module
        else:
            yield from imported(node)


def rank(module: str) -> int:
    return RANK[max((name for name in RANK if f"{module}.".startswith(f"{name}.")), key=len)]


def faults(module: str, tree: ast.AST) -> list[str]:
    """The imports of a module that point the wrong way."""
    found = []
    for name in imported(tree):
        package = name.split(".")[0]
        if module.startswith("papers_check"):
            wrong = package in ("msa_lib", "torch", "transformers")
        else:
            wrong = package == "papers_check" and not module.startswith(JOINT)
        if wrong or (package in ("msa_lib", "papers_check") and rank(name) > rank(module)):
            found.append(f"{module} imports {name}")
    return found


def test_arrows_point_one_way():
    assert [fault for module, tree in modules().items() for fault in faults(module, tree)] == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("papers_check.printed.cells", "from papers_check.judge import verdicts"),
        ("papers_check.checks.gaps", "def f():\n    import msa_lib.data"),
        ("papers_check", "import torch"),
        ("msa_lib.notebooks", "def f():\n    from papers_check import load_reported"),
        ("msa_lib.cli", "import papers_check"),
        ("msa_lib.data.pack", "from msa_lib import models"),
        ("msa_lib.models.tfn", "from msa_lib.train.loop import fit"),
        ("msa_lib.train.loop", "from msa_lib.runs import grid"),
        ("msa_lib.runs.grids", "from msa_lib import study"),
    ],
)
def test_the_check_sees_an_arrow_that_points_back(module, line):
    assert len(faults(module, ast.parse(line))) == 1


def test_the_study_is_reached_lazily():
    """So that training needs nothing of `papers_check`: the command line imports the study where a verb needs it."""
    for module, tree in modules().items():
        body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        at_once = [name for name in imported(ast.Module(body, [])) if name.startswith("msa_lib.study")]
        assert not at_once or module.startswith("msa_lib.study"), module


def test_an_installation_holds_every_module_and_every_file():
    built = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    for package in ("msa_lib", "papers_check"):
        files = [path for path in (ROOT / package).rglob("*") if path.is_file() and path.suffix not in (".pyc", ".pyo")]
        code = {".".join(path.parent.relative_to(ROOT).parts) for path in files if path.suffix == ".py"}
        assert code == {name for name in built["packages"] if name.split(".")[0] == package}
        found = {path for glob in built["package-data"][package] for path in (ROOT / package).glob(glob)}
        assert [path for path in files if path.suffix != ".py" and path not in found] == []
