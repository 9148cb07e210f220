"""One influence step: by how much leaving out D_f would have moved the optimum, to first order.

IFRU, Zhang et al. 2023, arXiv 2307.02147.

    ΔB = (scale/n)·(GGN + λI)⁻¹·g,  n = |D|
    g  = Σ_{D_f} ∇CE + Σ_{rewritten rows} [∇CE(old prompt) − ∇CE(new prompt)]

The second sum is the published spillover: what goes has also been in the histories of rows that
stay. A request for users rewrites no row.

Two things are ours. Only LoRA's B matrices move, so the step is taken in the subspace that A spans;
the paper prunes the parameters that matter least instead. The generalised Gauss–Newton matrix takes
the place of the Hessian, which is not positive at the end of a tuning that was stopped.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..core.seeding import derive, stream
from ..models import adapters
from ..models.adapters import LoRA
from ..models.batches import Batch, Examples, batches_by_length
from ..models.fsdp import refuse_split
from ..models.recommender import Recommender
from ..models.sharing import own_share, sum_over_processes
from ..training.loop import Schedule
from ..training.objective import flatten
from ..unlearning.gradient_subspace import aim_at_gradient, summed_loss
from ..unlearning.method import Method
from ..unlearning.student import Student
from ..unlearning.task import Task

Product = Callable[[torch.Tensor], torch.Tensor]
"""A matrix H as the function v → H·v: (m,) → (m,)."""

# λ_max only sets the scale of the damping, so its first digits are enough.
POWER_ITERATIONS = 10
"""Products spent on λ_max."""

# The curvature comes from a few hundred rows. A smaller residual would solve for their chance.
TOLERANCE = 1e-4
"""Residual at which conjugate gradients stop, as a share of the target's length."""


def conjugate_gradients(
    product: Product, target: torch.Tensor, iterations: int, tolerance: float
) -> torch.Tensor:
    """Solve `H·x = target` for a positive definite H (Hestenes and Stiefel 1952).

    Stops after `iterations` products, or once ‖target − H·x‖ ≤ tolerance·‖target‖.

    Args:
        product: v → H·v.
        target: (m,).
        iterations: most products to spend.
        tolerance: largest residual, as a share of the target's length.

    Returns:
        x, (m,).
    """
    x = torch.zeros_like(target)
    residual = target.clone()
    direction = residual.clone()
    squared_norm = residual @ residual
    goal = tolerance**2 * squared_norm
    for _ in range(iterations):
        if squared_norm <= goal:
            break
        image = product(direction)
        length = squared_norm / (direction @ image)
        x += length * direction
        residual -= length * image
        previous_norm = squared_norm
        squared_norm = residual @ residual
        direction = residual + (squared_norm / previous_norm) * direction
    return x


def largest_eigenvalue(product: Product, like: torch.Tensor, iterations: int, seed: int) -> float:
    """λ_max of a positive semidefinite H given by `product`, by power iteration.

    The first vector is random, (m,), of the shape, type and device of `like`.
    """
    random = torch.Generator().manual_seed(seed)
    vector = torch.randn(like.shape, generator=random).to(like)
    tiny = torch.finfo(vector.dtype).tiny
    value = torch.zeros(())
    for _ in range(iterations):
        # H = 0 sends every vector to 0, which no norm divides.
        vector = vector / vector.norm().clamp_min(tiny)
        image = product(vector)
        value = vector @ image
        vector = image
    return float(value)


def gradient(model: Recommender, parameters: Sequence[nn.Parameter], batch: Batch) -> torch.Tensor:
    """Gradient of the cross-entropy of the right answers, summed over the batch: (m,)."""
    loss = summed_loss(model, batch)
    parts = torch.autograd.grad(loss, parameters)
    return flatten(parts)


def gauss_newton(
    model: Recommender, parameters: Sequence[nn.Parameter], batch: Batch, vector: torch.Tensor
) -> torch.Tensor:
    """`Σ_rows Jᵀ(diag(p) − ppᵀ)J·v` at the answer position, over the whole vocabulary.

    J = J_z·J_h, with J_z of the output head, which is frozen, and J_h of the state h. (m,) → (m,).
    """
    hidden = model.hidden(batch)
    state_change = jacobian_product(hidden, parameters, vector)
    state = hidden.detach().requires_grad_()
    z = model.to_logits(state)
    logit_change = jacobian_product(z, [state], state_change.flatten())
    p = z.detach().softmax(-1)
    mean_change = (p * logit_change).sum(-1, keepdim=True)
    loss_slope = p * (logit_change - mean_change)
    (state_slope,) = torch.autograd.grad(z, state, loss_slope)
    parts = torch.autograd.grad(hidden, parameters, state_slope)
    return flatten(parts)


