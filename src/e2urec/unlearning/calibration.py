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

# Least rows of D_r, and of the calibration users, from which the lead is measured. From 500 rows of
# each the lead has a standard error of about 0.03; a small request alone would ask for fewer.
MIN_SAMPLED_ROWS = 500
# Where the search for α ends, though the target may not be reached. A weak augmented model gains
# little on D_f, so only a large α would reach it; but its update times a large α shifts the odds of
# all users.
LARGEST_ALPHA = 4.0
# Width of the interval at which the search for α stops. Halving from a width of 1 is exact.
ALPHA_TOLERANCE = 1 / 256


def sampled_rows(forget_count: int, ratio: float) -> int:
    """Rows of D_r, and of the calibration users, that the lead is measured on.

    Args:
        forget_count: rows of D_f.
        ratio: rows for each row of D_f.
    """
    rows = math.ceil(ratio * forget_count)
    return max(MIN_SAMPLED_ROWS, rows)


def training_lead(task: Task, remembering: FrozenTeacher, count: int) -> float:
    """By how much the original's AUC on rows it was tuned on exceeds that on other users' rows.

    Args:
        task: with the original, D_r and the calibration rows.
        remembering: the original's answers to some rows of D_r, which are not computed again.
        count: rows of D_r, and of the calibration users, where there are so many.

    Returns:
        A difference of two AUCs; negative where the calibration users are the easier ones.
    """
    random = stream(task.seed, "outside")
    # Rows stand in the order of their users, so the first ones would be a few users alone.
    order = random.permutation(len(task.calibration))
    calibration = task.calibration.take(order[:count])
    untuned_odds = _original_odds(task, calibration)
    untuned_auc = auc(calibration.labels, untuned_odds)
    tuned_auc = _retain_auc(task, remembering, count)
    return tuned_auc - untuned_auc


def _retain_auc(task: Task, remembering: FrozenTeacher, count: int) -> float:
    """AUC of the original on `count` rows of D_r, first of all those of `remembering`."""
    retain = task.retain
    rows = remembering.rows.cpu().numpy()
    odds = remembering.odds(task.original.verbaliser)
    missing_count = min(count, len(retain)) - len(rows)
    # The rows of the joint phase are answered already; a short phase leaves too few.
    if missing_count > 0:
        all_rows = np.arange(len(retain))
        unanswered_rows = np.setdiff1d(all_rows, rows)
        random = stream(task.seed, "alpha")
        order = random.permutation(unanswered_rows)
        further_rows = order[:missing_count]
        further_odds = _original_odds(task, retain.take(further_rows))
        rows = np.concatenate([rows, further_rows])
        odds = np.concatenate([odds, further_odds])
    labels = retain.labels[rows]
    return auc(labels, odds)


def _original_odds(task: Task, rows: Examples) -> Floats:
    """Log-odds of the original on `rows`, (n,)."""
    task.costs.count_rows("teachers", len(rows))
    answers = predict(task.original, rows, precision=task.precision)
    return answers.log_odds


def calibrate(
    teacher: ForgettingTeacher, task: Task, remembering: FrozenTeacher, ratio: float
) -> ForgettingTeacher:
    """The teacher with the least α at which its AUC on D_f is the original's less the lead.

    How hard a group of users is shifts its AUC. A difference of differences leaves that out.

    Args:
        teacher: of any α.
        task: with the original, all rows, and the seed.
        remembering: the original's answers to some rows of D_r.
        ratio: rows that the lead is measured on, for each row of D_f.
    """
    labels = task.forget.labels
    count = sampled_rows(len(labels), ratio)
    lead = training_lead(task, remembering, count)
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
        odds = start + alpha * (end - start)
        return auc(labels, odds) > target

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
