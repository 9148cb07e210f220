"""What is told where the lead, or how sure it is, cannot be told."""

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from target_tasks import odds_of, strangers_scores, task_of, with_scores

from e2urec.core.seeding import stream
from e2urec.training.costs import Costs
from e2urec.unlearning import target as targets
from e2urec.unlearning.outcome import Outcome, unsure_lead
from e2urec.unlearning.target import target_by_calibration, target_by_scores
from e2urec.unlearning.teachers import AnsweredRows


@pytest.fixture(scope="module")
def toy():
    return task_of()


@pytest.fixture
def task(toy):
    """A task with scores, and costs and outcome of its own."""
    return replace(with_scores(toy, strangers_scores(toy)), costs=Costs(), outcome=Outcome())


def by_scores(task, ratio=1.0):
    return target_by_scores(task, odds_of(task, task.forget), ratio)


def by_calibration(task):
    nothing = AnsweredRows(np.zeros(0, int), np.zeros(0, np.float32))
    odds = odds_of(task, task.forget) if len(task.forget) else np.zeros(0)
    return target_by_calibration(task, odds, nothing, 1.0)


def with_rows(task, name, index):
    """The task with some rows of a set alone, and their scores."""
    index = np.asarray(index)
    task = replace(task, **{name: getattr(task, name).take(index)})
    if name == "retain":
        return task
    scores = replace(task.scores, **{name: getattr(task.scores, name).take(index)})
    return replace(task, scores=scores)


def of_one_user(task, name):
    users = getattr(task, name).users
    return with_rows(task, name, np.flatnonzero(users == both_answers_user(task, name)))


def both_answers_user(task, name):
    rows = getattr(task, name)
    return next(user for user in rows.users if len(np.unique(rows.labels[rows.users == user])) == 2)


def of_one_answer(task, name):
    return with_rows(task, name, np.flatnonzero(getattr(task, name).labels == 1))


def without_rows(task, name):
    return with_rows(task, name, np.zeros(0, int))


def test_request_of_one_user_is_told_as_such_with_a_remedy_that_helps(task):
    target = by_scores(of_one_user(task, "forget"))
    assert math.isfinite(target.lead)
    assert math.isnan(target.error)
    assert not target.is_sure
    assert unsure_lead(target) == (
        "D_f is of one user, so how sure the lead is cannot be told; a request of more users can "
        "be measured."
    )


def test_request_of_one_user_does_not_hide_a_lead_that_other_rows_measure(task):
    target = by_calibration(of_one_user(task, "forget"))
    assert target.obstacle == ""
    assert target.error > 0


@pytest.mark.parametrize("measure", [by_scores, by_calibration])
def test_one_calibration_user_is_told_as_such(task, measure):
    target = measure(of_one_user(task, "calibration"))
    assert math.isnan(target.error)
    assert unsure_lead(target) == (
        "The calibration set is of one user, so how sure the lead is cannot be told; train with a "
        "larger data.calibration, or import more users with --held."
    )


@pytest.mark.parametrize(
    ("measure", "change", "name", "start"),
    [
        (by_scores, of_one_answer, "forget", "D_f has one answer alone"),
        (by_calibration, of_one_answer, "forget", "D_f has one answer alone"),
        (by_scores, of_one_answer, "calibration", "The calibration set has one answer alone"),
        (by_calibration, of_one_answer, "calibration", "The calibration set has one answer alone"),
        (by_scores, without_rows, "calibration", "The calibration set has no rows"),
        (by_calibration, without_rows, "calibration", "The calibration set has no rows"),
        (by_calibration, of_one_answer, "retain", "D_r has one answer alone"),
        (by_calibration, without_rows, "retain", "D_r has no rows"),
    ],
)
def test_rows_without_an_auc_have_a_sentence_of_their_own(task, measure, change, name, start):
    target = measure(change(task, name))
    assert math.isnan(target.lead)
    assert unsure_lead(target).startswith(f"{start}, so what tuning is worth cannot be measured; ")


def test_error_cannot_be_told_where_most_resamples_hold_one_answer(task):
    # Of two users, one likes everything and one nothing: half of the resamples have one answer
    # alone, in D_f and in the calibration set each, and all others are the same.
    for name in ("forget", "calibration"):
        rows = getattr(task, name)
        task = replace(task, **{name: replace(rows, users=rows.labels)})
    target = by_scores(task)
    assert math.isfinite(target.lead)
    assert math.isnan(target.error)
    assert "has too few users with both answers" in unsure_lead(target)


def test_answers_that_are_not_numbers_give_no_lead(task):
    odds = odds_of(task, task.forget)
    odds[0] = np.nan
    target = target_by_scores(task, odds, 1.0)
    assert math.isnan(target.lead)
    assert "D_f is answered by what is not a number" in unsure_lead(target)


def test_unsure_lead_names_the_rows_that_leave_it_unsure(task):
    # Two users of D_f differ more than the calibration users, whose scores are the original's own.
    users = np.unique(task.forget.users)[:2]
    few = with_rows(task, "forget", np.flatnonzero(np.isin(task.forget.users, users)))
    target = replace(by_scores(few), lead=0.0, error=0.1, obstacle="")
    assert unsure_lead(target) == (
        "What tuning is worth is not surely positive: 0.000 AUC with a standard error of 0.100; "
        "a request of more users can be measured."
    )


def test_calibration_rows_without_a_score_are_left_out(task):
    random = np.random.default_rng(1)
    scores = random.normal(size=len(task.calibration)).astype(np.float32)
    scores[::3] = np.nan
    is_scored = np.isfinite(scores)
    task = with_scores(task, task.scores.forget.mean, scores)
    labels = task.calibration.labels[is_scored]
    odds = odds_of(task, task.calibration)
    lead = roc_auc_score(task.forget.labels, odds_of(task, task.forget))
    lead -= roc_auc_score(task.forget.labels, task.scores.forget.mean)
    lead -= roc_auc_score(labels, odds[is_scored]) - roc_auc_score(labels, scores[is_scored])
    assert by_scores(task).lead == pytest.approx(lead)
    unscored = with_scores(task, task.scores.forget.mean, np.full(len(scores), np.nan))
    target = by_scores(unscored)
    assert math.isnan(target.lead)
    assert "No calibration row has an out-of-fold score" in unsure_lead(target)


def test_original_is_asked_for_no_more_calibration_rows_than_are_planned(task, monkeypatch):
    monkeypatch.setattr(targets, "LEAST_ROWS", {"scores": 1})
    ratio = 10 / len(task.forget)
    assert len(task.calibration) > 10
    target = by_scores(task, ratio)
    assert task.costs.rows == {"teachers": 10}
    # The same rows as those of the other measure.
    rows = stream(task.seed, "outside").permutation(len(task.calibration))[:10]
    expected = with_rows(task, "calibration", rows)
    monkeypatch.setattr(targets, "LEAST_ROWS", {"scores": 500})
    assert target.lead == pytest.approx(by_scores(expected).lead)
