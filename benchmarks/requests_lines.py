"""What `requests.py` measured, read from its JSON files: a line for each variant, size and seed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2urec.core.errors import DataError

Report = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """What one variant did with the requests of a size, on one seed."""

    base: str
    size: str
    variant: str
    seed: int
    values: Mapping[str, Any]

    @property
    def points(self) -> list[float]:
        """M_auc of each request that has one."""
        values = [point["memory_auc"] for point in self.values["points"]]
        return [value for value in values if value is not None]

    @property
    def warned(self) -> list[Mapping[str, Any]]:
        """The requests that ended with a sentence on what is left, or on a bound that was hit."""
        # Who is done may have been told something all the same.
        return [
            point
            for point in self.values["points"]
            if point["outcome"].get("sentences") and not point["outcome"].get("is_done")
        ]


def read_reports(paths: Sequence[Path]) -> list[Report]:
    """The JSON files; raises DataError for a file that is none of `requests.py`."""
    reports = []
    for path in paths:
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            # What this cannot do without: another JSON file fails here, not half-way.
            report["base"], report["variants"], report["retraining"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"'{path}': is no report of requests.py; name another file") from error
        reports.append(report)
    return sorted(reports, key=lambda report: (report["base"], report["seed"]))


def lines_of(reports: Sequence[Report]) -> list[Line]:
    """A line for each variant, size and seed that has a finished request."""
    lines = []
    for report in reports:
        for variant, record in report["variants"].items():
            for size, values in record["sizes"].items():
                if values["requests"]:
                    lines.append(Line(report["base"], size, variant, report["seed"], values))
    return lines


def size_title(size: str) -> str:
    """How a title calls a size."""
    return "a single user" if size == "single" else f"{size} of the users"
