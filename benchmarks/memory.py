"""Planned bytes beside measured ones: train, unlearn and evaluate, each in a process of its own.

    python benchmarks/memory.py --work FOLDER [--blocks 4 12 30] [--whole] [--dtype float32]
        [--base NAME] [--window 32] [--set KEY=VALUE]

Of a student that is solved for it tells by `--set scores.pairs=1 --set method.preset=scores`, with
`--set data.rows=160`, so that there are rows to solve for.

Models have the shapes of SmolLM2-135M with some of its blocks and random weights, or are the first
blocks of a base that is named; rows all fill the window. What is taken depends on nothing else.

Measured is the peak of the resident set less what it was when the command began, with libraries
loaded and the data read. The kernel keeps it, so none is missed. Pages of the base's files count,
as the base is those pages where it stays as it is stored. Linux alone tells all this.
"""

import json
import multiprocessing
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from common import option_parser
from e2urec import RequestOptions, evaluate, open_run, plan_memory, train, unlearn
from e2urec.core.allocator import release_free_memory
from e2urec.experiments.packaged import resolve_model
from e2urec.experiments.recipe import Recipe, method_of
from e2urec.experiments.workspace import Workspace
from e2urec.models.backbone import load_backbone
from e2urec.testing import toy_backbone, toy_tables, toy_tokenizer

COMMANDS = ("train", "unlearn", "evaluate")
RATIO = 0.5
# Enough rows to fill a batch of answers, and one of D_f beside one of D_r.
SETTINGS = (
    "data.history=5",
    "data.rows=40",
    "data.test_rows=32",
    "data.held_rows=32",
    "data.unseen=0.2",
    "data.calibration=0.2",
    f"request.ratio={RATIO}",
    "tuning.schedule.epochs=1",
    "tuning.schedule.precision=fp32",
)
# Gaps between tensors grow in the first steps, which a student that is solved for does not take.
STEPS = ("method.min_steps=8", "method.augment_min_steps=8")
# PyTorch's threads do not survive a fork, so there must be none in the parent.
FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Case:
    """A model and how it is tuned.

    Attributes:
        blocks: of the base.
        whole: whether all of it is tuned, and no adapter.
        dtype: precision in which the base is stored.
        base: whose first blocks they are; None: random ones with the shapes of SmolLM2-135M.
        settings: of the recipe.
    """

    blocks: int
    whole: bool
    dtype: str
    base: str | None
    settings: tuple[str, ...]

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.blocks} blocks in {self.dtype}"

    def recipe_settings(self, folder: Path) -> list[str]:
        """The settings of the recipe by which the model in `folder` is tuned."""
        settings = [f"data.source={folder / 'ratings.csv'}", f"model.name={folder / 'base'}"]
        tuning = [] if self.whole else ["tuning.lora.rank=16"]
        has_preset = any(setting.startswith("method.preset=") for setting in self.settings)
        steps = () if has_preset else STEPS
        return [*SETTINGS, *steps, *settings, *tuning, *self.settings]


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

    case: Case
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
        return f"| {self.case.name} | {self.command} | {self.moment} | {sizes} |"


class PeakMemory:
    """The peak of this process's resident set since it was made."""

    def __init__(self) -> None:
        # What was freed would be taken anew without a page more.
        release_free_memory()
        Path("/proc/self/clear_refs").write_text("5")
        self.start_bytes = self._bytes("VmRSS")

    @property
    def taken(self) -> int:
        """The peak less what it was at the start."""
        return self._bytes("VmHWM") - self.start_bytes

    def _bytes(self, name: str) -> int:
        status = Path("/proc/self/status").read_text()
        (kibibytes,) = re.findall(rf"{name}:\s+(\d+) kB", status)
        return int(kibibytes) * 1024


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


