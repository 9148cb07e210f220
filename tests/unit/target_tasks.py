"""Toy requests whose target can be measured, for the tests of target and scaling."""

from dataclasses import replace

import numpy as np

from e2urec.models.batches import concatenate
from e2urec.models.predictions import predict
from e2urec.testing import toy_task
from e2urec.training.out_of_fold import RowScores
from e2urec.unlearning.task import RequestScores


def task_of(**options):
    """A toy task with more than one calibration user: of one alone nothing has a spread."""
    task = toy_task("causal", **options)
    return replace(task, calibration=concatenate([task.calibration, task.unseen]))


def odds_of(task, rows):
    return predict(task.original, rows, precision="fp32").log_odds


def scores_of(values):
    return RowScores(np.asarray(values, np.float32), np.zeros(len(values), np.float32))


def with_scores(task, forget, calibration=None):
    """The task with out-of-fold scores of two half models that agree.

    By default they are the original's own on all rows but those of D_f.
    """
    if calibration is None:
        calibration = odds_of(task, task.calibration)
    scores = RequestScores(
        forget=scores_of(forget),
        retain=scores_of(odds_of(task, task.retain)),
        calibration=scores_of(calibration),
        models=2,
    )
    return replace(task, scores=scores)


def strangers_scores(task):
    """Scores of D_f as models may give them that never saw it: half of what was learnt is gone."""
    noise = np.random.default_rng(0).normal(size=len(task.forget))
    return 0.1 * odds_of(task, task.forget) + noise
