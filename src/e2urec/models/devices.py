"""Where models run: this process's GPU, or the CPU; its random stream, its clock and its memory."""

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar

import torch

from ..core.errors import ConfigError

_is_on_cpu = ContextVar("is_on_cpu", default=False)


def default_device() -> torch.device:
    """Return this process's GPU where there is one, else the CPU.

    Raises:
        ConfigError: a launcher started more processes than this machine has GPUs.
    """
    if _is_on_cpu.get() or not torch.cuda.is_available():
        return torch.device("cpu")
    number = int(os.environ.get("LOCAL_RANK", "0"))
    # All processes of a machine say so alike, so that one of them speaks for all.
    needed = max(number + 1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    available = torch.cuda.device_count()
    if needed > available:
        raise ConfigError(
            f"{needed} processes on a machine with {available} GPU(s): each needs one of its own; "
            f"start with --nproc_per_node {available}"
        )
    return torch.device("cuda", number)


@contextlib.contextmanager
def on_cpu() -> Iterator[None]:
    """Inside, models are loaded to the CPU, even where there is a GPU."""
    token = _is_on_cpu.set(True)
    try:
        yield
    finally:
        _is_on_cpu.reset(token)


def seed_streams(seed: int, device: torch.device) -> None:
    """Start PyTorch's global random streams from `seed`: that of the CPU, and that of `device`."""
    if device.type == "cpu":
        # `torch.manual_seed` reads the stack of its caller for each kind of GPU that is not at
        # work, at every call.
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, PyTorch's global random streams start from `seed`; then they go on as before.

    Args:
        seed: of the streams.
        device: where random numbers are drawn besides the CPU.
    """
    # PyTorch would save the streams of all GPUs, and make itself at home on each for that.
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(gpus):
        seed_streams(seed, device)
        yield


@contextlib.contextmanager
def thread_limit(count: int | None) -> Iterator[None]:
    """Inside, PyTorch computes with at most so many threads; None: with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, count or before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def wait_for_gpu() -> None:
    """Return when the GPU has done all it was told to: a clock read before tells too little."""
    gpu = _gpu_at_work()
    if gpu is not None:
        torch.cuda.synchronize(gpu)


def peak_gpu_bytes() -> int:
    """Most memory that this process's tensors have taken on its GPU so far; 0 without one."""
    gpu = _gpu_at_work()
    return 0 if gpu is None else torch.cuda.max_memory_allocated(gpu)


def _gpu_at_work() -> torch.device | None:
    """This process's GPU, once something was put there."""
    device = default_device()
    if device.type != "cuda" or not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return None
    return device
