"""Retained memory: the share of what the original knows of D_r that is still there."""

from collections.abc import Iterator

import numpy as np

from ...metrics.bootstrap import Interval
from ..evidence import Evidence
from ..measure import Column, Headline, Measure, Needs, Row
from ..roles import ORIGINAL, Role


class RetainedMemory(Measure):
    """`(AUC_Dr(p) − never) / (AUC_Dr(o) − never)` over a sample of D_r.

    `never` is what these rows would score under a model that was never tuned on their users: the
    original's AUC on the unseen users, carried over to D_r by the control model c (a control
    variate, see `data.difficulty`): `never = AUC_unseen(o) + b·[AUC_Dr(c) − AUC_unseen(c)]`.

    1 = D_r is remembered as before, 0 = as if no model had been tuned on it. This project's own
    measure.
    """

    name = "retained_memory"
    title = "Memory of D_r: 1 = as before, 0 = as of users nobody was tuned on"
    place = 45
    on_forget_set = False
    columns = (
        Column("auc", "AUC on D_r"),
        Column("share", "retained memory", 2),
        # Of no single model, so that it stands in the note and in the files alone.
        Column("never", "AUC without memory", brief=False),
    )
    needs = Needs(candidates=True, retain=True)
    headlines = (Headline("share", "retained memory"),)

    def rows(self, evidence: Evidence) -> Iterator[Row]:
        """One row a model, and `never`; the AUC alone where there is no share to tell."""
        bootstrap = evidence.bootstraps["retain"]
        never = evidence.never_tuned_auc
        for role, figures in evidence.figures.items():
            row = {"auc": bootstrap.interval(figures["retain_auc"])}
            share = _share(evidence, role)
            # The original's is 1 by definition.
            if role != ORIGINAL and np.isfinite(share.low):
                row["share"] = share
            yield Row(role, row)
        yield Row(None, {"never": bootstrap.interval(never)}, minor=True)

    def note(self, evidence: Evidence) -> str:
        """What `never` is, and why a share is missing."""
        never = evidence.never_tuned_auc
        text = f"AUC on D_r of a model that was never tuned on its users, estimated: {never[0]:.3f}"
        # Whether there is a share depends on the original alone, which all are held against.
        if np.isfinite(_share(evidence, ORIGINAL).low):
            return f"{text}."
        return f"{text}; the original may know no more than that, so there is no share to tell."


def _share(evidence: Evidence, role: Role) -> Interval:
    """Without limits where the original may know no more of D_r than `never`."""
    return evidence.bootstraps["retain"].interval(evidence.retained_share(role))
