"""Headroom: what there is to forget. Where it reaches 0 the request is too small to measure."""

from collections.abc import Iterator

from ..evidence import Evidence
from ..measure import Column, Measure, Needs, Row
from ..roles import ORIGINAL


class Headroom(Measure):
    """AUC and log loss of the original on D_f, beyond the retrained models'."""

    name = "headroom"
    title = "What there is to forget: the original on D_f, beyond the retrained models"
    place = 35
    columns = (Column("auc", "AUC"), Column("loss", "log loss"))
    needs = Needs(retrained=1)

    def rows(self, evidence: Evidence) -> Iterator[Row]:
        """One row of the evaluation as a whole."""
        # The denominator of memory: where its interval reaches 0, memory means nothing.
        row = {}
        for measure in ("auc", "loss"):
            before = evidence.knowledge(measure)[ORIGINAL]
            after = evidence.knowledge_after_retraining(measure)
            row[measure] = evidence.forget_interval(before - after)
        yield Row(None, row)
