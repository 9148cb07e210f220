"""NegGrad: descend on D_r while ascending on D_f (Kurmanji et al. 2023, arXiv 2302.09880, call it NegGrad+)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from ..training.loop import Step
from ..unlearning.paired import Paired, Term, answered
from ..unlearning.task import Task


class NegGrad(Paired):
    """`CE(D_r) − λ·CE(D_f)`: ascend on what shall be forgotten, with the weight that E2URec's code released."""

    name: ClassVar[str] = "neggrad"
    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **Paired.search,
        "weight": (0.1, 0.2, 0.5, 1.0),
    }

    weight: float = Field(0.2, ge=0, description="λ, weight of the ascent on D_f")

    def terms(self, task: Task, steps: Sequence[Step]) -> Mapping[str, Term]:
        """Cross-entropy on both, the sign turned on D_f."""
        loss = answered(task)
        return {"forget": lambda z, batch: -self.weight * loss(z, batch), "retain": loss}
