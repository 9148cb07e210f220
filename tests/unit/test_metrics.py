"""Metrics against SciPy, scikit-learn and numbers worked by hand."""

import tracemalloc

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import expit, rel_entr, softmax
from scipy.stats import ks_2samp
from sklearn import metrics as sk

from e2urec.core.arrays import Head
from e2urec.metrics import classification as m
from e2urec.metrics import distances, published
from e2urec.metrics.bootstrap import user_bootstrap


def rows(n=600, users=30, *, seed=0, ties=True):
    """Labels, log-odds that know something of them, and users; rounded scores tie."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 2, n).astype(np.int8)
    d = random.normal(size=n) + y
    return y, (np.round(d, 1) if ties else d).astype(np.float32), random.integers(0, users, n)


def value_of(name, y, d, users=None, **settings):
    """A figure of utility on the rows themselves; without `users`, each row has its own user."""
    boot = user_bootstrap(np.arange(len(y)) if users is None else users, resamples=1, seed=0)
    return getattr(boot, name)(y, d, **settings)[0]


def projection(p, r1, o2, r2, o):
    boot = user_bootstrap(np.zeros(len(p), int), resamples=1, seed=0)
    return boot.projection(p, r1, o2, r2, o)[0]


# --- utility


@pytest.mark.parametrize("ties", [True, False])
def test_auc_log_loss_and_accuracy_agree_with_scikit_learn(ties):
    y, d, _ = rows(ties=ties)
    assert m.auc(y, d) == pytest.approx(sk.roc_auc_score(y, d), abs=1e-12)
    assert m.log_loss(y, d) == pytest.approx(sk.log_loss(y, expit(d.astype(float))), rel=1e-9)
    assert value_of("accuracy", y, d) == sk.accuracy_score(y, d > 0)


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
    found = value_of("calibration_error", np.array([1, 0, 1, 0]), d, bins=2)
    assert found == pytest.approx(0.5 / 4 + 0.75 / 4)


def test_user_auc_is_the_mean_over_users_with_both_classes():
    y, d, users = rows(n=200, users=40)
    users = users * 7 - 3  # codes need neither start at 0 nor be dense
    each = [
        sk.roc_auc_score(y[users == u], d[users == u])
        for u in np.unique(users)
        if len(set(y[users == u])) == 2
    ]
    assert len(each) < len(np.unique(users))
    assert value_of("gauc", y, d, users) == pytest.approx(np.mean(each), abs=1e-12)


def test_user_auc_is_nan_when_no_user_has_both_classes():
    assert np.isnan(value_of("gauc", np.array([0, 1]), np.array([0.0, 1.0]), np.array([0, 1])))


def test_user_auc_keeps_equal_scores_of_neighbouring_users_apart():
    y, d, users = np.array([0, 1, 0, 1]), np.array([0.0, 1.0, 1.0, 2.0]), np.array([0, 0, 1, 1])
    assert value_of("gauc", y, d, users) == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("measure", [m.auc, m.log_loss])
def test_measure_of_no_rows_is_nan_not_an_error(measure):
    assert np.isnan(measure(np.array([], int), np.array([])))


# --- distances


def distributions(n=8, size=50, seed=0):
    random = np.random.default_rng(seed)
    return (softmax(2 * random.normal(size=(n, size)), axis=1) for _ in range(2))


def test_distances_agree_with_scipy():
    p, q = distributions()
    assert distances.jensen_shannon(p, q) == pytest.approx(jensenshannon(p, q, axis=1) ** 2)
    assert distances.jeffreys(p, q) == pytest.approx((rel_entr(p, q) + rel_entr(q, p)).sum(1) / 2)
    assert distances.l2(p, q) == pytest.approx(np.linalg.norm(p - q, axis=1))


def test_distances_by_hand():
    p, q = np.array([[0.5, 0.5]]), np.array([[0.75, 0.25]])
    assert distances.jeffreys(p, q) == pytest.approx([np.log(3) / 8])
    assert distances.l2(p, q) == pytest.approx([0.25 * np.sqrt(2)])


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_distances_are_safe_at_zeros_and_bounded_where_they_should_be(kind):
    p, q = np.array([[1, 0, 0]], kind), np.array([[0, 1, 0]], kind)
    assert distances.jensen_shannon(p, q) == pytest.approx([np.log(2)])
    assert distances.l2(p, q) == pytest.approx([np.sqrt(2)])
    assert np.isfinite(distances.jeffreys(p, q)).all()
    assert distances.jeffreys(p, q)[0] > 50


@pytest.mark.parametrize("distance", [distances.jensen_shannon, distances.jeffreys, distances.l2])
def test_distances_are_symmetric_and_zero_between_equals(distance):
    p, q = distributions()
    assert distance(p, q) == pytest.approx(distance(q, p))
    assert (distance(p, q) > 0).all()
    assert (distance(p, p) == 0).all()


def test_answer_distances_are_those_of_yes_and_no():
    d_p, d_q = np.random.default_rng(0).normal(size=(2, 20))
    p, q = (np.stack([expit(d), expit(-d)], axis=1) for d in (d_p, d_q))
    found = distances.answer_distances(d_p, d_q)
    assert set(found) == {"js", "jeffreys", "l2"}
    assert found["js"] == pytest.approx(distances.jensen_shannon(p, q))
    assert found["jeffreys"] == pytest.approx(distances.jeffreys(p, q))
    assert found["l2"] == pytest.approx(distances.l2(p, q))


def test_answer_distances_of_certain_answers_keep_their_digits():
    # ½·Σ (p − q)·(log p − log q): 1·(0 + 300) for Yes, −1·(−300 − 0) for No.
    found = distances.answer_distances(np.array([300.0]), np.array([-300.0]))
    assert found["jeffreys"] == pytest.approx([300.0])
    assert found["js"] == pytest.approx([np.log(2)])


@pytest.mark.parametrize("cap", [None, 5.0])
@pytest.mark.parametrize("bias", [True, False])
def test_vocabulary_distances_do_not_depend_on_the_chunk_and_match_float64(bias, cap):
    def logits(states, weight, bias):
        z = states.astype(float) @ weight.T.astype(float) + (0 if bias is None else bias)
        return z if cap is None else cap * np.tanh(z / cap)

    random = np.random.default_rng(0)
    states = random.normal(size=(2, 21, 16)).astype(np.float32)
    heads = [
        Head(
            random.normal(size=(300, 16)).astype(np.float32),
            random.normal(size=300).astype(np.float32) if bias else None,
            cap,
        )
        for _ in range(2)
    ]
    p, q = (
        softmax(logits(h, head.weight, head.bias), axis=1)
        for h, head in zip(states, heads, strict=True)
    )
    for chunk in (4, 21, 256):
        found = distances.vocabulary_distances(states[0], heads[0], states[1], heads[1], chunk)
        assert found["js"] == pytest.approx(distances.jensen_shannon(p, q), rel=1e-4)
        assert found["jeffreys"] == pytest.approx(distances.jeffreys(p, q), rel=1e-4)
        assert found["l2"] == pytest.approx(distances.l2(p, q), rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_head_of_fewer_bits_gives_the_distances_of_its_float32_copy(dtype, monkeypatch):
    # Pieces of a few rows, the last one shorter.
    monkeypatch.setattr(distances, "PIECE_NUMBERS", 16 * 7)
    weight = torch.randn(300, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    states = np.random.default_rng(0).normal(size=(2, 21, 16)).astype(np.float32)
    stored = weight.view(torch.uint16) if dtype == torch.bfloat16 else weight
    found, expected = (
        distances.vocabulary_distances(states[0], head, states[1], head)
        for head in (Head(stored.numpy(), None), Head(weight.float().numpy(), None))
    )
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=1e-4)


def test_vocabulary_distances_leave_states_and_heads_as_they_were():
    random = np.random.default_rng(0)
    states, weight, bias = (
        random.normal(size=s).astype(np.float32) for s in ((5, 4), (9, 4), (9,))
    )
    before = [array.copy() for array in (states, weight, bias)]
    same = distances.vocabulary_distances(states, (weight, bias), states, (weight, bias))
    assert all((a == b).all() for a, b in zip(before, (states, weight, bias), strict=True))
    assert all((values < 1e-6).all() for values in same.values())


def test_vocabulary_distances_survive_probabilities_below_the_smallest_float32():
    hidden, weight = np.eye(2, dtype=np.float32), np.array([[500, 0], [0, 500]], np.float32)
    found = distances.vocabulary_distances(hidden[:1], (weight, None), hidden[1:], (weight, None))
    assert found["js"] == pytest.approx([np.log(2)])
    assert found["jeffreys"] == pytest.approx([500.0])


def test_vocabulary_distances_of_a_large_vocabulary_need_less_than_a_gigabyte():
    random = np.random.default_rng(0)
    states, head = (
        random.normal(size=(600, 8)).astype(np.float32),
        random.normal(size=(49_152, 8)).astype(np.float32),
    )
    tracemalloc.start()
    try:
        distances.vocabulary_distances(states, (head, None), states + 1, (head, None))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1e9, "all rows at once would be 118 MB an array, and 10,000 rows 2 GB"


def test_vocabulary_distances_of_no_rows_are_empty():
    head = (np.ones((3, 2), np.float32), None)
    found = distances.vocabulary_distances(
        np.empty((0, 2), np.float32), head, np.empty((0, 2), np.float32), head
    )
    assert {name: len(values) for name, values in found.items()} == {
        "js": 0,
        "jeffreys": 0,
        "l2": 0,
    }


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
    seeds = random.normal(
        size=(5, 200_000)
    )  # every model its own noise, as large as what it remembers
    r1, r2, r3 = seeds[:3]
    o, o2 = seeds[3] + memory, seeds[4] + memory
    assert projection(o, r1, o2, r2, o) == 1
    assert projection(r1, r1, o2, r2, o) == 0
    assert projection(r3, r1, o2, r2, o) == pytest.approx(0, abs=0.03)
    assert projection(seeds[3] + 0.5 * memory, r1, o2, r2, o) == pytest.approx(0.5, abs=0.03)


def test_projection_by_hand():
    p, r1, o2, r2, o = (np.array(x, float) for x in ([2, 1], [1, 1], [3, 2], [1, 1], [5, 2]))
    assert projection(p, r1, o2, r2, o) == pytest.approx(
        2 / 9
    )  # ⟨(1, 0), (2, 1)⟩ / ⟨(4, 1), (2, 1)⟩
    assert np.isnan(projection(p, o, o2, r2, o))


def test_residual_bota_by_hand():
    p, r, o = np.array([0.5, 0.5]), np.array([0.25, 0.75]), np.array([0.75, 0.25])
    assert published.residual_bota(p, r, o) == 0.5
    assert np.isnan(published.residual_bota(p, r, r))


def test_ks_tofu_is_scipys_two_sample_p_value():
    a, b = np.random.default_rng(0).exponential(size=(2, 80))
    assert published.ks_tofu(a, b) == ks_2samp(a, b).pvalue
    assert published.ks_tofu(a, b + 3) < 1e-6


def test_priv_leak_is_zero_at_the_retrained_model_and_negative_while_members_show():
    assert published.priv_leak(0.5, 0.5) == 0
    assert published.priv_leak(0.75, 0.5) == -50
    assert np.isnan(published.priv_leak(0.5, 1.0))
