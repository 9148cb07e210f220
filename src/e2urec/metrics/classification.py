"""Measures of utility and distance: NumPy in, numbers out; `intervals` says how sure they are.

`y` are labels (n,) of 0 and 1, `d` log-odds (n,) of Yes against No, `users` (n,) integer codes; D_f is the forget
set. A figure that no rows define is NaN.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

from ..core.arrays import Floats, Ints

# --- utility ------------------------------------------------------------------------------------------------


def auc(y: Ints, d: Floats) -> float:
    """Area under the ROC curve: P(d⁺ > d⁻) + ½·P(d⁺ = d⁻); NaN unless both classes are there.

    From mid-ranks (Mann and Whitney 1947): `(Σ ranks of liked rows − n⁺(n⁺ + 1)/2) / (n⁺·n⁻)`.
    """
    positive = int(np.sum(y))
    if positive in (0, len(y)):
        return float("nan")
    ranks = stats.rankdata(d)
    return float(
        (ranks[y == 1].sum() - positive * (positive + 1) / 2) / (positive * (len(y) - positive))
    )


def row_losses(y: Ints, d: Floats) -> Floats:
    """−log P(y) a row, (n,) in nats: log(1 + exp(−d)) for a liked row, log(1 + exp(d)) otherwise."""
    return np.logaddexp(0.0, np.where(y == 1, -d, d).astype(np.float64))


def log_loss(y: Ints, d: Floats) -> float:
    """Mean −log P(y) in nats, stable for any log-odds."""
    return _mean(row_losses(y, d))


def accuracy(y: Ints, d: Floats) -> float:
    """Share of rows whose answer at P = 0.5 is right; P = 0.5 itself answers No."""
    return _mean((d > 0) == (y == 1))


def _mean(values: npt.NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def expected_calibration_error(y: Ints, d: Floats, bins: int = 15) -> float:
    """Σ_bins (n_bin / n)·|mean P − mean y| over equal-width bins of P, here of Yes (Guo et al. 2017, eq. 3)."""
    bin_, gap = calibration_gaps(y, d, bins)
    return (
        float(np.abs(np.bincount(bin_, weights=gap, minlength=bins)).sum() / len(y))
        if len(y)
        else float("nan")
    )


def calibration_gaps(y: Ints, d: Floats, bins: int = 15) -> tuple[Ints, Floats]:
    """Each row's bin of P (n,) and its P − y (n,): the terms of the expected calibration error."""
    p = special.expit(d.astype(np.float64))
    return np.minimum((p * bins).astype(int), bins - 1), p - y


def gauc(y: Ints, d: Floats, users: Ints) -> float:
    """Mean AUC within users who have both classes, each user counted once; NaN if there is none."""
    each = auc_by_user(y, d, np.unique(users, return_inverse=True)[1])
    return _mean(each[np.isfinite(each)])


def auc_by_user(y: Ints, d: Floats, user: Ints) -> Floats:
    """AUC within each user, (users,); NaN for one without both classes. `user` (n,) counts from 0 without gaps."""
    order = np.lexsort((d, user))
    user, y, d = user[order], y[order].astype(np.float64), d[order]
    sizes, positives = np.bincount(user), np.bincount(user, weights=y)
    new = (np.diff(d, prepend=np.nan) != 0) | (np.diff(user, prepend=-1) != 0)
    group = np.cumsum(new) - 1
    rank = np.arange(len(d)) - (np.cumsum(sizes) - sizes)[user]
    mean_rank = np.bincount(group, weights=rank) / np.bincount(group) + 1
    ranks = np.bincount(user, weights=mean_rank[group] * y, minlength=len(sizes))
    with np.errstate(invalid="ignore"):
        return (ranks - positives * (positives + 1) / 2) / (positives * (sizes - positives))


def utility(y: Ints, d: Floats, users: Ints) -> dict[str, float]:
    """All utility figures: auc, gauc, accuracy, log_loss, ece."""
    return {
        "auc": auc(y, d),
        "gauc": gauc(y, d, users),
        "accuracy": accuracy(y, d),
        "log_loss": log_loss(y, d),
        "ece": expected_calibration_error(y, d),
    }


def temperature(y: Ints, d: Floats) -> float:
    """The T that minimises the log loss of d / T (Guo et al. 2017, section 4.2), sought in [e⁻⁵, e⁵].

    The loss is convex in 1/T, so the minimum is the only one; separable labels end at the lower bound, labels that
    go against the scores at the upper one.
    """
    found = optimize.minimize_scalar(
        lambda log_t: log_loss(y, d / np.exp(log_t)), bounds=(-5, 5), method="bounded"
    )
    return float(np.exp(found.x))
