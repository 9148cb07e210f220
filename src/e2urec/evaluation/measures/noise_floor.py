"""Noise floor: how far two retrained models are apart."""

from collections.abc import Iterator

from ..evidence import Evidence
from ..measure import Measure, Needs, Row
from .distance import COLUMNS, forget_intervals


class NoiseFloor(Measure):
    """Mean distance between two retrained models: less cannot be asked of an unlearned one."""

    name = "noise_floor"
    title = "Noise floor: distance between two retrained models on D_f"
    place = 51
    columns = COLUMNS
    needs = Needs(retrained=2)
    brief = False

    def rows(self, evidence: Evidence) -> Iterator[Row]:
        """One row of the evaluation as a whole."""
        yield Row(None, forget_intervals(evidence, evidence.noise_floor))
