"""Membership attacks and the verdict, on numbers worked by hand and on models."""

from dataclasses import replace

import numpy as np
import pytest

from e2urec.core.arrays import Head
from e2urec.evaluation import shadows as shadow_module
from e2urec.evaluation.answers import Answers
from e2urec.evaluation.attacks import AttackSetup
from e2urec.evaluation.shadows import (
    ShadowFactory,
    ShadowRows,
    Shadows,
    ShadowScores,
    pool,
)
from e2urec.evaluation.verdict import MIN_RETRAINED, MIN_USERS, Controls, Margins, judge
from e2urec.metrics.bootstrap import Interval
from e2urec.models.adapters import LoRA
from e2urec.models.predictions import Predictions
from e2urec.models.recommender import Recommender
from e2urec.testing import toy_task
from e2urec.training.out_of_fold import halves


def answers(odds, labels, users):
    return Predictions(
        hidden=None, head=Head(np.zeros((1, 1)), None), log_odds=odds, labels=labels, users=users
    )


def attacks(forget, unseen, shadows=None, control=None, *, seed=0, resamples=200):
    """All attacks on a model's answers; no attack reads test rows."""
    setup = AttackSetup(shadows, control, seed, resamples)
    return setup.attack(Answers(test=unseen, forget=forget, unseen=unseen))


def two_groups(strength, seed=0, n=1500):
    """Members that a model remembers with `strength`, non-members, and what shadows say of both."""
    random = np.random.default_rng(seed)
    groups, thoughts = [], []
    for first, memory in ((0, strength), (1000, 0.0)):
        y = random.integers(0, 2, n)
        difficulty = 3 * random.normal(size=n)
        thoughts.append(difficulty)
        noise = random.normal(size=n)
        groups.append(
            answers(difficulty + memory * (2 * y - 1) + noise, y, first + random.integers(0, 60, n))
        )
    return groups, ShadowScores(*thoughts, spread=1.0)


def test_each_pair_of_halves_takes_every_user_whole_and_once():
    users = np.random.default_rng(0).integers(0, 21, 300)
    inside = halves(users, 6, seed=1)
    assert inside.shape == (6, 300)
    assert (inside[0::2] ^ inside[1::2]).all()
    for user in np.unique(users):
        mine = inside[:, users == user]
        assert (mine == mine[:, :1]).all()
    assert not np.array_equal(inside[0], inside[2])


def test_outsiders_are_the_mean_of_those_that_are_out_with_a_pooled_spread():
    forget = np.array([[1.0, 9.0], [9.0, 2.0], [3.0, 9.0], [9.0, 6.0]])
    out = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], bool)
    found = pool((forget, out), (forget[:, :1], out[:, :1]))
    assert found.forget.tolist() == [2.0, 4.0]
    assert found.unseen.tolist() == [2.0]
    assert found.spread == pytest.approx(np.sqrt((1 + 1 + 4 + 4 + 1 + 1) / 3))


def test_ratio_finds_members_that_difficulty_hides_from_the_loss():
    (forget, unseen), outside = two_groups(1.0)
    found = attacks(forget, unseen, outside)
    assert found["ratio"]["auc"].low > 0.5
    assert found["ratio"]["auc"].value > found["loss"]["auc"].value + 0.1
    assert found["ratio_user"]["auc"].value > found["ratio"]["auc"].value
    assert found["ratio_user"]["auc"].n == 120
    assert 0.01 < found["ratio"]["tpr_at_fpr"].value < found["ratio"]["advantage"].value


def test_a_model_that_knows_neither_group_is_at_chance_in_every_attack():
    (forget, unseen), outside = two_groups(0.0)
    for attack in attacks(forget, unseen, outside, resamples=400).values():
        assert attack["auc"].low < 0.5 < attack["auc"].high


def test_groups_that_differ_by_nature_show_no_memory_beyond_a_retrained_model():
    (forget, unseen), _ = two_groups(0.0)
    easy = answers(forget.log_odds + 2 * (2 * forget.labels - 1), forget.labels, forget.users)
    control = Answers(test=unseen, forget=easy, unseen=unseen)
    found = attacks(easy, unseen, control=control)["loss"]
    assert found["auc"].low > 0.5
    assert (found["auc_beyond"].low, found["auc_beyond"].high) == (0, 0)
    known = answers(easy.log_odds + 1.0 * (2 * easy.labels - 1), easy.labels, easy.users)
    assert attacks(known, unseen, control=control)["loss"]["auc_beyond"].low > 0


def test_hit_rate_is_left_out_below_a_thousand_non_members():
    (forget, unseen), _ = two_groups(1.0, n=900)
    assert "tpr_at_fpr" not in attacks(forget, unseen, resamples=20)["loss"]


def test_shadows_never_read_forgotten_rows_and_are_taken_from_the_cache_the_second_time(
    tmp_path, monkeypatch, shadow_folder
):
    task = toy_task("causal")
    users_read = []
    tune = shadow_module.tune

    def watched(untuned, tuning, train, *rest):
        users_read.append(set(train.users.tolist()))
        return tune(untuned, tuning, train, *rest)

    monkeypatch.setattr(shadow_module, "tune", watched)
    untuned = Recommender(task.base, task.original.template)
    settings = Shadows(count=4, lora=LoRA(rank=2))
    factory = ShadowFactory(untuned, task.tuning, settings, seed=3, folder=shadow_folder)
    rows = ShadowRows(task.retain, task.unseen, task.forget)

    first = factory.scores(rows)
    assert len(users_read) == 4
    assert not set(task.forget.users.tolist()) & set.union(*users_read)
    again = factory.scores(rows)
    assert len(users_read) == 4
    assert np.allclose(first.forget, again.forget, atol=1e-5)
    assert np.allclose(first.unseen, again.unseen, atol=1e-5)
    assert first.forget.shape == (len(task.forget),)
    factory.scores(replace(rows, retain=task.retain.take(np.arange(len(task.retain) - 5))))
    assert len(users_read) == 8, "other rows are other shadows"
    assert not list(tmp_path.rglob("*.partial"))


