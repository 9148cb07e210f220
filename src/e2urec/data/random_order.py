"""A random order for rows that have no times."""

from dataclasses import replace

import numpy as np

from ..core.arrays import Ints
from ..core.errors import DataError
from ..core.seeding import derive
from .interactions import Interactions
from .row_hashes import hashes

# Bytes of a place: no two of a billion rows of one user would share theirs.
PLACE_BYTES = 8


def in_random_order(data: Interactions, *, seed: int) -> Interactions:
    """The same rows, those of each user in a random order, with the place in it for a time.

    A row's place depends on the seed and the row alone. So it stays before the same others when
    rows are erased, added, or stand in another order in the file.

    Raises:
        DataError: the rows bring their own prompts, which stand in an order of their own.
    """
    if data.prompts is not None:
        raise DataError(
            "data.order = 'random': the rows bring their own prompts, whose order is not known; "
            "leave it out"
        )
    places = _places(data, seed)
    order = np.lexsort((places, data.user))
    return replace(
        data,
        user=data.user[order],
        item=data.item[order],
        rating=data.rating[order],
        time=places[order],
        timed=False,
    )


def _places(data: Interactions, seed: int) -> Ints:
    """(n,) int64 place of each row."""
    key = derive(seed, "order of rows").to_bytes(8, "big")
    rows = np.arange(len(data))
    digests = b"".join(hashes(data, rows, key, PLACE_BYTES))
    places = np.frombuffer(digests, dtype=">u8")
    # Times are signed, and a place is never negative.
    return (places >> 1).astype(np.int64)
