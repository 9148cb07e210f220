"""Interactions: validated ratings in one total order, with the text of items and users."""

import hashlib
import json
import time as clock
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ..core.arrays import Ints, Mask
from ..core.errors import DataError

DAY = 86_400
"""Seconds that clocks may differ by."""


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

    def __len__(self) -> int:
        return len(self.user)

    @cached_property
    def first(self) -> Ints:
        """(n,) index of the first row of each row's user."""
        starts = np.concatenate([[True], self.user[1:] != self.user[:-1]])
        return np.maximum.accumulate(np.where(starts, np.arange(len(self)), 0))

    @cached_property
    def liked(self) -> npt.NDArray[np.int8]:
        """(n,) 1 where the rating is above `liked_above`."""
        return (self.rating > self.liked_above).astype(np.int8)

    def fingerprint(self) -> str:
        """SHA-256 of all that a prompt, a label or a request depends on, whatever files it was read from."""
        digest = hashlib.sha256()
        for column in (self.user, self.item, self.rating, self.time):
            digest.update(np.ascontiguousarray(column).tobytes())
        text = [
            self.user_ids.cast(pl.String).to_list(),
            self.titles,
            _plain(self.profiles),
            self.liked_above,
        ]
        if self.details is not None:
            text.append(_plain(self.details))
        digest.update(json.dumps(text).encode())
        return digest.hexdigest()

    def without(self, gone: Mask) -> "Interactions":
        """The rows that `gone` (n,) does not mark, in the same order; codes of users and items stay what they were."""
        columns = {name: getattr(self, name)[~gone] for name in ("user", "item", "rating", "time")}
        return replace(self, **columns)

    @classmethod
    def from_tables(
        cls,
        ratings: pl.DataFrame,
        items: pl.DataFrame,
        users: pl.DataFrame | None = None,
        *,
        place: str,
        rating_range: tuple[float, float] = (1.0, 5.0),
        liked_above: float = 3.0,
        strict: bool = False,
        unrated: int = 0,
    ) -> "Interactions":
        """Validate and order three tables.

        Args:
            ratings: columns user, item, rating, time, in file order; `position`, the 0-based row of the file, where
                rows were left out.
            items: columns item, title, and details: text that tells more of an item.
            users: column user, and profile columns; None if the data set has none.
            place: file name for messages.
            rating_range: lowest and highest rating.
            liked_above: liked means rating > this.
            strict: refuse exact duplicates instead of dropping them.
            unrated: rows without a rating that were left out, for the record.

        Raises:
            DataError: a column is missing, the table is empty, or a row cannot be used; the message gives file,
                1-based data row and remedy.
        """
        _need(ratings, ("user", "item", "rating", "time"), place)
        _need(items, ("item", "title"), f"{place} (items)")
        if ratings.is_empty():
            raise DataError(f"{place}: holds no rows; give a table of ratings")
        if "position" not in ratings.columns:
            ratings = ratings.with_row_index("position")
        rows = ratings.select("position", "user", "item", "rating", "time")
        for column in ("user", "item"):
            _refuse(
                rows,
                pl.col(column).is_null(),
                column,
                place,
                "is empty",
                "fill it in or remove the row",
            )
        rows = _numbers(rows, "rating", pl.Float32, place)
        rows = _numbers(rows, "time", pl.Int64, place)
        low, high = rating_range
        outside = ~pl.col("rating").is_between(low, high)
        fault, remedy = (
            f"is outside {low:g}..{high:g}",
            "correct the row, or set columns.lowest and columns.highest",
        )
        _refuse(rows, outside, "rating", place, fault, remedy)
        _refuse(rows, pl.col("time") < 0, "time", place, "is negative", "give seconds since 1970")
        late = pl.col("time") > int(clock.time()) + DAY
        _refuse(
            rows,
            late,
            "time",
            place,
            "is in the future",
            "give seconds since 1970, or set columns.time_unit",
        )
        unique = rows.unique(["user", "item", "rating", "time"], keep="first", maintain_order=True)
        duplicates = rows.height - unique.height
        if duplicates and strict:
            again = rows.filter(~pl.col("position").is_in(unique["position"].implode())).row(
                0, named=True
            )
            raise DataError(
                f"{place} row {again['position'] + 1}: repeats an earlier row ({duplicates} such rows); "
                "remove it, or leave out --strict to drop them"
            )
        texts = items.select(
            pl.col("item").cast(rows.schema["item"], strict=False),
            pl.all().exclude("item").cast(pl.String),
        ).unique("item", keep="first", maintain_order=True)
        joined = unique.join(
            texts.select("item", "title"), on="item", how="left", maintain_order="left"
        )
        blank = pl.col("title").is_null() | (pl.col("title").str.strip_chars() == "")
        _refuse(joined, blank, "item", place, "has no title", "add it to the items")
        found = cls._ordered(joined, texts, users, liked_above, duplicates, place)
        return replace(found, unrated=unrated)

    @classmethod
    def _ordered(
        cls,
        rows: pl.DataFrame,
        texts: pl.DataFrame,
        users: pl.DataFrame | None,
        liked_above: float,
        duplicates: int,
        place: str,
    ) -> "Interactions":
        rows = rows.sort("user", "time", "position")
        ids = rows["user"].unique(maintain_order=True)
        shown = texts.filter(pl.col("item").is_in(rows["item"].unique().implode())).sort("item")
        codes = pl.DataFrame(
            {"item": shown["item"], "code": np.arange(shown.height, dtype=np.int32)}
        )
        item = rows.select("item").join(codes, on="item", how="left", maintain_order="left")["code"]
        profiles = None
        if users is not None:
            _need(users, ("user",), f"{place} (users)")
            known = users.unique("user", keep="first", maintain_order=True)
            # an id that is not of the ratings' type belongs to nobody who rated
            known = known.with_columns(pl.col("user").cast(ids.dtype, strict=False))
            profiles = pl.DataFrame({"user": ids}).join(
                known, on="user", how="left", maintain_order="left"
            )
            profiles = profiles.drop("user").select(pl.all().cast(pl.String))
        return cls(
            user=rows["user"].rle_id().cast(pl.Int32).to_numpy(),
            item=item.to_numpy(),
            rating=rows["rating"].to_numpy(),
            time=rows["time"].to_numpy(),
            user_ids=ids,
            item_ids=shown["item"],
            titles=shown["title"].to_list(),
            profiles=profiles,
            liked_above=liked_above,
            duplicates=duplicates,
            details=shown.drop("item", "title") if shown.width > 2 else None,
        )


def _plain(table: pl.DataFrame | None) -> Any:
    return None if table is None else table.to_dict(as_series=False)


def _need(table: pl.DataFrame, columns: tuple[str, ...], place: str) -> None:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise DataError(
            f"{place}: has no column {', '.join(missing)}; it has {', '.join(table.columns)}"
        )


def _numbers(rows: pl.DataFrame, column: str, kind: type[pl.DataType], place: str) -> pl.DataFrame:
    parsed = rows.with_columns(pl.col(column).cast(kind, strict=False).alias("parsed"))
    bad = pl.col("parsed").is_null()
    if kind == pl.Float32:
        bad |= ~pl.col("parsed").is_finite()
    _refuse(parsed, bad, column, place, "is no number", "correct the row")
    return parsed.drop(column).rename({"parsed": column})


def _refuse(
    rows: pl.DataFrame, bad: pl.Expr, column: str, place: str, fault: str, remedy: str
) -> None:
    found = rows.filter(bad)
    if found.height:
        row = found.row(0, named=True)
        more = f" (and {found.height - 1} more rows)" if found.height > 1 else ""
        raise DataError(
            f"{place} row {row['position'] + 1}: {column} {row[column]!r} {fault}{more}; {remedy}"
        )
