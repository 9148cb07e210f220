"""What a request takes is gone from every retained prompt, and stays away in later requests."""

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_data import histories, telling

from e2urec.core.errors import DataError, RunError
from e2urec.data.interactions import Interactions
from e2urec.data.prompts import TEMPLATES
from e2urec.data.requests import ErasureRequest, ForgetRetain, resolve
from e2urec.data.samples import Samples
from e2urec.data.splits import Split, SplitSettings, split
from e2urec.runs.erased_rows import FILE, ErasedRows
from e2urec.runs.row_digests import RowKey, row_digests
from e2urec.runs.split_index import SplitIndex
from e2urec.testing import toy_interactions, toy_tables
from key_files import KEY, OTHER_KEY

KEPT = ("retain", "valid", "test", "calibration", "unseen")


def prompts(samples: Samples) -> list[str]:
    return TEMPLATES["paper"].render(samples)


def mentions(text: str, data: Interactions, rows: np.ndarray) -> bool:
    return any(
        f"{data.titles[item]} " in text or f"{data.titles[item]}." in text
        for item in data.item[rows]
    )


def parts_of(rows: list[tuple[int, int, int]]) -> Split:
    return split(
        telling(rows),
        SplitSettings(
            history=3, min_history=1, fractions=(0.6, 0.2, 0.2), unseen=0.2, calibration=0.2
        ),
        seed=0,
    )


@settings(max_examples=80, deadline=None)
@given(
    histories,
    st.randoms(use_true_random=False),
    st.sampled_from(["interactions", "items", "users"]),
)
def test_no_retained_text_mentions_what_was_forgotten(rows, random, unit):
    try:
        parts = parts_of(rows)
        request = ErasureRequest.draw(
            parts.train, random.uniform(0.05, 0.6), random.randrange(99), unit
        )
        found = resolve(request, parts)
    except DataError:
        return  # too few rows, or all of them named
    data = parts.train.interactions
    gone = np.flatnonzero(found.erased)
    for name in KEPT:
        assert not any(mentions(text, data, gone) for text in prompts(getattr(found, name)))
    # every row has a title of its own: prompts of D_f and old ones each show one that goes
    for part in (found.forget, found.old_prompts):
        assert all(mentions(text, data, gone) for text in prompts(part))
    staying = ~found.erased[parts.train.rows]
    assert len(found.retain) == staying.sum()
    if not staying.all():
        assert found.forget.rows.tolist() == parts.train.rows[~staying].tolist()
        new_prompts = found.retain.take(found.rewritten)
        assert _targets(new_prompts).tolist() == _targets(found.old_prompts).tolist()
        unchanged = np.delete(np.arange(len(found.retain)), found.rewritten)
        old = prompts(parts.train.take(staying))
        assert prompts(found.retain.take(unchanged)) == [old[place] for place in unchanged]
    kept = [data.titles[item] for item in data.item[parts.train.rows[staying]]]
    assert [found.retain.interactions.titles[item] for item in _targets(found.retain)] == kept
    assert found.retain.labels.tolist() == parts.train.labels[staying].tolist()


@settings(max_examples=80)
@given(histories, st.randoms(use_true_random=False), st.booleans())
def test_what_a_chain_of_requests_erased_comes_back_nowhere(rows, random, deleted):
    """Any rows, also those that no training prompt shows at first; deleted at the source or not."""
    try:
        left = split(
            telling(rows),
            SplitSettings(
                history=2, min_history=3, fractions=(0.6, 0.2, 0.2), unseen=0.2, calibration=0.2
            ),
            seed=0,
        )
    except DataError:
        return
    data = left.train.interactions
    split_index, erased, removed = SplitIndex.of(left, RowKey.random()), ErasedRows.under(KEY), 0
    for _ in range(4):
        rows_to_erase = random.sample(range(len(data)), min(3, len(data)))
        pairs = tuple(
            (str(data.user_ids[int(data.user[row])]), str(data.item_ids[int(data.item[row])]))
            for row in rows_to_erase
        )
        try:
            found = resolve(ErasureRequest(interactions=pairs), left, skip_unknown=True)
        except DataError:
            continue
        now = left.train.interactions
        erased, split_index = (
            erased.with_rows(now, found.erased),
            split_index.without(now, found.erased, RowKey.random()),
        )
        removed += int(found.erased.sum())
        gone = erased.marked(data)
        assert gone.sum() == removed
        assert gone[rows_to_erase].all()
        left = split_index.split(data.without(gone) if deleted else data, 2)
        for part in (*(getattr(found, name) for name in KEPT), *vars(left).values()):
            assert not any(mentions(text, data, np.flatnonzero(gone)) for text in prompts(part))


