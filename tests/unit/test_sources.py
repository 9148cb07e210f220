"""Raw files of every kind read to the same interactions; errors name what is wrong in one line."""

import contextlib
import gzip
import json
import sqlite3
import sys
import warnings
import zipfile
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from e2urec.core.errors import ConfigError, DataError
from e2urec.data import sources
from e2urec.data.interactions import Interactions
from e2urec.data.prompts import TEMPLATES
from e2urec.data.requests import ErasureRequest, resolve
from e2urec.data.samples import Samples
from e2urec.data.sources.files import Files
from e2urec.data.sources.reading import Columns, Reading
from e2urec.data.splits import SplitSettings, split
from e2urec.experiments.recipe import Recipe


def read(path: Path | str, columns: Columns | None = None, **settings: object) -> Interactions:
    """Read `path`; settings that not every source heeds are its options."""
    shared = {name: value for name, value in settings.items() if name in Reading.model_fields}
    options = {name: value for name, value in settings.items() if name not in shared}
    return sources.read(Reading(source=str(path), options=options, **shared), columns)


def refused(path: Path | str, columns: Columns | None = None, **settings: object) -> str:
    with pytest.raises(DataError) as error:
        read(path, columns, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- MovieLens -----------------------------------------------------------------------------------


def movielens_1m(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "ratings.dat").write_text(
        "1::1193::5::978300760\n1::661::3::978302109\n2::1193::4::978298413\n"
    )
    movies = (
        "661::James and the Giant Peach (1996)::Animation\n"
        "1193::Léon: The Professional (1994)::Crime|Drama\n"
    )
    (folder / "movies.dat").write_bytes(movies.encode("latin-1"))
    (folder / "users.dat").write_text("1::F::1::10::48067\n2::M::56::16::70072\n")
    return folder


def test_movielens_1m_reads_with_latin_titles_and_profiles_in_words(tmp_path):
    data = read(movielens_1m(tmp_path / "ml-1m"))
    assert data.titles == ["James and the Giant Peach (1996)", "Léon: The Professional (1994)"]
    assert data.profiles.row(0, named=True) == {
        "gender": "F",
        "age": "under 18",
        "occupation": "pupil",
    }
    assert data.liked.tolist() == [1, 0, 1]


def test_zip_and_folder_read_to_the_same(tmp_path):
    folder = movielens_1m(tmp_path / "ml-1m")
    with zipfile.ZipFile(tmp_path / "ml-1m.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.iterdir():
            archive.write(path, f"ml-1m/{path.name}")
    assert read(tmp_path / "ml-1m.zip").fingerprint() == read(folder).fingerprint()
    assert "unpacks to more than 2e-08 GB" in refused(tmp_path / "ml-1m.zip", unpacked_gb=2e-8)
    whole = (tmp_path / "ml-1m.zip").read_bytes()
    (tmp_path / "half.zip").write_bytes(whole[: len(whole) // 2])
    assert "is no whole zip file; download it again" in refused(tmp_path / "half.zip")


def test_movielens_10m_has_half_stars_and_no_profiles_and_its_prompts_say_nothing_of_users(
    tmp_path,
):
    (tmp_path / "ratings.dat").write_text("1::122::0.5::838985046\n1::185::4.5::838983525\n")
    (tmp_path / "movies.dat").write_text(
        "122::Boomerang (1992)::Comedy\n185::Café: Net (1995)::Action\n"
    )
    data = read(tmp_path)
    assert data.profiles is None
    assert data.rating.tolist() == [4.5, 0.5]  # by time
    (prompt,) = TEMPLATES["paper"].render(Samples(data, np.array([1]), 5))
    assert prompt.startswith("The user has rated these items")
    assert "Café: Net (1995) (4.5 stars)" in prompt


def movielens_25m(folder: Path, ratings: str) -> Path:
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + ratings)
    (folder / "movies.csv").write_text(
        'movieId,title,genres\n1,"American President, The (1995)",Drama\n2,B,Drama\n'
    )
    return folder


def test_movielens_25m_reads_quoted_titles(tmp_path):
    data = read(movielens_25m(tmp_path, "1,1,0.5,1147880044\n1,2,5.0,1147868817\n"))
    assert data.titles == ["American President, The (1995)", "B"]
    assert data.rating.tolist() == [5.0, 0.5]


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        ("1,1,five,10\n", "ratings.csv row 1: rating 'five' is no number"),
        ("1,1,5,10\nx,1,5,10\n", "ratings.csv row 2: its user is no number"),
        ("1,1,5,10\n1,9,5,10\n", "ratings.csv row 2: item 9 has no title"),
        ("1,1,5,99999999999\n", "ratings.csv row 1: time 99999999999 is in the future"),
        ("1,1,0,10\n", "ratings.csv row 1: rating 0.0 is outside 0.5..5"),
    ],
)
def test_row_of_movielens_25m_that_cannot_be_used_is_told(tmp_path, ratings, message):
    assert refused(movielens_25m(tmp_path, ratings)).startswith(message)


def test_row_numbers_are_those_of_the_file_even_when_other_times_are_left_out(tmp_path):
    folder = movielens_25m(tmp_path, "1,1,5,10\n1,2,4,2000000\n1,2,9,2000001\n")
    assert refused(folder, since="1970-01-02").startswith("ratings.csv row 3: rating 9.0")
    assert len(read(movielens_25m(tmp_path, "1,1,5,10\n1,2,4,2000000\n"), until="1970-01-02")) == 1


def test_published_rule_gives_the_published_sizes(tmp_path):
    """The last 100,000 samples by time, 60/20/20: 60,000 rows train; 20% of users hold D_f."""
    rows = 120_000
    random = np.random.default_rng(0)
    users = random.choice(1025, rows, p=random.dirichlet(np.ones(1025)))
    ratings = pl.DataFrame(
        {
            "user": users,
            "item": random.integers(0, 50, rows),
            "rating": random.integers(1, 6, rows),
            "time": range(rows),
        }
    )
    items = pl.DataFrame({"item": range(50), "title": [f"M{k}" for k in range(50)]})
    data = Interactions.from_tables(ratings, items, place="generated")
    parts = split(data, SplitSettings(min_history=5, last=100_000, unseen=0, calibration=0), seed=0)
    assert [len(parts.train), len(parts.valid), len(parts.test)] == [60_000, 20_000, 20_000]
    rows_of = resolve(ErasureRequest.draw(parts.train, 0.2, 42), parts)
    assert len(rows_of.forget) + len(rows_of.retain) == 60_000
    assert 9_000 < len(rows_of.forget) < 15_000
    ends = [data.time[part.rows].max() for part in (parts.train, parts.valid)]
    assert ends[0] <= data.time[parts.valid.rows].min()
    assert ends[1] <= data.time[parts.test.rows].min()


# --- GoodReads -----------------------------------------------------------------------------------


def packed(path: Path, objects: list[dict[str, object]]) -> None:
    path.write_bytes(gzip.compress("".join(json.dumps(each) + "\n" for each in objects).encode()))


def shelved(user: str, book: str, rating: int, when: str) -> dict[str, object]:
    return {
        "user_id": user,
        "book_id": book,
        "review_id": "x",
        "rating": rating,
        "date_updated": when,
        "read_at": "",
    }


def goodreads(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    rows = [
        shelved("a", "1", 5, "Wed Mar 01 10:00:00 -0800 2017"),
        shelved("a", "2", 0, "Wed Mar 01 10:00:01 -0800 2017"),
        shelved("a", "3", 3, "Wed Mar 01 18:00:02 +0000 2017"),
        shelved("b", "1", 4, "Thu Mar 02 10:00:00 -0800 2017"),
    ]
    packed(folder / "goodreads_interactions_poetry.json.gz", rows)
    shelves = [{"count": "9", "name": "to-read"}, {"count": "5", "name": "poetry"}]
    writer = [{"author_id": "7", "role": ""}]
    books = [
        {
            "book_id": k,
            "title": f"Book {k}",
            "authors": writer,
            "popular_shelves": shelves,
            "isbn": "",
        }
        for k in "123"
    ]
    books[2]["popular_shelves"] = [{"count": "1", "name": "drama"}]
    packed(folder / "goodreads_books_poetry.json.gz", books)
    return folder


def test_goodreads_drops_and_counts_what_was_not_rated_and_shows_genres(tmp_path):
    data = read(goodreads(tmp_path / "g"))
    assert (len(data), data.unrated) == (3, 1)
    assert data.liked.tolist() == [1, 0, 1]
    assert data.time[1] - data.time[0] == 2  # two time zones
    (prompt,) = TEMPLATES["compact"].render(Samples(data, np.array([1]), 5))
    assert (
        prompt
        == "Liked: Book 1 (genre poetry). Disliked: none. Will the user like Book 3 (genre drama)?"
    )


def test_goodreads_takes_authors_and_genres_from_their_own_files_and_keeps_one_genre_or_time(
    tmp_path,
):
    folder = goodreads(tmp_path / "g")
    packed(folder / "goodreads_book_authors.json.gz", [{"author_id": "7", "name": "Ada L."}])
    packed(
        folder / "goodreads_book_genres_initial.json.gz",
        [
            {"book_id": "1", "genres": {"poetry": 3, "fantasy, paranormal": 9}},
            {"book_id": "3", "genres": {}},
        ],
    )
    data = read(folder)
    assert data.details.row(0, named=True) == {"author": "Ada L.", "genre": "fantasy, paranormal"}
    assert data.details["genre"][1] is None
    assert len(read(folder, genre="Fantasy, Paranormal")) == 2
    assert len(read(folder, since="2017-03-02")) == 1
    assert "no book has it" in refused(folder, genre="cooking")


def test_gzip_that_breaks_off_or_grows_beyond_its_bound_is_told(tmp_path):
    folder = goodreads(tmp_path / "g")
    path = folder / "goodreads_interactions_poetry.json.gz"
    whole = path.read_bytes()
    assert "unpacks to more than" in refused(folder, unpacked_gb=1e-7)
    path.write_bytes(whole[:-20])
    assert "the gzip data break off or are damaged" in refused(folder)
    path.write_bytes(b"no gzip at all")
    assert "goodreads_interactions_poetry.json.gz row 1" in refused(folder)
    path.write_bytes(gzip.compress(b'{"user_id": "a"\n'))
    assert "row 1: is no JSON object of the kind expected" in refused(folder)
    packed(path, [shelved("a", "1", 5, "yesterday")])
    assert "row 1: date_updated 'yesterday' is no date" in refused(folder)
    rows = [shelved("a", str(k), 5, "Wed Mar 01 10:00:00 -0800 2017") for k in range(20_000)]
    packed(path, rows)
    path.write_bytes(path.read_bytes()[:-100])
    row = int(refused(folder).split(" row ")[1].split(":")[0])
    assert 10_000 < row <= 20_000
    packed(path, [*rows[:7000], "no object", *rows[7000:]])
    assert "row 7001: is no JSON object of the kind expected" in refused(folder)
    packed(
        path, [{"user_id": "a", "book_id": "1", "date_updated": "Wed Mar 01 10:00:00 -0800 2017"}]
    )
    assert "row 1: rating None is no number" in refused(folder)


def test_books_without_a_title_or_with_odd_shelves_and_empty_files(tmp_path):
    folder = goodreads(tmp_path / "g")
    shelves = [{"count": "9", "name": name} for name in ("currently-reading", "books", "jewish")]
    book = {"authors": [], "popular_shelves": shelves}
    books = [
        {"book_id": "1", "title": "", "title_without_series": "Plain", **book},
        {"book_id": "2", "title": "", **book},
        {"book_id": "3", "title": "Third", **book},
    ]
    packed(folder / "goodreads_books_poetry.json.gz", books)
    found = read(folder)
    assert found.titles == ["Plain", "Third"]
    assert found.details["genre"].to_list() == ["jewish", "jewish"]
    packed(folder / "goodreads_book_genres_initial.json.gz", [{"book_id": "1", "genres": "poetry"}])
    assert "goodreads_book_genres_initial.json.gz row 1 and on" in refused(folder)
    packed(folder / "goodreads_book_genres_initial.json.gz", [])
    assert "goodreads_book_genres*.json.gz holds no rows" in refused(folder)
    packed(folder / "goodreads_books_poetry.json.gz", [])
    assert "goodreads_books*.json.gz holds no rows" in refused(folder)


def test_two_files_of_interactions_are_counted_through(tmp_path):
    folder = goodreads(tmp_path / "g")
    again = (folder / "goodreads_interactions_poetry.json.gz").read_bytes()
    (folder / "goodreads_interactions_zen.json.gz").write_bytes(again)
    assert read(folder).duplicates == 3
    assert "one after another, row 5: repeats an earlier row" in refused(folder, strict=True)


# --- the user's own tables -----------------------------------------------------------------------

OWN = Columns(
    user="uid",
    item="iid",
    rating="stars",
    time="at",
    title="name",
    profile=("age",),
    details=("genre",),
)
TABLE = pl.DataFrame(
    {
        "uid": [10, 10, 9, 10],
        "iid": [1, 2, 1, 3],
        "stars": [5.0, 2.0, 4.0, 3.5],
        "at": [1_600_000_000, 1_600_000_060, 1_600_000_000, 1_600_000_120],
        "name": ["Tea", "Cup, large", "Tea", "Kännchen"],
        "age": [33, 33, 51, 33],
        "genre": ["drink", "ware", "drink", "ware"],
    }
)


def written(folder: Path, kind: str) -> tuple[str, dict[str, str]]:
    path = folder / f"t.{kind}"
    given: dict[str, str] = {}
    if kind in ("csv", "tsv"):
        TABLE.write_csv(path, separator="," if kind == "csv" else "\t")
    elif kind == "jsonl":
        TABLE.write_ndjson(path)
    elif kind == "parquet":
        TABLE.write_parquet(path)
    elif kind == "arrow":
        TABLE.write_ipc(path)
    elif kind == "bom.csv":
        path.write_bytes(b"\xef\xbb\xbf" + TABLE.write_csv().replace("\n", "\r\n", 2).encode())
    elif kind == "dated.csv":
        dated = TABLE.with_columns(pl.from_epoch("at").dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
        dated.write_csv(path)
    else:
        with sqlite3.connect(path) as connection:
            connection.execute(
                "create table t "
                "(uid int, iid int, stars real, at int, name text, age int, genre text)"
            )
            connection.executemany("insert into t values (?, ?, ?, ?, ?, ?, ?)", TABLE.rows())
        connection.close()
        return f"sqlite:///{path}", {"query": "SELECT * FROM t"}
    return str(path), given


@pytest.mark.parametrize("kind", ["tsv", "jsonl", "parquet", "arrow", "bom.csv", "dated.csv", "db"])
def test_every_container_of_a_table_reads_to_the_same_interactions(tmp_path, kind):
    plain, _ = written(tmp_path, "csv")
    path, given = written(tmp_path, kind)
    expected, found = read(plain, OWN), read(path, OWN, **given)
    assert found.fingerprint() == expected.fingerprint()
    assert found.titles == ["Tea", "Cup, large", "Kännchen"]
    assert found.profiles["age"].to_list() == ["33", "51"]
    assert found.details["genre"].to_list() == ["drink", "ware", "ware"]


def test_items_and_users_may_lie_in_tables_of_their_own(tmp_path):
    whole, _ = written(tmp_path, "csv")
    TABLE.select("uid", "iid", "stars", "at").write_csv(tmp_path / "r.csv")
    TABLE.select("iid", "name", "genre").unique("iid").write_parquet(tmp_path / "i.parquet")
    TABLE.select("uid", "age").unique("uid").write_ndjson(tmp_path / "u.jsonl")
    apart = read(
        tmp_path / "r.csv", OWN, items=str(tmp_path / "i.parquet"), users=str(tmp_path / "u.jsonl")
    )
    assert apart.fingerprint() == read(whole, OWN).fingerprint()


HEADER = "user,item,rating,time,title\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"user;item;rating;time;title\na;1;5;10;T\n",
            "is one column; set columns.separator = ';'",
        ),
        (b"user\titem\trating\ttime\ttitle\na\t1\t5\t10\tT\n", "set columns.separator = '\\t'"),
        (
            b"uid,item,rating,time,title\na,1,5,10,T\n",
            "has no column 'user'; known: item, rating, time, title, uid; set columns.user",
        ),
        (HEADER.encode() + b"a,1,five,10,T\n", "t.csv row 1: rating 'five' is no number"),
        (HEADER.encode() + b"a,1,5,10,T\na,1,5,-10,T\n", "t.csv row 2: time -10 is negative"),
        (
            HEADER.encode() + b"a,1,5,1600000000000,T\n",
            "t.csv row 1: time 1600000000000 is in the future",
        ),
        (HEADER.encode() + b"a,1,5,soon,T\n", "t.csv row 1: time 'soon' is no number"),
        (HEADER.encode() + b"a,1,5,10,\n", "t.csv row 1: item '1' has no title"),
        (HEADER.encode() + b" ,1,5,10,T\n", "t.csv row 1: user None is empty"),
        (HEADER.encode() + b"a,1,5,10,T\na,1,5\x00,10,T\n", "t.csv line 3: holds NUL bytes"),
        (HEADER.encode() + b"a,1,5,10,T\na,1,5,10,Caf\xe9\n", "t.csv line 3: is not UTF-8"),
        (HEADER.encode() + b"a,1,5,10,T\ra,1,5,10,T\n", "t.csv line 2: has line ends of old Macs"),
        (
            HEADER.encode() + b"a,1,5,10,T\na,1,5,10,T,more\n",
            "t.csv row 2: has 6 fields, the header 5",
        ),
        (HEADER.encode() + b"a,1,5,10\n", "t.csv row 1: has 4 fields, the header 5"),
        (b"user,item,rating,rating,time,title\na,1,5,4,10,T\n", "has two columns 'rating'"),
        (HEADER.encode() + b'a,1,5,10,"T" more\n', "t.csv line 2: is no CSV"),
        (b"x^2," + HEADER.encode() + b"1,a,1,five,10,T\n", "row 1: rating 'five' is no number"),
        (HEADER.encode(), "t.csv: holds no rows"),
        (b"", "t.csv: holds no rows"),
    ],
)
def test_table_that_cannot_be_used_is_told_with_file_row_and_remedy(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    assert message in refused(tmp_path / "t.csv")


def test_file_named_like_a_pattern_is_read_itself(tmp_path):
    for name, title in (("r[1].csv", "This"), ("r1.csv", "Other")):
        (tmp_path / name).write_text(HEADER + f"a,1,5,10,{title}\n")
    assert read(tmp_path / "r[1].csv", Columns()).titles == ["This"]


def test_large_whole_ids_stay_apart_and_floats_are_written_as_whole_numbers(tmp_path):
    rows = [(2**53 + 1, 1, 5, 10, "T"), (2**53, 1, 5, 11, "T"), (1.0, 1, 5, 12, "T")]
    keys = HEADER.strip().split(",")
    (tmp_path / "t.jsonl").write_text(
        "".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows)
    )
    assert sorted(read(tmp_path / "t.jsonl").user_ids) == ["1", str(2**53), str(2**53 + 1)]
    pl.DataFrame(
        {"user": [2.0**53 + 2], "item": [1], "rating": [5], "time": [1], "title": ["T"]}
    ).write_parquet(tmp_path / "t.parquet")
    assert "column 'user' holds numbers too large to be exact" in refused(tmp_path / "t.parquet")


