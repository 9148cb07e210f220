"""NegGrad: descend on the retain set while ascending on the forget set.

Kurmanji et al. 2023, arXiv 2302.09880, call it NegGrad+.

    L(θ) = CE(D_r) − λ·CE(D_f)

The paper weights the two terms with β and 1 − β; here the retain term counts once. The default of
λ is the one in the code that E2URec (arXiv 2403.03536) released.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field

from ..models.batches import Batch
from ..training.loop import Step
from ..unlearning.paired import Paired, Term, answer_loss
from ..unlearning.task import Task


class NegGrad(Paired):
    """`CE(D_r) − λ·CE(D_f)`: ascend on D_f while descending on D_r.

    The default λ is the weight in the code that E2URec released.
    """

    name: ClassVar[str] = "neggrad"
    # Mostly below 1: ascent has no lower bound, so at equal weight it outruns the retain term.
    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **Paired.search,
        "weight": (0.1, 0.2, 0.5, 1.0),
    }

    weight: float = Field(0.2, ge=0, description="λ, weight of the ascent on D_f")

    def terms(self, task: Task, steps: Sequence[Step]) -> Mapping[str, Term]:
        """Cross-entropy on both sets, with the sign turned on D_f."""
        descent = answer_loss(task)

        def ascent(z: torch.Tensor, batch: Batch) -> torch.Tensor:
            loss = descent(z, batch)
            return -self.weight * loss

        return {
            "forget": ascent,
            "retain": descent,
        }
