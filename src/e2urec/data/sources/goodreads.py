"""GoodReads (UCSD Book Graph): interactions and books as gzipped JSON lines, streamed.

Rating 0 means that the book was shelved and not rated: such rows are dropped and counted.
"""

from collections.abc import Iterator

import polars as pl

from ...errors import DataError
from ..interactions import Interactions
from .files import Files, line, unpacked, whole_lines
from .reading import Reading

EXPECTS = "goodreads_interactions*.json.gz and goodreads_books*.json.gz, with or without _book_authors and _book_genres"
Schema = dict[str, pl.DataType | type[pl.DataType]]

RATED: Schema = {"user_id": pl.String, "book_id": pl.String, "rating": pl.Int64, "date_updated": pl.String}
SHELVES = pl.List(pl.Struct({"count": pl.String, "name": pl.String}))
AUTHORS = pl.List(pl.Struct({"author_id": pl.String, "role": pl.String}))
BOOK: Schema = {"book_id": pl.String, "title": pl.String, "authors": AUTHORS, "popular_shelves": SHELVES}
NAMES: Schema = {"author_id": pl.String, "name": pl.String}
STATES = r"read|own|favou?rite|book|kindle|audio|library|wish|want|buy|finish|abandon|dnf|default|maybe|shelf|series"
"""Shelves that tell what a reader did or has, not what a book is about."""
WRITTEN = "%a %b %d %H:%M:%S %z %Y"


def recognises(files: Files) -> bool:
    """Whether `files` hold interactions of the Book Graph."""
    return files.has("goodreads_interactions*.json.gz")


def read(files: Files, reading: Reading) -> Interactions:
    """Read the files.

    Raises:
        DataError: a file is missing, breaks off or is malformed, or its rows cannot be used.
    """
    if not files.has("goodreads_books*.json.gz"):
        raise DataError(f"data '{files.path}': goodreads_books*.json.gz missing; put the file there ({EXPECTS})")
    interactions, books = files.find("goodreads_interactions*.json.gz"), files.find("goodreads_books*.json.gz")
    items = _books(files, books, reading)
    if reading.genre is not None:
        items = items.filter(pl.col("genre").str.to_lowercase() == reading.genre.lower())
        if items.is_empty():
            raise DataError(f"data.genre '{reading.genre}': no book has it; leave it out to see which there are")
    unrated, parts = 0, []
    for name in interactions:
        for rows, part in _objects(files, name, RATED, reading):
            rated = part.with_row_index("position", offset=rows).filter(pl.col("rating") != 0)
            unrated += part.height - rated.height
            if reading.genre is not None:
                rated = rated.filter(pl.col("book_id").is_in(items["item"].implode()))
            parts.append(_timed(rated, name))
    ratings = pl.concat(parts) if parts else pl.DataFrame(schema={**RATED, "position": pl.UInt32, "time": pl.Int64})
    ratings = ratings.rename({"user_id": "user", "book_id": "item"}).drop("date_updated")
    return Interactions.from_tables(
        reading.within(ratings), items, place=", ".join(interactions), strict=reading.strict, unrated=unrated
    )


def _timed(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    """The rows with `time` in seconds; raises DataError where `date_updated` is no date."""
    time = pl.col("date_updated").str.to_datetime(WRITTEN, strict=False, time_zone="UTC").dt.epoch("s")
    rows = rows.with_columns(time=time)
    wrong = rows.filter(pl.col("time").is_null())
    if wrong.height:
        row = wrong.row(0, named=True)
        raise DataError(
            f"{name} row {row['position'] + 1}: date_updated {row['date_updated']!r} is no date; correct the row"
        )
    return rows


def _books(files: Files, names: list[str], reading: Reading) -> pl.DataFrame:
    """Item, title, authors and genre: authors' names and genres from files of their own where those are there."""
    books = pl.concat([part for name in names for _, part in _objects(files, name, BOOK, reading)])
    books = books.unique("book_id", keep="first", maintain_order=True)
    first = pl.col("authors").list.first().struct.field("author_id")
    shelves = pl.col("popular_shelves").list.eval(pl.element().struct.field("name"))
    topics = shelves.list.eval(pl.element().filter(~pl.element().str.contains(STATES)))
    items = books.select(item="book_id", title="title", author_id=first, genre=topics.list.first())
    known = files.find("goodreads_book_authors*.json.gz")
    columns = ["item", "title"]
    if known:
        people = pl.concat([part for name in known for _, part in _objects(files, name, NAMES, reading)])
        people = people.unique("author_id", keep="first").rename({"name": "author"})
        items = items.join(people, on="author_id", how="left", maintain_order="left")
        columns.append("author")
    genres = files.find("goodreads_book_genres*.json.gz")
    if genres:
        found = pl.concat([_genres(part) for name in genres for _, part in _objects(files, name, None, reading)])
        items = items.drop("genre").join(found, on="item", how="left", maintain_order="left")
    return items.select(*columns, "genre")


def _genres(part: pl.DataFrame) -> pl.DataFrame:
    """The genre that most readers put a book into, out of an object of counts."""
    counts = part.unnest("genres").drop("book_id")
    if not counts.width:
        return pl.DataFrame({"item": part["book_id"].cast(pl.String)}).with_columns(genre=pl.lit(None, pl.String))
    names = pl.Series(counts.columns, dtype=pl.String)
    best = counts.fill_null(0).select(most=pl.concat_list(pl.all()).list.arg_max(), any=pl.max_horizontal(pl.all()))
    chosen = names.gather(best["most"].fill_null(0)).zip_with((best["any"] > 0).fill_null(False), pl.Series([None]))
    return pl.DataFrame({"item": part["book_id"].cast(pl.String), "genre": chosen})


def _objects(files: Files, name: str, schema: Schema | None, reading: Reading) -> Iterator[tuple[int, pl.DataFrame]]:
    """Some thousand lines of a gzipped file at a time, with the number of the first."""
    with files.open(name) as file:
        for rows, lines in whole_lines(unpacked(file, name, reading.limit)):
            try:
                found = pl.read_ndjson(lines, schema=schema, infer_schema_length=None)
            except pl.exceptions.PolarsError as error:
                raise DataError(
                    f"{name} rows {rows + 1} and on: are no JSON objects of the kind expected ({line(error)}); "
                    "download the file again"
                ) from error
            yield rows, found
