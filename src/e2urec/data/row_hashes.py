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

# Rows that are Python objects at a time: 25 million of them would take gigabytes.
CHUNK = 1_000_000


def hashes(data: Interactions, rows: Ints, key: bytes, size: int) -> Iterator[bytes]:
    """BLAKE2b under `key`, `size` bytes, of each row's user, item, time and rating.

    Exact duplicates are dropped when data are read, so no two rows have the same text: nine digits
    tell any two ratings apart.
    """
    user_names = _json_names(data.user_ids)
    item_names = _json_names(data.item_ids)
    chunk_count = len(rows) // CHUNK + 1
    for chunk in np.array_split(rows, chunk_count):
        columns = (
            data.user[chunk].tolist(),
            data.item[chunk].tolist(),
            data.time[chunk].tolist(),
            data.rating[chunk].tolist(),
        )
        for user, item, time, rating in zip(*columns, strict=True):
            user_name = user_names[user]
            item_name = item_names[item]
            text = f"{user_name},{item_name},{time},{rating:.9g}"
            digest = hashlib.blake2b(text.encode(), key=key, digest_size=size)
            yield digest.digest()


def _json_names(ids: pl.Series) -> list[str]:
    # In quotes, so that a comma in an id cannot make two rows read alike.
    names = ids.cast(pl.String).to_list()
    return [json.dumps(name) for name in names]
