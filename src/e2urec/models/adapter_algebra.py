"""Arithmetic on adapters: which weights they update, by row, merged, or added up to one.

`adapters.py` says which files call PEFT.
"""

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.pytorch_utils import Conv1D

from .adapted_layers import lora_layers
from .devices import seeded
from .fsdp import refuse_split
from .quantisation import refuse_quantised
from .stored_weights import float32_adapters


@dataclass(frozen=True)
class AdaptedWeight:
    """A weight that an adapter updates.

    Attributes:
        weight: of the bare layer, (out, in), or (in, out) if it is transposed.
        down: the adapter's A, (r, in).
        transposed: whether the layer is GPT-2's Conv1D, which keeps its weight that way.
    """

    weight: nn.Parameter
    down: nn.Parameter
    transposed: bool


def adapted_weights(lm: Any, name: str) -> list[AdaptedWeight]:
    """The weights that adapter `name` updates; other adapters may lie on the same layers."""
    weights = []
    for layer in lora_layers(lm):
        if name in layer.lora_A:
            bare = layer.get_base_layer()
            down = layer.lora_A[name].weight
            weight = AdaptedWeight(bare.weight, down, isinstance(bare, Conv1D))
            weights.append(weight)
    return weights


@contextlib.contextmanager
def row_weights(lm: Any, weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Inside, an adapter's update is multiplied by a weight for each row of the batch.

    For row x that is w(x)·(alpha / rank)·B·A·x. Layers must see their input as (b, t, d), as those
    of Llama and T5 do.

    Args:
        lm: the model.
        weights: adapter → the weights of the rows, (b,).
    """
    layers = lora_layers(lm)
    usual_scales = [dict(layer.scaling) for layer in layers]
    try:
        for layer in layers:
            _weigh(layer.scaling, weights)
        yield
    finally:
        for layer, scales in zip(layers, usual_scales, strict=True):
            layer.scaling.update(scales)


def _weigh(scaling: dict[str, Any], weights: Mapping[str, torch.Tensor]) -> None:
    for name, weight in weights.items():
        if name in scaling:
            scaling[name] = scaling[name] * weight[:, None, None]


def merge(lm: Any, names: Sequence[str]) -> Any:
    """Return a bare model whose weights hold the adapters `names`; `lm` itself is used up.

    Models that share weights with it keep theirs as they are.

    Raises:
        ConfigError: its weights are quantised, and would be rounded again.
    """
    refuse_split(lm, "a merged model")
    refuse_quantised(lm, "merging an adapter")
    for layer in lora_layers(lm):
        bare = layer.get_base_layer()
        # PEFT puts the merged values into the parameter that is there, which may be others' too.
        # In float32, since fewer bits would round the adapters' small updates away.
        bare.weight = nn.Parameter(bare.weight.data.float(), requires_grad=False)
    return lm.merge_and_unload(adapter_names=list(names), safe_merge=True)


def total_rank(lm: Any, names: Sequence[str]) -> int:
    """The ranks of the adapters `names` added up."""
    return sum(lm.peft_config[name].r for name in names)


def concatenate(lm: Any, parts: Sequence[str], into: str, *, rank: int | None = None) -> None:
    """Replace the adapters `parts` by their sum, a new adapter `into`.

    The sum is exact while its rank may be the sum of their ranks: [B₁ B₂]·[A₁; A₂] = B₁A₁ + B₂A₂.
    Where that exceeds `rank`, `into` is the update of that rank nearest to the sum (in the
    Frobenius norm; Eckart and Young 1936).

    Args:
        lm: the model that carries the adapters.
        parts: the adapters to add up; they are deleted.
        into: name of the sum. It may be the name of one of `parts`.
        rank: highest rank of the sum; None for no limit.
    """
    sum_rank = total_rank(lm, parts)
    rank = sum_rank if rank is None else min(rank, sum_rank)
    is_exact = rank == sum_rank
    # PEFT adds no adapter under a name that exists. A sum that takes the name of one of its parts
    # is therefore made under another name first.
    sum_name = into if is_exact and into not in parts else f"{into}_whole"
    weights = [1.0] * len(parts)
    with float32_adapters(lm):
        lm.add_weighted_adapter(list(parts), weights, sum_name, combination_type="cat")
    for part in parts:
        lm.delete_adapter(part)
    if sum_name != into:
        _add_nearest(lm, sum_name, into, rank)
        lm.delete_adapter(sum_name)
    lm.requires_grad_(False)


def _add_nearest(lm: Any, source: str, into: str, rank: int) -> None:
    """Add an adapter `into` of this rank whose update is nearest to that of adapter `source`."""
    config = copy.copy(lm.peft_config[source])
    config.r = rank
    # Its matrices hold the whole update, so its scale alpha / rank is 1 in every layer.
    config.lora_alpha = rank
    config.rank_pattern = {}
    config.alpha_pattern = {}
    # PEFT draws the new adapter's weights from the global random stream, which is the caller's.
    # They are overwritten below, so that any seed will do.
    with seeded(0, lm.device), float32_adapters(lm):
        lm.add_adapter(into, config)
    for layer in lora_layers(lm):
        if source not in layer.lora_A:
            continue
        source_a = layer.lora_A[source].weight
        source_b = layer.lora_B[source].weight
        a, b = _nearest_factors(source_a, layer.scaling[source] * source_b, rank)
        layer.lora_A[into].weight.data = a
        layer.lora_B[into].weight.data = b


@torch.no_grad()
def _nearest_factors(
    a: torch.Tensor, b: torch.Tensor, rank: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The factors of the matrix of this rank that is nearest to b·a, which is never built.

    Args:
        a: (s, in).
        b: (out, s).
        rank: r.

    Returns:
        A (r, in) and B (out, r).
    """
    a_float = a.float()
    b_float = b.float()
    q_out, r_out = torch.linalg.qr(b_float)
    q_in, r_in = torch.linalg.qr(a_float.T)
    # The orthogonal factors change no singular value, so those of this small matrix are b·a's own.
    core = r_out @ r_in.T
    u, singular_values, v = torch.linalg.svd(core)
    value_count = min(rank, len(singular_values))
    left_vectors = u[:, :value_count]
    right_vectors = v[:value_count].T
    # The root of each singular value goes to either side: A and B are then of about one size.
    roots = singular_values[:rank].sqrt()
    up = q_out @ left_vectors
    up = up * roots
    down = q_in @ right_vectors
    down = (down * roots).T
    # A layer narrower than the rank has fewer singular values; zeros fill up its matrices.
    missing = rank - value_count
    up = F.pad(up, (0, missing))
    down = F.pad(down, (0, 0, 0, missing))
    down = down.to(a.dtype)
    up = up.to(b.dtype)
    return down.contiguous(), up.contiguous()