def test_quotes_that_are_part_of_the_text_swallow_no_rows(tmp_path):
    text = (
        HEADER.replace(",", "\t")
        + 'a\t1\t5\t10\t"Weird Al\nb\t2\t5\t11\tOf Heroes"\nc\t3\t5\t12\t12" mix\n'
    )
    (tmp_path / "t.tsv").write_text(text)
    assert "t.tsv row 1: a field in quotes runs over several lines" in refused(tmp_path / "t.tsv")
    assert read(tmp_path / "t.tsv", Columns(quotes=False)).titles == [
        '"Weird Al',
        'Of Heroes"',
        '12" mix',
    ]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "db"])
def test_what_is_not_known_is_the_same_in_every_container(tmp_path, kind):
    given = pl.DataFrame(
        {
            "user": ["a"],
            "item": ["1"],
            "rating": [5],
            "time": ["20200102"],
            "title": [" T "],
            "genre": [" "],
        }
    )
    path, query = tmp_path / f"t.{kind}", None
    if kind == "db":
        with sqlite3.connect(path) as connection:
            connection.execute(
                "create table t "
                "(user text, item text, rating int, time text, title text, genre text)"
            )
            connection.executemany("insert into t values (?, ?, ?, ?, ?, ?)", given.rows())
        connection.close()
        path, query = f"sqlite:///{path}", "-- all of it\nSELECT * FROM t WHERE genre <> ';'"
    else:
        {"csv": given.write_csv, "jsonl": given.write_ndjson, "parquet": given.write_parquet}[kind](
            path
        )
    found = read(path, Columns(details=("genre",)), query=query)
    assert found.titles == ["T"]
    assert found.details["genre"].to_list() == [None]
    assert found.time.tolist() == [1_577_923_200]


