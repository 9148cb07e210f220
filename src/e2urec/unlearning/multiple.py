"""The multiple of an update at which an AUC is down to a goal."""

import math
from collections.abc import Callable

HALVINGS = 3
"""After them a multiple between 0 and 1 is known to 1/8; a straight line finds it inside."""


def least_multiple(
    auc_at: Callable[[float], float], before: float, goal: float, largest: float
) -> tuple[float, float]:
    """The least multiple ≤ `largest` at which the AUC is down to `goal`, and the AUC there.

    Halving finds the interval, and a straight line between its ends the multiple inside (secant).
    What is not a number lies beyond the goal, so the multiple returned is the last one before.

    Args:
        auc_at: AUC at a multiple.
        before: AUC at 0, above the goal.
        goal: AUC to come down to.
        largest: multiple, > 0.
    """
    low = 0.0
    low_auc = before
    high = min(1.0, largest)
    high_auc = auc_at(high)
    if high_auc > goal and high < largest:
        low = high
        low_auc = high_auc
        high = largest
        high_auc = auc_at(high)
    if high_auc > goal:
        return high, high_auc
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        middle_auc = auc_at(middle)
        if middle_auc > goal:
            low = middle
            low_auc = middle_auc
        else:
            high = middle
            high_auc = middle_auc
    if not math.isfinite(high_auc):
        return low, low_auc
    if high_auc == goal:
        return high, high_auc
    share = (low_auc - goal) / (low_auc - high_auc)
    scale = low + share * (high - low)
    reached = auc_at(scale)
    # The AUC of few rows falls in steps, so that the end may be nearer after all.
    if abs(reached - goal) < abs(high_auc - goal):
        return scale, reached
    return high, high_auc
