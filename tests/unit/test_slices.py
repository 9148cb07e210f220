"""Slices of the test rows, counted by hand on a small data set."""

from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from e2urec.data.interactions import Interactions
from e2urec.data.requests import ErasureRequest, ForgetRetain, resolve
from e2urec.data.splits import SplitSettings, split
from e2urec.evaluation import slices as module
from e2urec.evaluation.slices import slices


@pytest.fixture(scope="module")
def parts() -> ForgetRetain:
    """Forty users who rate 20 to 60 of 80 items each, some items far more often than others."""
    random = np.random.default_rng(0)
    liking = random.dirichlet(np.full(80, 0.5))
    rated = [
        random.choice(80, 20 + user, replace=False, p=(liking + 1e-4) / (liking + 1e-4).sum())
        for user in range(40)
    ]
    user = np.repeat(np.arange(40), [len(each) for each in rated])
    frame = pl.DataFrame(
        {
            "user": user,
            "item": np.concatenate(rated),
            "rating": random.integers(1, 6, len(user)),
            "time": random.integers(0, 10_000, len(user)),
        }
    )
    items = pl.DataFrame({"item": range(80), "title": [f"Movie {k}" for k in range(80)]})
    people = pl.DataFrame({"user": range(40), "age": range(20, 60), "gender": ["F", "M"] * 20})
    divided = split(
        Interactions.from_tables(frame, items, people, place="generated"),
        SplitSettings(unseen=0.1, calibration=0),
        seed=1,
    )
    return resolve(ErasureRequest.draw(divided.train, 0.2, 3), divided)


def items(samples) -> list[int]:
    return samples.interactions.item[samples.rows].tolist()


def test_users_and_items_are_halved_by_what_is_retained(parts):
    found = slices(parts)
    rows = Counter(parts.retain.users.tolist())
    middle = np.median(list(rows.values()))
    assert found["active users"].tolist() == [
        rows[user] > middle for user in parts.test.users.tolist()
    ]
    assert (found["active users"] ^ found["inactive users"]).all()
    count = Counter(items(parts.retain))
    popular = {
        item for item, mask in zip(items(parts.test), found["popular items"], strict=True) if mask
    }
    rare = set(items(parts.test)) - popular
    assert min(count[item] for item in popular) >= max(count[item] for item in rare)
    assert sum(count[item] for item in popular) < 0.6 * len(parts.retain)


def test_nearest_users_share_most_with_a_forgotten_one(parts):
    def rated(samples):
        table: dict[int, set[int]] = {}
        for user, item in zip(samples.users.tolist(), items(samples), strict=True):
            table.setdefault(user, set()).add(item)
        return table

    kept, gone = rated(parts.retain), rated(parts.forget)
    overlap = {
        user: max(len(a & b) / len(a | b) for b in gone.values()) for user, a in kept.items()
    }
    mask = slices(parts)["nearest users"]
    near = set(parts.test.users[mask].tolist())
    others = set(parts.test.users[~mask].tolist()) & set(kept)
    assert min(overlap[user] for user in near) >= max(overlap[user] for user in others)


def test_nobody_is_told_to_be_near_to_a_forget_set_whose_figures_are_left_out(parts):
    few = replace(parts, forget=parts.forget.take(np.arange(len(parts.forget)) < 4))
    assert "nearest users" not in slices(few)


def test_attributes_are_sliced_by_value_and_numbers_at_their_median(parts):
    found = slices(parts)
    age = np.arange(20, 60)[parts.test.users]
    assert found["age<=39.5"].tolist() == (age <= 39.5).tolist()
    assert found["gender=F"].tolist() == (parts.test.users % 2 == 0).tolist()
    assert not set(found) & {"age=20", "gender=X"}


def test_slices_too_small_to_say_anything_are_left_out(parts, monkeypatch):
    monkeypatch.setattr(module, "MIN_ROWS", len(parts.test))
    assert slices(parts) == {}
