"""Ten training steps of each studied model on a fixed planted batch give the losses stored here: nothing changed by
accident.

After an intended change, `python tests/test_golden.py` prints the tables anew.
"""

from __future__ import annotations

import pytest
import torch

from msa_lib.data import load_dataset
from msa_lib.models import build_model

TERMS = {
    "amsgfn": ("total", "task", "align", "cor"),
    "dsrf": ("total", "task", "emo", "ctx", "orth", "amb", "noise", "dri", "usf"),
}
GOLDEN = {
    "amsgfn": (
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
    ),
    "dsrf": (
        (5.396648, 1.918151, 2.021561, 0.525300, 0.038363, 0.061381, 3.819678, 1.014034, -0.015710),
        (5.345138, 1.914337, 2.009400, 0.523156, 0.031582, 0.048643, 3.524621, 1.010192, -0.015910),
        (5.302864, 1.910969, 1.997122, 0.521552, 0.026809, 0.036864, 3.313752, 1.006485, -0.016098),
        (5.266309, 1.907671, 1.984999, 0.519941, 0.023498, 0.025406, 3.159670, 1.002412, -0.016249),
        (5.234274, 1.904551, 1.973556, 0.518330, 0.021333, 0.014169, 3.042401, 0.998180, -0.016366),
        (5.206351, 1.901606, 1.962678, 0.516674, 0.019882, 0.005078, 2.956862, 0.993863, -0.016458),
        (5.181360, 1.898676, 1.952211, 0.514923, 0.018744, -0.002056, 2.895401, 0.989423, -0.016510),
        (5.159337, 1.895902, 1.942470, 0.513118, 0.017818, -0.007444, 2.852149, 0.985054, -0.016527),
        (5.139015, 1.893129, 1.933161, 0.511209, 0.016914, -0.011357, 2.821071, 0.980592, -0.016507),
        (5.119566, 1.890303, 1.924298, 0.509238, 0.015832, -0.014798, 2.797065, 0.975877, -0.016454),
    ),
}


def ten_steps(model: str) -> list[list[float]]:
    """Loss terms of each step; CPU, float32, one thread, no dropout, so that no random numbers follow the weights."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch.manual_seed(1111)
        dataset = load_dataset("planted?train=16&valid=4&test=4")
        network = build_model(model, dataset, d=16, heads=4, n_layers=2, dropout=0.0)
        optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
        batch, rows = dataset.train.batch(range(16)), []
        for _ in range(10):
            terms = network.loss(batch, network(batch))
            optimiser.zero_grad()
            terms["total"].backward()
            optimiser.step()
            rows.append([terms[name].item() for name in TERMS[model]])
        return rows
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("model", GOLDEN)
def test_ten_steps_give_the_stored_losses(model):
    got = ten_steps(model)
    assert len(got) == len(GOLDEN[model])
    for row, expected in zip(got, GOLDEN[model], strict=True):
        assert row == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("model", GOLDEN)
def test_the_same_seed_gives_the_same_bits(model):
    assert ten_steps(model) == ten_steps(model)


if __name__ == "__main__":
    print("GOLDEN = {")
    for name in GOLDEN:
        print(f'    "{name}": (')
        for line in ten_steps(name):
            print(f"        ({', '.join(f'{value:.6f}' for value in line)}),")
        print("    ),")
    print("}")
