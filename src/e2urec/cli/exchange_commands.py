"""From and to the world outside: take a recommender over, and give one back."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..core.errors import ConfigError
from .app import AsJson, Key, Out, RecipeFile, RunFolder, Settings, app, recipe_from, say_aside
from .failures import one_line


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
            metavar="LIKED NOT",
            help='Outputs that mean so, several as "4|5" "1|2|3"; default: Yes and No, as found.',
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="How fields become a prompt: alpaca, tallrec, collm-movies, collm-books, e2urec, "
            "a file of CoLLM's or BinLLM's prompts (.txt) or a Jinja2 file (.j2).",
        ),
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Prompts were said in the tokenizer's form of a chat.")
    ] = False,
    scores: Annotated[
        Path | None,
        typer.Option(help="What your own code says of the rows, P(liked) each, as .npy: a check."),
    ] = None,
    min_mass: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Least probability of both answers together on rows tuned on."
        ),
    ] = 0.5,
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
        "data.template": "chat" if chat else "verbatim",
        "data.options.held": None if held is None else str(held),
        "data.options.answers": None if answers is None else list(answers),
        "data.options.format": layout,
    }
    full = recipe_from(recipe, settings, options)
    facts = AdoptOptions(base, scores, key, say=say_aside, min_mass=min_mass)
    run = adopt(full, model, out, facts)
    show_run(run, as_json=as_json, key=key)


@app.command("export")
def export_model(
    run: RunFolder,
    out: Annotated[Path, typer.Option("--out", help="Folder to make; it must not exist.")],
    adapter: Annotated[
        bool, typer.Option("--adapter", help="As an adapter, which PEFT loads on its base.")
    ] = False,
    merged: Annotated[
        bool, typer.Option("--merged", help="As a whole model, which Transformers loads.")
    ] = False,
    max_lora_rank: Annotated[
        int | None,
        typer.Option(help="Highest rank that your server takes; an adapter beyond it is refused."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the recommender of a run as other programs load it, in the precision it came in."""
    from ..api.export import export
    from ..runs.folder import open_run
    from ..runs.keys import key_at_hand
    from .terminal import show_export

    if adapter == merged:
        raise ConfigError("export: takes one of --adapter and --merged; give one")
    opened = open_run(run, key=key_at_hand())
    form: Literal["adapter", "merged"] = "adapter" if adapter else "merged"
    show_export(export(opened, out, form, max_lora_rank=max_lora_rank), as_json=as_json)


@app.command("swap")
def swap_adapter(
    run: RunFolder,
    vllm: Annotated[str, typer.Option(metavar="URL", help="The server: http://localhost:8000.")],
    alias: Annotated[
        str | None,
        typer.Option(help="Name by which clients ask; it stands for this run's adapter then."),
    ] = None,
    replaces: Annotated[
        str | None,
        typer.Option(help="Name of the adapter to unload; default: what the alias stood for."),
    ] = None,
    adapter: Annotated[
        Path | None,
        typer.Option(help="Exported adapter, made if it is missing; default: RUN-adapter."),
    ] = None,
    server_path: Annotated[
        str | None, typer.Option(help="The same folder as the server sees it.")
    ] = None,
    rows: Annotated[int, typer.Option(help="Test rows to compare log-probabilities on.")] = 64,
    tolerance: Annotated[
        float, typer.Option(help="Nats by which a log-probability may differ.")
    ] = 0.2,
    accept_alike: Annotated[
        bool, typer.Option(help="Go on where old and new adapter cannot be told apart.")
    ] = False,
    max_lora_rank: Annotated[
        int | None, typer.Option(help="What the server was started with; checked beforehand.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(help="Seconds that each call to the server may take.")
    ] = 120.0,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="File of the server's API key; default: VLLM_API_KEY, if it is set."),
    ] = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Have a running vLLM server serve a run's adapter in place of the old one."""
    from ..api.serving.swap_plan import SwapOptions
    from ..api.swap import swap
    from ..runs.folder import open_run
    from ..runs.keys import controller_key
    from .terminal import show_swap

    options = SwapOptions(
        alias=alias,
        replaces=replaces,
        adapter=adapter,
        server_path=server_path,
        rows=rows,
        tolerance=tolerance,
        accept_alike=accept_alike,
        max_lora_rank=max_lora_rank,
        timeout=timeout,
        api_key=api_key_file,
        key=key,
        # Names that the server lists may hold anything.
        say=lambda text: say_aside(one_line(text)),
    )
    opened = open_run(run, key=controller_key(key))
    show_swap(swap(opened, vllm, options), as_json=as_json)
