"""What a run gives back is loaded, and answers the same, by PEFT and Transformers alone."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import foreign_models as foreign

# 8 bits of mantissa: a log-odds of a few units is off by a few hundredths.
ROUNDED = 0.02
EXACT = 1e-4


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows, and an adapter on a base in one precision or the other."""
    folder = tmp_path_factory.mktemp("made elsewhere")
    dtype = getattr(torch, request.param)
    rows, _ = foreign.write_rows(folder)
    base = foreign.write_base(folder / "base", dtype)
    lm = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base)
    adapted = foreign.tune_adapter(lm, tokenizer, rows, folder / "float32")
    adapted.to(dtype).save_pretrained(str(folder / "adapter"))
    (folder / "form.j2").write_text(foreign.FORM, encoding="utf-8")
    lines = [json.dumps({"prompt": prompt}) for prompt in foreign.prompts_of(rows)[::6]]
    (folder / "prompts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def scores_alone(loader, folder: Path, prompts: list[str]) -> np.ndarray:
    """What the model of a folder says, without e2urec."""
    lm = loader.from_pretrained(str(folder), dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    return np.array(foreign.score(lm, tokenizer, prompts))


def test_forgotten_adapter_is_given_back_in_its_precision_and_answers_the_same(
    call, made: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    options = ["--rows", made / "rows.jsonl", "--held", made / "held.jsonl"]
    form = ["--format", made / "form.j2", "--set", "tuning.schedule.precision=fp32"]
    status, _, told = call("import", made / "adapter", *options, *form, "--out", run)
    assert status == 0, told
    users = tmp_path / "users.txt"
    users.write_text("u1\nu2\n", encoding="utf-8")
    forgotten = tmp_path / "forgotten"
    quick = ["--set", "joint=1", "--set", "lora.rank=16"]
    quick += ["--set", "min_steps=4", "--set", "augment_min_steps=4"]
    status, _, told = call("unlearn", run, "--request", users, "--out", forgotten, *quick)
    assert status == 0, told
    status, printed, told = call("score", forgotten, "--examples", made / "prompts.jsonl")
    assert status == 0, told
    own = np.array([float(line) for line in printed.split()])
    prompts = foreign.prompts_of(made / "rows.jsonl")[::6]
    dtype = load_file(made / "base" / "model.safetensors")["model.norm.weight"].dtype
    tolerance = EXACT if dtype == torch.float32 else ROUNDED

    adapter = tmp_path / "adapter"
    status, printed, told = call("export", forgotten, "--adapter", "--out", adapter)
    assert status == 0, told
    assert "rank 20: vLLM serves it with --max-lora-rank 32" in printed
    is_rounded = dtype == torch.bfloat16
    assert ("weights are rounded to bfloat16" in printed) == is_rounded
    weights = load_file(adapter / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {dtype}
    alone = scores_alone(AutoPeftModelForCausalLM, adapter, prompts)
    assert np.abs(alone - own).max() < tolerance

    merged = tmp_path / "merged"
    status, printed, told = call("export", forgotten, "--merged", "--out", merged, "--json")
    assert (status, json.loads(printed)["dtype"]) == (0, str(dtype).removeprefix("torch.")), told
    alone = scores_alone(AutoModelForCausalLM, merged, prompts)
    assert np.abs(alone - own).max() < tolerance
    card = json.loads((merged / "e2urec.json").read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(str(merged))
    assert card["answers"]["liked"] == tokenizer("Yes.").input_ids[0]
    assert card["base"]["name"] == str(made / "base")


def test_form_that_cannot_be_had_is_refused_with_the_other(call, made: Path, tmp_path) -> None:
    run = tmp_path / "run"
    options = ["--rows", made / "rows.jsonl", "--held", made / "held.jsonl"]
    form = ["--format", made / "form.j2", "--set", "tuning.schedule.precision=fp32"]
    assert call("import", made / "adapter", *options, *form, "--out", run)[0] == 0
    out = ["--out", tmp_path / "out"]
    status, _, told = call("export", run, "--adapter", *out, "--max-lora-rank", 2)
    assert (status, "of rank 4, and --max-lora-rank is 2" in told) == (2, True), told
    status, _, told = call("export", run, *out)
    assert (status, "takes one of --adapter and --merged" in told) == (2, True), told
    assert call("export", run, "--merged", "--out", tmp_path / "whole")[0] == 0
    whole = tmp_path / "whole run"
    assert call("import", tmp_path / "whole", *options, *form, "--out", whole)[0] == 0
    status, _, told = call("export", whole, "--adapter", *out)
    assert (status, "holds a whole model, and no adapter; use --merged" in told) == (2, True), told
    again = tmp_path / "whole again"
    assert call("export", whole, "--merged", "--out", again)[0] == 0
    first = load_file(tmp_path / "whole" / "model.safetensors")
    second = load_file(again / "model.safetensors")
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert first.keys() == second.keys()
    assert not (tmp_path / "out").exists()
