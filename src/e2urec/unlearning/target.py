"""How much to forget: the AUC on D_f at which a model knows no more of it than of strangers' rows.

Rows that a model was tuned on are easier for it than other rows. By how much, in AUC, is the
*lead*, and the target is the original's AUC on D_f less the lead. There are two ways to measure it:

- by out-of-fold scores: `lead = [AUC_F(o) − AUC_F(out)] − [AUC_cal(o) − AUC_cal(out)]`. The same
  half models answer D_f and the calibration users' rows, so how hard rows are cancels row by row,
  and so does what half models know less than the original;
- by the calibration users alone: `lead = [AUC_Dr(o) − AUC_cal(o)] − b·[AUC_Dr(c) − AUC_cal(c)]`,
  o the original, and c the control model, which remembers nobody (`data.difficulty`).

What cannot be measured is told in a sentence (`Target.obstacle`), and never taken for 0.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ..core.arrays import Floats, Ints, Mask
from ..core.seeding import stream
from ..data.difficulty import COEFFICIENT
from ..metrics.classification import auc
from .lead import Lead, LeadSample, first_sentence, measure_lead
from .outcome import Basis, Target
from .task import Task
from .teachers import AnsweredRows

# Least rows of D_r, and of the calibration users, from which the lead is measured: a small request
# alone would ask for fewer. With scores, how hard rows are cancels row by row.
LEAST_ROWS: Mapping[Basis, int] = {"scores": 500, "calibration": 1000}

MORE_USERS = "a request of more users can be measured"
MORE_CALIBRATION = "train with a larger data.calibration, or import more users with --held"
MORE_RETAINED = "a request of fewer rows leaves more of it"
LARGER_SAMPLE = "a larger calibration_ratio reads more of it"
# Where calibration rows are there and none has a score.
NO_SCORES = (
    "No calibration row has an out-of-fold score, so what tuning is worth cannot be measured; make "
    "all scores anew with e2urec prepare."
)


def sampled_rows(basis: Basis, forget_count: int, ratio: float) -> int:
    """Rows of D_r, and of the calibration users, that the lead is measured on.

    Args:
        basis: what it is measured by.
        forget_count: rows of D_f.
        ratio: rows for each row of D_f.
    """
    rows = math.ceil(ratio * forget_count)
    return max(LEAST_ROWS[basis], rows)


def target_by_scores(task: Task, forget_odds: Floats, ratio: float) -> Target:
    """The target by out-of-fold scores.

    Calibration rows without a score are left out.

    Args:
        task: with scores of D_f and of the calibration rows.
        forget_odds: log-odds of the original on D_f, (n,).
        ratio: calibration rows, where there are so many, for each row of D_f.
    """
    assert task.scores is not None
    scores = task.scores.calibration.mean
    is_scored = task.scores.calibration.present
    count = sampled_rows("scores", len(task.forget), ratio)
    rows = _calibration_rows(task, count, is_scored)
    forget = _forget_sample(task, forget_odds, task.scores.forget.mean)
    calibration = _calibration_sample(task, rows, scores[rows], count)
    lead = measure_lead(forget, calibration, 1.0, task.seed)
    if len(scores) and not is_scored.any():
        lead = replace(lead, obstacle=first_sentence([forget.obstacle(), NO_SCORES]))
    drift = float(np.mean(calibration.other - calibration.odds)) if len(rows) else 0.0
    return replace(_target(forget, lead, "scores"), drift=drift)


def target_by_calibration(
    task: Task, forget_odds: Floats, answered: AnsweredRows, ratio: float
) -> Target:
    """The target by what tuning is worth to the original, on D_r against the calibration users.

    Args:
        task: with the original, D_r and the calibration rows.
        forget_odds: log-odds of the original on D_f, (n,).
        answered: rows of D_r that the original answered, which it is not asked again.
        ratio: rows of D_r and of the calibration users, where there are so many, for each of D_f.
    """
    count = sampled_rows("calibration", len(task.forget), ratio)
    retain_rows, retain_odds = _retain_odds(task, answered, count)
    calibration_rows = _calibration_rows(task, count)
    control = task.difficulty
    # Without a control model the groups are taken to be equally hard: both have an AUC of 0.5.
    retain_control: Floats = np.zeros(len(retain_rows))
    calibration_control: Floats = np.zeros(len(calibration_rows))
    if control is not None:
        retain_control = control.retain[retain_rows]
        calibration_control = control.outsiders["calibration"][calibration_rows]
    is_part = len(retain_rows) < len(task.retain) - len(task.rewritten)
    retain = LeadSample(
        name="D_r",
        rows=task.retain.take(retain_rows),
        odds=retain_odds,
        other=retain_control,
        remedy=LARGER_SAMPLE if is_part else MORE_RETAINED,
    )
    calibration = _calibration_sample(task, calibration_rows, calibration_control, count)
    lead = measure_lead(retain, calibration, COEFFICIENT, task.seed)
    margin = retain.margin_of(lead.value)
    # D_f has no part in this lead, but it must have an AUC that can fall.
    forget = _forget_sample(task, forget_odds, forget_odds)
    return replace(_target(forget, lead, "calibration"), margin=margin)


def _target(forget: LeadSample, lead: Lead, basis: Basis) -> Target:
    before = auc(forget.rows.labels, forget.odds)
    obstacle = first_sentence([forget.obstacle(), lead.obstacle])
    # Where D_f has no AUC there is none to lower, whatever the lead is.
    value = math.nan if forget.obstacle() else lead.value
    return Target(before, value, lead.error, basis, obstacle, lead.remedy)


def _forget_sample(task: Task, odds: Floats, other: Floats) -> LeadSample:
    """D_f."""
    return LeadSample("D_f", task.forget, odds, other, MORE_USERS)


def _calibration_sample(task: Task, rows: Ints, other: Floats, count: int) -> LeadSample:
    """Calibration rows, which the original answers here; `count` were asked for."""
    is_part = len(rows) == count
    return LeadSample(
        name="calibration",
        rows=task.calibration.take(rows),
        odds=_original_odds(task, "calibration", rows),
        other=other,
        remedy=LARGER_SAMPLE if is_part else MORE_CALIBRATION,
    )


def _calibration_rows(task: Task, count: int, usable: Mask | None = None) -> Ints:
    """`count` calibration rows to measure the lead on, of those marked `usable` (n,), or of all."""
    random = stream(task.seed, "outside")
    # Rows stand in the order of their users, so the first ones would be a few users alone.
    rows: Ints = random.permutation(len(task.calibration))
    if usable is not None:
        rows = rows[usable[rows]]
    rows = _answered_first(task, "calibration", rows)
    return rows[:count]


def _retain_odds(task: Task, answered: AnsweredRows, count: int) -> tuple[Ints, Floats]:
    """`count` rows of D_r, first of all those answered, and the original's log-odds."""
    all_rows = np.arange(len(task.retain))
    # The original was never tuned on the new prompt of a rewritten row.
    tuned_rows = np.setdiff1d(all_rows, task.rewritten)
    is_tuned = np.isin(answered.rows, tuned_rows)
    rows = answered.rows[is_tuned]
    odds = answered.odds[is_tuned]
    missing_count = min(count, len(tuned_rows)) - len(rows)
    # The rows of the joint phase are answered already; a short phase leaves too few.
    if missing_count > 0:
        unanswered_rows = np.setdiff1d(tuned_rows, rows)
        random = stream(task.seed, "alpha")
        further_rows = _answered_first(task, "retain", random.permutation(unanswered_rows))
        further_rows = further_rows[:missing_count]
        further_odds = _original_odds(task, "retain", further_rows)
        rows = np.concatenate([rows, further_rows])
        odds = np.concatenate([odds, further_odds])
    return rows, odds


def _answered_first(task: Task, part: str, rows: Ints) -> Ints:
    """`rows` in their order, those of which the original's answers are at hand before all others.

    These were drawn at random as well, so they are no worse a sample. A prompt that is written anew
    has none: of such calibration rows fewer are read, as none is of D_r.
    """
    is_answered = task.has_odds(part)[rows]
    ordered_rows: Ints = np.concatenate([rows[is_answered], rows[~is_answered]])
    return ordered_rows


def _original_odds(task: Task, part: str, rows: Ints) -> Floats:
    """Log-odds of the original on `rows` of `part`, (m,)."""
    unanswered_count = int((~task.has_odds(part)[rows]).sum())
    if unanswered_count:
        task.costs.count_rows("teachers", unanswered_count)
    return task.odds_of_original(part, rows)
