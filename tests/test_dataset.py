"""What a sample is: splits, batches and the fingerprint of a data set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import dataset, split

from msa_lib import MODALITIES
from msa_lib.data import load_dataset
from msa_lib.data.dataset import Dataset, fingerprint, steps_mask

KINDS = {
    "list": lambda i: i,
    "tuple": tuple,
    "array": np.array,
    "int32": lambda i: np.array(i, np.int32),
    "tensor": torch.tensor,
    "negative": lambda i: [k - 20 for k in i],
    "mask": lambda i: np.isin(np.arange(20), i),
    "mask tensor": lambda i: torch.from_numpy(np.isin(np.arange(20), i)),
    "mask list": lambda i: np.isin(np.arange(20), i).tolist(),
}


def assert_is(batch, part, index):
    """The batch holds exactly the samples at `index`; features are compared on valid steps."""
    assert torch.equal(batch.labels, part.labels[index])
    assert torch.equal(batch.lengths, part.lengths[index])
    assert torch.equal(batch.unimodal_labels, part.unimodal_labels[index])
    assert all(torch.equal(batch.truth[k], v[index]) for k, v in part.truth.items())
    width = part.lengths[index].amax(0).clamp(min=1).tolist()
    assert torch.equal(batch.tokens, part.tokens[index][:, :, : width[0]])
    for m, (x, name, mask) in enumerate(zip(batch.features, MODALITIES, batch.masks, strict=True)):
        whole = getattr(part, name)[index]
        assert x.shape[1] == mask.shape[1] == width[m]
        assert torch.equal(mask.sum(1), part.lengths[index, m])
        valid = steps_mask(part.lengths[index, m], whole.shape[1])
        assert torch.equal(x[mask], whole[valid])


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_the_samples_asked_for(kind):
    part, index = split(20), [2, 3, 11, 17]
    batch = part.batch(KINDS[kind](index))
    assert_is(batch, part, index)
    assert batch.index.dtype == torch.int64
    assert (batch.index % 20).tolist() == index


def test_a_batch_by_slice_range_or_one_number():
    part = split(20)
    assert_is(part.batch(slice(4, None, 5)), part, [4, 9, 14, 19])
    assert part.batch(slice(4, None, 5)).index.tolist() == [4, 9, 14, 19]
    assert_is(part.batch(range(5)), part, [0, 1, 2, 3, 4])
    assert_is(part.batch(7), part, [7])
    assert_is(part.batch(np.int64(7)), part, [7])
    assert_is(part.batch([3, 3, 1]), part, [3, 3, 1])
    with pytest.raises(IndexError):
        part.batch([20])


def test_a_missing_modality_keeps_one_empty_step():
    part = split(4)
    part = replace(part, lengths=part.lengths * torch.tensor([1, 0, 1]))
    batch = part.batch([0, 1])
    assert batch.audio.shape == (2, 1, 2)
    assert not batch.masks[1].any()


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 25), size=st.integers(1, 30), shuffled=st.booleans(), drop=st.booleans())
def test_batches_cover_every_sample_once(n, size, shuffled, drop):
    part = split(n)
    generator = torch.Generator().manual_seed(5) if shuffled else None
    batches = list(part.batches(size, generator, drop))
    for batch in batches:
        assert_is(batch, part, batch.index)
    seen = torch.cat([batch.index for batch in batches])
    sizes = [len(batch.labels) for batch in batches]
    if drop and n >= size:
        assert sizes == [size] * (n // size)
        assert len(seen.unique()) == len(seen)
    else:
        assert seen.sort().values.tolist() == list(range(n))
        assert sizes[:-1] == [size] * (len(sizes) - 1)
    if not shuffled:
        assert seen.tolist() == list(range(len(seen)))


def test_the_order_of_a_pass_comes_from_the_generator_alone():
    part = split(20)

    def order(generator):
        return torch.cat([batch.index for batch in part.batches(6, generator)]).tolist()

    torch.manual_seed(1)
    first, state = order(torch.Generator().manual_seed(3)), torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())  # the global generator is left alone
    g = torch.Generator().manual_seed(3)
    assert order(g) == first != order(g)


def test_batches_of_the_meta_device_read_nothing_from_it():
    part = split(20).to("meta")
    assert part.device.type == "meta"
    assert sum(len(batch.labels) for batch in part.batches(6)) == 20
    assert part.batch([0, 1]).text.shape[1] == split(20).lengths[:2, 0].max()


def test_new_lengths_are_the_ones_that_trim():
    """A split made from another by dataclasses.replace must not keep the lengths of the old one."""
    part = split(6)
    shorter = replace(part, lengths=torch.ones_like(part.lengths))
    assert [x.shape[1] for x in shorter.batch([0, 1]).features] == [1, 1, 1]


def test_what_a_dataset_knows_of_itself():
    data = dataset()
    assert (len(data.train), len(data.valid), len(data.test)) == (20, 9, 7)
    assert list(data.splits) == ["train", "valid", "test"]
    assert data.feature_dims == (3, 2, 4)
    every = torch.cat([part.lengths for part in data.splits.values()])
    assert data.max_steps == tuple(every.amax(0).tolist())
    assert data.available == (True, True, True)
    deaf = replace(data.train, lengths=data.train.lengths * torch.tensor([1, 0, 1]))
    assert replace(data, train=deaf).available == (True, False, True)


def test_moving_changes_nothing_but_the_device():
    data = dataset(notes=("a note",), language="zh", synthetic=True, encoder="e")
    moved = data.to("cpu")
    assert replace(moved, train=data.train, valid=data.valid, test=data.test) == data
    assert_is(moved.test.batch(range(7)), data.test, list(range(7)))
    assert moved.test.ids == data.test.ids
    away = data.to("meta")
    assert away.fingerprint == data.fingerprint
    assert (away.max_steps, away.available) == (data.max_steps, data.available)
    assert away.test.truth["noise"].device.type == "meta"


PARTS = ("text", "audio", "vision", "lengths", "labels", "unimodal_labels", "tokens")


@pytest.mark.parametrize("where", ["train", "valid", "test"])
@pytest.mark.parametrize("part", [*PARTS, "ids"])
def test_the_fingerprint_sees_every_value(part, where):
    data = dataset()
    old = getattr(getattr(data, where), part)
    if part == "ids":
        new = ("another", *old[1:])
    else:
        new = old.clone()
        new.view(-1)[-1] += 1
    changed = replace(getattr(data, where), **{part: new})
    assert fingerprint(data.splits | {where: changed}) != data.fingerprint


def test_the_fingerprint_sees_order_shape_and_what_is_there():
    data = dataset()
    turned = {name: replace(part, ids=part.ids[::-1]) for name, part in data.splits.items()}
    swapped = {"train": data.train, "valid": data.test, "test": data.valid}
    without = data.splits | {"test": replace(data.test, unimodal_labels=None)}
    text = data.test.text
    reshaped = data.splits | {"test": replace(data.test, text=text.reshape(7, text.shape[2], text.shape[1]))}
    found = [fingerprint(s) for s in (data.splits, turned, swapped, without, reshaped)]
    assert len(set(found)) == 5
    assert all(len(f) == 16 and set(f) <= set("0123456789abcdef") for f in found)


def test_the_fingerprint_does_not_see_how_the_content_is_kept():
    data = dataset()
    text = data.train.text
    strided = replace(data.train, text=text.transpose(0, 2).contiguous().transpose(0, 2))
    assert not strided.text.is_contiguous()
    renamed = replace(data, name="other", notes=("note",), fingerprint="", train=strided)
    assert renamed.fingerprint == dataset().fingerprint == data.fingerprint
    assert dataset(seed=1).fingerprint != data.fingerprint


@pytest.mark.parametrize("part", [*PARTS, "ids", "raw_text"])
def test_a_part_with_another_number_of_samples_is_refused(part):
    data = split(5)
    value = getattr(data, part) if part != "raw_text" else tuple("abcde")
    with pytest.raises(ValueError, match=r"\w+ has \d samples where the split has \d labels\."):
        replace(data, **{part: value[:4]})


def test_errors_are_one_sentence():
    with pytest.raises(ValueError, match=r"^The label scale of hand-made is 'mosei'; it must be one of mosi, sims\.$"):
        dataset(scale="mosei")
    with pytest.raises(ValueError, match=r"^truth\['p'\] has 3 samples where the split has 5 labels\.$"):
        split(5, truth={"p": torch.zeros(3)})


def test_planted_data_are_batches_too():
    data = load_dataset("planted?train=16&valid=4&test=4")
    assert isinstance(data, Dataset)
    batch = data.train.batch([0, 5])
    assert batch.tokens is None
    assert batch.truth["dominant"].tolist() == data.train.truth["dominant"][[0, 5]].tolist()


def test_standardised_by_valid_training_steps():
    name = "planted-sims?train=20&valid=8&test=8"
    plain, data = load_dataset(name), load_dataset(f"{name}&standardise=yes")
    for m, modality in enumerate(("text", "audio", "vision")):
        raw, done = (getattr(d.train, modality) for d in (plain, data))
        valid = steps_mask(plain.train.lengths[:, m], raw.shape[1])
        assert done[valid].mean(0).abs().max() < 1e-3
        assert torch.allclose(done[valid].std(0, correction=0), torch.ones(raw.shape[2]), atol=1e-3)
        assert not done[~valid].any()
        mean, deviation = raw[valid].mean(0), raw[valid].std(0, correction=0)
        first = getattr(plain.test, modality)[0, 0]
        assert torch.allclose(getattr(data.test, modality)[0, 0], (first - mean) / deviation, atol=1e-4)
    assert data.fingerprint != plain.fingerprint
    assert any("standardised" in note for note in data.notes)
    with pytest.raises(ValueError, match="yes or no"):
        load_dataset(f"{name}&standardise=maybe")


def test_a_batch_that_is_not_trimmed_holds_the_same_samples():
    part = split(20)
    index = torch.tensor([3, 3, 17])
    whole, trimmed = part.batch(index, trim=False), part.batch(index)
    assert [x.shape[1] for x in whole.features] == [6, 5, 4]
    for a, b, mask in zip(whole.features, trimmed.features, trimmed.masks, strict=True):
        assert torch.equal(a[:, : b.shape[1]][mask], b[mask])
    assert torch.equal(whole.labels, trimmed.labels)
    assert torch.equal(whole.index, index)
