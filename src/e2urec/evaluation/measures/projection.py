"""Projection: memory along the direction in which D_f moves originals."""

from collections.abc import Iterator

import numpy as np

from ...core.arrays import Floats
from ...metrics.bootstrap import remaining
from ..evidence import Evidence
from ..measure import Column, Headline, Measure, Needs, Row
from ..roles import ORIGINAL


class Projection(Measure):
    """`⟨p − r1, o' − r2⟩ / ⟨o − r1, o' − r2⟩` over the log-odds on D_f.

    The twin o', r1 and r2 come from independent seeds, so the noise of seeds averages out.
    1 = nothing done, 0 = retrained.
    """

    name = "projection"
    title = "Memory along the direction in which D_f moves originals"
    place = 40
    columns = (Column("projection", "projection", 2),)
    needs = Needs(candidates=True, retrained=2, twin=True)
    headlines = (Headline("projection", "projection"),)

    def rows(self, evidence: Evidence) -> Iterator[Row]:
        """One row a candidate."""
        bootstrap = evidence.bootstraps["forget"]
        scores: dict[object, Floats] = {
            role: answers.forget.odds for role, answers in evidence.models.items()
        }
        first, second = (scores[role].astype(np.float64) for role in evidence.retrained[:2])
        assert evidence.twin is not None
        direction = evidence.twin.forget.odds - second
        before = bootstrap.total((scores[ORIGINAL] - first) * direction)
        after = np.zeros_like(before)
        for role in evidence.candidates:
            total = bootstrap.total((scores[role] - first) * direction)
            figure = remaining(total, before, after)
            yield Row(role, {"projection": bootstrap.interval(figure)})
