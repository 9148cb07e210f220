"""The student's start: one step against ΔW, as far as D_r bears it.

To first order in ΔW, the original at −α·ΔW is the forgetting teacher already (negated task vectors:
Ilharco et al. 2023, arXiv 2212.04089). What is left to train is the repair of all other rows.
"""

import torch

from .retain_check import RetainCheck
from .student import Student

# A start of a thousandth is none: what D_r does not bear then is no matter of length.
MAX_HALVINGS = 10


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
