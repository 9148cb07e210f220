"""All of a run's position: what a checkpoint has to hold."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from .objective import Losses, Step
from .schedule import Schedule


@dataclass
class Trace:
    """What a run of `fit` did.

    Attributes:
        losses: mean of each named loss, by epoch.
        monitored: what the monitor returned, by epoch.
        steps: taken.
        rows: read, over all processes.
        seconds: spent.
        best_epoch: epoch with the lowest monitored value; None without a monitor.
        earlier_seconds: of these, those spent before the checkpoint that the run went on from.
    """

    losses: list[dict[str, float]] = field(default_factory=list)
    monitored: list[float] = field(default_factory=list)
    steps: int = 0
    rows: int = 0
    seconds: float = 0.0
    best_epoch: int | None = None
    earlier_seconds: float = 0.0


@dataclass
class TrainingState:
    """Where a run is. `fit` advances it, and nothing else of a run changes from step to step.

    Random numbers are no part of it: they are a function of (seed, phase, step).

    Attributes:
        parameters: what moves; everything else must be frozen.
        schedule: epochs, learning rate, precision.
        optimizer: AdamW over `parameters`.
        trace: steps so far, and what happened in them.
        epoch_steps: steps taken in the current epoch.
        loss_sums: of the current epoch, by name of the loss.
        best_value: lowest monitored value so far; its epoch is `trace.best_epoch`.
        best_parameters: a copy of the parameters at that value; empty without a monitor.
    """

    parameters: Sequence[nn.Parameter]
    schedule: Schedule
    optimizer: torch.optim.Optimizer
    trace: Trace = field(default_factory=Trace)
    epoch_steps: int = 0
    loss_sums: dict[str, float] = field(default_factory=dict)
    best_value: float = math.inf
    best_parameters: list[torch.Tensor] = field(default_factory=list)

    @classmethod
    def start(cls, parameters: Sequence[nn.Parameter], schedule: Schedule) -> Self:
        """Stand before the first step."""
        optimizer = torch.optim.AdamW(
            parameters,
            lr=schedule.learning_rate,
            weight_decay=schedule.weight_decay,
            # One kernel for all parameters in place of several for each.
            fused=True,
        )
        return cls(parameters, schedule, optimizer)

    @property
    def step(self) -> int:
        """Steps taken so far, which is the 0-based number of the next one."""
        return self.trace.steps

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.parameters[0].device

    @property
    def snapshot_bytes(self) -> int:
        """Bytes of a snapshot under way: the parameters, AdamW's two moments, the best epoch's."""
        size = sum(parameter.numel() * parameter.element_size() for parameter in self.parameters)
        return (4 if self.best_parameters else 3) * size

    def set_learning_rate(self, total_steps: int) -> None:
        """Give the optimizer the learning rate of the next step."""
        schedule = self.schedule
        share = schedule.rate(self.step, total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = schedule.learning_rate * share

    def advance(self, losses: Losses, step: Step) -> None:
        """Take the step whose gradients are in `.grad`."""
        if self.schedule.clip is not None:
            clip_grad_norm_(self.parameters, self.schedule.clip)
        self.optimizer.step()
        # None in place of zeros frees the gradients' memory until the next backward pass.
        self.optimizer.zero_grad(set_to_none=True)
        for name, loss in losses.items():
            total = self.loss_sums.get(name, 0.0)
            self.loss_sums[name] = total + float(loss.detach())
        trace = self.trace
        trace.steps += 1
        self.epoch_steps += 1
        for rows in step.values():
            trace.rows += len(rows)

    def end_epoch(self, steps: int) -> None:
        """Note the mean losses of an epoch of `steps` steps."""
        means = {}
        for name, total in self.loss_sums.items():
            means[name] = total / steps
        self.trace.losses.append(means)
        self.loss_sums = {}
        self.epoch_steps = 0

    def keep_parameters(self) -> None:
        """Remember the parameters as the best so far."""
        self.best_parameters = [parameter.detach().clone() for parameter in self.parameters]

    def judge(self, value: float) -> None:
        """Note what the monitor says of the epoch that has just ended; lower is better."""
        self.trace.monitored.append(value)
        # Strictly: of two equal epochs the first one stays.
        if value < self.best_value:
            self.best_value = value
            self.trace.best_epoch = len(self.trace.monitored) - 1
            self.keep_parameters()

    @property
    def is_out_of_patience(self) -> bool:
        """Whether `schedule.patience` epochs have passed since the best one."""
        patience = self.schedule.patience
        if patience is None:
            return False
        last_epoch = len(self.trace.monitored) - 1
        # Where no value was ever better than infinity (NaN), patience counts from the first epoch.
        best_epoch = self.trace.best_epoch or 0
        return last_epoch - best_epoch >= patience

    @torch.no_grad()
    def restore_best(self) -> None:
        """Put the best parameters back in their places."""
        pairs = zip(self.parameters, self.best_parameters, strict=True)
        for parameter, best in pairs:
            parameter.copy_(best)

    def snapshot(self, *, is_over: bool) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Plain values and named tensors, by which `restore` stands here again.

        Args:
            is_over: whether `fit` has ended, so that nothing is needed but the parameters.
        """
        values: dict[str, Any] = {"trace": asdict(self.trace)}
        tensors = _numbered("parameter", self.parameters)
        if is_over:
            return values, tensors
        values["epoch_steps"] = self.epoch_steps
        values["loss_sums"] = dict(self.loss_sums)
        values["best_value"] = self.best_value
        tensors |= _numbered("best", self.best_parameters)
        # A parameter that no step has moved yet has no moments.
        for number, moments in self.optimizer.state_dict()["state"].items():
            for name, moment in moments.items():
                tensors[f"optimizer/{number}/{name}"] = _on_cpu(moment)
        return values, tensors

    @torch.no_grad()
    def restore(self, values: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        """Stand where `snapshot` was called; a state must have the same parameters."""
        for number, parameter in enumerate(self.parameters):
            parameter.copy_(tensors[f"parameter/{number}"])
        self.trace = Trace(**values["trace"])
        self.trace.earlier_seconds = self.trace.seconds
        if "epoch_steps" not in values:
            return
        self.epoch_steps = values["epoch_steps"]
        self.loss_sums = values["loss_sums"]
        self.best_value = values["best_value"]
        for number, best in enumerate(self.best_parameters):
            best.copy_(tensors[f"best/{number}"])
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer/"):
                _, number_text, moment = name.split("/")
                # Copied: a tensor in a file's memory need not be aligned as others are.
                moments.setdefault(int(number_text), {})[moment] = tensor.clone()
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})


def _numbered(name: str, tensors: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{name}/{number}": _on_cpu(tensor) for number, tensor in enumerate(tensors)}


def _on_cpu(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().contiguous()
