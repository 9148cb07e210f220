"""Rows by salted hashes: how the files of a run say which row they mean, without an id."""

import hashlib

import numpy as np
import numpy.typing as npt

from ..core.arrays import Ints, Mask
from ..data.interactions import Interactions
from ..data.row_hashes import hashes

SALT_BYTES = 16
HASH_BYTES = 8
"""Two of 25 million rows share a hash of this size with a probability of 2·10⁻⁵."""

Digests = npt.NDArray[np.uint64]


def salt_of(data: Interactions) -> bytes:
    """The salt of all hashes of a run: the same rows look otherwise in that of other data.

    It depends on the rows alone. After a request for erasure the data still have the names of users
    whose rows are gone, and a salt that depended on them could be guessed at.
    """
    digest = hashlib.blake2b(digest_size=SALT_BYTES)
    for row_hash in hashes(data, np.arange(len(data)), b"", HASH_BYTES):
        digest.update(row_hash)
    return digest.digest()


def row_digests(data: Interactions, salt: bytes, rows: Ints) -> Digests:
    """Hashes of `rows` of `data`, (n,)."""
    digests = hashes(data, rows, salt, HASH_BYTES)
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


def find(digests: Digests, among: Digests) -> tuple[Mask, npt.NDArray[np.int64]]:
    """Which of `digests` (n,) are `among` others, which are sorted, and where: (n,) each."""
    if not len(among):
        return np.zeros(len(digests), dtype=bool), np.zeros(len(digests), dtype=np.int64)
    insertion = np.searchsorted(among, digests)
    # A hash greater than all of them would be sought beyond the end.
    position = np.minimum(insertion, len(among) - 1)
    return among[position] == digests, position


def rehash(
    digests: Digests, data: Interactions, salt: bytes, new_salt: bytes
) -> tuple[Digests, Ints]:
    """Hashes under `new_salt` of the rows of `data` with one among `digests`, which has `salt`.

    Args:
        digests: (n,) sorted.
        data: the rows; a hash of any other row is left out.
        salt: that of `digests`.
        new_salt: that of the result.

    Returns:
        The new hashes (m,), sorted, and where in `digests` the old hash of each row is (m,).
    """
    is_indexed, position = find(row_digests(data, salt, np.arange(len(data))), digests)
    rows = np.flatnonzero(is_indexed)
    new_digests = row_digests(data, new_salt, rows)
    order = np.argsort(new_digests, kind="stable")
    return new_digests[order], position[rows[order]]
