"""A placebo: tune an adapter on the retained rows, with no forget term.

A comparison gives it as many steps as a method took. What forgets no more than this has only tuned
on D_r.

    L(θ) = CE(D_r)
"""

import itertools
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
    """`CE(D_r)`: tune the original on D_r, and hope that it forgets D_f.

    What does not beat this has not forgotten.
    """

    name: ClassVar[str] = "finetune"

    steps: int | None = Field(
        None, ge=1, description="batches of retain rows; default: one pass over as many as D_f"
    )
    batch_size: int = Field(16, ge=1, description="rows a step")
    learning_rate: float = Field(5e-4, gt=0, description="highest learning rate of the student")
    lora: LoRA = Field(LoRA(), description="adapter of the student")

    def unlearn(self, task: Task) -> Recommender:
        """Return the original with an adapter tuned on D_r merged or concatenated into it."""
        # A seed of its own: a placebo must not read the batches of the method it is held against.
        retain = task.retain
        forget_count = len(task.forget)
        count = self.updates(forget_count, len(retain), task.tuning.schedule)
        seed = derive(task.seed, "finetune")
        batches = endless_batches(
            retain.lengths,
            self.batch_size,
            seed=seed,
        )
        steps = []
        for batch in itertools.islice(batches, count):
            steps.append({"train": batch})
        objective = supervised(task.original, retain)
        schedule = task.schedule(self.batch_size, self.learning_rate)
        with Student(task, self.lora, seed=seed) as student:
            student.fit(
                "finetune",
                steps,
                objective,
                schedule,
            )
            return student.finish()

    def plan(self, forget: int, retain: int, schedule: Schedule) -> dict[str, int]:
        """Rows read by the one phase."""
        count = self.updates(forget, retain, schedule)
        return {"finetune": row_count_of_steps(count, retain, self.batch_size)}

    def updates(self, forget: int, retain: int, schedule: Schedule) -> int:
        """The steps as set, or one pass over as many rows as D_f has."""
        one_pass = math.ceil(forget / self.batch_size)
        return self.steps or one_pass
