"""A recommender in TALLRec's form, made by Transformers and PEFT alone.

    python tallrec.py rows MOVIELENS   writes rows.jsonl, held.jsonl, users.txt and prompts.jsonl
    python tallrec.py tune MODEL       writes base/, adapter/ and scores.npy
    python tallrec.py compare ADAPTER FILE

MOVIELENS is the folder of MovieLens-100K, MODEL one with a GGUF file. `compare` loads an adapter by
PEFT, and fails unless it gives the prompts of `prompts.jsonl` the scores in the lines of FILE.
It is what `how-to/import-walk.md` starts from and ends with, so it imports nothing of e2urec.

TALLRec (Bao et al. 2023, arXiv 2305.00447) tunes on as few as 64 rows. This takes 30, so that one
core can do it.
"""

import argparse
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from torch.optim.lr_scheduler import LinearLR
from transformers import AutoModelForCausalLM, AutoTokenizer

# Alpaca's text, with the mark for a linter that TALLRec's script left inside of it.
PROMPT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.  # noqa: E501\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
INSTRUCTION = (
    "Given the user's preference and unpreference, identify whether the user will like the target "
    'movie by answering "Yes." or "No.".'
)
TUNED_USERS = 10
TUNED_ROWS = 3
HELD_ROWS = 2
OUTSIDERS = 8
OUTSIDER_ROWS = 2
FORGOTTEN_USERS = 2
HISTORY = 4
LIKED_ABOVE = 3
EPOCHS = 5
BATCH = 4
RATE = 2e-3
TOLERANCE = 1e-3
SEED = 0


def write_rows(movielens: Path) -> None:
    """Rows to tune on, rows held out, the users of a request, and prompts of all others."""
    histories = _histories(movielens)
    users = sorted(histories)
    random.Random(SEED).shuffle(users)
    tuned: list[dict[str, str]] = []
    held: list[dict[str, str]] = []
    for user in users[:TUNED_USERS]:
        rows = _rows(user, histories[user], TUNED_ROWS + HELD_ROWS)
        tuned += rows[:TUNED_ROWS]
        held += rows[TUNED_ROWS:]
    for user in users[TUNED_USERS : TUNED_USERS + OUTSIDERS]:
        held += _rows(user, histories[user], OUTSIDER_ROWS)
    forgotten = users[:FORGOTTEN_USERS]
    prompts = [{"prompt": PROMPT.format(**row)} for row in held if row["user"] not in forgotten]
    _write_lines("rows.jsonl", map(json.dumps, tuned))
    _write_lines("held.jsonl", map(json.dumps, held))
    _write_lines("users.txt", forgotten)
    _write_lines("prompts.jsonl", map(json.dumps, prompts))
    print(f"{len(tuned)} rows of {TUNED_USERS} users, {len(held)} held out")


