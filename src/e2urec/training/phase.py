"""A phase of training: its name, its random streams, and who hears how far it is."""

from dataclasses import dataclass
from typing import Protocol

from .checkpoints import NO_CHECKPOINTS, Checkpoints


class Progress(Protocol):
    """Is told how far a phase has come."""

    def __call__(self, phase: str, done: int, total: int, loss: float | None = None) -> None:
        """`done` of `total` steps of `phase`; `loss` of the last one."""


def silent(phase: str, done: int, total: int, loss: float | None = None) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Phase:
    """One call of the training loop.

    Attributes:
        name: of the phase, for progress and for its random streams.
        seed: of those streams; dropout at a step is a function of (seed, name, step).
        progress: told of each step.
        checkpoints: where it is kept how far the phase is, and from where it goes on.
    """

    name: str
    seed: int
    progress: Progress = silent
    checkpoints: Checkpoints = NO_CHECKPOINTS
