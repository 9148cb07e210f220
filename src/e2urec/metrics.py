"""Measures of utility and distance: NumPy in, numbers out; `intervals` says how sure they are.

`y` are labels (n,) of 0 and 1, `d` log-odds (n,) of Yes against No, `users` (n,) integer codes; D_f is the forget
set. A figure that no rows define is NaN.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
Head = tuple[Floats, Floats | None]


# --- utility ------------------------------------------------------------------------------------------------


def auc(y: Ints, d: Floats) -> float:
    """Area under the ROC curve: P(d⁺ > d⁻) + ½·P(d⁺ = d⁻); NaN unless both classes are there.

    From mid-ranks (Mann and Whitney 1947): `(Σ ranks of liked rows − n⁺(n⁺ + 1)/2) / (n⁺·n⁻)`.
    """
    positive = int(np.sum(y))
    if positive in (0, len(y)):
        return float("nan")
    ranks = stats.rankdata(d)
    return float((ranks[y == 1].sum() - positive * (positive + 1) / 2) / (positive * (len(y) - positive)))


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
    return float(np.abs(np.bincount(bin_, weights=gap, minlength=bins)).sum() / len(y)) if len(y) else float("nan")


def calibration_gaps(y: Ints, d: Floats, bins: int = 15) -> tuple[Ints, Floats]:
    """Each row's bin of P (n,) and its P − y (n,): the terms of the expected calibration error."""
    p = special.expit(d.astype(np.float64))
    return np.minimum((p * bins).astype(int), bins - 1), p - y


def user_auc(y: Ints, d: Floats, users: Ints) -> float:
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
    """All utility figures: auc, user_auc, accuracy, log_loss, ece."""
    return {
        "auc": auc(y, d),
        "user_auc": user_auc(y, d, users),
        "accuracy": accuracy(y, d),
        "log_loss": log_loss(y, d),
        "ece": expected_calibration_error(y, d),
    }


# --- distances ----------------------------------------------------------------------------------------------


def jensen_shannon(p: Floats, q: Floats) -> Floats:
    """`½·KL(p ‖ m) + ½·KL(q ‖ m)`, m = (p + q)/2: (n, V), (n, V) → (n,) in nats, at most ln 2 (Lin 1991)."""
    return _jensen_shannon(p, q, _log(p), _log(q))


def jeffreys(p: Floats, q: Floats) -> Floats:
    """`(KL(p ‖ q) + KL(q ‖ p)) / 2`, which E2URec's code calls JSD: (n, V), (n, V) → (n,) in nats, unbounded.

    A probability of 0 counts as the least positive number of its type, so that the distance stays finite.
    """
    return _jeffreys(p, q, _log(p), _log(q))


def l2(p: Floats, q: Floats) -> Floats:
    """`‖p − q‖₂` a row: (n, V), (n, V) → (n,), at most √2."""
    return _reduce(np.square(p - q)) ** 0.5


def _log(p: Floats) -> Floats:
    return np.log(np.maximum(p, np.finfo(p.dtype).tiny))


def _jensen_shannon(p: Floats, q: Floats, log_p: Floats, log_q: Floats) -> Floats:
    log_m = _log((p + q) / 2)
    # Rounding may leave −1e-8 between equal rows, and a distance has no sign.
    return np.maximum(_reduce(p * (log_p - log_m) + q * (log_q - log_m)) / 2, 0)


def _jeffreys(p: Floats, q: Floats, log_p: Floats, log_q: Floats) -> Floats:
    return _reduce((p - q) * (log_p - log_q)) / 2


def _reduce(terms: Floats) -> Floats:
    return np.asarray(terms.sum(axis=-1))


def _distances(log_p: Floats, log_q: Floats) -> dict[str, Floats]:
    p, q = np.exp(log_p), np.exp(log_q)
    pair = (p, q, log_p, log_q)
    return {"js": _jensen_shannon(*pair), "jeffreys": _jeffreys(*pair), "l2": l2(p, q)}


