"""Room on a disk."""

import shutil
from pathlib import Path

from .errors import RunError


def require_room(folder: Path, size: int) -> None:
    """Raise RunError unless `size` bytes fit into `folder`: hours of work would end with nothing.

    Whatever else is written takes little beside a model, so no margin is added.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        raise RunError(
            f"'{folder}': {size / 1e9:.2f} GB will be written, and {free / 1e9:.2f} GB are free; "
            "free some, or choose a folder on another disk"
        )
