"""Progress: bars on a terminal, plain lines elsewhere."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..core.process import first_process, process_count
from ..training.loop import Progress as Listener
from ..training.loop import silent
from .app import say_aside

LINE_SECONDS = 30
"""Seconds between two lines where there is no terminal: a log that is read later stays short."""


@contextlib.contextmanager
def progress(*, alone: bool = False) -> Iterator[Listener]:
    """Yield a listener that draws one bar a phase on a terminal, or prints a line now and then.

    Args:
        alone: whether the command runs in one process whatever there is.
    """
    if not first_process():
        yield silent
        return
    if not alone:
        _tell_of_idle_gpus()
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_lines(console)
        return
    # To standard error: --json must be alone on standard output.
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("loss {task.fields[loss]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, Any] = {}

        def listen(phase: str, done: int, total: int, loss: float | None = None) -> None:
            if phase not in tasks or done == 1:
                tasks[phase] = bars.add_task(phase, total=total, loss="")
            text = "" if loss is None else f"{loss:.3f}"
            bars.update(tasks[phase], completed=done, loss=text)

        yield listen


def _tell_of_idle_gpus() -> None:
    gpus = torch.cuda.device_count()
    if process_count() == 1 and gpus > 1:
        say_aside(
            f"{gpus} GPUs are here, and one process computes on the first; to share the work: "
            f"torchrun --nproc_per_node {gpus} -m e2urec …"
        )


def _plain_lines(console: Console) -> Listener:
    last = time.monotonic()

    def listen(phase: str, done: int, total: int, loss: float | None = None) -> None:
        nonlocal last
        now = time.monotonic()
        if done == total or now - last > LINE_SECONDS:
            last = now
            text = "" if loss is None else f", loss {loss:.3f}"
            console.print(f"{phase}: {done} of {total}{text}", highlight=False)

    return listen
