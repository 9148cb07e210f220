"""What a process does to the file system: counted, ended by SIGKILL at one event, or checked.

Python tells of files that it opens, renames and removes (`sys.addaudithook`); `os.fsync` is
wrapped. What libraries write by themselves, such as safetensors, is seen by its inode: size and
time of the last change at its last sync must be those that it has when it gets its name.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

CHANGES = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link", "os.truncate"}
WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT
UNFINISHED = (".partial", ".tmp")
"""Ends of names that stand for nothing yet."""
ASIDE = ("former",)
"""Names under which something old waits to be removed."""

Listener = Callable[[str, tuple[object, ...]], None]
_listeners: list[Listener] = []
_true_fsync = os.fsync


def listen(listener: Listener) -> None:
    """Call `listener` with name and arguments before each event, until the process ends."""
    if not _listeners:
        sys.addaudithook(_hear)
        os.fsync = _fsync
    _listeners.append(listener)


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if event in CHANGES or (event == "open" and int(arguments[2] or 0) & WRITE_FLAGS):
        for listener in _listeners:
            listener(event, arguments)


def _fsync(handle: int) -> None:
    for listener in _listeners:
        listener("fsync", (handle,))
    _true_fsync(handle)
    for listener in _listeners:
        listener("synced", (handle,))


class Counter:
    """Counts the events below a folder, and ends the process by SIGKILL at one of them."""

    def __init__(self, folder: Path, kill_at: int | None = None) -> None:
        self.folder = str(folder)
        self.kill_at = kill_at
        self.count = 0

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "synced" or not self._is_below(event, arguments):
            return
        self.count += 1
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def _is_below(self, event: str, arguments: tuple[object, ...]) -> bool:
        if event == "fsync":
            path = str(Path(f"/proc/self/fd/{arguments[0]}").readlink())
        else:
            path = os.fsdecode(arguments[0]) if not isinstance(arguments[0], int) else ""
        # A removal names what it removes by the open folder that holds it.
        return path.startswith(self.folder) or "/" not in path


class FailingDisk(Counter):
    """A disk that from one event on is full, or cannot be written at all."""

    def __init__(self, folder: Path, fails_at: int, number: int) -> None:
        super().__init__(folder)
        self.fails_at = fails_at
        self.number = number

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        super().__call__(event, arguments)
        if self.count < self.fails_at or not self._fails(event):
            return
        if self._is_below(event, arguments):
            raise OSError(self.number, os.strerror(self.number), str(self.folder))

    def _fails(self, event: str) -> bool:
        # On a full disk files can still be renamed and removed.
        if self.number == errno.ENOSPC:
            return event in ("open", "os.mkdir")
        return event != "synced"


class SyncLog:
    """Finds what was not on the disk when it got its name, or when the command was over."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.synced: dict[int, tuple[int, int]] = {}
        self.named = 0
        self.unsynced: list[str] = []

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "synced":
            status = os.fstat(int(str(arguments[0])))
            self.synced[status.st_ino] = (status.st_mtime_ns, status.st_size)
        elif event in ("os.rename", "os.link"):
            source, target = Path(os.fsdecode(arguments[0])), Path(os.fsdecode(arguments[1]))
            if self.folder in target.parents and not _is_unfinished(target):
                self.named += 1
                self.check(source)

    def check(self, path: Path) -> None:
        """Note what at and below `path` was changed since it was synced, or never was."""
        for item in (path, *path.rglob("*")):
            status = item.stat()
            # A folder's size says nothing; its time changes with the names that it holds.
            state = (status.st_mtime_ns, status.st_size)
            if self.synced.get(status.st_ino) != state:
                self.unsynced.append(str(item.relative_to(self.folder)))


def _is_unfinished(path: Path) -> bool:
    return path.name.endswith(UNFINISHED) or path.name in ASIDE
