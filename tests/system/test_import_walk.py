"""The page of a whole walk: its own commands, with a toy in the place of SmolLM2."""

import contextlib
import io
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from docs_scripts import DOCS, script
from e2urec.data.fetch import fetch
from e2urec.testing import toy_backbone
from toy_gguf import write_gguf

PAGE = DOCS / "how-to" / "import-walk.md"
VOCABULARY_SIZE = 800
"""Nearly all words of the prompts."""
HABIT = 9.0
"""By how much the logits of the answers exceed those of other tokens before any tuning."""
FETCHED = re.compile(r'"\$\(e2urec fetch ([\w-]+)\)"')
PRINTED = re.compile(r"<\(e2urec (.*)\)")


def write_toy(prompts: Sequence[str], answers: Sequence[str], folder: Path) -> None:
    """Write a tiny model that knows how one answers, and has a notion of what is liked.

    So few steps on so few rows teach a toy nothing else.
    """
    backbone = toy_backbone("causal")
    lm = backbone.lm
    texts = [prompt + answer for prompt in prompts for answer in ("Yes.", "No.")]
    tokenizer = backbone.tokenizer.train_new_from_iterator(texts, VOCABULARY_SIZE)
    torch.manual_seed(0)
    lm.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    rows = zip(prompts, answers, strict=True)
    ids = [[*tokenizer(prompt + answer).input_ids, 1] for prompt, answer in rows]
    yes, no = (tokenizer(answer).input_ids[0] for answer in ("Yes.", "No."))
    liked = torch.tensor([row[-3] == yes for row in ids])
    with torch.no_grad():
        for weight in lm.model.layers.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.3)
        head = lm.lm_head.weight
        # Each token of the answer and the end, after what stands before it.
        for place in (-3, -2, -1):
            texts_before = [torch.tensor([row[:place]]) for row in ids]
            states = [lm.model(input_ids=row).last_hidden_state[0, -1] for row in texts_before]
            table = torch.stack(states)
            mean = table.mean(0)
            direction = mean / mean.square().sum()
            for token in {row[place] for row in ids}:
                head[token] += HABIT * direction
            if place == -3:
                notion = table[liked].mean(0) - table[~liked].mean(0)
                notion *= 1.5 / notion.square().sum()
                notion -= (notion @ mean) * direction
                head[yes] += direction + notion
                head[no] -= notion
    write_gguf(lm, tokenizer, folder)


class Shell:
    """What the page needs of a shell, in this process.

    Attributes:
        folder: where the page begins.
        fetched: folders by the names of what is fetched.
        lines: the commands that were run.
        output: what the last of them printed.
    """

    def __init__(self, folder: Path, call: Any, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.script = script("tallrec")
        self.call = call
        self.patch = patch
        self.fetched = {"movielens-100k": fetch("movielens-100k"), "smollm2-135m": folder / "toy"}
        self.lines: list[str] = []
        self.output = ""

    def run(self, lines: Sequence[str]) -> str:
        """What the last of the commands prints."""
        for line in lines:
            self.output = self._run_line(line)
            self.lines.append(line)
        return self.output

    def _run_line(self, line: str) -> str:
        line = FETCHED.sub(lambda match: str(self.fetched[match[1]]), line)
        line = PRINTED.sub(self._print, line)
        program, *words = shlex.split(line)
        if program == "e2urec":
            return self._e2urec(words)
        name, *arguments = words
        assert (program, name) == ("python", "tallrec.py")
        return self._tallrec(arguments)

    def _print(self, match: re.Match[str]) -> str:
        file = self.folder / "printed.txt"
        file.write_text(self._e2urec(shlex.split(match[1])), encoding="utf-8")
        return str(file)

    def _e2urec(self, words: Sequence[str]) -> str:
        if words[0] == "fetch":
            assert all(name in self.fetched for name in words[1:])
            return ""
        status, printed, told = self.call(*words)
        assert status == 0, told
        return str(printed)

    def _tallrec(self, words: Sequence[str]) -> str:
        self.patch.setattr("sys.argv", ["tallrec.py", *words])
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            self.script.main()
        if words[0] == "rows":
            lines = Path("rows.jsonl").read_text(encoding="utf-8").splitlines()
            rows = [json.loads(line) for line in lines]
            prompts = [self.script.PROMPT.format(**row) for row in rows]
            answers = [row["output"] for row in rows]
            write_toy(prompts, answers, self.fetched["smollm2-135m"])
        return printed.getvalue()


def test_walk_of_the_page_ends_with_scores_by_peft_alone(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shell = Shell(tmp_path, call, monkeypatch)
    page = PAGE.read_text(encoding="utf-8")
    script("run_tutorial").filled(page, shell.run)
    assert "scores by PEFT alone, to within" in shell.output
    commands = [shlex.split(line)[1] for line in shell.lines]
    for name in ("tallrec.py", "import", "rehearse", "unlearn", "evaluate", "export"):
        assert name in commands
    # The page's last command has compared; it would have ended for scores of anything else.
    assert shell.lines[-1].startswith("python tallrec.py compare")
    of_another = shell.lines[-1].replace("runs/forgotten", "runs/original")
    with pytest.raises(SystemExit, match="is not the one that was scored"):
        shell.run([of_another])
