"""What is freed between other things goes back to the system."""

import platform

import numpy as np
import psutil
import pytest

from e2urec.core.allocator import EVERY, release_free_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are not asked")
def test_holes_between_arrays_that_live_are_handed_back_every_eighth_round() -> None:
    arrays = [np.ones(100_000, dtype=np.uint8) for _ in range(4000)]
    living = arrays[::8]
    del arrays
    resident = psutil.Process().memory_info().rss
    release_free_memory(EVERY + 1)
    assert psutil.Process().memory_info().rss > resident - 50e6
    release_free_memory(EVERY)
    assert psutil.Process().memory_info().rss < resident - 250e6
    assert sum(int(array.sum()) for array in living) == 500 * 100_000
