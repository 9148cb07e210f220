"""Books of GoodReads: title, author and genre, out of one to three files."""

import polars as pl

from .files import Files
from .json_stream import Schema, collect

BOOKS = "goodreads_books*.json.gz"
AUTHORS = "goodreads_book_authors*.json.gz"
GENRES = "goodreads_book_genres*.json.gz"

BOOK: Schema = {
    "book_id": pl.String,
    "title": pl.String,
    "title_without_series": pl.String,
    "authors": pl.List(pl.Struct({"author_id": pl.String, "role": pl.String})),
    "popular_shelves": pl.List(pl.Struct({"count": pl.String, "name": pl.String})),
}
AUTHOR: Schema = {"author_id": pl.String, "name": pl.String}
STATES = (
    r"(^|-)(to-read|read|reads|reading|own|owned|favou?rites?|ebooks?|kindle|audio|audiobooks?"
    r"|library|wish|wishlist|want|buy|finish|finished|unfinished|abandoned|dnf|default|maybe|shelf"
    r"|series|currently)(-|$)"
    r"|^(my-)?books?$"
)
"""Shelves that say what a reader did or has, not what a book is about.

They are whole words between dashes: `want-to-read` is one, `wanderlust` is not.
"""


def read_books(files: Files) -> pl.DataFrame:
    """Read item, title, author and genre of each book.

    Names of authors are in a file of their own; without it there is no author. So are genres;
    without that file the genre is the first shelf that tells what the book is about.

    Raises:
        DataError: a file breaks off or is malformed.
    """
    items = collect(files, BOOKS, BOOK, _select_book)
    columns = ["item", "title"]
    if files.has(AUTHORS):
        authors = collect(files, AUTHORS, AUTHOR, _select_author)
        items = _with_column(items, authors, "author_id")
        columns.append("author")
    if files.has(GENRES):
        # each book has keys of its own there, so there is no schema for them
        genres = collect(files, GENRES, None, _select_genre)
        items = _with_column(items.drop("genre"), genres, "item")
    columns.append("genre")
    # files of several genres may hold the same book
    items = items.unique("item", keep="first", maintain_order=True)
    return items.select(*columns)


def _with_column(items: pl.DataFrame, table: pl.DataFrame, key: str) -> pl.DataFrame:
    """The items with what `table` says of their `key`; the order of items stays."""
    table = table.unique(key, keep="first")
    return items.join(table, on=key, how="left", maintain_order="left")


def _select_book(books: pl.DataFrame) -> pl.DataFrame:
    titles = [_unless_blank("title"), _unless_blank("title_without_series"), pl.lit("Untitled")]
    # those with a role, such as translators, come after the writer
    author = pl.col("authors").list.first().struct.field("author_id")
    shelf = pl.element().struct.field("name")
    shelves = pl.col("popular_shelves").list.eval(shelf)
    # shelves are sorted by how many readers use them
    is_state = pl.element().str.contains(STATES)
    topics = shelves.list.eval(pl.element().filter(~is_state))
    return books.select(
        item="book_id",
        title=pl.coalesce(titles),
        author_id=author,
        genre=topics.list.first(),
    )


def _unless_blank(column: str) -> pl.Expr:
    is_filled = pl.col(column).str.strip_chars() != ""
    return pl.when(is_filled).then(column)


def _select_author(authors: pl.DataFrame) -> pl.DataFrame:
    return authors.rename({"name": "author"})


def _select_genre(books: pl.DataFrame) -> pl.DataFrame:
    """The genre that most readers put a book into, out of an object of counts."""
    item = books["book_id"].cast(pl.String).alias("item")
    counts = books.select("genres").unnest("genres")
    unknown = pl.Series("genre", [None], dtype=pl.String)
    if not counts.width:
        # no book of this part has any genre
        genre = unknown.new_from_index(0, len(item))
        return pl.DataFrame([item, genre])
    genres = pl.Series("genre", counts.columns, dtype=pl.String)
    counts = counts.fill_null(0)
    index_of_largest = pl.concat_list(pl.all()).list.arg_max()
    indices = counts.select(index_of_largest).to_series()
    genre = genres.gather(indices.fill_null(0))
    # where all counts are zero the index says nothing
    largest = counts.max_horizontal()
    has_readers = (largest > 0).fill_null(False)
    genre = genre.zip_with(has_readers, unknown)
    return pl.DataFrame([item, genre])
