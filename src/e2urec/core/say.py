"""Whom a long piece of work tells what a user should know meanwhile."""

from collections.abc import Callable

Say = Callable[[str], object]
"""Is told a sentence, or a line."""


def no_words(text: str) -> None:
    """Say nothing."""
