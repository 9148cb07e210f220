"""What the demo found."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..unlearning.outcome import Outcome
from ..unlearning.task import PhaseLog
from .answers import Answers
from .disclosure import outcome_record, phase_records
from .results import Results
from .roles import Role


@dataclass(frozen=True)
class Demonstration:
    """One original, one request, one unlearned model, and what it is measured against.

    Attributes:
        results: all figures.
        answers: of every model.
        phase_logs: loss and AUC on D_f after each phase of the method.
        outcome: what the method aimed at and how far it came by its own measure.
        seconds: `loading`, `original`, `unlearning`, `retrained` (the mean), `evaluation`, …, and
            `total`, until the page was written.
        phases: seconds of the method's own phases, by the names that the method gives them.
        rows: rows in each part.
        trainable_parameters: that the method moved.
        total_parameters: of the original.
        seed: of everything random.
        retrainings: made.
        skipped: retrainings of the recipe for which there was no time.
    """

    results: Results
    answers: Mapping[Role, Answers]
    phase_logs: list[PhaseLog]
    outcome: Outcome
    seconds: Mapping[str, float]
    phases: Mapping[str, float]
    rows: Mapping[str, int]
    trainable_parameters: int
    total_parameters: int
    seed: int
    retrainings: int
    skipped: int = 0

    @property
    def seconds_by_part(self) -> dict[str, float]:
        """Where the time went, the longest part first; the parts add up to the total."""
        parts = dict(self.seconds)
        total = parts.pop("total")
        # The mean is what a request is weighed against; the time went into all of them.
        parts["retraining"] = parts.pop("retrained") * self.retrainings
        # Logs of the phases are no part of what a request costs, but they take time.
        parts["logging"] = self.phases.get("logging", 0.0)
        parts["reading, tokenising, writing"] = total - sum(parts.values())
        longest_first = sorted(parts.items(), key=lambda part: part[1], reverse=True)
        return dict(longest_first)

    @property
    def shortage(self) -> str:
        """What was skipped for want of time, what that hides, and the remedy; "" if nothing was."""
        if not self.skipped:
            return ""
        noun = "retraining" if self.skipped == 1 else "retrainings"
        hidden = "is unknown" if self.retrainings < 2 else "is less certain"
        return (
            f"There was no time for {self.skipped} more {noun}, so the noise floor {hidden}; "
            "--set minutes=none takes the time."
        )

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON values, without the answers."""
        return {
            "results": self.results.as_dict(),
            "phase_logs": phase_records(self.phase_logs, self.rows["forget"]),
            "outcome": outcome_record(self.outcome, self.rows["forget"]),
            "seconds": self.seconds,
            "seconds_by_part": self.seconds_by_part,
            "phases": self.phases,
            "rows": self.rows,
            "trainable_parameters": self.trainable_parameters,
            "total_parameters": self.total_parameters,
            "seed": self.seed,
            "retrainings_skipped": self.skipped,
        }
