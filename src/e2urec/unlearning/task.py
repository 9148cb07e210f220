"""What a method is given."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data.prompts import PromptTemplate
from ..metrics.classification import auc, log_loss
from ..models.backbone import Backbone
from ..models.batches import Examples
from ..models.precision import Precision
from ..models.predictions import predict
from ..models.recommender import Recommender
from ..training.costs import Costs
from ..training.loop import Progress, Schedule, silent
from ..training.supervised import Tuning


@dataclass(frozen=True)
class PhaseLog:
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
        phase_logs: what `watch` saw.
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
    phase_logs: list[PhaseLog] = field(default_factory=list)

    def log_phase(
        self, phase: str, model: Recommender, *, active: tuple[str, ...] | None = None
    ) -> None:
        """Log loss and AUC on D_f and on the unseen users; its seconds are not the method's."""
        with self.costs.phase("logging"):
            seen = [
                predict(model, rows, active=active, precision=self.precision).log_odds
                for rows in (self.forget, self.unseen)
            ]
            self.log_scores(phase, *seen)

    def schedule(
        self, batch_size: int, learning_rate: float, min_lr_ratio: float = 0.0
    ) -> Schedule:
        """The schedule of a method's own steps, laid out as one epoch."""
        return Schedule(
            epochs=1,
            batch_size=batch_size,
            learning_rate=learning_rate,
            min_lr_ratio=min_lr_ratio,
            weight_decay=0.0,
            precision=self.precision,
        )

    def log_scores(
        self, phase: str, forget: np.ndarray[Any, Any], unseen: np.ndarray[Any, Any]
    ) -> None:
        """Log the log-odds `forget` on D_f (n,) and `unseen` on the unseen users."""
        scores = (
            measure(rows.labels, odds)
            for rows, odds in ((self.forget, forget), (self.unseen, unseen))
            for measure in (auc, log_loss)
        )
        self.phase_logs.append(PhaseLog(phase, *scores))


@dataclass
class TrainingTask:
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
