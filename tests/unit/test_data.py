import hashlib
import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2urec.core.errors import ConfigError, DataError
from e2urec.data import sources
from e2urec.data.interactions import Interactions
from e2urec.data.prompts import TEMPLATES
from e2urec.data.requests import ErasureRequest, resolve
from e2urec.data.row_hashes import hashes
from e2urec.data.samples import Samples
from e2urec.data.sources.reading import Reading
from e2urec.data.splits import SizeLimits, SplitSettings, limit, split
from e2urec.testing import toy_interactions


def detect(folder: Path) -> Interactions:
    return sources.read(Reading(source=str(folder)))


def table(**columns: list[object]) -> pl.DataFrame:
    start: dict[str, list[object]] = {
        "user": [1, 1, 2],
        "item": [1, 2, 1],
        "rating": [5, 3, 4],
        "time": [10, 20, 30],
    }
    return pl.DataFrame(start | columns, strict=False)


ITEMS = pl.DataFrame({"item": [1, 2], "title": ["A", "B"]})

histories = st.lists(
    st.tuples(st.integers(0, 4), st.integers(1, 5), st.integers(0, 9)), min_size=12, max_size=80
)  # user, rating, time: few times, so that most are shared


def telling(rows: list[tuple[int, int, int]]) -> Interactions:
    """Interactions whose titles tell the row of the file they came from."""
    n = len(rows)
    users, ratings, times = zip(*rows, strict=True)
    frame = pl.DataFrame({"user": users, "item": range(n), "rating": ratings, "time": times})
    items = pl.DataFrame({"item": range(n), "title": [f"Title-{k}-end" for k in range(n)]})
    return Interactions.from_tables(frame, items, place="generated")


# --- interactions


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        (table().drop("time"), "t.csv: has no column time"),
        (table().clear(), "t.csv: holds no rows"),
        (table(rating=[5, 7, 4]), "t.csv row 2: rating 7.0 is outside 1..5"),
        (table(rating=["5", "five", "4"]), "t.csv row 2: rating 'five' is no number"),
        (table(time=["1", "soon", "2"]), "t.csv row 2: time 'soon' is no number"),
        (table(time=[1, -5, 2]), "t.csv row 2: time -5 is negative"),
        (table(item=[1, 9, 1]), "t.csv row 2: item 9 has no title"),
        (table(user=[1, None, 2]), "t.csv row 2: user None is empty"),
    ],
)
def test_unusable_row_is_named_with_its_place_and_a_remedy(ratings, message):
    with pytest.raises(DataError) as error:
        Interactions.from_tables(ratings, ITEMS, place="t.csv")
    assert str(error.value).startswith(message)
    assert ";" in str(error.value) or "it has" in str(error.value)
    assert "\n" not in str(error.value)


def test_exact_duplicates_are_dropped_and_counted_and_refused_when_strict():
    twice = pl.concat([table(), table().head(1)])
    found = Interactions.from_tables(twice, ITEMS, place="t.csv")
    assert (len(found), found.duplicates) == (3, 1)
    with pytest.raises(DataError, match="row 4: repeats an earlier row"):
        Interactions.from_tables(twice, ITEMS, place="t.csv", strict=True)


@given(histories)
def test_rows_are_ordered_by_user_then_time_then_file_position(rows):
    found = telling(rows)
    position = [int(re.findall(r"\d+", found.titles[item])[0]) for item in found.item]
    keys = [(rows[k][0], rows[k][2], k) for k in position]
    assert keys == sorted(keys)


def test_fingerprint_does_not_depend_on_the_file_the_data_came_from():
    again = Interactions.from_tables(
        table().cast({"rating": pl.String, "time": pl.String}), ITEMS, place="x"
    )
    assert (
        Interactions.from_tables(table(), ITEMS, place="t.csv").fingerprint() == again.fingerprint()
    )


# --- prompts


@settings(max_examples=60)
@given(histories, st.integers(1, 6), st.sampled_from(sorted(TEMPLATES)))
def test_prompt_shows_the_users_own_last_rows_before_the_target_and_no_other(
    rows, history, template
):
    data = telling(rows)
    samples = Samples(data, np.arange(len(data)), history)
    order = [int(re.findall(r"\d+", data.titles[item])[0]) for item in data.item]
    for n, prompt in enumerate(TEMPLATES[template].render(samples)):
        shown = [int(k) for k in re.findall(r"Title-(\d+)-end", prompt)]
        user = rows[order[n]][0]
        earlier = [k for k in order[:n] if rows[k][0] == user]
        assert set(shown) == {*earlier[-history:], order[n]}
        assert prompt == prompt.strip()


