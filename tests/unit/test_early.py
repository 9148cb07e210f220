"""What cannot end well is told before hours of work; a failing machine is told in a line."""

import errno
import shutil
from collections import namedtuple

import numpy as np
import pytest
import torch

from e2urec.cli.failures import LONGEST_LINE, failure_line, one_line
from e2urec.core.disk import require_room
from e2urec.core.errors import DataError, DivergenceError, RunError
from e2urec.data.requests import ErasureRequest, resolve
from e2urec.data.splits import Split, SplitSettings, require_usable, split
from e2urec.testing import TUNING, toy_interactions, toy_recommender
from e2urec.training.loop import Phase
from e2urec.training.supervised import tune

SETTINGS = SplitSettings(history=3, unseen=0.2, calibration=0.2)


@pytest.fixture(scope="module")
def parts() -> Split:
    return split(toy_interactions(), SETTINGS, seed=1)


@pytest.mark.parametrize("name", ["train", "valid", "test", "calibration", "unseen"])
def test_part_without_rows_is_named_with_a_setting_that_brings_some(parts, name):
    require_usable(parts, calibration=True)
    values = dict(vars(parts))
    values[name] = values[name].take(np.arange(0))
    with pytest.raises(DataError, match=rf"there are no {name} rows; give more .* data\."):
        require_usable(Split(**values), calibration=True)


def test_split_may_do_without_calibration_rows_where_none_were_asked_for(parts):
    values = vars(parts) | {"calibration": parts.calibration.take(np.arange(0))}
    require_usable(Split(**values), calibration=False)


@pytest.mark.parametrize("name", ["train", "valid", "test", "unseen"])
@pytest.mark.parametrize("answer", [0, 1])
def test_part_of_one_answer_is_named_with_that_answer(parts, name, answer):
    values = dict(vars(parts))
    values[name] = values[name].take(values[name].labels == answer)
    word = "liked" if answer else "not liked"
    with pytest.raises(DataError, match=rf"all \d+ {name} rows are {word}"):
        require_usable(Split(**values), calibration=True)


def test_training_stops_at_the_first_loss_that_is_not_finite(parts):
    untuned = toy_recommender("causal")
    train = untuned.encode(parts.train)
    schedule = TUNING.schedule.model_copy(update={"learning_rate": 1e30})
    steps = []
    phase = Phase("original", 0, lambda name, done, total, loss=None: steps.append(done))
    with pytest.raises(DivergenceError, match=r"original: diverged at step \d+ of \d+.*1e\+30"):
        tune(untuned, TUNING.model_copy(update={"schedule": schedule}), train, None, phase)
    assert len(steps) < 5


def test_weights_that_the_last_step_made_infinite_are_no_model(parts):
    untuned = toy_recommender("causal")
    train = untuned.encode(parts.train.take(np.arange(4)))
    update = {"learning_rate": 1e39, "epochs": 1, "batch_size": 8}
    schedule = TUNING.schedule.model_copy(update=update)
    with pytest.raises(DivergenceError, match="diverged at step 1 of 1"):
        tune(untuned, TUNING.model_copy(update={"schedule": schedule}), train, None, Phase("x", 0))


def test_model_that_the_disk_has_no_room_for_is_told_with_both_sizes(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(9e9, 8e9, 1e9))
    require_room(tmp_path, 1_000_000_000)
    with pytest.raises(RunError, match=r"2\.50 GB will be written, and 1\.00 GB are free"):
        require_room(tmp_path, 2_500_000_000)


def test_names_that_were_skipped_are_counted(parts):
    data = parts.train.interactions
    user = str(data.user_ids[int(parts.train.users[0])])
    item = str(data.item_ids[0])
    request = ErasureRequest((user, "x", "y"), (("x", item), (user, "z")), ("w",))
    assert resolve(request, parts, skip_unknown=True).skipped == 5
    assert resolve(ErasureRequest((user,)), parts).skipped == 0


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"), "batch_size"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), "batch_size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "batch_size"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), "'/x/y': no space left"),
        (OSError(errno.EROFS, "Read-only file system", "/x/y"), "'/x/y': Read-only file system"),
        (Exception("Error: I/O error: No space left on device (os error 28)"), "no space left"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "standard output"),
    ],
)
def test_failure_of_the_machine_is_one_line_with_a_remedy(error, words):
    line = failure_line(error)
    assert line is not None
    assert words in line


@pytest.mark.parametrize("error", [RuntimeError("bug"), ValueError("bug"), AssertionError()])
def test_bug_of_ours_is_told_as_one(error):
    assert failure_line(error) is None


def test_allocation_that_fails_is_recognised():
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60)
    assert failure_line(error.value) is not None


def test_message_fits_on_a_line_that_any_terminal_prints():
    line = one_line("a\nb\x1b[2J \udcff é " + "x" * 1000 + " y" * 5000 + " end")
    assert line.startswith(r"a b\x1b[2J \udcff é xxx")
    assert line.endswith("y end")
    assert len(line) <= LONGEST_LINE + 3
