"""The multiple of an update at which an AUC is down to a goal."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..core.arrays import Floats
from ..metrics.classification import auc

ROUNDS = 3
"""Multiples that are tried after the first ones, at most."""
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

    def stay_above(self, goal: float) -> bool:
        """Whether no multiple that was tried comes down to a goal."""
        return all(self.auc_at(scale) > goal for scale in self.tried)

    def least(self, goal: float, largest: float) -> tuple[float, float]:
        """The least multiple ≤ `largest` at which the AUC is down to `goal`, and the AUC there.

        Between tried multiples each row's log-odds are foretold by a parabola; where the AUC of
        these comes down to the goal is tried next, until it is within `TOLERANCE` or `ROUNDS` are
        over. Where no multiple comes down to it, that with the least AUC is returned. What is not a
        number lies beyond the goal, so a multiple with it is not returned.

        Args:
            goal: AUC to come down to, below the one at 0.
            largest: multiple, > 0.
        """
        low, high = self._interval(goal, largest)
        if self.auc_at(high) > goal:
            # Of multiples that are alike, the largest.
            lowest = min(sorted(self.tried, reverse=True), key=self.auc_at)
            return lowest, self.auc_at(lowest)
        for _ in range(ROUNDS):
            nearest = self._nearest(low, high, goal)
            # The original is not near to any goal, however little it has to come down.
            if nearest and abs(self.auc_at(nearest) - goal) <= TOLERANCE:
                return nearest, self.auc_at(nearest)
            scale = self._foretold(low, high, goal)
            if self.auc_at(scale) > goal:
                low = scale
            else:
                high = scale
        nearest = self._nearest(low, high, goal)
        return nearest, self.auc_at(nearest)

    def _interval(self, goal: float, largest: float) -> tuple[float, float]:
        """A multiple above the goal, and one that is down to it; if none is, the largest."""
        first = min(1.0, largest)
        if not self.auc_at(first) > goal or first == largest:
            return 0.0, first
        if not self.auc_at(largest) > goal:
            return first, largest
        # It may have come down in between, and risen again.
        lowest = min(self._grid(0.0, largest), key=self._foretold_auc)
        tried_auc = min(self.auc_at(first), self.auc_at(largest))
        if self._foretold_auc(lowest) < tried_auc - TOLERANCE and not self.auc_at(lowest) > goal:
            return (first if first < lowest else 0.0), lowest
        return first, largest

    def _nearest(self, low: float, high: float, goal: float) -> float:
        """The end of an interval that is nearer to the goal; no end whose AUC is no number."""
        if not math.isfinite(self.auc_at(high)):
            return low
        low_distance = self.auc_at(low) - goal
        high_distance = goal - self.auc_at(high)
        return low if low and low_distance < high_distance else high

    def _foretold(self, low: float, high: float, goal: float) -> float:
        """Where inside an interval the AUC should come down to the goal."""
        middle = (low + high) / 2
        if not math.isfinite(self.auc_at(high)):
            return middle
        for scale in self._grid(low, high):
            if self._foretold_auc(scale) <= goal:
                return scale
        return middle

    def _grid(self, low: float, high: float) -> list[float]:
        """Multiples inside an interval."""
        return [float(scale) for scale in np.linspace(low, high, GRID + 1)[1:-1]]

    def _foretold_auc(self, scale: float) -> float:
        return auc(self.labels, self._parabola(scale))

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


def limit_sentence(scale: float, largest: float, setting: str) -> str:
    """What to say of a student that no multiple up to `largest`, a setting, takes to its goal."""
    limit = f"{largest:g} times what was found ({setting})"
    if scale == largest:
        return f"The student came to its limit, {limit}."
    return (
        f"No multiple of the student up to {limit} comes to its target; at {scale:.2g} times its "
        "AUC on D_f is least."
    )
