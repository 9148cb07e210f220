"""Processes that a command starts: what they are given, and how they end."""

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping, Sequence

import psutil

from .process import SIGNALS


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment for what is started in the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def no_signals_from_terminal() -> Iterator[None]:
    """What is started in the block gets no Ctrl-C: the command ends its jobs by itself, in order.

    A terminal sends the signal to all processes that were started from it.
    """
    # A new process inherits the mask of signals, and no handlers.
    signals = [number for number in SIGNALS if number != signal.SIGTERM]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_processes(numbers: Sequence[int], patience: float) -> None:
    """End processes and those that they started: politely, and after `patience` seconds at once."""
    processes = []
    for number in numbers:
        with contextlib.suppress(psutil.NoSuchProcess):
            controller = psutil.Process(number)
            processes += [controller, *controller.children(recursive=True)]
            # It hands the signal on.
            controller.terminate()
    _, alive = psutil.wait_procs(processes, timeout=patience)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=patience)
