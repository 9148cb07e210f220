"""Answers of a run's own model that are kept for the requests to come."""

from pathlib import Path

import numpy as np

from ..evaluation.answers import Answers
from ..experiments.odds_at_hand import answered_sample
from ..experiments.request_rows import RequestRows
from ..experiments.workspace import Workspace
from ..models.predictions import predict
from ..models.recommender import Recommender
from ..runs.answer_index import AnswerIndex, answer_index
from .request import RequestCase, arithmetic_of

PHASE = "answers"


def answers_of_original(
    space: Workspace, folder: Path, model: Recommender, measured: Answers
) -> AnswerIndex:
    """What the original in `folder` answers to the rows that most requests ask it about.

    Args:
        space: its data.
        folder: that the model was saved in.
        model: the original.
        measured: its answers to the test rows and the unseen users, which are not asked again.
    """
    split = space.split
    seed = space.recipe.data_seed
    parts = [split.test, split.unseen]
    log_odds = [measured.test.log_odds, measured.unseen.log_odds]
    with space.costs.phase(PHASE):
        for name in ("train", "calibration"):
            sample = answered_sample(getattr(split, name), seed=seed)
            # There need not be calibration users.
            if not len(sample):
                continue
            answers = predict(
                model, space.encode(sample), precision=space.recipe.tuning.schedule.precision
            )
            parts.append(sample)
            log_odds.append(answers.log_odds)
    return answer_index(
        folder, parts, np.concatenate(log_odds), space.row_key, arithmetic_of(space.recipe)
    )


def save_answers(case: RequestCase, folder: Path, rows: RequestRows, answers: Answers) -> None:
    """Keep what the unlearned model in `folder` answered when it was measured; D_f is left out."""
    parts = case.parts
    assert answers.retain is not None
    retain = parts.retain.take(rows.retain_sample)
    samples = [parts.test, parts.unseen, retain]
    predictions = [answers.test, answers.unseen, answers.retain]
    log_odds = np.concatenate([part.log_odds for part in predictions])
    index = answer_index(folder, samples, log_odds, case.new_key, arithmetic_of(case.space.recipe))
    index.save(folder)


def save_remaining_answers(case: RequestCase, folder: Path) -> None:
    """Keep what the parent answered, for its model that stays as it is, without what goes."""
    index = case.space.answer_index
    if index is None:
        return
    remaining = index.without(case.parts.forget.interactions, case.parts.changed)
    remaining.under(case.new_key, case.parts.retain.interactions).save(folder)
