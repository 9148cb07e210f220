"""Figures that other papers report. For comparison only: nothing is gated on them."""

from collections.abc import Iterator

import numpy as np
from scipy import special

from ...core.arrays import Floats
from ...metrics.bootstrap import Interval
from ...metrics.classification import row_losses
from ...metrics.published import ks_tofu, priv_leak, residual_bota
from ...models.predictions import Predictions
from ..evidence import Evidence
from ..measure import Column, Measure, Needs, Row
from ..roles import Role


class Published(Measure):
    """BOTA's residual, TOFU's KS p-value and MUSE's PrivLeak, against the first retrained model."""

    name = "published"
    title = "Figures of other papers, for comparison only"
    place = 90
    columns = (
        Column("residual_bota", "residual (BOTA)", 2),
        Column("ks_tofu", "KS p-value (TOFU)", 3),
        Column("priv_leak", "PrivLeak (MUSE)", 1),
    )
    needs = Needs(candidates=True, retrained=1)
    # In the files only: a table would invite to judge by them.
    brief = False

    def rows(self, evidence: Evidence) -> Iterator[Row]:
        """One row a candidate; these figures have no limits."""
        reference = evidence.retrained[0]
        original = evidence.original.forget
        retrained = evidence.models[reference].forget
        # Against one retrained model, as these papers do: the noise of its seed counts as memory.
        for role in evidence.candidates:
            model = evidence.models[role].forget
            residual = residual_bota(_scores(model), _scores(retrained), _scores(original))
            values = {
                "residual_bota": residual,
                "ks_tofu": ks_tofu(_losses(model), _losses(retrained)),
                "priv_leak": priv_leak(_detected(evidence, role), _detected(evidence, reference)),
            }
            rows = len(model.users)
            yield Row(role, {name: _without_limits(value, rows) for name, value in values.items()})


def _scores(rows: Predictions) -> Floats:
    log_odds = rows.log_odds.astype(np.float64)
    return np.asarray(special.expit(log_odds))


def _losses(rows: Predictions) -> Floats:
    return row_losses(rows.labels, rows.log_odds)


def _detected(evidence: Evidence, role: Role) -> float:
    """AUC of the loss attack, by row."""
    attacks = evidence.attacks(role)
    return attacks["loss"]["auc"].value


def _without_limits(value: float, rows: int) -> Interval:
    nan = float("nan")
    return Interval(value, nan, nan, rows)
