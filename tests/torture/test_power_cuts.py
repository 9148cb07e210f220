"""A power cut after status 0 loses nothing: all was synced before it got its name, and the name."""

import json

import pytest
import toy_commands
from file_events import SyncLog, listen

from e2urec.core.durable import make_folders, publish_folder, write_text
from e2urec.runs.folder import create_run
from e2urec.runs.record import RunRecord, write_record

RESULTS = {
    "train": ["original"],
    "prepare": ["prepared"],
    "unlearn": ["unlearned"],
    "rehearse": ["original/rehearsal.json"],
    "evaluate": ["unlearned/shadows"],
    "compare": ["comparison"],
}


def logged(folder, action):
    """Run `action` in this process under a log; returns what was not synced."""
    log = SyncLog(folder)
    listen(log)
    action()
    return log


def test_log_finds_what_is_renamed_before_it_is_synced(tmp_path):
    def careless():
        (tmp_path / "x.new").write_text("text")
        (tmp_path / "x.new").rename(tmp_path / "x")

    assert logged(tmp_path, careless).unsynced == ["x.new"]


def test_file_is_synced_before_its_renaming_and_its_folder_after(tmp_path):
    log = logged(tmp_path, lambda: write_text(tmp_path / "x.json", "{}"))
    assert (log.named, log.unsynced) == (1, [])
    assert log.synced[tmp_path.stat().st_ino][0] == tmp_path.stat().st_mtime_ns


def test_folder_is_synced_from_its_depth_upwards_before_its_renaming(tmp_path):
    def publish():
        make_folders(tmp_path / "new" / "a" / "b")
        (tmp_path / "new" / "a" / "b" / "x").write_text("text")
        publish_folder(tmp_path / "new", tmp_path / "final")

    log = logged(tmp_path, publish)
    assert (log.named, log.unsynced) == (1, [])
    assert log.synced[tmp_path.stat().st_ino][0] == tmp_path.stat().st_mtime_ns


def test_run_is_on_the_disk_when_it_is_told_to_be_made(tmp_path):
    def make():
        with create_run(tmp_path / "above" / "run") as partial:
            (partial / "model").mkdir()
            (partial / "model" / "weights").write_bytes(b"1234")
            write_record(partial, RunRecord(kind="demo", recipe={}, seed=0))

    log = logged(tmp_path, make)
    log.check(tmp_path / "above" / "run")
    assert log.unsynced == []
    for folder in (tmp_path, tmp_path / "above"):
        assert log.synced[folder.stat().st_ino][0] == folder.stat().st_mtime_ns


@pytest.mark.torture
def test_every_command_has_its_results_on_the_disk_when_it_ends(tmp_path):
    folder = tmp_path / "toys"
    folder.mkdir()
    report = tmp_path / "report.json"
    tried = bad = 0
    with toy_commands.fork_server() as run:
        assert run(toy_commands.prepare_folder, folder) == 0
        for command, names in RESULTS.items():
            results = [folder / name for name in names]
            words = toy_commands.words_of(command, folder)
            assert run(toy_commands.logged_call, words, folder, results, report) == 0
            answer = json.loads(report.read_text())
            print(command, answer)
            assert answer["status"] == 0, command
            tried += answer["files"]
            bad += len(answer["unsynced"])
    print(f"tried {tried}, good {tried - bad}, bad {bad}")
    assert bad == 0
