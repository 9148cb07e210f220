"""GoodReads (UCSD Book Graph): interactions and books as gzipped JSON lines, streamed.

Rating 0 means that the book was shelved and not rated: such rows are dropped and counted.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import polars as pl

from ...core.errors import DataError
from ..interactions import Interactions
from ..tables import RatingScale
from .files import Files, line, unpacked, whole_lines
from .reading import Columns, Reading

EXPECTS = "goodreads_interactions*.json.gz and goodreads_books*.json.gz, with or without _book_authors and _book_genres"
Schema = dict[str, pl.DataType | type[pl.DataType]]

RATED: Schema = {
    "user_id": pl.String,
    "book_id": pl.String,
    "rating": pl.Int64,
    "date_updated": pl.String,
}
SHELVES = pl.List(pl.Struct({"count": pl.String, "name": pl.String}))
AUTHORS = pl.List(pl.Struct({"author_id": pl.String, "role": pl.String}))
BOOK: Schema = {
    "book_id": pl.String,
    "title": pl.String,
    "title_without_series": pl.String,
    "authors": AUTHORS,
    "popular_shelves": SHELVES,
}
NAMES: Schema = {"author_id": pl.String, "name": pl.String}
STATES = (
    r"(^|-)(to-read|read|reads|reading|own|owned|favou?rites?|ebooks?|kindle|audio|audiobooks?|library|wish"
    r"|wishlist|want|buy|finish|finished|unfinished|abandoned|dnf|default|maybe|shelf|series|currently)(-|$)"
    r"|^(my-)?books?$"
)
"""Shelves that tell what a reader did or has, not what a book is about."""
WRITTEN = "%a %b %d %H:%M:%S %z %Y"


def recognises(files: Files) -> bool:
    """Whether `files` hold interactions of the Book Graph."""
    return files.has("goodreads_interactions*.json.gz")


def read(files: Files, reading: Reading, columns: Columns) -> Interactions:
    """Read the files, each a few megabytes at a time.

    Raises:
        DataError: a file is missing, breaks off or is malformed, or its rows cannot be used.
    """
    if not files.has("goodreads_books*.json.gz"):
        raise DataError(
            f"data '{files.path}': goodreads_books*.json.gz missing; put the file there ({EXPECTS})"
        )
    items = _books(files, reading)
    if reading.genre is not None:
        items = items.filter(pl.col("genre").str.to_lowercase() == reading.genre.lower())
        if items.is_empty():
            raise DataError(
                f"data.genre '{reading.genre}': no book has it; leave it out to see which there are"
            )
    names, unrated, before = files.find("goodreads_interactions*.json.gz"), 0, 0
    kinds: Schema = {
        "position": pl.UInt32,
        "user": pl.String,
        "item": pl.String,
        "rating": pl.Int64,
        "time": pl.Int64,
    }
    parts = [pl.DataFrame(schema=kinds)]
    for name in names:
        last = 0
        for rows, part in _objects(files, name, RATED, reading):
            part = part.with_row_index("position", offset=rows)
            last = rows + part.height
            if reading.genre is not None:
                part = part.filter(pl.col("book_id").is_in(items["item"].implode()))
            part = reading.within(_timed(part, name))
            rated = part.filter(pl.col("rating").ne_missing(0))
            unrated += part.height - rated.height
            kept = rated.rename({"user_id": "user", "book_id": "item"})
            parts.append(kept.select(pl.col("position") + before, "user", "item", "rating", "time"))
        before += last
    place = names[0] if len(names) == 1 else f"{', '.join(names)}, one after another,"
    interactions = Interactions.from_tables(
        pl.concat(parts),
        items,
        place=place,
        scale=RatingScale(liked_above=columns.liked_above),
        strict=reading.strict,
    )
    return replace(interactions, unrated=unrated)


def _timed(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    """The rows with `time` in seconds; raises DataError where `date_updated` is no date."""
    time = (
        pl.col("date_updated").str.to_datetime(WRITTEN, strict=False, time_zone="UTC").dt.epoch("s")
    )
    rows = rows.with_columns(time=time)
    wrong = rows.filter(pl.col("time").is_null())
    if wrong.height:
        row = wrong.row(0, named=True)
        raise DataError(
            f"{name} row {row['position'] + 1}: date_updated {row['date_updated']!r} is no date; correct the row"
        )
    return rows


def _books(files: Files, reading: Reading) -> pl.DataFrame:
    """Item, title, author and genre: authors' names and genres from files of their own where those are there."""
    shelves = pl.col("popular_shelves").list.eval(pl.element().struct.field("name"))
    topics = shelves.list.eval(pl.element().filter(~pl.element().str.contains(STATES)))
    title = pl.coalesce(
        *(
            pl.when(pl.col(name).str.strip_chars() != "").then(name)
            for name in ("title", "title_without_series")
        ),
        pl.lit("Untitled"),
    )
    author = pl.col("authors").list.first().struct.field("author_id")
    told = [
        pl.col("book_id").alias("item"),
        title.alias("title"),
        author.alias("author_id"),
        topics.list.first().alias("genre"),
    ]
    items = _all(files, "goodreads_books*.json.gz", BOOK, reading, lambda part: part.select(told))
    columns = ["item", "title"]
    if files.has("goodreads_book_authors*.json.gz"):
        people = _all(files, "goodreads_book_authors*.json.gz", NAMES, reading, lambda part: part)
        people = people.unique("author_id", keep="first").rename({"name": "author"})
        items = items.join(people, on="author_id", how="left", maintain_order="left")
        columns.append("author")
    if files.has("goodreads_book_genres*.json.gz"):
        found = _all(files, "goodreads_book_genres*.json.gz", None, reading, _genres).unique(
            "item", keep="first"
        )
        items = items.drop("genre").join(found, on="item", how="left", maintain_order="left")
    return items.unique("item", keep="first", maintain_order=True).select(*columns, "genre")


