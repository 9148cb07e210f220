"""Bytes that only the holder of a key can read.

AES-256 in Galois/counter mode (NIST SP 800-38D), from the package `cryptography`. A change of a
single bit is noticed when they are opened.
"""

import secrets
from pathlib import Path

NONCE_BYTES = 12
"""Random: under one key, 4 billion of them collide with a probability below 2⁻³²."""
TAG_BYTES = 16
PIECE_BYTES = 1 << 26
"""A file is sealed in pieces: the package takes at most 2 GiB at once, and a piece is in memory."""


def seal(content: bytes | memoryview, key: bytes) -> bytes:
    """Encrypt `content` under `key`, 32 bytes."""
    # Imported here: few commands need it.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, content, None)


def unseal(sealed: bytes, key: bytes) -> bytes:
    """Decrypt what `seal` made.

    Raises:
        ValueError: it was sealed under another key, or is damaged.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = sealed[:NONCE_BYTES]
    try:
        return AESGCM(key).decrypt(nonce, sealed[NONCE_BYTES:], None)
    except InvalidTag as error:
        raise ValueError("sealed under another key, or damaged") from error


def write_sealed(path: Path, content: bytes, key: bytes) -> None:
    """Write a file of any size that `read_sealed` reads."""
    view = memoryview(content)
    with path.open("wb") as file:
        for start in range(0, len(content), PIECE_BYTES):
            file.write(seal(view[start : start + PIECE_BYTES], key))


def read_sealed(path: Path, key: bytes) -> bytes:
    """What `write_sealed` wrote; whether pieces of it are missing is for the caller to know.

    Raises:
        ValueError: it was sealed under another key, or is damaged.
    """
    content = bytearray()
    with path.open("rb") as file:
        while piece := file.read(NONCE_BYTES + PIECE_BYTES + TAG_BYTES):
            content += unseal(piece, key)
    return bytes(content)
