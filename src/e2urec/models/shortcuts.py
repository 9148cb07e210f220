"""Each shortcut to a model's answer is compared once with the plain forward pass.

There are three: the head applied to the answer's position alone, the last block computed there
alone, and lower blocks whose output is known. All of them hold for families of models that were
built in a certain way, and a family may be built otherwise.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch

from ..core.errors import ModelError
from . import blocks
from .batches import Batch, collate, pack

# A model's own logits and those by way of a shortcut are the same sums in another order. A cap, a
# scale or a state that is missing changes them by far more.
LOGIT_TOLERANCE = 1e-3

# Eight tokens show a difference as well as a whole prompt does. The shorter row is padded, as most
# rows of a batch are.
SAMPLE_LENGTHS = (8, 5)


class Answering(Protocol):
    """What is asked of a `Recommender` here."""

    lm: Any
    name: str
    pad: int
    answer_only: bool

    def logits(self, batch: Batch) -> torch.Tensor:
        """Answer-position logits, (b, V)."""

    def plain_logits(self, batch: Batch) -> torch.Tensor:
        """The same by the model's own forward pass, without a shortcut."""

    def states_before(self, batch: Batch, first_block: int) -> torch.Tensor:
        """The input of block `first_block`, (b, t, d)."""


@torch.no_grad()
def check_shortcuts(model: Answering, tokens: Sequence[int]) -> list[int | None]:
    """Check that `model.logits` are the model's own, and turn `answer_only` off where they are not.

    Args:
        model: the model, inside `using`.
        tokens: of some prompt.

    Returns:
        What each block that reads the prompt returns; see `blocks.record_outputs`.

    Raises:
        ModelError: the model answers no prompt, or its logits are not those of its output head.
    """
    batch = _sample_batch(model, tokens)
    try:
        with blocks.record_outputs(model.lm) as forms:
            expected = model.plain_logits(batch)
    except (ModelError, MemoryError, torch.OutOfMemoryError):
        raise
    # A model of another task may fail in any way.
    except Exception as error:
        reason = [*str(error).splitlines(), type(error).__name__]
        raise ModelError(
            f"model '{model.name}': answers no prompt ({reason[0]}); "
            "use a causal or a sequence-to-sequence language model"
        ) from error
    if _gives(model, batch, expected):
        return forms
    if model.answer_only:
        model.answer_only = False
        if _gives(model, batch, expected):
            warnings.warn(
                f"model '{model.name}': its last block gives other answers when it computes the "
                "answer's position alone, so it computes all of them, which is slower",
                stacklevel=2,
            )
            return forms
    if not bool(expected.isfinite().all()):
        raise ModelError(
            f"model '{model.name}': its logits are no numbers; restore its weights, which are "
            "damaged"
        )
    raise ModelError(
        f"model '{model.name}': changes its logits after the output head otherwise than by the cap "
        "or scale in its config, which is not supported; use a model without"
    )


@torch.no_grad()
def check_replay(model: Answering, tokens: Sequence[int], first_block: int) -> bool:
    """Whether the input of block `first_block` is all that blocks from there on need.

    In some families upper blocks read keys and values of lower ones.

    Args:
        model: the model, inside `using`.
        tokens: of some prompt.
        first_block: the block.
    """
    batch = _sample_batch(model, tokens)
    expected = model.logits(batch)
    states = model.states_before(batch, first_block)
    replayed = replace(batch, cached=states, first_block=first_block)
    return _gives(model, replayed, expected)


def _sample_batch(model: Answering, tokens: Sequence[int]) -> Batch:
    rows = [tokens[:length] for length in SAMPLE_LENGTHS]
    zeros = np.zeros(len(rows), np.int8)
    examples = pack(rows, zeros, zeros, window=max(SAMPLE_LENGTHS))
    device = next(model.lm.parameters()).device
    return collate(examples, np.arange(len(rows)), model.pad).to(device)


def _gives(model: Answering, batch: Batch, expected: torch.Tensor) -> bool:
    """Whether the model's logits of `batch` are the expected ones, (b, V)."""
    try:
        logits = model.logits(batch)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    # Where a family is built otherwise, a shortcut may also fail, and in any way.
    except Exception:
        return False
    return torch.allclose(expected, logits, atol=LOGIT_TOLERANCE, rtol=LOGIT_TOLERANCE)
