import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2urec.core.errors import ConfigError, DataError
from e2urec.core.seeding import stream
from e2urec.data.interactions import Interactions
from e2urec.data.prompts import TEMPLATES
from e2urec.data.requests import ErasureRequest
from e2urec.data.samples import Samples
from e2urec.data.splits import SplitSettings, split, whole_users
from e2urec.testing import toy_interactions

RATINGS = pl.DataFrame(
    {"user": [1, 1, 2], "item": [1, 2, 1], "rating": [5, 3, 4], "time": [10, 20, 30]}
)
ITEMS = pl.DataFrame({"item": [1, 2], "title": ["A", "B"]})
USERS = pl.DataFrame({"user": [1, 2], "work": ["baker", "smith"]})


def read(
    ratings: pl.DataFrame = RATINGS, items: pl.DataFrame = ITEMS, users: pl.DataFrame = USERS
) -> Interactions:
    return Interactions.from_tables(ratings, items, users, place="t.csv")


def uneven(sizes: list[int]) -> Samples:
    """Samples of users with so many rows each."""
    n = sum(sizes)
    users = np.repeat(np.arange(len(sizes)), sizes)
    frame = pl.DataFrame({"user": users, "item": [1] * n, "rating": [4] * n, "time": range(n)})
    return Samples(Interactions.from_tables(frame, ITEMS, place="t"), np.arange(n), 3)


@pytest.mark.parametrize(
    "other",
    [
        read(users=USERS.with_columns(work=pl.Series(["baker", "tailor"]))),
        read(
            ratings=RATINGS.with_columns(pl.col("user") + 1),
            users=USERS.with_columns(pl.col("user") + 1),
        ),
        read(items=ITEMS.with_columns(title=pl.Series(["A", "C"]))),
        read(ratings=RATINGS.with_columns(rating=pl.Series([5, 3, 5]))),
    ],
    ids=["profile", "user id", "title", "rating"],
)
def test_fingerprint_changes_with_whatever_a_prompt_or_a_request_depends_on(other):
    assert other.fingerprint() != read().fingerprint()
    assert read().fingerprint() == read().fingerprint()


def test_profile_of_somebody_whose_id_no_rating_can_have_is_left_out():
    strangers = pl.DataFrame({"user": ["1", "guest"], "work": ["baker", "spy"]})
    assert read(users=strangers).profiles["work"].to_list() == ["baker", None]


def test_rating_out_of_range_is_told_with_its_remedy():
    with pytest.raises(
        DataError,
        match=r"row 2: rating .* is outside 1\.\.5; correct the row, "
        r"or set columns.lowest and columns.highest",
    ):
        read(ratings=RATINGS.with_columns(rating=pl.Series([5, 7, 4])))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("fractions", (float("nan"), 0.5, 0.5)),
        ("fractions", (0.5, 0.5)),
        ("fractions", (0.0, 0.5, 0.5)),
        ("unseen", float("nan")),
        ("unseen", 0.99),
        ("history", 0),
        ("min_history", -1),
        ("last", 0),
        ("last", -3),
    ],
)
def test_setting_that_cannot_split_the_data_is_named(setting, value):
    # past pydantic's own bounds, which refuse some of these already
    unusable = SplitSettings.model_construct(**{setting: value})
    with pytest.raises(ConfigError, match=setting):
        split(toy_interactions(users=3), unusable, seed=0)


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(1, 200), st.integers(0, 9)
)
def test_limit_is_never_far_beyond_what_was_asked_unless_nobody_fits(sizes, rows, seed):
    samples = uneven(sizes)
    part = whole_users(samples, rows, stream(seed, "limit", "train"))
    users, counts = np.unique(part.users, return_counts=True)
    assert counts.tolist() == [sizes[user] for user in users]
    assert np.all(np.diff(part.rows) > 0)
    assert len(part) <= 1.05 * rows or (len(users) == 1 and min(sizes) > 1.05 * rows)
    left_out = [size for user, size in enumerate(sizes) if user not in users]
    assert len(part) >= rows or all(len(part) + size > 1.05 * rows for size in left_out)


def test_prompt_stays_on_its_lines_whatever_a_profile_holds():
    data = read(users=USERS.with_columns(work=pl.Series(["baker\n\tand  cook", ""])))
    with_profile, first_row_without = TEMPLATES["paper"].render(Samples(data, np.array([1, 2]), 5))
    assert with_profile.startswith("About the user: work baker and cook.\n")
    assert "About" not in first_row_without
    assert "liking:\nnone\nJudging" in first_row_without


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "user,when\n\nu1,x\n\nu3,y\n"),
        ("b.txt", "# asked on Monday\nu1\n\n  # and\nu3\n"),
        ("c.jsonl", '\n{"user": "u1"}\n\n{"user": "u3"}\n'),
        ("d.ndjson", '{"user": "u1"}\n{"user": "u3"}\n'),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_request_is_the_same_in_any_encoding_and_with_any_line_ends(
    tmp_path, name, text, encoding, line_end
):
    (tmp_path / name).write_text(text, encoding=encoding, newline=line_end)
    assert ErasureRequest.from_file(tmp_path / name).users == ("u1", "u3")


@pytest.mark.parametrize(
    ("name", "text"), [("a.csv", "user\n#1\nu3\n"), ("b.jsonl", '{"user": "#1"}\n{"user": "u3"}')]
)
def test_only_a_plain_list_has_comments_so_that_a_table_can_name_any_id(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert ErasureRequest.from_file(tmp_path / name).users == ("#1", "u3")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"user": "u1", "user": "u2"}', "line 1: names a key twice"),
        ("a.jsonl", '{"user": "u1", "User": "u2"}', "line 1: column 'User' must be 'user'"),
        ("a.jsonl", '{"user": null}', "line 1: names neither a user nor an item"),
        ("a.jsonl", '# x\n{"user": "u1"}', "line 1: is no JSON object"),
        ("a.csv", "# x\nuser\nu1\n", "line 1: names no column user or item"),
        ("a.csv", "user,when\n,x\n", "line 2: names neither a user nor an item"),
        ("a.txt", "u1\0\n", "holds NUL bytes"),
    ],
)
def test_request_that_says_less_or_more_than_it_seems_is_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        ErasureRequest.from_file(tmp_path / name)


@pytest.mark.parametrize("name", ["r.txt", "r.csv", "r.jsonl"])
def test_missing_or_empty_request_is_told_in_one_line_with_the_reason(tmp_path, name):
    with pytest.raises(DataError, match="No such file"):
        ErasureRequest.from_file(tmp_path / name)
    (tmp_path / name).write_text("")
    with pytest.raises(DataError, match="names nobody"):
        ErasureRequest.from_file(tmp_path / name)
