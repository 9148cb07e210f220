"""Outputs of the frozen lower blocks: computed once for each row, and read from a file afterwards.

Adapters on the upper blocks alone leave the states below them as they were, whatever the adapters
learn. A row has one state for each of its tokens, (t, d), which is too much for memory. The states
go to a file that has no name: nobody else can open it, and it is gone as soon as the run ends,
however it ends.
"""

import contextlib
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np
import numpy.typing as npt
import torch

from ..core.allocator import release_free_memory
from ..core.arrays import Ints, Mask
from ..core.disk import require_room
from .batches import FORWARD_BATCH_SIZE, Examples, batches_by_length
from .fsdp import is_split
from .precision import Precision, autocast_type
from .recommender import Recommender
from .sharing import in_turns

UInt8s = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class CachedActivations:
    """States of rows at the input of block `first_block` of `model`, in a file.

    Attributes:
        model: the model whose states they are: no other may use them.
        file: the states of all rows, one row after another.
        starts: (n,) number of each row's first token in the file; −1 for a row that is not cached.
        lengths: (n,) number of tokens of each row.
        first_block: the block.
        width: d.
        dtype: bfloat16 or float32.
    """

    model: Recommender
    file: IO[bytes]
    starts: Ints
    lengths: Ints
    first_block: int
    width: int
    dtype: torch.dtype

    @property
    def bytes_per_token(self) -> int:
        """Size of one token's state in the file."""
        return self.width * self.dtype.itemsize

    def holds(self, index: Ints) -> Mask:
        """(b,) True for the rows of `index` that are cached."""
        return self.starts[index] >= 0

    def take(self, index: Ints) -> Self:
        """Return the states of rows `index` alone; the file is shared."""
        return replace(self, starts=self.starts[index], lengths=self.lengths[index])

    def read(self, index: Ints, width: int) -> torch.Tensor | None:
        """Read rows `index`, (b, width, d), padded with zeros; None if none of them is cached.

        A row that is not cached is all zeros.
        """
        if not self.holds(index).any():
            return None
        shape = (len(index), width, self.bytes_per_token)
        raw = np.zeros(shape, dtype=np.uint8)
        for row in self._seek_rows(index, raw):
            self.file.readinto(row)  # type: ignore[attr-defined]
        states = torch.from_numpy(raw).view(self.dtype)
        # Between blocks the states are float32 under autocast too.
        return states.float()

    def write(self, index: Ints, states: torch.Tensor) -> None:
        """Write `states` (b, t, d) of rows `index`, without their padding."""
        states = states.to(self.dtype).cpu().contiguous()
        # NumPy has no bfloat16, so the file is read and written as bytes.
        raw = states.view(torch.uint8).numpy()
        for row in self._seek_rows(index, raw):
            self.file.write(row.data)

    def _seek_rows(self, index: Ints, raw: UInt8s) -> Iterator[UInt8s]:
        """Go to each row's place in the file; yields its bytes in `raw` (b, t, …), not padded.

        Rows that are not cached have no place, and are passed over.
        """
        starts = self.starts[index]
        lengths = self.lengths[index]
        for row, start, length in zip(raw, starts, lengths, strict=True):
            if start < 0:
                continue
            self.file.seek(int(start) * self.bytes_per_token)
            yield row[:length]


@contextlib.contextmanager
def open_cache(
    model: Recommender,
    first_block: int,
    *,
    precision: Precision,
    max_gb: float,
    folder: Path | None,
) -> Iterator["ActivationCache | None"]:
    """Open a cache for the blocks below the adapters.

    Args:
        model: see `ActivationCache`.
        first_block: the lowest block that an adapter changes.
        precision: in which the model computes.
        max_gb: largest size of the file, in GB.
        folder: folder of the file; None for the system's folder for temporary files.

    Yields:
        The cache; None where no block lies below, there is no room, or the blocks above cannot go
        on from what is cached.
    """
    max_bytes = int(max_gb * 1e9)
    if first_block == 0 or max_bytes == 0:
        yield None
        return
    # A process that lacks a row's states would gather blocks that the others do not ask for.
    if is_split(model):
        warnings.warn(
            "model.fsdp: all processes go through all blocks together, so the lower ones are "
            "computed anew at each step, which is slower",
            stacklevel=2,
        )
        yield None
        return
    if not model.can_replay(first_block):
        warnings.warn(
            f"model '{model.name}': its blocks from {first_block} on read more of the lower ones "
            "than their output, so the lower ones are computed anew at each step, which is slower",
            stacklevel=2,
        )
        yield None
        return
    dtype = autocast_type(precision, model.device) or torch.float32
    with ActivationCache(
        model, first_block, dtype=dtype, max_bytes=max_bytes, folder=folder
    ) as cache:
        yield cache


