"""Forgetting quality: the (ε, δ) by which models that forgot differ from retrained ones, by row."""

import math

import numpy as np

from ..core.arrays import Floats
from .ulira import AttackScores

# As the organisers' code has them, so that figures can be laid beside others.
DELTA = 1e-5
LARGEST_EPSILON = 50.0
"""ε where the attack tells all models apart: so many models bound it by nothing."""
BIN_WIDTH = 0.5


def epsilons(scores: AttackScores, delta: float = DELTA) -> Floats:
    """The ε that an attack shows of each row (Triantafillou et al. 2024, arXiv 2406.09073).

    A method that unlearns to (ε, δ) leaves every attack with `FPR + e^ε·FNR ≥ 1 − δ` and
    `FNR + e^ε·FPR ≥ 1 − δ`. So an attack with these rates shows

        ε ≥ max(ln(1 − δ − FPR) − ln FNR, ln(1 − δ − FNR) − ln FPR, 0)

    and a row has the largest over all thresholds of the scores. As in the organisers' code, a
    threshold where one rate is 0 and the other is not is left out: there are too few models to say
    how small that rate is. Where a threshold has both at 0, ε is `LARGEST_EPSILON`.

    It is an estimate from below of a true ε, but the largest of many noisy ones: of N models of the
    same distribution it is above 0, and of no models above ln(N − 1) but for the case above. Hold
    it against that of further retrained models. The attack is U-LiRA's and leaves the model out
    that it is put to; that code takes thresholds of the margins themselves.

    Args:
        scores: of the attack.
        delta: δ.

    Returns:
        (n,) ε of each row.
    """
    row_count = scores.unlearned.shape[1]
    bounds = np.empty(row_count)
    for row in range(row_count):
        bounds[row] = _epsilon(scores.unlearned[:, row], scores.retrained[:, row], delta)
    return bounds


def row_quality(bounds: Floats, model_count: int) -> Floats:
    """The points of each row, H (the same paper): 1 for ε below 0.5, and half for each 0.5 more.

    `H = 2 / 2^b`, b the row's bin, counted from 1. Beyond the last bin that N models can tell from
    others, which ends at ⌈ln(N − 1)⌉, a row has none. Forgetting quality F is the mean over rows.

    Args:
        bounds: (n,) ε of each row.
        model_count: N, models of each kind.
    """
    bin_numbers = np.floor(bounds / BIN_WIDTH)
    points = 0.5**bin_numbers
    last_end = math.ceil(math.log(model_count - 1))
    return np.where(bounds < last_end, points, 0.0)


def _epsilon(unlearned: Floats, retrained: Floats, delta: float) -> float:
    """The largest ε of all thresholds, of one row: scores (N,) and (M,)."""
    thresholds = np.unique(np.concatenate([unlearned, retrained]))
    # Scores at the threshold and above count as "it forgot".
    missed = np.searchsorted(np.sort(unlearned), thresholds)
    passed = np.searchsorted(np.sort(retrained), thresholds)
    fnr = missed / len(unlearned)
    fpr = 1 - passed / len(retrained)
    if np.any((fnr == 0) & (fpr == 0)):
        return LARGEST_EPSILON
    is_measurable = (fnr > 0) & (fpr > 0)
    fnr = fnr[is_measurable]
    fpr = fpr[is_measurable]
    bounds = np.concatenate([_bounds(fpr, fnr, delta), _bounds(fnr, fpr, delta)])
    return float(bounds.max(initial=0.0))


def _bounds(first: Floats, second: Floats, delta: float) -> Floats:
    """`ln(1 − δ − first) − ln(second)` where it is defined."""
    rest = 1 - delta - first
    is_defined = rest > 0
    return np.asarray(np.log(rest[is_defined]) - np.log(second[is_defined]))
