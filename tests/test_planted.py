"""The planted facts are in the features, and nothing else gives them away."""

from __future__ import annotations

import csv
import time
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, ks_2samp, kstest, spearmanr
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV, RidgeCV
from sklearn.metrics import roc_auc_score

from msa_lib import MODALITIES
from msa_lib.data import load_dataset, planted
from msa_lib.data.dataset import Split
from msa_lib.data.oracle import oracle_prediction
from msa_lib.data.planted import Planted

LABELS = Path(__file__).resolve().parents[2] / "shared" / "data" / "labels"
ALPHAS = np.logspace(-2, 4, 7)
SMALL = Planted(dims=(8, 6, 7), steps=(12, 12, 12), fill=0.5, train=2000, valid=20, test=2000)  # cheap, many samples


@cache
def preset(name: str):
    return load_dataset(name)


@cache
def small(cue: str):
    return planted.generate(replace(SMALL, cue=cue))


def pooled(split: Split, m: int) -> np.ndarray:
    """Masked mean, [N,D]; padding is zero, so the sum needs no mask."""
    return (getattr(split, MODALITIES[m]).sum(1) / split.lengths[:, m, None]).numpy()


def everything(split: Split, m: int) -> np.ndarray:
    """What one modality's input could say without words: means, their squares, energies, spread over time, length."""
    x, length = getattr(split, MODALITIES[m]), split.lengths[:, m, None].float()
    mean = x.sum(1) / length
    square = (x**2).sum(1) / length
    peak, energy = x.abs().amax(1), square.sum(1, keepdim=True)
    parts = (mean, mean**2, mean.abs(), square, square - mean**2, peak, energy, energy.sqrt(), length, 1 / length)
    return torch.cat(parts, 1).numpy()


