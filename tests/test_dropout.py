"""Dropout and attention with dropout: masks of the stated rate, from PyTorch's seed, and the gradient written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from msa_lib.models.parts import dropout
from msa_lib.models.parts.dropout import Dropout, dot_product, kept


def test_a_mask_keeps_its_rate_and_the_mean():
    torch.manual_seed(0)
    for p in (0.1, 0.3, 0.5):
        mask = kept((1000, 1003), p)
        rate = (mask == 0).double().mean()
        assert rate == pytest.approx(p, abs=5 * (p * (1 - p) / mask.numel()) ** 0.5)
        assert mask.unique().tolist() == [0.0, pytest.approx(1 / (1 - p), rel=2**-15)]
        assert mask.double().mean() == pytest.approx(1, abs=5 * (p / (1 - p) / mask.numel()) ** 0.5)


def test_the_scale_is_the_inverse_of_what_is_kept_exactly():
    """Of all 65,536 words the drawn rate drops a whole number: kept share times scale is 1, not nearly 1."""
    for p in (0.1, 1e-9, 1 - 1e-9):
        scale = kept((1 << 20,), p).max().double()
        if scale:  # at the largest rate a mask may be empty
            assert (dropout.WORDS / scale).round() / dropout.WORDS * scale == pytest.approx(1, abs=1e-6)
            assert 0 < dropout.WORDS / scale < dropout.WORDS


def test_neighbours_rows_and_draws_are_independent():
    torch.manual_seed(1)
    one, two = (kept((512, 512), 0.5).double() - 1 for _ in range(2))  # +1 and -1
    for a, b in ((one[:, 1:], one[:, :-1]), (one[1:], one[:-1]), (one[:, 4:], one[:, :-4]), (one, two)):
        assert abs((a * b).mean()) < 5 * a.numel() ** -0.5


def test_the_generator_of_pytorch_is_the_seed():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, second = kept((7, 9), 0.5), kept((7, 9), 0.5)
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    assert torch.equal(kept((7, 9), 0.5), first)
    assert torch.equal(kept((7, 9), 0.5), second)


def test_dropout_is_one_product_with_its_mask_and_nothing_outside_training():
    x, layer = torch.randn(5, 6, requires_grad=True), Dropout(0.4)
    torch.manual_seed(0)
    mask = kept(x.shape, 0.4)
    torch.manual_seed(0)
    y = layer(x)
    assert torch.equal(y, x * mask)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], mask)
    assert layer.eval()(x) is x or torch.equal(layer(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    assert not Dropout(1.0)(x).any()
    assert isinstance(layer, nn.Dropout)


@pytest.mark.parametrize("keys", [3, 16, 21])
@pytest.mark.parametrize("kind", ["row", "square", "numbers"])
def test_attention_with_dropout_equals_the_plain_formula(keys, kind, monkeypatch):
    """Values and gradients, with the same mask; fewer keys than a vector of the CPU, as many, and more."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, n, 8, dtype=torch.float64, requires_grad=True) for n in (5, keys, keys))
    seen = torch.rand(2, 1, 1 if kind == "row" else 5, keys) < 0.6
    seen[..., 0] = True
    mask = torch.randn(seen.shape, dtype=torch.float64) if kind == "numbers" else seen
    drop = (torch.rand(8, 5, max(keys, dropout.ROW)) < 0.7).double() / 0.7
    monkeypatch.setattr(dropout, "kept", lambda *_: drop.clone())
    got = dot_product(q, k, v, mask, 0.3, 0.7)
    scores = 0.7 * q @ k.mT
    scores = scores + mask if kind == "numbers" else scores.masked_fill(~mask, -torch.inf)
    expected = (scores.softmax(-1) * drop.view(2, 4, 5, -1)[..., :keys]) @ v
    torch.testing.assert_close(got, expected)
    grad = torch.randn_like(got)
    for a, b in zip(*(torch.autograd.grad(y, (q, k, v), grad) for y in (got, expected)), strict=True):
        torch.testing.assert_close(a, b)


def test_without_dropout_attention_is_that_of_pytorch_to_the_bit():
    q, k, v = (torch.randn(2, 4, 6, 8) for _ in range(3))
    mask = torch.ones(2, 1, 1, 6, dtype=torch.bool)
    assert torch.equal(dot_product(q, k, v, mask, 0.0), F.scaled_dot_product_attention(q, k, v, attn_mask=mask))


def test_compiled_and_stacked_networks_use_the_masks_of_pytorch():
    """One graph; and under vmap a mask for each, where one drawn here would be shared."""
    layer, x = Dropout(0.5), torch.ones(64)
    torch._dynamo.reset()
    assert torch.compile(layer, fullgraph=True, backend="eager")(x).unique().tolist() == [0.0, 2.0]
    masks = torch.func.vmap(layer, randomness="different")(torch.ones(8, 64))
    assert len(masks.unique(dim=0)) == 8
