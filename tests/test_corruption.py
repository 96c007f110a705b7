"""Test samples with a noisy or missing modality."""

import numpy as np
import pandas as pd
import pytest
import torch
from toy import DATA, dataset

from msa_lib.data import load_dataset
from msa_lib.data.dataset import steps_mask
from msa_lib.metrics import evaluate
from msa_lib.models import build_model
from msa_lib.study import corruption
from msa_lib.train import predict


def test_noise_has_the_energy_it_is_asked_for():
    data = load_dataset(DATA)
    for m, name in enumerate(("text", "audio", "vision")):
        spread = corruption.deviation(data.train, m)
        noisy = corruption.noisy(data.test, m, 2.0, spread)
        added = getattr(noisy, name) - getattr(data.test, name)
        mask = steps_mask(data.test.lengths[:, m], added.shape[1])
        assert (added[~mask] == 0).all()
        ratio = added[mask].std(0) / spread
        assert torch.allclose(ratio.mean(), torch.tensor(2.0), rtol=0.05)
        for other in {"text", "audio", "vision"} - {name}:
            assert getattr(noisy, other) is getattr(data.test, other)


def test_noise_is_the_same_at_every_level_and_another_with_another_seed():
    test, spread = load_dataset(DATA).test, torch.ones(32)
    one, two, other = (corruption.noisy(test, 0, level, spread, seed).text - test.text
                       for level, seed in ((1.0, 0), (2.0, 0), (1.0, 1)))  # fmt: skip
    torch.testing.assert_close(2 * one, two, atol=1e-5, rtol=1e-5)
    assert (one - other).abs().max() > 0.1


def test_deviation_counts_valid_steps_only():
    data = dataset()  # its padding holds garbage
    known = torch.cat([x[:n] for x, n in zip(data.train.audio, data.train.lengths[:, 1], strict=True)])
    torch.testing.assert_close(corruption.deviation(data.train, 1), known.std(0, correction=0))


def test_missing_shares_are_nested_and_leave_the_rest_alone():
    test = load_dataset("planted?train=8&valid=4&test=400").test
    gone = [(corruption.missing(test, 1, rate).lengths[:, 1] == 0) for rate in (0.0, 0.3, 0.6, 1.0)]
    assert [int(g.sum()) for g in gone][::3] == [0, 400]
    assert 0.2 < gone[1].float().mean() < 0.4
    assert (gone[1] <= gone[2]).all()
    some = corruption.missing(test, 1, 0.3)
    assert (some.lengths[:, [0, 2]] == test.lengths[:, [0, 2]]).all()
    assert (some.host_lengths == some.lengths).all()


@pytest.mark.parametrize("model", ["amsgfn", "dsrf"])
def test_curves_start_at_the_clean_split_and_know_what_is_missing(model):
    data = load_dataset(DATA)
    torch.manual_seed(0)
    network = build_model(model, data, d=16, heads=2, n_layers=1)

    def guess(split):
        return predict(network, split, 32, ())["predictions"]

    found = corruption.curves([guess, lambda split: np.zeros(len(split))], data, levels=(1.0,), rates=(1.0,))
    assert len(found) == 3 * 2 * 2 * 2
    found = found[found["predictor"] == 0]
    clean = evaluate(data.test.labels.numpy(), guess(data.test), scale="mosi")
    assert (found[found["level"] == 0]["mae"] == clean["mae"]).all()
    rest = build_model(model, data, d=16, heads=2, n_layers=1, modalities="tv")
    rest.load_state_dict(network.state_dict(), strict=False)
    without = evaluate(data.test.labels.numpy(), predict(rest.eval(), data.test, 32, ())["predictions"], scale="mosi")
    gone = found.query("kind == 'missing' and modality == 'audio' and level == 1")["mae"].item()
    assert gone == pytest.approx(without["mae"], abs=1e-6)  # a missing modality is one the network never had


def test_modalities_that_the_data_lack_are_left_out():
    data = dataset()
    for split in data.splits.values():
        split.lengths[:, 2] = 0
        split.host_lengths[:, 2] = 0
    found = corruption.curves([lambda split: np.linspace(-1, 1, len(split))], data)
    assert set(found["modality"]) == {"text", "audio"}


