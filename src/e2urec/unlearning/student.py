"""The student: one new adapter on the original, the only thing that a method moves."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import nn

from ..core.arrays import Ints
from ..core.errors import ConfigError
from ..core.seeding import derive
from ..models import adapter_algebra, adapters
from ..models.adapters import LoRA
from ..models.batches import Examples, endless_batches, match_lengths
from ..models.predictions import LiveStates, answer_states
from ..models.recommender import Recommender
from ..training.loop import Objective, Phase, Rows, Schedule, Step, TrainingState, fit
from .replay import Speed, distinct_rows
from .task import Task
from .teachers import FrozenTeacher, RowStates


class Student:
    """Attaches adapter `student` to the original of a task; on leaving early, takes it off again.

    The original's own adapter, if it has one, stays active and frozen below the student.
    """

    def __init__(self, task: Task, lora: LoRA, *, seed: int, name: str = "student") -> None:
        self.task = task
        self.lora = lora
        self.name = name
        self.seed = seed
        self.model = task.original
        self.model.lm = adapters.attach(self.model.lm, name, lora, seed=seed)
        self.active = (*self.model.active, name)
        self.finished = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # After an error or an interrupt, too, the original is left as it was.
        if not self.finished:
            self.discard()

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of the adapter's A and B matrices."""
        return adapters.weights(self.model.lm, self.name)

    def start_at(self, weights: dict[str, torch.Tensor], scale: float) -> None:
        """Start where `scale` times the update of another adapter of the same shape leads."""
        adapters.load_weights(self.model.lm, self.name, weights, scale)

    def fit(
        self, phase: str, steps: Sequence[Step], objective: Objective, schedule: Schedule
    ) -> None:
        """Take `steps` with the student alone trainable; seconds and rows count for `phase`."""
        # A phase without steps costs nothing and is not named among the costs.
        if not steps:
            return
        model = self.model
        costs = self.task.costs
        loop_phase = Phase(phase, self.seed, self.task.progress, self.task.checkpoints)
        with costs.phase(phase), self._trainable() as parameters:
            state = TrainingState.start(parameters, schedule)
            trace = fit(model, state, lambda epoch: steps, objective, loop_phase)
        costs.count_training(phase, trace)

    def parameter_count(self) -> int:
        """Parameters of the adapter."""
        with self._trainable() as parameters:
            return sum(parameter.numel() for parameter in parameters)

    def _trainable(self) -> AbstractContextManager[list[nn.Parameter]]:
        """Inside, the student's parameters alone can be trained."""
        return self.model.using(self.active, train=self.name)

    def discard(self) -> None:
        """Take the adapter off and forget its weights."""
        self.model.lm = adapters.remove(self.model.lm, self.name)
        self.finished = True

    def finish(self) -> Recommender:
        """Fold the student into the original.

        It is merged if the original was fully tuned; with LoRA, one adapter replaces both. A
        student beside a fully tuned original would forget nothing once it is taken off (method,
        section 6).
        """
        # Counted first, since folding in replaces the adapter.
        self.task.costs.trainable = self.parameter_count()
        model = self.model
        if model.active:
            rank = self._replacement_rank()
            adapter_algebra.concatenate(model.lm, self.active, "unlearned", rank=rank)
            model.active = ("unlearned",)
        else:
            model.lm = adapter_algebra.merge(model.lm, self.active)
        self.finished = True
        return model

    def _replacement_rank(self) -> int | None:
        """Largest rank of the adapter that replaces the original's and the student's.

        It is the sum of both after the first request, and no more after any number of them, unless
        a student of a higher rank is asked for. None: whatever the sum is.
        """
        tuned = self.task.tuning.lora
        if tuned is None:
            return None
        current_rank = adapter_algebra.total_rank(self.model.lm, self.model.active)
        return max(current_rank, tuned.rank + self.lora.rank)


