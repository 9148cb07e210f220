"""MovieLens-100K: the official raw files, or the same tables as Parquet."""

from pathlib import Path

import polars as pl

from ...errors import DataError
from ..interactions import Interactions

EXPECTS = "u.data, u.item and u.user (official), or MovieLens100k_data, _items and _users as .parquet.brotli"
_PARQUET = {name: f"MovieLens100k_{name}.parquet.brotli" for name in ("data", "items", "users")}
_RAW = {"data": "u.data", "items": "u.item", "users": "u.user"}


def recognises(folder: Path) -> bool:
    """Whether `folder` holds ratings in either form."""
    return any((folder / names["data"]).is_file() for names in (_PARQUET, _RAW))


def read(folder: Path, *, strict: bool = False) -> Interactions:
    """Read the folder.

    Raises:
        DataError: a file is missing or malformed, or its rows cannot be used.
    """
    names = _PARQUET if (folder / _PARQUET["data"]).is_file() else _RAW
    missing = [name for name in names.values() if not (folder / name).is_file()]
    if missing:
        raise DataError(f"data folder '{folder}': {', '.join(missing)} missing; put the file there ({EXPECTS})")
    load = _parquet if names is _PARQUET else _raw
    ratings, items, users = (load(folder / names[part], part) for part in ("data", "items", "users"))
    return Interactions.from_tables(ratings, items, users, place=names["data"], strict=strict)


def _parquet(path: Path, part: str) -> pl.DataFrame:
    try:
        table = pl.read_parquet(path)
        if part == "data":
            return table.rename({"user_id": "user", "movie_id": "item", "timestamp": "time"})
        if part == "items":
            return table.select(item="movie_id", title="movie_title")
        return table.select("age", "gender", "occupation", user="user_id")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path.name}: cannot be read as Parquet; fetch it again ({_first_line(error)})") from error


def _raw(path: Path, part: str) -> pl.DataFrame:
    columns = {
        "data": ["user", "item", "rating", "time"],
        "items": ["item", "title"],
        "users": ["user", "age", "gender", "occupation"],
    }[part]
    separator = "\t" if part == "data" else "|"
    try:
        text = path.read_bytes().decode("latin-1")
        table = pl.read_csv(
            text.encode(), separator=separator, has_header=False, infer_schema=False, quote_char=None,
            truncate_ragged_lines=True,
        )  # fmt: skip
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path.name}: cannot be read as a table; get the file again ({_first_line(error)})") from error
    if len(table.columns) < len(columns):
        raise DataError(
            f"{path.name}: has {len(table.columns)} columns, not {len(columns)}; the separator is {separator!r}"
        )
    table = table.select(table.columns[: len(columns)])
    table.columns = columns
    ids = [name for name in ("user", "item") if name in columns]
    for name in ids:
        wrong = table.with_row_index("position").filter(pl.col(name).cast(pl.Int64, strict=False).is_null())
        if wrong.height:
            row = wrong.row(0, named=True)
            raise DataError(
                f"{path.name} row {row['position'] + 1}: {name} {row[name]!r} is no number; correct the row"
            )
    return table.with_columns(pl.col(ids).cast(pl.Int64))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
