"""Files that one run takes over from another."""

import shutil
from collections.abc import Callable
from pathlib import Path

from ..core.contents import RESTORE, hash_file
from ..core.errors import RunError
from .folder import Run

MODEL = ("model", "adapter", "recommender.json")
"""The files and folders that a recommender is loaded from."""


def copy_files(run: Run, folder: Path, chosen: Callable[[str], bool]) -> None:
    """Copy the files that a run's record lists, those whose name is `chosen`, into `folder`.

    Raises:
        RunError: a file is not what the record says.
    """
    for name, file in run.record.files.items():
        if chosen(name):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run.path / name, target)
            # A file that was damaged meanwhile would get a new hash, and pass for a whole one.
            if hash_file(target) != file.sha256:
                raise RunError(f"'{run.path / name}': is damaged; {RESTORE}")


def is_of_model(name: str) -> bool:
    """Whether a file of a run is part of its recommender."""
    return Path(name).parts[0] in MODEL
