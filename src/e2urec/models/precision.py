"""In which precision a model computes: float32, or bf16 autocast where the hardware multiplies it."""

from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]


def autocast_type(precision: Precision, device: torch.device) -> torch.dtype | None:
    """bf16 or None (float32); `auto` takes bf16 where the processor multiplies it in hardware."""
    if precision == "fp32":
        return None
    if precision == "bf16":
        return torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else None
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else None