def frozen_teacher(
    model: Recommender,
    task: Task,
    rows: Examples,
    batches: Sequence[Rows],
    *,
    active: Sequence[str] | None = None,
    precomputed: bool = True,
) -> FrozenTeacher:
    """The answers of `model` to those of `rows` that some batch holds.

    Args:
        model: the teacher.
        task: counts the rows read, and says in which precision.
        rows: D_f or D_r.
        batches: indices into `rows` that the teacher will be asked about.
        active: the adapters that answer; by default the model's own.
        precomputed: whether each answer is computed once, or whenever it is looked up.
    """
    if active is None:
        active = model.active
    needed_rows = distinct_rows(batches)
    row_tensor = torch.from_numpy(needed_rows).to(model.device)
    head = model.head.detach()
    if not precomputed:
        live = LiveStates(model, rows, active, task.precision)
        return FrozenTeacher(live, head, row_tensor)
    states = torch.zeros((0, head.weight.shape[1]), device=model.device)
    if len(needed_rows):
        states = answer_states(
            model,
            rows.take(needed_rows),
            active=active,
            precision=task.precision,
        )
        task.costs.count_rows("teachers", len(needed_rows))
    # D_r may be a thousand times what a short phase reads of it.
    row_states = RowStates.of_rows(row_tensor, states, len(rows))
    return FrozenTeacher(row_states, head, row_tensor)


def steps_in(passes: float, rows: int, batch_size: int, min_steps: int) -> int:
    """Steps of `passes` over `rows`, but at least `min_steps`; 0 for no passes at all."""
    if not passes:
        return 0
    batches = math.ceil(rows / batch_size)
    return max(min_steps, math.ceil(passes * batches))


def phase_steps(
    task: Task, counts: Mapping[str, int], size: int, *, seed: int, speed: Speed
) -> dict[str, list[Step]]:
    """Steps of each of a student's phases: `joint` reads pairs of batches, any other D_f alone."""
    # One stream for all phases, so that one goes on where the one before it ended: after a warm-up
    # of one pass, the joint phase begins a fresh shuffle, as in the published code.
    batches = endless_batches(
        task.forget.lengths,
        size,
        seed=seed,
        window=speed.window,
    )
    phases: dict[str, list[Step]] = {}
    for phase, count in counts.items():
        forget = list(itertools.islice(batches, count))
        if phase == "joint":
            phases[phase] = _paired_steps(
                task,
                forget,
                size,
                seed=seed,
                speed=speed,
            )
        else:
            phases[phase] = [{"forget": batch} for batch in forget]
    return phases


def _paired_steps(
    task: Task, forget: Sequence[Rows], size: int, *, seed: int, speed: Speed
) -> list[Step]:
    """A step for each batch of D_f, with one of D_r beside it."""
    retain_lengths = task.retain.lengths
    if not len(retain_lengths):
        raise ConfigError(
            "the request takes all rows that the model was tuned on, and none is left to train on "
            "beside them; go back to the base model"
        )
    # With the same seed, sets of the same lengths would go side by side in the same order.
    retain_seed = derive(seed, "retain")
    retain = _retain_batches(task, len(forget), size, seed=retain_seed, window=speed.window)
    if speed.buckets:
        # Both batches go through the model together and are padded to the longer one.
        forget_lengths = task.forget.lengths
        forget_widths = [forget_lengths[batch].max() for batch in forget]
        retain = match_lengths(retain, retain_lengths, np.array(forget_widths))
    steps: list[Step] = []
    for forget_batch, retain_batch in zip(forget, retain, strict=True):
        steps.append({"forget": forget_batch, "retain": retain_batch})
    return steps


def _retain_batches(task: Task, count: int, size: int, *, seed: int, window: int) -> list[Rows]:
    """`count` batches of D_r, which is gone through before a row of it is read twice.

    Rewritten rows have places of their own: as many in each batch as it takes to read every one of
    them, but no more than half.
    """
    lengths = task.retain.lengths
    everything = np.arange(len(lengths))
    # They share users and histories with what goes, so they are the first to be forgotten with it.
    # By chance, a short phase would hold few of them or none.
    share = min(size // 2, math.ceil(len(task.rewritten) / max(count, 1)))
    other_rows = np.setdiff1d(everything, task.rewritten)
    if not share or not len(other_rows):
        batches = _batches_among(everything, lengths, size, seed=seed, window=window)
        return list(itertools.islice(batches, count))
    batches = _batches_among(other_rows, lengths, size - share, seed=seed, window=window)
    rewritten_batches = _batches_among(
        task.rewritten, lengths, share, seed=derive(seed, "rewritten"), window=window
    )
    pairs = itertools.islice(zip(batches, rewritten_batches, strict=True), count)
    return [np.concatenate(pair) for pair in pairs]


def _batches_among(
    rows: Rows, lengths: Ints, size: int, *, seed: int, window: int
) -> Iterator[Rows]:
    """Batches of `rows` without end; `lengths` are those of all rows."""
    for batch in endless_batches(lengths[rows], size, seed=seed, window=window):
        yield rows[batch]
