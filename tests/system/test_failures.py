"""A machine that fails in the middle of a command: one line, status 2, and nothing left behind."""

import errno
import shutil
from pathlib import Path

import pytest
import torch

from toy_data import write_ratings


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ratings(tmp_path_factory.mktemp("data"))


def fail_with(error: Exception):
    def fail(*words: object, **options: object) -> None:
        raise error

    return fail


def train(source: Path, model: Path, out: Path) -> list[object]:
    words = ["train", "--data", source, "--model", model, "--out", out]
    settings = ("data.history=3", "data.calibration=0.1", "tuning.schedule.epochs=1")
    for setting in (*settings, "scores.pairs=0"):
        words += ["--set", setting]
    return words


@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        ("torch.optim.AdamW.step", MemoryError(), "out of memory"),
        (
            "torch.optim.AdamW.step",
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
            "lower tuning.schedule.batch_size",
        ),
        (
            "e2urec.models.recommender.Recommender.save",
            OSError(errno.ENOSPC, "No space left on device"),
            "no space left on the disk",
        ),
        (
            "e2urec.models.recommender.Recommender.save",
            Exception("I/O error: No space left on device (os error 28)"),
            "no space left on the disk",
        ),
        (
            "e2urec.api.train.write_json",
            OSError(errno.EROFS, "Read-only file system"),
            "Read-only file system",
        ),
    ],
)
def test_failure_while_training_is_one_line_and_leaves_nothing(  # noqa: PLR0913
    call, toy, source, tmp_path, monkeypatch, place, error, message
):
    monkeypatch.setattr(place, fail_with(error))
    folder = tmp_path / "runs"
    folder.mkdir()
    status, _, printed = call(*train(source, toy, folder / "out"))
    assert status == 2
    (line,) = [line for line in printed.splitlines() if line.startswith("e2urec: ")]
    assert message.lower() in line.lower()
    assert "Traceback" not in printed
    assert list(folder.iterdir()) == []


def test_disk_without_room_is_told_before_training(call, toy, source, tmp_path, monkeypatch):
    free = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free)
    monkeypatch.setattr("torch.optim.AdamW.step", fail_with(AssertionError("it trained")))
    status, _, printed = call(*train(source, toy, tmp_path / "out"))
    assert status == 2
    assert "GB are free" in printed


def test_names_that_a_request_skipped_are_counted_in_the_record_and_told(
    call, toy, source, tmp_path
):
    status, _, printed = call(*train(source, toy, tmp_path / "out"))
    assert status == 0, printed
    (tmp_path / "users.csv").write_text("user\nu0\nu1\nu2\nu3\nu4\nu5\n#u4\nnobody\n")
    words = ("unlearn", tmp_path / "out", "--request", tmp_path / "users.csv", "--skip-unknown")
    status, text, printed = call(*words, "--dry-run")
    assert status == 0, printed
    assert "2 names of the request skipped" in " ".join(text.split())
    status, text, printed = call(*words, "--method", "neggrad", "--out", tmp_path / "u")
    assert status == 0, printed
    assert "2 names of the request skipped" in " ".join(text.split())
    assert '"skipped": 2' in (tmp_path / "u" / "run.json").read_text()
