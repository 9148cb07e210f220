"""Shadow models that were tuned on rows which a request erases."""

import shutil
from pathlib import Path

from ..core.errors import RunError
from ..runs.files import hash_file
from ..runs.folder import Run, open_run
from ..runs.record import NAME
from .request import RequestCase

SHADOWS = "shadows"
"""Folder of a run in which an evaluation keeps them."""


def remove_stale_shadows(case: RequestCase) -> None:
    """Remove the shadow models of all earlier runs that saw a row of a request, and say so.

    They belong to no result, and an evaluation makes them anew: nobody would think of them when the
    earlier runs are cleared away.
    """
    split = case.space.split
    read_by_shadows = split.train.visible_rows() | split.unseen.visible_rows()
    if not (read_by_shadows & case.parts.erased).any():
        return
    run: Run | None = case.parent
    while run is not None:
        _remove(run.path / SHADOWS, case)
        run = _parent_of(run)


def _remove(folder: Path, case: RequestCase) -> None:
    if not folder.is_dir():
        return
    try:
        shutil.rmtree(folder)
    except OSError as error:
        case.options.say(
            f"'{folder}': holds shadow models that were tuned on rows which are erased now, and "
            f"cannot be removed ({error.strerror}); remove it"
        )
        return
    case.options.say(
        f"removed '{folder}': its shadow models were tuned on rows that are erased now; evaluate "
        "trains others"
    )


def _parent_of(run: Run) -> Run | None:
    """The run that a request was put to, if it still is where it was."""
    record = run.record.parent
    if record is None:
        return None
    try:
        parent = open_run(Path(record.path))
    except RunError:
        return None
    return parent if hash_file(parent.path / NAME) == record.sha256 else None
