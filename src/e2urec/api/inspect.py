"""Look at data before anything is trained on them."""

import sys

import numpy as np

from ..core.errors import DataError, ModelError
from ..core.seeding import stream
from ..data.overview import Overview, measure_prompts, overview
from ..data.samples import Samples
from ..experiments.recipe import Recipe
from ..experiments.workspace import Workspace
from ..models.tokens import tokenise

MEASURED_PROMPTS = 1000
"""Prompts whose length is measured: enough for the 95th percentile."""
ANSWERS = ("No", "Yes")


def inspect_data(recipe: Recipe, *, examples: int = 3) -> Overview:
    """Say what the data of `recipe` hold, and what of them will hurt, before anything is trained.

    Raises:
        DataError, ConfigError: the data cannot be used, or not as the recipe says.
    """
    space = Workspace(recipe)
    train = space.split.train
    summary = overview(train.interactions, space.split)
    order = stream(recipe.seed, "look").permutation(len(train))
    samples = train.take(order[:MEASURED_PROMPTS])
    summary.examples = _example_prompts(space, samples, examples)
    # Data can be looked at where no model is at hand.
    try:
        base = space.base
    except (ModelError, DataError) as error:
        summary.warnings.append(
            f"prompts were not measured, since the model cannot be loaded: {error}"
        )
        return summary
    tokens = tokenise(
        samples, space.template, base.tokenizer, seq2seq=base.seq2seq, window=sys.maxsize
    )
    measure_prompts(summary, tokens.lengths, recipe.model.window)
    return summary


def _example_prompts(space: Workspace, samples: Samples, count: int) -> list[str]:
    examples = samples.take(np.arange(min(count, len(samples))))
    prompts = space.template.render(examples)
    lines = []
    for prompt, label in zip(prompts, examples.labels, strict=True):
        lines.append(f"{prompt} {ANSWERS[label]}")
    return lines