def cache_bytes(
    model: Recommender,
    first_block: int,
    token_count: int,
    *,
    precision: Precision,
    max_gb: float,
) -> int:
    """Bytes that a cache of so many tokens takes; see `open_cache`."""
    if first_block == 0 or is_split(model) or not model.can_replay(first_block):
        return 0
    dtype = autocast_type(precision, model.device) or torch.float32
    return min(token_count * model.state_width * dtype.itemsize, int(max_gb * 1e9))


class ActivationCache:
    """While it is open, holds the states that reach block `first_block` of `model`.

    Args:
        model: the model; no adapter of this run changes its blocks below `first_block`.
        first_block: the lowest block that an adapter changes.
        dtype: bfloat16 under bf16 autocast, else float32. Never float16: the states between the
            blocks of a language model exceed its range.
        max_bytes: largest size of the file. Of rows that do not fit, the lower blocks are computed
            anew at each step.
        folder: folder of the file; None for the system's folder for temporary files.
    """

    def __init__(
        self,
        model: Recommender,
        first_block: int,
        *,
        dtype: torch.dtype,
        max_bytes: int,
        folder: Path | None = None,
    ) -> None:
        self.model = model
        self.first_block = first_block
        self.dtype = dtype
        self.folder = folder
        self.max_bytes = max_bytes
        self.token_count = 0
        self.row_count = 0
        self.left_out_count = 0
        self.resources = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.file = self.resources.enter_context(tempfile.TemporaryFile(dir=self.folder))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.resources.close()

    @torch.no_grad()
    def attach_states(self, examples: Examples, rows: Ints) -> Examples:
        """Compute the states of `rows`, and return `examples` with these states attached.

        Of rows that exceed `max_bytes` the first ones are cached.

        Raises:
            RunError: the disk has no room for them. Fewer rows would not do: which states are read
                and which are computed anew shows in the last bits of a result.
        """
        width = self.model.state_width
        ends = self.token_count + np.cumsum(examples.lengths[rows])
        fits = ends * width * self.dtype.itemsize <= self.max_bytes
        self.left_out_count += int((~fits).sum())
        rows = rows[fits]
        if not len(rows):
            return examples
        ends = ends[fits]
        lengths = examples.lengths[rows]
        new_bytes = int(lengths.sum()) * width * self.dtype.itemsize
        require_room(Path(self.folder or tempfile.gettempdir()), new_bytes)
        self.token_count = int(ends[-1])
        self.row_count += len(rows)
        starts = np.full(len(examples), -1, dtype=np.int64)
        starts[rows] = ends - lengths
        cached = CachedActivations(
            model=self.model,
            file=self.file,
            starts=starts,
            lengths=examples.lengths,
            first_block=self.first_block,
            width=width,
            dtype=self.dtype,
        )
        batches = batches_by_length(lengths, FORWARD_BATCH_SIZE)

        def states_of(part: Ints) -> torch.Tensor:
            batch = self.model.collate(examples, rows[part])
            return self.model.states_before(batch, self.first_block).to(self.dtype)

        # The model's own adapters may reach below `first_block`, so they take part as later on.
        with self.model.using():
            # Each process has a file of its own: any row may be in its share of a step.
            for number, states in enumerate(in_turns(batches, states_of)):
                cached.write(rows[batches[number]], states)
                release_free_memory(number)
        return replace(examples, cached=cached)

    def warn_of_bound(self, setting: str) -> None:
        """Say in one line that rows were left out, if any were.

        Args:
            setting: that sets `max_bytes`.
        """
        if not self.left_out_count:
            return
        row_count = self.row_count + self.left_out_count
        warnings.warn(
            f"{setting}: {self.max_bytes / 1e9:g} GB hold what the lower blocks compute of "
            f"{self.row_count} of {row_count} rows; the others are computed anew at each step, "
            "which is slower; raise it where the disk has more room",
            stacklevel=2,
        )
