"""How much to forget: the α at which the forgetting teacher has lost what tuning had given.

Rows that a model was tuned on are easier for it than other rows. By how much, in AUC, is the
*lead*. It is measured on D_r and on the calibration users, whom no model was tuned on. The teacher
shall have lost as much on D_f.
"""

import math
from dataclasses import replace

import numpy as np

from ..core.arrays import Floats, Ints
from ..core.seeding import stream
from ..metrics.classification import auc
from ..models.batches import Examples
from ..models.predictions import predict
from .task import Task
from .teachers import ForgettingTeacher, FrozenTeacher

MIN_SAMPLED_ROWS = 500
"""Least rows of D_r, and of the calibration users, from which the lead is measured.

From 500 rows of each the lead has a standard error of about 0.03; a small request alone would ask
for fewer.
"""
LARGEST_ALPHA = 4.0
"""Where the search for α ends, though the target may not be reached.

A weak augmented model gains little on D_f, so only a large α would reach the target; but its update
times a large α shifts the odds of all users.
"""
ALPHA_TOLERANCE = 1 / 256
"""Width of the interval at which the search for α stops."""


def sampled_rows(forget_count: int, ratio: float) -> int:
    """Rows of D_r, and of the calibration users, that the lead is measured on.

    Args:
        forget_count: rows of D_f.
        ratio: rows for each row of D_f.
    """
    return max(MIN_SAMPLED_ROWS, math.ceil(ratio * forget_count))


def training_lead(task: Task, remembering: FrozenTeacher, count: int) -> float:
    """By how much the original's AUC on rows it was tuned on exceeds that on other users' rows.

    Args:
        task: with the original, D_r and the calibration rows.
        remembering: the original's answers to some rows of D_r, which are not computed again.
        count: rows of D_r, and of the calibration users, where there are so many.

    Returns:
        A difference of two AUCs; negative where the calibration users are the easier ones.
    """
    calibration_order = stream(task.seed, "outside").permutation(len(task.calibration))
    calibration = task.calibration.take(calibration_order[:count])
    tuned_auc = _retain_auc(task, remembering, count)
    return tuned_auc - auc(calibration.labels, _original_odds(task, calibration))


def _retain_auc(task: Task, remembering: FrozenTeacher, count: int) -> float:
    """AUC of the original on `count` rows of D_r, first of all those of `remembering`."""
    rows = remembering.rows.cpu().numpy()
    odds = remembering.odds(task.original.verbaliser)
    if len(rows) < min(count, len(task.retain)):
        unanswered = np.setdiff1d(np.arange(len(task.retain)), rows)
        further = stream(task.seed, "alpha").permutation(unanswered)[: count - len(rows)]
        further_odds = _original_odds(task, task.retain.take(further))
        rows = np.concatenate([rows, further])
        odds = np.concatenate([odds, further_odds])
    return auc(task.retain.labels[rows], odds)


def _original_odds(task: Task, rows: Examples) -> Floats:
    """Log-odds of the original on `rows`, (n,)."""
    task.costs.count_rows("teachers", len(rows))
    return predict(task.original, rows, precision=task.precision).odds


def reduce_auc(teacher: ForgettingTeacher, labels: Ints, lead: float) -> ForgettingTeacher:
    """The teacher with the least α at which its AUC on D_f is the original's less the lead.

    How hard a group of users is shifts its AUC. A difference of differences leaves that out.

    Args:
        teacher: of any α.
        labels: (n,) of D_f.
        lead: see `training_lead`.
    """
    original = replace(teacher, alpha=0.0)
    original_auc = auc(labels, original.odds())
    return match_auc(teacher, labels, original_auc - lead)


def match_auc(teacher: ForgettingTeacher, labels: Ints, target: float) -> ForgettingTeacher:
    """The teacher with the least α ≤ `LARGEST_ALPHA` at which its AUC on D_f is down to `target`.

    A teacher that overshoots ruins the student. One whose AUC is that of rows which the original
    was not tuned on asks for no more than forgetting.

    Args:
        teacher: of any α.
        labels: (n,) of D_f.
        target: AUC that the teacher shall not exceed.
    """
    # In every space the log-odds are a straight line in α, so two points give them all.
    start = replace(teacher, alpha=0.0).odds()
    end = replace(teacher, alpha=1.0).odds()

    def exceeds_target(alpha: float) -> bool:
        return auc(labels, start + alpha * (end - start)) > target

    low = 0.0
    high = 1.0
    while high < LARGEST_ALPHA and exceeds_target(high):
        low = high
        high = 2 * high
    # AUC falls as α grows, so the interval can be halved.
    while high - low > ALPHA_TOLERANCE:
        middle = (low + high) / 2
        if exceeds_target(middle):
            low = middle
        else:
            high = middle
    return replace(teacher, alpha=high)
