"""Measures of how scores rank rows, from counts; `Bootstrap.ranked` takes them in every resample.

They take how many rows of either label have each distinct score, scores in rising order.
"""

from collections.abc import Callable

import numpy as np

from ..core.arrays import Floats, Ints

RankMeasure = Callable[[Floats, Floats], Floats]
"""(positives, negatives), both counts (resamples, scores) → (resamples,)."""


def area(positives: Floats, negatives: Floats) -> Floats:
    """AUC: `Σ_t pos_t·(Σ_{s<t} neg_s + ½·neg_t) / (Σ pos · Σ neg)`, over scores s, t."""
    # A pair with equal scores counts half.
    negatives_below = np.cumsum(negatives, axis=1) - negatives / 2
    ordered_pairs = positives * negatives_below
    positive_count = positives.sum(1)
    negative_count = negatives.sum(1)
    pairs = positive_count * negative_count
    return np.asarray(ordered_pairs.sum(1) / pairs)


def wins_by_user(y: Ints, d: Floats, user: Ints, user_count: int) -> Floats:
    """How often a liked row of one user scores above a disliked row of another.

    The AUC of rows of users who are drawn c_u times is
    `Σ_uv c_u·c_v·wins_uv / (Σ_u c_u·pos_u · Σ_v c_v·neg_v)`: all sums are of halves, so that it
    has the very bits of `area`.

    Args:
        y: labels (n,).
        d: scores (n,).
        user: (n,) number of each row's user.
        user_count: how many users there are.

    Returns:
        (users, users) pairs of rows, the liked one's user first; equal scores count half.
    """
    scores, score = np.unique(d, return_inverse=True, equal_nan=False)
    liked = y == 1
    cells = user[~liked] * len(scores) + score[~liked]
    cell_counts = np.bincount(cells, minlength=user_count * len(scores))
    others = cell_counts.reshape(user_count, len(scores))
    below = np.cumsum(others, axis=1) - others / 2
    by_user = np.argsort(user[liked], kind="stable")
    liked_users, first_rows = np.unique(user[liked][by_user], return_index=True)
    row_wins = below[:, score[liked][by_user]]
    wins = np.zeros((user_count, user_count))
    wins[liked_users] = np.add.reduceat(row_wins, first_rows, axis=1).T
    return wins


def advantage(positives: Floats, negatives: Floats) -> Floats:
    """Largest (true positive rate − false positive rate) of any threshold (Yeom et al. 2018).

    At least 0, and NaN where there is one class.
    """
    true_positive_rates = _rates(positives)
    false_positive_rates = _rates(negatives)
    largest = (true_positive_rates - false_positive_rates).max(axis=1)
    # The threshold above all scores finds nobody, so it has an advantage of 0.
    return np.asarray(np.maximum(largest, 0))


def tpr_at_fpr(rate: float) -> RankMeasure:
    """The highest true positive rate of thresholds with a false positive rate of at most `rate`."""

    def measure(positives: Floats, negatives: Floats) -> Floats:
        true_positive_rates = _rates(positives)
        false_positive_rates = _rates(negatives)
        allowed_rates = np.where(false_positive_rates <= rate, true_positive_rates, 0.0)
        highest = allowed_rates.max(axis=1)
        # Without negatives no rate is below any other, and `where` above has hidden the NaN.
        no_negatives = np.isnan(false_positive_rates[:, 0])
        return np.where(no_negatives, np.nan, highest)

    return measure


def _rates(counts: Floats) -> Floats:
    """Share of rows whose score is at least each distinct score: (resamples, scores)."""
    from_highest = counts[:, ::-1]
    from_highest = np.cumsum(from_highest, axis=1)
    counts_above = from_highest[:, ::-1]
    totals = counts_above[:, :1]
    return np.asarray(counts_above / totals)
