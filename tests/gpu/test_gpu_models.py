"""A toy on the GPU answers, learns and forgets as on the CPU."""

import copy

import numpy as np
import pytest
import torch
from gpu_device import CPU, running_on
from peft import PeftModel

from e2urec.data.prompts import TEMPLATES
from e2urec.data.splits import SplitSettings, split
from e2urec.methods import build
from e2urec.methods.e2urec import E2URec
from e2urec.models import adapters
from e2urec.models.activation_cache import ActivationCache
from e2urec.models.adapters import LoRA
from e2urec.models.backbone import Backbone
from e2urec.models.batches import Batch
from e2urec.models.predictions import predict
from e2urec.models.recommender import Recommender
from e2urec.testing import toy_backbone, toy_interactions, toy_task_for
from e2urec.training.loop import Phase, Schedule
from e2urec.training.supervised import Tuning, tune
from e2urec.unlearning.losses import cross_entropy
from e2urec.unlearning.task import Task

pytestmark = pytest.mark.gpu

KINDS = ["causal", "seq2seq"]
UPPER = LoRA(rank=2, targets="all", upper=0.5)
FEW_STEPS = {"min_steps": 4, "learning_rate": 1e-3}
SHARDS = {"shards": 2, "learning_rate": 1e-2, "lora": {"rank": 2}}
METHODS = {
    "e2urec": {
        **E2URec.presets["gain"],
        "joint": 1,
        "augment_min_steps": 4,
        "lora": UPPER.model_dump(),
        "min_steps": 4,
    },
    "badt": FEW_STEPS,
    "npo": FEW_STEPS,
    "pcgrad": FEW_STEPS,
    "ifru": {"rows": 16, "iterations": 3},
    "apa": SHARDS,
    "receraser": SHARDS,
}
"""One of each kind: two teachers, the base as a teacher, a reference, gradients of their own,
second derivatives, and shards."""


# Models that are loaded to a GPU have the first, those on a CPU the second. With both, the CPU
# rounds otherwise too, and shows that the tolerances are not too tight.
FUSED, PLAIN = "sdpa", "eager"


def moved(backbone: Backbone, device: torch.device, attention: str) -> Backbone:
    """A copy on the device."""
    copied = backbone.copy()
    copied.lm.set_attn_implementation(attention)
    copied.lm.to(device)
    return copied


def toy(kind: str, device: torch.device, attention: str = FUSED) -> Recommender:
    return Recommender(moved(toy_backbone(kind), device, attention), TEMPLATES["compact"])


def adapted(kind: str, device: torch.device, attention: str = FUSED) -> Recommender:
    """A toy with a random adapter `student` on its upper block, the same on every device."""
    model = toy(kind, device, attention)
    model.lm = adapters.attach(model.lm, "student", UPPER, seed=0)
    generator = torch.Generator().manual_seed(0)
    with model.using(["student"], train="student") as parameters, torch.no_grad():
        for parameter in parameters:
            values = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.2 * values)
    return model


@pytest.fixture(scope="module")
def samples():
    return split(toy_interactions(), SplitSettings(history=3, calibration=0), seed=1).train


def gradients(model: Recommender, batch: Batch) -> list[torch.Tensor]:
    """Of the loss of a batch, in each of the adapter's matrices; before them the logits."""
    with model.using(["student"], train="student") as parameters:
        z = model(batch)
        loss = cross_entropy(z, model.verbaliser.tokens(batch.labels))
        return [z.detach(), *torch.autograd.grad(loss, parameters)]


