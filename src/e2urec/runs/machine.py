"""The machine at work, as results name it: seconds mean nothing without it."""

import os
import platform
from pathlib import Path
from typing import Any

import torch


def this_machine() -> dict[str, Any]:
    """Processor, cores and threads of this process, and its GPU where it has one."""
    machine: dict[str, Any] = {
        "cpu": processor_name(),
        "count": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
    return machine


def processor_name() -> str:
    """What the processor calls itself."""
    # Python knows no more of it on Linux than the architecture.
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
