"""Rows as hashes that do not depend on the codes of their users and items.

Codes change when rows come or go. A hash tells one row of a data set from all others for good.
"""

import hashlib
import json
from collections.abc import Iterator

import numpy as np
import polars as pl

from ..core.arrays import Ints
from .interactions import Interactions

CHUNK = 1_000_000
"""Rows that are Python objects at a time: 25 million of them would take gigabytes."""


def hashes(data: Interactions, rows: Ints, key: bytes, size: int) -> Iterator[bytes]:
    """BLAKE2b under `key`, `size` bytes, of each row's user, item, time and rating.

    Exact duplicates are dropped when data are read, so no two rows have the same text.
    """
    user_names = _quoted(data.user_ids)
    item_names = _quoted(data.item_ids)
    for chunk in np.array_split(rows, len(rows) // CHUNK + 1):
        users = data.user[chunk].tolist()
        items = data.item[chunk].tolist()
        times = data.time[chunk].tolist()
        ratings = data.rating[chunk].tolist()
        for user, item, time, rating in zip(users, items, times, ratings, strict=True):
            text = f"{user_names[user]},{item_names[item]},{time},{rating:g}"
            yield hashlib.blake2b(text.encode(), key=key, digest_size=size).digest()


def _quoted(ids: pl.Series) -> list[str]:
    # In quotes, so that a comma in an id cannot make two rows read alike.
    return [json.dumps(name) for name in ids.cast(pl.String).to_list()]
