"""Tables without a header, as MovieLens publishes its older data sets."""

import io

import polars as pl

from ...core.errors import DataError


def headerless_table(data: bytes, name: str, columns: list[str], separator: str) -> pl.DataFrame:
    """Read the first columns of a table, as text; quotes are part of it.

    Args:
        data: the file in UTF-8.
        name: file name for messages.
        columns: names for the first columns; further ones are left out.
        separator: one character between two fields.

    Raises:
        DataError: the table is empty, has fewer columns, or a row has more or fewer than the first.
    """
    width = data[: data.find(b"\n")].count(separator.encode()) + 1
    if not data.strip():
        raise DataError(f"{name}: holds no rows; get the official file again")
    try:
        table = pl.read_csv(
            io.BytesIO(data),
            separator=separator,
            has_header=False,
            infer_schema=False,
            quote_char=None,
        )
    except pl.exceptions.PolarsError:
        # it refuses rows that are too long
        _check_widths(data, name, width, separator)
        raise
    # it fills up rows that are too short
    last_column = table[table.columns[-1]]
    if last_column.null_count():
        _check_widths(data, name, width, separator)
    if width < len(columns):
        raise DataError(
            f"{name}: has {width} columns, not {len(columns)}; the separator is {separator!r}"
        )
    table = table.select(table.columns[: len(columns)])
    table.columns = columns
    return table


def _check_widths(data: bytes, name: str, width: int, separator: str) -> None:
    """Raise DataError at the first row that is not as wide as the first row of all."""
    for number, row in enumerate(io.BytesIO(data), start=1):
        row_width = row.count(separator.encode()) + 1
        if row.strip() and row_width != width:
            raise DataError(
                f"{name} row {number}: has {row_width} columns, the first row {width}; "
                "get the official file again"
            )


def integer_ids(table: pl.DataFrame, name: str) -> pl.DataFrame:
    """The table with the ids of users and items as numbers; DataError at the first that is none."""
    for column in ("user", "item"):
        if column not in table.columns:
            continue
        ids = table[column]
        if ids.dtype.is_integer():
            continue
        numbers = ids.cast(pl.Int64, strict=False)
        faults = numbers.is_null().arg_true()
        if len(faults):
            row = int(faults[0]) + 1
            raise DataError(f"{name} row {row}: its {column} is no number; correct the row")
        table = table.with_columns(numbers)
    return table
