"""Databases, read by queries. Nothing is ever written to them."""

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, quote, urlsplit

import polars as pl
from pydantic import Field

from ...core.errors import DataError
from ..interactions import Interactions
from .files import Files
from .reading import Columns, Reading
from .source import Source
from .table_columns import columns_by_part
from .table_text import text_columns
from .tables import interactions_of
from .text import first_line

# ten minutes for a query of SQLite: enough for a large table, an end for a runaway join
MAX_SECONDS = 600
# steps of SQLite's machine between looks at the clock: a few hundredths of a second
CHECK_EVERY = 1_000_000
# the environment variable of the password: one in a recipe would be kept with every run
PASSWORD = "E2UREC_DATABASE_PASSWORD"
# the environment variable by which a user says that the address in a run folder is his own: whoever
# made the folder could have written another, and have a password sent there
ADDRESS = "E2UREC_DATABASE"
# what a server has to run first, so that it refuses to write
READ_ONLY = {
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
}
# what drivers and Polars raise for a query that they cannot answer
FAULTS = (
    ImportError,
    sqlite3.Error,
    pl.exceptions.PolarsError,
    RuntimeError,
    ValueError,
    TypeError,
)


class Databases(Source):
    """A database, with a query for the table of ratings and maybe others for items and users."""

    name: ClassVar[str] = "databases"
    expects: ClassVar[str] = "an address such as sqlite:///shop.db"
    fixed_columns: ClassVar[bool] = False

    query: str | None = Field(None, description="SELECT that gives the table of ratings")
    items_query: str | None = Field(None, description="SELECT that gives the table of items")
    users_query: str | None = Field(None, description="SELECT that gives the table of users")

    @classmethod
    def recognises(cls, files: Files) -> bool:
        """Whether the source is an address."""
        return files.is_address

    def read(self, files: Files, reading: Reading, columns: Columns) -> Interactions:
        """Run the queries; raises DataError if one is refused or a row cannot be used."""
        if self.query is None:
            raise DataError(
                "data.options.query: is not set; give the SELECT that yields the table of ratings"
            )
        settings = {"ratings": "query"}
        if self.items_query is not None:
            settings["items"] = "items_query"
        if self.users_query is not None:
            settings["users"] = "users_query"
        if not files.named_by_user:
            _require_named(files.source)
        names = columns_by_part(columns, settings, timed=reading.order == "time")
        tables = {}
        for part, setting in settings.items():
            place = f"data.options.{setting}"
            table = select(files.source, getattr(self, setting), place)
            tables[part] = text_columns(table, names[part], place)
        return interactions_of(tables, "data.options.query", reading, columns)


def select(address: str, query: str, place: str) -> pl.DataFrame:
    """Return the rows that `query` selects.

    Args:
        address: of the database, such as `sqlite:///shop.db`.
        query: one SELECT.
        place: the setting that holds the query, for messages.

    Raises:
        DataError: the kind of database is unknown, or it refuses the query.
    """
    scheme = address.partition("://")[0]
    try:
        if scheme == "sqlite":
            return _select_from_sqlite(address, query)
        return _select_from_server(address, query, place)
    except FAULTS as error:
        # a server's driver may quote the address with its password, or a cell: only the kind of
        # its error is safe to show
        is_safe = scheme == "sqlite" or isinstance(error, ImportError)
        reason = first_line(error) if is_safe else type(error).__name__
        if "decode" in reason:
            reason = "it holds text that is not UTF-8"
        if reason == "not authorized":
            reason = "data are only read"
        raise DataError(
            f"{place}: the database does not answer it ({reason}); give one SELECT"
        ) from error


def _select_from_server(address: str, query: str, place: str) -> pl.DataFrame:
    scheme = address.partition("://")[0]
    if scheme not in READ_ONLY:
        raise DataError(f"'{scheme}://': no such database; known: sqlite, {', '.join(READ_ONLY)}")
    statement = query.strip().rstrip(";").strip()
    # a read-only session could be ended by a second statement
    is_select = statement.upper().startswith(("SELECT", "WITH"))
    if not is_select or ";" in statement:
        raise DataError(f"{place}: is no single SELECT; data are only read, so give one SELECT")
    return pl.read_database_uri(
        statement, _with_password(address), pre_execution_query=READ_ONLY[scheme]
    )


def _require_named(address: str) -> None:
    """Raise DataError for a server that a run folder names, unless the user names it as well."""
    if address.startswith("sqlite:") or os.environ.get(ADDRESS) == address:
        return
    raise DataError(
        f"'{address}': is named by the run folder, and a server is asked only if you name it; if "
        f"it is yours, set {ADDRESS} to this address"
    )


def _with_password(address: str) -> str:
    """Put the password from the environment into the address."""
    parts = urlsplit(address)
    parameters = parse_qs(parts.query.lower())
    # some drivers take it as a parameter too
    has_parameter = any(name in parameters for name in ("password", "passwd", "pwd"))
    if parts.password is not None or has_parameter:
        raise DataError(
            "data.source: holds a password, which would be kept with every run; "
            f"set {PASSWORD} instead"
        )
    password = os.environ.get(PASSWORD)
    if password is None or not parts.username:
        return address
    # quoted, since a password may hold @ or /
    login = f":{quote(password, safe='')}@"
    netloc = parts.netloc.replace("@", login, 1)
    return parts._replace(netloc=netloc).geturl()


def _select_from_sqlite(address: str, query: str) -> pl.DataFrame:
    """Open SQLite's file read-only, with nothing but reading authorised."""
    path = Path(address.removeprefix("sqlite:///"))
    if not path.is_file():
        raise DataError(f"'{address}': no such file; name the database after sqlite:///")
    uri = f"{path.resolve().as_uri()}?mode=ro"
    # what other programs have written lately may stand in a log beside the file
    log = path.with_name(path.name + "-wal")
    has_log = log.is_file() and log.stat().st_size > 0
    if not has_log:
        # without this SQLite makes an index of the log beside the file, even to read
        uri += "&immutable=1"
    deadline = time.monotonic() + MAX_SECONDS
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
        connection.set_authorizer(_authorise_reading)
        connection.set_progress_handler(lambda: time.monotonic() > deadline, CHECK_EVERY)
        return pl.read_database(query, connection, infer_schema_length=None)


def _authorise_reading(action: int, *details: object) -> int:
    """SQLite calls it with each action that a query would do."""
    harmless = (
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_FUNCTION,
        sqlite3.SQLITE_RECURSIVE,
    )
    return sqlite3.SQLITE_OK if action in harmless else sqlite3.SQLITE_DENY
