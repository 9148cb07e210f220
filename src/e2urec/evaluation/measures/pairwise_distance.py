"""Pairwise distance: each model against each retrained model."""

from collections.abc import Iterator

from ..evidence import Evidence
from ..measure import Measure, Needs, Row
from .distance import COLUMNS, forget_intervals


class PairwiseDistance(Measure):
    """Distances on D_f, pair by pair: they show how much an unsigned distance can mislead."""

    name = "pairwise_distance"
    title = "Distance to each retrained model on D_f"
    place = 53
    columns = COLUMNS
    needs = Needs(retrained=1)
    group_title = "to"
    brief = False

    def rows(self, evidence: Evidence) -> Iterator[Row]:
        """One row a model and retrained model."""
        for role in evidence.models:
            for other in evidence.retrained:
                if other == role:
                    continue
                row = forget_intervals(evidence, evidence.distances(role, other))
                yield Row(role, row, group=other.key)
