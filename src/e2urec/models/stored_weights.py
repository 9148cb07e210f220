"""Frozen weights in the precision in which they are stored: bf16 takes half the memory of float32.

Arithmetic is what it would be on a float32 copy of the weights. A weight of fewer bits becomes
float32 without rounding where it is used, a piece at a time, and the piece is let go of at once.
Under bf16 autocast a bf16 weight serves as it is: a float32 copy would be rounded to just that.

Only weights that nobody moves may be held so: they get no gradient.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.pytorch_utils import Conv1D

from .adapted_layers import MAMBA

# 64 MB as float32: little beside a model, and all of the largest layer of one of 1B parameters.
PIECE_NUMBERS = 1 << 24
"""Numbers of a weight that are widened at a time."""

TOLD_SHARE = 0.1
"""Share of a model's weights in float32 from which it is told: its size is not what one expects."""


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """`x·Wᵀ + b`, (…, in), (out, in), (out,) → (…, out), in the precision of `x` or of autocast.

    A weight of another precision than that, unless it is float32, gets no gradient.
    """
    dtype = _arithmetic(x)
    if weight.dtype in (dtype, torch.float32):
        return F.linear(x, weight, bias)
    with torch.autocast(x.device.type, enabled=False):
        bias = None if bias is None else bias.to(dtype)
        return _product(x.to(dtype), weight, bias)


def _arithmetic(x: torch.Tensor) -> torch.dtype:
    device_type = x.device.type
    if torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    return x.dtype


def _pieces(weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
    rows = max(1, PIECE_NUMBERS // weight.shape[1])
    return torch.split(weight, rows)


# Autograd would hold each widened piece until the backward pass: a float32 copy of the model. These
# two hold the weight itself, and each is the other's derivative, however often.
class _Product(torch.autograd.Function):
    """`x·Wᵀ + b`, in which neither W nor b moves."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(weight)
        parts = []
        row = 0
        for piece in _pieces(weight):
            piece_bias = None if bias is None else bias[row : row + len(piece)]
            parts.append(F.linear(x, piece.to(x.dtype), piece_bias))
            row += len(piece)
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return _transposed(gradients[0], weight), None, None


class _TransposedProduct(torch.autograd.Function):
    """`y·W`, in which W does not move."""

    @staticmethod
    def forward(ctx: Any, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight)
        pieces = _pieces(weight)
        columns = torch.split(y, len(pieces[0]), -1)
        total = columns[0] @ pieces[0].to(y.dtype)
        for part, piece in zip(columns[1:], pieces[1:], strict=True):
            total += part @ piece.to(y.dtype)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (weight,) = ctx.saved_tensors
        return _product(gradients[0], weight, None), None


# Torch does not type how a function of its own is called.
_product: Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor] = _Product.apply
_transposed: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = _TransposedProduct.apply


class StoredLinear(nn.Linear):
    """A linear layer whose weight may have fewer bits than what it computes in."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As `nn.Linear` has it."""
        return linear(input, self.weight, self.bias)


class StoredConv1D(Conv1D):  # type: ignore[misc]
    """The same of GPT-2's linear layer, which keeps its weight as (in, out)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As `Conv1D` has it."""
        return linear(x, self.weight.T, self.bias)


class StoredEmbedding(nn.Embedding):
    """Embeddings that come out in float32, so that states between blocks are float32."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As `nn.Embedding` has it."""
        return super().forward(input).float()


# By the very class: what a subclass does with its weight is its own affair, so that stays float32.
STORED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: StoredLinear,
    Conv1D: StoredConv1D,
    nn.Embedding: StoredEmbedding,
}


def keep_stored(lm: Any) -> None:
    """Freeze `lm`, loaded in the precision in which it is stored, and make it answer as in float32.

    The matrices of linear layers and embeddings stay as they are. All other weights, which are
    few, become float32; where they are not few, a warning says so.
    """
    lm.requires_grad_(False)
    widened_count = 0
    for parameter, modules in _holders(lm).items():
        if not _is_low(parameter):
            continue
        if all(_can_be_stored(lm, parameter, name, module) for name, module in modules.items()):
            for module in modules.values():
                module.__class__ = STORED.get(type(module), type(module))
            continue
        # In place, so that weights which modules share stay shared.
        parameter.data = parameter.data.float()
        widened_count += parameter.numel()
    for module in lm.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if _is_low(buffer):
                module._buffers[name] = buffer.float()
    share = widened_count / sum(parameter.numel() for parameter in lm.parameters())
    if share > TOLD_SHARE:
        warnings.warn(
            f"model of type '{lm.config.model_type}': {share:.0%} of its weights are held in "
            "float32, twice the memory that they are stored in, since its family reads them in "
            "ways of its own",
            stacklevel=2,
        )


def _holders(lm: nn.Module) -> dict[nn.Parameter, dict[str, nn.Module]]:
    """The modules that each parameter is of, by name; tied weights have several."""
    holders: dict[nn.Parameter, dict[str, nn.Module]] = {}
    for name, module in lm.named_modules():
        for parameter in module.parameters(recurse=False):
            holders.setdefault(parameter, {})[name] = module
    return holders


def _is_low(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and tensor.element_size() < torch.float32.itemsize


def _can_be_stored(lm: Any, parameter: nn.Parameter, name: str, module: nn.Module) -> bool:
    has_form = type(module) in STORED or _has_stored_form(module)
    # These read the weights of linear layers past the layer, which would not widen them then.
    if not has_form or parameter is not module.weight or lm.config.model_type in MAMBA:
        return False
    # T5 casts states to the precision of these layers before it calls them.
    in_float32 = getattr(lm, "_keep_in_fp32_modules", None) or ()
    return not any(part in in_float32 for part in name.split("."))


def _has_stored_form(module: nn.Module) -> bool:
    return type(module) in STORED.values()


def _stored_layers(lm: nn.Module) -> list[Any]:
    """The layers whose weight has fewer bits than float32, and is widened where it is used."""
    layers: list[Any] = [module for module in lm.modules() if _has_stored_form(module)]
    return [layer for layer in layers if _is_low(layer.weight)]


def widen(lm: nn.Module) -> None:
    """Give `lm` float32 weights of its own in place of those that it holds as they are stored.

    Models that share those keep them.
    """
    own: dict[nn.Parameter, nn.Parameter] = {}
    for layer in _stored_layers(lm):
        weight = layer.weight
        # Tied weights stay tied.
        if weight not in own:
            own[weight] = nn.Parameter(weight.data.float(), requires_grad=weight.requires_grad)
        layer.weight = own[weight]


@contextlib.contextmanager
def widened(weights: Iterable[nn.Parameter]) -> Iterator[None]:
    """Inside, `weights` are float32, also those of other models that share them."""
    stored = {weight: weight.data for weight in weights if _is_low(weight)}
    try:
        for weight in stored:
            weight.data = weight.data.float()
        yield
    finally:
        for weight, data in stored.items():
            weight.data = data


@contextlib.contextmanager
def float32_adapters(lm: nn.Module) -> Iterator[None]:
    """Inside, PEFT makes adapters in float32 whatever the precision of the layers that they are on.

    It gives a new adapter the precision of its layer's weight, and so rounds what the adapter is
    made of. No model that shares the weights may answer meanwhile.
    """
    weights = {layer.weight for layer in _stored_layers(lm)}
    stored = {weight: weight.data for weight in weights}
    try:
        for weight in stored:
            # A stand-in of the same shape that takes no memory: PEFT asks for type and device.
            weight.data = torch.zeros((), device=weight.device).expand(weight.shape)
        yield
    finally:
        for weight, data in stored.items():
            weight.data = data
