"""Tables of measures as text: what terminal, page, Markdown and LaTeX show alike."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..evaluation.measure import Column, Row, Table
from ..evaluation.roles import Role, in_order
from ..metrics.bootstrap import Interval

# A dash and not an empty cell: the figure was looked for, and there is none.
MISSING = "–"
WIDTH = 80
"""Characters into which a table must fit; where intervals do not, it shows values alone."""
LIMITS_SIGNS = 4
"""Of an interval beside its digits: brackets, comma, space."""
UNBOUNDED = "not bounded"
"""In the place of an interval that any value would be in; no longer than `[-inf, inf]`."""


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
    if value is None or math.isnan(value):
        return MISSING
    return f"{value:.{digits}f}"


def with_limits(figure: Interval | None, digits: int, between: str = " ") -> str:
    """A value with its interval, such as `0.123 [0.100, 0.150]`, or the words that it has none."""
    if figure is None:
        return MISSING
    value = number(figure.value, digits)
    # Some figures of other papers come without limits.
    if math.isnan(figure.low):
        return value
    if math.isinf(figure.low) and math.isinf(figure.high):
        return f"{value}{between}{UNBOUNDED}"
    low = number(figure.low, digits)
    high = number(figure.high, digits)
    return f"{value}{between}[{low}, {high}]"


def sheet(table: Table, between: str = " ") -> Sheet:
    """A table as text; `between` stands between a value and its limits."""
    rows = [row for row in table.rows if _is_shown(table, row)]
    if table.spread:
        return _spread_sheet(table, rows, between)
    columns = _columns_in_use(table, rows)
    limits = _limits_fit(rows, columns)
    lines = []
    for row in _sorted(rows):
        cells = [_cell(row, column, between, limits=limits) for column in columns]
        label = _label(row, rows)
        lines.append(Line(label, tuple(cells), row.role))
    headings = tuple(column.title for column in columns)
    first = _first_heading(table, rows)
    return Sheet(table.title, first, headings, tuple(lines), table.note)


def _limits_fit(rows: Sequence[Row], columns: Sequence[Column]) -> bool:
    """Whether intervals, on a line of their own below each value, fit beside the labels."""
    width = max((len(_label(row, rows)) for row in rows), default=0)
    for column in columns:
        cells = [
            _limits_width(row.figures[column.key], column)
            for row in rows
            if column.key in row.figures
        ]
        width += 2 + max(cells, default=0)
    return width <= WIDTH


def _limits_width(figure: Interval, column: Column) -> int:
    ends = number(figure.low, column.digits) + number(figure.high, column.digits)
    return len(ends) + LIMITS_SIGNS


def _cell(row: Row, column: Column, between: str, *, limits: bool) -> str:
    figure = row.figures.get(column.key)
    # Where they fit, intervals say more than another column would.
    if limits or figure is None:
        return with_limits(figure, column.digits, between)
    return number(figure.value, column.digits)


def _spread_sheet(table: Table, rows: Sequence[Row], between: str) -> Sheet:
    """A line a model, with a column for each group."""
    # With a line a model and group nobody would find a model: groups go side by side instead.
    columns = {column.key: column for column in table.columns}
    usual = table.columns[0].key
    lines = []
    for role in _roles(rows):
        cells = []
        for group, key in table.spread.items():
            figure = table.find(key, role, group)
            cells.append(with_limits(figure, columns[key].digits, between))
        lines.append(Line(role.title, tuple(cells), role))
    headings = []
    for group, key in table.spread.items():
        # The note says what is marked.
        mark = "" if key == usual else "*"
        headings.append(table.group_titles.get(group, group) + mark)
    return Sheet(table.title, "model", tuple(headings), tuple(lines), table.note)


def _is_shown(table: Table, row: Row) -> bool:
    if row.minor:
        return False
    if row.role is None or table.about is None:
        return True
    return row.role.kind is table.about


def _columns_in_use(table: Table, rows: Sequence[Row]) -> list[Column]:
    """The columns for people of which some row has a figure; all of them where none has."""
    keys: set[str] = set()
    for row in rows:
        keys.update(row.figures)
    for_people = [column for column in table.columns if column.brief]
    return [column for column in for_people if column.key in keys] or for_people


def _roles(rows: Sequence[Row]) -> list[Role]:
    """The models of the rows, as tables list them."""
    roles = {row.role: None for row in rows if row.role is not None}
    return in_order(roles)


def _sorted(rows: Sequence[Row]) -> list[Row]:
    """By model as tables list them; the rows of one model stay in their order."""
    order = _roles(rows)

    def place(row: Row) -> int:
        # What is not about one model comes first.
        return -1 if row.role is None else order.index(row.role)

    return sorted(rows, key=place)


def _label(row: Row, rows: Sequence[Row]) -> str:
    if row.role is None:
        return row.group or "all rows"
    if not row.group:
        return row.role.title
    # A table about one model need not repeat its name in every line.
    if len(_roles(rows)) == 1:
        return row.group
    return f"{row.role.title}: {row.group}"


def _first_heading(table: Table, rows: Sequence[Row]) -> str:
    if table.group_title and len(_roles(rows)) == 1:
        return table.group_title
    return "model"
