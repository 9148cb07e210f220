"""Relearning: does what was forgotten come back sooner than it would have come?"""

from collections.abc import Iterator

import numpy as np

from ..evidence import Evidence
from ..measure import Column, Measure, Needs, Row
from ..roles import RoleKind


class Relearning(Measure):
    """Steps on D_f until the loss is the original's, and their ratio to the retrained models'.

    A ratio below 1 means that D_f comes back sooner than it would in a model that never knew it.
    """

    name = "relearning"
    title = "Relearning D_f: steps until the loss is the original's"
    place = 80
    columns = (Column("steps", "steps", 0), Column("ratio", "ratio to retrained", 2))
    needs = Needs(relearning=True)

    def rows(self, evidence: Evidence) -> Iterator[Row]:
        """One row a model that was made to relearn."""
        steps = evidence.relearning
        references = [figure for role, figure in steps.items() if role.kind is RoleKind.RETRAINED]
        for role, figure in steps.items():
            row = {"steps": evidence.forget_interval(figure)}
            if references and role.kind is not RoleKind.RETRAINED:
                mean = np.mean(references, axis=0)
                # Where retrained models need no step there is no ratio: not a number, no error.
                with np.errstate(invalid="ignore", divide="ignore"):
                    ratio = figure / mean
                row["ratio"] = evidence.forget_interval(ratio)
            yield Row(role, row)
