"""Rows as hashes: what tells one row of a data set from all others, whatever codes its users and items have got."""

import hashlib
import json
from collections.abc import Iterator

import numpy as np

from ..core.arrays import Ints
from .interactions import Interactions

CHUNK = 1_000_000
"""Rows that are taken out of their arrays at a time."""


def hashes(data: Interactions, rows: Ints, key: bytes, size: int) -> Iterator[bytes]:
    """BLAKE2b under `key`, `size` bytes, of each row's user, item, time and rating as the data set tells them.

    Ids stand in quotes, so that no two rows read alike; exact duplicates are dropped before.
    """
    users, items = (
        [json.dumps(name) for name in ids.cast(str).to_list()]
        for ids in (data.user_ids, data.item_ids)
    )
    for some in np.array_split(rows, len(rows) // CHUNK + 1):
        columns = (
            column[some].tolist() for column in (data.user, data.item, data.time, data.rating)
        )
        for user, item, time, rating in zip(*columns, strict=True):
            text = f"{users[user]},{items[item]},{time},{rating:g}"
            yield hashlib.blake2b(text.encode(), key=key, digest_size=size).digest()
