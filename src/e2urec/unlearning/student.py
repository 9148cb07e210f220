"""The student: one new adapter on the original, the only thing that a method moves."""

import itertools
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import numpy as np
import torch

from ..core.seeding import derive
from ..models import adapter_algebra, adapters
from ..models.adapters import LoRA
from ..models.batches import Examples, endless_batches, match_lengths
from ..models.predictions import LiveStates, answer_states
from ..models.recommender import Recommender
from ..training.loop import Combine, Objective, Rows, Schedule, Step, fit, weighted_sum
from .replay import Speed
from .task import Task
from .teachers import FrozenTeacher


class Student:
    """Attaches adapter `student` to the original of a task; on leaving early, takes it off again.

    The original's own adapter, if it has one, stays active and frozen below the student.
    """

    def __init__(self, task: Task, lora: LoRA, *, seed: int, name: str = "student") -> None:
        self.task, self.lora, self.name, self.seed = task, lora, name, seed
        self.model = task.original
        self.model.lm = adapters.attach(self.model.lm, name, lora, seed=seed)
        self.active = (*self.model.active, name)
        self.finished = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.finished:
            self.discard()

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of the adapter's A and B matrices."""
        return adapters.weights(self.model.lm, self.name)

    def start_at(self, weights: dict[str, torch.Tensor], scale: float) -> None:
        """Start where `scale` times the update of another adapter of the same shape leads."""
        adapters.load_weights(self.model.lm, self.name, weights, scale)

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
                self.model,
                parameters,
                lambda epoch: steps,
                objective,
                schedule,
                seed=self.seed,
                weights=weights,
                combine=combine,
                progress=task.progress,
                phase=phase,
            )
        task.costs.read(phase, trace.rows)

    def parameter_count(self) -> int:
        """Parameters of the adapter."""
        with self.model.using(self.active, train=self.name) as parameters:
            return sum(parameter.numel() for parameter in parameters)

    def discard(self) -> None:
        """Take the adapter off and forget its weights."""
        self.model.lm = adapters.remove(self.model.lm, self.name)
        self.finished = True

    def finish(self) -> Recommender:
        """Fold the student into the original: merged if that was fully tuned, one replacement adapter if LoRA.

        A student beside a fully tuned original would forget nothing once it is taken off (method, section 6). The
        replacement's rank is the sum of both after the first request, and no more after any number of them, unless a
        student of a higher rank is asked for.
        """
        self.task.costs.trainable = self.parameter_count()
        if self.model.active:
            tuned = self.task.tuning.lora
            now = adapter_algebra.total_rank(self.model.lm, self.model.active)
            most = max(now, tuned.rank + self.lora.rank) if tuned else None
            adapter_algebra.concatenate(self.model.lm, self.active, "unlearned", rank=most)
            self.model.active = ("unlearned",)
        else:
            self.model.lm = adapter_algebra.merge(self.model.lm, self.active)
        self.finished = True
        return self.model


def frozen(
    model: Recommender, task: Task, rows: Examples, read: Sequence[Rows], *, once: bool = True
) -> FrozenTeacher:
    """`model`'s answers to those of `rows` that some batch of `read` holds, each computed `once` or whenever asked."""
    weight, bias = model.head
    head = (weight.detach(), None if bias is None else bias.detach())
    needed = np.unique(np.concatenate([np.zeros(0, np.int64), *read]))
    asked = torch.from_numpy(needed).to(model.device)
    if not once:
        return FrozenTeacher(LiveStates(model, rows, model.active, task.precision), head, asked)
    kept = torch.zeros((len(rows), weight.shape[1]), device=model.device)
    if len(needed):
        kept[asked] = answer_states(model, rows.take(needed), precision=task.precision)
        task.costs.read("teachers", len(needed))
    return FrozenTeacher(kept, head, asked)


def pairs(task: Task, count: int, size: int, *, seed: int, speed: Speed) -> list[Step]:
    """`count` steps of a batch of D_f and one of D_r. Each set is gone through before a row of it is read twice."""
    forget, retain = (
        list(
            itertools.islice(
                endless_batches(rows.lengths, size, seed=derived, window=speed.window), count
            )
        )
        for rows, derived in ((task.forget, seed), (task.retain, derive(seed, "retain")))
    )
    if speed.buckets:
        retain = match_lengths(
            retain,
            task.retain.lengths,
            np.array([task.forget.lengths[rows].max() for rows in forget]),
        )
    return [
        {"forget": first, "retain": second} for first, second in zip(forget, retain, strict=True)
    ]
