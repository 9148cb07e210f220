"""Two CPU processes take the same steps as one, and leave the same folders."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from e2urec.testing import toy_backbone
from key_files import write_key

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
LAUNCH = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29531"]


def call(processes: int, *words: object) -> None:
    launcher = LAUNCH if processes == 2 else []
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "E2UREC_KEY_FILE": str(Path(str(words[-1])) / "key"),
    }
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "e2urec", *map(str, words[:-1])],
        capture_output=True,
        text=True,
        timeout=240,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("seed 0") == 1, "one process speaks"


def test_two_processes_train_and_unlearn_as_one_does(tmp_path):
    model = tmp_path / "toy"
    toy_backbone("causal").lm.save_pretrained(model)
    toy_backbone("causal").tokenizer.save_pretrained(model)
    write_key(tmp_path / "key")
    settings = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    runs = tmp_path / "runs"
    for processes in (1, 2):
        original = runs / f"original_{processes}"
        call(processes, "train", "--model", model, "--out", original, *settings, tmp_path)
        call(processes, "unlearn", original, "--out", runs / f"unlearned_{processes}", tmp_path)
    for kind in ("original", "unlearned"):
        one, two = (load_file(runs / f"{kind}_{n}" / "model" / "model.safetensors") for n in (1, 2))
        assert max(np.abs(one[name] - two[name]).max() for name in one) < 1e-3
    assert sorted(path.name for path in runs.iterdir()) == [
        "original_1",
        "original_2",
        "unlearned_1",
        "unlearned_2",
    ]
