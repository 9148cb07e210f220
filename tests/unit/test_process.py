"""How times are told, and which of several processes this is."""

import pytest

from e2urec.core.errors import ConfigError
from e2urec.core.process import rank
from e2urec.core.say import minutes_text


@pytest.mark.parametrize(
    ("minutes", "text"),
    [(0.001, "1 second"), (0.5, "30 seconds"), (0.99, "59 seconds"), (5.57, "5.6 minutes")],
)
def test_short_times_are_told_in_seconds(minutes, text):
    assert minutes_text(minutes) == text


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 0),
        ({"RANK": "1"}, 0),
        ({"RANK": "", "WORLD_SIZE": ""}, 0),
        ({"RANK": "1", "WORLD_SIZE": "2"}, 1),
    ],
)
def test_process_has_a_rank_only_where_there_are_several(monkeypatch, environment, expected):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert rank() == expected


def test_rank_that_is_no_number_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ConfigError, match="WORLD_SIZE 'two': is no number"):
        rank()
