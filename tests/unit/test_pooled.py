"""Rows of several requests are one set, each answered by the model that forgot it."""

import numpy as np
import pytest

from e2urec.evaluation.pooled import ForgottenRows
from e2urec.metrics.bootstrap import user_bootstrap


def test_pooled_memory_is_that_of_the_union_worked_by_hand():
    # Two requests of one user each; of the 4 pairs of a liked and a disliked row in the union, the
    # original ranks all 4 rightly, the retrained models 2, and the candidate 3.
    first = ForgottenRows(
        labels=np.array([1, 0]),
        users=np.array([4, 4]),
        candidate=np.array([2.0, 1.0]),
        original=np.array([3.0, -1.0]),
        retrained=np.array([[1.0, 0.0], [1.0, 0.0]]),
        request=np.zeros(2, int),
    )
    second = ForgottenRows(
        labels=np.array([1, 0]),
        users=np.array([9, 9]),
        candidate=np.array([0.5, -1.0]),
        original=np.array([2.0, 1.0]),
        retrained=np.array([[-2.0, -1.0], [-2.0, -1.0]]),
        request=np.zeros(2, int),
    )
    union = ForgottenRows.union([first, second])
    bootstrap = user_bootstrap(union.users, resamples=0, seed=0)
    figures = union.figures(bootstrap, seed=0)
    assert figures["forget_auc_original"][0] == 1.0
    # Liked at 1 and −2, disliked at 0 and −1: 1 beats both.
    assert figures["forget_auc_retrained"][0] == 0.5
    # Liked at 2 and 0.5, disliked at 1 and −1: 0.5 does not beat 1.
    assert figures["forget_auc"][0] == 0.75
    assert figures["memory_auc"][0] == pytest.approx((0.75 - 0.5) / (1.0 - 0.5))
    # Both retrained models moved alike, so that the ceiling is 1.
    movement = np.array([-1.0, 2.0, -1.5, -2.0])
    direction = np.array([-2.0, 1.0, -4.0, -2.0])
    correlation = np.corrcoef(movement, direction)[0, 1]
    assert figures["correlation"][0] == pytest.approx(correlation)
    assert figures["ceiling"][0] == pytest.approx(1.0)
    assert figures["alignment"][0] == pytest.approx(correlation)


def test_a_shift_of_a_whole_model_moves_the_union_and_not_the_memory_within_requests():
    random = np.random.default_rng(0)
    parts = []
    for user in range(6):
        labels = np.tile([0, 1], 10)
        original = labels + random.normal(size=20)
        part = ForgottenRows(
            labels=labels,
            users=np.full(20, user),
            # Each request's model says Yes more often than the last one's, and ranks as before.
            candidate=original + 3 * user,
            original=original,
            retrained=random.normal(size=(2, 20)),
            request=np.zeros(20, int),
        )
        parts.append(part)
    union = ForgottenRows.union(parts)
    bootstrap = user_bootstrap(union.users, resamples=200, seed=0)
    assert union.figures(bootstrap, seed=0)["memory_auc"][0] < 0.7
    within = union.within_figures(bootstrap, seed=0)["memory_within"]
    np.testing.assert_allclose(within[np.isfinite(within)], 1.0)


def test_memory_within_requests_leaves_out_those_of_one_class():
    rows = ForgottenRows(
        labels=np.array([1, 0, 1, 1]),
        users=np.array([0, 0, 1, 1]),
        candidate=np.array([1.0, 0.0, 5.0, 6.0]),
        original=np.array([1.0, 0.0, 5.0, 6.0]),
        retrained=np.array([[0.0, 1.0, 5.0, 6.0]]),
        request=np.array([0, 0, 1, 1]),
    )
    bootstrap = user_bootstrap(rows.users, resamples=0, seed=0)
    # The first request alone: AUC 1 of the original, 0 of the retrained model.
    assert rows.within_figures(bootstrap, seed=0)["headroom_within"][0] == 1.0
