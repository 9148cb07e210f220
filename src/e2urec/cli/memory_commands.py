"""Say what memory the commands take, before anything is loaded."""

from typing import Annotated

import typer

from .app import AsJson, Settings, app


@app.command()
def plan(
    target: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_MODEL", help="Run folder; packaged model, Hugging Face name or folder."
        ),
    ],
    settings: Settings = None,
    gpu: Annotated[
        float | None,
        typer.Option(
            metavar="GB", help="Memory of the GPU to plan for; default: what this computer has."
        ),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(help="Training rows; default: those of the run or the recipe, or 10000."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what memory train, unlearn and evaluate take, before anything is loaded."""
    from ..api.plan_memory import plan_memory
    from .memory_sheet import show_memory

    result = plan_memory(target, settings or [], gpu_gb=gpu, rows=rows)
    show_memory(result, as_json=as_json)
