"""MovieLens 100K, 1M, 10M, 25M and 32M: the official raw files, or the 100K tables as Parquet."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import polars as pl

from ...core.errors import DataError
from ..interactions import Interactions
from ..tables import RatingScale
from .files import Files
from .headerless import headerless_table, integer_ids
from .reading import Columns, Reading
from .source import Source
from .text import check_text, first_line, utf_8

# the first columns of each file, as the data sets' READMEs describe them
HEADERLESS_COLUMNS = {
    "u.data": ["user", "item", "rating", "time"],
    "u.item": ["item", "title"],
    "u.user": ["user", "age", "gender", "occupation"],
    "ratings.dat": ["user", "item", "rating", "time"],
    "movies.dat": ["item", "title"],
    "users.dat": ["user", "gender", "age", "occupation"],
}
CSV_COLUMNS = {
    "ratings": {"userId": "user", "movieId": "item", "rating": "rating", "timestamp": "time"},
    "items": {"movieId": "item", "title": "title"},
}
# narrow types, since the 32M set has so many rows; half stars are exact in 32 bits
CSV_TYPES = {
    "userId": pl.Int32,
    "movieId": pl.Int32,
    "rating": pl.Float32,
    "timestamp": pl.Int64,
    "title": pl.String,
}
# what the ages of the 1M data set stand for, by its README
AGES = {
    "1": "under 18",
    "18": "18-24",
    "25": "25-34",
    "35": "35-44",
    "45": "45-49",
    "50": "50-55",
    "56": "over 55",
}
# what the numbers of the 1M data set's occupations stand for, in its README's order
OCCUPATIONS = (
    "other",
    "academic",
    "artist",
    "clerk",
    "student",
    "customer service",
    "doctor",
    "manager",
    "farmer",
    "homemaker",
    "pupil",
    "lawyer",
    "programmer",
    "retired",
    "sales",
    "scientist",
    "self-employed",
    "engineer",
    "craftsman",
    "unemployed",
    "writer",
)


@dataclass(frozen=True)
class Form:
    """A form in which MovieLens is published.

    Attributes:
        ratings, items, users: names of the files; no users where the form has no profiles.
        load: reads one file, given the files, its name and which part it is.
        optional_users: whether the file of users may be missing.
    """

    ratings: str
    items: str
    users: str | None
    load: Callable[[Files, str, str], pl.DataFrame]
    optional_users: bool = False

    def parts(self) -> dict[str, str]:
        """Name of the file of each part."""
        parts = {"ratings": self.ratings, "items": self.items}
        if self.users is not None:
            parts["users"] = self.users
        return parts


class MovieLens(Source):
    """Films rated by the users of MovieLens (GroupLens, University of Minnesota)."""

    name: ClassVar[str] = "movielens"
    expects: ClassVar[str] = (
        "u.data (100K), ratings.dat (1M, 10M) or ratings.csv and movies.csv (25M, 32M), "
        "a folder or the official zip"
    )
    packaged: ClassVar[tuple[str, ...]] = ("movielens-100k",)

    @classmethod
    def recognises(cls, files: Files) -> bool:
        """Whether there are ratings in one of the official forms."""
        return any(files.has(form.ratings) for form in FORMS)

    def read(self, files: Files, reading: Reading, columns: Columns) -> Interactions:
        """Read the files; raises DataError if one is missing or a row cannot be used."""
        form = next(form for form in FORMS if files.has(form.ratings))
        names = self._names(files, form)
        tables = {part: form.load(files, name, part) for part, name in names.items()}
        # since the 10M set there are half stars, and no profiles
        lowest = 1.0 if "users" in names else 0.5
        return Interactions.from_tables(
            reading.within(tables["ratings"]),
            tables["items"],
            tables.get("users"),
            place=form.ratings,
            scale=RatingScale(lowest, 5.0, columns.liked_above),
            strict=reading.strict,
        )

    def _names(self, files: Files, form: Form) -> dict[str, str]:
        """Name of the file of each part that there is; raises DataError if one is missing."""
        names = form.parts()
        missing = [part for part, name in names.items() if not files.has(name)]
        if form.optional_users and "users" in missing:
            missing.remove("users")
            del names["users"]
        if missing:
            missing_names = ", ".join(names[part] for part in missing)
            raise DataError(
                f"data '{files.path}': {missing_names} missing; put the file there ({self.expects})"
            )
        return names


def _load_parquet(files: Files, name: str, part: str) -> pl.DataFrame:
    try:
        table = pl.read_parquet(io.BytesIO(files.read(name)))
        if part == "ratings":
            return table.rename({"user_id": "user", "movie_id": "item", "timestamp": "time"})
        if part == "items":
            return table.select(item="movie_id", title="movie_title")
        return table.select("age", "gender", "occupation", user="user_id")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"{name}: cannot be read as Parquet; fetch it again ({first_line(error)})"
        ) from error


def _load_tabs_and_bars(files: Files, name: str, part: str) -> pl.DataFrame:
    """The 100K set: tabs between the columns of ratings, bars in the other tables, Latin-1."""
    separator = "\t" if part == "ratings" else "|"
    data = utf_8(files.read(name), name)
    table = headerless_table(data, name, HEADERLESS_COLUMNS[name], separator)
    return integer_ids(table, name)


def _load_colons(files: Files, name: str, part: str) -> pl.DataFrame:
    """The 1M and 10M sets: `::` between columns; Latin-1 in the first, UTF-8 in the second."""
    # Polars separates by one character, so a tab stands for `::`, and a space for a tab
    data = utf_8(files.read(name), name)
    data = data.replace(b"\t", b" ")
    data = data.replace(b"::", b"\t")
    if b"\t" not in data:
        raise DataError(f"{name}: has no '::' between its columns; get the official file again")
    table = headerless_table(data, name, HEADERLESS_COLUMNS[name], "\t")
    if part == "users":
        occupations = {str(number): text for number, text in enumerate(OCCUPATIONS)}
        age = table["age"].replace(AGES)
        occupation = table["occupation"].replace(occupations)
        table = table.with_columns(age, occupation)
    return integer_ids(table, name)


def _load_csv(files: Files, name: str, part: str) -> pl.DataFrame:
    """The 25M and 32M sets."""
    columns = CSV_COLUMNS[part]
    data = files.read(name)
    check_text(io.BytesIO(data), name)
    try:
        table = _parse_csv(data, list(columns))
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{name}: has not the columns {', '.join(columns)}, or cannot be read as CSV; "
            f"get the official file ({first_line(error)})"
        ) from error
    return integer_ids(table.rename(columns), name)


def _parse_csv(data: bytes, columns: list[str]) -> pl.DataFrame:
    types = {column: CSV_TYPES[column] for column in columns}
    file = io.BytesIO(data)
    try:
        return pl.read_csv(file, columns=columns, schema_overrides=types)
    except pl.exceptions.ComputeError:
        # a field is no number: as text the table can be read, and an error can name the row
        file.seek(0)
        return pl.read_csv(file, columns=columns, infer_schema=False)


FORMS = (
    Form(
        ratings="MovieLens100k_data.parquet.brotli",
        items="MovieLens100k_items.parquet.brotli",
        users="MovieLens100k_users.parquet.brotli",
        load=_load_parquet,
    ),
    Form("u.data", "u.item", "u.user", _load_tabs_and_bars),
    # the 10M set has no table of users
    Form("ratings.dat", "movies.dat", "users.dat", _load_colons, optional_users=True),
    Form("ratings.csv", "movies.csv", None, _load_csv),
)
"""The official forms, by the names of their files."""
