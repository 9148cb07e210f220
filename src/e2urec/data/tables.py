"""Validation of the tables that interactions are made from.

Every fault names the file, the row and the remedy.
"""

import time as clock
from dataclasses import dataclass

import polars as pl

from ..core.errors import DataError
from .written_prompts import PROMPT_COLUMNS

RATING_COLUMNS = ("user", "item", "rating", "time")
ITEM_COLUMNS = ("item", "title")
# Seconds that a row may lie in the future: clocks differ, and time zones do by up to a day.
CLOCK_TOLERANCE = 86_400
# Letters of a title, a detail or a part of a profile: a prompt shows many of them, and the longest
# window of today's models ends far below. A text of megabytes would take hours and all memory.
LONGEST_TEXT = 100_000


@dataclass(frozen=True)
class RatingScale:
    """What ratings can be, and what they say.

    Attributes:
        lowest, highest: a rating outside of these is refused.
        liked_above: a row is liked if its rating is greater.
        answers: how rows that bring their prompts spell liked and not; None: they bring none.
    """

    lowest: float = 1.0
    highest: float = 5.0
    liked_above: float = 3.0
    answers: tuple[tuple[str, ...], tuple[str, ...]] | None = None


@dataclass(frozen=True)
class _Fault:
    """What may be wrong with a column of a row, and what to do about it."""

    column: str
    text: str
    remedy: str


def require_columns(table: pl.DataFrame, columns: tuple[str, ...], place: str) -> None:
    """Raise DataError if `table` lacks one of `columns`."""
    missing_columns = [column for column in columns if column not in table.columns]
    if missing_columns:
        raise DataError(
            f"{place}: has no column {', '.join(missing_columns)}; "
            f"it has {', '.join(table.columns)}"
        )


def valid_ratings(ratings: pl.DataFrame, scale: RatingScale, place: str) -> pl.DataFrame:
    """The columns of ratings, parsed, with the `position` of each row in its file.

    Raises:
        DataError: there are no rows, or one cannot be used.
    """
    if ratings.is_empty():
        raise DataError(f"{place}: holds no rows; give a table of ratings")
    if "position" not in ratings.columns:
        ratings = ratings.with_row_index("position")
    further_columns = [name for name in PROMPT_COLUMNS if name in ratings.columns]
    rows = ratings.select("position", *RATING_COLUMNS, *further_columns)
    for column in ("user", "item"):
        fault = _Fault(column, "is empty", "fill it in or remove the row")
        _refuse(rows, pl.col(column).is_null(), fault, place)
    rows = _parse_numbers(rows, "rating", pl.Float32, place)
    rows = _parse_numbers(rows, "time", pl.Int64, place)
    _refuse_ratings_outside(rows, scale, place)
    _refuse_impossible_times(rows, place)
    return rows


def without_duplicates(rows: pl.DataFrame, place: str, *, strict: bool) -> pl.DataFrame:
    """The first of each set of equal rows; raises DataError if `strict` and there are any."""
    # A row that was tuned on and is held out as well counts as the first of the two.
    columns = [name for name in rows.columns if name not in ("position", "part")]
    distinct = rows.unique(columns, keep="first", maintain_order=True)
    duplicate_count = rows.height - distinct.height
    if duplicate_count and strict:
        positions = distinct["position"].implode()
        duplicates = rows.filter(~pl.col("position").is_in(positions))
        row = duplicates["position"][0] + 1
        raise DataError(
            f"{place} row {row}: repeats an earlier row ({duplicate_count} such rows); "
            "remove it, or leave out --strict to drop them"
        )
    return distinct


def item_texts(items: pl.DataFrame, id_type: pl.DataType) -> pl.DataFrame:
    """One row an item, with ids of `id_type` and all else as text."""
    # An id that is not of the ratings' type becomes null: nobody has rated that item.
    ids = pl.col("item").cast(id_type, strict=False)
    texts = pl.all().exclude("item").cast(pl.String)
    rows = items.select(ids, texts)
    return rows.unique("item", keep="first", maintain_order=True)


