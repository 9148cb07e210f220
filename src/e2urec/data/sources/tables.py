"""The user's own tables: CSV, TSV, JSON lines, Parquet or Arrow, with columns by `[columns]`."""

from pathlib import Path
from typing import ClassVar

import polars as pl
from pydantic import Field

from ..interactions import Interactions
from ..tables import RatingScale
from .files import Files
from .prompt_rows import holds_prompts
from .reading import Columns, Reading
from .source import Source
from .table_columns import columns_by_part
from .table_formats import SUFFIXES, read_table
from .table_text import whole_ids
from .table_times import seconds


class Tables(Source):
    """A file that holds a table of ratings, and maybe others of the items and the users."""

    name: ClassVar[str] = "tables"
    expects: ClassVar[str] = f"a file of the kind {', '.join(SUFFIXES)}"
    fixed_columns: ClassVar[bool] = False

    items: str | None = Field(None, description="table of items, beside a table of ratings")
    users: str | None = Field(None, description="table of users, beside a table of ratings")

    @classmethod
    def recognises(cls, files: Files) -> bool:
        """Whether the source is a file with a table's suffix."""
        if files.is_address or files.path.is_dir():
            return False
        # Prompts with their answers are no ratings, though they are JSON lines as well.
        return files.path.suffix.lower() in SUFFIXES and not holds_prompts(files.path)

    def read(self, files: Files, reading: Reading, columns: Columns) -> Interactions:
        """Read the tables; raises DataError if one lacks a column or a row cannot be used."""
        paths = {"ratings": files.path}
        if self.items is not None:
            paths["items"] = Path(self.items)
        if self.users is not None:
            paths["users"] = Path(self.users)
        names = columns_by_part(columns, paths, timed=reading.order == "time")
        tables = {}
        for part, path in paths.items():
            tables[part] = read_table(path, names[part], columns)
        return interactions_of(tables, files.path.name, reading, columns)


def interactions_of(
    tables: dict[str, pl.DataFrame], place: str, reading: Reading, columns: Columns
) -> Interactions:
    """Make interactions of tables of text.

    Args:
        tables: that of the ratings, and those of items and users where they are apart.
        place: what errors call the table of ratings.
        reading: which times to leave out, and whether duplicates are refused.
        columns: the profile and details to show, the unit of times, and the scale of ratings.

    Raises:
        DataError: a row cannot be used.
    """
    tables = {part: whole_ids(table) for part, table in tables.items()}
    rows = tables["ratings"]
    if reading.order == "random":
        # no row is before another, until they are put into a random order
        rows = rows.with_columns(time=pl.lit("0"))
    # whatever stands beside a rating is taken off, so a detail may be called `position` too
    ratings = rows.select("user", "item", "rating", "time").with_row_index("position")
    ratings = ratings.with_columns(time=seconds(ratings["time"], columns.time_unit))
    items = tables.get("items", rows).select("item", "title", *columns.details)
    users = None
    if columns.profile:
        users = tables.get("users", rows).select("user", *columns.profile)
    return Interactions.from_tables(
        reading.within(ratings),
        items,
        users,
        place=place,
        strict=reading.strict,
        scale=RatingScale(columns.lowest, columns.highest, columns.liked_above),
    )
