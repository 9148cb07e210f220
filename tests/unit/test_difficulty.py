"""The control model: it tells easy rows from hard ones, and remembers nobody."""

import time

import numpy as np
import polars as pl
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from e2urec.data.difficulty import FOLDS, SMOOTHING, difficulty, user_folds
from e2urec.data.interactions import Interactions
from e2urec.data.samples import Samples
from e2urec.metrics.classification import auc

HISTORY = 3


def interactions(user, item, liked, titles):
    """Rows in the order given, which must be that of the users."""
    return Interactions(
        user=np.asarray(user, np.int32),
        item=np.asarray(item, np.int32),
        rating=np.where(liked, 5, 1).astype(np.float32),
        time=np.arange(len(user)),
        user_ids=pl.Series(range(max(user) + 1)),
        item_ids=pl.Series(range(titles)),
        titles=[f"Movie {number}" for number in range(titles)],
        profiles=None,
        liked_above=3,
        duplicates=0,
    )


def generated(users=60, rows=20, titles=40, seed=0):
    """Rows whose items differ in how well they are liked, and whose users in how much they like."""
    random = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), rows)
    item = random.integers(0, titles, users * rows)
    odds = random.normal(size=titles)[item] + random.normal(size=users)[user]
    liked = random.random(users * rows) < expit(odds)
    return interactions(user, item, liked, titles)


def halves(data):
    """D_r, the users before the middle, and outsiders, those after it."""
    middle = data.user.max() // 2
    rows = np.arange(len(data))
    return (
        Samples(data, rows[data.user <= middle], HISTORY),
        Samples(data, rows[data.user > middle], HISTORY),
    )


def with_labels(data, flipped):
    """The same data with the labels of some rows turned over."""
    liked = data.liked.astype(bool).copy()
    liked[flipped] = ~liked[flipped]
    return interactions(data.user, data.item, liked, len(data.titles))


def by_hand(retain, scored, held_users):
    """Log-odds of `scored` under a model of D_r without `held_users`, with plain loops."""
    data = retain.interactions
    folds = user_folds(retain.users, 5)
    is_held = np.isin(retain.users, held_users)

    def features(row, start, rows):
        likes = data.liked[rows]
        rate = (likes.sum() + 1) / (len(rows) + 2)
        same = data.item[rows] == data.item[row]
        mean = (likes[same].sum() + SMOOTHING * rate) / (same.sum() + SMOOTHING)
        return [mean, np.log(1 + same.sum()), data.liked[start:row].mean() if row > start else 0.5]

    table = []
    for n in np.flatnonzero(~is_held):
        others = retain.rows[~is_held & (folds != folds[n])]
        table.append(features(retain.rows[n], retain.starts[n], others))
    model = LogisticRegression().fit(table, retain.labels[~is_held])
    outside = retain.rows[~is_held]
    scored_table = [
        features(row, start, outside) for row, start in zip(scored.rows, scored.starts, strict=True)
    ]
    return model.decision_function(scored_table)


def test_rows_are_scored_by_models_of_the_other_folds_as_plain_loops_score_them():
    data = generated(users=20, rows=8, titles=12)
    retain, outsiders = halves(data)
    scores = difficulty(retain, {"unseen": outsiders}, seed=5)
    folds = user_folds(retain.users, 5)
    expected = np.zeros(len(outsiders))
    for fold in range(FOLDS):
        own = folds == fold
        held_users = np.unique(retain.users[own])
        assert scores.retain[own] == pytest.approx(by_hand(retain, retain.take(own), held_users))
        expected += by_hand(retain, outsiders, held_users) / FOLDS
    assert scores.outsiders["unseen"] == pytest.approx(expected)


def test_a_users_own_labels_do_not_move_her_own_scores_but_those_of_others():
    data = generated()
    retain, outsiders = halves(data)
    user = retain.users[0]
    # The last row of a user is in no history: only through the model could its label come back.
    last = np.flatnonzero(data.user == user)[-1:]
    before = difficulty(retain, {"unseen": outsiders}, seed=0)
    changed, changed_outsiders = halves(with_labels(data, last))
    after = difficulty(changed, {"unseen": changed_outsiders}, seed=0)
    own = retain.users == user
    folds = user_folds(retain.users, 0)
    assert (after.retain[own] == before.retain[own]).all()
    assert (after.retain[folds != folds[0]] != before.retain[folds != folds[0]]).all()
    assert (after.outsiders["unseen"] != before.outsiders["unseen"]).all()


