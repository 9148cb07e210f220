"""What a run folder says of itself, `run.json`: from what it was made, by which versions, and the hash of every file."""

import hashlib
import json
import math
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

LOCK = ".lock"
"""File that a process holds locked while it makes a run; it is no part of the run."""


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write `run.json`: `record`, the versions at work, and size and SHA-256 of every file in `folder`."""
    files = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": hash_file(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != LOCK
    }
    write_json(folder / "run.json", {**record, "versions": versions(), "files": files})


def write_json(path: Path, value: Any) -> None:
    """Write JSON that is whole or not there; NaN and infinity become null."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(
        json.dumps(finite(value), indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )
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
    return {"python": platform.python_version()} | {
        name: metadata.version(name) for name in libraries
    }


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
