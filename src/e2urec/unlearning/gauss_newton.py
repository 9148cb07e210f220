"""A student that is solved for, in place of one that is trained.

Where the gradient of each row's log-odds δ fits into memory, the loss of the two teachers is nearly
a sum of squares. Its minimum over the adapter's B, linearised, is one linear system with
an equation for each row (Gauss–Newton, damped as by Levenberg and Marquardt):

    L    ≈ ½ Σ w·(δ_T − δ_θ)²               w = p(1 − p)·β/|F| on rows of D_f, δ_T the forgetting
                                            teacher's; w = p(1 − p)·(1 − β)/|R| on those of D_r,
                                            δ_T the original's; p the original's P(Yes)
    ΔB   = JᵀW^½·(W^½JJᵀW^½ + λI)⁻¹·W^½·(δ_T − δ_θ)        J the rows' gradients, λ the damping

KL(p_T ‖ p_θ) is ½ p(1 − p)·(δ_T − δ_θ)² to second order, where the mass on both answers stays what
it is. Three such steps come nearer to what the teacher says of each row than many of AdamW, and
move other rows less (docs/evidence/log.md has the figures). A is random and stays as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from scipy import special
from torch import nn

from ..core.arrays import Floats
from ..core.seeding import stream
from ..models import adapters
from ..models.adapted_layers import output_width, target_layers
from ..models.adapters import LoRA
from ..models.fsdp import is_split
from ..training.loop import Rows
from .initial_step import start_student
from .retain_check import RetainCheck
from .row_gradients import RowGradients, row_size
from .student import Student
from .task import Task

HELD_FOR_EACH = 5
"""Rows of D_r that are held for each row of D_f: the more that go, the farther others move."""
LEAST_HELD = 256
"""Rows of D_r that are held however few go."""
BYTES = 4
"""Of a number of J."""
SYSTEMS = 2
"""Systems that are held at a time: itself, and that which is solved in its place."""
LEAST_WIDTH = 32
"""Directions that a layer's outputs are taken along at least, or the student is trained."""
LEAST_NUMBERS = 25
"""Numbers of B for each row, or they cannot be moved one by one, and the student is trained."""

NOT_FINITE = (
    "The rows' gradients are no finite numbers, so the student stayed at its last step that was "
    "solved for; set solving.below=0, or tuning.schedule.precision=fp32."
)


