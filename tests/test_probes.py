"""Linear probes find what is there, and nothing in shuffled targets."""

import numpy as np
import pytest

from msa_lib.data import load_dataset
from msa_lib.reference import pooled_features
from msa_lib.study.probes import planted_targets, probe

N = 300


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((N, 6))


def skills(x, **targets) -> dict[str, float]:
    found = probe(x, targets)
    return dict(zip(found["target"], found["skill"], strict=True))


def test_what_is_linear_is_found(x):
    found = skills(x, number=x[:, 0] * 2 + 1, classes=np.digitize(x[:, 1], [-0.5, 0.5]), flag=x[:, 2] > 0)
    assert found["number"] > 0.99
    assert found["classes"] > 0.4  # three ordered classes by regression: the middle one is hard
    assert found["flag"] > 0.95


def test_what_is_not_there_has_no_skill(x):
    rng = np.random.default_rng(1)
    product = x[:, 0] * x[:, 1] > 0  # not linear
    found = skills(x, number=rng.standard_normal(N), classes=rng.integers(0, 4, N), flag=product)
    assert all(abs(skill) < 0.25 for skill in found.values())


def test_scores_and_controls_are_what_they_are_called(x):
    found = probe(x, {"flag": x[:, 0] > 0, "classes": (x[:, 1] > 1.2).astype(int), "number": x[:, 3]}).set_index(
        "target"
    )
    assert found.loc["flag", "control"] == pytest.approx(0.5, abs=0.06)  # area under the curve of chance
    assert found.loc["classes", "control"] > 0.8  # chance names the more frequent class
    assert found.loc["number", "control"] < 0.01  # R^2 out of fold


def test_a_constant_target_has_no_number(x):
    found = probe(x, {"flag": np.zeros(N, bool), "number": x[:, 0]}).set_index("target")
    assert np.isnan(found.loc["flag", "score"])
    assert found.loc["number", "skill"] > 0.9


def test_the_same_call_gives_the_same_numbers(x):
    first, second = (probe(x, {"number": x[:, 0] + x[:, 1] ** 2}) for _ in range(2))
    assert first.equals(second)


def test_planted_features_carry_what_is_planted():
    data = load_dataset("planted?train=8&valid=4&test=400")
    truth = {name: value.numpy() for name, value in data.test.truth.items()}
    wanted = planted_targets(truth, data.test.labels.numpy(), 0)
    found = probe(pooled_features(data.test, "t"), wanted).set_index("target")["skill"]
    assert found["context"] > 0.9
    assert found["noise"] > 0.9
    assert 0.3 < found["sentiment"] < 0.9
    assert abs(found["conflict"]) < 0.25  # between modalities: not in one of them
