"""Less work, the same result: each way to save work is compared with doing without it."""

import functools
import os
import shutil
from collections import namedtuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel

from e2urec.core.errors import RunError
from e2urec.data.prompts import TEMPLATES
from e2urec.data.splits import SplitSettings, split
from e2urec.methods import build
from e2urec.metrics.classification import auc
from e2urec.models import adapters, blocks
from e2urec.models.activation_cache import ActivationCache, cache_bytes
from e2urec.models.adapters import LoRA
from e2urec.models.batches import Batch, Examples, endless_batches, join_batches, match_lengths
from e2urec.models.predictions import answer_states
from e2urec.models.recommender import Recommender
from e2urec.testing import toy_backbone, toy_interactions, toy_task
from e2urec.training.loop import Phase, Schedule, TrainingState, fit
from e2urec.training.supervised import shuffled_plan, supervised
from e2urec.unlearning.alpha_search import match_auc
from e2urec.unlearning.losses import cross_entropy, forgetting_teacher
from e2urec.unlearning.student import frozen_teacher
from e2urec.unlearning.teachers import ForgettingTeacher, FrozenTeacher

KINDS = ["causal", "seq2seq"]
UPPER = {"rank": 2, "targets": "all", "upper": 0.5}
E2UREC = {"warmup": 1, "joint": 1, "lora": UPPER, "min_steps": 4, "augment_min_steps": 4}

ROOM = 1 << 30


def adapted(kind: str) -> tuple[Recommender, int]:
    """A toy with a random adapter `student` on its upper block."""
    model = Recommender(toy_backbone(kind), TEMPLATES["compact"])
    lora = LoRA(**UPPER)
    model.lm = adapters.attach(model.lm, "student", lora, seed=0)
    with model.using(["student"], train="student") as parameters, torch.no_grad():
        for parameter in parameters:
            parameter.normal_(std=0.2)
    return model, lora.first_block(model.lm)


@pytest.fixture
def samples():
    return split(toy_interactions(), SplitSettings(history=3, calibration=0), seed=1).train


def step(model: Recommender, batch: Batch) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Logits of a batch, and the gradient of its loss in each of the adapter's matrices."""
    with model.using(["student"], train="student") as parameters:
        z = model(batch)
        loss = cross_entropy(z, model.verbaliser.tokens(batch.labels))
        return z.detach(), list(torch.autograd.grad(loss, parameters))


def equal(
    first: tuple[torch.Tensor, list[torch.Tensor]], second: tuple[torch.Tensor, list[torch.Tensor]]
) -> None:
    torch.testing.assert_close(first, second, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_replayed_lower_blocks_give_the_logits_and_gradients_of_computed_ones(kind, samples):
    model, first = adapted(kind)
    examples, index = model.encode(samples), np.array([3, 1, 8, 5])
    with ActivationCache(model, first, dtype=torch.float32, max_bytes=ROOM) as cache:
        kept = model.collate(cache.attach_states(examples, np.arange(10)), index)
        assert first == 1
        assert kept.cached is not None
        equal(step(model, kept), step(model, model.collate(examples, index)))


@pytest.mark.parametrize("kind", KINDS)
def test_replayed_rows_computed_among_others_give_the_same_within_rounding(kind, samples):
    """Cached states come from a batch of another width, and are replayed beside D_r."""
    model, first = adapted(kind)
    examples = model.encode(samples)
    longest, shortest = np.argsort(examples.lengths)[[-1, -2]], np.argsort(examples.lengths)[:2]
    with ActivationCache(model, first, dtype=torch.float32, max_bytes=ROOM) as cache:
        kept = cache.attach_states(examples, np.arange(len(examples)))
        both = [
            join_batches(model.collate(rows, shortest), model.collate(rows, longest), model.pad)
            for rows in (kept, examples)
        ]
    assert both[0].cached is not None
    equal(step(model, both[0]), step(model, both[1]))


def test_cache_takes_what_was_asked_for_and_is_refused_where_the_disk_has_less(
    samples, monkeypatch, tmp_path
):
    model, first = adapted("causal")
    examples = model.encode(samples)
    tokens = int(examples.lengths.sum())
    size = cache_bytes(model, first, tokens, precision="fp32", max_gb=1.0)
    assert cache_bytes(model, first, tokens, precision="fp32", max_gb=1e-6) == 1000
    assert cache_bytes(model, 0, tokens, precision="fp32", max_gb=1.0) == 0
    usage = namedtuple("usage", "free")
    settings = {"dtype": torch.float32, "max_bytes": ROOM, "folder": tmp_path}
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(size - 1))
    with ActivationCache(model, first, **settings) as cache:
        with pytest.raises(RunError, match="will be written"):
            cache.attach_states(examples, np.arange(len(examples)))
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(size))
        cache.attach_states(examples, np.arange(len(examples)))
        assert cache.file.seek(0, os.SEEK_END) == size


