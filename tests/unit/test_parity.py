"""Preset `paper` takes the steps of the published code; docs/evidence/parity.md has the rest."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from e2urec.methods import build
from e2urec.methods.e2urec import E2URec
from e2urec.models.batches import endless_batches
from e2urec.testing import toy_task
from e2urec.training import loop
from e2urec.training.loop import OptimizerSettings, Schedule, TrainingState
from e2urec.unlearning import augmented
from e2urec.unlearning.augmented import Augmentation, augmented_copy
from e2urec.unlearning.replay import Speed
from e2urec.unlearning.student import phase_steps


@pytest.fixture
def schedules(monkeypatch):
    """The schedules of all that is trained, in order."""
    seen = []
    start = TrainingState.start

    def record(parameters, schedule):
        seen.append(schedule)
        return start(parameters, schedule)

    monkeypatch.setattr(TrainingState, "start", record)
    return seen


def test_paper_trains_at_a_constant_rate_with_decay_and_without_clipping(schedules):
    task = toy_task("causal")
    schedules.clear()
    build("e2urec", {}, "paper").unlearn(task)
    augmented_model, warmup, joint = schedules
    assert augmented_model.learning_rate == 5e-5
    assert warmup.learning_rate == joint.learning_rate == 1e-3
    for schedule in schedules:
        # What torch.optim.AdamW does when it is told nothing but a learning rate.
        assert schedule.weight_decay == 0.01
        assert schedule.clip is None
        assert {schedule.rate(step, 40) for step in range(40)} == {1.0}


def test_preset_gain_decays_no_adapter_and_clips_its_gradient(schedules):
    task = toy_task("causal")
    schedules.clear()
    build("e2urec", preset="gain").unlearn(task)
    assert schedules
    for schedule in schedules:
        assert (schedule.warmup, schedule.weight_decay, schedule.clip) == (0.06, 0.0, 1.0)


# A gradient of (3, 4) has norm 5; AdamW's first mean is a tenth of what is left of it.
@pytest.mark.parametrize(("clip", "mean"), [(None, [0.3, 0.4]), (1.0, [0.06, 0.08])])
def test_gradient_is_clipped_only_where_there_is_a_largest_norm(clip, mean):
    parameter = nn.Parameter(torch.zeros(2))
    state = TrainingState.start([parameter], Schedule(clip=clip))
    parameter.grad = torch.tensor([3.0, 4.0])
    state.advance({}, {})
    assert state.optimizer.state[parameter]["exp_avg"].tolist() == pytest.approx(mean, rel=1e-5)


def test_optimizer_of_a_method_is_set_one_setting_at_a_time():
    paper = build("e2urec", {"optimizer": {"clip": 2.0}}, "paper")
    assert paper.optimizer == OptimizerSettings(warmup=0.0, weight_decay=0.01, clip=2.0)
    assert build("e2urec", {"optimizer": {"clip": None}}).optimizer.weight_decay == 0.0


def test_joint_phase_begins_a_fresh_shuffle_where_the_warm_up_ended():
    task = toy_task("causal")
    size = 4
    one_pass = -(-len(task.forget) // size)
    steps = phase_steps(task, {"warmup": one_pass, "joint": 2}, size, seed=3, speed=Speed())
    warmup = [tuple(step["forget"]) for step in steps["warmup"]]
    joint = [tuple(step["forget"]) for step in steps["joint"]]
    assert sorted(itertools.chain(*warmup)) == list(range(len(task.forget)))
    # Before, these were the warm-up's own first batches.
    assert not set(joint) & set(warmup)
    batches = endless_batches(task.forget.lengths, size, seed=3)
    expected = itertools.islice(batches, one_pass, one_pass + 2)
    assert joint == [tuple(batch) for batch in expected]
    assert all(len(step["retain"]) == size for step in steps["joint"])


def test_without_a_warm_up_the_joint_phase_begins_with_the_first_shuffle():
    task = toy_task("causal")
    steps = phase_steps(task, {"warmup": 0, "joint": 2}, 4, seed=3, speed=Speed())
    batches = endless_batches(task.forget.lengths, 4, seed=3)
    for step, batch in zip(steps["joint"], batches, strict=False):
        assert np.array_equal(step["forget"], batch)


@pytest.mark.parametrize("embeddings", [True, False])
def test_augmented_copy_moves_what_the_original_moved_with_dropout_while_it_is_tuned(
    monkeypatch, embeddings
):
    task = toy_task("seq2seq")
    task.tuning = task.tuning.model_copy(update={"embeddings": embeddings})
    tuned = []

    def fit(model, *arguments):
        modes = {module.training for module in model.lm.modules()}
        trace = loop.fit(model, *arguments)
        tuned.append((model, modes))
        return trace

    monkeypatch.setattr(augmented, "fit", fit)
    schedule = task.schedule(4, 1e-3)
    augmentation = Augmentation(3, schedule, seed=0, window=1, precomputed=True)
    before = {name: value.clone() for name, value in task.original.lm.state_dict().items()}
    augmented_copy(task, augmentation)
    ((model, modes),) = tuned
    assert modes == {True}
    assert not model.lm.training
    assert not any(parameter.requires_grad for parameter in model.lm.parameters())
    after = model.lm.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert ("shared.weight" in moved) is embeddings
    assert any("SelfAttention.q" in name for name in moved)
    assert all(
        torch.equal(value, before[name]) for name, value in task.original.lm.state_dict().items()
    )


def test_released_passes_are_a_thousand_steps_and_twelve_hundred():
    # MovieLens-1M at 20%: 12,982 rows of D_f; the checkpoints of 1,000 and 1,200 steps of 16.
    paper = build("e2urec", {}, "paper")
    assert isinstance(paper, E2URec)
    student_steps = paper.updates(12_982, 47_018, Schedule())
    assert student_steps == pytest.approx(1000, abs=1)
    augmented_rows = paper.plan(12_982, 47_018, Schedule())["augmented"]
    assert augmented_rows / 16 == pytest.approx(1200, rel=0.002)
