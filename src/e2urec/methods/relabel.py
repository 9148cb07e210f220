"""Relabelling: learn the wrong answers on the forget set.

A common baseline. The code that E2URec (arXiv 2403.03536) released calls it Bad-T, though it has no
bad teacher.

    L(θ) = CE(D_r) + w·CE(D_f with Yes and No exchanged)
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field

from ..models.batches import Batch
from ..training.loop import Step
from ..unlearning.losses import cross_entropy
from ..unlearning.paired import Paired, Term, answer_loss
from ..unlearning.task import Task


class Relabel(Paired):
    """`CE(D_r) + w·CE(D_f with flipped answers)`."""

    name: ClassVar[str] = "relabel"
    # All below 1: rows whose answers were learned the wrong way round stand out as well.
    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **Paired.search,
        "weight": (0.05, 0.1, 0.2, 0.5),
    }

    weight: float = Field(0.2, ge=0, description="weight of the flipped answers")

    def terms(self, task: Task, steps: Sequence[Step]) -> Mapping[str, Term]:
        """Cross-entropy on both sets, with Yes and No exchanged on D_f."""
        answers = task.original.verbaliser

        def flipped_loss(z: torch.Tensor, batch: Batch) -> torch.Tensor:
            wrong_answers = answers.tokens(1 - batch.labels)
            loss = cross_entropy(z, wrong_answers)
            return self.weight * loss

        return {
            "forget": flipped_loss,
            "retain": answer_loss(task),
        }
