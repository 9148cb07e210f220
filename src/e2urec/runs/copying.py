"""Files that one run takes over from another."""

import shutil
from collections.abc import Callable
from pathlib import Path

from .folder import Run

MODEL = ("model", "adapter", "recommender.json")
"""The files and folders that a recommender is loaded from."""


def copy_files(run: Run, folder: Path, chosen: Callable[[str], bool]) -> None:
    """Copy the files that a run's record lists, those whose name is `chosen`, into `folder`."""
    for name in run.record.files:
        if chosen(name):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run.path / name, target)


def is_of_model(name: str) -> bool:
    """Whether a file of a run is part of its recommender."""
    return Path(name).parts[0] in MODEL
