"""Read files that may be damaged: whatever is wrong with one is told in one line."""

import json
import struct
import zlib
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from safetensors import SafetensorError

from .errors import RunError

UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    EOFError,
    MemoryError,
    # JSON that is nested too deeply, and archives that are encrypted or packed in another way.
    RuntimeError,
    BadZipFile,
    zlib.error,
    struct.error,
    SafetensorError,
)
"""What readers of JSON, safetensors, npz and zip raise for a file that is not as it should be."""


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        path: the file.
        remedy: what to do about a damaged file, for the error.

    Raises:
        RunError: the file cannot be read, is no JSON, or holds something else than an object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except UNREADABLE as error:
        raise damaged(path, remedy, error) from error
    if not isinstance(values, dict):
        raise damaged(path, remedy)
    return values


def damaged(path: Path, remedy: str, error: BaseException | None = None) -> RunError:
    """The error that says that a file is missing, cannot be read or is damaged, and what to do."""
    if isinstance(error, FileNotFoundError):
        return RunError(f"'{path}': is missing; {remedy}")
    if isinstance(error, OSError):
        return RunError(f"'{path}': cannot be read ({error.strerror or error}); {remedy}")
    if isinstance(error, MemoryError):
        return RunError(f"'{path}': needs more memory than there is; {remedy}")
    return RunError(f"'{path}': is damaged; {remedy}")
