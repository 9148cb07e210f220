"""Benchmarks of models of which a part of the memory is left."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from e2urec.core.say import no_words
from e2urec.evaluation.verdict import Margins
from e2urec.experiments.grid import Grid
from e2urec.models.batches import Examples
from e2urec.runs.files import write_json

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
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
        rows=SimpleNamespace(forget=forget, counts=dict),
        space=SimpleNamespace(recipe=SimpleNamespace(seed=0)),
    )
    return verdict_calibration.Calibration(None, study, rows(users))


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
    alone = verdict_calibration.kinds(verdict_calibration.LEFT, left_alone=True)
    assert kinds == verdict_calibration.KINDS | alone


def test_a_verdict_that_is_there_is_read_and_no_model_is_tuned_again(calibration, tmp_path):
    calibration.models = SimpleNamespace(grid=Grid(tmp_path, 0, no_words))
    record = {
        "outcomes": {"retrained": "FAIL", "shadows": "RETRAIN"},
        "memory": [0.5, 0.4, 0.6],
        "auc_drop": [0.0, 0.01],
        "headroom": {"value": 0.1},
    }
    calibration.models.grid.folder_of(
        "left-0.5-0", lambda folder: write_json(folder / "record.json", record)
    )
    reports = list(verdict_calibration.calibrate(calibration, 1, {"left 0.5": 0.5}))
    assert reports[-1]["left 0.5"]["retrained"]["FAIL"][:2] == [1, 1.0]
    assert reports[-1]["left 0.5"]["memory"] == [[0.5, 0.4, 0.6]]
    assert reports[-1]["headroom"] == {"value": 0.1}
