"""The frozen lower blocks, computed once a row: what they hand on is kept on file and replayed at every later step.

Adapters on the upper blocks alone leave the states below them as they were, whatever the adapters learn. They are
kept a token, (t, d) a row: too much for memory, so they go to a file that has no name. Nobody else can open it, and
it is gone as soon as the run ends, however it ends.
"""

import contextlib
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt
import torch

from ..core.allocator import release_free_memory
from ..core.arrays import Ints
from .batches import Examples, batches_by_length
from .recommender import Recommender


@dataclass(frozen=True)
class CachedActivations:
    """States of some rows at the input of block `first_block` of `model`, on file.

    Attributes:
        model: no other may use them.
        file: of all rows, one after another.
        starts: (n,) first token of each row in the file; −1 where a row is not kept.
        lengths: (n,) tokens of each row.
        first_block: the block.
        width: d.
        kind: bfloat16 or float32.
    """

    model: Recommender
    file: IO[bytes]
    starts: Ints
    lengths: Ints
    first_block: int
    width: int
    kind: torch.dtype

    def take(self, index: Ints) -> Self:
        """The same of rows `index`."""
        return replace(self, starts=self.starts[index], lengths=self.lengths[index])

    def rows(self, index: Ints, width: int) -> torch.Tensor | None:
        """Read (b, width, d), padded with zeros; None if one of the rows is not kept."""
        if (self.starts[index] < 0).any():
            return None
        lengths, size = self.lengths[index], self.width * self.kind.itemsize
        states = np.zeros((len(index), width, size), dtype=np.uint8)
        for row, start, length in zip(states, self.starts[index], lengths, strict=True):
            self.file.seek(int(start) * size)
            self.file.readinto(row[:length])  # type: ignore[attr-defined]
        return (
            torch.from_numpy(states).view(self.kind).float()
        )  # the residual stream is float32 under autocast too

    def put(self, index: Ints, states: torch.Tensor) -> None:
        """Write `states` (b, t, d) of rows `index`, without their padding."""
        size = self.width * self.kind.itemsize
        raw = states.to(self.kind).cpu().contiguous().view(torch.uint8).numpy()
        for row, start, length in zip(raw, self.starts[index], self.lengths[index], strict=True):
            self.file.seek(int(start) * size)
            self.file.write(row[:length])


class ActivationCache:
    """Keeps what the blocks below `first` of `model` hand on, while it is open.

    Args:
        model: whose lower blocks no adapter of this run changes.
        first: lowest block that one changes.
        kind: bfloat16 under bf16 autocast, else float32; the residual stream of a language model goes beyond
            float16.
        folder: for the file; None: the system's folder for temporary files.
        room: most bytes that are kept; a set of rows that does not fit is computed anew at each step.
    """

    def __init__(
        self,
        model: Recommender,
        first: int,
        *,
        kind: torch.dtype,
        folder: Path | None = None,
        room: int = 16 << 30,
    ) -> None:
        self.model, self.first, self.kind, self.room = model, first, kind, room
        self.folder, self.tokens, self.open = folder, 0, contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.file = self.open.enter_context(tempfile.TemporaryFile(dir=self.folder))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.open.close()

    @torch.no_grad()
    def keep(
        self, examples: Examples, needed: npt.NDArray[Any], *, batch_size: int = 32
    ) -> Examples:
        """Return `examples` with rows `needed` computed up to block `first_block`, if there is room for them."""
        width = self.model.head[0].shape[1]
        lengths = examples.lengths[needed]
        if (
            not len(needed)
            or (self.tokens + int(lengths.sum())) * width * self.kind.itemsize > self.room
        ):
            return examples
        starts = np.full(len(examples), -1, dtype=np.int64)
        starts[needed] = self.tokens + np.cumsum(lengths) - lengths
        self.tokens += int(lengths.sum())
        kept = CachedActivations(
            self.model, self.file, starts, examples.lengths, self.first, width, self.kind
        )
        with self.model.using():
            for done, part in enumerate(batches_by_length(lengths, batch_size)):
                index = needed[part]
                kept.put(
                    index, self.model.states_before(self.model.collate(examples, index), self.first)
                )
                release_free_memory(done)
        return replace(examples, cached=kept)
