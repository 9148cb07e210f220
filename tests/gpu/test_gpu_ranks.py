"""Several processes, each on a GPU of its own (NCCL)."""

import pytest
import torch

from toy_data import quick_settings, write_ratings
from two_processes import PROCESSES, check_same_runs, commands_to, launch

pytestmark = pytest.mark.gpu

ADAPTER = ["tuning.lora.rank=4", "scores.pairs=1"]


def test_more_processes_than_gpus_are_one_line(on_gpu, toy, tmp_path):
    settings = quick_settings(write_ratings(tmp_path), toy)
    count = torch.cuda.device_count()
    done = launch(tmp_path, commands_to(tmp_path, settings)[:1], processes=count + 1)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("e2urec: ")]
    assert len(lines) == 1
    assert f"{count + 1} processes on a machine with {count} GPU(s)" in lines[0]
    assert not list(tmp_path.glob("original*"))


@pytest.mark.parametrize("is_split", [False, True])
def test_two_gpus_make_the_adapters_of_one(on_gpu, call, toy, tmp_path, is_split):
    if torch.cuda.device_count() < PROCESSES:
        pytest.skip(f"needs {PROCESSES} GPUs")
    settings = [*quick_settings(write_ratings(tmp_path), toy), *ADAPTER]
    for words in commands_to(tmp_path / "one", settings):
        status, _, error = call(*words)
        assert status == 0, error
    settings.append(f"model.fsdp={str(is_split).lower()}")
    done = launch(tmp_path, commands_to(tmp_path / "two", settings))
    assert done.returncode == 0, done.stderr
    check_same_runs(tmp_path / "one", tmp_path / "two", "adapter/adapter_model.safetensors")
