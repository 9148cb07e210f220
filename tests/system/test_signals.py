"""A signal ends a command with status 130, twice in a row too; what is said of the rest is true."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from e2urec.core import process
from e2urec.core.process import signals_as_interrupt, uninterrupted
from e2urec.runs.folder import partial_of
from e2urec.runs.leftovers import discard_run

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

# A command of which the folder takes a while to remove. It says when the interrupt may come, and
# once more while it removes the folder.
COMMAND = """
import os, sys, time
from pathlib import Path
from e2urec.cli import main
from e2urec.cli.app import app
from e2urec.core import locks
from e2urec.runs.folder import create_run, work_beside

remove_tree = locks.remove_tree

def slow(folder):
    print("removing", flush=True)
    time.sleep(1)
    remove_tree(folder)

locks.remove_tree = slow

@app.command()
def wait(out: Path, keep: str = "") -> None:
    with work_beside(out, keep=keep) if keep else create_run(out) as work:
        folder = work.path if keep else work
        (folder / (keep or "secret")).write_text("x")
        print("ready", flush=True)
        time.sleep(60)

main()
"""


@pytest.fixture(autouse=True)
def no_recent_signal(monkeypatch):
    monkeypatch.setattr(process, "_interrupts", process._Interrupts())


def start(*words: object, **options: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "wait", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_and_another_in_the_clean_up_end_with_130_and_leave_nothing(tmp_path, number):
    child = start(tmp_path / "run")
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(number)
    assert child.stdout.readline() == "removing\n"
    child.send_signal(number)
    child.send_signal(signal.SIGTERM)
    error = child.communicate(timeout=60)[1]
    assert child.returncode == 130
    assert error.splitlines()[-1] == "e2urec: interrupted; no half-made run was left behind"
    assert list(tmp_path.iterdir()) == []


def test_interrupt_that_leaves_finished_work_says_where_and_how_it_goes_on(tmp_path):
    out = tmp_path / "run"
    child = start(out, "--keep", "cells")
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(signal.SIGHUP)
    error = child.communicate(timeout=60)[1]
    assert child.returncode == 130
    assert error.splitlines()[-1] == (
        f"e2urec: interrupted; what is finished stays in '{partial_of(out)}', readable by you "
        "alone: models in plain, answers to forgotten rows encrypted; run the same command to go "
        f"on, or remove it with: e2urec discard {out}"
    )
    discard_run(out)
    assert list(tmp_path.iterdir()) == []


def start_rank(out: Path) -> "subprocess.Popen[str]":
    """A second process, which has made its folder."""
    # Alone it cannot meet the others, and needs not: the interrupt comes before.
    child = start(out, env=os.environ | {"RANK": "1", "WORLD_SIZE": "2"})
    while not list(out.parent.glob(f"{out.name}.rank1~*.partial/secret")):
        assert child.poll() is None
        time.sleep(0.05)
    return child


def test_rank_removes_its_own_folder_and_leaves_the_speaking_to_the_first(tmp_path):
    child = start_rank(tmp_path / "run")
    child.send_signal(signal.SIGTERM)
    error = child.communicate(timeout=60)[1]
    assert child.returncode == 130
    assert "interrupted" not in error
    assert list(tmp_path.iterdir()) == []


def test_discard_removes_what_a_killed_rank_left(tmp_path):
    child = start_rank(tmp_path / "run")
    child.kill()
    child.communicate(timeout=60)
    discard_run(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_signal_that_was_to_be_ignored_stays_ignored():
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_as_interrupt():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_signal_in_a_block_that_must_not_be_interrupted_is_raised_after_it():
    steps = []
    with signals_as_interrupt(), pytest.raises(KeyboardInterrupt), uninterrupted():
        os.kill(os.getpid(), signal.SIGTERM)
        steps.append("went on")
    assert steps == ["went on"]


def test_signal_in_such_a_block_is_raised_at_its_end_when_that_is_an_error_too():
    with signals_as_interrupt():
        with pytest.raises(KeyboardInterrupt) as told, uninterrupted():
            os.kill(os.getpid(), signal.SIGTERM)
            raise OSError("the disk is full")
        assert str(told.value.__context__) == "the disk is full"
        with uninterrupted():
            pass


def test_handlers_of_the_caller_come_back(tmp_path):
    before = [signal.getsignal(number) for number in SIGNALS]
    with signals_as_interrupt():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.ranks
def test_signal_under_a_launcher_ends_every_process_and_leaves_nothing(tmp_path):
    script = tmp_path / "command.py"
    text = COMMAND.replace(
        'print("ready", flush=True)', '(out.parent / f"ready{os.getpid()}").touch()'
    )
    script.write_text(text)
    out = tmp_path / "runs" / "run"
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    child = subprocess.Popen(
        [sys.executable, *launch, str(script), "wait", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    ready: list[Path] = []
    while len(ready) < 2:
        assert child.poll() is None
        time.sleep(0.1)
        ready = list(out.parent.glob("ready*"))
    assert len(list(out.parent.glob("*.partial"))) == 2
    child.send_signal(signal.SIGTERM)
    error = child.communicate(timeout=120)[1]
    assert child.returncode != 0
    assert error.count("no half-made run was left behind") == 1
    assert sorted(out.parent.iterdir()) == sorted(ready)
