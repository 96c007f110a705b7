"""The degenerate equations: the numbers that show them, and corrected versions on which nothing is found."""

import numpy as np
import pytest

from papers_check.checks import equations as dsrf
from papers_check.checks import equations_amsgfn as amsgfn

ALL = amsgfn.EQUATIONS + dsrf.DSRF


@pytest.mark.parametrize("equation", ALL, ids=lambda equation: equation.__name__)
def test_each_equation_shows_its_defect(equation):
    found = equation()
    assert found is not None
    assert any(character.isdigit() for character in found.computed), "a computation gives numbers"
    assert found == equation(), "the same numbers every time"


def test_nothing_is_counted_twice():
    assert dsrf.examined() == len(ALL) == len({found.id for found in dsrf.findings()})


# --- DSRF -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("iterations", [1, 2, 10])
@pytest.mark.parametrize("capsules", [2, 5])
def test_votes_without_k_leave_all_capsules_equal(iterations, capsules):
    v = np.random.default_rng(0).normal(size=(4, 1, 8))
    c, u = dsrf.route(np.repeat(v, capsules, 1), iterations)
    np.testing.assert_allclose(c, 1 / capsules)
    np.testing.assert_allclose(u, np.broadcast_to(u[0], u.shape))


def test_votes_with_k_are_routed():
    votes = np.random.default_rng(0).normal(size=(4, 3, 8))
    c, u = dsrf.route(votes, 3)
    assert np.ptp(c) > 0.1
    assert np.abs(u - u[0]).max() > 0.1
    assert (np.linalg.norm(u, axis=1) < 1).all()


def test_routing_is_silent_once_the_votes_have_a_k(monkeypatch):
    one = dsrf.route
    monkeypatch.setattr(
        dsrf, "route", lambda votes, iterations: one(votes * np.arange(1, 5)[None, :, None], iterations)
    )
    assert dsrf.routing() is None


def test_reconstruction_is_silent_once_it_is_fused(monkeypatch):
    # A prediction that depends on anything drawn anew per call stands for one that reads the reconstruction.
    draws = iter(np.random.default_rng(0).normal(size=(100,)))
    one = dsrf.softmax
    monkeypatch.setattr(dsrf, "softmax", lambda x: one(x + next(draws) * np.arange(x.shape[-1])))
    assert dsrf.unused_reconstruction() is None


def test_calibration_is_silent_where_it_does_not_cancel(monkeypatch):
    monkeypatch.setattr(dsrf, "softmax", lambda x: x / x.sum())
    assert dsrf.calibration() is None


def test_noise_loss_by_hand():
    z = np.array([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]])  # two samples, two modalities, one vector each
    e = np.exp(1.0)
    # each anchor: itself and the other sample's same modality at similarity 1, the two others at 0
    assert dsrf.noise_loss(z, tau=1.0) == pytest.approx(np.log(2 * e + 2))
    assert dsrf.noise_loss(z, tau=1.0, text=True) == pytest.approx(np.log(2 * e + 2) - 1)


def test_noise_contrast_is_silent_for_a_loss_of_the_sentence(monkeypatch):
    one = dsrf.noise_loss
    monkeypatch.setattr(dsrf, "noise_loss", lambda z, tau=0.1, text=False: one(z, tau, text=True))
    assert dsrf.noise_contrast() is None


def test_constants_minimise_the_loss_of_the_sentence():
    rng = np.random.default_rng(1)
    constant = np.broadcast_to(np.eye(8)[:3], (6, 3, 8))
    lowest = dsrf.noise_loss(constant, text=True)
    assert all(dsrf.noise_loss(constant + 0.3 * rng.normal(size=constant.shape), text=True) > lowest for _ in range(20))


def test_entropy_sign_is_silent_for_the_other_sign():
    assert dsrf.entropy_sign(sign=-1) is None


def test_squash_keeps_direction_and_is_undefined_at_zero():
    s = np.array([3.0, 4.0])
    np.testing.assert_allclose(dsrf.squash(s), 25 / 26 * s / 5)
    with np.errstate(invalid="ignore"):
        assert np.isnan(dsrf.squash(np.zeros(2))).all()


# --- AMSGFN ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 7, 64])
def test_alignment_of_equal_features_is_log_n(n):
    assert amsgfn.contrast(np.ones((n, 4)), np.ones((n, 4))) == pytest.approx(np.log(n))


def test_alignment_of_matched_features_is_lower():
    eye = np.eye(8)
    assert amsgfn.contrast(eye, eye) < amsgfn.contrast(eye, eye[::-1])


def test_attention_ignores_the_order_of_its_keys():
    rng = np.random.default_rng(0)
    query, key = rng.normal(size=(2, 6, 4))
    order = rng.permutation(6)
    np.testing.assert_allclose(amsgfn.attention(query, key, key), amsgfn.attention(query, key[order], key[order]))
    assert amsgfn.attention(query, key, key).shape == query.shape  # one output per query step


def test_order_is_seen_once_there_are_positions(monkeypatch):
    one = amsgfn.attention

    def with_positions(query, key, value):
        return one(query, key + np.arange(len(key))[:, None], value)

    monkeypatch.setattr(amsgfn, "attention", with_positions)
    assert amsgfn.time_order() is None


def test_selection_is_silent_for_a_soft_choice(monkeypatch):
    # Scores that sit on a tie change their argmax at once.
    monkeypatch.setattr(amsgfn, "softmax", lambda x: np.full(x.shape, 1 / 3) + 1e-9 * x)
    assert amsgfn.selection() is None
