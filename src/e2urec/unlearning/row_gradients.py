"""The gradient of each row's log-odds with respect to a student's B, in batches.

Summed over a batch, gradients of rows cannot be told apart any more. That of one row, with respect
to the B of a layer, is the sum over its tokens of two vectors' outer product: the slope of the
layer's output, and what A makes of its input. So one pass forward and one backward tell those of
all its rows.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..models import adapters
from ..models.adapters import AdaptedLayer
from ..models.batches import Examples, batches_by_length
from ..models.precision import autocast
from ..training.loop import Rows
from .student import Student

APART = 0.05
"""How far a row's gradient may be from that of the row alone, as a share: bf16 rounds it."""


@dataclass
class _Tape:
    """What one pass showed of each adapted layer: what its B reads, and the slopes of its outputs.

    The adapter is switched off in the pass. What it adds to a layer is made here, of what is
    recorded anyway, and while its B is zero it adds nothing.

    Attributes:
        layers: the adapted ones.
        is_moved: whether some B is not zero.
        inputs: of each, the inputs of B (b, …, rank), for each time that it was used.
        slopes: the gradients of its outputs (b, …, width), last use first.
    """

    layers: Sequence[AdaptedLayer]
    is_moved: bool
    inputs: list[list[torch.Tensor]] = field(default_factory=list)
    slopes: list[list[torch.Tensor]] = field(default_factory=list)

    def clear(self) -> None:
        """Forget the pass before."""
        self.inputs = [[] for _ in self.layers]
        self.slopes = [[] for _ in self.layers]

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Inside, passes are recorded."""
        handles = []
        for number, layer in enumerate(self.layers):
            handles.append(layer.module.register_forward_hook(self._recorder(number)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _recorder(self, number: int) -> Any:
        layer = self.layers[number]

        def record(
            module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor
        ) -> torch.Tensor:
            with torch.set_grad_enabled(self.is_moved):
                lowered = layer.scale * layer.down(inputs[0].to(layer.up.weight.dtype))
            self.inputs[number].append(lowered.detach())
            if self.is_moved:
                output = output + layer.up(lowered).to(output.dtype)
            if not output.requires_grad:
                # All weights are frozen, so the lowest layers have no gradient of their own.
                output = output + output.new_zeros(1).requires_grad_(True)
            output.register_hook(self.slopes[number].append)  # type: ignore[no-untyped-call]
            return output

        return record

    def row_gradients(self, count: int) -> torch.Tensor:
        """(b, m) gradient of each row with respect to all B."""
        parts = []
        for layer, inputs, slopes in zip(self.layers, self.inputs, self.slopes, strict=True):
            weight = layer.up.weight
            total = torch.zeros(count, *weight.shape, device=weight.device)
            # A layer that no answer depends on has no slope.
            uses = reversed(inputs) if slopes else []
            for used, slope in zip(uses, slopes, strict=True):
                # Of a sequence of positions, or of the answer's alone.
                rows = used.reshape(count, -1, used.shape[-1]).float()
                row_slopes = slope.reshape(count, -1, slope.shape[-1]).float()
                total += row_slopes.transpose(1, 2) @ rows
            parts.append(total.flatten(1))
        return torch.cat(parts, dim=1)


@dataclass(frozen=True)
class _Differentiator:
    """Takes the gradient of each row's log-odds apart from its neighbours'.

    Attributes:
        student: whose B are moved.
        rows: whose gradients are asked for.
    """

    student: Student
    rows: Examples

    def fill(self, gradients: torch.Tensor, batch_size: int) -> torch.Tensor:
        """Put J into `gradients` (n, m), and return δ (n,) of all rows."""
        model = self.student.model
        log_odds = torch.empty(len(self.rows), device=model.device)
        layers = adapters.adapted_layers(model.lm, self.student.name)
        is_moved = any(bool(layer.up.weight.any()) for layer in layers)
        tape = _Tape(layers, is_moved)
        with model.using(model.active), tape.recording():
            for index in self._batches(tape, batch_size):
                places = torch.from_numpy(index).to(model.device)
                gradients[places], log_odds[places] = self._of_batch(tape, index)
        return log_odds

    def _batches(self, tape: _Tape, batch_size: int) -> list[Rows]:
        """Batches of rows of about the same length, of one row each where they do not go apart."""
        batches = batches_by_length(self.rows.lengths, batch_size)
        if not batches or len(batches[0]) == 1:
            return batches
        # Experts take the tokens of all rows in an order of their own, which only values show.
        together, _ = self._of_batch(tape, batches[0])
        alone, _ = self._of_batch(tape, batches[0][-1:])
        distance = (together[-1] - alone[0]).norm()
        if distance <= APART * alone[0].norm():
            return batches
        return batches_by_length(self.rows.lengths, 1)

    def _of_batch(self, tape: _Tape, index: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        model = self.student.model
        tape.clear()
        with autocast(self.student.task.precision, model.device):
            batch = model.collate(self.rows, index)
            log_odds = model.verbaliser.log_odds(model.logits(batch))
        log_odds.sum().backward()  # type: ignore[no-untyped-call]
        return tape.row_gradients(len(index)), log_odds.detach()


def parameter_count(student: Student) -> int:
    """m: how many numbers all B of the student have."""
    up_projections = adapters.up_projections(student.model.lm, student.name)
    return sum(weight.numel() for weight in up_projections)


def row_gradients(
    student: Student, rows: Examples, batch_size: int, into: torch.Tensor
) -> torch.Tensor:
    """Each row's gradient of its log-odds with respect to all B, and these log-odds.

    Args:
        student: as it is.
        rows: n of them.
        batch_size: rows at a time.
        into: (n, m), which the gradients are put into: J is too large to be copied.

    Returns:
        δ, (n,).
    """
    return _Differentiator(student, rows).fill(into, batch_size)
