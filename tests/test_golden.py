"""Ten training steps of AMSGFN on a fixed planted batch give the losses stored here: nothing changed by accident.

After an intended change, `python tests/test_golden.py` prints the table anew.
"""

from __future__ import annotations

import pytest
import torch

from msa_lib.data import load_dataset
from msa_lib.models import build_model

TERMS = ("total", "task", "align", "cor")
GOLDEN = (
    (6.153264, 2.687993, 21.010654, 13.642064),
    (5.917191, 2.675204, 20.224810, 12.195064),
    (5.718295, 2.659914, 19.515423, 11.068389),
    (5.543324, 2.647994, 18.905140, 10.048158),
    (5.409545, 2.634640, 18.387367, 9.361692),
    (5.301872, 2.622098, 17.957644, 8.840096),
    (5.213352, 2.610036, 17.587759, 8.445404),
    (5.125665, 2.597859, 17.264114, 8.013940),
    (5.065420, 2.586517, 16.975258, 7.813762),
    (5.009744, 2.572608, 16.711433, 7.659932),
)


def ten_steps() -> list[list[float]]:
    """Loss terms of each step; CPU, float32, one thread, no dropout, so that no random numbers follow the weights."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch.manual_seed(1111)
        dataset = load_dataset("planted?train=16&valid=4&test=4")
        network = build_model("amsgfn", dataset, d=16, heads=4, n_layers=2, dropout=0.0)
        optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
        batch, rows = dataset.train.batch(range(16)), []
        for _ in range(10):
            terms = network.loss(batch, network(batch))
            optimiser.zero_grad()
            terms["total"].backward()
            optimiser.step()
            rows.append([terms[name].item() for name in TERMS])
        return rows
    finally:
        torch.set_num_threads(threads)


def test_ten_steps_give_the_stored_losses():
    got = ten_steps()
    assert len(got) == len(GOLDEN)
    for row, expected in zip(got, GOLDEN, strict=True):
        assert row == pytest.approx(expected, rel=1e-4)


def test_the_same_seed_gives_the_same_bits():
    assert ten_steps() == ten_steps()


if __name__ == "__main__":
    print("GOLDEN = (")
    for line in ten_steps():
        print(f"    ({', '.join(f'{value:.6f}' for value in line)}),")
    print(")")
