"""The application, and the options that several commands share."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..core.process import first_process

# Typer's own tracebacks show local variables, and those may hold ids.
app = typer.Typer(name="e2urec", add_completion=False, pretty_exceptions_enable=False)

SOURCE = (
    "Packaged data set; folder or zip of raw files; table; or database, such as sqlite:///shop.db."
)
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="A setting of the recipe, such as data.rows=3000."
    ),
]
MethodName = Annotated[str, typer.Option(help="How to forget.")]
MethodSettings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting of the method, such as alpha=2."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Request = Annotated[
    Path | None,
    typer.Option(
        "--request",
        help="File of users, one id a line, or a table with columns user, item or both.",
    ),
]
Ratio = Annotated[
    float | None,
    typer.Option(help="Without a request: share of the training users, or of --unit."),
]
UnitOption = Annotated[
    Literal["users", "interactions", "items"] | None,
    typer.Option("--unit", help="What that share is of."),
]
SkipUnknown = Annotated[
    bool, typer.Option("--skip-unknown", help="Go on when some are not in the recommender's data.")
]
Key = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        help="File of the controller's key, under which rows and requests are recorded.",
    ),
]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="TOML file with settings.")]
Out = Annotated[Path, typer.Option("--out", help="Run folder to make; it must not exist.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
CheckpointEvery = Annotated[
    float | None,
    typer.Option(
        metavar="MINUTES",
        help="Write down so often how far it is, so that it can go on; 0: never.",
    ),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Go on with what the same command left in OUT.partial."),
]


def say_aside(text: str) -> None:
    """Say what is no result, beside what another program may read; of several processes once."""
    if first_process():
        print(text, file=sys.stderr, flush=True)


def recipe_from(
    path: Path | None,
    settings: list[str] | None,
    options: dict[str, Any],
    defaults: dict[str, Any] | None = None,
) -> Any:
    """The recipe in `path` or of `defaults`, with options of the command and `--set` on top.

    Raises:
        ConfigError: as `Recipe.load` and `Recipe.updated` do.
    """
    # Imported here: a command that needs no recipe does not wait for its libraries.
    from ..experiments.recipe import Recipe

    if path is None:
        recipe = Recipe.build(defaults or {}, place="default")
    else:
        recipe = Recipe.load(path)
    changes = []
    for key, value in options.items():
        if value is not None:
            changes.append(f"{key}={json.dumps(value)}")
    # --set comes last, so that it wins over a command's own options.
    changes += settings or []
    return recipe.updated(changes)
