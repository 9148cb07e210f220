"""Measures of utility, memory and distance: NumPy in, numbers out.

`y` are labels (n,) of 0 and 1, `d` log-odds (n,) of Yes against No, `users` (n,) integer codes; D_f is the forget
set. A figure that no rows define is NaN. Every figure over rows can carry a user-clustered bootstrap interval; two
figures of one `Bootstrap` are paired.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

from .errors import DataError

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
Head = tuple[Floats, Floats | None]
Draws = tuple[float, Floats]


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval, over `n` rows; −inf to inf where the rows bound nothing."""

    value: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float | int]:
        """The same as plain numbers; NaN and infinity are left in, and JSON has neither."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


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
    if not len(y):
        return float("nan")
    p = special.expit(d.astype(np.float64))
    index = np.minimum((p * bins).astype(int), bins - 1)
    gaps = np.bincount(index, weights=p - y, minlength=bins)
    return float(np.abs(gaps).sum() / len(y))


def user_auc(y: Ints, d: Floats, users: Ints) -> float:
    """Mean AUC within users who have both classes, each user counted once; NaN if there is none."""
    ids, user = np.unique(users, return_inverse=True)
    order = np.lexsort((d, user))
    user, y, d = user[order], y[order].astype(np.float64), d[order]
    start = np.searchsorted(user, np.arange(len(ids)))
    new = (np.diff(d, prepend=np.nan) != 0) | (np.diff(user, prepend=-1) != 0)
    group = np.cumsum(new) - 1
    mean_rank = np.bincount(group, weights=np.arange(len(d)) - start[user]) / np.bincount(group) + 1
    positives = np.bincount(user, weights=y)
    negatives = np.bincount(user) - positives
    ranks = np.bincount(user, weights=mean_rank[group] * y)
    both = (positives > 0) & (negatives > 0)
    pairs = (ranks - positives * (positives + 1) / 2)[both]
    return _mean(pairs / (positives * negatives)[both])


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

    A user's rows share a taste and a history, so rows are not independent and users are what is drawn
    (cluster bootstrap: Field and Welsh 2007). Each figure returns (value on the rows themselves, draws (resamples,)).

    Attributes:
        counts: (resamples, users) how often each user is drawn.
        user: (n,) position of each row's user in `counts`.
    """

    counts: Ints
    user: Ints

    def weights(self, rows: Ints | slice = slice(None), part: slice = slice(None)) -> Ints:
        """How often each of `rows` (all) is drawn in the resamples of `part` (all): (resamples, rows)."""
        return np.take(self.counts[part], self.user[rows], axis=1)

    def mean(self, values: Floats) -> Draws:
        """Mean of `values` (n,): Σ_u c_u·(sum over u's rows) / Σ_u c_u·(number of u's rows), c_u the user's count."""
        users = self.counts.shape[1]
        totals = np.bincount(self.user, weights=values, minlength=users)
        sizes = np.bincount(self.user, minlength=users)
        return float(np.mean(values, dtype=np.float64)), (self.counts @ totals) / (self.counts @ sizes)

    def log_loss(self, y: Ints, d: Floats) -> Draws:
        """Log loss of the rows, in nats."""
        return self.mean(row_losses(y, d))

    def auc(self, y: Ints, d: Floats, chunk: int = 32) -> Draws:
        """AUC of the rows, weighted by their counts w: `Σ_t w⁺_t·(Σ_{s<t} w⁻_s + ½·w⁻_t) / (Σ w⁺ · Σ w⁻)`.

        s, t run over distinct values of d, in order: one sort serves all draws. A draw with one class is NaN.
        `chunk` is resamples at a time, few enough for their weights to stay in the processor's cache.
        """
        assert len(y) == len(d) == len(self.user), "scores of other rows than the bootstrap's"
        order = np.argsort(d, kind="stable")
        values, labels = d[order], y[order] == 1
        edges = np.flatnonzero(np.diff(values, prepend=np.nan))
        draws = np.empty(len(self.counts))
        for start in range(0, len(draws), chunk):
            part = slice(start, start + chunk)
            weight = self.weights(order, part).astype(np.float64)
            ups = np.add.reduceat(weight * labels, edges, axis=1)
            downs = np.add.reduceat(weight * ~labels, edges, axis=1)
            below = np.cumsum(downs, axis=1) - downs / 2
            with np.errstate(invalid="ignore"):
                draws[part] = (ups * below).sum(1) / (ups.sum(1) * downs.sum(1))
        return auc(y, d), draws

    def interval(self, value: float, draws: Floats, level: float = 0.95) -> Interval:
        """Percentile interval of `draws` (Efron and Tibshirani 1993, chapter 13) over the finite ones.

        One user alone says nothing about how users differ: the interval is then −inf to inf, never of width 0.
        """
        known = draws[np.isfinite(draws)]
        if self.counts.shape[1] < 2 or not len(known):
            return Interval(float(value), -np.inf, np.inf, len(self.user))
        low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
        return Interval(float(value), float(low), float(high), len(self.user))


