"""Data without times: a random order of each user's rows that depends on no other row."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from e2urec.core.errors import DataError
from e2urec.data import sources
from e2urec.data.interactions import Interactions
from e2urec.data.prompts import TEMPLATES
from e2urec.data.random_order import in_random_order
from e2urec.data.row_hashes import hashes
from e2urec.data.sources.reading import Reading
from e2urec.data.splits import Split, SplitSettings, split
from e2urec.experiments.recipe import Recipe
from e2urec.experiments.workspace import Workspace
from e2urec.testing import toy_interactions, toy_tables

PARTS = ("train", "valid", "test")


def untimed_table() -> pl.DataFrame:
    ratings, items = toy_tables(users=10)
    return ratings.drop("time").join(items, on="item").unique(maintain_order=True)


def read(path, *settings: str) -> Interactions:
    recipe = Recipe().updated([f"data.source={path}", *settings])
    return Workspace(recipe).data


def row_names(data: Interactions) -> list[bytes]:
    return list(hashes(data, np.arange(len(data)), b"", 16))


def test_table_without_times_is_refused_in_one_line_until_it_is_given_an_order(tmp_path):
    path = tmp_path / "t.csv"
    table = untimed_table()
    table.write_csv(path)
    with pytest.raises(DataError) as refusal:
        read(path)
    message = str(refusal.value)
    assert "has no column 'time'" in message
    assert "data.order = 'random'" in message
    assert "\n" not in message
    data = read(path, "data.order=random")
    assert len(data) == table.height
    assert not data.timed


def test_times_of_a_table_are_ignored_in_random_order(tmp_path):
    table = untimed_table()
    table.write_csv(tmp_path / "untimed.csv")
    # A column that could not be read as a time at all.
    table.with_columns(time=pl.lit("never")).write_csv(tmp_path / "timed.csv")
    untimed = read(tmp_path / "untimed.csv", "data.order=random")
    timed = read(tmp_path / "timed.csv", "data.order=random")
    assert timed.fingerprint() == untimed.fingerprint()


def test_random_order_depends_on_the_seed_and_not_on_the_order_of_the_file(tmp_path):
    table = untimed_table()
    table.write_csv(tmp_path / "t.csv")
    table.reverse().write_csv(tmp_path / "reversed.csv")
    data = read(tmp_path / "t.csv", "data.order=random")
    reversed_data = read(tmp_path / "reversed.csv", "data.order=random")
    other_seed = read(tmp_path / "t.csv", "data.order=random", "seed=1")
    assert row_names(reversed_data) == row_names(data)
    assert row_names(other_seed) != row_names(data)
    assert sorted(other_seed.item) == sorted(data.item)


def test_rows_keep_their_order_when_others_are_erased_at_their_source():
    whole = toy_interactions()
    erased = np.random.default_rng(0).random(len(whole)) < 0.3
    before = in_random_order(whole, seed=0)
    after = in_random_order(whole.without(erased), seed=0)
    survivors = set(row_names(after))
    assert row_names(after) == [name for name in row_names(before) if name in survivors]
    assert len(survivors) == np.sum(~erased)


def cut(data: Interactions) -> Split:
    return split(data, SplitSettings(history=3, min_history=2), seed=0)


def test_each_user_has_rows_in_every_part_and_no_prompt_shows_a_later_place():
    data = in_random_order(toy_interactions(), seed=0)
    parts = cut(data)
    for user in np.unique(parts.train.users):
        places = []
        for name in PARTS:
            samples = getattr(parts, name)
            places.append(data.time[samples.rows[samples.users == user]])
        assert all(len(part) for part in places)
        assert places[0].max() < places[1].min()
        assert places[1].max() < places[2].min()
    for samples in vars(parts).values():
        for number, row in enumerate(samples.rows):
            history = samples.history_rows(number)
            assert (data.time[history] < data.time[row]).all()
            assert (data.user[history] == data.user[row]).all()


def test_prompt_in_random_order_does_not_depend_on_the_targets_rating_or_on_later_rows():
    data = in_random_order(toy_interactions(), seed=0)
    samples = cut(data).train
    prompts = TEMPLATES["compact"].render(samples)
    target = samples.rows[0]
    is_later = np.arange(len(data)) >= target
    # Ratings from the target on, of the same user and of others, turn round.
    turned = replace(data, rating=np.where(is_later, 6 - data.rating, data.rating))
    changed = TEMPLATES["compact"].render(replace(samples, interactions=turned))
    assert changed[0] == prompts[0]
    assert changed[1:] != prompts[1:]


def test_shares_of_time_cut_all_users_alike_where_there_are_times():
    # The cut by each user's own places is for random orders alone.
    data = toy_interactions()
    parts = cut(data)
    assert data.time[parts.train.rows].max() <= data.time[parts.test.rows].min()


def test_stretch_of_time_is_refused_in_random_order(tmp_path):
    path = tmp_path / "t.csv"
    untimed_table().write_csv(path)
    reading = Reading(source=str(path), order="random", since="2020-01-01")
    with pytest.raises(DataError, match=r"data\.since and data\.until"):
        sources.read(reading)


def test_rows_with_prompts_of_their_own_are_put_into_no_other_order(tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = [f'{{"user": "u{n}", "prompt": "Q{n}?", "output": "Yes"}}\n' for n in range(4)]
    lines.append('{"user": "u9", "prompt": "Q9?", "output": "No"}\n')
    path.write_text("".join(lines))
    with pytest.raises(DataError, match="bring their own prompts"):
        read(path, "data.order=random")


@pytest.mark.parametrize(
    ("title", "character"),
    [
        ("Law &amp; Order", "Law & Order"),
        ("&quot;It&#39;s&#x2019; there&quot;", '"It\'s’ there"'),
        # Once: what is written so has been escaped twice on purpose or not, and stays readable.
        ("A &amp;amp; B", "A &amp; B"),
        ("Rock&notes, B&B &; &nothing;", "Rock&notes, B&B &; &nothing;"),
        (f"A &#{'9' * 5000};", f"A &#{'9' * 5000};"),
    ],
)
def test_entities_in_titles_and_details_become_characters_once(title, character):
    ratings, items = toy_tables()
    first = ratings["item"].min()
    is_first = pl.col("item") == first
    title_or_own = pl.when(is_first).then(pl.lit(title)).otherwise(pl.col("title"))
    items = items.with_columns(title=title_or_own, author=title_or_own)
    data = Interactions.from_tables(ratings, items, place="t")
    assert data.titles[0] == character
    assert data.details is not None
    assert data.details["author"][0] == character
    assert data.titles[1] == items["title"][1]


def test_items_with_entities_are_counted_once_each_and_those_that_nobody_rated_not():
    ratings, items = toy_tables()
    rated = ratings["item"].unique().sort()[:2].to_list()
    absent = items["item"].max() + 1
    items = pl.concat([items, pl.DataFrame({"item": [absent], "title": ["&amp;"]})])
    has_entity = pl.col("item").is_in(rated)
    escaped = pl.when(has_entity).then(pl.lit("A &lt; B &gt; C")).otherwise(pl.col("title"))
    items = items.with_columns(title=escaped)
    assert Interactions.from_tables(ratings, items, place="t").unescaped == 2
    assert toy_interactions().unescaped == 0


def test_command_data_says_that_times_are_ignored_and_how_many_entities_there_were(
    call, toy, tmp_path
):
    path = tmp_path / "t.csv"
    table = untimed_table()
    titles = pl.col("title").str.replace("Movie 1 ", "M &amp; 1 ", literal=True)
    table.with_columns(titles).write_csv(path)
    settings = ["--set", f"model.name={toy}", "--set", "data.min_history=2"]
    status, printed, _ = call("data", path, "--set", "data.order=random", *settings)
    words = " ".join(printed.split())
    assert status == 0
    assert "order: random" in words
    assert "times are ignored" in words
    assert "1 items had HTML entities" in words
    assert "1970" not in words
    status, _, error = call("data", path, *settings)
    assert status == 2
    assert "data.order = 'random'" in error
