"""What a model says of rewritten rows, asked by the prompts that the original was tuned on."""

from collections.abc import Iterator

import numpy as np

from ..evidence import Evidence
from ..measure import Column, Measure, Needs, Row


class Rewritten(Measure):
    """AUC on the old prompts of rewritten rows, and `mean |δ − δ_o|` there.

    δ are log-odds of Yes against No, o is the original. These rows stay, so nothing of them is to
    be un-known. A retrained model has seen them with new prompts: what it says of the old ones is
    what to compare with. This project's own measure.
    """

    name = "rewritten"
    title = "Rewritten rows, asked by their old prompts"
    place = 47
    columns = (Column("auc", "AUC"), Column("moved", "moved since the original"))
    needs = Needs(candidates=True, rewritten=True)

    def rows(self, evidence: Evidence) -> Iterator[Row]:
        """One row a model."""
        bootstrap = evidence.bootstraps["rewritten"]
        before = evidence.original.parts()["rewritten"]
        for role, answers in evidence.models.items():
            rows = answers.parts()["rewritten"]
            change = np.abs(rows.log_odds - before.log_odds)
            figures = {
                "auc": bootstrap.auc(rows.labels, rows.log_odds),
                "moved": bootstrap.mean(change),
            }
            intervals = {key: bootstrap.interval(figure) for key, figure in figures.items()}
            yield Row(role, intervals)
