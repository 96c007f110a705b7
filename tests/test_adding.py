"""The recipes of the README, each followed to the letter in a copy of the project: to add a model, and a data set.

The third, to add a paper, is followed in `test_papers.py`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mmsa_files import parts, write

PROJECT = Path(__file__).parents[1]
MODEL = '''"""A line on the three mean vectors; the smallest model there can be."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from msa_lib.models.card import Card, Stated, lacking
from msa_lib.models.parts.inputs import Inputs
from msa_lib.models.parts.layers import Output, masked_mean
from msa_lib.models.parts.losses import weighted


@dataclass(frozen=True)
class LineConfig:
    dropout: float = 0.1
    bert: Literal["precomputed", "frozen", "finetune"] = "precomputed"


class Line(nn.Module):
    Config, VARIANTS, RECORD, SMALL = LineConfig, {"full": {}}, (), {}
    CARD = Card("none", "specified", "all of it", "nothing", ())
    RECIPES = {name: {"lr": Stated(1e-3, "ours")} for name in ("mosi", "mosei", "sims", "simsv2")}

    @staticmethod
    def fits(dataset, switches):
        return lacking(dataset, "tav")

    def __init__(self, dataset, c):
        super().__init__()
        self.inputs = Inputs(dataset, c.bert)
        self.line = nn.Sequential(nn.Dropout(c.dropout), nn.Linear(sum(self.inputs.dims), 1))

    def forward(self, batch):
        means = [masked_mean(x, mask) for x, mask in zip(*self.inputs(batch), strict=True)]
        return Output(self.line(torch.cat(means, -1))[:, 0], {})

    def loss(self, batch, output):
        return weighted(task=(1.0, F.l1_loss(output.prediction, batch.labels)))
'''


MSA = ("-c", "import sys; from msa_lib.cli import main; sys.exit(main())")
IMPORT, ENTRY = "from msa_lib.models.lmf import LMF\n", '    "lmf": LMF,\n'
SIZES = {"train": 24, "valid": 9, "test": 8}


def python(folder: Path, *arguments: str) -> str:
    """What a command printed, run in and importing from `folder`."""
    env = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    env.pop("PYTHONSAFEPATH", None)  # set for our own workers; a script may import from beside itself
    done = subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(folder: Path) -> dict[str, bytes]:
    found = (p for p in folder.rglob("*") if p.is_file() and "cache" not in str(p.relative_to(folder)))
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


@pytest.fixture(scope="module")
def with_model(tmp_path_factory):
    """A copy of the project to which the model `line` was added as the README says; and what that changed."""
    copy = tmp_path_factory.mktemp("copy") / "project"
    for part in ("msa_lib", "papers_check", "tests"):
        shutil.copytree(PROJECT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "pyproject.toml", copy)
    before = files(copy)
    (copy / "msa_lib" / "models" / "line.py").write_text(MODEL, encoding="utf-8")
    registry = copy / "msa_lib" / "models" / "__init__.py"
    text = registry.read_text(encoding="utf-8")
    assert text.count(IMPORT) == text.count(ENTRY) == 1
    text = text.replace(IMPORT, "from msa_lib.models.line import Line\n" + IMPORT)
    registry.write_text(text.replace(ENTRY, '    "line": Line,\n' + ENTRY), encoding="utf-8")
    python(copy, "tests/test_identity.py")
    return copy, {name for name, content in files(copy).items() if before.get(name) != content}


def test_a_model_touches_its_file_the_registry_and_the_table_of_defaults(with_model):
    _, touched = with_model
    assert touched == {"msa_lib/models/line.py", "msa_lib/models/__init__.py", "tests/defaults.json"}


def test_a_new_model_is_under_contract_without_a_test_of_its_own(with_model):
    copy, _ = with_model
    asked = ["tests/test_contract.py", "tests/test_card.py", "tests/test_identity.py", "-k", "line or no_default"]
    out = python(copy, "-m", "pytest", "-rp", "-p", "no:cacheprovider", "-n", "0", *asked)
    held = [line.split("::")[1] for line in out.splitlines() if line.startswith("PASSED")]
    assert len(held) > 20
    assert {"test_padding_reaches_nothing[line-full]", "test_seeds_can_be_stacked[line-full]"} <= set(held)


def test_a_new_model_has_its_rows_in_the_tables(with_model):
    copy, _ = with_model
    shown = "from msa_lib.study.pages import PAGES; print(*[p for p, page in PAGES.items() if 'line' in page.rows])"
    tables = "amsgfn_table2_mosi amsgfn_table3_mosei amsgfn_table4_sims dsrf_table1_mosi_mosei dsrf_table2_sims_simsv2"
    assert python(copy, "-c", shown).split() == [*tables.split(), "baselines", "selection", "robustness"]
    python(copy, *MSA, "run", "--model", "line", "--data", "planted?train=32&valid=16&test=16",
           "--seeds", "1", "--set", "epochs=1")  # fmt: skip


def test_a_data_set_is_a_file(tmp_path):
    """It is checked, packed and trained on, and nothing of the project is touched."""
    name = write(tmp_path / "jokes.pkl", parts(sizes=SIZES)).name
    assert "24" in python(tmp_path, *MSA, "data", "check", name)
    python(tmp_path, *MSA, "data", "pack", name, "jokes.packed")
    for data in (name, "jokes.packed"):
        out = python(tmp_path, *MSA, "run", "--model", "lmf", "--data", data, "--seeds", "1", "--set", "epochs=1")
        assert "jokes" in out
