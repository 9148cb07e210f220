"""Gradient difference (Liu et al. 2022, arXiv 2203.12817; as TOFU measures it: Maini et al. 2024, arXiv 2401.06121)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from ..training.loop import Step
from ..unlearning.losses import kl_divergence
from ..unlearning.paired import Paired, Term, answered
from ..unlearning.student import frozen_teacher
from ..unlearning.task import Task


class GradDiff(Paired):
    """`−γ·CE(D_f) + α·CE(D_r)`, or with KL to the original on D_r in place of CE."""

    name: ClassVar[str] = "graddiff"
    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **Paired.search,
        "gamma": (0.1, 0.2, 0.5, 1.0),
        "retain": ("ce", "kl"),
    }

    gamma: float = Field(1.0, ge=0, description="weight of the ascent on D_f")
    alpha: float = Field(1.0, ge=0, description="weight of the retain loss")
    retain: Literal["ce", "kl"] = Field(
        "ce", description="retain loss: cross-entropy, or KL to the original"
    )

    def terms(self, task: Task, steps: Sequence[Step]) -> Mapping[str, Term]:
        """Ascent on D_f; descent or the original's answers on D_r."""
        loss = answered(task)
        keep = loss
        if self.retain == "kl":
            teacher = frozen_teacher(
                task.original, task, task.retain, [step["retain"] for step in steps]
            )
            keep = lambda z, batch: kl_divergence(teacher(batch.index), z)  # noqa: E731
        return {
            "forget": lambda z, batch: -self.gamma * loss(z, batch),
            "retain": lambda z, batch: self.alpha * keep(z, batch),
        }