@pytest.mark.parametrize(
    ("times", "seconds"),
    [
        (["2020-01-31 12:30:00+00", "2020-01-31T13:30+01:00"], [1_580_473_800] * 2),
        (["2020-01-31T12:30", "2020-01-31 12:30:00 UTC"], [1_580_473_800] * 2),
        (["2020-01-31t12:30:00z".upper(), "2020-01-31T12:30:00+0000"], [1_580_473_800] * 2),
        (["20200131", "20200201"], [1_580_428_800, 1_580_515_200]),
        (["20200131", "20200132"], [20_200_131, 20_200_132]),
        (["20000101.0", "7"], [7, 20_000_101]),
    ],
)
def test_times_are_iso_dates_or_numbers(tmp_path, times, seconds):
    rows = "".join(f"a,{k},5,{time},T\n" for k, time in enumerate(times))
    (tmp_path / "t.csv").write_text(HEADER + rows)
    assert read(tmp_path / "t.csv").time.tolist() == seconds


def test_rows_may_leave_out_details_and_hold_odd_names_and_long_texts(tmp_path):
    row = {"user": "a", "item": "1", "rating": 5, "time": 10, "title": "T"}
    lines = [row, row | {"item": "2", "position": "first", "title": "U"}]
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps(each) for each in lines))
    assert read(tmp_path / "t.jsonl", Columns(details=("position",))).details[
        "position"
    ].to_list() == [None, "first"]
    assert "has no column 'genre'" in refused(tmp_path / "t.jsonl", Columns(details=("genre",)))
    (tmp_path / "t.jsonl").write_text(json.dumps(row | {"title": "\ud83d"}))
    assert "row 1: a field holds half a letter" in refused(tmp_path / "t.jsonl")
    (tmp_path / "t.csv").write_text("\nreview," + HEADER + "x" * 200_000 + ",1.0,1,5,10,T\n \n")
    assert read(tmp_path / "t.csv").user_ids.to_list() == ["1"]
    pl.DataFrame([row]).write_ipc_stream(tmp_path / "t.arrow")
    assert read(tmp_path / "t.arrow").titles == ["T"]


