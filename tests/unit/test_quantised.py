"""A base in 4 or 8 bits: planned as it is, refused where it cannot serve, and used where it can."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from e2urec.api.plan_memory import plan_memory
from e2urec.core.errors import ConfigError
from e2urec.data.prompts import TEMPLATES
from e2urec.experiments.memory.moments import Machine
from e2urec.experiments.memory.simulated_steps import SimulatedModel
from e2urec.experiments.recipe import Recipe
from e2urec.models import adapter_algebra, adapters
from e2urec.models.adapters import LoRA
from e2urec.models.backbone import load_backbone, load_frozen
from e2urec.models.base_files import base_hashes
from e2urec.models.live_bytes import model_tensors, tensor_bytes
from e2urec.models.quantisation import is_quantised, packed_tensors
from e2urec.models.recommender import Recommender
from e2urec.training.supervised import fully_trainable
from toy_data import quick_settings, write_ratings

BITS = ["4bit", "8bit"]
has_library = importlib.util.find_spec("bitsandbytes") is not None
needs_library = pytest.mark.skipif(not has_library, reason="bitsandbytes is an extra")


@pytest.mark.parametrize("bits", BITS)
def test_without_the_library_the_extra_is_named_in_one_line(monkeypatch, toy, bits) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"model\.quantize={bits}.*e2urec\[quantize\]") as caught:
        load_backbone(toy, dtype=bits)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bits", BITS)
def test_whole_tuning_in_few_bits_is_refused_in_one_line(bits: str) -> None:
    with pytest.raises(ConfigError, match=r"set tuning\.lora\.rank=16") as caught:
        Recipe().updated([f"model.quantize={bits}"])
    assert "\n" not in str(caught.value)


def test_gguf_file_is_not_packed_anew_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()
    recipe = ["tuning.lora.rank=2", "model.quantize=8bit"]
    for attempt in (
        lambda: load_frozen(tmp_path, quantize="8bit"),
        lambda: plan_memory(str(tmp_path), recipe),
    ):
        with pytest.raises(ConfigError, match=r"model\.quantize=8bit.*GGUF.*safetensors") as caught:
            attempt()
        assert "\n" not in str(caught.value)


def library_bytes(lm: object) -> int:
    """Bytes of a quantised model, with the scales that bitsandbytes keeps beside its weights."""
    tensors = [*model_tensors(lm), *packed_tensors(lm)]
    for parameter in lm.parameters():
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            inner = state.state2
            tensors += [state.absmax, state.code, state.offset, inner.absmax, inner.code]
    return tensor_bytes(tensors)


@needs_library
@pytest.mark.parametrize("bits", BITS)
def test_planned_bytes_of_a_quantised_base_are_those_that_it_takes(toy: Path, bits: str) -> None:
    backbone = load_backbone(toy, dtype=bits)
    assert is_quantised(backbone.lm)
    recipe = Recipe().updated(["tuning.lora.rank=4", f"model.quantize={bits}", "model.window=64"])
    machine = Machine(is_gpu=False, bytes=10**9)
    config = load_backbone(toy).lm.config
    planned = SimulatedModel(recipe, config, machine).weight_bytes
    assert planned == pytest.approx(library_bytes(backbone.lm), rel=0.02)


@needs_library
@pytest.mark.parametrize("bits", BITS)
def test_quantised_weights_are_neither_tuned_nor_merged(toy: Path, bits: str) -> None:
    backbone = load_backbone(toy, dtype=bits)
    model = Recommender(backbone, TEMPLATES["compact"])
    with (
        pytest.raises(ConfigError, match="tuning the whole model"),
        fully_trainable(model, embeddings=False),
    ):
        pass
    model.lm = adapters.attach(model.lm, "original", LoRA(rank=2), seed=0)
    with pytest.raises(ConfigError, match="merging an adapter"):
        adapter_algebra.merge(model.lm, ["original"])


@needs_library
@pytest.mark.parametrize("bits", BITS)
def test_quantised_run_is_trained_forgets_and_is_measured(
    call, toy: Path, tmp_path: Path, bits: str
) -> None:
    settings = [
        *quick_settings(write_ratings(tmp_path), toy),
        "tuning.lora.rank=2",
        f"model.quantize={bits}",
        "data.unseen=0.2",
    ]
    words = [word for setting in settings for word in ("--set", setting)]
    original = tmp_path / "original"
    status, _, error = call("train", "--out", original, *words)
    assert status == 0, error
    record = json.loads((original / "run.json").read_text())
    assert record["base"]["files"] == base_hashes(toy)

    forgotten = tmp_path / "forgotten"
    few = ["--set", "min_steps=2", "--set", "augment_min_steps=2"]
    request = ["--forget-ratio", "0.2", "--seed", "1"]
    status, _, error = call("unlearn", original, "--out", forgotten, *request, *few)
    assert status == 0, error
    status, printed, error = call("evaluate", forgotten, *request, "--json")
    assert status == 0, error
    assert json.loads(printed)

    status, _, error = call("export", forgotten, "--merged", "--out", tmp_path / "merged")
    assert status == 2
    assert "--adapter" in error
    status, _, error = call("export", forgotten, "--adapter", "--out", tmp_path / "adapter")
    assert status == 0, error
    status, _, error = call("evaluate", forgotten, *request, "--robustness")
    assert status == 2
    assert "full precision" in error or "torchao" in error


@needs_library
@pytest.mark.parametrize("bits", BITS)
def test_copies_share_packed_weights_and_answer_alike(toy: Path, bits: str) -> None:
    backbone = load_backbone(toy, dtype=bits)
    one_model = library_bytes(backbone.lm)
    copies = [backbone.with_shared_weights() for _ in range(2)]
    models = [Recommender(copy, TEMPLATES["compact"]) for copy in (backbone, *copies)]
    prompts = models[0].encode_texts(["Liked: Heat (1995). Will the user like it?"])
    scores = [float(model.score(prompts)[0]) for model in models]
    assert scores[0] == scores[1] == scores[2]
    tensors = []
    for model in models:
        tensors += [*model_tensors(model.lm), *packed_tensors(model.lm)]
    # Buffers, such as those of positions, are each copy's own, and small.
    assert tensor_bytes(tensors) < 1.1 * one_model


@needs_library
@pytest.mark.parametrize("bits", BITS)
def test_quantised_scores_are_near_those_of_whole_weights(toy: Path, bits: str) -> None:
    prompts = [f"Liked: film {number}. Will the user like it?" for number in range(9)]
    scores = []
    for dtype in (torch.float32, bits):
        model = Recommender(load_backbone(toy, dtype=dtype), TEMPLATES["compact"])
        scores.append(model.score(model.encode_texts(prompts)))
    assert np.abs(scores[0] - scores[1]).max() < 0.05


@needs_library
@pytest.mark.parametrize("bits", BITS)
def test_score_in_few_bits_does_not_depend_on_batch_neighbours(toy: Path, bits: str) -> None:
    model = Recommender(load_backbone(toy, dtype=bits), TEMPLATES["compact"])
    rows = model.encode_texts(
        [f"Liked: film {number}. Will the user like it?" for number in range(9)]
    )
    together = model.score(rows)
    alone = np.concatenate([model.score(rows.take(np.array([number]))) for number in range(9)])
    assert torch.allclose(torch.tensor(together), torch.tensor(alone), atol=1e-4)
