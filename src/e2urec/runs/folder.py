"""Run folders: made in `RUN.partial`, renamed when whole, hashed; an interrupt leaves nothing behind."""

import contextlib
import errno
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import RunError
from ..core.process import first_process, sigterm_as_interrupt, wait_for_all
from .record import LOCK, hash_file

try:
    import fcntl
except ImportError:  # Windows: a partial folder then counts as abandoned until it is discarded
    fcntl = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Run:
    """A finished run folder and what its `run.json` says."""

    path: Path
    record: dict[str, Any]


def partial_of(out: Path) -> Path:
    """The folder in which `out` is being made."""
    return out.with_name(out.name + ".partial")


@contextlib.contextmanager
def create_run(out: Path, *, keep: str | None = None) -> Iterator[Path]:
    """Yield the folder to work in; it becomes `out` when the block ends well and is deleted otherwise.

    Once it holds something called `keep` it stays even when the block does not end well; the next call goes on in it.
    Of several processes the first makes the folder; what the others write is thrown away.

    Raises:
        RunError: `out` exists, is being made by another process or was abandoned half-way, or the disk is full.
    """
    if first_process():
        with _made(out, keep) as partial:
            yield partial
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{out.name}.rank", dir=out.parent) as scratch:
            yield Path(scratch)
    wait_for_all()


@contextlib.contextmanager
def _made(out: Path, keep: str | None) -> Iterator[Path]:
    partial = partial_of(out)
    if out.exists():
        raise RunError(f"'{out}': exists already; choose another folder or remove it")
    if partial.exists() and (not keep or _locked(partial)):
        remedy = "wait for it" if _locked(partial) else f"remove it with: e2urec discard {out}"
        state = "is being made by another process" if _locked(partial) else "was left half-made"
        raise RunError(f"'{partial}': {state}; {remedy}")
    try:
        partial.mkdir(parents=True, mode=0o700, exist_ok=keep is not None)
        with sigterm_as_interrupt(), (partial / LOCK).open("w") as lock:
            if fcntl:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield partial
        (partial / LOCK).unlink()
        partial.rename(out)
    except BaseException as error:
        if keep is None or not (partial / keep).exists():
            shutil.rmtree(partial, ignore_errors=True)
        if _disk_full(error):
            raise RunError(
                f"'{out}': no space left on the disk; free some and run again"
            ) from error
        if isinstance(error, OSError):
            raise RunError(
                f"'{out}': {error.strerror or error}; choose a folder that can be written"
            ) from error
        raise


def _disk_full(error: BaseException) -> bool:
    """Also as safetensors tells it, which wraps the system's error in text."""
    return (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "os error 28" in str(
        error
    ).lower()


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
        RunError: the folder is missing, partial, no run, or damaged.
    """
    if not path.is_dir():
        raise RunError(f"'{path}': is no folder; name a run folder made by e2urec")
    if path.suffix == ".partial":
        raise RunError(
            f"'{path}': is a half-made run; wait for it, or remove it with: e2urec discard {path.stem}"
        )
    try:
        record = json.loads((path / "run.json").read_text(encoding="utf-8"))
        files: dict[str, Any] = record["files"]
    except FileNotFoundError as error:
        raise RunError(
            f"'{path}': is no run folder (it has no run.json); name one made by e2urec"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"'{path / 'run.json'}': is damaged; restore the folder from a backup"
        ) from error
    for name, expected in files.items():
        file = path / name
        whole = file.is_file() and file.stat().st_size == expected["bytes"]
        if not whole or (verify and hash_file(file) != expected["sha256"]):
            raise RunError(f"'{file}': is missing or damaged; restore the folder from a backup")
    return Run(path, record)
