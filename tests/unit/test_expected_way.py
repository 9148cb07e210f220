"""What models that never saw a row are expected to say of it, by scores and by margins."""

from dataclasses import replace

import numpy as np
import pytest
from target_tasks import odds_of, strangers_scores, task_of, with_scores

from e2urec.core.errors import ConfigError
from e2urec.methods import build
from e2urec.models.predictions import predict
from e2urec.training.out_of_fold import RowScores
from e2urec.unlearning.expected_way import ONE_MODEL, ExpectedWay, way_by_margin, way_by_scores
from e2urec.unlearning.teachers import AnsweredRows


def noisy_ways(count=40_000, models=2, noise=0.6):
    """Ways that depend on the label, the same with noise, and the noise's spread."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, count)
    true_ways = -0.4 * labels + 0.2 * random.normal(size=count)
    answers = true_ways + noise * random.normal(size=(models, count))
    return labels, true_ways, answers.mean(0), answers.std(0, ddof=1)


@pytest.mark.parametrize("models", [2, 5])
def test_expected_ways_are_those_of_the_best_linear_prediction_of_the_true_ones(models):
    labels, true_ways, ways, spread = noisy_ways(models=models)
    expected = ExpectedWay.fit(ways, labels, spread, models).of(ways, labels)
    # Least squares on what nobody knows in practice.
    known = np.column_stack([np.ones(len(ways)), ways, labels])
    best = known @ np.linalg.lstsq(known, true_ways, rcond=None)[0]
    assert expected == pytest.approx(best, abs=0.03)
    error = np.std(expected - true_ways)
    assert error < 0.6 * np.std(ways - true_ways)


def test_ways_without_noise_stay_as_they_are():
    labels, true_ways, _, _ = noisy_ways(count=50)
    way = ExpectedWay.fit(true_ways, labels, np.zeros(50), 2)
    assert way.of(true_ways, labels) == pytest.approx(true_ways)


@pytest.mark.parametrize("spread", [0.5, 5.0])
def test_a_score_never_speaks_against_itself_however_noisy_it_is(spread):
    # Half models that differ by a constant seem noisier than the rows they were asked about vary.
    labels, _, ways, _ = noisy_ways(count=800, noise=0.1)
    way = ExpectedWay.fit(ways, labels, np.full(800, spread), 2)
    assert way.slopes[0] >= -1e-9
    assert way.slopes[1] < 0


def test_answers_that_are_no_numbers_are_left_to_the_target_to_tell():
    task = task_of()
    task = with_scores(task, strangers_scores(task))
    task.scores.forget.mean[0] = np.nan
    assert np.isnan(expected_way(task)[0])


def test_rows_of_one_label_are_predicted_by_their_ways_alone():
    _, _, ways, spread = noisy_ways(count=100)
    labels = np.ones(100, int)
    expected = ExpectedWay.fit(ways, labels, spread, 2).of(ways, labels)
    assert np.isfinite(expected).all()
    assert np.corrcoef(expected, ways)[0, 1] == pytest.approx(1)


def expected_way(task):
    rows = np.arange(len(task.retain))
    retain = AnsweredRows(rows, odds_of(task, task.retain))
    return way_by_scores(task, odds_of(task, task.forget), retain, denoise=True)


def test_rows_of_the_retain_set_without_a_score_are_left_out():
    task = task_of()
    task = with_scores(task, strangers_scores(task))
    noise = np.full(len(task.forget), 0.3, np.float32)
    forget = RowScores(task.scores.forget.mean, noise)
    task.scores = replace(task.scores, forget=forget)
    known = expected_way(task)
    mean = task.scores.retain.mean.copy()
    mean[::2] = np.nan
    retain = RowScores(mean, task.scores.retain.spread)
    fewer = replace(task, scores=replace(task.scores, retain=retain))
    expected = expected_way(fewer)
    present = np.arange(len(task.retain)) % 2 == 1
    rest = replace(
        task,
        retain=task.retain.take(np.flatnonzero(present)),
        scores=replace(task.scores, retain=task.scores.retain.take(np.flatnonzero(present))),
    )
    assert expected == pytest.approx(expected_way(rest), abs=1e-6)
    assert not np.array_equal(expected, known)


def test_scores_of_one_half_model_are_taught_as_they_are_and_that_is_told():
    task = task_of()
    task = with_scores(task, strangers_scores(task))
    task.scores = replace(task.scores, models=1)
    expected = expected_way(task)
    assert expected == pytest.approx(task.scores.forget.mean - odds_of(task, task.forget))
    assert task.outcome.limits == [ONE_MODEL]


@pytest.mark.parametrize(("margin", "moved"), [(0.5, 0.5), (-0.5, 0.0), (float("nan"), 0.0)])
def test_margin_is_taken_off_the_right_answers_where_there_is_one(margin, moved):
    task = task_of()
    way = way_by_margin(task, margin)
    liked = task.forget.labels == 1
    assert way[~liked].mean() - way[liked].mean() == pytest.approx(moved)
    # Over all rows, D_r included, neither answer gains.
    labels = np.concatenate([task.forget.labels, task.retain.labels])
    assert way[liked] == pytest.approx(-moved * (1 - labels.mean()))
    assert bool(task.outcome.limits) == (moved == 0)


@pytest.mark.parametrize(("below", "strength"), [(0, 300.0), (10**6, 30.0)])
def test_default_lowers_the_right_answers_of_the_forget_set(below, strength):
    task = task_of()
    before = odds_of(task, task.forget)
    # A toy is tuned on so little that its margin is small.
    solving = {"below": below, "strength": strength}
    settings = {"beta": 0.5, "strength": strength, "solving": solving}
    method = build("e2urec", settings)
    model = method.unlearn(task)
    planned = method.plan(len(task.forget), len(task.retain), task.tuning.schedule)
    assert "augmented" not in planned
    assert planned["teachers"] >= task.costs.rows["teachers"]
    assert task.outcome.target.margin > 0
    moved = predict(model, task.forget, precision="fp32").log_odds - before
    liked = task.forget.labels == 1
    assert moved[liked].mean() < moved[~liked].mean()


def test_noise_of_scores_is_no_setting_of_other_teachers():
    with pytest.raises(ConfigError, match="forgetting=margin does not read denoise=False"):
        build("e2urec", {"denoise": False})
