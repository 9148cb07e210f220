"""Methods that read batches of D_f and of D_r side by side: what most rivals share.

A rival is its two terms: a loss on the logits of the forget rows, and one on those of the retain
rows.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from ..core.seeding import derive
from ..models.adapters import LoRA
from ..models.batches import Batch, join_batches, row_count_of_steps
from ..models.recommender import Recommender
from ..training.loop import Combine, Losses, Objective, Schedule, Step, weighted_sum
from ..training.objective import LossFunction
from .losses import cross_entropy, kl_divergence
from .method import Method
from .replay import Speed, with_cached_blocks
from .student import Student, phase_steps
from .task import Task

Term = Callable[[torch.Tensor, Batch], torch.Tensor]
"""Answer-position logits (b, V) of a batch, and the batch → a loss."""
Teacher = Callable[[torch.Tensor], torch.Tensor]
"""Rows (b,) of a set → the logits (b, V) that a student should give them."""


def answer_loss(task: Task) -> Term:
    """Term: cross-entropy of the row's own answer."""
    answers = task.original.verbaliser

    def loss(z: torch.Tensor, batch: Batch) -> torch.Tensor:
        return cross_entropy(z, answers.tokens(batch.labels))

    return loss


def teacher_loss(teacher: Teacher) -> Term:
    """Term: `KL(p_teacher ‖ p_θ)` on the rows of the batch."""

    def loss(z: torch.Tensor, batch: Batch) -> torch.Tensor:
        return kl_divergence(teacher(batch.index), z)

    return loss


def side_by_side(
    task: Task,
    terms: Mapping[str, Sequence[Term]],
    together: Literal["step", "batch", "loss"] = "step",
) -> LossFunction:
    """Losses of a step: one for each batch (`forget`, `retain`), the sum of its `terms`.

    The rows of a step go through the model `together`, or batch by batch, or once for each term.
    """
    model = task.original
    rows = {
        "forget": task.forget,
        "retain": task.retain,
    }

    def objective(wrapped: nn.Module, step: Step) -> Losses:
        batches = {}
        for name, index in step.items():
            batches[name] = model.collate(rows[name], index)

        def new_pass(name: str) -> torch.Tensor:
            z: torch.Tensor = wrapped(batches[name])
            return z

        if together == "loss":
            return _losses(batches, terms, new_pass)
        if together == "step" and _joinable(batches):
            logits = _one_pass(wrapped, batches, model.pad)
        else:
            logits = {name: new_pass(name) for name in batches}
        return _losses(batches, terms, logits.__getitem__)

    return objective


def _losses(
    batches: Mapping[str, Batch],
    terms: Mapping[str, Sequence[Term]],
    logits_of: Callable[[str], torch.Tensor],
) -> Losses:
    """The sum of each batch's terms; `logits_of` is called once for each term."""
    losses = {}
    for name, batch in batches.items():
        values = [term(logits_of(name), batch) for term in terms[name]]
        # Not `sum`, which begins with 0: a loss on its own stays as it is, bit for bit.
        losses[name] = reduce(torch.add, values)
    return losses


def _joinable(batches: Mapping[str, Batch]) -> bool:
    """Whether all batches can share a pass.

    Rows with cached states enter the model higher up, so they share none with rows without.
    """
    cached = [batch.cached is not None for batch in batches.values()]
    return all(cached) or not any(cached)


def _one_pass(
    wrapped: nn.Module, batches: Mapping[str, Batch], pad: int
) -> dict[str, torch.Tensor]:
    """Logits of all batches from one pass through the model."""

    def join_below(first: Batch, second: Batch) -> Batch:
        return join_batches(first, second, pad)

    # A step may hold one batch alone, which goes through as it is.
    whole = reduce(join_below, batches.values())
    z = wrapped(whole)
    sizes = [len(batch.index) for batch in batches.values()]
    parts = z.split(sizes)
    return dict(zip(batches, parts, strict=True))


class Paired(Method):
    """A student on the original, tuned on a batch of D_f and a batch of D_r a step.

    A rival is its two `terms`, and the settings that they have.
    """

    # Factors of two around the default rate, and upwards from one pass.
    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "learning_rate": (5e-4, 1e-3, 2e-3),
        "passes": (1.0, 2.0, 4.0),
    }

    passes: float = Field(1.0, gt=0, description="passes over D_f")
    # One user's few rows fill a batch or two, and so few steps move a fresh adapter hardly at all.
    min_steps: int = Field(16, ge=1, description="least steps, however few rows D_f has")
    learning_rate: float = Field(1e-3, gt=0, description="highest learning rate of the student")
    batch_size: int = Field(16, ge=1, description="rows of D_f, and of D_r, a step")
    lora: LoRA = Field(LoRA(rank=8, alpha=16, targets="all"), description="adapter of the student")
    speed: Speed = Field(Speed(), description="ways to the same result with less work")

    def terms(self, task: Task, steps: Sequence[Step]) -> Mapping[str, Term]:
        """The two losses, `forget` and `retain`, that a step adds up.

        Args:
            task: the request; its original is still as it was before the student.
            steps: all batches that will be read, so that a teacher can answer them beforehand.
        """
        raise NotImplementedError

    @property
    def combine(self) -> Combine:
        """How the gradients of the two losses become one."""
        return weighted_sum

    def unlearn(self, task: Task) -> Recommender:
        """Return the original with the student merged or concatenated into it."""
        seed = derive(task.seed, self.name)
        forget_count = len(task.forget)
        retain_count = len(task.retain)
        count = self.updates(forget_count, retain_count, task.tuning.schedule)
        # All batches are fixed at first: teachers and caches then hold the rows that are read.
        phases = phase_steps(
            task,
            {"joint": count},
            self.batch_size,
            seed=seed,
            speed=self.speed,
        )
        steps = phases["joint"]
        batches = {
            "forget": [step["forget"] for step in steps],
            "retain": [step["retain"] for step in steps],
        }
        with with_cached_blocks(task, self.lora, self.speed, batches) as cached_task:
            return self._tune_student(cached_task, steps, seed)

    def _tune_student(self, task: Task, steps: Sequence[Step], seed: int) -> Recommender:
        # Teachers come first: the student is attached to the very model whose answers they keep.
        with task.costs.phase("teachers"):
            terms = self.terms(task, steps)
        term_lists = {name: [term] for name, term in terms.items()}
        losses = side_by_side(
            task,
            term_lists,
            self.speed.together,
        )
        objective = Objective(losses, combine=self.combine)
        schedule = task.schedule(self.batch_size, self.learning_rate)
        with Student(task, self.lora, seed=seed) as student:
            student.fit(self.name, steps, objective, schedule)
            return student.finish()

    def plan(self, forget: int, retain: int, schedule: Schedule) -> dict[str, int]:
        """Rows of both sets."""
        count = self.updates(forget, retain, schedule)
        forget_rows = row_count_of_steps(count, forget, self.batch_size)
        retain_rows = row_count_of_steps(count, retain, self.batch_size)
        return {self.name: forget_rows + retain_rows}

    def updates(self, forget: int, retain: int, schedule: Schedule) -> int:
        """Steps of the student."""
        one_pass = math.ceil(forget / self.batch_size)
        steps = math.ceil(self.passes * one_pass)
        return max(self.min_steps, steps)