def test_index_after_a_request_is_that_of_data_which_never_had_the_rows():
    table, titles = toy_tables()
    users = table["user"].unique().sort()[:3].to_list()
    without = table.filter(~pl.col("user").is_in(users))
    never = Interactions.from_tables(without, titles, place="t")
    data = toy_interactions()
    parts = split(data, SplitSettings(history=3), seed=1)
    erased = data.user_ids.cast(pl.String).is_in(users).to_numpy()[data.user]
    assert len(never) == len(data) - erased.sum()
    key = RowKey.random()
    index = SplitIndex.of(parts, RowKey.random()).without(data, erased, key)
    # Names and codes of users who are gone, which the data still have, leave no trace in it.
    digests = row_digests(never, key, np.arange(len(never)))
    assert index.digests.tolist() == sorted(digests.tolist())


def test_ledger_finds_the_same_rows_when_others_have_come_and_erased_ones_were_deleted(tmp_path):
    parts = split(toy_interactions(), SplitSettings(history=3, unseen=0.2, calibration=0.2), seed=1)
    SplitIndex.of(parts, RowKey.under(KEY)).save(tmp_path)
    split_index = SplitIndex.load(tmp_path, KEY)
    for name, part in vars(split_index.split(parts.train.interactions, 3)).items():
        assert part.rows.tolist() == getattr(parts, name).rows.tolist()
    found = resolve(ErasureRequest.draw(parts.train, 0.2, 3), parts)
    kept = split_index.without(parts.train.interactions, found.erased, RowKey.random())
    before = {
        name: prompts(part) for name, part in vars(kept.split(parts.train.interactions, 3)).items()
    }
    assert before["train"] == prompts(found.retain)
    table, titles = toy_tables()
    went = parts.train.interactions.user_ids.to_list()
    gone = {went[code] for code in np.unique(found.forget.users)}
    table = table.filter(~pl.col("user").is_in(list(gone)))
    new = pl.DataFrame(
        {"user": ["a-new-one"] * 9, "item": table["item"][:9], "rating": table["rating"][:9]}
    )
    new = new.with_columns(time=table["time"].max() + pl.int_range(9))
    later = Interactions.from_tables(
        pl.concat([new.select(table.columns), table]), titles, place="t"
    )
    after = {name: prompts(part) for name, part in vars(kept.split(later, 3)).items()}
    assert after == before
    with pytest.raises(
        DataError, match="rows that the recommender was tuned, chosen or tested on are not there"
    ):
        split_index.split(later, 3)
    with pytest.raises(RunError, match=r"under another key; give that one with --key-file"):
        SplitIndex.load(tmp_path, OTHER_KEY)
    (tmp_path / "rows.npz").write_bytes(b"no")
    with pytest.raises(RunError, match="missing or damaged"):
        SplitIndex.load(tmp_path, KEY)


def _targets(samples: Samples) -> np.ndarray:
    return samples.interactions.item[samples.rows]


def test_forgetting_one_interaction_takes_its_row_and_rewrites_the_prompts_that_showed_it():
    data = telling([(0, 5, k) for k in range(8)] + [(1, 5, k) for k in range(8)])
    parts = split(
        data,
        SplitSettings(
            history=2, min_history=2, fractions=(0.9, 0.05, 0.05), unseen=0, calibration=0
        ),
        seed=0,
    )
    before = len(parts.train)
    user, item = str(data.user_ids[0]), str(data.item_ids[3])
    found = resolve(ErasureRequest(interactions=((user, item),)), parts)
    counts = (len(found.rewritten), len(found.forget), len(found.retain))
    assert (int(found.erased.sum()), *counts) == (1, 2, 1, before - 1)
    rewritten = [text for text in prompts(found.retain) if "item Title-4-end." in text]
    assert "Title-2-end" in rewritten[0]
    assert "Title-1-end" in rewritten[0]  # the history reaches one row further back


