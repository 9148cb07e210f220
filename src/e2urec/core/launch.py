"""What a launcher asks for is refused where it would not be done; its processes meet here."""

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from .errors import ConfigError
from .process import process_count

# The launcher ends all processes as soon as one has failed. A time-out could only end a command
# whose first process writes a large model while the others wait for it.
WAIT = timedelta(days=1)
"""How long a process waits for the others."""
MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where MPI's launchers write how many processes there are."""
ELSEWHERE = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed is not used here; set model.fsdp=true",
    "ACCELERATE_USE_FSDP": "a base is split by the setting model.fsdp=true",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM is not used here; set model.fsdp=true",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "rows alone are shared, or blocks by model.fsdp=true",
    "ACCELERATE_MIXED_PRECISION": "precision is set by tuning.schedule.precision",
    "ACCELERATE_DYNAMO_BACKEND": "nothing is compiled here",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "a step is set by tuning.schedule.batch_size",
}
"""Wishes of `accelerate launch` that go unheeded, or would change losses, and what to do."""
NO_WISH = ("", "0", "1", "no", "false", "fp32")
"""Values by which nothing is wished for; `1` is one step of accumulation."""


def refuse_unheeded_launch(environment: Mapping[str, str] = os.environ) -> None:
    """Raise ConfigError where a launcher asked for what would silently not be done."""
    for name, remedy in ELSEWHERE.items():
        value = environment.get(name, "").strip()
        is_switch = name.startswith("ACCELERATE_USE_")
        if value.lower() not in NO_WISH or (is_switch and value == "1"):
            raise ConfigError(f"{name}={value}: {remedy}; start by torchrun")
    if process_count() > 1:
        return
    for name in MPI_SIZES:
        if environment.get(name, "1").strip() not in ("", "1"):
            raise ConfigError(
                f"{name}={environment[name]}: each of these processes would run alone; start by "
                "torchrun"
            )
    # `accelerate launch --cpu --num_processes 2` sets an address to meet at, and starts one.
    if "ACCELERATE_MIXED_PRECISION" in environment and environment.get("MASTER_ADDR"):
        raise ConfigError(
            "accelerate launch: was told of several processes and started one; start by torchrun "
            "--nproc_per_node"
        )


def join_processes() -> Any:
    """Meet the other processes, once; returns Accelerate's `PartialState`.

    Raises:
        ConfigError: others than the launcher named are met.
    """
    # Imported here because both load torch, which most commands never need.
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available(), timeout=WAIT)
    if state.num_processes != process_count():
        raise ConfigError(
            f"environment variable WORLD_SIZE {process_count()}: {state.num_processes} of these "
            "processes met; start by torchrun"
        )
    return state


def wait_for_all() -> None:
    """Wait until every process has come to this line, so that all of them see the same files."""
    if process_count() > 1:
        join_processes().wait_for_everyone()
