"""Alignment: whether a model moved on D_f in the direction in which retraining moves it."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from ...metrics.bootstrap import Figure, Interval
from ..evidence import Evidence
from ..measure import Column, Headline, Measure, Needs, Row
from ..roles import Role


class Alignment(Measure):
    """`corr(δ_p − δ_o, δ_R − δ_o)` over D_f, δ the log-odds of Yes against No.

    The mean over the retrained models R. Its ceiling is the same between two retrained models, the
    mean over their pairs, and `ratio` is the share of the ceiling that is reached. A model that
    changes other rows than retraining does scores low, whatever its memory is. This project's own
    measure.
    """

    name = "alignment"
    title = "Direction of the change on D_f, against that of retraining"
    place = 42
    columns = (
        Column("correlation", "correlation", 2),
        Column("ratio", "alignment", 2),
        # Of no single model, so that it stands in the note and in the files alone.
        Column("ceiling", "ceiling", 2, brief=False),
    )
    needs = Needs(candidates=True, retrained=1)
    headlines = (Headline("ratio", "alignment"),)

    def rows(self, evidence: Evidence) -> Iterator[Row]:
        """One row a candidate, without what it has not; and the ceiling."""
        ceiling = _ceiling(evidence)
        for role in evidence.candidates:
            yield Row(role, _figures(evidence, role, ceiling))
        if ceiling is not None:
            yield Row(None, {"ceiling": evidence.forget_interval(ceiling)}, minor=True)

    def note(self, evidence: Evidence) -> str:
        """The ceiling, and why a figure is missing."""
        text = _note_on_ceiling(_ceiling(evidence), evidence)
        for role in evidence.candidates:
            correlation = _correlation_with_retrained(evidence, role)
            if np.isnan(correlation[0]):
                return f"{text} –: a model that did not move on D_f has no direction."
        return text


def _note_on_ceiling(ceiling: Figure | None, evidence: Evidence) -> str:
    if ceiling is None:
        return "Alignment is unknown: its ceiling takes two retrained models."
    interval = evidence.forget_interval(ceiling)
    value = f"{interval.value:.2f}"
    text = f"Alignment is the share of the correlation between two retrained models ({value})"
    if interval.low > 0:
        return f"{text}."
    return f"{text}, which may be 0: there is no share to tell."


def _figures(evidence: Evidence, role: Role, ceiling: Figure | None) -> dict[str, Interval]:
    correlation = _correlation_with_retrained(evidence, role)
    # A model that did not move has no direction.
    if np.isnan(correlation[0]):
        return {}
    figures = {"correlation": evidence.forget_interval(correlation)}
    if ceiling is not None:
        ratio = evidence.forget_share(correlation, ceiling, np.zeros_like(ceiling))
        # Without limits where the ceiling itself may be 0.
        if np.isfinite(ratio.low):
            figures["ratio"] = ratio
    return figures


def _correlation_with_retrained(evidence: Evidence, role: Role) -> Figure:
    figures = [evidence.correlation(role, other) for other in evidence.retrained]
    return np.asarray(np.mean(figures, axis=0))


def _ceiling(evidence: Evidence) -> Figure | None:
    """The mean correlation between two retrained models; None where there is only one."""
    pairs = combinations(evidence.retrained, 2)
    figures = [evidence.correlation(role, other) for role, other in pairs]
    if not figures:
        return None
    return np.asarray(np.mean(figures, axis=0))
