"""The student: one new adapter on the original, the only thing that a method moves."""

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from ..models import adapters
from ..models.adapters import LoRA
from ..models.batches import WINDOW, Examples, alike, endless
from ..models.recommender import Recommender
from ..models.trunk import Trunk
from ..predictions import Live, states
from ..seeding import derive
from ..task import Task
from ..teachers import FrozenTeacher
from ..training import Combine, Objective, Rows, Schedule, Step, autocast_type, fit, weighted_sum


class Speed(BaseModel):
    """Ways to the same result with less work, each of which can be switched off: to measure it, or to rule it out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kept_teachers: bool = Field(True, description="compute each teacher's answer once and keep its state")
    buckets: bool = Field(True, description="put rows of about the same length into a batch, and such batches together")
    together: Literal["step", "batch", "loss"] = Field(
        "step", description="a pass through the model for each step, each batch of it, or each loss of a batch"
    )
    replay: bool = Field(True, description="compute the blocks below the adapters once a row; see lora.upper")
    answer_only: bool = Field(
        True, description="compute the last block at the answer's position alone, where it can be"
    )
    trunk_gb: float = Field(16.0, ge=0, description="most disk that replay may take, in GB; rows beyond do without")

    @property
    def window(self) -> int:
        """Batches among whose rows those of about the same length find each other."""
        return WINDOW if self.buckets else 1


class Student:
    """Attaches adapter `student` to the original of a task; on leaving early, takes it off again.

    The original's own adapter, if it has one, stays active and frozen below the student.
    """

    def __init__(self, task: Task, lora: LoRA, *, seed: int, name: str = "student") -> None:
        self.task, self.name, self.seed = task, name, seed
        self.model = task.original
        self.model.lm = adapters.attach(self.model.lm, name, lora, seed=seed)
        self.active = (*self.model.active, name)
        self.finished = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.finished:
            self.discard()

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of the adapter's A and B matrices."""
        return adapters.weights(self.model.lm, self.name)

    def start_at(self, weights: dict[str, torch.Tensor], scale: float) -> None:
        """Start where `scale` times the update of another adapter of the same shape leads."""
        adapters.put(self.model.lm, self.name, weights, scale)

    def fit(
        self,
        phase: str,
        steps: Sequence[Step],
        objective: Objective,
        schedule: Schedule,
        weights: Mapping[str, float] | None = None,
        combine: Combine = weighted_sum,
    ) -> None:
        """Take `steps` with the student alone trainable; seconds and rows count for `phase`."""
        if not steps:
            return
        task = self.task
        with task.costs.phase(phase), self.model.using(self.active, train=self.name) as parameters:
            trace = fit(
                self.model, parameters, lambda epoch: steps, objective, schedule,
                seed=self.seed, weights=weights, combine=combine, progress=task.progress, phase=phase,
            )  # fmt: skip
        task.costs.read(phase, trace.rows)

    def parameter_count(self) -> int:
        """Parameters of the adapter."""
        with self.model.using(self.active, train=self.name) as parameters:
            return sum(parameter.numel() for parameter in parameters)

    def discard(self) -> None:
        """Take the adapter off and forget its weights."""
        self.model.lm = adapters.drop(self.model.lm, self.name)
        self.finished = True

    def finish(self) -> Recommender:
        """Fold the student into the original: merged if that was fully tuned, one replacement adapter if LoRA.

        A student beside a fully tuned original would forget nothing once it is taken off (method, section 6).
        """
        self.task.costs.trainable = self.parameter_count()
        if self.model.active:
            adapters.concatenate(self.model.lm, self.active, "unlearned")
            self.model.active = ("unlearned",)
        else:
            self.model.lm = adapters.merge(self.model.lm, self.active)
        self.finished = True
        return self.model


def frozen(model: Recommender, task: Task, rows: Examples, read: Sequence[Rows], *, once: bool = True) -> FrozenTeacher:
    """`model`'s answers to those of `rows` that some batch of `read` holds, each computed `once` or whenever asked."""
    weight, bias = model.head
    head = (weight.detach(), None if bias is None else bias.detach())
    needed = np.unique(np.concatenate([np.zeros(0, np.int64), *read]))
    asked = torch.from_numpy(needed).to(model.device)
    if not once:
        return FrozenTeacher(Live(model, rows, model.active, task.precision), head, asked)
    kept = torch.zeros((len(rows), weight.shape[1]), device=model.device)
    if len(needed):
        kept[asked] = states(model, rows.take(needed), precision=task.precision)
        task.costs.read("teachers", len(needed))
    return FrozenTeacher(kept, head, asked)


def pairs(task: Task, count: int, size: int, *, seed: int, speed: Speed) -> list[Step]:
    """`count` steps of a batch of D_f and one of D_r. Each set is gone through before a row of it is read twice."""
    forget, retain = (
        list(itertools.islice(endless(rows.lengths, size, seed=derived, window=speed.window), count))
        for rows, derived in ((task.forget, seed), (task.retain, derive(seed, "retain")))
    )
    if speed.buckets:
        retain = alike(retain, task.retain.lengths, np.array([task.forget.lengths[rows].max() for rows in forget]))
    return [{"forget": first, "retain": second} for first, second in zip(forget, retain, strict=True)]


@contextlib.contextmanager
def replaying(task: Task, lora: LoRA, speed: Speed, read: Mapping[str, Sequence[Rows]]) -> Iterator[Task]:
    """Yield `task` with what the blocks below the adapters make of the rows `read` computed and kept, while inside.

    Args:
        task: of which `forget` and `retain` are read.
        lora: of all adapters that will be put on the original; nothing is kept when they begin at the lowest block.
        speed: whether to do so.
        read: of `forget` and `retain`, the batches that will be read, more than once or by more than one model.
    """
    model, first = task.original, lora.first(task.original.lm)
    kind, room = autocast_type(task.precision, model.device), speed.trunk_gb * 1e9 if first and speed.replay else 0
    usual, model.answer_only = model.answer_only, model.answer_only and speed.answer_only
    with contextlib.ExitStack() as stack:
        stack.callback(setattr, model, "answer_only", usual)
        if not room:
            yield task
            return
        trunk = stack.enter_context(
            Trunk(model, first, kind=kind or torch.float32, folder=task.scratch, room=int(room))
        )
        kept: dict[str, Any] = {}
        with task.costs.phase("trunk"), torch.autocast(model.device.type, dtype=kind, enabled=kind is not None):
            for name, batches in read.items():
                needed = np.unique(np.concatenate([np.zeros(0, np.int64), *batches]))
                kept[name] = trunk.keep(getattr(task, name), needed)
                task.costs.read("trunk", len(needed) if kept[name].below else 0)
        yield replace(task, **kept)
