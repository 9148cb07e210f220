"""The influence step: its solver on quadratics, its curvature against an explicit Jacobian."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from e2urec.data.prompts import TEMPLATES
from e2urec.methods.ifru import (
    IFRU,
    POWER_ITERATIONS,
    conjugate_gradients,
    gauss_newton,
    gradient,
    largest_eigenvalue,
)
from e2urec.models import adapters
from e2urec.models.adapters import LoRA
from e2urec.models.batches import Examples
from e2urec.models.predictions import predict
from e2urec.models.recommender import Recommender
from e2urec.testing import toy_backbone, toy_task
from e2urec.unlearning.losses import cross_entropy

SMALL = {
    "lora": LoRA(rank=2, alpha=4, targets="all"),
    "rows": 12,
    "iterations": 8,
    # All rows at a time, unless a test is about batches.
    "batch_size": 12,
}


def quadratic(values: list[float]) -> torch.Tensor:
    """A symmetric matrix with these eigenvalues."""
    turn = torch.linalg.qr(
        torch.randn(len(values), len(values), generator=torch.Generator().manual_seed(0))
    )[0]
    return turn @ torch.diag(torch.tensor(values)) @ turn.T


def student(kind: str):
    """A recommender with a fresh adapter at B = 0, and some of its rows."""
    backbone = toy_backbone(kind)
    lm = adapters.attach(backbone.lm, "student", LoRA(rank=1, alpha=2), seed=0)
    model = Recommender(
        backbone.__class__(lm, backbone.tokenizer, "toy"), TEMPLATES["compact"], active=("student",)
    )
    parameters = adapters.up_projections(model.lm, "student")
    return (
        model,
        parameters,
        model.encode_texts(["Liked: Movie 1. Movie 2?", "Disliked: none. Movie?", "Heat?"]),
    )


@torch.no_grad()
def loss_of(model: Recommender, rows: Examples) -> float:
    """Cross-entropy over the whole vocabulary, which is what the step is about."""
    batch = model.collate(rows, np.arange(len(rows)))
    with model.using():
        return cross_entropy(model.logits(batch), model.verbaliser.tokens(batch.labels)).item()


def test_conjugate_gradients_solve_a_quadratic_in_as_many_steps_as_it_has_dimensions():
    matrix, target = quadratic([1.0, 2.0, 5.0, 9.0]), torch.tensor([1.0, -2.0, 0.5, 3.0])
    solved = conjugate_gradients(lambda v: matrix @ v, target, 4, 0.0)
    assert torch.allclose(solved, torch.linalg.solve(matrix, target), atol=1e-4)


def test_conjugate_gradients_stop_at_the_tolerance_and_at_a_zero_target():
    matrix, calls = quadratic([1.0, 1.0, 1.0]), []

    def product(v):
        calls.append(1)
        return matrix @ v

    conjugate_gradients(product, torch.ones(3), 40, 1e-3)
    assert len(calls) == 1
    assert torch.equal(conjugate_gradients(product, torch.zeros(3), 40, 1e-3), torch.zeros(3))
    assert len(calls) == 1


def test_power_iteration_finds_the_largest_eigenvalue():
    matrix = quadratic([0.0, 1.0, 2.0, 7.0])
    assert largest_eigenvalue(lambda v: matrix @ v, torch.zeros(4), 30, 0) == pytest.approx(
        7.0, rel=1e-4
    )
    assert largest_eigenvalue(lambda v: 0 * v, torch.zeros(4), 5, 0) == 0.0


@pytest.mark.parametrize(
    ("kind", "cap", "more_yes"),
    [("causal", None, ()), ("seq2seq", None, ()), ("causal", 0.5, ()), ("causal", 0.5, (7, 9))],
)
def test_curvature_product_equals_that_of_an_explicit_jacobian(kind, cap, more_yes):
    model, parameters, rows = student(kind)
    model.lm.config.final_logit_softcapping = cap
    model.verbaliser = replace(model.verbaliser, more_yes=more_yes)
    batch = model.collate(rows, np.arange(3))
    with model.using():
        for parameter in parameters:
            parameter.requires_grad_(True)
        size = sum(parameter.numel() for parameter in parameters)
        vector = torch.randn(size, generator=torch.Generator().manual_seed(1))
        z = model.logits(batch)
        expected = torch.zeros(size)
        for row in z:
            # A backward pass for each token of the vocabulary, all of them at once.
            lines = torch.autograd.grad(
                row, parameters, torch.eye(len(row)), retain_graph=True, is_grads_batched=True
            )
            jacobian = torch.cat([part.flatten(1) for part in lines], dim=1)
            p = row.softmax(-1).detach()
            expected += jacobian.T @ ((torch.diag(p) - torch.outer(p, p)) @ (jacobian @ vector))
        product = gauss_newton(model, parameters, batch, vector)
    assert expected.norm() > 0
    assert torch.allclose(product, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


def test_gradient_is_the_slope_of_the_summed_loss():
    model, parameters, rows = student("causal")
    batch = model.collate(rows, np.arange(3))

    def loss() -> float:
        tokens = model.verbaliser.tokens(batch.labels)
        return torch.nn.functional.cross_entropy(
            model.logits(batch), tokens, reduction="sum"
        ).item()

    with model.using():
        for parameter in parameters:
            parameter.requires_grad_(True)
        slope = gradient(model, parameters, batch)
        before = loss()
        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(1e-2 * slope / slope.norm(), parameters)
        assert loss() - before == pytest.approx(1e-2 * float(slope.norm()), rel=0.1)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_step_raises_the_loss_on_the_forget_set_and_leaves_one_whole_model(kind, lora):
    task = toy_task(kind, lora=lora)
    before = loss_of(task.original, task.forget)
    model = IFRU(**SMALL, scale=0.01).unlearn(task)
    assert loss_of(model, task.forget) > before
    assert task.costs.rows["gradient"] == len(task.forget)
    assert 0 < task.costs.rows["curvature"] <= 12 * (POWER_ITERATIONS + 8)
    assert len(model.active) == int(lora)
    assert not any(parameter.requires_grad for parameter in model.lm.parameters())


def test_small_step_grows_with_its_scale():
    moved = []
    for scale in (0.005, 0.01):
        task = toy_task("causal")
        before = predict(task.original, task.forget, precision="fp32").log_odds
        after = predict(
            IFRU(**SMALL, scale=scale).unlearn(task), task.forget, precision="fp32"
        ).log_odds
        moved.append(np.abs(after - before).mean())
    assert moved[1] == pytest.approx(2 * moved[0], rel=0.1)


def test_plan_is_exact_while_the_solver_does_not_converge_and_a_bound_otherwise():
    task, method = toy_task("causal"), IFRU(**{**SMALL, "iterations": 3, "batch_size": 5})
    reports = []
    task.progress = lambda phase, done, total, loss=None: reports.append((phase, done, total))
    method.unlearn(task)
    planned = method.plan(len(task.forget), len(task.retain), task.tuning.schedule)
    assert {phase: task.costs.rows[phase] for phase in planned} == planned
    assert reports == [
        ("curvature", k, POWER_ITERATIONS + 3) for k in range(1, POWER_ITERATIONS + 4)
    ]
    assert method.updates(10, 10, task.tuning.schedule) == 1


def test_interrupted_step_leaves_no_adapter_on_the_original():
    task = toy_task("causal")

    def interrupt(phase: str, done: int, total: int, loss: float | None = None) -> None:
        if done == 3:
            raise KeyboardInterrupt

    task.progress = interrupt
    before = task.original.score(task.forget)
    with pytest.raises(KeyboardInterrupt):
        IFRU(**SMALL).unlearn(task)
    assert adapters.names(task.original.lm) == []
    assert np.array_equal(task.original.score(task.forget), before)
