"""How times are told."""

import pytest

from e2urec.core.say import minutes_text


@pytest.mark.parametrize(
    ("minutes", "text"),
    [(0.001, "1 second"), (0.5, "30 seconds"), (0.99, "59 seconds"), (5.57, "5.6 minutes")],
)
def test_short_times_are_told_in_seconds(minutes, text):
    assert minutes_text(minutes) == text
