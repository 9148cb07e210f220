"""Commands in two processes of a launcher, and how their results are compared with those of one."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

PROCESSES = 2
# Alone on a port that is free: another run of the tests may be at work on this machine.
LAUNCH = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
# Two processes that no launcher started, forked from one that has imported everything and computed
# nothing: that takes long.
FORK = """
import os, sys
if "RANK" not in os.environ:
    import socket
    from e2urec.api import train, unlearn
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2")
    os.environ["LOCAL_WORLD_SIZE"] = "2"
    children = []
    for rank in "01":
        os.environ.update(RANK=rank, LOCAL_RANK=rank)
        children.append(os.fork())
        if not children[-1]:
            break
    else:
        ends = [os.waitpid(child, 0)[1] for child in children]
        os._exit(int(any(ends)))
"""
# All commands by the same processes, whose start takes longer than what they do. At once at the
# end: gloo may abort when Python takes its group down.
COMMANDS = """
import json
from e2urec.cli import main
status = 0
for words in json.loads(sys.argv[1]):
    sys.argv[1:] = words
    try:
        main()
    except SystemExit as stop:
        status = status or int(stop.code or 0)
sys.__stdout__.flush()
sys.stderr.flush()
os._exit(status)
"""
# Many times what they take, since others may be at work on the same cores.
WAIT_SECONDS = 1800
"""After which two processes wait for each other in vain."""
# Sums are taken in another order, and some figures are rounded to three digits.
WEIGHTS = 1e-5
FIGURES = 2e-3
COSTS = ("peak_bytes", "peak_gpu_bytes", "cache")
"""Figures of what a command took, which differ from run to run; a split base has no cache."""


def launch(
    folder: Path, commands: list[list[str]], *, processes: int = PROCESSES
) -> "subprocess.CompletedProcess[str]":
    """Run the commands in several processes; `folder` gets the script that they run."""
    return launch_script(folder, FORK + COMMANDS, json.dumps(commands), processes=processes)


def fork_script(folder: Path, text: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a program in two processes that no launcher started, in half the time; see `FORK`."""
    return _run(folder, [], FORK + text, *words)


def launch_script(
    folder: Path, text: str, *words: str, processes: int = PROCESSES
) -> "subprocess.CompletedProcess[str]":
    """Run a program in several processes; `folder` gets it as a file."""
    return _run(folder, [*LAUNCH, str(processes)], text, *words)


def _run(
    folder: Path, options: list[str], text: str, *words: str
) -> "subprocess.CompletedProcess[str]":
    script = folder / "script.py"
    script.write_text(text)
    return subprocess.run(
        [sys.executable, *options, str(script), *words],
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def differences(one: Any, two: Any, tolerance: float, place: str = "") -> list[str]:
    """Where two JSON values differ, costs aside; numbers do by more than `tolerance`."""
    if isinstance(one, dict) and isinstance(two, dict):
        names = [name for name in one.keys() | two.keys() if not _is_cost(name)]
        pairs = [(name, one.get(name), two.get(name)) for name in sorted(names)]
    elif isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        pairs = [(str(number), *pair) for number, pair in enumerate(zip(one, two, strict=True))]
    elif isinstance(one, int | float) and isinstance(two, int | float):
        is_close = math.isclose(one, two, rel_tol=tolerance, abs_tol=tolerance)
        return [] if is_close else [f"{place}: {one} and {two}"]
    else:
        return [] if one == two else [f"{place}: {one} and {two}"]
    found: list[str] = []
    for name, left, right in pairs:
        found += differences(left, right, tolerance, f"{place}.{name}")
    return found


def _is_cost(name: str) -> bool:
    return name in COSTS or name.endswith("seconds")


def commands_to(runs: Path, settings: list[str]) -> list[list[str]]:
    """Train an original, and have it forget."""
    train = ["train", "--out", str(runs / "original")]
    for setting in settings:
        train += ["--set", setting]
    unlearn = ["unlearn", str(runs / "original"), "--out", str(runs / "unlearned")]
    return [train, [*unlearn, "--set", "min_steps=4", "--set", "augment_min_steps=4"]]


def check_same_runs(one: Path, two: Path, file: str) -> None:
    """The run folders in two folders hold the same weights and figures, but for the last digits."""
    names = sorted(path.parent.name for path in one.glob("*/run.json"))
    assert names
    for name in names:
        assert _weight_difference(one / name / file, two / name / file) < WEIGHTS, name
        figures = [json.loads((runs / name / "results.json").read_text()) for runs in (one, two)]
        assert not differences(*figures, FIGURES), name


def _weight_difference(one: Path, two: Path) -> float:
    """Largest difference between two files of the same weights, or of adapters' updates B·A."""
    left, right = _weights(one), _weights(two)
    assert left.keys() == right.keys()
    return max(float(np.abs(left[name] - right[name]).max()) for name in left)


def _weights(file: Path) -> dict[str, Any]:
    """The weights in a file. A and B of an adapter may both have the other sign."""
    weights = load_file(file)
    downs = [name for name in weights if "lora_A" in name]
    for name in downs:
        up = weights.pop(name.replace("lora_A", "lora_B"))
        weights[name] = up @ weights[name]
    return weights
