"""KLOM against SciPy, and on distributions of which the divergence is known."""

import numpy as np
import pytest
from scipy.stats import entropy

from e2urec.core.errors import DataError
from e2urec.metrics.klom import BINS, EPSILON, klom, margins


def drawn(shift: float, models: int = 20, rows: int = 5, seed: int = 0):
    random = np.random.default_rng(seed)
    return random.normal(shift, 1.0, (models, rows))


def test_klom_is_scipys_relative_entropy_of_the_two_histograms():
    unlearned = drawn(0.5)
    retrained = drawn(0.0, models=30, seed=1)
    expected = []
    for row in range(unlearned.shape[1]):
        both = np.concatenate([unlearned[:, row], retrained[:, row]])
        edges = np.linspace(both.min(), both.max(), BINS + 1)
        p = np.histogram(unlearned[:, row], edges)[0] / 20
        q = np.histogram(retrained[:, row], edges)[0] / 30
        # SciPy brings the sums to 1 itself.
        expected.append(entropy(p + EPSILON, q + EPSILON))
    assert klom(unlearned, retrained) == pytest.approx(expected, rel=1e-12)


def test_many_models_give_the_divergence_of_their_distributions():
    unlearned = drawn(0.5, models=200_000, rows=1)
    retrained = drawn(0.0, models=200_000, rows=1, seed=1)
    # Of two normal distributions of variance 1 it is half the square of their distance; what bins
    # lose is little, since the range of so many models is wide.
    assert klom(unlearned, retrained)[0] == pytest.approx(0.5**2 / 2, rel=0.05)


def test_klom_grows_with_the_distance_and_is_0_for_the_same_models():
    retrained = drawn(0.0, rows=40, seed=1)
    means = [klom(drawn(shift, rows=40), retrained).mean() for shift in (0, 1, 3)]
    assert means == sorted(means)
    assert klom(retrained, retrained) == pytest.approx(0, abs=1e-12)


def test_models_that_all_say_the_same_have_a_divergence_too():
    same = np.ones((4, 1))
    assert klom(same, same)[0] == pytest.approx(0, abs=1e-12)
    # All of one kind in the first bin, all of the other in the last.
    far = klom(same, same + 1)[0]
    assert far == pytest.approx(-np.log(EPSILON), rel=0.01)


def test_margins_beyond_a_hundred_count_as_a_hundred():
    retrained = drawn(0.0, rows=1)
    far = np.full((20, 1), 150.0)
    farther = np.full((20, 1), 1e6)
    assert klom(far, retrained) == pytest.approx(klom(farther, retrained))


def test_margin_is_the_log_odds_of_the_right_answer():
    odds = np.array([[2.0, 2.0], [-1.0, -1.0]])
    assert margins(np.array([1, 0]), odds).tolist() == [[2.0, -2.0], [-1.0, 1.0]]


def test_one_model_has_no_distribution():
    with pytest.raises(DataError, match="1 unlearned and 20 retrained"):
        klom(drawn(0, models=1), drawn(0))
