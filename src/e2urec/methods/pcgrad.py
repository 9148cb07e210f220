"""Gradient surgery between descent on the retain set and ascent on the forget set.

Yu et al. 2020, arXiv 2001.06782, algorithm 1, with the two tasks of unlearning:

    a = ∇[−CE(D_f)],  b = ∇CE(D_r)
    a' = a − min(0, ⟨a, b⟩)/‖b‖²·b,  b' = b − min(0, ⟨a, b⟩)/‖a‖²·a
    the student moves against (a' + b')/2

That the mean is taken, where the paper adds up, is ours: it keeps the length of a plain gradient.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from accelerate import Accelerator
from torch import nn

from ..models.batches import Batch
from ..training.loop import Combine, Losses, Step
from ..training.objective import flatten, leave_gradients
from ..unlearning.paired import Paired, Term, answer_loss
from ..unlearning.task import Task


def surgery(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean of two flat gradients, of which each is first projected off the other if they conflict.

    `a − min(0, ⟨a, b⟩)/‖b‖²·b`, and the same for b; both use the gradients as they came
    (Yu et al. 2020, algorithm 1). (d,), (d,) → (d,).
    """
    overlap = torch.dot(a, b)
    conflict = overlap.clamp(max=0)
    # A gradient of zero has no direction to project off; the bound spares a division by zero.
    tiny = torch.finfo(a.dtype).tiny
    squared_a = a.dot(a).clamp(min=tiny)
    squared_b = b.dot(b).clamp(min=tiny)
    share_of_b = conflict / squared_b
    share_of_a = conflict / squared_a
    projected_a = a - share_of_b * b
    projected_b = b - share_of_a * a
    return (projected_a + projected_b) / 2


def project(
    losses: Losses,
    weights: Mapping[str, float],
    parameters: Sequence[nn.Parameter],
    accelerator: Accelerator,
) -> torch.Tensor:
    """Leave the mean of the two projected gradients in `.grad`; returns the sum of the losses."""
    flat_gradients = []
    for loss in losses.values():
        # The graph is kept: both losses may come from one pass through the model.
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
        # Processes agree on a gradient before the surgery, which is not linear in it.
        shared = accelerator.reduce(flatten(gradients), reduction="mean")
        flat_gradients.append(shared)
    leave_gradients(surgery(*flat_gradients), parameters)
    total = sum(losses.values(), torch.zeros(()))
    return total.detach()


class PCGrad(Paired):
    """Gradient surgery between `−CE(D_f)` and `CE(D_r)`.

    Where the two gradients conflict, each is projected off the other.
    """

    name: ClassVar[str] = "pcgrad"

    @property
    def combine(self) -> Combine:
        """Projection in place of the sum."""
        return project

    def terms(self, task: Task, steps: Sequence[Step]) -> Mapping[str, Term]:
        """Cross-entropy on both sets, with the sign turned on D_f."""
        descent = answer_loss(task)

        def ascent(z: torch.Tensor, batch: Batch) -> torch.Tensor:
            loss = descent(z, batch)
            return -loss

        return {
            "forget": ascent,
            "retain": descent,
        }