def jacobian_product(
    outputs: torch.Tensor, inputs: Sequence[torch.Tensor], vector: torch.Tensor
) -> torch.Tensor:
    """J·v of `outputs` with respect to all `inputs`, v one number for each of these: as `outputs`.

    It comes from two backward passes: g(u) = Jᵀu is linear in u, and its derivative along v is J·v.
    """
    # g(u) is linear, so its derivative is the same at every u: zeros serve as well as any other.
    probe = torch.zeros_like(outputs, requires_grad=True)
    pulled_back = torch.autograd.grad(outputs, inputs, probe, create_graph=True)
    # The graph is kept: a later product goes through it once again.
    (product,) = torch.autograd.grad(flatten(pulled_back), probe, vector, retain_graph=True)
    return product


class IFRU(Method):
    """Move an adapter once, by the influence that D_f and the old prompts had on it.

        ΔB = (scale/n)·(GGN + λI)⁻¹·[Σ_{D_f} ∇CE + Σ_{rewritten} (∇CE(old) − ∇CE(new))]

    n = |D|, old and new are the prompts of a rewritten row. At B = 0 only B has a gradient, so A
    stays what it was before the step: the leading directions of the sum, or random ones.
    """

    name: ClassVar[str] = "ifru"
    # 1 is what influence functions give; a linear step falls short where the loss is curved, so
    # the search doubles it.
    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {"scale": (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)}

    scale: float = Field(
        1.0, gt=0, description="multiple of the step that influence functions give"
    )
    # A random subspace of rank 8 holds 8/d of the gradient's square: about 1% at a width of 576.
    subspace: Literal["gradient", "random"] = Field(
        "gradient",
        description="directions in which the weights may move: the leading right singular vectors "
        "of the same sum for each weight, or random ones",
    )
    # The error of a mean falls with the root of the rows: 256 leave 1/16 of a row's own.
    rows: int = Field(256, ge=1, description="rows of D_r from which the curvature is estimated")
    # Products are nearly all that a step costs: this caps it at (10 + 40)·256 rows, forth and back.
    iterations: int = Field(40, ge=1, description="most iterations of conjugate gradients")
    # Many eigenvalues are near 0. Without damping, the step along their vectors has no bound.
    damping: float = Field(
        0.01, gt=0, description="λ as a share of the curvature's largest eigenvalue"
    )
    batch_size: int = Field(
        8, ge=1, description="rows at a time; two backward passes need the memory of both"
    )
    lora: LoRA = Field(LoRA(rank=8, alpha=16, targets="all"), description="adapter of the student")

    def unlearn(self, task: Task) -> Recommender:
        """Take the step; returns the merged model, or the original with one replacement adapter."""
        model = task.original
        refuse_split(model.lm, "method 'ifru'")
        task.log_phase("original", model)
        seed = derive(task.seed, "student")
        with Student(task, self.lora, seed=seed) as student:
            # Second derivatives exist for attention written out, not for the fused kernels.
            with model.using(student.active), sdpa_kernel(SDPBackend.MATH):
                if self.subspace == "gradient":
                    self._aim(task, student.name)
                parameters = adapters.up_projections(model.lm, student.name)
                for parameter in parameters:
                    parameter.requires_grad_(True)
                # B is 0 before the step, so the step itself is what B becomes.
                step = self._step(task, parameters)
                nn.utils.vector_to_parameters(step, parameters)
            task.log_phase("step", model, active=student.active)
            return student.finish()

    def plan(self, forget: int, retain: int, schedule: Schedule) -> dict[str, int]:
        """D_f once or twice, and at most so many products with the sampled rows' curvature.

        A request that rewrites rows reads their old and new prompts as often as D_f.
        """
        products = POWER_ITERATIONS + self.iterations
        sample_size = min(self.rows, retain)
        rows = {
            "gradient": forget,
            "curvature": products * sample_size,
        }
        if self.subspace == "gradient":
            rows["subspace"] = forget
        return rows

    def updates(self, forget: int, retain: int, schedule: Schedule) -> int:
        """The one step."""
        return 1

    def _aim(self, task: Task, student: str) -> None:
        """Give the student's A the leading directions of the gradients' sum."""
        model = task.original
        seed = derive(task.seed, "subspace")
        with task.costs.phase("subspace"):
            batches = []
            signs = []
            for rows, sign in _signed_sets(task):
                set_batches = _batches(model, rows, self.batch_size)
                batches += set_batches
                signs += [sign] * len(set_batches)
                task.costs.count_rows("subspace", len(rows))
            aim_at_gradient(model, student, batches, seed=seed, signs=signs)

    def _step(self, task: Task, parameters: Sequence[nn.Parameter]) -> torch.Tensor:
        """ΔB, (m,)."""
        # All prompts that the original was tuned on; a retrained model sees the unchanged ones too.
        changed_count = len(task.forget) + len(task.old_prompts)
        unchanged_count = len(task.retain) - len(task.rewritten)
        with task.costs.phase("gradient"):
            target = self._gradient_sum(task, parameters) / changed_count
        with task.costs.phase("curvature"):
            influence = self._influence(task, parameters, target)
        all_count = changed_count + unchanged_count
        return self.scale * changed_count / all_count * influence

    def _gradient_sum(self, task: Task, parameters: Sequence[nn.Parameter]) -> torch.Tensor:
        """`Σ ∇CE(D_f) + Σ ∇CE(old prompts) − Σ ∇CE(new prompts)`, (m,)."""
        model = task.original
        total = torch.zeros_like(nn.utils.parameters_to_vector(parameters))
        for rows, sign in _signed_sets(task):
            batches = own_share(_batches(model, rows, self.batch_size))
            for batch in batches:
                total += sign * gradient(model, parameters, batch)
            task.costs.count_rows("gradient", len(rows))
        return sum_over_processes(total)

    def _influence(
        self, task: Task, parameters: Sequence[nn.Parameter], target: torch.Tensor
    ) -> torch.Tensor:
        """`(GGN + λI)⁻¹·target`, (m,)."""
        curvature = self._curvature(task, parameters)
        seed = derive(task.seed, "power")
        largest = largest_eigenvalue(
            curvature,
            target,
            POWER_ITERATIONS,
            seed,
        )
        damping = self.damping * largest

        def damped_curvature(vector: torch.Tensor) -> torch.Tensor:
            return curvature(vector) + damping * vector

        return conjugate_gradients(
            damped_curvature,
            target,
            self.iterations,
            TOLERANCE,
        )

    def _curvature(self, task: Task, parameters: Sequence[nn.Parameter]) -> Product:
        """v → GGN·v, the mean over a sample of D_r; reports progress and counts what it reads."""
        model = task.original
        # Every product must see the same rows, or there would be no one matrix to invert.
        random = stream(task.seed, "curvature")
        sample = random.permutation(len(task.retain))[: self.rows]
        rows = task.retain.take(np.sort(sample))
        batches = own_share(_batches(model, rows, self.batch_size))
        most_products = POWER_ITERATIONS + self.iterations
        product_numbers = itertools.count(1)

        def product(vector: torch.Tensor) -> torch.Tensor:
            number = next(product_numbers)
            task.progress("curvature", number, most_products)
            task.costs.count_rows("curvature", len(rows))
            total = torch.zeros_like(vector)
            for batch in batches:
                total += gauss_newton(model, parameters, batch, vector)
            return sum_over_processes(total) / len(rows)

        return product


def _signed_sets(task: Task) -> list[tuple[Examples, float]]:
    """The rows whose gradients make up the influence, each set with its sign; none is empty."""
    new_prompts = task.retain.take(task.rewritten)
    sets = [(task.forget, 1.0), (task.old_prompts, 1.0), (new_prompts, -1.0)]
    return [(rows, sign) for rows, sign in sets if len(rows)]


def _batches(model: Recommender, rows: Examples, size: int) -> list[Batch]:
    """All rows once; the order of a sum is free, so the one with the least padding."""
    order = batches_by_length(rows.lengths, size)
    return [model.collate(rows, index) for index in order]
