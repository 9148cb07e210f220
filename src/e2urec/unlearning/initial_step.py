"""The student's start: one step against ΔW, as far as D_r bears it.

To first order in ΔW, the original at −α·ΔW is the forgetting teacher already (negated task vectors:
Ilharco et al. 2023, arXiv 2212.04089). What is left to train is the repair of all other rows.
"""

from dataclasses import dataclass

import torch

from ..core.seeding import stream
from ..models.predictions import answer_states
from .losses import kl_divergence
from .student import Student, frozen_teacher
from .task import Task
from .teachers import FrozenTeacher

# Rows of D_r on which the start is checked: few, since a start that is halved is checked anew.
CHECKED_ROWS = 128
# Rows whose logits over the whole vocabulary are in memory at a time, as in a training step.
LOGITS_CHUNK = 16


@dataclass(frozen=True)
class RetainCheck:
    """By how much a model moves D_r, on some of its rows.

    Attributes:
        task: with the original, which carries the student, and D_r.
        teacher: the original's answers to the rows.
        rows: (m,) rows of D_r.
    """

    task: Task
    teacher: FrozenTeacher
    rows: torch.Tensor

    @classmethod
    def sample(cls, task: Task, remembering: FrozenTeacher) -> "RetainCheck":
        """Check on rows that the remembering teacher was asked about; if on none, on any of D_r."""
        random = stream(task.seed, "start")
        teacher = remembering
        # Without a joint phase nothing of D_r is taught.
        if not len(teacher.rows):
            retain_order = random.permutation(len(task.retain))
            rows = retain_order[:CHECKED_ROWS]
            teacher = frozen_teacher(
                task.original,
                task,
                task.retain,
                [rows],
            )
        order = random.permutation(len(teacher.rows))
        sample = torch.from_numpy(order[:CHECKED_ROWS])
        return cls(task, teacher, teacher.rows[sample])

    def divergence(self, active: tuple[str, ...]) -> float:
        """L_REM of the original with the adapters `active`: mean KL over the rows, in nats."""
        task = self.task
        model = task.original
        count = len(self.rows)
        task.costs.count_rows("teachers", count)
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


def start_student(
    student: Student,
    update: dict[str, torch.Tensor],
    scale: float,
    check: RetainCheck,
    max_retain_kl: float,
) -> float:
    """Put the student at `scale`·ΔW, or at half of it, a quarter…, until D_r moves little enough.

    Args:
        student: on the original.
        update: A and B matrices of ΔW.
        scale: multiple of ΔW; negative to forget.
        check: rows of D_r.
        max_retain_kl: most that the start may move D_r, in nats of L_REM.

    Returns:
        The multiple at which the student stands.
    """
    student.start_at(update, scale)
    # What a weak augmented model has learned is mostly how often D_f says Yes. Many times that
    # update ruins the answers to all users.
    while check.divergence(student.active) > max_retain_kl:
        scale /= 2
        student.start_at(update, scale)
    return scale
