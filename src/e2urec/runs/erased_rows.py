"""Rows that a request and those before it erased, as hashes under the controller's key.

With the key, anyone can be shown that a row was erased, or that two models forgot the same rows.
Without it these hashes say nothing. Plain hashes would: ids are few and short, and soon guessed.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.arrays import Mask
from ..core.derived_keys import derived_key
from ..core.errors import RunError
from ..core.reading import UNREADABLE
from ..data.interactions import Interactions
from ..data.row_hashes import hashes

FILE = "erased.json"
HASH_BYTES = 16
"""Two of a billion rows share a hash of this size with a probability of 10⁻²¹."""


@dataclass(frozen=True)
class ErasedRows:
    """Hashes of rows under a key made from the controller's.

    Attributes:
        key: 32 bytes.
        digests: in hexadecimal.
    """

    key: bytes
    digests: frozenset[str] = frozenset()

    @classmethod
    def under(cls, controller_key: bytes) -> "ErasedRows":
        """No rows yet, under the controller's key."""
        # A key of its own, so that these hashes say nothing of the requests' HMACs.
        return cls(derived_key(controller_key, b"e2urec erased rows"))

    def with_rows(self, data: Interactions, erased: Mask) -> "ErasedRows":
        """These rows and those of `data` that `erased` (n,) marks."""
        # Added to what is there: a chain of requests keeps all of them.
        rows = np.flatnonzero(erased)
        digests = {digest.hex() for digest in hashes(data, rows, self.key, HASH_BYTES)}
        return ErasedRows(self.key, self.digests | digests)

    def marked(self, data: Interactions) -> Mask:
        """(n,) True where a row of `data` is one of them."""
        digests = hashes(data, np.arange(len(data)), self.key, HASH_BYTES)
        marks = (digest.hex() in self.digests for digest in digests)
        return np.fromiter(marks, dtype=bool, count=len(data))

    def save(self, folder: Path) -> None:
        """Write them, sorted, so that their order says nothing."""
        record = {"check": self._check(), "rows": sorted(self.digests)}
        text = json.dumps(record)
        (folder / FILE).write_text(f"{text}\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, controller_key: bytes) -> "ErasedRows":
        """Those of run `folder`.

        Raises:
            RunError: there is no whole record of them, or it was made under another key.
        """
        empty = cls.under(controller_key)
        file = folder / FILE
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            check = record["check"]
            digests = frozenset(record["rows"])
        except UNREADABLE as error:
            raise RunError(
                f"'{file}': is missing or damaged, so nobody can say what was erased; restore it, "
                "or make the run again from its original"
            ) from error
        if check != empty._check():
            raise RunError(
                f"'{folder}': what it erased was recorded under another key; give that one with "
                "--key-file"
            )
        return cls(empty.key, digests)

    def _check(self) -> str:
        """A value that says whether the key is the right one, and nothing of the rows."""
        digest = hashlib.blake2b(b"check", key=self.key, digest_size=HASH_BYTES)
        return digest.hexdigest()
