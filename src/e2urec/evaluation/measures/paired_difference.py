"""Paired difference: a method of a comparison less e2urec, on the same rows and resamples."""

from collections.abc import Iterator

import numpy as np

from ..evidence import Evidence
from ..measure import Column, Measure, Needs, Row
from ..roles import OURS


class PairedDifference(Measure):
    """`m(p) − m(e2urec)`, user by user drawn alike, so that hard rows cancel.

    `memory_distance` is of |M_auc|: below 0 the model is nearer to retraining than e2urec's,
    whichever side of it either is on. `test_auc` is of the AUC on the test rows, `retained_memory`
    of the memory of D_r.
    """

    name = "paired_difference"
    title = "Less e2urec, on the same rows"
    place = 46
    brief = False
    columns = (
        Column("memory_distance", "|M_auc| − e2urec's", 2),
        Column("test_auc", "test AUC − e2urec's"),
        Column("retained_memory", "retained memory − e2urec's", 2),
    )
    needs = Needs(candidates=True, retrained=1, rivals=True)

    def rows(self, evidence: Evidence) -> Iterator[Row]:
        """One row a candidate but e2urec itself."""
        for role in evidence.candidates:
            if role == OURS:
                continue
            distance = np.abs(evidence.memory(role)) - np.abs(evidence.memory(OURS))
            test_auc = evidence.figures[role]["auc"] - evidence.figures[OURS]["auc"]
            row = {
                "memory_distance": evidence.forget_interval(distance),
                "test_auc": evidence.bootstraps["test"].interval(test_auc),
            }
            if evidence.knows_retained_rows:
                share = evidence.retained_share(role) - evidence.retained_share(OURS)
                row["retained_memory"] = evidence.bootstraps["retain"].interval(share)
            yield Row(role, row)
