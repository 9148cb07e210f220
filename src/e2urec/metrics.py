"""Measures of utility, memory and distance: NumPy in, numbers out.

`y` are labels (n,) of 0 and 1, `d` log-odds (n,) of Yes against No, `users` (n,) integer codes. Every figure over
rows can carry a user-clustered bootstrap interval; two figures of one `Bootstrap` are paired.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
Head = tuple[Floats, Floats | None]


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval, over `n` rows."""

    value: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float | int]:
        """The same as plain JSON values."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


# --- utility ------------------------------------------------------------------------------------------------


def auc(y: Ints, d: Floats) -> float:
    """Area under the ROC curve: P(d⁺ > d⁻) + ½·P(d⁺ = d⁻); NaN unless both classes are there."""
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
    return float(row_losses(y, d).mean())


def accuracy(y: Ints, d: Floats) -> float:
    """Share of rows whose answer at P = 0.5 is right."""
    return float(np.mean((d > 0) == (y == 1)))


def expected_calibration_error(y: Ints, d: Floats, bins: int = 15) -> float:
    """Σ_bins (n_bin / n)·|mean P − mean y| over equal-width bins of P (Guo et al. 2017)."""
    p = special.expit(d.astype(np.float64))
    index = np.minimum((p * bins).astype(int), bins - 1)
    gaps = np.bincount(index, weights=p - y, minlength=bins)
    return float(np.abs(gaps).sum() / len(y))


def user_auc(y: Ints, d: Floats, users: Ints) -> float:
    """Mean AUC within users who have both classes, each user counted once; NaN if there is none."""
    _, user = np.unique(users, return_inverse=True)
    order = np.lexsort((d, user))
    user, y, d = user[order], y[order].astype(np.float64), d[order]
    start = np.searchsorted(user, np.arange(user[-1] + 1))
    tie = np.concatenate([[True], (np.diff(d) != 0) | (np.diff(user) != 0)])
    group = np.cumsum(tie) - 1
    mean_rank = np.bincount(group, weights=np.arange(len(d)) - start[user]) / np.bincount(group) + 1
    positives = np.bincount(user, weights=y)
    negatives = np.bincount(user) - positives
    ranks = np.bincount(user, weights=mean_rank[group] * y)
    both = (positives > 0) & (negatives > 0)
    if not both.any():
        return float("nan")
    pairs = (ranks - positives * (positives + 1) / 2)[both]
    return float(np.mean(pairs / (positives * negatives)[both]))


def utility(y: Ints, d: Floats, users: Ints) -> dict[str, float]:
    """All utility figures: auc, user_auc, accuracy, log_loss, ece."""
    return {
        "auc": auc(y, d),
        "user_auc": user_auc(y, d, users),
        "accuracy": accuracy(y, d),
        "log_loss": log_loss(y, d),
        "ece": expected_calibration_error(y, d),
    }


# --- bootstrap ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bootstrap:
    """Resamples of whole users, with replacement; shared draws pair all figures computed with it.

    Attributes:
        counts: (resamples, users) how often each user is drawn.
        user: (n,) position of each row's user in `counts`.
    """

    counts: Ints
    user: Ints

    def weights(self, part: slice) -> Floats:
        """(resamples in `part`, n) how often each row is drawn."""
        return self.counts[part][:, self.user].astype(np.float32)

    def mean(self, values: Floats) -> tuple[float, Floats]:
        """Mean of `values` (n,) and its draws (resamples,)."""
        totals = np.bincount(self.user, weights=values, minlength=self.counts.shape[1])
        sizes = np.bincount(self.user, minlength=self.counts.shape[1])
        return float(values.mean()), (self.counts @ totals) / (self.counts @ sizes)

    def log_loss(self, y: Ints, d: Floats) -> tuple[float, Floats]:
        """Log loss and its draws."""
        return self.mean(row_losses(y, d))

    def auc(self, y: Ints, d: Floats, chunk: int = 128) -> tuple[float, Floats]:
        """AUC and its draws; one sort serves all draws. A draw with one class is NaN."""
        order = np.argsort(d, kind="stable")
        values, labels, user = d[order], y[order] == 1, self.user[order]
        edges = np.flatnonzero(np.concatenate([[True], np.diff(values) != 0]))
        draws = np.empty(len(self.counts))
        for start in range(0, len(draws), chunk):
            weight = self.counts[start : start + chunk][:, user].astype(np.float64)
            ups = np.add.reduceat(weight * labels, edges, axis=1)
            downs = np.add.reduceat(weight * ~labels, edges, axis=1)
            below = np.cumsum(downs, axis=1) - downs / 2
            with np.errstate(invalid="ignore", divide="ignore"):
                draws[start : start + chunk] = (ups * below).sum(1) / (ups.sum(1) * downs.sum(1))
        return auc(y, d), draws

    def interval(self, value: float, draws: Floats, level: float = 0.95) -> Interval:
        """Percentile interval of `draws`; NaN draws do not count."""
        tail = (1 - level) / 2
        low, high = np.nanquantile(draws, [tail, 1 - tail]) if np.isfinite(draws).any() else (np.nan, np.nan)
        return Interval(float(value), float(low), float(high), len(self.user))


def user_bootstrap(users: Ints, *, resamples: int = 2000, seed: int) -> Bootstrap:
    """Draw as many users as there are, with replacement, `resamples` times."""
    ids, user = np.unique(users, return_inverse=True)
    random = np.random.default_rng(seed)
    counts = random.multinomial(len(ids), np.full(len(ids), 1 / len(ids)), size=resamples)
    return Bootstrap(counts.astype(np.int32), user)


# --- memory -------------------------------------------------------------------------------------------------


def memory(
    y: Ints,
    unlearned: Floats,
    original: Floats,
    retrained: Sequence[Floats],
    boot: Bootstrap,
    *,
    level: float = 0.95,
) -> dict[str, Interval]:
    """How much of D_f is left: `M = (m(p) − m(R)) / (m(o) − m(R))`, m the AUC or the log loss on D_f.

    R is the mean of the figure over the retrained models. 0 = retrained, 1 = nothing done, < 0 = over-forgotten.
    """
    return {
        name: _ratio(measure(y, unlearned), measure(y, original), [measure(y, d) for d in retrained], boot, level)
        for name, measure in (("auc", boot.auc), ("loss", boot.log_loss))
    }


def _ratio(
    p: tuple[float, Floats],
    o: tuple[float, Floats],
    r: list[tuple[float, Floats]],
    boot: Bootstrap,
    level: float,
) -> Interval:
    value, draws = (np.mean([part[k] for part in r], axis=0) for k in (0, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.float64(p[0] - value) / np.float64(o[0] - value)
        return boot.interval(float(ratio), (p[1] - draws) / (o[1] - draws), level)


def headroom(y: Ints, original: Floats, retrained: Sequence[Floats], boot: Bootstrap) -> dict[str, Interval]:
    """What there is to forget: AUC_F(o) − AUC_F(R), and loss_F(R) − loss_F(o); positive = the original remembers."""
    found = {}
    for name, measure, sign in (("auc", boot.auc, 1), ("loss", boot.log_loss, -1)):
        o, r = measure(y, original), [measure(y, d) for d in retrained]
        value, draws = (sign * (o[k] - np.mean([part[k] for part in r], axis=0)) for k in (0, 1))
        found[name] = boot.interval(float(value), np.asarray(draws))
    return found


def paired_difference(y: Ints, d: Floats, reference: Floats, boot: Bootstrap, *, level: float = 0.95) -> Interval:
    """AUC(d) − AUC(reference) on the same rows and the same draws."""
    (a, first), (b, second) = boot.auc(y, d), boot.auc(y, reference)
    return boot.interval(a - b, first - second, level)


# --- distances ----------------------------------------------------------------------------------------------


def _relative(p: Floats, q: Floats) -> Floats:
    return special.rel_entr(p, q).sum(-1)


def jensen_shannon(p: Floats, q: Floats) -> Floats:
    """½·KL(p ‖ m) + ½·KL(q ‖ m), m = (p + q) / 2: (n, V), (n, V) → (n,) in nats, at most ln 2."""
    middle = (p + q) / 2
    return (_relative(p, middle) + _relative(q, middle)) / 2


def jeffreys(p: Floats, q: Floats) -> Floats:
    """(KL(p ‖ q) + KL(q ‖ p)) / 2, which E2URec's code calls JSD: (n, V) → (n,), unbounded."""
    tiny = np.finfo(p.dtype).tiny
    p, q = np.maximum(p, tiny), np.maximum(q, tiny)
    return ((p - q) * np.log(p / q)).sum(-1) / 2


