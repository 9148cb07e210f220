"""Training in two CPU processes takes the same steps as in one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[1])
from accelerate import PartialState
from conftest import TUNING, generated, toy_backbone
from e2urec.data.prompts import TEMPLATES
from e2urec.data.splits import split
from e2urec.models.recommender import Recommender
from e2urec.tuning import tune

state = PartialState(cpu=True)
assert state.num_processes == int(sys.argv[2]), state.num_processes
base = toy_backbone("causal")
rows = Recommender(base, TEMPLATES["compact"]).encode(split(generated(), history=3, seed=1).train)
rows = rows.take(range(40))
model, trace = tune(base, TEMPLATES["compact"], TUNING, rows, None, seed=1)
if state.is_main_process:
    print("FOUND" + json.dumps({"scores": model.score(rows).tolist(), "steps": trace.steps}), flush=True)
"""


def found(processes: int, tmp_path: Path) -> dict[str, list[float]]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        str(processes),
        "--master_port",
        "29531",
    ]
    start = launch if processes > 1 else [sys.executable]
    words = [*start, str(script), str(Path(__file__).parents[1]), str(processes)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, env=environment)
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND")]
    assert lines, done.stderr
    return json.loads(lines[0].removeprefix("FOUND"))


def test_two_processes_take_the_same_steps_as_one(tmp_path):
    one, two = found(1, tmp_path), found(2, tmp_path)
    assert two["steps"] == one["steps"]
    assert two["scores"] == pytest.approx(one["scores"], abs=1e-4)
