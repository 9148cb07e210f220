"""Data sets: one file each, one line here."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import DataError, did_you_mean
from ..interactions import Interactions
from . import database, goodreads, movielens, tabular
from .files import Files
from .reading import Columns, Reading


@dataclass(frozen=True)
class Source:
    """A kind of raw files in a folder or a zip.

    Attributes:
        recognises: whether files are of this kind.
        read: how to read them.
        packaged: names of data sets of this kind that can be fetched.
        expects: which files there must be.
        settings: of `Reading`, those that only some sources heed.
    """

    recognises: Callable[[Files], bool]
    read: Callable[[Files, Reading, Columns], Interactions]
    packaged: tuple[str, ...] = ()
    expects: str = ""
    settings: tuple[str, ...] = ()


SOURCES: dict[str, Source] = {
    "movielens": Source(
        movielens.recognises, movielens.read, ("movielens-100k",), movielens.EXPECTS
    ),
    "goodreads": Source(goodreads.recognises, goodreads.read, (), goodreads.EXPECTS, ("genre",)),
}
PACKAGED = [name for source in SOURCES.values() for name in source.packaged]
ALL = ("since", "until", "unpacked_gb", "strict", "source")
"""Settings of `Reading` that every source heeds."""


def read(reading: Reading, columns: Columns | None = None) -> Interactions:
    """Read what `reading.source` names: a folder or zip that some source recognises, a table, or a database.

    Raises:
        DataError: there is no such thing, nothing here recognises it, it cannot be used, or a setting is not for it.
    """
    path, columns = Path(reading.source), columns or Columns()
    if database.is_address(reading.source):
        _heeded(reading, ("query", "items_query", "users_query"), "a database")
        return tabular.read(reading, columns)
    if not path.exists():
        raise DataError(
            f"data '{reading.source}': no such data set, folder or file{did_you_mean(reading.source, PACKAGED)}"
        )
    if tabular.is_table(reading.source):
        _heeded(reading, ("items", "users"), "a table")
        return tabular.read(reading, columns)
    if path.is_dir() or path.suffix.lower() == ".zip":
        files = Files(path, reading.limit)
        for name, source in SOURCES.items():
            if source.recognises(files):
                _heeded(reading, source.settings, name)
                own = columns.model_copy(update={"liked_above": Columns().liked_above})
                if own != Columns():
                    raise DataError(f"[columns]: {name} has its own; leave out all but liked_above")
                return source.read(files, reading, columns)
    expected = "; ".join(f"{name}: {source.expects}" for name, source in SOURCES.items())
    raise DataError(
        f"data '{path}': holds no data set that is known here; expected {expected}; or {tabular.EXPECTS}"
    )


def _heeded(reading: Reading, settings: tuple[str, ...], what: str) -> None:
    """Raise DataError for a setting that would do nothing."""
    for name, field in Reading.model_fields.items():
        if name not in (*ALL, *settings) and getattr(reading, name) != field.default:
            raise DataError(
                f"data.{name} {getattr(reading, name)!r}: is not for {what}; leave it out"
            )
