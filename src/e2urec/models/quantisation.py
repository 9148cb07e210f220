"""A frozen base whose linear layers are kept in 4 or 8 bits, under adapters in full precision.

4 bits are NF4 with quantised scales (QLoRA: Dettmers et al. 2023, arXiv 2305.14314, section 3), 8
bits LLM.int8() without outliers (Dettmers et al. 2022, arXiv 2208.07339, section 3). Both come from
bitsandbytes, which is an extra.
"""

import importlib.util
import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from ..core.errors import ConfigError
from .precision import autocast_type

Quantisation = Literal["4bit", "8bit"]

BLOCK = 64
"""Weights that share a scale in 4 bits."""
SCALE_BLOCK = 256
"""Scales of these that share a scale of their own."""
FLOAT_BYTES = 4
# A table of 16 values for the weights, one of 256 for their scales, and the mean scale.
TABLE_BYTES = (16 + 256 + 1) * FLOAT_BYTES


def loading_options(quantize: Quantisation, device: torch.device) -> dict[str, Any]:
    """What Transformers is told when it loads a base in so few bits.

    Raises:
        ConfigError: bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"model.quantize={quantize}: needs bitsandbytes; install it by: pip install "
            "'e2urec[quantize]'"
        )
    if quantize == "8bit":
        # With a threshold, which columns are computed in full precision depends on all rows of a
        # batch, and so would a row's score.
        settings = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    else:
        settings = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=autocast_type("auto", device) or torch.float32,
        )
    return {"quantization_config": settings, "device_map": {"": device}}


def is_quantised(lm: Any) -> bool:
    """Whether weights of `lm` are kept in 4 or 8 bits."""
    return any(getattr(lm, f"is_loaded_in_{bits}bit", False) for bits in (4, 8))


def settle(lm: Any) -> None:
    """Put 8-bit weights where their layers look for them, before the layers are copied.

    bitsandbytes moves them from the parameter to the layer at the first forward pass. Of two layers
    that share a parameter, the other would then pack what is packed already.
    """
    for module in lm.modules():
        if hasattr(module, "init_8bit_state") and module.weight.CB is not None:
            module.init_8bit_state()


def packed_tensors(lm: Any) -> Iterator[torch.Tensor]:
    """8-bit weights and their scales, which layers hold beside their parameters."""
    for module in lm.modules():
        state = getattr(module, "state", None)
        for name in ("CB", "SCB"):
            tensor = getattr(state, name, None)
            if isinstance(tensor, torch.Tensor):
                yield tensor


def weight_count(parameter: nn.Parameter) -> int:
    """Number of weights in a parameter; in 4 bits a byte holds two."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else math.prod(state.shape)


def refuse_quantised(lm: Any, action: str) -> None:
    """Raise ConfigError where `lm` is quantised, and `action` needs whole weights."""
    if is_quantised(lm):
        raise ConfigError(
            f"model.quantize: {action} needs the weights of the base in full precision; leave out "
            "model.quantize, or do without"
        )


def quantised_bytes(layer: nn.Linear, quantize: Quantisation) -> int:
    """Bytes of the weight of a linear layer in 4 or 8 bits, with its scales.

    8 bits have one scale a row of the weight. 4 bits have one byte for the scale of 64 weights, and
    one float for 256 of these scales.
    """
    weights = layer.weight.numel()
    if quantize == "8bit":
        return weights + FLOAT_BYTES * layer.out_features
    scales = -(-weights // BLOCK)
    outer_scales = -(-scales // SCALE_BLOCK)
    return -(-weights // 2) + scales + FLOAT_BYTES * outer_scales + TABLE_BYTES
