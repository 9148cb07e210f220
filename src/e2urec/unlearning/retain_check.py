"""By how much a model moves the rows that stay: what bounds every way to take a student far."""

from dataclasses import dataclass

import numpy as np
import torch

from ..core.seeding import stream
from ..models.predictions import answer_states
from .losses import kl_divergence
from .student import frozen_teacher
from .task import Task
from .teachers import FrozenTeacher

# Rows of D_r on which a student is checked: few, since one that is taken back is checked anew.
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
