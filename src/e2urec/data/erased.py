"""Rows that earlier requests erased, kept as keyed hashes: they stay out of D_r, and nobody can read whose they were.

Ids are few and short: a plain hash of them would be guessed. Without the controller's key these say nothing.
"""

import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import RunError
from .interactions import Interactions

FILE = "erased.json"
SIZE = 16
"""Bytes of a hash: two of a billion rows share one with a probability of 10⁻²¹."""
CHUNK = 1_000_000
"""Rows hashed at a time."""


@dataclass(frozen=True)
class Erased:
    """Hashes of rows under a key made from the controller's.

    Attributes:
        key: 32 bytes.
        digests: in hexadecimal.
    """

    key: bytes
    digests: frozenset[str] = frozenset()

    @classmethod
    def under(cls, controller: bytes) -> "Erased":
        """No rows yet, under the controller's key."""
        return cls(hmac.digest(controller, b"e2urec erased rows", "sha256"))

    def and_these(self, data: Interactions, gone: npt.NDArray[np.bool_]) -> "Erased":
        """These rows and those of `data` that `gone` (n,) marks."""
        return Erased(self.key, self.digests | set(self._hashes(data, np.flatnonzero(gone))))

    def marked(self, data: Interactions) -> npt.NDArray[np.bool_]:
        """(n,) True where a row of `data` is one of them."""
        if not self.digests:
            return np.zeros(len(data), dtype=bool)
        known = (digest in self.digests for digest in self._hashes(data, np.arange(len(data))))
        return np.fromiter(known, dtype=bool, count=len(data))

    def save(self, folder: Path) -> None:
        """Write them, sorted, so that their order tells nothing."""
        record = {"check": self._hash(b"check"), "rows": sorted(self.digests)}
        (folder / FILE).write_text(json.dumps(record) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, controller: bytes) -> "Erased":
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
                f"'{folder / FILE}': is missing or damaged, so what was erased cannot be kept out; restore it, or make "
                "the run again from its original"
            ) from error
        if check != empty._hash(b"check"):
            raise RunError(f"'{folder}': what it erased was recorded under another key; give that one with --key-file")
        return cls(empty.key, rows)

    def _hash(self, text: bytes) -> str:
        return hashlib.blake2b(text, key=self.key, digest_size=SIZE).hexdigest()

    def _hashes(self, data: Interactions, rows: npt.NDArray[np.integer]) -> Iterator[str]:
        """Of user, item and time as the data set tells them, in quotes: codes change with the data."""
        users, items = (
            [json.dumps(name) for name in ids.cast(str).to_list()] for ids in (data.user_ids, data.item_ids)
        )
        for some in np.array_split(rows, len(rows) // CHUNK + 1):
            columns = (data.user[some].tolist(), data.item[some].tolist(), data.time[some].tolist())
            for user, item, time in zip(*columns, strict=True):
                yield self._hash(f"{users[user]},{items[item]},{time}".encode())
