"""Where memory of a command goes: its moments, and the parts of each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PARTS = {
    "weights": "weights of the model",
    "copies": "more whole copies of it",
    "unpacked": "the largest quantised layer, unpacked",
    "adapters": "adapters",
    "gradients": "gradients",
    "optimizer": "optimizer state",
    "best_epoch": "parameters of the best epoch",
    "activations": "activations of a batch",
    "logits": "logits of a batch",
    "gaps": "gaps between them on a CPU",
    "replayed_states": "replayed lower states of a batch",
    "row_gradients": "gradients of single rows, and their system",
    "teacher_states": "teachers' states",
    "answer_states": "states of answers to D_f",
    "heads": "output heads of models that answered",
    "distances": "distances over the vocabulary",
}
"""The parts, in the order in which they are shown, with their titles."""


@dataclass(frozen=True)
class RowCounts:
    """Rows of which states are held in memory.

    Attributes:
        train: that the original is tuned on.
        ratio: share of them that a request erases.
    """

    train: int
    ratio: float

    @property
    def forget(self) -> int:
        """Rows of D_f."""
        return round(self.train * self.ratio)

    @property
    def retain(self) -> int:
        """Rows of D_r."""
        return self.train - self.forget


@dataclass(frozen=True)
class Machine:
    """Whose memory it is.

    Attributes:
        is_gpu: whether models run on a GPU; else all is in the memory of the computer.
        bytes: of its memory.
    """

    is_gpu: bool
    bytes: int

    @property
    def title(self) -> str:
        """`one GPU of 80 GB`."""
        place = "one GPU" if self.is_gpu else "this computer's CPU"
        return f"{place}, {self.bytes / 1e9:.4g} GB"


@dataclass(frozen=True)
class Moment:
    """A moment of a command at which much is in memory.

    Attributes:
        title: what is being done.
        parts: bytes by part; see `PARTS`.
    """

    title: str
    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class CommandMemory:
    """The moments of a command.

    Attributes:
        command: its name.
        moments: what it does, in its order.
        disk: bytes of the file in which lower states are cached while it runs.
        remedy: settings by which it would fit, where it does not; empty: it fits, or none would.
    """

    command: str
    moments: tuple[Moment, ...]
    disk: int = 0
    remedy: tuple[str, ...] = ()

    @property
    def peak(self) -> Moment:
        """The moment at which most is in memory."""
        return max(self.moments, key=lambda moment: moment.total)

    def fits(self, machine: Machine) -> bool:
        """Whether the peak is not above the machine's memory."""
        return self.peak.total <= machine.bytes


@dataclass(frozen=True)
class MemoryPlan:
    """The memory that the commands take.

    Attributes:
        model: name of the base.
        parameters: of the base.
        precision: of its weights, in words.
        machine: whose memory is planned.
        window: tokens of the rows that are counted.
        rows: training rows that are counted.
        commands: those that were planned.
        sentences: what was taken to be so, and what is not counted.
    """

    model: str
    parameters: int
    precision: str
    machine: Machine
    window: int
    rows: int
    commands: tuple[CommandMemory, ...]
    sentences: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        commands = {}
        for plan in self.commands:
            commands[plan.command] = {
                "peak": plan.peak.total,
                "peak_at": plan.peak.title,
                "fits": plan.fits(self.machine),
                "remedy": list(plan.remedy),
                "disk": plan.disk,
                "moments": {moment.title: dict(moment.parts) for moment in plan.moments},
            }
        return {
            "model": self.model,
            "parameters": self.parameters,
            "precision": self.precision,
            "gpu": self.machine.is_gpu,
            "memory": self.machine.bytes,
            "window": self.window,
            "rows": self.rows,
            "commands": commands,
            "sentences": list(self.sentences),
        }
