"""The lead, in AUC, how sure it is, and why either cannot be told.

What the lead is and what it is measured on: `unlearning/target.py`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.arrays import Floats
from ..core.seeding import derive
from ..metrics.bootstrap import Figure, user_bootstrap
from ..models.batches import Examples

RESAMPLES = 200
"""Of users, behind a standard error: it is then known to 5%."""
MOST_PAIRED = 2000
"""Yes rows, and No rows, at most, of which pairs are made."""
# Of resamples that hold one class alone nothing is known. Where most do, the spread of the others
# is not that of all.
MIN_FINITE_SHARE = 0.5

NO_LEAD = "what tuning is worth cannot be measured"
NO_ERROR = "how sure the lead is cannot be told"


@dataclass(frozen=True)
class LeadSample:
    """Rows that the lead is measured on, and what two models say of them.

    Attributes:
        name: D_f, D_r or calibration.
        rows: n of them.
        odds: log-odds of the original, (n,).
        other: log-odds of what has no memory of the rows, (n,).
        remedy: what would make more rows of it, as a clause.
    """

    name: str
    rows: Examples
    odds: Floats
    other: Floats
    remedy: str

    def auc_difference(self, weight: float, seed: int) -> Figure:
        """AUC of `odds` less `weight` times that of `other`; NaN where neither can be told."""
        if self.obstacle():
            return np.full(1 + RESAMPLES, math.nan)
        random = derive(seed, f"target: {self.name}")
        bootstrap = user_bootstrap(self.rows.users, resamples=RESAMPLES, seed=random)
        labels = self.rows.labels
        return bootstrap.auc(labels, self.odds) - weight * bootstrap.auc(labels, self.other)

    def margin_of(self, lead: float) -> float:
        """The c that, taken off the log-odds of Yes rows, lowers the AUC of `odds` by `lead`.

        What is left of the AUC is the share of pairs whose Yes row is more than c above the No row,
        so c is a quantile of the pairs' differences. NaN where there is no lead.
        """
        # Written so that what is not a number is no lead.
        if not lead > 0 or self.obstacle():
            return math.nan
        is_liked = self.rows.labels == 1
        differences = _some(self.odds[is_liked])[:, None] - _some(self.odds[~is_liked])
        # A pair that ties counts half.
        lost = float(np.mean(differences < 0) + np.mean(differences <= 0)) / 2
        return float(np.quantile(differences, min(lost + lead, 1.0)))

    def obstacle(self) -> str:
        """Why these rows have no AUC, in a sentence; empty where they have one."""
        if not len(self.rows):
            return self.sentence("has no rows", NO_LEAD)
        if len(np.unique(self.rows.labels)) == 1:
            return self.sentence("has one answer alone", NO_LEAD)
        # Sorting would put what is not a number above all numbers, and an AUC would come of it.
        is_number = np.isfinite(self.odds) & np.isfinite(self.other)
        if not is_number.all():
            return (
                f"{self._subject} is answered by what is not a number, so {NO_LEAD}; train the "
                "recommender at a smaller learning rate, or in fp32."
            )
        return ""

    def sentence(self, reason: str, consequence: str) -> str:
        """What cannot be told, why not, and what would help."""
        return f"{self._subject} {reason}, so {consequence}; {self.remedy}."

    @property
    def has_one_user(self) -> bool:
        """Whether nothing shows how users differ."""
        return len(np.unique(self.rows.users)) == 1

    @property
    def _subject(self) -> str:
        return "The calibration set" if self.name == "calibration" else self.name


@dataclass(frozen=True)
class Lead:
    """What tuning on rows is worth to the original.

    Attributes:
        value: in AUC; NaN where it cannot be measured.
        error: standard error over users; NaN where it cannot be told.
        obstacle: why one of them is NaN, in a sentence; empty where none is.
        remedy: what would make the error smaller, as a clause.
    """

    value: float
    error: float
    obstacle: str
    remedy: str


def measure_lead(tuned: LeadSample, untuned: LeadSample, weight: float, seed: int) -> Lead:
    """What tuning is worth: the AUC difference of `tuned` less that of `untuned`.

    Args:
        tuned: rows that the original was tuned on.
        untuned: rows of users that it was not tuned on.
        weight: of the models without memory.
        seed: of the resamples.
    """
    samples = (tuned, untuned)
    figures = [sample.auc_difference(weight, seed) for sample in samples]
    lead = figures[0] - figures[1]
    error = _standard_error(lead)
    obstacles = [sample.obstacle() for sample in samples]
    if math.isnan(error):
        obstacles.append(_error_obstacle(samples, figures))
    errors = [np.nan_to_num(_standard_error(figure)) for figure in figures]
    loosest = samples[int(np.argmax(errors))]
    return Lead(float(lead[0]), error, first_sentence(obstacles), loosest.remedy)


def _some(odds: Floats) -> Floats:
    """`MOST_PAIRED` of them at most, from all over: rows may stand in the order of their users."""
    count = min(len(odds), MOST_PAIRED)
    places = np.linspace(0, len(odds) - 1, count).astype(int)
    some: Floats = odds[places]
    return some


def first_sentence(sentences: Sequence[str]) -> str:
    """The first that is not empty; one obstacle is enough to go on with."""
    return next(filter(None, sentences), "")


def _standard_error(figure: Figure) -> float:
    """Standard deviation of the resamples; NaN where too few are defined, or all are the same."""
    is_finite = np.isfinite(figure[1:])
    if is_finite.mean() < MIN_FINITE_SHARE:
        return math.nan
    error = float(np.std(figure[1:][is_finite], ddof=1))
    # Users always differ: an error of 0 means that resamples are one and the same set of users.
    return error or math.nan


def _error_obstacle(samples: Sequence[LeadSample], figures: Sequence[Figure]) -> str:
    """Which of `samples` leaves open how sure the lead is, in a sentence."""
    for sample in samples:
        if sample.has_one_user:
            return sample.sentence("is of one user", NO_ERROR)
    finite_counts = [np.isfinite(figure).sum() for figure in figures]
    weakest = samples[int(np.argmin(finite_counts))]
    return weakest.sentence("has too few users with both answers", NO_ERROR)
