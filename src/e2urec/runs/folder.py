"""Run folders: made in `RUN.partial`, hashed, synced, and renamed when whole.

An interrupt leaves nothing behind.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..core.contents import RESTORE, check_files, hash_file
from ..core.disk import is_full
from ..core.durable import (
    make_folders,
    publish_folder,
    remove_tree,
    sync_folder,
    sync_tree,
)
from ..core.errors import E2URecError, RunError
from ..core.launch import wait_for_all
from ..core.locks import SUFFIX, FolderLock, private_folder, remove_folder, sweep
from ..core.process import (
    first_process,
    rank,
    signals_as_interrupt,
    uninterrupted,
)
from ..core.reading import damaged
from .record import ADDITIONS, CHECKPOINTS, NAME, RESUMPTION, RunRecord, read_record

IN_THE_WAY = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)
"""What a system says that cannot give a folder the name of something else."""
WORKED_FOR: dict[Path, str | None] = {}
"""Runs that this process worked for, and what lets it go on: what it left is told in the end."""


class UnnamedRunError(RunError):
    """A finished run could not get its name; it stays, and the message says how it gets one."""


@dataclass(frozen=True)
class Run:
    """A finished run folder, and what its `run.json` says."""

    path: Path
    record: RunRecord

    @property
    def sha256(self) -> str:
        """Hash of what its `run.json` says by now: by it other runs and files name this one."""
        return hash_file(self.path / NAME)

    @property
    def adapted(self) -> bool:
        """Whether the run holds an adapter, and not a whole model."""
        return any(name.startswith("adapter/") for name in self.record.files)


def partial_of(out: Path) -> Path:
    """The folder in which `out` is being made."""
    path = proper_path(out)
    return path.with_name(path.name + SUFFIX)


def out_of(partial: Path) -> Path:
    """The folder that is being made in `partial`."""
    return partial.with_name(partial.name.removesuffix(SUFFIX))


def proper_path(out: Path) -> Path:
    """The same folder with a name of its own, which `.` and `..` have not."""
    return out.resolve() if out.name in ("", "..") else out


@contextlib.contextmanager
def create_run(
    out: Path, *, keep: str | None = None, accept: Callable[[Path], object] | None = None
) -> Iterator[Path]:
    """Yield the folder to work in; it becomes `out` when the block ends well, and is deleted else.

    On return `out` is on the disk, with all that it holds. Of several processes the first makes the
    folder; what the others write is thrown away.

    Args:
        out: the run folder to make.
        keep: once the folder holds a folder of this name, it stays even when the block does not end
            well, and a later call may go on in it. The finished run is without it.
        accept: called with a folder that an earlier call left; raises RunError unless this call can
            go on in it. None: it cannot.

    Raises:
        RunError: `out` exists, is being made by another process or was abandoned half-way, or the
            disk is full.
        UnnamedRunError: something else got the name `out` meanwhile.
    """
    with signals_as_interrupt():
        if first_process():
            _refuse_existing(out)
            with _working_folder(out, keep, accept or _refuse_left) as partial:
                # Asked again: whoever made it meanwhile has left the partial folder's name to us.
                _refuse_existing(out)
                yield partial
                _publish(partial, out, keep)
        else:
            make_folders(out.parent)
            with private_folder(proper_path(out), f"rank{rank()}") as scratch:
                yield scratch
        wait_for_all()


def _publish(partial: Path, out: Path, keep: str | None) -> None:
    """Remove from a finished run what it went on from, and give it its name."""
    if keep is not None:
        # Now, since it may take long: a power cut would else take what that could make again.
        sync_tree(partial)
    try:
        # An interrupt amid all this would leave neither the run nor what could make it again.
        with uninterrupted():
            if keep is not None:
                # First, since without it the run counts as finished.
                (partial / RESUMPTION).unlink(missing_ok=True)
                sync_folder(partial)
                remove_tree(partial / keep)
            publish_folder(partial, out)
    except OSError as error:
        if error.errno not in IN_THE_WAY:
            raise
        raise UnnamedRunError(
            f"'{partial}': is finished, but '{out}' is in the way; move that, then: "
            f"mv {partial} {out}"
        ) from error


def is_finished(partial: Path) -> bool:
    """Whether a run lacks its name alone: its record comes last, and the note goes after that."""
    return (partial / NAME).exists() and not (partial / RESUMPTION).exists()


@dataclass
class WorkFolder:
    """A folder to work in beside a finished run, or beside one that is to be made.

    Attributes:
        path: of the folder.
        stays: whether it shall stay when the block ends well, for the next call to go on in it.
    """

    path: Path
    stays: bool = False


@contextlib.contextmanager
def work_beside(out: Path, *, keep: str) -> Iterator[WorkFolder]:
    """Yield the partial folder of `out` to work in; it goes in the end, and `out` is not touched.

    Args:
        out: the run; `discard_run` removes the folder.
        keep: as `create_run` has it; the next call goes on in it.

    What else an earlier process left there goes with the folder, unless hours of work can be had
    back from it. Of several processes the first makes and removes the folder; the others may read
    it until all of them leave the block.

    Raises:
        RunError: another process works there, or left a run that goes on by --resume or lacks its
            name alone; or the disk is full.
    """
    with signals_as_interrupt():
        if not first_process():
            wait_for_all()
            yield WorkFolder(partial_of(out))
            wait_for_all()
            return
        with _working_folder(out, keep, _refuse_run) as partial:
            wait_for_all()
            folder = WorkFolder(partial)
            yield folder
            wait_for_all()
            if not folder.stays:
                with uninterrupted():
                    remove_folder(partial, proper_path(out))


@contextlib.contextmanager
def _working_folder(
    out: Path, keep: str | None, accept: Callable[[Path], object]
) -> Iterator[Path]:
    """Make the partial folder of `out` and hold its lock, past its renaming too."""
    lock = None
    try:
        # An interrupt between making and locking it would leave it behind.
        with uninterrupted():
            lock = _locked_folder(out, accept)
            WORKED_FOR[out] = keep
        yield partial_of(out)
    except UnnamedRunError:
        # Hours of work, and whole.
        raise
    except BaseException as error:
        explanation = _explanation(error, out)
        if lock is not None and _clean_up(out, lock, keep) and isinstance(error, E2URecError):
            explanation = type(error)(
                f"{error}; what is finished stays in '{partial_of(out)}', and e2urec discard {out} "
                "removes it"
            )
        if explanation is None:
            raise
        raise explanation from error
    finally:
        if lock is not None:
            lock.release()


def _clean_up(out: Path, lock: FolderLock, keep: str | None) -> bool:
    """Remove the partial folder of `out` after an error; returns whether it stays all the same."""
    partial = partial_of(out)
    # Only what is ours: after its renaming another process may have made a new one.
    if not lock.owns(partial):
        return False
    if keep is not None and ((partial / keep).exists() or is_finished(partial)):
        return True
    with uninterrupted(), contextlib.suppress(OSError):
        remove_folder(partial, proper_path(out))
    return False


def _locked_folder(out: Path, accept: Callable[[Path], object]) -> FolderLock:
    """Make the partial folder, or go on in one that was left if `accept` does, and lock it."""
    partial = partial_of(out)
    make_folders(partial.parent)
    sweep(proper_path(out))
    try:
        # Private to its owner: what is made here may hold what was asked to be forgotten.
        partial.mkdir(mode=0o700)
        is_new = True
    except FileExistsError:
        refuse_no_folder(partial)
        is_new = False
    lock = FolderLock.take(partial)
    # A new one may have been taken up or discarded by another process before it was locked.
    if lock is None:
        raise busy(partial, "wait for it")
    try:
        if not is_new:
            accept(partial)
    except BaseException:
        lock.release()
        raise
    return lock


def _refuse_left(partial: Path) -> None:
    """Raise RunError, which says how a folder that was left is gone on with or removed."""
    out = out_of(partial)
    state = "was left half-made"
    hint = ""
    if (partial / CHECKPOINTS).is_dir():
        hint = "go on by the same command with --resume, or "
    elif is_finished(partial):
        state = "is finished"
        hint = f"give it its name with: mv {partial} {out}; or "
    raise RunError(f"'{partial}': {state}; {hint}remove it with: e2urec discard {out}")


def _refuse_run(partial: Path) -> None:
    """Raise RunError where a run that goes on by --resume, or is finished, was left."""
    if (partial / RESUMPTION).exists() or is_finished(partial):
        _refuse_left(partial)


def _refuse_existing(out: Path) -> None:
    # A link that leads nowhere is in the way as well.
    if os.path.lexists(out):
        raise RunError(f"'{out}': exists already; choose another folder or remove it")


def refuse_no_folder(partial: Path) -> None:
    """Raise RunError where a file or a link has the name of a partial folder."""
    # No process locks such a thing, so waiting for one would not help.
    if partial.is_symlink() or (partial.exists() and not partial.is_dir()):
        raise RunError(f"'{partial}': is no folder, and in the way; remove it")


def busy(partial: Path, remedy: str) -> RunError:
    """The error that says that another process works in a folder, and what to do."""
    return RunError(f"'{partial}': is being made by another process; {remedy}")


def _explanation(error: BaseException, out: Path) -> E2URecError | None:
    """What to say where the disk is at fault; None for any other error."""
    if is_full(error):
        return RunError(f"'{out}': no space left on the disk; free some and run again")
    if isinstance(error, OSError):
        reason = error.strerror or error
        return RunError(f"'{out}': {reason}; choose a folder that can be written")
    return None


def open_run(path: Path, *, key: bytes | None = None) -> Run:
    """Read a run folder, and check each of its files against its SHA-256.

    Args:
        path: the folder.
        key: the controller's, where it is at hand: `run.json` must then be what its MAC says, if it
            has one under this key.

    Raises:
        RunError: the folder is missing, partial, no run, damaged, changed, or of another version.
    """
    try:
        return _open_run(path, key)
    except OSError as error:
        raise damaged(path, RESTORE, error) from error


def _open_run(path: Path, key: bytes | None) -> Run:
    if not path.is_dir():
        raise RunError(f"'{path}': is no folder; name a run folder made by e2urec")
    # It may hold a whole run.json already, and still not be whole.
    if path.suffix == SUFFIX:
        lock = FolderLock.take(path)
        if lock is None:
            raise busy(path, "wait for it")
        lock.release()
        _refuse_left(path)
    record = read_record(path, key)
    check_files(path, record.files, apart=(NAME, *ADDITIONS))
    return Run(path, record)
