"""Of several processes on one run folder one wins, and no other touches its work."""

import json
import multiprocessing
import os
import threading
import time

import pytest

from e2urec.core import durable, locks
from e2urec.core.errors import RunError
from e2urec.core.locks import FolderLock, private_folder, remains, sweep
from e2urec.runs import folder as folders
from e2urec.runs.folder import create_run, open_run, partial_of, work_beside
from e2urec.runs.leftovers import discard_run
from e2urec.runs.record import RunRecord, write_record

FORK = multiprocessing.get_context("fork")


def make(out, text="text", pause=0.0):
    with create_run(out) as partial:
        (partial / "a").write_text(text)
        time.sleep(pause)
        write_record(partial, RunRecord(kind="demo", recipe={}, seed=0))


def in_process(target, *arguments):
    process = FORK.Process(target=target, args=arguments)
    process.start()
    process.join(30)
    assert process.exitcode == 0


def refused(action, *arguments):
    """Run what must be refused; for a process of its own."""
    with pytest.raises(RunError):
        action(*arguments)


def test_who_comes_second_leaves_the_folder_of_the_first_alone(tmp_path):
    out = tmp_path / "run"
    with create_run(out) as partial:
        (partial / "a").write_text("mine")
        in_process(refused, make, out)
        in_process(refused, discard_run, out)
        assert (partial / "a").read_text() == "mine"
        write_record(partial, RunRecord(kind="demo", recipe={}, seed=0))
    assert (open_run(out).path / "a").read_text() == "mine"


def test_who_is_overtaken_between_the_look_and_the_making_leaves_the_finished_run_alone(
    tmp_path, monkeypatch
):
    out = tmp_path / "run"
    locked_folder = folders._locked_folder

    def overtaken(*arguments, **options):
        monkeypatch.setattr(folders, "_locked_folder", locked_folder)
        in_process(make, out, "winner")
        return locked_folder(*arguments, **options)

    monkeypatch.setattr(folders, "_locked_folder", overtaken)
    with pytest.raises(RunError, match="exists already"):
        make(out, "loser")
    assert (open_run(out).path / "a").read_text() == "winner"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_folder_that_is_discarded_before_it_is_locked_is_given_up(tmp_path, monkeypatch):
    out = tmp_path / "run"
    take = FolderLock.take

    def late(path):
        monkeypatch.setattr(FolderLock, "take", take)
        in_process(discard_run, out)
        in_process(make, out, "winner", 0.0)
        return take(path)

    monkeypatch.setattr(FolderLock, "take", late)
    with pytest.raises(RunError, match="another process"):
        make(out, "loser")
    assert (open_run(out).path / "a").read_text() == "winner"


@pytest.mark.parametrize("step", ["rename", "sync_folder"])
def test_discard_around_the_renaming_deletes_no_finished_run(tmp_path, monkeypatch, step):
    out = tmp_path / "run"
    publish = durable.publish_folder

    def slow(partial, target):
        if step == "rename":
            durable.sync_tree(partial)
            in_process(refused, discard_run, out)
        publish(partial, target)
        in_process(refused, discard_run, out)

    monkeypatch.setattr(folders, "publish_folder", slow)
    make(out)
    open_run(out)


def test_failure_after_the_renaming_leaves_the_run_and_a_newer_partial_folder(
    tmp_path, monkeypatch
):
    out = tmp_path / "run"
    publish = durable.publish_folder

    def failing(partial, target):
        publish(partial, target)
        partial.mkdir()
        (partial / "other").write_text("of another process")
        raise KeyboardInterrupt

    monkeypatch.setattr(folders, "publish_folder", failing)
    with pytest.raises(KeyboardInterrupt):
        make(out)
    open_run(out)
    assert (partial_of(out) / "other").read_text() == "of another process"


