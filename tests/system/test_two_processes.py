"""Two CPU processes take the same steps as one, share the rest, and leave the same folders."""

import pytest

from toy_data import quick_settings, write_ratings
from two_processes import check_same_runs, commands_to, fork

FILES = {
    "whole": "model/model.safetensors",
    "split": "adapter/adapter_model.safetensors",
}


@pytest.fixture(scope="module")
def one_process(toy, tmp_path_factory):
    """Settings of a fully tuned model, and of an adapter on a base that one process has whole."""
    settings = quick_settings(write_ratings(tmp_path_factory.mktemp("ratings")), toy)
    return {"whole": settings, "split": [*settings, "tuning.lora.rank=4"]}


@pytest.fixture(scope="module")
def launched(one_process, tmp_path_factory):
    """All commands by the same two processes, whose start takes longer than the commands do."""
    folder = tmp_path_factory.mktemp("two")
    commands = commands_to(folder / "whole", one_process["whole"])
    commands += commands_to(folder / "split", [*one_process["split"], "model.fsdp=true"])
    done = fork(folder, commands)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("seed 0") == len(commands), "one process speaks"
    return folder


@pytest.mark.parametrize("kind", ["whole", "split"])
def test_two_processes_train_and_unlearn_as_one_does(call, one_process, launched, tmp_path, kind):
    for words in commands_to(tmp_path, one_process[kind]):
        status, _, error = call(*words)
        assert status == 0, error
    check_same_runs(tmp_path, launched / kind, FILES[kind])
    left = sorted(path.name for path in (launched / kind).iterdir())
    assert left == ["original", "unlearned"]
