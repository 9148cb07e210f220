"""A frozen base in fewer bits answers and is adapted as its float32 copy, in half the memory."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from e2urec.data.prompts import TEMPLATES
from e2urec.data.splits import SplitSettings, split
from e2urec.methods import build
from e2urec.methods.e2urec import E2URec
from e2urec.models import adapter_algebra, adapters, stored_weights
from e2urec.models.adapters import LoRA
from e2urec.models.backbone import Backbone, load_frozen
from e2urec.models.batches import Batch
from e2urec.models.predictions import predict
from e2urec.models.recommender import Recommender
from e2urec.testing import TUNING, toy_backbone, toy_interactions, toy_task
from e2urec.training.loop import Phase
from e2urec.training.supervised import tune
from e2urec.unlearning.task import Task

# A fifth of a toy T5 are layers that its family reads itself.
pytestmark = pytest.mark.filterwarnings("ignore:model of type 't5'")

KINDS = ["causal", "seq2seq"]
LORA = LoRA(rank=4, targets="all")


def in_bf16(lm: Any) -> None:
    """Round all weights but those of adapters, and hold them as they are stored."""
    for name, parameter in lm.named_parameters():
        if "lora_" not in name:
            parameter.data = parameter.data.bfloat16()
    stored_weights.keep_stored(lm)


def in_float32(lm: Any) -> None:
    """Round all weights but those of adapters, and hold them in float32."""
    for name, parameter in lm.named_parameters():
        if "lora_" not in name:
            parameter.data = parameter.data.bfloat16().float()
    lm.requires_grad_(False)


def pair(kind: str) -> list[Recommender]:
    """The same model in bf16 and in float32."""
    models = []
    for hold in (in_bf16, in_float32):
        backbone = toy_backbone(kind)
        hold(backbone.lm)
        models.append(Recommender(backbone, TEMPLATES["compact"]))
    return models


@pytest.fixture
def samples():
    return split(toy_interactions(), SplitSettings(history=3, calibration=0), seed=1).train


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_adapter_tuned_on_bf16_is_bit_for_bit_that_of_the_float32_copy(kind, precision, samples):
    schedule = TUNING.schedule.model_copy(update={"epochs": 1, "precision": precision})
    tuning = TUNING.model_copy(update={"lora": LORA, "schedule": schedule})
    weights = []
    odds = []
    for untuned in pair(kind):
        rows = untuned.encode(samples)
        model, _ = tune(untuned, tuning, rows, None, Phase("original", 1))
        weights.append(adapters.weights(model.lm, "original"))
        odds.append(predict(model, rows, precision=precision, states=True))
    assert all(weight.dtype == torch.float32 for weight in weights[0].values())
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())
    np.testing.assert_array_equal(odds[0].log_odds, odds[1].log_odds)
    np.testing.assert_array_equal(odds[0].hidden, odds[1].hidden)
    # NumPy has the bits of the one, and the numbers of the other.
    stored = torch.from_numpy(odds[0].head.weight).view(torch.bfloat16)
    np.testing.assert_array_equal(stored.float().numpy(), odds[1].head.weight)


def matrix_bytes(lm: Any) -> int:
    weights = {id(weight): weight for weight in lm.parameters() if weight.dim() > 1}
    return sum(weight.numel() * weight.element_size() for weight in weights.values())


def test_matrices_take_half_the_bytes_and_tied_ones_stay_tied():
    low, high = pair("causal")
    assert 2 * matrix_bytes(low.lm) == matrix_bytes(high.lm)
    lm = low.lm
    assert lm.get_input_embeddings().weight is lm.get_output_embeddings().weight
    norms = [weight for weight in lm.parameters() if weight.dim() == 1]
    assert all(weight.dtype == torch.float32 for weight in norms)


def test_t5_keeps_the_layers_that_its_family_reads_itself_in_float32():
    low, _ = pair("seq2seq")
    dtypes = {name.split(".")[-2]: weight.dtype for name, weight in low.lm.named_parameters()}
    assert dtypes["wo"] == torch.float32
    assert dtypes["q"] == torch.bfloat16


def float32_weights_held(model: Recommender, batch: Batch) -> int:
    """Float32 tensors of a weight's shape that a pass holds for the backward pass."""
    shapes = [weight.shape for name, weight in model.lm.named_parameters() if "lora" not in name]
    matrices = {tuple(sorted(shape)) for shape in shapes if len(shape) == 2}
    held = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dtype == torch.float32 and tuple(sorted(tensor.shape)) in matrices:
            held.append(tensor)
        return tensor

    with (
        model.using(("student",), train="student"),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        model(batch)
    return len(held)


def test_no_weight_is_held_in_float32_until_the_backward_pass(samples):
    low, high = pair("causal")
    counts = []
    for model in (low, high):
        model.lm = adapters.attach(model.lm, "student", LORA, seed=0)
        # Three rows: no state has the shape of a weight then.
        batch = model.collate(model.encode(samples), np.arange(3))
        counts.append(float32_weights_held(model, batch))
    assert counts[0] == 0
    # All that lie above the first adapter, the head among them.
    assert counts[1] >= 10, counts
    assert low.head.weight is low.lm.get_output_embeddings().weight


def test_pieces_of_a_weight_give_what_the_whole_gives(monkeypatch):
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(7, 5, generator=random).bfloat16()
    bias = torch.randn(7, generator=random)
    x = torch.randn(3, 2, 5, generator=random, requires_grad=True)
    results = []
    for numbers in (100, 10):
        monkeypatch.setattr(stored_weights, "PIECE_NUMBERS", numbers)
        y = stored_weights.linear(x, weight, bias)
        (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), x)
        results.append((y, gradient, second))
    torch.testing.assert_close(*results, atol=1e-3, rtol=1e-5)
    plain = torch.nn.functional.linear(x, weight.float(), bias)
    assert torch.equal(results[0][0], plain)


