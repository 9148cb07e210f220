"""Whatever a command is given, it ends with status 2 and one line, and leaves nothing behind."""

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from bad_inputs import HEADER, Case, cases

from e2urec.testing import toy_tables

SECONDS = 30
"""Longest that a command may think about a bad input."""
EVERY = 30
"""One case of so many runs in the ordinary suite."""


class TooSlowError(BaseException):
    """A command took too long. No `TimeoutError`, which a command would tell as a failing disk."""


@dataclass(frozen=True)
class Places:
    """What the cases share: a table, a model and a run."""

    data: Path
    model: Path
    run: Path


@pytest.fixture(scope="module")
def places(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Places:
    folder = tmp_path_factory.mktemp("shared")
    ratings, items = toy_tables(users=24)
    table = ratings.join(items, on="item").select(HEADER)
    table.write_csv(folder / "ratings.csv")
    return Places(folder / "ratings.csv", toy, folder / "run")


@pytest.fixture
def refused(call, places, tmp_path) -> Callable[[Case], str | None]:
    """Try a case; returns what is bad about how it ended, or None."""
    if not places.run.exists():
        words = ["--data", places.data, "--model", places.model, "--out", places.run]
        settings = ("data.history=3", "data.calibration=0.1", "tuning.schedule.epochs=1")
        for setting in (*settings, "scores.pairs=0"):
            words += ["--set", setting]
        status, _, error = call("train", *words)
        assert status == 0, error

    def attempt(case: Case) -> str | None:
        folder = tmp_path / "case"
        folder.mkdir()
        for name, data in case.files.items():
            (folder / name).write_bytes(data)
        before = listing(folder), listing(places.run.parent)
        words = case.command(folder=folder, **vars(places))
        try:
            with time_limit():
                status, _, error = call(*words)
        except BaseException as bug:
            return f"traceback: {type(bug).__name__}: {str(bug)[:200]}"
        else:
            after = listing(folder), listing(places.run.parent)
            return complaint(case, status, error, before == after)
        finally:
            shutil.rmtree(folder)

    return attempt


def complaint(case: Case, status: int, error: str, nothing_written: bool) -> str | None:
    """What is bad about the end of a command."""
    if status == 0 and case.may_pass:
        return None
    lines = [line for line in error.splitlines() if line.startswith("e2urec: ")]
    if status != 2:
        return f"status {status}: {error[-200:]}"
    if len(lines) != 1 or "Traceback" in error or not error.rstrip().endswith(lines[0]):
        return f"not one line: {error[-300:]}"
    if len(lines[0]) > 1000:
        return f"a line of {len(lines[0])} letters"
    return None if nothing_written else "left something behind"


def listing(folder: Path) -> list[str]:
    """All that lies in a folder."""
    return sorted(str(path) for path in folder.rglob("*"))


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """Raise TooSlowError in whatever takes too long."""

    def stop(number: int, frame: object) -> None:
        raise TooSlowError(f"took more than {SECONDS} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def report(bad: dict[str, str], tried: int) -> str:
    """One line of figures, and one for each case that did not end well."""
    lines = [f"{name}: {reason}" for name, reason in bad.items()]
    return "\n".join([*lines, f"tried {tried}, good {tried - len(bad)}, bad {len(bad)}"])


def try_all(refused: Callable[[Case], str | None], chosen: list[Case]) -> None:
    bad = {}
    for case in chosen:
        reason = refused(case)
        if reason is not None:
            bad[case.name] = reason
    print(report(bad, len(chosen)), file=os.sys.__stdout__)
    assert not bad, report(bad, len(chosen))


def test_sample_of_bad_inputs_is_refused_in_one_line(refused):
    try_all(refused, cases()[::EVERY])


@pytest.mark.torture
@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="no alarm on this system")
def test_all_bad_inputs_are_refused_in_one_line(refused):
    try_all(refused, cases())
