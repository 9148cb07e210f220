"""Utility: how well a model recommends, on test rows."""

from collections.abc import Iterator

import numpy as np

from ..evidence import UTILITY, Evidence
from ..measure import Column, Headline, Measure, Row
from ..roles import ORIGINAL


class Utility(Measure):
    """Figures on the test rows, and the AUC less the original's and the other retrained models'."""

    name = "utility"
    title = "Utility on test rows"
    place = 10
    on_forget_set = False
    columns = (
        Column("auc", "AUC"),
        Column("gauc", "AUC in users"),
        Column("accuracy", "accuracy"),
        Column("log_loss", "log loss"),
        Column("ece", "ECE"),
        Column("auc_difference", "AUC − original's"),
        Column("auc_to_retrained", "AUC − retrained's", brief=False),
    )
    headlines = (
        Headline("auc", "test AUC", 3),
        Headline("auc_difference", "test AUC − original's", 3, narrow=True),
    )

    def rows(self, evidence: Evidence) -> Iterator[Row]:
        """One row a model; the original has no difference to itself."""
        bootstrap = evidence.bootstraps["test"]
        before = evidence.figures[ORIGINAL]["auc"]
        for role, figures in evidence.figures.items():
            row = {}
            for name in UTILITY:
                row[name] = bootstrap.interval(figures[name])
            if role != ORIGINAL:
                # Both on the same resamples, so that hard users cancel.
                difference = figures["auc"] - before
                row["auc_difference"] = bootstrap.interval(difference)
            others = [other for other in evidence.retrained if other != role]
            if others:
                aucs = [evidence.figures[other]["auc"] for other in others]
                row["auc_to_retrained"] = bootstrap.interval(figures["auc"] - np.mean(aucs, axis=0))
            yield Row(role, row)
