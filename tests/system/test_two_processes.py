"""Two CPU processes take the same steps as one, and leave the same folders."""

import os
import subprocess
import sys

import numpy as np
from safetensors.numpy import load_file

SETTINGS = {
    "data.rows": 200,
    "data.held_rows": 60,
    "data.test_rows": 60,
    "data.history": 3,
    "data.per_user": 20,
    "tuning.schedule.epochs": 1,
    "tuning.schedule.learning_rate": 0.003,
    "tuning.schedule.precision": "fp32",
}
# Alone on a port that is free: another run of the tests may be at work on this machine.
LAUNCH = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def launch_two(*words: object) -> tuple[int, str, str]:
    """Run the command line as torchrun does, with the key of the fixture `call`."""
    done = subprocess.run(
        [sys.executable, *LAUNCH, "-m", "e2urec", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return done.returncode, done.stdout, done.stderr


def test_two_processes_train_and_unlearn_as_one_does(call, toy, tmp_path):
    settings = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    runs = tmp_path / "runs"
    for number, run in enumerate((call, launch_two), start=1):
        original = runs / f"original_{number}"
        for words in (
            ("train", "--model", toy, "--out", original, *settings),
            ("unlearn", original, "--out", runs / f"unlearned_{number}"),
        ):
            status, out, error = run(*words)
            assert status == 0, error
            assert out.count("seed 0") == 1, "one process speaks"
    for kind in ("original", "unlearned"):
        one, two = (load_file(runs / f"{kind}_{n}" / "model" / "model.safetensors") for n in (1, 2))
        assert max(np.abs(one[name] - two[name]).max() for name in one) < 1e-3
    assert sorted(path.name for path in runs.iterdir()) == [
        "original_1",
        "original_2",
        "unlearned_1",
        "unlearned_2",
    ]
