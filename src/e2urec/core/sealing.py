"""Bytes that only the holder of a key can read.

AES-256 in Galois/counter mode (NIST SP 800-38D), from the package `cryptography`. A change of a
single bit is noticed when they are opened.
"""

import secrets

NONCE_BYTES = 12
"""Random: under one key, 4 billion of them collide with a probability below 2⁻³²."""


def seal(content: bytes, key: bytes) -> bytes:
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
