"""The worst-forgotten user beside the mean: a good mean may hide one who is still known."""

from collections.abc import Iterator

import numpy as np

from ...core.arrays import Floats
from ...metrics.bootstrap import Interval
from ...metrics.classification import row_losses
from ..disclosure import MIN_ROWS
from ..evidence import Evidence
from ..measure import Column, Measure, Needs, Row
from ..roles import ORIGINAL, Role


class WorstUser(Measure):
    """`loss_R(u) − loss_p(u)` of each user u in D_f, in nats: their mean, and the largest.

    loss is the mean log loss over a user's rows, R the mean over the retrained models (other than
    the model itself). Above 0 the model knows more of her than retraining would. Users of fewer
    than five rows are left out. The largest of many differences is above 0 by chance alone: hold it
    against a retrained model's. This project's own measure.
    """

    name = "worst_user"
    title = "Knowledge of each forgotten user beyond the retrained models, in nats"
    place = 38
    columns = (
        Column("mean", "mean user"),
        Column("worst", "worst user"),
        Column("users", "users", 0, brief=False),
    )
    needs = Needs(candidates=True, retrained=2)

    def rows(self, evidence: Evidence) -> Iterator[Row]:
        """One row a model; none where no user has rows enough."""
        roles = [ORIGINAL, *evidence.candidates, evidence.retrained[0]]
        for role in roles:
            excess = _excess(evidence, role)
            if len(excess):
                values = {"mean": excess.mean(), "worst": excess.max(), "users": len(excess)}
                yield Row(role, {name: _bare(value) for name, value in values.items()})

    def note(self, evidence: Evidence) -> str:
        """What to hold the largest against."""
        excess = _excess(evidence, evidence.retrained[0])
        if not len(excess):
            return f"No user in D_f has {MIN_ROWS} rows."
        return f"By chance alone the worst user of a retrained model has {excess.max():.3f}."


def _excess(evidence: Evidence, role: Role) -> Floats:
    """(users,) how much lower the model's loss is than the retrained models', of each user."""
    rows = evidence.original.forget
    _, user, row_counts = np.unique(rows.users, return_inverse=True, return_counts=True)
    references = [other for other in evidence.retrained if other != role]
    losses = [_row_losses(evidence, other) for other in references]
    gaps = np.mean(losses, axis=0) - _row_losses(evidence, role)
    user_gaps = np.bincount(user, weights=gaps) / row_counts
    return np.asarray(user_gaps[row_counts >= MIN_ROWS])


def _row_losses(evidence: Evidence, role: Role) -> Floats:
    rows = evidence.models[role].forget
    return row_losses(rows.labels, rows.log_odds)


def _bare(value: float) -> Interval:
    """A figure without limits: resamples of users do not bound the largest of them."""
    return Interval(float(value), float("nan"), float("nan"), 1)
