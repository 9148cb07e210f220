"""What adapters and models made elsewhere are refused by name, and what to do instead."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import (
    IA3Config,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import foreign_models as foreign
from families import FAMILIES, build
from foreign_models import words

LORA = {"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
OF_HEAD = LORA | {"target_modules": ["q_proj", "lm_head"]}
MERGE = "merge it into its base and import the whole model"
KINDS: dict[str, tuple[Any, str]] = {
    "DoRA": (LoraConfig(**LORA, use_dora=True), "use_dora=True"),
    "bias of LoRA layers": (LoraConfig(**LORA, bias="lora_only"), "bias='lora_only'"),
    "all biases": (LoraConfig(**LORA, bias="all"), "bias='all'"),
    "bias of B": (LoraConfig(**LORA, lora_bias=True), "lora_bias=True"),
    "whole layers": (LoraConfig(**LORA, modules_to_save=["norm"]), "modules_to_save=['norm']"),
    "ranks by layer": (LoraConfig(**LORA, rank_pattern={"q_proj": 2}), "rank_pattern="),
    "prefix": (PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"), "PREFIX_TUNING"),
    "prompt": (PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"), "PROMPT_TUNING"),
    "IA3": (
        IA3Config(
            target_modules=["k_proj", "down_proj"],
            feedforward_modules=["down_proj"],
            task_type="CAUSAL_LM",
        ),
        "of the kind IA3",
    ),
    "embeddings": (
        LoraConfig(**LORA | {"target_modules": ["embed_tokens"]}),
        "embed_tokens",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_adapter_as_peft_writes_it_is_refused_by_the_name_of_what_it_is(
    call, made: Path, tmp_path: Path, kind: str
) -> None:
    config, name = KINDS[kind]
    lm = AutoModelForCausalLM.from_pretrained(made / "base")
    get_peft_model(lm, config).save_pretrained(str(tmp_path / "adapter"))
    status, _, told = call(*words(made, tmp_path / "adapter", tmp_path / "run"))
    assert status == 2
    assert name in told
    assert "merge it into its base" in told
    assert told.count("\n") == 1


@pytest.mark.filterwarnings("ignore:.*tied")
@pytest.mark.parametrize("is_tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("copies", [True, False], ids=["with copies", "without"])
def test_adapter_on_the_output_head_is_refused_with_what_to_do_instead(
    call, made: Path, tmp_path: Path, is_tied: bool, copies: bool
) -> None:
    base = tmp_path / "base"
    lm = AutoModelForCausalLM.from_pretrained(made / "base")
    tokenizer = AutoTokenizer.from_pretrained(made / "base")
    if not is_tied:
        lm.config.tie_word_embeddings = False
        lm.lm_head.weight = torch.nn.Parameter(lm.lm_head.weight.detach().clone())
    lm.save_pretrained(base)
    tokenizer.save_pretrained(base)
    lm = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(0)
    adapted = get_peft_model(lm, LoraConfig(**OF_HEAD, init_lora_weights=False))
    adapted.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=copies)
    status, _, told = call(*words(made, tmp_path / "adapter", tmp_path / "run"))
    assert status == 2
    assert "lm_head" in told
    assert "merge it into its base" in told
    # Its update would be added to the embeddings as well.
    if is_tied or copies:
        assert "must not be tied to its embeddings" in told


def test_head_that_was_merged_into_a_base_of_its_own_is_taken_over(
    call, made: Path, tmp_path: Path
) -> None:
    """The remedy of the message above."""
    lm = AutoModelForCausalLM.from_pretrained(made / "base")
    tokenizer = AutoTokenizer.from_pretrained(made / "base")
    lm.config.tie_word_embeddings = False
    lm.lm_head.weight = torch.nn.Parameter(lm.lm_head.weight.detach().clone())
    torch.manual_seed(0)
    adapted = get_peft_model(lm, LoraConfig(**OF_HEAD, lora_alpha=16))
    foreign.tune(adapted, tokenizer, made / "rows.jsonl")
    scores = foreign.score(adapted, tokenizer, foreign.prompts_of(made / "rows.jsonl"))
    np.save(tmp_path / "scores.npy", np.array(scores))
    adapted.merge_and_unload().save_pretrained(tmp_path / "whole")
    tokenizer.save_pretrained(tmp_path / "whole")
    command = words(made, tmp_path / "whole", tmp_path / "run")
    status, _, told = call(*command, "--scores", tmp_path / "scores.npy")
    assert status == 0, told


def gone(base: Path) -> None:
    shutil.rmtree(base)


def lacking_a_weight(base: Path) -> None:
    file = base / "model.safetensors"
    _, *others = sorted(load_file(file).items())
    save_file(dict(others), file, metadata={"format": "pt"})


def damaged(base: Path) -> None:
    (base / "config.json").write_text("{", encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (gone, "model '{base}': cannot be loaded ("),
        (lacking_a_weight, "model '{base}': 2 missing weights, such as"),
        (damaged, "valid JSON"),
    ],
)
def test_adapter_whose_base_cannot_be_loaded_is_refused_with_the_cause(
    call, made: Path, tmp_path: Path, change, cause: str
) -> None:
    base = tmp_path / "base"
    shutil.copytree(made / "base", base)
    shutil.copytree(made / "adapter", tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(config | {"base_model_name_or_path": str(base)}), encoding="utf-8")
    change(base)
    status, _, told = call(*words(made, tmp_path / "adapter", tmp_path / "run"))
    assert (status, told.count("\n")) == (2, 1), told
    assert f"says that it is of '{base}', which cannot be loaded; name its base with --base" in told
    assert cause.format(base=base) in told


def test_projector_of_ids_is_refused_by_name_in_an_adapter_and_in_a_model(
    call, made: Path, tmp_path: Path
) -> None:
    projector = {"llama_proj.0.weight": torch.ones(2, 2)}
    adapter = tmp_path / "adapter"
    shutil.copytree(made / "adapter", adapter)
    file = adapter / "adapter_model.safetensors"
    save_file(load_file(file) | projector, file, metadata={"format": "pt"})
    whole = tmp_path / "whole"
    tokenizer = AutoTokenizer.from_pretrained(made / "base")
    lm = AutoModelForCausalLM.from_pretrained(made / "base")
    PeftModel.from_pretrained(lm, str(made / "adapter")).merge_and_unload().save_pretrained(whole)
    tokenizer.save_pretrained(whole)
    file = whole / "model.safetensors"
    save_file(load_file(file) | projector, file, metadata={"format": "pt"})
    for model in (adapter, whole):
        status, _, told = call(*words(made, model, tmp_path / "run"))
        assert status == 2
        assert "holds the projector llama_proj.0.weight" in told
        assert "text stage" in told


def test_window_beyond_the_positions_of_a_model_is_one_line(
    call, made: Path, tmp_path: Path
) -> None:
    (family,) = [family for family in FAMILIES if family.name == "GPT-2"]
    backbone = build(family)
    backbone.lm.save_pretrained(tmp_path / "model")
    backbone.tokenizer.save_pretrained(tmp_path / "model")
    command = words(made, tmp_path / "model", tmp_path / "run")
    status, _, told = call(*command, "--set", "model.window=2048")
    assert status == 2
    assert "has 512 positions, and model.window is 2048; set it to 512 or less" in told
    assert "Traceback" not in told
