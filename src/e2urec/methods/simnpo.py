"""SimNPO: negative preference optimisation without a reference model.

Fan et al. 2024, arXiv 2410.07163.

    L(θ) = γ·(−2/β)·E_{D_f} log σ(β·(NLL − δ)) + CE(D_r),  NLL = −log p_θ(y)

The default weights are the published ones. The paper divides the NLL by the length of the
answer, which is one token here.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field

from ..models.batches import Batch
from ..training.loop import Step
from ..unlearning.losses import simnpo
from ..unlearning.paired import Paired, Term, answer_loss
from ..unlearning.task import Task


class SimNPO(Paired):
    """`γ·[−(2/β)·E log σ(β·(NLL − δ))]` on D_f, cross-entropy on D_r; the published weights."""

    name: ClassVar[str] = "simnpo"
    # The published values are the weakest γ and the largest β; the others push D_f harder.
    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **Paired.search,
        "gamma": (0.125, 0.5, 1.0),
        "beta": (1.0, 2.5, 4.5),
    }

    gamma: float = Field(0.125, ge=0, description="γ, weight of the term on D_f")
    beta: float = Field(4.5, gt=0, description="β: the larger, the sooner the push on a row ends")
    # Taken off the loss of a row before it is multiplied by β: the paper's own margin is β·δ.
    delta: float = Field(
        0.0, description="δ, margin in nats that the loss of a row is held against"
    )

    def terms(self, task: Task, steps: Sequence[Step]) -> Mapping[str, Term]:
        """SimNPO on D_f, which needs no teacher; cross-entropy on D_r."""
        answers = task.original.verbaliser

        def simnpo_loss(z: torch.Tensor, batch: Batch) -> torch.Tensor:
            tokens = answers.tokens(batch.labels)
            loss = simnpo(z, tokens, self.beta, self.delta)
            return self.gamma * loss

        return {
            "forget": simnpo_loss,
            "retain": answer_loss(task),
        }
