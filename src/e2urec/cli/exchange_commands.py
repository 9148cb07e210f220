"""From and to the world outside: take a recommender over, and give one back."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from .app import AsJson, Key, Out, RecipeFile, Settings, app, recipe_from


@app.command("import")
def import_model(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Folder or Hugging Face name of a LoRA adapter or a model."
        ),
    ],
    rows: Annotated[
        Path,
        typer.Option(help="JSON lines that it was tuned on: user, prompt and output, and more."),
    ],
    out: Out,
    base: Annotated[
        str | None,
        typer.Option(help="What it was tuned from; default: what the adapter says itself."),
    ] = None,
    held: Annotated[
        Path | None, typer.Option(help="The same, of rows that it was not tuned on.")
    ] = None,
    answers: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="LIKED NOT", help='Outputs that mean so; default: "Yes…" and "No…", as found.'
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            "--format", help="How fields become a prompt: alpaca, tallrec or a Jinja2 file (.j2)."
        ),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(help="What your own code says of the rows, P(liked) each, as .npy: a check."),
    ] = None,
    recipe: RecipeFile = None,
    settings: Settings = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Take over a recommender that was made elsewhere, with its own prompts."""
    from ..api.adopt import AdoptOptions, adopt
    from .terminal import show_run

    options = {
        "data.source": str(rows),
        "data.template": "verbatim",
        "data.options.held": None if held is None else str(held),
        "data.options.answers": None if answers is None else list(answers),
        "data.options.format": layout,
    }
    full = recipe_from(recipe, settings, options)
    run = adopt(full, model, out, AdoptOptions(base, scores, key, say=_say))
    show_run(run, as_json=as_json, key=key)


def _say(text: str) -> None:
    print(text, file=sys.stderr)
