"""A step in parts: its gradient is the sum of theirs, and its rows need not all be in memory.

A loss is a mean over the n rows of its set, so over parts of n₁ + n₂ + … = n rows

    loss = Σ nₖ/n · lossₖ        and so are the gradients, within rounding.

With dropout the parts draw other random numbers than the whole would.
"""

import contextlib
import math
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from ..models import blocks
from ..models.precision import autocast
from ..models.recommender import Recommender
from .objective import Losses, Objective, Step
from .process_share import ProcessShare
from .schedule import Schedule
from .state import TrainingState


@dataclass(frozen=True)
class StepPart:
    """Rows of a step that go through the model at once.

    Attributes:
        rows: of each set that has some here.
        shares: of each set's rows in the step, those that are here, from 0 to 1.
    """

    rows: Step
    shares: Mapping[str, float]

    def share(self, loss: str) -> float:
        """The share of the rows that a loss is the mean of."""
        # A step of one set may call its loss otherwise.
        if len(self.shares) == 1:
            return next(iter(self.shares.values()))
        return self.shares[loss]


def split_step(step: Step, longest: Mapping[str, int], size: int | None) -> list[StepPart]:
    """Parts of a process's share of a step, of at most `size` rows of a set, as equal as can be.

    A set with fewer rows than there are parts is left out of some. Where another process has a row
    of it, one is read here that counts nothing: all processes make the same passes.

    Args:
        step: the process's own rows.
        longest: most rows that a process reads, by set.
        size: None: all in one part.
    """
    count = 1 if size is None else math.ceil(max(longest.values()) / size)
    pieces = {name: np.array_split(rows, count) for name, rows in step.items()}
    parts = []
    for number in range(count):
        rows = {}
        shares = {}
        for name, every_row in step.items():
            own_rows = pieces[name][number]
            # The first parts hold the rows of a set with fewer rows than parts.
            if number < longest[name]:
                rows[name] = own_rows if len(own_rows) else every_row[:1]
                shares[name] = len(own_rows) / len(every_row)
        parts.append(StepPart(rows, shares))
    return parts


class StepGradients:
    """Computes the gradients of steps, in parts and with as few states kept as a schedule says.

    Args:
        model: given to the objective; wrapped for several processes where there are any.
        objective: named losses, and how their gradients become one.
        state: with the parameters and the schedule.
        accelerator: of the processes.
        phase: name of what is trained, for what is told.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        state: TrainingState,
        accelerator: Accelerator,
        phase: str,
    ) -> None:
        self.model = model
        self.objective = objective
        self.state = state
        self.accelerator = accelerator
        schedule = state.schedule
        self.size = _part_size(schedule, objective, phase)
        self.recomputing = _recomputing(schedule, accelerator.unwrap_model(model), phase)

    def leave(self, share: ProcessShare) -> tuple[torch.Tensor, Losses]:
        """Leave the gradient of a process's share in `.grad`; its loss, and the named ones."""
        # All processes go through the model equally often: together they hold a split base.
        parts = split_step(share.rows, share.longest, self.size)
        losses: Losses = {}
        total = torch.zeros(())
        for number, part in enumerate(parts, start=1):
            # Processes agree on a gradient once, when the last part has been added.
            is_last = number == len(parts)
            with contextlib.nullcontext() if is_last else self.accelerator.no_sync(self.model):
                part_loss, part_losses = self._leave_part(share, part, is_whole=len(parts) == 1)
            total = total + part_loss
            for name, loss in part_losses.items():
                losses[name] = losses[name] + loss if name in losses else loss
        return total, losses

    def _leave_part(
        self, share: ProcessShare, part: StepPart, *, is_whole: bool
    ) -> tuple[torch.Tensor, Losses]:
        state = self.state
        with autocast(state.schedule.precision, state.device), self.recomputing():
            losses = share.weigh(self.objective.losses(self.model, part.rows))
        if not is_whole:
            losses = {name: part.share(name) * loss for name, loss in losses.items()}
        loss = self.objective.combine(
            losses, self.objective.weights, state.parameters, self.accelerator
        )
        # The graph goes before the next part comes.
        return loss, {name: loss.detach() for name, loss in losses.items()}


def _part_size(schedule: Schedule, objective: Objective, phase: str) -> int | None:
    """Rows of a part; None where steps are not parted, which is told if it was asked for."""
    if schedule.micro_batch is None or objective.can_be_split:
        return schedule.micro_batch
    warnings.warn(
        f"{phase}: its gradients are not the sum of those of parts, so micro_batch="
        f"{schedule.micro_batch} is not used; lower its batch_size to save memory",
        stacklevel=2,
    )
    return None


def _recomputing(
    schedule: Schedule, model: nn.Module, phase: str
) -> Callable[[], AbstractContextManager[Any]]:
    """The context of a pass whose blocks keep nothing, or an empty one where that is of no use."""
    if not schedule.gradient_checkpointing:
        return contextlib.nullcontext
    recomputable = model.recomputable_blocks() if isinstance(model, Recommender) else []
    if not recomputable:
        warnings.warn(
            f"{phase}: gradient_checkpointing is not used, since no block below the last one is "
            "tuned, or several models answer at once: nothing would be saved",
            stacklevel=2,
        )
        return contextlib.nullcontext
    return lambda: blocks.recompute(recomputable)
