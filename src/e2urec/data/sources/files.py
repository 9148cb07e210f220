"""Raw files of a folder or a zip, read with bounds: whatever is wrong with them is told by file and row."""

import codecs
import gzip
import io
import itertools
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import IO

import polars as pl

from ...core.errors import DataError

BLOCK = 1 << 24
"""Bytes that are looked at at a time."""
LONGEST = 1 << 26
"""Bytes of a line beyond which it is taken for no text."""
UTF_8 = re.compile(rb"[\xc2-\xf4][\x80-\xbf]")
"""A letter of UTF-8 that takes several bytes; in Latin-1 text it is no more than an accident."""


@dataclass(frozen=True)
class Files:
    """What lies in a folder or a zip, by the names of the files alone.

    Attributes:
        path: the folder or zip.
        limit: most bytes that anything packed may unpack to.
    """

    path: Path
    limit: int

    def find(self, pattern: str) -> list[str]:
        """Names that match `pattern`, sorted.

        Raises:
            DataError: the zip is damaged, or holds two files of one name.
        """
        if self.path.is_dir():
            names = [path.name for path in self.path.iterdir() if path.is_file()]
        else:
            with self._archive() as archive:
                names = [
                    Path(info.filename).name for info in archive.infolist() if not info.is_dir()
                ]
        found = sorted(name for name in names if fnmatch(name, pattern))
        again = next((name for name, after in itertools.pairwise(found) if name == after), None)
        if again:
            raise DataError(
                f"'{self.path}': holds more than one {again}; keep the one that is meant"
            )
        return found

    def has(self, *names: str) -> bool:
        """Whether all of `names` are there."""
        return all(self.find(name) for name in names)

    def read(self, name: str) -> bytes:
        """All of a file; raises DataError if it cannot be read, or would be larger than the limit."""
        with self.open(name) as file:
            return b"".join(bounded(file, name, self.limit))

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Yield the file; raises DataError, also while it is read, if it is not there or is damaged."""
        try:
            if self.path.is_dir():
                with (self.path / name).open("rb") as file:
                    yield file
                return
            with self._archive() as archive, self._member(archive, name) as file:
                yield file
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as error:
            raise DataError(
                f"'{self.path}': {name} cannot be unpacked; download it again ({line(error)})"
            ) from error
        except OSError as error:
            raise DataError(
                f"'{self.path / name}': cannot be read ({error.strerror or line(error)})"
            ) from error

    def _member(self, archive: zipfile.ZipFile, name: str) -> IO[bytes]:
        member = next(info for info in archive.infolist() if Path(info.filename).name == name)
        if member.file_size > self.limit:
            raise DataError(too_large(name, self.limit))
        try:
            return archive.open(member)
        except (NotImplementedError, RuntimeError) as error:  # a rare compression, or a password
            raise DataError(
                f"'{self.path}': {name} cannot be unpacked ({line(error)}); unpack it yourself"
            ) from error

    def _archive(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"'{self.path}': is no whole zip file; download it again") from error


def bounded(file: IO[bytes], name: str, limit: int) -> Iterator[bytes]:
    """Blocks of `file`; raises DataError once they are more than `limit` bytes."""
    total = 0
    while block := file.read(BLOCK):
        total += len(block)
        if total > limit:
            raise DataError(too_large(name, limit))
        yield block


def unpacked(file: IO[bytes], name: str, limit: int) -> Iterator[bytes]:
    """Blocks of a gzip file, unpacked; raises DataError where it breaks off, or beyond `limit` bytes."""
    rows, total, block = 0, 0, bytearray()
    with gzip.GzipFile(fileobj=file) as packed:
        while True:
            try:
                piece = packed.read1(BLOCK)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise DataError(
                    f"{name} row {rows + 1}: the gzip data break off or are damaged ({line(error)}); download it again"
                ) from error
            rows, total = rows + piece.count(b"\n"), total + len(piece)
            if total > limit:
                raise DataError(too_large(name, limit))
            block += piece
            if block and (len(block) >= BLOCK or not piece):
                yield bytes(block)
                block.clear()
            if not piece:
                return


def whole_lines(blocks: Iterator[bytes], name: str) -> Iterator[tuple[int, bytes]]:
    """The same bytes cut at line ends, each with the 0-based number of its first line."""
    rows, rest = 0, b""
    for block in blocks:
        end = block.rfind(b"\n") + 1
        if not end:
            rest += block
            if len(rest) > LONGEST:
                raise DataError(
                    f"{name} row {rows + 1}: has no end within {LONGEST:,} bytes; get the file again"
                )
            continue
        part, rest = rest + block[:end], block[end:]
        yield rows, part
        rows += part.count(b"\n")
    if rest:
        yield rows, rest


def readable(data: bytes, name: str) -> bytes:
    """Text as UTF-8, out of that or out of Latin-1; raises DataError with the line where it is neither, or NUL."""
    try:
        check_text(io.BytesIO(data), name)
    except DataError:
        if b"\0" in data or UTF_8.search(data):
            raise
        data = data.decode("latin-1").encode()
        check_text(io.BytesIO(data), name)
    return data


def check_text(file: IO[bytes], name: str, encoding: str = "utf-8", or_else: str = "") -> None:
    """Raise DataError at the first line that is no text: NUL bytes, another encoding, or an old kind of line end.

    `or_else` tells what may be done instead of saving it as UTF-8.
    """
    decoder, rows, last = codecs.getincrementaldecoder(encoding)(), 0, b""
    while True:
        block = file.read(BLOCK)
        ends = last + block
        faults = [(block.find(b"\0"), "holds NUL bytes; export it as text again")]
        lone = ends.replace(b"\r\n", b"\n\n").find(b"\r", 0, len(ends) - 1)
        if lone >= 0:
            faults.append(
                (
                    max(0, lone - len(last)),
                    "has line ends of old Macs beside others; save it with \\n",
                )
            )
        try:
            decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            faults.append((max(0, error.start), f"is not UTF-8; save it as UTF-8{or_else}"))
        found = [fault for fault in faults if fault[0] >= 0]
        if found:
            place, fault = min(found)
            raise DataError(f"{name} line {rows + block[:place].count(10) + 1}: {fault}")
        if not block:
            return
        rows, last = rows + block.count(b"\n"), b"\r" if block.endswith(b"\r") else b""


def delimited(data: bytes, name: str, columns: list[str], separator: str) -> pl.DataFrame:
    """A table without header or quotes, of which the first columns are named and kept; all text.

    Raises:
        DataError: it is empty, has fewer columns, or a row has more or fewer than the first.
    """
    mark = separator.encode()
    width = data[: data.find(b"\n")].count(mark) + 1
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
        uneven = table[table.columns[-1]].null_count() > 0
    except pl.exceptions.PolarsError:
        uneven = True
    if uneven:
        for number, row in enumerate(io.BytesIO(data), start=1):
            if row.strip() and row.count(mark) != width - 1:
                told = f"has {row.count(mark) + 1} columns, the first row {width}"
                raise DataError(f"{name} row {number}: {told}; get the official file again")
    if width < len(columns):
        raise DataError(
            f"{name}: has {width} columns, not {len(columns)}; the separator is {separator!r}"
        )
    table = table.select(table.columns[: len(columns)])
    table.columns = columns
    return table


def integers(table: pl.DataFrame, columns: list[str], place: str) -> pl.DataFrame:
    """`columns` as numbers; raises DataError at the first row where one is none."""
    for name in columns:
        if table.schema[name].is_integer():
            continue
        wrong = table.with_row_index("position").filter(
            pl.col(name).cast(pl.Int64, strict=False).is_null()
        )
        if wrong.height:
            row = int(wrong["position"][0]) + 1
            raise DataError(f"{place} row {row}: its {name} is no number; correct the row")
        table = table.with_columns(pl.col(name).cast(pl.Int64))
    return table


def too_large(name: str, limit: int) -> str:
    """What is said of a file that would unpack to more than `limit` bytes."""
    return (
        f"{name}: unpacks to more than {limit / 1e9:g} GB; if that is right, raise data.unpacked_gb"
    )


def line(error: Exception) -> str:
    """The first line of what a library says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