def test_skipped_blocks_are_really_not_computed(samples):
    model, first = adapted("causal")
    examples = model.encode(samples)
    with ActivationCache(model, first, dtype=torch.float32, max_bytes=ROOM) as cache:
        batch = model.collate(cache.attach_states(examples, np.arange(4)), np.arange(4))
    seen = []
    for layer in blocks.stack(model.lm):
        layer.mlp.register_forward_hook(
            lambda module, inputs, output: seen.append(inputs[0].shape[1])
        )
    with model.using():
        model(batch)
    assert seen == [1]  # the upper block alone, and its feed-forward network at one position


def test_last_block_at_the_answer_alone_gives_the_logits_and_gradients_of_all_positions(samples):
    model, _ = adapted("causal")
    batch = model.collate(model.encode(samples), np.array([3, 1, 8, 5]))
    assert model.answer_only
    narrow = step(model, batch)
    model.answer_only = False
    equal(narrow, step(model, batch))


def test_states_are_not_replayed_into_another_model(samples):
    model, first = adapted("causal")
    with ActivationCache(model, first, dtype=torch.float32, max_bytes=ROOM) as cache:
        kept = cache.attach_states(model.encode(samples), np.arange(4))
        assert model.copy().collate(kept, np.arange(4)).cached is None
        assert model.collate(kept.take(np.array([3, 0])), np.array([1])).cached is not None
        assert model.collate(kept, np.array([4, 5])).cached is None  # neither was ever kept


@pytest.mark.parametrize("kind", KINDS)
def test_batch_of_rows_with_and_without_states_gives_the_logits_of_computed_ones(kind, samples):
    model, first = adapted(kind)
    examples, index = model.encode(samples), np.array([6, 1, 3, 5])
    with ActivationCache(model, first, dtype=torch.float32, max_bytes=ROOM) as cache:
        kept = cache.attach_states(examples, np.arange(4))
        mixed = model.collate(kept, index)
        assert mixed.is_cached.tolist() == [False, True, True, False]
        expected = step(model, model.collate(examples, index))
        equal(step(model, mixed), expected)
        # Beside a batch that has all its states, and beside another that lacks some.
        whole = model.collate(kept, np.array([0, 2]))
        assert whole.is_cached is None
        for second in (whole, mixed):
            both = join_batches(mixed, second, model.pad)
            assert both.is_cached.tolist()[:4] == [False, True, True, False]
            rows = np.concatenate([index, second.index.numpy()])
            equal(step(model, both), step(model, model.collate(examples, rows)))


def test_only_rows_without_states_go_through_the_lower_blocks(samples):
    model, first = adapted("causal")
    with ActivationCache(model, first, dtype=torch.float32, max_bytes=ROOM) as cache:
        kept = cache.attach_states(model.encode(samples), np.arange(4))
        batch = model.collate(kept, np.array([6, 1, 3, 0]))
    row_counts = []
    for layer in blocks.stack(model.lm):
        layer.mlp.register_forward_hook(
            lambda module, inputs, output: row_counts.append(len(inputs[0]))
        )
    with model.using():
        model(batch)
    assert row_counts == [1, 4]  # one row lacks its states, and the upper block answers all four


def test_kept_states_have_no_name_in_the_file_system_and_end_with_the_run(samples, tmp_path):
    model, first = adapted("causal")
    with (
        pytest.raises(KeyboardInterrupt),
        ActivationCache(
            model, first, dtype=torch.bfloat16, max_bytes=ROOM, folder=tmp_path
        ) as cache,
    ):
        kept = cache.attach_states(model.encode(samples), np.arange(4))
        assert not list(tmp_path.iterdir())
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="closed"):
        kept.cached.read(np.arange(2), 64)


