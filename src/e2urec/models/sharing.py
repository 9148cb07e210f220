"""Work without a gradient that the processes of a launcher share: each does a part, all get it all.

Every process must make the same calls in the same order; one that does not waits for the others
for ever. Without a launcher everything here does what a plain loop does.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from accelerate.utils import gather, pad_across_processes, reduce

from ..core.arrays import Ints
from ..core.launch import join_processes
from ..core.process import process_count, rank
from .devices import default_device

T = TypeVar("T")


def own_share(items: Sequence[T]) -> Sequence[T]:
    """Those of `items` that this process works on; there may be none."""
    return items[rank() :: process_count()]


def in_turns(
    batches: Sequence[Ints], ask: Callable[[Ints], torch.Tensor]
) -> Iterator[torch.Tensor]:
    """Yield what `ask` says of each batch (b, t, …), in the order of the batches.

    Every process asks about its share of the batches, and all get the same bits. Columns may be
    padded with zeros up to the widest answer of a turn.
    """
    count = process_count()
    if count == 1:
        yield from map(ask, batches)
        return
    join_processes()
    for first in range(0, len(batches), count):
        turn = batches[first : first + count]
        # The last turn may have no batch for this process. It asks about one all the same, since
        # the blocks of a split base are gathered by all processes together.
        part = ask(turn[min(rank(), len(turn) - 1)])
        part = pad_across_processes(part.contiguous(), dim=0)
        part = pad_across_processes(part, dim=1)
        by_process = gather(part[None])
        for batch, answers in zip(turn, by_process, strict=False):
            yield answers[: len(batch)]


def sum_over_processes(part: torch.Tensor) -> torch.Tensor:
    """The sum of what all processes have, of one shape."""
    if process_count() == 1:
        return part
    join_processes()
    total: torch.Tensor = reduce(part, reduction="sum")
    return total


def is_true_for_all(flag: bool) -> bool:
    """Whether `flag` is true in every process; what each sees on the disk may differ for a moment.

    No process goes on before all have asked.
    """
    votes = torch.tensor(int(flag), device=default_device())
    return int(sum_over_processes(votes)) == process_count()
