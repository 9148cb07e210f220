"""Samples: rows of interactions that become prompts."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.arrays import Ints, Mask
from .interactions import Interactions


@dataclass(frozen=True)
class Samples:
    """Rows that become prompts: the row is the target, its user's rows before it the history.

    Of rows that bring their own prompts the history is not known, and counts as empty.

    Attributes:
        interactions: where the rows are.
        rows: (n,) int64 indices into the ordered interactions.
        history: K, the most rows of history that a prompt shows.
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
        # A prompt that somebody else wrote is known to show its own row, and no other.
        if self.interactions.prompts is not None:
            return self.rows
        first_rows = self.interactions.first_rows[self.rows]
        return np.maximum(first_rows, self.rows - self.history)

    def history_rows(self, n: int) -> slice:
        """The rows of the history of sample `n`: up to K of its user's, just before it."""
        start = int(self.starts[n])
        end = int(self.rows[n])
        return slice(start, end)

    def shows(self, mask: Mask) -> Mask:
        """(n,) True where a prompt's history holds a row that `mask` marks.

        Args:
            mask: (rows of the interactions,) True for the rows in question.
        """
        # Entry i is the number of marked rows before row i: two look-ups then count the marked
        # rows of a history, however long it is.
        counts = np.cumsum(mask)
        counts_before = np.concatenate([[0], counts])
        before_target = counts_before[self.rows]
        before_history = counts_before[self.starts]
        return before_target > before_history

    def visible_rows(self) -> Mask:
        """Mask of all interactions: those that a prompt shows, as its target or in its history."""
        # Each prompt opens at its first row and closes after its target; a row is visible where
        # more prompts have opened than closed.
        row_count = len(self.interactions)
        changes = np.zeros(row_count + 1, dtype=np.int64)
        ends = self.rows + 1
        np.add.at(changes, self.starts, 1)
        np.add.at(changes, ends, -1)
        open_prompts = np.cumsum(changes)
        return open_prompts[:row_count] > 0