def test_rows_beyond_the_room_are_not_kept(samples):
    model, first = adapted("causal")
    examples = model.encode(samples)
    need = int(examples.lengths[:4].sum()) * 32 * 4
    rows = np.arange(6)
    with ActivationCache(model, first, dtype=torch.float32, max_bytes=need) as cache:
        cached = cache.attach_states(examples, rows).cached
        assert cached.holds(rows).tolist() == 4 * [True] + 2 * [False]
        assert cache.attach_states(examples, np.arange(6, 8)).cached is None
        with pytest.warns(
            UserWarning, match=r"^speed.cache_gb: .* 4 of 8 rows; .*raise it"
        ) as told:
            cache.warn_of_bound("speed.cache_gb")
        assert "\n" not in str(told[0].message)


def test_nothing_is_said_of_a_bound_that_was_not_hit(samples, recwarn):
    model, first = adapted("causal")
    with ActivationCache(model, first, dtype=torch.float32, max_bytes=ROOM) as cache:
        cache.attach_states(model.encode(samples), np.arange(4))
        cache.warn_of_bound("speed.cache_gb")
    assert not [warning for warning in recwarn if "cache_gb" in str(warning.message)]


def scores(kind: str, settings: dict, *, lora: bool = False) -> np.ndarray:
    task = toy_task(kind, lora=lora)
    return build("e2urec", E2UREC | settings, "gain").unlearn(task).score(task.forget)


@functools.cache
def scores_with_every_lever(kind: str, remember: str, *, lora: bool) -> np.ndarray:
    """What unlearning without each of the levers in turn is compared with."""
    return scores(kind, {"remember": remember}, lora=lora)


# Each lever meets both kinds of model and both kinds of original; `make families` has all pairs.
@pytest.mark.parametrize(
    ("kind", "lora"),
    [
        pytest.param("causal", True, id="causal-lora"),
        pytest.param("seq2seq", False, id="seq2seq-full"),
        pytest.param("causal", False, id="causal-full", marks=pytest.mark.families),
        pytest.param("seq2seq", True, id="seq2seq-lora", marks=pytest.mark.families),
    ],
)
@pytest.mark.parametrize(
    "speed",
    [
        {"kept_teachers": False},
        {"together": "batch"},
        {"together": "loss"},
        {"replay": False},
        {"answer_only": False},
        {"cache_gb": 1e-4},
    ],
    ids=lambda speed: "-".join(map(str, next(iter(speed.items())))),
)
def test_unlearning_ends_at_the_same_scores_without_a_lever(kind, lora, speed):
    remember = "kl+ce" if "together" in speed else "kl"
    without = scores(kind, {"remember": remember, "speed": speed}, lora=lora)
    np.testing.assert_allclose(
        without, scores_with_every_lever(kind, remember, lora=lora), atol=2e-5
    )


def test_live_teachers_leave_no_adapter_behind_with_a_full_copy_either():
    task = toy_task("causal")
    method = build("e2urec", {"speed": {"kept_teachers": False}}, "paper")
    kept = build("e2urec", {}, "paper").unlearn(toy_task("causal")).score(task.forget)
    model = method.unlearn(task)
    assert adapters.names(model.lm) == []
    np.testing.assert_allclose(model.score(task.forget), kept, atol=2e-5)


def test_a_rival_replays_too_and_ends_at_the_same_scores():
    found = []
    for replay in (True, False):
        task = toy_task("causal")
        method = build(
            "graddiff", {"retain": "kl", "lora": UPPER, "min_steps": 4, "speed": {"replay": replay}}
        )
        found.append(method.unlearn(task).score(task.forget))
        assert ("cache" in task.costs.rows) is replay
    np.testing.assert_allclose(*found, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_bucketed_and_plain_batches_have_the_same_mean_loss_and_gradient(kind, samples):
    """The mean over an epoch of equal batches is the mean over rows, whatever they stand beside."""
    model, _ = adapted(kind)
    examples = model.encode(samples.take(np.arange(56)))
    found = []
    for window in (1, 16):
        batches = [
            next(plan)
            for plan in [endless_batches(examples.lengths, 8, seed=0, window=window)]
            for _ in range(7)
        ]
        parts = [step(model, model.collate(examples, index))[1] for index in batches]
        assert sorted(np.concatenate(batches)) == list(range(56))
        found.append([torch.stack(each).mean(0) for each in zip(*parts, strict=True)])
        found[-1].append(
            torch.tensor(float(sum(examples.lengths[index].max() for index in batches)))
        )
    torch.testing.assert_close(
        found[0][:-1], found[1][:-1], atol=1e-6, rtol=5e-4
    )  # sums in another order
    assert found[1][-1] < found[0][-1]  # fewer columns


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.integers(0, 5))
def test_batches_put_beside_others_are_a_reordering_in_which_length_follows_length(lengths, seed):
    random = np.random.default_rng(seed)
    beside, batches = (
        random.integers(1, 50, len(lengths)),
        [np.array([n]) for n in range(len(lengths))],
    )
    placed = match_lengths(batches, np.array(lengths), beside)
    assert sorted(int(batch[0]) for batch in placed) == list(range(len(lengths)))
    in_order = [lengths[int(placed[n][0])] for n in np.argsort(beside, kind="stable")]
    assert in_order == sorted(lengths)


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_on_upper_blocks_leave_the_lower_ones_bare(kind):
    model, first = adapted(kind)
    layers = blocks.stack(model.lm)
    carries = [any("lora_" in name for name, _ in layer.named_parameters()) for layer in layers]
    assert carries == [n >= first for n in range(len(layers))]
    assert LoRA(upper=0.01).first_block(model.lm) == len(layers) - 1  # one block at least