def l2(p: Floats, q: Floats) -> Floats:
    """‖p − q‖₂ a row: (n, V) → (n,)."""
    return np.sqrt(np.square(p - q).sum(-1))


DISTANCES = {"js": jensen_shannon, "jeffreys": jeffreys, "l2": l2}


def answer_distances(a: Floats, b: Floats) -> dict[str, Floats]:
    """Row-wise distances between the answers of log-odds `a` and `b`, over {Yes, No}: name → (n,)."""
    p, q = (np.stack([special.expit(d), special.expit(-d)], axis=-1) for d in (a.astype(float), b.astype(float)))
    return {name: distance(p, q) for name, distance in DISTANCES.items()}


def vocabulary_distances(a: Floats, head_a: Head, b: Floats, head_b: Head, *, chunk: int = 256) -> dict[str, Floats]:
    """Row-wise distances over the whole vocabulary, streamed from answer-position states: name → (n,).

    Args:
        a, b: (n, d) states of two models on the same rows.
        head_a, head_b: weight (V, d) and bias (V,) or None of each output head.
        chunk: rows at a time; 256 rows of 49,152 float32 logits are 50 MB an array.
    """
    parts: dict[str, list[Floats]] = {name: [] for name in DISTANCES}
    for start in range(0, len(a), chunk):
        p, q = _softmax(a[start : start + chunk], head_a), _softmax(b[start : start + chunk], head_b)
        for name, distance in DISTANCES.items():
            parts[name].append(distance(p, q))
    return {name: np.concatenate(rows) for name, rows in parts.items()}


