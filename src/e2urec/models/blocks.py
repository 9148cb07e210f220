"""Run no more of a model's blocks than an answer needs.

Lower blocks are skipped where their output is known, a pass may stop early, and the last block may
compute a single position. Everything here leaves the model as it was and is exact: what is skipped
is never read.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..core.errors import ModelError

# The names that model families have for the output projection of a block's attention, and for its
# feed-forward network. These see one position at a time, and their output is added to the block's
# input. A block's other parts mix positions, or feed those that do.
ANSWER_ONLY = (
    "self_attn.o_proj",
    "attn.c_proj",
    "attention.dense",
    "self_attention.dense",
    "mlp",
)
"""Parts of a decoder's block that may compute the answer's position alone."""


def reader(lm: Any) -> nn.Module:
    """The part of `lm` that reads the prompt: a decoder, or an encoder-decoder's encoder.

    A model that reads pictures, too, has a decoder of its own for text.
    """
    part: nn.Module = lm.get_encoder() if lm.config.is_encoder_decoder else lm.get_decoder()
    return part


def stack(lm: Any) -> nn.ModuleList:
    """The blocks of `reader(lm)`.

    Raises:
        ModelError: the model has no list of `num_hidden_layers` blocks.
    """
    blocks = _find_stack(lm)
    if blocks is None:
        raise ModelError(
            f"model of type '{lm.config.model_type}': its blocks were not found; set lora.upper=1"
        )
    return blocks


def _find_stack(lm: Any) -> nn.ModuleList | None:
    block_count = getattr(lm.config.get_text_config(), "num_hidden_layers", None)
    for module in reader(lm).modules():
        if isinstance(module, nn.ModuleList) and len(module) == block_count:
            return module
    return None


@contextlib.contextmanager
def record_outputs(lm: Any) -> Iterator[list[int | None]]:
    """Inside, each block that runs adds the form of what it returns to a list.

    Yields:
        The list: the length of a tuple whose first item are the states; None for states alone.
    """
    forms: list[int | None] = []

    def record(module: nn.Module, inputs: Any, output: Any) -> None:
        forms.append(len(output) if isinstance(output, tuple) else None)

    with contextlib.ExitStack() as hooks:
        for block in _find_stack(lm) or ():
            hook = block.register_forward_hook(record)
            hooks.callback(hook.remove)
        yield forms


@contextlib.contextmanager
def forward_instead(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Inside, calling `module` calls `forward`."""
    # Usually an instance has no attribute of this name: the method is its class's.
    usual = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if usual is None:
            del module.forward
        else:
            module.forward = usual


@contextlib.contextmanager
def recompute(blocks: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, `blocks` keep nothing for the backward pass but their input, and compute twice.

    Chen et al. 2016, arXiv 1604.06174. Transformers' own switch does the same, but only in training
    mode, in which a backbone below adapters is not.
    """
    with contextlib.ExitStack() as changes:
        for block in blocks:
            forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
            changes.enter_context(forward_instead(block, forward))
        yield


@contextlib.contextmanager
def answer_only(lm: Any, position: torch.Tensor) -> Iterator[None]:
    """Inside, the last block of a decoder computes at `position` (b,) what is read there alone.

    Its output projection and feed-forward network then give (b, 1, d), which addition spreads over
    the block's input (b, t, d). The sum is right at the answer's position, the only one that is
    read. Keys and values are computed as usual.
    """

    def narrow(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        states, *rest = inputs
        rows = torch.arange(len(position), device=position.device)
        at_answer = states[rows, position]
        return (at_answer[:, None], *rest)

    last_block = stack(lm)[-1]
    with contextlib.ExitStack() as hooks:
        for name, module in last_block.named_modules():
            if name in ANSWER_ONLY:
                hook = module.register_forward_pre_hook(narrow)
                hooks.callback(hook.remove)
        yield


@contextlib.contextmanager
def replay_states(
    lm: Any, states: torch.Tensor, lower_forms: Sequence[int | None]
) -> Iterator[None]:
    """Inside, the lowest blocks are not computed, and the first one above them gets `states`.

    Args:
        lm: the model.
        states: (b, t, d).
        lower_forms: of each of the lowest blocks what it returns, as `record_outputs` has it.
    """
    with contextlib.ExitStack() as changes:
        for block, form in zip(stack(lm), lower_forms, strict=False):
            forward = _forward_giving(states, block, form)
            changes.enter_context(forward_instead(block, forward))
        yield


def _forward_giving(states: torch.Tensor, block: nn.Module, form: int | None) -> Callable[..., Any]:
    """A forward pass of `block` that computes nothing and returns `states` in this form."""
    if form is None:
        return lambda hidden, *args, **kwargs: states
    layers: Any = getattr(block, "layer", [None])
    attention = getattr(layers[0], "SelfAttention", None)
    if attention is None:
        # What else these return are attention weights, which nobody asks for.
        return lambda hidden, *args, **kwargs: (states, *[None] * (form - 1))

    # T5's first block computes the position bias of all blocks; each hands it on to the next.
    def t5_forward(
        hidden: torch.Tensor, mask: Any = None, bias: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        if bias is None:
            width = states.shape[1]
            bias = attention.compute_bias(width, width, states.device)
        return states, bias, None

    return t5_forward


class _ReachedError(Exception):
    """The pass has reached the block at which it stops."""


def states_before(lm: Any, first_block: int, inputs: dict[str, Any]) -> torch.Tensor:
    """Return the input of block `first_block`, (b, t, d).

    No block from `first_block` on is computed.
    """
    states: list[torch.Tensor] = []

    def stop(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        states.append(hidden)
        raise _ReachedError

    block = stack(lm)[first_block]
    # An exception is the one thing that ends a pass in the middle, whatever the architecture.
    with forward_instead(block, stop), contextlib.suppress(_ReachedError):
        lm(**inputs)
    return states[0]
