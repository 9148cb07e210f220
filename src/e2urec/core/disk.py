"""Room on a disk."""

import errno
import shutil
from pathlib import Path

from .errors import NoRoomError


def is_full(error: BaseException) -> bool:
    """Whether a disk, or what a user may write to it, is full."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    # safetensors wraps the system's error in text
    return "os error 28" in str(error).lower()


def require_room(folder: Path, size: int) -> None:
    """Raise NoRoomError unless `size` bytes fit into `folder`, or hours of work end with nothing.

    Models and checkpoints ask, each for themselves. Whatever else stays takes little beside them,
    so no margin is added.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        raise NoRoomError(
            f"'{folder}': {size / 1e9:.2f} GB will be written, and {free / 1e9:.2f} GB are free; "
            "free some, or choose a folder on another disk"
        )
