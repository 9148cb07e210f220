"""Whom a long piece of work tells what a user should know meanwhile, and how times are told."""

from collections.abc import Callable

Say = Callable[[str], object]
"""Is told a sentence, or a line."""


def no_words(text: str) -> None:
    """Say nothing."""


def minutes_text(minutes: float) -> str:
    """`3.0 minutes`, or seconds where it takes less than one minute."""
    if minutes < 1:
        seconds = max(1, round(60 * minutes))
        return "1 second" if seconds == 1 else f"{seconds} seconds"
    return f"{minutes:.1f} minutes"
