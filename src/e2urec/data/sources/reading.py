"""How raw data are to be read: what a recipe says of it, whatever the source."""

from datetime import UTC, datetime
from typing import Annotated, Literal

import polars as pl
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator


def _moment(text: str | None) -> str | None:
    if text is not None:
        datetime.fromisoformat(text)
    return text


Moment = Annotated[str | None, AfterValidator(_moment)]


class Columns(BaseModel):
    """The user's own tables: which column is what; `liked_above` goes for every source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user: str = Field("user", description="who")
    item: str = Field("item", description="what")
    rating: str = Field("rating", description="how much it was liked")
    time: str = Field("time", description="when: seconds since 1970, or a date")
    title: str = Field("title", description="of the item, in data.items or beside each rating")
    profile: tuple[str, ...] = Field(
        (), description="columns about the user, in data.users or beside each rating"
    )
    details: tuple[str, ...] = Field((), description="further columns about the item")
    separator: str | None = Field(
        None, pattern=r"^[ -!#-~\t]$", description="of CSV; default: by the file's name"
    )
    quotes: bool = Field(True, description="of CSV: quotes around a field are not part of it")
    encoding: Literal["utf-8", "latin-1"] = Field("utf-8", description="of text files")
    time_unit: Literal["s", "ms", "us"] = Field("s", description="of times that are numbers")
    lowest: float = Field(1.0, allow_inf_nan=False, description="lowest rating")
    highest: float = Field(5.0, allow_inf_nan=False, description="highest rating")
    liked_above: float = Field(
        3.0, allow_inf_nan=False, description="a rating above it means liked, of any source"
    )

    @field_validator("profile", "details")
    @classmethod
    def _distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        taken = sorted({"user", "item", "rating", "time", "title"}.intersection(names))
        if taken or len(set(names)) < len(names):
            raise ValueError(
                f"{taken[0] if taken else 'a column'} is named twice; rename the column in the table"
            )
        return names


class Reading(BaseModel):
    """What a recipe's part `data` says of reading."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(
        "movielens-100k",
        description="packaged name, folder or zip of raw files, table (CSV, TSV, JSON lines, Parquet, Arrow), "
        "or database (sqlite:///file)",
    )
    items: str | None = Field(None, description="table of items, beside a table of ratings")
    users: str | None = Field(None, description="table of users, beside a table of ratings")
    query: str | None = Field(
        None, description="SELECT that gives the table of ratings, for a database"
    )
    items_query: str | None = Field(None, description="SELECT that gives the table of items")
    users_query: str | None = Field(None, description="SELECT that gives the table of users")
    genre: str | None = Field(None, description="keep items of this genre alone (GoodReads)")
    since: Moment = Field(None, description="leave out what was before: a date such as 2015-01-01")
    until: Moment = Field(None, description="leave out what was then or later")
    unpacked_gb: float = Field(
        16.0, gt=0, allow_inf_nan=False, description="most that a packed file may unpack to, in GB"
    )
    strict: bool = Field(False, description="refuse exact duplicates instead of dropping them")

    @property
    def limit(self) -> int:
        """Most bytes that a packed file may unpack to."""
        return int(self.unpacked_gb * 1e9)

    def within(self, ratings: pl.DataFrame) -> pl.DataFrame:
        """The rows between `since` and `until`, by column `time`; those whose time is no number stay, to be told.

        They keep their `position` in the file.
        """
        if self.since is None and self.until is None:
            return ratings
        if "position" not in ratings.columns:
            ratings = ratings.with_row_index("position")
        time = pl.col("time").cast(pl.Int64, strict=False)
        for moment, keep in ((self.since, time.__ge__), (self.until, time.__lt__)):
            if moment is not None:
                ratings = ratings.filter(keep(seconds(moment)).fill_null(True))
        return ratings


def seconds(moment: str) -> int:
    """Seconds since 1970 at a date or time, in UTC unless it says otherwise."""
    found = datetime.fromisoformat(moment)
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())
