"""Draw why an unsigned distance proves nothing.

    python benchmarks/unsigned_distances.py EVALUATION.json [--out FIGURE.svg]

`EVALUATION.json` is what `e2urec evaluate RUN --against R1 --against R2 --json` printed. A second
retrained model, which has forgotten everything, is not at 0 either; and softening all answers,
which forgets nothing, moves a model as far as forgetting does.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import option_parser
from e2urec.evaluation.measure import Row, Table
from e2urec.evaluation.measures.pairwise_distance import PairwiseDistance
from e2urec.evaluation.results import Results
from e2urec.evaluation.roles import (
    ORIGINAL,
    PLACEBO_RETAIN,
    PLACEBO_TEMPERATURE,
    UNLEARNED,
    retrained,
)
from e2urec.metrics.bootstrap import Interval
from e2urec.report.plots import pairwise_distances

REFERENCES = (retrained(1), retrained(2))
# Models of other kinds, such as rounded ones, have no row in the figure.
ROLES = (ORIGINAL, UNLEARNED, *REFERENCES, PLACEBO_TEMPERATURE, PLACEBO_RETAIN)

FIGURE = Path("docs/evidence/unsigned_distances.svg")
"""The figure in the documentation."""

Distances = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Key of a model → key of a retrained model → measure → figure."""


def results_of(distances: Distances) -> Results:
    """The distances as an evaluation has them, of the models that the figure shows."""
    rows = []
    for role in ROLES:
        # With one retrained model alone, it has no distance to another.
        groups = distances.get(role.key, {})
        for group, figures in groups.items():
            intervals = {name: Interval(**figure) for name, figure in figures.items()}
            rows.append(Row(role, intervals, group=group))
    measure = PairwiseDistance
    table = Table(measure.name, measure.title, measure.columns, tuple(rows))
    return Results({measure.name: table}, ROLES)


def show(distances: Distances) -> None:
    """Print the distance of each model's answers to each retrained model."""
    for model, rows in distances.items():
        values = {}
        for other, figures in rows.items():
            value = figures["js_answers"]["value"]
            values[other] = round(value, 5)
        print(model, values)


def options() -> argparse.Namespace:
    """Read the arguments."""
    parser = option_parser(__doc__)
    parser.add_argument("evaluation", type=Path, help="what e2urec evaluate --json printed")
    parser.add_argument("--out", type=Path, default=FIGURE, help="where to draw")
    return parser.parse_args()


def main() -> None:
    """Read the arguments; draw; print."""
    arguments = options()
    text = arguments.evaluation.read_text(encoding="utf-8")
    distances = json.loads(text)[PairwiseDistance.name]
    results = results_of(distances)
    figure = pairwise_distances(results, REFERENCES)
    arguments.out.write_text(figure, encoding="utf-8")
    show(distances)


if __name__ == "__main__":
    main()
