"""How much to forget: the AUC on D_f at which a model knows no more of it than of strangers' rows.

Rows that a model was tuned on are easier for it than other rows. By how much, in AUC, is the
*lead*, and the target is the original's AUC on D_f less the lead. There are two ways to measure it:

- by out-of-fold scores: `lead = [AUC_F(o) − AUC_F(out)] − [AUC_cal(o) − AUC_cal(out)]`. The same
  half models answer D_f and the calibration users' rows, so how hard rows are cancels row by row,
  and so does what half models know less than the original;
- by the calibration users alone: `lead = [AUC_Dr(o) − AUC_cal(o)] − b·[AUC_Dr(c) − AUC_cal(c)]`,
  o the original, and c the control model, which remembers nobody (`data.difficulty`).
"""

import math

import numpy as np

from ..core.arrays import Floats, Ints
from ..core.seeding import derive, stream
from ..data.difficulty import COEFFICIENT
from ..metrics.bootstrap import Figure, user_bootstrap
from ..metrics.classification import auc
from ..models.batches import Examples
from ..models.predictions import predict
from .outcome import Basis, Target
from .task import Task
from .teachers import FrozenTeacher

# Least rows of D_r, and of the calibration users, from which the lead is measured. From 500 rows of
# each the lead has a standard error of about 0.03; a small request alone would ask for fewer.
MIN_SAMPLED_ROWS = 500
RESAMPLES = 200
"""Of users, behind a standard error: it is then known to 5%."""


def sampled_rows(forget_count: int, ratio: float) -> int:
    """Rows of D_r, and of the calibration users, that the lead is measured on.

    Args:
        forget_count: rows of D_f.
        ratio: rows for each row of D_f.
    """
    rows = math.ceil(ratio * forget_count)
    return max(MIN_SAMPLED_ROWS, rows)


def target_by_scores(task: Task, forget_odds: Floats) -> Target:
    """The target by out-of-fold scores.

    Args:
        task: with scores of D_f and of the calibration rows.
        forget_odds: log-odds of the original on D_f, (n,).
    """
    assert task.scores is not None
    forget = _auc_difference(task, "target: D_f", task.forget, forget_odds, task.scores.forget.mean)
    calibration = _auc_difference(
        task,
        "target: calibration",
        task.calibration,
        _original_odds(task, task.calibration),
        task.scores.calibration.mean,
    )
    return _target(task, forget_odds, forget - calibration, "scores")


def target_by_calibration(
    task: Task, forget_odds: Floats, remembering: FrozenTeacher, ratio: float
) -> Target:
    """The target by what tuning is worth to the original, on D_r against the calibration users.

    Args:
        task: with the original, D_r and the calibration rows.
        forget_odds: log-odds of the original on D_f, (n,).
        remembering: the original's answers to some rows of D_r, which are not computed again.
        ratio: rows of D_r and of the calibration users, where there are so many, for each of D_f.
    """
    count = sampled_rows(len(task.forget), ratio)
    retain_rows, retain_odds = _retain_odds(task, remembering, count)
    random = stream(task.seed, "outside")
    # Rows stand in the order of their users, so the first ones would be a few users alone.
    calibration_rows = random.permutation(len(task.calibration))[:count]
    calibration = task.calibration.take(calibration_rows)
    calibration_odds = _original_odds(task, calibration)
    retain = task.retain.take(retain_rows)
    control = task.difficulty
    # Without a control model the groups are taken to be equally hard: both have an AUC of 0.5.
    retain_control: Floats = np.zeros(len(retain))
    calibration_control: Floats = np.zeros(len(calibration))
    if control is not None:
        retain_control = control.retain[retain_rows]
        calibration_control = control.outsiders["calibration"][calibration_rows]
    tuned = _auc_difference(
        task, "target: D_r", retain, retain_odds, retain_control, weight=COEFFICIENT
    )
    untuned = _auc_difference(
        task,
        "target: calibration",
        calibration,
        calibration_odds,
        calibration_control,
        weight=COEFFICIENT,
    )
    return _target(task, forget_odds, tuned - untuned, "calibration")


def _target(task: Task, forget_odds: Floats, lead: Figure, basis: Basis) -> Target:
    before = auc(task.forget.labels, forget_odds)
    # A resample may hold one class alone, which has no AUC.
    resamples = lead[1:][np.isfinite(lead[1:])]
    error = float(np.std(resamples, ddof=1)) if len(resamples) > 1 else math.nan
    # Where D_f has one class there is no AUC to lower, whatever the lead is.
    is_defined = math.isfinite(before)
    return Target(before, float(lead[0]) if is_defined else math.nan, error, basis)


def _auc_difference(
    task: Task, name: str, rows: Examples, odds: Floats, other: Floats, weight: float = 1.0
) -> Figure:
    """AUC of `odds` less `weight` times that of `other` on the same rows; NaN without rows."""
    if not len(rows):
        return np.full(1 + RESAMPLES, math.nan)
    seed = derive(task.seed, name)
    bootstrap = user_bootstrap(rows.users, resamples=RESAMPLES, seed=seed)
    return bootstrap.auc(rows.labels, odds) - weight * bootstrap.auc(rows.labels, other)


def _retain_odds(task: Task, remembering: FrozenTeacher, count: int) -> tuple[Ints, Floats]:
    """`count` rows of D_r, first of all those of `remembering`, and the original's log-odds."""
    all_rows = np.arange(len(task.retain))
    # The original was never tuned on the new prompt of a rewritten row.
    tuned_rows = np.setdiff1d(all_rows, task.rewritten)
    taught_rows = remembering.rows.cpu().numpy()
    is_tuned = np.isin(taught_rows, tuned_rows)
    rows = taught_rows[is_tuned]
    odds = remembering.odds(task.original.verbaliser)[is_tuned]
    missing_count = min(count, len(tuned_rows)) - len(rows)
    # The rows of the joint phase are answered already; a short phase leaves too few.
    if missing_count > 0:
        unanswered_rows = np.setdiff1d(tuned_rows, rows)
        random = stream(task.seed, "alpha")
        further_rows = random.permutation(unanswered_rows)[:missing_count]
        further_odds = _original_odds(task, task.retain.take(further_rows))
        rows = np.concatenate([rows, further_rows])
        odds = np.concatenate([odds, further_odds])
    return rows, odds


def _original_odds(task: Task, rows: Examples) -> Floats:
    """Log-odds of the original on `rows`, (n,)."""
    if not len(rows):
        return np.zeros(0)
    task.costs.count_rows("teachers", len(rows))
    answers = predict(task.original, rows, precision=task.precision)
    return answers.log_odds
