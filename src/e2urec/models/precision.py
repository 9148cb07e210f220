"""The precision in which a model computes: float32, or bf16 autocast where hardware supports it."""

from contextlib import AbstractContextManager
from typing import Any, Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]


def autocast_type(precision: Precision, device: torch.device) -> torch.dtype | None:
    """Return bf16, or None for float32; `auto` is bf16 where the processor multiplies it itself."""
    if precision == "fp32":
        return None
    if precision == "bf16":
        return torch.bfloat16
    # Without hardware support bf16 works as well, but is slower than float32.
    if device.type == "cuda":
        is_fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if is_fast else None
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else None


def arithmetic(precision: Precision, device: torch.device) -> str:
    """In what models on `device` compute, in words: `cpu, torch.bfloat16`."""
    dtype = autocast_type(precision, device) or torch.float32
    return f"{device.type}, {dtype}"


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Inside, models on `device` compute in `precision`."""
    dtype = autocast_type(precision, device)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)
