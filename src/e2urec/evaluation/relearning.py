"""Does what was forgotten come back? Relearning D_f, merging the adapter, rounding the weights.

A model that only hides D_f relearns it faster than one that never knew it, or shows it again once
its weights are rounded (Zhang et al. 2024, arXiv 2410.16454).
"""

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from ..core.errors import ConfigError
from ..core.seeding import derive
from ..metrics.bootstrap import Bootstrap, Figure, user_bootstrap
from ..models import adapter_algebra, adapters, stored_weights
from ..models.adapters import LoRA
from ..models.batches import Examples, endless_batches
from ..models.precision import Precision
from ..models.predictions import Predictions, predict
from ..models.recommender import Recommender
from ..training.loop import Phase, Progress, Schedule, Step, fit, silent
from ..training.state import TrainingState
from ..training.supervised import supervised
from .roles import Role

# No other adapter of this package has the name, so it can always be attached.
ADAPTER = "relearned"


class Relearning(BaseModel):
    """How a model is tuned on D_f again."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: int = Field(
        200, ge=1, description="steps after which a model counts as not having relearned"
    )
    every: int = Field(20, ge=1, description="steps between two looks at the loss on D_f")
    batch_size: int = Field(16, ge=1, description="rows a step")
    learning_rate: float = Field(5e-4, gt=0, description="learning rate, constant")
    lora: LoRA = Field(LoRA(), description="adapter that relearns")

    @property
    def looks(self) -> int:
        """How often the loss on D_f is looked at after the start."""
        # Rounded up: the last look comes when the steps are over, or after.
        return -(-self.steps // self.every)

    def schedule(self, precision: Precision, step_settings: Mapping[str, Any]) -> Schedule:
        """A constant learning rate; what lies between two looks is an epoch."""
        return Schedule(
            **step_settings,
            epochs=self.looks,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            warmup=0.0,
            min_lr_ratio=1.0,
            weight_decay=0.0,
            precision=precision,
        )


@dataclass
class Relearner:
    """Makes models relearn D_f, all by the same rows in the same order.

    Attributes:
        forget: D_f.
        before: the original's answers to it: relearned is as low a log loss as theirs.
        settings: steps, adapter, learning rate.
        seed: of the batches, the adapter and the bootstrap.
        precision: of the training.
        step_settings: of the original's schedule, by name.
        progress: told of each step.
        steps: how many steps each model took.
    """

    forget: Examples
    before: Predictions
    settings: Relearning
    seed: int
    precision: Precision = "auto"
    step_settings: Mapping[str, Any] = field(default_factory=dict)
    progress: Progress = silent
    steps: dict[Role, Figure] = field(default_factory=dict)

    @cached_property
    def bootstrap(self) -> Bootstrap:
        """Resamples of the users of D_f."""
        # The stream of the evaluation's own resamples of D_f: figures of both are paired.
        seed = derive(self.seed, "bootstrap", "forget")
        return user_bootstrap(self.forget.users, seed=seed)

    def try_on(self, role: Role, model: Recommender) -> None:
        """Note how many steps a model takes; it is left as it was."""
        goal = self.bootstrap.log_loss(self.forget.labels, self.before.log_odds)
        losses = self.losses(model)
        self.steps[role] = steps_until(losses, goal, self.settings)

    def losses(self, model: Recommender) -> list[Figure]:
        """Log loss on D_f at the start and at each look, in nats; the model is left as it was."""
        settings = self.settings
        active = (*model.active, ADAPTER)
        seed = derive(self.seed, "relearn", "adapter")
        model.lm = adapters.attach(model.lm, ADAPTER, settings.lora, seed=seed)
        schedule = settings.schedule(self.precision, self.step_settings)
        losses: list[Figure] = []

        def look() -> float:
            answers = predict(model, self.forget, active=active, precision=self.precision)
            loss = self.bootstrap.log_loss(answers.labels, answers.log_odds)
            losses.append(loss)
            return float(loss[0])

        try:
            look()
            epochs = self._epochs()
            with model.using(active, train=ADAPTER) as parameters:
                fit(
                    model,
                    TrainingState.start(parameters, schedule),
                    lambda epoch: epochs[epoch],
                    supervised(model, self.forget),
                    Phase("relearning", self.seed, self.progress),
                    monitor=look,
                )
        finally:
            # Also after an error: what relearned D_f must not outlive the measurement.
            model.lm = adapters.remove(model.lm, ADAPTER)
        return losses

    def _epochs(self) -> list[list[Step]]:
        """The steps between two looks, for each look."""
        size = self.settings.batch_size
        batches = endless_batches(self.forget.lengths, size, seed=derive(self.seed, "relearn"))
        epochs: list[list[Step]] = []
        for _ in range(self.settings.looks):
            epochs.append([{"train": next(batches)} for _ in range(self.settings.every)])
        return epochs


def steps_until(losses: list[Figure], goal: Figure, settings: Relearning) -> Figure:
    """Steps until the loss is down at `goal`, by a straight line between two looks.

    At most `settings.steps` (censored). A resample without a goal has no steps.
    """
    curve = np.stack(losses)
    reached = curve <= goal
    first_look = np.where(reached.any(axis=0), reached.argmax(axis=0), 0)
    line = np.arange(curve.shape[1])
    loss_before = curve[np.maximum(first_look - 1, 0), line]
    loss_after = curve[first_look, line]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (loss_before - goal) / (loss_before - loss_after)
        share = np.where(loss_before > loss_after, share, 0.0)
    # A curve that never gets there, or starts there, has no look before the first.
    at_start = np.where(reached[0], 0.0, settings.steps)
    steps = np.where(first_look > 0, (first_look - 1 + share) * settings.every, at_start)
    return np.where(np.isnan(goal), np.nan, np.minimum(steps, settings.steps))


def reshaped(model: Recommender) -> Iterator[tuple[str, Recommender]]:
    """The model as it may be deployed, one after another: `merged` if adapted, and `int8`.

    `int8` rounds the weights of all linear layers but the output head, with a scale a channel; see
    `require_int8`.
    """
    copied = model.copy_adapters()
    if copied.active:
        copied.lm = adapter_algebra.merge(copied.lm, copied.active)
        copied.active = ()
        yield "merged", copied
    # Rounded from float32, as a model is that is held so.
    stored_weights.widen(copied.lm)
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    # Rounding the head as well would tie scores, which hides what is left instead of testing it.
    head = copied.lm.get_output_embeddings()

    def inner_linear(layer: nn.Module, name: str) -> bool:
        if layer is head:
            return False
        return isinstance(layer, nn.Linear)

    quantize_(copied.lm, Int8WeightOnlyConfig(), inner_linear)
    yield "int8", copied


def require_int8() -> None:
    """Raise ConfigError unless torchao is installed."""
    if importlib.util.find_spec("torchao") is None:
        raise ConfigError(
            "rounding to int8 needs torchao, which is not installed; pip install 'e2urec[int8]'"
        )
