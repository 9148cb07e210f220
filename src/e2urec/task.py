"""What a method is given, and what a method is."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import psutil
from pydantic import BaseModel, ConfigDict

from . import metrics
from .data.prompts import PromptTemplate
from .memory import hand_back
from .models.backbone import Backbone
from .models.batches import Examples
from .models.recommender import Recommender
from .predictions import predict
from .training import Precision, Progress, Schedule, silent
from .tuning import Tuning


@dataclass
class Costs:
    """Seconds and rows read by phase, the largest memory seen, parameters that moved."""

    seconds: dict[str, float] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    peak_bytes: int = 0
    trainable: int = 0

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the seconds spent inside to phase `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
            self.peak_bytes = max(self.peak_bytes, psutil.Process().memory_info().rss)
            hand_back()

    def read(self, name: str, rows: int) -> None:
        """Count `rows` read in phase `name`."""
        self.rows[name] = self.rows.get(name, 0) + rows


@dataclass(frozen=True)
class Sighting:
    """Loss and AUC on D_f beside those on the unseen users, after one phase of a method."""

    phase: str
    forget_auc: float
    forget_log_loss: float
    unseen_auc: float
    unseen_log_loss: float


@dataclass
class Task:
    """One request for erasure, put to one original. It holds no test rows.

    Attributes:
        original: the model that is asked to forget; its weights are the method's to change.
        base: the backbone before any user's data, for methods that start again; None if not at hand.
        tuning: how the original was tuned.
        forget: D_f.
        retain: D_r.
        valid: validation rows, without forgotten users.
        calibration: rows of users that no model was tuned on, for choosing a method's settings.
        unseen: the same of other users; they are logged, and nothing is chosen by them.
        seed: of everything random.
        costs: filled by the method.
        progress: told of each step.
        rewritten: prompts of D_f that are in D_r too, written anew without what goes.
        scratch: folder for what does not fit into memory while the method runs; None: the system's own.
        sightings: what `watch` saw.
    """

    original: Recommender
    base: Backbone | None
    tuning: Tuning
    forget: Examples
    retain: Examples
    valid: Examples
    calibration: Examples
    unseen: Examples
    seed: int
    precision: Precision = "auto"
    costs: Costs = field(default_factory=Costs)
    progress: Progress = silent
    rewritten: int = 0
    scratch: Path | None = None
    sightings: list[Sighting] = field(default_factory=list)

    def watch(self, phase: str, model: Recommender, *, active: tuple[str, ...] | None = None) -> None:
        """Log loss and AUC on D_f and on the unseen users; its seconds are not the method's."""
        with self.costs.phase("watching"):
            seen = [
                predict(model, rows, active=active, precision=self.precision).odds
                for rows in (self.forget, self.unseen)
            ]
            self.sight(phase, *seen)

    def schedule(self, batch_size: int, learning_rate: float, floor: float = 0.0) -> Schedule:
        """The schedule of a method's own steps, laid out as one epoch."""
        return Schedule(
            epochs=1, batch_size=batch_size, learning_rate=learning_rate, floor=floor, weight_decay=0.0,
            precision=self.precision,
        )  # fmt: skip

    def sight(self, phase: str, forget: np.ndarray[Any, Any], unseen: np.ndarray[Any, Any]) -> None:
        """Log the log-odds `forget` on D_f (n,) and `unseen` on the unseen users."""
        scores = (
            measure(rows.labels, odds)
            for rows, odds in ((self.forget, forget), (self.unseen, unseen))
            for measure in (metrics.auc, metrics.log_loss)
        )
        self.sightings.append(Sighting(phase, *scores))


@dataclass
class Foundation:
    """What a recommender is trained from before anybody asks to be forgotten.

    Attributes:
        base: the backbone before any user's data; it is only read.
        template, window: of the prompts.
        tuning: how an original is tuned.
        train: all training rows, D.
        valid: validation rows.
        seed: of everything random.
        costs: filled by the method.
        progress: told of each step.
    """

    base: Backbone
    template: PromptTemplate
    window: int
    tuning: Tuning
    train: Examples
    valid: Examples
    seed: int
    precision: Precision = "auto"
    costs: Costs = field(default_factory=Costs)
    progress: Progress = silent


class Method(BaseModel):
    """A way to forget. Its fields are its settings: command line, recipes, checks and docs derive from them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    needs_base: ClassVar[bool] = False
    exact: ClassVar[bool] = False
    """Whether nothing of D_f is left by construction: what never saw it is all that the result is made from."""
    prepares: ClassVar[bool] = False
    """Whether the method has an original of its own, made by `prepare` before any request."""
    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """Values of settings among which a comparison chooses on its development request."""

    def prepare(self, ground: Foundation) -> Recommender:
        """Train the recommender that a later request will be put to, for methods that need one of their own."""
        raise NotImplementedError

    def unlearn(self, task: Task) -> Recommender:
        """Return the model that has forgotten `task.forget`."""
        raise NotImplementedError

    def plan(self, forget: int, retain: int, schedule: Schedule) -> dict[str, int]:
        """Rows read in each phase, given how many D_f and D_r have and the original's schedule."""
        raise NotImplementedError

    def updates(self, forget: int, retain: int, schedule: Schedule) -> int:
        """Optimizer steps that move the recommender itself: a placebo takes as many."""
        raise NotImplementedError
