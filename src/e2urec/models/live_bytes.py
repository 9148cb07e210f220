"""Count the bytes of a computation that is never made: tensors with shapes and without values.

PyTorch's fake tensors go through the same code as real ones, autograd included, so what a step
keeps for its backward pass is counted and not estimated by a formula for each architecture.
"""

import contextlib
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# glibc's DEFAULT_MMAP_THRESHOLD_MAX on 64 bits: what is larger gets pages of its own, which go back
# when it is freed.
HEAP_BYTES = 32 << 20
"""Largest tensor that lies between others on a CPU, where gaps are."""


def without_values() -> FakeTensorMode:
    """Inside, new tensors have shapes and no values, and take no memory."""
    # Tokens are made by NumPy, and enter as real tensors.
    return FakeTensorMode(allow_non_fake_inputs=True)


def tensor_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the memory under `tensors`; what several share counts once."""
    sizes = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        sizes[storage._cdata] = storage.nbytes()
    return sum(sizes.values())


def model_tensors(model: nn.Module) -> list[torch.Tensor]:
    """Parameters and buffers of a model."""
    return [*model.parameters(), *model.buffers()]


def model_vocabulary(model: Any) -> int:
    """Number of tokens that a recommender's output head knows."""
    return int(model.lm.get_output_embeddings().weight.shape[0])


@dataclass(frozen=True)
class Peak:
    """What lives at the peak of a piece of work, on top of the model.

    Attributes:
        activations: bytes of what is computed: states, and what the backward pass needs.
        logits: bytes of what has a value for each token of the vocabulary, last of its dimensions.
        gradients: bytes of the gradients of the parameters.
        heap: bytes of those among all these tensors that are no larger than `HEAP_BYTES`.
    """

    activations: int = 0
    logits: int = 0
    gradients: int = 0
    heap: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.activations + self.logits + self.gradients


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, counts the memory that PyTorch's operations take and free.

    What a kernel takes for itself while it runs is not counted, and neither are the gaps that an
    allocator leaves.

    Args:
        model: the recommender at work, which exists before and is not counted.
        parameters: whose gradients are told apart.
    """

    def __init__(self, model: nn.Module, parameters: Sequence[nn.Parameter] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.parameters = parameters
        self.vocabulary_size = model_vocabulary(model)
        self.current = 0
        self.current_logits = 0
        self.current_heap = 0
        self.peak = Peak()
        # A view of a weight is no new memory.
        self.known = {tensor.untyped_storage()._cdata for tensor in model_tensors(model)}
        self.storages: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf)
        return result

    def _count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.known:
            return
        self.known.add(key)
        size = storage.nbytes()
        logit_size = size if tensor.shape[-1:] == (self.vocabulary_size,) else 0
        heap_size = size if size <= HEAP_BYTES else 0

        def forget(reference: weakref.ref[Any]) -> None:
            # Another tensor may get the same address later.
            self.known.discard(key)
            del self.storages[key]
            self.current -= size
            self.current_logits -= logit_size
            self.current_heap -= heap_size

        self.storages[key] = weakref.ref(storage, forget)
        self.current += size
        self.current_logits += logit_size
        self.current_heap += heap_size
        if self.current > self.peak.total:
            gradients = self._gradient_bytes()
            activations = self.current - self.current_logits - gradients
            self.peak = Peak(activations, self.current_logits, gradients, self.current_heap)

    def _gradient_bytes(self) -> int:
        gradients = [value.grad for value in self.parameters if value.grad is not None]
        return tensor_bytes(gradients)


def _fused_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    **options: Any,
) -> torch.Tensor:
    """PyTorch's memory-efficient kernel, the one that takes a mask: (b, h, t, d) → (b, h, t, d)."""
    if options.pop("enable_gqa", False):
        groups = query.shape[1] // key.shape[1]
        key = key.repeat_interleave(groups, dim=1)
        value = value.repeat_interleave(groups, dim=1)
    if attn_mask is not None:
        scores_shape = (*query.shape[:3], key.shape[2])
        attn_mask = attn_mask.to(query.dtype).expand(scores_shape)
    # What else it returns are the sums that its backward pass needs.
    output: torch.Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, attn_mask, query.requires_grad, **options
    )[0]
    return output


@contextlib.contextmanager
def fused_attention(enabled: bool) -> Iterator[None]:
    """Inside, attention goes by the kernel of a GPU, if `enabled`, which keeps no (t, t) scores.

    Else it is as the model computes it.
    """
    # No mode of torch's: those are off in a backward pass, where checkpointed blocks compute again.
    fused = patch.object(F, "scaled_dot_product_attention", _fused_attention)
    with fused if enabled else contextlib.nullcontext():
        yield
