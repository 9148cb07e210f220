"""What authors of methods test theirs with must itself be right."""

import subprocess
import sys
from typing import ClassVar

import pytest
from pydantic import Field

from e2urec.models.recommender import Recommender
from e2urec.testing import check_method, check_settings, toy_backbone, toy_task
from e2urec.unlearning.method import Method
from e2urec.unlearning.task import Task


class Idle(Method):
    """Forgets nothing."""

    name: ClassVar[str] = "idle"
    strength: float = Field(1.0, description="of nothing")

    def unlearn(self, task: Task) -> Recommender:
        return task.original


class Undescribed(Idle):
    """Has a setting that nobody can understand."""

    weight: float = 1.0


class Trainable(Idle):
    """Changes the answers, and leaves the model ready to be tuned."""

    def unlearn(self, task: Task) -> Recommender:
        for parameter in task.original.lm.parameters():
            parameter.requires_grad_(True)
            parameter.data.mul_(0.5)
        return task.original


def test_method_that_forgets_nothing_breaks_the_contract():
    with pytest.raises(AssertionError, match="'idle': the scores did not change"):
        check_method(Idle())


def test_method_that_leaves_a_model_ready_to_be_tuned_breaks_the_contract():
    with pytest.raises(AssertionError, match="still requires a gradient"):
        check_method(Trainable())


def test_method_with_an_undescribed_setting_breaks_the_contract():
    with pytest.raises(AssertionError, match="setting 'weight' has no description"):
        check_settings(Undescribed())


def test_toy_backbone_of_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind 'encoder': must be 'causal' or 'seq2seq'"):
        toy_backbone("encoder")


def test_toy_task_has_rows_in_every_part():
    task = toy_task("causal")
    parts = [task.forget, task.retain, task.valid, task.calibration, task.unseen]
    assert all(len(rows) > 0 for rows in parts)


def test_module_runs_as_the_command_does():
    answer = subprocess.run(
        [sys.executable, "-m", "e2urec", "--version"], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip()
