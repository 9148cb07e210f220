"""A student at one multiple after another: what D_f, D_r and the validation rows say of it."""

from dataclasses import dataclass

import numpy as np
import torch

from ..core.arrays import Floats
from ..metrics.classification import auc
from ..models.batches import Examples
from ..models.predictions import predict
from .multiple import Multiples, limit_sentence
from .outcome import Target
from .retain_check import RetainCheck
from .student import Student

# By how much a multiple is taken back when D_r or the validation rows do not bear it.
RETREAT = 0.75
# After so many, a hundredth is left: what is not borne then is no matter of length.
MAX_RETREATS = 16


@dataclass(frozen=True)
class Sample:
    """Some rows, and the original's answers to them."""

    rows: Examples
    odds: Floats

    def auc_before(self) -> float:
        """AUC of the original."""
        return auc(self.rows.labels, self.odds)

    def odds_of(self, student: Student) -> Floats:
        """Log-odds of the student as it is."""
        task = student.task
        answers = predict(task.original, self.rows, active=student.active, precision=task.precision)
        task.costs.count_rows("scaling", len(self.rows))
        return answers.log_odds

    def auc_of(self, student: Student) -> float:
        """AUC of the student as it is."""
        return auc(self.rows.labels, self.odds_of(student))


@dataclass(frozen=True)
class Bounds:
    """How far a student may be taken.

    Attributes:
        student: as far as it was taken.
        check: rows of D_r; None where there are none.
        max_retain_kl: most that it may move these, in nats of L_REM.
        valid: validation rows; None where they bound nothing.
        max_valid_drop: most AUC that it may cost these.
    """

    student: Student
    check: RetainCheck | None
    max_retain_kl: float
    valid: Sample | None
    max_valid_drop: float

    def broken(self) -> str:
        """Which bound the student breaks as it is, in a sentence; empty for none."""
        # Both bounds are written so that what is not a number breaks them.
        active = self.student.active
        if self.check and not self.check.divergence(active) <= self.max_retain_kl:
            return (
                f"The student was taken back so that D_r moves by no more than "
                f"{self.max_retain_kl:g} nats (scaling.max_retain_kl)."
            )
        if self.valid is None:
            return ""
        drop = self.valid.auc_before() - self.valid.auc_of(self.student)
        if not drop <= self.max_valid_drop:
            return (
                f"The student was taken back so that validation AUC falls by no more than "
                f"{self.max_valid_drop:g} (scaling.max_valid_drop)."
            )
        return ""


@dataclass(frozen=True)
class ScaledStudent:
    """Multiples of a trained student.

    Attributes:
        student: put at one multiple after another.
        weights: A and B matrices as trained.
        forget: rows of D_f that multiples are tried on.
    """

    student: Student
    weights: dict[str, torch.Tensor]
    forget: Sample

    def fit(self, target: Target, largest: float, bounds: Bounds) -> float:
        """Put the student where its AUC is down to the target, or as far as the bounds allow.

        Args:
            target: with the lead.
            largest: multiple.
            bounds: that it is taken back to.

        Returns:
            The AUC there; scale and bounds are noted in the outcome.
        """
        outcome = self.student.task.outcome
        before = self.forget.auc_before()
        goal = before - target.lead
        multiples = self.multiples()
        searched_scale, reached = multiples.least(goal, largest)
        # Found by D_f alone; what the others bear is asked of this one multiple, and of smaller
        # ones.
        scale = self.retreat(searched_scale, bounds)
        if scale != searched_scale:
            reached = multiples.auc_at(scale)
        # A bound that was hit later holds it shorter than this one.
        elif multiples.stay_above(goal):
            setting = "solving.largest" if outcome.is_solved else "scaling.largest"
            outcome.tell(limit_sentence(scale, largest, setting))
        outcome.scale = scale
        return reached

    def multiples(self) -> Multiples:
        """Answers to the rows of D_f at multiples; the original's are those at 0."""
        return Multiples(self.forget.rows.labels, self.odds_at, {0.0: self.forget.odds})

    def odds_at(self, scale: float) -> Floats:
        """Log-odds on D_f of the student at a multiple, (n,)."""
        self.put_at(scale)
        odds = self.forget.odds_of(self.student)
        if not np.isfinite(odds).all():
            self.student.task.outcome.tell(
                "At some multiple the student's answers to D_f are not numbers, so it was taken "
                "less far; a smaller learning_rate would help."
            )
        return odds

    def put_at(self, scale: float) -> None:
        """Put the student at a multiple; 0 is the original, whatever the weights are."""
        weights = self.weights
        if not scale:
            # Not the weights times 0, which are no numbers where the weights are none.
            weights = {name: torch.zeros_like(value) for name, value in weights.items()}
        self.student.start_at(weights, scale)

    def retreat(self, scale: float, bounds: Bounds) -> float:
        """Take the student back from `scale` until no bound is broken, and return where it is."""
        outcome = self.student.task.outcome
        for _ in range(MAX_RETREATS):
            self.put_at(scale)
            sentence = bounds.broken()
            if not sentence:
                return scale
            outcome.tell(sentence)
            scale *= RETREAT
        self.put_at(0.0)
        outcome.tell(
            "Not even a hundredth of the student keeps these bounds, so the original was left as "
            "it is; raise the bound, or train the student at a smaller learning_rate."
        )
        return 0.0
