"""JSON files that are whole or not there, and hashes of files."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.contents import hash_file as hash_file


def write_json(path: Path, value: Any) -> None:
    """Write JSON that is whole or not there; NaN and infinity become null."""
    # Written aside and renamed: whoever reads it meanwhile sees the old file or the new one.
    partial = path.with_name(path.name + ".tmp")
    text = json.dumps(finite(value), indent=2, sort_keys=True)
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


def finite(value: Any) -> Any:
    """The same JSON value with None for every number that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
