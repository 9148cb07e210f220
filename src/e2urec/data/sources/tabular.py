"""The user's own tables: CSV, TSV, JSON lines, Parquet, Arrow, or queries of a database; columns by `[columns]`."""

import contextlib
import csv
import io
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from ...errors import DataError, did_you_mean
from ..interactions import Interactions
from .files import check_text, line
from .reading import Columns, Reading

CSV = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": "\t"}
LINES = (".jsonl", ".ndjson")
ARROW = (".arrow", ".feather", ".ipc")
SUFFIXES = (*CSV, *LINES, ".parquet", *ARROW)
EXPECTS = f"a table ({', '.join(SUFFIXES)}) or a database such as sqlite:///shop.db"
UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000}


def recognises(source: str) -> bool:
    """Whether `source` names a table or a database."""
    return "://" in source or Path(source).suffix.lower() in SUFFIXES


def read(source: str, reading: Reading, columns: Columns) -> Interactions:
    """Read a table of ratings, and those of items and users where they are apart.

    Ids are text, so that the same table gives the same interactions out of whatever it is kept in.

    Raises:
        DataError: a table cannot be read, lacks a column, or holds a row that cannot be used.
    """
    if "://" in source:
        tables = {
            part: _query(source, query, f"data.{name}")
            for part, name, query in (
                ("ratings", "query", reading.query),
                ("items", "items_query", reading.items_query),
                ("users", "users_query", reading.users_query),
            )
            if query is not None
        }
        if "ratings" not in tables:
            raise DataError("data.query: is not set; give the SELECT that yields the table of ratings")
        place = {"ratings": "data.query", "items": "data.items_query", "users": "data.users_query"}
    else:
        paths = {"ratings": source, "items": reading.items, "users": reading.users}
        place = {part: Path(path).name for part, path in paths.items() if path is not None}
        tables = {part: table(Path(path), columns) for part, path in paths.items() if path is not None}
    ratings = _renamed(tables["ratings"], columns, ("user", "item", "rating", "time"), place["ratings"])
    ratings = _identified(ratings, ("user", "item"), place["ratings"]).with_row_index("position")
    ratings = _seconds(ratings, columns, place["ratings"])
    about = tables.get("items", tables["ratings"])
    where = place.get("items", place["ratings"])
    items = _renamed(about, columns, ("item", "title"), where, columns.details)
    items = _identified(items, ("item",), where).unique("item", keep="first", maintain_order=True)
    users = None
    if columns.profile:
        people = tables.get("users", tables["ratings"])
        users = _renamed(people, columns, ("user",), place.get("users", place["ratings"]), columns.profile)
        users = _identified(users, ("user",), place.get("users", place["ratings"]))
    return Interactions.from_tables(
        reading.within(ratings), items, users, place=place["ratings"], strict=reading.strict,
        rating_range=(columns.lowest, columns.highest), liked_above=columns.liked_above,
    )  # fmt: skip


def table(path: Path, columns: Columns) -> pl.DataFrame:
    """Any table by its suffix, as it is; raises DataError if it cannot be read."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"'{path}': is no table that is known here; give {', '.join(SUFFIXES)}")
    try:
        if suffix in CSV:
            return _csv(path, columns.separator or CSV[suffix], columns.encoding)
        if suffix in LINES:
            with path.open("rb") as file:
                check_text(file, path.name)
            return _lines(path)
        return pl.read_parquet(path) if suffix == ".parquet" else pl.read_ipc(path)
    except OSError as error:
        raise DataError(f"'{path}': cannot be read ({error.strerror or line(error)}); name another file") from error
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise DataError(f"{path.name}: is damaged, or no {suffix[1:]} ({line(error)}); export it again") from error


def _csv(path: Path, separator: str, encoding: str) -> pl.DataFrame:
    with path.open("rb") as file:
        check_text(file, path.name, encoding)
    data: Any = path
    if encoding != "utf-8":
        data = io.BytesIO(path.read_bytes().decode(encoding).encode())
    try:
        found = pl.read_csv(data, separator=separator, infer_schema=False)
    except pl.exceptions.NoDataError as error:
        raise DataError(f"{path.name}: holds no rows; give a table of ratings") from error
    except pl.exceptions.PolarsError as error:
        raise DataError(
            _ragged(path, separator, encoding) or f"{path.name}: {line(error)}; correct the table"
        ) from error
    if len(found.columns) == 1:
        other = next((mark for mark in ",\t;|" if mark != separator and mark in found.columns[0]), None)
        if other:
            raise DataError(
                f"{path.name}: its header {found.columns[0]!r} is one column; set columns.separator = {other!r}"
            )
    return found


def _ragged(path: Path, separator: str, encoding: str) -> str | None:
    """What is wrong with the first row whose fields are not as many as the header's."""
    with path.open(encoding="utf-8-sig" if encoding == "utf-8" else encoding, newline="") as file:
        rows = csv.reader(file, delimiter=separator)
        with contextlib.suppress(csv.Error):
            wanted = len(next(rows, []))
            for number, row in enumerate(rows, start=1):
                if row and len(row) != wanted:
                    return f"{path.name} row {number}: has {len(row)} fields, the header {wanted}; correct the row"
    return None


