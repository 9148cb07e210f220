"""A table of toy ratings in a file, and settings by which a toy is trained on it."""

from pathlib import Path

import polars as pl

from e2urec.data.prompts import TEMPLATES
from e2urec.experiments.recipe import Recipe
from e2urec.experiments.workspace import Workspace
from e2urec.testing import toy_backbone, toy_tables

# Nearly all words of prompts about the films of MovieLens.
VOCABULARY_SIZE = 800


def save_toy(folder: Path) -> Path:
    """Save a toy model whose tokenizer knows real titles, so that prompts are a third as long."""
    backbone = toy_backbone("causal")
    recipe = Recipe.build({"data": {"rows": 400}}, place="toy")
    samples = Workspace(recipe).split.train
    texts: list[str] = []
    for name in ("compact", "paper"):
        texts += map("".join, TEMPLATES[name].pieces_of(samples))
    tokenizer = backbone.tokenizer.train_new_from_iterator(texts, VOCABULARY_SIZE)
    backbone.lm.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    backbone.lm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


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
        # They cost twice the original; tests that are about them ask for them.
        "scores.pairs=0",
    ]
