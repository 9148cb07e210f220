"""The test rows by kind of user and item."""

import numpy as np
import polars as pl

from ..core.arrays import Ints, Mask
from ..data.requests import ForgetRetain
from ..data.samples import Samples
from .disclosure import is_told

MIN_ROWS = 50
"""Rows below which a slice says nothing: its interval is wider than any effect we look for."""
MANY_VALUES = 10
"""Values beyond which an attribute that is a number is cut at its median."""


def slices(parts: ForgetRetain) -> dict[str, Mask]:
    """Slices of `parts.test` by name, each a mask (n,).

    Those of fewer than 50 rows, or of all rows, are left out.

    - `active users`, `inactive users`: with more retained rows than the median user, or not.
    - `popular items`, `rare items`: the most rated items that make up half of the retained rows,
      and the others.
    - `nearest users`: the fifth whose retained items overlap most with those of a forgotten user
      (Jaccard index); left out where D_f has so few rows that its figures are.
    - `column=value`, `column<=median`: by the users' own attributes.
    """
    test = parts.test
    retain = parts.retain
    users, row_counts = np.unique(retain.users, return_counts=True)
    # Who is active, and what is popular, is told by retained rows: test rows must not decide it.
    active_users = users[row_counts > np.median(row_counts)]
    active = np.isin(test.users, active_users)
    most_rated = popular_items(_items(retain))
    popular = np.isin(_items(test), most_rated)
    masks = {
        "active users": active,
        "inactive users": ~active,
        "popular items": popular,
        "rare items": ~popular,
    }
    # Who is nearest is told by D_f, and tells of it.
    if is_told(len(parts.forget)):
        masks["nearest users"] = np.isin(test.users, nearest_users(retain, parts.forget))
    profiles = test.interactions.profiles
    if profiles is not None:
        for column in profiles.get_columns():
            for name, mask in _users_by_value(column).items():
                masks[name] = mask[test.users]
    return {name: mask for name, mask in masks.items() if _says_something(mask)}


def _says_something(mask: Mask) -> bool:
    """Whether a slice has enough rows, and is not the whole."""
    rows = mask.sum()
    return bool(MIN_ROWS <= rows < len(mask))


def _users_by_value(column: pl.Series) -> dict[str, Mask]:
    """Users by an attribute: a mask a value, or below and above the median of a number."""
    numbers = column.cast(pl.Float64, strict=False)
    is_number = numbers.null_count() == column.null_count()
    if is_number and column.n_unique() > MANY_VALUES:
        median = numbers.median()
        assert isinstance(median, float)
        values = numbers.to_numpy()
        return {
            f"{column.name}<={median:g}": values <= median,
            f"{column.name}>{median:g}": values > median,
        }
    masks = {}
    for value in column.unique().drop_nulls().sort():
        # A user without the attribute is in none of its slices.
        same = (column == value).fill_null(False)
        masks[f"{column.name}={value}"] = same.to_numpy()
    return masks


def _items(samples: Samples) -> Ints:
    return samples.interactions.item[samples.rows]


def popular_items(items: Ints) -> Ints:
    """The most rated items that make up half of the rows: item codes (n,) of rows → codes."""
    codes, row_counts = np.unique(items, return_counts=True)
    order = np.argsort(-row_counts, kind="stable")
    ranked_counts = row_counts[order]
    rows_before = np.cumsum(ranked_counts) - ranked_counts
    half = len(items) / 2
    return codes[order[rows_before < half]]


def nearest_users(retain: Samples, forget: Samples) -> Ints:
    """Users of D_r in the highest fifth of their largest |A ∩ B| / |A ∪ B| with one of D_f."""
    stays = ~np.isin(retain.users, forget.users)
    users, rated = _rated_items(retain.take(stays))
    if not len(users):
        return users
    _, forgotten = _rated_items(forget)
    # As floats, since a product of booleans would not count.
    shared = rated.astype(np.float32) @ forgotten.T.astype(np.float32)
    sizes = rated.sum(1)[:, None]
    forgotten_sizes = forgotten.sum(1)[None, :]
    union = sizes + forgotten_sizes - shared
    overlap = (shared / union).max(axis=1)
    nearest = np.argsort(-overlap, kind="stable")
    fifth = -(-len(users) // 5)
    return users[nearest[:fifth]]


def _rated_items(samples: Samples) -> tuple[Ints, Mask]:
    """Users, and which items each of them has rated: (users,), (users, items)."""
    users, user = np.unique(samples.users, return_inverse=True)
    item_count = len(samples.interactions.titles)
    table = np.zeros((len(users), item_count), dtype=bool)
    table[user, _items(samples)] = True
    return users, table
