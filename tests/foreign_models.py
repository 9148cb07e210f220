"""What a plain script of Transformers and PEFT makes, in TALLRec's form, without e2urec."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.utils.rnn import pad_sequence

from e2urec.testing import toy_backbone

PROMPT = "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
# Jinja2 leaves out the last line end of a file.
FORM = "### Instruction:\n{{ instruction }}\n\n### Input:\n{{ input }}\n\n### Response:\n\n"
RANK = 4
HABIT = 9.0
"""By how much the logits of the answers exceed those of other tokens before any tuning."""
BATCH = 16


def write_rows(folder: Path) -> tuple[Path, Path]:
    """Rows of 16 users to tune on, and further ones of 4 of them and of 8 others."""
    chance = random.Random(0)
    rows = []
    for user in range(24):
        likes_much = user % 2 == 0
        fan = "Toy Story (1995)" if likes_much else "none"
        for number in range(8):
            output = "Yes." if likes_much == (chance.random() < 0.9) else "No."
            text = f"Liked: {fan}. Will the user {user} like Movie {number}?"
            rows.append(
                {
                    "user": f"u{user}",
                    "item": f"m{number}",
                    "instruction": "Yes or No",
                    "input": text,
                    "output": output,
                }
            )
    tuned = [row for place, row in enumerate(rows) if place // 8 < 16 and place % 8 < 6]
    held = [row for row in rows if row not in tuned]
    files = folder / "rows.jsonl", folder / "held.jsonl"
    for file, lines in zip(files, (tuned, held), strict=True):
        file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return files


def write_base(
    folder: Path, dtype: torch.dtype = torch.float32, answers: Sequence[str] = ("Yes.", "No.")
) -> Path:
    """A tiny model that knows how one answers, and nothing of any user."""
    base = toy_backbone("causal")
    prompt = PROMPT.format(instruction="Yes or No", input="Will the user like Movie 1?")
    tokens = [base.tokenizer(answer).input_ids[0] for answer in answers]
    with torch.no_grad():
        ids = torch.tensor([base.tokenizer(prompt).input_ids])
        state = base.lm.model(input_ids=ids).last_hidden_state[0, -1]
        # Of 420 tokens these then have most of the probability, wherever such a prompt ends.
        base.lm.lm_head.weight[tokens] += HABIT * state / state.square().sum()
    base.lm.to(dtype).save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return folder


def prompts_of(rows: Path) -> list[str]:
    """The prompts of a file, as their own code makes them."""
    lines = rows.read_text(encoding="utf-8").splitlines()
    return [PROMPT.format(**json.loads(line)) for line in lines]


def tune(lm: Any, tokenizer: Any, rows: Path, epochs: int = 6) -> None:
    """Teach a model the answers of a file, as a plain script would."""
    lines = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    random.Random(0).shuffle(lines)
    weights = [weight for weight in lm.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-2)
    lm.train()
    for _ in range(epochs):
        for start in range(0, len(lines), BATCH):
            ids, labels = _batch(tokenizer, lines[start : start + BATCH])
            mask = (ids != tokenizer.pad_token_id).long()
            lm(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    lm.eval()


def _batch(tokenizer: Any, lines: list[dict[str, str]]) -> tuple[torch.Tensor, torch.Tensor]:
    ids = []
    labels = []
    for line in lines:
        prompt = tokenizer(PROMPT.format(**line)).input_ids
        answer = tokenizer(line["output"]).input_ids
        ids.append(torch.tensor(prompt + answer))
        labels.append(torch.tensor([-100] * len(prompt) + answer))
    pad = tokenizer.pad_token_id
    return (
        pad_sequence(ids, batch_first=True, padding_value=pad),
        pad_sequence(labels, batch_first=True, padding_value=-100),
    )


def tune_adapter(lm: Any, tokenizer: Any, rows: Path, folder: Path, **settings: Any) -> Any:
    """A LoRA adapter in TALLRec's form, saved as PEFT saves it."""
    torch.manual_seed(0)
    config = LoraConfig(
        r=RANK,
        lora_alpha=16,
        target_modules=["q_proj", "v_proj"],
        task_type="CAUSAL_LM",
        **settings,
    )
    adapted = get_peft_model(lm, config)
    tune(adapted, tokenizer, rows)
    adapted.save_pretrained(str(folder))
    return adapted


@torch.no_grad()
def score(lm: Any, tokenizer: Any, prompts: list[str]) -> list[float]:
    """P(Yes.) among the two answers, one prompt at a time."""
    yes = tokenizer("Yes.").input_ids[0]
    no = tokenizer("No.").input_ids[0]
    scores = []
    for prompt in prompts:
        ids = torch.tensor([tokenizer(prompt).input_ids])
        logits = lm(input_ids=ids).logits[0, -1].float()
        scores.append(float((logits[yes] - logits[no]).sigmoid()))
    return scores


def words(made: Path, model: Path, out: Path) -> list[object]:
    """The command that takes `model` over."""
    return [
        "import",
        model,
        "--rows",
        made / "rows.jsonl",
        "--held",
        made / "held.jsonl",
        "--format",
        made / "form.j2",
        "--out",
        out,
        "--set",
        "tuning.schedule.precision=fp32",
        "--set",
        "tuning.schedule.epochs=1",
    ]
