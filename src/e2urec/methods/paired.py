"""Batches of D_f and of D_r side by side, read in one pass: what most methods share.

A rival is its two terms: a loss on the logits of the forget rows, and one on those of the retain rows.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn

from ..losses import cross_entropy
from ..models.adapters import LoRA
from ..models.batches import Batch, endless, join, rows_read
from ..models.recommender import Recommender
from ..seeding import derive
from ..task import Method, Task
from ..training import Combine, Losses, Objective, Schedule, Step, weighted_sum
from .student import Student

Term = Callable[[torch.Tensor, Batch], torch.Tensor]
"""Answer-position logits (b, V) of a batch, and the batch → a loss."""


def side_by_side(task: Task, terms: Mapping[str, Term]) -> Objective:
    """Objective: the rows of a step (`forget`, `retain`) go through the model together, then each to its term."""
    model, rows = task.original, {"forget": task.forget, "retain": task.retain}

    def objective(wrapped: nn.Module, step: Step) -> Losses:
        batches = {name: model.collate(rows[name], index) for name, index in step.items()}
        whole = reduce(lambda a, b: join(a, b, model.pad), batches.values())
        parts = wrapped(whole).split([len(batch.index) for batch in batches.values()])
        return {name: terms[name](z, batches[name]) for name, z in zip(batches, parts, strict=True)}

    return objective


def answered(task: Task) -> Term:
    """Term: cross-entropy of the row's own answer."""
    return lambda z, batch: cross_entropy(z, task.original.answers.tokens(batch.labels))


class Paired(Method):
    """A student on the original, tuned on a batch of D_f and a batch of D_r a step."""

    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {"learning_rate": (5e-4, 1e-3, 2e-3), "passes": (1.0, 2.0, 4.0)}

    passes: float = Field(1.0, gt=0, description="passes over D_f")
    fewest: int = Field(16, ge=1, description="least steps, however few rows D_f has")
    learning_rate: float = Field(1e-3, gt=0, description="highest learning rate of the student")
    batch_size: int = Field(16, ge=1, description="rows of D_f, and of D_r, a step")
    lora: LoRA = Field(LoRA(rank=8, alpha=16, targets="all"), description="adapter of the student")

    def terms(self, task: Task, steps: Sequence[Step]) -> Mapping[str, Term]:
        """The two losses, `forget` and `retain`, that a step adds up."""
        raise NotImplementedError

    @property
    def combine(self) -> Combine:
        """How the gradients of the two losses become one."""
        return weighted_sum

    def unlearn(self, task: Task) -> Recommender:
        """Return the original with the student merged or concatenated into it."""
        seed = derive(task.seed, self.name)
        forget = endless(task.forget.lengths, self.batch_size, seed=seed)
        retain = endless(task.retain.lengths, self.batch_size, seed=derive(seed, "retain"))
        count = self.updates(len(task.forget), len(task.retain), task.tuning.schedule)
        steps: list[Step] = [{"forget": next(forget), "retain": next(retain)} for _ in range(count)]
        with task.costs.phase("teachers"):
            terms = self.terms(task, steps)
        with Student(task, self.lora, seed=seed) as student:
            schedule = task.schedule(self.batch_size, self.learning_rate)
            student.fit(self.name, steps, side_by_side(task, terms), schedule, combine=self.combine)
            return student.finish()

    def plan(self, forget: int, retain: int, schedule: Schedule) -> dict[str, int]:
        """Rows of both sets."""
        count = self.updates(forget, retain, schedule)
        return {self.name: sum(rows_read(count, rows, self.batch_size) for rows in (forget, retain))}

    def updates(self, forget: int, retain: int, schedule: Schedule) -> int:
        """Steps of the student."""
        return max(self.fewest, math.ceil(self.passes * math.ceil(forget / self.batch_size)))
