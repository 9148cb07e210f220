"""Memory that is free, handed back to the system.

The C library keeps what tensors of many sizes leave between each other: on a processor a run's resident memory grows
to several times what its tensors hold. RequestOptions now and then, it lets go of whole pages at little cost.
"""

import ctypes
from collections.abc import Callable
from typing import cast

EVERY = 8
"""Steps, or batches of answers, between two requests."""


def release_free_memory(done: int = 0) -> None:
    """Hand free pages back where the C library can (glibc); of a loop's `done` rounds, after every eighth."""
    if done % EVERY == 0:
        _trim(0)


def _found() -> Callable[[int], int]:
    try:
        return cast(Callable[[int], int], ctypes.CDLL(None).malloc_trim)
    except (AttributeError, OSError, TypeError):
        return lambda pad: 0


_trim = _found()
