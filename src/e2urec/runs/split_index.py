"""Which rows a recommender was tuned, chosen and tested on, so that the next request finds the same ones.

Users kept out of all tuning, and cuts by time, follow from all rows there are. Once some are erased, and deleted where
they were kept, or others have come, the split could not be made again: so each row's part is noted by a salted hash.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..core.arrays import Ints, Mask
from ..core.errors import DataError, RunError
from ..data.interactions import Interactions
from ..data.row_hashes import hashes
from ..data.samples import Samples
from ..data.splits import Split

FILE = "rows.npz"
SIZE = 8
"""Bytes of a hash: two of 25 million rows share one with a probability of 2·10⁻⁵."""
PARTS = tuple(Split.__dataclass_fields__)
UNUSED, SHOWN = 0, len(PARTS) + 1
"""Rows that no prompt shows, and rows that stand in histories alone; between them the parts, from 1."""

Codes = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class SplitIndex:
    """Rows by hash, sorted, and what each was for.

    Attributes:
        salt: so that the same rows look otherwise in another data set's split_index.
        digests: (n,) uint64.
        codes: (n,) uint8; see `UNUSED` and `SHOWN`.
    """

    salt: bytes
    digests: Hashes
    codes: Codes

    @classmethod
    def of(cls, split: Split) -> "SplitIndex":
        """The rows of a split, and all others of its data."""
        data = split.train.interactions
        salt = bytes.fromhex(data.fingerprint())[:16]
        codes = np.full(len(data), UNUSED, dtype=np.uint8)
        for name in PARTS:
            codes[getattr(split, name).visible_rows() & (codes == UNUSED)] = SHOWN
        for code, name in enumerate(PARTS, start=1):
            codes[getattr(split, name).rows] = code
        digests = _digests(data, salt, np.arange(len(data)))
        order = np.argsort(digests, kind="stable")
        return cls(salt, digests[order], codes[order])

    def split(self, data: Interactions, history: int) -> Split:
        """The same split of `data` without the rows that are not in the split_index.

        Raises:
            DataError: rows that a prompt shows are not in the data.
        """
        known, at = self._find(data)
        there = np.zeros(len(self.digests), dtype=bool)
        there[at[known]] = True
        missing = int((~there & (self.codes != UNUSED)).sum())
        if missing:
            raise DataError(
                f"data: {missing} rows that the recommender was tuned, chosen or tested on are not there, and no "
                "request erased them; put them back until one does"
            )
        kept, codes = data.without(~known), self.codes[at[known]]
        rows = {name: np.flatnonzero(codes == code) for code, name in enumerate(PARTS, start=1)}
        return Split(**{name: Samples(kept, rows[name], history) for name in PARTS})

    def without(self, data: Interactions, gone: Mask) -> "SplitIndex":
        """The split_index without the rows of `data` that `gone` (n,) marks: nothing says that they were ever there."""
        left = ~np.isin(self.digests, _digests(data, self.salt, np.flatnonzero(gone)))
        return SplitIndex(self.salt, self.digests[left], self.codes[left])

    def save(self, folder: Path) -> None:
        """Write the split_index."""
        np.savez(
            folder / FILE,
            salt=np.frombuffer(self.salt, np.uint8),
            digests=self.digests,
            codes=self.codes,
        )

    @classmethod
    def load(cls, folder: Path) -> "SplitIndex":
        """The split_index of run `folder`; raises RunError if there is no whole one."""
        try:
            with np.load(folder / FILE, allow_pickle=False) as kept:
                return cls(kept["salt"].tobytes(), kept["digests"], kept["codes"])
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise RunError(
                f"'{folder / FILE}': is missing or damaged, so the rows of this run cannot be told; restore it"
            ) from error

    def _find(self, data: Interactions) -> tuple[Mask, npt.NDArray[np.int64]]:
        """Which rows of `data` are in the split_index, (n,), and where."""
        found = _digests(data, self.salt, np.arange(len(data)))
        at = np.minimum(np.searchsorted(self.digests, found), max(0, len(self.digests) - 1))
        return self.digests[at] == found, at


def _digests(data: Interactions, salt: bytes, rows: Ints) -> Hashes:
    return np.frombuffer(b"".join(hashes(data, rows, salt, SIZE)), dtype=np.uint64)
