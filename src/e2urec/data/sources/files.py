"""Raw files of a folder or a zip, read within bounds. Errors name the file and the row."""

import gzip
import itertools
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import IO

from ...core.errors import DataError
from .text import BLOCK, first_line

# bytes of a line: 64 MiB, far more than a row of published data takes; what goes on is no text
LONGEST_LINE = 1 << 26
# files in a zip: published data come in dozens at most, and a list of millions fills the memory
MOST_MEMBERS = 10_000


@dataclass(frozen=True)
class Files:
    """The raw data that a recipe names.

    Attributes:
        source: a folder, a zip, a single file, or the address of a database.
        limit: most bytes that anything packed may unpack to.
        named_by_user: whether the user named the source; a run folder may come from a stranger.
    """

    source: str
    limit: int
    named_by_user: bool = True

    @property
    def path(self) -> Path:
        """The folder, zip or file."""
        return Path(self.source)

    @property
    def is_address(self) -> bool:
        """Whether the source is the address of a database."""
        return "://" in self.source

    @property
    def is_zip(self) -> bool:
        """Whether the source is a zip file, by its name."""
        if self.path.is_dir():
            return False
        return self.path.suffix.lower() == ".zip"

    def exist(self) -> bool:
        """Whether there is such a folder or file; a database is only reached by reading it."""
        return self.is_address or self.path.exists()

    def find(self, pattern: str) -> list[str]:
        """Names of the files in the folder or zip that match `pattern`, sorted.

        Names are without folders: the zips of MovieLens hold a folder, and people unpack them
        either way. A single file or a database holds no files.

        Raises:
            DataError: the zip is damaged, or holds two files of one name.
        """
        names = sorted(name for name in self._names() if fnmatch(name, pattern))
        for name, successor in itertools.pairwise(names):
            if name == successor:
                raise DataError(
                    f"'{self.path}': holds more than one {name}; keep the one that is meant"
                )
        return names

    def has(self, *patterns: str) -> bool:
        """Whether there is a file for each of `patterns`."""
        return all(self.find(pattern) for pattern in patterns)

    def read(self, name: str) -> bytes:
        """Return all of a file; raises DataError if it cannot be read or is beyond the limit."""
        with self.open(name) as file:
            return b"".join(blocks(file, name, self.limit))

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Yield a file; raises DataError, also while it is being read, if it is damaged."""
        try:
            if self.path.is_dir():
                with (self.path / name).open("rb") as file:
                    yield file
                return
            with self._archive() as archive, self._member(archive, name) as file:
                yield file
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as error:
            raise DataError(
                f"'{self.path}': {name} cannot be unpacked; download it again ({first_line(error)})"
            ) from error
        except OSError as error:
            reason = error.strerror or first_line(error)
            raise DataError(f"'{self.path / name}': cannot be read ({reason})") from error

    def _names(self) -> list[str]:
        if self.path.is_dir():
            return [path.name for path in self.path.iterdir() if path.is_file()]
        if not self.is_zip:
            return []
        with self._archive() as archive:
            members = archive.infolist()
        return [Path(member.filename).name for member in members if not member.is_dir()]

    def _member(self, archive: zipfile.ZipFile, name: str) -> IO[bytes]:
        members = archive.infolist()
        member = next(info for info in members if Path(info.filename).name == name)
        # refused before anything is unpacked; `blocks` counts too, since a zip may lie
        if member.file_size > self.limit:
            raise too_large(name, self.limit)
        try:
            return archive.open(member)
        except (NotImplementedError, RuntimeError) as error:
            # a rare kind of compression, or a password
            reason = first_line(error)
            raise DataError(
                f"'{self.path}': {name} cannot be unpacked ({reason}); unpack it yourself"
            ) from error

    def _archive(self) -> zipfile.ZipFile:
        try:
            archive = zipfile.ZipFile(self.path)
        # a list of files may be damaged in other ways as well
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise DataError(f"'{self.path}': is no whole zip file; download it again") from error
        count = len(archive.infolist())
        if count > MOST_MEMBERS:
            archive.close()
            raise DataError(
                f"'{self.path}': holds {count:,} files, and may hold {MOST_MEMBERS:,}; unpack it, "
                "and name the folder with the data set's files"
            )
        return archive


def blocks(file: IO[bytes], name: str, limit: int) -> Iterator[bytes]:
    """Yield the blocks of a file; raises DataError once they are more than `limit` bytes."""
    size = 0
    while block := file.read(BLOCK):
        size += len(block)
        if size > limit:
            raise too_large(name, limit)
        yield block


def unpacked_blocks(file: IO[bytes], name: str, limit: int) -> Iterator[bytes]:
    """Yield the blocks of a gzip file, unpacked.

    Raises:
        DataError: the file breaks off, is damaged, or unpacks to more than `limit` bytes.
    """
    row_count = 0
    size = 0
    block = bytearray()
    with gzip.GzipFile(fileobj=file) as packed:
        while True:
            try:
                # read1 returns what a damaged file still holds, so the row of the damage is known
                piece = packed.read1(BLOCK)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise DataError(
                    f"{name} row {row_count + 1}: the gzip data break off or are damaged "
                    f"({first_line(error)}); download it again"
                ) from error
            row_count += piece.count(b"\n")
            size += len(piece)
            if size > limit:
                raise too_large(name, limit)
            block += piece
            is_last = not piece
            if block and (is_last or len(block) >= BLOCK):
                yield bytes(block)
                block.clear()
            if is_last:
                return


def whole_lines(blocks: Iterator[bytes], name: str) -> Iterator[tuple[int, bytes]]:
    """Cut blocks at line ends.

    Yields:
        The 0-based number of the first line, and the lines.

    Raises:
        DataError: a line has no end within `LONGEST_LINE` bytes.
    """
    row_count = 0
    rest = b""
    for block in blocks:
        end = block.rfind(b"\n") + 1
        if not end:
            rest += block
            if len(rest) > LONGEST_LINE:
                raise DataError(
                    f"{name} row {row_count + 1}: has no end within {LONGEST_LINE:,} bytes; "
                    "get the file again"
                )
            continue
        lines = rest + block[:end]
        rest = block[end:]
        yield row_count, lines
        row_count += lines.count(b"\n")
    if rest:
        yield row_count, rest


def too_large(name: str, limit: int) -> DataError:
    """The error for a file that would unpack to more than `limit` bytes."""
    return DataError(
        f"{name}: unpacks to more than {limit / 1e9:g} GB; if that is right, raise data.unpacked_gb"
    )
