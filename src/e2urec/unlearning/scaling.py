"""The finished student, multiplied until D_f is forgotten.

A student that learns for a few passes points the right way and stops short. Along its update ΔW the
AUC on D_f falls steadily, so the multiple c·ΔW that brings it to the target is found by halving, as
far as D_r and the validation rows bear it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from ..core.arrays import Floats
from ..core.seeding import stream
from ..metrics.classification import auc
from ..models.batches import Examples
from ..models.predictions import predict
from .initial_step import RetainCheck
from .student import Student
from .task import Task

# Rows of D_f on which a multiple is tried: the same for all, so that differences are known well.
FORGET_ROWS = 600
# Below so many rows an AUC is too rough to be steered by.
MIN_FORGET_ROWS = 300
# A small request must not wait for all validation rows; a large one has time for as many as it has.
MIN_VALIDATION_ROWS = 500
HALVINGS = 3
"""After them a multiple between 0 and 1 is known to 1/8."""
# By how much a multiple is taken back when D_r or the validation rows do not bear it.
RETREAT = 0.75


class Scaling(BaseModel):
    """How far the finished student may be taken."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    largest: float = Field(
        2.0, ge=0, description="largest multiple of the finished student; 0: it stays as trained"
    )
    max_valid_drop: float = Field(
        0.01, ge=0, description="most AUC that it may cost on the validation rows"
    )
    max_retain_kl: float = Field(
        0.1, gt=0, description="most that it may move D_r, in nats of L_REM"
    )


def scaling_rows(forget: int) -> int:
    """Rows that are read to scale a student, about: multiples of it are tried in turn.

    Args:
        forget: rows of D_f.
    """
    if forget < MIN_FORGET_ROWS:
        return 0
    # The student as it is, at its limit, at each halving, and as it was taken back.
    tries = HALVINGS + 3
    forget_rows = tries * min(forget, FORGET_ROWS)
    valid_rows = 2 * max(MIN_VALIDATION_ROWS, forget)
    return forget_rows + valid_rows


@dataclass(frozen=True)
class _Sample:
    """Some rows, and the original's answers to them."""

    rows: Examples
    odds: Floats

    def auc_before(self) -> float:
        """AUC of the original."""
        return auc(self.rows.labels, self.odds)

    def auc_of(self, student: Student) -> float:
        """AUC of the student as it is."""
        task = student.task
        answers = predict(task.original, self.rows, active=student.active, precision=task.precision)
        task.costs.count_rows("scaling", len(self.rows))
        return auc(self.rows.labels, answers.log_odds)


def scale_student(
    student: Student, scaling: Scaling, check: RetainCheck, forget_odds: Floats
) -> None:
    """Multiply the student so that its AUC on D_f comes to the target of its task.

    The multiple, what was reached and every bound are noted in the outcome of the task.

    Args:
        student: trained.
        scaling: how far it may be taken.
        check: rows of D_r, and the original's answers to them.
        forget_odds: log-odds of the original on D_f, (n,).
    """
    task = student.task
    outcome = task.outcome
    target = outcome.target
    assert target is not None, "a student is scaled to a target"
    forget_count = len(task.forget)
    if forget_count < MIN_FORGET_ROWS:
        outcome.limits.append(
            f"D_f has {forget_count} rows, fewer than the {MIN_FORGET_ROWS} from which the student "
            "is scaled to its target, so it stays as trained."
        )
        return
    order = stream(task.seed, "scaling", "forget").permutation(forget_count)
    rows = order[:FORGET_ROWS]
    forget = _Sample(task.forget.take(rows), forget_odds[rows])
    valid = _valid_sample(task)
    weights = student.weights()
    goal = forget.auc_before() - target.lead

    def auc_at(scale: float) -> float:
        student.start_at(weights, scale)
        return forget.auc_of(student)

    scale, reached = _search(auc_at, goal, scaling.largest)
    if reached > goal and scale == scaling.largest:
        outcome.limits.append(
            f"The student came to its limit, {scaling.largest:g} times what was trained "
            "(scaling.largest)."
        )
    # Found by D_f alone; what the others bear is asked of this one multiple, and of smaller ones.
    student.start_at(weights, scale)
    searched_scale = scale
    while bound := _bound(student, scaling, check, valid):
        scale *= RETREAT
        student.start_at(weights, scale)
        if bound not in outcome.limits:
            outcome.limits.append(bound)
    if scale != searched_scale:
        reached = auc_at(scale)
    outcome.scale = scale
    # The target is the whole of D_f's; what is left is the same share of the lead on both.
    outcome.reached = target.auc + reached - goal


def _valid_sample(task: Task) -> _Sample | None:
    """Validation rows, and the original's answers; None where there are none."""
    if not len(task.valid):
        return None
    count = max(MIN_VALIDATION_ROWS, len(task.forget))
    order = stream(task.seed, "scaling", "valid").permutation(len(task.valid))
    rows = task.valid.take(order[:count])
    answers = predict(task.original, rows, precision=task.precision)
    task.costs.count_rows("scaling", len(rows))
    return _Sample(rows, answers.log_odds)


def _search(auc_at: Callable[[float], float], goal: float, largest: float) -> tuple[float, float]:
    """The least multiple ≤ `largest` at which the AUC is down to `goal`, and the AUC there."""
    low = 0.0
    high = min(1.0, largest)
    reached = auc_at(high)
    if reached > goal and high < largest:
        low = high
        high = largest
        reached = auc_at(high)
    if reached > goal:
        return high, reached
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        middle_auc = auc_at(middle)
        if middle_auc > goal:
            low = middle
        else:
            high = middle
            reached = middle_auc
    return high, reached


def _bound(student: Student, scaling: Scaling, check: RetainCheck, valid: _Sample | None) -> str:
    """Which bound the student breaks as it is, in a sentence; empty for none."""
    divergence = check.divergence(student.active)
    if divergence > scaling.max_retain_kl:
        return (
            f"The student was taken back so that D_r moves by no more than "
            f"{scaling.max_retain_kl:g} nats (scaling.max_retain_kl)."
        )
    if valid is None:
        return ""
    drop = valid.auc_before() - valid.auc_of(student)
    if drop > scaling.max_valid_drop:
        return (
            f"The student was taken back so that validation AUC falls by no more than "
            f"{scaling.max_valid_drop:g} (scaling.max_valid_drop)."
        )
    return ""
