"""Gradient surgery (Yu et al. 2020, arXiv 2001.06782) between descent on D_r and ascent on D_f."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from accelerate import Accelerator
from torch import nn

from ..training.loop import Combine, Losses, Step
from ..unlearning.paired import Paired, Term, answered
from ..unlearning.task import Task


def surgery(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean of two flat gradients, each first projected off the other where they conflict (Yu et al. 2020, alg. 1).

    `a − min(0, ⟨a, b⟩)/‖b‖²·b`, and the same for b; both use the gradients as they came. (d,), (d,) → (d,).
    """
    conflict = torch.dot(a, b).clamp(max=0)
    tiny = torch.finfo(a.dtype).tiny
    return (
        (a - conflict / b.dot(b).clamp(min=tiny) * b)
        + (b - conflict / a.dot(a).clamp(min=tiny) * a)
    ) / 2


def project(
    losses: Losses,
    weights: Mapping[str, float],
    parameters: Sequence[nn.Parameter],
    accelerator: Accelerator,
) -> torch.Tensor:
    """Leave the mean of the two projected gradients in `.grad`; returns the sum of the losses."""
    flat = []
    for loss in losses.values():
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
        flat.append(
            accelerator.reduce(torch.cat([each.flatten() for each in gradients]), reduction="mean")
        )
    combined = torch.split(surgery(*flat), [parameter.numel() for parameter in parameters])
    for parameter, gradient in zip(parameters, combined, strict=True):
        parameter.grad = gradient.view_as(parameter)
    return sum(losses.values(), torch.zeros(())).detach()


class PCGrad(Paired):
    """Ascend on D_f and descend on D_r; where the two gradients conflict, each is projected off the other."""

    name: ClassVar[str] = "pcgrad"

    @property
    def combine(self) -> Combine:
        """Projection in place of the sum."""
        return project

    def terms(self, task: Task, steps: Sequence[Step]) -> Mapping[str, Term]:
        """Cross-entropy on both, the sign turned on D_f."""
        loss = answered(task)
        return {"forget": lambda z, batch: -loss(z, batch), "retain": loss}
