"""How times are told, and which of several processes this is."""

import os
import signal

import pytest

from e2urec.core import process
from e2urec.core.errors import ConfigError
from e2urec.core.process import is_of_signal, rank, signals_as_interrupt
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


def raised_in_clean_up() -> Exception:
    """What a clean-up raises that a signal set off."""
    with pytest.raises(OSError, match="busy") as told, signals_as_interrupt():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            raise OSError("busy")
    return told.value


@pytest.mark.parametrize("is_recent", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_error_counts_as_an_interrupt_only_where_the_signal_can_have_caused_it(
    monkeypatch, is_recent, count
):
    monkeypatch.setattr(process, "_interrupts", process._Interrupts())
    caused = raised_in_clean_up()
    if not is_recent:
        monkeypatch.setattr(process, "_interrupts", process._Interrupts())
    monkeypatch.setenv("WORLD_SIZE", str(count))
    assert is_of_signal(caused)
    assert is_of_signal(ImportError("half-way")) == is_recent
    # What gloo says when another process has ended.
    lost = RuntimeError("Connection closed by peer")
    assert is_of_signal(lost) == (is_recent and count > 1)
    for error in (OSError(28, "No space left on device"), ValueError("a bug"), KeyError("x")):
        assert not is_of_signal(error)


def test_error_that_is_its_own_cause_is_told_as_any_other():
    error = ValueError("a bug")
    error.__cause__ = error
    assert not is_of_signal(error)
