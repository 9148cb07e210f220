"""Prompts that come with the data: what somebody else's recommender was tuned on, word for word."""

from dataclasses import dataclass, replace

import polars as pl

from ..core.arrays import Ints, Mask

PROMPT_COLUMNS = ("prompt", "part")
"""Columns of a table of ratings whose rows bring their own prompts."""
HELD = "held"
"""Part of rows that no model was tuned on; `given_split` says what becomes of them."""


@dataclass(frozen=True)
class WrittenPrompts:
    """The prompts of all rows of the data, which no template writes and no request changes.

    Attributes:
        texts: (n,) the prompt of each row, up to where its answer begins.
        parts: (n,) for what each row was used: a part of the split, or `held`.
        answers: all that follows a prompt, letter by letter, where the row is liked, and where not.
    """

    texts: pl.Series
    parts: pl.Series
    answers: tuple[tuple[str, ...], tuple[str, ...]]

    def of_rows(self, rows: Ints) -> list[str]:
        """The prompts of these rows, in their order."""
        return self.texts.gather(rows).to_list()

    def where(self, stays: Mask) -> "WrittenPrompts":
        """Those of the rows that `stays` (n,) marks."""
        mask = pl.Series(stays)
        return replace(self, texts=self.texts.filter(mask), parts=self.parts.filter(mask))
