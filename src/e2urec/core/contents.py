"""What a folder holds, by the size and SHA-256 of each file, and whether it still does.

Damage that the format of a file does not show would otherwise be used: a flipped bit of a weight, a
file of another run, a link to somewhere else.
"""

import hashlib
import hmac
import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from .durable import remove_tree
from .errors import RunError
from .reading import UNREADABLE, damaged

CONTENTS = "contents.json"
"""File that says what a folder holds, where no record does."""
RESTORE = "restore the folder from a backup"
# A file system may note times in ticks of some milliseconds; a file that changes twice within one
# looks unchanged. Two seconds are the coarsest in use.
TICK_NANOSECONDS = 2 * 10**9

_hashes: dict[tuple[int, ...], str] = {}
"""SHA-256 of files that this process has read, by what changes when they do."""


class FileRecord(BaseModel):
    """A file: its size in bytes and its SHA-256."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int
    sha256: str


class Contents(BaseModel):
    """What a folder holds, with a MAC where a key was at hand."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: dict[str, FileRecord]
    mac: str | None = None

    def mac_under(self, key: bytes) -> str:
        """HMAC-SHA256 of the files under `key`, in hexadecimal."""
        return hmac.digest(key, self.model_dump_json(include={"files"}).encode(), "sha256").hex()


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; a file that has not changed is read once a process."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        identity = (
            status.st_dev,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )
        if identity not in _hashes:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if time.time_ns() - status.st_ctime_ns < TICK_NANOSECONDS:
                return digest
            _hashes[identity] = digest
    return _hashes[identity]


def list_files(folder: Path, apart: Collection[str] = ()) -> dict[str, Path]:
    """All files of a folder by their names in it, sorted, so that every file system gives the same.

    Args:
        folder: the folder.
        apart: names at the top of it that are left out, with all that is in them.

    Raises:
        RunError: something is a link or no plain file, or a folder cannot be read.
    """
    files = {}
    folders = [folder]
    while folders:
        for path in _entries(folders.pop()):
            name = path.relative_to(folder).as_posix()
            # A link may lead to other content by the time it is read.
            if path.is_symlink():
                raise RunError(f"'{path}': is a link; put the file itself there, or {RESTORE}")
            if name in apart:
                continue
            if path.is_dir():
                folders.append(path)
            elif path.is_file():
                files[name] = path
            else:
                raise RunError(f"'{path}': is no plain file; remove it, or {RESTORE}")
    return dict(sorted(files.items()))


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise damaged(folder, RESTORE, error) from error


def record_files(folder: Path, apart: Collection[str] = ()) -> dict[str, FileRecord]:
    """Size and SHA-256 of all files of a folder; raises as `list_files` does."""
    records = {}
    for name, path in list_files(folder, apart).items():
        records[name] = FileRecord(bytes=path.stat().st_size, sha256=hash_file(path))
    return records


def check_files(
    folder: Path, records: Mapping[str, FileRecord], apart: Collection[str] = ()
) -> None:
    """Check that a folder holds the files of `records`, byte for byte, and nothing else.

    Raises:
        RunError: it does not; the message names the file.
    """
    files = list_files(folder, apart)
    for name, path in files.items():
        if name not in records:
            raise RunError(
                f"'{path}': is not among the files that '{folder}' was made with; remove it"
            )
    for name, record in records.items():
        path = folder / name
        if name not in files:
            raise RunError(f"'{path}': is missing; {RESTORE}")
        if not _is_same(path, record):
            raise RunError(f"'{path}': is damaged; {RESTORE}")


def _is_same(path: Path, record: FileRecord) -> bool:
    try:
        # A truncated file is told by its size, before gigabytes of others are read.
        return path.stat().st_size == record.bytes and hash_file(path) == record.sha256
    except OSError as error:
        raise damaged(path, RESTORE, error) from error


def fault_of(folder: Path, key: bytes | None = None) -> str | None:
    """What `check_contents` finds wrong with a folder, without a remedy; None: nothing."""
    try:
        check_contents(folder, key)
    except RunError as error:
        return str(error).partition(";")[0]
    return None


def remove(path: Path) -> None:
    """Remove a folder, or whatever lies in its place; what a link leads to stays."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        remove_tree(path)


def write_contents(folder: Path, key: bytes | None = None) -> None:
    """Write what a folder holds into a file of it, for `check_contents`.

    Args:
        folder: the folder.
        key: for a MAC, so that nobody else can write such a file; None: there is none.
    """
    contents = Contents(files=record_files(folder, apart=(CONTENTS,)))
    if key is not None:
        contents = contents.model_copy(update={"mac": contents.mac_under(key)})
    text = contents.model_dump_json(exclude_none=True)
    (folder / CONTENTS).write_text(f"{text}\n", encoding="utf-8")


def check_contents(folder: Path, key: bytes | None = None) -> None:
    """Check a folder that `write_contents` was called for, with the same key.

    Raises:
        RunError: it is not what it was.
    """
    path = folder / CONTENTS
    if folder.is_symlink() or not folder.is_dir():
        raise RunError(f"'{folder}': is no folder of its own; {RESTORE}")
    try:
        contents = Contents.model_validate_json(path.read_bytes())
    except UNREADABLE as error:
        raise damaged(path, RESTORE, error) from error
    if key is not None and not is_same(contents.mac or "", contents.mac_under(key)):
        raise RunError(f"'{path}': was not written under this controller key; {RESTORE}")
    check_files(folder, contents.files, apart=(CONTENTS,))


def is_same(digest: str, expected: str) -> bool:
    """Whether a digest that was read is the expected one; how long it takes tells nothing of it."""
    # Bytes, since texts that are not ASCII would be an error here.
    return hmac.compare_digest(digest.encode(), expected.encode())
