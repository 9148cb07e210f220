"""The augmented model: the original tuned further on D_f. Its gain there shall be forgotten.

It never touches the disk, and goes as soon as the teacher needs it no more.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..models.adapters import LoRA
from ..models.batches import Examples, endless_batches
from ..models.recommender import Recommender
from ..training.checkpoints import NO_CHECKPOINTS
from ..training.loop import Phase, Schedule, Step, TrainingState, fit
from ..training.supervised import fully_trainable, supervised
from .student import Student, frozen_teacher
from .task import Task
from .teachers import FrozenTeacher

# The phase's name also names its random streams.
PHASE = "augmented"


@dataclass(frozen=True)
class AugmentedModel:
    """All that is kept of the augmented model, in memory.

    Attributes:
        answers: to D_f.
        update: A and B matrices of ΔW; None if it was fully tuned.
    """

    answers: FrozenTeacher
    update: dict[str, torch.Tensor] | None


@dataclass(frozen=True)
class Augmentation:
    """How the original is tuned further on D_f.

    Attributes:
        step_count: batches of D_f.
        schedule: batch size, learning rate and precision.
        seed: of the adapter's first weights, of the batches and of dropout.
        window: batches among whose rows those of about the same length are put together.
        precomputed: whether the answers to D_f are computed once, or whenever they are looked up.
    """

    step_count: int
    schedule: Schedule
    seed: int
    window: int
    precomputed: bool

    def steps(self, forget: Examples) -> list[Step]:
        """Batches of D_f; all of it is gone through before a row is read twice."""
        batches = endless_batches(
            forget.lengths,
            self.schedule.batch_size,
            seed=self.seed,
            window=self.window,
        )
        return [{"train": next(batches)} for _ in range(self.step_count)]

    def answers(self, task: Task, model: Recommender, active: tuple[str, ...]) -> FrozenTeacher:
        """Answers of `model` with the adapters `active` to all of D_f."""
        all_rows = [np.arange(len(task.forget))]
        with task.costs.phase("teachers"):
            return frozen_teacher(
                model,
                task,
                task.forget,
                all_rows,
                active=active,
                precomputed=self.precomputed,
            )


@contextlib.contextmanager
def augmented_adapter(
    task: Task, lora: LoRA, augmentation: Augmentation
) -> Iterator[AugmentedModel]:
    """Yield the original with an adapter tuned on D_f.

    The adapter is taken off at once where the answers are precomputed, else on leaving.
    """
    original = task.original
    # Tuned to remember D_f, which no checkpoint may: where a request goes on, it is tuned anew.
    unkept_task = replace(task, checkpoints=NO_CHECKPOINTS)
    with Student(unkept_task, lora, seed=augmentation.seed, name="augmented") as student:
        steps = augmentation.steps(task.forget)
        objective = supervised(original, task.forget)
        student.fit(PHASE, steps, objective, augmentation.schedule)
        answers = augmentation.answers(task, original, student.active)
        augmented = AugmentedModel(answers, student.weights())
        # A look-up later on needs the adapter in its place. Otherwise its memory is free before the
        # student takes as much.
        if not augmentation.precomputed:
            yield augmented
            return
    yield augmented


def augmented_copy(task: Task, augmentation: Augmentation) -> AugmentedModel:
    """Tune a copy of the original on D_f as the original was tuned, as the paper does.

    The model's dropout is on meanwhile; embeddings stay as they are where the original's did.
    """
    copy = task.original.copy()
    steps = augmentation.steps(task.forget)
    objective = supervised(copy, task.forget)
    # As above, without checkpoints.
    phase = Phase(PHASE, augmentation.seed, task.progress)
    with (
        task.costs.phase(PHASE),
        fully_trainable(copy, embeddings=task.tuning.embeddings) as parameters,
    ):
        state = TrainingState.start(parameters, augmentation.schedule)
        trace = fit(copy, state, lambda epoch: steps, objective, phase)
    task.costs.count_rows(PHASE, trace.rows)
    answers = augmentation.answers(task, copy, copy.active)
    return AugmentedModel(answers, None)
