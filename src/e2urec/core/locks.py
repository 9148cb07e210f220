"""Locks on folders, and folders that are private to a process until they are whole.

A lock is held on the open folder itself: it goes with the process, whatever ends it, and with the
folder when that is renamed.
"""

import contextlib
import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .durable import make_folders, remove_tree
from .process import uninterrupted

try:
    import fcntl
except ImportError:  # Windows: a half-made folder then counts as abandoned until it is discarded
    fcntl = None  # type: ignore[assignment]

SUFFIX = ".partial"
"""Of every folder that is not whole yet."""
LOCK_SECONDS = 30.0
"""How long a lock is waited for that is held for the time of reading or writing one model."""
LOOK_SECONDS = 0.05
# Windows has neither of these flags, and no such locks.
FOLDER_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)


@dataclass(frozen=True)
class FolderLock:
    """The lock of a folder, held until `release` or the end of the process.

    Attributes:
        path: of the folder when it was locked.
        handle: of the open folder; None where the system has no such locks.
    """

    path: Path
    handle: int | None

    @classmethod
    def take(cls, path: Path) -> "FolderLock | None":
        """Lock a folder; None where another process has the lock, or no such folder is there."""
        if fcntl is None:
            return cls(path, None) if path.is_dir() else None
        try:
            handle = os.open(path, FOLDER_FLAGS)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        except OSError:  # some network file systems lock no folder
            os.close(handle)
            return cls(path, None)
        lock = cls(path, handle)
        # Between the two calls its owner may have renamed or removed it.
        if lock.owns(path):
            return lock
        lock.release()
        return None

    def owns(self, path: Path) -> bool:
        """Whether the folder that is locked is the one at `path` now."""
        try:
            status = path.stat(follow_symlinks=False)
        except OSError:
            return False
        return self.handle is None or os.path.samestat(os.fstat(self.handle), status)

    def release(self) -> None:
        """Let go of the lock."""
        if self.handle is not None:
            os.close(self.handle)


def wait_for_lock(folder: Path) -> FolderLock | None:
    """Lock a folder that others lock for a moment; None: it is not there, or stays locked."""
    end = time.monotonic() + LOCK_SECONDS
    lock = FolderLock.take(folder)
    while lock is None and folder.is_dir() and time.monotonic() < end:
        time.sleep(LOOK_SECONDS)
        lock = FolderLock.take(folder)
    return lock


@dataclass(frozen=True)
class SharedFolder:
    """A folder in which processes keep what can be made again, until one of them removes it.

    Whoever removes it locks it first. Nothing that was begun before comes into it afterwards: a
    process that finds another folder of this name, or none, keeps nothing any more.

    Attributes:
        path: of the folder.
        handle: it stays open, so that the system gives its number to no other folder; None where
            folders are not opened.
    """

    path: Path
    handle: int | None

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path) -> "Iterator[SharedFolder]":
        """Open the folder, made if need be; it goes in the end if it is empty."""
        make_folders(path)
        handle = None if fcntl is None else os.open(path, FOLDER_FLAGS)
        try:
            yield cls(path, handle)
        finally:
            if handle is not None:
                os.close(handle)
            with contextlib.suppress(OSError):
                path.rmdir()

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool]:
        """Lock it for a moment; yields False where it was removed, or others keep the lock."""
        lock = wait_for_lock(self.path)
        try:
            yield lock is not None and FolderLock(self.path, self.handle).owns(self.path)
        finally:
            if lock is not None:
                lock.release()


@contextlib.contextmanager
def private_folder(final: Path, kind: str = "new") -> Iterator[Path]:
    """Yield a locked folder beside `final`, of mode 0700, and remove it unless it was renamed.

    What dead processes left there is removed first.

    Args:
        final: the folder that it may become.
        kind: a word for its name.
    """
    sweep(final)
    folder, lock = _new_folder(final, kind)
    try:
        yield folder
    finally:
        try:
            with uninterrupted():
                if lock.owns(folder):
                    remove_tree(folder)
        finally:
            lock.release()


def remove_folder(folder: Path, final: Path) -> None:
    """Remove a folder that this process has locked, so that a kill leaves all of it or nothing.

    Args:
        folder: to remove.
        final: the folder that it was to become. What a kill leaves is removed by `sweep(final)`.
    """
    # Half of it, under the name that it has, might be taken for something to go on with.
    aside = final.parent / (_prefix(final, "removed") + secrets.token_hex(4) + SUFFIX)
    folder.rename(aside)
    remove_tree(aside)


def remains(final: Path) -> list[Path]:
    """Private folders beside `final`, of processes at work or dead."""
    if not final.parent.is_dir():
        return []
    pattern = re.compile(re.escape(final.name) + r"\.[a-z]+\d*~[a-z0-9_]{8}" + re.escape(SUFFIX))
    return sorted(path for path in final.parent.iterdir() if pattern.fullmatch(path.name))


def sweep(final: Path) -> None:
    """Remove the private folders beside `final` that dead processes left."""
    for folder in remains(final):
        lock = FolderLock.take(folder)
        if lock is None:
            continue
        # Where folders cannot be locked, nobody can tell whether its process is dead.
        if lock.handle is not None:
            remove_tree(folder)
        lock.release()


def _new_folder(final: Path, kind: str) -> tuple[Path, FolderLock]:
    lock = None
    # Another process may take it for left-over before it is locked, and remove it.
    while lock is None:
        name = tempfile.mkdtemp(prefix=_prefix(final, kind), suffix=SUFFIX, dir=final.parent)
        folder = Path(name)
        lock = FolderLock.take(folder)
    return folder, lock


def _prefix(final: Path, kind: str) -> str:
    return f"{final.name}.{kind}~"