def _softmax(states: Floats, head: Head) -> Floats:
    weight, bias = head
    logits = states @ weight.T
    return special.softmax(logits if bias is None else logits + bias, axis=-1)


def excess_distance(unlearned: float, original: float, floor: float) -> float:
    """(D(p, R) − floor) / (D(o, R) − floor), floor the distance between two retrainings; NaN without headroom."""
    return (unlearned - floor) / (original - floor) if original > floor else float("nan")


# --- references of other papers, placebos -------------------------------------------------------------------


def temperature(y: Ints, d: Floats) -> float:
    """The T > 0 for which d / T has the least log loss (Guo et al. 2017)."""
    found = optimize.minimize_scalar(lambda log_t: log_loss(y, d / np.exp(log_t)), bounds=(-3, 3), method="bounded")
    return float(np.exp(found.x))


def projection(unlearned: Floats, r1: Floats, original: Floats, other_original: Floats, r2: Floats) -> float:
    """⟨p − r₁, o' − r₂⟩ / ⟨o − r₁, o' − r₂⟩ over D_f log-odds: 1 = nothing done, 0 = retrained.

    o', r₁ and r₂ come from independent seeds, so that seed noise averages out.
    """
    direction = other_original - r2
    return float((unlearned - r1) @ direction / ((original - r1) @ direction))


def summary(rows: Mapping[str, Floats]) -> dict[str, float]:
    """Mean of each measure over rows."""
    return {name: float(values.mean()) for name, values in rows.items()}