class GaussNewton(BaseModel):
    """When and how a student is solved for."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # Of more rows, the gradients that fit into memory would be taken along fewer than some 50
    # directions of each layer in a model of 30 blocks.
    below: int = Field(
        5000, ge=0, description="D_f of fewer rows is solved for, any other trained on; 0: none"
    )
    strength: float = Field(
        1.0,
        gt=0,
        description="a, in place of the method's strength, which a trained student needs",
    )
    iterations: int = Field(3, ge=1, description="steps, each with gradients of its own")
    damping: float = Field(
        0.05, gt=0, description="λ as a share of the mean diagonal of the system; more moves less"
    )
    largest: float = Field(
        4.0,
        gt=0,
        description="largest multiple of a student of 300 rows and more, in place of "
        "scaling.largest: damping keeps it short of its target by a factor of up to 3",
    )
    retain_rows: int = Field(
        512,
        ge=1,
        description="most rows of D_r that are held where they are; five for each row of D_f, and "
        "256 at least",
    )
    memory_gb: float = Field(
        4.0,
        gt=0,
        description="most memory for the rows' gradients, in GB; the outputs of wide layers are "
        "taken along fewer random directions until they fit",
    )

    def held_count(self, forget: int, retain: int) -> int:
        """How many of so many rows of D_r are held, when so many of D_f are forgotten."""
        wanted = max(LEAST_HELD, HELD_FOR_EACH * forget)
        return min(wanted, self.retain_rows, retain)


def adapter_shapes(lm: Any, lora: LoRA) -> list[tuple[int, int]]:
    """(width, rank) of each B that an adapter has."""
    bare = adapters.bare_model(lm)
    names = target_layers(bare, lora.targets, lora.first_block(bare))
    return [(output_width(bare.get_submodule(name)), lora.rank) for name in names]


def obstacle_to_solving(lm: Any, lora: LoRA, settings: GaussNewton, row_count: int) -> str:
    """Why a student of so many rows is trained all the same, in a sentence; empty: it is not."""
    shapes = adapter_shapes(lm, lora)
    widest = max(width for width, _ in shapes)
    numbers = row_size(shapes, widest) / row_count
    if numbers < LEAST_NUMBERS:
        return (
            f"The student was trained, and not solved for: its B has {numbers:.3g} numbers for "
            f"each row, fewer than {LEAST_NUMBERS}; a larger lora.rank gives it more."
        )
    if is_split(lm):
        return (
            "The student was trained, and not solved for, which moves other rows more: model.fsdp "
            "splits the model; set it to false where the model fits without."
        )
    if not affordable_width(shapes, row_count, settings.memory_gb):
        return (
            "The student was trained, and not solved for, which moves other rows more: the rows' "
            f"gradients do not fit into {settings.memory_gb:g} GB; raise solving.memory_gb."
        )
    return ""


def affordable_width(shapes: Sequence[tuple[int, int]], row_count: int, max_gb: float) -> int:
    """Directions that the outputs of each layer are taken along, so that the rows' gradients fit.

    That is the width of the widest layer where all fit, and 0 where too few would be left.

    Args:
        shapes: (width, rank) of each B.
        row_count: rows.
        max_gb: most memory, in GB.
    """
    count = max(width for width, _ in shapes)
    while row_count * row_size(shapes, count) * BYTES > max_gb * 1e9:
        count //= 2
        if count < LEAST_WIDTH:
            return 0
    return count


def solving_bytes(shapes: Sequence[tuple[int, int]], row_count: int, max_gb: float) -> int:
    """Bytes of the rows' gradients, and of the system with an equation for each row."""
    numbers = row_size(shapes, affordable_width(shapes, row_count, max_gb))
    return row_count * (numbers + SYSTEMS * row_count) * BYTES


def damped_solution(
    gradients: torch.Tensor, missing: torch.Tensor, weights: torch.Tensor, damping: float
) -> torch.Tensor:
    """u of `ΔB = Jᵀu`, the least change of B that makes up for `missing`.

    u = W^½·(W^½JJᵀW^½ + λI)⁻¹·W^½·missing

    Args:
        gradients: J (n, m).
        missing: δ_T − δ_θ, (n,).
        weights: w (n,), positive.
        damping: λ as a share of the mean diagonal of the system.

    Returns:
        (n,) what each row's gradient counts.
    """
    roots = weights.sqrt()
    # J is large, so it is not copied.
    system = roots[:, None] * (gradients @ gradients.T) * roots
    ridge = damping * system.diagonal().mean()
    # Where no row counts, or none can be moved, there is nothing to solve.
    if ridge == 0:
        return torch.zeros_like(missing)
    system.diagonal().add_(ridge)
    # What is not a number is found by the caller, and raises nothing here.
    solution, _ = torch.linalg.solve_ex(system, roots * missing)
    shares: torch.Tensor = roots * solution
    return shares


