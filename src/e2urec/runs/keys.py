"""The controller's key, under which requests and rows are recorded.

With it a record can be shown to be that of a request or a row; without it the record says nothing.
Whoever has a record can try keys on it for as long as he likes, so a key has to be long and random.
"""

import contextlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from platformdirs import user_data_path

from ..core.derived_keys import derived_key
from ..core.durable import create_file, make_folders
from ..core.errors import RunError
from .record import versions

VARIABLE = "E2UREC_KEY_FILE"
"""Environment variable that may name the key's file."""
KEY_BYTES = 32
"""As long as what HMAC-SHA256 puts out: a longer key adds nothing, and a shorter one is refused."""
# Nobody makes a longer one, while a file that is no key may fill the memory.
MAX_KEY_BYTES = 1 << 20
# Opening a pipe would else wait for whoever writes into it. Windows has no such pipes.
NO_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
# 32 random bytes have 30 different ones, 32 random hexadecimal digits 14. A disk that was cut off
# leaves zeros, which are one.
MIN_DISTINCT_BYTES = 8
READABLE_BY_OTHERS = stat.S_IRWXG | stat.S_IRWXO
MAKE_ANOTHER = "make one with: (umask 077; head -c 32 /dev/urandom > FILE)"


def request_digest(lines: Iterable[str], key: bytes) -> str:
    """HMAC-SHA256 of a request's sorted lines under the controller's key, in hexadecimal.

    A plain hash of ids could be guessed.
    """
    text = "\n".join(sorted(set(lines)))
    # Under a key of its own: an id may be the name of another key's purpose.
    return hmac.digest(derived_key(key, b"e2urec requests"), text.encode(), "sha256").hex()


def settings_digest(settings: Mapping[str, Any], key: bytes) -> str:
    """HMAC-SHA256 of JSON values and of the versions at work under the controller's key.

    By it a command is known again that goes on with unfinished work. A plain hash of what tells of
    data would be a fingerprint of them.
    """
    text = json.dumps({"settings": settings, "versions": versions()}, sort_keys=True)
    return hmac.digest(derived_key(key, b"e2urec settings"), text.encode(), "sha256").hex()


def controller_key(path: Path | None = None) -> bytes:
    """The key in `path`, in the file that the environment names, or one made once for this user.

    Raises:
        RunError: the file cannot be read or made, is no plain one, can be read by others, or holds
            a key that is too short, too long or no random one.
    """
    # The nearest wins: an option of the command, then the environment, then this user's own.
    file = path or _named_by_environment() or _own_key_file()
    try:
        handle = os.open(file, os.O_RDONLY | NO_WAITING)
        with os.fdopen(handle, "rb") as stream:
            # Of the file that was opened, whatever has the name by now.
            _refuse_open_to_others(os.fstat(stream.fileno()).st_mode, file)
            key = stream.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise RunError(
            f"key file '{file}': cannot be read ({error.strerror}); name another"
        ) from error
    _refuse_weak(key, file)
    return key


def key_at_hand(path: Path | None = None) -> bytes | None:
    """The same key if one is named or this user has one; otherwise None, and none is made.

    Raises:
        RunError: it is named, or there, and cannot be read.
    """
    is_named = path is not None or _named_by_environment() is not None
    own = user_data_path("e2urec") / "controller.key"
    return controller_key(path) if is_named or own.exists() else None


def _refuse_open_to_others(mode: int, file: Path) -> None:
    """Raise RunError for a file of this mode that is no plain one, or not its owner's alone."""
    if not stat.S_ISREG(mode):
        raise RunError(f"key file '{file}': is no plain file; name another")
    # Windows has no such modes, and tells all files to be readable by all.
    if os.name == "posix" and mode & READABLE_BY_OTHERS:
        raise RunError(
            f"key file '{file}': can be read or changed by other users; take that back with: "
            f"chmod 600 {file}"
        )


def _refuse_weak(key: bytes, file: Path) -> None:
    """Raise RunError for a key that could be guessed from what was recorded under it."""
    if len(key) < KEY_BYTES:
        raise RunError(
            f"key file '{file}': holds {len(key)} bytes, and a key of fewer than {KEY_BYTES} can "
            f"be guessed from a run folder; restore it, or {MAKE_ANOTHER}"
        )
    if len(key) > MAX_KEY_BYTES:
        raise RunError(
            f"key file '{file}': holds more than {MAX_KEY_BYTES} bytes, so it is no key; name "
            f"another, or {MAKE_ANOTHER}"
        )
    distinct = len(set(key))
    if distinct < MIN_DISTINCT_BYTES:
        raise RunError(
            f"key file '{file}': holds {distinct} different bytes, so it is no random key and can "
            f"be guessed; restore it, or {MAKE_ANOTHER}"
        )


def _named_by_environment() -> Path | None:
    name = os.environ.get(VARIABLE)
    return Path(name) if name else None


def _own_key_file() -> Path:
    """This user's own key file, made if it is not there yet."""
    file = user_data_path("e2urec") / "controller.key"
    if file.exists():
        return file
    try:
        make_folders(file.parent)
        # Made once: under a new key nobody could check what was recorded under the old one. Of two
        # commands at once only one makes it.
        with contextlib.suppress(FileExistsError):
            create_file(file, secrets.token_bytes(KEY_BYTES), mode=0o600)
    except OSError as error:
        raise RunError(
            f"key file '{file}': cannot be made ({error.strerror}); name one by --key-file"
        ) from error
    return file
