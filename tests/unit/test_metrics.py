import numpy as np
import pytest
from scipy import special
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from e2urec import metrics


@pytest.fixture
def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 400)
    d = np.round(random.normal(y - 0.5, 2), 1)  # rounded, so that there are ties
    return y, d, random.integers(0, 40, 400)


def test_utility_agrees_with_scikit_learn(rows):
    y, d, users = rows
    found = metrics.utility(y, d, users)
    assert found["auc"] == pytest.approx(roc_auc_score(y, d))
    assert found["log_loss"] == pytest.approx(log_loss(y, special.expit(d)))
    assert found["accuracy"] == accuracy_score(y, d > 0)
    within = [roc_auc_score(y[users == u], d[users == u]) for u in set(users) if len(set(y[users == u])) == 2]
    assert found["user_auc"] == pytest.approx(np.mean(within))


def test_auc_of_one_class_is_nan():
    assert np.isnan(metrics.auc(np.ones(3), np.arange(3.0)))


def test_calibration_error_of_a_hand_worked_case():
    y, d = np.array([1, 0, 1, 1]), special.logit(np.array([0.9, 0.9, 0.1, 0.1]))
    assert metrics.expected_calibration_error(y, d, bins=2) == pytest.approx((0.8 + 1.8) / 4)


def test_log_loss_is_finite_for_any_log_odds():
    assert metrics.log_loss(np.array([1, 0]), np.array([-1e4, 1e4])) == pytest.approx(1e4)


def test_bootstrap_draws_equal_the_figure_on_repeated_rows(rows):
    y, d, users = rows
    boot = metrics.user_bootstrap(users, resamples=3, seed=1)
    ids = np.unique(users)
    repeated = np.concatenate(
        [np.flatnonzero(users == u) for u, n in zip(ids, boot.counts[1], strict=True) for _ in range(n)]
    )
    value, draws = boot.auc(y, d)
    assert value == pytest.approx(roc_auc_score(y, d))
    assert draws[1] == pytest.approx(roc_auc_score(y[repeated], d[repeated]))
    assert boot.log_loss(y, d)[1][1] == pytest.approx(metrics.log_loss(y[repeated], d[repeated]))


def test_interval_of_clustered_rows_is_wider_than_of_independent_ones():
    random = np.random.default_rng(2)
    users = np.repeat(np.arange(30), 20)
    values = random.normal(size=30)[users] + random.normal(size=600) / 10
    clustered = metrics.user_bootstrap(users, resamples=500, seed=0)
    single = metrics.user_bootstrap(np.arange(600), resamples=500, seed=0)
    a, b = clustered.interval(*clustered.mean(values)), single.interval(*single.mean(values))
    assert a.high - a.low > 2 * (b.high - b.low)


def test_memory_is_one_for_the_original_and_zero_for_the_retrained(rows):
    y, d, users = rows
    boot = metrics.user_bootstrap(users, resamples=50, seed=0)
    noise = -d  # far from the original, so that there is headroom
    for candidate, expected in ((d, 1.0), (noise, 0.0)):
        found = metrics.memory(y, candidate, d, [noise, noise], boot)
        for name in ("auc", "loss"):
            assert found[name].value == pytest.approx(expected, abs=1e-9)
            assert found[name].low == pytest.approx(expected, abs=1e-9)
    assert metrics.headroom(y, d, [noise], boot)["auc"].value == pytest.approx(
        metrics.auc(y, d) - metrics.auc(y, noise)
    )


def test_softening_changes_memory_by_loss_but_not_by_auc(rows):
    y, d, users = rows
    boot = metrics.user_bootstrap(users, resamples=50, seed=0)
    found = metrics.memory(y, d / 5, d, [np.zeros_like(d) + 0.1 * y], boot)
    assert found["auc"].value == pytest.approx(1.0)
    assert found["loss"].value != pytest.approx(1.0, abs=0.05)


def test_paired_difference_of_a_model_with_itself_is_exactly_zero(rows):
    y, d, users = rows
    found = metrics.paired_difference(y, d, d, metrics.user_bootstrap(users, resamples=50, seed=0))
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_distances_agree_with_scipy_and_their_bounds():
    random = np.random.default_rng(0)
    p, q = special.softmax(random.normal(size=(2, 5, 9)) * 3, axis=-1)
    assert metrics.jensen_shannon(p, q) == pytest.approx(jensenshannon(p, q, axis=1) ** 2)
    kl = special.rel_entr(p, q).sum(-1) + special.rel_entr(q, p).sum(-1)
    assert metrics.jeffreys(p, q) == pytest.approx(kl / 2)
    assert metrics.l2(p, q) == pytest.approx(np.linalg.norm(p - q, axis=1))
    apart = metrics.jensen_shannon(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))
    assert apart == pytest.approx(np.log(2))


def test_streamed_distances_equal_those_of_whole_logits():
    random = np.random.default_rng(0)
    a, b, weight, bias = (random.normal(size=shape) for shape in ((7, 4), (7, 4), (11, 4), (11,)))
    found = metrics.vocabulary_distances(a, (weight, bias), b, (weight, None), chunk=3)
    p, q = special.softmax(a @ weight.T + bias, axis=-1), special.softmax(b @ weight.T, axis=-1)
    for name, distance in (("js", metrics.jensen_shannon), ("jeffreys", metrics.jeffreys), ("l2", metrics.l2)):
        assert found[name] == pytest.approx(distance(p, q))


def test_temperature_recovers_the_factor_by_which_odds_were_scaled():
    random = np.random.default_rng(0)
    d = random.normal(size=20_000) * 2
    y = (random.random(20_000) < special.expit(d)).astype(int)
    assert metrics.temperature(y, 3 * d) == pytest.approx(3, rel=0.05)


def test_projection_is_one_for_the_original_and_zero_for_the_retrained():
    o, r1, o2, r2 = np.random.default_rng(0).normal(size=(4, 50))
    assert metrics.projection(o, r1, o2, r2, o) == pytest.approx(1)
    assert metrics.projection(r1, r1, o2, r2, o) == pytest.approx(0)


def test_excess_distance_is_one_for_the_original_and_zero_at_the_floor():
    assert metrics.excess_distance(0.5, 0.5, 0.1) == 1
    assert metrics.excess_distance(0.1, 0.5, 0.1) == 0
    assert np.isnan(metrics.excess_distance(0.1, 0.1, 0.1))
