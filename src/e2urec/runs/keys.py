"""The controller's key, under which requests and rows are recorded."""

import contextlib
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from platformdirs import user_data_path

from ..core.errors import RunError


def request_digest(lines: Iterable[str], key: bytes) -> str:
    """HMAC-SHA256 of a request's sorted lines under the controller's key: a plain hash of ids could be guessed."""
    return hmac.new(key, "\n".join(sorted(set(lines))).encode(), hashlib.sha256).hexdigest()


def controller_key(path: Path | None = None) -> bytes:
    """The key in `path`, in the file that `E2UREC_KEY_FILE` names, or one that is made once for this user.

    Raises:
        RunError: the file cannot be read or made, or is empty.
    """
    named = path or (
        Path(os.environ["E2UREC_KEY_FILE"]) if os.environ.get("E2UREC_KEY_FILE") else None
    )
    if named is None:
        named = user_data_path("e2urec") / "controller.key"
        try:
            named.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                handle = os.open(named, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
                with os.fdopen(handle, "wb") as file:
                    file.write(secrets.token_bytes(32))
        except OSError as error:
            raise RunError(
                f"key file '{named}': cannot be made ({error.strerror}); name one by --key-file"
            ) from error
    try:
        key = named.read_bytes()
    except OSError as error:
        raise RunError(
            f"key file '{named}': cannot be read ({error.strerror}); name another"
        ) from error
    if not key:
        raise RunError(f"key file '{named}': is empty; it must hold the controller's key")
    return key
