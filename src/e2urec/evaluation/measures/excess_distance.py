"""Excess distance: distance beyond the noise floor, as a share of the original's."""

from collections.abc import Iterator

import numpy as np

from ...metrics.bootstrap import Interval
from ..evidence import Evidence
from ..measure import Column, Headline, Measure, Needs, Row
from ..roles import ORIGINAL, Role


class ExcessDistance(Measure):
    """`(D(p, R) − floor) / (D(o, R) − floor)`, where the original is surely beyond the floor."""

    name = "excess_distance"
    title = "Distance beyond the noise floor, as a share of the original's"
    place = 52
    columns = (
        Column("js", "JS", 2),
        Column("jeffreys", "Jeffreys/2", 2),
        Column("l2", "L2", 2),
        Column("js_answers", "JS of answers", 2),
        Column("jeffreys_answers", "Jeffreys/2 of answers", 2, brief=False),
        Column("l2_answers", "L2 of answers", 2, brief=False),
    )
    needs = Needs(candidates=True, retrained=2)
    headlines = (Headline("js", "JS beyond floor"),)

    def rows(self, evidence: Evidence) -> Iterator[Row]:
        """One row a candidate, with the distances that mean something."""
        for role in evidence.candidates:
            yield Row(role, self._shares(evidence, role))

    def note(self, evidence: Evidence) -> str:
        """Say why a share is missing."""
        # Whether there is a share depends on the original alone, which all are held against.
        if "js" in self._shares(evidence, ORIGINAL):
            return ""
        return (
            "–: the original itself may lie within the noise floor, so there is no share to tell."
        )

    def _shares(self, evidence: Evidence, role: Role) -> dict[str, Interval]:
        floor = evidence.noise_floor
        before = evidence.distances_to_retrained(ORIGINAL)
        row = {}
        for name, figure in evidence.distances_to_retrained(role).items():
            share = evidence.forget_share(figure, before[name], floor[name])
            # Without limits where the original itself may lie within the floor.
            if np.isfinite(share.low):
                row[name] = share
        return row
