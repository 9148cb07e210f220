"""Requests for interactions: rows that go are un-known, and rewritten ones are held."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_data import telling
from test_sharded import SMALL as SHARDS
from test_sharded import task_of, training_task_of

from e2urec.core.seeding import derive
from e2urec.data.prompts import TEMPLATES
from e2urec.data.requests import ErasureRequest, resolve
from e2urec.data.splits import SplitSettings, split
from e2urec.methods import build
from e2urec.methods.ifru import IFRU
from e2urec.methods.sisa import SISA
from e2urec.models import adapters
from e2urec.models.adapters import LoRA
from e2urec.models.batches import endless_batches
from e2urec.testing import toy_interactions, toy_task
from e2urec.unlearning import retain_check
from e2urec.unlearning.losses import cross_entropy
from e2urec.unlearning.replay import Speed, distinct_rows
from e2urec.unlearning.retain_check import RetainCheck
from e2urec.unlearning.student import Student, frozen_teacher, phase_steps
from e2urec.unlearning.target import _retain_odds

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from interactions import fold_of

LORA = LoRA(rank=2, alpha=4, targets="all")


@pytest.fixture(scope="module")
def task():
    """A twentieth of the interactions."""
    return toy_task("causal", unit="interactions", ratio=0.05)


def test_one_interaction_is_one_row_of_the_forget_set_and_three_prompts_are_rewritten():
    data = telling([(0, 5, item) for item in range(8)] + [(1, 5, item) for item in range(8)])
    settings = SplitSettings(
        history=3, min_history=2, fractions=(1.0, 0.0, 0.0), unseen=0, calibration=0
    )
    parts = split(data, settings, seed=0)
    pair = (str(data.user_ids[0]), str(data.item_ids[3]))
    found = resolve(ErasureRequest(interactions=(pair,)), parts)
    assert found.forget.rows.tolist() == [3]
    # Histories of three rows: those of rows 4, 5 and 6 showed row 3.
    assert found.old_prompts.rows.tolist() == [4, 5, 6]
    # D_r begins with row 2, and row 3 is gone.
    assert found.rewritten.tolist() == [1, 2, 3]
    render = TEMPLATES["paper"].render
    new_prompts = render(found.retain.take(found.rewritten))
    assert ["Title-3-end" in text for text in render(found.old_prompts)] == [True] * 3
    assert ["Title-3-end" in text for text in new_prompts] == [False] * 3
    assert "item Title-4-end." in new_prompts[0]


def test_no_label_that_stays_is_in_the_forget_set(task):
    assert len(task.old_prompts) == len(task.rewritten) > len(task.forget) > 0
    rewritten = task.retain.take(task.rewritten)
    assert rewritten.labels.tolist() == task.old_prompts.labels.tolist()
    assert rewritten.users.tolist() == task.old_prompts.users.tolist()
    assert rewritten.tokens.tolist() != task.old_prompts.tokens.tolist()


def summed_gradient(model, parameters, rows) -> torch.Tensor:
    """Σ ∇ℓ, a row at a time."""
    total = torch.zeros(sum(parameter.numel() for parameter in parameters))
    for row in range(len(rows)):
        batch = model.collate(rows, np.array([row]))
        loss = cross_entropy(model.logits(batch), model.verbaliser.tokens(batch.labels))
        parts = torch.autograd.grad(loss, parameters)
        total += torch.cat([part.reshape(-1) for part in parts])
    return total


def test_influence_of_rewritten_rows_is_what_their_old_prompts_gave_less_what_the_new_ones_give(
    task, monkeypatch
):
    # With H = 1 the step is the right-hand side itself, over the rows of D.
    monkeypatch.setattr(IFRU, "_influence", lambda self, task, parameters, target: target)
    model = task.original
    with Student(task, LORA, seed=3) as student, model.using(student.active):
        parameters = adapters.up_projections(model.lm, student.name)
        for parameter in parameters:
            parameter.requires_grad_(True)
        step = IFRU(lora=LORA, scale=1.0)._step(task, parameters)
        forget = summed_gradient(model, parameters, task.forget)
        old = summed_gradient(model, parameters, task.old_prompts)
        new = summed_gradient(model, parameters, task.retain.take(task.rewritten))
    row_count = len(task.forget) + len(task.retain)
    expected = (forget + old - new) / row_count
    # In float32, and summed in another order.
    torch.testing.assert_close(step, expected, rtol=1e-3, atol=1e-6)
    assert not torch.allclose(step, forget / row_count, rtol=0.1)


def retain_batches(task, count: int, size: int) -> list[np.ndarray]:
    speed = Speed(buckets=False)
    steps = phase_steps(task, {"joint": count}, size, seed=4, speed=speed)["joint"]
    return [step["retain"] for step in steps]


def test_every_rewritten_row_is_read_beside_rows_of_the_others(task):
    count = 2 + 2 * len(task.rewritten) // 8
    batches = retain_batches(task, count, 8)
    assert np.isin(task.rewritten, distinct_rows(batches)).all()
    for batch in batches:
        assert np.isin(batch, task.rewritten).sum() <= 4
        assert len(np.unique(batch)) == len(batch) <= 8


def test_rewritten_rows_are_half_of_a_short_phase_where_they_are_many(task):
    assert len(task.rewritten) > 3
    batches = retain_batches(task, 3, 2)
    assert [int(np.isin(batch, task.rewritten).sum()) for batch in batches] == [1, 1, 1]


def test_check_of_the_retain_set_has_the_rewritten_rows_by_their_share_of_it(task, monkeypatch):
    monkeypatch.setattr(retain_check, "CHECKED_ROWS", 10)
    # A tenth of D_r, and a third of what a short phase reads of it.
    assert (len(task.rewritten), len(task.retain)) == (5, 49)
    others = np.setdiff1d(np.arange(len(task.retain)), task.rewritten)[:10]
    batches = [np.concatenate([task.rewritten, others])]
    teacher = frozen_teacher(task.original, task, task.retain, batches)
    check = RetainCheck.sample(task, teacher, "scaling")
    assert np.isin(check.rows.numpy(), task.rewritten).sum() == 1
    assert len(set(check.rows.tolist())) == 10


def test_request_for_users_reads_the_retain_set_as_ever():
    users = toy_task("causal")
    assert (len(users.rewritten), len(users.old_prompts)) == (0, 0)
    retain_seed = derive(4, "retain")
    batches = endless_batches(users.retain.lengths, 8, seed=retain_seed, window=1)
    for batch in retain_batches(users, 5, 8):
        assert batch.tolist() == next(batches).tolist()


def test_lead_is_measured_on_prompts_that_the_original_was_tuned_on(task):
    # The teacher was asked about rewritten rows as well; the lead is not theirs.
    remembering = frozen_teacher(task.original, task, task.retain, [np.arange(12), task.rewritten])
    answered = remembering.answered(task.original.verbaliser)
    rows, odds = _retain_odds(task, answered, len(task.retain))
    tuned_rows = np.setdiff1d(np.arange(len(task.retain)), task.rewritten)
    assert sorted(rows) == tuned_rows.tolist()
    expected = task.original.score(task.retain.take(rows))
    assert 1 / (1 + np.exp(-odds)) == pytest.approx(expected, abs=1e-5)


def test_shard_that_holds_a_rewritten_row_is_trained_again(monkeypatch):
    trained = []

    def note(self, model, task, base, rows, shards):
        trained.extend(shards)
        return {}

    method = SISA(**SHARDS)
    training_task = training_task_of("causal")
    users = np.unique(training_task.train.users)
    monkeypatch.setattr(SISA, "_train_shards", note)
    model = method.build(training_task, users, np.arange(len(users)) % method.shards)
    trained.clear()
    # The first user goes; a row of the second one was only shown with what goes.
    task = task_of(training_task, model, [users[0]])
    task.rewritten = np.flatnonzero(task.retain.users == users[1])[:1]
    method.unlearn(task)
    assert trained == [0, 1]


@pytest.mark.parametrize("name", ["e2urec", "neggrad", "ifru"])
def test_methods_honour_a_request_for_interactions(name):
    task = toy_task("causal", unit="interactions", ratio=0.05)
    before = task.original.score(task.forget)
    few = {"iterations": 3, "rows": 16, "batch_size": 16}
    settings = few if name == "ifru" else {}
    after = build(name, settings).unlearn(task).score(task.forget)
    assert len(after) == len(before)
    assert not np.allclose(after, before)


def test_benchmark_cuts_a_fold_into_disjoint_requests_of_the_rows_that_go():
    parts = split(toy_interactions(), SplitSettings(history=3, unseen=0.1, calibration=0.1), seed=1)
    whole, requests = fold_of(parts.train, 0.05, 3, seed=0)
    rows = np.concatenate([part.going.rows for part in requests])
    assert sorted(rows) == whole.going.rows.tolist()
    assert len(rows) == 3 * round(0.05 * len(parts.train))
    for part in (whole, *requests):
        found = resolve(part.request, parts)
        assert found.forget.rows.tolist() == part.going.rows.tolist()
        assert found.old_prompts.rows.tolist() == part.rewritten.rows.tolist()
