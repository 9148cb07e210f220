"""Metrics against SciPy, scikit-learn and numbers worked by hand."""

import time

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.special import expit, rel_entr, softmax
from scipy.stats import ks_2samp
from sklearn import metrics as sk

from e2urec import metrics as m
from e2urec.errors import DataError


def rows(n=600, users=30, *, seed=0, ties=True):
    """Labels, log-odds that know something of them, and users; rounded scores tie."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 2, n).astype(np.int8)
    d = random.normal(size=n) + y
    return y, (np.round(d, 1) if ties else d).astype(np.float32), random.integers(0, users, n)


@pytest.fixture
def request_models():
    """Labels of D_f, an original that knows them, two retrained models that know less, and a bootstrap."""
    random = np.random.default_rng(1)
    y = random.integers(0, 2, 4000)
    original, r1, r2 = (strength * (2 * y - 1) + random.normal(size=4000) for strength in (1.2, 0.4, 0.4))
    return y, original, [r1, r2], m.user_bootstrap(random.integers(0, 200, 4000), resamples=400, seed=3)


# --- utility


@pytest.mark.parametrize("ties", [True, False])
def test_auc_log_loss_and_accuracy_agree_with_scikit_learn(ties):
    y, d, _ = rows(ties=ties)
    assert m.auc(y, d) == pytest.approx(sk.roc_auc_score(y, d), abs=1e-12)
    assert m.log_loss(y, d) == pytest.approx(sk.log_loss(y, expit(d.astype(float))), rel=1e-9)
    assert m.accuracy(y, d) == sk.accuracy_score(y, d > 0)


def test_equal_scores_have_an_auc_of_one_half():
    assert m.auc(np.array([0, 1, 1]), np.zeros(3)) == 0.5


def test_auc_of_one_class_is_nan():
    assert np.isnan(m.auc(np.ones(3, int), np.arange(3.0)))


def test_log_loss_stays_finite_and_exact_for_extreme_log_odds():
    assert m.log_loss(np.array([1, 0]), np.array([-1000.0, -1000.0], np.float32)) == 500.0
    assert m.log_loss(np.array([1]), np.array([40.0])) == pytest.approx(np.exp(-40), rel=1e-9)


def test_calibration_error_by_hand():
    # P = ¼, ¼, ¾, 1 in two bins: |½ − 1|/4 and |1¾ − 1|/4.
    d = np.array([-np.log(3), -np.log(3), np.log(3), 100.0])
    assert m.expected_calibration_error(np.array([1, 0, 1, 0]), d, bins=2) == pytest.approx(0.5 / 4 + 0.75 / 4)


def test_user_auc_is_the_mean_over_users_with_both_classes():
    y, d, users = rows(n=200, users=40)
    users = users * 7 - 3  # codes need neither start at 0 nor be dense
    each = [sk.roc_auc_score(y[users == u], d[users == u]) for u in np.unique(users) if len(set(y[users == u])) == 2]
    assert len(each) < len(np.unique(users))
    assert m.user_auc(y, d, users) == pytest.approx(np.mean(each), abs=1e-12)


def test_user_auc_is_nan_when_no_user_has_both_classes():
    assert np.isnan(m.user_auc(np.array([0, 1]), np.array([0.0, 1.0]), np.array([0, 1])))


def test_user_auc_keeps_equal_scores_of_neighbouring_users_apart():
    y, d, users = np.array([0, 1, 0, 1]), np.array([0.0, 1.0, 1.0, 2.0]), np.array([0, 0, 1, 1])
    assert m.user_auc(y, d, users) == 1


@pytest.mark.filterwarnings("error")
def test_utility_of_no_rows_is_nan_not_an_error():
    nothing = m.utility(np.array([], int), np.array([]), np.array([], int))
    assert set(nothing) == {"auc", "user_auc", "accuracy", "log_loss", "ece"}
    assert all(np.isnan(value) for value in nothing.values())


# --- bootstrap


@pytest.mark.parametrize("ties", [True, False])
def test_bootstrap_figures_equal_those_of_the_repeated_rows(ties):
    y, d, users = rows(n=150, users=12, ties=ties)
    boot = m.user_bootstrap(users, resamples=70, seed=5)  # not a multiple of the chunk
    auc, aucs = boot.auc(y, d)
    loss, losses = boot.log_loss(y, d)
    assert (auc, loss) == pytest.approx((m.auc(y, d), m.log_loss(y, d)))
    for k, weight in enumerate(boot.weights()):
        again = np.repeat(np.arange(150), weight)
        assert aucs[k] == pytest.approx(m.auc(y[again], d[again]), abs=1e-12)
        assert losses[k] == pytest.approx(m.log_loss(y[again], d[again]), abs=1e-12)


def test_bootstrap_draws_whole_users_and_as_many_as_there_are():
    _, _, users = rows()
    boot = m.user_bootstrap(users, resamples=50, seed=0)
    assert (boot.counts.sum(1) == len(np.unique(users))).all()
    weights = boot.weights()
    for user in np.unique(users):
        assert (weights[:, users == user] == weights[:, users == user][:, :1]).all()


def test_bootstrap_depends_on_its_seed_alone():
    _, _, users = rows()
    draw = [m.user_bootstrap(users, resamples=9, seed=seed).counts for seed in (4, 4, 5)]
    assert (draw[0] == draw[1]).all()
    assert (draw[0] != draw[2]).any()


def test_interval_has_the_width_of_the_mean_over_users():
    values = np.random.default_rng(2).normal(size=400)  # one row a user: the textbook standard error holds
    boot = m.user_bootstrap(np.arange(400), seed=0)
    found = boot.interval(*boot.mean(values))
    assert found.low < found.value < found.high
    assert found.n == 400
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.06)


def test_users_with_equal_rows_give_a_wider_interval_than_independent_rows():
    values = np.repeat(np.random.default_rng(2).normal(size=40), 25)
    widths = []
    for users in (np.repeat(np.arange(40), 25), np.arange(1000)):
        boot = m.user_bootstrap(users, seed=0)
        found = boot.interval(*boot.mean(values))
        widths.append(found.high - found.low)
    assert widths[0] == pytest.approx(5 * widths[1], rel=0.15)


def test_draws_with_one_class_do_not_spoil_the_interval():
    y, users = np.array([0, 1, 1, 0]), np.array([0, 1, 2, 3])
    boot = m.user_bootstrap(users, resamples=300, seed=0)
    value, draws = boot.auc(y, np.array([0.0, 1.0, 2.0, 3.0]))
    found = boot.interval(value, draws)
    assert np.isnan(draws).any()
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_one_user_alone_bounds_nothing():
    y, d, _ = rows(n=50)
    boot = m.user_bootstrap(np.zeros(50, int), seed=0)
    found = boot.interval(*boot.auc(y, d))
    assert (found.low, found.high) == (-np.inf, np.inf)


def test_bootstrap_of_no_rows_is_refused():
    with pytest.raises(DataError, match="0 rows"):
        m.user_bootstrap(np.array([], int), seed=0)


def test_bootstrap_refuses_scores_of_other_rows():
    y, d, users = rows()
    with pytest.raises(AssertionError, match="other rows"):
        m.user_bootstrap(users, resamples=2, seed=0).auc(y[1:], d[1:])


def test_two_thousand_resamples_of_twenty_thousand_rows_take_under_five_seconds():
    y, d, users = rows(n=20_000, users=900, ties=False)
    boot = m.user_bootstrap(users, seed=0)
    start = time.process_time()
    boot.auc(y, d)
    assert time.process_time() - start < 5


# --- memory


def test_memory_is_one_for_the_original_and_near_zero_for_another_retrained_model(request_models):
    y, original, retrained, boot = request_models
    untouched = m.memory(y, original, original, retrained, boot)
    assert set(untouched) == {"auc", "loss"}
    for found in untouched.values():
        assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1))
    third = 0.4 * (2 * y - 1) + np.random.default_rng(9).normal(size=len(y))
    for found in m.memory(y, third, original, retrained, boot).values():
        assert found.low < 0 < found.high
        assert abs(found.value) < 0.2


def test_memory_value_is_the_published_ratio_with_the_mean_over_retrained_models(request_models):
    y, original, retrained, boot = request_models
    p = 0.5 * original + 0.5 * retrained[0]
    for name, figure in (("auc", m.auc), ("loss", m.log_loss)):
        r = np.mean([figure(y, d) for d in retrained])
        expected = (figure(y, p) - r) / (figure(y, original) - r)
        assert m.memory(y, p, original, retrained, boot)[name].value == pytest.approx(expected)


def test_memory_interval_pairs_its_draws(request_models):
    y, original, retrained, boot = request_models
    found = m.memory(y, 0.7 * original + 0.3 * retrained[0], original, retrained, boot)["auc"]
    p, o = boot.auc(y, 0.7 * original + 0.3 * retrained[0])[1], boot.auc(y, original)[1]
    r = (boot.auc(y, retrained[0])[1] + boot.auc(y, retrained[1])[1]) / 2
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile((p - r) / (o - r), [0.025, 0.975])))


def test_memory_by_auc_is_blind_to_softening_where_memory_by_loss_is_not(request_models):
    y, original, retrained, boot = request_models
    found = m.memory(y, original / 5, original, retrained, boot)
    assert found["auc"].value == pytest.approx(1)
    assert found["loss"].value < 0.9


def test_memory_without_headroom_has_no_value_and_bounds_nothing(request_models):
    y, original, retrained, boot = request_models
    for found in m.memory(y, retrained[0], original, [original], boot).values():
        assert np.isnan(found.value)
        assert (found.low, found.high) == (-np.inf, np.inf)


@pytest.mark.parametrize("strength", [0.42, 0.2])
def test_memory_bounds_nothing_where_the_headroom_reaches_zero(request_models, strength):
    y, _, retrained, boot = request_models
    original = strength * (2 * y - 1) + np.random.default_rng(8).normal(size=len(y))
    assert m.headroom(y, original, retrained, boot)["auc"].low <= 0
    found = m.memory(y, retrained[0], original, retrained, boot)["auc"]
    assert np.isfinite(found.value)
    assert (found.low, found.high) == (-np.inf, np.inf)


def test_headroom_is_positive_in_both_figures_when_the_original_remembers(request_models):
    y, original, retrained, boot = request_models
    found = m.headroom(y, original, retrained, boot)
    assert found["auc"].value == pytest.approx(m.auc(y, original) - np.mean([m.auc(y, d) for d in retrained]))
    losses = [m.log_loss(y, d) for d in retrained]
    assert found["loss"].value == pytest.approx(np.mean(losses) - m.log_loss(y, original))
    assert found["auc"].low > 0
    assert found["loss"].low > 0


def test_memory_and_headroom_need_a_retrained_model(request_models):
    y, original, _, boot = request_models
    with pytest.raises(DataError, match="0 retrained"):
        m.memory(y, original, original, [], boot)
    with pytest.raises(DataError, match="0 retrained"):
        m.headroom(y, original, [], boot)


def test_paired_difference_is_far_narrower_than_an_unpaired_one(request_models):
    y, original, _, boot = request_models
    nearly = original + 0.05 * np.random.default_rng(0).normal(size=len(y))
    found = m.paired_difference(y, nearly, original, boot)
    alone = boot.interval(*boot.auc(y, original))
    assert found.value == pytest.approx(m.auc(y, nearly) - m.auc(y, original))
    assert found.high - found.low < 0.2 * (alone.high - alone.low)
    same = m.paired_difference(y, original, original, boot)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_a_higher_level_widens_the_interval(request_models):
    y, original, retrained, boot = request_models
    ninety = m.memory(y, retrained[0], original, retrained, boot, level=0.9)["loss"]
    wide = m.memory(y, retrained[0], original, retrained, boot, level=0.99)["loss"]
    assert wide.low < ninety.low < ninety.high < wide.high


def test_interval_as_dict_holds_plain_numbers():
    boot = m.user_bootstrap(np.arange(9), resamples=20, seed=0)
    found = boot.interval(*boot.mean(np.arange(9, dtype=np.float32))).as_dict()
    assert {name: type(value) for name, value in found.items()} == {
        "value": float,
        "low": float,
        "high": float,
        "n": int,
    }


# --- distances


def distributions(n=8, size=50, seed=0):
    random = np.random.default_rng(seed)
    return (softmax(2 * random.normal(size=(n, size)), axis=1) for _ in range(2))


def test_distances_agree_with_scipy():
    p, q = distributions()
    assert m.jensen_shannon(p, q) == pytest.approx(jensenshannon(p, q, axis=1) ** 2)
    assert m.jeffreys(p, q) == pytest.approx((rel_entr(p, q) + rel_entr(q, p)).sum(1) / 2)
    assert m.l2(p, q) == pytest.approx(np.linalg.norm(p - q, axis=1))


def test_distances_by_hand():
    p, q = np.array([[0.5, 0.5]]), np.array([[0.75, 0.25]])
    assert m.jeffreys(p, q) == pytest.approx([np.log(3) / 8])
    assert m.l2(p, q) == pytest.approx([0.25 * np.sqrt(2)])


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_distances_are_safe_at_zeros_and_bounded_where_they_should_be(kind):
    p, q = np.array([[1, 0, 0]], kind), np.array([[0, 1, 0]], kind)
    assert m.jensen_shannon(p, q) == pytest.approx([np.log(2)])
    assert m.l2(p, q) == pytest.approx([np.sqrt(2)])
    assert np.isfinite(m.jeffreys(p, q)).all()
    assert m.jeffreys(p, q)[0] > 50


@pytest.mark.parametrize("distance", [m.jensen_shannon, m.jeffreys, m.l2])
def test_distances_are_symmetric_and_zero_between_equals(distance):
    p, q = distributions()
    assert distance(p, q) == pytest.approx(distance(q, p))
    assert (distance(p, q) > 0).all()
    assert (distance(p, p) == 0).all()


def test_answer_distances_are_those_of_yes_and_no():
    d_p, d_q = np.random.default_rng(0).normal(size=(2, 20))
    p, q = (np.stack([expit(d), expit(-d)], axis=1) for d in (d_p, d_q))
    found = m.answer_distances(d_p, d_q)
    assert set(found) == {"js", "jeffreys", "l2"}
    assert found["js"] == pytest.approx(m.jensen_shannon(p, q))
    assert found["jeffreys"] == pytest.approx(m.jeffreys(p, q))
    assert found["l2"] == pytest.approx(m.l2(p, q))
    assert m.summary(found)["js"] == pytest.approx(found["js"].mean())


def test_answer_distances_of_certain_answers_keep_their_digits():
    # ½·Σ (p − q)·(log p − log q): 1·(0 + 300) for Yes, −1·(−300 − 0) for No.
    found = m.answer_distances(np.array([300.0]), np.array([-300.0]))
    assert found["jeffreys"] == pytest.approx([300.0])
    assert found["js"] == pytest.approx([np.log(2)])


@pytest.mark.parametrize("bias", [True, False])
def test_vocabulary_distances_do_not_depend_on_the_chunk_and_match_float64(bias):
    random = np.random.default_rng(0)
    states = random.normal(size=(2, 21, 16)).astype(np.float32)
    heads = [
        (random.normal(size=(300, 16)).astype(np.float32), random.normal(size=300).astype(np.float32) if bias else None)
        for _ in range(2)
    ]
    p, q = (
        softmax(h.astype(float) @ w.T.astype(float) + (0 if b is None else b), axis=1)
        for h, (w, b) in zip(states, heads, strict=True)
    )
    for chunk in (4, 21, 256):
        found = m.vocabulary_distances(states[0], heads[0], states[1], heads[1], chunk)
        assert found["js"] == pytest.approx(m.jensen_shannon(p, q), rel=1e-4)
        assert found["jeffreys"] == pytest.approx(m.jeffreys(p, q), rel=1e-4)
        assert found["l2"] == pytest.approx(m.l2(p, q), rel=1e-4)


def test_vocabulary_distances_leave_states_and_heads_as_they_were():
    random = np.random.default_rng(0)
    states, weight, bias = (random.normal(size=s).astype(np.float32) for s in ((5, 4), (9, 4), (9,)))
    before = [array.copy() for array in (states, weight, bias)]
    same = m.vocabulary_distances(states, (weight, bias), states, (weight, bias))
    assert all((a == b).all() for a, b in zip(before, (states, weight, bias), strict=True))
    assert all((values < 1e-6).all() for values in same.values())


def test_vocabulary_distances_survive_probabilities_below_the_smallest_float32():
    hidden, weight = np.eye(2, dtype=np.float32), np.array([[500, 0], [0, 500]], np.float32)
    found = m.vocabulary_distances(hidden[:1], (weight, None), hidden[1:], (weight, None))
    assert found["js"] == pytest.approx([np.log(2)])
    assert found["jeffreys"] == pytest.approx([500.0])


def test_vocabulary_distances_of_no_rows_are_empty():
    head = (np.ones((3, 2), np.float32), None)
    found = m.vocabulary_distances(np.empty((0, 2), np.float32), head, np.empty((0, 2), np.float32), head)
    assert {name: len(values) for name, values in found.items()} == {"js": 0, "jeffreys": 0, "l2": 0}


def test_excess_distance_is_zero_at_the_floor_one_at_the_original_and_nan_below_the_floor():
    assert m.excess_distance(0.026, 0.033, 0.026) == 0
    assert m.excess_distance(0.033, 0.033, 0.026) == 1
    assert m.excess_distance(0.019, 0.033, 0.026) == pytest.approx(-1)
    assert np.isnan(m.excess_distance(0.02, 0.026, 0.026))


# --- placebo, projection, other papers


@pytest.mark.parametrize("true", [0.1, 0.5, 3.0, 20.0])
def test_temperature_finds_the_one_that_made_the_scores_overconfident(true):
    random = np.random.default_rng(0)
    d = random.normal(size=50_000)
    y = (random.random(50_000) < expit(d)).astype(int)
    found = m.temperature(y, d * true)
    assert found == pytest.approx(true, rel=0.05)
    for other in (0.97, 1.03):
        assert m.log_loss(y, d * true / found) < m.log_loss(y, d * true / (found * other))


def test_projection_averages_seed_noise_out():
    random = np.random.default_rng(0)
    memory = random.normal(size=200_000)
    seeds = random.normal(size=(5, 200_000))  # every model its own noise, as large as what it remembers
    r1, r2, r3 = seeds[:3]
    o, o2 = seeds[3] + memory, seeds[4] + memory
    assert m.projection(o, r1, o2, r2, o) == 1
    assert m.projection(r1, r1, o2, r2, o) == 0
    assert m.projection(r3, r1, o2, r2, o) == pytest.approx(0, abs=0.03)
    assert m.projection(seeds[3] + 0.5 * memory, r1, o2, r2, o) == pytest.approx(0.5, abs=0.03)


def test_projection_by_hand():
    p, r1, o2, r2, o = (np.array(x, float) for x in ([2, 1], [1, 1], [3, 2], [1, 1], [5, 2]))
    assert m.projection(p, r1, o2, r2, o) == pytest.approx(2 / 9)  # ⟨(1, 0), (2, 1)⟩ / ⟨(4, 1), (2, 1)⟩
    assert np.isnan(m.projection(p, o, o2, r2, o))


def test_residual_bota_by_hand():
    p, r, o = np.array([0.5, 0.5]), np.array([0.25, 0.75]), np.array([0.75, 0.25])
    assert m.residual_bota(p, r, o) == 0.5
    assert np.isnan(m.residual_bota(p, r, r))


def test_ks_tofu_is_scipys_two_sample_p_value():
    a, b = np.random.default_rng(0).exponential(size=(2, 80))
    assert m.ks_tofu(a, b) == ks_2samp(a, b).pvalue
    assert m.ks_tofu(a, b + 3) < 1e-6


def test_priv_leak_is_zero_at_the_retrained_model_and_negative_while_members_show():
    assert m.priv_leak(0.5, 0.5) == 0
    assert m.priv_leak(0.75, 0.5) == -50
    assert np.isnan(m.priv_leak(0.5, 1.0))
