"""Excess distance: distance beyond the noise floor, as a share of the original's."""

from collections.abc import Iterator

import numpy as np

from ..evidence import Evidence
from ..measure import Column, Headline, Measure, Needs, Row
from ..roles import ORIGINAL


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
        floor = evidence.noise_floor
        before = evidence.distances_to_retrained(ORIGINAL)
        for role in evidence.candidates:
            row = {}
            for name, figure in evidence.distances_to_retrained(role).items():
                share = evidence.forget_share(figure, before[name], floor[name])
                # Without limits where the original itself may lie within the floor.
                if np.isfinite(share.low):
                    row[name] = share
            yield Row(role, row)
