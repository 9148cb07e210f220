"""The command line: every kind of source from training to results; requests one after another."""

import gzip
import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from e2urec.data.requests import ErasureRequest
from e2urec.experiments.recipe import Recipe
from e2urec.experiments.workspace import Workspace
from e2urec.methods import build
from e2urec.runs.split_index import SplitIndex
from key_files import KEY, OTHER_KEY, write_key

QUICK = [
    "tuning.schedule.epochs=1",
    "tuning.schedule.learning_rate=0.003",
    "data.history=3",
    "data.calibration=0.1",
    "scores.pairs=0",
]
# A method's least steps: what they come to is looked at elsewhere.
FEW = ("--set", "min_steps=2", "--set", "augment_min_steps=2")
USERS, ROWS, ITEMS = 30, 16, 40


def table() -> pl.DataFrame:
    """Ratings of users with a taste: items of even numbers, or of odd ones."""
    random = np.random.default_rng(0)
    user = np.repeat(np.arange(1, USERS + 1), ROWS)
    item = np.concatenate([random.permutation(ITEMS)[:ROWS] + 1 for _ in range(USERS)])
    rating = np.where(
        (item + user) % 2, random.integers(4, 6, len(user)), random.integers(1, 4, len(user))
    )
    time = 1_500_000_000 + random.permutation(len(user)) * 60
    return pl.DataFrame({"user": user, "item": item, "rating": rating, "time": time})


def titled() -> pl.DataFrame:
    return pl.DataFrame(
        {"item": range(1, ITEMS + 1), "title": [f"Movie {k}" for k in range(1, ITEMS + 1)]}
    )


def movielens_1m(folder: Path) -> list[str]:
    (folder / "ratings.dat").write_text(
        "".join("::".join(map(str, row)) + "\n" for row in table().rows())
    )
    (folder / "movies.dat").write_text(
        "".join(f"{k}::{title}::Drama\n" for k, title in titled().rows())
    )
    (folder / "users.dat").write_text(
        "".join(f"{k}::F::25::{k % 21}::1000\n" for k in range(1, USERS + 1))
    )
    return [f"data.source={folder}", "data.template=paper"]


def goodreads(folder: Path) -> list[str]:
    def packed(name: str, objects: list[dict[str, object]]) -> None:
        (folder / name).write_bytes(
            gzip.compress("".join(json.dumps(each) + "\n" for each in objects).encode())
        )

    packed(
        "goodreads_interactions_x.json.gz",
        [
            {
                "user_id": f"u{user}",
                "book_id": str(item),
                "rating": rating,
                "date_updated": datetime.fromtimestamp(time, UTC).strftime(
                    "%a %b %d %H:%M:%S +0000 %Y"
                ),
            }
            for user, item, rating, time in table().rows()
        ],
    )
    packed(
        "goodreads_books_x.json.gz",
        [
            {"book_id": str(k), "title": title, "authors": [], "popular_shelves": []}
            for k, title in titled().rows()
        ],
    )
    return [f"data.source={folder}"]


def own_csv(folder: Path) -> list[str]:
    table().rename({"user": "uid"}).write_csv(folder / "r.csv", separator=";")
    titled().write_parquet(folder / "i.parquet")
    (folder / "own.j2").write_text(
        "{% for past in liked %}{{ past.title }}, {% endfor %} and then {{ item.title }}?"
    )
    return [
        f"data.source={folder}/r.csv",
        f"data.options.items={folder}/i.parquet",
        f"data.template={folder}/own.j2",
        "columns.user=uid",
        "columns.separator=;",
    ]


def database(folder: Path) -> list[str]:
    with sqlite3.connect(folder / "shop.db") as connection:
        connection.execute("create table ratings (user int, item int, rating int, time int)")
        connection.executemany("insert into ratings values (?, ?, ?, ?)", table().rows())
        connection.execute("create table items (item int, title text)")
        connection.executemany("insert into items values (?, ?)", titled().rows())
    connection.close()
    return [
        f"data.source=sqlite:///{folder}/shop.db",
        "data.options.query=SELECT user, item, rating, time FROM ratings",
        "data.options.items_query=SELECT * FROM items",
    ]


