"""Test samples with a noisy or missing modality."""

import numpy as np
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