def make_base(folder: Path, case: Case) -> None:
    """Write the base of a case, and the ratings that it is tuned on."""
    if case.base is None:
        torch.manual_seed(0)
        lm: Any = LlamaForCausalLM(smollm2_config(case.blocks))
        tokenizer = toy_tokenizer(closes=False)
    else:
        backbone = load_backbone(resolve_model(case.base), layers=case.blocks)
        lm, tokenizer = backbone.lm, backbone.tokenizer
    lm.to(getattr(torch, case.dtype)).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    toy = toy_backbone("causal")
    toy.lm.save_pretrained(folder / "toy")
    toy.tokenizer.save_pretrained(folder / "toy")
    ratings, items = toy_tables(users=25, rows=24)
    ratings.join(items, on="item").write_csv(folder / "ratings.csv")


def smollm2_config(blocks: int) -> LlamaConfig:
    """The shapes of SmolLM2-135M, which has 30 blocks."""
    return LlamaConfig(
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


def planned(settings: Sequence[str], model: Path) -> dict[str, tuple[str, int]]:
    """The moment and the bytes of each command's peak."""
    plan = plan_memory(str(model), settings)
    return {command.command: (command.peak.title, command.peak.total) for command in plan.commands}


def measured(command: str, settings: Sequence[str], folder: Path) -> int:
    """The bytes that a command takes."""
    # What libraries load at their first use is there before, and so are the data.
    with tempfile.TemporaryDirectory() as warm:
        toy = [*settings, f"model.name={folder / 'toy'}"]
        for earlier in COMMANDS:
            run(earlier, Recipe().updated(toy), Path(warm))
    recipe = Recipe().updated(settings)
    split = Workspace(recipe).split
    assert len(split.train)
    memory = PeakMemory()
    run(command, recipe, folder)
    return memory.taken


def run(command: str, recipe: Recipe, folder: Path) -> None:
    """Run a command; its runs lie in `folder`, with those of the commands before it."""
    original = folder / "original"
    forgotten = folder / "forgotten"
    request = RequestOptions(ratio=RATIO)
    if command == "train":
        train(recipe, original)
    elif command == "unlearn":
        unlearn(open_run(original), forgotten, method_of(recipe), request)
    else:
        evaluate(open_run(forgotten), request=request)


# --- in the caller's process


def compare(case: Case, work: Path) -> list[Comparison]:
    """Plan and measure the commands of one model."""
    tuning = "whole" if case.whole else "lora"
    folder = work / f"{case.blocks}-{case.dtype}-{tuning}"
    folder.mkdir(parents=True)
    apart(make_base, folder, case)
    settings = case.recipe_settings(folder)
    comparisons = []
    for command, (moment, size) in apart(planned, settings, folder / "base").items():
        taken = apart(measured, command, settings, folder)
        comparison = Comparison(case, command, moment, size, taken)
        print(comparison.line(), flush=True)
        comparisons.append(comparison)
    return comparisons


def main() -> None:
    """Compare every size."""
    parser = option_parser(__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder to make")
    parser.add_argument("--blocks", type=int, nargs="+", default=[4, 12, 30])
    parser.add_argument("--whole", action="store_true", help="tune whole models")
    parser.add_argument("--dtype", default="bfloat16", help="precision of the stored base")
    parser.add_argument("--base", help="packaged name, folder or hub name; default: random weights")
    parser.add_argument("--window", type=int, default=32, help="tokens of a row")
    parser.add_argument("--set", action="append", default=[], help="a setting of the recipe")
    parser.add_argument("--json", type=Path, help="file to write")
    options = parser.parse_args()
    settings = (f"model.window={options.window}", *options.set)
    print("| base | command | peak at | planned, MB | measured, MB | planned is off by |")
    print("|---|---|---|---|---|---|")
    comparisons = []
    for blocks in options.blocks:
        case = Case(blocks, options.whole, options.dtype, options.base, settings)
        comparisons += compare(case, options.work)
    if options.json:
        rows = [asdict(comparison) for comparison in comparisons]
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