def require_titles(rows: pl.DataFrame, texts: pl.DataFrame, place: str) -> None:
    """Raise DataError at the first row whose item has no title."""
    titles = texts.select("item", "title")
    rows_with_titles = rows.join(titles, on="item", how="left", maintain_order="left")
    title = pl.col("title")
    text = title.str.strip_chars()
    is_blank = title.is_null() | (text == "")
    fault = _Fault("item", "has no title", "add it to the items")
    _refuse(rows_with_titles, is_blank, fault, place)


def require_short_texts(table: pl.DataFrame, place: str) -> None:
    """Raise DataError if a text that prompts would show is longer than `LONGEST_TEXT` letters."""
    for column in table.select(pl.col(pl.String)):
        length = column.str.len_chars().max()
        if isinstance(length, int) and length > LONGEST_TEXT:
            raise DataError(
                f"{place}: column '{column.name}' holds a text of {length:,} letters, and the "
                f"longest may have {LONGEST_TEXT:,}; shorten it, or leave the column out"
            )


def user_profiles(users: pl.DataFrame, ids: pl.Series, place: str) -> pl.DataFrame:
    """One row of text for each of `ids`, in their order; raises DataError without a column user."""
    require_columns(users, ("user",), f"{place} (users)")
    profiles = users.unique("user", keep="first", maintain_order=True)
    # An id that is not of the ratings' type becomes null: it belongs to nobody who rated.
    user = pl.col("user").cast(ids.dtype, strict=False)
    profiles = profiles.with_columns(user)
    rows = pl.DataFrame({"user": ids})
    rows = rows.join(profiles, on="user", how="left", maintain_order="left")
    rows = rows.drop("user")
    texts = pl.all().cast(pl.String)
    return rows.select(texts)


def _refuse_ratings_outside(rows: pl.DataFrame, scale: RatingScale, place: str) -> None:
    is_inside = pl.col("rating").is_between(scale.lowest, scale.highest)
    fault = _Fault(
        "rating",
        f"is outside {scale.lowest:g}..{scale.highest:g}",
        "correct the row, or set columns.lowest and columns.highest",
    )
    _refuse(rows, ~is_inside, fault, place)


def _refuse_impossible_times(rows: pl.DataFrame, place: str) -> None:
    time = pl.col("time")
    negative = _Fault("time", "is negative", "give seconds since 1970")
    _refuse(rows, time < 0, negative, place)
    latest = int(clock.time()) + CLOCK_TOLERANCE
    future = _Fault("time", "is in the future", "give seconds since 1970, or set columns.time_unit")
    _refuse(rows, time > latest, future, place)


def _parse_numbers(
    rows: pl.DataFrame, column: str, number_type: type[pl.DataType], place: str
) -> pl.DataFrame:
    number = pl.col(column).cast(number_type, strict=False)
    # Beside the text for now, so that a message can show what stands in the file.
    rows = rows.with_columns(number.alias("number"))
    number = pl.col("number")
    is_bad = number.is_null()
    if number_type == pl.Float32:
        is_bad |= ~number.is_finite()
    fault = _Fault(column, "is no number", "correct the row")
    _refuse(rows, is_bad, fault, place)
    rows = rows.drop(column)
    return rows.rename({"number": column})


def _refuse(rows: pl.DataFrame, is_bad: pl.Expr, fault: _Fault, place: str) -> None:
    """Raise DataError that names the first bad row, and how many more there are."""
    bad_rows = rows.filter(is_bad)
    if bad_rows.is_empty():
        return
    first = bad_rows.row(0, named=True)
    rest = bad_rows.height - 1
    count = f" (and {rest} more rows)" if rest else ""
    row = first["position"] + 1
    value = first[fault.column]
    raise DataError(
        f"{place} row {row}: {fault.column} {value!r} {fault.text}{count}; {fault.remedy}"
    )