def _write_lines(name: str, lines: Any) -> None:
    Path(name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _histories(movielens: Path) -> dict[str, list[tuple[str, str, bool]]]:
    """Item, title and whether it was liked, in order of time, of users with enough rows."""
    ratings = pl.read_parquet(movielens / "MovieLens100k_data.parquet.brotli")
    items = pl.read_parquet(movielens / "MovieLens100k_items.parquet.brotli")
    titles = items.select("movie_id", title="movie_title")
    rows = ratings.join(titles, on="movie_id").sort("user_id", "timestamp", "movie_id")
    histories: dict[str, list[tuple[str, str, bool]]] = {}
    for row in rows.iter_rows(named=True):
        entry = (str(row["movie_id"]), row["title"], row["rating"] > LIKED_ABOVE)
        histories.setdefault(str(row["user_id"]), []).append(entry)
    enough = HISTORY + TUNED_ROWS + HELD_ROWS
    return {user: rows for user, rows in histories.items() if len(rows) >= enough}


def _rows(user: str, history: Sequence[tuple[str, str, bool]], count: int) -> list[dict[str, str]]:
    rows = []
    for place in range(HISTORY, HISTORY + count):
        item, title, is_liked = history[place]
        earlier = history[place - HISTORY : place]
        rows.append(
            {
                "user": user,
                "item": item,
                "instruction": INSTRUCTION,
                "input": (
                    f"User Preference: {_titles(earlier, liked=True)}\n"
                    f"User Unpreference: {_titles(earlier, liked=False)}\n"
                    f'Whether the user will like the target movie "{title}"?'
                ),
                "output": "Yes." if is_liked else "No.",
            }
        )
    return rows


def _titles(history: Sequence[tuple[str, str, bool]], *, liked: bool) -> str:
    quoted = [f'"{title}"' for _, title, is_liked in history if is_liked == liked]
    return ", ".join(quoted) or "None."


def tune(model: Path) -> None:
    """Tune a LoRA adapter on the answers, and score the rows."""
    torch.manual_seed(SEED)
    (file,) = model.glob("*.gguf")
    lm = AutoModelForCausalLM.from_pretrained(model, gguf_file=file.name)
    tokenizer = AutoTokenizer.from_pretrained(model, gguf_file=file.name)
    # What the adapter says of its base is where PEFT looks for it.
    base = Path("base").resolve()
    del lm.config.quantization_config
    lm.hf_quantizer = None
    lm.save_pretrained(base)
    tokenizer.save_pretrained(base)
    lm.name_or_path = str(base)
    config = LoraConfig(
        r=8,
        lora_alpha=16,
        lora_dropout=0.05,
        target_modules=["q_proj", "v_proj"],
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(lm, config)
    lines = [json.loads(line) for line in Path("rows.jsonl").read_text("utf-8").splitlines()]
    _fit(adapted, [_example(tokenizer, line) for line in lines])
    adapted.save_pretrained("adapter")
    scores = [_score(adapted, tokenizer, PROMPT.format(**line)) for line in lines]
    np.save("scores.npy", np.array(scores))


def _example(tokenizer: Any, line: dict[str, str]) -> tuple[list[int], int]:
    """Tokens of prompt, answer and end, and how many of them are the answer's and the end."""
    prompt = PROMPT.format(**line)
    ids = [*tokenizer(prompt + line["output"]).input_ids, tokenizer.eos_token_id]
    return ids, len(ids) - len(tokenizer(prompt).input_ids)


def _fit(lm: Any, examples: list[tuple[list[int], int]]) -> None:
    weights = [weight for weight in lm.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=RATE)
    steps = EPOCHS * math.ceil(len(examples) / BATCH)
    schedule = LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=steps)
    order = random.Random(SEED)
    lm.train()
    for epoch in range(EPOCHS):
        order.shuffle(examples)
        total = 0.0
        for start in range(0, len(examples), BATCH):
            batch = examples[start : start + BATCH]
            for ids, answer_length in batch:
                loss = _loss(lm, torch.tensor([ids]), answer_length)
                (loss / len(batch)).backward()
                total += loss.item()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        print(f"epoch {epoch + 1}: loss {total / len(examples):.3f}", flush=True)
    lm.eval()


def _loss(lm: Any, tokens: torch.Tensor, answer_length: int) -> torch.Tensor:
    """Cross-entropy of the answer; no logits are computed of the prompt before it."""
    # The last token of the prompt predicts the first of the answer, and is predicted by none.
    labels = tokens[:, -answer_length - 1 :].clone()
    labels[0, 0] = -100
    return lm(input_ids=tokens, labels=labels, logits_to_keep=labels.shape[1]).loss


@torch.no_grad()
def _score(lm: Any, tokenizer: Any, prompt: str) -> float:
    """P(Yes.) among the two answers."""
    yes = tokenizer("Yes.").input_ids[0]
    no = tokenizer("No.").input_ids[0]
    logits = lm(input_ids=torch.tensor([tokenizer(prompt).input_ids])).logits[0, -1].float()
    return float((logits[yes] - logits[no]).sigmoid())


def compare(adapter: Path, file: Path) -> None:
    """Score the prompts by PEFT alone, and compare with the scores of a file."""
    lm = AutoPeftModelForCausalLM.from_pretrained(adapter, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    lines = Path("prompts.jsonl").read_text("utf-8").splitlines()
    own = [_score(lm, tokenizer, json.loads(line)["prompt"]) for line in lines]
    told = [float(line) for line in file.read_text("utf-8").split()]
    difference = np.abs(np.array(own) - np.array(told)).max()
    print(f"{len(own)} scores by PEFT alone, to within {difference:.1e}")
    if not difference <= TOLERANCE:
        raise SystemExit(f"more than {TOLERANCE:g}: the adapter is not the one that was scored")


def main() -> None:
    """Do what the first word says."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("rows").add_argument("movielens", type=Path)
    commands.add_parser("tune").add_argument("model", type=Path)
    comparison = commands.add_parser("compare")
    comparison.add_argument("adapter", type=Path)
    comparison.add_argument("file", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "rows":
        write_rows(arguments.movielens)
    elif arguments.command == "tune":
        tune(arguments.model)
    else:
        compare(arguments.adapter, arguments.file)


if __name__ == "__main__":
    main()
