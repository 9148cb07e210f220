"""One influence step: by how much leaving out D_f would have moved the optimum, to first order.

IFRU (Zhang et al. 2023, arXiv 2307.02960), on LoRA's B matrices and with the generalised Gauss–Newton matrix in
place of the Hessian, which is not positive at the end of a tuning that was stopped.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..core.seeding import derive, stream
from ..models import adapters
from ..models.adapters import LoRA
from ..models.batches import Batch, Examples, batches_by_length
from ..models.recommender import Recommender
from ..training.loop import Schedule
from ..unlearning.losses import cross_entropy
from ..unlearning.method import Method
from ..unlearning.student import Student
from ..unlearning.task import Task

Product = Callable[[torch.Tensor], torch.Tensor]
POWER = 10
"""Power iterations for λ_max, which only sets the scale of the damping."""
TOLERANCE = 1e-4
"""Conjugate gradients stop at a residual of so much of the target's length."""


def conjugate_gradients(
    product: Product, target: torch.Tensor, iterations: int, tolerance: float
) -> torch.Tensor:
    """Solve `H·x = target` for a positive definite H given by `product`: (m,) → (m,) (Hestenes and Stiefel 1952).

    Stops after `iterations` products, or once ‖target − H·x‖ ≤ tolerance·‖target‖.
    """
    x, residual = torch.zeros_like(target), target.clone()
    direction, squared = residual.clone(), residual @ residual
    goal = tolerance**2 * squared
    for _ in range(iterations):
        if squared <= goal:
            break
        image = product(direction)
        length = squared / (direction @ image)
        x += length * direction
        residual -= length * image
        before, squared = squared, residual @ residual
        direction = residual + (squared / before) * direction
    return x


def largest_eigenvalue(product: Product, like: torch.Tensor, iterations: int, seed: int) -> float:
    """λ_max of a positive semidefinite H given by `product`, by power iteration from a random (m,) shaped `like`."""
    random = torch.Generator().manual_seed(seed)
    vector = torch.randn(like.shape, generator=random).to(like)
    value = torch.zeros(())
    for _ in range(iterations):
        vector = vector / vector.norm().clamp_min(torch.finfo(vector.dtype).tiny)
        image = product(vector)
        value, vector = vector @ image, image
    return float(value)


def gradient(model: Recommender, parameters: Sequence[nn.Parameter], batch: Batch) -> torch.Tensor:
    """Gradient of the cross-entropy of the right answers, summed over the batch: (m,)."""
    loss = cross_entropy(model.logits(batch), model.verbaliser.tokens(batch.labels)) * len(
        batch.index
    )
    return _flat(torch.autograd.grad(loss, parameters))


def gauss_newton(
    model: Recommender, parameters: Sequence[nn.Parameter], batch: Batch, vector: torch.Tensor
) -> torch.Tensor:
    """`Σ_rows Jᵀ(diag(p) − ppᵀ)J·v` at the answer position, over the whole vocabulary: (m,) → (m,).

    J = W·J_h with the output head W, which is frozen and linear, so only the state h needs differentiating. J_h·v
    comes from two backward passes: g(u) = J_hᵀu is linear in u, and its derivative along v is J_h·v.
    """
    weight, _ = model.head
    hidden = model.hidden(batch)
    probe = torch.zeros_like(hidden, requires_grad=True)
    pulled = _flat(torch.autograd.grad(hidden, parameters, probe, create_graph=True))
    (along,) = torch.autograd.grad(pulled, probe, vector, retain_graph=True)
    p = model.to_logits(hidden.detach()).softmax(-1)
    change = along @ weight.T
    change = p * (change - (p * change).sum(-1, keepdim=True))
    return _flat(torch.autograd.grad(hidden, parameters, change @ weight))


def _flat(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([part.reshape(-1) for part in parts])


class IFRU(Method):
    """Move an adapter once, by the influence that D_f had on it: ΔB = scale·(k/n)·(GGN + λI)⁻¹·mean gradient on D_f.

    k = |D_f| and n = |D|; at B = 0 only B has a gradient, and A stays as drawn.
    """

    name: ClassVar[str] = "ifru"
    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {"scale": (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)}

    scale: float = Field(
        1.0, gt=0, description="multiple of the step that influence functions give"
    )
    rows: int = Field(256, ge=1, description="rows of D_r from which the curvature is estimated")
    iterations: int = Field(40, ge=1, description="most iterations of conjugate gradients")
    damping: float = Field(
        0.01, gt=0, description="λ as a share of the curvature's largest eigenvalue"
    )
    batch_size: int = Field(
        8, ge=1, description="rows at a time; two backward passes need the memory of both"
    )
    lora: LoRA = Field(LoRA(rank=8, alpha=16, targets="all"), description="adapter of the student")

    def unlearn(self, task: Task) -> Recommender:
        """Take the step; returns the merged model, or the original with one replacement adapter."""
        task.log_phase("original", task.original)
        with Student(task, self.lora, seed=derive(task.seed, "student")) as student:
            # Second derivatives exist for attention written out, not for the fused kernels.
            with task.original.using(student.active), sdpa_kernel(SDPBackend.MATH):
                parameters = adapters.up_projections(task.original.lm, student.name)
                for parameter in parameters:
                    parameter.requires_grad_(True)
                step = self._step(task, parameters)
                nn.utils.vector_to_parameters(step, parameters)
            task.log_phase("step", task.original, active=student.active)
            return student.finish()

    def plan(self, forget: int, retain: int, schedule: Schedule) -> dict[str, int]:
        """D_f once, and at most so many products with the curvature of the sampled rows."""
        return {"gradient": forget, "curvature": (POWER + self.iterations) * min(self.rows, retain)}

    def updates(self, forget: int, retain: int, schedule: Schedule) -> int:
        """The one step."""
        return 1

    def _step(self, task: Task, parameters: Sequence[nn.Parameter]) -> torch.Tensor:
        """ΔB, (m,)."""
        model, forget = task.original, task.forget
        with task.costs.phase("gradient"):
            batches = [
                model.collate(forget, index)
                for index in batches_by_length(forget.lengths, self.batch_size)
            ]
            target = torch.stack([gradient(model, parameters, batch) for batch in batches]).sum(
                0
            ) / len(forget)
        task.costs.count_rows("gradient", len(forget))
        with task.costs.phase("curvature"):
            product = self._curvature(task, parameters)
            damping = self.damping * largest_eigenvalue(
                product, target, POWER, derive(task.seed, "power")
            )
            influence = conjugate_gradients(
                lambda vector: product(vector) + damping * vector,
                target,
                self.iterations,
                TOLERANCE,
            )
        whole = len(forget) + len(task.retain) - task.rewritten
        return self.scale * len(forget) / whole * influence

    def _curvature(self, task: Task, parameters: Sequence[nn.Parameter]) -> Product:
        """v → GGN·v, the mean over some rows of D_r; tells progress and counts what it reads."""
        chosen = stream(task.seed, "curvature").permutation(len(task.retain))[: self.rows]
        some: Examples = task.retain.take(np.sort(chosen))
        batches = [
            task.original.collate(some, index)
            for index in batches_by_length(some.lengths, self.batch_size)
        ]
        done = 0

        def product(vector: torch.Tensor) -> torch.Tensor:
            nonlocal done
            done += 1
            task.progress("curvature", done, POWER + self.iterations)
            task.costs.count_rows("curvature", len(some))
            total = torch.zeros_like(vector)
            for batch in batches:
                total += gauss_newton(task.original, parameters, batch, vector)
            return total / len(some)

        return product
