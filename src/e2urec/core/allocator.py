"""Give free memory back to the operating system.

Tensors of many sizes leave gaps between each other, and the C library keeps the pages in those
gaps. On a CPU, a run's resident memory then grows to several times what its tensors hold.
"""

import ctypes
from collections.abc import Callable
from typing import cast

# Rounds of a loop, steps or batches of answers, between two releases. A release costs little, but
# in every round it would add up; in eight rounds memory grows little.
EVERY = 8


def release_free_memory(rounds: int = 0) -> None:
    """Give free pages back where the C library can (glibc), after every eighth of `rounds`."""
    if rounds % EVERY == 0:
        _trim(0)


def _find_trim() -> Callable[[int], int]:
    """The C library's `malloc_trim`, or a function that does nothing."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    # musl has no such function, and Windows and macOS have no library by that name.
    except (AttributeError, OSError, TypeError):
        return lambda pad: 0
    return cast(Callable[[int], int], trim)


# Looked up once, at import, because loops call it often.
_trim = _find_trim()
