"""Measures of scored answers: how well they rank, how much they lose, how calibrated they are.

`y` are labels (n,) of 0 and 1, and `d` are log-odds (n,) of Yes against No. A figure that no rows
define is NaN. `bootstrap` makes figures of these and says how sure they are.
"""

import numpy as np
from scipy import optimize, special, stats

from ..core.arrays import Floats, Ints

# Bounds of log T: T from 0.007 to 148. Only labels that the scores separate, or contradict, end
# there.
LOG_TEMPERATURES = (-5, 5)


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
    # The rank sum of liked rows that all rank lowest.
    lowest_sum = positives * (positives + 1) / 2
    ordered_pairs = rank_sum - lowest_sum
    return float(ordered_pairs / (positives * negatives))


def row_losses(y: Ints, d: Floats) -> Floats:
    """−log P(y) of each row, (n,) in nats.

    log(1 + exp(−d)) for a liked row, log(1 + exp(d)) for any other.
    """
    exponents = np.where(y == 1, -d, d)
    exponents = exponents.astype(np.float64)
    # logaddexp does not overflow, so that any log-odds have a finite loss.
    return np.logaddexp(0.0, exponents)


def log_loss(y: Ints, d: Floats) -> float:
    """Mean −log P(y) in nats, stable for any log-odds."""
    if not len(y):
        return float("nan")
    losses = row_losses(y, d)
    return float(losses.mean())


def calibration_gaps(y: Ints, d: Floats, bins: int = 15) -> tuple[Ints, Floats]:
    """The terms of the expected calibration error (Guo et al. 2017, eq. 3), here of Yes.

    Returns:
        The bin of each row's P (n,), of `bins` bins of equal width, and its P − y (n,).
    """
    log_odds = d.astype(np.float64)
    probabilities = special.expit(log_odds)
    gaps = probabilities - y
    row_bins = (probabilities * bins).astype(int)
    # P = 1 belongs to the last bin, not to one of its own.
    row_bins = np.minimum(row_bins, bins - 1)
    return row_bins, gaps


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
    liked = y[order]
    liked = liked.astype(np.float64)
    row_counts = np.bincount(user)
    positives = np.bincount(user, weights=liked)
    negatives = row_counts - positives
    ranks = _mid_ranks(d[order], user, row_counts)
    rank_sums = np.bincount(user, weights=ranks * liked)
    lowest_sums = positives * (positives + 1) / 2
    ordered_pairs = rank_sums - lowest_sums
    pairs = positives * negatives
    with np.errstate(invalid="ignore"):
        return np.asarray(ordered_pairs / pairs)


def _mid_ranks(d: Floats, user: Ints, row_counts: Ints) -> Floats:
    """Rank of each row within its user, from 1; equal scores share the mean of their ranks.

    Rows are sorted by user, then by score.
    """
    score_changes = np.diff(d, prepend=np.nan)
    user_changes = np.diff(user, prepend=-1)
    is_new = (score_changes != 0) | (user_changes != 0)
    # Number of each row's tie: rows of one user with one score.
    tie = np.cumsum(is_new) - 1
    first_rows = np.cumsum(row_counts) - row_counts
    rows = np.arange(len(d))
    ranks = rows - first_rows[user]
    rank_sums = np.bincount(tie, weights=ranks)
    tie_sizes = np.bincount(tie)
    tie_ranks = rank_sums / tie_sizes + 1
    return np.asarray(tie_ranks[tie])


def temperature(y: Ints, d: Floats) -> float:
    """The T that minimises the log loss of d / T (Guo et al. 2017, section 4.2), in [e⁻⁵, e⁵].

    The loss is convex in 1/T, so there is one minimum. Labels that the scores separate end at the
    lower bound, and labels that go against the scores at the upper one.
    """

    def loss(log_temperature: float) -> float:
        scaled_log_odds = d / np.exp(log_temperature)
        return log_loss(y, scaled_log_odds)

    # In log T, where a T too low and one too high are equally far away.
    minimum = optimize.minimize_scalar(loss, bounds=LOG_TEMPERATURES, method="bounded")
    return float(np.exp(minimum.x))
