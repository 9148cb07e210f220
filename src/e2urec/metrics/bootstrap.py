"""How sure a figure is: user-clustered bootstrap, and the noise of seeds.

A *figure* is one array (1 + resamples,): its value on the rows themselves, then its value in every resample of users.
Sums, differences and ratios of figures are figures. Those of one `Bootstrap` are paired, draw by draw; those of two
are independent, because the two drew different users.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.arrays import Floats, Ints
from ..core.errors import DataError
from .classification import auc_by_user, calibration_gaps, row_losses

Figure = npt.NDArray[np.float64]
Ranked = Callable[[Floats, Floats], Floats]


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


def interval(figure: Figure, n: int, level: float = 0.95) -> Interval:
    """Percentile interval (Efron and Tibshirani 1993, chapter 13) of a figure over `n` rows, by its finite draws."""
    known = figure[1:][np.isfinite(figure[1:])]
    low, high = (
        np.quantile(known, [(1 - level) / 2, (1 + level) / 2]) if len(known) else (-np.inf, np.inf)
    )
    return Interval(float(figure[0]), float(low), float(high), n)


# --- bootstrap ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bootstrap:
    """Resamples of whole users, with replacement; every method returns a figure, and all of them are paired.

    A user's rows share a taste and a history, so rows are not independent and users are what is drawn
    (cluster bootstrap: Field and Welsh 2007).

    Attributes:
        counts: (1 + resamples, users) how often each user is drawn; the first line has every user once.
        user: (n,) position of each row's user in `counts`.
    """

    counts: Ints
    user: Ints

    def weights(self, rows: Ints | slice = slice(None), part: slice = slice(None)) -> Ints:
        """How often each of `rows` (all) is drawn in the lines `part` (all) of `counts`: (lines, rows)."""
        return np.take(self.counts[part], self.user[rows], axis=1)

    def interval(self, figure: Figure, level: float = 0.95) -> Interval:
        """The interval of a figure over these rows."""
        return interval(figure, len(self.user), level)

    def total(self, values: npt.NDArray[Any]) -> Figure:
        """Σ over the rows drawn of `values` (n,)."""
        return np.asarray(
            self.counts @ np.bincount(self.user, weights=values, minlength=self.counts.shape[1]),
            float,
        )

    def mean(self, values: npt.NDArray[Any]) -> Figure:
        """Mean over the rows drawn of `values` (n,): Σ_u c_u·(sum over u's rows) / Σ_u c_u·(number of u's rows)."""
        with np.errstate(invalid="ignore"):
            return self.total(values) / self.total(np.ones(len(self.user)))

    def ranked(self, y: Ints, d: Floats, measure: Ranked, chunk: int = 32) -> Figure:
        """A measure of how `d` (n,) ranks rows of y = 1 above the others.

        `measure` maps (ups, downs), the numbers of rows of either label at each distinct value of d in rising
        order, both (lines, values), to (lines,). One sort serves all draws; `chunk` lines at a time are few enough
        for their weights to stay in the processor's cache.
        """
        assert len(y) == len(d) == len(self.user), "scores of other rows than the bootstrap's"
        order = np.argsort(d, kind="stable")
        values, labels = d[order], y[order] == 1
        edges = np.flatnonzero(np.diff(values, prepend=np.nan))
        figure = np.empty(len(self.counts))
        for start in range(0, len(figure), chunk):
            part = slice(start, start + chunk)
            weight = self.weights(order, part).astype(np.float64)
            ups = np.add.reduceat(weight * labels, edges, axis=1)
            downs = np.add.reduceat(weight * ~labels, edges, axis=1)
            with np.errstate(invalid="ignore"):
                figure[part] = measure(ups, downs)
        return figure

    def auc(self, y: Ints, d: Floats) -> Figure:
        """Area under the ROC curve of the rows drawn; NaN where they have one class."""
        return self.ranked(y, d, area)

    def log_loss(self, y: Ints, d: Floats) -> Figure:
        """Log loss of the rows drawn, in nats."""
        return self.mean(row_losses(y, d))

    def gauc(self, y: Ints, d: Floats) -> Figure:
        """Mean AUC within the users drawn who have both classes."""
        each = auc_by_user(y, d, self.user)
        both = np.isfinite(each)
        with np.errstate(invalid="ignore"):
            return np.asarray(
                (self.counts @ np.where(both, each, 0.0)) / (self.counts @ both), float
            )

    def calibration_error(self, y: Ints, d: Floats, bins: int = 15) -> Figure:
        """Expected calibration error of the rows drawn."""
        bin_, gap = calibration_gaps(y, d, bins)
        gaps = np.stack([self.total(np.where(bin_ == k, gap, 0.0)) for k in range(bins)])
        with np.errstate(invalid="ignore"):
            return np.asarray(np.abs(gaps).sum(0) / self.total(np.ones(len(self.user))))

    def utility(self, y: Ints, d: Floats) -> dict[str, Figure]:
        """What `metrics.utility` gives, as figures."""
        return {
            "auc": self.auc(y, d),
            "gauc": self.gauc(y, d),
            "accuracy": self.mean((d > 0) == (y == 1)),
            "log_loss": self.log_loss(y, d),
            "ece": self.calibration_error(y, d),
        }


def user_bootstrap(
    users: Ints, strata: Ints | None = None, *, resamples: int = 2000, seed: int
) -> Bootstrap:
    """Draw as many users as there are, with replacement, `resamples` times; a function of `seed` alone.

    Args:
        users: (n,) code of each row's user.
        strata: (n,) group of each row, the same for all rows of a user; users are drawn within their group.
        resamples: number of draws.
        seed: of the draws.

    Raises:
        DataError: there are no rows.
    """
    if not len(users):
        raise DataError(
            "0 rows to draw users from: a bootstrap needs at least one row; evaluate a larger set"
        )
    ids, first, user = np.unique(users, return_index=True, return_inverse=True)
    group = np.zeros(len(ids), int) if strata is None else strata[first]
    random = np.random.default_rng(seed)
    counts = np.ones((1 + resamples, len(ids)), dtype=np.int32)
    for name in np.unique(group):
        members = np.flatnonzero(group == name)
        # One user alone says nothing about how users differ: nobody is drawn, and no figure is bounded.
        drawn = len(members) if len(members) > 1 else 0
        counts[1:, members] = random.multinomial(
            drawn, np.full(len(members), 1 / len(members)), size=resamples
        )
    return Bootstrap(counts, user)


# --- measures of a ranking ----------------------------------------------------------------------------------


def area(ups: Floats, downs: Floats) -> Floats:
    """AUC: `Σ_t up_t·(Σ_{s<t} down_s + ½·down_t) / (Σ up · Σ down)`, over distinct scores s, t in rising order."""
    below = np.cumsum(downs, axis=1) - downs / 2
    return np.asarray((ups * below).sum(1) / (ups.sum(1) * downs.sum(1)))


def advantage(ups: Floats, downs: Floats) -> Floats:
    """max over thresholds of (true positive rate − false positive rate), at least 0 (Yeom et al. 2018)."""
    hits, alarms = _rates(ups), _rates(downs)
    return np.asarray(np.maximum((hits - alarms).max(axis=1), 0) + 0 * alarms[:, 0])


def tpr_at_fpr(rate: float) -> Ranked:
    """The highest true positive rate among thresholds with a false positive rate of at most `rate`."""

    def measure(ups: Floats, downs: Floats) -> Floats:
        hits, alarms = _rates(ups), _rates(downs)
        return np.where(
            np.isnan(alarms[:, 0]), np.nan, np.where(alarms <= rate, hits, 0.0).max(axis=1)
        )

    return measure


def _rates(counts: Floats) -> Floats:
    """Share of rows whose score is at least each distinct value: (lines, values)."""
    above = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(above / above[:, :1])


# --- what is left of D_f ------------------------------------------------------------------------------------


def over_seeds(figures: Sequence[Figure], *, seed: int) -> Figure:
    """Mean of a figure over retrained models of different seeds, m(R).

    With three or more, its draws also carry how unsure that mean is of the seeds: `t·s/√k`, s their standard
    deviation on the rows themselves and t Student's with k − 1 degrees of freedom. Two tell too little of s.

    Raises:
        DataError: there is none.
    """
    if not len(figures):
        raise DataError(
            "0 retrained models: memory is measured against at least one; retrain on the retain set"
        )
    mean = np.mean(figures, axis=0)
    if len(figures) > 2:
        spread = np.std([figure[0] for figure in figures], ddof=1) / np.sqrt(len(figures))
        mean[1:] += spread * np.random.default_rng(seed).standard_t(len(figures) - 1, len(mean) - 1)
    return np.asarray(mean)


def remaining(found: Figure, before: Figure, after: Figure, level: float = 0.95) -> Figure:
    """`(found − after) / (before − after)`: 1 where nothing was done, 0 where all was, < 0 beyond.

    *Memory*, this project's own measure: `M = (m(p) − m(R)) / (m(o) − m(R))`, m the AUC on D_f, or its log loss with
    the sign turned. *Excess distance*: `(D(p, R) − floor) / (D(o, R) − floor)`, floor the distance between retrained
    models. The denominator is the *headroom*, > 0 where there is something to forget. Where its interval at `level`
    reaches 0 the ratio passes through infinity: its draws are NaN and bound nothing (compare Fieller 1954). A headroom
    of exactly 0 makes the value NaN.
    """
    room = before - after
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(room == 0, np.nan, (found - after) / room)
    if not interval(room, 0, level).low > 0:
        ratio[1:] = np.nan
    return np.asarray(ratio)
