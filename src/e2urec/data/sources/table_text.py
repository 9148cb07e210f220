"""Values of any kind as the text that a CSV would hold: so every format gives the same rows."""

import math
from typing import Any

import polars as pl

from ...core.errors import DataError
from .table_columns import ColumnNames, column_positions

# from here on a float does not tell apart all whole numbers: two ids could become one
EXACT = 2**53
PLAIN = (pl.String, pl.Boolean, pl.Date, pl.Null, pl.Categorical, pl.Enum)
"""Kinds of columns, beside numbers, times and lists, that a CSV could hold."""


def text_columns(table: pl.DataFrame, names: ColumnNames, place: str) -> pl.DataFrame:
    """The named columns as text, under our names.

    Raises:
        DataError: a column is missing, or holds what a CSV could not.
    """
    positions = column_positions(table.columns, names, place)
    columns = []
    for position, name in zip(positions, names, strict=True):
        text = _text(table.to_series(position), place)
        columns.append(text.alias(name))
    return pl.DataFrame(columns)


def _text(column: pl.Series, place: str) -> pl.Series:
    text = _plain(column, place).cast(pl.String).str.strip_chars()
    # a blank field is unknown in a CSV, so it is unknown everywhere
    is_blank = text == ""
    return text.set(is_blank, None)


def _plain(column: pl.Series, place: str) -> pl.Series:
    """The column as numbers or text; raises DataError for what a CSV could not hold."""
    kind = column.dtype
    if isinstance(kind, pl.List) and not kind.inner.is_nested():
        return _joined_lists(column)
    if isinstance(kind, pl.Datetime):
        return _iso_times(column, kind)
    if kind.is_float():
        return _whole_floats(column, place)
    if kind.is_integer() or kind.is_decimal() or kind in PLAIN:
        return column
    raise DataError(f"{place}: column '{column.name}' holds {kind}; give it as text or numbers")


def _joined_lists(column: pl.Series) -> pl.Series:
    """`["drama", "", "war "]` → `drama, war`."""
    text = pl.element().cast(pl.String).str.strip_chars()
    texts = column.list.eval(text)
    filled = pl.element().filter(pl.element() != "")
    return texts.list.eval(filled).list.join(", ")


def _iso_times(column: pl.Series, kind: pl.Datetime) -> pl.Series:
    """Times in UTC; those without a time zone are taken to be in UTC already."""
    if kind.time_zone:
        column = column.dt.convert_time_zone("UTC")
    return column.dt.to_string("%Y-%m-%dT%H:%M:%S%.f")


def _whole_floats(column: pl.Series, place: str) -> pl.Series:
    """`1.0` → `1`, so that an id is the same from a column of floats; NaN is unknown."""
    is_whole = column.is_finite() & (column == column.floor())
    is_inexact = is_whole & (column.abs() >= EXACT)
    if is_inexact.any():
        raise DataError(
            f"{place}: column '{column.name}' holds numbers too large to be exact; "
            "give them as text"
        )
    whole = column.cast(pl.Int64, strict=False).cast(pl.String)
    fractional = column.fill_nan(None).cast(pl.String)
    return whole.zip_with(is_whole, fractional)


def json_text(value: Any) -> str | None:
    """A value of JSON as text; raises TypeError for what a CSV could not hold."""
    if isinstance(value, dict):
        raise TypeError("a field holds an object")
    if isinstance(value, list):
        return _joined_list(value)
    if isinstance(value, float):
        value = _whole_float(value)
    if value is None:
        return None
    # as Polars writes it
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).strip() or None


def _joined_list(values: list[Any]) -> str | None:
    if any(isinstance(value, dict | list) for value in values):
        raise TypeError("a field holds an object")
    texts = [json_text(value) for value in values]
    filled = [text for text in texts if text]
    return ", ".join(filled) or None


def _whole_float(value: float) -> float | int | None:
    # Python's JSON reads NaN, as a table would hold it for an unknown number
    if math.isnan(value):
        return None
    if not value.is_integer():
        return value
    if abs(value) >= EXACT:
        raise TypeError("a field holds a number too large to be exact")
    return int(value)


def whole_ids(table: pl.DataFrame) -> pl.DataFrame:
    """The same table with ids `1.0` as `1`.

    Programs write a column of whole numbers with `.0` as soon as one of them is missing.
    """
    for name in ("user", "item"):
        if name in table.columns:
            whole = pl.col(name).str.replace(r"^(-?\d+)\.0+$", "$1")
            table = table.with_columns(whole)
    return table
