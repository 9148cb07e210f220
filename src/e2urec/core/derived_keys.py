"""Keys of their own for each purpose, made from one."""

import hmac


def derived_key(key: bytes, purpose: bytes) -> bytes:
    """A key of its own for one purpose, 32 bytes: what it hashes says nothing of the others."""
    return hmac.digest(key, purpose, "sha256")
