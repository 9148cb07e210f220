"""Aims are held against each seed's own figures."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import requests_aims
from requests_lines import Line


def line_of_aims(size: str, seed: int, **changes: Any) -> Line:
    """A line that reaches every aim, but for its changes."""
    names = ("alignment", "retained_memory", "test_auc_to_retrained")
    figures: dict[str, Any] = {name: {"value": 0.95} for name in names}
    figures["memory_auc"] = {"value": 0.03, "low": -0.1, "high": 0.15}
    values = {
        "figures": figures | changes.pop("figures", {}),
        "points": [{"memory_auc": value} for value in (0.1, -0.2, None)],
        "seconds": {"median": 8.0, "share": 0.04},
        "verdict": {"outcome": "PASS"},
    }
    return Line("tiny", size, requests_aims.VARIANT, seed, values | changes)


def test_aims_are_bold_where_a_seed_reaches_them():
    far = {"memory_auc": {"value": -0.3, "low": -0.6, "high": 0.1}, "alignment": {"value": None}}
    missed = {
        "figures": far,
        "points": [{"memory_auc": -0.3}],
        "seconds": {"median": 11.0, "share": 0.21},
        "verdict": {"outcome": "FAIL"},
    }
    lines = [line_of_aims("20%", 1, **missed), line_of_aims("20%", 0)]
    lines += [line_of_aims("single", 0, **missed)]
    text = requests_aims.aims_tables([*lines, replace(lines[0], variant="default")])
    cells = {}
    for row in text.splitlines()[4:]:
        _, aim, *values, _ = row.split("|")
        cells[aim.strip()] = [value.strip() for value in values]
    assert cells["M_auc within ±0.10"] == ["**0.03**, -0.30", "-0.30"]
    assert cells["its interval within ±0.20"][0] == "**[-0.10, 0.15]**, [-0.60, 0.10]"
    assert cells["each request within ±0.25"] == ["**2 of 2**, 0 of 1", "–"]
    assert cells["alignment at least 0.75"] == ["**0.95**, –", "–"]
    assert cells["PASS"] == ["**PASS**, FAIL", "–"]
    assert cells["no FAIL"] == ["–", "FAIL"]
    assert next(values for aim, values in cells.items() if aim.startswith("seconds")) == [
        *("**4%**, 21%", "11.0 s")
    ]
