"""Aims are held against each seed's own figures."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from e2urec.core.errors import DataError

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import requests_aims
from requests_lines import Line


def line_of(size: str, seed: int, **changes: Any) -> Line:
    """A line that reaches every aim, but for its changes."""
    names = ("alignment", "retained_memory", "test_auc_to_retrained")
    figures: dict[str, Any] = {name: {"value": 0.95} for name in names}
    figures["memory_auc"] = {"value": 0.03, "low": -0.1, "high": 0.15}
    figures["memory_within"] = {"value": 0.02}
    values = {
        "figures": figures | changes.pop("figures", {}),
        "points": [{"memory_auc": value} for value in (0.1, -0.2)],
        "requests": 2,
        "seconds": {"median": 10.04, "share": 0.204},
        "verdict": {"outcome": "PASS"},
    }
    return Line("tiny", size, requests_aims.VARIANT, seed, values | changes)


def cells_of(lines: list[Line]) -> dict[str, list[str]]:
    """The cells of the only table, by aim."""
    cells = {}
    for row in requests_aims.aims_tables(lines).splitlines()[4:]:
        aim, *values = (cell.strip() for cell in row.strip("| ").split("|"))
        cells[aim] = values
    return cells


def test_aims_are_bold_where_a_seed_reaches_them():
    missed = line_of(
        "20%",
        1,
        figures={
            "memory_auc": {"value": -0.3, "low": -0.6, "high": 0.1},
            "memory_within": {"value": None},
            "alignment": {"value": None},
            "retained_memory": {"value": 0.894},
            "test_auc_to_retrained": {"value": -0.0054},
        },
        points=[{"memory_auc": -0.2}, {"memory_auc": None}],
        seconds={"median": 11.0, "share": 0.21},
        verdict={"outcome": "FAIL"},
    )
    cells = cells_of([missed, line_of("20%", 0), replace(missed, size="single")])
    assert list(cells.values()) == [
        ["**0.03**, -0.30", "–, -0.30"],
        ["**[-0.10, 0.15]**, [-0.60, 0.10]", "–, [-0.60, 0.10]"],
        ["**0.02**, –", "–, –"],
        ["**2 of 2**, 1 of 2", "–"],
        # As printed, it is at its limit.
        ["**0.950**, **-0.005**", "–, **-0.005**"],
        ["**0.95**, –", "–, –"],
        ["**0.95**, 0.89", "–, 0.89"],
        ["**PASS**, FAIL", "–"],
        ["–", "–, FAIL"],
        ["**20%**, 21%", "–, 11.0 s"],
    ]


def test_share_of_a_retraining_is_smaller_for_smaller_requests():
    seconds = {"median": 8.0, "share": 0.06}
    cells = cells_of([line_of(size, 0, seconds=seconds) for size in ("4%", "20%", "single")])
    (found,) = (values for aim, values in cells.items() if "seconds" in aim)
    assert found == ["**6%**", "6%", "**8.0 s**"]


def test_bases_have_a_table_each_and_other_variants_none():
    other = replace(line_of("20%", 0), base="small")
    text = requests_aims.aims_tables([line_of("20%", 0), other])
    assert [line for line in text.splitlines() if line.startswith("*Base")] == [
        "*Base tiny: what was aimed at (bold: reached), on seeds 0*",
        "*Base small: what was aimed at (bold: reached), on seeds 0*",
    ]
    with pytest.raises(DataError, match="no variant 'scores' in these files; name a file"):
        requests_aims.aims_tables([replace(other, variant="default")])
