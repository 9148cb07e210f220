"""The benchmark of memory makes the models that it says, and measures what a process takes."""

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from e2urec.runs.folder import open_run

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import memory


def test_commands_on_a_stored_base_are_planned_and_carried_out(
    toy: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(memory, "apart", lambda work, *arguments: work(*arguments))
    settings = ("model.window=32", "tuning.schedule.micro_batch=8", "data.rows=24")
    case = memory.Case(1, whole=False, dtype="bfloat16", base=str(toy), settings=settings)
    comparisons = memory.compare(case, tmp_path)
    assert [comparison.command for comparison in comparisons] == ["train", "unlearn", "evaluate"]
    assert all(comparison.planned > 0 for comparison in comparisons)
    folder = tmp_path / "1-bfloat16-lora"
    weights = load_file(folder / "base" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    assert not any("layers.1" in name for name in weights)
    for name in ("original", "forgotten"):
        recipe = open_run(folder / name).record.recipe
        assert recipe["tuning"]["schedule"]["micro_batch"] == 8
        assert recipe["tuning"]["lora"]["rank"] == 16


def test_peak_is_that_since_the_start_and_is_kept_after_memory_is_freed() -> None:
    earlier = np.ones(80_000_000, dtype=np.uint8)
    del earlier
    peak = memory.PeakMemory()
    assert peak.taken < 20e6
    array = np.ones(50_000_000, dtype=np.uint8)
    assert array.sum() == 50_000_000
    del array
    assert 45e6 < peak.taken < 70e6


def test_line_tells_how_far_the_plan_is_off() -> None:
    case = memory.Case(4, whole=False, dtype="bfloat16", base=None, settings=())
    comparison = memory.Comparison(case, "train", "a step", planned=90_000_000, measured=10**8)
    assert comparison.line() == "| 4 blocks in bfloat16 | train | a step | 90 | 100 | -10.0% |"
