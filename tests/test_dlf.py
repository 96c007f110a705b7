"""DLF: its size, the released code, its procedure; the parts it has in common with DMD."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from replay import count, of_recipe, prepared, reference
from toy import close

NO_DROPOUT = dict.fromkeys(
    ("text_dropout", "attn_text", "attn_audio", "attn_vision", "embed_dropout", "out_dropout"), 0.0
)
TINY = {"d": 10, "heads": 2, "n_layers": 1, "k_text": 3, "k_audio": 2, "k_vision": 4, "accumulation": 1, **NO_DROPOUT}


@pytest.mark.parametrize("rows", ["vector", "fifth"])
def test_it_gives_the_numbers_of_the_released_code(rows):
    """Prediction and every term in evaluation mode; the prediction after three steps without dropout."""
    ref = reference("dlf")
    network, procedure, batch = prepared("dlf", ref, TINY | {"ort_rows": rows}, lr=1e-3, clip=0.6, weight_decay=0.0)
    output = network.eval()(batch)
    close(output.prediction, torch.tensor(ref["prediction"]), atol=1e-5)
    for name, value in network.loss(batch, output).items():
        close(value, torch.tensor(ref[f"{rows}.{name}"], dtype=value.dtype), atol=1e-5)
    network.train()
    for _ in range(3):
        procedure.step(batch, "main")
    close(network.eval()(batch).prediction, torch.tensor(ref[f"{rows}.after"]), atol=1e-4)


def layers(d: int, n: int) -> int:
    """A transformer of n layers: 4 d^2 of attention, 8 d^2 of the network, biases and norms; and a last norm."""
    return n * (12 * d * d + 13 * d) + 2 * d


def counted(dims: tuple[int, int, int], kernel: int, d: int = 50) -> int:
    """By hand, for 50 steps."""
    steps, mlp = 50 - kernel + 1, lambda n: 2 * (n * n + n)
    encoders = 10 * layers(d, 2) + 2 * layers(d, 3)  # 3 specific, 1 shared, 3 that pool, 2 + 1 attractors; 2 memories
    decoders, aligns = 3 * 2 * d * d, 3 * (steps * d * d + d)
    shared, own = mlp(3 * d) + 3 * d + 1, 3 * (mlp(d) + d + 1)
    fusion = 3 * (d * d + d) + 9 * d * d + 3 * d + mlp(6 * d) + 6 * d + 1
    return d * kernel * sum(dims) + encoders + decoders + aligns + shared + own + fusion


@pytest.mark.parametrize(("data", "dims", "kernel"), [("mosi", (768, 5, 20), 5), ("mosei", (768, 74, 35), 3)])
def test_it_has_as_many_parameters_as_counted(data, dims, kernel):
    assert count("dlf", data, **of_recipe("dlf", data)) == counted(dims, kernel)


def test_rows_of_a_fifth_need_a_width_that_can_be_cut():
    with pytest.raises(ValueError, match="multiple of 5"):
        count("dlf", "mosi", d=12, heads=2, ort_rows="fifth")


def test_gradients_are_summed_clipped_each_time_and_given_to_adam():
    """By hand, at the first step of Adam: the rate times the sign of what is left, nothing before the second batch."""
    switches = TINY | {"accumulation": 2}
    network, procedure, batch = prepared("dlf", reference("dlf"), switches, lr=1e-3, clip=0.05, weight_decay=0.0)
    network.train()
    start = {name: p.detach().clone() for name, p in network.named_parameters()}
    halves = [batch._replace(**{k: v[part] for k, v in batch._asdict().items() if torch.is_tensor(v)})
              for part in (slice(0, 3), slice(2, 5))]  # fmt: skip
    summed = {name: torch.zeros_like(p) for name, p in start.items()}
    for half in halves:
        network.zero_grad()
        network.loss(half, network(half))["total"].backward()
        for name, p in network.named_parameters():
            summed[name] = (summed[name] + p.grad).clamp(-0.05, 0.05)
    procedure.step(halves[0], "main")
    assert all(torch.equal(p, start[name]) for name, p in network.named_parameters())
    procedure.step(halves[1], "main")
    for name, p in network.named_parameters():
        clear = summed[name].abs() > 1e-4  # rounding decides the sign of what is nearly zero
        close((start[name] - p)[clear], 1e-3 * summed[name][clear].sign(), atol=1e-6)
    assert any((value.abs() == 0.05).any() for value in summed.values())


def test_the_rate_halves_after_six_epochs_without_a_lower_error():
    _, procedure, _ = prepared("dlf", reference("dlf"), TINY, lr=1e-3)
    rates = []
    for mae in (1.0, 0.8, *[0.9] * 7):
        procedure.end_epoch({"valid": {"mae": mae}}, 0.0)
        rates.append(procedure.optimisers["main"].param_groups[0]["lr"])
    np.testing.assert_allclose(rates, [1e-3] * 7 + [5e-4] * 2)
