"""A disk that fills, or turns read-only, amid a command: one line, and it can be repeated."""

import errno
import json
import shutil

import pytest
import toy_commands
from test_kills import COMMANDS, finish

from e2urec.core.errors import RunError
from e2urec.runs.folder import open_run
from e2urec.runs.leftovers import discard_run

FAULTS = {"full": errno.ENOSPC, "read-only": errno.EROFS}


@pytest.fixture(scope="module")
def run():
    with toy_commands.fork_server() as run:
        yield run


def is_told(answer: dict[str, object]) -> bool:
    """Whether a command that failed says so in one line, after what it says of its work."""
    lines = str(answer["error"]).splitlines()
    told = [line for line in lines if line.startswith("e2urec: ")]
    return answer["status"] == 2 and lines[-1:] == told and "Traceback" not in str(answer["error"])


def repeat(run, command, folder, report) -> bool:
    """Whether the same command ends well once the disk does, after a discard if need be."""
    out = folder / COMMANDS[command][0]
    makes_folder = command in ("train", "prepare", "unlearn", "compare")
    if makes_folder and out.exists():
        # Its name alone was not synced: it is whole, and the same command says that it is there.
        open_run(out)
        return True
    status = finish(run, command, folder, report)["status"]
    if status != 0:
        try:
            discard_run(out)
        except RunError:
            return False
        status = finish(run, command, folder, report)["status"]
    return status == 0


@pytest.mark.torture
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("command", COMMANDS)
def test_failing_disk_is_told_in_one_line_and_the_command_can_be_repeated(
    tmp_path, run, command, fault
):
    folder = tmp_path / "toys"
    start = tmp_path / "start"
    report = tmp_path / "report.json"
    folder.mkdir()
    assert run(toy_commands.prepare_folder, folder) == 0
    for earlier in COMMANDS[command][1]:
        assert finish(run, earlier, folder, report)["status"] == 0
    shutil.copytree(folder, start)
    events = finish(run, command, folder, report)["events"]
    words = toy_commands.words_of(command, folder)
    bad = []
    numbers = range(1, events + 1, toy_commands.STEP)
    for number in numbers:
        shutil.rmtree(folder)
        shutil.copytree(start, folder)
        report.unlink(missing_ok=True)
        run(toy_commands.failing_call, words, folder, number, FAULTS[fault], report)
        answer = json.loads(report.read_text())
        # The last events are those after which nothing is written any more.
        is_done = answer["status"] == 0
        if not is_done and not (is_told(answer) and repeat(run, command, folder, report)):
            bad.append(number)
            print(number, answer["status"], str(answer["error"])[-600:])
    print(f"{command}: tried {len(numbers)}, good {len(numbers) - len(bad)}, bad {len(bad)} {bad}")
    assert bad == []
