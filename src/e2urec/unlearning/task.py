"""What a method is given."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..core.arrays import Floats, Ints, Mask
from ..core.seeding import stream
from ..data.difficulty import Difficulty
from ..data.prompts import PromptTemplate
from ..metrics.classification import auc, log_loss
from ..models.backbone import Backbone
from ..models.batches import Examples
from ..models.precision import Precision
from ..models.predictions import complete_log_odds, predict
from ..models.recommender import Recommender
from ..training.checkpoints import NO_CHECKPOINTS, Checkpoints
from ..training.costs import Costs
from ..training.loop import OptimizerSettings, Progress, Schedule, silent
from ..training.out_of_fold import RowScores
from ..training.supervised import Tuning
from .outcome import Outcome

# Unseen rows are read after every phase. A small request must not wait for all of them; an AUC on
# so many has a standard error of about 0.03, and that on few rows of D_f is rougher still.
MIN_LOGGED_ROWS = 300
"""Unseen rows on which a phase is logged, unless D_f has more."""


@dataclass(frozen=True)
class PhaseLog:
    """Loss and AUC on D_f beside those on unseen users, after one phase of a method."""

    phase: str
    forget_auc: float
    forget_log_loss: float
    unseen_auc: float
    unseen_log_loss: float


@dataclass(kw_only=True)
class Job:
    """What a method needs whatever it does.

    Attributes:
        tuning: how an original is tuned.
        valid: validation rows; after a request, without forgotten users.
        seed: of everything random.
        precision: of the method's own steps and answers.
        costs: filled by the method.
        progress: told of each step.
        checkpoints: where it is kept how far a training is.
    """

    tuning: Tuning
    valid: Examples
    seed: int
    precision: Precision = "auto"
    costs: Costs = field(default_factory=Costs)
    progress: Progress = silent
    checkpoints: Checkpoints = NO_CHECKPOINTS


@dataclass(frozen=True)
class RequestScores:
    """Out-of-fold scores of a request's rows: what models say that never saw them.

    A row has NaN where the prompt behind its score has changed: by a request, this one or an
    earlier one, or where the data are kept.

    Attributes:
        forget: of D_f.
        retain: of D_r.
        calibration: of the calibration users' rows.
        models: half models whose mean each score is.
        stale: rows whose scores are left out since no request changed their prompt, and it is
            another all the same: an item has another title, say.
    """

    forget: RowScores
    retain: RowScores
    calibration: RowScores
    models: int
    stale: int = 0

    def stale_sentence(self) -> str | None:
        """That scores are not used, and what to do; None where all are of the prompts at hand."""
        if not self.stale:
            return None
        return (
            f"{self.stale} rows have other prompts than those that were scored, as when an item "
            "gets another title, so their scores are not used; make the scores anew by e2urec "
            "prepare."
        )


@dataclass(kw_only=True)
class Task(Job):
    """One request for erasure, put to one original. It holds no test rows.

    Attributes:
        original: the model that is asked to forget; its weights are the method's to change.
        base: the backbone before any user's data, for methods that start again; None: not at hand.
        forget: D_f, the rows that go.
        retain: D_r.
        rewritten: (m,) positions in `retain` of the rows whose prompt showed one that goes, and is
            written anew. They stay: no method is to un-know them.
        old_prompts: these rows with the prompts that the original was tuned on; empty where these
            are D_f.
        calibration: rows of users that no model was tuned on, for choosing a method's settings.
        unseen: the same of other users; they are logged, and nothing is chosen by them.
        scores: out-of-fold scores; None where the recommender was trained without.
        original_odds: log-odds of the original that are at hand already, by name of the rows: as
            many as these, NaN where a row has none. They save time; where a target is measured on a
            part of the rows, on those that have one first.
        difficulty: of the rows of `retain`, `calibration` and `unseen`; None: taken to be equal.
        scratch: folder for what does not fit into memory while the method runs; None: the system's.
        phase_logs: what `log_phase` saw.
        outcome: what the method aimed at and how far it came, where it can tell.
    """

    original: Recommender
    base: Backbone | None
    forget: Examples
    retain: Examples
    calibration: Examples
    unseen: Examples
    scores: RequestScores | None = None
    original_odds: Mapping[str, Floats] = field(default_factory=dict)
    difficulty: Difficulty | None = None
    rewritten: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    old_prompts: Examples = field(default_factory=Examples.empty)
    scratch: Path | None = None
    phase_logs: list[PhaseLog] = field(default_factory=list)
    outcome: Outcome = field(default_factory=Outcome)

    def schedule(
        self,
        batch_size: int,
        learning_rate: float,
        min_lr_ratio: float = 0.0,
        optimizer: OptimizerSettings | None = None,
    ) -> Schedule:
        """The schedule of a method's own steps, laid out as one epoch."""
        settings = optimizer or OptimizerSettings()
        return Schedule(
            **settings.model_dump(),
            **self.tuning.schedule.step_settings,
            epochs=1,
            batch_size=batch_size,
            learning_rate=learning_rate,
            min_lr_ratio=min_lr_ratio,
            precision=self.precision,
        )

    def has_odds(self, part: str) -> Mask:
        """(n,) True for the rows of `part` whose log-odds of the original are at hand."""
        count = len(getattr(self, part))
        odds = self.original_odds.get(part)
        return np.zeros(count, dtype=bool) if odds is None else np.isfinite(odds)

    def odds_of_original(self, part: str, rows: Ints) -> Floats:
        """Log-odds of the original, as it still is, on `rows` of `part`, (m,)."""
        no_odds: Floats = np.full(len(getattr(self, part)), np.nan, dtype=np.float32)
        log_odds = self.original_odds.get(part, no_odds)[rows]
        examples = getattr(self, part).take(rows)
        return complete_log_odds(self.original, examples, log_odds, precision=self.precision)

    @property
    def logged_rows(self) -> Ints:
        """Positions in `unseen` of the rows on which phases are logged, the same for all phases."""
        count = max(MIN_LOGGED_ROWS, len(self.forget))
        order = stream(self.seed, "logged").permutation(len(self.unseen))
        rows: Ints = np.sort(order[:count])
        return rows

    def log_phase(
        self, phase: str, model: Recommender, *, active: tuple[str, ...] | None = None
    ) -> None:
        """Log loss and AUC on D_f and on unseen users; its seconds are not the method's."""
        precision = self.precision
        # A phase of its own, which the time of unlearning leaves out.
        with self.costs.phase("logging"):
            forget = predict(
                model,
                self.forget,
                active=active,
                precision=precision,
            )
            unseen = predict(
                model,
                self.unseen.take(self.logged_rows),
                active=active,
                precision=precision,
            )
            self.log_scores(phase, forget.log_odds, unseen.log_odds)

    def log_original(self, forget: Floats) -> Floats:
        """Log the original by its log-odds on D_f (n,), and return those on the `logged_rows`."""
        with self.costs.phase("logging"):
            unseen = self.odds_of_original("unseen", self.logged_rows)
            self.log_scores("original", forget, unseen)
        return unseen

    def log_teacher(self, forget: Floats, unseen: Floats) -> None:
        """Log the forgetting teacher's scores: where it overshoots, no student puts it right."""
        self.log_scores("teacher", forget, unseen)
        self.outcome.teacher_auc = auc(self.forget.labels, forget)

    def log_scores(self, phase: str, forget: Floats, unseen: Floats) -> None:
        """Log the log-odds `forget` on D_f (n,) and `unseen` on the `logged_rows`."""
        unseen_labels = self.unseen.labels[self.logged_rows]
        log = PhaseLog(
            phase=phase,
            forget_auc=auc(self.forget.labels, forget),
            forget_log_loss=log_loss(self.forget.labels, forget),
            unseen_auc=auc(unseen_labels, unseen),
            unseen_log_loss=log_loss(unseen_labels, unseen),
        )
        self.phase_logs.append(log)


@dataclass(kw_only=True)
class TrainingTask(Job):
    """What a recommender is trained from before anybody asks to be forgotten.

    Attributes:
        base: the backbone before any user's data; it is only read.
        template: of the prompts.
        window: longest prompt in tokens.
        train: all training rows, D.
    """

    base: Backbone
    template: PromptTemplate
    window: int
    train: Examples
