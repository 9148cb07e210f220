"""Two CPU processes take the same steps as one, and leave the same folders."""

import json
import os
import subprocess
import sys
from pathlib import Path

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


# Both commands by the same processes, whose start takes longer than what they do.
COMMANDS = """
import json, sys
from e2urec.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv[1:] = words
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            raise
"""


def commands_to(runs: Path, toy: Path) -> list[list[str]]:
    """Train an original, and have it forget."""
    train = ["train", "--model", str(toy), "--out", str(runs / "original")]
    for key, value in SETTINGS.items():
        train += ["--set", f"{key}={value}"]
    return [train, ["unlearn", str(runs / "original"), "--out", str(runs / "unlearned")]]


def test_two_processes_train_and_unlearn_as_one_does(call, toy, tmp_path):
    for words in commands_to(tmp_path / "one", toy):
        status, out, error = call(*words)
        assert status == 0, error
        assert out.count("seed 0") == 1
    script = tmp_path / "commands.py"
    script.write_text(COMMANDS)
    commands = commands_to(tmp_path / "two", toy)
    done = subprocess.run(
        [sys.executable, *LAUNCH, str(script), json.dumps(commands)],
        capture_output=True,
        text=True,
        timeout=480,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("seed 0") == len(commands), "one process speaks"
    for kind in ("original", "unlearned"):
        file = Path(kind) / "model" / "model.safetensors"
        one, two = (load_file(tmp_path / name / file) for name in ("one", "two"))
        assert max(np.abs(one[name] - two[name]).max() for name in one) < 1e-3
    for name in ("one", "two"):
        names = sorted(path.name for path in (tmp_path / name).iterdir())
        assert names == ["original", "unlearned"]
