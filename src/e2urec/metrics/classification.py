"""Measures of scored answers: how well they rank, how much they lose, how calibrated they are.

`y` are labels (n,) of 0 and 1, and `d` are log-odds (n,) of Yes against No. A figure that no rows
define is NaN. `bootstrap` makes figures of these and says how sure they are.
"""

import numpy as np
from scipy import optimize, special, stats

from ..core.arrays import Floats, Ints

LOG_TEMPERATURES = (-5, 5)
"""Bounds of log T: T from 0.007 to 148. Only labels that the scores separate, or contradict, end
there."""


def auc(y: Ints, d: Floats) -> float:
    """Area under the ROC curve: P(d⁺ > d⁻) + ½·P(d⁺ = d⁻); NaN unless both classes occur.

    From mid-ranks (Mann and Whitney 1947): `(Σ ranks of liked rows − n⁺(n⁺ + 1)/2) / (n⁺·n⁻)`.
    """
    positives = int(np.sum(y))
    negatives = len(y) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    ranks = stats.rankdata(d)
    rank_sum = ranks[y == 1].sum()
    lowest_sum = positives * (positives + 1) / 2
    return float((rank_sum - lowest_sum) / (positives * negatives))


def row_losses(y: Ints, d: Floats) -> Floats:
    """−log P(y) of each row, (n,) in nats.

    log(1 + exp(−d)) for a liked row, log(1 + exp(d)) for any other.
    """
    exponents = np.where(y == 1, -d, d).astype(np.float64)
    # logaddexp does not overflow, so that any log-odds have a finite loss.
    return np.logaddexp(0.0, exponents)


def log_loss(y: Ints, d: Floats) -> float:
    """Mean −log P(y) in nats, stable for any log-odds."""
    if not len(y):
        return float("nan")
    return float(row_losses(y, d).mean())


def calibration_gaps(y: Ints, d: Floats, bins: int = 15) -> tuple[Ints, Floats]:
    """The terms of the expected calibration error (Guo et al. 2017, eq. 3), here of Yes.

    Returns:
        The bin of each row's P (n,), of `bins` bins of equal width, and its P − y (n,).
    """
    probabilities = special.expit(d.astype(np.float64))
    row_bins = (probabilities * bins).astype(int)
    # P = 1 belongs to the last bin, not to one of its own.
    return np.minimum(row_bins, bins - 1), probabilities - y


def auc_by_user(y: Ints, d: Floats, user: Ints) -> Floats:
    """AUC within each user, (users,); NaN for a user without both classes.

    All users are ranked by one sort, since there may be a hundred thousand of them.

    Args:
        y: labels (n,).
        d: log-odds (n,).
        user: code of each row's user (n,), from 0 without gaps.
    """
    order = np.lexsort((d, user))
    user = user[order]
    liked = y[order].astype(np.float64)
    row_counts = np.bincount(user)
    positives = np.bincount(user, weights=liked)
    negatives = row_counts - positives
    liked_ranks = _mid_ranks(d[order], user, row_counts) * liked
    rank_sums = np.bincount(user, weights=liked_ranks, minlength=len(row_counts))
    lowest_sums = positives * (positives + 1) / 2
    with np.errstate(invalid="ignore"):
        return (rank_sums - lowest_sums) / (positives * negatives)


def _mid_ranks(d: Floats, user: Ints, row_counts: Ints) -> Floats:
    """Rank of each row within its user, from 1; equal scores share the mean of their ranks.

    Rows are sorted by user, then by score.
    """
    score_changes = np.diff(d, prepend=np.nan) != 0
    user_changes = np.diff(user, prepend=-1) != 0
    ties = np.cumsum(score_changes | user_changes) - 1
    first_rows = np.cumsum(row_counts) - row_counts
    ranks = np.arange(len(d)) - first_rows[user]
    tie_ranks = np.bincount(ties, weights=ranks) / np.bincount(ties) + 1
    return np.asarray(tie_ranks[ties])


def temperature(y: Ints, d: Floats) -> float:
    """The T that minimises the log loss of d / T (Guo et al. 2017, section 4.2), in [e⁻⁵, e⁵].

    The loss is convex in 1/T, so there is one minimum. Labels that the scores separate end at the
    lower bound, and labels that go against the scores at the upper one.
    """

    def loss(log_temperature: float) -> float:
        return log_loss(y, d / np.exp(log_temperature))

    minimum = optimize.minimize_scalar(loss, bounds=LOG_TEMPERATURES, method="bounded")
    return float(np.exp(minimum.x))