def test_lists_are_joined_and_what_is_no_text_is_refused(tmp_path):
    rows = {"user": ["a"], "item": ["1"], "rating": [5], "time": [10], "title": ["T"]}
    pl.DataFrame(rows | {"genre": [["drama", "", None, " war "]]}).write_parquet(
        tmp_path / "t.parquet"
    )
    assert read(tmp_path / "t.parquet", Columns(details=("genre",))).details["genre"].to_list() == [
        "drama, war"
    ]
    for odd in ([b"x"], [{"a": 1}]):
        pl.DataFrame(rows | {"genre": odd}).write_parquet(tmp_path / "t.parquet")
        assert "column 'genre' holds" in refused(
            tmp_path / "t.parquet", Columns(details=("genre",))
        )
    for odd in ([True], [None]):
        pl.DataFrame(rows | {"rating": odd}).write_parquet(tmp_path / "t.parquet")
        assert "t.parquet row 1: rating" in refused(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"genre": "drama"}, "data.options.genre 'drama': is not for tables; leave it out"),
        ({"query": "SELECT 1"}, "data.options.query 'SELECT 1': is not for tables; leave it out"),
    ],
)
def test_setting_that_would_do_nothing_is_refused(tmp_path, setting, message):
    (tmp_path / "t.csv").write_text(HEADER + "a,1,5,10,T\n")
    assert message in refused(tmp_path / "t.csv", **setting)
    (tmp_path / "ml").mkdir()
    assert "movielens has its own" in refused(
        movielens_25m(tmp_path / "ml", "1,1,5,10\n"), Columns(highest=9)
    )


