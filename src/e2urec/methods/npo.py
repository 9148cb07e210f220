"""Negative preference optimisation: ascent that stops by itself.

Zhang et al. 2024, arXiv 2404.05868, eq. 3, with a retain term.

    L(θ) = w·(−2/β)·E_{D_f} log σ(−β·log(p_θ(y) / p_o(y))) + CE(D_r)

The reference p_o is the original. The weight w is a setting of ours.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field

from ..models.batches import Batch
from ..training.loop import Step
from ..unlearning.losses import npo
from ..unlearning.paired import Paired, Term, answer_loss
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
        """NPO on D_f with the original as reference, cross-entropy on D_r."""
        original = task.original
        forget_batches = [step["forget"] for step in steps]
        # Answered before the student is attached, while the model is still the original.
        reference = frozen_teacher(
            original,
            task,
            task.forget,
            forget_batches,
        )

        def npo_loss(z: torch.Tensor, batch: Batch) -> torch.Tensor:
            tokens = original.verbaliser.tokens(batch.labels)
            reference_z = reference(batch.index)
            loss = npo(z, reference_z, tokens, self.beta)
            return self.weight * loss

        return {
            "forget": npo_loss,
            "retain": answer_loss(task),
        }
