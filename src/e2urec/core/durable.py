"""Files and folders that outlast a power cut.

A rename can reach the disk before what was written does, and a power cut then leaves a whole name
on an empty file. So everything is synced (fsync) before it gets its name, and the folder that holds
the name after it.
"""

import errno
import os
import secrets
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP)
"""What file systems say that cannot sync a folder; losing hours of work for it would be worse."""


def write_file(
    path: Path, write: Callable[[Path], object], *, scratch: Path | None = None, mode: int = 0o666
) -> None:
    """Write a file that is whole or not there, and on the disk on return.

    Args:
        path: the file; an older one is replaced.
        write: writes the file that it is given.
        scratch: folder of the same disk for the half-written file; None: the file's own.
        mode: of the file, before the process's mask.
    """
    folder = scratch or path.parent
    partial = folder / f"{path.name}.tmp"
    try:
        # Made first, since whoever writes it would choose a mode of their own.
        partial.unlink(missing_ok=True)
        partial.touch(mode=mode, exist_ok=False)
        write(partial)
        sync_file(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_text(path: Path, text: str, *, scratch: Path | None = None) -> None:
    """Write UTF-8 text as `write_file` does."""
    write_file(path, lambda partial: partial.write_text(text, encoding="utf-8"), scratch=scratch)


def create_file(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Make a file that is whole or not there, and on the disk on return; an older one stays.

    Raises:
        FileExistsError: there is one.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        handle = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        sync_file(partial)
        # A rename would replace a file that another process made meanwhile; a link does not.
        os.link(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def publish_folder(folder: Path, target: Path) -> None:
    """Give a finished folder its name; on return it is on the disk with all that it holds.

    Raises:
        OSError: `target` exists and is not empty, or the disk is full or broken.
    """
    sync_tree(folder)
    folder.rename(target)
    sync_folder(target.parent)
    if folder.parent != target.parent:
        sync_folder(folder.parent)


def make_folders(folder: Path) -> None:
    """Make a folder and those above it that are missing; their names are on the disk on return."""
    missing = []
    for path in (folder, *folder.parents):
        if path.exists():
            break
        missing.append(path)
    folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(missing):
        sync_folder(path.parent)


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that it holds, as far as that can be done."""
    shutil.rmtree(folder, ignore_errors=True)
    # It may have held what was asked to be forgotten: a power cut must not bring it back.
    if folder.parent.is_dir():
        sync_folder(folder.parent)


def sync_tree(folder: Path) -> None:
    """Sync all files below a folder, and every folder after what it holds."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync_file(Path(parent, name))
        sync_folder(Path(parent))


def sync_file(path: Path) -> None:
    """Have what was written into a file on the disk."""
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
        # On macOS fsync leaves data in the drive's own memory.
        if sys.platform == "darwin":
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    # Windows opens no folder; NTFS keeps a journal of names by itself.
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise
    finally:
        os.close(handle)