def test_database_beside_a_log_is_read_without_a_trace(tmp_path):
    uri, _ = written(tmp_path, "db")
    with sqlite3.connect(tmp_path / "t.db") as connection:
        connection.execute("pragma journal_mode=wal")
    connection.close()
    before = sorted(path.name for path in tmp_path.iterdir())
    assert len(read(uri, OWN, query="SELECT * FROM t")) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_server_is_told_that_it_is_only_read_and_gets_its_password_from_the_environment(
    monkeypatch,
):
    asked = {}

    def answer(query, address, **more):
        asked.update(query=query, address=address, **more)
        return TABLE

    monkeypatch.setattr(pl, "read_database_uri", answer)
    monkeypatch.setenv("E2UREC_DATABASE_PASSWORD", "p@ss")
    assert len(read("postgresql://me@host:1/shop", OWN, query="SELECT * FROM t;")) == 4
    assert asked["address"] == "postgresql://me:p%40ss@host:1/shop"
    assert asked["pre_execution_query"] == "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"
    for address, query, message in (
        ("postgresql://me:secret@host/shop", "SELECT 1", "holds a password"),
        ("mysql://me@host/shop?Password=secret", "SELECT 1", "holds a password"),
        ("postgresql://me@[host/shop", "SELECT 1", "does not answer it"),
        ("postgresql://me@host/shop", "DELETE FROM t", "is no single SELECT"),
        ("mssql://me@host/shop", "SELECT 1", "no such database; known: sqlite, postgresql, mysql"),
    ):
        told = refused(address, query=query)
        assert message in told
        assert "secret" not in told


