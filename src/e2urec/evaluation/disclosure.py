"""What is written of the forget set: figures that do not give its rows away.

A figure of very few rows is these rows, thinly veiled, and so is a figure with all its digits: with
the model at hand, a log loss to sixteen digits confirms a guess of D_f. So figures on D_f leave
this package with three significant digits, and not at all where D_f has fewer than five rows.
Everything is computed with all rows and all digits; only what is written and shown is affected.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from ..metrics.bootstrap import Interval
from ..unlearning.outcome import REMEDY, Outcome
from ..unlearning.task import PhaseLog
from .measure import Row, Table
from .verdict import REHEARSAL, Verdict

MIN_ROWS = 5
"""Rows of D_f below which no figure on it is told."""
DIGITS = 3
"""Significant digits, of differences decimals: more than an interval on D_f leaves certain."""
LEFT_OUT = (
    f"Figures on D_f are left out: it has fewer than {MIN_ROWS} rows, and they would tell what "
    "these rows were."
)


@dataclass(frozen=True)
class _RoundedFigure(Interval):
    """A figure that is written with fewer digits than it has."""

    @classmethod
    def of(cls, figure: Interval) -> Self:
        """The same figure."""
        return cls(figure.value, figure.low, figure.high, figure.n)


@dataclass(frozen=True)
class ForgetSetFigure(_RoundedFigure):
    """A figure on D_f, which is written with three significant digits."""

    def as_dict(self) -> dict[str, float | int]:
        """The rounded numbers, and how many rows they rest on."""
        rounded: dict[str, float | int] = rounded_values(super().as_dict())
        return rounded


@dataclass(frozen=True)
class SliceDifference(_RoundedFigure):
    """A difference on a slice that D_f may decide, which is written with three decimals.

    Of a difference near zero three significant digits would still tell guesses of D_f apart.
    """

    def as_dict(self) -> dict[str, float | int]:
        """The rounded numbers, and how many rows they rest on."""
        return {name: round(value, DIGITS) for name, value in super().as_dict().items()}


def is_told(rows: int) -> bool:
    """Whether figures on a D_f of so many rows are written and shown."""
    return rows >= MIN_ROWS


def disclosed_table(table: Table, rows: int) -> Table | None:
    """A table of figures on a D_f of so many rows, as it is written; None: not at all."""
    if not is_told(rows):
        return None
    return replace(table, rows=tuple(_disclosed_row(row) for row in table.rows))


def _disclosed_row(row: Row) -> Row:
    figures = {key: ForgetSetFigure.of(figure) for key, figure in row.figures.items()}
    return replace(row, figures=figures)


def disclosed_verdict(verdict: Verdict, rows: int) -> Verdict:
    """A verdict as it is written: its outcome stays, and its reason is told without figures."""
    # A rehearsal measured other rows than those of the request.
    if verdict.basis == REHEARSAL:
        return verdict
    memory = ForgetSetFigure.of(verdict.memory)
    if is_told(rows):
        return replace(verdict, memory=memory)
    hidden = ForgetSetFigure(math.nan, -math.inf, math.inf, verdict.memory.n)
    return replace(verdict, memory=hidden, reason=f"D_f has fewer than {MIN_ROWS} rows")


def outcome_record(outcome: Outcome, rows: int) -> dict[str, Any]:
    """What a method says of how far it came, as it is written."""
    record: dict[str, Any] = rounded_values(outcome.as_dict())
    if is_told(rows):
        return record
    settings = {name: record[name] for name in ("alpha", "start_scale", "scale")}
    told = f"How much is left cannot be told from this request alone; {REMEDY}."
    sentences = [LEFT_OUT, *outcome.without_figures, *outcome.notes, told]
    return settings | {"is_done": outcome.is_done, "sentences": sentences}


def phase_records(logs: Sequence[PhaseLog], rows: int) -> list[dict[str, Any]]:
    """The logs of a method's phases, as they are written."""
    if not is_told(rows):
        return []
    return [rounded_values(vars(log)) for log in logs]


def rounded_values(value: Any) -> Any:
    """The same plain value with three significant digits of every number that is no count."""
    if isinstance(value, Mapping):
        return {key: rounded_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded_values(item) for item in value]
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.{DIGITS}g}")
    return value
