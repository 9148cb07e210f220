"""For what each row was used, so that the next request finds the same parts again.

Which users are held out, and where time is cut, follow from all rows there are. Once rows are
erased and deleted where they were kept, or others have come, the split could not be made again. So
the part of each row is noted by a salted hash of the row.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..core.arrays import Mask
from ..core.errors import DataError, RunError
from ..core.reading import UNREADABLE
from ..data.interactions import Interactions
from ..data.samples import Samples
from ..data.splits import Split
from .row_digests import Digests, find, rehash, row_digests, salt_of

FILE = "rows.npz"
PARTS = tuple(Split.__dataclass_fields__)
"""The parts of a split; the code of each is its place here, counted from 1."""
UNUSED = 0
"""Code of rows that no prompt shows."""
HISTORY_ONLY = len(PARTS) + 1
"""Code of rows that stand in histories alone."""

Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SplitIndex:
    """The part of each row, by the row's hash.

    Attributes:
        salt: makes the same rows look otherwise in the index of another data set.
        digests: (n,) hashes of the rows, sorted.
        codes: (n,) the part of each; see `PARTS`, `UNUSED` and `HISTORY_ONLY`.
    """

    salt: bytes
    digests: Digests
    codes: Codes

    @classmethod
    def of(cls, split: Split) -> "SplitIndex":
        """The rows of a split, and all other rows of its data."""
        data = split.train.interactions
        salt = salt_of(data)
        codes = np.full(len(data), UNUSED, dtype=np.uint8)
        for name in PARTS:
            part = getattr(split, name)
            codes[part.visible_rows()] = HISTORY_ONLY
        # A row may be the target of one part and stand in histories of others: the target counts.
        for code, name in enumerate(PARTS, start=1):
            part = getattr(split, name)
            codes[part.rows] = code
        digests = row_digests(data, salt, np.arange(len(data)))
        order = np.argsort(digests, kind="stable")
        return cls(salt, digests[order], codes[order])

    def split(self, data: Interactions, history: int) -> Split:
        """The same split of `data`, without the rows that are not in the index.

        Raises:
            DataError: rows that a prompt shows are not in the data.
        """
        digests = row_digests(data, self.salt, np.arange(len(data)))
        is_indexed, position = find(digests, self.digests)
        present = np.zeros(len(self.digests), dtype=bool)
        present[position[is_indexed]] = True
        in_use = self.codes != UNUSED
        missing = int((in_use & ~present).sum())
        if missing:
            raise DataError(
                f"data: {missing} rows that the recommender was tuned, chosen or tested on are not "
                "there, and no request erased them; put them back until one does"
            )
        indexed = data.without(~is_indexed)
        codes = self.codes[position[is_indexed]]
        parts = {}
        for code, name in enumerate(PARTS, start=1):
            parts[name] = Samples(indexed, np.flatnonzero(codes == code), history)
        return Split(**parts)

    def without(self, data: Interactions, erased: Mask) -> "SplitIndex":
        """The index without the rows of `data` that `erased` (n,) marks.

        Nothing then says that they were ever there: the salt is that of the rows that stay. The old
        one was made from all rows, so whoever knew the others could check a guess at those erased.
        """
        remaining = data.without(erased)
        salt = salt_of(remaining)
        digests, position = rehash(self.digests, remaining, self.salt, salt)
        return SplitIndex(salt, digests, self.codes[position])

    def save(self, folder: Path) -> None:
        """Write the index."""
        salt = np.frombuffer(self.salt, np.uint8)
        np.savez(folder / FILE, salt=salt, digests=self.digests, codes=self.codes)

    @classmethod
    def load(cls, folder: Path) -> "SplitIndex":
        """The index of run `folder`; raises RunError if there is no whole one."""
        file = folder / FILE
        try:
            with np.load(file, allow_pickle=False) as columns:
                salt = columns["salt"].tobytes()
                return cls(salt, columns["digests"], columns["codes"])
        except UNREADABLE as error:
            raise RunError(
                f"'{file}': is missing or damaged, so nobody can say for what the rows of this run "
                "were used; restore it"
            ) from error
