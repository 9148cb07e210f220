"""Relabelling: learn the wrong answers on D_f. E2URec's code calls it Bad-T, though it has no bad teacher."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from ..training.loop import Step
from ..unlearning.losses import cross_entropy
from ..unlearning.paired import Paired, Term, answered
from ..unlearning.task import Task


class Relabel(Paired):
    """`CE(D_r) + w·CE(D_f with flipped answers)`."""

    name: ClassVar[str] = "relabel"
    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **Paired.search,
        "weight": (0.05, 0.1, 0.2, 0.5),
    }

    weight: float = Field(0.2, ge=0, description="weight of the flipped answers")

    def terms(self, task: Task, steps: Sequence[Step]) -> Mapping[str, Term]:
        """Cross-entropy on both, with Yes and No exchanged on D_f."""
        answers = task.original.verbaliser
        return {
            "forget": lambda z, batch: (
                self.weight * cross_entropy(z, answers.tokens(1 - batch.labels))
            ),
            "retain": answered(task),
        }
