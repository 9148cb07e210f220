"""The lines of a small text file, whatever program wrote it."""

import codecs
import re
from pathlib import Path

from ..core.errors import DataError

# UTF-16 is told by its mark alone: without one, any pair of bytes could be a letter.
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Of Windows, of old Macs, and of all others. Not splitlines(): an id may hold one of the rarer
# characters that it takes for a line's end.
LINE_END = re.compile("\r\n|\r|\n")


def read_lines(path: Path, place: str, remedy: str) -> list[str]:
    """All lines of a file in UTF-8, or in UTF-16 with its byte order mark.

    Args:
        path: the file.
        place: what messages call it.
        remedy: what to do where it is no file that can be read.

    Raises:
        DataError: it cannot be read, or is no such text.
    """
    try:
        data = path.read_bytes()
    # A name with a NUL in it, or half a letter, is a ValueError.
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no such name"
        raise DataError(f"{place}: cannot be read ({reason}); {remedy}") from error
    try:
        text = data.decode(_encoding(data))
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: is no UTF-8 text; save it as UTF-8") from error
    # Text in UTF-16 or UTF-32 without its mark, or no text at all.
    if "\0" in text:
        raise DataError(f"{place}: holds NUL bytes, so it is no UTF-8 text; save it as UTF-8")
    return LINE_END.split(text)


def read_start(path: Path, size: int) -> str:
    """The text in the first `size` bytes of a file, for a look at what it is.

    What is no text is left out: whoever reads the whole file says so. Raises OSError as `open`.
    """
    with path.open("rb") as file:
        data = file.read(size)
    # Without its mark, UTF-16 reads as the same letters with NUL between them.
    return data.decode(_encoding(data), errors="ignore").replace("\0", "")


def _encoding(data: bytes) -> str:
    for mark, name in MARKS.items():
        if data.startswith(mark):
            return name
    return "utf-8"
