"""What else a model made elsewhere may be: encoder-decoders, other adapters, other answers."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import (
    AutoPeftModelForCausalLM,
    IA3Config,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, MBart50Tokenizer

import foreign_models as foreign
from e2urec.models.backbone import Backbone
from families import FAMILIES, build
from foreign_models import words

GRADES = {"Yes.": ("5", "4"), "No.": ("1", "2")}
ANSWERS = ["--answers", "4|5", "1|2|3"]
LANGUAGES = {"src_lang": "en_XX", "tgt_lang": "fr_XX"}


def graded(made: Path, folder: Path) -> Path:
    """The same rows with grades in place of Yes and No."""
    for name in ("rows.jsonl", "held.jsonl"):
        lines = []
        for number, line in enumerate((made / name).read_text(encoding="utf-8").splitlines()):
            row = json.loads(line)
            lines.append(json.dumps(row | {"output": GRADES[row["output"]][number % 2]}))
        (folder / name).write_text("\n".join(lines), encoding="utf-8")
    shutil.copy(made / "form.j2", folder)
    foreign.write_base(folder / "base", answers="1245")
    return folder


@torch.no_grad()
def graded_scores(lm: Any, tokenizer: Any, prompts: list[str]) -> np.ndarray:
    """P(4 or 5) among all grades, by Transformers and PEFT alone."""
    liked, others = ([tokenizer(grade).input_ids[0] for grade in side] for side in ("45", "123"))
    scores = []
    for prompt in prompts:
        z = lm(input_ids=torch.tensor([tokenizer(prompt).input_ids])).logits[0, -1].float()
        scores.append(float((z[liked].logsumexp(0) - z[others].logsumexp(0)).sigmoid()))
    return np.array(scores)


def test_grades_of_a_scale_are_taken_over_forgotten_and_given_back(
    call, made: Path, tmp_path: Path
) -> None:
    folder = graded(made, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    lm = AutoModelForCausalLM.from_pretrained(folder / "base")
    adapted = foreign.tune_adapter(lm, tokenizer, folder / "rows.jsonl", folder / "adapter")
    prompts = foreign.prompts_of(folder / "rows.jsonl")
    np.save(folder / "scores.npy", graded_scores(adapted, tokenizer, prompts))
    run = tmp_path / "run"
    command = [*words(folder, folder / "adapter", run), "--scores", folder / "scores.npy"]
    status, _, told = call(*command)
    assert (status, '--answers "4|5" "1|2|3"' in told) == (2, True), told
    status, out, told = call(*command, *ANSWERS)
    assert status == 0, told
    assert "liked is the sum of 2 first tokens, and not liked of 3" in out

    users = tmp_path / "users.txt"
    users.write_text("u1\nu2\n", encoding="utf-8")
    forgotten = tmp_path / "forgotten"
    quick = ["--set", "joint=1", "--set", "warmup=1", "--set", "min_steps=4"]
    assert call("unlearn", run, "--request", users, "--out", forgotten, *quick)[0] == 0
    status, _, told = call("export", forgotten, "--adapter", "--out", tmp_path / "given")
    assert status == 0, told
    card = json.loads((tmp_path / "given" / "e2urec.json").read_text(encoding="utf-8"))
    liked, not_liked = card["answers"]["liked"], card["answers"]["not_liked"]
    assert tokenizer.decode(liked) == "45"
    assert tokenizer.decode(not_liked) == "123"
    assert "sum of exp(z)" in card["score"]
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": prompt}) for prompt in prompts[::8]))
    status, printed, told = call("score", forgotten, "--examples", file)
    assert status == 0, told
    alone = AutoPeftModelForCausalLM.from_pretrained(str(tmp_path / "given"))
    own = graded_scores(alone, tokenizer, prompts[::8])
    assert np.abs(own - np.array([float(line) for line in printed.split()])).max() < 1e-4


def test_answers_that_carry_too_little_are_refused_unless_that_is_allowed(
    call, made: Path, tmp_path: Path
) -> None:
    command = words(made, made / "adapter", tmp_path / "run")
    status, _, told = call(*command, "--min-mass", "1")
    assert status == 2
    assert told.count("\n") == 1
    assert "of the probability on 96 training rows, and should carry 100% or more" in told
    assert "allow it with --min-mass 0" in told
    assert not (tmp_path / "run").exists()


def tune_seq2seq(lm: Any, tokenizer: Any, rows: Path, *, steps: int, rate: float) -> None:
    """Teach an encoder-decoder the answers of a file by its labels, as a plain script would."""
    lines = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    weights = [weight for weight in lm.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate)
    pad = tokenizer.pad_token_id
    torch.manual_seed(0)
    lm.train()
    for step in range(steps):
        batch = [lines[(16 * step + place) % len(lines)] for place in range(16)]
        texts = [torch.tensor(tokenizer(foreign.PROMPT.format(**row)).input_ids) for row in batch]
        targets = [torch.tensor(tokenizer(text_target=row["output"]).input_ids) for row in batch]
        ids = pad_sequence(texts, batch_first=True, padding_value=pad)
        labels = pad_sequence(targets, batch_first=True, padding_value=-100)
        mask = (ids != pad).long()
        lm(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    lm.eval()


@torch.no_grad()
def seq2seq_scores(lm: Any, tokenizer: Any, prompts: list[str]) -> np.ndarray:
    """P(Yes.) where the target texts differ, as the labels of training have them."""
    yes, no = (tokenizer(text_target=answer).input_ids for answer in ("Yes.", "No."))
    place = next(place for place in range(len(yes)) if yes[place] != no[place])
    scores = []
    for prompt in prompts:
        ids = torch.tensor([tokenizer(prompt).input_ids])
        z = lm(input_ids=ids, labels=torch.tensor([yes])).logits[0, place].float()
        scores.append(float((z[yes[place]] - z[no[place]]).sigmoid()))
    return np.array(scores)


def seq2seq_base(name: str, folder: Path) -> Backbone:
    """A tiny BART; or an mBART with a tokenizer of its kind, which writes languages."""
    (family,) = [family for family in FAMILIES if family.name == name]
    backbone = build(family)
    if name == "BART":
        return backbone
    letters = sorted(
        {*foreign.PROMPT, *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", *"abcdefghijklmnopqrstuvwxyz"}
    )
    pieces = ["<unk>", "<s>", "</s>", "▁", "▁Yes", "▁No", ".", *letters, *"0123456789()?"]
    vocabulary = [(piece, -1.0) for piece in dict.fromkeys(pieces)]
    tokenizer = MBart50Tokenizer(vocab=vocabulary, **LANGUAGES)
    lm = backbone.lm
    lm.resize_token_embeddings(len(tokenizer))
    lm.config.update({"pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2})
    return Backbone(lm, tokenizer, name)


@pytest.mark.parametrize(
    ("name", "adapter", "schedule"),
    [
        ("BART", True, {"steps": 60, "rate": 3e-3}),
        ("mBART-50", False, {"steps": 30, "rate": 1e-2}),
    ],
)
def test_decoder_that_writes_something_before_its_answer_is_taken_over(
    call, made: Path, tmp_path: Path, name: str, adapter: bool, schedule: dict[str, Any]
) -> None:
    base = seq2seq_base(name, tmp_path)
    tokenizer = base.tokenizer
    model = tmp_path / "model"
    lm = base.lm
    tune_seq2seq(lm, tokenizer, made / "rows.jsonl", **schedule)
    if adapter:
        lm.save_pretrained(tmp_path / "base")
        tokenizer.save_pretrained(tmp_path / "base")
        lm.name_or_path = str(tmp_path / "base")
        # Of weights so few and random, a small change says as much as one that was tuned.
        lora = LoraConfig(r=4, task_type="SEQ_2_SEQ_LM", lora_alpha=0.1, init_lora_weights=False)
        torch.manual_seed(0)
        lm = get_peft_model(lm, lora)
    lm.save_pretrained(str(model))
    if not adapter:
        tokenizer.save_pretrained(model)
    prompts = foreign.prompts_of(made / "rows.jsonl")
    scores = seq2seq_scores(lm, tokenizer, prompts)
    np.save(tmp_path / "scores.npy", scores)
    run = tmp_path / "run"
    options = ["--scores", tmp_path / "scores.npy", "--set", "model.window=256"]
    command = [*words(made, model, run), *options]
    status, _, told = call(*command)
    assert status == 0, told
    card = json.loads((run / "recommender.json").read_text(encoding="utf-8"))
    before = {"BART": "<s>", "mBART-50": "fr_XX"}[name]
    assert tokenizer.convert_ids_to_tokens(card["prefix"]) == [before]
    answers = f"model.answers={card['answers']}"
    other = ["--set", answers, "--set", "model.prefix=[7]"]
    status, _, told = call(*words(made, model, tmp_path / "other"), *options, *other)
    assert (status, "model.prefix: are not the tokens that the decoder writes" in told) == (2, True)
    users = tmp_path / "users.txt"
    users.write_text("u1\n", encoding="utf-8")
    quick = ["--set", "joint=1", "--set", "min_steps=2", "--set", "augment_min_steps=2"]
    forgotten = tmp_path / "forgotten"
    status, _, told = call("unlearn", run, "--request", users, "--out", forgotten, *quick)
    assert status == 0, told
    form = "--adapter" if adapter else "--merged"
    assert call("export", forgotten, form, "--out", tmp_path / "given")[0] == 0
    card = json.loads((tmp_path / "given" / "e2urec.json").read_text(encoding="utf-8"))
    assert tokenizer.convert_ids_to_tokens(card["decoder"])[1:] == [before]


def test_decoder_that_is_tuned_behind_another_start_than_its_config_says_is_refused(
    call, made: Path, tmp_path: Path
) -> None:
    base = seq2seq_base("mBART-50", tmp_path)
    base.lm.config.decoder_start_token_id = 0
    base.lm.save_pretrained(tmp_path / "model")
    base.tokenizer.save_pretrained(tmp_path / "model")
    status, _, told = call(*words(made, tmp_path / "model", tmp_path / "run"))
    assert status == 2
    assert "its config says 0; set decoder_start_token_id to 2 there" in told


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


FIRST_ROWS = {
    "an array that begins with null": ("[null, {rows}]", "row 1: is no JSON object"),
    "an empty array": ("[]", "holds no rows"),
    "a broken first line": ("{{\n{rows}", "line 1: is no JSON object"),
    "a first line without output": ('{{"user": "u1"}}', "line 1: template"),
}


@pytest.mark.parametrize("kind", FIRST_ROWS)
def test_file_whose_first_row_is_none_is_refused_for_what_is_wrong_with_it(
    call, made: Path, tmp_path: Path, kind: str
) -> None:
    form, reason = FIRST_ROWS[kind]
    row = (made / "rows.jsonl").read_text(encoding="utf-8").splitlines()[0]
    file = tmp_path / "rows.jsonl"
    file.write_text(form.format(rows=row), encoding="utf-8")
    command = words(made, made / "adapter", tmp_path / "run")
    command[command.index("--rows") + 1] = file
    status, _, told = call(*command)
    assert (status, told.count("\n")) == (2, 1), told
    assert reason in told
    assert not (tmp_path / "run").exists()


def test_tokens_of_answers_that_are_not_those_of_the_rows_are_refused(
    call, made: Path, tmp_path: Path
) -> None:
    command = words(made, made / "adapter", tmp_path / "run")
    status, _, told = call(*command, "--set", "model.answers=[[3,4],5]")
    assert (status, told.count("\n")) == (2, 1), told
    assert "name the outputs with --answers" in told
