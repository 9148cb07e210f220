"""How much to forget, how far the student is taken, and what is told when it is not done."""

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from target_tasks import odds_of, strangers_scores, task_of, with_scores

from e2urec.core.errors import ConfigError
from e2urec.data.difficulty import Difficulty
from e2urec.methods import build, e2urec, rebuild, suited_preset
from e2urec.methods.e2urec import E2URec
from e2urec.models.predictions import predict
from e2urec.testing import toy_task
from e2urec.unlearning import scaled_student, scaling
from e2urec.unlearning.lead import LeadSample
from e2urec.unlearning.outcome import Outcome, Target, unsure_lead
from e2urec.unlearning.target import target_by_calibration, target_by_scores
from e2urec.unlearning.teachers import AnsweredRows
from e2urec.unlearning.two_teachers import PRESET_OF

# A toy's student that is trained, on the upper of two blocks.
TRAINED = {
    "forgetting": "scores",
    "strength": 4.0,
    "joint": 0.5,
    "beta": 0.8,
    "learning_rate": 1e-3,
    "batch_size": 16,
    "lora": {"upper": 0.5},
    "solving": {"below": 0},
}


def up_projection_norm(student):
    squares = [float((value**2).sum()) for key, value in student.weights().items() if "B" in key]
    return math.sqrt(sum(squares))


@pytest.fixture
def sure_target(monkeypatch):
    """A toy request has a dozen rows, of which no lead is sure: here it is 0.2, and steered by."""
    monkeypatch.setattr(scaling, "MIN_FORGET_ROWS", 1)

    def target(task, odds, ratio):
        return Target(roc_auc_score(task.forget.labels, odds), 0.2, 0.01, "scores")

    monkeypatch.setattr(e2urec, "target_by_scores", target)


def test_target_by_scores_is_a_difference_of_differences_of_aucs():
    task = task_of()
    random = np.random.default_rng(1)
    forget = random.normal(size=len(task.forget)).astype(np.float32)
    calibration = random.normal(size=len(task.calibration)).astype(np.float32)
    odds = odds_of(task, task.forget)
    target = target_by_scores(with_scores(task, forget, calibration), odds, 1.0)
    labels, other_labels = task.forget.labels, task.calibration.labels
    before = roc_auc_score(labels, odds)
    lead = before - roc_auc_score(labels, forget)
    lead -= roc_auc_score(other_labels, odds_of(task, task.calibration))
    lead += roc_auc_score(other_labels, calibration)
    assert target.basis == "scores"
    assert target.before == pytest.approx(before)
    assert target.lead == pytest.approx(lead)
    assert target.auc == pytest.approx(before - lead)
    assert target.error > 0


def test_target_by_calibration_takes_out_how_hard_the_rows_are():
    task = task_of()
    random = np.random.default_rng(2)
    control = Difficulty(
        random.normal(size=len(task.retain)),
        {"calibration": random.normal(size=len(task.calibration))},
    )
    task = replace(task, difficulty=control)
    odds = odds_of(task, task.forget)
    nothing = AnsweredRows(np.zeros(0, int), np.zeros(0, np.float32))
    target = target_by_calibration(task, odds, nothing, 1.0)
    tuned = roc_auc_score(task.retain.labels, odds_of(task, task.retain))
    untuned = roc_auc_score(task.calibration.labels, odds_of(task, task.calibration))
    harder = roc_auc_score(task.retain.labels, control.retain)
    harder -= roc_auc_score(task.calibration.labels, control.outsiders["calibration"])
    # There are fewer rows than the least number asked for, so all of them are read.
    assert target.lead == pytest.approx(tuned - untuned - harder)


def test_request_of_one_class_forgets_once_and_says_why():
    task = task_of()
    liked = task.forget.take(np.flatnonzero(task.forget.labels == 1))
    task = replace(task, forget=liked)
    before = odds_of(task, task.retain)
    model = build("e2urec", preset="gain").unlearn(task)
    assert math.isnan(task.outcome.target.lead)
    assert task.outcome.alpha == 1.0
    assert any("cannot be measured" in limit for limit in task.outcome.limits)
    assert not np.array_equal(predict(model, task.retain, precision="fp32").log_odds, before)


