"""How far a student is taken: what is not a number bounds it, and every bound is told once."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from target_tasks import odds_of, strangers_scores, task_of, with_scores

from e2urec.methods import build, e2urec
from e2urec.models.adapters import LoRA
from e2urec.training.costs import Costs
from e2urec.unlearning import initial_step, scaling
from e2urec.unlearning.initial_step import start_student
from e2urec.unlearning.multiple import ROUNDS
from e2urec.unlearning.outcome import Outcome, Target
from e2urec.unlearning.retain_check import RetainCheck
from e2urec.unlearning.scaling import Scaling, scale_student
from e2urec.unlearning.student import Student, frozen_teacher
from e2urec.unlearning.two_teachers import PRESET_OF

UNBOUNDED = {"max_valid_drop": 1.0, "max_retain_kl": 1e3}


@pytest.fixture(scope="module")
def toy():
    return task_of()


@pytest.fixture
def task(toy, monkeypatch):
    """A request whose AUC on D_f shall fall by 0.2, however few its rows are."""
    monkeypatch.setattr(scaling, "MIN_FORGET_ROWS", 1)
    before = roc_auc_score(toy.forget.labels, odds_of(toy, toy.forget))
    outcome = Outcome(target=Target(before, 0.2, 0.01, "scores"))
    return replace(toy, costs=Costs(), outcome=outcome)


@pytest.fixture
def student(task):
    """A student that was moved at random, and is taken off in the end."""
    random = torch.Generator().manual_seed(0)
    with Student(task, LoRA(targets="all"), seed=0) as student:
        weights = student.weights()
        update = {
            name: value + 0.05 * torch.randn(value.shape, generator=random)
            for name, value in weights.items()
        }
        student.start_at(update, 1.0)
        yield student


def scale(student, **settings):
    """Scale the student by its target, and return the outcome."""
    task = student.task
    nothing = frozen_teacher(task.original, task, task.retain, [])
    odds = odds_of_original(task, task.forget)
    scale_student(student, Scaling(**(UNBOUNDED | settings)), nothing, odds)
    return task.outcome


def odds_of_original(task, rows):
    return scaling.predict(task.original, rows, active=(), precision="fp32").log_odds


def student_odds(student, rows):
    return scaling.predict(
        student.task.original, rows, active=student.active, precision="fp32"
    ).log_odds


def test_scale_without_a_limit_hit_is_told_by_nobody(student):
    outcome = scale(student, largest=1e3)
    assert outcome.limits == []
    assert 0 < outcome.scale < 1e3
    auc = roc_auc_score(student.task.forget.labels, student_odds(student, student.task.forget))
    assert outcome.reached == pytest.approx(auc)


def test_rows_of_one_answer_on_which_it_would_be_scaled_leave_the_student_as_trained(
    student, monkeypatch
):
    # D_f has both answers, and the one row on which multiples would be tried has one.
    monkeypatch.setattr(scaling, "FORGET_ROWS", 1)
    trained = student_odds(student, student.task.forget)
    outcome = scale(student)
    assert outcome.scale is None
    assert outcome.reached is None
    assert any("one answer alone, so the student stays as it is" in s for s in outcome.limits)
    assert np.array_equal(student_odds(student, student.task.forget), trained)
    assert not outcome.is_done


def test_answers_that_are_not_numbers_end_at_the_original_and_it_is_told(student):
    broken = {name: torch.full_like(value, math.nan) for name, value in student.weights().items()}
    student.start_at(broken, 1.0)
    outcome = scale(student)
    assert outcome.scale == 0.0
    assert sum("are not numbers" in sentence for sentence in outcome.limits) == 1
    assert outcome.memory_left == pytest.approx(1.0)
    original = odds_of_original(student.task, student.task.forget)
    assert np.allclose(student_odds(student, student.task.forget), original)


@pytest.mark.parametrize("bound", ["kl", "validation AUC"])
def test_bound_that_is_not_a_number_is_broken(student, monkeypatch, bound):
    if bound == "kl":
        monkeypatch.setattr(RetainCheck, "divergence", lambda check, active: math.nan)
        setting = "scaling.max_retain_kl"
    else:
        monkeypatch.setattr(scaling, "_valid_sample", lambda task: NoNumbers())
        setting = "scaling.max_valid_drop"
    outcome = scale(student)
    assert outcome.scale == 0.0
    assert any(setting in sentence for sentence in outcome.limits)
    assert sum("Not even a hundredth" in sentence for sentence in outcome.limits) == 1
    assert outcome.memory_left == pytest.approx(1.0)
    original = odds_of_original(student.task, student.task.retain)
    assert np.allclose(student_odds(student, student.task.retain), original)


class NoNumbers:
    """Validation rows to which a student answers what is not a number."""

    def auc_before(self):
        return 0.7

    def auc_of(self, student):
        return math.nan


@pytest.mark.parametrize(
    ("rows", "reason"), [("none", "are none"), ("liked", "have one answer alone")]
)
def test_validation_rows_that_bound_nothing_are_told_once(student, rows, reason):
    valid = student.task.valid
    index = [] if rows == "none" else np.flatnonzero(valid.labels == 1)
    student.task.valid = valid.take(np.asarray(index, int))
    outcome = scale(student, largest=1e3)
    assert outcome.limits == [
        f"The validation rows {reason}, so nothing bounds what the student costs them "
        "(scaling.max_valid_drop); train with a larger second share of data.fractions."
    ]
    assert not outcome.is_done


def test_student_that_was_taken_back_did_not_come_to_its_limit(student, monkeypatch):
    divergences = iter([9.0, 0.0])
    monkeypatch.setattr(RetainCheck, "divergence", lambda check, active: next(divergences))
    outcome = scale(student, largest=0.01, max_retain_kl=0.1)
    assert outcome.scale == pytest.approx(0.0075)
    assert not any("scaling.largest" in sentence for sentence in outcome.limits)


def test_student_that_may_not_be_scaled_is_measured_once(student):
    trained = student_odds(student, student.task.forget)
    outcome = scale(student, largest=0)
    auc = roc_auc_score(student.task.forget.labels, trained)
    assert outcome.scale is None
    assert outcome.reached == pytest.approx(auc)
    assert student.task.costs.rows["scaling"] == len(student.task.forget)
    assert np.array_equal(student_odds(student, student.task.forget), trained)


def test_start_that_is_never_borne_ends_at_the_original(student, monkeypatch):
    task = student.task
    checks = []
    monkeypatch.setattr(
        RetainCheck, "divergence", lambda check, active: checks.append(1) or math.nan
    )
    update = {name: torch.full_like(value, math.nan) for name, value in student.weights().items()}
    zero = {name: torch.zeros_like(value) for name, value in update.items()}
    student.start_at(zero, 1.0)
    nothing = frozen_teacher(task.original, task, task.retain, [])
    check = RetainCheck.sample(task, nothing, "teachers")
    assert start_student(student, update, -8.0, check, 0.1) == 0.0
    assert len(checks) == 1 + initial_step.MAX_HALVINGS
    original = odds_of_original(task, task.forget)
    assert np.allclose(student_odds(student, task.forget), original)


def test_start_at_the_original_is_told_with_the_remedy(monkeypatch):
    monkeypatch.setattr(RetainCheck, "divergence", lambda check, active: math.nan)
    task = task_of()
    build("e2urec", preset="gain").unlearn(task)
    assert task.outcome.start_scale == 0.0
    assert sum("started from the original" in limit for limit in task.outcome.limits) == 1


def test_over_forgetting_is_called_what_it_is():
    target = Target(0.8, 0.1, 0.02, "scores")
    taken = Outcome(target=target, reached=0.66, scale=0.5)
    assert taken.sentences() == [
        "More than its memory was taken from D_f: its AUC is 0.660, and a model that never saw it "
        "would have 0.700; a smaller strength or joint takes less."
    ]
    assert not taken.is_done
    assert "scaling.largest below 1.5" in replace(taken, scale=1.5).sentences()[-1]
    solved = replace(taken, scale=1.5, is_solved=True)
    assert "solving.largest below 1.5" in solved.sentences()[-1]
    assert "with scaling.largest=1" in replace(taken, scale=None).sentences()[-1]
    # An augmented model's gain is weighed by α, and the student starts from it.
    assert "smaller start_scale" in replace(taken, alpha=1.0).sentences()[-1]
    # A little beyond the target is as good as a little before it, and no share is negative.
    near = replace(taken, reached=0.69, limits=["A bound was hit."])
    assert near.sentences() == ["A bound was hit.", "About 0% of the memory of D_f is left."]


def test_note_says_more_and_stands_in_nobodys_way():
    outcome = Outcome(target=Target(0.8, 0.1, 0.02, "scores"), reached=0.7)
    outcome.note("A setting was not read.")
    outcome.note("A setting was not read.")
    assert outcome.is_done
    assert outcome.sentences() == ["A setting was not read."]
    outcome.tell("A bound was hit.")
    assert not outcome.is_done
    assert outcome.sentences()[:2] == ["A bound was hit.", "A setting was not read."]


def test_what_was_not_measured_or_is_not_a_number_is_no_share():
    assert Outcome(limits=["A bound was hit."]).sentences()[-1] == (
        "How much is left was not measured; --method retrain leaves nothing."
    )
    outcome = Outcome(target=Target(0.8, 0.1, 0.02, "scores"), reached=math.nan)
    assert outcome.memory_left is None
    assert "cannot be told" in outcome.sentences()[-1]


@pytest.mark.parametrize("largest", [0.0, 2.0])
def test_unsure_lead_is_told_once_whether_the_student_may_be_scaled_or_not(largest):
    task = task_of()
    task = replace(task, calibration=task.calibration.take(np.zeros(0, int)))
    build("e2urec", {"scaling": {"largest": largest}}, "gain").unlearn(task)
    sentences = task.outcome.sentences()
    assert sum("what tuning is worth" in sentence for sentence in sentences) == 1
    assert len(sentences) == len(set(sentences))


def surely(measure):
    """The same measure, whose lead is sure: of a dozen rows none is."""
    return lambda *arguments: replace(measure(*arguments), lead=0.2, error=0.01, obstacle="")


# Without a joint phase, and with one that reads all of D_r.
@pytest.mark.parametrize("forgetting", ["gain", "margin", "scores"])
@pytest.mark.parametrize("joint", [0.0, 3.0])
def test_plan_counts_the_rows_of_teachers_and_scaling(monkeypatch, forgetting, joint):
    monkeypatch.setattr(scaling, "MIN_FORGET_ROWS", 1)
    least = {"scores": 8, "calibration": 8}
    monkeypatch.setattr("e2urec.unlearning.target.LEAST_ROWS", least)
    for name in ("target_by_scores", "target_by_calibration"):
        measure = getattr(e2urec, name)
        monkeypatch.setattr(e2urec, name, surely(measure))
    task = task_of()
    task = with_scores(task, strangers_scores(task))
    monkeypatch.setattr(scaling, "MIN_VALIDATION_ROWS", len(task.valid))
    # Nothing is taken back, so each check is made once.
    settings = {
        "joint": joint,
        "final": 1.0,
        "calibration_ratio": 8 / len(task.forget),
        "min_steps": 1,
        "scaling": UNBOUNDED,
    }
    settings |= {"max_retain_kl": 1e3} if forgetting == "gain" else {"solving": {"below": 0}}
    method = build("e2urec", settings, PRESET_OF[forgetting])
    method.unlearn(task)
    planned = method.plan(len(task.forget), len(task.retain), task.tuning.schedule)
    assert task.costs.rows["teachers"] == planned["teachers"]
    # Of the multiples that are planned, not all need be tried.
    tries = ROUNDS + 3
    unused = planned["scaling"] - task.costs.rows["scaling"]
    surplus = 2 * (max(len(task.valid), len(task.forget)) - len(task.valid))
    assert unused % len(task.forget) == surplus % len(task.forget)
    assert 0 <= unused - surplus < tries * len(task.forget)
