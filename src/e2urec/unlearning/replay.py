"""The same result with less work: what may be switched off, and the frozen lower blocks computed once for a request."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from ..models.activation_cache import ActivationCache
from ..models.adapters import LoRA
from ..models.batches import WINDOW
from ..models.precision import autocast_type
from ..training.loop import Rows
from .task import Task


class Speed(BaseModel):
    """Ways to the same result with less work, each of which can be switched off: to measure it, or to rule it out."""

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
        description="a pass through the model for each step, each batch of it, or each loss of a batch",
    )
    replay: bool = Field(
        True, description="compute the blocks below the adapters once a row; see lora.upper"
    )
    answer_only: bool = Field(
        True, description="compute the last block at the answer's position alone, where it can be"
    )
    cache_gb: float = Field(
        16.0, ge=0, description="most disk that replay may take, in GB; rows beyond do without"
    )

    @property
    def window(self) -> int:
        """Batches among whose rows those of about the same length find each other."""
        return WINDOW if self.buckets else 1


@contextlib.contextmanager
def replaying(
    task: Task, lora: LoRA, speed: Speed, read: Mapping[str, Sequence[Rows]]
) -> Iterator[Task]:
    """Yield `task` with what the blocks below the adapters make of the rows `read` computed and kept, while inside.

    Args:
        task: of which `forget` and `retain` are read.
        lora: of all adapters that will be put on the original; nothing is kept when they begin at the lowest block.
        speed: whether to do so.
        read: of `forget` and `retain`, the batches that will be read, more than once or by more than one model.
    """
    model, first = task.original, lora.first_block(task.original.lm)
    kind, room = (
        autocast_type(task.precision, model.device),
        speed.cache_gb * 1e9 if first and speed.replay else 0,
    )
    usual, model.answer_only = model.answer_only, model.answer_only and speed.answer_only
    with contextlib.ExitStack() as stack:
        stack.callback(setattr, model, "answer_only", usual)
        if not room:
            yield task
            return
        trunk = stack.enter_context(
            ActivationCache(
                model, first, dtype=kind or torch.float32, max_bytes=int(room), folder=task.scratch
            )
        )
        kept: dict[str, Any] = {}
        with (
            task.costs.phase("cache"),
            torch.autocast(model.device.type, dtype=kind, enabled=kind is not None),
        ):
            for name, batches in read.items():
                needed = np.unique(np.concatenate([np.zeros(0, np.int64), *batches]))
                kept[name] = trunk.attach_states(getattr(task, name), needed)
                task.costs.read("cache", len(needed) if kept[name].cached else 0)
        yield replace(task, **kept)
