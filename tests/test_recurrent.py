"""The LSTM of tensor operations against the built-in one over packed sequences."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from toy import close

from msa_lib.data.dataset import steps_mask
from msa_lib.models.parts.recurrent import LSTM


@pytest.mark.parametrize("bidirectional", [False, True])
def test_it_gives_what_the_built_in_one_gives_over_packed_sequences(bidirectional):
    torch.manual_seed(0)
    ours, theirs = LSTM(3, 4, bidirectional), nn.LSTM(3, 4, bidirectional=bidirectional, batch_first=True)
    with torch.no_grad():
        for name, value in ours.named_parameters():
            ways = ("", "_reverse")[: 1 + bidirectional]
            value.copy_(torch.stack([getattr(theirs, f"{name}_l0{way}") for way in ways]))
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    x, lengths = torch.randn(5, 7, 3), torch.tensor([7, 1, 4, 2, 6])
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    expected, (state, _) = theirs(packed)
    outputs, last = ours(x, steps_mask(lengths, 7))
    close(outputs, pad_packed_sequence(expected, batch_first=True)[0])
    close(last, state.transpose(0, 1).flatten(1))
    (outputs.square().sum() + last.sum()).backward()
    (pad_packed_sequence(expected, batch_first=True)[0].square().sum() + state.sum()).backward()
    close(ours.weight_hh.grad[0], theirs.weight_hh_l0.grad, atol=1e-5)


def test_a_sample_without_steps_gives_zeros():
    x, lengths = torch.randn(2, 3, 3), torch.tensor([0, 2])
    outputs, last = LSTM(3, 4, bidirectional=True)(x, steps_mask(lengths, 3))
    assert not outputs[0].any()
    assert not last[0].any()
    assert not outputs[1, 2].any()
    assert last[1].all()