def test_row_that_was_only_ever_shown_can_be_forgotten():
    data = telling([(0, 5, k) for k in range(8)] + [(1, 5, k) for k in range(8)])
    parts = split(
        data,
        SplitSettings(
            history=2, min_history=2, fractions=(0.9, 0.05, 0.05), unseen=0, calibration=0
        ),
        seed=0,
    )
    first = ErasureRequest(interactions=((str(data.user_ids[0]), str(data.item_ids[0])),))
    found = resolve(first, parts)
    assert (int(found.erased.sum()), len(found.rewritten)) == (1, 1)
    assert len(found.retain) == len(parts.train)
    # No row of its own could be forgotten: what taught the original of it is the old prompt.
    (old_prompt,) = prompts(found.forget)
    assert "Title-0-end" in old_prompt
    assert len(found.old_prompts) == 0


def test_forgetting_users_changes_nobody_elses_rows():
    parts = split(toy_interactions(), SplitSettings(history=3, unseen=0.1, calibration=0.1), seed=1)
    found = resolve(ErasureRequest.draw(parts.train, 0.2, 3), parts)
    assert (len(found.rewritten), len(found.old_prompts)) == (0, 0)
    kept = parts.train.take(~np.isin(parts.train.rows, found.forget.rows))
    assert prompts(found.retain) == prompts(kept)
    assert len(found.forget) + len(found.retain) == len(parts.train)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.csv", "user,item\nu1,3\nu2,\n,7\n", ErasureRequest(("u2",), (("u1", "3"),), ("7",))),
        ("b.csv", "item\n3\n", ErasureRequest(items=("3",))),
        ("c.jsonl", '{"user": "u1", "item": 3}\n', ErasureRequest(interactions=(("u1", "3"),))),
        ("d.txt", "u1\n", ErasureRequest(("u1",))),
        (
            "e.csv",
            "\n item , user\r\n3, u1\r\n",
            ErasureRequest(interactions=(("u1", "3"),)),
        ),
        (
            "g.csv",
            "user,item,title,rating,time,timestamp,reason,date\nu1,3,Heat,5,1,1,left,today\n",
            ErasureRequest(interactions=(("u1", "3"),)),
        ),
        (
            "h.jsonl",
            '{"user": "u1", "time": 5, "ticket": "A-1", "reason": null}\n',
            ErasureRequest(("u1",)),
        ),
        (
            "f.jsonl",
            '{"user": 1}\n' * 200
            + '{"item": 9007199254740993, "user": "b"}\n{"user": null, "item": "c"}\n',
            ErasureRequest(("1",), (("b", "9007199254740993"),), ("c",)),
        ),
    ],
)
def test_file_names_users_interactions_or_items(tmp_path, name, text, expected):
    (tmp_path / name).write_text(text)
    assert ErasureRequest.from_file(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.csv",
            "user,movie\nsecret,3\n",
            "line 1: column 'movie' might name the item; call it so",
        ),
        ("a.csv", "secret\nother\n", "line 1: names no column user or item"),
        ("a.csv", "user,user\nsecret,3\n", "line 1: names no column user or item, each once"),
        ("a.csv", "user,item\nu1,3\n\nsecret\n", "line 4: has 1 fields, the header 2"),
        (
            "a.jsonl",
            '{"user": "u1"}\n{"user": "secret", "Movie": 3}\n',
            "line 2: column 'Movie' might name the item",
        ),
        ("a.csv", "uid,item\nsecret,3\n", "line 1: column 'uid' might name the user"),
        ("a.csv", "user,mid\nsecret,3\n", "line 1: column 'mid' might name the item"),
        ("a.csv", 'user\n"secret\n', "line 2: is no CSV"),
        (
            "a.jsonl",
            '{"user": 1.5}\n',
            "line 1: holds an id that is neither text nor a whole number",
        ),
        ("a.jsonl", '["secret"]\n', "line 1: is no JSON object"),
        (
            "a.jsonl",
            '{"user": "u1"}\n{"user": "u1", "user2": "secret"}\n',
            "line 2: column 'user2' might name the user; remove it",
        ),
        (
            "a.jsonl",
            '{"user": "u1", "itme": "secret"}\n',
            "line 1: column 'itme' might name the item; call it so, or remove it",
        ),
        ("a.csv", "user,item,Items\nu1,3,secret\n", "line 1: column 'Items' might name the item"),
        ("a.csv", "item,usr\n3,secret\n", "line 1: column 'usr' might name the user"),
        ("a.csv", "", "names nobody"),
        ("a.csv", "user\n", "names nobody"),
    ],
)
def test_file_that_might_name_too_much_is_refused_and_its_ids_are_not_told(
    tmp_path, name, text, message
):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message) as error:
        ErasureRequest.from_file(tmp_path / name)
    assert "secret" not in str(error.value)


