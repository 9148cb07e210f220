"""Memory: the share of what the original knows of D_f that is left. The primary measure."""

from collections.abc import Iterator

from ..evidence import Evidence
from ..measure import Column, Headline, Measure, Needs, Row
from ..roles import ORIGINAL


class Memory(Measure):
    """`M = (m(p) − m(R)) / (m(o) − m(R))`, with m the AUC on D_f, or its log loss, sign turned.

    0 = retrained, 1 = nothing done, below 0 = over-forgotten. Softening all answers does not change
    M of the AUC.
    """

    name = "memory"
    title = "Memory of D_f: 0 = retrained, 1 = nothing done"
    place = 30
    columns = (Column("auc", "M_auc", 2), Column("loss", "M_loss", 2))
    needs = Needs(candidates=True, retrained=1)
    headlines = (Headline("auc", "M_auc", narrow=True), Headline("loss", "M_loss"))

    def rows(self, evidence: Evidence) -> Iterator[Row]:
        """One row a candidate."""
        for role in evidence.candidates:
            # By AUC, which softening leaves alone, and by loss, which it does not.
            row = {}
            for measure in ("auc", "loss"):
                knowledge = evidence.knowledge(measure)
                after = evidence.knowledge_after_retraining(measure)
                row[measure] = evidence.forget_share(knowledge[role], knowledge[ORIGINAL], after)
            yield Row(role, row)
