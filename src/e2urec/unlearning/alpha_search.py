"""The α at which the forgetting teacher has lost what it shall lose."""

import math
from dataclasses import dataclass, replace

from ..core.arrays import Ints
from ..metrics.classification import auc
from .outcome import unsure_lead
from .task import Task
from .teachers import ForgettingTeacher

# Where the search for α ends, though the target may not be reached. A weak augmented model gains
# little on D_f, so only a large α would reach it; but its update times a large α shifts the odds of
# all users.
LARGEST_ALPHA = 4.0
# Width of the interval at which the search for α stops. Halving from a width of 1 is exact.
ALPHA_TOLERANCE = 1 / 256


def match_target(teacher: ForgettingTeacher, task: Task) -> ForgettingTeacher:
    """The teacher that has lost what the target of the task asks for; limits are noted there."""
    target = task.outcome.target
    assert target is not None
    if math.isnan(target.auc):
        task.outcome.tell(unsure_lead(target))
        task.outcome.tell("So the forgetting teacher takes the gain off once (alpha=1).")
        return replace(teacher, alpha=1.0)
    matched = match_auc(teacher, task.forget.labels, target.auc)
    if not matched.reached:
        task.outcome.tell(
            f"The forgetting teacher came to its limit, alpha={LARGEST_ALPHA:g}, before its AUC on "
            "D_f was down to the target; more augment_passes would help."
        )
    if target.lead <= 0:
        task.outcome.tell(
            "The teacher has nothing to take off: by its target D_f is forgotten already."
        )
    return matched.teacher


@dataclass(frozen=True)
class MatchedTeacher:
    """A forgetting teacher, and whether its AUC on D_f is where it shall be.

    Attributes:
        teacher: with its α.
        reached: whether the target was reached before α came to its limit.
    """

    teacher: ForgettingTeacher
    reached: bool


def match_auc(teacher: ForgettingTeacher, labels: Ints, target: float) -> MatchedTeacher:
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
        # Written so that what is not a number does not pass for reached.
        return not auc(labels, odds) <= target

    low = 0.0
    high = 1.0
    while high < LARGEST_ALPHA and exceeds_target(high):
        low = high
        high = 2 * high
    reached = not exceeds_target(high)
    # AUC falls as α grows, so the interval can be halved.
    while high - low > ALPHA_TOLERANCE:
        middle = (low + high) / 2
        if exceeds_target(middle):
            low = middle
        else:
            high = middle
    return MatchedTeacher(replace(teacher, alpha=high), reached)
