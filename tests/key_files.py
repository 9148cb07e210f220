"""Key files as a controller has them: long enough, and readable by nobody else."""

from pathlib import Path

KEY = bytes(range(32))
OTHER_KEY = bytes(range(100, 132))


def write_key(file: Path, key: bytes = KEY) -> Path:
    """Write a key file of mode 600."""
    file.touch(mode=0o600)
    file.write_bytes(key)
    return file
