"""What an evaluation found: values with intervals, ready for JSON, tables and pages."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .metrics import Interval
from .predictions import Predictions
from .task import Sighting


@dataclass
class Results:
    """Figures by model.

    Attributes:
        models: model → measure → value.
        memory: candidate → `auc`, `loss` → M with its interval; 0 = retrained, 1 = nothing done.
        auc_difference: model → test AUC less the original's, on the same rows.
        headroom: `auc`, `loss` → what there is to forget.
        distance: model → measure → mean distance to the first retrained model on D_f.
        floor: mean Jensen–Shannon distance between two retrained models; None with fewer than two.
    """

    models: dict[str, dict[str, float]]
    memory: dict[str, dict[str, Interval]] = field(default_factory=dict)
    auc_difference: dict[str, Interval] = field(default_factory=dict)
    headroom: dict[str, Interval] = field(default_factory=dict)
    distance: dict[str, dict[str, float]] = field(default_factory=dict)
    floor: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {name: _plain(getattr(self, name)) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class Demonstration:
    """What the demo found.

    Attributes:
        answers: of every model, by name and set.
        skipped: retrainings of the recipe for which there was no time.
    """

    results: Results
    answers: dict[str, Mapping[str, Predictions]]
    sightings: list[Sighting]
    seconds: dict[str, float]
    rows: dict[str, int]
    trainable_parameters: int
    total_parameters: int
    seed: int
    skipped: int = 0

    def as_dict(self) -> dict[str, Any]:
        """One flat object, as `e2urec demo --json` prints it."""
        plain = self.results.as_dict()
        figures, distance = plain.pop("models"), plain.pop("distance")
        kept = ("original", "unlearned", "retrained_again")
        return {
            **figures,
            **plain,
            "distance": {name: distance.get(name) for name in kept},
            "phases": [vars(sighting) for sighting in self.sightings],
            "seconds": self.seconds,
            "trainable_parameters": self.trainable_parameters,
            "total_parameters": self.total_parameters,
            "rows": self.rows,
            "seed": self.seed,
            "retrainings_skipped": self.skipped,
        }


def _plain(value: Any) -> Any:
    if isinstance(value, Interval):
        return value.as_dict()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value
