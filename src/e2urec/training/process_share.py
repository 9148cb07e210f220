"""A process's share of a training step, and how the shares of all make the step of one process."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .objective import Losses, Objective, Step, flatten, leave_gradients, weighted_sum


@dataclass(frozen=True)
class ProcessShare:
    """The rows of a step that this process reads.

    With n_p of a set's n rows in process p of P, the mean over all rows is the mean over processes
    of `P·n_p/n` times the mean over the process's own rows; so are its gradients.

    Attributes:
        rows: by set.
        weights: `P·n_p/n` by set.
        longest: most rows that a process reads, by set.
        accelerator: that knows the other processes.
    """

    rows: Step
    weights: dict[str, float]
    longest: dict[str, int]
    accelerator: Accelerator

    @classmethod
    def of(cls, step: Step, accelerator: Accelerator) -> "ProcessShare":
        """This process's share of `step`."""
        rank = accelerator.process_index
        world = accelerator.num_processes
        shares = {}
        weights = {}
        for name, rows in step.items():
            own_rows = rows[rank::world]
            weights[name] = world * len(own_rows) / len(rows)
            # Every process takes part in a pass; one without rows reads a row that counts nothing.
            shares[name] = own_rows if len(own_rows) else rows[:1]
        longest = {name: math.ceil(len(rows) / world) for name, rows in step.items()}
        return cls(shares, weights, longest, accelerator)

    def weigh(self, losses: Losses) -> Losses:
        """The losses such that their means over processes are those of the whole step.

        A loss is the mean over the rows of the set whose name it has. That of another name is taken
        to be over all sets.
        """
        if self.accelerator.num_processes == 1:
            return losses
        other = sum(self.weights.values()) / len(self.weights)
        weighed = {}
        for name, loss in losses.items():
            weighed[name] = self.weights.get(name, other) * loss
        return weighed

    def agree_on_gradients(
        self, model: nn.Module, objective: Objective, parameters: Sequence[nn.Parameter]
    ) -> None:
        """Make the gradients in `.grad` the mean of all processes', where nobody else does."""
        is_agreed = isinstance(model, DistributedDataParallel)
        # Other ways to combine losses see to it themselves, too.
        is_agreed = is_agreed or objective.combine is not weighted_sum
        if is_agreed or self.accelerator.num_processes == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        assert len(gradients) == len(parameters), "what is trained has a gradient"
        mean = self.accelerator.reduce(flatten(gradients), reduction="mean")
        leave_gradients(mean, parameters)

    def means(self, losses: Losses, loss: torch.Tensor) -> tuple[Losses, float]:
        """The losses of the whole step by name, and the one that was minimised."""
        if self.accelerator.num_processes == 1:
            return losses, float(loss)
        values = [value.detach().float() for value in losses.values()]
        # The sum of no losses is on the CPU.
        own = torch.stack([*values, loss.float().to(values[0].device)])
        *named, total = self.accelerator.reduce(own, reduction="mean").unbind()
        return dict(zip(losses, named, strict=True)), float(total)
