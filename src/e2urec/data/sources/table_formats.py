"""Files of tables: CSV, JSON lines, Parquet and Arrow, each read to the same table of text."""

import csv
import io
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl

from ...core.errors import DataError
from ..json_objects import json_object, require_whole_letters
from .files import LONGEST_LINE
from .reading import Columns
from .table_columns import ColumnNames, column_positions
from .table_text import json_text, text_columns
from .text import check_text, first_line

# between the fields of a CSV file, by the file's suffix
SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": "\t"}
JSON_LINES = (".jsonl", ".ndjson")
ARROW = (".arrow", ".feather", ".ipc")
SUFFIXES = (*SEPARATORS, *JSON_LINES, ".parquet", *ARROW)
# rows of Python lists that become a table at a time: lists take several times a table's memory
CHUNK = 100_000

Row = list[str | None]


def read_table(path: Path, names: ColumnNames, columns: Columns) -> pl.DataFrame:
    """Read the named columns of a file, as text.

    Args:
        path: the file; its suffix says which format it has.
        names: the columns, our name → the file's own.
        columns: separator, quotes and encoding of CSV.

    Raises:
        DataError: the file cannot be read, or lacks a column.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"'{path}': is no table that is known here; give {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise DataError(f"'{path}': is no file; name another")
    try:
        return _parse(path.read_bytes(), path, names, columns)
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise DataError(f"'{path}': cannot be read ({reason}); name another file") from error
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise DataError(
            f"{path.name}: is damaged, or no {suffix[1:]} ({first_line(error)}); export it again"
        ) from error


def _parse(data: bytes, path: Path, names: ColumnNames, columns: Columns) -> pl.DataFrame:
    suffix = path.suffix.lower()
    if suffix in SEPARATORS:
        if columns.separator is None:
            columns = columns.model_copy(update={"separator": SEPARATORS[suffix]})
        return _csv_table(data, names, columns, path.name)
    if suffix in JSON_LINES:
        return _json_table(data, names, path.name)
    if suffix in ARROW:
        return text_columns(_arrow_table(data), names, path.name)
    return text_columns(pl.read_parquet(data), names, path.name)


def _arrow_table(data: bytes) -> pl.DataFrame:
    # Arrow has a file format, which begins with its name, and a stream format
    if data.startswith(b"ARROW1"):
        return pl.read_ipc(data)
    return pl.read_ipc_stream(data)


def _csv_table(data: bytes, names: ColumnNames, columns: Columns, place: str) -> pl.DataFrame:
    remedy = ", or set columns.encoding='latin-1'"
    check_text(io.BytesIO(data), place, columns.encoding, remedy)
    encoding = "utf-8-sig" if columns.encoding == "utf-8" else columns.encoding
    separator = columns.separator or ","
    csv.field_size_limit(LONGEST_LINE)
    # Python's reader rather than Polars': it tells the line of a fault, and finds short rows
    with io.TextIOWrapper(io.BytesIO(data), encoding, newline="") as text:
        rows = csv.reader(
            text,
            delimiter=separator,
            strict=True,
            quoting=csv.QUOTE_MINIMAL if columns.quotes else csv.QUOTE_NONE,
        )
        try:
            header = _csv_header(rows, separator, place)
            positions = column_positions(header, names, place)
            fields = _csv_rows(rows, len(header), positions, place)
            return _collect(fields, names, place)
        except csv.Error as error:
            is_of_quotes = "'\"'" in str(error)
            remedy = "; if quotes are part of the text, set columns.quotes = false"
            raise DataError(
                f"{place} line {rows.line_num}: is no CSV ({first_line(error)})"
                f"{remedy if is_of_quotes else ''}"
            ) from error


def _csv_header(rows: Iterable[list[str]], separator: str, place: str) -> list[str]:
    """The names in the first row that is not blank."""
    first_row = next(filter(any, rows), [])
    header = [name.strip() for name in first_row]
    if not header:
        raise DataError(f"{place}: holds no rows; give a table of ratings")
    if len(header) > 1:
        return header
    for mark in ",\t;|":
        if mark != separator and mark in header[0]:
            raise DataError(
                f"{place}: its header {header[0]!r} is one column; set columns.separator = {mark!r}"
            )
    return header


def _csv_rows(
    rows: Iterable[list[str]], width: int, positions: list[int], place: str
) -> Iterator[Row]:
    """The fields at `positions` of each row.

    Raises:
        DataError: a row is longer or shorter than the header, or a field has several lines.
    """
    for number, row in enumerate(filter(_is_filled, rows), start=1):
        if len(row) != width:
            raise DataError(
                f"{place} row {number}: has {len(row)} fields, the header {width}; correct the row"
            )
        fields = [row[position].strip() for position in positions]
        # a stray quote swallows line ends, and with them whole rows
        if any("\n" in field for field in fields):
            raise DataError(
                f"{place} row {number}: a field in quotes runs over several lines; "
                "correct the row, or set columns.quotes = false if quotes are part of the text"
            )
        yield [field or None for field in fields]


def _is_filled(row: list[str]) -> bool:
    """Whether a row is more than a blank line."""
    return len(row) > 1 or bool("".join(row).strip())


def _json_table(data: bytes, names: ColumnNames, place: str) -> pl.DataFrame:
    check_text(io.BytesIO(data), place)
    lines = data.decode("utf-8-sig").split("\n")
    keys: set[str] = set()
    table = _collect(_json_rows(lines, names, keys, place), names, place)
    # a row may leave out any key, so only now is it known which columns there are
    column_positions(sorted(keys), names, place)
    return table


def _json_rows(lines: list[str], names: ColumnNames, keys: set[str], place: str) -> Iterator[Row]:
    """The named fields of each line; `keys` collects all keys that there are."""
    filled = (line for line in lines if line.strip())
    for number, line in enumerate(filled, start=1):
        try:
            record = json_object(line)
            fields = [json_text(record.get(own_name)) for own_name in names.values()]
            if "\\u" in line:
                require_whole_letters(fields)
        except ValueError as error:
            raise DataError(f"{place} row {number}: {error}") from error
        except TypeError as error:
            raise DataError(f"{place} row {number}: {error}; correct the row") from error
        keys.update(record)
        yield fields


def _collect(rows: Iterator[Row], names: ColumnNames, place: str) -> pl.DataFrame:
    """Make rows a table of text, some at a time; raises DataError if there are none."""
    schema = dict.fromkeys(names, pl.String)
    tables = []
    while chunk := list(itertools.islice(rows, CHUNK)):
        tables.append(pl.DataFrame(chunk, schema=schema, orient="row"))
    if not tables:
        raise DataError(f"{place}: holds no rows; give a table of ratings")
    return pl.concat(tables)
