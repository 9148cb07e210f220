"""The ideal: tune the base again, on the retained rows alone.

    θ = the original's tuning, from the base, on D_r in place of D

Every other method is measured against this one.
"""

import math
from typing import ClassVar

from pydantic import Field

from ..core.errors import ConfigError
from ..models.recommender import Recommender
from ..training.loop import Schedule
from ..training.phase import Phase
from ..training.supervised import tune
from ..unlearning.method import Method
from ..unlearning.task import Task


class Retrain(Method):
    """Tune the base on D_r alone, as the original was tuned on D: exact, and the dearest."""

    name: ClassVar[str] = "retrain"
    needs_base: ClassVar[bool] = True
    exact: ClassVar[bool] = True

    number: int = Field(
        1, ge=1, description="which retrained model: the seed is 1000·number + the original's"
    )

    def unlearn(self, task: Task) -> Recommender:
        """Return the retrained model.

        Raises:
            ConfigError: the task holds no base.
        """
        if task.base is None:
            raise ConfigError(
                "method 'retrain' needs the base model; give the name or folder it was tuned from"
            )
        # Steps of 1000 keep the seeds of retrained models apart from those of other originals.
        seed = 1000 * self.number + task.seed
        with task.costs.phase("retrain"):
            original = task.original
            untuned = Recommender(task.base, original.template, window=original.window)
            phase = Phase("retrain", seed, task.progress, task.checkpoints)
            model, trace = tune(untuned, task.tuning, task.retain, task.valid, phase)
        task.costs.count_training("retrain", trace)
        return model

    def plan(self, forget: int, retain: int, schedule: Schedule) -> dict[str, int]:
        """All retain rows, for the original's epochs."""
        return {"retrain": schedule.epochs * retain}

    def updates(self, forget: int, retain: int, schedule: Schedule) -> int:
        """The steps of the original's epochs over D_r."""
        return schedule.epochs * math.ceil(retain / schedule.batch_size)