def test_unknown_interactions_and_items_are_counted_and_never_named():
    parts = split(toy_interactions(), SplitSettings(history=3, unseen=0.1, calibration=0.1), seed=1)
    for request, count in (
        (ErasureRequest(interactions=(("u1", "999"), ("u2", "998"))), "2 of 2 interactions"),
        (ErasureRequest(items=("999",)), "1 of 1 items"),
    ):
        with pytest.raises(DataError, match=count) as error:
            resolve(request, parts)
        assert "99" not in str(error.value).replace(count, "")
        with pytest.raises(DataError, match="nothing that it names"):
            resolve(request, parts, skip_unknown=True)


def test_users_keep_the_digest_of_earlier_versions_and_each_kind_has_its_own():
    assert ErasureRequest(("b", "a")).lines() == ["a", "b"]
    alike = (ErasureRequest(("a",)), ErasureRequest(items=("a",)))
    lines = {tuple(request.lines()) for request in alike}
    assert len(lines) == 2
    odd = {
        tuple(ErasureRequest(("a\tb",)).lines()),
        tuple(ErasureRequest(interactions=(("a", "b"),)).lines()),
    }
    assert len(odd | {tuple(ErasureRequest(('["interaction", "a", "b"]',)).lines())}) == 3


def test_erased_rows_are_recognised_under_their_key_alone_and_cannot_be_read(tmp_path):
    parts = split(toy_interactions(), SplitSettings(history=3, unseen=0.1, calibration=0.1), seed=1)
    found: ForgetRetain = resolve(ErasureRequest.draw(parts.train, 0.2, 3), parts)
    data = parts.train.interactions
    ErasedRows.under(b"secret").with_rows(data, found.erased).save(tmp_path)
    again = ErasedRows.load(tmp_path, b"secret")
    assert (again.marked(data) == found.erased).all()
    shuffled = toy_interactions(seed=1)  # other rows of the same users
    assert again.marked(shuffled).mean() < 0.05
    assert sorted(json.loads((tmp_path / FILE).read_text())) == ["check", "rows"]
    assert "u1" not in (tmp_path / FILE).read_text()
    with pytest.raises(RunError, match="recorded under another key"):
        ErasedRows.load(tmp_path, b"other")
    (tmp_path / FILE).write_text("{")
    with pytest.raises(RunError, match="is missing or damaged"):
        ErasedRows.load(tmp_path, b"secret")


def test_second_request_finds_no_row_of_the_first():
    parts = split(toy_interactions(), SplitSettings(history=3, unseen=0.1, calibration=0.1), seed=1)
    data = parts.train.interactions
    first = resolve(ErasureRequest.draw(parts.train, 0.2, 3, "interactions"), parts)
    left = SplitIndex.of(parts, RowKey.random()).without(data, first.erased, RowKey.random())
    left = left.split(data, 3)
    second = resolve(ErasureRequest.draw(left.train, 0.2, 4, "interactions"), left)
    assert len(second.retain.interactions) == len(data) - first.erased.sum() - second.erased.sum()
    with pytest.raises(DataError, match="not in the recommender's data"):
        resolve(ErasureRequest.draw(parts.train, 0.2, 3, "interactions"), left)