# --- verdict


def about(value, half, n=100):
    return Interval(value, value - half, value + half, n)


ROOM = about(0.1, 0.02)


def controls(
    room=ROOM, attack=None, basis="retrained", *, users=MIN_USERS, models=MIN_RETRAINED
) -> Controls:
    """What must hold before a verdict means anything; as much of it as a PASS needs."""
    count = models if basis == "retrained" else 0
    return Controls(room, attack, basis, users=users, retrained=count)


# Without retrained models an attack's AUC counts, and 0.5 is chance.
@pytest.mark.parametrize("basis", ["retrained", "shadows"])
@pytest.mark.parametrize(
    ("memory", "drop", "room", "control", "outcome"),
    [
        (about(0.0, 0.2), about(0.0, 0.01), ROOM, None, "PASS"),
        (about(0.0, 0.3), about(0.0, 0.01), ROOM, None, "RETRAIN"),
        (about(0.1, 0.2), about(0.0, 0.01), ROOM, None, "RETRAIN"),
        (about(0.5, 0.2), about(0.0, 0.01), ROOM, None, "FAIL"),
        (about(-0.6, 0.3), about(0.0, 0.01), ROOM, None, "FAIL"),
        (about(0.0, 0.2), about(0.015, 0.01), ROOM, None, "RETRAIN"),
        (about(0.0, 0.2), about(0.04, 0.01), ROOM, None, "FAIL"),
        (about(0.0, 0.2), about(-0.09, 0.01), ROOM, about(0.6, 0.05), "PASS"),
        (about(0.5, 0.2), about(0.0, 0.01), about(0.01, 0.01), None, "UNMEASURABLE"),
        (about(0.0, 0.2), about(0.0, 0.01), ROOM, about(0.52, 0.03), "UNMEASURABLE"),
        (Interval(0.0, -np.inf, np.inf, 9), about(0.0, 0.01), ROOM, None, "RETRAIN"),
    ],
)
def test_verdict_follows_the_intervals(memory, drop, room, control, outcome, basis):
    if control is not None and basis == "retrained":
        control = about(control.value - 0.5, control.high - control.value)
    found = judge(memory, drop, controls(room, control, basis), Margins())
    assert found.outcome == outcome
    assert "\n" not in found.reason
    assert found.as_dict()["memory"]["n"] == memory.n


def test_verdict_uses_the_margins_it_is_given():
    wide = judge(about(0.3, 0.1), about(0.0, 0.01), controls(), Margins(memory=0.5))
    assert wide.outcome == "PASS"


def test_attack_that_finds_users_who_differ_by_nature_is_no_positive_control():
    """AUC 0.62 on the original and 0.61 on a retrained model: the attack finds no memory."""
    inside = (about(0.0, 0.1), about(0.0, 0.01))
    beyond = judge(*inside, controls(attack=about(0.01, 0.03)), Margins())
    assert beyond.outcome == "UNMEASURABLE"
    assert "higher than on a retrained model by 0.010 [-0.020, 0.040] only" in beyond.reason
    plain = judge(*inside, controls(attack=about(0.62, 0.03), basis="shadows"), Margins())
    assert plain.outcome == "PASS"


@pytest.mark.parametrize(
    ("models", "users", "told"),
    [
        (1, 34, "1 retrained model says too little"),
        (2, 34, "2 retrained models say too little"),
        (3, 5, "D_f has 5 users, too few"),
        (3, 14, "D_f has 14 users, too few"),
        (3, 1, "D_f has 1 user, too few"),
    ],
)
def test_what_would_pass_on_too_few_models_or_users_is_to_be_retrained(models, users, told):
    inside = (about(0.0, 0.2), about(0.0, 0.01))
    found = judge(*inside, controls(models=models, users=users), Margins())
    assert found.outcome == "RETRAIN"
    assert told in found.reason
    assert "both inside their margins, but" in found.reason
    remedy = "give 3 or more (with --against" if models < 3 else "a request of 15 users or more"
    assert remedy in found.reason


def test_a_short_verdict_names_all_that_is_missing_in_one_line():
    found = judge(about(0.0, 0.2), about(0.0, 0.01), controls(models=2, users=5), Margins())
    assert "2 retrained models" in found.reason
    assert "5 users" in found.reason
    assert "\n" not in found.reason


def test_verdict_by_shadows_needs_users_and_no_retrained_models():
    inside = (about(0.0, 0.2), about(0.0, 0.01))
    assert judge(*inside, controls(basis="shadows", users=15), Margins()).outcome == "PASS"
    assert judge(*inside, controls(basis="shadows", users=14), Margins()).outcome == "RETRAIN"


def test_failing_does_not_take_many_models_or_users():
    found = judge(about(0.6, 0.2), about(0.0, 0.01), controls(models=1, users=2), Margins())
    assert found.outcome == "FAIL"
