"""Interactions: validated ratings in one total order, with the text of items and users."""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ..core.arrays import Ints, Mask
from . import tables
from .entities import without_entities
from .tables import RatingScale
from .written_prompts import WrittenPrompts


@dataclass(frozen=True)
class Interactions:
    """Ratings ordered by (user, time, file position); "before" always means this order.

    Attributes:
        user: (n,) int32 user codes.
        item: (n,) int32 item codes.
        rating: (n,) float32.
        time: (n,) int64, seconds.
        user_ids, item_ids: the data set's own id of each code.
        titles: title of each item code.
        profiles: one row a user code with text columns, or None.
        liked_above: a row is liked if its rating is greater.
        duplicates: exact duplicate rows that were dropped.
        details: one row an item code with text columns beyond the title, or None.
        unrated: rows that were dropped because they hold no rating.
        prompts: those that the rows bring, which no template writes; None: they bring none.
        timed: whether `time` is a time; else it is a place in a random order.
        unescaped: items whose title or details held HTML entities, which are characters now.
    """

    user: Ints
    item: Ints
    rating: npt.NDArray[np.float32]
    time: Ints
    user_ids: pl.Series
    item_ids: pl.Series
    titles: list[str]
    profiles: pl.DataFrame | None
    liked_above: float
    duplicates: int
    details: pl.DataFrame | None = None
    unrated: int = 0
    prompts: WrittenPrompts | None = None
    timed: bool = True
    unescaped: int = 0

    def __len__(self) -> int:
        return len(self.user)

    @cached_property
    def first_rows(self) -> Ints:
        """(n,) index of the first row of each row's user."""
        rows = np.arange(len(self))
        user_changes = np.diff(self.user, prepend=-1) != 0
        # The number of a user's first row, and 0 in its others, until the maximum carries it on.
        start_rows = np.where(user_changes, rows, 0)
        return np.maximum.accumulate(start_rows)

    @cached_property
    def liked(self) -> npt.NDArray[np.int8]:
        """(n,) 1 where the rating is above `liked_above`."""
        return (self.rating > self.liked_above).astype(np.int8)

    def fingerprint(self) -> str:
        """SHA-256 of all that a prompt, a label or a request depends on, from whatever files."""
        digest = hashlib.sha256()
        for column in (self.user, self.item, self.rating, self.time):
            values = np.ascontiguousarray(column)
            digest.update(values.tobytes())
        text = [
            self.user_ids.cast(pl.String).to_list(),
            self.titles,
            _as_lists(self.profiles),
            self.liked_above,
        ]
        # Only where there are any, so that data without details keep the fingerprint that they had
        # before details were read.
        if self.details is not None:
            text.append(_as_lists(self.details))
        if self.prompts is not None:
            text += [self.prompts.texts.to_list(), self.prompts.parts.to_list()]
        digest.update(json.dumps(text).encode())
        return digest.hexdigest()

    def without(self, erased: Mask) -> "Interactions":
        """The rows that `erased` (n,) does not mark, in the same order.

        Codes of users and items stay what they were.
        """
        stays = ~erased
        return replace(
            self,
            user=self.user[stays],
            item=self.item[stays],
            rating=self.rating[stays],
            time=self.time[stays],
            prompts=None if self.prompts is None else self.prompts.where(stays),
        )

    @classmethod
    def from_tables(
        cls,
        ratings: pl.DataFrame,
        items: pl.DataFrame,
        users: pl.DataFrame | None = None,
        *,
        place: str,
        scale: RatingScale = RatingScale(),
        strict: bool = False,
    ) -> "Interactions":
        """Validate and order three tables.

        Args:
            ratings: columns user, item, rating, time, in file order; `position`, the 0-based row of
                the file, where rows were left out; `prompt` and `part` where rows bring them.
            items: columns item, title, and details: text that tells more of an item.
            users: column user, and profile columns; None if the data set has none.
            place: file name for messages.
            scale: lowest and highest rating, and above which rating a row is liked.
            strict: refuse exact duplicates instead of dropping them.

        Raises:
            DataError: a column is missing, the table is empty, or a row cannot be used; the message
                gives file, 1-based data row and remedy.
        """
        tables.require_columns(ratings, tables.RATING_COLUMNS, place)
        tables.require_columns(items, tables.ITEM_COLUMNS, f"{place} (items)")
        tables.require_short_texts(items, place)
        if users is not None:
            tables.require_short_texts(users, place)
        all_rows = tables.valid_ratings(ratings, scale, place)
        rows = tables.without_duplicates(all_rows, place, strict=strict)
        texts = tables.item_texts(items, rows.schema["item"])
        # Items that nobody rated get no code: no prompt shows them.
        rated_ids = rows["item"].unique().implode()
        rated_items = texts.filter(pl.col("item").is_in(rated_ids))
        rated_items, unescaped_count = without_entities(rated_items.sort("item"))
        tables.require_titles(rows, rated_items, place)

        ordered = rows.sort("user", "time", "position")
        user_ids = ordered["user"].unique(maintain_order=True)
        details = rated_items.drop(tables.ITEM_COLUMNS)
        profiles = None
        if users is not None:
            profiles = tables.user_profiles(users, user_ids, place)
        # A user's rows are together, so the run that a row is in is its user's code.
        user_codes = ordered["user"].rle_id()
        prompts = None
        if scale.answers is not None:
            prompts = WrittenPrompts(ordered["prompt"], ordered["part"], scale.answers)
        return cls(
            user=user_codes.cast(pl.Int32).to_numpy(),
            item=_item_codes(ordered, rated_items["item"]),
            rating=ordered["rating"].to_numpy(),
            time=ordered["time"].to_numpy(),
            user_ids=user_ids,
            item_ids=rated_items["item"],
            titles=rated_items["title"].to_list(),
            profiles=profiles,
            liked_above=scale.liked_above,
            duplicates=all_rows.height - rows.height,
            details=details if details.width else None,
            prompts=prompts,
            unescaped=unescaped_count,
        )


def _item_codes(rows: pl.DataFrame, item_ids: pl.Series) -> Ints:
    """Position in `item_ids` of each row's item."""
    numbers = np.arange(len(item_ids), dtype=np.int32)
    codes = pl.DataFrame({"item": item_ids, "code": numbers})
    items = rows.select("item")
    items_with_codes = items.join(codes, on="item", how="left", maintain_order="left")
    return items_with_codes["code"].to_numpy()


def _as_lists(table: pl.DataFrame | None) -> Any:
    if table is None:
        return None
    return table.to_dict(as_series=False)
