"""What the demo found."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..unlearning.task import PhaseLog
from .answers import Answers
from .results import Results
from .roles import Role


@dataclass(frozen=True)
class Demonstration:
    """One original, one request, one unlearned model, and what it is measured against.

    Attributes:
        results: all figures.
        answers: of every model.
        phase_logs: loss and AUC on D_f after each phase of the method.
        seconds: `loading`, `original`, `unlearning`, `retrained` (the mean), `evaluation`, …
        phases: seconds of the method's own phases, by the names that the method gives them.
        rows: rows in each part.
        trainable_parameters: that the method moved.
        total_parameters: of the original.
        seed: of everything random.
        skipped: retrainings of the recipe for which there was no time.
    """

    results: Results
    answers: Mapping[Role, Answers]
    phase_logs: list[PhaseLog]
    seconds: Mapping[str, float]
    phases: Mapping[str, float]
    rows: Mapping[str, int]
    trainable_parameters: int
    total_parameters: int
    seed: int
    skipped: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON values, without the answers."""
        return {
            "results": self.results.as_dict(),
            "phase_logs": [vars(log) for log in self.phase_logs],
            "seconds": self.seconds,
            "phases": self.phases,
            "rows": self.rows,
            "trainable_parameters": self.trainable_parameters,
            "total_parameters": self.total_parameters,
            "seed": self.seed,
            "retrainings_skipped": self.skipped,
        }
