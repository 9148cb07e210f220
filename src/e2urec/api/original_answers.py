"""Answers of a run's own model that are kept for the requests to come."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..evaluation.answers import Answers
from ..experiments.odds_at_hand import answered_sample
from ..experiments.request_rows import RequestRows
from ..experiments.workspace import Workspace
from ..models.batches import Examples
from ..models.predictions import predict
from ..models.recommender import Recommender
from ..runs.answer_index import AnswerIndex, answer_index
from .request import RequestCase, arithmetic_of

PHASE = "answers"


def answers_of_original(
    space: Workspace,
    folder: Path,
    model: Recommender,
    rows: Mapping[str, Examples],
    measured: Answers,
) -> AnswerIndex:
    """What the original in `folder` answers to the rows that most requests ask it about.

    Args:
        space: its data.
        folder: that the model was saved in.
        model: the original.
        rows: the test rows and those of the unseen users, by name.
        measured: its answers to these, which are not asked for again.
    """
    split = space.split
    seed = space.recipe.data_seed
    parts = [split.test, split.unseen]
    prompts = [rows["test"], rows["unseen"]]
    log_odds = [measured.test.log_odds, measured.unseen.log_odds]
    with space.costs.phase(PHASE):
        for name in ("train", "calibration"):
            sample = answered_sample(getattr(split, name), seed=seed)
            # There need not be calibration users.
            if not len(sample):
                continue
            examples = space.encode(sample)
            precision = space.recipe.tuning.schedule.precision
            answers = predict(model, examples, precision=precision)
            parts.append(sample)
            prompts.append(examples)
            log_odds.append(answers.log_odds)
    all_odds = np.concatenate(log_odds)
    arithmetic = arithmetic_of(space.recipe)
    return answer_index(folder, parts, prompts, all_odds, space.row_key, arithmetic)


def save_answers(case: RequestCase, folder: Path, rows: RequestRows, answers: Answers) -> None:
    """Keep what the unlearned model in `folder` answered when it was measured; D_f is left out."""
    parts = case.parts
    assert answers.retain is not None
    retain = parts.retain.take(rows.retain_sample)
    prompts = [rows.test, rows.unseen, rows.retain.take(rows.retain_sample)]
    samples = [parts.test, parts.unseen, retain]
    predictions = [answers.test, answers.unseen, answers.retain]
    log_odds = np.concatenate([part.log_odds for part in predictions])
    arithmetic = arithmetic_of(case.space.recipe)
    index = answer_index(folder, samples, prompts, log_odds, case.new_key, arithmetic)
    index.save(folder)


def save_remaining_answers(case: RequestCase, folder: Path) -> None:
    """Keep what the parent answered, for its model that stays as it is, without what goes."""
    index = case.space.answer_index
    if index is None:
        return
    remaining = index.without(case.parts.forget.interactions, case.parts.changed)
    remaining.under(case.new_key, case.parts.retain.interactions).save(folder)