def test_labels_of_outsiders_move_nothing_but_their_own_histories():
    data = generated()
    retain, outsiders = halves(data)
    before = difficulty(retain, {"unseen": outsiders}, seed=0)
    changed, changed_outsiders = halves(with_labels(data, outsiders.rows))
    after = difficulty(changed, {"unseen": changed_outsiders}, seed=0)
    assert (after.retain == before.retain).all()
    first = outsiders.rows == outsiders.starts
    assert (after.outsiders["unseen"][first] == before.outsiders["unseen"][first]).all()


def test_control_model_tells_likes_of_users_it_never_saw():
    retain, outsiders = halves(generated(users=200))
    scores = difficulty(retain, {"unseen": outsiders}, seed=0)
    assert auc(retain.labels, scores.retain) > 0.65
    assert auc(outsiders.labels, scores.outsiders["unseen"]) > 0.65


def test_neither_side_looks_harder_than_the_other_where_users_are_alike():
    differences = []
    for seed in range(12):
        retain, outsiders = halves(generated(users=160, seed=seed))
        scores = difficulty(retain, {"unseen": outsiders}, seed=seed)
        outside = auc(outsiders.labels, scores.outsiders["unseen"])
        differences.append(auc(retain.labels, scores.retain) - outside)
    standard_error = np.std(differences, ddof=1) / np.sqrt(len(differences))
    assert abs(np.mean(differences)) < 3 * standard_error
    assert abs(np.mean(differences)) < 0.015


def test_an_item_that_nobody_of_the_retain_set_rated_is_liked_as_the_average_one():
    data = interactions([0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 0, 1, 0, 1, 2, 2], [1, 0] * 4, 4)
    retain = Samples(data, np.arange(6), HISTORY)
    strangers = Samples(data, np.arange(6, 8), HISTORY)
    scores = difficulty(retain, {"unseen": strangers}, seed=0)
    assert np.isfinite(scores.outsiders["unseen"]).all()
    assert (scores.retain[::2] > scores.retain[1::2]).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("users", [1, 2, 3])
def test_few_users_make_few_folds_and_one_user_tells_nothing(users):
    data = generated(users=users + 1, rows=10, titles=5)
    rows = np.arange(len(data))
    retain = Samples(data, rows[data.user < users], HISTORY)
    outsiders = Samples(data, rows[data.user == users], HISTORY)
    scores = difficulty(retain, {"unseen": outsiders, "calibration": outsiders.take([])}, seed=0)
    assert len(np.unique(user_folds(retain.users, 0))) == users
    assert np.isfinite(scores.retain).all()
    assert scores.outsiders["calibration"].shape == (0,)
    if users == 1:
        assert (scores.retain == 0).all()
        assert (scores.outsiders["unseen"] == 0).all()


@pytest.mark.filterwarnings("error")
def test_where_everything_is_liked_no_row_is_easier_than_another():
    data = interactions(np.repeat(np.arange(10), 4), np.arange(40) % 7, np.ones(40, bool), 7)
    retain, outsiders = halves(data)
    scores = difficulty(retain, {"unseen": outsiders}, seed=0)
    # One user of four rows a fold: sixteen liked rows, and one more of either class.
    assert scores.retain == pytest.approx(np.log(17))
    assert scores.outsiders["unseen"] == pytest.approx(np.log(17))


def test_scores_depend_on_the_seed_alone_and_a_part_of_them_is_taken_by_position():
    retain, outsiders = halves(generated())
    first, again, other = (
        difficulty(retain, {"unseen": outsiders}, seed=seed) for seed in (3, 3, 4)
    )
    assert (first.retain == again.retain).all()
    assert (first.retain != other.retain).any()
    part = first.take(np.array([4, 2]))
    assert part.retain.tolist() == [first.retain[4], first.retain[2]]
    assert part.outsiders is first.outsiders


def test_a_hundred_thousand_rows_take_under_five_seconds():
    retain, outsiders = halves(generated(users=10_000, rows=20, titles=3_000))
    start = time.process_time()
    difficulty(retain, {"unseen": outsiders}, seed=0)
    assert time.process_time() - start < 5
