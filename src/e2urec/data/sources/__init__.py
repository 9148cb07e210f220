"""Data sets: one file each, one line here."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...errors import DataError, did_you_mean
from ..interactions import Interactions
from . import goodreads, movielens, tabular
from .files import Files
from .reading import Columns, Reading


@dataclass(frozen=True)
class Source:
    """A kind of raw files: whether a folder or a zip holds them, how to read it, and its packaged data sets."""

    recognises: Callable[[Files], bool]
    read: Callable[[Files, Reading], Interactions]
    packaged: tuple[str, ...] = ()
    expects: str = ""


SOURCES: dict[str, Source] = {
    "movielens": Source(movielens.recognises, movielens.read, ("movielens-100k",), movielens.EXPECTS),
    "goodreads": Source(goodreads.recognises, goodreads.read, (), goodreads.EXPECTS),
}
PACKAGED = [name for source in SOURCES.values() for name in source.packaged]


def read(reading: Reading, columns: Columns | None = None) -> Interactions:
    """Read what `reading.source` names: a folder or zip that some source recognises, a table, or a database.

    Raises:
        DataError: there is no such thing, nothing here recognises it, or it cannot be used.
    """
    path = Path(reading.source)
    if "://" not in reading.source and not path.exists():
        raise DataError(
            f"data '{reading.source}': no such data set, folder or file{did_you_mean(reading.source, PACKAGED)}"
        )
    if tabular.recognises(reading.source):
        return tabular.read(reading.source, reading, columns or Columns())
    if path.is_dir() or path.suffix.lower() == ".zip":
        files = Files(path, reading.limit)
        for source in SOURCES.values():
            if source.recognises(files):
                return source.read(files, reading)
    expected = "; ".join(f"{name}: {source.expects}" for name, source in SOURCES.items())
    raise DataError(f"data '{path}': holds no data set that is known here; expected {expected}; or {tabular.EXPECTS}")
