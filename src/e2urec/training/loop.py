"""The only training loop: a plan of batches, an objective with named terms, a schedule.

Everything random is a function of (seed, step), so the position in a run is one integer.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from accelerate import Accelerator
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from ..core.allocator import release_free_memory
from ..core.arrays import Ints
from ..core.seeding import derive
from ..models.precision import Precision, autocast_type

Rows = Ints
Step = Mapping[str, Rows]
Losses = dict[str, torch.Tensor]
Objective = Callable[[nn.Module, Step], Losses]
Plan = Callable[[int], Sequence[Step]]


class Schedule(BaseModel):
    """How long and how fast to train: AdamW, linear warm-up, then linear decay to `min_lr_ratio`·learning_rate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(3, ge=1, description="passes over the rows")
    batch_size: int = Field(16, ge=1, description="rows a step, over all processes")
    learning_rate: float = Field(3e-4, gt=0, description="highest learning rate of AdamW")
    warmup: float = Field(
        0.06, ge=0, lt=1, description="share of the steps with a rising learning rate"
    )
    min_lr_ratio: float = Field(
        0.0, ge=0, le=1, description="last learning rate as a share of the highest"
    )
    weight_decay: float = Field(0.01, ge=0, description="AdamW weight decay")
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    patience: int | None = Field(
        None, ge=1, description="stop after so many epochs without a better validation loss"
    )
    precision: Precision = Field(
        "auto", description="bf16 autocast, or fp32; auto: bf16 where the processor has it"
    )

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of 0-based `step` of `steps`, as a share of the highest."""
        rising = max(1, math.ceil(self.warmup * steps))
        if step < rising:
            return (step + 1) / rising
        return self.min_lr_ratio + (1 - self.min_lr_ratio) * (steps - step) / max(1, steps - rising)


@dataclass
class Trace:
    """What a run of `fit` did: mean losses an epoch, what the monitor saw, rows read, seconds."""

    losses: list[dict[str, float]] = field(default_factory=list)
    monitored: list[float] = field(default_factory=list)
    steps: int = 0
    rows: int = 0
    seconds: float = 0.0
    best_epoch: int | None = None


class Progress(Protocol):
    """Is told how far a phase has come."""

    def __call__(self, phase: str, done: int, total: int, loss: float | None = None) -> None:
        """`done` of `total` steps of `phase`; `loss` of the last one."""


def silent(phase: str, done: int, total: int, loss: float | None = None) -> None:
    """Report nothing."""


Combine = Callable[[Losses, Mapping[str, float], Sequence[nn.Parameter], Accelerator], torch.Tensor]


def weighted_sum(
    losses: Losses,
    weights: Mapping[str, float],
    parameters: Sequence[nn.Parameter],
    accelerator: Accelerator,
) -> torch.Tensor:
    """Leave the gradient of Σ weight·loss in `.grad`; a term without a weight counts once. Returns the sum."""
    total = sum((weights.get(name, 1.0) * loss for name, loss in losses.items()), torch.zeros(()))
    accelerator.backward(total)
    return total.detach()


def _share(rows: Rows, rank: int, world: int) -> Rows:
    """This process's rows of a step. Shares are equal, so that the mean of their means is the step's: where rows
    do not come out even, the first ones are read once more.
    """
    return np.resize(rows, -(-len(rows) // world) * world)[rank::world]


def fit(
    model: nn.Module,
    parameters: Sequence[nn.Parameter],
    plan: Plan,
    objective: Objective,
    schedule: Schedule,
    *,
    seed: int,
    weights: Mapping[str, float] | None = None,
    combine: Combine = weighted_sum,
    monitor: Callable[[], float] | None = None,
    progress: Progress = silent,
    phase: str = "training",
) -> Trace:
    """Move `parameters` down the objective.

    Args:
        model: given to the objective, wrapped for several processes where there are any. The caller sets modes.
        parameters: what moves; everything else must be frozen.
        plan: epoch → its steps, each naming the rows it reads (`{"forget": rows, "retain": rows}`).
        objective: (model, step) → named scalar losses, each a mean over the step's rows.
        schedule: epochs, learning rate, precision.
        seed: of dropout; batch order is the plan's.
        weights: of the named losses.
        combine: leaves gradients in `.grad`, and returns the loss. One that is not `weighted_sum` gets the model as
            it is, and makes its gradients those of all processes itself.
        monitor: called after each epoch with the model in place; lower is better. With `schedule.patience`
            training stops early; with a monitor the best epoch's parameters are what remains.
        progress: told of each step.
        phase: name for progress and the seed's stream.

    Returns:
        The trace; the parameters themselves are changed in place.
    """
    accelerator = Accelerator(cpu=parameters[0].device.type == "cpu")
    rank, world = accelerator.process_index, accelerator.num_processes
    optimizer = torch.optim.AdamW(
        parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay, fused=True
    )
    wrapped = accelerator.prepare_model(model) if world > 1 and combine is weighted_sum else model
    low = autocast_type(schedule.precision, parameters[0].device)
    trace, best = Trace(), (math.inf, [p.detach().clone() for p in parameters] if monitor else [])
    started, epochs = time.perf_counter(), [plan(epoch) for epoch in range(schedule.epochs)]
    total = sum(map(len, epochs))
    for epoch, steps in enumerate(epochs):
        sums: dict[str, float] = {}
        for step in steps:
            for group in optimizer.param_groups:
                group["lr"] = schedule.learning_rate * schedule.rate(trace.steps, total)
            torch.manual_seed(derive(seed, phase, trace.steps))
            mine = {name: _share(rows, rank, world) for name, rows in step.items()}
            with torch.autocast(parameters[0].device.type, dtype=low, enabled=low is not None):
                losses = objective(wrapped, mine)
            loss = combine(losses, weights or {}, parameters, accelerator)
            torch.nn.utils.clip_grad_norm_(parameters, schedule.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
            trace.steps += 1
            trace.rows += sum(map(len, step.values()))
            release_free_memory(trace.steps)
            progress(phase, trace.steps, total, float(loss))
        trace.losses.append({name: value / len(steps) for name, value in sums.items()})
        if monitor:
            trace.monitored.append(monitor())
            if trace.monitored[-1] < best[0]:
                trace.best_epoch = epoch
                best = (trace.monitored[-1], [p.detach().clone() for p in parameters])
            elif schedule.patience and epoch - (trace.best_epoch or 0) >= schedule.patience:
                break
    if monitor:
        with torch.no_grad():
            for parameter, value in zip(parameters, best[1], strict=True):
                parameter.copy_(value)
    trace.seconds = time.perf_counter() - started
    return trace