def scaled(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, std = train.mean(0), train.std(0) + 1e-8
    return (train - mean) / std, (test - mean) / std


def r2(data, features, target) -> float:
    """R2 on test of a ridge regression fitted on train; both arguments map a split to an array."""
    train, test = scaled(features(data.train), features(data.test))
    return RidgeCV(ALPHAS).fit(train, target(data.train)).score(test, target(data.test))


def accuracy(data, features, target) -> float:
    train, test = scaled(features(data.train), features(data.test))
    return RidgeClassifierCV(ALPHAS).fit(train, target(data.train)).score(test, target(data.test))


def fact(key: str, m: int | None = None):
    return lambda split: split.truth[key].numpy() if m is None else split.truth[key][:, m].numpy()


def shuffled(target, seed: int):
    """The same target, permuted within the split: what a probe scores when there is nothing to find."""
    return lambda split: np.random.default_rng(seed).permutation(target(split))


def majority(target: np.ndarray) -> float:
    return max(Counter(target.tolist()).values()) / len(target)


# The facts are there.


@pytest.mark.parametrize("name", ["planted", "planted-mosi", "planted-mosei"])
@pytest.mark.parametrize("m", range(3))
def test_evidence_cue_and_context_are_linear_in_each_modality(name, m):
    data = preset(name)

    def mean(split):
        return pooled(split, m)

    assert r2(data, mean, fact("evidence", m)) > 0.9
    assert r2(data, mean, fact("quality", m)) > 0.8
    assert r2(data, mean, lambda s: s.truth["noise"][:, m].log().numpy()) > 0.8
    assert accuracy(data, mean, fact("context")) > 0.9


def test_unaligned_features_hold_the_facts_too():
    recipe = replace(SMALL, steps=(12, 90, 31), aligned=False, labels="sims", train=400, test=400)
    data = planted.generate(recipe)
    for m in range(3):
        assert r2(data, lambda s, m=m: pooled(s, m), fact("evidence", m)) > 0.9
    ratio = data.train.lengths[:, 1] / data.train.lengths[:, 0] * 12 / 90
    assert 0.75 < ratio.min() < 0.85 < ratio.median() < 1.1 < ratio.max() < 1.25
    assert (data.train.lengths >= 1).all()
    assert (data.train.lengths <= torch.tensor(recipe.steps)).all()


def test_dominant_modality_is_visible_through_the_cue_only():
    def all_means(split):
        return np.concatenate([pooled(split, m) for m in range(3)], 1)

    base = majority(fact("dominant")(small("visible").test))
    assert accuracy(small("visible"), all_means, fact("dominant")) > base + 0.25
    assert accuracy(small("hidden"), all_means, fact("dominant")) < base + 0.02


def test_label_is_in_the_dominant_modality():
    data = preset("planted")

    def of_dominant(split):
        evidence = split.truth["evidence"]
        return evidence.gather(1, split.truth["dominant"][:, None]).numpy()

    best = r2(data, of_dominant, lambda s: s.labels.numpy())
    fixed = [r2(data, lambda s, m=m: pooled(s, m), lambda s: s.labels.numpy()) for m in range(3)]
    assert best > 0.85
    assert max(fixed) == fixed[0] < best - 0.25
    assert fixed[0] > max(fixed[1:]) + 0.2  # text is dominant three times as often


def test_label_from_the_features_of_the_dominant_modality():
    """The same from features: one probe per modality, fitted and tested on the samples it dominates."""
    data = preset("planted-mosi?train=1500&test=600")
    for m in range(3):
        train, test = (s.truth["dominant"] == m for s in (data.train, data.test))
        x_train, x_test = pooled(data.train, m)[train], pooled(data.test, m)[test]
        probe = RidgeCV(ALPHAS).fit(x_train, data.train.labels[train].numpy())
        assert probe.score(x_test, data.test.labels[test].numpy()) > 0.8
        elsewhere = pooled(data.test, m)[~test]
        assert probe.score(elsewhere, data.test.labels[~test].numpy()) < 0.1


def test_conflict_shows_in_the_product_of_evidence():
    def products(split):
        """[N,2]: evidence of the dominant times that of each other modality, read from the features by probes."""
        z = np.column_stack([probes[m].predict(pooled(split, m)) for m in range(3)])
        p = split.truth["dominant"].numpy()
        rows = np.arange(len(p))
        pairs = np.column_stack([z[rows, p] * z[rows, (p + k) % 3] for k in (1, 2)])
        return np.sort(pairs, axis=1)

    data = small("visible")
    probes = [RidgeCV(ALPHAS).fit(pooled(data.train, m), fact("evidence", m)(data.train)) for m in range(3)]
    probe = LogisticRegression(max_iter=1000).fit(products(data.train), fact("conflict")(data.train))
    found = probe.predict_proba(products(data.test))[:, 1]
    assert roc_auc_score(fact("conflict")(data.test), found) > 0.75

    known = data.test.truth["rival"] >= 0  # given also who the rival is: the sign of one product
    p, rival = data.test.truth["dominant"][known], data.test.truth["rival"][known]
    z = torch.as_tensor(np.column_stack([probes[m].predict(pooled(data.test, m)) for m in range(3)]))[known]
    product = (z.gather(1, p[:, None]) * z.gather(1, rival[:, None]))[:, 0]
    conflict = data.test.truth["conflict"][known]
    assert ((product < 0) == conflict).float().mean() > 0.8
    assert roc_auc_score(conflict, -product) > 0.9


# Nothing else gives them away.


@pytest.mark.parametrize("m", range(3))
@pytest.mark.parametrize("key", ["noise", "dominant", "conflict", "rival"])
def test_one_modality_tells_nothing_of_reliability_when_the_cue_is_hidden(key, m):
    def target(split):
        value = split.truth[key]
        return (value[:, m].log() if key == "noise" else value).numpy()

    def features(split):
        return everything(split, m)

    probe = r2 if key == "noise" else accuracy
    hidden = probe(small("hidden"), features, target)
    chance = [probe(small("hidden"), features, shuffled(target, seed)) for seed in range(5)]
    assert hidden < max(chance) + 0.01
    if key in ("noise", "dominant"):
        assert probe(small("visible"), features, target) > max(chance) + 0.05  # the probe can find what is there


def test_evidence_alone_is_standard_normal_whatever_its_reliability():
    known = planted.facts(replace(SMALL, test=20_000), "test")
    z, dominant = known["evidence"], known["dominant"]
    for m in range(3):
        of_dominant, of_rest = z[dominant == m, m], z[dominant != m, m]
        assert kstest(of_dominant, "norm").pvalue > 0.001
        assert ks_2samp(of_dominant, of_rest).pvalue > 0.001
        assert ks_2samp(z[known["conflict_modality"] == m, m], of_rest).pvalue > 0.001
        assert abs(spearmanr(np.abs(z[:, m]), known["noise"][:, m]).statistic) < 4 / np.sqrt(20_000)


def test_a_low_noise_level_does_not_give_a_conflict_away():
    known = planted.facts(replace(SMALL, test=20_000), "test")
    rival = known["rival"] >= 0
    assert abs(known["conflict"][rival].mean() - 0.5) < 0.03
    level = np.take_along_axis(known["noise"], known["rival"][:, None] % 3, 1)[:, 0]
    assert ks_2samp(level[known["conflict"]], level[rival & ~known["conflict"]]).pvalue > 0.001
    assert (known["conflict_modality"] != known["dominant"]).all()


def test_lengths_ids_order_and_context_are_independent_of_the_facts():
    n = 20_000
    recipe = replace(SMALL, test=n, steps=(50, 400, 60), aligned=False)
    known = planted.facts(recipe, "test")
    position = np.arange(n)
    innocent = {
        "length": known["lengths"][:, 0],
        "ratio": known["lengths"][:, 1] / known["lengths"][:, 0],
        "context": known["context"],
        "position": position,
        "clip": position % planted.CLIPS_PER_VIDEO,
    }
    facts = {
        "label": known["labels"],
        "conflict": known["conflict"],
        "noise of text": known["noise"][:, 0],
        "noise of audio": known["noise"][:, 1],
        **{f"dominant {m}": known["dominant"] == m for m in range(3)},
    }
    found = {(a, b): spearmanr(innocent[a], facts[b]).statistic for a in innocent for b in facts}
    assert max(map(abs, found.values())) < 4 / np.sqrt(n), found
    assert abs(spearmanr(known["context"], known["lengths"][:, 0]).statistic) < 4 / np.sqrt(n)
    assert abs(spearmanr(known["labels"], known["noise"][:, 0]).statistic) < 4 / np.sqrt(n)


def test_gains_average_one_and_their_pattern_is_random():
    rng = np.random.default_rng(0)
    length = rng.integers(1, 13, 4000)
    valid = np.arange(12) < length[:, None]
    gains = planted._gains(rng, length, valid)
    assert np.allclose(gains.sum(1) / length, 1)
    assert (gains >= 0).all()
    assert (gains[~valid] == 0).all()
    assert ((gains > 0).sum(1) == (length + 1) // 2).all()
    of_full = gains[length == 12]
    assert np.abs(of_full.mean(0) - 1).max() < 5 * of_full.std() / np.sqrt(len(of_full))


# The data are what they say.


@pytest.mark.parametrize("labels", list(planted.SCALES))
def test_labels_follow_the_real_counts(labels):
    values, counts = planted.label_counts(labels)
    known = planted.facts(replace(SMALL, labels=labels, test=20_000), "test")
    for got in (known["labels"], known["unimodal_labels"][:, 2]):
        assert np.isin(got, values).all()
        seen = (got[:, None] == values).sum(0)
        expected = counts / counts.sum() * len(got)
        common = expected >= 5
        groups = [np.append(x[common], x[~common].sum() + 1e-9) for x in (seen, expected)]
        assert chisquare(*groups).pvalue > 0.001
    assert np.corrcoef(known["labels"], known["signal"])[0, 1] > 0.9


@pytest.mark.parametrize(
    ("labels", "file"), [("mosi", "mosi"), ("mosei", "mosei_labels_full"), ("sims", "sims"), ("simsv2", "simsv2")]
)
def test_label_counts_are_those_of_the_real_files(labels, file):
    path = LABELS / f"{file}.csv"
    if not path.exists():
        pytest.skip(f"{path.name} is not at hand")
    with path.open(newline="", encoding="utf-8") as handle:
        real = Counter(round(float(row["label"]), 7) for row in csv.DictReader(handle))
    values, counts = planted.label_counts(labels)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == dict(real)


SHAPES = {
    "planted": ((32, 12, 16), (24, 24, 24), "mosi"),
    "planted-mosi": ((768, 5, 20), (50, 50, 50), "mosi"),
    "planted-mosei": ((768, 74, 35), (50, 50, 50), "mosi"),
    "planted-sims": ((768, 33, 709), (39, 400, 55), "sims"),
    "planted-simsv2": ((768, 25, 177), (50, 925, 232), "sims"),
}


@pytest.mark.parametrize("name", list(planted.PRESETS))
def test_presets_have_the_shapes_and_scales_of_the_real_sets(name):
    data = planted.load(name, {"train": "40", "valid": "20", "test": "30"})
    dims, steps, scale = SHAPES[name]
    assert data.feature_dims == dims
    assert tuple(getattr(data.train, m).shape[1] for m in MODALITIES) == steps
    assert data.scale == scale
    assert data.synthetic
    assert "Synthetic" in data.notes[0]
    assert [len(split) for split in data.splits.values()] == [40, 20, 30]
    assert data.name == f"{name}?train=40&valid=20&test=30"
    for m, modality in enumerate(MODALITIES):
        x = getattr(data.train, modality)
        assert x.dtype == torch.float32
        valid = torch.arange(x.shape[1]) < data.train.lengths[:, m, None]
        assert (x[~valid] == 0).all()
        assert 0.5 < x[valid].std() < 2
        assert (x[valid] != 0).any(-1).all()


def test_text_lengths_are_like_real_transcripts():
    length = planted.facts(replace(planted.PRESETS["planted-mosi"], test=5000), "test")["lengths"]
    assert (length[:, 0] == length[:, 1]).all()
    assert abs(length[:, 0].mean() - 15.4) < 0.5
    assert abs(np.quantile(length[:, 0], 0.95) - 32) <= 2


def test_splits_share_no_video_and_no_sample():
    data = preset("planted")
    videos = [{i.split("$_$")[0] for i in split.ids} for split in data.splits.values()]
    assert len(set.union(*videos)) == sum(map(len, videos))
    assert len({i for split in data.splits.values() for i in split.ids}) == 1200
    assert not np.isin(data.train.truth["signal"], data.test.truth["signal"]).any()
    assert data.train.raw_text[17].startswith("[planted 17] ")


def test_truth_reaches_the_batch():
    batch = preset("planted").test.batch([3, 5])
    shapes = {key: tuple(value.shape) for key, value in batch.truth.items()}
    per_modality = dict.fromkeys(("noise", "evidence", "quality"), (2, 3))
    single = ("signal", "dominant", "rival", "conflict", "conflict_modality", "context")
    assert shapes == per_modality | dict.fromkeys(single, (2,))
    assert batch.truth["dominant"].dtype == batch.truth["context"].dtype == torch.int64
    assert batch.truth["conflict"].dtype == torch.bool


# Reproducible.


def test_equal_recipes_give_equal_bits():
    assert preset("planted").fingerprint == planted.generate(Planted()).fingerprint == STORED
    assert planted.generate(Planted(seed=1)).fingerprint != STORED
    assert planted.load("planted", {"seed": "0", "train": "600"}).fingerprint == STORED


def test_the_size_of_a_split_changes_no_other_and_only_adds_samples():
    base, more = preset("planted"), planted.generate(Planted(train=900))
    for split in ("valid", "test"):
        assert torch.equal(getattr(base, split).audio, getattr(more, split).audio)
        assert torch.equal(getattr(base, split).labels, getattr(more, split).labels)
    assert torch.equal(base.train.vision, more.train.vision[:600])
    assert torch.equal(base.train.truth["noise"], more.train.truth["noise"][:600])
    assert base.train.ids == more.train.ids[:600]


def test_a_hidden_cue_changes_only_the_features():
    base, hidden = preset("planted"), preset("planted?cue=hidden")
    for key in set(base.test.truth) - {"quality"}:
        assert torch.equal(base.test.truth[key], hidden.test.truth[key])
    assert (hidden.test.truth["quality"] == 0).all()
    assert (base.test.truth["quality"].abs() <= 1).all()
    assert torch.equal(base.test.labels, hidden.test.labels)
    assert torch.equal(base.test.lengths, hidden.test.lengths)
    assert not torch.equal(base.test.text, hidden.test.text)


def test_generation_is_fast():
    start = time.process_time()
    planted.load("planted-mosei", {})
    assert time.process_time() - start < 10  # about 1 s; the limit allows for a busy machine


# Options.


def test_options_change_the_recipe():
    recipe = planted.recipe_of("planted-mosi?cue=hidden", {"shares": "0.2,0.5,0.3", "seed": "7", "contexts": "4"})
    assert recipe == replace(planted.PRESETS["planted-mosi"], cue="hidden", shares=(0.2, 0.5, 0.3), seed=7, contexts=4)
    assert planted.recipe_of("planted", {"aligned": "no", "steps": "10,20,30"}).steps == (10, 20, 30)
    known = planted.facts(replace(SMALL, shares=(0, 1, 0), conflict=0, test=500), "test")
    assert (known["dominant"] == 1).all()
    assert not known["conflict"].any()
    assert (known["rival"] == -1).all()
    known = planted.facts(replace(SMALL, shares=(0.2, 0.5, 0.3), conflict=0.5, test=5000), "test")
    assert np.allclose(np.bincount(known["dominant"]) / 5000, (0.2, 0.5, 0.3), atol=0.03)
    assert abs(known["conflict"].mean() - 0.5) < 0.03
    assert (known["rival"] >= 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sede": "1"}, "no option 'sede': expected one of seed, train"),
        ({"seed": "one"}, "seed='one' is not understood: expected something like seed=0"),
        ({"seed": "-1"}, "seed=-1; expected a whole number >= 0"),
        ({"train": "0"}, "train=0; expected at least 1 sample"),
        ({"aligned": "maybe"}, "aligned='maybe' is not understood: expected yes or no"),
        ({"shares": "0.5,0.5"}, "shares='0.5,0.5' is not understood: expected something like shares=0.6,0.2,0.2"),
        ({"shares": "0.5,0.5,0.5"}, "three shares that sum to 1"),
        ({"shares": "nan,0.5,0.5"}, "three shares that sum to 1"),
        ({"clear": "0.3,0.1"}, "clear=(0.3, 0.1); expected low,high with 0 < low <= high"),
        ({"noisy": "1,inf"}, "expected low,high"),
        ({"conflict": "0.6"}, "expected in [0, 0.5]"),
        ({"fill": "0"}, "expected in (0, 1]"),
        ({"cue": "loud"}, "cue='loud'; expected visible or hidden"),
        ({"labels": "imdb"}, "expected one of mosi, mosei, sims, simsv2"),
        ({"dims": "32,4,16"}, "at least 5 (to hold evidence, cue and 6 contexts)"),
        ({"steps": "24,30,24"}, "equal for aligned data (or aligned=no)"),
        ({"contexts": "0"}, "contexts=0; expected at least 1"),
    ],
)
def test_a_wrong_option_is_named_in_one_sentence(options, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        planted.load("planted", options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_name_with_options_loads_and_gives_its_recipe_back():
    data = load_dataset("planted?cue=hidden&seed=3&train=20")
    recipe = planted.recipe_of(data.name)
    assert recipe == Planted(cue="hidden", seed=3, train=20)
    assert data.fingerprint == planted.generate(recipe).fingerprint


def test_an_unknown_preset_is_named():
    with pytest.raises(ValueError, match="No planted data 'planted-imdb': expected one of planted, planted-mosi"):
        planted.load("planted-imdb", {})


@pytest.mark.parametrize("option", [{"knows": "all"}, {"loss": "mae"}])
def test_the_oracle_refuses_what_it_does_not_know(option):
    with pytest.raises(ValueError, match="expected"):
        oracle_prediction(preset("planted").test.truth, Planted(), **option)


# The ceilings.


def test_expected_errors_are_as_documented_and_in_order():
    recipe = replace(SMALL, test=2000)
    known = planted.facts(recipe, "test")

    def mae(prediction):
        return float(np.abs(np.asarray(prediction) - known["labels"]).mean())

    got = {
        "constant": mae(np.median(known["labels"])),
        "audio": mae(oracle_prediction(known, recipe, "evidence", modalities=(1,))),
        "text": mae(oracle_prediction(known, recipe, "evidence", modalities=(0,))),
        "hidden": mae(oracle_prediction(known, recipe, "evidence")),
        "noise": mae(oracle_prediction(known, recipe, "noise")),
        "truth": mae(oracle_prediction(known, recipe)),
    }
    documented = {"constant": 1.37, "audio": 1.07, "text": 0.67, "hidden": 0.57, "noise": 0.24, "truth": 0.23}
    assert got == pytest.approx(documented, abs=0.04)
    mean = known["evidence"].mean(1)
    bins = np.array_split(np.argsort(mean), 40)
    best_of_mean = sum(np.abs(known["labels"][i] - np.median(known["labels"][i])).sum() for i in bins) / 2000
    assert best_of_mean == pytest.approx(0.74, abs=0.04)
    assert got["truth"] < got["hidden"] < got["text"] < best_of_mean < got["audio"] < got["constant"]


def test_each_oracle_is_best_for_its_loss_and_never_worse_for_knowing_more():
    recipe = replace(SMALL, labels="mosei", test=1500)
    known = planted.facts(recipe, "test")
    error = {}
    for knows in ("evidence", "noise", "truth"):
        for loss in ("l1", "mse"):
            wrong = oracle_prediction(known, recipe, knows, loss=loss).double().numpy() - known["labels"]
            error[knows, loss] = np.abs(wrong).mean(), (wrong**2).mean()
        assert error[knows, "l1"][0] < error[knows, "mse"][0]
        assert error[knows, "mse"][1] < error[knows, "l1"][1]
    assert error["truth", "mse"][1] < error["noise", "mse"][1] < error["evidence", "mse"][1]


def test_the_posterior_mean_is_calibrated():
    recipe = replace(SMALL, test=20_000)
    known = planted.facts(recipe, "test")
    for knows in ("noise", "truth"):
        mean = oracle_prediction(known, recipe, knows, loss="mse").double().numpy()
        slope, intercept = np.polyfit(mean, known["labels"], 1)
        assert slope == pytest.approx(1, abs=0.01)
        assert intercept == pytest.approx(0, abs=0.01)


STORED = "330bad7b9ed52ec2"  # of the default recipe; a change here changes every result on planted data
