"""Generated ratings and titles."""

import numpy as np
import polars as pl

from ..data.interactions import Interactions

# Few, so that users share items, as they do in real data.
ITEM_COUNT = 30


def toy_tables(users: int = 12, rows: int = 14, seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Generate a table of ratings and a table of titles, as a source reads them from files.

    About three rows share a second, so that the order of rows in the file matters.

    Args:
        users: how many there are.
        rows: ratings of each user.
        seed: of ratings, items, times and order.

    Returns:
        Ratings with the columns user, item, rating and time, and items with the columns item and
        title.
    """
    random = np.random.default_rng(seed)
    row_count = users * rows
    ratings = pl.DataFrame(
        {
            "user": [f"u{number}" for number in np.repeat(np.arange(users), rows)],
            "item": random.integers(0, ITEM_COUNT, row_count),
            "rating": random.integers(1, 6, row_count),
            "time": random.integers(1_000, 1_000 + row_count // 3, row_count),
        }
    )
    titles = [f"Movie {number} ({1960 + number})" for number in range(ITEM_COUNT)]
    items = pl.DataFrame({"item": range(ITEM_COUNT), "title": titles})
    return ratings.sample(row_count, shuffle=True, seed=seed), items


def toy_interactions(users: int = 12, rows: int = 14, seed: int = 0) -> Interactions:
    """Generate `toy_tables`, validated and in their total order."""
    ratings, items = toy_tables(users, rows, seed)
    return Interactions.from_tables(ratings, items, place="toy tables")
