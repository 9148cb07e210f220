"""A student that is solved for: gradients of single rows, the step, and what bounds it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from target_tasks import odds_of, strangers_scores, task_of, with_scores

from e2urec.core.errors import ConfigError
from e2urec.evaluation.disclosure import outcome_record
from e2urec.methods import build, e2urec
from e2urec.metrics.classification import auc
from e2urec.models import adapters
from e2urec.models.adapters import LoRA
from e2urec.models.predictions import predict
from e2urec.testing import toy_task
from e2urec.training.schedule import Schedule
from e2urec.unlearning import gauss_newton, scaling
from e2urec.unlearning import row_gradients as row_gradients_of
from e2urec.unlearning.gauss_newton import (
    GaussNewton,
    adapter_shapes,
    affordable_width,
    damped_solution,
    held_rows,
    row_weights,
)
from e2urec.unlearning.outcome import Target
from e2urec.unlearning.row_gradients import RowGradients, row_size
from e2urec.unlearning.student import Student

ALL_LINEAR = LoRA(rank=4, targets="all")
SOLVED = {"solving": {"below": 10**6}}


def gradients_one_by_one(student, rows):
    """What autograd says of each row, asked alone."""
    model = student.model
    weights = adapters.up_projections(model.lm, student.name)
    gradients = []
    with model.using(student.active):
        for weight in weights:
            weight.requires_grad_(True)
        for number in range(len(rows)):
            batch = model.collate(rows, np.array([number]))
            log_odds = model.verbaliser.log_odds(model.logits(batch))
            parts = torch.autograd.grad(log_odds.sum(), weights)
            gradients.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(gradients)


def gradients_in_batches(student, rows, size):
    """The same, and the log-odds, of `size` rows at a time."""
    differentiator = RowGradients(student, width=10**6, batch_size=size)
    gradients = torch.empty(len(rows), differentiator.size)
    return gradients, differentiator.put_into(gradients, rows)


def moved(student):
    """Give B values, so that the adapter takes part in the answers."""
    for weight in adapters.up_projections(student.model.lm, student.name):
        torch.nn.init.normal_(weight, std=0.1)


@pytest.mark.parametrize("family", ["causal", "seq2seq"])
def test_gradients_of_rows_in_a_batch_are_those_of_each_row_alone(family):
    task = replace(toy_task(family), precision="fp32")
    rows = task.forget.take(np.arange(7))
    with Student(task, ALL_LINEAR, seed=0) as student:
        moved(student)
        gradients, log_odds = gradients_in_batches(student, rows, 4)
        expected = gradients_one_by_one(student, rows)
        answers = predict(student.model, rows, active=student.active, precision="fp32")
        assert torch.allclose(gradients, expected, atol=1e-5)
        assert np.allclose(log_odds.numpy(), answers.log_odds, atol=1e-5)


def test_rows_whose_tokens_do_not_stay_apart_are_differentiated_one_by_one(monkeypatch):
    task = replace(toy_task("causal"), precision="fp32")
    rows = task.forget.take(np.arange(6))
    in_order = row_gradients_of._Tape.row_gradients

    def shuffled(self, count):
        """As if experts had taken the tokens of the rows in another order."""
        return in_order(self, count).roll(1, dims=0)

    monkeypatch.setattr(row_gradients_of._Tape, "row_gradients", shuffled)
    with Student(task, ALL_LINEAR, seed=0) as student:
        gradients, _ = gradients_in_batches(student, rows, 3)
        expected = gradients_one_by_one(student, rows)
    assert torch.allclose(gradients, expected, atol=1e-5)
    assert task.outcome.notes == [row_gradients_of.ONE_BY_ONE]


def test_step_is_the_ridge_regression_of_what_is_missing():
    random = torch.Generator().manual_seed(0)
    gradients = torch.randn(5, 8, generator=random, dtype=torch.float64)
    missing = torch.randn(5, generator=random, dtype=torch.float64)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5], dtype=torch.float64)
    step = gradients.T @ damped_solution(gradients, missing, weights, damping=0.1)
    # The same by its normal equations in the space of B: (JᵀWJ + λI)·ΔB = JᵀW·missing.
    scale = weights[:, None] * gradients
    ridge = 0.1 * (gradients * scale).sum(1).mean()
    normal = gradients.T @ scale + ridge * torch.eye(8, dtype=torch.float64)
    assert torch.allclose(step, torch.linalg.solve(normal, scale.T @ missing))


def test_rows_weigh_what_the_loss_gives_them():
    # p(1 − p) is 1/4 at 0 and 3/16 at log 3.
    odds = np.array([0.0, np.log(3), 0.0, 0.0, 0.0])
    weights = row_weights(odds, forget_count=2, beta=0.4)
    expected = [0.4 / 2 / 4, 0.4 / 2 * 3 / 16, *[0.6 / 3 / 4] * 3]
    assert weights == pytest.approx(expected)


def test_directions_are_halved_until_the_gradients_fit(monkeypatch):
    monkeypatch.setattr(gauss_newton, "LEAST_WIDTH", 4)
    task = toy_task("causal")
    shapes = adapter_shapes(task.original.lm, ALL_LINEAR)
    widest = max(width for width, _ in shapes)

    def gigabytes(width):
        return 10 * 4 * sum(rank * min(out, width) for out, rank in shapes) / 1e9

    assert affordable_width(shapes, 10, gigabytes(widest)) == widest
    assert affordable_width(shapes, 10, 0.999 * gigabytes(widest)) == widest // 2
    assert affordable_width(shapes, 10, gigabytes(widest // 4)) == widest // 4
    assert affordable_width(shapes, 10, gigabytes(3)) == 0


def test_inner_products_of_sketched_gradients_are_about_those_of_all():
    task = replace(toy_task("causal"), precision="fp32")
    rows = task.retain.take(np.arange(12))
    with Student(task, ALL_LINEAR, seed=0) as student:
        moved(student)
        whole, log_odds = gradients_in_batches(student, rows, 4)
        sketcher = RowGradients(student, width=8, batch_size=4)
        assert sketcher.is_sketched
        sketched = torch.empty(len(rows), sketcher.size)
        assert sketcher.size < 0.5 * whole.shape[1]
        assert torch.allclose(sketcher.put_into(sketched, rows), log_odds, atol=1e-6)
        distance = (sketched @ sketched.T - whole @ whole.T).norm() / (whole @ whole.T).norm()
        assert distance < 0.35
        # The step itself is made of whole gradients.
        shares = torch.linspace(-1, 1, len(rows))
        assert torch.allclose(sketcher.combined(rows, shares), whole.T @ shares, atol=1e-5)


def test_rewritten_rows_are_held_first_and_make_up_half_at_most():
    task = replace(toy_task("causal"), rewritten=np.arange(8))
    assert set(range(8)) <= set(held_rows(task, 20).tolist())
    rows = held_rows(task, 10)
    assert len(rows) == len(set(rows.tolist())) == 10
    everything = held_rows(task, 10**6)
    assert everything.tolist() == list(range(len(task.retain)))


def solved(task, *, largest=0.0, **solving):
    """What the student says of D_f and D_r after it was solved for, and was not multiplied."""
    usual = {"below": 10**6, "damping": 0.01, "iterations": 3}
    settings = {"solving": usual | solving, "scaling": {"largest": largest}}
    model = build("e2urec", settings, preset="scores").unlearn(task)
    result = replace(task, original=model)
    return odds_of(result, task.forget), odds_of(result, task.retain)


def test_solved_student_says_of_forgotten_rows_what_the_teacher_does_and_holds_the_others():
    task = replace(task_of(ratio=0.1), precision="fp32")
    before = odds_of(task, task.forget)
    held = odds_of(task, task.retain)
    task = with_scores(task, strangers_scores(task))
    asked = task.scores.forget.mean - before
    forget, retain = solved(task, strength=1.0)
    assert np.corrcoef(forget - before, asked)[0, 1] > 0.9
    assert np.abs(retain - held).mean() < 0.3 * np.abs(forget - before).mean()
    assert set(task.costs.rows) == {"teachers", "solving"}


def test_student_that_falls_short_is_multiplied_until_its_auc_is_its_teachers():
    distances = {}
    for largest in (0.0, 50.0):
        task = replace(task_of(), precision="fp32")
        task = with_scores(task, strangers_scores(task))
        original_auc = auc(task.forget.labels, odds_of(task, task.forget))
        forget, _ = solved(task, largest=largest, damping=1000.0)
        teacher_auc = task.outcome.teacher_auc
        assert teacher_auc < original_auc
        distances[largest] = auc(task.forget.labels, forget) - teacher_auc
    assert task.outcome.scale > 1
    assert abs(distances[50.0]) < 0.3 * distances[0.0]
    planned = build("e2urec", SOLVED, preset="scores").plan(
        len(task.forget), len(task.retain), task.tuning.schedule
    )
    assert 0 < task.costs.rows["scaling"] <= planned["scaling"]


def test_student_that_no_multiple_makes_forget_stays_and_says_so():
    task = replace(task_of(), precision="fp32")
    task = with_scores(task, strangers_scores(task))
    solved(task, largest=1.01, damping=1000.0)
    assert task.outcome.scale is None
    assert any("Up to 1.01 times what was found" in text for text in task.outcome.limits)


@pytest.mark.parametrize("no_count", [0, 1])
def test_rows_of_one_answer_or_nearly_are_no_goal_to_be_multiplied_to(no_count):
    task = replace(task_of(), precision="fp32")
    labels = task.forget.labels
    rows = np.concatenate([np.flatnonzero(labels), np.flatnonzero(~labels.astype(bool))[:no_count]])
    task = replace(task, forget=task.forget.take(rows))
    task = with_scores(task, strangers_scores(task))
    solved(task, largest=2.0)
    assert task.outcome.scale is None
    assert "scaling" not in task.costs.rows
    assert any("too few pairs" in sentence for sentence in task.outcome.limits)


def test_student_that_was_multiplied_and_taken_back_notes_both():
    task = replace(task_of(), precision="fp32")
    task = with_scores(task, strangers_scores(task))
    solved(task, largest=2.0)
    free = task.outcome.scale
    settings = SOLVED | {
        "solving": {"below": 10**6, "damping": 0.01},
        "scaling": {"largest": 2.0, "max_retain_kl": 1e-6},
    }
    held = with_scores(replace(task_of(), precision="fp32"), strangers_scores(task))
    build("e2urec", settings, preset="scores").unlearn(held)
    assert 0 <= held.outcome.scale < 0.6 * free


def test_what_half_models_say_of_strangers_too_is_no_memory():
    task = replace(task_of(ratio=0.1), precision="fp32")
    before = odds_of(task, task.forget)
    strangers = odds_of(task, task.calibration)
    # They say Yes more often, to everybody: nothing is to be forgotten.
    task = with_scores(task, before + 1.0, strangers + 1.0)
    forget, _ = solved(task)
    assert task.outcome.target.drift == pytest.approx(1.0, abs=1e-4)
    assert np.abs(forget - before).max() < 0.05


def test_student_that_moves_the_others_too_far_is_taken_back_and_says_so():
    task = replace(task_of(), precision="fp32")
    task = with_scores(task, -20 * odds_of(task, task.forget))
    settings = SOLVED | {"scaling": {"max_retain_kl": 1e-5}}
    build("e2urec", settings, preset="scores").unlearn(task)
    (sentence,) = [text for text in task.outcome.limits if "was taken back to" in text]
    # Where figures on so few rows are left out, it is told all the same.
    assert sentence in outcome_record(task.outcome, 4)["sentences"]
    assert 0 < task.outcome.scale < 1


def test_gradients_that_do_not_fit_make_a_trained_student_and_that_is_told():
    task = task_of()
    task = with_scores(task, strangers_scores(task))
    settings = {"solving": {"below": 10**6, "memory_gb": 1e-9}, "joint": 0.5, "min_steps": 1}
    build("e2urec", settings, preset="scores").unlearn(task)
    assert "solving" not in task.costs.rows
    assert any("raise solving.memory_gb" in sentence for sentence in task.outcome.notes)
    # It has the teacher of a trained student, which is led farther.
    trained = with_scores(task_of(), task.scores.forget.mean)
    build("e2urec", settings | {"solving": {"below": 0}}, preset="scores").unlearn(trained)
    assert task.outcome.teacher_auc == trained.outcome.teacher_auc


@pytest.mark.parametrize(("micro_batch", "most"), [(None, 6), (2, 2)])
def test_as_many_rows_go_through_the_model_as_when_the_original_was_tuned(
    micro_batch, most, monkeypatch
):
    sizes = []
    of_batch = row_gradients_of.RowGradients._differentiate

    def record(self, tape, rows, index, *shares):
        sizes.append(len(index))
        return of_batch(self, tape, rows, index, *shares)

    monkeypatch.setattr(row_gradients_of.RowGradients, "_differentiate", record)
    task = task_of()
    task = with_scores(task, strangers_scores(task))
    changes = {"batch_size": 6, "micro_batch": micro_batch}
    schedule = task.tuning.schedule.model_copy(update=changes)
    task = replace(task, tuning=task.tuning.model_copy(update={"schedule": schedule}))
    build("e2urec", SOLVED, preset="scores").unlearn(task)
    assert max(sizes) == most


def test_settings_of_training_that_are_not_read_are_told():
    task = task_of()
    task = with_scores(task, strangers_scores(task))
    settings = SOLVED | {"strength": 4.5, "remember": "kl+ce", "batch_size": 3}
    build("e2urec", settings, preset="scores").unlearn(task)
    (sentence,) = [text for text in task.outcome.notes if "not read" in text]
    assert "strength=4.5, remember=kl+ce, batch_size=3 not read" in sentence
    assert "solving.below=0" in sentence


def test_large_requests_are_trained():
    task = task_of()
    task = with_scores(task, strangers_scores(task))
    settings = {"solving": {"below": len(task.forget)}, "joint": 0.5, "min_steps": 1}
    build("e2urec", settings, preset="scores").unlearn(task)
    assert "joint" in task.costs.rows
    assert "solving" not in task.costs.rows


def test_solving_by_the_gain_is_refused():
    with pytest.raises(ConfigError, match=r"=gain does not read solving\.below=300; leave"):
        build("e2urec", {"solving": {"below": 300}}, "gain")


def test_plan_counts_the_rows_that_solving_reads():
    task = replace(task_of(), precision="fp32")
    task = with_scores(task, strangers_scores(task))
    method = build("e2urec", SOLVED, preset="scores")
    method.unlearn(task)
    planned = method.plan(len(task.forget), len(task.retain), task.tuning.schedule)
    assert planned["solving"] == task.costs.rows["solving"]
    # The same model is not asked and logged twice.
    assert [log.phase for log in task.phase_logs] == ["original", "teacher", "solved"]


@pytest.mark.parametrize(
    ("forget", "retain", "held"), [(10, 1000, 256), (80, 1000, 400), (300, 1000, 512), (10, 60, 60)]
)
def test_the_more_rows_go_the_more_are_held(forget, retain, held):
    assert GaussNewton().held_count(forget, retain) == held


def test_placebo_of_a_solved_student_takes_the_steps_of_a_trained_one():
    solved = build("e2urec", {}, preset="scores")
    trained = build("e2urec", {"solving": {"below": 0}}, preset="scores")
    steps = trained.updates(200, 1000, Schedule())
    assert solved.updates(200, 1000, Schedule()) == steps == 2 * 200 // trained.batch_size


def test_student_that_no_part_of_is_borne_is_the_original_and_says_so():
    task = replace(task_of(), precision="fp32")
    before = odds_of(task, task.forget)
    task = with_scores(task, -20 * before)
    settings = SOLVED | {"scaling": {"max_retain_kl": 1e-30}}
    model = build("e2urec", settings, preset="scores").unlearn(task)
    after = odds_of(replace(task, original=model), task.forget)
    assert np.allclose(after, before, atol=1e-5)
    assert any("nothing was forgotten" in sentence for sentence in task.outcome.limits)


def test_rows_that_do_not_count_or_cannot_be_moved_move_nothing():
    ones = torch.ones(3)
    assert not damped_solution(torch.ones(3, 5), ones, torch.zeros(3), damping=0.1).any()
    assert not damped_solution(torch.zeros(3, 5), ones, ones, damping=0.1).any()


def test_gradients_that_are_no_numbers_leave_the_original_and_that_is_told(monkeypatch):
    task = replace(task_of(), precision="fp32")
    before = odds_of(task, task.forget)
    task = with_scores(task, strangers_scores(task))
    in_order = row_gradients_of._Tape.row_gradients

    def overflown(self, count):
        return in_order(self, count) * torch.nan

    monkeypatch.setattr(row_gradients_of._Tape, "row_gradients", overflown)
    model = build("e2urec", SOLVED, preset="scores").unlearn(task)
    after = odds_of(replace(task, original=model), task.forget)
    assert np.allclose(after, before, atol=1e-5)
    assert gauss_newton.NOT_FINITE in task.outcome.limits


def test_request_of_all_users_is_solved_for():
    task = replace(task_of(ratio=0.1), precision="fp32")
    task = with_scores(task, strangers_scores(task))
    none = np.arange(0)
    task = replace(task, retain=task.retain.take(none), rewritten=none)
    before = odds_of(task, task.forget)
    # The toy's scores lie so far off that a longer way leads out of what is nearly linear.
    settings = SOLVED | {"solving": {"below": 10**6, "strength": 0.8}}
    model = build("e2urec", settings, preset="scores").unlearn(task)
    forget = odds_of(replace(task, original=model), task.forget)
    assert np.abs(forget - before).max() > 0.05


def test_plan_counts_the_rows_whose_lower_blocks_are_kept():
    task = replace(task_of(), precision="fp32")
    task = with_scores(task, strangers_scores(task))
    settings = SOLVED | {"lora": {"targets": "all", "upper": 0.5}}
    method = build("e2urec", settings, preset="scores")
    method.unlearn(task)
    planned = method.plan(len(task.forget), len(task.retain), task.tuning.schedule)
    assert planned["cache"] == task.costs.rows["cache"]


def test_adapter_of_too_few_numbers_for_so_many_rows_is_trained_and_no_bound_was_hit(monkeypatch):
    task = task_of()
    task = with_scores(task, strangers_scores(task))
    numbers = row_size(adapter_shapes(task.original.lm, LoRA(targets="all")), 10**6)
    row_count = len(task.forget) + len(task.retain)
    settings = {**SOLVED, "joint": 0.5, "min_steps": 1}
    monkeypatch.setattr(gauss_newton, "LEAST_NUMBERS", numbers / row_count)
    build("e2urec", settings, preset="scores").unlearn(task)
    assert task.outcome.is_solved
    monkeypatch.setattr(gauss_newton, "LEAST_NUMBERS", 1 + numbers / row_count)
    trained = with_scores(task_of(), task.scores.forget.mean)
    build("e2urec", settings, preset="scores").unlearn(trained)
    assert "joint" in trained.costs.rows
    assert not any("solved" in sentence for sentence in trained.outcome.limits)
    assert any("a larger lora.rank" in sentence for sentence in trained.outcome.notes)


def test_request_for_everything_is_solved_for_and_cannot_be_trained(monkeypatch):
    monkeypatch.setattr(scaling, "MIN_FORGET_ROWS", 1)
    task = replace(task_of(), precision="fp32")
    task = with_scores(task, strangers_scores(task))
    target = Target(auc(task.forget.labels, odds_of(task, task.forget)), 0.2, 0.01, "scores")
    monkeypatch.setattr(e2urec, "target_by_scores", lambda task, odds, ratio: target)
    task = replace(task, retain=task.retain.take(np.zeros(0, int)))
    task = replace(task, scores=replace(task.scores, retain=task.scores.retain.take([])))
    build("e2urec", preset="scores").unlearn(task)
    assert task.outcome.is_solved
    assert task.outcome.reached < target.before
    with pytest.raises(ConfigError, match="none is left to train on"):
        build("e2urec", {"solving": {"below": 0}}, preset="scores").unlearn(task)


def test_layer_that_mixes_the_tokens_of_rows_is_differentiated_row_by_row(monkeypatch):
    task = replace(toy_task("causal"), precision="fp32")
    rows = task.forget.take(np.arange(6))
    monkeypatch.setattr(row_gradients_of._Tape, "goes_apart", lambda self, count: count == 1)
    sizes = []
    differentiate = RowGradients._differentiate

    def record(self, tape, rows, index, *shares):
        sizes.append(len(index))
        return differentiate(self, tape, rows, index, *shares)

    monkeypatch.setattr(RowGradients, "_differentiate", record)
    with Student(task, ALL_LINEAR, seed=0) as student:
        gradients, _ = gradients_in_batches(student, rows, 3)
        expected = gradients_one_by_one(student, rows)
    assert sizes == [3, 1, 1, 1, 1, 1, 1]
    assert torch.allclose(gradients, expected, atol=1e-5)
