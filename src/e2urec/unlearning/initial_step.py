"""The student's start: one step against ΔW, as far as D_r bears it.

To first order in ΔW, the original at −α·ΔW is the forgetting teacher already (negated task vectors:
Ilharco et al. 2023, arXiv 2212.04089). What is left to train is the repair of all other rows.
"""

from dataclasses import dataclass

import numpy as np
import torch

from ..core.seeding import stream
from ..models.predictions import answer_states
from .losses import kl_divergence
from .student import Student, frozen_teacher
from .task import Task
from .teachers import FrozenTeacher

# Rows of D_r on which the start is checked: few, since a start that is halved is checked anew.
CHECKED_ROWS = 128
# A start of a thousandth is none: what D_r does not bear then is no matter of length.
MAX_HALVINGS = 10
# Rows whose logits over the whole vocabulary are in memory at a time, as in a training step.
LOGITS_CHUNK = 16


@dataclass(frozen=True)
class RetainCheck:
    """By how much a model moves D_r, on some of its rows.

    Attributes:
        task: with the original, which carries the student, and D_r.
        teacher: the original's answers to the rows.
        rows: (m,) rows of D_r.
        phase: that the rows read count for.
    """

    task: Task
    teacher: FrozenTeacher
    rows: torch.Tensor
    phase: str

    @classmethod
    def sample(cls, task: Task, remembering: FrozenTeacher, phase: str) -> "RetainCheck":
        """Check on rows that the remembering teacher was asked about; if on none, on any of D_r."""
        random = stream(task.seed, "start")
        # Without a joint phase nothing of D_r is taught.
        teacher = remembering if len(remembering.rows) else teacher_of_some(task)
        order = random.permutation(len(teacher.rows))
        is_rewritten = np.isin(teacher.rows.cpu().numpy()[order], task.rewritten)
        count = min(CHECKED_ROWS, len(order))
        # Batches hold more of the rewritten rows than D_r does, and these move the farthest.
        rewritten_count = round(count * len(task.rewritten) / len(task.retain))
        rewritten_rows = order[is_rewritten][:rewritten_count]
        other_rows = order[~is_rewritten][: count - len(rewritten_rows)]
        sample = torch.from_numpy(np.concatenate([other_rows, rewritten_rows]))
        return cls(task, teacher, teacher.rows[sample], phase)

    def divergence(self, active: tuple[str, ...]) -> float:
        """L_REM of the original with the adapters `active`: mean KL over the rows, in nats."""
        task = self.task
        model = task.original
        count = len(self.rows)
        task.costs.count_rows(self.phase, count)
        examples = task.retain.take(self.rows.cpu().numpy())
        hidden = answer_states(
            model,
            examples,
            active=active,
            precision=task.precision,
        )
        row_chunks = torch.split(self.rows, LOGITS_CHUNK)
        hidden_chunks = torch.split(hidden, LOGITS_CHUNK)
        total = 0.0
        for rows, chunk in zip(row_chunks, hidden_chunks, strict=True):
            target = self.teacher(rows)
            z = model.to_logits(chunk)
            divergence = kl_divergence(target, z)
            total += len(rows) * divergence.item()
        return total / count


def teacher_of_some(task: Task) -> FrozenTeacher:
    """The original's answers to as many rows of D_r as a check reads."""
    order = stream(task.seed, "checked").permutation(len(task.retain))
    return frozen_teacher(task.original, task, task.retain, [order[:CHECKED_ROWS]])


def checked_rows(retain: int, taught: int) -> int:
    """Rows of D_r that a check reads.

    Args:
        retain: rows of D_r.
        taught: those that the remembering teacher was asked about.
    """
    # Without a joint phase any of D_r may be read.
    return min(taught or retain, CHECKED_ROWS)


def start_student(
    student: Student,
    update: dict[str, torch.Tensor],
    scale: float,
    check: RetainCheck,
    max_retain_kl: float,
) -> float:
    """Put the student at `scale`·ΔW, or at half of it, a quarter…, until D_r moves little enough.

    Where it never does, the student stays at the original.

    Args:
        student: on the original.
        update: A and B matrices of ΔW.
        scale: multiple of ΔW; negative to forget.
        check: rows of D_r.
        max_retain_kl: most that the start may move D_r, in nats of L_REM.

    Returns:
        The multiple at which the student stands; 0 for the original.
    """
    original = student.weights()
    # What a weak augmented model has learned is mostly how often D_f says Yes. Many times that
    # update ruins the answers to all users.
    for _ in range(1 + MAX_HALVINGS):
        student.start_at(update, scale)
        # What is not a number is not borne either.
        if check.divergence(student.active) <= max_retain_kl:
            return scale
        scale /= 2
    # Not ΔW times 0, which is no number where ΔW is none.
    student.start_at(original, 1.0)
    return 0.0


def shorter_start(start: float, max_retain_kl: float) -> str:
    """The sentence on a student that starts less far than it should, at `start` times ΔW."""
    if not start:
        return (
            f"No start, however short, moves D_r by no more than {max_retain_kl:g} nats "
            "(max_retain_kl), so the student started from the original; a smaller augment_rate "
            "would help."
        )
    return (
        f"The start was taken back to {start:.2f} times the augmented adapter, so that D_r moves "
        f"by no more than {max_retain_kl:g} nats (max_retain_kl)."
    )
