"""The controller's key, under which requests and erased rows are recorded.

With it a record can be shown to be that of a request; without it the record says nothing.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from platformdirs import user_data_path

from ..core.errors import RunError

VARIABLE = "E2UREC_KEY_FILE"
"""Environment variable that may name the key's file."""
KEY_BYTES = 32
"""As long as what HMAC-SHA256 puts out: a longer key adds nothing."""


def request_digest(lines: Iterable[str], key: bytes) -> str:
    """HMAC-SHA256 of a request's sorted lines under the controller's key, in hexadecimal.

    A plain hash of ids could be guessed.
    """
    text = "\n".join(sorted(set(lines)))
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def controller_key(path: Path | None = None) -> bytes:
    """The key in `path`, in the file that the environment names, or one made once for this user.

    Raises:
        RunError: the file cannot be read or made, or is empty.
    """
    # The nearest wins: an option of the command, then the environment, then this user's own.
    file = path or _named_by_environment() or _own_key_file()
    try:
        key = file.read_bytes()
    except OSError as error:
        raise RunError(
            f"key file '{file}': cannot be read ({error.strerror}); name another"
        ) from error
    # An empty key would make every HMAC a plain hash.
    if not key:
        raise RunError(f"key file '{file}': is empty; it must hold the controller's key")
    return key


def key_at_hand(path: Path | None = None) -> bytes | None:
    """The same key if one is named or this user has one; otherwise None, and none is made.

    Raises:
        RunError: it is named, or there, and cannot be read.
    """
    is_named = path is not None or _named_by_environment() is not None
    own = user_data_path("e2urec") / "controller.key"
    return controller_key(path) if is_named or own.exists() else None


def _named_by_environment() -> Path | None:
    name = os.environ.get(VARIABLE)
    return Path(name) if name else None


def _own_key_file() -> Path:
    """This user's own key file, made if it is not there yet."""
    file = user_data_path("e2urec") / "controller.key"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            # Created exclusively, so that of two commands at once only one makes the key.
            handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(handle, "wb") as stream:
                stream.write(secrets.token_bytes(KEY_BYTES))
    except OSError as error:
        raise RunError(
            f"key file '{file}': cannot be made ({error.strerror}); name one by --key-file"
        ) from error
    return file
