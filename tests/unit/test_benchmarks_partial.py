"""Benchmarks of models of which a part of the memory is left, and of many models at once."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from e2urec.core.arrays import Head
from e2urec.evaluation.answers import Answers
from e2urec.evaluation.verdict import Margins
from e2urec.models.batches import Examples
from e2urec.models.predictions import Predictions

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import klom
import verdict_calibration


def rows(users: np.ndarray) -> Examples:
    count = len(users)
    return Examples(
        tokens=np.arange(count, dtype=np.int32),
        offsets=np.arange(count + 1),
        labels=np.zeros(count, np.int8),
        users=users,
    )


@pytest.fixture
def calibration():
    users = np.repeat(np.arange(40), 3)
    forget = rows(users[users < 20])
    study = SimpleNamespace(
        rows=SimpleNamespace(forget=forget),
        space=SimpleNamespace(recipe=SimpleNamespace(seed=0)),
    )
    return verdict_calibration.Calibration(study, rows(users), {}, None)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_partly_forgotten_models_see_that_share_of_the_users_whole_and_all_others(
    calibration, share
):
    seen = calibration.rows_with(share, number=0)
    users, counts = np.unique(seen.users, return_counts=True)
    assert np.sum(users < 20) == share * 20
    assert np.sum(users >= 20) == 20
    assert set(counts) == {3}


def test_each_partly_forgotten_model_has_users_of_its_own(calibration):
    first, second = (set(calibration.rows_with(0.5, number).users) for number in (0, 1))
    assert first != second


def test_all_kinds_are_judged_and_the_least_share_is_the_margin_of_memory():
    kinds = verdict_calibration.kinds(verdict_calibration.LEFT)
    assert kinds == {"retrained": 0, "original": 1, "left 0.25": 0.25, "left 0.5": 0.5} | {
        "left 0.75": 0.75
    }
    assert min(verdict_calibration.LEFT) == Margins().memory


def test_margins_of_models_are_those_of_the_right_answers():
    def model(odds: list[float]) -> Answers:
        head = Head(np.zeros((0, 0), np.float32), None)
        part = Predictions(None, head, np.array(odds), np.array([1, 0]), np.array([0, 1]))
        return Answers(test=part, forget=part, unseen=part)

    models = [model([1.0, 2.0]), model([3.0, -4.0])]
    assert klom.margins_of(models, "forget").tolist() == [[1.0, -2.0], [3.0, 4.0]]


def test_most_rows_and_the_worst_are_told():
    divergences = np.arange(101, dtype=float)
    assert klom.shares(divergences) == {"median": 50.0, "mean": 50.0, "95%": 95.0}
