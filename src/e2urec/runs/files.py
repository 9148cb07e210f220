"""JSON files that are whole or not there, and hashes of files."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.durable import write_text


def write_json(path: Path, value: Any, *, scratch: Path | None = None) -> None:
    """Write JSON that is whole or not there, and on the disk; NaN and infinity become null.

    Args:
        path: the file.
        value: of mappings, lists, texts and numbers.
        scratch: folder for the half-written file; see `write_file`.
    """
    text = json.dumps(finite(value), indent=2, sort_keys=True)
    write_text(path, text + "\n", scratch=scratch)


def finite(value: Any) -> Any:
    """The same JSON value with None for every number that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
