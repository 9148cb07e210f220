"""The finished student, multiplied until D_f is forgotten.

A student that learns for a few passes points the right way and stops short. Along its update ΔW the
AUC on D_f falls steadily, so the multiple c·ΔW that brings it to the target is found in a few
tries, as far as D_r and the validation rows bear it. One that was solved for few rows goes to the
AUC of its teacher.
"""

import math

from pydantic import BaseModel, ConfigDict, Field

from ..core.arrays import Floats
from ..core.seeding import stream
from ..metrics.classification import auc
from ..models.predictions import predict
from .multiple import ROUNDS, limit_sentence
from .retain_check import RetainCheck
from .scaled_student import Bounds, Sample, ScaledStudent
from .student import Student
from .task import Task
from .teachers import FrozenTeacher

# Rows of D_f on which a multiple is tried: the same for all, so that differences are known well.
FORGET_ROWS = 600
# Below so many rows an AUC is too rough to be steered by.
MIN_FORGET_ROWS = 300
# Below so many pairs of a Yes and a No row even two AUCs of the same rows differ by luck.
MIN_PAIRS = 20
# A small request must not wait for all validation rows; a large one has time for as many as it has.
MIN_VALIDATION_ROWS = 500


class Scaling(BaseModel):
    """How far the finished student may be taken."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    largest: float = Field(
        2.0, ge=0, description="largest multiple of the finished student; 0: it stays as it is"
    )
    # On some 1,500 rows the fall has a standard error of 0.006 to 0.010.
    max_valid_drop: float = Field(
        0.02,
        ge=0,
        description="most AUC on the validation rows that scaling it to the lead may cost",
    )
    max_retain_kl: float = Field(
        0.1, gt=0, description="most that it may move D_r, in nats of L_REM"
    )


def may_scale(scaling: Scaling, forget: int) -> bool:
    """Whether a student that forgets so many rows may be multiplied."""
    return scaling.largest > 0 and forget >= MIN_FORGET_ROWS


def scaling_rows(scaling: Scaling, forget: int, checked: int) -> int:
    """Rows that are read to scale a student, about: multiples of it are tried in turn.

    Args:
        scaling: how far it may be taken.
        forget: rows of D_f.
        checked: rows of D_r that a check reads.
    """
    if forget < MIN_FORGET_ROWS:
        return 0
    sample = min(forget, FORGET_ROWS)
    # Only what is left is measured.
    if not scaling.largest:
        return sample
    valid_rows = 2 * max(MIN_VALIDATION_ROWS, forget)
    # Once more as it was taken back.
    return tried_rows(scaling, sample) + sample + checked + valid_rows


def tried_rows(scaling: Scaling, sample: int) -> int:
    """Rows that are read to try multiples on a sample of D_f."""
    # As it is, at its limit, where it should be the lowest, and between them.
    return (ROUNDS + 3) * sample if scaling.largest else 0


def scale_student(
    student: Student, scaling: Scaling, remembering: FrozenTeacher, forget_odds: Floats
) -> bool:
    """Multiply the student so that its AUC on D_f comes to the target of its task.

    The multiple, what was reached and every bound are noted in the outcome of the task. A student
    that may not be multiplied is measured as it is.

    Args:
        student: trained.
        scaling: how far it may be taken.
        remembering: the original's answers to rows of D_r, on some of which the student is checked.
        forget_odds: log-odds of the original on D_f, (n,).

    Returns:
        Whether it was multiplied.
    """
    task = student.task
    target = task.outcome.target
    assert target is not None, "a student is scaled to a target"
    forget = _forget_sample(task, forget_odds)
    if forget is None:
        return False
    if scaling.largest:
        # A request may take all users.
        check = RetainCheck.sample(task, remembering, "scaling") if len(task.retain) else None
        valid = _valid_sample(task)
        bounds = Bounds(student, check, scaling.max_retain_kl, valid, scaling.max_valid_drop)
        scaled = ScaledStudent(student, student.weights(), forget)
        reached = scaled.fit(target, scaling.largest, bounds)
    else:
        reached = forget.auc_of(student)
        if not math.isfinite(reached):
            task.outcome.tell(
                "The student's answers to D_f are not numbers; train it at a smaller learning_rate."
            )
    # The target is the whole of D_f's; what is left is the same share of the lead on both.
    task.outcome.reached = target.before + reached - forget.auc_before()
    return scaling.largest > 0


def scale_to_teacher(
    student: Student, largest: float, original_odds: Floats, teacher_odds: Floats
) -> None:
    """Multiply the student so that its AUC on D_f comes to its teacher's.

    The lead, which is told by other rows, is too rough a target for few; the teacher's AUC is of
    these very rows. Where it is no lower than the original's, or D_f has too few pairs of a Yes and
    a No row, the student stays as it is. So it does where D_f has rows enough to be scaled to the
    lead.

    Args:
        student: solved for.
        largest: multiple; 0: the student stays as it is.
        original_odds: of the original on D_f, (n,).
        teacher_odds: of the forgetting teacher on D_f, (n,).
    """
    task = student.task
    labels = task.forget.labels
    liked_count = int(labels.sum())
    if not largest or len(labels) >= MIN_FORGET_ROWS:
        return
    if liked_count * (len(labels) - liked_count) < MIN_PAIRS:
        task.outcome.tell(
            "D_f has too few pairs of a Yes and a No row for the student to be multiplied to its "
            "teacher's AUC, so it stays as it was solved for.",
            has_figures=False,
        )
        return
    forget = Sample(task.forget, original_odds)
    before = forget.auc_before()
    goal = auc(labels, teacher_odds)
    # Written so that what is not a number asks for nothing.
    if not goal < before:
        return
    scaled = ScaledStudent(student, student.weights(), forget)
    multiples = scaled.multiples()
    scale, reached = multiples.least(goal, largest)
    if not reached < before:
        task.outcome.tell(
            f"Up to {largest:g} times what was found (scaling.largest) the student's AUC on D_f is "
            "no lower than the original's, so it stays as it was solved for.",
            has_figures=False,
        )
        scaled.put_at(1.0)
        return
    scaled.put_at(scale)
    if multiples.stay_above(goal):
        task.outcome.tell(limit_sentence(scale, largest, "scaling.largest"))
    task.outcome.scale = scale


def _forget_sample(task: Task, odds: Floats) -> Sample | None:
    """The rows of D_f that multiples are tried on; None where they have no AUC, which is told."""
    count = len(task.forget)
    if count < MIN_FORGET_ROWS:
        task.outcome.tell(
            f"D_f has {count} rows; only from {MIN_FORGET_ROWS} on is it measured what is left of "
            "them, and the student scaled to the lead."
        )
        return None
    order = stream(task.seed, "scaling", "forget").permutation(count)
    rows = order[:FORGET_ROWS]
    sample = Sample(task.forget.take(rows), odds[rows])
    if not math.isfinite(sample.auc_before()):
        task.outcome.tell(
            f"The {len(rows)} rows of D_f on which what is left is measured have one answer "
            "alone, so the student stays as it is."
        )
        return None
    return sample


def _valid_sample(task: Task) -> Sample | None:
    """Validation rows, and the original's answers; None where they have no AUC, which is told."""
    count = max(MIN_VALIDATION_ROWS, len(task.forget))
    order = stream(task.seed, "scaling", "valid").permutation(len(task.valid))
    rows = task.valid.take(order[:count])
    if len(set(rows.labels.tolist())) < 2:
        lack = "have one answer alone" if len(rows) else "are none"
        task.outcome.tell(
            f"The validation rows {lack}, so nothing bounds what the student costs them "
            "(scaling.max_valid_drop); train with a larger second share of data.fractions."
        )
        return None
    answers = predict(task.original, rows, precision=task.precision)
    task.costs.count_rows("scaling", len(rows))
    return Sample(rows, answers.log_odds)
