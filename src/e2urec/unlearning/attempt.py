"""A student that a bound held back, kept while another one is made in another way."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Self

import torch

from .outcome import MUCH_LEFT, Outcome
from .student import Student
from .task import Task

BOTH_HELD_BACK = (
    "The student was solved for, and trained as well, and both were held back; the one that leaves "
    "less was kept."
)


@dataclass(frozen=True)
class Attempt:
    """A finished student.

    Attributes:
        weights: its A and B.
        outcome: how far it came.
    """

    weights: dict[str, torch.Tensor]
    outcome: Outcome

    @classmethod
    def of(cls, student: Student) -> Self:
        """Keep a student; its task's outcome begins anew."""
        task = student.task
        attempt = cls(student.weights(), deepcopy(task.outcome))
        _replace(task, Outcome())
        return attempt

    def put_back_if_nearer(self, student: Student) -> None:
        """Put another student where this one was, unless that one leaves less.

        Where the one that stays was held back as well, it is told that both were tried.
        """
        task = student.task
        own_share = self.outcome.memory_left
        share = task.outcome.memory_left
        if own_share is not None and (share is None or abs(own_share) <= abs(share)):
            student.start_at(self.weights, 1.0)
            _replace(task, self.outcome)
            task.log_phase("solved", task.original, active=student.active)
        if is_held_back(task.outcome):
            task.outcome.tell(BOTH_HELD_BACK)


def is_held_back(outcome: Outcome) -> bool:
    """Whether a bound left a student with much of what it should forget."""
    share = outcome.memory_left
    return bool(outcome.limits) and share is not None and share > MUCH_LEFT


def _replace(task: Task, outcome: Outcome) -> None:
    """Give a task another outcome; its callers look at the very object that it had."""
    vars(task.outcome).update(vars(outcome))
