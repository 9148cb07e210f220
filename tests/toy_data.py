"""A table of toy ratings in a file, and settings by which a toy is trained on it."""

from pathlib import Path

import polars as pl

from e2urec.testing import toy_tables


def write_ratings(folder: Path, *, once: bool = False) -> Path:
    """Write the ratings of 24 users.

    Args:
        folder: of the file.
        once: whether a user rates an item once, so that a user and an item name one row.
    """
    ratings, items = toy_tables(users=24)
    if once:
        ratings = ratings.unique(("user", "item"), keep="first", maintain_order=True)
    return write_table(folder, ratings, items)


def write_table(folder: Path, ratings: pl.DataFrame, items: pl.DataFrame) -> Path:
    """Write ratings with the titles of their items."""
    file = folder / "ratings.csv"
    ratings.join(items, on="item").write_csv(file)
    return file


def quick_settings(source: Path, model: Path) -> list[str]:
    """Settings of one epoch on a file that `write_ratings` made."""
    return [
        f"data.source={source}",
        f"model.name={model}",
        "data.history=3",
        "data.calibration=0.1",
        "tuning.schedule.epochs=1",
        "tuning.schedule.learning_rate=0.003",
        "tuning.schedule.precision=fp32",
    ]
