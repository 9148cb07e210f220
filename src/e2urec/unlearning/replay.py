"""The same result with less work.

What may be switched off, and the frozen lower blocks computed once for a request.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from ..core.arrays import Ints
from ..models.activation_cache import ActivationCache
from ..models.adapters import LoRA
from ..models.batches import WINDOW, Examples
from ..models.precision import autocast_type
from ..models.recommender import Recommender
from ..training.loop import Rows
from .task import Task


class Speed(BaseModel):
    """Ways to the same result with less work.

    Each can be switched off: to measure what it saves, or to rule it out as a cause.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kept_teachers: bool = Field(
        True, description="compute each teacher's answer once and keep its state"
    )
    buckets: bool = Field(
        True,
        description="put rows of about the same length into a batch, and such batches together",
    )
    together: Literal["step", "batch", "loss"] = Field(
        "step",
        description="what goes through the model in one pass: the rows of a step, of each of its "
        "batches, or of each loss of a batch",
    )
    replay: bool = Field(
        True, description="compute the blocks below the adapters once for each row; see lora.upper"
    )
    answer_only: bool = Field(
        True, description="compute the last block at the answer's position alone, where possible"
    )
    cache_gb: float = Field(
        16.0,
        ge=0,
        description="most disk space that replay may take, in GB; further rows are not cached",
    )

    @property
    def window(self) -> int:
        """Batches among whose rows those of about the same length are put together."""
        return WINDOW if self.buckets else 1


def distinct_rows(batches: Sequence[Rows]) -> Ints:
    """The rows that some batch holds, each once, in ascending order."""
    # The empty array makes an empty sequence of batches no special case.
    return np.unique(np.concatenate([np.zeros(0, np.int64), *batches]))


@contextlib.contextmanager
def with_cached_blocks(
    task: Task, lora: LoRA, speed: Speed, batches: Mapping[str, Sequence[Rows]]
) -> Iterator[Task]:
    """Yield `task` with what the blocks below the adapters compute kept for the rows of `batches`.

    Args:
        task: with the sets `forget` and `retain`.
        lora: of all adapters that will be put on the original; nothing is kept when they begin at
            the lowest block.
        speed: whether to do so.
        batches: of `forget` and `retain`, those that will be read, more than once or by more than
            one model.
    """
    model = task.original
    first_block = lora.first_block(model.lm)
    room = int(speed.cache_gb * 1e9)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_answer_position(model, speed))
        if not (first_block and speed.replay and room):
            yield task
            return
        kind = autocast_type(task.precision, model.device) or torch.float32
        cache = ActivationCache(model, first_block, kind=kind, folder=task.scratch, room=room)
        stack.enter_context(cache)
        yield replace(task, **_cached_sets(task, cache, batches))


@contextlib.contextmanager
def _answer_position(model: Recommender, speed: Speed) -> Iterator[None]:
    """Inside, the last block is computed at the answer alone where model and settings allow it."""
    before = model.answer_only
    model.answer_only = before and speed.answer_only
    try:
        yield
    finally:
        model.answer_only = before


def _cached_sets(
    task: Task, cache: ActivationCache, batches: Mapping[str, Sequence[Rows]]
) -> dict[str, Examples]:
    """The sets of `task` by name, with the rows of `batches` in the cache."""
    low = autocast_type(task.precision, task.original.device)
    autocast = torch.autocast(task.original.device.type, dtype=low, enabled=low is not None)
    sets = {}
    with task.costs.phase("cache"), autocast:
        for name, set_batches in batches.items():
            needed = distinct_rows(set_batches)
            examples = cache.keep(getattr(task, name), needed)
            sets[name] = examples
            task.costs.count_rows("cache", len(needed) if examples.cached else 0)
    return sets