@settings(max_examples=40)
@given(histories, st.sampled_from(sorted(TEMPLATES)))
def test_prompt_does_not_depend_on_the_targets_rating(rows, template):
    data = telling(rows)
    ratings = data.rating.copy()
    last = len(data) - 1
    prompt = TEMPLATES[template].render(Samples(data, np.array([last]), 5))
    ratings[last] = 6 - ratings[last]
    changed = Interactions(
        **{**{name: getattr(data, name) for name in data.__dataclass_fields__}, "rating": ratings}
    )
    assert TEMPLATES[template].render(Samples(changed, np.array([last]), 5)) == prompt


def test_compact_prompt_is_what_it_says():
    frame = pl.DataFrame(
        {"user": [1] * 4, "item": [1, 2, 3, 4], "rating": [5, 2, 4, 1], "time": [1, 2, 3, 4]}
    )
    items = pl.DataFrame({"item": [1, 2, 3, 4], "title": ["A", "B\n(1990)", "C", "D"]})
    data = Interactions.from_tables(frame, items, place="t")
    (prompt,) = TEMPLATES["compact"].render(Samples(data, np.array([3]), 10))
    assert prompt == "Liked: A; C. Disliked: B (1990). Will the user like D?"


# --- splits


@settings(max_examples=60)
@given(histories, st.integers(0, 9))
def test_split_is_chronological_and_held_out_users_train_nobody(rows, seed):
    data = telling(rows)
    try:
        parts = split(
            data, SplitSettings(history=3, min_history=1, unseen=0.25, calibration=0.25), seed=seed
        )
    except DataError:
        return
    times = [data.time[getattr(parts, name).rows] for name in ("train", "valid", "test")]
    for earlier, later in zip(times, times[1:], strict=False):
        assert not len(earlier) or not len(later) or earlier.max() <= later.min()
    unseen, calibration = set(parts.unseen.users), set(parts.calibration.users)
    assert not unseen & calibration
    assert not (unseen | calibration) & (set(parts.train.users) | set(parts.valid.users))
    everything = [
        getattr(parts, name).rows for name in ("train", "valid", "test", "calibration", "unseen")
    ]
    assert len(np.unique(np.concatenate(everything))) == sum(map(len, everything))


def test_bad_fractions_are_refused():
    with pytest.raises(ConfigError, match="sum to 1"):
        split(toy_interactions(), SplitSettings(fractions=(0.6, 0.2, 0.3), calibration=0), seed=0)


def test_limit_keeps_users_whole_and_the_first_rows_of_each():
    parts = split(toy_interactions(users=20), SplitSettings(history=3, calibration=0), seed=0)
    train = parts.train
    smaller = limit(parts, SizeLimits(rows=40), seed=1).train
    assert 40 <= len(smaller) < 55
    for user in np.unique(smaller.users):
        assert (smaller.users == user).sum() == (train.users == user).sum()
    capped = limit(parts, SizeLimits(per_user=3), seed=1).train
    assert np.unique(capped.users, return_counts=True)[1].max() == 3
    assert capped.rows[0] == train.rows[0]


# --- requests


@settings(max_examples=60)
@given(st.floats(0.05, 0.8), st.integers(0, 99))
def test_every_training_row_is_either_forgotten_or_retained(ratio, seed):
    parts = split(toy_interactions(), SplitSettings(history=3, calibration=0), seed=1)
    request = ErasureRequest.draw(parts.train, ratio, seed)
    rows = resolve(request, parts)
    retain_rows = parts.train.rows[~np.isin(parts.train.rows, rows.forget.rows)]
    assert len(rows.forget) + len(retain_rows) == len(parts.train)
    assert np.flatnonzero(~rows.erased)[rows.retain.rows].tolist() == retain_rows.tolist()
    users = set(rows.forget.users)
    assert len(users) == len(request.users)
    assert not users & (set(rows.retain.users) | set(rows.valid.users) | set(rows.test.users))
    assert set(rows.later.users) <= users


def test_request_file_may_be_a_list_or_a_table(tmp_path):
    for name, text in (
        ("a.txt", "# asked on Monday\nu3\n\nu1\nu3\n"),
        ("b.csv", "user,when\nu1,x\nu3,y\n"),
        ("c.jsonl", '{"user": "u1"}\n{"user": "u3"}\n'),
    ):
        (tmp_path / name).write_text(text)
        assert ErasureRequest.from_file(tmp_path / name).users == ("u1", "u3")


