"""Tokenised rows, and batches of them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import numpy as np
import torch
import torch.nn.functional as F

from ..core.arrays import Ints, Mask
from ..core.seeding import stream

# Kernels are made, and kept in memory, for each shape that a model sees. Eight leaves few shapes
# (see docs/evidence/log.md on memory) and adds at most seven columns of padding.
COLUMN_MULTIPLE = 8
"""The number of columns of a batch is a multiple of this."""

# Sixteen batches hold enough rows to put those of about the same length together. They are few
# enough, of an epoch's hundreds, to leave to chance which rows share a batch.
WINDOW = 16
"""Number of batches whose rows are sorted by length together."""


# A row's neighbours change its answer in the last digits of float32. With one number for all
# measurements, the models that are compared answer in the same batches.
FORWARD_BATCH_SIZE = 32
"""Number of rows in a batch when a model only answers."""


class CachedStates(Protocol):
    """States of rows at the input of block `first_block`; see `CachedActivations`."""

    @property
    def model(self) -> object:
        """The model whose states they are: no other may use them."""

    @property
    def first_block(self) -> int:
        """The block."""

    def take(self, index: Ints) -> Self:
        """Return the states of rows `index` alone."""

    def read(self, index: Ints, width: int) -> torch.Tensor | None:
        """Return (b, width, d), padded on the right; None if no row is cached."""

    def holds(self, index: Ints) -> Mask:
        """Return (b,) True for the rows of `index` that are cached."""


@dataclass(frozen=True)
class Examples:
    """Tokenised prompts with their labels.

    Attributes:
        tokens: (sum of lengths,) int32, all prompts one after another.
        offsets: (n + 1,) int64; row i is `tokens[offsets[i]:offsets[i + 1]]`.
        labels: (n,) int8, 1 = liked.
        users: (n,) int32 user codes, for statistics clustered by user.
        truncated: number of rows whose prompt was longer than the window and lost its beginning.
        cached: the states that the model's lower blocks compute for rows, where they were cached.
    """

    tokens: Ints
    offsets: Ints
    labels: Ints
    users: Ints
    truncated: int = 0
    cached: CachedStates | None = None

    @classmethod
    def empty(cls) -> "Examples":
        """No rows."""
        no_rows = np.zeros(0, np.int8)
        return pack([], no_rows, no_rows.astype(np.int32), window=1)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> Ints:
        """(n,) number of tokens of each prompt."""
        return np.diff(self.offsets)

    def take(self, index: Ints) -> "Examples":
        """Return rows `index`, in that order."""
        starts = self.offsets[:-1][index]
        ends = self.offsets[1:][index]
        rows = [self.tokens[start:end] for start, end in zip(starts, ends, strict=True)]
        return replace(
            self,
            # An empty piece in front gives the right type when there are no rows.
            tokens=np.concatenate([self.tokens[:0], *rows]),
            offsets=_offsets(rows),
            labels=self.labels[index],
            users=self.users[index],
            cached=self.cached and self.cached.take(index),
        )


def concatenate(parts: Sequence[Examples]) -> Examples:
    """Return all rows of `parts`, one part after another; cached states are left out."""
    lengths = np.concatenate([part.lengths for part in parts])
    return Examples(
        tokens=np.concatenate([part.tokens for part in parts]),
        offsets=np.cumsum([0, *lengths]),
        labels=np.concatenate([part.labels for part in parts]),
        users=np.concatenate([part.users for part in parts]),
        truncated=sum(part.truncated for part in parts),
    )


def pack(rows: Sequence[Sequence[int]], labels: Ints, users: Ints, *, window: int) -> Examples:
    """Lay token rows one after another, each cut to its last `window` tokens."""
    cut_rows = [np.asarray(row[-window:], dtype=np.int32) for row in rows]
    return Examples(
        tokens=np.concatenate([np.zeros(0, np.int32), *cut_rows]),
        offsets=_offsets(cut_rows),
        labels=labels,
        users=users,
        truncated=sum(len(row) > window for row in rows),
    )


def _offsets(rows: Sequence[Ints]) -> Ints:
    return np.cumsum([0, *map(len, rows)])


@dataclass(frozen=True)
class Batch:
    """Rows of tokens, padded on the right.

    Attributes:
        ids: (b, t) token ids.
        mask: (b, t) 1 where there is a token, 0 where there is padding.
        position: (b,) column of the answer.
        labels: (b,) 1 = liked.
        index: (b,) number of each row in its examples.
        cached: (b, t, d) input of block `first_block`, whose lower blocks need not be computed
            then; None where they must be.
        first_block: the block.
        is_cached: (b,) False for rows that `cached` lacks; None: it has all of them.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    position: torch.Tensor
    labels: torch.Tensor
    index: torch.Tensor
    cached: torch.Tensor | None = None
    first_block: int = 0
    is_cached: torch.Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on `device`."""
        tensors: dict[str, Any] = {
            name: value.to(device)
            for name, value in vars(self).items()
            if isinstance(value, torch.Tensor)
        }
        return replace(self, **tensors)


def collate(examples: Examples, index: Ints, pad: int) -> Batch:
    """Pad rows `index` on the right with token `pad`.

    The width is that of the longest row, rounded up to a multiple of `COLUMN_MULTIPLE`.
    """
    starts = examples.offsets[index]
    lengths = examples.lengths[index]
    longest = lengths.max()
    width = math.ceil(longest / COLUMN_MULTIPLE) * COLUMN_MULTIPLE
    columns = np.arange(width)
    mask = columns < lengths[:, None]
    token_places = starts[:, None] + columns
    ids = np.full(mask.shape, pad, dtype=np.int64)
    ids[mask] = examples.tokens[token_places[mask]]
    batch = Batch(
        ids=torch.from_numpy(ids),
        mask=_as_int64(mask),
        position=torch.from_numpy(lengths - 1),
        labels=_as_int64(examples.labels[index]),
        index=_as_int64(index),
    )
    cached = examples.cached
    if cached is None:
        return batch
    states = cached.read(index, width)
    if states is None:
        return batch
    is_cached = cached.holds(index)
    return replace(
        batch,
        cached=states,
        first_block=cached.first_block,
        is_cached=None if is_cached.all() else torch.from_numpy(is_cached),
    )


def _as_int64(values: Ints | Mask) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.int64))


def join_batches(first: Batch, second: Batch, pad: int) -> Batch:
    """Put the rows of `second` below those of `first`, for one pass through a model.

    Cached states stay only where both batches have those of the same block.
    """
    cached = None
    is_cached = None
    same_block = first.first_block == second.first_block
    if same_block and first.cached is not None and second.cached is not None:
        cached = _stack(first.cached, second.cached, fill=0)
        if first.is_cached is not None or second.is_cached is not None:
            is_cached = torch.cat([_is_cached(first), _is_cached(second)])
    return Batch(
        ids=_stack(first.ids, second.ids, fill=pad),
        mask=_stack(first.mask, second.mask, fill=0),
        position=torch.cat([first.position, second.position]),
        labels=torch.cat([first.labels, second.labels]),
        index=torch.cat([first.index, second.index]),
        cached=cached,
        first_block=first.first_block,
        is_cached=is_cached,
    )


def _is_cached(batch: Batch) -> torch.Tensor:
    """`Batch.is_cached`, spelt out where all rows are."""
    if batch.is_cached is not None:
        return batch.is_cached
    return torch.ones_like(batch.index, dtype=torch.bool)


def _stack(first: torch.Tensor, second: torch.Tensor, *, fill: int) -> torch.Tensor:
    """Put (b, t, …) below (a, s, …), the narrower one filled up on the right."""
    width = max(first.shape[1], second.shape[1])
    parts = []
    for part in (first, second):
        # F.pad begins at the last dimension; the columns are dimension 1.
        missing = width - part.shape[1]
        padding = [0, 0] * (part.dim() - 2) + [0, missing]
        padded = F.pad(part, padding, value=fill)
        parts.append(padded)
    return torch.cat(parts)


def batches_by_length(lengths: Ints, size: int) -> list[Ints]:
    """Batches of rows in order of length: the least padding, where the order does not matter."""
    order = np.argsort(lengths, kind="stable")
    return _slices(order, size)


def epoch_batches(
    lengths: Ints, size: int, *, seed: int, epoch: int, window: int = WINDOW
) -> list[Ints]:
    """Every row once, in a random order that depends on (seed, epoch) alone.

    Rows are sorted by length inside windows of `window` batches. Little of a batch is padding
    then, while chance still decides which rows share a batch. The batches are shuffled afterwards.
    """
    random = stream(seed, "batches", epoch)
    order = random.permutation(len(lengths))
    batches: list[Ints] = []
    for rows in _slices(order, size * window):
        by_length = np.argsort(lengths[rows], kind="stable")
        batches += _slices(rows[by_length], size)
    batch_order = random.permutation(len(batches))
    return [batches[k] for k in batch_order]


def _slices(rows: Ints, size: int) -> list[Ints]:
    starts = range(0, len(rows), size)
    return [rows[start : start + size] for start in starts]


def endless_batches(lengths: Ints, size: int, *, seed: int, window: int = WINDOW) -> Iterator[Ints]:
    """Batches without end, epoch after epoch: no row comes twice before every row came once."""
    # An epoch after the other, not draws with replacement: every row is to count the same.
    epoch = 0
    while True:
        yield from epoch_batches(lengths, size, seed=seed, epoch=epoch, window=window)
        epoch += 1


def match_lengths(batches: Sequence[Ints], lengths: Ints, partner_lengths: Ints) -> list[Ints]:
    """Reorder `batches` so that long ones meet long partners, and short ones short partners.

    Two batches that go through a model together are padded to the longer one. In the result, the
    n-th longest batch stands where `partner_lengths` is n-th greatest.

    Args:
        batches: rows of each batch.
        lengths: number of tokens of each row.
        partner_lengths: (number of batches,) length of the batch that stands beside each.
    """
    batch_lengths = [lengths[batch].max() for batch in batches]
    order = np.argsort(batch_lengths, kind="stable")
    places = np.argsort(partner_lengths, kind="stable")
    reordered = list(batches)
    for place, number in zip(places, order, strict=True):
        reordered[place] = batches[number]
    return reordered


def row_count_of_steps(steps: int, rows: int, size: int) -> int:
    """Number of rows in `steps` batches of `endless_batches`, to within one batch.

    It is not exact because the last batch of an epoch may be short.
    """
    if not rows:
        return 0
    return round(steps * rows / math.ceil(rows / size))