def assert_near(tensors: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    """Check that tensors differ by a thousandth of their length at most.

    A single number may be the small rest of large ones, of which rounding is a large part.
    """
    for tensor, other in zip(tensors, expected, strict=True):
        distance = (tensor.cpu() - other.cpu()).norm()
        assert distance <= 1e-3 * other.norm() + 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_answers_and_gradients_of_the_same_weights_are_those_of_the_cpu(kind, on_device, samples):
    models = [adapted(kind, on_device), adapted(kind, CPU, PLAIN)]
    examples = models[0].encode(samples)
    index = np.array([3, 1, 8, 5])
    on_gpu, on_cpu = (gradients(model, model.collate(examples, index)) for model in models)
    assert on_gpu[0].device.type == on_device.type
    assert_near(on_gpu, on_cpu)
    answers = [predict(model, examples, active=["student"], precision="fp32") for model in models]
    np.testing.assert_allclose(answers[0].log_odds, answers[1].log_odds, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_answers_are_near_those_of_float32(kind, on_device, samples):
    model = adapted(kind, on_device)
    examples = model.encode(samples)
    exact = predict(model, examples, active=["student"], precision="fp32")
    rough = predict(model, examples, active=["student"], precision="bf16")
    assert np.isfinite(rough.log_odds).all()
    # Of most rows: where two answers are near each other in the toy's few dimensions, all is noise.
    difference = np.median(np.abs(rough.log_odds - exact.log_odds))
    assert 0 < difference < 0.1 * exact.log_odds.std()


@pytest.mark.parametrize("kind", KINDS)
def test_new_adapter_starts_from_the_weights_that_it_has_on_the_cpu(kind, on_device):
    starts = []
    for device in (on_device, CPU):
        lm = adapters.attach(toy(kind, device).lm, "student", UPPER, seed=3)
        starts.append({key: value.cpu() for key, value in adapters.weights(lm, "student").items()})
    torch.testing.assert_close(starts[0], starts[1], atol=0, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_attaching_an_adapter_leaves_the_random_stream_of_the_device(kind, on_device):
    model = toy(kind, on_device)
    torch.manual_seed(1)
    expected = torch.rand(3, device=on_device)
    torch.manual_seed(1)
    adapters.attach(model.lm, "student", UPPER, seed=3)
    torch.testing.assert_close(torch.rand(3, device=on_device), expected, atol=0, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_replay_gives_the_logits_and_gradients_of_computed_blocks(kind, on_device, samples):
    model = adapted(kind, on_device)
    examples = model.encode(samples)
    index = np.array([3, 1, 8, 5])
    with ActivationCache(model, 1, dtype=torch.float32, max_bytes=1 << 30) as cache:
        # Two rows of the batch are left out, and computed beside the others.
        cached_rows = cache.attach_states(examples, np.array([1, 3, 9]))
        replayed = model.collate(cached_rows, index)
        assert replayed.cached is not None
        assert replayed.cached.device.type == on_device.type
        expected = gradients(model, model.collate(examples, index))
        assert_near(gradients(model, replayed), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_shortcuts_hold_on_the_device(kind, on_device, samples):
    model = adapted(kind, on_device)
    assert model.answer_only == (kind == "causal")
    assert model.can_replay(1)
    batch = model.collate(model.encode(samples), np.arange(12))
    with model.using(["student"]), torch.no_grad():
        torch.testing.assert_close(
            model.logits(batch), model.plain_logits(batch), atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("lora", [None, LoRA(rank=2, dropout=0.1)], ids=["full", "lora"])
def test_tuning_with_dropout_is_the_same_twice(lora, on_device, samples):
    schedule = Schedule(epochs=1, learning_rate=1e-3, batch_size=16, precision="fp32")
    scores = []
    for _ in range(2):
        untuned = toy("seq2seq", on_device)
        rows = untuned.encode(samples)
        tuning = Tuning(schedule=schedule, lora=lora)
        model, trace = tune(untuned, tuning, rows, None, Phase("original", 3))
        assert np.isfinite([loss["train"] for loss in trace.losses]).all()
        scores.append(model.score(rows))
    # Kernels that add in no fixed order differ in the last digits.
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-4)


def task_on(task: Task, device: torch.device, attention: str) -> Task:
    """The same task, put to a copy of its original on the device."""
    original = task.original.copy()
    bare = original.lm.get_base_model() if isinstance(original.lm, PeftModel) else original.lm
    bare.set_attn_implementation(attention)
    original.lm.to(device)
    if hasattr(original, "combination") and hasattr(original.combination, "states"):
        combination = copy.copy(vars(original.combination))
        for name in ("states", "errors"):
            combination[name] = combination[name].to(device)
        original.combination = type(original.combination)(**combination)
    assert task.base is not None
    values = vars(task) | {"original": original, "base": moved(task.base, device, attention)}
    values |= {"costs": type(task.costs)(), "phase_logs": [], "outcome": type(task.outcome)()}
    return Task(**values)


@pytest.mark.parametrize("name", METHODS)
def test_method_ends_with_the_answers_that_it_ends_with_on_the_cpu(name, device):
    method = build(name, METHODS[name])
    with running_on(CPU):
        task = toy_task_for(method, "causal", lora=not method.prepares)
        answers = []
        before = predict(task.original, task.forget, precision="fp32").log_odds
    for place, attention in ((device, FUSED), (CPU, PLAIN)):
        with running_on(place):
            placed = task_on(task, place, attention)
            model = method.unlearn(placed)
            assert model.device.type == place.type
            answers.append(predict(model, task.forget, precision="fp32").log_odds)
            assert sum(placed.costs.seconds.values()) > 0
    moved_by = np.abs(answers[1] - before).max()
    assert moved_by > 1e-3
    # A first step of AdamW is as large for a gradient of nothing but rounding as for any other.
    assert np.abs(answers[0] - answers[1]).max() < 0.05 * moved_by + 1e-3


def test_original_is_left_where_it_is_by_every_switch_of_adapters(on_device, samples):
    model = adapted("causal", on_device)
    examples = model.encode(samples)
    before = model.score(examples)
    copied = model.copy()
    with copied.using(["student"]):
        pass
    assert copied.device == model.device
    np.testing.assert_array_equal(copied.score(examples), before)
