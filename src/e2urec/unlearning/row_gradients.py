"""The gradient of each row's log-odds with respect to a student's B, in batches.

Summed over a batch, gradients of rows cannot be told apart any more. That of one row, with respect
to the B of a layer, is the sum over its tokens of two vectors' outer product: the slope of the
layer's output, and what A makes of its input. So one pass forward and one backward tell those of
all its rows.

Of a wide model they do not fit into memory. What is solved needs only their inner products, and
these hardly change where the outputs of each layer are taken along a few random directions in place
of all (Johnson and Lindenstrauss 1984). Such gradients are *sketched*.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..core.seeding import stream
from ..models import adapters
from ..models.adapters import AdaptedLayer
from ..models.batches import Examples, batches_by_length
from ..models.precision import autocast
from ..training.loop import Rows
from .student import Student

APART = 0.05
"""How far a row's gradient may be from that of the row alone, as a share: bf16 rounds it."""
ONE_BY_ONE = (
    "The model mixes the rows of a batch, or rounds their gradients too much to tell them apart, "
    "so each row's was taken alone, which takes longer; tuning.schedule.precision=fp32 may help."
)


@dataclass
class _Use:
    """One time that a layer was used.

    Attributes:
        inputs: of B, (b, …, rank).
        slopes: the gradient of the layer's outputs, (b, …, width); None as long as there is none.
    """

    inputs: torch.Tensor
    slopes: torch.Tensor | None = None

    def note(self, slopes: torch.Tensor) -> None:
        """Take down the slopes."""
        self.slopes = slopes


@dataclass
class _Tape:
    """What one pass showed of each adapted layer: what its B reads, and the slopes of its outputs.

    The adapter is switched off in the pass. What it adds to a layer is made here, of what is
    recorded anyway, and while its B is zero it adds nothing.

    Attributes:
        layers: the adapted ones.
        directions: of each, (width, k) of which its outputs are taken along; None: all outputs.
        is_moved: whether some B is not zero.
        uses: of each, the times that it was used in the pass.
    """

    layers: Sequence[AdaptedLayer]
    directions: Sequence[torch.Tensor | None]
    is_moved: bool
    uses: list[list["_Use"]] = field(default_factory=list)

    def clear(self) -> None:
        """Forget the pass before."""
        self.uses = [[] for _ in self.layers]

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
            use = _Use(lowered.detach())
            self.uses[number].append(use)
            if self.is_moved:
                output = output + layer.up(lowered).to(output.dtype)
            if not output.requires_grad:
                # All weights are frozen, so the lowest layers have no gradient of their own.
                output = output + output.new_zeros(1).requires_grad_(True)
            output.register_hook(use.note)  # type: ignore[no-untyped-call]
            return output

        return record

    def goes_apart(self, count: int) -> bool:
        """Whether each layer read as many tokens of each row as of any other."""
        tokens = [len(use.inputs.flatten(0, -2)) for uses in self.uses for use in uses]
        return all(number % count == 0 for number in tokens)

    def row_gradients(self, count: int) -> torch.Tensor:
        """(b, m) gradient of each row with respect to all B, perhaps sketched."""
        parts = []
        for layer, along, uses in zip(self.layers, self.directions, self.uses, strict=True):
            weight = layer.up.weight
            width = len(weight) if along is None else along.shape[1]
            total = torch.zeros(count, width, weight.shape[1], device=weight.device)
            for use in uses:
                # A layer that no answer depends on has no slope.
                if use.slopes is None:
                    continue
                # Of a sequence of positions, or of the answer's alone.
                row_inputs = use.inputs.reshape(count, -1, use.inputs.shape[-1]).float()
                row_slopes = use.slopes.reshape(count, -1, use.slopes.shape[-1]).float()
                taken = row_slopes if along is None else row_slopes @ along
                total += taken.transpose(1, 2) @ row_inputs
            parts.append(total.flatten(1))
        return torch.cat(parts, dim=1)

    def gradient(self) -> torch.Tensor:
        """(m,) gradient of what was differentiated, of all rows together, never sketched."""
        parts = []
        for layer, uses in zip(self.layers, self.uses, strict=True):
            total = torch.zeros_like(layer.up.weight, dtype=torch.float32)
            for use in uses:
                if use.slopes is not None:
                    total += use.slopes.flatten(0, -2).float().T @ use.inputs.flatten(0, -2).float()
            parts.append(total.flatten())
        return torch.cat(parts)


