"""Draw what `e2urec evaluate RUN --against R1 --against R2 --json` found: why an unsigned distance proves nothing.

A second retrained model, which has forgotten everything, is not at 0 either; and softening all answers, which forgets
nothing, moves a model as far as forgetting does.
"""

import argparse
import json
from pathlib import Path

from e2urec.report.names import NAMES

from e2urec.metrics.bootstrap import Interval
from e2urec.report.plots import apart


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("evaluation", type=Path, help="what e2urec evaluate --json printed")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("docs/evidence/unsigned_distances.svg"),
        help="where to draw",
    )
    asked = parser.parse_args()
    told = json.loads(asked.evaluation.read_text(encoding="utf-8"))["apart"]
    found = {
        name: {
            other: {key: Interval(**each) for key, each in row.items()}
            for other, row in rows.items()
        }
        for name, rows in told.items()
    }
    asked.out.write_text(apart(found, NAMES), encoding="utf-8")
    for name, rows in found.items():
        print(name, {other: round(row["js_answers"].value, 5) for other, row in rows.items()})


if __name__ == "__main__":
    main()
