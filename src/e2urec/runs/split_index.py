"""For what each row was used, so that the next request finds the same parts again.

Which users are held out, and where time is cut, follow from all rows there are. Once rows are
erased and deleted where they were kept, or others have come, the split could not be made again. So
the part of each row is noted by a keyed hash of the row.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from ..core.arrays import Mask
from ..core.errors import DataError, RunError
from ..data.interactions import Interactions
from ..data.samples import Samples
from ..data.splits import Split
from .row_digests import Digests, RowKey, find, rehash, row_digests

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
        key: of the hashes.
        digests: (n,) hashes of the rows, sorted.
        codes: (n,) the part of each; see `PARTS`, `UNUSED` and `HISTORY_ONLY`.
    """

    key: RowKey
    digests: Digests
    codes: Codes

    @classmethod
    def of(cls, split: Split, key: RowKey) -> "SplitIndex":
        """The rows of a split, and all other rows of its data, hashed under `key`."""
        data = split.train.interactions
        codes = np.full(len(data), UNUSED, dtype=np.uint8)
        for name in PARTS:
            part = getattr(split, name)
            codes[part.visible_rows()] = HISTORY_ONLY
        # A row may be the target of one part and stand in histories of others: the target counts.
        for code, name in enumerate(PARTS, start=1):
            part = getattr(split, name)
            codes[part.rows] = code
        digests = row_digests(data, key, np.arange(len(data)))
        order = np.argsort(digests, kind="stable")
        return cls(key, digests[order], codes[order])

    def split(self, data: Interactions, history: int) -> Split:
        """The same split of `data`, without the rows that are not in the index.

        Raises:
            DataError: rows that a prompt shows are not in the data.
        """
        digests = row_digests(data, self.key, np.arange(len(data)))
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

    def without(self, data: Interactions, erased: Mask, new_key: RowKey) -> "SplitIndex":
        """The index without the rows of `data` that `erased` (n,) marks, hashed under `new_key`.

        Nothing then says which rows went: the two indices have no hash in common.
        """
        remaining = data.without(erased)
        digests, position = rehash(self.digests, remaining, self.key, new_key)
        return SplitIndex(new_key, digests, self.codes[position])

    def save(self, folder: Path) -> None:
        """Write the index."""
        columns: dict[str, Any] = dict(self.key.columns())
        np.savez(folder / FILE, **columns, digests=self.digests, codes=self.codes)

    @classmethod
    def load(cls, folder: Path, controller_key: bytes) -> "SplitIndex":
        """The index of run `folder`.

        Raises:
            RunError: there is no whole one, or it was made under another key.
        """
        file = folder / FILE
        try:
            with np.load(file, allow_pickle=False) as archive:
                columns = dict(archive)
            key = RowKey.of_file(columns, controller_key, file)
            return cls(key, columns["digests"], columns["codes"])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise RunError(
                f"'{file}': is missing or damaged, so nobody can say for what the rows of this run "
                "were used; restore it"
            ) from error
