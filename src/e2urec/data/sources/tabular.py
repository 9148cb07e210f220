"""The user's own tables: CSV, TSV, JSON lines, Parquet, Arrow, or queries of a database; columns by `[columns]`.

Whatever a table is kept in, it is first made the same table of text: then the same rows give the same interactions.
"""

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from ...core.errors import DataError, did_you_mean
from ..interactions import Interactions
from ..tables import RatingScale
from . import database
from .files import LONGEST, check_text, line
from .reading import Columns, Reading

CSV = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": "\t"}
LINES = (".jsonl", ".ndjson")
ARROW = (".arrow", ".feather", ".ipc")
SUFFIXES = (*CSV, *LINES, ".parquet", *ARROW)
EXPECTS = f"a table ({', '.join(SUFFIXES)}) or a database such as sqlite:///shop.db"
UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000}
EXACT = 2**53
"""Whole numbers beyond which floats leave some out."""
ROWS = 100_000
"""Rows that are made a table at a time."""
PLAIN = (pl.String, pl.Boolean, pl.Date, pl.Null, pl.Categorical, pl.Enum)
"""Kinds of columns, beside numbers and lists, that a CSV could hold."""

Wanted = dict[str, str]
"""Our name of a column → the table's."""


def is_table(source: str) -> bool:
    """Whether `source` names a table by its suffix."""
    return not database.is_address(source) and Path(source).suffix.lower() in SUFFIXES


def read(reading: Reading, columns: Columns) -> Interactions:
    """Read a table of ratings, and those of items and users where they are apart.

    Raises:
        DataError: a table cannot be read, lacks a column, or holds a row that cannot be used.
    """
    wanted: dict[str, Wanted] = {
        "ratings": {name: getattr(columns, name) for name in ("user", "item", "rating", "time")},
        "items": {
            "item": columns.item,
            "title": columns.title,
            **{name: name for name in columns.details},
        },
        "users": {"user": columns.user, **{name: name for name in columns.profile}},
    }
    if database.is_address(reading.source):
        where = {
            "ratings": reading.query,
            "items": reading.items_query,
            "users": reading.users_query,
        }
        place = {"ratings": "data.query", "items": "data.items_query", "users": "data.users_query"}
        if reading.query is None:
            raise DataError(
                "data.query: is not set; give the SELECT that yields the table of ratings"
            )
    else:
        where = {"ratings": reading.source, "items": reading.items, "users": reading.users}
        place = {part: Path(path).name for part, path in where.items() if path is not None}
    for part in ("items", "users"):
        if where[part] is None:  # it stands beside each rating
            wanted["ratings"] |= wanted[part]

    def found(part: str, source: str) -> pl.DataFrame:
        if database.is_address(reading.source):
            return _whole_ids(
                _text(
                    database.select(reading.source, source, place[part]), wanted[part], place[part]
                )
            )
        return _whole_ids(table(Path(source), wanted[part], columns))

    tables = {part: found(part, source) for part, source in where.items() if source is not None}
    ratings = tables["ratings"].select("user", "item", "rating", "time").with_row_index("position")
    ratings = ratings.with_columns(time=_seconds(ratings["time"], columns))
    items = tables.get("items", tables["ratings"]).select(*wanted["items"])
    users = (
        tables.get("users", tables["ratings"]).select(*wanted["users"]) if columns.profile else None
    )
    return Interactions.from_tables(
        reading.within(ratings),
        items,
        users,
        place=place["ratings"],
        strict=reading.strict,
        scale=RatingScale(columns.lowest, columns.highest, columns.liked_above),
    )


