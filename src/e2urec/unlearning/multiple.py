"""The multiple of an update at which an AUC is down to a goal."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..core.arrays import Floats
from ..metrics.classification import auc

ROUNDS = 3
"""Multiples that are tried after the first and the largest, at most."""
TOLERANCE = 0.002
"""How near to the goal is near enough: an AUC of a few hundred rows is ten times less sure."""
GRID = 64
"""Multiples between two tried ones at which the AUC is foretold."""


@dataclass
class Multiples:
    """Log-odds of some rows at multiples of an update, as far as they were tried.

    Attributes:
        labels: of the rows, (n,), 1 for Yes.
        odds_at: the log-odds (n,) at a multiple; this is what takes time.
        tried: log-odds by multiple; those at 0 are known from the start.
    """

    labels: np.ndarray
    odds_at: Callable[[float], Floats]
    tried: dict[float, Floats] = field(default_factory=dict)

    def auc_at(self, scale: float) -> float:
        """AUC of the rows at a multiple."""
        if scale not in self.tried:
            self.tried[scale] = self.odds_at(scale)
        return auc(self.labels, self.tried[scale])

    def least(self, goal: float, largest: float) -> tuple[float, float]:
        """The least multiple ≤ `largest` at which the AUC is down to `goal`, and the AUC there.

        Between tried multiples each row's log-odds are foretold by a parabola; where the AUC of
        these comes down to the goal is tried next, until it is within `TOLERANCE` or `ROUNDS` are
        over. What is not a number lies beyond the goal, so a multiple with it is not returned.

        Args:
            goal: AUC to come down to, below the one at 0.
            largest: multiple, > 0.
        """
        low = 0.0
        high = min(1.0, largest)
        if self.auc_at(high) > goal and high < largest:
            low = high
            high = largest
        if self.auc_at(high) > goal:
            return high, self.auc_at(high)
        for _ in range(ROUNDS):
            nearest = self._nearest(low, high, goal)
            if abs(self.auc_at(nearest) - goal) <= TOLERANCE:
                return nearest, self.auc_at(nearest)
            scale = self._foretold(low, high, goal)
            if self.auc_at(scale) > goal:
                low = scale
            else:
                high = scale
        nearest = self._nearest(low, high, goal)
        return nearest, self.auc_at(nearest)

    def _nearest(self, low: float, high: float, goal: float) -> float:
        """The end of an interval that is nearer to the goal; no end whose AUC is no number."""
        low_distance = abs(self.auc_at(low) - goal)
        high_distance = abs(self.auc_at(high) - goal)
        # Written so that what is not a number is never nearer.
        return high if high_distance <= low_distance else low

    def _foretold(self, low: float, high: float, goal: float) -> float:
        """Where inside an interval the AUC should come down to the goal."""
        middle = (low + high) / 2
        if not math.isfinite(self.auc_at(high)):
            return middle
        for scale in np.linspace(low, high, GRID + 1)[1:-1]:
            if auc(self.labels, self._parabola(float(scale))) <= goal:
                return float(scale)
        return middle

    def _parabola(self, scale: float) -> Floats:
        """Log-odds at a multiple, (n,), through those at the three nearest that were tried."""
        finite = [tried for tried, odds in self.tried.items() if np.isfinite(odds).all()]
        nodes = sorted(finite, key=lambda tried: abs(tried - scale))[:3]
        odds: Floats = np.zeros(len(self.labels))
        for node in nodes:
            others = [other for other in nodes if other != node]
            weight = math.prod((scale - other) / (node - other) for other in others)
            odds = odds + weight * self.tried[node]
        return odds
