"""The same result with less work.

What may be switched off, and the frozen lower blocks computed once for a request.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from ..core.arrays import Ints
from ..models.activation_cache import ActivationCache, open_cache
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

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

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
    no_rows = np.zeros(0, np.int64)
    rows = np.concatenate([no_rows, *batches])
    return np.unique(rows)


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
    with _answer_position(model, speed):
        if not speed.replay:
            yield task
            return
        with open_cache(
            model,
            lora.first_block(model.lm),
            precision=task.precision,
            max_gb=speed.cache_gb,
            folder=task.scratch,
        ) as cache:
            yield task if cache is None else replace(task, **_cached_sets(task, cache, batches))


@contextlib.contextmanager
def _answer_position(model: Recommender, speed: Speed) -> Iterator[None]:
    """Inside, the last block is computed at the answer alone where model and settings allow it."""
    model_setting = model.answer_only
    model.answer_only = model_setting and speed.answer_only
    # Put back after an interrupt as well: the model is the caller's.
    try:
        yield
    finally:
        model.answer_only = model_setting


def _cached_sets(
    task: Task, cache: ActivationCache, batches: Mapping[str, Sequence[Rows]]
) -> dict[str, Any]:
    """The sets of `task` by name, with the rows of `batches` in the cache."""
    costs = task.costs
    device = task.original.device
    low = autocast_type(task.precision, device)
    autocast = torch.autocast(device.type, dtype=low, enabled=low is not None)
    sets = {}
    with costs.phase("cache"), autocast:
        for name, set_batches in batches.items():
            needed_rows = distinct_rows(set_batches)
            examples: Examples = getattr(task, name)
            previous_count = cache.row_count
            sets[name] = cache.attach_states(examples, needed_rows)
            costs.count_rows("cache", cache.row_count - previous_count)
    cache.warn_of_bound("speed.cache_gb")
    return sets