def _all(
    files: Files,
    pattern: str,
    schema: Schema | None,
    reading: Reading,
    take: Callable[[pl.DataFrame], pl.DataFrame],
) -> pl.DataFrame:
    """What `take` makes of each part of the files, together."""
    parts = []
    for name in files.find(pattern):
        for rows, part in _objects(files, name, schema, reading):
            try:
                parts.append(take(part))
            except pl.exceptions.PolarsError as error:
                raise DataError(
                    f"{name} row {rows + 1} and on: are no objects of the kind expected ({line(error)}); "
                    "download the file again"
                ) from error
    if not parts:
        raise DataError(f"'{files.path}': {pattern} holds no rows; download it again")
    return pl.concat(parts)


def _genres(part: pl.DataFrame) -> pl.DataFrame:
    """The genre that most readers put a book into, out of an object of counts."""
    item = part["book_id"].cast(pl.String).alias("item")
    counts = part.select("genres").unnest("genres")
    if not counts.width:
        return pl.DataFrame([item, pl.Series("genre", [None] * len(item), pl.String)])
    names = pl.Series(counts.columns, dtype=pl.String)
    best = counts.fill_null(0).select(
        most=pl.concat_list(pl.all()).list.arg_max(), any=pl.max_horizontal(pl.all())
    )
    chosen = names.gather(best["most"].fill_null(0)).zip_with(
        (best["any"] > 0).fill_null(False), pl.Series([None])
    )
    return pl.DataFrame([item, chosen.alias("genre")])


def _objects(
    files: Files, name: str, schema: Schema | None, reading: Reading
) -> Iterator[tuple[int, pl.DataFrame]]:
    """Some thousand lines of a gzipped file at a time, with the number of the first."""
    with files.open(name) as file:
        for rows, lines in whole_lines(unpacked(file, name, reading.limit), name):
            try:
                yield rows, _parsed(lines, schema)
            except pl.exceptions.PolarsError as error:
                row = rows + _first_bad(lines.splitlines(), schema) + 1
                raise DataError(
                    f"{name} row {row}: is no JSON object of the kind expected; download the file again"
                ) from error


def _parsed(lines: bytes, schema: Schema | None) -> pl.DataFrame:
    return pl.read_ndjson(lines, schema=schema, infer_schema_length=None)


def _first_bad(lines: list[bytes], schema: Schema | None) -> int:
    """Which of `lines` cannot be read, by halves."""
    low, high = 0, len(lines)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            _parsed(b"\n".join(lines[low:middle]), schema)
            low = middle
        except pl.exceptions.PolarsError:
            high = middle
    return low
