"""SimNPO (Fan et al. 2024, arXiv 2410.07163): negative preference optimisation without a reference model."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from ..training.loop import Step
from ..unlearning.losses import simnpo
from ..unlearning.paired import Paired, Term, answered
from ..unlearning.task import Task


class SimNPO(Paired):
    """`γ·[−(2/β)·E log σ(β·(NLL − δ))]` on D_f, cross-entropy on D_r; the published weights."""

    name: ClassVar[str] = "simnpo"
    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **Paired.search,
        "gamma": (0.125, 0.5, 1.0),
        "beta": (1.0, 2.5, 4.5),
    }

    gamma: float = Field(0.125, ge=0, description="γ, weight of the term on D_f")
    beta: float = Field(4.5, gt=0, description="β: the larger, the sooner the push on a row ends")
    delta: float = Field(
        0.0, description="δ, margin in nats that the loss of a row is held against"
    )

    def terms(self, task: Task, steps: Sequence[Step]) -> Mapping[str, Term]:
        """No teacher at all."""
        answers = task.original.verbaliser
        return {
            "forget": lambda z, batch: (
                self.gamma * simnpo(z, answers.tokens(batch.labels), self.beta, self.delta)
            ),
            "retain": answered(task),
        }
