"""What a recipe says of reading raw data, whatever the source."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from ...core.errors import DataError


def _check_moment(text: str | None) -> str | None:
    if text is not None:
        datetime.fromisoformat(text)
    return text


Moment = Annotated[str | None, AfterValidator(_check_moment)]
"""An ISO date or time, as text: so it stands in a recipe and in a run's record as it was given."""


class Columns(BaseModel):
    """Which column of the user's own tables is what; `liked_above` goes for every source."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    user: str = Field("user", description="who")
    item: str = Field("item", description="what")
    rating: str = Field("rating", description="how much it was liked")
    time: str = Field(
        "time",
        description="when: seconds since 1970, or a date; not read with data.order = 'random'",
    )
    title: str = Field(
        "title", description="of the item, in data.options.items or beside each rating"
    )
    profile: tuple[str, ...] = Field(
        (), description="columns about the user, in data.options.users or beside each rating"
    )
    details: tuple[str, ...] = Field((), description="further columns about the item")
    separator: str | None = Field(
        None, pattern=r"^[ -!#-~\t]$", description="of CSV; default: by the file's name"
    )
    quotes: bool = Field(True, description="of CSV: quotes around a field are not part of it")
    encoding: Literal["utf-8", "latin-1"] = Field("utf-8", description="of text files")
    time_unit: Literal["s", "ms", "us"] = Field("s", description="of times that are numbers")
    lowest: float = Field(1.0, description="lowest rating")
    highest: float = Field(5.0, description="highest rating")
    liked_above: float = Field(3.0, description="a rating above it means liked, of any source")

    @field_validator("profile", "details")
    @classmethod
    def _check_distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        # those five are our own names, and profile and details go by the table's
        for name in ("item", "rating", "time", "title", "user"):
            if name in names:
                raise ValueError(f"{name} is named twice; rename the column in the table")
        if len(set(names)) < len(names):
            raise ValueError("a column is named twice; rename the column in the table")
        return names


class Reading(BaseModel):
    """What a recipe's part `data` says of reading."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    source: str = Field(
        "movielens-100k",
        description="packaged name, folder or zip of raw files, "
        "table (CSV, TSV, JSON lines, Parquet, Arrow), or database (sqlite:///file)",
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="settings of this kind of source alone, such as items for a table",
    )
    order: Literal["time", "random"] = Field(
        "time",
        description="of each user's rows: by time; or random, by the seed, for data without times",
    )
    since: Moment = Field(None, description="leave out what was before: a date such as 2015-01-01")
    until: Moment = Field(None, description="leave out what was then or later")
    unpacked_gb: float = Field(
        16.0, gt=0, description="most that a packed file may unpack to, in GB"
    )
    strict: bool = Field(False, description="refuse exact duplicates instead of dropping them")

    @property
    def limit(self) -> int:
        """Most bytes that a packed file may unpack to."""
        return int(self.unpacked_gb * 1e9)

    def within(self, ratings: pl.DataFrame) -> pl.DataFrame:
        """Return the rows from `since` on and before `until`, by their column `time`.

        The rows keep their `position` in the file. A row whose time is no number stays: the check
        of the interactions names it in its error.

        Raises:
            DataError: a stretch of time is asked for of rows in random order.
        """
        if self.since is None and self.until is None:
            return ratings
        if self.order == "random":
            raise DataError(
                "data.since and data.until: cut by the times that data.order = 'random' leaves "
                "out; leave them out too, or set data.order = 'time'"
            )
        # errors name the row of the file, also once other rows are left out
        if "position" not in ratings.columns:
            ratings = ratings.with_row_index("position")
        time = pl.col("time").cast(pl.Int64, strict=False)
        if self.since is not None:
            is_late_enough = time >= _seconds(self.since)
            ratings = ratings.filter(is_late_enough.fill_null(True))
        if self.until is not None:
            is_early_enough = time < _seconds(self.until)
            ratings = ratings.filter(is_early_enough.fill_null(True))
        return ratings


def _seconds(moment: str) -> int:
    """Seconds since 1970 at a date or time, in UTC unless the text says otherwise."""
    time = datetime.fromisoformat(moment)
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return int(time.timestamp())
