"""A recommender that a plain script made is taken over, forgets, and is given back."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import foreign_models as foreign
from foreign_models import words


def changed(made: Path, folder: Path, **settings: object) -> Path:
    """A copy of the adapter with other settings."""
    shutil.copytree(made / "adapter", folder)
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(config | settings), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def request_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("request") / "users.txt"
    file.write_text("u1\nu2\n", encoding="utf-8")
    return file


def test_adapter_of_a_plain_script_is_taken_over_and_forgets(
    call, made: Path, request_file: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = [*words(made, made / "adapter", run), "--scores", made / "scores.npy"]
    status, out, told = call(*command)
    assert status == 0, told
    # Once, and not on standard error as well.
    assert out.count("96 scores are those of") == 1
    assert out.count("96 training rows: log loss") == 1
    assert told.count("training rows") == 0
    kept = load_file(run / "adapter" / "adapter_model.safetensors")
    assert all(
        torch.equal(tensor, kept[key])
        for key, tensor in load_file(made / "adapter" / "adapter_model.safetensors").items()
    )
    forgotten = tmp_path / "forgotten"
    quick = ["--set", "joint=1", "--set", "min_steps=4", "--set", "augment_min_steps=4"]
    options = ["--request", request_file]
    status, out, told = call("unlearn", run, "--out", forgotten, *options, *quick)
    assert status == 0, told
    assert "16 rows of 2 users went; 12 training prompts were forgotten" in out
    retrained = tmp_path / "retrained"
    retraining = ["unlearn", run, "--out", retrained, "--method", "retrain", *options]
    assert call(*retraining)[0] == 0
    status, out, told = call("evaluate", forgotten, "--against", retrained, *options, "--json")
    assert status == 0, told
    assert json.loads(out)["utility"]["unlearned"]["auc"]["value"] > 0.5


def test_rank_stabilised_adapter_answers_as_its_makers_say(
    call, made: Path, tmp_path: Path
) -> None:
    adapter = changed(made, tmp_path / "rslora", use_rslora=True)
    tokenizer = AutoTokenizer.from_pretrained(made / "base")
    lm = AutoModelForCausalLM.from_pretrained(made / "base")
    adapted = PeftModel.from_pretrained(lm, str(adapter))
    scores = foreign.score(adapted, tokenizer, foreign.prompts_of(made / "rows.jsonl"))
    np.save(tmp_path / "scores.npy", np.array(scores))
    command = words(made, adapter, tmp_path / "run")
    # It was not tuned at this scale, so it says its answers less surely.
    options = ["--scores", tmp_path / "scores.npy", "--min-mass", "0"]
    status, _, told = call(*command, *options)
    assert status == 0, told
    # Another scale is another model.
    status, _, told = call(
        *words(made, made / "adapter", tmp_path / "other"), "--scores", tmp_path / "scores.npy"
    )
    assert status == 2
    assert "scores differ by more than 0.001" in told


def test_pickled_adapter_of_an_old_version_is_read_without_running_it(
    call, made: Path, tmp_path: Path
) -> None:
    adapter = changed(made, tmp_path / "old", enable_lora=None, merge_weights=False)
    weights = adapter / "adapter_model.safetensors"
    torch.save(load_file(weights), adapter / "adapter_model.bin")
    weights.unlink()
    assert call(*words(made, adapter, tmp_path / "run"))[0] == 0
    torch.save({}, adapter / "adapter_model.bin")
    status, _, told = call(*words(made, adapter, tmp_path / "empty"))
    assert status == 2
    assert "holds no weights at all" in told
    torch.save(Path(), adapter / "adapter_model.bin")
    status, _, told = call(*words(made, adapter, tmp_path / "code"))
    assert status == 2
    assert "weights are damaged" in told


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"use_dora": True}, "setting use_dora=True"),
        ({"bias": "all"}, "setting bias='all'"),
        ({"lora_bias": True}, "setting lora_bias=True"),
        ({"modules_to_save": ["lm_head"]}, "setting modules_to_save=['lm_head']"),
        ({"rank_pattern": {"q_proj": 8}}, "setting rank_pattern="),
        ({"init_lora_weights": "pissa"}, "setting init_lora_weights='pissa'"),
        ({"peft_type": "IA3"}, "is of the kind IA3"),
        ({"r": 8}, "of rank [4], its settings say 8"),
        ({"base_model_name_or_path": None}, "name it with --base"),
        ({"base_model_name_or_path": "/data/gone"}, "cannot be loaded; name its base with --base"),
    ],
)
def test_adapter_that_is_more_than_plain_lora_is_refused_by_name(
    call, made: Path, tmp_path: Path, settings, reason
) -> None:
    adapter = changed(made, tmp_path / "adapter", **settings)
    status, _, told = call(*words(made, adapter, tmp_path / "run"))
    assert status == 2
    assert reason in told
    assert told.count("\n") == 1
    assert not (tmp_path / "run").exists()


def without_up(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value * (0 if "lora_B" in key else 1) for key, value in tensors.items()}


def with_head(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return tensors | {"base_model.model.lm_head.weight": torch.ones(2, 2)}


def without_half(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    _, *others = sorted(tensors)
    return {key: tensors[key] for key in others}


def of_another_base(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.replace("q_proj", "p_proj"): value for key, value in tensors.items()}


def of_another_size(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: torch.cat([value, value], 1 - ("B" in key)) for key, value in tensors.items()}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without_up, "all its B matrices are zero"),
        (with_head, "holds base_model.model.lm_head.weight, which is no matrix of a plain"),
        (without_half, "lacks one of A and B"),
        (of_another_base, "lacks 2 of the adapter's layers"),
        (of_another_size, "cannot be loaded"),
    ],
)
def test_adapter_whose_weights_are_not_what_they_say_is_refused(
    call, made: Path, tmp_path: Path, change, reason
) -> None:
    adapter = changed(made, tmp_path / "adapter")
    file = adapter / "adapter_model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    status, _, told = call(*words(made, adapter, tmp_path / "run"))
    assert (status, reason in told) == (2, True), told


def test_answers_that_do_not_carry_what_was_tuned_are_refused_with_the_figure(
    call, made: Path, tmp_path: Path
) -> None:
    rows = (made / "rows.jsonl").read_text(encoding="utf-8")
    swapped = rows.replace("Yes.", "?").replace("No.", "Yes.").replace("?", "No.")
    (tmp_path / "rows.jsonl").write_text(swapped, encoding="utf-8")
    command = [*words(made, made / "adapter", tmp_path / "run")]
    command[3] = tmp_path / "rows.jsonl"
    status, _, told = call(*command)
    assert status == 2
    assert "its log loss on 96 training rows is" in told
    assert "the share of liked rows alone gives 0.693" in told


def test_rows_without_users_of_whom_nothing_was_seen_are_refused(
    call, made: Path, tmp_path: Path
) -> None:
    command = words(made, made / "adapter", tmp_path / "run")
    status, _, told = call(*command[:4], *command[6:])
    assert status == 2
    assert "none are left for valid, so no placebo can be made" in told
    assert "--held" in told


def test_whole_model_keeps_its_precision_and_needs_its_base_to_be_retrained(
    call, made: Path, request_file: Path, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(made / "base")
    lm = AutoModelForCausalLM.from_pretrained(made / "base")
    adapted = PeftModel.from_pretrained(lm, str(made / "adapter"))
    whole = adapted.merge_and_unload().to(torch.bfloat16)
    whole.save_pretrained(tmp_path / "whole")
    tokenizer.save_pretrained(tmp_path / "whole")
    run = tmp_path / "run"
    command = words(made, tmp_path / "whole", run)
    status, _, told = call(*command)
    assert status == 0, told
    assert "the base of the model is not known" in told
    stored = load_file(run / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    retraining = ["--request", request_file, "--method", "retrain", "--out", tmp_path / "again"]
    status, _, told = call("unlearn", run, *retraining)
    assert (status, "import the model with --base" in told) == (2, True), told
    based = tmp_path / "based"
    command[command.index(run)] = based
    assert call(*command, "--base", made / "base")[0] == 0
    assert call("unlearn", based, *retraining)[0] == 0


def test_prompts_said_in_a_chat_are_read_in_the_tokenizers_own_form(
    call, made: Path, tmp_path: Path
) -> None:
    command = [*words(made, made / "adapter", tmp_path / "run"), "--chat"]
    status, _, told = call(*command)
    assert (status, "has no template for a chat" in told) == (2, True), told
    base = tmp_path / "base"
    shutil.copytree(made / "base", base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    # A chat that adds nothing: the model then answers as it was tuned to.
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(base)
    scores = ["--scores", made / "scores.npy"]
    assert call(*command, "--base", base, *scores)[0] == 0
    tokenizer.chat_template = (
        "{{ messages[0]['content'] }}{% if add_generation_prompt %}A{% endif %}"
    )
    tokenizer.save_pretrained(base)
    command[command.index(tmp_path / "run")] = tmp_path / "other"
    status, _, told = call(*command, "--base", base, *scores)
    assert status == 2
    assert "scores differ" in told or "so they are not read as it was tuned" in told


def test_request_for_a_row_says_that_other_prompts_stay(call, made: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert call(*words(made, made / "adapter", run))[0] == 0
    pairs = tmp_path / "rows.csv"
    pairs.write_text("user,item\nu1,m1\n", encoding="utf-8")
    status, out, told = call("unlearn", run, "--request", pairs, "--dry-run")
    assert status == 0, told
    assert "which stay word for word" in told
    assert "1 row of 1 user would go" in out


@pytest.mark.parametrize(
    "settings",
    [
        {"lora_alpha": "x"},
        {"lora_alpha": 0},
        {"lora_dropout": 1.0},
        {"r": [4]},
        {"r": "4"},
        {"task_type": "SEQ_CLS"},
        {"use_rslora": "false"},
        {"base_model_name_or_path": ["a"]},
    ],
)
def test_adapter_whose_settings_are_no_such_values_is_refused_in_one_line(
    call, made: Path, tmp_path: Path, settings: dict[str, object]
) -> None:
    adapter = changed(made, tmp_path / "changed", **settings)
    status, out, told = call(*words(made, adapter, tmp_path / "run"))
    assert (status, out) == (2, "")
    assert "adapter_config.json': is damaged" in told
    assert not (tmp_path / "run").exists()


def test_adapter_of_other_numbers_than_its_precision_allows_is_refused(
    call, made: Path, tmp_path: Path
) -> None:
    tensors = load_file(made / "adapter" / "adapter_model.safetensors")
    first = next(iter(tensors))
    whole = {key: tensor.long() for key, tensor in tensors.items()}
    mixed = tensors | {first: tensors[first].half()}
    broken = tensors | {first: torch.full_like(tensors[first], torch.nan)}
    for name, changed_tensors, message in (
        ("whole", whole, "its matrices are of int64"),
        ("mixed", mixed, "its matrices are of float16, float32"),
        ("broken", broken, "some of its weights are no numbers"),
    ):
        adapter = changed(made, tmp_path / name)
        save_file(changed_tensors, adapter / "adapter_model.safetensors")
        status, _, told = call(*words(made, adapter, tmp_path / "run"))
        assert status == 2
        assert message in told


def test_limit_that_would_leave_out_tuned_rows_is_refused(call, made: Path, tmp_path: Path) -> None:
    command = words(made, made / "adapter", tmp_path / "run")
    status, _, told = call(*command, "--set", "data.rows=40")
    assert status == 2
    assert "data.rows: would leave out rows that the model was tuned on" in told


def test_adapter_whose_own_tokenizer_reads_otherwise_is_refused(
    call, made: Path, tmp_path: Path
) -> None:
    adapter = changed(made, tmp_path / "own")
    tokenizer = AutoTokenizer.from_pretrained(made / "base")
    tokenizer.save_pretrained(adapter)
    assert call(*words(made, adapter, tmp_path / "alike"))[0] == 0
    file = adapter / "tokenizer.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    values["normalizer"] = {"type": "Lowercase"}
    file.write_text(json.dumps(values), encoding="utf-8")
    status, _, told = call(*words(made, adapter, tmp_path / "otherwise"))
    assert status == 2
    assert "its own tokenizer reads prompts otherwise than that of its base" in told


def test_base_that_is_an_adapter_itself_is_refused(call, made: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(made / "base", base)
    shutil.copy(made / "adapter" / "adapter_config.json", base)
    shutil.copy(made / "adapter" / "adapter_model.safetensors", base)
    command = words(made, made / "adapter", tmp_path / "run")
    status, _, told = call(*command, "--base", base)
    assert status == 2
    assert "is an adapter and no whole model; merge it into its base" in told


def test_prefix_of_a_model_without_a_decoder_of_its_own_is_refused(
    call, made: Path, tmp_path: Path
) -> None:
    command = [*words(made, made / "adapter", tmp_path / "run"), "--set", "model.prefix=[7]"]
    reasons = {
        "model.answers=none": "stands before model.answers, which are not set",
        "model.answers=[3,5]": "is no encoder-decoder",
    }
    for answers, reason in reasons.items():
        status, _, told = call(*command, "--set", answers)
        assert (status, told.count("\n")) == (2, 1), told
        assert "model.prefix=[7]: " in told
        assert reason in told
        assert not (tmp_path / "run").exists()
