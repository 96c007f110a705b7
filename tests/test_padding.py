"""Padding in front gives the tensors of the twin padded behind, or is refused; what cannot be told is said."""

import numpy as np
import pytest
import torch
from mmsa_files import parts, write

from msa_lib.data import check, readers

UNALIGNED = {"audio": (20, 5), "vision": (14, 4)}
MODALITIES = ("text", "audio", "vision")


def lengths_of(part, m):
    """The true lengths of a part made by `parts`."""
    given = part.get(f"{m}_lengths")
    return part["text_bert"][:, 1].sum(1).astype(int) if given is None else np.array(given)


def to_end(x, lengths, axis=0):
    return np.stack([np.roll(row, row.shape[axis] - n, axis) for row, n in zip(x, lengths, strict=True)])


def zero_padded(content):
    """Text features of zeros on the padding, as GloVe's."""
    for part in content.values():
        part["text"] *= (np.arange(part["text"].shape[1]) < lengths_of(part, "text")[:, None])[..., None]
    return content


def in_front(content, *which):
    """The same data, the named arrays padded in front."""
    out = {}
    for s, part in content.items():
        out[s] = dict(part)
        for key in which:
            n = lengths_of(part, "text" if key == "text_bert" else key)
            out[s][key] = to_end(part[key], n, axis=1 if key == "text_bert" else 0)
    return out


def same(tmp_path, front, behind):
    a, b = (readers.read(write(tmp_path / f"{i}.pkl", c)) for i, c in enumerate((front, behind)))
    for x, y in zip(a.splits.values(), b.splits.values(), strict=True):
        assert torch.equal(x.lengths, y.lengths)
        for m, name in enumerate(MODALITIES):  # only what lies within the length is ever used
            for row, (p, q) in enumerate(zip(getattr(x, name), getattr(y, name), strict=True)):
                n = int(x.lengths[row, m])
                assert torch.equal(p[:n], q[:n]), (name, row)
        if y.tokens is not None:
            assert torch.equal(x.tokens, y.tokens)
    return a, b


@pytest.mark.parametrize("shapes", [{}, {**UNALIGNED, "lengths": True}], ids=["aligned", "unaligned, lengths given"])
@pytest.mark.parametrize("zeros", [True, False], ids=["zeros", "features on the padding"])
def test_everything_in_front_is_the_twin_behind(tmp_path, shapes, zeros):
    behind = parts(3, {"train": 30, "valid": 9, "test": 12}, **shapes)
    behind = zero_padded(behind) if zeros else behind
    a, b = same(tmp_path, in_front(behind, "text_bert", *MODALITIES), behind)
    assert a.fingerprint == b.fingerprint  # padding included
    assert any("tokens are padded in front" in note for note in a.notes)
    assert not any("padded in front" in note or "moved" in note for note in b.notes)


@pytest.mark.parametrize(
    "which",
    [("text_bert", "text"), ("text_bert",), ("text",), ("audio",), ("vision",), ("audio", "vision"), ("text", "audio")],
    ids="+".join,
)
@pytest.mark.parametrize("lengths", [True, False])
def test_some_in_front_and_some_behind(tmp_path, which, lengths):
    """Each is brought to the front by its own zeros; where they should stand on one side, that is said."""
    shapes = {**UNALIGNED, "lengths": True} if lengths else {}
    behind = zero_padded(parts(4, {"train": 30, "valid": 9, "test": 12}, **shapes))
    for part in behind.values():  # no two zeros at an end by chance
        assert all(part[m][:, 0].any() for m in MODALITIES)
    a, b = same(tmp_path, in_front(behind, *which), behind)
    assert a.fingerprint == b.fingerprint
    text_agrees = ("text" in which) == ("text_bert" in which)
    together = lengths and text_agrees  # unaligned audio and vision may stand where they like
    assert any("another side" in note for note in a.notes) != together


def test_real_zeros_at_the_ends_follow_the_tokens(tmp_path):
    """The last frames of every sample are zeros: alone they would look padded behind."""
    behind = zero_padded(parts(5, {"train": 30, "valid": 9, "test": 12}))
    for part in behind.values():
        for row, n in enumerate(lengths_of(part, "text")):
            part["audio"][row, max(n - 2, 1) : n] = 0.0
            part["vision"][row, max(n - 2, 1) : n] = 0.0
    a, b = same(tmp_path, in_front(behind, "text_bert", *MODALITIES), behind)
    assert a.fingerprint == b.fingerprint


