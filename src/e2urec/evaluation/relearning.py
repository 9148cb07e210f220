"""Does what was forgotten come back? Relearning it, merging the adapter, rounding the weights to int8.

A model that only hides D_f relearns it faster than one that never knew it, or shows it again once its weights are
rounded (Zhang et al. 2024, arXiv 2410.16454).
"""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from ..core.errors import ConfigError
from ..core.seeding import derive
from ..metrics.bootstrap import Bootstrap, Figure, Interval, user_bootstrap
from ..models import adapters
from ..models.adapters import LoRA
from ..models.batches import Examples, endless
from ..models.precision import Precision
from ..models.predictions import Predictions, predict
from ..models.recommender import Recommender
from ..training.loop import Phase, Progress, Schedule, TrainingState, fit, silent
from ..training.supervised import supervised


class Relearning(BaseModel):
    """How a model is tuned on D_f again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(
        200, ge=1, description="steps after which a model counts as not having relearned"
    )
    every: int = Field(20, ge=1, description="steps between two looks at the loss on D_f")
    batch_size: int = Field(16, ge=1, description="rows a step")
    learning_rate: float = Field(5e-4, gt=0, description="learning rate, constant")
    lora: LoRA = Field(LoRA(), description="adapter that relearns")


def relearn(
    model: Recommender,
    forget: Examples,
    boot: Bootstrap,
    how: Relearning,
    *,
    seed: int,
    precision: Precision = "auto",
    progress: Progress = silent,
) -> list[Figure]:
    """Log loss on D_f at step 0, `every`, 2·`every`, …, in nats; afterwards the model is as it was."""
    looks = -(-how.steps // how.every)
    batches = endless(forget.lengths, how.batch_size, seed=derive(seed, "relearn"))
    steps = [[{"train": next(batches)} for _ in range(how.every)] for _ in range(looks)]
    schedule = Schedule(
        epochs=looks,
        batch_size=how.batch_size,
        learning_rate=how.learning_rate,
        warmup=0.0,
        min_lr_ratio=1.0,
        weight_decay=0.0,
        precision=precision,
    )
    active = (*model.active, "relearned")
    model.lm = adapters.attach(
        model.lm, "relearned", how.lora, seed=derive(seed, "relearn", "adapter")
    )
    losses: list[Figure] = []

    def look() -> float:
        odds = predict(model, forget, active=active, precision=precision).odds
        losses.append(boot.log_loss(forget.labels, odds))
        return float(losses[-1][0])

    try:
        look()
        with model.using(active, train="relearned") as parameters:
            fit(
                model,
                TrainingState.start(parameters, schedule),
                lambda epoch: steps[epoch],
                supervised(model, forget),
                Phase("relearning", seed, progress),
                monitor=look,
            )
    finally:
        model.lm = adapters.drop(model.lm, "relearned")
    return losses


def steps_until(losses: list[Figure], goal: Figure, how: Relearning) -> Figure:
    """Steps until the loss is down at `goal`, between two looks by straight line; at most `how.steps` (censored).

    A draw without a goal has no steps.
    """
    curve = np.stack(losses)
    reached = curve <= goal
    first = np.where(reached.any(axis=0), reached.argmax(axis=0), 0)
    line = np.arange(curve.shape[1])
    above, below = curve[np.maximum(first - 1, 0), line], curve[first, line]
    with np.errstate(invalid="ignore", divide="ignore"):
        part = np.where(above > below, (above - goal) / (above - below), 0.0)
    steps = np.where(
        first > 0, (first - 1 + part) * how.every, np.where(reached[0], 0.0, how.steps)
    )
    return np.where(np.isnan(goal), np.nan, np.minimum(steps, how.steps))


@dataclass
class Relearner:
    """Makes models relearn D_f, all by the same rows in the same order.

    Attributes:
        forget: D_f.
        before: the original's answers to it: relearned is as low a log loss as theirs.
        how: steps, adapter, learning rate.
    """

    forget: Examples
    before: Predictions
    how: Relearning
    seed: int
    precision: Precision = "auto"
    progress: Progress = silent
    steps: dict[str, Figure] = field(default_factory=dict)

    @cached_property
    def boot(self) -> Bootstrap:
        """Resamples of the users of D_f."""
        return user_bootstrap(self.forget.users, seed=derive(self.seed, "bootstrap", "forget"))

    def try_on(self, name: str, model: Recommender) -> None:
        """Note how many steps `model` takes; it is left as it was."""
        goal = self.boot.log_loss(self.forget.labels, self.before.odds)
        losses = relearn(
            model,
            self.forget,
            self.boot,
            self.how,
            seed=self.seed,
            precision=self.precision,
            progress=self.progress,
        )
        self.steps[name] = steps_until(losses, goal, self.how)

    def found(self) -> dict[str, dict[str, Interval]]:
        """Model → `steps`, and their `ratio` to the mean of those called `retrained_…`: < 1 comes back sooner."""
        references = [figure for name, figure in self.steps.items() if name.startswith("retrained")]
        table = {name: {"steps": self.boot.interval(figure)} for name, figure in self.steps.items()}
        for name, figure in self.steps.items():
            if references and not name.startswith("retrained"):
                with np.errstate(invalid="ignore", divide="ignore"):
                    table[name]["ratio"] = self.boot.interval(figure / np.mean(references, axis=0))
        return table


def reshaped(model: Recommender) -> Iterator[tuple[str, Recommender]]:
    """The model as it may be deployed, one after another: `merged` (if it has an adapter) and `int8`.

    `int8` rounds the weights of all linear layers but the output head, a scale a channel; see `require_int8`.
    """
    copied = model.copy()
    if copied.active:
        copied.lm, copied.active = adapters.merge(copied.lm, copied.active), ()
        yield "merged", copied
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    head = copied.lm.get_output_embeddings()

    def inner_linear(layer: nn.Module, name: str) -> bool:
        return isinstance(layer, nn.Linear) and layer is not head

    quantize_(copied.lm, Int8WeightOnlyConfig(), inner_linear)
    yield "int8", copied


def require_int8() -> None:
    """Raise ConfigError unless torchao is installed."""
    if importlib.util.find_spec("torchao") is None:
        raise ConfigError(
            "rounding to int8 needs torchao, which is not installed; pip install 'e2urec[int8]'"
        )
