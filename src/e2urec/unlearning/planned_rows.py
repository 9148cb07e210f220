"""How many rows E2URec reads in each phase: what it costs, before anything is computed."""

from ..models.batches import row_count_of_steps
from .outcome import Basis
from .retain_check import checked_rows
from .scaling import may_scale, scaling_rows, tried_rows
from .target import sampled_rows
from .two_teachers import TwoTeachers


def planned_rows(method: TwoTeachers, forget: int, retain: int) -> dict[str, int]:
    """Rows read in each phase.

    Args:
        method: its settings.
        forget: rows of D_f.
        retain: rows of D_r.
    """
    if method.is_solved(forget):
        return _solving_rows(method, forget, retain)
    return _training_rows(method, forget, retain)


def _training_rows(method: TwoTeachers, forget: int, retain: int) -> dict[str, int]:
    """Where the student is trained; a joint step reads a batch of D_f and one of D_r."""
    size = method.batch_size
    steps = method.student_steps(forget)
    if method.forgetting == "gain":
        steps["augmented"] = method.augmented_steps(forget)
    rows = {phase: row_count_of_steps(count, forget, size) for phase, count in steps.items()}
    joint_retain_rows = row_count_of_steps(steps["joint"], retain, size)
    rows["joint"] += joint_retain_rows
    # A teacher is asked once about a row, however often the row is read.
    taught_rows = min(retain, joint_retain_rows)
    rows["teachers"] = _teacher_rows(method, forget, retain, taught_rows)
    if method.needs_target:
        checked = checked_rows(retain, taught_rows)
        rows["scaling"] = scaling_rows(method.scaling, forget, checked)
    # The lower blocks compute a row once, whoever reads it afterwards.
    if method.lora.upper < 1 and method.speed.replay:
        rows["cache"] = forget + taught_rows
    return rows


def _solving_rows(method: TwoTeachers, forget: int, retain: int) -> dict[str, int]:
    """Where the student is solved for; D_r is checked afterwards."""
    rows = method.solved_count(forget, retain)
    checked = checked_rows(retain, 0)
    measured = _measured_rows(method, forget)
    # Without scores, D_r shows beside the calibration users what tuning is worth.
    if method.forgetting == "margin":
        measured += max(0, min(retain, measured) - (rows - forget))
    # Few rows are scaled to the teacher, more of them to the lead.
    scaled = scaling_rows(method.scaling, forget, checked)
    plan = {
        "teachers": measured + checked,
        "solving": method.solving.iterations * rows + checked,
        "scaling": scaled or tried_rows(method.scaling, forget),
    }
    if method.lora.upper < 1 and method.speed.replay:
        plan["cache"] = rows
    return plan


def _teacher_rows(method: TwoTeachers, forget: int, retain: int, taught_rows: int) -> int:
    """Rows that the teachers answer; of D_r, `taught_rows` are read in the joint phase."""
    rows = forget + taught_rows
    calibration_rows = _measured_rows(method, forget)
    is_gain = method.forgetting == "gain"
    # The calibration users show what tuning is worth, beside D_f or beside D_r.
    if method.needs_target:
        rows += calibration_rows
    if method.needs_target and method.forgetting != "scores":
        retain_count = min(retain, calibration_rows)
        rows += max(0, retain_count - taught_rows)
    # The augmented model answers D_f as well.
    if is_gain:
        rows += forget
    return rows + _check_rows(method, forget, retain, taught_rows)


def _check_rows(method: TwoTeachers, forget: int, retain: int, taught_rows: int) -> int:
    """Rows of D_r that the start is checked on, and that are asked for the checks alone."""
    checked = checked_rows(retain, taught_rows)
    has_start = method.forgetting == "gain" and method.start_scale > 0
    rows = checked if has_start else 0
    # Without a joint phase the original has answered nothing of D_r before.
    if not taught_rows:
        checks = has_start + may_scale(method.scaling, forget)
        rows += checks * checked
    return rows


def _measured_rows(method: TwoTeachers, forget: int) -> int:
    """Rows of the calibration users, and without scores of D_r, that show the lead."""
    basis: Basis = "scores" if method.forgetting == "scores" else "calibration"
    return sampled_rows(basis, forget, method.calibration_ratio)
