"""Data sets: each file of this folder that defines a `Source` is one.

Other packages may bring more through entry points of the group `e2urec.sources`.
"""

import inspect
import pkgutil
import warnings
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import TypeGuard

from ...core.errors import DataError, did_you_mean
from ..interactions import Interactions
from .files import Files
from .reading import Columns, Reading
from .source import Source
from .text import first_line

# the entry points by which other packages bring sources
GROUP = "e2urec.sources"


def all_sources() -> dict[str, type[Source]]:
    """All sources by name, sorted: those of this folder, and those of other packages."""
    sources = {source.name: source for source in _installed_sources()}
    for file in pkgutil.iter_modules(__path__):
        # files that help sources define none; all of them are loaded with the sources anyway
        module = import_module(f"{__name__}.{file.name}")
        for source in _sources_of(module):
            # a source of this folder goes before one of the same name from elsewhere
            sources[source.name] = source
    # by name, so that messages do not depend on the order of files
    return dict(sorted(sources.items()))


def packaged_names() -> list[str]:
    """Names of all data sets that can be fetched."""
    return [name for source in all_sources().values() for name in source.packaged]


def read(
    reading: Reading, columns: Columns | None = None, *, named_by_user: bool = True
) -> Interactions:
    """Read what `reading.source` names: a folder, a zip, a table or a database.

    Args:
        reading: settings that every source heeds.
        columns: which column is what.
        named_by_user: whether the user named the source, and not a run folder.

    Raises:
        DataError: there is no such thing, no source recognises it or more than one does, it cannot
            be used, or a setting is not for it.
    """
    columns = columns or Columns()
    files = Files(reading.source, reading.limit, named_by_user)
    if not files.exist():
        raise DataError(
            f"data '{reading.source}': no such data set, folder or file"
            f"{did_you_mean(reading.source, packaged_names())}"
        )
    source = recognise(files).configure(reading.options)
    source.check_columns(columns)
    return source.read(files, reading, columns)


def recognise(files: Files) -> type[Source]:
    """The only source that recognises `files`.

    Raises:
        DataError: none does, or several do: to take one of them would be to guess.
    """
    sources = all_sources()
    names = [name for name, source in sources.items() if source.recognises(files)]
    if not names:
        expected = "; ".join(f"{name}: {source.expects}" for name, source in sources.items())
        raise DataError(
            f"data '{files.source}': holds no data set that is known here; expected {expected}"
        )
    if len(names) > 1:
        raise DataError(
            f"data '{files.source}': could be {' or '.join(names)}; keep the files of one data set"
        )
    return sources[names[0]]


def _sources_of(module: ModuleType) -> list[type[Source]]:
    """The sources that a module defines, not those that it imports."""
    return [
        value
        for value in vars(module).values()
        if _is_source(value) and value.__module__ == module.__name__
    ]


def _is_source(value: object) -> TypeGuard[type[Source]]:
    if not inspect.isclass(value) or not issubclass(value, Source):
        return False
    # a shared base of several sources is none itself
    return not inspect.isabstract(value)


@cache
def _installed_sources() -> list[type[Source]]:
    """Sources of other packages; one that cannot be loaded is warned of, once, and left out."""
    sources = []
    for entry in entry_points(group=GROUP):
        source = _load(entry)
        if source is not None:
            sources.append(source)
    return sources


def _load(entry: EntryPoint) -> type[Source] | None:
    try:
        source = entry.load()
        if not _is_source(source):
            raise TypeError(f"{entry.value} is no Source")
        # messages need both, also those about other data
        for attribute in ("name", "expects"):
            if not isinstance(getattr(source, attribute, None), str):
                raise TypeError(f"{entry.value} has no {attribute}")
    except Exception as error:
        # whatever another package does wrong, all other data can still be read
        warnings.warn(
            f"data source '{entry.name}' cannot be loaded ({first_line(error)}); "
            f"update or remove the package that brings {entry.value}",
            stacklevel=2,
        )
        return None
    return source