@dataclass
class Solver:
    """Moves a student to where its log-odds are nearest to the teachers'.

    Attributes:
        student: at the original.
        settings: how.
        retain_rows: (r,) rows of D_r that are held.
        width: most directions that the outputs of a layer are taken along.
        gradients: J (f + r, m) of the student as it is, the rows of D_f first.
        log_odds: (f + r,) of the same.
    """

    student: Student
    settings: GaussNewton
    retain_rows: Rows
    width: int
    gradients: torch.Tensor = field(init=False)
    log_odds: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        task = self.student.task
        # A batch is no step here, so it is as large as when the original was tuned.
        batch_size = task.tuning.schedule.rows_at_once
        self.row_gradients = RowGradients(self.student, self.width, batch_size)
        self.sets = (task.forget, task.retain.take(self.retain_rows))
        self.sizes = [len(rows) for rows in self.sets]
        shape = (sum(self.sizes), self.row_gradients.size)
        self.gradients = torch.empty(shape, device=self.student.model.device)
        self._differentiate(0)

    @property
    def odds(self) -> Floats:
        """Log-odds of the student as it is, (f + r,); at first these are the original's."""
        odds: Floats = self.log_odds.cpu().numpy()
        return odds

    def solve(self, target: Floats, weights: Floats) -> None:
        """Take the steps.

        Args:
            target: (f + r,) log-odds that the teachers ask for.
            weights: (f + r,) what each row counts, positive.
        """
        device = self.student.model.device
        row_targets = torch.from_numpy(target).float().to(device)
        row_weights = torch.from_numpy(weights).float().to(device)
        damping = self.settings.damping
        for number in range(self.settings.iterations):
            if number:
                self._differentiate(number)
            missing = row_targets - self.log_odds
            step = self._step(damped_solution(self.gradients, missing, row_weights, damping))
            if not step.isfinite().all():
                self.student.task.outcome.tell(NOT_FINITE, has_figures=False)
                return
            self._move(step)
        # It is large, and whoever scales the student has no use for it.
        self.gradients = self.gradients[:0].clone()

    def _differentiate(self, number: int) -> None:
        """J and δ of the student as it is after so many steps."""
        task = self.student.task
        task.progress("solving", number + 1, self.settings.iterations)
        parts = torch.split(self.gradients, self.sizes)
        log_odds = map(self.row_gradients.put_into, parts, self.sets)
        self.log_odds = torch.cat(list(log_odds))
        task.costs.count_rows("solving", len(self.log_odds))

    def _step(self, solution: torch.Tensor) -> torch.Tensor:
        """ΔB = Jᵀu, (m,)."""
        if not self.row_gradients.is_sketched:
            step: torch.Tensor = self.gradients.T @ solution
            return step
        self.student.task.costs.count_rows("solving", len(solution))
        shares = torch.split(solution, self.sizes)
        return sum(map(self.row_gradients.combined, self.sets, shares), torch.zeros(()))

    def _move(self, step: torch.Tensor) -> None:
        """Add ΔB (m,)."""
        parameters = adapters.up_projections(self.student.model.lm, self.student.name)
        with torch.no_grad():
            current = nn.utils.parameters_to_vector(parameters)
            nn.utils.vector_to_parameters(current + step, parameters)


def hold_back(student: Student, check: RetainCheck, max_retain_kl: float) -> None:
    """Take the student back until D_r moves by no more than so many nats; that is told."""
    scale = start_student(student, student.weights(), 1.0, check, max_retain_kl)
    if scale == 1:
        return
    outcome = student.task.outcome
    outcome.scale = scale if outcome.scale is None else outcome.scale * scale
    if not scale:
        with torch.no_grad():
            for weight in adapters.up_projections(student.model.lm, student.name):
                weight.zero_()
        outcome.tell(
            "No part of what was solved for, however small, moves D_r by no more than "
            f"{max_retain_kl:g} nats (scaling.max_retain_kl), so the student is the original: "
            "nothing was forgotten.",
            has_figures=False,
        )
    else:
        outcome.tell(
            f"The student was taken back to {scale:.2g} of what was solved for, so that D_r moves "
            f"by no more than {max_retain_kl:g} nats (scaling.max_retain_kl).",
            has_figures=False,
        )


def held_rows(task: Task, count: int) -> Rows:
    """`count` rows of D_r; rewritten ones first, since these move the farthest, up to a half."""
    random = stream(task.seed, "solving")
    rewritten = random.permutation(task.rewritten)[: count // 2]
    others = np.setdiff1d(np.arange(len(task.retain)), rewritten)
    rows: Rows = np.concatenate([rewritten, random.permutation(others)])[:count]
    return np.sort(rows)


def row_weights(odds: Floats, forget_count: int, beta: float) -> Floats:
    """w of D_f's rows, which come first, and of D_r's: `p(1 − p)·β/|F|`, `p(1 − p)·(1 − β)/|R|`.

    Args:
        odds: log-odds of the original, (f + r,).
        forget_count: f.
        beta: of L_FGT; L_REM has 1 − β.
    """
    retain_count = len(odds) - forget_count
    shares = np.full(len(odds), (1 - beta) / max(retain_count, 1))
    shares[:forget_count] = beta / forget_count
    probabilities = special.expit(odds.astype(np.float64))
    weights: Floats = shares * probabilities * (1 - probabilities)
    return weights
