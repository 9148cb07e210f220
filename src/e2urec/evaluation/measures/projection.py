"""Projection: memory along the direction in which D_f moves originals."""

from collections.abc import Iterator

from ...core.arrays import Floats
from ..evidence import Evidence
from ..measure import Column, Headline, Measure, Needs, Row
from ..roles import ORIGINAL, Role


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
        assert evidence.twin is not None
        bootstrap = evidence.bootstraps["forget"]
        # Two different ones, so that no seed stands on both sides of a product.
        first, second = evidence.retrained[:2]
        retrained = self._scores(evidence, first)
        other = self._scores(evidence, second)
        twin = evidence.twin.forget.log_odds
        original = self._scores(evidence, ORIGINAL)
        for role in evidence.candidates:
            model = self._scores(evidence, role)
            figure = bootstrap.projection(model, retrained, twin, other, original)
            yield Row(role, {"projection": bootstrap.interval(figure)})

    def _scores(self, evidence: Evidence, role: Role) -> Floats:
        return evidence.models[role].forget.log_odds
