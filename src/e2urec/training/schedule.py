"""How long and how fast a run trains."""

import math
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ..models.precision import Precision


class OptimizerSettings(BaseModel):
    """How AdamW takes its steps, besides their length."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    warmup: float = Field(
        0.06, ge=0, lt=1, description="share of the steps with a rising learning rate"
    )
    # Decay pulls an adapter to zero, which is back to the original.
    weight_decay: float = Field(0.0, ge=0, description="AdamW weight decay")
    clip: float | None = Field(
        1.0, gt=0, description="largest norm of the gradient; none: any norm"
    )


class StepSettings(BaseModel):
    """What a step takes in memory and seconds; what it does is the same within rounding."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    micro_batch: int | None = Field(
        None,
        ge=1,
        description="rows of each set that go through the model at a time; the gradients of a "
        "step's parts add up to the whole step's. none: all rows at once",
    )
    gradient_checkpointing: bool = Field(
        False,
        description="compute what blocks hold for the backward pass a second time, in place of "
        "keeping it: less memory, about a third more work",
    )


class Schedule(StepSettings, OptimizerSettings):
    """How long and how fast to train.

    AdamW with a linear warm-up, then a linear decay to `min_lr_ratio`·`learning_rate`.
    """

    # All epochs are planned before the first one: a slip of the finger would fill the memory.
    epochs: int = Field(3, ge=1, le=100_000, description="passes over the rows")
    batch_size: int = Field(16, ge=1, description="rows a step, over all processes")
    learning_rate: float = Field(3e-4, gt=0, description="highest learning rate of AdamW")
    min_lr_ratio: float = Field(
        0.0, ge=0, le=1, description="last learning rate as a share of the highest"
    )
    weight_decay: float = Field(0.01, ge=0, description="AdamW weight decay")
    patience: int | None = Field(
        None, ge=1, description="stop after so many epochs without a better validation loss"
    )
    precision: Precision = Field(
        "auto", description="bf16 autocast, or fp32; auto: bf16 where the processor has it"
    )

    @property
    def rows_at_once(self) -> int:
        """Rows of a set that go through the model at a time: what its memory was found to hold."""
        return min(self.batch_size, self.micro_batch or self.batch_size)

    @property
    def step_settings(self) -> dict[str, Any]:
        """Those of `StepSettings`, for another schedule of the same model."""
        return {name: getattr(self, name) for name in StepSettings.model_fields}

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of 0-based `step` of `steps`, as a share of the highest."""
        # At least one step, so that a run of a few steps does not divide by zero.
        warmup_steps = max(1, math.ceil(self.warmup * steps))
        # Counted from 1: a first step at rate 0 would move nothing.
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        decay_steps = max(1, steps - warmup_steps)
        remaining_share = (steps - step) / decay_steps
        lowest = self.min_lr_ratio
        return lowest + (1 - lowest) * remaining_share