def test_missing_calibration_rows_are_told_with_the_remedy():
    task = task_of()
    task = replace(task, calibration=task.calibration.take(np.zeros(0, int)))
    build("e2urec", preset="gain").unlearn(task)
    sentences = task.outcome.sentences()
    assert any("data.calibration" in sentence for sentence in sentences)
    assert "--method retrain" in sentences[-1]


def test_scores_lead_the_teacher_by_their_strength():
    task = task_of()
    forget = strangers_scores(task)
    task = with_scores(task, forget)
    before = odds_of(task, task.forget)
    build("e2urec", TRAINED | {"strength": 3.0}).unlearn(task)
    expected = before + 3.0 * (forget - before)
    auc = roc_auc_score(task.forget.labels, expected)
    assert task.outcome.teacher_auc == pytest.approx(auc)


def test_scores_that_the_run_lacks_are_asked_for_in_one_line():
    with pytest.raises(ConfigError, match="e2urec prepare"):
        build("e2urec", {"forgetting": "scores"}).unlearn(toy_task("causal"))


def test_row_of_the_forget_set_without_a_score_is_refused_in_one_line():
    task = task_of()
    forget = strangers_scores(task)
    forget[[0, 4]] = np.nan
    method = build("e2urec", {"forgetting": "scores"})
    with pytest.raises(ConfigError, match=f"2 of {len(task.forget)} rows of D_f have none") as told:
        method.unlearn(with_scores(task, forget))
    assert "e2urec prepare" in str(told.value)
    assert "\n" not in str(told.value)
    assert task.phase_logs == []


def test_calibration_rows_without_a_score_are_left_out_of_the_target():
    task = task_of()
    forget = strangers_scores(task)
    odds = odds_of(task, task.forget)
    whole = odds_of(task, task.calibration) + np.linspace(1, -1, len(task.calibration))
    partial = whole.copy()
    partial[::3] = np.nan
    scored_rows = np.flatnonzero(np.isfinite(partial))
    smaller = replace(task, calibration=task.calibration.take(scored_rows))
    target = target_by_scores(with_scores(task, forget, partial), odds, 1.0)
    expected = target_by_scores(with_scores(smaller, forget, whole[scored_rows]), odds, 1.0)
    assert target.lead == pytest.approx(expected.lead, abs=1e-6)
    assert target.error == pytest.approx(expected.error, abs=1e-6)
    assert target.lead != target_by_scores(with_scores(task, forget, whole), odds, 1.0).lead
    assert task.outcome.limits == []


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_student_is_scaled_until_the_auc_on_the_forget_set_is_down_to_the_target(sure_target, lora):
    settings = TRAINED | {
        "learning_rate": 3e-3,
        "joint": 8.0,
        "scaling": {"largest": 30.0, "max_valid_drop": 1.0, "max_retain_kl": 100.0},
        "lora": {"targets": "all", "upper": 1.0},
    }
    task = task_of(lora=lora)
    task = with_scores(task, strangers_scores(task))
    model = build("e2urec", settings).unlearn(task)
    outcome = task.outcome
    assert outcome.target.is_sure
    assert outcome.scale > 1.0
    after = roc_auc_score(task.forget.labels, predict(model, task.forget).log_odds)
    assert after <= outcome.target.auc + 0.02 < outcome.target.before
    assert outcome.reached == pytest.approx(after, abs=0.02)
    assert outcome.limits == []


def test_scale_stops_at_its_limit_and_says_so(sure_target):
    settings = TRAINED | {"scaling": {"largest": 0.1}}
    task = task_of()
    task = with_scores(task, strangers_scores(task))
    build("e2urec", settings).unlearn(task)
    assert task.outcome.scale == 0.1
    assert not task.outcome.is_done
    sentences = task.outcome.sentences()
    assert any("scaling.largest" in sentence for sentence in sentences)
    assert "of the memory of D_f is left; --method retrain" in sentences[-1]


