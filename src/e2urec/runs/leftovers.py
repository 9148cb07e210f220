"""What processes that were killed or interrupted left of run folders: to tell and to discard."""

from pathlib import Path

from ..core.errors import RunError
from ..core.locks import FolderLock, remains, remove_folder
from ..core.process import uninterrupted
from .folder import WORKED_FOR, busy, is_finished, partial_of, proper_path, refuse_no_folder
from .record import CHECKPOINTS


def discard_run(out: Path) -> None:
    """Remove `out.partial` and what other processes of the same run left, and only that.

    Raises:
        RunError: there is nothing, or something else than a folder; a live process works in it, or
            it cannot be removed.
    """
    partial = partial_of(out)
    refuse_no_folder(partial)
    folders = remains(proper_path(out))
    if partial.is_dir():
        folders.append(partial)
    if not folders:
        raise RunError(f"'{partial}': there is no such folder; nothing to discard")
    for folder in folders:
        lock = FolderLock.take(folder)
        if lock is None:
            # Renamed in this moment: it is a finished run, and none of ours to remove.
            if not folder.exists():
                continue
            raise busy(folder, "stop that first")
        try:
            with uninterrupted():
                remove_folder(folder, proper_path(out))
        except OSError as error:
            raise RunError(
                f"'{folder}': cannot be removed ({error.strerror}); make it writable"
            ) from error
        finally:
            lock.release()
    left = [folder for folder in remains(proper_path(out)) if folder.is_dir()]
    if left:
        raise RunError(f"'{left[0]}': cannot be removed; make all that it holds writable")


def left_behind() -> str:
    """What this process left of the runs that it worked for, in a sentence that is true now."""
    for out, keep in WORKED_FOR.items():
        folders = [partial_of(out), *remains(proper_path(out))]
        if any(_is_abandoned(folder) for folder in folders):
            return _what_stays(out, keep)
    return "no half-made run was left behind"


def _is_abandoned(folder: Path) -> bool:
    lock = FolderLock.take(folder)
    if lock is None:
        return False
    lock.release()
    return True


def _what_stays(out: Path, keep: str | None) -> str:
    partial = partial_of(out)
    if keep == CHECKPOINTS and ((partial / keep).exists() or is_finished(partial)):
        return (
            f"'{partial}' goes on by the same command with --resume; e2urec discard {out} removes "
            "it"
        )
    if keep is not None and (partial / keep).exists():
        return (
            f"what is finished stays in '{partial}', readable by you alone: models in plain, "
            "answers to forgotten rows encrypted; run the same command to go on, or remove it "
            f"with: e2urec discard {out}"
        )
    return f"a half-made run stays in '{partial}'; remove it with: e2urec discard {out}"
