"""What a piece of work takes: seconds and rows read by phase, memory, parameters that moved."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil

from ..core.allocator import release_free_memory


@dataclass
class Costs:
    """Seconds and rows read by phase, the largest memory seen, parameters that moved."""

    seconds: dict[str, float] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    peak_bytes: int = 0
    trainable: int = 0

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the seconds spent inside to phase `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
            self.peak_bytes = max(self.peak_bytes, psutil.Process().memory_info().rss)
            release_free_memory()

    def read(self, name: str, rows: int) -> None:
        """Count `rows` read in phase `name`."""
        self.rows[name] = self.rows.get(name, 0) + rows