def test_scale_is_taken_back_when_the_retain_set_does_not_bear_it(sure_target):
    settings = TRAINED | {
        "learning_rate": 1e-2,
        "joint": 4.0,
        "scaling": {"max_retain_kl": 1e-4, "max_valid_drop": 1.0},
    }
    task = task_of()
    task = with_scores(task, strangers_scores(task))
    before = odds_of(task, task.retain)
    model = build("e2urec", settings).unlearn(task)
    assert any("scaling.max_retain_kl" in limit for limit in task.outcome.limits)
    moved = np.abs(predict(model, task.retain, precision="fp32").log_odds - before)
    assert moved.mean() < 0.1


def test_scale_is_taken_back_when_the_validation_rows_do_not_bear_it(sure_target, monkeypatch):
    # The student is worse than nothing on these rows as long as it stands at its full length.
    lengths = []

    def auc_of(sample, student):
        lengths.append(up_projection_norm(student))
        return sample.auc_before() - 0.1 * lengths[-1] / lengths[0]

    monkeypatch.setattr(scaled_student.Sample, "auc_of", auc_of)
    task = task_of()
    task = with_scores(task, strangers_scores(task))
    bounds = {"largest": 1.0, "max_retain_kl": 100.0, "max_valid_drop": 0.06}
    build("e2urec", TRAINED | {"learning_rate": 1e-4, "scaling": bounds}).unlearn(task)
    # 0.75 of the length still costs more than 0.06, and 0.75² no longer does.
    assert task.outcome.scale == pytest.approx(0.75**2)
    assert any("scaling.max_valid_drop" in limit for limit in task.outcome.limits)


def test_few_rows_are_not_steered_by_their_auc_and_it_is_told(sure_target, monkeypatch):
    monkeypatch.setattr(scaling, "MIN_FORGET_ROWS", 300)
    task = task_of()
    task = with_scores(task, strangers_scores(task))
    build("e2urec", TRAINED).unlearn(task)
    assert task.outcome.scale is None
    assert any("only from 300 on" in limit for limit in task.outcome.limits)


def test_outcome_says_nothing_where_the_method_came_as_far_as_it_should():
    target = Target(0.8, 0.1, 0.02, "scores")
    assert Outcome().sentences() == []
    assert Outcome(target=target, reached=0.71).sentences() == []
    left = Outcome(target=target, reached=0.75).sentences()
    assert left == ["About 50% of the memory of D_f is left; --method retrain leaves nothing."]
    unsure = Outcome(target=replace(target, error=0.08), reached=0.7)
    assert "cannot be told" in unsure.sentences()[-1]
    assert "not surely positive: 0.100 AUC" in unsure_lead(replace(target, error=0.08))


def test_preset_scores_forgets_by_scores_alone():
    task = task_of()
    task = with_scores(task, strangers_scores(task))
    before = odds_of(task, task.forget)
    # The preset weighs D_r more than D_f, and a toy has too few rows of it to be led apart from it.
    # Its scores lie so far off that a longer way leads out of what is nearly linear.
    settings = {"beta": 0.5, "solving": {"below": 10**6, "strength": 0.8}}
    method = build("e2urec", settings, "scores")
    model = method.unlearn(task)
    planned = method.plan(len(task.forget), len(task.retain), task.tuning.schedule)
    assert "augmented" not in planned
    assert "augmented" not in task.costs.seconds
    # The student follows the teacher: towards the scores, on the rows that are forgotten.
    moved = predict(model, task.forget, precision="fp32").log_odds - before
    wanted = task.scores.forget.mean - before
    assert np.corrcoef(moved, wanted)[0, 1] > 0.3


