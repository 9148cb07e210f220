"""Memory that is free, handed back to the system.

The C library keeps what tensors of many sizes leave between each other: on a processor a run's resident memory grows
to several times what its tensors hold. Asked now and then, it lets go of whole pages at little cost.
"""

import ctypes

EVERY = 8
"""Steps, or batches of answers, between two requests."""


def hand_back(done: int = 0) -> None:
    """Hand free pages back where the C library can (glibc); of a loop's `done` rounds, after every eighth."""
    if done % EVERY == 0:
        _trim(0)


def _nothing(pad: int) -> int:
    return 0


try:
    _trim = ctypes.CDLL(None).malloc_trim
except (AttributeError, OSError, TypeError):
    _trim = _nothing
