"""Rows and answers of a model made elsewhere: grades of a scale, and what is refused of either."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

import foreign_models as foreign
from foreign_models import words

GRADES = {"Yes.": ("5", "4"), "No.": ("1", "2")}
ANSWERS = ["--answers", "4|5", "1|2|3"]


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
    quick = ["--set", "joint=1", "--set", "min_steps=4", "--set", "augment_min_steps=4"]
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
