"""GoodReads (UCSD Book Graph): interactions and books as gzipped JSON lines, streamed.

Rating 0 means that the book was shelved and not rated: such rows are dropped and counted.
"""

from dataclasses import replace
from typing import ClassVar

import polars as pl
from pydantic import Field

from ...core.errors import DataError
from ..interactions import Interactions
from ..tables import RatingScale
from .files import Files
from .goodreads_books import BOOKS, read_books
from .json_stream import Schema, stream
from .reading import Columns, Reading
from .source import Source

INTERACTIONS = "goodreads_interactions*.json.gz"
# the keys of an interaction that are read, of about ten
INTERACTION: Schema = {
    "user_id": pl.String,
    "book_id": pl.String,
    "rating": pl.Int64,
    "date_updated": pl.String,
}
# such as "Wed Mar 01 10:00:00 -0800 2017"
DATE = "%a %b %d %H:%M:%S %z %Y"
# of the table that the interactions are made from
RATINGS: Schema = {
    "position": pl.UInt32,
    "user": pl.String,
    "item": pl.String,
    "rating": pl.Int64,
    "time": pl.Int64,
}


class GoodReads(Source):
    """Books rated by the users of GoodReads."""

    name: ClassVar[str] = "goodreads"
    expects: ClassVar[str] = (
        "goodreads_interactions*.json.gz and goodreads_books*.json.gz, "
        "with or without _book_authors and _book_genres"
    )

    genre: str | None = Field(None, description="keep items of this genre alone")

    @classmethod
    def recognises(cls, files: Files) -> bool:
        """Whether there are interactions of the Book Graph."""
        return files.has(INTERACTIONS)

    def read(self, files: Files, reading: Reading, columns: Columns) -> Interactions:
        """Read the files, a few megabytes at a time.

        Raises:
            DataError: a file is missing, breaks off or is malformed, or a row cannot be used.
        """
        if not files.has(BOOKS):
            raise DataError(
                f"data '{files.path}': {BOOKS} missing; put the file there ({self.expects})"
            )
        items = self._of_genre(read_books(files))
        names = files.find(INTERACTIONS)
        # the empty table is for a data set that has no rated row: its error then says so
        tables = [pl.DataFrame(schema=RATINGS)]
        unrated = 0
        # rows are counted through all files, as if one followed the other
        start = 0
        for name in names:
            row_count = 0
            for first_row, rows in stream(files, name, INTERACTION):
                rows = rows.with_row_index("position", offset=first_row)
                row_count = first_row + rows.height
                rows = reading.within(_with_time(self._of_items(rows, items), name))
                # a rating that is missing is a fault, which the check of the interactions names
                rated = rows.filter(pl.col("rating").ne_missing(0))
                unrated += rows.height - rated.height
                tables.append(_ratings(rated, start))
            start += row_count
        place = names[0] if len(names) == 1 else f"{', '.join(names)}, one after another,"
        interactions = Interactions.from_tables(
            pl.concat(tables),
            items,
            place=place,
            scale=RatingScale(liked_above=columns.liked_above),
            strict=reading.strict,
        )
        return replace(interactions, unrated=unrated)

    def _of_genre(self, items: pl.DataFrame) -> pl.DataFrame:
        """The items of the genre, or all of them; raises DataError if there are none."""
        if self.genre is None:
            return items
        items = items.filter(pl.col("genre").str.to_lowercase() == self.genre.lower())
        if items.is_empty():
            raise DataError(
                f"data.options.genre '{self.genre}': no book has it; "
                "leave it out to see which there are"
            )
        return items

    def _of_items(self, rows: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
        """The rows of a genre's items. Without a genre a row of an unknown item is an error."""
        if self.genre is None:
            return rows
        return rows.filter(pl.col("book_id").is_in(items["item"].implode()))


def _with_time(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    """The rows with `time` in seconds; raises DataError where `date_updated` is no date."""
    date = pl.col("date_updated").str.to_datetime(DATE, strict=False, time_zone="UTC")
    rows = rows.with_columns(time=date.dt.epoch("s"))
    faults = rows.filter(pl.col("time").is_null())
    if faults.height:
        row = faults.row(0, named=True)
        raise DataError(
            f"{name} row {row['position'] + 1}: date_updated {row['date_updated']!r} is no date; "
            "correct the row"
        )
    return rows


def _ratings(rows: pl.DataFrame, start: int) -> pl.DataFrame:
    """The rows under our names, their positions counted from `start`."""
    rows = rows.rename({"user_id": "user", "book_id": "item"})
    rows = rows.with_columns(pl.col("position") + start)
    return rows.select(*RATINGS)
