"""Memory: the share of what the original knows of D_f that is left. The primary measure."""

from collections.abc import Iterator

from ..evidence import Evidence
from ..measure import Column, Headline, Measure, Needs, Row


class Memory(Measure):
    """`M = (m(p) − m(R)) / (m(o) − m(R))`, with m the AUC on D_f, or its log loss, sign turned.

    0 = retrained, 1 = nothing done, below 0 = over-forgotten. Softening all answers does not change
    M of the AUC. Where each user had a model of her own, `within` is M of the mean AUC of users: it
    does not see that one model says Yes more often than another.
    """

    name = "memory"
    title = "Memory of D_f: 0 = retrained, 1 = nothing done"
    place = 30
    columns = (
        Column("auc", "M_auc", 2),
        Column("within", "M_auc within users", 2, brief=False),
        Column("loss", "M_loss", 2),
    )
    needs = Needs(candidates=True, retrained=1)
    headlines = (
        Headline("auc", "M_auc", narrow=True),
        Headline("within", "M_auc within users"),
        Headline("loss", "M_loss"),
    )

    def rows(self, evidence: Evidence) -> Iterator[Row]:
        """One row a candidate."""
        for role in evidence.candidates:
            # By AUC, which softening leaves alone, and by loss, which it does not.
            row = {}
            for measure in ("auc", "loss"):
                row[measure] = evidence.forget_interval(evidence.memory(role, measure))
            if evidence.is_of_singles:
                row["within"] = evidence.forget_interval(evidence.memory_within(role))
            yield Row(role, row)