def test_frames_are_zeros_in_a_share_of_the_valid_steps():
    test = load_dataset("planted?train=8&valid=4&test=200").test
    lost = {rate: corruption.frames(test, 2, rate) for rate in (0.0, 0.3, 1.0)}
    valid = steps_mask(test.lengths[:, 2], test.vision.shape[1])
    gone = {rate: (split.vision == 0).all(-1)[valid] for rate, split in lost.items()}
    assert not gone[0.0].any()
    assert gone[1.0].all()
    assert gone[0.3].float().mean() == pytest.approx(0.3, abs=0.04)
    assert (lost[0.3].lengths == test.lengths).all()
    assert lost[0.3].text is test.text


def test_shuffled_steps_stay_within_the_valid_steps_of_their_sample():
    test = load_dataset("planted?train=8&valid=4&test=60").test
    valid = steps_mask(test.lengths[:, 1], test.audio.shape[1])
    for rate, least, most in ((0.0, 0.0, 0.0), (0.5, 0.25, 0.5), (1.0, 0.6, 0.95)):
        moved = corruption.shuffled(test, 1, rate).audio
        share = (moved != test.audio).any(-1)[valid].float().mean()
        assert least <= share <= most
        assert not moved[~valid].any()
        torch.testing.assert_close(moved.sort(1).values, test.audio.sort(1).values)
        torch.testing.assert_close(moved.square().sum(-1).sort(1).values, test.audio.square().sum(-1).sort(1).values)


def test_a_mispaired_modality_is_that_of_another_sample_with_its_length():
    test = load_dataset("planted-sims?train=8&valid=4&test=40").test
    split = corruption.mispaired(test, 1, 0.5)
    other = [next(j for j in range(40) if (test.audio[j] == x).all()) for x in split.audio]
    assert sum(i != j for i, j in enumerate(other)) == 20
    assert (split.lengths[:, 1] == test.lengths[other, 1]).all()
    assert (split.lengths[:, [0, 2]] == test.lengths[:, [0, 2]]).all()
    assert (split.host_lengths == split.lengths).all()
    assert split.labels is test.labels


def test_token_ids_go_with_the_text():
    from dataclasses import replace

    test = load_dataset("planted?train=8&valid=4&test=30").test
    tokens = torch.arange(30 * 3 * 24).reshape(30, 3, 24) + 1
    test = replace(test, tokens=tokens)
    where = test.text.square().sum(-1)
    shuffled = corruption.shuffled(test, 0, 1.0)
    for i in (0, 7):
        n = int(test.lengths[i, 0])
        moved = [int((where[i, :n] == x).nonzero()[0]) for x in shuffled.text[i, :n].square().sum(-1)]
        assert shuffled.tokens[i, 0, :n].tolist() == tokens[i, 0, moved].tolist()
    assert corruption.frames(test, 0, 1.0).tokens.eq(0).all()
    assert corruption.mispaired(test, 0, 1.0).tokens.flatten(1)[:, 0].sort().values.tolist() == tokens[:, 0, 0].tolist()
    assert corruption.mispaired(test, 1, 1.0).tokens is tokens


def test_curves_of_every_kind_and_the_area_under_them():
    data = load_dataset(DATA)
    found = corruption.curves([lambda split: split.text.mean((1, 2)).numpy()], data, kinds=corruption.KINDS)
    assert list(found["kind"].unique()) == list(corruption.KINDS)
    assert (found.groupby(["kind", "modality"])["level"].count() == 4).all()
    assert found[found["modality"] == "audio"]["mae"].nunique() == 1  # a guess by text does not see it
    assert found[(found["modality"] == "text") & (found["kind"] == "noise")]["mae"].nunique() == 4


def test_area_is_the_mean_loss_over_the_curve_and_the_share_that_of_the_lead():
    lines = [("a", 0, 1.0), ("a", 2, 1.5), ("a", 1, 1.2), ("b", 0, 2.5), ("b", 2, 2.5), ("b", 1, 2.5)]
    curves = pd.DataFrame(lines, columns=["row", "level", "mae"]).assign(seed=1, kind="noise", modality="text")
    found = corruption.areas(curves).set_index("row")
    assert found.loc["a", "area"] == pytest.approx((0.1 + 0.35) / 2)  # trapezes of 0, 0.2, 0.5 over width 2
    assert found.loc["a", "clean"] == 1.0
    assert found.loc["b", "area"] == 0
    share = corruption.share_lost(found, constant=2.0)
    assert share["a"] == pytest.approx(0.225)
    assert np.isnan(share["b"])  # worse than a constant: nothing to lose