def _lines(path: Path) -> pl.DataFrame:
    try:
        return pl.read_ndjson(path, infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        row = next((n for n, text in _json_lines(path) if not _is_object(text)), None)
        if row is None:
            raise
        raise DataError(f"{path.name} row {row}: is no JSON object; correct the line") from error


def _json_lines(path: Path) -> Iterator[tuple[int, str]]:
    with path.open(encoding="utf-8-sig") as file:
        yield from ((number, text) for number, text in enumerate(file, start=1) if text.strip())


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _renamed(
    found: pl.DataFrame, columns: Columns, fields: tuple[str, ...], place: str, more: tuple[str, ...] = ()
) -> pl.DataFrame:
    """Columns `fields` by the names that `columns` gives them, and `more` under their own."""
    for name in fields:
        wanted = getattr(columns, name)
        if wanted not in found.columns:
            raise DataError(
                f"{place}: has no column '{wanted}'{did_you_mean(wanted, found.columns)}; set columns.{name}"
            )
    for wanted in more:
        if wanted not in found.columns:
            raise DataError(f"{place}: has no column '{wanted}'{did_you_mean(wanted, found.columns)}")
    return found.select(**{name: getattr(columns, name) for name in fields}, **{name: name for name in more})


def _identified(found: pl.DataFrame, fields: tuple[str, ...], place: str) -> pl.DataFrame:
    """The same with ids as text without space around them; blank ones are missing."""
    for name in fields:
        if found.schema[name].is_nested():
            raise DataError(f"{place}: column '{name}' holds lists or objects, not ids; name another in [columns]")
    ids = [pl.col(name).cast(pl.String).str.strip_chars().alias(name) for name in fields]
    return found.with_columns(ids).with_columns(
        pl.when(pl.col(name) != "").then(pl.col(name)).alias(name) for name in fields
    )


def _seconds(ratings: pl.DataFrame, columns: Columns, place: str) -> pl.DataFrame:
    """Times as seconds since 1970: numbers by their unit, dates in UTC unless they say otherwise."""
    kind, time = ratings.schema["time"], pl.col("time")
    if kind.is_nested() or ratings.schema["rating"].is_nested():
        raise DataError(f"{place}: a rating or a time is a list or an object; name other columns in [columns]")
    if kind.is_temporal():
        return ratings.with_columns(time=time.cast(pl.Datetime("us")).dt.epoch("s"))
    parsed = time.cast(pl.Float64, strict=False) / UNITS[columns.time_unit]
    if kind == pl.String:
        dated = _dated(ratings["time"])
        known = pl.coalesce(parsed.floor().cast(pl.Int64, strict=False), pl.lit(dated))
        # what is neither stays as it is, to be told with its row
        return ratings.with_columns(time=pl.coalesce(known.cast(pl.String), time))
    return ratings.with_columns(time=parsed.floor().cast(pl.Int64, strict=False))


def _dated(times: pl.Series) -> pl.Series:
    """Seconds since 1970 of what is an ISO date or time, null elsewhere."""
    text = times.str.strip_chars().str.replace("Z$", "+00:00").str.replace(r"^(\d{4}-\d\d-\d\d) ", "${1}T")
    forms: tuple[Callable[[], pl.Series], ...] = (
        lambda: text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", strict=False, time_unit="us").dt.epoch("s"),
        lambda: text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", strict=False, time_unit="us").dt.epoch("s"),
        lambda: text.str.to_date("%Y-%m-%d", strict=False).dt.epoch("s"),
    )
    found = pl.Series(values=[None] * len(times), dtype=pl.Int64)
    for form in forms:
        found = found.fill_null(form()) if found.null_count() else found
    return found


def _query(uri: str, query: str, place: str) -> pl.DataFrame:
    """What `query` selects; SQLite's is opened read-only, and nothing but reading is authorised.

    Raises:
        DataError: the query is no single SELECT, or the database refuses it.
    """
    words = query.strip().rstrip(";").strip()
    if not words.upper().startswith(("SELECT", "WITH")) or ";" in words:
        raise DataError(f"{place}: is no single SELECT; data are only read, so give one SELECT")
    try:
        if uri.startswith("sqlite:///"):
            path = Path(uri.removeprefix("sqlite:///"))
            if not path.is_file():
                raise DataError(f"'{uri}': no such file; name the database after sqlite:///")
            with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
                connection.set_authorizer(_only_reading)
                return pl.read_database(words, connection, infer_schema_length=None)
        return pl.read_database_uri(words, uri)
    except (ImportError, sqlite3.Error, pl.exceptions.PolarsError, RuntimeError, ValueError, TypeError) as error:
        # a driver may quote the address with its password: what it says is not told
        reason = line(error) if uri.startswith("sqlite:///") or isinstance(error, ImportError) else type(error).__name__
        raise DataError(f"{place}: the database does not answer it ({reason}); correct the query") from error


def _only_reading(action: int, *told: object) -> int:
    allowed = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
    return sqlite3.SQLITE_OK if action in allowed else sqlite3.SQLITE_DENY