@pytest.mark.parametrize(
    ("text", "message"), [("", "names nobody"), ("# nothing\n", "names nobody")]
)
def test_request_that_names_nobody_is_refused(tmp_path, text, message):
    (tmp_path / "r.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        ErasureRequest.from_file(tmp_path / "r.txt")


def test_unknown_users_are_counted_but_never_listed_and_can_be_skipped():
    parts = split(toy_interactions(), SplitSettings(history=3, unseen=0, calibration=0), seed=1)
    request = ErasureRequest(("u1", "secret-person", "u2"))
    with pytest.raises(DataError, match="1 of 3 users are not in the recommender's data") as error:
        resolve(request, parts)
    assert "secret-person" not in str(error.value)
    assert len(np.unique(resolve(request, parts, skip_unknown=True).forget.users)) == 2


def test_request_for_nobody_known_or_for_everybody_is_refused():
    parts = split(toy_interactions(), SplitSettings(history=3, calibration=0), seed=1)
    everybody = tuple(
        str(parts.train.interactions.user_ids[int(code)]) for code in np.unique(parts.train.users)
    )
    with pytest.raises(DataError, match="names every training row"):
        resolve(ErasureRequest(everybody), parts)
    with pytest.raises(DataError, match="nothing to forget"):
        resolve(ErasureRequest(("nobody",)), parts, skip_unknown=True)


# --- MovieLens


def raw_movielens(folder: Path) -> Path:
    (folder / "u.data").write_text("1\t1\t5\t10\n1\t2\t3\t20\n2\t1\t4\t30\n")
    (folder / "u.item").write_bytes(
        "1|Café (1990)|01-Jan-1990||x|0\n2|B (1991)|||y|0\n".encode("latin-1")
    )
    (folder / "u.user").write_text("1|24|M|technician|85711\n2|53|F|other|94043\n")
    return folder


def test_official_movielens_folder_reads_with_titles_and_profiles(tmp_path):
    data = detect(raw_movielens(tmp_path))
    assert [data.titles[item] for item in data.item] == ["Café (1990)", "B (1991)", "Café (1990)"]
    assert data.profiles is not None
    assert data.profiles.row(1, named=True) == {"age": "53", "gender": "F", "occupation": "other"}
    assert data.liked.tolist() == [1, 0, 1]


def test_official_and_packaged_forms_read_to_the_same_interactions(tmp_path):
    data = detect(raw_movielens(tmp_path))
    packaged = tmp_path / "packaged"
    packaged.mkdir()
    pl.DataFrame(
        {
            "user_id": [1, 1, 2],
            "movie_id": [1, 2, 1],
            "rating": [5, 3, 4],
            "timestamp": [10, 20, 30],
        }
    ).write_parquet(packaged / "MovieLens100k_data.parquet.brotli")
    pl.DataFrame({"movie_id": [1, 2], "movie_title": ["Café (1990)", "B (1991)"]}).write_parquet(
        packaged / "MovieLens100k_items.parquet.brotli"
    )
    pl.DataFrame(
        {
            "user_id": [1, 2],
            "age": [24, 53],
            "gender": ["M", "F"],
            "occupation": ["technician", "other"],
        }
    ).write_parquet(packaged / "MovieLens100k_users.parquet.brotli")
    assert detect(packaged).fingerprint() == data.fingerprint()


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("u.data", "1,1,5,10\n", "has 1 columns, not 4; the separator"),
        ("u.data", "1\t1\tfive\t10\n", "u.data row 1: rating 'five' is no number"),
        ("u.data", "", "u.data: holds no rows"),
        ("u.data", "x\t1\t5\t10\n", "u.data row 1: its user is no number"),
    ],
)
def test_damaged_movielens_file_is_told_in_one_line(tmp_path, file, text, message):
    (raw_movielens(tmp_path) / file).write_text(text)
    with pytest.raises(DataError) as error:
        detect(tmp_path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file_is_named_with_what_belongs_there(tmp_path):
    (raw_movielens(tmp_path) / "u.item").unlink()
    with pytest.raises(DataError, match=r"u\.item missing"):
        detect(tmp_path)
    with pytest.raises(DataError, match="holds no data set that is known"):
        detect(tmp_path.parent)


def test_hash_of_a_row_is_the_keyed_hash_of_its_text():
    data = toy_interactions()
    key = bytes(range(32))
    digests = list(hashes(data, np.arange(len(data)), key, 8))
    assert len(digests) == len(data)
    for row, digest in enumerate(digests):
        names = [data.user_ids[int(data.user[row])], data.item_ids[int(data.item[row])]]
        user, item = (json.dumps(str(name)) for name in names)
        text = f"{user},{item},{data.time[row]},{data.rating[row]:.9g}"
        assert digest == hashlib.blake2b(text.encode(), key=key, digest_size=8).digest()
