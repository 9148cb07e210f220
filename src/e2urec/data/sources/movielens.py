"""MovieLens 100K, 1M, 10M, 25M and 32M: the official raw files, or the 100K tables as Parquet."""

import io

import polars as pl

from ...core.errors import DataError
from ..interactions import Interactions
from ..tables import RatingScale
from .files import Files, check_text, delimited, integers, line, readable
from .reading import Columns, Reading

EXPECTS = "u.data (100K), ratings.dat (1M, 10M) or ratings.csv and movies.csv (25M, 32M), a folder or the official zip"
_PARQUET = {name: f"MovieLens100k_{name}.parquet.brotli" for name in ("data", "items", "users")}
_RAW = {"data": "u.data", "items": "u.item", "users": "u.user"}
_COLONS = {"data": "ratings.dat", "items": "movies.dat", "users": "users.dat"}
_COMMAS = {"data": "ratings.csv", "items": "movies.csv"}
FORMS = (_PARQUET, _RAW, _COLONS, _COMMAS)
OPTIONAL = ("users.dat",)
"""The 10M data set has no table of users."""

COLUMNS = {
    "u.data": ["user", "item", "rating", "time"],
    "u.item": ["item", "title"],
    "u.user": ["user", "age", "gender", "occupation"],
    "ratings.dat": ["user", "item", "rating", "time"],
    "movies.dat": ["item", "title"],
    "users.dat": ["user", "gender", "age", "occupation"],
}
AGES = {
    "1": "under 18",
    "18": "18-24",
    "25": "25-34",
    "35": "35-44",
    "45": "45-49",
    "50": "50-55",
    "56": "over 55",
}
WORK = (
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
"""What the numbers of the 1M data set's users stand for, in its README's order."""


def recognises(files: Files) -> bool:
    """Whether `files` hold ratings in one of the official forms."""
    return any(files.has(form["data"]) for form in FORMS)


def read(files: Files, reading: Reading, columns: Columns) -> Interactions:
    """Read the files.

    Raises:
        DataError: a file is missing or malformed, or its rows cannot be used.
    """
    names = next(form for form in FORMS if files.has(form["data"]))
    missing = [name for name in names.values() if name not in OPTIONAL and not files.has(name)]
    if missing:
        raise DataError(
            f"data '{files.path}': {', '.join(missing)} missing; put the file there ({EXPECTS})"
        )
    there = {part: name for part, name in names.items() if files.has(name)}
    load = _parquet if names is _PARQUET else _commas if names is _COMMAS else _raw
    tables = {part: load(files, name, part) for part, name in there.items()}
    halves = names is _COMMAS or (names is _COLONS and "users" not in tables)
    return Interactions.from_tables(
        reading.within(tables["data"]),
        tables["items"],
        tables.get("users"),
        place=names["data"],
        scale=RatingScale(0.5 if halves else 1.0, 5.0, columns.liked_above),
        strict=reading.strict,
    )


def _parquet(files: Files, name: str, part: str) -> pl.DataFrame:
    try:
        table = pl.read_parquet(io.BytesIO(files.read(name)))
        if part == "data":
            return table.rename({"user_id": "user", "movie_id": "item", "timestamp": "time"})
        if part == "items":
            return table.select(item="movie_id", title="movie_title")
        return table.select("age", "gender", "occupation", user="user_id")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"{name}: cannot be read as Parquet; fetch it again ({line(error)})"
        ) from error


def _raw(files: Files, name: str, part: str) -> pl.DataFrame:
    """Tables without header: tabs, bars or double colons between columns, Latin-1 but for the 10M set's UTF-8."""
    data = readable(files.read(name), name)
    if name.endswith(".dat"):
        data = data.replace(b"\t", b" ").replace(b"::", b"\t")
    separator = "|" if name in ("u.item", "u.user") else "\t"
    if name.endswith(".dat") and separator.encode() not in data:
        raise DataError(f"{name}: has no '::' between its columns; get the official file again")
    columns = COLUMNS[name]
    table = delimited(data, name, columns, separator)
    if name == "users.dat":
        numbers = [str(number) for number in range(len(WORK))]
        table = table.with_columns(
            pl.col("age").replace(AGES),
            pl.col("occupation").replace(dict(zip(numbers, WORK, strict=True))),
        )
    return integers(table, [column for column in ("user", "item") if column in columns], name)


def _commas(files: Files, name: str, part: str) -> pl.DataFrame:
    wanted = {
        "data": {"userId": "user", "movieId": "item", "rating": "rating", "timestamp": "time"},
        "items": {"movieId": "item", "title": "title"},
    }[part]
    numbers = {"userId": pl.Int32, "movieId": pl.Int32, "rating": pl.Float32, "timestamp": pl.Int64}
    data = files.read(name)
    check_text(io.BytesIO(data), name)
    try:
        try:
            typed = {column: numbers.get(column, pl.String) for column in wanted}
            table = pl.read_csv(io.BytesIO(data), columns=list(wanted), schema_overrides=typed)
        except (
            pl.exceptions.ComputeError
        ):  # a field is no number: read as text, so that its row can be told
            table = pl.read_csv(io.BytesIO(data), columns=list(wanted), infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{name}: has not the columns {', '.join(wanted)}, or cannot be read as CSV; get the official file "
            f"({line(error)})"
        ) from error
    table = table.rename(wanted)
    return integers(table, [column for column in ("user", "item") if column in table.columns], name)
