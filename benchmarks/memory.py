"""Planned bytes beside measured ones: train, unlearn and evaluate, each in a process of its own.

    python benchmarks/memory.py --work FOLDER [--blocks 4 12 30] [--whole]

Models have the shapes of SmolLM2-135M with some of its blocks, random weights, and rows that all
fill the window: what is taken depends on nothing else. Measured is the peak of the process's own
memory (the resident set without pages of files) less what it was when the command began, with
libraries loaded and the data read. A thread looks every few milliseconds. Allocators keep gaps, and
kernels take memory for themselves; the plan has neither.
"""

import argparse
import json
import multiprocessing
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from e2urec import RequestOptions, build, evaluate, open_run, plan_memory, train, unlearn
from e2urec.experiments.recipe import Recipe
from e2urec.experiments.workspace import Workspace
from e2urec.testing import toy_tables, toy_task, toy_tokenizer

INTERVAL = 0.003
"""Seconds between two looks: a tensor of 100 MB lives for longer."""
RATIO = 0.5
WINDOW = 32
SETTINGS = (
    "data.history=5",
    "data.rows=40",
    # Enough to fill a batch of answers.
    "data.test_rows=32",
    "data.held_rows=32",
    "data.unseen=0.2",
    "data.calibration=0.2",
    f"model.window={WINDOW}",
    f"request.ratio={RATIO}",
    "tuning.schedule.epochs=1",
    "tuning.schedule.precision=fp32",
    "method.min_steps=2",
    "method.augment_min_steps=2",
)
METHOD = {"min_steps": 2, "augment_min_steps": 2}
# PyTorch's threads do not survive a fork, so there must be none in the parent.
FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Comparison:
    """Planned and measured bytes of one command.

    Attributes:
        case: the model.
        command: what ran.
        moment: at which the plan has its peak.
        planned: bytes of the plan.
        measured: bytes of the process.
    """

    case: str
    command: str
    moment: str
    planned: int
    measured: int

    def line(self) -> str:
        """A row of a Markdown table."""
        planned = self.planned / 1e6
        measured = self.measured / 1e6
        error = self.planned / self.measured - 1
        sizes = f"{planned:,.0f} | {measured:,.0f} | {error:+.1%}"
        return f"| {self.case} | {self.command} | {self.moment} | {sizes} |"


class PeakMemory:
    """The most memory of this process's own since it was made, looked at from a thread."""

    def __init__(self) -> None:
        self.process = psutil.Process()
        self.start_bytes = self._own_bytes()
        self.peak_bytes = self.start_bytes
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def taken(self) -> int:
        """The peak less what it was at the start."""
        return self.peak_bytes - self.start_bytes

    def _own_bytes(self) -> int:
        memory = self.process.memory_info()
        # Pages of files, such as weights that are being read, go whenever others need the room.
        return int(memory.rss - memory.shared)

    def _watch(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, self._own_bytes())
            time.sleep(INTERVAL)


def apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """What `work` returns, called in a process of its own."""
    receiver, sender = FORK.Pipe(duplex=False)

    def call() -> None:
        sender.send(work(*arguments))

    process = FORK.Process(target=call)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        process.join()


# --- in processes of their own


def make_base(folder: Path, blocks: int) -> None:
    """Write a model with the shapes of SmolLM2-135M, and the ratings that it is tuned on."""
    tokenizer = toy_tokenizer(closes=False)
    config = LlamaConfig(
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=blocks,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    ratings, items = toy_tables(users=60, rows=24)
    ratings.join(items, on="item").write_csv(folder / "ratings.csv")


def planned(settings: list[str], model: Path) -> dict[str, tuple[str, int]]:
    """The moment and the bytes of each command's peak."""
    plan = plan_memory(str(model), settings)
    return {command.command: (command.peak.title, command.peak.total) for command in plan.commands}


def measured(command: str, settings: list[str], folder: Path) -> int:
    """The bytes that a command takes."""
    original = folder / "original"
    forgotten = folder / "forgotten"
    request = RequestOptions(ratio=RATIO)
    recipe = Recipe().updated(settings)
    # What libraries load at their first use is there before, and so are the data.
    toy_task("causal", lora=True)
    split = Workspace(recipe).split
    assert len(split.train)
    memory = PeakMemory()
    if command == "train":
        train(recipe, original)
    elif command == "unlearn":
        unlearn(open_run(original), forgotten, build("e2urec", METHOD), request)
    else:
        evaluate(open_run(forgotten), request=request)
    return memory.taken


# --- in the caller's process


def compare(blocks: int, *, whole: bool, work: Path) -> list[Comparison]:
    """Plan and measure the commands of one model."""
    tuning = "tuned whole" if whole else "base + LoRA"
    case = f"{blocks} blocks, {tuning}"
    folder = work / f"{blocks}-{'whole' if whole else 'lora'}"
    folder.mkdir(parents=True)
    apart(make_base, folder, blocks)
    settings = [*SETTINGS, f"data.source={folder / 'ratings.csv'}"]
    settings.append(f"model.name={folder / 'base'}")
    if not whole:
        settings.append("tuning.lora.rank=16")
    comparisons = []
    for command, (moment, size) in apart(planned, settings, folder / "base").items():
        comparison = Comparison(
            case, command, moment, size, apart(measured, command, settings, folder)
        )
        print(comparison.line(), flush=True)
        comparisons.append(comparison)
    return comparisons


def main() -> None:
    """Compare every size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder to make")
    parser.add_argument("--blocks", type=int, nargs="+", default=[4, 12, 30])
    parser.add_argument("--whole", action="store_true", help="tune whole models")
    parser.add_argument("--json", type=Path, help="file to write")
    options = parser.parse_args()
    print("| model | command | peak at | planned, MB | measured, MB | planned is off by |")
    print("|---|---|---|---|---|---|")
    comparisons = []
    for blocks in options.blocks:
        comparisons += compare(blocks, whole=options.whole, work=options.work)
    if options.json:
        rows = [asdict(comparison) for comparison in comparisons]
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
