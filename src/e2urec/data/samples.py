"""Samples: rows of interactions as prompts-to-be."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.arrays import Ints, Mask
from .interactions import Interactions


@dataclass(frozen=True)
class Samples:
    """Rows of interactions as prompts-to-be: the row is the target, the user's rows before it the history.

    Attributes:
        interactions: where the rows are.
        rows: (n,) int64 indices into the ordered interactions.
        history: K, the most rows that a prompt shows.
    """

    interactions: Interactions
    rows: Ints
    history: int

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: npt.NDArray[Any]) -> "Samples":
        """The samples at `index` (positions or a mask)."""
        return Samples(self.interactions, self.rows[index], self.history)

    @property
    def labels(self) -> npt.NDArray[np.int8]:
        """(n,) 1 = liked."""
        return self.interactions.liked[self.rows]

    @property
    def users(self) -> Ints:
        """(n,) int32 user codes."""
        return self.interactions.user[self.rows]

    @cached_property
    def starts(self) -> Ints:
        """(n,) first row that each sample's prompt shows."""
        return np.maximum(self.interactions.first[self.rows], self.rows - self.history)

    def shows(self, marked: Mask) -> Mask:
        """(n,) True where the history that a prompt shows holds a row that `marked` (of all interactions) marks."""
        before = np.concatenate([[0], np.cumsum(marked)])
        return before[self.rows] > before[self.starts]

    def read(self) -> Mask:
        """True for each row of the interactions that a prompt shows, as its target or in its history."""
        edges = np.zeros(len(self.interactions) + 1, dtype=np.int64)
        np.add.at(edges, self.starts, 1)
        np.add.at(edges, self.rows + 1, -1)
        return np.cumsum(edges)[:-1] > 0

    def past(self, n: int) -> slice:
        """The up to K rows of sample n's user just before it."""
        return slice(int(self.starts[n]), int(self.rows[n]))
