"""Figures and their intervals, against repeated rows, scikit-learn and numbers worked by hand."""

import time

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import pearsonr
from sklearn.metrics import log_loss, roc_auc_score, roc_curve

from e2urec.core.errors import DataError
from e2urec.metrics import classification as m
from e2urec.metrics.bootstrap import (
    interval,
    over_seeds,
    remaining,
    user_bootstrap,
)
from e2urec.metrics.ranking import advantage, area, tpr_at_fpr


def rows(n=600, users=30, *, seed=0, ties=True):
    """Labels, log-odds that know something of them, and users; rounded scores tie."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 2, n).astype(np.int8)
    d = random.normal(size=n) + y
    return y, (np.round(d, 1) if ties else d).astype(np.float32), random.integers(0, users, n)


@pytest.fixture
def request_models():
    """Labels of D_f, an original that knows them, two retrained ones that do not, a bootstrap."""
    random = np.random.default_rng(1)
    y = random.integers(0, 2, 4000)
    original, r1, r2 = (
        strength * (2 * y - 1) + random.normal(size=4000) for strength in (1.2, 0.4, 0.4)
    )
    return (
        y,
        original,
        [r1, r2],
        user_bootstrap(random.integers(0, 200, 4000), resamples=400, seed=3),
    )


def memory(y, p, original, retrained, boot, level=0.95):
    """M by AUC and by log loss, as an evaluation computes them."""
    found = {}
    for name, figure in (("auc", boot.auc), ("loss", lambda y, d: -boot.log_loss(y, d))):
        after = over_seeds([figure(y, d) for d in retrained], seed=0)
        found[name] = boot.interval(remaining(figure(y, p), figure(y, original), after), level)
    return found


def utility(y, d, users):
    """All figures of utility, by scikit-learn and by hand."""
    p = expit(d.astype(float))
    aucs = [
        roc_auc_score(y[users == user], d[users == user])
        for user in np.unique(users)
        if len(set(y[users == user])) == 2
    ]
    bins = np.minimum((p * 15).astype(int), 14)
    gaps = [abs((p - y)[bins == k].sum()) for k in range(15)]
    return {
        "auc": roc_auc_score(y, d),
        "gauc": np.mean(aucs),
        "accuracy": np.mean((d > 0) == y),
        "log_loss": log_loss(y, p),
        "ece": sum(gaps) / len(y),
    }


# --- bootstrap


@pytest.mark.parametrize("ties", [True, False])
def test_every_figure_equals_that_of_the_repeated_rows(ties):
    y, d, users = rows(n=150, users=12, ties=ties)
    boot = user_bootstrap(users, resamples=20, seed=5)
    figures = boot.utility(y, d)
    assert {name: len(figure) for name, figure in figures.items()} == dict.fromkeys(
        utility(y, d, users), 21
    )
    for k, weight in enumerate(boot.weights()):
        again = np.repeat(np.arange(150), weight)
        copy = np.concatenate(
            [np.arange(times) for times in weight]
        )  # a user drawn twice counts as two users
        expected = utility(y[again], d[again], users[again] * 1000 + copy)
        for name, figure in figures.items():
            assert figure[k] == pytest.approx(expected[name], abs=1e-12), name


@pytest.mark.parametrize("users", [12, 140])
@pytest.mark.parametrize("ties", [True, False])
def test_auc_has_the_bits_of_ranking_the_rows_of_each_resample(ties, users):
    # 71 lines are not a multiple of the chunk; of 140 users some have rows of one label alone.
    y, d, user = rows(n=300, users=users, ties=ties)
    boot = user_bootstrap(user, resamples=70, seed=5)
    expected = [boot.ranked(y, d, area, chunk) for chunk in (32, 7, 100)]
    for figure in expected:
        assert np.array_equal(figure, expected[0])
    assert np.array_equal(boot.auc(y, d), expected[0])
    one_label = np.ones_like(y)
    assert np.isnan(boot.auc(one_label, d)).all()
    assert np.isnan(boot.auc(1 - one_label, d)).all()


def test_correlation_is_pearsons_of_the_repeated_rows():
    random = np.random.default_rng(4)
    x = random.normal(size=150).astype(np.float32)
    y = 0.4 * x + random.normal(size=150)
    users = random.integers(0, 12, 150)
    boot = user_bootstrap(users, resamples=40, seed=5)
    figure = boot.correlation(1e4 + x.astype(float), y)
    for k, weight in enumerate(boot.weights()):
        again = np.repeat(np.arange(150), weight)
        assert figure[k] == pytest.approx(pearsonr(x[again], y[again]).statistic, abs=1e-9)


@pytest.mark.filterwarnings("error")
def test_correlation_with_a_constant_is_nan_also_where_only_a_draw_is_constant():
    values = np.array([0.1, 0.1, 0.3, 0.7])
    boot = user_bootstrap(np.array([0, 0, 1, 1]), resamples=30, seed=0)
    assert np.isnan(boot.correlation(np.full(4, 0.1), values)).all()
    figure = boot.correlation(np.array([0.1, 0.1, 0.7, 0.3]), values)
    only_first = boot.counts[:, 1] == 0
    assert only_first.any()
    assert np.isnan(figure[only_first]).all()
    assert np.isfinite(figure[~only_first]).all()


def test_bootstrap_begins_with_the_rows_themselves_and_then_draws_as_many_whole_users():
    _, _, users = rows()
    boot = user_bootstrap(users, resamples=50, seed=0)
    assert (boot.counts[0] == 1).all()
    assert (boot.counts.sum(1) == len(np.unique(users))).all()
    weights = boot.weights()
    for user in np.unique(users):
        assert (weights[:, users == user] == weights[:, users == user][:, :1]).all()


def test_users_are_drawn_within_their_group():
    _, _, users = rows()
    boot = user_bootstrap(users, (users < 10).astype(int), resamples=50, seed=0)
    assert (boot.counts[:, :10].sum(1) == 10).all()
    assert (boot.counts[:, 10:].sum(1) == 20).all()


def test_bootstrap_depends_on_its_seed_alone():
    _, _, users = rows()
    draw = [user_bootstrap(users, resamples=9, seed=seed).counts for seed in (4, 4, 5)]
    assert (draw[0] == draw[1]).all()
    assert (draw[0] != draw[2]).any()


def test_interval_has_the_width_of_the_mean_over_users():
    values = np.random.default_rng(2).normal(
        size=400
    )  # one row a user: the textbook standard error holds
    boot = user_bootstrap(np.arange(400), seed=0)
    found = boot.interval(boot.mean(values))
    assert found.low < found.value < found.high
    assert found.n == 400
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.06)


def test_users_with_equal_rows_give_a_wider_interval_than_independent_rows():
    values = np.repeat(np.random.default_rng(2).normal(size=40), 25)
    widths = []
    for users in (np.repeat(np.arange(40), 25), np.arange(1000)):
        boot = user_bootstrap(users, seed=0)
        found = boot.interval(boot.mean(values))
        widths.append(found.high - found.low)
    assert widths[0] == pytest.approx(5 * widths[1], rel=0.15)


def test_draws_with_one_class_do_not_spoil_the_interval():
    y, users = np.array([0, 1, 1, 0]), np.array([0, 1, 2, 3])
    boot = user_bootstrap(users, resamples=300, seed=0)
    figure = boot.auc(y, np.array([0.0, 1.0, 2.0, 3.0]))
    found = boot.interval(figure)
    assert np.isnan(figure).any()
    assert 0 <= found.low <= found.value <= found.high <= 1


@pytest.mark.filterwarnings("error")
def test_one_user_alone_bounds_nothing():
    y, d, _ = rows(n=50)
    boot = user_bootstrap(np.zeros(50, int), seed=0)
    for name, figure in boot.utility(y, d).items():
        found = boot.interval(figure)
        assert (found.low, found.high) == (-np.inf, np.inf), name
        assert np.isfinite(found.value), name


def test_bootstrap_of_no_rows_is_refused():
    with pytest.raises(DataError, match="0 rows"):
        user_bootstrap(np.array([], int), seed=0)


def test_bootstrap_refuses_scores_of_other_rows():
    y, d, users = rows()
    with pytest.raises(AssertionError, match="other rows"):
        user_bootstrap(users, resamples=2, seed=0).auc(y[1:], d[1:])


def test_two_thousand_resamples_of_twenty_thousand_rows_take_under_five_seconds():
    y, d, users = rows(n=20_000, users=900, ties=False)
    boot = user_bootstrap(users, seed=0)
    start = time.process_time()
    boot.auc(y, d)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("ties", [True, False])
def test_attack_figures_are_read_off_the_roc_curve(ties):
    y, d, users = rows(ties=ties)
    boot = user_bootstrap(users, resamples=3, seed=0)
    for k, weight in enumerate(boot.weights()):
        alarms, hits, _ = roc_curve(y, d, sample_weight=weight, drop_intermediate=False)
        assert boot.ranked(y, d, advantage)[k] == pytest.approx(max(hits - alarms), abs=1e-12)
        for rate in (0.01, 0.2):
            expected = max(hits[alarms <= rate + 1e-12])
            assert boot.ranked(y, d, tpr_at_fpr(rate))[k] == pytest.approx(expected, abs=1e-12)


# --- memory


def test_memory_is_one_for_the_original_and_near_zero_for_another_retrained_model(request_models):
    y, original, retrained, boot = request_models
    for found in memory(y, original, original, retrained, boot).values():
        assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1))
    third = 0.4 * (2 * y - 1) + np.random.default_rng(9).normal(size=len(y))
    for found in memory(y, third, original, retrained, boot).values():
        assert found.low < 0 < found.high
        assert abs(found.value) < 0.2


def test_memory_value_is_the_ratio_with_the_mean_over_retrained_models(request_models):
    y, original, retrained, boot = request_models
    p = 0.5 * original + 0.5 * retrained[0]
    for name, figure in (("auc", m.auc), ("loss", m.log_loss)):
        r = np.mean([figure(y, d) for d in retrained])
        expected = (figure(y, p) - r) / (figure(y, original) - r)
        assert memory(y, p, original, retrained, boot)[name].value == pytest.approx(expected)


def test_memory_interval_pairs_its_draws(request_models):
    y, original, retrained, boot = request_models
    mixed = 0.7 * original + 0.3 * retrained[0]
    found = memory(y, mixed, original, retrained, boot)["auc"]
    p, o, r1, r2 = (boot.auc(y, d)[1:] for d in (mixed, original, *retrained))
    r = (r1 + r2) / 2
    assert (found.low, found.high) == pytest.approx(
        tuple(np.quantile((p - r) / (o - r), [0.025, 0.975]))
    )


def test_memory_by_auc_is_blind_to_softening_where_memory_by_loss_is_not(request_models):
    y, original, retrained, boot = request_models
    found = memory(y, original / 5, original, retrained, boot)
    assert found["auc"].value == pytest.approx(1)
    assert found["loss"].value < 0.9


def test_memory_without_headroom_has_no_value_and_bounds_nothing(request_models):
    y, original, retrained, boot = request_models
    for found in memory(y, retrained[0], original, [original], boot).values():
        assert np.isnan(found.value)
        assert (found.low, found.high) == (-np.inf, np.inf)


@pytest.mark.parametrize("strength", [0.42, 0.2])
def test_memory_bounds_nothing_where_the_headroom_reaches_zero(request_models, strength):
    y, _, retrained, boot = request_models
    original = strength * (2 * y - 1) + np.random.default_rng(8).normal(size=len(y))
    r = over_seeds([boot.auc(y, d) for d in retrained], seed=0)
    assert boot.interval(boot.auc(y, original) - r).low <= 0
    found = memory(y, retrained[0], original, retrained, boot)["auc"]
    assert np.isfinite(found.value)
    assert (found.low, found.high) == (-np.inf, np.inf)


def test_what_remains_is_one_at_the_start_zero_at_the_end_and_negative_beyond():
    start, end = np.full(9, 0.033), np.full(9, 0.026)
    for found, expected in ((0.033, 1), (0.026, 0), (0.019, -1)):
        assert remaining(np.full(9, found), start, end) == pytest.approx(expected)


def test_nothing_can_be_measured_against_no_retrained_model():
    with pytest.raises(DataError, match="0 retrained"):
        over_seeds([], seed=0)


def test_three_retrained_models_bring_the_noise_of_their_seeds_as_student_has_it():
    levels = np.array([0.60, 0.64, 0.65, 0.67])
    figures = [np.full(200_001, level) for level in levels]
    found = interval(over_seeds(figures, seed=1), 10, 0.9)
    half = (
        2.3534 * levels.std(ddof=1) / 2
    )  # t of 3 degrees of freedom, two-sided 90%, over √4 models
    assert found.value == pytest.approx(0.64)
    assert (found.low, found.high) == pytest.approx((0.64 - half, 0.64 + half), abs=5e-4)
    assert (over_seeds(figures[:2], seed=1) == 0.62).all()


def test_paired_difference_is_far_narrower_than_an_unpaired_one(request_models):
    y, original, _, boot = request_models
    nearly = original + 0.05 * np.random.default_rng(0).normal(size=len(y))
    alone, found = (
        boot.interval(boot.auc(y, original)),
        boot.interval(boot.auc(y, nearly) - boot.auc(y, original)),
    )
    assert found.value == pytest.approx(m.auc(y, nearly) - m.auc(y, original))
    assert found.high - found.low < 0.2 * (alone.high - alone.low)


def test_a_higher_level_widens_the_interval(request_models):
    y, original, retrained, boot = request_models
    ninety = memory(y, retrained[0], original, retrained, boot, level=0.9)["loss"]
    wide = memory(y, retrained[0], original, retrained, boot, level=0.99)["loss"]
    assert wide.low < ninety.low < ninety.high < wide.high


def test_interval_as_dict_holds_plain_numbers():
    boot = user_bootstrap(np.arange(9), resamples=20, seed=0)
    found = boot.interval(boot.mean(np.arange(9, dtype=np.float32))).as_dict()
    kinds = {name: type(value) for name, value in found.items()}
    assert kinds == {"value": float, "low": float, "high": float, "n": int}
