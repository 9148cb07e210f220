"""Rows by keyed hashes: how the files of a run say which row they mean, without an id.

A hash with a salt beside it says nothing of a stranger, but it answers every guess: whoever has the
folder writes a row down, hashes it, and looks. So each run hashes under a key of its own, made from
the controller's key and a random salt. Without the controller's key no guess can be tried, and no
two runs have a hash in common.
"""

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..core.arrays import Ints, Mask
from ..core.derived_keys import derived_key
from ..core.errors import RunError
from ..data.interactions import Interactions
from ..data.row_hashes import hashes

SALT_BYTES = 16
CHECK_BYTES = 16
HASH_BYTES = 8
"""Two of 25 million rows share a hash of this size with a probability of 2·10⁻⁵."""

Digests = npt.NDArray[np.uint64]
Columns = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class RowKey:
    """The key of the row hashes of one run.

    Attributes:
        salt: random; it stands in the run's files.
        secret: 32 bytes made from the controller's key and the salt; it stands nowhere.
    """

    salt: bytes
    secret: bytes

    @classmethod
    def under(cls, controller_key: bytes, salt: bytes | None = None) -> Self:
        """The key that goes with `salt`; without one a new key, for a new run.

        No salt is made from data: it would be a fingerprint of them, also of rows that went since.
        """
        if salt is None:
            salt = secrets.token_bytes(SALT_BYTES)
        return cls(salt, derived_key(controller_key, b"e2urec row hashes " + salt))

    @classmethod
    def random(cls) -> Self:
        """One under nobody's key, for hashes that are never written."""
        return cls.under(secrets.token_bytes())

    def columns(self) -> Columns:
        """What a file of hashes says of its key."""
        salt = np.frombuffer(self.salt, np.uint8)
        check = np.frombuffer(self._check(), np.uint8)
        return {"salt": salt, "check": check}

    @classmethod
    def of_file(cls, columns: Columns, controller_key: bytes, file: Path) -> Self:
        """The key of the hashes in `file`, which has `columns`.

        Raises:
            RunError: they were made under the key of another controller.
            KeyError: there are no such columns.
        """
        key = cls.under(controller_key, columns["salt"].tobytes())
        if columns["check"].tobytes() != key._check():
            raise RunError(
                f"'{file}': says for what each row was used, under another key; give that one with "
                "--key-file or in E2UREC_KEY_FILE"
            )
        return key

    def _check(self) -> bytes:
        """A value that says whether the key is the right one, and nothing of the rows."""
        digest = hashlib.blake2b(b"check", key=self.secret, digest_size=CHECK_BYTES)
        return digest.digest()


def row_digests(data: Interactions, key: RowKey, rows: Ints) -> Digests:
    """Hashes of `rows` of `data`, (n,)."""
    digests = hashes(data, rows, key.secret, HASH_BYTES)
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
    digests: Digests, data: Interactions, key: RowKey, new_key: RowKey
) -> tuple[Digests, Ints]:
    """Hashes under `new_key` of the rows of `data` with one among `digests`, which has `key`.

    Args:
        digests: (n,) sorted.
        data: the rows; a hash of any other row is left out.
        key: that of `digests`.
        new_key: that of the result.

    Returns:
        The new hashes (m,), sorted, and where in `digests` the old hash of each row is (m,).
    """
    is_indexed, position = find(row_digests(data, key, np.arange(len(data))), digests)
    rows = np.flatnonzero(is_indexed)
    new_digests = row_digests(data, new_key, rows)
    order = np.argsort(new_digests, kind="stable")
    return new_digests[order], position[rows[order]]
