"""Figures of a recommender's rows, kept with its run and found by the row's keyed hash.

An erased row takes its figures along, and those of the prompts that showed it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from ..core.arrays import Floats, Mask
from ..core.errors import RunError
from ..core.reading import UNREADABLE
from ..core.sealing import seal, unseal
from ..data.interactions import Interactions
from ..data.samples import Samples
from .row_digests import Digests, RowKey, find, rehash, row_digests


@dataclass(frozen=True)
class RowFigures:
    """Some figures of each row, by the row's hash.

    Attributes:
        key: of the hashes, that of the run's split index.
        digests: (n,) hashes of the rows, sorted.
        figures: (k, n) of these rows, in this order.
        stamp: `STAMP_BYTES` that say of what the figures are, where there are any.
    """

    FILE: ClassVar[str]
    COLUMN: ClassVar[str]
    COUNT: ClassVar[int]
    REMEDY: ClassVar[str]
    STAMP_BYTES: ClassVar[int] = 0

    key: RowKey
    digests: Digests
    figures: Floats
    stamp: bytes = b""

    @classmethod
    def of_parts(
        cls, parts: Sequence[Samples], figures: Floats, key: RowKey, stamp: bytes = b""
    ) -> Self:
        """The figures (k, n) of the rows of `parts`, one part after another."""
        digests = [row_digests(part.interactions, key, part.rows) for part in parts]
        all_digests = np.concatenate(digests)
        order = np.argsort(all_digests, kind="stable")
        return cls(key, all_digests[order], figures[:, order].astype(np.float32), stamp)

    def __len__(self) -> int:
        return len(self.digests)

    def figures_of(self, samples: Samples) -> Floats:
        """The figures (k, m) of the samples' own rows, in their order; NaN where there are none."""
        digests = row_digests(samples.interactions, self.key, samples.rows)
        is_present, position = find(digests, self.digests)
        figures: Floats = np.full((self.COUNT, len(samples)), np.nan, dtype=np.float32)
        figures[:, is_present] = self.figures[:, position[is_present]]
        return figures

    def without(self, data: Interactions, changed: Mask) -> Self:
        """The figures without those of the rows of `data` that `changed` (n,) marks.

        A request changes more rows than it erases; see `Split.changed_rows`.
        """
        digests = row_digests(data, self.key, np.flatnonzero(changed))
        stays = ~np.isin(self.digests, digests)
        return replace(self, digests=self.digests[stays], figures=self.figures[:, stays])

    def under(self, key: RowKey, data: Interactions) -> Self:
        """The same figures, of rows of `data`, under another key."""
        digests, position = rehash(self.digests, data, self.key, key)
        return replace(self, key=key, digests=digests, figures=self.figures[:, position])

    def save(self, folder: Path) -> None:
        """Write the figures."""
        columns: dict[str, Any] = dict(self.key.columns())
        # Figures stay the same from run to run: in plain they would show which hashes went.
        content = self.stamp + self.figures.astype(np.float32).tobytes()
        columns[self.COLUMN] = np.frombuffer(seal(content, self.key.secret), np.uint8)
        np.savez(folder / self.FILE, **columns, digests=self.digests)

    @classmethod
    def load(cls, folder: Path, controller_key: bytes) -> Self | None:
        """The figures of run `folder`; None where it was made without.

        Raises:
            RunError: the file is damaged, or was made under another key.
        """
        file = folder / cls.FILE
        if not file.exists():
            return None
        try:
            with np.load(file, allow_pickle=False) as archive:
                columns = dict(archive)
            key = RowKey.of_file(columns, controller_key, file)
            digests = columns["digests"]
            content = unseal(columns[cls.COLUMN].tobytes(), key.secret)
            # Figures of other rows would mislead, and nobody would notice.
            figures = np.frombuffer(content[cls.STAMP_BYTES :], np.float32)
            figures = figures.reshape(cls.COUNT, len(digests))
        except UNREADABLE as error:
            raise RunError(f"'{file}': is damaged; restore it, or {cls.REMEDY}") from error
        return cls(key, digests, figures, content[: cls.STAMP_BYTES])
