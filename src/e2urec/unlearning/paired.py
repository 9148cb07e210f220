"""Batches of D_f and of D_r side by side, read in one pass: what most methods share.

A rival is its two terms: a loss on the logits of the forget rows, and one on those of the retain rows.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from ..core.seeding import derive
from ..models.adapters import LoRA
from ..models.batches import Batch, join_batches, row_count_of_steps
from ..models.recommender import Recommender
from ..training.loop import (
    Combine,
    Losses,
    LossFunction,
    Objective,
    Schedule,
    Step,
    weighted_sum,
)
from .losses import cross_entropy
from .method import Method
from .replay import Speed, with_cached_blocks
from .student import Student, paired_steps
from .task import Task

Term = Callable[[torch.Tensor, Batch], torch.Tensor]
"""Answer-position logits (b, V) of a batch, and the batch → a loss."""


def side_by_side(
    task: Task,
    terms: Mapping[str, Sequence[Term]],
    together: Literal["step", "batch", "loss"] = "step",
) -> LossFunction:
    """Objective: a loss for each batch of a step (`forget`, `retain`), the sum of its `terms`.

    The rows of a step go through the model `together`, or batch by batch, or once for each term.
    """
    model, rows = task.original, {"forget": task.forget, "retain": task.retain}

    def objective(wrapped: nn.Module, step: Step) -> Losses:
        batches = {name: model.collate(rows[name], index) for name, index in step.items()}
        if together == "loss":
            return {
                name: sum_of(term(wrapped(batch), batch) for term in terms[name])
                for name, batch in batches.items()
            }
        if together == "step" and len({batch.cached is None for batch in batches.values()}) == 1:
            whole = reduce(lambda a, b: join_batches(a, b, model.pad), batches.values())
            parts = wrapped(whole).split([len(batch.index) for batch in batches.values()])
        else:
            parts = tuple(wrapped(batch) for batch in batches.values())
        return {
            name: sum_of(term(z, batches[name]) for term in terms[name])
            for name, z in zip(batches, parts, strict=True)
        }

    return objective


def sum_of(losses: Iterable[torch.Tensor]) -> torch.Tensor:
    """Their sum, which of one loss is itself."""
    return reduce(torch.add, losses)


def answered(task: Task) -> Term:
    """Term: cross-entropy of the row's own answer."""
    return lambda z, batch: cross_entropy(z, task.original.verbaliser.tokens(batch.labels))


class Paired(Method):
    """A student on the original, tuned on a batch of D_f and a batch of D_r a step."""

    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "learning_rate": (5e-4, 1e-3, 2e-3),
        "passes": (1.0, 2.0, 4.0),
    }

    passes: float = Field(1.0, gt=0, description="passes over D_f")
    min_steps: int = Field(16, ge=1, description="least steps, however few rows D_f has")
    learning_rate: float = Field(1e-3, gt=0, description="highest learning rate of the student")
    batch_size: int = Field(16, ge=1, description="rows of D_f, and of D_r, a step")
    lora: LoRA = Field(LoRA(rank=8, alpha=16, targets="all"), description="adapter of the student")
    speed: Speed = Field(Speed(), description="ways to the same result with less work")

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
        count = self.updates(len(task.forget), len(task.retain), task.tuning.schedule)
        steps = paired_steps(task, count, self.batch_size, seed=seed, speed=self.speed)
        read = {name: [step[name] for step in steps] for name in ("forget", "retain")}
        with with_cached_blocks(task, self.lora, self.speed, read) as task:
            with task.costs.phase("teachers"):
                terms = {name: [term] for name, term in self.terms(task, steps).items()}
            with Student(task, self.lora, seed=seed) as student:
                losses = side_by_side(task, terms, self.speed.together)
                objective = Objective(losses, combine=self.combine)
                schedule = task.schedule(self.batch_size, self.learning_rate)
                student.fit(self.name, steps, objective, schedule)
                return student.finish()

    def plan(self, forget: int, retain: int, schedule: Schedule) -> dict[str, int]:
        """Rows of both sets."""
        count = self.updates(forget, retain, schedule)
        return {
            self.name: sum(
                row_count_of_steps(count, rows, self.batch_size) for rows in (forget, retain)
            )
        }

    def updates(self, forget: int, retain: int, schedule: Schedule) -> int:
        """Steps of the student."""
        return max(self.min_steps, math.ceil(self.passes * math.ceil(forget / self.batch_size)))
