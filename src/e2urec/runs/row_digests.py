"""Rows by salted hashes: how the files of a run say which row they mean, without an id."""

import numpy as np
import numpy.typing as npt

from ..core.arrays import Ints, Mask
from ..data.interactions import Interactions
from ..data.row_hashes import hashes

HASH_BYTES = 8
"""Two of 25 million rows share a hash of this size with a probability of 2·10⁻⁵."""

Digests = npt.NDArray[np.uint64]


def salt_of(data: Interactions) -> bytes:
    """The salt of all hashes of a run: the same rows look otherwise in that of other data."""
    return bytes.fromhex(data.fingerprint())[:16]


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
