"""Negative preference optimisation (Zhang et al. 2024, arXiv 2404.05868): ascent that stops by itself."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from ..training.loop import Step
from ..unlearning.losses import npo
from ..unlearning.paired import Paired, Term, answered
from ..unlearning.student import frozen_teacher
from ..unlearning.task import Task


class NPO(Paired):
    """`−(2/β)·E log σ(−β·log(p_θ(y) / p_o(y)))` on D_f, cross-entropy on D_r."""

    name: ClassVar[str] = "npo"
    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **Paired.search,
        "beta": (0.05, 0.1, 0.5),
        "weight": (0.1, 0.3, 1.0),
    }

    beta: float = Field(0.1, gt=0, description="β: the larger, the sooner the push on a row ends")
    weight: float = Field(1.0, ge=0, description="weight of the term on D_f")

    def terms(self, task: Task, steps: Sequence[Step]) -> Mapping[str, Term]:
        """The original is the reference."""
        answers = task.original.verbaliser
        reference = frozen_teacher(
            task.original, task, task.forget, [step["forget"] for step in steps]
        )
        return {
            "forget": lambda z, batch: (
                self.weight
                * npo(z, reference(batch.index), answers.tokens(batch.labels), self.beta)
            ),
            "retain": answered(task),
        }
