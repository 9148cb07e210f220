"""Processes: which of several this is, and the signals that end one."""

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

from .errors import ConfigError

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""Ctrl-C, a polite end, and a terminal that was closed (which Windows has not)."""
REPEAT_SECONDS = 5.0
"""A second signal within this time is the same wish: a launcher sends SIGTERM after Ctrl-C."""


def first_process() -> bool:
    """Whether this is the only process, or the first of those that a launcher started."""
    return rank() == 0


def rank() -> int:
    """The number of this process among those that a launcher started; 0 of a single one."""
    return _launched("RANK", 0) if process_count() > 1 else 0


def process_count() -> int:
    """How many processes a launcher started; 1 without one."""
    return _launched("WORLD_SIZE", 1)


def _launched(name: str, alone: int) -> int:
    """A number that a launcher writes into the environment; raises ConfigError if it is none."""
    text = os.environ.get(name, "").strip()
    if not text:
        return alone
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(
            f"environment variable {name} '{text}': is no number; unset it, or start by torchrun"
        ) from error


@dataclass
class _Interrupts:
    """The signals of this process.

    Attributes:
        raised_at: when the last one was raised, on the monotonic clock.
        holds: blocks at work that must not be interrupted.
        is_pending: one came meanwhile.
    """

    raised_at: float = -math.inf
    holds: int = 0
    is_pending: bool = False

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt, at once or when nothing holds it back any more."""
        # While the first is on its way up, a second one would end the clean-up half-way.
        if self.is_recent():
            return
        if self.holds:
            self.is_pending = True
            return
        self.raise_now()

    def raise_now(self) -> None:
        """Raise KeyboardInterrupt, and note when."""
        self.is_pending = False
        self.raised_at = time.monotonic()
        raise KeyboardInterrupt

    def is_recent(self) -> bool:
        """Whether one was raised a moment ago."""
        return time.monotonic() - self.raised_at < REPEAT_SECONDS


_interrupts = _Interrupts()


def handle_signals() -> None:
    """From now on raise KeyboardInterrupt at every signal that politely ends a process."""
    # Python lets only the main thread set signal handlers.
    if threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        # Whoever started us with nohup, or in the background, wants the signal to be ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupts.receive)


@contextlib.contextmanager
def signals_as_interrupt() -> Iterator[None]:
    """Handle signals as `handle_signals` does, until the block ends."""
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    handle_signals()
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in previous.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold signals back until the block ends: half a clean-up would leave what it should remove."""
    _interrupts.holds += 1
    try:
        yield
    finally:
        _interrupts.holds -= 1
        # After an error too: later it would end something that it was not meant for.
        if _interrupts.is_pending and not _interrupts.holds:
            _interrupts.raise_now()


def was_interrupted() -> bool:
    """Whether a signal is being handled, or waits to be."""
    return _interrupts.is_pending or _interrupts.is_recent()


def is_of_signal(error: Exception) -> bool:
    """Whether an error came of a signal, and not of what the command was doing."""
    # Raised while the interrupt was on its way up, or made of it by a library.
    earlier: BaseException | None = error
    seen: set[int] = set()
    # A library's `raise error from error` makes an error its own cause.
    while earlier is not None and id(earlier) not in seen:
        if isinstance(earlier, KeyboardInterrupt):
            return True
        seen.add(id(earlier))
        earlier = earlier.__cause__ or earlier.__context__
    # What is lost there can be told by the type alone: an extension that was being imported makes
    # an ImportError of any other, and a process that ends takes the others' connections along.
    types: tuple[type[Exception], ...] = (ImportError,)
    if process_count() > 1:
        types += (RuntimeError, ConnectionError)
    return was_interrupted() and isinstance(error, types)


def ignore_repeats() -> None:
    """From now on ignore a repeated signal for a moment: the process is about to end anyway."""
    _interrupts.raised_at = time.monotonic()
