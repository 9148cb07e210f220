"""Less memory for a step: its rows in parts, and blocks that compute twice. The same gradient."""

import copy
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st

from e2urec.data.prompts import TEMPLATES
from e2urec.data.splits import SplitSettings, split
from e2urec.methods import build
from e2urec.models import adapters, blocks
from e2urec.models.activation_cache import ActivationCache
from e2urec.models.adapters import LoRA
from e2urec.models.backbone import Backbone
from e2urec.models.batches import Examples
from e2urec.models.recommender import Recommender
from e2urec.testing import TUNING, toy_backbone, toy_interactions, toy_task
from e2urec.training.loop import Phase, Schedule, TrainingState
from e2urec.training.micro_batches import StepGradients, split_step
from e2urec.training.process_share import ProcessShare
from e2urec.training.supervised import supervised, tune

KINDS = ["causal", "seq2seq"]
STEP = {"train": np.arange(16)}


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=3),
    st.one_of(st.none(), st.integers(1, 50)),
)
def test_parts_hold_every_row_once_and_none_holds_too_many(sizes, size):
    step = {f"set {number}": np.arange(count) for number, count in enumerate(sizes)}
    parts = split_step(step, {name: len(rows) for name, rows in step.items()}, size)
    for name, rows in step.items():
        pieces = [part.rows[name] for part in parts if name in part.rows]
        assert np.concatenate(pieces).tolist() == rows.tolist()
        assert all(0 < len(piece) <= (size or 40) for piece in pieces)
        shares = [part.shares[name] for part in parts if name in part.rows]
        assert sum(shares) == pytest.approx(1)
    assert len(parts) == (1 if size is None else max(-(-count // size) for count in sizes))


def test_a_part_that_only_another_process_has_rows_for_reads_one_that_counts_nothing():
    *_, last = split_step({"train": np.arange(4)}, {"train": 5}, 1)
    assert last.rows["train"].tolist() == [0]
    assert last.share("train") == 0


@given(
    st.dictionaries(st.sampled_from(["forget", "retain"]), st.integers(1, 12), min_size=1),
    st.integers(1, 5),
    st.integers(1, 4),
)
def test_all_processes_read_the_same_sets_in_each_part_and_together_every_row(sizes, size, world):
    step = {name: np.arange(count) for name, count in sizes.items()}
    sets = []
    totals = dict.fromkeys(step, 0.0)
    for rank in range(world):
        process = SimpleNamespace(process_index=rank, num_processes=world)
        share = ProcessShare.of(step, process)
        parts = split_step(share.rows, share.longest, size)
        sets.append([list(part.rows) for part in parts])
        for part in parts:
            assert all(0 < len(rows) <= size for rows in part.rows.values())
            for name in part.rows:
                # Of the mean over processes, each row counts 1/n.
                totals[name] += part.shares[name] * share.weights[name] / world
    assert all(names == sets[0] for names in sets)
    assert all(total == pytest.approx(1) for total in totals.values())


def adapted(kind: str, lora: LoRA, backbone: Backbone | None = None) -> Recommender:
    """A toy with a random adapter."""
    base = backbone or toy_backbone(kind)
    model = Recommender(base, TEMPLATES["compact"], active=())
    model.lm = adapters.attach(model.lm, "student", lora, seed=0)
    model.active = ("student",)
    with model.using(train="student") as parameters, torch.no_grad():
        for parameter in parameters:
            parameter.normal_(std=0.2)
    return model


def step_of(model: Recommender, **settings: object) -> tuple[float, list[torch.Tensor]]:
    """The loss of one step, and its gradients."""
    samples = split(toy_interactions(), SplitSettings(history=3, calibration=0), seed=1).train
    return step_on(model, model.encode(samples), **settings)


def step_on(
    model: Recommender, rows: Examples, **settings: object
) -> tuple[float, list[torch.Tensor]]:
    """The same on given rows."""
    objective = supervised(model, rows)
    schedule = Schedule(precision="fp32", **settings)
    with model.using(train="student") as parameters:
        state = TrainingState.start(parameters, schedule)
        accelerator = Accelerator(cpu=True)
        gradients = StepGradients(model, objective, state, accelerator, "training")
        loss, _ = gradients.leave(ProcessShare.of(STEP, accelerator))
        return float(loss), [parameter.grad for parameter in parameters]


@pytest.mark.parametrize("size", [8, 5, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_a_batch_leave_the_gradient_and_the_loss_of_the_whole(kind, size):
    model = adapted(kind, LoRA(rank=2, targets="all"))
    whole_loss, whole = step_of(model)
    loss, gradients = step_of(model, micro_batch=size)
    assert loss == pytest.approx(whole_loss, rel=1e-5)
    torch.testing.assert_close(gradients, whole, atol=1e-6, rtol=1e-4)


def tuning_with(**settings: object):
    schedule = TUNING.schedule.model_copy(update={"epochs": 1, **settings})
    return TUNING.model_copy(update={"schedule": schedule})


def test_a_model_tuned_in_halves_is_the_one_tuned_in_whole_batches():
    samples = split(toy_interactions(), SplitSettings(history=3, calibration=0), seed=1).train
    scores = []
    for size in (None, 4):
        untuned = Recommender(toy_backbone("causal"), TEMPLATES["compact"])
        rows = untuned.encode(samples)
        model, _ = tune(untuned, tuning_with(micro_batch=size), rows, None, Phase("original", 1))
        scores.append(model.score(rows))
    np.testing.assert_allclose(*scores, atol=1e-4)
    assert not np.array_equal(*scores)


def test_early_stopping_in_parts_keeps_the_epoch_of_whole_batches():
    samples = split(toy_interactions(), SplitSettings(history=3, calibration=0), seed=1)
    traces = []
    scores = []
    for size in (None, 4):
        untuned = Recommender(toy_backbone("causal"), TEMPLATES["compact"])
        rows = untuned.encode(samples.train)
        valid = untuned.encode(samples.valid)
        # So fast that it gets worse before its epochs are over.
        tuning = tuning_with(micro_batch=size, epochs=8, patience=1, learning_rate=0.02)
        model, trace = tune(untuned, tuning, rows, valid, Phase("original", 1))
        traces.append(trace)
        scores.append(model.score(valid))
    assert len(traces[0].losses) < 8
    assert traces[0].best_epoch == traces[1].best_epoch
    np.testing.assert_allclose(traces[1].monitored, traces[0].monitored, rtol=1e-3)
    np.testing.assert_allclose(*scores, atol=1e-3)


SHORT = {"min_steps": 3, "augment_min_steps": 3}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("seq2seq", {"remember": "kl+ce"}),
        ("causal", {"speed": {"together": "loss"}, "lora": {"upper": 1}}),
    ],
    ids=["two-teachers", "loss-by-loss"],
)
def test_unlearning_in_halves_ends_at_the_scores_of_whole_batches(kind, settings):
    scores = []
    for size in (None, 8):
        task = toy_task(kind)
        task.tuning = tuning_with(micro_batch=size)
        method = build("e2urec", SHORT | settings, "gain")
        scores.append(method.unlearn(task).score(task.forget))
    np.testing.assert_allclose(*scores, atol=1e-4)


def test_gradients_that_are_no_sum_go_whole_and_that_is_told():
    scores = []
    for size in (None, 4):
        task = toy_task("causal")
        task.tuning = tuning_with(micro_batch=size)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            scores.append(build("pcgrad", {"min_steps": 2}).unlearn(task).score(task.forget))
        texts = [str(warning.message) for warning in told]
        sentences = [text for text in texts if "micro_batch=4 is not used" in text]
        assert len(sentences) == (0 if size is None else 1)
    np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_that_compute_twice_leave_the_same_loss_and_gradient(kind):
    model = adapted(kind, LoRA(rank=2, targets="all", dropout=0.5))
    passes = []
    for layer in blocks.stack(model.lm):
        layer.register_forward_hook(lambda module, inputs, output: passes.append("called"))
        linear = next(child for child in layer.modules() if isinstance(child, torch.nn.Linear))
        linear.register_forward_hook(lambda module, inputs, output: passes.append("computed"))
    results = []
    for checkpointing in (False, True):
        passes.clear()
        torch.manual_seed(0)
        results.append(step_of(model, gradient_checkpointing=checkpointing))
        again = 0
        if checkpointing:
            # A decoder's last block computes one position alone, and once.
            again = 1 if kind == "causal" else 2
        assert passes.count("called") == 2
        assert passes.count("computed") == 2 + again
    assert results[0][0] == results[1][0]
    assert all(map(torch.equal, results[0][1], results[1][1]))


def test_checkpointing_leaves_what_is_unlearned_as_it_was():
    scores = []
    for checkpointing in (False, True):
        task = toy_task("seq2seq", lora=True)
        task.tuning = task.tuning.model_copy(
            update={"schedule": tuning_with(gradient_checkpointing=checkpointing).schedule}
        )
        scores.append(build("e2urec", SHORT, "gain").unlearn(task).score(task.forget))
    np.testing.assert_array_equal(*scores)


def test_checkpointing_that_saves_nothing_is_told_and_left_out():
    model = adapted("causal", LoRA(rank=2, upper=0.5))
    plain = step_of(model)
    with pytest.warns(UserWarning, match=r"training: gradient_checkpointing is not used") as told:
        loss, _ = step_of(model, gradient_checkpointing=True)
    assert loss == plain[0]
    assert "\n" not in str(told[0].message)


def deep_backbone(kind: str) -> Backbone:
    """A toy of which blocks are left to compute twice above those that are replayed."""
    base = toy_backbone(kind)
    # T5's encoder has no answer's position, so that its last block is one of them.
    if kind == "seq2seq":
        return base
    torch.manual_seed(0)
    config = copy.deepcopy(base.lm.config)
    config.num_hidden_layers = 4
    lm = type(base.lm)(config)
    lm.set_attn_implementation("eager")
    return replace(base, lm=lm.eval())


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_compute_twice_above_replayed_ones_and_leave_the_same_gradient(kind):
    lora = LoRA(rank=2, targets="all", upper=0.5)
    model = adapted(kind, lora, deep_backbone(kind))
    first = lora.first_block(model.lm)
    samples = split(toy_interactions(), SplitSettings(history=3, calibration=0), seed=1).train
    rows = model.encode(samples)
    stack = blocks.stack(model.lm)
    passes = [0] * len(stack)

    def count(number: int) -> None:
        passes[number] += 1

    for number, layer in enumerate(stack):
        linear = next(child for child in layer.modules() if isinstance(child, torch.nn.Linear))
        linear.register_forward_hook(lambda *_, number=number: count(number))
    whole = step_on(model, rows)
    assert passes == [1] * len(stack)
    with ActivationCache(model, first, dtype=torch.float32, max_bytes=1 << 30) as cache:
        replayed = cache.attach_states(rows, np.arange(len(rows)))
        passes[:] = [0] * len(stack)
        loss, gradients = step_on(model, replayed, gradient_checkpointing=True, micro_batch=8)
    # Two parts, in which what is replayed never computes and what kept no states does so twice.
    assert passes == ([0, 0, 4, 2] if kind == "causal" else [0, 4])
    assert loss == pytest.approx(whole[0], rel=1e-5)
    torch.testing.assert_close(gradients, whole[1], atol=1e-6, rtol=1e-4)
