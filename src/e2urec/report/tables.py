"""Tables of measures as text: what terminal, page, Markdown and LaTeX show alike."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..evaluation.measure import Column, Row, Table
from ..evaluation.roles import Role, in_order
from ..metrics.bootstrap import Interval

MISSING = "–"
MAX_WITH_LIMITS = 4
"""Columns beyond which a table shows values alone: intervals would not fit into 80 characters."""


@dataclass(frozen=True)
class Line:
    """One line of a sheet.

    Attributes:
        label: what it is about.
        cells: one a heading.
        role: whose figures they are; None for the evaluation as a whole.
    """

    label: str
    cells: tuple[str, ...]
    role: Role | None = None


@dataclass(frozen=True)
class Sheet:
    """A table as text.

    Attributes:
        title: above it.
        first: heading of the labels.
        headings: of the cells.
        lines: in order.
        note: a sentence below it; empty if there is none.
    """

    title: str
    first: str
    headings: tuple[str, ...]
    lines: tuple[Line, ...]
    note: str = ""


def number(value: float | None, digits: int) -> str:
    """A value, or a dash where there is none."""
    return MISSING if value is None or value != value else f"{value:.{digits}f}"


def with_limits(figure: Interval | None, digits: int, between: str = " ") -> str:
    """A value with its interval, such as `0.123 [0.100, 0.150]`."""
    if figure is None:
        return MISSING
    value = number(figure.value, digits)
    if figure.low != figure.low:  # a figure that has no limits
        return value
    return f"{value}{between}[{figure.low:.{digits}f}, {figure.high:.{digits}f}]"


def sheet(table: Table, between: str = " ") -> Sheet:
    """A table as text; `between` stands between a value and its limits."""
    rows = [row for row in table.rows if _is_shown(table, row)]
    if table.spread:
        return _spread_sheet(table, rows, between)
    columns = _columns_in_use([column for column in table.columns if column.brief], rows)
    limits = len(columns) <= MAX_WITH_LIMITS
    lines = []
    for row in _sorted(rows):
        figures = [row.figures.get(column.key) for column in columns]
        cells = []
        for figure, column in zip(figures, columns, strict=True):
            if limits:
                cells.append(with_limits(figure, column.digits, between))
            else:
                cells.append(number(None if figure is None else figure.value, column.digits))
        lines.append(Line(_label(table, row, rows), tuple(cells), row.role))
    headings = tuple(column.title for column in columns)
    return Sheet(table.title, _first_heading(table, rows), headings, tuple(lines), table.note)


def _spread_sheet(table: Table, rows: Sequence[Row], between: str) -> Sheet:
    """A line a model, with a column for each group."""
    column = next(column for column in table.columns if column.key == table.spread)
    groups = tuple(dict.fromkeys(row.group for row in rows))
    lines = []
    for role in in_order(dict.fromkeys(row.role for row in rows if row.role is not None)):
        figures = [table.find(column.key, role, group) for group in groups]
        cells = tuple(with_limits(figure, column.digits, between) for figure in figures)
        lines.append(Line(role.title, cells, role))
    headings = tuple(group.replace("_", ", by ") for group in groups)
    return Sheet(table.title, "model", headings, tuple(lines), table.note)


def _is_shown(table: Table, row: Row) -> bool:
    if row.minor or row.role is None:
        return not row.minor
    return table.about is None or row.role.kind is table.about


def _columns_in_use(columns: Iterable[Column], rows: Sequence[Row]) -> list[Column]:
    return [column for column in columns if any(column.key in row.figures for row in rows)]


def _sorted(rows: Sequence[Row]) -> list[Row]:
    """By model as tables list them; the rows of one model stay in their order."""
    order = in_order(dict.fromkeys(row.role for row in rows if row.role is not None))
    return sorted(rows, key=lambda row: -1 if row.role is None else order.index(row.role))


def _label(table: Table, row: Row, rows: Sequence[Row]) -> str:
    if row.role is None:
        return row.group or "all rows"
    if not row.group:
        return row.role.title
    alone = all(other.role == row.role for other in rows)
    return row.group if alone else f"{row.role.title}: {row.group}"


def _first_heading(table: Table, rows: Sequence[Row]) -> str:
    models = {row.role for row in rows}
    return table.group_title if table.group_title and len(models) == 1 else "model"
