"""Encoder-decoders made elsewhere, whose decoder may write something before its answer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.utils.rnn import pad_sequence
from transformers import MBart50Tokenizer

import foreign_models as foreign
from e2urec.models.backbone import Backbone
from families import FAMILIES, build
from foreign_models import words

LANGUAGES = {"src_lang": "en_XX", "tgt_lang": "fr_XX"}


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
        # Like the other, with an adapter in place of a whole model.
        pytest.param("BART", True, {"steps": 60, "rate": 3e-3}, marks=pytest.mark.families),
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
