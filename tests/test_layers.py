"""The shared building blocks against torch's own modules or plain loops; masks keep padding out of every result."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from msa_lib.data import Batch, Dataset, planted
from msa_lib.data.dataset import steps_mask
from msa_lib.models.parts.dropout import Dropout
from msa_lib.models.parts.features import Features
from msa_lib.models.parts.layers import (
    BLOCKS,
    Attention,
    attend,
    convolved,
    masked_mean,
    mlp,
    one_hot,
    sinusoid,
    to_grid,
    unchanged,
)

D, HEADS, T = 8, 2, 7
LENGTHS = torch.tensor([7, 3, 1, 0])
SMALL = {"train": "12", "valid": "4", "test": "4", "dims": "8,6,7"}


def close(got: torch.Tensor, expected: torch.Tensor, atol: float = 1e-6) -> None:
    torch.testing.assert_close(got, expected, atol=atol, rtol=1e-5)


def unaligned() -> Dataset:
    return planted.load("planted-sims", {**SMALL, "steps": "10,40,15"})


def filled(batch: Batch, value: float, extra: int = 0) -> Batch:
    """The batch with `extra` more columns, and `value` in all padding."""
    changed = {}
    for m, (name, x) in enumerate(zip(("text", "audio", "vision"), batch.features, strict=True)):
        x = F.pad(x, (0, 0, 0, extra))
        changed[name] = x.masked_fill(~steps_mask(batch.lengths[:, m], x.shape[1])[..., None], value)
    return batch._replace(**changed)


# --- means and attention ---


def test_one_hot_is_that_of_torch():
    index = torch.tensor([[0, 2], [1, 0], [2, 2]])
    assert torch.equal(one_hot(index, 3), F.one_hot(index, 3).bool())


def test_masked_mean_is_the_mean_of_the_valid_steps():
    x = torch.randn(4, T, D)
    got = masked_mean(x, steps_mask(LENGTHS, T))
    for i, n in enumerate(LENGTHS.tolist()):
        close(got[i], x[i, :n].mean(0) if n else torch.zeros(D))


def test_masked_mean_takes_several_leading_dimensions():
    x, mask = torch.randn(2, 3, T, D), torch.rand(2, 3, T) < 0.6
    close(masked_mean(x, mask)[1, 2], masked_mean(x[1, 2], mask[1, 2]))


def test_mlp_has_no_activation_or_dropout_after_the_last_layer():
    kinds = [type(layer) for layer in mlp(3, 4, 5, 2, dropout=0.5)]
    assert kinds == [nn.Linear, nn.ReLU, Dropout] * 2 + [nn.Linear]


def same_weights(ours: Attention, theirs: nn.MultiheadAttention) -> None:
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.q.weight, ours.k.weight, ours.v.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.q.bias, ours.k.bias, ours.v.bias]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())


def test_attention_is_torchs_multi_head_attention():
    ours, theirs = Attention(D, HEADS, 0.0), nn.MultiheadAttention(D, HEADS, batch_first=True)
    same_weights(ours, theirs)
    query, keys, mask = torch.randn(3, 5, D), torch.randn(3, T, D), steps_mask(LENGTHS[:3], T)
    close(ours(query, keys, mask), theirs(query, keys, keys, key_padding_mask=~mask, need_weights=False)[0])


def test_attention_without_keys_is_zero_with_finite_gradients():
    attention, query = Attention(D, HEADS, 0.1), torch.randn(4, 5, D, requires_grad=True)
    keys = torch.randn(4, T, D, requires_grad=True)
    out = attention(query, keys, steps_mask(LENGTHS, T))
    assert (out[3] == 0).all()  # LENGTHS[3] is 0
    assert (out[:3] != 0).any(-1).all()
    out.square().sum().backward()
    for x in (query, keys, *attention.parameters()):
        assert x.grad.isfinite().all()
    assert (query.grad[3] == 0).all()
    assert (keys.grad[3] == 0).all()


def test_attend_without_keys_is_zero():
    q = torch.randn(1, 2, D)
    assert (attend(q, q, q, torch.zeros(1, 2, dtype=torch.bool), HEADS, 0.0) == 0).all()


def test_attention_ignores_what_is_beyond_the_lengths():
    attention, x, mask = Attention(D, HEADS, 0.0), torch.randn(4, T, D), steps_mask(LENGTHS, T)
    other = torch.where(mask[..., None], x, 1e3)
    close(attention(x, other, mask), attention(x, x, mask))


@pytest.mark.parametrize("heads", [3, 0])
def test_attention_refuses_a_width_that_heads_do_not_divide(heads):
    with pytest.raises(ValueError, match=f"d=8 must be a multiple of heads={heads}"):
        Attention(8, heads, 0.0)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_encoder_block_is_torchs_encoder_layer(norm):
    ours = BLOCKS[norm](D, HEADS, 4 * D, 0.0)
    theirs = nn.TransformerEncoderLayer(D, HEADS, 4 * D, 0.0, "gelu", batch_first=True, norm_first=norm == "pre")
    same_weights(ours.attention, theirs.self_attn)
    for module in ("norm1", "norm2"):
        with torch.no_grad():
            getattr(ours, module).weight.uniform_(0.5, 2)
        getattr(theirs, module).load_state_dict(getattr(ours, module).state_dict())
    theirs.linear1.load_state_dict(ours.ffn[0].state_dict())
    theirs.linear2.load_state_dict(ours.ffn[3].state_dict())
    x, mask = torch.randn(3, T, D), steps_mask(LENGTHS[:3], T)
    close(ours(x, mask)[mask], theirs(x, src_key_padding_mask=~mask)[mask])


@pytest.mark.parametrize("d", [6, 5])
def test_sinusoid_is_the_usual_position_code(d):
    code = sinusoid(9, d)
    for t in range(9):
        for i in range(d):
            angle = t / 10000 ** (2 * (i // 2) / d)
            assert code[t, i].item() == pytest.approx(math.cos(angle) if i % 2 else math.sin(angle), abs=1e-5)


# --- one time axis ---


def test_to_grid_is_adaptive_pooling_per_sample():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(0, 41, (60,), generator=generator)
    grid = torch.randint(0, 12, (60,), generator=generator)
    x = torch.randn(60, 40, 3, generator=generator) * steps_mask(lengths, 40)[..., None]
    got = to_grid(x, lengths, grid, 11)
    assert got.shape == (60, 11, 3)
    for i, (n, size) in enumerate(zip(lengths.tolist(), grid.tolist(), strict=True)):
        expected = torch.zeros(11, 3)
        if n and size:
            expected[:size] = F.adaptive_avg_pool1d(x[i, :n].T[None], size)[0].T
        close(got[i], expected)


def test_to_grid_leaves_equal_lengths_unchanged_to_the_bit():
    lengths = torch.tensor([5, 1, 8, 0])
    x = torch.randn(4, 8, 3) * steps_mask(lengths, 8)[..., None]
    assert torch.equal(to_grid(x, lengths, lengths, 8), x)


def test_aligned_features_of_unaligned_data_pool_before_they_project():
    data = unaligned()
    features = Features(data, D)
    batch = data.train.batch(range(12))
    assert len({tuple(row) for row in batch.lengths.tolist()}) > 1
    X, mask, available = features(batch)
    assert available.all()
    for i in range(12):
        n = int(batch.lengths[i, 0])
        for m, raw in enumerate(batch.features):
            own = raw[i, : batch.lengths[i, m]]
            pooled = F.adaptive_avg_pool1d(own.T[None], n)[0].T
            close(X[i, m, :n], features.proj[m](pooled), atol=1e-5)
            assert mask[i, m].tolist() == [t < n for t in range(X.shape[2])]
    assert (X[~mask] == 0).all()


def test_padded_features_keep_their_own_steps():
    data = unaligned()
    features, batch = Features(data, D, length_mode="padded"), data.train.batch(range(4))
    X, mask, _ = features(batch)
    assert mask.sum(-1).tolist() == batch.lengths.tolist()
    close(X[2, 1, : batch.lengths[2, 1]], features.proj[1](batch.audio[2, : batch.lengths[2, 1]]))


def test_a_sample_without_the_grid_modality_keeps_the_mean_of_the_others():
    data = unaligned()
    features, batch = Features(data, D), data.train.batch(range(4))
    lengths = batch.lengths.clone()
    lengths[1, 0] = 0
    X, mask, available = features(batch._replace(lengths=lengths))
    assert available.tolist() == [[True] * 3, [False, True, True], [True] * 3, [True] * 3]
    assert mask[1].sum(-1).tolist() == [0, 1, 1]
    close(X[1, 2, 0], features.proj[2](batch.vision[1, : lengths[1, 2]].mean(0)), atol=1e-5)


@pytest.mark.parametrize("pos", ["sin", "learned"])
def test_positions_are_added_to_valid_steps(pos):
    data = unaligned()
    batch, features = data.train.batch(range(3)), Features(data, D, pos=pos, length_mode="padded")
    X, mask, _ = features(batch)
    features.place = unchanged
    plain, steps = features(batch)[0], X.shape[2]
    code = sinusoid(steps, D) if pos == "sin" else features.position[:steps]
    close(X, (plain + code) * mask[..., None])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("mode", ["aligned", "padded"])
@pytest.mark.parametrize(("proj", "pos"), [("linear", "none"), ("conv1", "sin"), ("conv3", "learned")])
def test_padding_reaches_neither_features_nor_gradients(value, mode, proj, pos):
    data = unaligned()
    features = Features(data, D, proj=proj, pos=pos, length_mode=mode)
    batch = data.train.batch([3, 5, 7])
    X, mask, _ = features(batch)
    X.square().sum().backward()
    grads = [p.grad.clone() for p in features.parameters()]
    features.zero_grad()
    other, other_mask, _ = features(filled(batch, value, extra=9))
    other.square().sum().backward()
    steps = X.shape[2]
    close(other[:, :, :steps], X)
    assert torch.equal(other_mask[:, :, :steps], mask)
    assert not other_mask[:, :, steps:].any()
    assert (other[:, :, steps:] == 0).all()
    for p, grad in zip(features.parameters(), grads, strict=True):
        close(p.grad, grad, atol=1e-4)


@pytest.mark.parametrize("missing", ["mask", "zero_fill"])
def test_a_modality_left_out_is_never_read(missing):
    data = unaligned()
    features = Features(data, D, "tv", missing)
    batch = data.train.batch(range(6))
    X, mask, available = features(batch._replace(audio=torch.full_like(batch.audio, float("nan"))))
    assert available.tolist() == [[True, missing == "zero_fill", True]] * 6
    assert mask[:, 1].any() == (missing == "zero_fill")
    assert (X[:, 1] == 0).all()
    X.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in features.parameters())
    assert not features.proj[1].weight.grad.any()


def test_a_modality_that_the_data_lack_is_not_filled_in():
    data = planted.load("planted", SMALL)
    lengths = data.train.lengths.clone()
    lengths[:, 2] = 0
    lacking = replace(data, train=replace(data.train, lengths=lengths, host_lengths=None))
    assert Features(lacking, D, "t", "zero_fill").letters == "ta"
    with pytest.raises(ValueError, match="has none of the modalities asked for, 'v'"):
        Features(lacking, D, "v")


def test_an_encoder_needs_tokens():
    with pytest.raises(ValueError, match="bert='frozen' needs tokens and an encoder name"):
        Features(planted.load("planted", SMALL), D, bert="frozen")


def test_no_encoder_is_loaded_where_text_is_left_out():
    assert not hasattr(Features(planted.load("planted", SMALL), D, "av", bert="finetune"), "text_encoder")


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("padding", [0, 2])
def test_a_convolution_over_time_equals_that_of_pytorch(kernel, padding):
    conv, x = nn.Conv1d(7, 4, kernel, padding=padding, bias=False), torch.randn(2, 6, 7)
    close(convolved(x, conv.weight, padding), conv(x.transpose(1, 2)).transpose(1, 2))
