"""Run folders: made in `RUN.partial`, renamed when whole, hashed; an interrupt leaves nothing behind."""

import contextlib
import errno
import hashlib
import hmac
import json
import math
import os
import platform
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any

from platformdirs import user_data_path

from .errors import RunError

try:
    import fcntl
except ImportError:  # Windows: a partial folder then counts as abandoned until it is discarded
    fcntl = None  # type: ignore[assignment]

_LOCK = ".lock"


@dataclass(frozen=True)
class Run:
    """A finished run folder and what its `run.json` says."""

    path: Path
    record: dict[str, Any]


def partial_of(out: Path) -> Path:
    """The folder in which `out` is being made."""
    return out.with_name(out.name + ".partial")


@contextlib.contextmanager
def create(out: Path, *, keep: str | None = None) -> Iterator[Path]:
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
    _meet()


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
        with _terminable(), (partial / _LOCK).open("w") as lock:
            if fcntl:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield partial
        (partial / _LOCK).unlink()
        partial.rename(out)
    except BaseException as error:
        if keep is None or not (partial / keep).exists():
            shutil.rmtree(partial, ignore_errors=True)
        if _disk_full(error):
            raise RunError(f"'{out}': no space left on the disk; free some and run again") from error
        if isinstance(error, OSError):
            raise RunError(f"'{out}': {error.strerror or error}; choose a folder that can be written") from error
        raise


def first_process() -> bool:
    """Whether this is the only process, or the first of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


def _meet() -> None:
    """Wait until every process is here: then the folder is in its place for all of them."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def _disk_full(error: BaseException) -> bool:
    """Also as safetensors tells it, which wraps the system's error in text."""
    return (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "os error 28" in str(error).lower()


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into an interrupt, so that it is cleaned up after as Ctrl-C is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _locked(partial: Path) -> bool:
    if fcntl is None or not (partial / _LOCK).exists():
        return False
    with (partial / _LOCK).open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def discard(out: Path) -> None:
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
        raise RunError(f"'{path}': is a half-made run; wait for it, or remove it with: e2urec discard {path.stem}")
    try:
        record = json.loads((path / "run.json").read_text(encoding="utf-8"))
        files: dict[str, Any] = record["files"]
    except FileNotFoundError as error:
        raise RunError(f"'{path}': is no run folder (it has no run.json); name one made by e2urec") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"'{path / 'run.json'}': is damaged; restore the folder from a backup") from error
    for name, expected in files.items():
        file = path / name
        whole = file.is_file() and file.stat().st_size == expected["bytes"]
        if not whole or (verify and hash_file(file) != expected["sha256"]):
            raise RunError(f"'{file}': is missing or damaged; restore the folder from a backup")
    return Run(path, record)


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write `run.json`: `record`, the versions at work, and size and SHA-256 of every file in `folder`."""
    files = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": hash_file(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != _LOCK
    }
    write_json(folder / "run.json", {**record, "versions": versions(), "files": files})


def write_json(path: Path, value: Any) -> None:
    """Write JSON that is whole or not there; NaN and infinity become null."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(finite(value), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(path)


def finite(value: Any) -> Any:
    """The same JSON value with None for every number that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide a result."""
    libraries = ("e2urec", "torch", "transformers", "peft", "accelerate", "numpy", "polars")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in libraries}


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def request_digest(lines: Iterable[str], key: bytes) -> str:
    """HMAC-SHA256 of a request's sorted lines under the controller's key: a plain hash of ids could be guessed."""
    return hmac.new(key, "\n".join(sorted(set(lines))).encode(), hashlib.sha256).hexdigest()


def controller_key(path: Path | None = None) -> bytes:
    """The key in `path`, in the file that `E2UREC_KEY_FILE` names, or one that is made once for this user.

    Raises:
        RunError: the file cannot be read or made, or is empty.
    """
    named = path or (Path(os.environ["E2UREC_KEY_FILE"]) if os.environ.get("E2UREC_KEY_FILE") else None)
    if named is None:
        named = user_data_path("e2urec") / "controller.key"
        try:
            named.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                handle = os.open(named, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
                with os.fdopen(handle, "wb") as file:
                    file.write(secrets.token_bytes(32))
        except OSError as error:
            raise RunError(f"key file '{named}': cannot be made ({error.strerror}); name one by --key-file") from error
    try:
        key = named.read_bytes()
    except OSError as error:
        raise RunError(f"key file '{named}': cannot be read ({error.strerror}); name another") from error
    if not key:
        raise RunError(f"key file '{named}': is empty; it must hold the controller's key")
    return key
