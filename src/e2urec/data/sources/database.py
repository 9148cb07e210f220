"""Databases, asked by queries and only read."""

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import polars as pl

from ...core.errors import DataError
from .files import line

SECONDS = 600
"""Most that a query may take."""
PASSWORD = "E2UREC_DATABASE_PASSWORD"
READ_ONLY = {
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
}
"""What a server is told first."""


def is_address(source: str) -> bool:
    """Whether `source` is the address of a database."""
    return "://" in source


def select(address: str, query: str, place: str) -> pl.DataFrame:
    """What `query` selects: the database is told, in its own way, that it is only read.

    Raises:
        DataError: the database is unknown here, or refuses the query.
    """
    scheme = address.partition("://")[0]
    try:
        if scheme == "sqlite":
            return _sqlite(address, query)
        if scheme not in READ_ONLY:
            raise DataError(
                f"'{scheme}://': no such database; known: sqlite, {', '.join(READ_ONLY)}"
            )
        words = query.strip().rstrip(";").strip()
        if not words.upper().startswith(("SELECT", "WITH")) or ";" in words:
            raise DataError(f"{place}: is no single SELECT; data are only read, so give one SELECT")
        return pl.read_database_uri(
            words, _with_password(address), pre_execution_query=READ_ONLY[scheme]
        )
    except (
        ImportError,
        sqlite3.Error,
        pl.exceptions.PolarsError,
        RuntimeError,
        ValueError,
        TypeError,
    ) as error:
        # a driver may quote the address with its password, or a cell: what it says of those is not told
        reason = (
            line(error)
            if scheme == "sqlite" or isinstance(error, ImportError)
            else type(error).__name__
        )
        if "decode" in reason:
            reason = "it holds text that is not UTF-8"
        if reason == "not authorized":
            reason = "data are only read"
        raise DataError(
            f"{place}: the database does not answer it ({reason}); give one SELECT"
        ) from error


def _with_password(address: str) -> str:
    """The address with the password from the environment: one in a recipe would be kept with every run."""
    parts = urlsplit(address)
    if parts.password is not None or {"password", "passwd", "pwd"} & set(
        parse_qs(parts.query.lower())
    ):
        raise DataError(
            f"data.source: holds a password, which would be kept with every run; set {PASSWORD} instead"
        )
    secret = os.environ.get(PASSWORD)
    if secret is None or not parts.username:
        return address
    return parts._replace(
        netloc=parts.netloc.replace("@", f":{quote(secret, safe='')}@", 1)
    ).geturl()


def _sqlite(address: str, query: str) -> pl.DataFrame:
    """The answer of SQLite's file, opened read-only with nothing but reading authorised."""
    path = Path(address.removeprefix("sqlite:///"))
    if not path.is_file():
        raise DataError(f"'{address}': no such file; name the database after sqlite:///")
    log = path.with_name(path.name + "-wal")
    fixed = (
        "" if log.is_file() and log.stat().st_size else "&immutable=1"
    )  # nothing is made beside the file
    started = time.monotonic()
    with contextlib.closing(
        sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro{fixed}", uri=True)
    ) as connection:
        connection.set_authorizer(_only_reading)
        connection.set_progress_handler(lambda: time.monotonic() - started > SECONDS, 1_000_000)
        return pl.read_database(query, connection, infer_schema_length=None)


def _only_reading(action: int, *told: object) -> int:
    allowed = (
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_FUNCTION,
        sqlite3.SQLITE_RECURSIVE,
    )
    return sqlite3.SQLITE_OK if action in allowed else sqlite3.SQLITE_DENY