def table(path: Path, wanted: Wanted, columns: Columns) -> pl.DataFrame:
    """The wanted columns of a table by its suffix, as text; raises DataError if it cannot be read."""
    suffix, name = path.suffix.lower(), path.name
    if suffix not in SUFFIXES:
        raise DataError(f"'{path}': is no table that is known here; give {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise DataError(f"'{path}': is no file; name another")
    try:
        data = path.read_bytes()
        if suffix in CSV:
            return _csv(data, columns.separator or CSV[suffix], wanted, columns, name)
        if suffix in LINES:
            return _json_lines(data, wanted, name)
        return _text(pl.read_parquet(data) if suffix == ".parquet" else _arrow(data), wanted, name)
    except OSError as error:
        raise DataError(
            f"'{path}': cannot be read ({error.strerror or line(error)}); name another file"
        ) from error
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise DataError(
            f"{name}: is damaged, or no {suffix[1:]} ({line(error)}); export it again"
        ) from error


def _arrow(data: bytes) -> pl.DataFrame:
    """A file of Arrow's, in its file format or its stream format."""
    return pl.read_ipc(data) if data.startswith(b"ARROW1") else pl.read_ipc_stream(data)


def _csv(data: bytes, separator: str, wanted: Wanted, columns: Columns, place: str) -> pl.DataFrame:
    check_text(io.BytesIO(data), place, columns.encoding, ", or set columns.encoding='latin-1'")
    encoding = "utf-8-sig" if columns.encoding == "utf-8" else columns.encoding
    with io.TextIOWrapper(io.BytesIO(data), encoding, newline="") as text:
        csv.field_size_limit(LONGEST)
        rows = csv.reader(
            text,
            delimiter=separator,
            strict=True,
            quoting=csv.QUOTE_MINIMAL if columns.quotes else csv.QUOTE_NONE,
        )
        try:
            header = [name.strip() for name in next(filter(any, rows), [])]
            if not header:
                raise DataError(f"{place}: holds no rows; give a table of ratings")
            other = next(
                (mark for mark in ",\t;|" if mark != separator and mark in "".join(header[:1])),
                None,
            )
            if len(header) == 1 and other:
                raise DataError(
                    f"{place}: its header {header[0]!r} is one column; set columns.separator = {other!r}"
                )
            at = _places(header, wanted, place)
            return _collected(_fields(rows, len(header), at, place), list(wanted), place)
        except csv.Error as error:
            quotes = (
                "; if quotes are part of the text, set columns.quotes = false"
                if "'\"'" in str(error)
                else ""
            )
            raise DataError(
                f"{place} line {rows.line_num}: is no CSV ({line(error)}){quotes}"
            ) from error


def _fields(
    rows: Iterable[list[str]], width: int, at: list[int], place: str
) -> Iterator[list[str | None]]:
    """The wanted fields of each row; DataError at a row that is too short or long, or a field of several lines."""
    for number, row in enumerate(
        (row for row in rows if len(row) > 1 or "".join(row).strip()), start=1
    ):
        if len(row) != width:
            raise DataError(
                f"{place} row {number}: has {len(row)} fields, the header {width}; correct the row"
            )
        fields = [row[index].strip() for index in at]
        if any("\n" in field for field in fields):
            raise DataError(
                f"{place} row {number}: a field in quotes runs over several lines; correct the row, or set "
                "columns.quotes = false if quotes are part of the text"
            )
        yield [field or None for field in fields]


def _json_lines(data: bytes, wanted: Wanted, place: str) -> pl.DataFrame:
    check_text(io.BytesIO(data), place)
    lines = (text for text in data.decode("utf-8-sig").split("\n") if text.strip())
    seen: set[str] = set()

    def rows() -> Iterator[list[str | None]]:
        for number, text in enumerate(lines, start=1):
            try:
                row = json.loads(text)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise DataError(f"{place} row {number}: is no JSON object; correct the line")
            seen.update(row)
            try:
                fields = [_plain(row.get(name)) for name in wanted.values()]
                if "\\u" in text:
                    "".join(filter(None, fields)).encode()
                yield fields
            except (TypeError, UnicodeEncodeError) as error:
                told = error if isinstance(error, TypeError) else "a field holds half a letter"
                raise DataError(f"{place} row {number}: {told}; correct the row") from error

    found = _collected(rows(), list(wanted), place)
    _places(sorted(seen), wanted, place)
    return found


def _plain(value: Any) -> str | None:
    """A JSON value as a CSV would hold it; TypeError if it could not."""
    if isinstance(value, list) and all(not isinstance(each, dict | list) for each in value):
        return ", ".join(filter(None, map(_plain, value))) or None
    if isinstance(value, dict | list):
        raise TypeError("a field holds an object")
    if isinstance(value, float) and value.is_integer():
        if abs(value) >= EXACT:
            raise TypeError("a field holds a number too large to be exact")
        value = int(value)
    if value is None or value != value:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).strip() or None


def _collected(rows: Iterator[list[str | None]], names: list[str], place: str) -> pl.DataFrame:
    schema = dict.fromkeys(names, pl.String)
    parts = []
    while some := list(itertools.islice(rows, ROWS)):
        parts.append(pl.DataFrame(some, schema=schema, orient="row"))
    if not parts:
        raise DataError(f"{place}: holds no rows; give a table of ratings")
    return pl.concat(parts)


