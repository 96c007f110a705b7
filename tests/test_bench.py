"""The table of what a step costs: its columns, its counts and its words. Never how fast anything is."""

from __future__ import annotations

import pytest
import torch
from toy import Toy

from msa_lib import bench, cli
from msa_lib.models import MODELS


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setitem(MODELS, "toy", Toy)
    monkeypatch.setattr(bench, "matrix_peak", lambda device: 100.0)


def test_a_row_says_what_was_measured():
    rows = bench.bench(["toy", "tfn"], ["mosi"], "small", steps=2, apart=False)
    assert list(zip(rows["model"], rows["shape"], strict=True)) == [("toy", "mosi"), ("tfn", "mosi")]
    assert (rows["samples/s"] / rows["steps/s"]).round(6).tolist() == rows["batch"].tolist()
    assert (rows["GFLOP/step"] * rows["steps/s"] - rows["GFLOP/s"]).abs().max() < 1e-9
    assert (rows["share of peak"] * 100 - rows["GFLOP/s"]).abs().max() < 1e-9
    network = bench._trained("toy", "mosi", "small", "cpu", 2).network
    assert rows["parameters"][0] == sum(p.numel() for p in network.parameters())
    assert set(bench.as_shown(rows)["peak MB"]) == {"not measured"}


def test_seeds_trained_at_once_count_each():
    alone = bench.bench(["tfn"], ["mosi"], "small", steps=1, apart=False)
    both = bench.bench(["tfn"], ["mosi"], "small", steps=1, apart=False, stack=2)
    assert "seeds" not in alone
    assert both["seeds"].tolist() == [2]
    assert both["GFLOP/step"][0] == pytest.approx(alone["GFLOP/step"][0], rel=0.1)  # other widths of the batches
    assert (both["samples/s"] / both["steps/s"]).round(6).tolist() == both["batch"].tolist()
    assert both["parameters"].tolist() == alone["parameters"].tolist()
    with pytest.raises(ValueError, match=r"^kuda has a training procedure of its own"):
        bench.bench(["tfn", "kuda"], stack=2)


class Squares:
    """A procedure of one product: [5,7] by [7,3], and back to both."""

    network, companions = torch.nn.Linear(7, 3), {}

    def begin_epoch(self, epoch: int) -> None: ...

    def drop_gradients(self) -> None: ...

    def passes(self, epoch: int, shuffle: torch.Generator):
        yield "main", [torch.ones(5, 7, requires_grad=True)]

    def step(self, batch: torch.Tensor, name: str) -> None:
        self.network(batch).sum().backward()


def test_operations_are_those_of_a_step_forward_and_backward():
    assert bench._counted(Squares()) == 3 * 2 * 5 * 7 * 3


def test_a_process_of_its_own_gives_the_peak_of_memory():
    rows = bench.bench(["tfn"], ["mosi"], "small", steps=1)
    assert 50 < rows["peak MB"][0] < 20_000


def test_wrong_names_are_answered_with_the_right_ones(capsys):
    for asked, words in (
        ({"names": ["nobody"]}, "No model 'nobody': expected amsgfn"),
        ({"sets": ["nowhere"]}, "No shape 'nowhere': expected mosi"),
        ({"size": "huge"}, "No size 'huge': expected full"),
    ):
        with pytest.raises(ValueError, match=words):
            bench.bench(**asked)
    assert cli.main(["bench", "nobody"]) == 2
    assert "No model 'nobody'" in capsys.readouterr().err


def test_the_machine_is_named():
    known = bench.machine()
    assert known["torch"] == torch.__version__
    assert "of" in known["device"]


def test_what_was_measured_before_is_kept_whole():
    known = bench.kept()
    assert set(known["rows"]["model"]) == set(MODELS) - {"toy"}
    assert {"date", "device", "torch", "load"} <= set(known["machine"])
    assert {"workers", "runs per minute"} <= set(known["throughput"])
    assert (known["scheduling"]["overhead per run"] < known["scheduling"]["beyond its sleep, per task"]).all()
