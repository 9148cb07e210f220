"""Gzipped files of JSON lines, a few megabytes at a time: whole files need not fit into memory."""

from collections.abc import Callable, Iterator

import polars as pl

from ...core.errors import DataError
from .files import Files, unpacked_blocks, whole_lines
from .text import first_line

Schema = dict[str, pl.DataType | type[pl.DataType]]
"""The keys to read of each object, and their types."""


def stream(files: Files, name: str, schema: Schema | None) -> Iterator[tuple[int, pl.DataFrame]]:
    """Yield some thousand lines of a file at a time, as a table.

    Args:
        files: the folder or zip.
        name: of the file.
        schema: the keys to read; None infers them from the lines.

    Yields:
        The 0-based number of the first line, and the table.

    Raises:
        DataError: the file breaks off, or a line is no object of this kind.
    """
    with files.open(name) as file:
        blocks = unpacked_blocks(file, name, files.limit)
        for first_row, lines in whole_lines(blocks, name):
            try:
                table = _parse(lines, schema)
            except pl.exceptions.PolarsError as error:
                # Polars does not tell which line it is
                row = first_row + _first_fault(lines.splitlines(), schema) + 1
                raise DataError(
                    f"{name} row {row}: is no JSON object of the kind expected; "
                    "download the file again"
                ) from error
            yield first_row, table


def collect(
    files: Files,
    pattern: str,
    schema: Schema | None,
    select: Callable[[pl.DataFrame], pl.DataFrame],
) -> pl.DataFrame:
    """Return what `select` takes of each part of all files that match `pattern`, together.

    Raises:
        DataError: there are no rows, or they are not what `select` needs.
    """
    tables = []
    for name in files.find(pattern):
        for first_row, rows in stream(files, name, schema):
            try:
                tables.append(select(rows))
            except pl.exceptions.PolarsError as error:
                raise DataError(
                    f"{name} row {first_row + 1} and on: are no objects of the kind expected "
                    f"({first_line(error)}); download the file again"
                ) from error
    if not tables:
        raise DataError(f"'{files.path}': {pattern} holds no rows; download it again")
    return pl.concat(tables)


def _parse(lines: bytes, schema: Schema | None) -> pl.DataFrame:
    # all lines count for a schema that is not given: a key may first come in the last one
    return pl.read_ndjson(lines, schema=schema, infer_schema_length=None)


def _first_fault(lines: list[bytes], schema: Schema | None) -> int:
    """Index of the first line that cannot be read, by bisection."""
    low = 0
    high = len(lines)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            _parse(b"\n".join(lines[low:middle]), schema)
            low = middle
        except pl.exceptions.PolarsError:
            high = middle
    return low
