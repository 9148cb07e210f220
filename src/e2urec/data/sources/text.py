"""Text of raw files: whether it can be read, and at which line it cannot."""

import codecs
import io
import re
from typing import IO

from ...core.errors import DataError

# bytes of a file in memory at a time: 16 MiB, so that a file of many gigabytes needs little
BLOCK = 1 << 24
# a letter of UTF-8 that takes several bytes; Latin-1 text holds such bytes by accident at most
UTF_8_LETTER = re.compile(rb"[\xc2-\xf4][\x80-\xbf]")

Fault = tuple[int, str]
"""The position of a byte that is wrong, and what is wrong with it."""


def utf_8(data: bytes, name: str) -> bytes:
    """Turn text in UTF-8 or Latin-1 into UTF-8.

    Raises:
        DataError: the text is neither, or holds NUL bytes; the message gives the line.
    """
    try:
        check_text(io.BytesIO(data), name)
    except DataError:
        # text that is mostly UTF-8 is damaged, not Latin-1: every byte would pass for that
        if b"\0" in data or UTF_8_LETTER.search(data):
            raise
        data = data.decode("latin-1").encode()
        check_text(io.BytesIO(data), name)
    return data


def check_text(file: IO[bytes], name: str, encoding: str = "utf-8", remedy: str = "") -> None:
    """Check that a file is text with one kind of line ends.

    Args:
        file: what to check; it is read block by block.
        name: file name for messages.
        encoding: of the text.
        remedy: what somebody may do instead of saving the file as UTF-8.

    Raises:
        DataError: the file holds NUL bytes, another encoding or line ends of old Macs.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    line_count = 0
    # a carriage return at the end of a block belongs to a line feed that may follow in the next
    previous = b""
    while True:
        block = file.read(BLOCK)
        faults = [
            _nul_byte(block),
            _old_line_end(previous, block),
            _wrong_encoding(block, decoder, remedy),
        ]
        positions = [fault for fault in faults if fault is not None]
        if positions:
            position, description = min(positions)
            line = line_count + block[:position].count(b"\n") + 1
            raise DataError(f"{name} line {line}: {description}")
        if not block:
            return
        line_count += block.count(b"\n")
        previous = b"\r" if block.endswith(b"\r") else b""


def _nul_byte(block: bytes) -> Fault | None:
    position = block.find(b"\0")
    if position < 0:
        return None
    return position, "holds NUL bytes; export it as text again"


def _old_line_end(previous: bytes, block: bytes) -> Fault | None:
    """A carriage return that no line feed follows; the last byte is left to the next block."""
    text = previous + block
    position = text.replace(b"\r\n", b"\n\n").find(b"\r", 0, len(text) - 1)
    if position < 0:
        return None
    position = max(0, position - len(previous))
    return position, "has line ends of old Macs beside others; save it with \\n"


def _wrong_encoding(block: bytes, decoder: codecs.IncrementalDecoder, remedy: str) -> Fault | None:
    try:
        decoder.decode(block, final=not block)
    except UnicodeDecodeError as error:
        # negative where the letter began in the block before
        position = max(0, error.start)
        return position, f"is not UTF-8; save it as UTF-8{remedy}"
    return None


def first_line(error: Exception) -> str:
    """The first line of a library's error, or the name of its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
