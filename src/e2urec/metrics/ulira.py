"""U-LiRA: can a model that forgot a row be told from a retrained one, row by row?"""

import math
from dataclasses import dataclass

import numpy as np

from ..core.arrays import Floats
from ..core.errors import DataError

MIN_MODELS = 3
"""Models of a kind: one is left out, and a spread takes two more."""
MIN_SPREAD = 1e-6
"""Where all models say the same, a normal distribution would have no density."""


@dataclass(frozen=True)
class AttackScores:
    """How much likelier each margin is to come from a model that forgot than from a retrained one.

    Attributes:
        unlearned: (N, n) log-likelihood ratios of the models that forgot, in nats.
        retrained: (N, n) of the retrained models.
    """

    unlearned: Floats
    retrained: Floats

    def accuracy(self) -> Floats:
        """Share of the models that the attack names rightly, by row: (n,).

        The attack answers "it forgot" where the ratio is above 0, which is `p_u / (p_u + p_r) > ½`.
        0.5 = the models cannot be told apart. A ratio of 0 counts half.
        """
        caught = (self.unlearned > 0) + (self.unlearned == 0) / 2
        passed = (self.retrained < 0) + (self.retrained == 0) / 2
        return np.asarray((caught.mean(axis=0) + passed.mean(axis=0)) / 2)

    def tpr_at_fpr(self, rate: float) -> Floats:
        """Share of the models that forgot above all but `rate` of the retrained, by row: (n,).

        N models know false positive rates in steps of 1/N. At the same distribution it is not
        above `(k + 1) / (N + 1)`, k the false positives that `rate` allows, and below it where
        models are few: a model that is left out of a fit looks less like its kind than it is. Hold
        it against that of further retrained models.
        """
        allowed = _allowed(len(self.retrained), rate)
        highest_first = -np.sort(-self.retrained, axis=0)
        return np.asarray((self.unlearned > highest_first[allowed]).mean(axis=0))


def attack(unlearned: Floats, retrained: Floats, *, pooled: bool = False) -> AttackScores:
    """Attack each model by the margins of all others (U-LiRA: Hayes et al. 2024, arXiv 2403.01218).

    For each row `Λ(s) = ln N(s; μ_u, σ_u²) − ln N(s; μ_r, σ_r²)`, s the margin of the model that is
    attacked, μ and σ the mean and the sample deviation of the margins of the other unlearned (u)
    and retrained (r) models. One model of each kind is left out at a time. So neither distribution
    is fitted on more models than the other, and models of the same distribution are told apart at
    an accuracy of 0.5 on average, however few there are.

    The paper draws the training data anew for each model. Here all models share D_f and D_r and
    differ in their seeds, as KLOM's do: the question is about one request.

    Args:
        unlearned: (N, n) margins of N models that forgot, of seeds of their own.
        retrained: (N, n) margins of N retrained models.
        pooled: one variance for all rows of a kind, their mean: steadier where models are few
            (Carlini et al. 2022, arXiv 2112.03570).

    Raises:
        DataError: there are fewer than three models of a kind, or more of one than of the other.
    """
    model_count = len(unlearned)
    if model_count != len(retrained) or model_count < MIN_MODELS:
        raise DataError(
            f"U-LiRA of {model_count} unlearned and {len(retrained)} retrained models: it takes as "
            f"many of either, and at least {MIN_MODELS}; make more, of other seeds"
        )
    # In float64: models answer in float32, and variances are differences of squares.
    first = unlearned.astype(np.float64)
    second = retrained.astype(np.float64)
    unlearned_ratios = np.empty_like(first)
    retrained_ratios = np.empty_like(second)
    for number in range(model_count):
        first_normals = _Normals.fit(np.delete(first, number, axis=0), pooled=pooled)
        second_normals = _Normals.fit(np.delete(second, number, axis=0), pooled=pooled)
        unlearned_ratios[number] = first_normals.log_ratio(second_normals, first[number])
        retrained_ratios[number] = first_normals.log_ratio(second_normals, second[number])
    return AttackScores(unlearned_ratios, retrained_ratios)


def _allowed(model_count: int, rate: float) -> int:
    """False positives among so many models; fewer than all of them."""
    # 0.29 of 100 shall be 29, whatever binary fractions make of it.
    count = math.floor(rate * model_count + 1e-9)
    return min(count, model_count - 1)


@dataclass(frozen=True)
class _Normals:
    """A normal distribution for each row: mean and deviation, (n,)."""

    mean: Floats
    deviation: Floats

    @classmethod
    def fit(cls, margins: Floats, *, pooled: bool) -> "_Normals":
        """Those of (models, n) margins."""
        variance = margins.var(axis=0, ddof=1)
        if pooled:
            variance = np.full_like(variance, variance.mean())
        deviation = np.maximum(np.sqrt(variance), MIN_SPREAD)
        return cls(margins.mean(axis=0), deviation)

    def log_ratio(self, other: "_Normals", margins: Floats) -> Floats:
        """Log of how much likelier (n,) margins are under these than under `other`."""
        # The constant of both densities is the same.
        return other._penalty(margins) - self._penalty(margins)

    def _penalty(self, margins: Floats) -> Floats:
        deviations = (margins - self.mean) / self.deviation
        return np.asarray(deviations**2 / 2 + np.log(self.deviation))
