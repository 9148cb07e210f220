"""Token rows, and batches of them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import numpy as np
import torch
import torch.nn.functional as F

from ..core.arrays import Ints
from ..core.seeding import stream

COLUMNS = 8
"""A batch's columns are a multiple of it: kernels are made, and kept in memory, for each shape that is seen."""
WINDOW = 16
"""Batches among whose rows those of about the same length find each other."""


class CachedStates(Protocol):
    """States of rows at the input of block `first_block` of `model`; see `trunk.Kept`."""

    @property
    def model(self) -> object:
        """Whose they are: no other may use them."""

    @property
    def first_block(self) -> int:
        """The block."""

    def take(self, index: Ints) -> Self:
        """The same of rows `index`."""

    def rows(self, index: Ints, width: int) -> torch.Tensor | None:
        """(b, width, d), padded on the right; None if a row is not kept."""


@dataclass(frozen=True)
class Examples:
    """Tokenised prompts with their labels.

    Attributes:
        tokens: (sum of lengths,) int32, all prompts one after another.
        offsets: (n + 1,) int64; row i is `tokens[offsets[i]:offsets[i + 1]]`.
        labels: (n,) int8, 1 = liked.
        users: (n,) int32 user codes, for statistics clustered by user.
        truncated: rows whose prompt was longer than the window and lost its beginning.
        cached: what the model's lower blocks make of rows, where that was kept.
    """

    tokens: Ints
    offsets: Ints
    labels: Ints
    users: Ints
    truncated: int = 0
    cached: CachedStates | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> Ints:
        """(n,) tokens in each prompt."""
        return np.diff(self.offsets)

    def take(self, index: Ints) -> "Examples":
        """Rows `index`, in that order."""
        rows = [self.tokens[self.offsets[i] : self.offsets[i + 1]] for i in index]
        return replace(
            self,
            tokens=np.concatenate([self.tokens[:0], *rows]),
            offsets=np.cumsum([0, *map(len, rows)]),
            labels=self.labels[index],
            users=self.users[index],
            cached=self.cached and self.cached.take(index),
        )


def concatenate(parts: Sequence[Examples]) -> Examples:
    """All rows of `parts`, one part after another."""
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("tokens", "labels", "users")
    }
    lengths = np.concatenate([part.lengths for part in parts])
    return Examples(
        **columns, offsets=np.cumsum([0, *lengths]), truncated=sum(part.truncated for part in parts)
    )


@dataclass(frozen=True)
class Batch:
    """Right-padded rows: `ids` and `mask` (b, t), `position` (b,) of the answer, `labels` (b,), `index` (b,).

    With `cached` (b, t, d), the input of block `first_block`, the blocks beneath need not be computed.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    position: torch.Tensor
    labels: torch.Tensor
    index: torch.Tensor
    cached: torch.Tensor | None = None
    first_block: int = 0

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on `device`."""
        tensors: dict[str, Any] = {
            name: value.to(device)
            for name, value in vars(self).items()
            if isinstance(value, torch.Tensor)
        }
        return replace(self, **tensors)


def pack(rows: Sequence[Sequence[int]], labels: Ints, users: Ints, *, window: int) -> Examples:
    """Lay token rows one after another, each cut to its last `window` tokens."""
    kept = [np.asarray(row[-window:], dtype=np.int32) for row in rows]
    return Examples(
        tokens=np.concatenate([np.zeros(0, np.int32), *kept]),
        offsets=np.cumsum([0, *map(len, kept)]),
        labels=labels,
        users=users,
        truncated=sum(len(row) > window for row in rows),
    )


def collate(examples: Examples, index: Ints, pad: int) -> Batch:
    """Pad rows `index` on the right to the longest of them, and on to a multiple of 8."""
    starts, lengths = examples.offsets[index], examples.lengths[index]
    columns = np.arange(-(-lengths.max() // COLUMNS) * COLUMNS)
    mask = columns < lengths[:, None]
    ids = np.full(mask.shape, pad, dtype=np.int64)
    ids[mask] = examples.tokens[(starts[:, None] + columns)[mask]]
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(mask.astype(np.int64)),
        torch.from_numpy(lengths - 1),
        torch.from_numpy(examples.labels[index].astype(np.int64)),
        torch.from_numpy(np.asarray(index, dtype=np.int64)),
        examples.cached.rows(index, len(columns)) if examples.cached else None,
        examples.cached.first_block if examples.cached else 0,
    )


def join_batches(first: Batch, second: Batch, pad: int) -> Batch:
    """Put the rows of `second` below those of `first`: one pass through a model then serves both."""
    width = max(first.ids.shape[1], second.ids.shape[1])

    def rows(name: str, fill: int) -> torch.Tensor:
        pair = [getattr(batch, name) for batch in (first, second)]
        missing = [(0,) * (2 * part.dim() - 3) + (width - part.shape[1],) for part in pair]
        return torch.cat(
            [F.pad(part, fit, value=fill) for part, fit in zip(pair, missing, strict=True)]
        )

    flat = {
        name: torch.cat([getattr(first, name), getattr(second, name)])
        for name in ("position", "labels", "index")
    }
    both = (
        first.cached is not None
        and second.cached is not None
        and first.first_block == second.first_block
    )
    return Batch(
        ids=rows("ids", pad),
        mask=rows("mask", 0),
        **flat,
        cached=rows("cached", 0) if both else None,
        first_block=first.first_block,
    )


def batches_by_length(lengths: Ints, size: int) -> list[Ints]:
    """Batches in order of length: the least padding, for passes whose order does not matter."""
    order = np.argsort(lengths, kind="stable")
    return [order[start : start + size] for start in range(0, len(order), size)]


def epoch_batches(
    lengths: Ints, size: int, *, seed: int, epoch: int, window: int = WINDOW
) -> list[Ints]:
    """Every row once, in a random order that is a function of (seed, epoch).

    Rows are sorted by length inside windows of `window` batches, so that little of a batch is padding while
    its company stays random; the batches are then shuffled.
    """
    random = stream(seed, "batches", epoch)
    order = random.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), size * window):
        part = order[start : start + size * window]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches += [part[begin : begin + size] for begin in range(0, len(part), size)]
    return [batches[k] for k in random.permutation(len(batches))]


def endless_batches(lengths: Ints, size: int, *, seed: int, window: int = WINDOW) -> Iterator[Ints]:
    """Batches without end, epoch after epoch: no row is seen again before every row was seen."""
    epoch = 0
    while True:
        yield from epoch_batches(lengths, size, seed=seed, epoch=epoch, window=window)
        epoch += 1


def match_lengths(batches: Sequence[Ints], lengths: Ints, beside: Ints) -> list[Ints]:
    """Reorder `batches`, of rows with `lengths`, so that the n-th longest stands where `beside` is n-th greatest.

    Batches of two sets that go through a model together are padded to the longer one: this makes them about as long.
    """
    order = np.argsort([lengths[batch].max() for batch in batches], kind="stable")
    placed = dict(zip(np.argsort(beside, kind="stable").tolist(), order.tolist(), strict=True))
    return [batches[placed[n]] for n in range(len(batches))]


def row_count_of_steps(steps: int, rows: int, size: int) -> int:
    """Rows in `steps` batches of `endless_batches`, to less than a batch: the last batch of an epoch may be short."""
    return round(steps * rows / math.ceil(rows / size)) if rows else 0
