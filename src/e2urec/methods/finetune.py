"""A placebo: tune an adapter on the retained rows for as many steps as a method took, with no forget term."""

import math
from typing import ClassVar

from pydantic import Field

from ..core.seeding import derive
from ..models.adapters import LoRA
from ..models.batches import endless_batches, row_count_of_steps
from ..models.recommender import Recommender
from ..training.loop import Schedule
from ..training.supervised import supervised
from ..unlearning.method import Method
from ..unlearning.student import Student
from ..unlearning.task import Task


class Finetune(Method):
    """Tune the original on D_r and hope that it forgets D_f. What does not beat this has not forgotten."""

    name: ClassVar[str] = "finetune"

    steps: int | None = Field(
        None, ge=1, description="batches of retain rows; default: one pass over as many as D_f"
    )
    batch_size: int = Field(16, ge=1, description="rows a step")
    learning_rate: float = Field(5e-4, gt=0, description="highest learning rate of the student")
    lora: LoRA = Field(LoRA(), description="adapter of the student")

    def unlearn(self, task: Task) -> Recommender:
        """Return the original with an adapter tuned on D_r merged or concatenated into it."""
        steps = self.updates(len(task.forget), len(task.retain), task.tuning.schedule)
        seed = derive(task.seed, "finetune")
        batches = endless_batches(task.retain.lengths, self.batch_size, seed=seed)
        schedule = task.schedule(self.batch_size, self.learning_rate)
        with Student(task, self.lora, seed=seed) as student:
            plan = [{"train": next(batches)} for _ in range(steps)]
            student.fit("finetune", plan, supervised(task.original, task.retain), schedule)
            return student.finish()

    def plan(self, forget: int, retain: int, schedule: Schedule) -> dict[str, int]:
        """Rows read by the one phase."""
        return {
            "finetune": row_count_of_steps(
                self.updates(forget, retain, schedule), retain, self.batch_size
            )
        }

    def updates(self, forget: int, retain: int, schedule: Schedule) -> int:
        """The steps as set, or one pass over as many rows as D_f has."""
        return self.steps or math.ceil(forget / self.batch_size)