@pytest.mark.parametrize(
    ("settings", "unread"),
    [
        (
            {"forgetting": "scores", "alpha": 2.0},
            "alpha=2.0; leave that out, or take preset gain$",
        ),
        ({"forgetting": "scores", "start_scale": 1.0}, "start_scale=1.0"),
        ({"forgetting": "scores", "augment_passes": 3, "teacher": "raw"}, "teacher=raw, augment_p"),
        (
            {"forgetting": "gain", "strength": 2.0},
            "strength=2.0; .* take preset scores or default$",
        ),
        ({"forgetting": "margin", "denoise": False}, "denoise=False; .* take preset scores$"),
        ({"forgetting": "margin", "denoise": False, "alpha": 2.0}, ".*; leave that out$"),
    ],
)
def test_settings_that_the_forgetting_teacher_does_not_read_are_refused(settings, unread):
    with pytest.raises(ConfigError, match=f"does not read {unread}"):
        build("e2urec", settings)


@pytest.mark.parametrize("preset", ["default", *E2URec.presets])
def test_settings_of_a_preset_are_its_own_and_can_be_read_back(preset):
    method = build("e2urec", {}, preset)
    assert build("e2urec", E2URec.presets.get(preset, {})) == method
    assert build("e2urec", method.model_dump()) == method == rebuild("e2urec", method.model_dump())


def test_record_of_an_older_version_is_read_without_what_its_teacher_does_not_read():
    method = build("e2urec", preset="gain")
    older = method.model_dump() | {"strength": 4.0, "solving": {"below": 0, "strength": 1.5}}
    with pytest.raises(ConfigError, match=r"does not read strength=4\.0"):
        build("e2urec", older)
    assert rebuild("e2urec", older) == method


def test_preset_is_that_of_the_teacher_or_the_best_there_is():
    def suited(settings, scores=False, strangers=True):
        return suited_preset("e2urec", settings, has_scores=scores, has_strangers=strangers)

    for teacher, preset in PRESET_OF.items():
        assert build("e2urec", {}, preset).forgetting == teacher
        assert suited({"forgetting": teacher}, scores=True) == preset
    assert [suited({}, scores=True), suited({}), suited({}, strangers=False)] == [
        "scores",
        "default",
        "gain",
    ]
    assert suited({"alpha": 1.5}, scores=True) == "gain"
    # What is no teacher is refused where the method is built.
    with pytest.raises(ConfigError, match="forgetting"):
        build("e2urec", {"forgetting": ["gain"]}, suited({"forgetting": ["gain"]}))


def sample_of(labels, odds):
    count = len(labels)
    rows = toy_task("causal").retain.take(np.zeros(count, int))
    rows = replace(rows, labels=np.asarray(labels))
    return LeadSample("D_r", rows, np.asarray(odds, np.float32), np.zeros(count), "")


@pytest.mark.parametrize("count", [400, 9000])
@pytest.mark.parametrize("step", [0.0, 1 / 16], ids=["as they are", "with ties"])
@pytest.mark.parametrize("lead", [0.02, 0.1])
def test_margin_takes_the_lead_off_the_auc(count, step, lead):
    random = np.random.default_rng(3)
    labels = random.integers(0, 2, count)
    # In the order of their users, of whom the later ones differ more.
    odds = labels + np.linspace(0.5, 2.0, count) * random.normal(size=count)
    odds = np.round(odds / step) * step if step else odds
    margin = sample_of(labels, odds).margin_of(lead)
    fall = roc_auc_score(labels, odds) - roc_auc_score(labels, odds - margin * labels)
    assert fall == pytest.approx(lead, abs=0.002 + step / 4)


@pytest.mark.parametrize("lead", [0.0, -0.1, math.nan])
def test_without_a_lead_there_is_no_margin(lead):
    assert math.isnan(sample_of([0, 1, 1], [-1.0, 2.0, 3.0]).margin_of(lead))
    # More than all of it cannot be taken.
    assert sample_of([0, 1, 1], [-1.0, 2.0, 3.0]).margin_of(2.0) == 4.0
    assert math.isnan(sample_of([1, 1], [2.0, 3.0]).margin_of(0.1))
