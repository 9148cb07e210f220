"""Shadow models that were tuned on rows which a request erases."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from ..core.contents import hash_file
from ..core.durable import sync_folder
from ..core.errors import RunError
from ..core.locks import wait_for_lock
from ..core.say import Say
from ..runs.folder import Run
from ..runs.record import NAME, ParentRecord, read_record
from .request import RequestCase

SHADOWS = "shadows"
"""Folder of a run in which an evaluation keeps them."""


def remove_stale_shadows(case: RequestCase) -> None:
    """Remove the shadow models of all earlier runs that saw a row of a request, and say so.

    They belong to no result, and an evaluation makes them anew: nobody would think of them when the
    earlier runs are cleared away. An evaluation that is under way keeps none after this; one that
    begins later reads what the data hold then.
    """
    split = case.space.split
    read_by_shadows = split.train.visible_rows() | split.unseen.visible_rows()
    if not (read_by_shadows & case.parts.erased).any():
        return
    for run in _with_earlier_runs(case.parent, case.options.say):
        _remove(run.path / SHADOWS, case)


def _remove(folder: Path, case: RequestCase) -> None:
    if not folder.is_dir():
        return
    fault = _removal_fault(folder)
    if fault is not None:
        case.options.say(
            f"'{folder}': holds shadow models that were tuned on rows which are erased now, and "
            f"cannot be removed ({fault}); remove it"
        )
        return
    case.options.say(
        f"removed '{folder}': its shadow models were tuned on rows that are erased now; delete "
        "these rows from the data as well, or another evaluation of that run reads them again"
    )


def _removal_fault(folder: Path) -> str | None:
    """Remove a folder; returns why that cannot be done, if so."""
    try:
        # An evaluation holds it while it writes one shadow, and not while it trains the next.
        lock = wait_for_lock(folder)
        if lock is None:
            return "another process keeps it locked"
        try:
            shutil.rmtree(folder)
            # A power cut must not bring them back.
            sync_folder(folder.parent)
        finally:
            lock.release()
    except OSError as error:
        return error.strerror
    return None


def _with_earlier_runs(run: Run, say: Say) -> Iterator[Run]:
    """A run, and all from which it was made or copied; `say` is told of those that have moved."""
    runs = [run]
    while runs:
        later = runs.pop()
        yield later
        for record in (later.record.parent, later.record.prepared_from):
            if record is None:
                continue
            earlier = _found(record)
            if earlier is not None:
                runs.append(earlier)
            else:
                say(
                    f"'{record.path}': is not there any more; where it is now, remove its "
                    f"'{SHADOWS}': shadow models there may be tuned on rows that are erased now"
                )


def _found(record: ParentRecord) -> Run | None:
    """An earlier run, if it still is where it was."""
    folder = Path(record.path)
    try:
        # Its other files do not matter: the shadow models of a damaged run have to go as well.
        run = Run(folder, read_record(folder))
        return run if hash_file(folder / NAME) == record.sha256 else None
    except (RunError, OSError):
        return None
