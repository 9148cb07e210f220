"""Every method, a rehearsal and an evaluation give in two processes what they give in one."""

import json

import pytest

from toy_data import quick_settings, write_ratings
from two_processes import (
    FIGURES,
    PROCESSES,
    check_same_runs,
    commands_to,
    differences,
    launch,
    launch_script,
)

pytestmark = pytest.mark.ranks

ADAPTER_FILE = "adapter/adapter_model.safetensors"
# Out-of-fold scores, so that a request has a lead to measure.
SCORES = ["tuning.lora.rank=4", "scores.pairs=1"]
SMALL = ["--set", "min_steps=4"]
METHODS = {
    "default": ["--preset", "default"],
    "gain": ["--preset", "gain", "--set", "augment_min_steps=4", *SMALL],
    "scores": ["--preset", "scores", "--set", "solving.below=0", *SMALL],
    "solved": ["--preset", "scores"],
    "replayed": ["--method", "neggrad", "--set", "lora.upper=0.5", *SMALL],
    "live": ["--method", "npo", "--set", "speed.kept_teachers=false", *SMALL],
    "batchwise": ["--method", "graddiff", "--set", "speed.together=batch", *SMALL],
    "pcgrad": ["--method", "pcgrad", *SMALL],
    "badt": ["--method", "badt", *SMALL],
    "retrain": ["--method", "retrain"],
    "ifru": ["--method", "ifru", "--set", "rows=24", "--set", "iterations=3"],
}
WHOLE_ALONE = ("ifru", "default", "solved")
"""What a split base refuses, or trains for where one process solves."""


@pytest.fixture(params=[False, True], ids=["whole", "split"])
def is_split(request):
    return request.param


@pytest.fixture
def original(call, toy, tmp_path, is_split):
    """An original made by one process, whose base two of them split or do not."""
    settings = [*quick_settings(write_ratings(tmp_path), toy), *SCORES]
    settings.append(f"model.fsdp={str(is_split).lower()}")
    status, _, error = call(*commands_to(tmp_path, settings)[0])
    assert status == 0, error
    return tmp_path / "original"


def results_in(text: str) -> object:
    """The first JSON object of what was printed."""
    return json.JSONDecoder().raw_decode(text[text.index("{") :])[0]


def test_every_method_makes_the_same_adapter_in_two_processes(call, original, tmp_path, is_split):
    names = [name for name in METHODS if not (is_split and name in WHOLE_ALONE)]
    commands = {}
    for kind in ("one", "two"):
        commands[kind] = [
            ["unlearn", str(original), "--out", str(tmp_path / kind / name), *METHODS[name]]
            for name in names
        ]
        # Shadow models are kept in the run, so each kind measures one of its own.
        run = str(tmp_path / kind / "replayed")
        commands[kind].append(["evaluate", run, "--shadows", "2", "--json"])
    said = ""
    for command in commands["one"]:
        status, said, error = call(*command)
        assert status == 0, error
    done = launch(tmp_path, commands["two"])
    assert done.returncode == 0, done.stderr
    check_same_runs(tmp_path / "one", tmp_path / "two", ADAPTER_FILE)
    assert not differences(results_in(said), results_in(done.stdout), FIGURES)
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == sorted(names)


def test_rehearsal_in_two_processes_tells_what_one_tells(call, original, tmp_path):
    rehearse = ["rehearse", str(original), "--times", "3", "--json"]
    rehearse += ["--method", "neggrad", "--candidate", "min_steps=4", "--candidate", "min_steps=8"]
    status, said, error = call(*rehearse)
    assert status == 0, error
    done = launch(tmp_path, [rehearse])
    assert done.returncode == 0, done.stderr
    assert not differences(results_in(said), results_in(done.stdout), FIGURES)
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["model.fsdp=true"], "model.fsdp: tuning without tuning.lora needs the base's"),
        (["data.min_rating=99"], "e2urec: "),
    ],
)
def test_error_of_a_user_is_one_line_under_a_launcher(toy, tmp_path, words, line):
    settings = [*quick_settings(write_ratings(tmp_path), toy), *words]
    done = launch(tmp_path, commands_to(tmp_path, settings)[:1])
    assert done.returncode != 0
    lines = [text for text in done.stderr.splitlines() if text.startswith("e2urec: ")]
    assert len(lines) == 1
    assert line in lines[0]
    assert not list(tmp_path.glob("original*"))


SHARES = """
import os, sys
from pathlib import Path
import numpy as np
import torch
from e2urec.models.sharing import in_turns, is_true_for_all, sum_over_processes
rank = int(os.environ["RANK"])
asked = []
def ask(batch):
    asked.append(len(batch))
    return torch.from_numpy(batch[:, None] * np.ones((1, batch[0] + 1)))
batches = [np.arange(start, start + 3) for start in range(0, 15, 3)]
for batch, answers in zip(batches, in_turns(batches, ask), strict=True):
    assert (answers[:, : batch[0] + 1].numpy() == batch[:, None]).all()
assert int(sum_over_processes(torch.tensor(rank))) == 1
assert is_true_for_all(True) and not is_true_for_all(rank == 0)
Path(sys.argv[1], f"asked.{rank}").write_text(str(len(asked)))
sys.stdout.flush()
os._exit(0)
"""


def test_each_process_asks_about_its_share_and_gets_all_answers(tmp_path):
    done = launch_script(tmp_path, SHARES, str(tmp_path))
    assert done.returncode == 0, done.stderr
    counts = [int((tmp_path / f"asked.{rank}").read_text()) for rank in range(PROCESSES)]
    # Five batches: the last one is asked about by both.
    assert counts == [3, 3]
