"""Whom a rehearsal erases, what it chooses, and what a gate makes of it."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from e2urec.api import basis
from e2urec.core.errors import ConfigError
from e2urec.data.requests import ErasureRequest
from e2urec.data.samples import Samples
from e2urec.data.splits import SplitSettings, split
from e2urec.evaluation.answer_store import NO_HEAD
from e2urec.evaluation.answers import Answers
from e2urec.evaluation.evidence import Evidence
from e2urec.evaluation.judgement import verdicts
from e2urec.evaluation.pooled import PooledBasis
from e2urec.evaluation.roles import ORIGINAL, UNLEARNED, retrained
from e2urec.experiments.rehearsal import choose_trial, draw_groups
from e2urec.methods import build
from e2urec.metrics.bootstrap import Interval
from e2urec.models.predictions import Predictions
from e2urec.runs.record import IntervalRecord
from e2urec.runs.rehearsal import Rehearsal, RehearsedTrial
from e2urec.testing import toy_interactions, toy_task

DEFAULT = build("e2urec")
SOLVED_BELOW_50, TRAINED_FOR_WANT_OF_NUMBERS = (
    build("e2urec", {"solving": {"below": 50}, "lora": {"rank": rank, "targets": "all"}}, "scores")
    for rank in (64, 4)
)


def train_samples():
    return split(toy_interactions(users=20), SplitSettings(history=2), seed=0).train


def test_groups_are_disjoint_and_of_training_users_alone():
    train = train_samples()
    groups = draw_groups(train, size=3, times=4, seed=1)
    users = np.concatenate(groups)
    assert [len(group) for group in groups] == [3] * 4
    assert len(np.unique(users)) == 12
    assert set(users) <= set(train.users)
    again = draw_groups(train, size=3, times=4, seed=1)
    np.testing.assert_array_equal(np.concatenate(again), users)


def test_somebody_must_be_left_to_retrain_on():
    train = train_samples()
    count = len(np.unique(train.users))
    assert len(draw_groups(train, size=1, times=count - 1, seed=1)) == count - 1
    with pytest.raises(ConfigError, match=f"name {count} of {count} training users"):
        draw_groups(train, size=1, times=count, seed=1)


def trial(memory, low, lost):
    """A trial with this pooled M_auc, its lower limit, and that of the test AUC."""
    figures = {
        "memory_auc": IntervalRecord(value=memory, low=low, high=1.0, n=50),
        "test_auc_to_retrained": IntervalRecord(value=0.0, low=lost, high=0.1, n=400),
    }
    return RehearsedTrial(settings={}, figures=figures, gate=None, seconds=1.0)


def test_least_memory_wins_of_those_that_keep_their_test_auc():
    trials = [
        trial(0.4, 0.2, -0.001),
        trial(-0.2, -0.5, -0.004),
        trial(0.0, -0.1, -0.006),
        trial(0.1, None, 0.0),
    ]
    # The third loses too much, and of the fourth nobody knows what is left.
    assert choose_trial(trials, 0.005) == 1
    assert choose_trial(trials, 0.01) == 2
    assert choose_trial(trials, 0.0005) is None


BASIS = PooledBasis(
    requests="20 requests of 1 user each",
    memory=Interval(0.05, -0.1, 0.2, 400),
    headroom=Interval(0.2, 0.1, 0.3, 400),
    attack=Interval(0.2, 0.1, 0.3, 800),
    users=20,
    retrained=3,
)


ROWS = {"test": 3000, "forget": 300, "unseen": 300}


def answers(memory, users, skill=1.0):
    """A model that ranks D_f by `memory` beyond what it knows of everybody."""
    parts = {}
    for number, (part, rows) in enumerate(ROWS.items()):
        random = np.random.default_rng(number)
        labels = random.integers(0, 2, rows)
        odds = skill * (labels - 0.5) + random.normal(size=rows)
        count = users if part == "forget" else 60
        if part == "forget":
            odds = odds + memory * (2 * labels - 1)
        codes = 100 * number + np.arange(rows) % count
        parts[part] = Predictions(None, NO_HEAD, odds, labels, codes)
    return Answers(**parts)


def verdict(users, rehearsal=BASIS, *, memory=0.0, skill=1.0, retrained_models=0):
    """The verdict on a model of a request of so many users."""
    models = {ORIGINAL: answers(1.0, users), UNLEARNED: answers(memory, users, skill)}
    for number in range(1, retrained_models + 1):
        models[retrained(number)] = answers(0.0, users)
    evidence = Evidence(models, seed=0, resamples=200, rehearsal=rehearsal)
    return verdicts(evidence).get(UNLEARNED)


def test_request_of_one_user_passes_by_rehearsal_and_says_so():
    passed = verdict(users=1)
    assert (passed.outcome, passed.basis) == ("PASS", "rehearsal")
    assert passed.memory == BASIS.memory
    assert passed.reason.startswith("by rehearsal of 20 requests of 1 user each, since this one")
    assert verdict(users=1, rehearsal=None) is None


@pytest.mark.parametrize(
    ("users", "rows", "items", "method", "expected"),
    [
        (2, 40, (), DEFAULT, True),
        (4, 80, (), DEFAULT, True),
        (1, 40, (), DEFAULT, False),  # smaller than what was rehearsed
        (5, 80, (), DEFAULT, False),  # more than twice as large
        (2, 400, (), DEFAULT, False),  # its student is scaled, and those were not
        (2, 400, (), build("npo"), True),  # which treats all requests alike
        (2, 60, (), SOLVED_BELOW_50, False),  # its student is trained, and those were solved for
        (2, 48, (), SOLVED_BELOW_50, True),
        (2, 60, (), TRAINED_FOR_WANT_OF_NUMBERS, True),
        (2, 40, ("7",), DEFAULT, False),
    ],
)
def test_rehearsal_speaks_for_requests_of_its_like(users, rows, items, method, expected):
    interactions = toy_interactions(users=users, rows=2 * rows // users)
    # As many rows of each user.
    earlier_rows = np.arange(len(interactions)) - interactions.first_rows
    is_taken = earlier_rows < rows // users
    forget = Samples(interactions, np.flatnonzero(is_taken), 1)
    # Names of users whom no training row is of do not make a request larger.
    request = ErasureRequest(users=tuple("abcdef"), items=items)
    parts = SimpleNamespace(forget=forget, retain=interactions)
    case = SimpleNamespace(request=request, parts=parts, original=toy_task("causal").original)
    rehearsal = SimpleNamespace(size=2, rows=800, times=20)
    assert basis._is_alike(case, rehearsal, method) is expected


def test_settings_that_were_not_chosen_are_not_told_as_those_of_the_rehearsal():
    trials = (trial(0.1, 0.0, -0.1), trial(0.2, 0.1, -0.1))
    for chosen in (None, 1):
        values = {"unit": "users", "size": 1, "times": 2, "trials": trials, "chosen": chosen}
        sentence = Rehearsal.model_construct(**values).cite(0, "").sentence()
        assert sentence.startswith(
            "settings tried, and not chosen, in the rehearsal of 2 requests of 1 user each on the "
            "original, pooled M_auc 0.1"
        )
    assert Rehearsal.model_construct(**values).cite(1, "").sentence().startswith("settings chosen")


def test_rehearsal_of_too_few_users_or_models_is_no_pass():
    assert verdict(1, replace(BASIS, users=14)).outcome == "RETRAIN"
    few = verdict(1, replace(BASIS, retrained=1))
    assert few.outcome == "RETRAIN"
    assert "e2urec rehearse --retrained" in few.reason
    assert verdict(1, replace(BASIS, headroom=Interval(0.1, -0.1, 0.3, 9))).outcome == (
        "UNMEASURABLE"
    )
    assert verdict(1, replace(BASIS, memory=Interval(0.6, 0.4, 0.8, 400))).outcome == "FAIL"


def test_model_loses_its_own_test_auc_whatever_was_rehearsed():
    lost = verdict(users=1, skill=0.0)
    assert lost.outcome == "FAIL"
    assert "the drop of test AUC" in lost.reason


def test_request_that_can_be_measured_is_judged_by_its_own_rows():
    large = verdict(users=20, retrained_models=3)
    assert (large.outcome, large.basis) == ("PASS", "retrained")
    # Without anything to measure it by, a rehearsal of smaller requests is no substitute.
    assert verdict(users=20) is None
    small = verdict(users=10, retrained_models=3)
    assert (small.outcome, small.basis) == ("PASS", "rehearsal")
    # What fails by its own rows has failed.
    failed = verdict(users=10, retrained_models=3, memory=1.0)
    assert (failed.outcome, failed.basis) == ("FAIL", "retrained")
