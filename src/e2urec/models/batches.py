"""Samples → token rows → batches. Text exists only while it is being tokenised."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from ..data.interactions import Samples
from ..data.prompts import PromptTemplate
from ..seeding import stream
from .answers import prompt_ids

Ints = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Examples:
    """Tokenised prompts with their labels.

    Attributes:
        tokens: (sum of lengths,) int32, all prompts one after another.
        offsets: (n + 1,) int64; row i is `tokens[offsets[i]:offsets[i + 1]]`.
        labels: (n,) int8, 1 = liked.
        users: (n,) int32 user codes, for statistics clustered by user.
        truncated: rows whose prompt was longer than the window and lost its beginning.
    """

    tokens: Ints
    offsets: Ints
    labels: Ints
    users: Ints
    truncated: int = 0

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
        )


def concatenate(parts: Sequence[Examples]) -> Examples:
    """All rows of `parts`, one part after another."""
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ("tokens", "labels", "users")}
    lengths = np.concatenate([part.lengths for part in parts])
    return Examples(**columns, offsets=np.cumsum([0, *lengths]), truncated=sum(part.truncated for part in parts))


@dataclass(frozen=True)
class Batch:
    """Right-padded rows: `ids` and `mask` (b, t), `position` (b,) of the answer, `labels` (b,), `index` (b,)."""

    ids: torch.Tensor
    mask: torch.Tensor
    position: torch.Tensor
    labels: torch.Tensor
    index: torch.Tensor

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on `device`."""
        return Batch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def tokenise(
    samples: Samples,
    template: PromptTemplate,
    tokenizer: Any,
    *,
    seq2seq: bool,
    window: int,
    chunk: int = 4096,
) -> Examples:
    """Render and tokenise `samples` in chunks; a prompt beyond `window` tokens loses its beginning."""
    rows: list[list[int]] = []
    for start in range(0, len(samples), chunk):
        part = samples.take(np.arange(start, min(start + chunk, len(samples))))
        rows += prompt_ids(tokenizer, template.render(part), seq2seq=seq2seq)
    return pack(rows, samples.labels, samples.users, window=window)


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
    """Pad rows `index` on the right to the longest of them."""
    starts, lengths = examples.offsets[index], examples.lengths[index]
    columns = np.arange(lengths.max())
    mask = columns < lengths[:, None]
    ids = np.full(mask.shape, pad, dtype=np.int64)
    ids[mask] = examples.tokens[(starts[:, None] + columns)[mask]]
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(mask.astype(np.int64)),
        torch.from_numpy(lengths - 1),
        torch.from_numpy(examples.labels[index].astype(np.int64)),
        torch.from_numpy(np.asarray(index, dtype=np.int64)),
    )


def join(first: Batch, second: Batch, pad: int) -> Batch:
    """Put the rows of `second` below those of `first`: one pass through a model then serves both."""
    width = max(first.ids.shape[1], second.ids.shape[1])
    fill = {"ids": pad, "mask": 0}
    parts = {}
    for name in Batch.__dataclass_fields__:
        pair = [getattr(batch, name) for batch in (first, second)]
        if name in fill:
            pair = [F.pad(rows, (0, width - rows.shape[1]), value=fill[name]) for rows in pair]
        parts[name] = torch.cat(pair)
    return Batch(**parts)


def by_length(lengths: Ints, size: int) -> list[Ints]:
    """Batches in order of length: the least padding, for passes whose order does not matter."""
    order = np.argsort(lengths, kind="stable")
    return [order[start : start + size] for start in range(0, len(order), size)]


def shuffled(lengths: Ints, size: int, *, seed: int, epoch: int, window: int = 16) -> list[Ints]:
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


def endless(lengths: Ints, size: int, *, seed: int) -> Iterator[Ints]:
    """Batches without end, epoch after epoch: no row is seen again before every row was seen."""
    epoch = 0
    while True:
        yield from shuffled(lengths, size, seed=seed, epoch=epoch)
        epoch += 1


def rows_read(steps: int, rows: int, size: int) -> int:
    """Rows in `steps` batches of `endless`, to less than a batch: the last batch of an epoch may be short."""
    return round(steps * rows / math.ceil(rows / size)) if rows else 0
