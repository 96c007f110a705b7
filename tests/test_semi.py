"""Semi-synthetic data: planted audio and vision beside a data set's own text, labels and splits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from msa_lib.data import load_dataset, pack, semi
from msa_lib.data.oracle import expectation
from msa_lib.data.semi import Semi, plant
from msa_lib.reference import pooled_features, ridge
from msa_lib.runs import Run
from msa_lib.runs.identity import parameters, run_id

SIZES = "train=1500&valid=300&test=600&steps=10,10,10&dims=12,8,8"


@pytest.fixture(scope="module")
def text():
    """Text alone, as `msa data encode` leaves it, with its labels."""
    whole = load_dataset(f"planted?{SIZES}")
    splits = {}
    for name, split in whole.splits.items():
        none = torch.zeros(len(split), 1, 1)
        lengths = split.lengths * torch.tensor([1, 0, 0])
        splits[name] = replace(split, audio=none, vision=none, lengths=lengths, truth={}, unimodal_labels=None)
    return replace(whole, **splits, name="text", synthetic=False, notes=("a note",), fingerprint="")


def seen(dataset, name: str) -> np.ndarray:
    """A fact of the training split."""
    return dataset.train.truth[name].numpy()


def corr(a, b) -> float:
    return float(np.corrcoef(a, b)[0, 1])


@pytest.mark.parametrize("cue", semi.CUES)
@pytest.mark.parametrize("levels", [(0.0, 0.0), (0.293, 0.145), (0.68, 0.5), (0.95, 0.95)])
def test_the_evidence_correlates_with_the_label_as_asked(text, levels, cue):
    y = np.tile(text.train.labels.numpy().astype(float), 20)  # 30,000 samples
    known = semi.facts(Semi(levels, cue, seed=3), semi.STREAM, (y - y.mean()) / y.std())
    for m, level in enumerate(levels):
        assert corr(known["av_evidence"][:, m], y) == pytest.approx(level, abs=0.02)
        assert known["av_evidence"][:, m].std() == pytest.approx(1, abs=0.02)
        assert known["av_reliability"][:, m].mean() == pytest.approx(level, abs=0.01)


@pytest.mark.parametrize("cue", semi.CUES)
def test_the_features_tell_the_evidence_and_that_is_worth_something_beside_text(text, cue):
    made = plant(text, Semi((0.68, 0.293), cue, seed=3))
    for m, letter in enumerate("av"):
        assert _readable(pooled_features(made.train, letter), seen(made, "av_evidence")[:, m]) > 0.95
    assert ridge(made, "tav").metrics["test"]["mae"] < ridge(made, "t").metrics["test"]["mae"] - 0.03


def test_at_level_0_audio_and_vision_know_nothing_of_the_label(text):
    train = text.train
    turned = replace(text, train=replace(train, labels=train.labels.flip(0)), fingerprint="")
    for cue in semi.CUES:
        a, b = (plant(data, Semi((0.0, 0.0), cue)).train for data in (text, turned))
        assert torch.equal(a.audio, b.audio)
        assert torch.equal(a.vision, b.vision)
    some = plant(turned, Semi((0.1, 0.0))).train
    assert not torch.equal(plant(text, Semi((0.1, 0.0))).train.audio, some.audio)


def test_text_labels_and_splits_stay_what_they_are(text):
    made = plant(text, Semi((0.3, 0.2), "visible"))
    for name, split in text.splits.items():
        other = made.splits[name]
        assert torch.equal(split.text, other.text)
        assert torch.equal(split.labels, other.labels)
        assert (split.ids, split.raw_text) == (other.ids, other.raw_text)
        assert torch.equal(other.lengths, split.lengths[:, :1].expand(-1, 3))
        assert torch.equal(other.host_lengths, other.lengths)
        for m in (other.audio, other.vision):
            steps = torch.arange(m.shape[1]) < split.lengths[:, :1]
            assert (m[~steps] == 0).all()
            assert (m[steps] != 0).any(-1).all()
    assert text.available == (True, False, False)  # the one it was made from is as before
    assert made.available == (True, True, True)


def test_it_is_called_what_it_is(text):
    made = plant(text, Semi((0.3, 0.2), "visible", 5))
    assert made.synthetic
    assert "text, labels and splits are those of text." in made.notes[0]
    assert "correlation with the label 0.3,0.2; reliability visible" in made.notes[0]
    assert made.notes[-1] == "of the text's own data set: a note"
    assert made.name == "text, planted_av=0.3,0.2 av_cue=visible av_seed=5"
    stand_in = load_dataset(f"planted?{SIZES}&planted_av=0.3")
    assert "planted as well: no transcript stands behind them" in stand_in.notes[0]
    assert any("Labels of single modalities are left out" in note for note in stand_in.notes)
    assert stand_in.train.unimodal_labels is None
    assert set(stand_in.train.truth) == {"av_evidence", "av_reliability"}
    own = replace(text, **{s: replace(x, lengths=x.lengths[:, :1].expand(-1, 3)) for s, x in text.splits.items()})
    assert "The audio and vision that the file has are not used." in plant(own, Semi((0.3, 0.2))).notes


def test_a_cue_is_seen_or_hidden_and_changes_nothing_else(text):
    visible, hidden = (plant(text, Semi((0.5, 0.5), cue, 7)) for cue in ("visible", "hidden"))
    assert np.array_equal(seen(visible, "av_evidence"), seen(hidden, "av_evidence"))
    r = seen(visible, "av_reliability")
    assert np.array_equal(r, seen(hidden, "av_reliability"))
    assert np.unique(r.round(3)).tolist() == pytest.approx([0.05, 0.95])
    assert abs(corr(r[:, 0], r[:, 1])) < 0.08
    for m, letter in enumerate("av"):
        told = [_readable(pooled_features(data.train, letter), r[:, m]) for data in (visible, hidden)]
        assert told[0] > 0.9
        assert told[1] < 0.1
    z = seen(hidden, "av_evidence")
    good = r[:, 0] > 0.5
    assert z[good, 0].var() == pytest.approx(z[~good, 0].var(), rel=0.2)  # its size gives nothing away


def _readable(x: np.ndarray, fact: np.ndarray) -> float:
    """R2 of a linear probe."""
    x = np.column_stack([x, np.ones(len(x))])
    return 1 - (fact - x @ np.linalg.lstsq(x, fact, rcond=None)[0]).var() / fact.var()


def test_levels_of_one_seed_share_their_noise_and_seeds_do_not(text):
    y = (text.train.labels - text.train.labels.mean()) / text.train.labels.std(correction=0)

    def noise(level, seed):
        made = plant(text, Semi((level, level), "even", seed))
        return (seen(made, "av_evidence") - level * y.numpy()[:, None]) / np.sqrt(1 - level**2)

    assert np.allclose(noise(0.0, 1), noise(0.6, 1), atol=1e-5)
    assert abs(corr(noise(0.6, 1)[:, 0], noise(0.6, 2)[:, 0])) < 0.1
    train, test = (plant(text, Semi((0.0, 0.0))).splits[s].truth["av_evidence"][:600, 0] for s in ("train", "test"))
    assert abs(corr(train.numpy(), test.numpy())) < 0.1


def test_the_draw_has_nothing_to_do_with_planted_text_of_the_same_seed():
    plain = load_dataset(f"planted?{SIZES}&seed=4").train.truth
    facts = load_dataset(f"planted?{SIZES}&seed=4&planted_av=0&av_seed=4").train.truth["av_evidence"]
    for m in range(2):
        for other in (plain["signal"], *plain["evidence"].T):
            assert abs(corr(facts[:, m].numpy(), other.numpy())) < 0.1


def test_it_loads_by_name_the_same_every_time_and_every_part_of_the_name_counts(text, tmp_path):
    pack.pack(text, tmp_path / "set.packed")
    base = f"{tmp_path}/set.packed?planted_av=0.3,0.2&av_cue=visible&av_seed=5"
    made = plant(text, Semi((0.3, 0.2), "visible", 5)).fingerprint
    assert load_dataset(base).fingerprint == load_dataset(base).fingerprint == made
    names = [
        base,
        base.replace("0.3,0.2", "0.3,0.21"),
        base.replace("visible", "hidden"),
        base.replace("av_seed=5", "av_seed=6"),
        base + "&standardise=yes",
    ]
    assert len({run_id(parameters(Run("dsrf", name, 1))) for name in names}) == len(names)
    drawn = [Run("dsrf", base.replace("av_seed=5", "av_seed=run"), seed) for seed in (5, 6)]
    assert [run.data for run in drawn] == [base, names[3]]
    assert Run("dsrf", "planted?seed=run&planted_av=0.1&av_seed=2", 9).data == "planted?seed=9&planted_av=0.1&av_seed=2"
    standard = load_dataset(names[4]).train
    assert standard.audio[standard.audio.abs().sum(-1) > 0].std(0).numpy() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("planted_av=1", r"planted_av=1,1 is a correlation; expected numbers from 0 to 0.95"),
        ("planted_av=-0.1,0.2", "expected numbers from 0 to 0.95"),
        ("planted_av=nan", "expected numbers from 0 to 0.95"),
        ("planted_av=high", "planted_av='high' is not understood: expected the correlations of audio and vision"),
        ("planted_av=0.1,0.2,0.3", "is not understood"),
        ("planted_av=0.1&av_cue=maybe", "av_cue='maybe': expected one of even, visible, hidden"),
        ("planted_av=0.1&av_seed=-1", "av_seed='-1': expected a whole number"),
        ("planted_av=0.1&av_seed=run", "stands for the seed of each run, and here is no run"),
        ("av_seed=1", "planted has no option 'av_seed'"),
    ],
)
def test_a_wrong_option_is_one_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(f"planted?train=8&valid=4&test=4&{options}")


def test_data_that_nothing_can_be_planted_in_are_refused(text):
    silent = {s: replace(x, lengths=torch.zeros_like(x.lengths)) for s, x in text.splits.items()}
    with pytest.raises(ValueError, match="text has no text features"):
        plant(replace(text, **silent), Semi((0.1, 0.1)))
    flat = replace(text, train=replace(text.train, labels=torch.ones(len(text.train))))
    with pytest.raises(ValueError, match="one training label for all samples"):
        plant(flat, Semi((0.1, 0.1)))


def test_the_expectation_is_the_best_linear_guess_where_all_is_normal():
    rng = np.random.default_rng(0)
    s, noise = rng.standard_normal(20_000), np.array([0.8, 2.0])
    z = (s[:, None] + noise * rng.standard_normal((len(s), 2))) / np.sqrt(1 + noise**2)
    guess = expectation(z[:, None], noise)
    assert guess == pytest.approx(z @ np.linalg.lstsq(z, s, rcond=None)[0], abs=0.05)
    either = expectation(z[:, None], np.stack([noise, noise[::-1]])[None])  # not knowing which is which
    assert ((guess - s) ** 2).mean() < ((either - s) ** 2).mean() < 1