def set_(settings: list[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


@pytest.mark.parametrize(
    "source", [movielens_1m, goodreads, own_csv, database], ids=lambda each: each.__name__
)
def test_whole_pipeline_runs_from_each_source(call, toy, tmp_path, source):
    folder = tmp_path / "raw"
    folder.mkdir()
    settings = set_([*source(folder), *QUICK])

    def done(*words: object) -> dict[str, object]:
        status, out, error = call(*words, "--json")
        assert status == 0, error
        return json.loads(out)

    seen = done("data", *settings, "--set", f"model.name={toy}")
    assert (seen["rows"], seen["users"], seen["items"]) == (USERS * ROWS, USERS, ITEMS)
    assert seen["tokens"]["median"] > 10
    assert len(seen["examples"]) == 3
    done("train", "--model", toy, "--out", tmp_path / "o", *settings)
    done("unlearn", tmp_path / "o", "--out", tmp_path / "u", *FEW)
    done("unlearn", tmp_path / "o", "--out", tmp_path / "r", "--method", "retrain")
    found = done("evaluate", tmp_path / "u", "--against", tmp_path / "r")
    assert np.isfinite(found["utility"]["unlearned"]["auc"]["value"])


@pytest.mark.parametrize("tuning", [[], ["tuning.lora.rank=4"]], ids=["full", "lora"])
def test_one_request_after_another_keeps_what_was_forgotten_out(call, toy, tmp_path, tuning):
    folder = tmp_path / "raw"
    folder.mkdir()
    words = set_([*movielens_1m(folder), *QUICK, *tuning])
    assert call("train", "--model", toy, "--out", tmp_path / "o", *words, "--json")[0] == 0
    parent, counts = tmp_path / "o", []
    for number in range(1, 4):
        unit = ["users", "interactions", "users"][number - 1]
        record = json.loads((parent / "run.json").read_text())
        recipe = Recipe.build(
            record["recipe"] | {"request": {"ratio": 0.1, "seed": number, "unit": unit}}, place="x"
        )
        space = Workspace(recipe, split_index=SplitIndex.load(parent, KEY))
        request = space.request()
        pairs = [*((user, "") for user in request.users), *request.interactions]
        (tmp_path / f"{number}.csv").write_text(
            "user,item\n" + "".join(f"{u},{i}\n" for u, i in pairs)
        )
        out = tmp_path / f"u{number}"
        file = tmp_path / f"{number}.csv"
        status, text, error = call(
            "unlearn", parent, "--request", file, "--out", out, *FEW, "--json"
        )
        assert status == 0, error
        found = json.loads(text)
        counts.append(found["results"]["rows"])
        assert len(found["run"]["chain"]) == number
        parent = out
    assert counts[1]["rewritten"] > 0
    assert counts[0]["retain"] > counts[1]["retain"] > counts[2]["retain"]
    status, text, error = call(
        "unlearn", parent, "--request", tmp_path / "1.csv", "--out", tmp_path / "again"
    )
    assert status == 2
    assert "are not in the recommender's data" in error
    assert "request 3 of a chain" in call("show", parent)[1]
    status, _, error = call("evaluate", parent, "--request", tmp_path / "3.csv", "--json")
    assert status == 0, error
    if tuning:
        config = json.loads((parent / "adapter" / "adapter_config.json").read_text())
        assert config["r"] == 4 + build("e2urec").lora.rank
    request = ("--request", tmp_path / "3.csv")
    for start, out in (("u2", "own"), ("o", "other")):
        assert (
            call(
                "unlearn",
                tmp_path / start,
                *request,
                "--out",
                tmp_path / out,
                "--method",
                "retrain",
            )[0]
            == 0
        )
    assert call("evaluate", parent, *request, "--against", tmp_path / "own")[0] == 0
    for against, message in (("other", "without other rows"), ("u2", "was not retrained")):
        status, _, error = call("evaluate", parent, *request, "--against", tmp_path / against)
        assert (status, message in error) == (2, True), error
    write_key(tmp_path / "key", OTHER_KEY)
    status, _, error = call("unlearn", parent, "--forget-ratio", "0.1", "--out", tmp_path / "again")
    assert (status, "another key" in error) == (2, True)


def test_next_request_finds_its_rows_when_erased_ones_were_deleted_and_others_have_come(
    call, toy, tmp_path
):
    folder = tmp_path / "raw"
    folder.mkdir()
    words = set_([*movielens_1m(folder), *QUICK])
    assert call("train", "--model", toy, "--out", tmp_path / "o", *words)[0] == 0
    drawn = ("--forget-ratio", "0.02", "--unit", "interactions")
    forgotten, json_of = tmp_path / "u", (*FEW, "--json")
    status, text, error = call("unlearn", tmp_path / "o", *drawn, "--out", forgotten, *json_of)
    assert status == 0, error
    counts = json.loads(text)["results"]["rows"]
    assert counts["removed"] > 0
    assert counts["rewritten"] > 0
    assert counts["training"] == counts["forget"] + counts["retain"]
    rows = (folder / "ratings.dat").read_text().splitlines(keepends=True)
    users = ("--forget-ratio", "0.1")
    forgotten = tmp_path / "v"
    status, text, error = call("unlearn", tmp_path / "o", *users, "--out", forgotten, *json_of)
    assert status == 0, error
    drawn = ErasureRequest.draw(
        Workspace(Recipe.build(json.loads(text)["run"]["recipe"], place="x")).split.train, 0.1, 42
    )
    left = [row for row in rows if row.split("::")[0] not in drawn.users]
    assert len(left) < len(rows)
    status, before, error = call("unlearn", tmp_path / "v", *users, "--dry-run", "--json")
    assert status == 0, error
    (folder / "ratings.dat").write_text(
        "".join([*left, "1::1::5::1700000000\n", "31::1::5::1500000000\n"])
    )
    status, after, error = call("unlearn", tmp_path / "v", *users, "--dry-run", "--json")
    assert (status, after) == (0, before), error
    status, _, error = call("unlearn", tmp_path / "o", *users, "--dry-run")
    assert (status, "no request erased them; put them back" in error) == (2, True), error
    (tmp_path / "u" / "erased.json").unlink()
    record = json.loads((tmp_path / "u" / "run.json").read_text())
    record["files"].pop("erased.json")
    record.pop("mac")
    (tmp_path / "u" / "run.json").write_text(json.dumps(record))
    status, _, error = call("unlearn", tmp_path / "u", "--forget-ratio", "0.1", "--dry-run")
    assert (status, "nobody can say what was erased" in error) == (2, True), error
