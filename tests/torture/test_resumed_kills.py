"""SIGKILL before any event of the file system: with checkpoints a command goes on to its bytes."""

import json
import multiprocessing
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from file_events import Counter, listen

from e2urec.api.request import RequestOptions
from e2urec.api.train import train
from e2urec.api.unlearn import unlearn
from e2urec.experiments.recipe import Recipe
from e2urec.methods import build
from e2urec.runs.folder import Run, partial_of
from e2urec.runs.resumption import CheckpointOptions
from e2urec.testing import toy_tables
from key_files import write_key

# Forked from a process that has computed nothing: the threads of Polars do not outlive a fork.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["e2urec.api.train", "e2urec.api.unlearn", "e2urec.methods.e2urec"])
EVERY_STEP = 1e-9
STEP = int(os.environ.get("TORTURE_STEP", "1"))
"""Of so many events one is tried."""
SAMPLE = (60,)
"""Events before which the ordinary suite kills."""
SETTINGS = [
    "data.history=3",
    "data.rows=60",
    "data.calibration=0",
    "scores.pairs=1",
    "tuning.schedule.epochs=2",
    "tuning.schedule.learning_rate=0.01",
    "tuning.schedule.precision=fp32",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("kills")
    file = write_key(folder / "key")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("E2UREC_KEY_FILE", str(file))
        yield folder


@pytest.fixture(scope="module")
def recipe(toy: Path, folder: Path) -> Recipe:
    ratings, items = toy_tables(users=16)
    ratings.join(items, on="item").write_csv(folder / "ratings.csv")
    places = [f"data.source={folder / 'ratings.csv'}", f"model.name={toy}"]
    return Recipe.build({}, place="test").updated(places + SETTINGS)


@pytest.fixture(scope="module")
def original(recipe: Recipe, folder: Path) -> Run:
    return train(recipe, folder / "original")


@dataclass(frozen=True)
class Command:
    """Makes a run: the original, or one that forgets."""

    recipe: Recipe
    original: Run
    name: str

    def __call__(self, out: Path, checkpoints: CheckpointOptions) -> None:
        if self.name == "train":
            train(self.recipe, out, checkpoints=checkpoints)
            return
        method = build("e2urec", {"min_steps": 6}, "gain")
        unlearn(self.original, out, method, RequestOptions(ratio=0.2), checkpoints=checkpoints)


@pytest.fixture(params=["train", "unlearn"])
def command(request: pytest.FixtureRequest, recipe: Recipe, original: Run) -> Command:
    return Command(recipe, original, request.param)


def die_before(command: Command, out: Path, checkpoints: CheckpointOptions, number: int) -> None:
    """Run `command`, and be killed before event `number` in `out.partial`; 0: before none."""
    listen(Counter(out, number))
    command(out, checkpoints)


def in_a_process(command: Command, out: Path, number: int, *, resume: bool = False) -> int:
    """Exit status of a process of its own, see `die_before`."""
    checkpoints = CheckpointOptions(EVERY_STEP, resume)
    environment = os.environ["E2UREC_KEY_FILE"]
    process = SERVER.Process(target=start, args=(environment, command, out, checkpoints, number))
    process.start()
    process.join(300)
    return process.exitcode


def start(key: str, command: Command, out: Path, checkpoints: CheckpointOptions, number: int):
    """`die_before` in a process that has not inherited this one's environment."""
    os.environ["E2UREC_KEY_FILE"] = key
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    die_before(command, out, checkpoints, number)


def content(run: Path) -> dict[str, object]:
    """What must be the same in two runs: weights byte for byte, and the figures."""
    result: dict[str, object] = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        result[name] = path.read_bytes() if path.suffix == ".safetensors" else None
    results = json.loads((run / "results.json").read_text())
    result["figures"] = (results["utility"], results["forget_set"])
    return result


def is_good(command, out: Path, number: int, expected: dict[str, object]) -> bool:
    """Whether a run that was killed ends by --resume as it would have."""
    if not out.exists():
        status = in_a_process(command, out, 0, resume=True)
        if status != 0:
            print(f"event {number}: status {status}")
            return False
    if content(out) != expected or partial_of(out).exists():
        print(f"event {number}: another end")
        return False
    return True


def kill_and_resume(command, folder: Path, numbers) -> tuple[int, int]:
    """Kill `command` before each of these events, until it has no more: tried, good."""
    assert in_a_process(command, folder / "whole", 0) == 0
    expected = content(folder / "whole")
    tried = 0
    good = 0
    for number in numbers:
        out = folder / str(number)
        status = in_a_process(command, out, number)
        if status != -signal.SIGKILL:
            assert status == 0
            break
        tried += 1
        good += is_good(command, out, number, expected)
    print(f"tried {tried}, good {good}, bad {tried - good}")
    return tried, good


# Training that is interrupted is among the tests of checkpoints; `make torture` kills it.
@pytest.mark.parametrize("command", ["unlearn"], indirect=True)
def test_command_that_is_killed_ends_with_the_same_bytes(command, tmp_path):
    # Amid the steps that a toy command takes.
    tried, good = kill_and_resume(command, tmp_path, SAMPLE)
    assert tried == good == len(SAMPLE)


@pytest.mark.torture
def test_command_that_is_killed_anywhere_ends_with_the_same_bytes(command, tmp_path):
    tried, good = kill_and_resume(command, tmp_path, range(1, 10_000, STEP))
    assert tried == good > 0