def _places(header: list[str], wanted: Wanted, place: str) -> list[int]:
    """Where the wanted columns stand; DataError if one is not there, or is there twice."""
    for name, theirs in wanted.items():
        if theirs not in header:
            setting = f"; set columns.{name}" if name in Columns.model_fields else ""
            raise DataError(
                f"{place}: has no column '{theirs}'{did_you_mean(theirs, header)}{setting}"
            )
        if header.count(theirs) > 1:
            raise DataError(f"{place}: has two columns '{theirs}'; rename one")
    return [header.index(theirs) for theirs in wanted.values()]


def _text(found: pl.DataFrame, wanted: Wanted, place: str) -> pl.DataFrame:
    """Columns of any kind as a CSV would hold them."""
    at = _places(found.columns, wanted, place)
    return pl.DataFrame(
        [
            _as_text(found.to_series(n), place).alias(name)
            for n, name in zip(at, wanted, strict=True)
        ]
    )


def _as_text(column: pl.Series, place: str) -> pl.Series:
    kind = column.dtype
    if isinstance(kind, pl.List) and not kind.inner.is_nested():
        name, column = column.name, column.list.eval(pl.element().cast(pl.String).str.strip_chars())
        column = (
            column.list.eval(pl.element().filter(pl.element() != "")).list.join(", ").alias(name)
        )
    elif isinstance(kind, pl.Datetime):
        column = column.dt.convert_time_zone("UTC") if kind.time_zone else column
        column = column.dt.to_string("%Y-%m-%dT%H:%M:%S%.f")
    elif kind.is_float():
        whole = column.is_finite() & (column == column.floor())
        if (whole & (column.abs() >= EXACT)).any():
            raise DataError(
                f"{place}: column '{column.name}' holds numbers too large to be exact; give them as text"
            )
        column = (
            column.cast(pl.Int64, strict=False)
            .cast(pl.String)
            .zip_with(whole, column.fill_nan(None).cast(pl.String))
        )
    elif not (kind.is_integer() or kind.is_decimal() or kind in PLAIN):
        raise DataError(f"{place}: column '{column.name}' holds {kind}; give it as text or numbers")
    text = column.cast(pl.String).str.strip_chars()
    return text.set(text == "", None)


def _whole_ids(found: pl.DataFrame) -> pl.DataFrame:
    """The same with ids 1.0 as 1: so a column of whole numbers is written once one of them is missing."""
    names = [name for name in ("user", "item") if name in found.columns]
    return found.with_columns(pl.col(name).str.replace(r"^(-?\d+)\.0+$", "$1") for name in names)


def _seconds(times: pl.Series, columns: Columns) -> pl.Series:
    """Times as whole seconds since 1970, in text: numbers by their unit, dates in UTC unless they say otherwise."""
    dated = _dated(times).cast(pl.String)
    counted = (times.cast(pl.Float64, strict=False) / UNITS[columns.time_unit]).floor()
    counted = counted.cast(pl.Int64, strict=False).cast(pl.String)
    # what is neither stays as it is, to be told with its row
    return dated.fill_null(counted).fill_null(times)


def _dated(times: pl.Series) -> pl.Series:
    """Seconds since 1970 of what is an ISO date or time, null elsewhere; eight digits are dates if all are."""
    compact = times.drop_nulls().str.contains(r"^(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])$")
    text = times.str.replace(r"^(\d{4})(\d\d)(\d\d)$", "${1}-${2}-${3}") if compact.all() else times
    for pattern, replacement in (
        (r"^(\d{4}-\d\d-\d\d) ", "${1}T"),
        (r" ?(?:[zZ]|UTC)$", "+00:00"),
        (r"(T.*[+-]\d\d)$", "${1}:00"),
        (r"(T.*[+-]\d\d)(\d\d)$", "${1}:${2}"),
        (r"(T\d\d:\d\d)($|[+-])", "${1}:00${2}"),
    ):
        text = text.str.replace(pattern, replacement)
    forms: tuple[Callable[[], pl.Series], ...] = (
        lambda: text.str.to_datetime(
            "%Y-%m-%dT%H:%M:%S%.f%:z", strict=False, time_unit="us"
        ).dt.epoch("s"),
        lambda: text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", strict=False, time_unit="us").dt.epoch(
            "s"
        ),
        lambda: text.str.to_date("%Y-%m-%d", strict=False).dt.epoch("s"),
    )
    found = pl.Series(values=[None] * len(times), dtype=pl.Int64)
    for form in forms:
        found = found.fill_null(form()) if found.null_count() else found
    return found