def user_bootstrap(users: Ints, *, resamples: int = 2000, seed: int) -> Bootstrap:
    """Draw as many users as there are, with replacement, `resamples` times; a function of `seed` alone.

    Raises:
        DataError: there are no rows.
    """
    if not len(users):
        raise DataError("0 rows to draw users from: a bootstrap needs at least one row; evaluate a larger set")
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
    """How much of D_f is left: `M = (m(p) − m(R)) / (m(o) − m(R))`, m the AUC (`auc`) or log loss (`loss`) on D_f.

    All scores are log-odds (n,) on the rows of D_f; m(R) is the mean of m over the retrained models. 0 = retrained,
    1 = nothing done, < 0 = over-forgotten. The interval is that of the ratio, from paired draws; where the headroom's
    interval at the same level reaches 0, the ratio's draws pass through infinity and it is −inf to inf (compare
    Fieller 1954). A headroom of exactly 0 makes the value NaN. This project's own measure.

    Raises:
        DataError: there is no retrained model.
    """
    p, o, r = (_figures(y, models, boot) for models in ([unlearned], [original], retrained))
    found = {}
    for name, room in ((name, o[name] - r[name]) for name in o):
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.where(room == 0, np.nan, (p[name] - r[name]) / room)
        measurable = boot.interval(room[0], room[1:], level).low > 0
        found[name] = boot.interval(ratio[0], ratio[1:] if measurable else ratio[:0], level)
    return found


def headroom(
    y: Ints, original: Floats, retrained: Sequence[Floats], boot: Bootstrap, *, level: float = 0.95
) -> dict[str, Interval]:
    """What D_f has to forget: `auc` = AUC(o) − AUC(R), `loss` = loss(R) − loss(o); > 0 = the original remembers.

    Scores are log-odds (n,); R is the mean over the retrained models. An interval that reaches 0 means that the
    request is too small to measure.

    Raises:
        DataError: there is no retrained model.
    """
    o, r = _figures(y, [original], boot), _figures(y, retrained, boot)
    return {name: boot.interval(o[name][0] - r[name][0], o[name][1:] - r[name][1:], level) for name in o}


def _figures(y: Ints, models: Sequence[Floats], boot: Bootstrap) -> dict[str, Floats]:
    """Mean figure over models, then its draws: (1 + resamples,); signed so that a model that remembers has more."""
    if not len(models):
        raise DataError("0 retrained models: memory is measured against at least one; retrain on the retain set")
    aucs, losses = ([np.append(*measure(y, d)) for d in models] for measure in (boot.auc, boot.log_loss))
    return {"auc": np.mean(aucs, axis=0), "loss": -np.mean(losses, axis=0)}


def paired_difference(y: Ints, d: Floats, reference: Floats, boot: Bootstrap, *, level: float = 0.95) -> Interval:
    """AUC(d) − AUC(reference) on the same rows and the same draws; scores (n,)."""
    (a, first), (b, second) = boot.auc(y, d), boot.auc(y, reference)
    return boot.interval(a - b, first - second, level)


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

    `summary` takes their means. Logarithms come from the log-odds, so that a certain answer costs no digits.
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


def summary(rows: Mapping[str, Floats]) -> dict[str, float]:
    """Mean over rows of each row-wise distance: name → (n,) becomes name → number."""
    return {name: _mean(values) for name, values in rows.items()}


def excess_distance(d_pr: float, d_or: float, floor: float) -> float:
    """`(D(p, R) − floor) / (D(o, R) − floor)`, floor the same distance between two retrainings: 1 = nothing done.

    NaN when D(o, R) is no larger than the floor. Whoever holds intervals leaves it out when that of D(o, R) − floor
    reaches 0.
    """
    return (d_pr - floor) / (d_or - floor) if d_or > floor else float("nan")


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
