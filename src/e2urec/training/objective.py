"""What a step minimises: named losses, their weights, and how their gradients become one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import nn

from ..core.arrays import Ints

Rows = Ints
Step = Mapping[str, Rows]
"""The rows that a step reads, by the name of their set: `{"forget": rows, "retain": rows}`."""
Plan = Callable[[int], Sequence[Step]]
"""Epoch → its steps."""
Losses = dict[str, torch.Tensor]
LossFunction = Callable[[nn.Module, Step], Losses]
"""(model, step) → named scalar losses, each a mean over the step's rows."""
Combine = Callable[[Losses, Mapping[str, float], Sequence[nn.Parameter], Accelerator], torch.Tensor]
"""Leaves gradients in `.grad`, and returns the loss."""


def weighted_sum(
    losses: Losses,
    weights: Mapping[str, float],
    parameters: Sequence[nn.Parameter],
    accelerator: Accelerator,
) -> torch.Tensor:
    """Leave the gradient of Σ weight·loss in `.grad`, and return the sum.

    A loss without a weight counts once.
    """
    terms = [weights.get(name, 1.0) * loss for name, loss in losses.items()]
    total = sum(terms, torch.zeros(()))
    accelerator.backward(total)
    return total.detach()


@dataclass(frozen=True)
class Objective:
    """What a run minimises.

    Attributes:
        losses: (model, step) → named scalar losses, each a mean over the step's rows.
        weights: of the named losses; one without a weight counts once.
        combine: leaves gradients in `.grad`, and returns the loss. One that is not `weighted_sum`
            gets the model as it is, and makes its gradients those of all processes itself.
    """

    losses: LossFunction
    weights: Mapping[str, float] = field(default_factory=dict)
    combine: Combine = weighted_sum
