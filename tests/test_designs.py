"""Each planted design gives its mechanism a job that an oracle wins by, a control on which nobody can, and hides it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from scipy.special import ndtr
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV, RidgeCV

from msa_lib import MODALITIES
from msa_lib.data import designs, load_dataset, oracle, planted
from msa_lib.data.planted import Planted
from msa_lib.runs import Run
from msa_lib.runs.identity import parameters

ALPHAS = np.logspace(-2, 4, 7)
OWN = [name for name in planted.DESIGN_NAMES if name != "selection"]
STORED = "330bad7b9ed52ec2"  # of the default recipe before there were designs
# What knowing is worth over not knowing (and over fixed weights), in MAE: measured once, checked to 10 %.
WORTH = {
    "selection": (0.33, 0.42),
    "fusion": (0.39, 0.39),
    "gate": (0.14, 0.16),
    "alignment": (0.39, 0.39),
    "factors": (0.67, 0.74),
    "ambiguity": (0.22, 0.41),
    "uncertainty": (0.07, 0.30),
    "hops": (0.35, 0.35),
}


@cache
def errors(design: str, control: str) -> dict[str, np.ndarray]:
    return oracle.ceilings(Planted(design=design, control=control))


@cache
def data(design: str, control: str = "positive"):
    return planted.generate(Planted(design=design, control=control, train=2000, valid=20, test=2000))


def pooled(split, m: int) -> np.ndarray:
    return (getattr(split, MODALITIES[m]).sum(1) / split.lengths[:, m, None]).numpy()


def moments(split, m: int) -> np.ndarray:
    """Means over the steps, their squares, and the mean squares: [N,3D]."""
    x, length = getattr(split, MODALITIES[m]), split.lengths[:, m, None].float()
    mean = x.sum(1) / length
    return torch.cat([mean, mean**2, (x**2).sum(1) / length], 1).numpy()


def accuracy(design: str, control: str, m: int, key: str, features=moments) -> float:
    split = data(design, control)
    fitted = RidgeClassifierCV(ALPHAS).fit(features(split.train, m), split.train.truth[key].numpy() > 0)
    return fitted.score(features(split.test, m), split.test.truth[key].numpy() > 0)


# Who can win.


def test_the_default_design_is_what_it_was():
    assert load_dataset("planted").fingerprint == STORED
    assert load_dataset("planted?design=selection&control=positive").fingerprint == STORED
    hidden = planted.generate(Planted(cue="hidden")).fingerprint
    assert planted.generate(Planted(control="negative")).fingerprint == hidden != STORED


@pytest.mark.parametrize("design", planted.DESIGN_NAMES)
def test_where_there_is_a_job_the_oracle_clearly_wins(design):
    for without, worth in zip(("no cue", "fixed weights"), WORTH[design], strict=True):
        found = oracle.gain(errors(design, "positive"), without, "cue")
        assert found.low > 0.05
        assert found.gain == pytest.approx(worth, rel=0.1)


@pytest.mark.parametrize("design", planted.DESIGN_NAMES)
def test_where_there_is_none_it_gains_nothing(design):
    assert oracle.gain(errors(design, "negative"), "no cue", "cue") == pytest.approx((0, 0, 0), abs=2e-4)
    if design not in ("selection", "ambiguity"):  # where robust use of the readings is worth something by itself
        assert abs(oracle.gain(errors(design, "negative"), "fixed weights", "cue").gain) < 0.005


@pytest.mark.parametrize("design", planted.DESIGN_NAMES)
@pytest.mark.parametrize("control", ["positive", "negative"])
def test_who_knows_more_errs_less(design, control):
    mean = {level: value.mean() for level, value in errors(design, control).items()}
    assert mean["truth"] <= mean["cue"] + 0.005 <= mean["no cue"] + 0.01 <= mean["fixed weights"] + 0.015
    assert mean["fixed weights"] < mean["nothing"] - 0.1
    assert mean["truth"] <= mean["dominant alone"] + 0.005


def test_the_ceilings_of_the_default_are_those_of_its_oracle():
    recipe = Planted(test=4000)
    known = planted.facts(recipe, "test")
    for level, knows in (("no cue", "evidence"), ("cue", "noise"), ("truth", "truth")):
        error = np.abs(oracle.oracle_prediction(known, recipe, knows).numpy() - known["labels"]).mean()
        assert errors("selection", "positive")[level].mean() == pytest.approx(error, abs=0.03)


@pytest.mark.parametrize("design", OWN)
def test_ridge_on_means_reaches_fixed_weights_and_no_more(design):
    """The readings are there, linearly; what they mean is not."""
    split = data(design)
    x, y = (
        [np.concatenate([pooled(s, m) for m in range(3)], 1) for s in (split.train, split.test)],
        [s.labels.numpy() for s in (split.train, split.test)],
    )
    error = np.abs(RidgeCV(ALPHAS).fit(x[0], y[0]).predict(x[1]) - y[1]).mean()
    ceiling = errors(design, "positive")["fixed weights"].mean()
    assert ceiling - 0.04 < error < ceiling * 1.15


# What is visible, and where.


@pytest.mark.parametrize("design", ["fusion", "gate"])
def test_only_text_says_what_the_auxiliaries_are_worth(design):
    assert accuracy(design, "positive", 0, "key") > 0.95
    assert max(accuracy(design, "positive", m, "key") for m in (1, 2)) < 0.55


def test_text_shows_the_code_of_the_telling_steps_in_axes_of_its_own():
    split = data("alignment")
    said = RidgeCV(ALPHAS).fit(pooled(split.train, 0), split.train.truth["said"].numpy())
    assert said.score(pooled(split.test, 0), split.test.truth["said"].numpy()) > 0.9
    for control, same in (("positive", True), ("negative", False)):
        truth = data("alignment", control).test.truth
        assert torch.equal(truth["said"], truth["codes"][:, :3]) == same


def test_two_hops_are_needed_where_audio_says_which_steps_of_vision_tell():
    """Text shows nothing of the code, audio all of it, and vision alone not which of its halves tells."""
    split = data("hops")
    for m, low, high in ((0, -0.1, 0.05), (1, 0.9, 1.0), (2, -0.1, 0.6)):
        said = RidgeCV(ALPHAS).fit(pooled(split.train, m), split.train.truth["said"].numpy())
        assert low < said.score(pooled(split.test, m), split.test.truth["said"].numpy()) < high
    known = planted.facts(Planted(design="hops", test=8000), "test")
    parts = np.corrcoef(np.column_stack([known["signal"], known["evidence"], known["decoy"][:, 1]]).T)[0, 1:]
    assert parts == pytest.approx(
        [0.68, 0.0, 0.68, 0.0], abs=0.03
    )  # 2^-1/2 / 1.09^1/2: text and vision tell a part each
    for control, same in (("positive", True), ("negative", False)):
        truth = data("hops", control).test.truth
        assert torch.equal(truth["said"], truth["codes"][:, :3]) == same


@pytest.mark.parametrize("knows", ["no cue", "cue"])
def test_the_oracle_of_two_hops_is_what_weighing_all_that_is_possible_gives(knows):
    recipe = Planted(design="hops", test=30)
    known = planted.facts(recipe, "test")
    found = oracle._best(oracle.LEVELS["hops"](recipe, known)[knows], "mosi", "l1")
    a, b = np.array(np.meshgrid(*[np.linspace(-5, 5, 501)] * 2)).reshape(2, -1)
    prior = np.exp(-(a**2 + b**2) / 2)
    label = planted.labels_of("mosi", ndtr((a + b) / np.sqrt(2)))
    values = planted.label_counts("mosi")[0]

    def likelihood(z, truth, noise):  # of a reading; they have one variance, so that constants cancel
        return np.exp(-((z * np.sqrt(1 + noise**2) - truth) ** 2) / noise**2 / 2)

    for i in range(30):
        told, other = known["evidence"][i, 2], known["decoy"][i, 1]
        weight = likelihood(told, b, designs.AUX_NOISE) * np.exp(-(other**2) / 2)
        if knows == "no cue":
            weight = weight + likelihood(other, b, designs.AUX_NOISE) * np.exp(-(told**2) / 2)
        weight = weight * prior * likelihood(known["evidence"][i, 0], a, designs.TEXT_NOISE)
        share = np.bincount(np.searchsorted(values, label - 1e-9), weight, len(values)) / weight.sum()
        expected = {value: share @ np.abs(values - value) for value in values}  # error of each possible answer
        assert expected[found[i]] < min(expected.values()) + 0.01


@pytest.mark.parametrize("design", ["fusion", "gate", "alignment"])
def test_a_decoy_looks_like_what_it_stands_in_for(design):
    """Audio and vision agree on it as much as on b: their agreement does not give it away."""
    known = planted.facts(Planted(design=design, test=8000), "test")
    told, decoy = known["evidence"][:, 1:], known["decoy"]
    assert np.corrcoef(decoy.T)[0, 1] == pytest.approx(np.corrcoef(told.T)[0, 1], abs=0.02)
    assert 0.85 < np.corrcoef(told.T)[0, 1] < 0.97
    assert decoy.std(0) == pytest.approx(told.std(0), rel=0.05)
    assert abs(np.corrcoef(decoy[:, 0], known["signal"])[0, 1]) < 0.05


def test_a_spoilt_reading_flickers_and_its_mean_tells_nothing():
    split = data("uncertainty")
    train, test = ((s.truth["noise"] > s.truth["noise_second"]).numpy() for s in (split.train, split.test))
    for m in range(3):
        for features, least, most in ((pooled, 0.4, 0.55), (moments, 0.75, 1.0)):
            fitted = LogisticRegression(max_iter=3000).fit(features(split.train, m), train[:, m])
            assert least < fitted.score(features(split.test, m), test[:, m]) <= most


def test_contexts_of_alignment_and_fusion_are_each_modality_s_own():
    for design in ("fusion", "gate", "alignment"):
        own = data(design).train.truth["own_context"].numpy()
        assert max(abs(np.corrcoef(own.T)[np.triu_indices(3, 1)])) < 0.08


def test_a_context_flips_the_evidence_and_a_marker_shows_who_contradicts():
    known = planted.facts(Planted(design="factors", test=4000), "test")
    flips = np.isin(known["context"], designs.FLIPPED)
    agree = known["signal"] * known["evidence"].mean(1) > 0
    assert agree[~flips].mean() > 0.85
    assert agree[flips].mean() < 0.15
    known = planted.facts(Planted(design="ambiguity", test=4000), "test")
    assert ((known["quality"] < 0).sum(1) == known["conflict"]).all()
    assert known["conflict"].mean() == pytest.approx(designs.CONTRADICTED, abs=0.03)


@pytest.mark.parametrize("design", OWN)
def test_a_design_is_made_like_the_default_one(design):
    few, more = (planted.generate(Planted(design=design, train=n, valid=5, test=5)) for n in (20, 30))
    for name in MODALITIES:
        a, b = getattr(few.train, name), getattr(more.train, name)
        assert torch.equal(a, b[:20])
        assert torch.equal(few.test.labels, more.test.labels)
        padding = torch.arange(a.shape[1]) >= few.train.lengths[:, :1]
        assert (a[padding] == 0).all()
    other = planted.generate(Planted(design=design, seed=1, train=20, valid=5, test=5))
    assert not torch.equal(few.train.text, other.train.text)
    labels = planted.generate(Planted(design=design, train=5000, valid=5, test=5)).train.labels
    usual = load_dataset("planted?train=5000").train.labels
    assert float(labels.mean()) == pytest.approx(float(usual.mean()), abs=0.1)


def test_designs_have_the_shapes_of_the_presets():
    split = load_dataset("planted-sims?design=fusion&train=8&valid=4&test=4").train
    assert [getattr(split, m).shape[1:] for m in MODALITIES] == [(39, 768), (400, 33), (55, 709)]
    assert split.lengths[:, 1].max() > split.lengths[:, 0].max()


# Options, and the seed of a run.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("design=fuse", "design='fuse'; expected one of selection, fusion"),
        ("control=none", "control='none'; expected positive or negative"),
        ("design=fusion&cue=hidden", "cue='hidden', of no use to design=fusion; expected it to be left out"),
        ("design=gate&shares=0.2,0.4,0.4", "shares=(0.2, 0.4, 0.4), of no use to design=gate"),
        ("seed=run", "seed='run' stands for the seed of each run, and here is no run: expected a number"),
    ],
)
def test_a_wrong_option_is_named_in_one_sentence(options, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        load_dataset(f"planted?{options}")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_run_can_draw_its_own_data_and_its_parameters_say_so():
    a, b = (parameters(Run("dsrf", "planted?design=gate&seed=run&train=8&valid=4&test=4", seed)) for seed in (3, 4))
    assert a["data"]["name"] == "planted?design=gate&seed=3&train=8&valid=4&test=4"
    assert (a["seed"], b["seed"]) == (3, 4)
    assert a["data"]["fingerprint"] != b["data"]["fingerprint"]
    again = parameters(Run("dsrf", "planted?design=gate&seed=3&train=8&valid=4&test=4", 3))
    assert again == a
    assert Run("dsrf", "planted", 3).data == "planted"
    assert Run("dsrf", "some/file.pkl?seed=run", 3).data == "some/file.pkl?seed=run"


def test_ceilings_on_the_test_samples_of_data_are_those_of_the_predictions_on_them():
    dataset = load_dataset("planted-sims?seed=4&train=8&valid=4&test=300&conflict=0.4&steps=39,100,55")
    found, recipe = oracle.ceilings_on(dataset), planted.recipe_of(dataset.name)
    truth, labels = dataset.test.truth, dataset.test.labels.numpy()
    for level, knows in (("no cue", "evidence"), ("cue", "noise"), ("truth", "truth")):
        wrong = np.abs(oracle.oracle_prediction(truth, recipe, knows).numpy() - labels)
        np.testing.assert_allclose(found[level], wrong, atol=1e-6)
    assert found["truth"].mean() < found["dominant alone"].mean() < found["no cue"].mean() < found["nothing"].mean()
    np.testing.assert_allclose(found["nothing"], np.abs(labels - labels_median()), atol=1e-6)
    own = planted.generate(
        Planted(design="gate", train=8, valid=4, test=300), "planted?design=gate&test=300&train=8&valid=4"
    )
    assert oracle.ceilings_on(own)["cue"].mean() == pytest.approx(errors("gate", "positive")["cue"].mean(), abs=0.06)


def labels_median() -> float:
    values, counts = planted.label_counts("sims")
    return float(values[np.searchsorted(counts.cumsum(), counts.sum() / 2)])


def test_there_are_no_ceilings_where_the_recipe_is_not_known():
    dataset = load_dataset("planted?train=8&valid=4&test=20")
    assert oracle.ceilings_on(dataset)
    for name in ("some/folder", "planted (first 8)", "planted?train=8&valid=4&test=20&seed=1", "planted?test=21"):
        assert oracle.ceilings_on(replace(dataset, name=name)) == {}


def test_the_ceilings_are_of_other_samples_than_the_splits():
    recipe = Planted(design="gate", test=50)
    held = planted.facts(recipe, "test")["signal"]
    drawn = planted.draw(replace(recipe, seed=recipe.seed + 1), planted.ORACLE, 50)["signal"]
    assert not np.isin(held, drawn).any()
