"""Run folders: made in `RUN.partial`, hashed, and renamed when whole.

An interrupt leaves nothing behind.
"""

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import E2URecError, RunError
from ..core.process import first_process, sigterm_as_interrupt, wait_for_all
from .files import hash_file
from .record import CHECKPOINTS, LOCK, RunRecord, read_record

try:
    import fcntl
except ImportError:  # Windows: a partial folder then counts as abandoned until it is discarded
    fcntl = None  # type: ignore[assignment]

PARTIAL = ".partial"


@dataclass(frozen=True)
class Run:
    """A finished run folder, and what its `run.json` says."""

    path: Path
    record: RunRecord

    @property
    def adapted(self) -> bool:
        """Whether the run holds an adapter, and not a whole model."""
        return (self.path / "adapter").is_dir()


def partial_of(out: Path) -> Path:
    """The folder in which `out` is being made."""
    # `.` and `..` have no names of their own.
    if out.name in ("", ".."):
        out = out.resolve()
    return out.with_name(out.name + PARTIAL)


@contextlib.contextmanager
def create_run(out: Path, *, keep: str | None = None, resume: bool = True) -> Iterator[Path]:
    """Yield the folder to work in; it becomes `out` when the block ends well, and is deleted else.

    Of several processes the first makes the folder; what the others write is thrown away.

    Args:
        out: the run folder to make.
        keep: once the folder holds a file or folder of this name, it stays even when the block does
            not end well, and the next call goes on in it.
        resume: whether that next call may be this one.

    Raises:
        RunError: `out` exists, is being made by another process or was abandoned half-way, or the
            disk is full.
    """
    if first_process():
        with _partial_folder(out, keep, resume=resume) as partial:
            yield partial
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{out.name}.rank", dir=out.parent) as scratch:
            yield Path(scratch)
    wait_for_all()


@contextlib.contextmanager
def add_to_run(run: Run, *, keep: str) -> Iterator[Path]:
    """Yield a folder to work in while something is added to a finished run; it goes in the end.

    Args:
        run: the run, of which the folder is the partial one: `discard_run` removes it.
        keep: as `create_run` has it.

    Raises:
        RunError: another process works there, or the disk is full.
    """
    partial = partial_of(run.path)
    _refuse_unfinished(run.path, resumable=True)
    with _working_folder(run.path, keep, finish=lambda: shutil.rmtree(partial)):
        yield partial


@contextlib.contextmanager
def _partial_folder(out: Path, keep: str | None, *, resume: bool) -> Iterator[Path]:
    if out.exists():
        raise RunError(f"'{out}': exists already; choose another folder or remove it")
    _refuse_unfinished(out, resumable=keep is not None and resume)
    partial = partial_of(out)

    def finish() -> None:
        # Renamed only now: a folder of the run's own name is always whole.
        (partial / LOCK).unlink()
        partial.rename(out)

    with _working_folder(out, keep, finish):
        yield partial


@contextlib.contextmanager
def _working_folder(out: Path, keep: str | None, finish: Callable[[], object]) -> Iterator[None]:
    """Make the partial folder of `out` and hold its lock; `finish` it if the block ends well."""
    partial = partial_of(out)
    try:
        # Private to its owner: what is made here may hold what was asked to be forgotten.
        partial.mkdir(parents=True, mode=0o700, exist_ok=keep is not None)
        with sigterm_as_interrupt(), (partial / LOCK).open("w") as lock:
            if fcntl:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finish()
    except BaseException as error:
        is_kept = keep is not None and (partial / keep).exists()
        if not is_kept:
            shutil.rmtree(partial, ignore_errors=True)
        explanation = _explanation(error, out)
        if explanation is None and is_kept and isinstance(error, E2URecError):
            explanation = type(error)(
                f"{error}; what is finished stays in '{partial}', and e2urec discard {out} "
                "removes it"
            )
        if explanation is None:
            raise
        raise explanation from error


def _refuse_unfinished(out: Path, *, resumable: bool) -> None:
    """Raise RunError where somebody works in the partial folder, or left it and cannot go on."""
    partial = partial_of(out)
    if not partial.exists():
        return
    if _locked(partial):
        raise RunError(f"'{partial}': is being made by another process; wait for it")
    if not resumable:
        hint = ""
        if (partial / CHECKPOINTS).is_dir():
            hint = "go on by the same command with --resume, or "
        raise RunError(
            f"'{partial}': was left half-made; {hint}remove it with: e2urec discard {out}"
        )


def _explanation(error: BaseException, out: Path) -> E2URecError | None:
    """What to say where the disk is at fault; None for any other error."""
    if _disk_full(error):
        return RunError(f"'{out}': no space left on the disk; free some and run again")
    if isinstance(error, OSError):
        reason = error.strerror or error
        return RunError(f"'{out}': {reason}; choose a folder that can be written")
    return None


def _disk_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return True
    # safetensors wraps the system's error in text
    return "os error 28" in str(error).lower()


def _locked(partial: Path) -> bool:
    if fcntl is None or not (partial / LOCK).exists():
        return False
    with (partial / LOCK).open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def discard_run(out: Path) -> None:
    """Remove `out.partial`, and only that.

    Raises:
        RunError: there is none, or a live process works in it.
    """
    partial = partial_of(out)
    if not partial.is_dir():
        raise RunError(f"'{partial}': there is no such folder; nothing to discard")
    if _locked(partial):
        raise RunError(f"'{partial}': is being made by another process; stop that first")
    shutil.rmtree(partial)


def open_run(path: Path, *, verify: bool = False) -> Run:
    """Read a run folder; with `verify` every file is checked against its SHA-256.

    Raises:
        RunError: the folder is missing, partial, no run, damaged, or of another version.
    """
    if not path.is_dir():
        raise RunError(f"'{path}': is no folder; name a run folder made by e2urec")
    # It may hold a whole run.json already, and still not be whole.
    if path.suffix == PARTIAL:
        raise RunError(
            f"'{path}': is a half-made run; wait for it, or remove it with: "
            f"e2urec discard {path.stem}"
        )
    record = read_record(path)
    for name, expected in record.files.items():
        file = path / name
        # The size costs nothing to check; the hash of a large model takes seconds.
        whole = file.is_file() and file.stat().st_size == expected.bytes
        if whole and verify:
            whole = hash_file(file) == expected.sha256
        if not whole:
            raise RunError(f"'{file}': is missing or damaged; restore the folder from a backup")
    return Run(path, record)
