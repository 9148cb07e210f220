"""Gradient difference: ascend on the forget set, and hold the retain set by descent or by KL.

Liu et al. 2022, arXiv 2203.12817; in the form that TOFU measures (Maini et al. 2024,
arXiv 2401.06121).

    L(θ) = −γ·CE(D_f) + α·CE(D_r)            retain=ce
    L(θ) = −γ·CE(D_f) + α·KL(p_o ‖ p_θ)      retain=kl, on D_r, with the original p_o

The weights γ and α are settings of ours; at their default of 1 the loss is TOFU's.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from ..models.batches import Batch
from ..training.loop import Step
from ..unlearning.paired import Paired, Term, answer_loss, teacher_loss
from ..unlearning.student import frozen_teacher
from ..unlearning.task import Task


class GradDiff(Paired):
    """`−γ·CE(D_f) + α·CE(D_r)`, or with KL to the original on D_r in place of CE."""

    name: ClassVar[str] = "graddiff"
    # The published weight of 1 is the last value: ascent has no lower bound, so less may be better.
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
        """Ascent on D_f; descent on D_r, or the original's answers there."""
        forget_loss = answer_loss(task)
        retain_loss = self._retain_loss(task, steps)

        def ascent(z: torch.Tensor, batch: Batch) -> torch.Tensor:
            return -self.gamma * forget_loss(z, batch)

        def descent(z: torch.Tensor, batch: Batch) -> torch.Tensor:
            return self.alpha * retain_loss(z, batch)

        return {
            "forget": ascent,
            "retain": descent,
        }

    def _retain_loss(self, task: Task, steps: Sequence[Step]) -> Term:
        if self.retain == "ce":
            return answer_loss(task)
        retain_batches = [step["retain"] for step in steps]
        teacher = frozen_teacher(
            task.original,
            task,
            task.retain,
            retain_batches,
        )
        return teacher_loss(teacher)
