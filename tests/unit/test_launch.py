"""What a launcher asks for is done, or refused."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from e2urec.cli import progress
from e2urec.core.errors import ConfigError
from e2urec.core.launch import refuse_unheeded_launch
from e2urec.models import devices
from e2urec.training.process_share import ProcessShare

SMOKE = Path(__file__).parents[2] / "recipes" / "compare-smoke.toml"


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"ACCELERATE_USE_FSDP": "true"}, "set|setting model.fsdp=true"),
        ({"ACCELERATE_USE_DEEPSPEED": "1"}, "DeepSpeed is not used here"),
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, "tuning.schedule.precision"),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, "tuning.schedule.batch_size"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "would run alone"),
        (
            {"ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "127.0.0.1"},
            "was told of several processes and started one",
        ),
    ],
)
def test_launch_whose_wishes_go_unheeded_is_refused(monkeypatch, environment, reason):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(ConfigError, match=reason) as refusal:
        refuse_unheeded_launch(environment)
    assert "start by torchrun" in str(refusal.value)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"MASTER_ADDR": "127.0.0.1"},
        # What `accelerate launch` sets where nothing was asked of it.
        {
            "ACCELERATE_MIXED_PRECISION": "no",
            "ACCELERATE_DYNAMO_BACKEND": "NO",
            "ACCELERATE_USE_FSDP": "false",
            "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1",
        },
        {"OMPI_COMM_WORLD_SIZE": "1"},
    ],
)
def test_launch_that_asks_for_nothing_else_is_accepted(monkeypatch, environment):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    refuse_unheeded_launch(environment)


def test_launch_of_mpi_with_the_variables_of_torchrun_is_accepted(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    refuse_unheeded_launch({"OMPI_COMM_WORLD_SIZE": "2", "ACCELERATE_MIXED_PRECISION": "no"})


def gpus(monkeypatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize("rank", ["0", "2"])
def test_more_processes_than_gpus_are_refused_by_each_of_them(monkeypatch, rank):
    gpus(monkeypatch, 2)
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="3 processes on a machine with 2 GPU"):
        devices.default_device()


def test_process_takes_the_gpu_of_its_number_or_the_cpu_where_it_is_told_to(monkeypatch):
    gpus(monkeypatch, 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert devices.default_device() == torch.device("cuda", 1)
    with devices.on_cpu():
        assert devices.default_device() == torch.device("cpu")
    assert devices.default_device() == torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("count", "alone", "is_told"), [(2, False, True), (1, False, False), (2, True, False)]
)
def test_idle_gpus_are_told_of_where_a_launcher_could_use_them(
    monkeypatch, capsys, count, alone, is_told
):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    gpus(monkeypatch, count)
    with progress.progress(alone=alone):
        pass
    assert ("torchrun --nproc_per_node 2" in capsys.readouterr().err) == is_told


@pytest.mark.parametrize("world", [2, 3, 8])
def test_shares_of_a_step_add_up_to_the_step_where_rows_do_not_come_out_even(world):
    generator = torch.Generator().manual_seed(0)
    values = {name: torch.rand(count, generator=generator) for name, count in SIZES.items()}
    step = {name: np.arange(count) for name, count in SIZES.items()}
    totals = dict.fromkeys(SIZES, 0.0)
    read = {name: [] for name in SIZES}
    for rank in range(world):
        share = ProcessShare.of(step, SimpleNamespace(process_index=rank, num_processes=world))
        losses = {name: values[name][rows].mean() for name, rows in share.rows.items()}
        for name, loss in share.weigh(losses).items():
            totals[name] += float(loss) / world
            if share.weights[name]:
                read[name] += share.rows[name].tolist()
    for name, count in SIZES.items():
        assert totals[name] == pytest.approx(float(values[name].mean()), abs=1e-6)
        assert sorted(read[name]) == list(range(count))


SIZES = {"forget": 5, "retain": 16}


def test_comparison_in_several_processes_is_refused_before_anything_is_read(
    call, tmp_path, monkeypatch
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    out = tmp_path / "out"
    status, _, error = call("compare", SMOKE, "--out", out, "--set", "model.name=nowhere")
    assert status == 2
    assert error == (
        "e2urec: compare: runs in one process, whose cells can be taken up again; start it without "
        "a launcher\n"
    )
    assert not list(tmp_path.glob("out*"))
