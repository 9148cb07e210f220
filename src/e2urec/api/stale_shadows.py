"""Shadow models that were tuned on rows which a request erases."""

import shutil
from pathlib import Path

from ..core.contents import hash_file
from ..core.durable import sync_folder
from ..core.errors import RunError
from ..runs.folder import Run
from ..runs.record import NAME, read_record
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
        # A power cut must not bring them back.
        sync_folder(folder.parent)
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
        # Its other files do not matter: the shadow models of a damaged run have to go as well.
        parent = Run(Path(record.path), read_record(Path(record.path)))
    except RunError:
        return None
    return parent if hash_file(parent.path / NAME) == record.sha256 else None
