"""Run no more of a model's blocks than an answer needs: skip lower ones, stop early, narrow the last to one position.

Everything here leaves the model as it was, and is exact: what is skipped is never read.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from ..core.errors import ModelError

ANSWER_ONLY = ("self_attn.o_proj", "attn.c_proj", "attention.dense", "mlp")
"""Parts of a decoder's block that see one position at a time, and whose output is added to the block's input."""


def stack(lm: Any) -> nn.ModuleList:
    """The blocks that read the prompt: a decoder's, or the encoder's of a sequence-to-sequence model.

    Raises:
        ModelError: the model has no list of `num_hidden_layers` blocks.
    """
    count, prefix = lm.config.num_hidden_layers, "encoder" if lm.config.is_encoder_decoder else ""
    for name, module in lm.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count and prefix in name:
            return module
    raise ModelError(
        f"model of type '{lm.config.model_type}': its blocks were not found; set lora.upper=1"
    )


@contextlib.contextmanager
def instead(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Inside, calling `module` calls `forward`."""
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
def answer_only(lm: Any, position: torch.Tensor) -> Iterator[None]:
    """Inside, the last block of a decoder computes what no other position reads at `position` (b,) alone.

    Its output projection and feed-forward network then give (b, 1, d), which addition spreads over the block's
    input (b, t, d): right at the answer's position, the only one that is read. Keys and values are as ever.
    """

    def narrow(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        rows = torch.arange(len(position), device=position.device)
        return (inputs[0][rows, position][:, None], *inputs[1:])

    last = dict(stack(lm)[-1].named_modules())
    hooks = [last[name].register_forward_pre_hook(narrow) for name in ANSWER_ONLY if name in last]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def replayed(lm: Any, first: int, states: torch.Tensor) -> Iterator[None]:
    """Inside, the blocks below `first` are not computed: block `first` gets `states` (b, t, d) as its input."""

    def skip(block: nn.Module) -> Callable[..., Any]:
        parts: Any = getattr(block, "layer", [None])
        attention = getattr(parts[0], "SelfAttention", None)
        if attention is None:
            return lambda hidden, *args, **kwargs: states

        def shares_bias(
            hidden: torch.Tensor, mask: Any = None, bias: Any = None, *args: Any, **kwargs: Any
        ) -> Any:
            """T5's first block owns the position bias of all others, and hands it on."""
            width = states.shape[1]
            return (
                states,
                attention.compute_bias(width, width, states.device) if bias is None else bias,
                None,
            )

        return shares_bias

    with contextlib.ExitStack() as changes:
        for block in stack(lm)[:first]:
            changes.enter_context(instead(block, skip(block)))
        yield


class _ReachedError(Exception):
    """Block `first` has been reached."""


def states_before(lm: Any, first: int, inputs: dict[str, Any]) -> torch.Tensor:
    """Input of block `first`, (b, t, d); no block from `first` on is computed."""
    caught: list[torch.Tensor] = []

    def stop(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        caught.append(hidden)
        raise _ReachedError

    with instead(stack(lm)[first], stop), contextlib.suppress(_ReachedError):
        lm(**inputs)
    return caught[0]