def test_two_that_go_on_with_one_folder_do_so_one_after_the_other(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(ValueError, match="stop"), work_beside(out, keep="cells") as work:
        (work.path / "cells").mkdir()
        raise ValueError("stop")

    def go_on():
        with work_beside(out, keep="cells"):
            pass

    with work_beside(out, keep="cells") as work:
        in_process(refused, go_on)
        assert (work.path / "cells").is_dir()
    assert list(tmp_path.iterdir()) == []


def test_private_folders_of_one_name_do_not_meet_and_dead_ones_are_swept(tmp_path):
    final = tmp_path / "03"
    dead = tmp_path / "03.new~abcd_123.partial"
    foreign = tmp_path / "03.abcdefgh.partial"
    dead.mkdir()
    foreign.mkdir()
    with private_folder(final) as first, private_folder(final) as second:
        assert first != second
        assert first.stat().st_mode & 0o077 == 0
        assert not dead.exists()
        in_process(sweep, final)
        assert remains(final) == sorted([first, second])
    assert list(tmp_path.iterdir()) == [foreign]


def test_removal_that_is_killed_leaves_nothing_to_go_on_with(tmp_path, monkeypatch):
    out = tmp_path / "run"
    monkeypatch.setattr(locks, "remove_tree", lambda folder: os._exit(0))

    def killed():
        with work_beside(out, keep="cells") as work:
            (work.path / "cells").mkdir()
            (work.path / "cells" / "one").write_text("x")

    in_process(killed)
    monkeypatch.undo()
    assert not partial_of(out).exists()
    assert len(remains(out)) == 1
    discard_run(out)
    assert list(tmp_path.iterdir()) == []


def test_shadow_that_two_evaluations_finish_at_once_is_whole(tmp_path):
    final = tmp_path / "00"
    start = threading.Barrier(2)
    errors = []

    def write(text):
        with private_folder(final) as partial:
            (partial / "adapter").write_text(text)
            start.wait(10)
            try:
                durable.publish_folder(partial, final)
            except OSError as error:
                errors.append(error)

    threads = [threading.Thread(target=write, args=("same",)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 1
    assert (final / "adapter").read_text() == "same"
    assert [path.name for path in tmp_path.iterdir()] == ["00"]


def race(out, number, pauses, report):
    """One of several processes that make one run, or discard it."""
    time.sleep(pauses[0])
    try:
        if number == 2:
            discard_run(out)
        else:
            make(out, f"process {number}", pauses[1])
        answer = "done"
    except RunError:
        answer = "refused"
    report.write_text(json.dumps(answer))


def races(tmp_path, count, seed=0):
    """Race two makers and a discarder; returns how often all was well."""
    import random

    random = random.Random(seed)
    good = 0
    for place in range(count):
        folder = tmp_path / str(place)
        folder.mkdir()
        processes = []
        for number in range(3):
            pauses = (random.uniform(0, 0.03), random.uniform(0, 0.03))
            report = tmp_path / f"{place}-{number}.json"
            arguments = (folder / "run", number, pauses, report)
            processes.append(FORK.Process(target=race, args=arguments))
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        good += is_well(folder, [tmp_path / f"{place}-{number}.json" for number in range(2)])
    print(f"tried {count}, good {good}, bad {count - good}")
    return good


def is_well(folder, reports):
    """Whether who says done is right, one of them at most, and nothing else is left."""
    answers = [json.loads(report.read_text()) for report in reports]
    winners = [number for number, answer in enumerate(answers) if answer == "done"]
    names = [path.name for path in folder.iterdir()]
    if not winners:
        return names == []
    text = (open_run(folder / "run").path / "a").read_text()
    return len(winners) == 1 and names == ["run"] and text == f"process {winners[0]}"


def test_races_of_makers_and_a_discarder_lose_nothing(tmp_path):
    assert races(tmp_path, 8) == 8


@pytest.mark.torture
def test_two_hundred_races_lose_nothing(tmp_path):
    assert races(tmp_path, 200, seed=1) == 200