@dataclass
class RowGradients:
    """Takes the gradient of each row's log-odds apart from its neighbours'.

    Attributes:
        student: whose B are moved.
        width: most directions that the outputs of a layer are taken along.
        batch_size: rows at a time.
    """

    student: Student
    width: int
    batch_size: int

    def __post_init__(self) -> None:
        self.layers = adapters.adapted_layers(self.student.model.lm, self.student.name)
        self.directions = [self._directions_of(number) for number in range(len(self.layers))]

    def _directions_of(self, number: int) -> torch.Tensor | None:
        """(width, k) random signs, by which inner products stay what they are in the mean."""
        weight = self.layers[number].up.weight
        if len(weight) <= self.width:
            return None
        random = stream(self.student.seed, "directions", number)
        signs = random.choice([-1.0, 1.0], size=(len(weight), self.width)) / self.width**0.5
        return torch.from_numpy(signs).float().to(weight.device)

    @property
    def is_sketched(self) -> bool:
        """Whether some layer's outputs are taken along fewer directions than it has."""
        return any(along is not None for along in self.directions)

    @property
    def size(self) -> int:
        """m: numbers of each row's gradient."""
        return row_size([tuple(layer.up.weight.shape) for layer in self.layers], self.width)

    def put_into(self, gradients: torch.Tensor, rows: Examples) -> torch.Tensor:
        """Put J into `gradients` (n, m), too large to be copied, and return δ of the rows, (n,)."""
        log_odds = torch.empty(len(rows), device=self.student.model.device)
        with self._recording() as tape:
            for index in self._batches(tape, rows):
                places = torch.from_numpy(index).to(log_odds.device)
                log_odds[places] = self._differentiate(tape, rows, index)
                gradients[places] = tape.row_gradients(len(index))
        return log_odds

    def combined(self, rows: Examples, shares: torch.Tensor) -> torch.Tensor:
        """`Jᵀ·shares`, of all B and not sketched: (n,) → ΔB, by one more pass over the rows."""
        total = torch.zeros(self._parameter_count(), device=shares.device)
        with self._recording() as tape:
            for index in batches_by_length(rows.lengths, self.batch_size):
                places = torch.from_numpy(index).to(shares.device)
                self._differentiate(tape, rows, index, shares[places])
                total += tape.gradient()
        return total

    def _parameter_count(self) -> int:
        return sum(layer.up.weight.numel() for layer in self.layers)

    @contextmanager
    def _recording(self) -> Iterator[_Tape]:
        model = self.student.model
        is_moved = any(bool(layer.up.weight.any()) for layer in self.layers)
        tape = _Tape(self.layers, self.directions, is_moved)
        with model.using(model.active), tape.recording():
            yield tape

    def _batches(self, tape: _Tape, rows: Examples) -> list[Rows]:
        """Batches of rows of about the same length, of one row each where they do not go apart."""
        batches = batches_by_length(rows.lengths, self.batch_size)
        if not batches or len(batches[0]) == 1 or self._go_apart(tape, rows, batches[0]):
            return batches
        self.student.task.outcome.note(ONE_BY_ONE)
        return batches_by_length(rows.lengths, 1)

    def _go_apart(self, tape: _Tape, rows: Examples, batch: Rows) -> bool:
        """Whether the gradient of a row in a batch is that of the row alone."""
        self._differentiate(tape, rows, batch)
        if not tape.goes_apart(len(batch)):
            return False
        together = tape.row_gradients(len(batch))[-1]
        # Experts take the tokens of all rows in an order of their own, which only values show.
        self._differentiate(tape, rows, batch[-1:])
        alone = tape.row_gradients(1)[0]
        return bool((together - alone).norm() <= APART * alone.norm())

    def _differentiate(
        self, tape: _Tape, rows: Examples, index: Rows, shares: torch.Tensor | None = None
    ) -> torch.Tensor:
        """δ (b,) of a batch, whose sum, or that of its shares, is differentiated on the tape."""
        model = self.student.model
        tape.clear()
        with autocast(self.student.task.precision, model.device):
            batch = model.collate(rows, index)
            log_odds = model.verbaliser.log_odds(model.logits(batch))
        total = log_odds.sum() if shares is None else (log_odds * shares).sum()
        total.backward()  # type: ignore[no-untyped-call]
        return log_odds.detach()


def row_size(shapes: Sequence[tuple[int, ...]], width: int) -> int:
    """m: numbers of a row's gradient.

    Args:
        shapes: (width, rank) of each B.
        width: most directions that the outputs of a layer are taken along.
    """
    return sum(rank * min(out, width) for out, rank in shapes)