def test_server_that_a_run_folder_names_is_asked_only_if_the_user_names_it_too(monkeypatch):
    asked = []
    monkeypatch.setattr(pl, "read_database_uri", lambda *words, **more: asked.append(words))
    monkeypatch.setenv("E2UREC_DATABASE_PASSWORD", "secret")
    address = "postgresql://me@stranger/shop"
    reading = Reading(source=address, options={"query": "SELECT 1"})
    for named in (None, "postgresql://me@stranger/shop?host=other"):
        if named:
            monkeypatch.setenv("E2UREC_DATABASE", named)
        with pytest.raises(DataError, match="is named by the run folder") as error:
            sources.read(reading, OWN, named_by_user=False)
        assert "secret" not in str(error.value)
    assert asked == []
    monkeypatch.setenv("E2UREC_DATABASE", address)
    monkeypatch.setattr(pl, "read_database_uri", lambda *words, **more: TABLE)
    assert len(sources.read(reading, OWN, named_by_user=False)) == 4


def test_zip_of_very_many_files_is_refused_before_any_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("e2urec.data.sources.files.MOST_MEMBERS", 3)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(4):
            archive.writestr(f"{number}.dat", "")
    assert "holds 4 files, and may hold 3" in refused(tmp_path / "a.zip")


def test_latin_1_reads_where_it_was_said(tmp_path):
    (tmp_path / "t.csv").write_bytes(HEADER.encode() + b"a,1,5,10,Caf\xe9\n")
    assert read(tmp_path / "t.csv", Columns(encoding="latin-1")).titles == ["Café"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.parquet", b"PAR1 no"),
        ("t.arrow", b"no arrow"),
        ("t.jsonl", b'{"user": 1}\n{"user"\n'),
        ("t.jsonl", b"[1]\n"),
    ],
)
def test_damaged_file_of_other_kinds_is_told(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert name in refused(tmp_path / name)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (None, "data.options.query: is not set"),
        ("DELETE FROM t", "DELETE statements are not valid"),
        ("SELECT * FROM t; DROP TABLE t", "one statement at a time"),
        ("WITH x AS (SELECT 1) DELETE FROM t", "the database does not answer it"),
        ("SELECT load_extension('x')", "the database does not answer it"),
        ("SELECT * FROM nowhere", "no such table: nowhere"),
        ("PRAGMA user_version = 7", "data are only read"),
        ("ATTACH 'other.db' AS other", "data are only read"),
        ("SELECT CAST(x'c3' AS TEXT) AS uid", "text that is not UTF-8"),
    ],
)
def test_query_that_would_do_more_than_read_is_refused_and_the_database_stays(
    tmp_path, query, message
):
    uri, _ = written(tmp_path, "db")
    before = (tmp_path / "t.db").read_bytes()
    assert message in refused(uri, OWN, query=query)
    assert (tmp_path / "t.db").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.db"]


