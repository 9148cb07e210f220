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
    """BLAKE2b under `key`, `size` bytes, of each row's user, item, time, rating and own prompt.

    Exact duplicates are dropped when data are read, so no two rows have the same text: nine digits
    tell any two ratings apart.
    """
    user_names = _json_names(data.user_ids)
    item_names = _json_names(data.item_ids)
    chunk_count = len(rows) // CHUNK + 1
    for chunk in np.array_split(rows, chunk_count):
        prompts = [""] * len(chunk)
        if data.prompts is not None:
            prompts = [f",{json.dumps(prompt)}" for prompt in data.prompts.of_rows(chunk)]
        columns = (
            data.user[chunk].tolist(),
            data.item[chunk].tolist(),
            data.time[chunk].tolist(),
            data.rating[chunk].tolist(),
            prompts,
        )
        for user, item, time, rating, prompt in zip(*columns, strict=True):
            user_name = user_names[user]
            item_name = item_names[item]
            text = f"{user_name},{item_name},{time},{rating:.9g}{prompt}"
            digest = hashlib.blake2b(text.encode(), key=key, digest_size=size)
            yield digest.digest()


def _json_names(ids: pl.Series) -> list[str]:
    # In quotes, so that a comma in an id cannot make two rows read alike.
    names = ids.cast(pl.String).to_list()
    return [json.dumps(name) for name in names]
