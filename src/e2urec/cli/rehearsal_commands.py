"""Rehearse requests before a model goes live."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..core.durable import create_file
from ..core.errors import ConfigError
from .app import (
    AsJson,
    CheckpointEvery,
    Key,
    MethodName,
    MethodSettings,
    RunFolder,
    app,
    say_aside,
)

if TYPE_CHECKING:
    from ..data.requests import ErasureRequest
    from ..runs.folder import Run
    from ..unlearning.method import Method

RETRAINED = 1


@app.command()
def rehearse(
    run: RunFolder,
    unit: Annotated[
        Literal["users", "interactions", "items"],
        typer.Option(help="What a request names; users only, for now."),
    ] = "users",
    size: Annotated[int, typer.Option(min=1, help="Users of a request.")] = 1,
    times: Annotated[int, typer.Option(min=1, help="Requests, of disjoint users.")] = 20,
    seed: Annotated[
        int | None, typer.Option(help="Seed that chooses the users; default: the run's.")
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="A run retrained without all these users; repeatable."),
    ] = None,
    retrained: Annotated[
        int | None,
        typer.Option(min=1, help="Models to retrain here; 1 without --against."),
    ] = None,
    method: MethodName = "e2urec",
    preset: Annotated[
        str | None, typer.Option(help="Preset of the method; by default, what suits the run.")
    ] = None,
    settings: MethodSettings = None,
    candidate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE,…", help="Settings to choose among, on top of --set; repeat it."
        ),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(min=0, help="Test AUC that a chosen setting may lose to a retrained model."),
    ] = 0.005,
    write_request: Annotated[
        Path | None,
        typer.Option(
            help="Write all these users to a JSON-lines file (to retrain without), and stop."
        ),
    ] = None,
    key: Key = None,
    checkpoint_every: CheckpointEvery = None,
    as_json: AsJson = False,
) -> None:
    """Erase groups of training users from copies of a run, and choose settings by what is left."""
    from ..api.rehearse import RehearsalOptions, rehearsal_request
    from ..api.rehearse import rehearse as rehearse_run
    from ..runs.folder import open_run
    from ..runs.keys import controller_key
    from ..runs.resumption import CheckpointOptions
    from .progress import progress
    from .rehearsal_table import show_rehearsal

    if against and retrained is not None:
        raise ConfigError(
            "rehearse: --against and --retrained: models are either given or retrained here; leave "
            "one out"
        )
    count = RETRAINED if retrained is None else retrained
    checkpoints = CheckpointOptions(checkpoint_every, say=say_aside)
    options = RehearsalOptions(size, times, unit, seed, count, tolerance, key, checkpoints)
    secret = controller_key(key)
    parent = open_run(run, key=secret)
    if write_request is not None:
        _write_request(write_request, rehearsal_request(parent, options))
        return
    candidates = _candidates(parent, method, preset, settings or [], candidate or [""])
    references = [open_run(path, key=secret) for path in against or []]
    with progress() as listener:
        rehearsal = rehearse_run(
            parent, candidates, options, references, progress=listener, say=say_aside
        )
    show_rehearsal(rehearsal, as_json=as_json)


def _candidates(
    run: "Run", method: str, preset: str | None, settings: list[str], candidates: list[str]
) -> list["Method"]:
    """The method in the settings of each candidate; an empty one adds nothing to `settings`."""
    from ..api.method_choice import choose_method
    from ..experiments.recipe import parse_settings, split_settings

    # Once, however many candidates it is true of.
    sentences: dict[str, None] = {}
    methods = []
    for text in candidates:
        changes = split_settings(text) if text else []
        values = parse_settings([*settings, *changes])
        candidate = choose_method(run, method, values, preset, say=sentences.setdefault)
        if candidate in methods:
            raise ConfigError(f"--candidate {text}: is there twice; leave one out")
        methods.append(candidate)
    for sentence in sentences:
        say_aside(sentence)
    return methods


def _write_request(path: Path, request: "ErasureRequest") -> None:
    if path.suffix != ".jsonl":
        raise ConfigError(f"--write-request {path}: is no JSON-lines file; let its name end .jsonl")
    lines = [json.dumps({"user": user}) for user in request.users]
    try:
        # Exclusively, so that no file of somebody's is lost; it names people, so it is private.
        create_file(path, ("\n".join(lines) + "\n").encode(), mode=0o600)
    except OSError as error:
        raise ConfigError(
            f"--write-request {path}: cannot be written ({error.strerror}); name another"
        ) from error
    say_aside(f"{len(lines)} users are written to '{path}'; nothing was rehearsed")
