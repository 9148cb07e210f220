"""Signals to two processes that `torchrun` started and that train together (gloo, on a CPU)."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy_commands

from e2urec.core.errors import RunError
from e2urec.runs.folder import open_run
from e2urec.runs.leftovers import discard_run

RANKS = 2
TRIES = 2
"""Of each signal, to the launcher alone and to all its group, as a terminal sends it."""
COMMAND = Path(__file__).with_name("rank_command.py")
LONG = ["--set", "tuning.schedule.epochs=400"]
"""Training that lasts longer than a try."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toys")
    toy_commands.prepare_folder(folder)
    return folder


def start(folder: Path, words: list[str]) -> "subprocess.Popen[str]":
    environment = os.environ | {"E2UREC_KEY_FILE": str(folder / "key"), "OMP_NUM_THREADS": "1"}
    # Alone on a port of its own: another launcher may be at work on the usual one.
    options = ["--standalone", "--nproc-per-node", str(RANKS)]
    launcher = [sys.executable, "-m", "torch.distributed.run", *options]
    return subprocess.Popen(
        [*launcher, str(COMMAND), str(folder / "status"), *words],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def statuses(folder: Path) -> list[int]:
    """Exit status of each rank that has ended by itself."""
    found = []
    for rank in range(RANKS):
        path = folder / f"status.{rank}"
        if path.exists():
            found.append(int(path.read_text()))
            path.unlink()
    return found


def wait_for_training(child: "subprocess.Popen[str]", folder: Path) -> None:
    while len(list(folder.glob("original*.partial"))) < RANKS:
        assert child.poll() is None
        time.sleep(0.05)


def is_good(folder: Path, error: str) -> bool:
    """Whether nothing is left, or what is left is told of and can be discarded."""
    out = folder / "original"
    ends = statuses(folder)
    is_told = "no half-made run was left behind" not in error
    left = list(folder.glob("original*"))
    if out.exists():
        open_run(out)
        shutil.rmtree(out)
        return ends == [0] * RANKS
    if left and is_told:
        discard_run(out)
    left = list(folder.glob("original*"))
    if ends != [130] * RANKS or left:
        print(f"statuses {ends}, left {[path.name for path in left]}: {error[-300:]}")
        return False
    return True


@pytest.mark.torture
def test_signal_to_ranks_ends_each_with_130_and_leaves_nothing(folder):
    moments = random.Random(0)
    good = 0
    tried = 0
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        for send in (os.kill, os.killpg):
            for _ in range(TRIES):
                child = start(folder, toy_commands.words_of("train", folder) + LONG)
                wait_for_training(child, folder)
                time.sleep(moments.uniform(0, 4))
                send(child.pid, number)
                error = child.communicate(timeout=120)[1]
                tried += 1
                good += is_good(folder, error)
    print(f"tried {tried}, good {good}, bad {tried - good}")
    assert good == tried


@pytest.mark.torture
def test_error_of_a_user_is_one_line_under_a_launcher_and_leaves_nothing(folder):
    words = [*toy_commands.words_of("train", folder), "--set", "data.min_rating=99"]
    error = start(folder, words).communicate(timeout=120)[1]
    # The launcher ends the other rank where the first one's end comes earlier.
    assert statuses(folder) in ([2, 2], [2, 130])
    assert sum(line.startswith("e2urec: ") for line in error.splitlines()) == 1
    assert "Traceback (most recent call last)" not in error.split("e2urec: ")[0]
    with pytest.raises(RunError, match="nothing to discard"):
        discard_run(folder / "original")
