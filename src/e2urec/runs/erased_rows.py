"""Rows that a request and those before it erased, as hashes under the controller's key.

With the key, anyone can be shown that a row was erased, or that two models forgot the same. Without it these say
nothing; a plain hash would: ids are few and short, and are soon guessed.
"""

import hashlib
import hmac
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.arrays import Mask
from ..core.errors import RunError
from ..data.interactions import Interactions
from ..data.row_hashes import hashes

FILE = "erased.json"
SIZE = 16
"""Bytes of a hash: two of a billion rows share one with a probability of 10⁻²¹."""


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
    def under(cls, controller: bytes) -> "ErasedRows":
        """No rows yet, under the controller's key."""
        return cls(hmac.digest(controller, b"e2urec erased rows", "sha256"))

    def and_these(self, data: Interactions, gone: Mask) -> "ErasedRows":
        """These rows and those of `data` that `gone` (n,) marks."""
        return ErasedRows(
            self.key,
            self.digests
            | {each.hex() for each in hashes(data, np.flatnonzero(gone), self.key, SIZE)},
        )

    def marked(self, data: Interactions) -> Mask:
        """(n,) True where a row of `data` is one of them."""
        known = (
            each.hex() in self.digests
            for each in hashes(data, np.arange(len(data)), self.key, SIZE)
        )
        return np.fromiter(known, dtype=bool, count=len(data))

    def save(self, folder: Path) -> None:
        """Write them, sorted, so that their order tells nothing."""
        record = {"check": self._hash(b"check"), "rows": sorted(self.digests)}
        (folder / FILE).write_text(json.dumps(record) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, controller: bytes) -> "ErasedRows":
        """Those of run `folder`.

        Raises:
            RunError: there is no whole record of them, or it was made under another key.
        """
        empty = cls.under(controller)
        try:
            record = json.loads((folder / FILE).read_text(encoding="utf-8"))
            check, rows = record["check"], frozenset(record["rows"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"'{folder / FILE}': is missing or damaged, so what was erased cannot be told; restore it, or make the "
                "run again from its original"
            ) from error
        if check != empty._hash(b"check"):
            raise RunError(
                f"'{folder}': what it erased was recorded under another key; give that one with --key-file"
            )
        return cls(empty.key, rows)

    def _hash(self, text: bytes) -> str:
        return hashlib.blake2b(text, key=self.key, digest_size=SIZE).hexdigest()
