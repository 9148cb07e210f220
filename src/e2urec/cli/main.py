"""Run the command line: the only place where errors become exit statuses.

0 done; 2 wrong input (one line); 3 the gate says no; 130 interrupted; 1 a bug of ours.
"""

import importlib.metadata
import io
import logging
import os
import sys
import time
import warnings
from typing import Annotated, Any

import typer

from ..core.errors import E2URecError
from ..core.launch import refuse_unheeded_launch
from ..core.process import (
    first_process,
    handle_signals,
    ignore_repeats,
    is_of_signal,
    rank,
)
from . import (
    data_commands,
    exchange_commands,
    experiment_commands,
    memory_commands,
    rehearsal_commands,
    run_commands,
)
from .app import app
from .failures import failure_line, one_line

# The modules register their commands when they are imported.
COMMANDS = (
    data_commands,
    run_commands,
    exchange_commands,
    rehearsal_commands,
    experiment_commands,
    memory_commands,
)
WRONG_INPUT = 2
INTERRUPTED = 130
FIRST_SPEAKS_SECONDS = 5.0
"""How long the other processes leave an error to the first."""

# Click's own, or that of the copy inside newer Typers.
UsageError: Any = typer.BadParameter.__mro__[1]


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


def main() -> None:
    """Run the command line, and exit with its status."""
    handle_signals()
    _quieten_libraries()
    # A name with half a letter in it shall be printed as well as it can be.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    _let_one_process_speak()
    # Typer would print usage and exit by itself; errors shall be one line, here.
    try:
        refuse_unheeded_launch()
        # A number where Typer was told to exit, or was interrupted.
        status = app(standalone_mode=False)
        # What does not fit on the disk that it is sent to shall be told here, and not at exit.
        sys.stdout.flush()
    except (E2URecError, UsageError) as error:
        _tell(str(error) if isinstance(error, E2URecError) else error.format_message())
        status = WRONG_INPUT
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except Exception as error:
        line = failure_line(error)
        if is_of_signal(error):
            status = INTERRUPTED
        elif line is None:
            raise
        else:
            _tell(line)
            status = WRONG_INPUT
    if status == INTERRUPTED:
        ignore_repeats()
        if first_process():
            _tell_what_is_left()
    raise SystemExit(status or 0)


def _let_one_process_speak() -> None:
    """Silence all processes but the first."""
    try:
        speaks = first_process()
    except E2URecError as error:
        # Nobody knows which of them this is, so each says it.
        print(f"e2urec: {one_line(str(error))}", file=sys.stderr)
        raise SystemExit(WRONG_INPUT) from None
    if not speaks:
        sys.stdout = io.StringIO()
        # Libraries and we ourselves warn all processes alike.
        warnings.filterwarnings("ignore")


def _tell(text: str) -> None:
    # As a rule all processes meet the same error: then the launcher ends the others when the first
    # has said it, and they need not say it again.
    if not first_process():
        try:
            time.sleep(FIRST_SPEAKS_SECONDS)
        except KeyboardInterrupt:
            return
        text = f"rank {rank()}: {text}"
    print(f"e2urec: {one_line(text)}", file=sys.stderr)


def _tell_what_is_left() -> None:
    # Imported here: most commands that end so have it already, and others start without it.
    from ..runs.leftovers import left_behind

    _tell(f"interrupted; {left_behind()}")


def _quieten_libraries() -> None:
    """Silence what libraries say of kernels, enums and threads that nobody asked for."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")  # our own progress says what matters
    if not sys.warnoptions:
        warnings.filterwarnings("ignore", module=r"(transformers|peft)\.")
    for library in ("torchao", "torch.utils._pytree"):
        logging.getLogger(library).setLevel(logging.ERROR)