def test_a_copy_to_be_tuned_whole_is_float32_and_leaves_the_base_as_it_was():
    low, high = pair("causal")
    copies = [low.copy().lm, low.backbone.copy().lm]
    for lm in copies:
        assert matrix_bytes(lm) == matrix_bytes(high.lm)
        assert lm.get_input_embeddings().weight is lm.get_output_embeddings().weight
        for name, weight in high.lm.named_parameters():
            assert torch.equal(lm.get_parameter(name), weight)
    assert low.lm.get_input_embeddings().weight.dtype == torch.bfloat16


def test_merged_and_added_up_adapters_are_not_rounded():
    low, high = pair("causal")
    sums = []
    merged = []
    for model in (low, high):
        for number, name in enumerate(("first", "second")):
            model.lm = adapters.attach(model.lm, name, LORA, seed=number)
            with model.using((name,), train=name) as parameters, torch.no_grad():
                torch.manual_seed(number)
                for parameter in parameters:
                    parameter.normal_(std=0.1)
        copied = Recommender(model.backbone.with_shared_weights(), TEMPLATES["compact"])
        merged.append(adapter_algebra.merge(copied.lm, ("first", "second")))
        for into, rank in (("exact", None), ("near", 3)):
            adapter_algebra.concatenate(model.lm, list(model.lm.peft_config), into, rank=rank)
            sums.append(adapters.weights(model.lm, into))
    assert all(weight.dtype == torch.float32 for weight in sums[0].values())
    for one, other in ((sums[0], sums[2]), (sums[1], sums[3])):
        assert all(torch.equal(weight, other[name]) for name, weight in one.items())
    adapted = merged[0].get_parameter("model.layers.0.self_attn.q_proj.weight")
    assert torch.equal(adapted, merged[1].get_parameter("model.layers.0.self_attn.q_proj.weight"))


SETTINGS = {**E2URec.presets["gain"], "min_steps": 4, "augment_min_steps": 4}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("e2urec", SETTINGS),
        ("e2urec", SETTINGS | {"augment": "full", "start_scale": 0}),
        ("ifru", {"rows": 16, "iterations": 2}),
    ],
    ids=["adapter", "full-copy", "ifru"],
)
def test_unlearning_on_a_bf16_base_gives_the_scores_of_the_float32_copy(name, settings):
    def forget(hold: Callable[[Any], None]) -> Task:
        task = toy_task("causal", lora=True)
        hold(task.original.lm)
        task.original = build(name, settings).unlearn(task)
        return task

    low, high = forget(in_bf16), forget(in_float32)
    scores = low.original.score(low.forget)
    np.testing.assert_allclose(scores, high.original.score(high.forget), atol=1e-6)
    weight = low.original.lm.get_input_embeddings().weight
    assert weight.dtype == torch.bfloat16


def saved(folder: Path, dtype: torch.dtype) -> Backbone:
    backbone = toy_backbone("causal")
    backbone.lm.to(dtype).save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)
    return backbone


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_frozen_base_is_held_in_the_precision_of_its_file(dtype, tmp_path):
    saved(tmp_path, dtype)
    lm = load_frozen(tmp_path).lm
    weight = lm.get_input_embeddings().weight
    assert weight.dtype == dtype
    stored = load_file(tmp_path / "model.safetensors")
    assert torch.equal(weight, stored["model.embed_tokens.weight"])


def test_what_settings_say_of_the_precision_does_not_round_float32_weights(tmp_path):
    saved(tmp_path, torch.float32)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(config | {"dtype": "bfloat16"}), encoding="utf-8")
    assert load_frozen(tmp_path).lm.dtype == torch.float32


def test_weights_of_which_one_matrix_is_float32_are_held_in_float32(tmp_path):
    saved(tmp_path, torch.bfloat16)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.0.mlp.up_proj.weight"] = torch.randn(64, 32)
    save_file(weights, file, metadata={"format": "pt"})
    weight = load_frozen(tmp_path).lm.get_parameter("model.layers.0.mlp.up_proj.weight")
    assert torch.equal(weight, load_file(file)["model.layers.0.mlp.up_proj.weight"])


def test_answers_of_models_on_a_bf16_base_hold_no_copy_of_its_head(samples):
    low, _ = pair("causal")
    other = Recommender(low.backbone.with_shared_weights(), TEMPLATES["compact"])
    stored = low.head.weight.detach().view(torch.uint16).numpy()
    for model in (low, low, other):
        answers = predict(model, model.encode(samples.take(np.arange(3))), states=True)
        assert np.shares_memory(answers.head.weight, stored)
