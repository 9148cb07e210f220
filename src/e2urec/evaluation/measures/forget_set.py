"""How well a model tells liked from disliked on D_f, and on rows of users nobody was tuned on."""

from collections.abc import Iterator

from ..evidence import Evidence
from ..measure import Column, Measure, Row


class ForgetSet(Measure):
    """AUC and log loss on D_f, beside those on the unseen users' rows."""

    name = "forget_set"
    title = "What is left on D_f, beside users on whom no model was tuned"
    place = 20
    columns = (
        Column("forget_auc", "AUC on D_f"),
        Column("forget_log_loss", "log loss on D_f"),
        Column("unseen_auc", "AUC, unseen"),
        Column("unseen_log_loss", "log loss, unseen"),
    )

    def rows(self, evidence: Evidence) -> Iterator[Row]:
        """One row a model."""
        for role, figures in evidence.figures.items():
            row = {}
            for part in ("forget", "unseen"):
                bootstrap = evidence.bootstraps[part]
                for figure in ("auc", "log_loss"):
                    key = f"{part}_{figure}"
                    row[key] = bootstrap.interval(figures[key])
            yield Row(role, row)
