"""From run folder to run folder: train, prepare, unlearn, evaluate, score, show, discard."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..core.errors import ConfigError
from .app import (
    SOURCE,
    AsJson,
    CheckpointEvery,
    Key,
    MethodName,
    MethodSettings,
    Out,
    Ratio,
    RecipeFile,
    Request,
    Resume,
    RunFolder,
    Settings,
    SkipUnknown,
    UnitOption,
    app,
    recipe_from,
    say_aside,
)

if TYPE_CHECKING:
    from ..evaluation.verdict import Verdict
    from ..unlearning.method import Method

GATE_FAILED = 3
"""Exit status of `evaluate --gate` unless the verdict is PASS."""


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
    key: Key = None,
    checkpoint_every: CheckpointEvery = None,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Tune the original recommender."""
    from ..api.train import train
    from ..runs.resumption import CheckpointOptions
    from .terminal import progress, show_run

    options = {
        "data.source": data,
        "model.name": model,
        "seed": seed,
        "data.strict": strict or None,
    }
    full = recipe_from(recipe, settings, options)
    checkpoints = CheckpointOptions(checkpoint_every, resume, say_aside)
    with progress() as listener:
        run = train(full, out, key=key, progress=listener, checkpoints=checkpoints, say=say_aside)
    show_run(run, as_json=as_json, key=key)


@app.command()
def prepare(
    run: RunFolder,
    out: Annotated[
        Path | None, typer.Option("--out", help="Run folder to make; needed unless --dry-run.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A setting of the scores, such as scores.pairs=2."
        ),
    ] = None,
    key: Key = None,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be read, and change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Copy a run, with out-of-fold scores of its rows: what models say that never saw them."""
    from ..api.prepare import plan_preparation, prepare
    from ..runs.folder import open_run
    from ..runs.keys import controller_key
    from ..runs.rehearsal import read_rehearsal
    from .terminal import progress, show_preparation, show_run

    secret = controller_key(key)
    parent = open_run(run, key=secret)
    if dry:
        plan = plan_preparation(parent, settings or [], key=key)
        show_preparation(plan, as_json=as_json)
        return
    if out is None:
        raise ConfigError("prepare: no --out; name the run folder to make, or use --dry-run")
    rehearsal = read_rehearsal(parent, secret)
    with progress() as listener:
        prepared = prepare(parent, out, settings or [], key=key, progress=listener)
    if rehearsal is not None:
        say_aside(
            "the copy carries no rehearsal, since methods may learn from its scores; rehearse it"
        )
    show_run(prepared, as_json=as_json, key=key)


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
    method: MethodName = "e2urec",
    preset: Annotated[
        str | None, typer.Option(help="Preset of the method; by default, what suits the run.")
    ] = None,
    settings: MethodSettings = None,
    skip_unknown: SkipUnknown = False,
    key: Key = None,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Say what would happen, and change nothing.")
    ] = False,
    checkpoint_every: CheckpointEvery = None,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Make a recommender forget users, single interactions or items."""
    from ..api.method_choice import choose_method
    from ..api.request import RequestOptions
    from ..api.unlearn import dry_run, unlearn
    from ..experiments.recipe import parse_settings
    from ..runs.folder import open_run
    from ..runs.keys import controller_key
    from ..runs.resumption import CheckpointOptions
    from .terminal import progress, show_dry_run, show_run

    values = parse_settings(settings or [])
    options = RequestOptions(
        request, forget_ratio, unit, request_seed, skip_unknown, key, say=say_aside
    )
    parent = open_run(run, key=controller_key(key))
    how_to_forget: Method | str = method
    if values or preset is not None:
        how_to_forget = choose_method(parent, method, values, preset, options, say=say_aside)
    if dry:
        show_dry_run(dry_run(parent, how_to_forget, options), as_json=as_json)
        return
    if out is None:
        raise ConfigError("unlearn: no --out; name the run folder to make, or use --dry-run")
    checkpoints = CheckpointOptions(checkpoint_every, resume, say_aside)
    with progress() as listener:
        unlearned = unlearn(
            parent, out, how_to_forget, options, progress=listener, checkpoints=checkpoints
        )
    show_run(unlearned, as_json=as_json, key=key)


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
            help="Shadow models for membership inference; 0 by default, 8 for --gate without "
            "--against or a rehearsal."
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
    from ..api.evaluate import EvaluationOptions, evaluate
    from ..api.request import RequestOptions
    from ..evaluation.roles import UNLEARNED
    from ..runs.folder import open_run
    from ..runs.keys import controller_key
    from .terminal import progress, show_results

    secret = controller_key(key)
    opened = open_run(run, key=secret)
    retrained = [open_run(path, key=secret) for path in against or []]
    request_options = RequestOptions(
        request, forget_ratio, unit, request_seed, skip_unknown, key, say=say_aside
    )
    options = EvaluationOptions(shadows, robustness, gate, say=say_aside)
    with progress() as listener:
        results = evaluate(opened, retrained, request_options, options, progress=listener)
    show_results(results, as_json=as_json)
    if gate:
        _exit_unless_passed(results.verdicts[UNLEARNED])


def _exit_unless_passed(verdict: "Verdict") -> None:
    # Anything but PASS: what could not be measured has not been shown either.
    if verdict.outcome != "PASS":
        raise typer.Exit(GATE_FAILED)


@app.command()
def score(
    run: RunFolder,
    examples: Annotated[Path, typer.Option(help='JSON lines, each {"prompt": "…"}.')],
) -> None:
    """Print P(like) of each example, one a line."""
    from ..api.score import score
    from ..runs.folder import open_run
    from ..runs.keys import key_at_hand

    opened = open_run(run, key=key_at_hand())
    for probability in score(opened, examples):
        print(f"{probability:.6f}")


@app.command()
def show(run: RunFolder, key: Key = None, as_json: AsJson = False) -> None:
    """Say what a run is, from what it was made, and how it scored."""
    from ..runs.folder import open_run
    from ..runs.keys import key_at_hand
    from .terminal import show_run

    opened = open_run(run, key=key_at_hand(key))
    show_run(opened, as_json=as_json, key=key)


@app.command()
def discard(
    run: Annotated[Path, typer.Argument(metavar="OUT", help="The folder a run was to be made in.")],
) -> None:
    """Remove what an interrupted run left behind (OUT.partial)."""
    from ..runs.leftovers import discard_run

    discard_run(run)
