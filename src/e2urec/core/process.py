"""Processes: which of several this is, waiting for the others, and the signal that ends one."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType


def first_process() -> bool:
    """Whether this is the only process, or the first of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


def wait_for_all() -> None:
    """Wait until every process has come to this line, so that all of them see the same files."""
    process_count = int(os.environ.get("WORLD_SIZE", "1"))
    if process_count <= 1:
        return
    # Imported here because accelerate loads torch, which most commands never need.
    from accelerate import PartialState

    PartialState().wait_for_everyone()


@contextlib.contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt at SIGTERM, so that a run cleans up as it does after Ctrl-C."""
    # Python lets only the main thread set signal handlers.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous_handler = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous_handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
