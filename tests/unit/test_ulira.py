"""U-LiRA and forgetting quality: against SciPy, and on distributions with a known answer."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from e2urec.core.errors import DataError
from e2urec.metrics.forgetting_quality import LARGEST_EPSILON, epsilons, row_quality
from e2urec.metrics.ranking import tpr_at_fpr
from e2urec.metrics.ulira import AttackScores, attack


def drawn(shift: float, models: int = 20, rows: int = 5, seed: int = 0, scale: float = 1.0):
    random = np.random.default_rng(seed)
    return random.normal(shift, scale, (models, rows))


# --- U-LiRA


@pytest.mark.parametrize("pooled", [False, True])
def test_attack_is_the_ratio_of_scipys_densities_with_one_model_of_each_kind_left_out(pooled):
    unlearned = drawn(0.7, models=6, scale=2.0)
    retrained = drawn(0.0, models=6, seed=1)
    scores = attack(unlearned, retrained, pooled=pooled)
    for number in range(6):
        others = [np.delete(models, number, axis=0) for models in (unlearned, retrained)]
        deviations = [np.std(models, axis=0, ddof=1) for models in others]
        if pooled:
            deviations = [np.sqrt(np.mean(deviation**2)) for deviation in deviations]
        densities = [
            norm(models.mean(axis=0), deviation)
            for models, deviation in zip(others, deviations, strict=True)
        ]
        for models, ratios in ((unlearned, scores.unlearned), (retrained, scores.retrained)):
            expected = densities[0].logpdf(models[number]) - densities[1].logpdf(models[number])
            assert ratios[number] == pytest.approx(expected)


def test_many_models_are_told_apart_as_often_as_their_distributions_can_be():
    distance = 1.5
    scores = attack(drawn(distance, models=500), drawn(0.0, models=500, seed=1))
    # The best test of two normal distributions of variance 1 cuts halfway between them.
    assert scores.accuracy() == pytest.approx(norm.cdf(distance / 2), abs=0.04)
    rate = 0.1
    expected = norm.cdf(distance - norm.isf(rate))
    assert scores.tpr_at_fpr(rate) == pytest.approx(expected, abs=0.1)


def test_models_of_one_distribution_have_an_accuracy_of_a_half_however_few():
    scores = attack(drawn(0.0, models=4, rows=20_000), drawn(0.0, models=4, rows=20_000, seed=1))
    # Its standard error over so many rows is 0.0013.
    assert scores.accuracy().mean() == pytest.approx(0.5, abs=0.006)
    # One more model of their kind is the highest of five as often as any other.
    assert 0 < scores.tpr_at_fpr(0.01).mean() < 1 / 5


def test_a_wider_distribution_is_told_apart_although_its_mean_is_the_same():
    scores = attack(drawn(0.0, models=400, scale=4.0), drawn(0.0, models=400, seed=1))
    # P(|x| > c) of one and P(|x| < c) of the other, c where their densities cross.
    crossing = np.sqrt(2 * np.log(4.0) / (1 - 1 / 16))
    expected = (2 * norm.sf(crossing / 4) + 1 - 2 * norm.sf(crossing)) / 2
    assert scores.accuracy() == pytest.approx(expected, abs=0.06)


def test_rate_of_the_caught_is_that_of_the_ranking_measures():
    scores = AttackScores(drawn(0.5, rows=1), drawn(0.0, rows=1, seed=1))
    both = np.concatenate([scores.unlearned[:, 0], scores.retrained[:, 0]])
    order = np.argsort(both)
    is_unlearned = (order < 20)[None].astype(float)
    for rate in (0.0, 0.05, 0.29, 0.5):
        expected = tpr_at_fpr(rate)(is_unlearned, 1 - is_unlearned)
        assert scores.tpr_at_fpr(rate) == pytest.approx(expected)


def test_models_that_all_say_the_same_are_not_told_apart():
    same = np.ones((4, 2))
    assert attack(same, same).accuracy().tolist() == [0.5, 0.5]
    assert attack(same + 1, same).accuracy().tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("first", "second"), [(2, 2), (5, 4)])
def test_too_few_models_or_more_of_one_kind_are_refused(first, second):
    with pytest.raises(DataError, match=f"{first} unlearned and {second} retrained"):
        attack(drawn(0, models=first), drawn(0, models=second))


# --- forgetting quality


def test_epsilon_of_two_answers_is_the_log_of_their_odds():
    # Randomised response: "it forgot" with probability e^ε / (1 + e^ε) of one, and of the other
    # with the rest. That is (ε, 0), and no less.
    epsilon = 1.2
    share = np.exp(epsilon) / (1 + np.exp(epsilon))
    count = 10_000
    caught = round(share * count)
    says_so = np.arange(count) < caught
    scores = AttackScores(says_so[:, None] * 1.0, ~says_so[:, None] * 1.0)
    assert epsilons(scores, delta=0.0) == pytest.approx(epsilon, abs=1e-3)


def test_epsilon_of_simulated_normals_is_the_analytic_one():
    # The (ε, δ) of two normals at distance μ (Balle and Wang 2018, theorem 8).
    mu, delta = 1.0, 0.1

    def excess(epsilon):
        first = norm.cdf(mu / 2 - epsilon / mu)
        return first - np.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu) - delta

    expected = brentq(excess, 0, 10)
    # The likelihood ratio of such a pair rises with the margin itself.
    margins = [drawn(shift, models=200_000, rows=1, seed=shift) for shift in (1, 0)]
    shown = epsilons(AttackScores(*margins), delta=delta)
    assert shown == pytest.approx(expected, rel=0.03)


def test_epsilon_is_what_the_rates_by_hand_say():
    scores = AttackScores(np.array([[1.0], [3.0], [4.0]]), np.array([[0.0], [2.0], [3.5]]))
    # At 3 one of three is missed and one passes wrongly: ln(2/3) − ln(1/3). All else is less, or
    # has a rate of 0.
    assert epsilons(scores, delta=0.0) == pytest.approx(np.log(2))


def test_models_that_an_attack_tells_apart_without_fail_are_not_bounded():
    scores = AttackScores(np.full((5, 1), 2.0), np.ones((5, 1)))
    assert epsilons(scores).tolist() == [LARGEST_EPSILON]
    # An attack that is always wrong shows nothing.
    assert epsilons(AttackScores(scores.retrained, scores.unlearned)).tolist() == [0.0]


def test_points_are_halved_with_each_bin_and_end_where_so_many_models_end():
    bounds = np.array([0.0, 0.49, 0.5, 1.2, 2.9, 3.0, LARGEST_EPSILON])
    assert row_quality(bounds, 20).tolist() == [1, 1, 0.5, 0.25, 0.5**5, 0, 0]
    # ln 3 of four models is 1.1: bins end at 2.
    assert row_quality(bounds, 4).tolist() == [1, 1, 0.5, 0.25, 0, 0, 0]
