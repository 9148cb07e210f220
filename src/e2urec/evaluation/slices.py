"""Collateral: the test rows by kind of user and item, so that harm to a few does not hide in the mean."""

import numpy as np
import polars as pl

from ..core.arrays import Ints, Mask
from ..data.requests import ForgetRetain
from ..data.samples import Samples

FEWEST = 50
"""Rows below which a slice says nothing."""


def slices(parts: ForgetRetain) -> dict[str, Mask]:
    """Slices of `parts.test` by name, each a mask (n,); those of fewer than 50 rows or of all rows are left out.

    - `active users`, `inactive users`: with more retained rows than the median user, or not.
    - `popular items`, `rare items`: the most rated items that make up half of the retained rows, and the others.
    - `nearest users`: the fifth whose retained items overlap most with those of a forgotten user (Jaccard index).
    - `column=value`, `column<=median`: by the users' own attributes.
    """
    test, retain = parts.test, parts.retain
    user, item = test.users, _items(test)
    known, rows = np.unique(retain.users, return_counts=True)
    active = np.isin(user, known[rows > np.median(rows)])
    popular = np.isin(item, _popular(_items(retain)))
    found = {
        "active users": active,
        "inactive users": ~active,
        "popular items": popular,
        "rare items": ~popular,
        "nearest users": np.isin(user, _nearest(retain, parts.forget)),
    }
    profiles = test.interactions.profiles
    for column in [] if profiles is None else profiles.get_columns():
        found |= {name: mask[user] for name, mask in _by_value(column).items()}
    return {name: mask for name, mask in found.items() if FEWEST <= mask.sum() < len(mask)}


def _by_value(column: pl.Series) -> dict[str, Mask]:
    """Users by attribute: a mask a value, or below and above the median of a number that takes many values."""
    numbers = column.cast(pl.Float64, strict=False)
    if numbers.null_count() == column.null_count() and column.n_unique() > 10:
        middle = float(numbers.median() or 0)  # type: ignore[arg-type]
        values = numbers.to_numpy()
        return {
            f"{column.name}<={middle:g}": values <= middle,
            f"{column.name}>{middle:g}": values > middle,
        }
    return {
        f"{column.name}={value}": (column == value).fill_null(False).to_numpy()
        for value in column.unique().drop_nulls().sort()
    }


def _items(samples: Samples) -> Ints:
    return samples.interactions.item[samples.rows]


def _popular(items: Ints) -> Ints:
    codes, rows = np.unique(items, return_counts=True)
    order = np.argsort(-rows, kind="stable")
    before = np.cumsum(rows[order]) - rows[order]
    return codes[order[before < len(items) / 2]]


def _nearest(retain: Samples, forget: Samples) -> Ints:
    """Users of D_r alone in the highest fifth of their largest |A ∩ B| / |A ∪ B| with a user of D_f."""
    ids, near = _rated(retain.take(~np.isin(retain.users, forget.users)))
    if not len(ids):
        return ids
    _, gone = _rated(forget)
    both = near.astype(np.float32) @ gone.T.astype(np.float32)
    overlap = (both / (near.sum(1)[:, None] + gone.sum(1)[None, :] - both)).max(axis=1)
    return ids[np.argsort(-overlap, kind="stable")[: -(-len(ids) // 5)]]


def _rated(samples: Samples) -> tuple[Ints, Mask]:
    """Users, and which items each has rated: (users,), (users, items)."""
    ids, user = np.unique(samples.users, return_inverse=True)
    table = np.zeros((len(ids), len(samples.interactions.titles)), dtype=bool)
    table[user, _items(samples)] = True
    return ids, table