def test_frames_that_are_never_zero_follow_the_tokens(tmp_path):
    """Aligned audio and vision with noise on the padding: only the mask knows where the sample stands."""
    behind = parts(6, {"train": 30, "valid": 9, "test": 12})
    rng = np.random.default_rng(1)
    for part in behind.values():
        for m in MODALITIES:
            part[m] = rng.normal(size=part[m].shape)
    a, b = same(tmp_path, in_front(behind, "text_bert", *MODALITIES), behind)
    assert a.fingerprint == b.fingerprint


def test_real_zeros_at_the_ends_follow_the_other_samples(tmp_path):
    """Lengths given, no tokens to ask: samples that fit at either end stand where all the others do."""
    behind = parts(5, {"train": 30, "valid": 9, "test": 12}, **UNALIGNED, lengths=True)
    for part in behind.values():
        part["audio_lengths"][0] = 18
        part["audio"][0] = np.random.default_rng(0).normal(size=(20, 5))
        part["audio"][0, 10:] = 0.0  # 8 of its 18 steps are zeros
    a, b = same(tmp_path, in_front(behind, "audio"), behind)
    assert a.fingerprint == b.fingerprint


def test_without_lengths_leading_zeros_are_padding_if_nobody_ends_in_zeros(tmp_path):
    behind = parts(6, {"train": 30, "valid": 9, "test": 12}, **UNALIGNED, lengths=True)
    front = in_front(behind, "audio", "vision")
    for content in (behind, front):
        for part in content.values():
            del part["audio_lengths"], part["vision_lengths"]
    a, b = same(tmp_path, front, behind)
    assert a.fingerprint == b.fingerprint
    assert any(n.startswith("audio: no lengths are given, no sample ends in zeros") for n in a.notes)
    assert not any("no lengths are given" in note for note in b.notes)
    part = front["train"]  # one sample behind: the side is open, and nothing is taken for padding
    part["audio"][0] = np.roll(part["audio"][0], 1, 0)
    part["audio"][0, -1] = 0.0
    mixed = readers.read(write(tmp_path / "m.pkl", front))
    assert not any(n.startswith("audio: no lengths") for n in mixed.notes)
    assert mixed.train.lengths[1:, 1].tolist() == [20] * 29


def test_text_without_tokens(tmp_path):
    behind = zero_padded(parts(7, {"train": 30, "valid": 9, "test": 12}))
    front = in_front(behind, *MODALITIES)
    for content in (behind, front):
        for part in content.values():
            del part["text_bert"]
    a, b = same(tmp_path, front, behind)
    assert a.fingerprint == b.fingerprint


MASKS = {
    "a hole": lambda mask: mask.__setitem__((0, slice(None)), [1, 0, 1, 1, 0, 0]),
    "zeros on both sides": lambda mask: mask.__setitem__((0, slice(None)), [0, 1, 1, 1, 1, 0]),
    "a two": lambda mask: mask.__setitem__((0, 0), 2),
}


@pytest.mark.parametrize("fault", MASKS)
def test_other_masks_are_refused(tmp_path, fault):
    content = parts(8)
    MASKS[fault](content["test"]["text_bert"][:, 1])
    path = write(tmp_path / "x.pkl", content)
    with pytest.raises(ValueError, match=r"x\.pkl: test: the attention mask of 1 samples is neither ones followed by"):
        readers.read(path)
    assert any("test: the attention mask of 1 samples" in p for p in check.describe(path)["problems"])


def test_the_check_says_which_side(tmp_path):
    behind = parts(3)
    report = check.describe(write(tmp_path / "x.pkl", in_front(behind, "text_bert", *MODALITIES)))
    assert report["problems"] == []
    assert any("the tokens are padded in front" in note for note in report["notes"])


def test_given_lengths_beside_a_mask_are_compared(tmp_path):
    content = parts(9)
    for part in content.values():
        part["text_lengths"] = lengths_of(part, "text").tolist()
    assert not any("differ" in n for n in readers.read(write(tmp_path / "x.pkl", content)).notes)
    content["train"]["text_lengths"][0] -= 1
    notes = readers.read(write(tmp_path / "y.pkl", content)).notes
    assert "text: 1 given lengths differ from the attention mask; the given ones are used." in notes
