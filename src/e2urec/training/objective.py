"""What a step minimises: named losses, their weights, and how their gradients become one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import nn

from ..core.arrays import Ints

Rows = Ints
# The rows that a step reads, by the name of their set: {"forget": rows, "retain": rows}.
Step = Mapping[str, Rows]
# Epoch → its steps.
StepPlan = Callable[[int], Sequence[Step]]
Losses = dict[str, torch.Tensor]
# (model, step) → named scalar losses, each a mean over the rows of the set that it is named after,
# or over those of a step's only set.
LossFunction = Callable[[nn.Module, Step], Losses]
# Leaves gradients in `.grad`, and returns the loss.
Combine = Callable[[Losses, Mapping[str, float], Sequence[nn.Parameter], Accelerator], torch.Tensor]


def weighted_sum(
    losses: Losses,
    weights: Mapping[str, float],
    parameters: Sequence[nn.Parameter],
    accelerator: Accelerator,
) -> torch.Tensor:
    """Leave the gradient of Σ weight·loss in `.grad`, and return the sum.

    A loss without a weight counts once.
    """
    # On the CPU: a tensor without dimensions can be added to one on any device.
    total = torch.zeros(())
    for name, loss in losses.items():
        weight = weights.get(name, 1.0)
        total = total + weight * loss
    accelerator.backward(total)
    return total.detach()


def flatten(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """All gradients one after another, (n,)."""
    return torch.cat([gradient.flatten() for gradient in gradients])


def leave_gradients(flat: torch.Tensor, parameters: Sequence[nn.Parameter]) -> None:
    """Leave the parts of a flat gradient (n,) in `.grad`."""
    sizes = [parameter.numel() for parameter in parameters]
    for parameter, part in zip(parameters, torch.split(flat, sizes), strict=True):
        parameter.grad = part.view_as(parameter)


@dataclass(frozen=True)
class Objective:
    """What a run minimises.

    Attributes:
        losses: (model, step) → named scalar losses, each a mean over the rows of the set that it is
            named after, or over those of a step's only set.
        weights: of the named losses; one without a weight counts once.
        combine: leaves gradients in `.grad`, and returns the loss. One that is not `weighted_sum`
            gets the model as it is, and makes its gradients those of all processes itself.
    """

    losses: LossFunction
    weights: Mapping[str, float] = field(default_factory=dict)
    combine: Combine = weighted_sum

    @property
    def can_be_split(self) -> bool:
        """Whether the gradients of parts of a step add up to the step's."""
        return self.combine is weighted_sum