def test_what_does_not_exist_or_is_not_known_is_told_with_what_is(tmp_path):
    assert "no such data set, folder or file; did you mean 'movielens-100k'?" in refused(
        "movielens-10k"
    )
    expected = refused(tmp_path)
    assert all(f"{name}: " in expected for name in sources.all_sources())
    assert "no such file" in refused(f"sqlite:///{tmp_path}/none.db", query="SELECT 1")


cells = st.one_of(
    st.sampled_from(
        [
            "a",
            "1",
            "5",
            "10",
            "",
            '"',
            "NaN",
            "-1",
            "1e400",
            "2020-01-01",
            "ä",
            "\r",
            "\0",
            ",",
            "٣",
        ]
    ),
    st.text(max_size=4),
)


@settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=2000
)
@given(
    st.sampled_from(["csv", "tsv", "jsonl", "parquet", "arrow", "zip"]),
    st.lists(st.lists(cells, min_size=3, max_size=6), max_size=5),
    st.booleans(),
    st.binary(max_size=40),
)
def test_no_file_whatever_makes_more_than_one_line_of_error(tmp_path, kind, rows, headed, tail):
    folder = tmp_path / "in"
    folder.mkdir(exist_ok=True)
    mark = "\t" if kind == "tsv" else ","
    lines = [
        *([HEADER.strip().replace(",", mark)] if headed else []),
        *(mark.join(row) for row in rows),
    ]
    (folder / f"t.{kind}").write_bytes("\n".join(lines).encode("utf-8", "surrogatepass") + tail)
    before = sorted(tmp_path.rglob("*"))
    with contextlib.suppress(DataError):
        assert len(read(folder / f"t.{kind}"))
    assert sorted(tmp_path.rglob("*")) == before
    for path in folder.iterdir():
        path.unlink()


# --- sources, found by being there ------------------------------------------------------------

NOTES = '''
from typing import ClassVar

import polars as pl
from pydantic import Field

from e2urec.data.interactions import Interactions
from e2urec.data.sources.source import Source


class Notes(Source):
    """Notes of what somebody liked."""

    name: ClassVar[str] = "notes"
    expects: ClassVar[str] = "notes.txt"

    stars: int = Field(5, description="rating of whatever is noted")

    @classmethod
    def recognises(cls, files):
        return files.has("notes.txt")

    def read(self, files, reading, columns):
        titles = files.read("notes.txt").decode().split()
        count = len(titles)
        ratings = {"user": [1] * count, "item": range(count), "rating": [self.stars] * count}
        items = pl.DataFrame({"item": range(count), "title": titles})
        ratings = pl.DataFrame(ratings | {"time": range(count)})
        return Interactions.from_tables(ratings, items, place="notes.txt")
'''
NAMELESS = """

class Nameless(Source):
    recognises = classmethod(lambda cls, files: False)
    read = Notes.read
"""


def noted(folder: Path) -> Path:
    folder.mkdir()
    (folder / "notes.txt").write_text("Tea Cup")
    return folder


