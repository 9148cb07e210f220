"""Distance: how far a model's answers on D_f are from the retrained models'."""

from collections.abc import Iterator, Mapping

from ...metrics.bootstrap import Figure, Interval
from ..evidence import Evidence
from ..measure import Column, Headline, Measure, Needs, Row

COLUMNS = (
    Column("js", "JS", 4),
    Column("jeffreys", "Jeffreys/2", 4),
    Column("l2", "L2", 4),
    Column("js_answers", "JS of answers", 4),
    Column("jeffreys_answers", "Jeffreys/2 of answers", 4, brief=False),
    Column("l2_answers", "L2 of answers", 4, brief=False),
)
"""Over the whole vocabulary, and over {Yes, No} alone."""


def forget_intervals(evidence: Evidence, figures: Mapping[str, Figure]) -> dict[str, Interval]:
    """The interval of each figure over D_f."""
    return {name: evidence.forget_interval(figure) for name, figure in figures.items()}


class Distance(Measure):
    """Mean distance to the retrained models other than itself."""

    name = "distance"
    title = "Distance to the retrained models on D_f"
    place = 50
    columns = COLUMNS
    needs = Needs(retrained=1)
    headlines = (Headline("js_answers", "JS to retrained", 4),)

    def rows(self, evidence: Evidence) -> Iterator[Row]:
        """One row a model; a retrained model that is the only one has none."""
        for role in evidence.models:
            figures = evidence.distances_to_retrained(role)
            if figures:
                yield Row(role, forget_intervals(evidence, figures))

    def note(self, evidence: Evidence) -> str:
        """What to hold the distances against."""
        text = "Unsigned distances prove nothing alone: a second retraining is not at 0 either"
        if len(evidence.retrained) < 2:
            return f"{text} (the noise floor is unknown)."
        # Models that average probabilities have no distance over the whole vocabulary.
        column = COLUMNS[0] if "js" in evidence.noise_floor else COLUMNS[3]
        floor = float(evidence.noise_floor[column.key][0])
        return f"{text} (noise floor of {column.title}: {floor:.4f})."
