"""How sure a figure is: a bootstrap over users, and the noise of seeds.

A *figure* is one array (1 + resamples,): its value on the rows themselves, then its value in every
resample of users. Sums, differences and ratios of figures are figures. Figures of one `Bootstrap`
are paired, resample by resample. Figures of two are independent, because the two drew different
users.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.arrays import Floats, Ints
from ..core.errors import DataError
from .classification import auc_by_user, calibration_gaps, row_losses
from .ranking import RankMeasure, area, wins_by_user

Figure = npt.NDArray[np.float64]

# Measured: beyond either, ranking the rows of each resample is as fast.
PAIRS_PER_ROW = 64
"""Pairs of users for each row up to which an AUC is summed over pairs of users."""
MOST_WINS = 2**20
"""Numbers that it may hold meanwhile: one for each user and row."""

OTHER_ROWS = "scores of other rows than the bootstrap's"

# Sums of a million float64 terms are right to about 1e-13 of their size.
ROUNDING = 1e-12
"""Share of a sum of products below which what is left of it is taken for rounding."""


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval, over `n` rows; −inf to inf where no row bounds it."""

    value: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float | int]:
        """The same as plain numbers. NaN and infinity stay in, and JSON has neither."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


def interval(figure: Figure, n: int, level: float = 0.95) -> Interval:
    """Percentile interval of a figure over `n` rows (Efron and Tibshirani 1993, chapter 13).

    Resamples in which the figure is not finite are left out.
    """
    value = float(figure[0])
    resamples = figure[1:]
    is_finite = np.isfinite(resamples)
    if not is_finite.any():
        return Interval(value, -np.inf, np.inf, n)
    tail = (1 - level) / 2
    other_tail = (1 + level) / 2
    low, high = np.quantile(resamples[is_finite], [tail, other_tail])
    return Interval(value, float(low), float(high), n)


@dataclass(frozen=True)
class Bootstrap:
    """Resamples of whole users, with replacement; all figures of one bootstrap are paired.

    The rows of a user share a taste and a history. So rows are not independent, and users are drawn
    instead (cluster bootstrap: Field and Welsh 2007).

    Attributes:
        counts: (1 + resamples, users) how often each user is drawn; once each in the first line.
        user: (n,) position of each row's user in `counts`.
    """

    counts: Ints
    user: Ints

    def weights(self, rows: Ints | slice = slice(None), lines: slice = slice(None)) -> Ints:
        """How often each of `rows` (all) is drawn, in `lines` (all) of `counts`: (lines, rows)."""
        counts = self.counts[lines]
        users = self.user[rows]
        return np.take(counts, users, axis=1)

    def interval(self, figure: Figure, level: float = 0.95) -> Interval:
        """The interval of a figure over these rows."""
        return interval(figure, len(self.user), level)

    def total(self, values: npt.NDArray[Any]) -> Figure:
        """Sum of `values` (n,) over the rows drawn."""
        user_count = self.counts.shape[1]
        user_totals = np.bincount(self.user, weights=values, minlength=user_count)
        totals = self.counts @ user_totals
        return np.asarray(totals, float)

    def mean(self, values: npt.NDArray[Any]) -> Figure:
        """Mean of `values` (n,) over the rows drawn.

        Σ_u c_u·(sum over u's rows) / Σ_u c_u·(number of u's rows), c_u the draws of user u.
        """
        with np.errstate(invalid="ignore"):
            return self.total(values) / self._row_count()

    def ranked(self, y: Ints, d: Floats, measure: RankMeasure, chunk: int = 32) -> Figure:
        """A measure of how `d` (n,) ranks rows of y = 1 above the others.

        One sort serves all resamples.

        Args:
            y: labels (n,).
            d: scores (n,).
            measure: of the counts of either label by score.
            chunk: resamples at a time: few enough for their weights to stay in the processor's
                cache.
        """
        assert len(y) == len(d) == len(self.user), OTHER_ROWS
        order = np.argsort(d, kind="stable")
        liked = y[order] == 1
        # Where a new score begins: equal scores must count as one, or their order would matter.
        rises = np.diff(d[order], prepend=np.nan)
        first_rows = np.flatnonzero(rises)
        line_count = len(self.counts)
        figure = np.empty(line_count)
        for start in range(0, line_count, chunk):
            end = start + chunk
            lines = slice(start, end)
            weights = self.weights(order, lines)
            weights = weights.astype(np.float64)
            liked_weights = weights * liked
            other_weights = weights * ~liked
            positives = np.add.reduceat(liked_weights, first_rows, axis=1)
            negatives = np.add.reduceat(other_weights, first_rows, axis=1)
            with np.errstate(invalid="ignore"):
                figure[lines] = measure(positives, negatives)
        return figure

    def auc(self, y: Ints, d: Floats) -> Figure:
        """Area under the ROC curve of the rows drawn; NaN where they have one class."""
        assert len(y) == len(d) == len(self.user), OTHER_ROWS
        row_count = len(y)
        user_count = self.counts.shape[1]
        has_many_users = user_count**2 > PAIRS_PER_ROW * row_count
        if has_many_users or user_count * row_count > MOST_WINS:
            return self.ranked(y, d, area)
        wins = wins_by_user(y, d, self.user, user_count)
        ordered_pairs = ((self.counts @ wins) * self.counts).sum(1)
        with np.errstate(invalid="ignore"):
            return np.asarray(ordered_pairs / (self.total(y == 1) * self.total(y != 1)))

    def log_loss(self, y: Ints, d: Floats) -> Figure:
        """Log loss of the rows drawn, in nats."""
        return self.mean(row_losses(y, d))

    def gauc(self, y: Ints, d: Floats) -> Figure:
        """Mean AUC within the users drawn who have both classes; NaN if nobody has."""
        user_aucs = auc_by_user(y, d, self.user)
        has_both_classes = np.isfinite(user_aucs)
        # A user without both classes counts in neither sum.
        defined_aucs = np.where(has_both_classes, user_aucs, 0.0)
        totals = self.counts @ defined_aucs
        user_counts = self.counts @ has_both_classes
        with np.errstate(invalid="ignore"):
            return np.asarray(totals / user_counts, float)

    def accuracy(self, y: Ints, d: Floats) -> Figure:
        """Share of the rows drawn whose answer at P = 0.5 is right; P = 0.5 itself answers No."""
        answers = d > 0
        return self.mean(answers == (y == 1))

    def calibration_error(self, y: Ints, d: Floats, bins: int = 15) -> Figure:
        """Expected calibration error of the rows drawn (Guo et al. 2017, eq. 3), here of Yes.

        Σ_bins (n_bin / n)·|mean P − mean y| over `bins` bins of P of equal width.
        """
        row_bins, gaps = calibration_gaps(y, d, bins)
        bin_totals = []
        for k in range(bins):
            bin_gaps = np.where(row_bins == k, gaps, 0.0)
            bin_totals.append(self.total(bin_gaps))
        distances = np.abs(np.stack(bin_totals))
        total = distances.sum(0)
        with np.errstate(invalid="ignore"):
            return np.asarray(total / self._row_count())

    def utility(self, y: Ints, d: Floats) -> dict[str, Figure]:
        """All figures of utility by name."""
        return {
            "auc": self.auc(y, d),
            "gauc": self.gauc(y, d),
            "accuracy": self.accuracy(y, d),
            "log_loss": self.log_loss(y, d),
            "ece": self.calibration_error(y, d),
        }

    def projection(self, p: Floats, r1: Floats, o2: Floats, r2: Floats, o: Floats) -> Figure:
        """`⟨p − r1, o2 − r2⟩ / ⟨o − r1, o2 − r2⟩` over log-odds (n,) on D_f.

        This project's own measure: 1 = nothing done, 0 = retrained. o2, r1 and r2 come from
        independent seeds, so that seed noise averages out; p and o share theirs. NaN when the two
        differences between original and retrained are orthogonal.
        """
        # In float64 before any difference is taken: models answer in float32.
        origin = r1.astype(np.float64)
        direction = o2.astype(np.float64) - r2
        to_candidate = p - origin
        to_original = o - origin
        figure = self.total(to_candidate * direction)
        before = self.total(to_original * direction)
        after = np.zeros_like(before)
        return remaining(figure, before, after)

    def correlation(self, x: Floats, y: Floats) -> Figure:
        """Pearson's correlation of `x` and `y` (n,) over the rows drawn.

        NaN where either is constant.
        """
        x_deviations = _deviations(x)
        y_deviations = _deviations(y)
        covariance = self._covariance(x_deviations, y_deviations)
        x_variance = self._covariance(x_deviations, x_deviations)
        y_variance = self._covariance(y_deviations, y_deviations)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(covariance / np.sqrt(x_variance * y_variance))

    def _covariance(self, x: Floats, y: Floats) -> Figure:
        """Covariance over the rows drawn; exactly 0 where rounding alone keeps it from being so."""
        product = self.mean(x * y)
        covariance = product - self.mean(x) * self.mean(y)
        is_rounding = np.abs(covariance) <= ROUNDING * np.abs(product)
        return np.asarray(np.where(is_rounding, 0.0, covariance))

    def _row_count(self) -> Figure:
        ones = np.ones(len(self.user))
        return self.total(ones)


def _deviations(values: Floats) -> Floats:
    """Values less their mean, in float64: sums of squares then lose no digits to a far origin."""
    exact = values.astype(np.float64)
    return np.asarray(exact - exact.mean())


def user_bootstrap(
    users: Ints, strata: Ints | None = None, *, resamples: int = 2000, seed: int
) -> Bootstrap:
    """Draw as many users as there are, with replacement, `resamples` times.

    The draws depend on `seed` alone.

    Args:
        users: (n,) code of each row's user.
        strata: (n,) group of each row, the same for all rows of a user; users are drawn within
            their group.
        resamples: number of resamples.
        seed: of the draws.

    Raises:
        DataError: there are no rows.
    """
    if not len(users):
        raise DataError(
            "0 rows to draw users from: a bootstrap needs at least one row; evaluate a larger set"
        )
    ids, first_rows, user = np.unique(users, return_index=True, return_inverse=True)
    if strata is None:
        strata = np.zeros(len(users), int)
    user_strata = strata[first_rows]
    random = np.random.default_rng(seed)
    counts = np.ones((1 + resamples, len(ids)), dtype=np.int32)
    for stratum in np.unique(user_strata):
        members = np.flatnonzero(user_strata == stratum)
        # One user alone says nothing of how users differ: nobody is drawn, no figure is bounded.
        member_count = len(members)
        draws = member_count if member_count > 1 else 0
        chances = np.full(member_count, 1 / member_count)
        counts[1:, members] = random.multinomial(draws, chances, size=resamples)
    return Bootstrap(counts, user)


def over_seeds(figures: Sequence[Figure], *, seed: int) -> Figure:
    """Mean of a figure over retrained models of different seeds, m(R).

    Of three or more models, the resamples also carry how unsure that mean is of the seeds:
    `t·s/√k`, s the standard deviation of the k values on the rows themselves, and t Student's with
    k − 1 degrees of freedom.

    Raises:
        DataError: there is no figure.
    """
    model_count = len(figures)
    if model_count == 0:
        raise DataError(
            "0 retrained models: memory is measured against at least one; retrain on the retain set"
        )
    mean = np.mean(figures, axis=0)
    # Two models say too little of s: t of one degree of freedom would swamp every interval.
    if model_count > 2:
        values = [figure[0] for figure in figures]
        standard_error = np.std(values, ddof=1) / np.sqrt(model_count)
        random = np.random.default_rng(seed)
        noise = random.standard_t(model_count - 1, len(mean) - 1)
        mean[1:] += standard_error * noise
    return np.asarray(mean)


def remaining(figure: Figure, before: Figure, after: Figure, level: float = 0.95) -> Figure:
    """`(figure − after) / (before − after)`: 1 = nothing was done, 0 = all was, < 0 = beyond.

    *Memory*, this project's own measure: `M = (m(p) − m(R)) / (m(o) − m(R))`, m the AUC on D_f, or
    its log loss with the sign turned. *Excess distance*: `(D(p, R) − floor) / (D(o, R) − floor)`,
    floor the distance between retrained models.

    The denominator is the *headroom*: > 0 where there is something to forget. Where its interval at
    `level` reaches 0, the ratio passes through infinity; its resamples are then NaN and bound
    nothing (compare Fieller 1954). A headroom of exactly 0 makes the value NaN.
    """
    headroom = before - after
    rest = figure - after
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = rest / headroom
    ratio = np.where(headroom == 0, np.nan, ratio)
    surely_positive = interval(headroom, 0, level).low > 0
    if not surely_positive:
        ratio[1:] = np.nan
    return np.asarray(ratio)
