"""SIGKILL before any event of the file system: what is left is whole, or goes, or goes on."""

import json
import multiprocessing
import shutil
from pathlib import Path

import pytest
import toy_commands
from file_events import Counter, listen

from e2urec.core.contents import hash_file
from e2urec.core.durable import write_text
from e2urec.core.errors import RunError
from e2urec.experiments.grid import Grid
from e2urec.runs.folder import create_run, open_run, partial_of, work_beside
from e2urec.runs.leftovers import discard_run
from e2urec.runs.record import RunRecord, write_record

FORK = multiprocessing.get_context("fork")
TIMED = ("results.json", "run.json", "seconds.json", "rehearsal.json", "report.html")
"""Files that hold seconds or a time, and differ from run to run."""


def make(out):
    with create_run(out) as partial:
        (partial / "model").mkdir()
        (partial / "model" / "weights").write_text("text")
        write_record(partial, RunRecord(kind="demo", recipe={}, seed=0))


def fill(out):
    """Make two cells beside `out`, and a result of both."""
    with work_beside(out, keep="cells") as work:
        grid = Grid(work.path / "cells", 2, lambda text: None)
        for name in ("a", "b"):
            grid.folder_of(name, lambda folder: (folder / "cell").write_text("x" * 9))
        texts = [(work.path / "cells" / name / "cell").read_text() for name in ("a", "b")]
        write_text(out / "result", "".join(texts), scratch=work.path)


def kill_at(action, out, number):
    """Run `action` in a process that is killed before event `number`; whether it was."""

    def run():
        listen(Counter(out.parent, number))
        action(out)

    process = FORK.Process(target=run)
    process.start()
    process.join(60)
    assert process.exitcode in (0, -9)
    return process.exitcode == -9


def test_run_that_is_killed_anywhere_is_whole_or_can_be_discarded(tmp_path):
    number = 0
    is_killed = True
    while is_killed:
        number += 1
        folder = tmp_path / str(number)
        folder.mkdir()
        out = folder / "run"
        is_killed = kill_at(make, out, number)
        if not out.exists():
            if partial_of(out).exists():
                with pytest.raises(RunError, match="e2urec discard"):
                    make(out)
                discard_run(out)
            make(out)
        open_run(out)
        assert [path.name for path in folder.iterdir()] == ["run"], number
    assert number > 15


def test_work_that_is_killed_anywhere_goes_on_to_the_same_result(tmp_path):
    number = 0
    is_killed = True
    while is_killed:
        number += 1
        out = tmp_path / str(number) / "run"
        out.mkdir(parents=True)
        is_killed = kill_at(fill, out, number)
        fill(out)
        assert (out / "result").read_text() == "x" * 18
        assert [path.name for path in out.parent.iterdir()] == ["run"], number
    assert number > 25


def contents(folder: Path) -> dict[str, str]:
    """Names of all files below a folder, and what they hold unless it is a time."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            is_timed = path.name in TIMED or path.suffix in (".parquet", ".md", ".tex")
            files[str(path.relative_to(folder))] = "" if is_timed else hash_file(path)
    return files


# Command, what it makes, and what must be there before it.
COMMANDS = {
    "train": ("original", []),
    "prepare": ("prepared", ["train"]),
    "unlearn": ("unlearned", ["train"]),
    "evaluate": ("unlearned", ["train", "unlearn"]),
    "rehearse": ("original", ["train"]),
    "compare": ("comparison", []),
}


@pytest.fixture(scope="module")
def run():
    with toy_commands.fork_server() as run:
        yield run


@pytest.mark.torture
@pytest.mark.parametrize("command", COMMANDS)
def test_command_that_is_killed_anywhere_ends_whole_or_goes_on_to_the_same_files(
    tmp_path, run, command
):
    name, before = COMMANDS[command]
    # All at one path, which stands in some of the files.
    folder = tmp_path / "toys"
    start = tmp_path / "start"
    report = tmp_path / "report.json"
    folder.mkdir()
    assert run(toy_commands.prepare_folder, folder) == 0
    for earlier in before:
        assert finish(run, earlier, folder, report)["status"] == 0
    shutil.copytree(folder, start)
    answer = finish(run, command, folder, report)
    assert answer["status"] == 0
    expected = contents(folder)
    bad = []
    numbers = range(1, answer["events"] + 1, toy_commands.STEP)
    for number in numbers:
        shutil.rmtree(folder)
        shutil.copytree(start, folder)
        words = toy_commands.words_of(command, folder)
        run(toy_commands.killed_call, words, folder, number, report)
        if not ends_well(run, command, folder, folder / name, report) or (
            contents(folder) != expected
        ):
            bad.append(number)
    good = len(numbers) - len(bad)
    print(f"{command}: tried {len(numbers)}, good {good}, bad {len(bad)} {bad}")
    assert bad == []


def finish(run, command, folder, report):
    """Run a command to its end; its status and how many events it had."""
    report.unlink(missing_ok=True)
    words = toy_commands.words_of(command, folder)
    code = run(toy_commands.killed_call, words, folder, None, report)
    return json.loads(report.read_text()) if code == 0 else {"status": code}


def ends_well(run, command, folder, out, report):
    """Whether a killed command is done, or is so after the same command or a discard."""
    status = finish(run, command, folder, report)["status"]
    if status == 2 and partial_of(out).exists():
        discard_run(out)
        status = finish(run, command, folder, report)["status"]
    # A command that had made its folder before it was killed says that the folder exists.
    makes_folder = command in ("train", "prepare", "unlearn", "compare")
    return status == 0 or (status == 2 and makes_folder and out.exists())