def test_data_set_is_one_file_found_by_being_there(tmp_path, monkeypatch):
    folder = noted(tmp_path / "raw")
    assert "holds no data set that is known here" in refused(folder)
    (tmp_path / "notes_of_mine.py").write_text(NOTES)
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(tmp_path)])
    module = "e2urec.data.sources.notes_of_mine"
    monkeypatch.setitem(sys.modules, module, None)
    del sys.modules[module]
    assert read(folder).titles == ["Tea", "Cup"]
    assert read(folder, stars=2).rating.tolist() == [2, 2]
    assert "data.options.stars = 'many'" in refused(folder, stars="many")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Pretend that other packages have entry points; yields a function that says which."""
    (tmp_path / "package_of_notes.py").write_text(NOTES + NAMELESS)
    (tmp_path / "package_of_nothing.py").write_text("raise RuntimeError('needs a newer\\nPolars')")
    monkeypatch.syspath_prepend(tmp_path)

    def install(*values: str) -> None:
        entries = [EntryPoint(value.split(":")[0], value, sources.GROUP) for value in values]
        monkeypatch.setattr(sources, "entry_points", lambda group: entries)
        sources._installed_sources.cache_clear()

    yield install
    sources._installed_sources.cache_clear()
    for module in ("package_of_notes", "package_of_nothing"):
        sys.modules.pop(module, None)


def test_other_package_brings_a_source_through_its_entry_point(installed, tmp_path):
    installed("package_of_notes:Notes")
    assert read(noted(tmp_path / "raw")).titles == ["Tea", "Cup"]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("package_of_nothing:Source", "needs a newer"),
        ("package_that_is_gone:Source", "No module named 'package_that_is_gone'"),
        ("package_of_notes:Field", "package_of_notes:Field is no Source"),
        ("package_of_notes:Source", "package_of_notes:Source is no Source"),
        ("package_of_notes:Nameless", "package_of_notes:Nameless has no name"),
    ],
)
def test_source_that_cannot_be_loaded_is_one_warning_and_costs_nothing_else(
    installed, tmp_path, broken, reason
):
    installed(broken, "package_of_notes:Notes")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert read(noted(tmp_path / "raw")).titles == ["Tea", "Cup"]
        assert len(read(movielens_1m(tmp_path / "ml-1m"))) == 3
    (warning,) = caught
    text = str(warning.message)
    assert f"data source '{broken.split(':')[0]}' cannot be loaded ({reason}" in text
    assert "; update or remove the package" in text
    assert "\n" not in text


def test_sources_do_not_recognise_each_others_files(tmp_path):
    names = {
        "movielens": ("u.data", "ratings.dat", "ratings.csv", "MovieLens100k_data.parquet.brotli"),
        "goodreads": ("goodreads_interactions_poetry.json.gz", "goodreads_interactions.json.gz"),
    }
    for expected, files in names.items():
        for name in files:
            folder = tmp_path / f"of {name}"
            folder.mkdir()
            (folder / name).touch()
            assert sources.recognise(Files(str(folder), 1)).name == expected
    (tmp_path / "t.csv").touch()
    assert sources.recognise(Files(str(tmp_path / "t.csv"), 1)).name == "tables"
    assert sources.recognise(Files("sqlite:///shop.csv", 1)).name == "databases"


def test_folder_with_files_of_two_data_sets_is_refused_rather_than_guessed(tmp_path):
    folder = movielens_1m(goodreads(tmp_path / "both"))
    assert "could be goodreads or movielens; keep the files of one data set" in refused(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"itms": "i.csv"},
            "data.options.itms 'i.csv': is not for tables; leave it out; did you mean 'items'?",
        ),
        ({"items": 3}, "data.options.items = 3: input should be a valid string"),
        ({"items": ["a", "b"]}, "data.options.items = ['a', 'b']: input should be a valid string"),
    ],
)
def test_option_that_is_unknown_or_of_a_wrong_type_is_named(tmp_path, options, message):
    (tmp_path / "t.csv").write_text(HEADER + "a,1,5,10,T\n")
    assert refused(tmp_path / "t.csv", **options) == message
    folder = movielens_1m(tmp_path / "ml-1m")
    assert refused(folder, genre="drama").endswith("is not for movielens; leave it out")
    assert len(read(folder, genre=None)) == 3


def test_options_come_from_a_recipe_and_from_the_command_line(tmp_path):
    recipe = Recipe.build({"data": {"options": {"genre": "poetry"}}}, place="here")
    assert recipe.data.options == {"genre": "poetry"}
    changed = recipe.updated(["data.options.genre=fantasy", "data.options.items=i.csv"])
    assert changed.data.options == {"genre": "fantasy", "items": "i.csv"}
    folder = goodreads(tmp_path / "g")
    poetry = recipe.updated([f"data.source={folder}"])
    drama = poetry.updated(["data.options.genre=drama"])
    whole = poetry.updated(["data.options.genre=none"])
    counts = [len(sources.read(variant.data)) for variant in (poetry, drama, whole)]
    assert counts == [2, 1, 3]
    with pytest.raises(ConfigError, match="unknown part 'optoins'; did you mean 'options'"):
        recipe.updated(["data.optoins.genre=fantasy"])


def test_every_option_is_described_and_stands_in_the_documentation():
    recipes = Path(__file__).parents[2] / "docs" / "reference" / "recipes.md"
    page = recipes.read_text(encoding="utf-8")
    for source in sources.all_sources().values():
        for name, field in source.model_fields.items():
            assert field.description
            assert f"`{name}`" in page