def answer_distances(d_p: Floats, d_q: Floats) -> dict[str, Floats]:
    """Row-wise `js`, `jeffreys`, `l2` over {Yes, No} of two models' log-odds (n,), (n,): name → (n,).

    Logarithms come from the log-odds, so that a certain answer costs no digits.
    """
    log_p, log_q = (-np.logaddexp(0.0, np.stack([-d, d], axis=-1).astype(np.float64)) for d in (d_p, d_q))
    return _distances(log_p, log_q)


def vocabulary_distances(
    hidden_p: Floats, head_p: Head, hidden_q: Floats, head_q: Head, chunk: int = 256
) -> dict[str, Floats]:
    """Row-wise `js`, `jeffreys`, `l2` over the whole vocabulary, streamed from answer-position states: name → (n,).

    Args:
        hidden_p: (n, d) float32 states of one model.
        head_p: its output head: weight (V, d), bias (V,) or None.
        hidden_q: (n, d') states of the other model on the same rows.
        head_q: its output head; the same V.
        chunk: rows at a time; 256 rows of 49,152 float32 logits are 50 MB an array, and about eight live at once.
    """
    parts = [
        _distances(_log_softmax(hidden_p[k : k + chunk], head_p), _log_softmax(hidden_q[k : k + chunk], head_q))
        for k in range(0, max(len(hidden_p), 1), chunk)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _log_softmax(states: Floats, head: Head) -> Floats:
    weight, bias = head
    logits = states @ weight.T
    if bias is not None:
        logits += bias
    logits -= logits.max(axis=-1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return logits


# --- placebo, projection ------------------------------------------------------------------------------------


def temperature(y: Ints, d: Floats) -> float:
    """The T that minimises the log loss of d / T (Guo et al. 2017, section 4.2), sought in [e⁻⁵, e⁵].

    The loss is convex in 1/T, so the minimum is the only one; separable labels end at the lower bound, labels that
    go against the scores at the upper one.
    """
    found = optimize.minimize_scalar(lambda log_t: log_loss(y, d / np.exp(log_t)), bounds=(-5, 5), method="bounded")
    return float(np.exp(found.x))


def projection(p: Floats, r1: Floats, o2: Floats, r2: Floats, o: Floats) -> float:
    """`⟨p − r1, o2 − r2⟩ / ⟨o − r1, o2 − r2⟩` over D_f log-odds (n,): 1 = nothing done, 0 = retrained.

    o2, r1 and r2 come from independent seeds, so that seed noise averages out. p and o share theirs. NaN when the
    two differences between original and retrained are orthogonal. This project's own measure.
    """
    p, r1, o2, r2, o = (np.asarray(scores, np.float64) for scores in (p, r1, o2, r2, o))
    direction = o2 - r2
    length = float((o - r1) @ direction)
    return float((p - r1) @ direction) / length if length else float("nan")


# --- figures of other papers, for comparison only -----------------------------------------------------------


def residual_bota(p: Floats, r: Floats, o: Floats) -> float:
    """`Σ_F |p − r| / Σ_F |o − r|` over scores (n,) on D_f (BOTA's residual): 1 = nothing done.

    Unsigned, so seed noise counts as memory: a second retrained model scores about 0.9. NaN when o equals r.
    """
    whole = float(np.abs(o - r).sum(dtype=np.float64))
    return float(np.abs(p - r).sum(dtype=np.float64)) / whole if whole else float("nan")


def ks_tofu(losses_a: Floats, losses_b: Floats) -> float:
    """p-value of the two-sample Kolmogorov–Smirnov test of per-row losses (n,), (m,), after TOFU's forget quality.

    Maini et al. 2024 (arXiv 2401.06121) test truth ratios. A p-value grows as rows get fewer: never gate on it.
    """
    return float(stats.ks_2samp(losses_a, losses_b).pvalue)


def priv_leak(auc_unlearned: float, auc_retrained: float) -> float:
    """`100·((1 − AUC_u) − (1 − AUC_r)) / (1 − AUC_r)` of membership AUCs, in percent; 0 = as the retrained model.

    After MUSE (Shi et al. 2024, arXiv 2407.06460). NaN when AUC_r is 1.
    """
    rest = 1 - auc_retrained
    return 100 * ((1 - auc_unlearned) - rest) / rest if rest else float("nan")
