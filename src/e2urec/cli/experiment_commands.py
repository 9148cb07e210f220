"""Comparisons and the demo."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..core.errors import ConfigError
from .app import (
    AsJson,
    CheckpointEvery,
    Out,
    RecipeFile,
    Resume,
    Settings,
    app,
    recipe_from,
    say_aside,
)


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
    jobs: Annotated[int, typer.Option(metavar="N", help="Cells that are made at once.")] = 1,
    cluster: Annotated[
        Literal["local", "slurm"],
        typer.Option(help="Who makes them: processes of this machine, or jobs of its cluster."),
    ] = "local",
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="A setting of these jobs, such as timeout_min=600, partition=gpu or "
            "gpus_per_node=1.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare methods on the same footing: methods × seeds × requests, one table, one page."""
    from ..experiments.comparison import compare as comparisons
    from ..experiments.comparison import estimate as estimates
    from ..experiments.comparison.jobs import JobOptions, slurm_settings, tell_of_crowd
    from .terminal import progress, show_comparison, show_estimate

    options = JobOptions(jobs, cluster, slurm_settings(slurm or []))
    full = recipe_from(recipe, settings, {})
    if estimate:
        tell_of_crowd(options, say_aside)
        show_estimate(estimates.estimate(full, options), as_json=as_json)
        return
    if out is None:
        raise ConfigError("compare: no --out; name the folder to make, or use --estimate")
    with progress(alone=True) as listener:
        comparison = comparisons.compare(full, out, progress=listener, say=say_aside, jobs=options)
    show_comparison(comparison, out, as_json=as_json)
    if comparison.failed:
        say_aside(
            f"{len(comparison.failed)} cells failed, and the others stay in '{out}.partial': run "
            f"the same command to try these again, or remove them with: e2urec discard {out}"
        )
        raise typer.Exit(1)


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
    checkpoint_every: CheckpointEvery = None,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Train, retrain, forget and evaluate on real data; writes report.html."""
    from ..experiments import demo as demos
    from ..experiments import demo_size
    from ..runs.resumption import CheckpointOptions
    from .terminal import progress, show_demo

    options = {"seed": seed, "request.ratio": forget_ratio}
    full = recipe_from(recipe, settings, options, defaults=demo_size.FULL)
    checkpoints = CheckpointOptions(checkpoint_every, resume, say_aside)
    with progress() as listener:
        demonstration = demos.demo(
            full, out, progress=listener, say=say_aside, checkpoints=checkpoints
        )
    show_demo(demonstration, out, as_json=as_json)
