"""What a piece of work takes: seconds and rows read by phase, memory, parameters that moved."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil

from ..core.allocator import release_free_memory
from ..models.devices import peak_gpu_bytes, wait_for_gpu
from .state import Trace


@dataclass
class Costs:
    """What a piece of work has taken so far.

    Attributes:
        seconds: spent, by phase.
        rows: read, by phase.
        peak_bytes: largest resident memory at the end of a phase.
        peak_gpu_bytes: most memory of the process's tensors on its GPU by the end of a phase; 0
            without a GPU.
        trainable: number of parameters that moved.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    peak_bytes: int = 0
    peak_gpu_bytes: int = 0
    trainable: int = 0

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the seconds spent inside to phase `name`."""
        # What a GPU still has to do belongs to the phase that told it so.
        wait_for_gpu()
        start_time = time.perf_counter()
        try:
            yield
        finally:
            wait_for_gpu()
            # A phase may be entered more than once, and an interrupted one has cost time as well.
            duration = time.perf_counter() - start_time
            self.seconds[name] = self.seconds.get(name, 0.0) + duration
            resident_bytes = psutil.Process().memory_info().rss
            self.peak_bytes = max(self.peak_bytes, resident_bytes)
            self.peak_gpu_bytes = max(self.peak_gpu_bytes, peak_gpu_bytes())
            release_free_memory()

    def count_rows(self, phase: str, rows: int) -> None:
        """Add `rows` to those read in `phase`."""
        previous_rows = self.rows.get(phase, 0)
        self.rows[phase] = previous_rows + rows

    def count_training(self, phase: str, trace: Trace) -> None:
        """Add the rows of a training to those of `phase`, and its seconds before a checkpoint."""
        self.count_rows(phase, trace.rows)
        self.add_earlier_seconds(phase, trace)

    def add_earlier_seconds(self, phase: str, trace: Trace) -> None:
        """Add what a training took before the checkpoint that it went on from.

        The seconds since then are those spent inside `phase`.
        """
        self.seconds[phase] = self.seconds.get(phase, 0.0) + trace.earlier_seconds
