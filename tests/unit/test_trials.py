"""Which settings a comparison tries of a method, and which of them it takes."""

from types import SimpleNamespace

import numpy as np
import pytest

from e2urec.core.errors import ConfigError
from e2urec.evaluation.roles import ORIGINAL, retrained
from e2urec.experiments.comparison.choose import Trial, _Scale, unread_sentences
from e2urec.experiments.comparison.plan import ComparisonPlan, settings_to_try
from e2urec.experiments.recipe import Recipe
from e2urec.methods import build
from e2urec.methods.apa import APA
from e2urec.methods.e2urec import E2URec
from e2urec.methods.sisa import SISA
from e2urec.unlearning.method import unread_differences


def trial(memory: float, valid: float, *, tolerable: bool = True, exact: bool = False) -> Trial:
    return Trial("m", 0, {}, memory, valid, tolerable, exact)


def best(*trials: Trial) -> Trial:
    return min(trials, key=lambda one: one.rank)


def test_apa_has_the_published_temperature_and_is_tried_with_others():
    assert APA().temperature == 1000
    trials = settings_to_try(APA(), {}, 8, seed=0)
    assert trials[0] == {}
    points = {(one["temperature"], one["neighbours"]) for one in trials[1:]}
    assert len(points) == 7
    assert (1000.0, 20) not in points, "its own settings are the first trial already"
    assert {1000.0, 10.0} <= {temperature for temperature, _ in points}
    with pytest.raises(ConfigError, match="8 settings to try"):
        settings_to_try(APA(), {}, 9, seed=0)


def test_what_the_recipe_sets_is_not_tried_otherwise():
    trials = settings_to_try(APA(), {"temperature": 10.0}, 2, seed=0)
    assert trials == [
        {"temperature": 10.0},
        {"temperature": 10.0, "neighbours": 100},
    ]


def test_settings_that_the_forgetting_teacher_does_not_read_are_not_tried():
    trials = settings_to_try(build("e2urec", {"solving": {"below": 0}}), {}, 27, seed=0)
    assert {name for one in trials for name in one} == {"strength", "joint", "beta"}
    trials = settings_to_try(build("e2urec", preset="gain"), {}, 27, seed=0)
    assert {name for one in trials for name in one} == set(E2URec.search)


def test_a_solved_students_own_damping_and_strength_are_no_further_trial():
    method = build("e2urec", preset="scores")
    trials = settings_to_try(method, {}, 27, seed=0)
    as_it_is = {"beta": 0.3, "solving": {"damping": 0.05, "strength": 1.0}}
    assert as_it_is not in trials
    with pytest.raises(ConfigError, match="27 settings to try"):
        settings_to_try(method, {}, 28, seed=0)


def test_other_settings_of_a_part_that_is_searched_stay_in_all_trials():
    own = {"solving": {"memory_gb": 8.0}}
    trials = settings_to_try(build("e2urec", own, "scores"), own, 5, seed=0)
    assert trials[0] == own
    assert all(trial["solving"]["memory_gb"] == 8.0 for trial in trials)
    assert len({str(trial) for trial in trials}) == 5
    # What is tried in it and set is not tried otherwise.
    named = {"solving": {"damping": 0.03}}
    trials = settings_to_try(build("e2urec", named, "scores"), named, 3, seed=0)
    assert all(trial["solving"] == named["solving"] for trial in trials)


@pytest.mark.parametrize(
    ("below", "rows", "settings"), [(0, 299, "solving"), (300, 299, ""), (300, 300, "solving")]
)
def test_trials_that_differ_in_what_a_request_does_not_read_are_told(below, rows, settings):
    methods = [
        build("e2urec", {"solving": {"below": below, "damping": damping}}, "scores")
        for damping in (0.02, 0.05)
    ]
    assert ", ".join(unread_differences(methods, rows)) == settings


def test_comparison_tells_of_trials_that_a_small_request_does_not_read():
    settings = ["scores.pairs=2", "compare.methods=['e2urec', 'npo']", "compare.trials=9"]
    assert list(unread_sentences(ComparisonPlan.of(Recipe().updated(settings)), 299)) == []
    (sentence,) = unread_sentences(ComparisonPlan.of(Recipe().updated(settings)), 5000)
    assert sentence.startswith(
        "method 'e2urec': its trials differ in solving, which a development request of 5000 "
        "rows does not read"
    )


def test_a_method_with_nothing_to_choose_is_tried_once():
    assert settings_to_try(SISA(), {}, 4, seed=0) == [{}]


def test_of_an_approximate_method_the_tolerable_trial_with_the_least_memory_is_taken():
    near, far = trial(-0.1, 0.70), trial(0.4, 0.75)
    costly = trial(0.0, 0.60, tolerable=False)
    assert best(far, near, costly) is near
    assert best(costly, trial(0.0, 0.65, tolerable=False)).valid_auc == 0.65


def test_of_an_exact_method_the_trial_with_the_best_validation_auc_is_taken():
    near, good = trial(-0.1, 0.70, exact=True), trial(0.4, 0.75, exact=True)
    assert best(near, good) is good
    costly = trial(0.0, 0.60, tolerable=False, exact=True)
    assert best(costly, near) is near


def test_comparison_takes_the_preset_that_unlearn_would_unless_another_is_named():
    without = ComparisonPlan.of(
        Recipe().updated(["scores.pairs=0", "compare.methods=['e2urec', 'npo']"])
    )
    assert without.presets == {"e2urec": "default", "npo": "default"}
    with_scores = ComparisonPlan.of(Recipe().updated(["scores.pairs=2", "compare.trials=3"]))
    assert with_scores.method("e2urec") == build("e2urec", preset="scores")
    assert without.special_presets == {}
    assert with_scores.special_presets == {"e2urec": "scores"}
    # Trials stand on the preset, and its settings are searched too.
    searched = {name for trial in with_scores.trials["e2urec"] for name in trial}
    assert searched == {"beta", "solving"}
    named = ComparisonPlan.of(
        Recipe().updated(["scores.pairs=2", "compare.presets={e2urec='paper'}"])
    )
    assert named.method("e2urec") == build("e2urec", preset="paper")


@pytest.mark.parametrize(
    ("presets", "message"),
    [("{e2ure='paper'}", "did you mean 'e2urec'"), ("{e2urec='papr'}", "did you mean 'paper'")],
)
def test_preset_of_nobody_or_of_no_name_is_refused(presets, message):
    with pytest.raises(ConfigError, match=message):
        ComparisonPlan.of(Recipe().updated([f"compare.presets={presets}"]))


def test_development_rows_that_nothing_was_remembered_of_choose_no_settings():
    rows = SimpleNamespace(labels=np.array([1, 0]), log_odds=np.array([0.5, -0.5]))
    answers = SimpleNamespace(parts=lambda: {"forget": rows, "valid": rows})
    with pytest.raises(ConfigError, match="another seed or a larger ratio"):
        _Scale.of({ORIGINAL: answers, retrained(1): answers}, 0.01)