def test_upper_adapter_on_an_adapted_original_becomes_one_that_plain_peft_loads(samples, tmp_path):
    task = toy_task("causal", lora=True)
    model = build("e2urec", E2UREC, "gain").unlearn(task)
    model.save(tmp_path)
    loaded = PeftModel.from_pretrained(toy_backbone("causal").lm, str(tmp_path / "adapter"))
    ids = torch.tensor([model.tokenizer("Liked: Movie 3").input_ids])
    with model.using(), torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, model.lm(ids).logits)


def answers_of_both(model: Recommender, examples: Examples) -> list[FrozenTeacher]:
    """Answers of the bare model, and of the model with its adapter."""
    rows = torch.arange(len(examples))
    return [
        FrozenTeacher(
            answer_states(model, examples, active=active, precision="fp32"), model.head, rows
        )
        for active in ((), ("student",))
    ]


def test_teacher_keeps_states_of_the_rows_alone_that_it_is_asked_about():
    task = toy_task("causal")
    batches = [np.array([9, 4]), np.array([4, 11])]
    teacher = frozen_teacher(task.original, task, task.retain, batches)
    assert len(teacher.states) == len(task.retain) > 12
    assert teacher.states.states.shape == (3, 32)
    assert teacher.states.states.dtype == torch.float32
    rows = torch.tensor([11, 9])
    expected = answer_states(task.original, task.retain.take(rows.numpy()), precision="fp32")
    torch.testing.assert_close(teacher.states[rows], expected)


def test_teacher_in_odds_asks_two_rows_of_the_head_and_says_the_same(samples):
    model, _ = adapted("causal")
    examples = model.encode(samples.take(np.arange(40)))
    pair = answers_of_both(model, examples)
    for space in ("odds", "logprob", "raw"):
        teacher = ForgettingTeacher(*pair, 1.5, space, model.verbaliser)
        z = [model.to_logits(part.states) for part in pair]
        whole = forgetting_teacher(*z, 1.5, space, model.verbaliser)
        torch.testing.assert_close(teacher(torch.arange(40)).log_softmax(-1), whole.log_softmax(-1))
        torch.testing.assert_close(
            torch.from_numpy(teacher.odds()),
            model.verbaliser.log_odds(whole),
            atol=1e-5,
            rtol=1e-4,
        )


@pytest.mark.parametrize("space", ["odds", "logprob", "raw"])
def test_alpha_is_the_least_at_which_the_teacher_itself_is_down_to_the_target(space, samples):
    model, _ = adapted("causal")
    examples = model.encode(samples)
    with model.using(
        ["student"], train="student"
    ) as parameters:  # an augmented model that knows the rows
        schedule = Schedule(epochs=4, learning_rate=1e-2, batch_size=16, precision="fp32")
        state = TrainingState.start(parameters, schedule)
        plan = shuffled_plan(examples, 16, 0)
        fit(model, state, plan, supervised(model, examples), Phase("training", 0))
    pair = answers_of_both(model, examples)

    def at(alpha: float) -> float:
        teacher = ForgettingTeacher(*pair, alpha, space, model.verbaliser)
        return auc(examples.labels, teacher.odds())

    target = (at(0.0) + at(1.0)) / 2
    teacher = ForgettingTeacher(*pair, 0.0, space, model.verbaliser)
    alpha = match_auc(teacher, examples.labels, target).teacher.alpha
    assert at(alpha) <= target < at(alpha - 1 / 128)
