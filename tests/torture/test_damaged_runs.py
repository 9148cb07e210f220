"""Damaged folders × every command that reads one: told in one line, or of no consequence."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from damage import DAMAGES, QUICK, Tally, Toys, call, damaged, files_of, renew_record, unreadable

pytestmark = pytest.mark.torture


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Toys:
    toys = Toys(tmp_path_factory.mktemp("toys"))
    toys.train("full", "scores.pairs=1")
    toys.train("lora", "tuning.lora.rank=4")
    toys.train("other", "seed=7", "scores.pairs=1", "tuning.lora.rank=4")
    toys.train("second", "seed=7", "scores.pairs=1")
    toys.make("forgotten", "unlearn", toys.root / "full", "--forget-ratio", 0.1, *QUICK)
    for name in ("full", "second"):
        rehearsed = call(toys.key, "rehearse", toys.root / name, "--times", 2, *QUICK)
        assert rehearsed.status == 0, rehearsed.error
    return toys


def commands_on(toys: Toys, run: Path) -> dict[str, tuple[object, ...]]:
    """Every command that reads a run."""
    out = toys.root / "out"
    commands: dict[str, tuple[object, ...]] = {
        "show": ("show", run),
        "score": ("score", run, "--examples", toys.examples),
        "unlearn": ("unlearn", run, "--forget-ratio", 0.1, *QUICK, "--out", out),
        "dry run": ("unlearn", run, "--forget-ratio", 0.1, *QUICK, "--dry-run"),
        "prepare": ("prepare", run, "--set", "scores.pairs=1", "--out", out),
        "rehearse": ("rehearse", run, "--times", 2, *QUICK),
    }
    if run.name == "forgotten":
        ratio = ("--forget-ratio", 0.1)
        commands["evaluate"] = ("evaluate", run, *ratio)
        commands["against"] = ("evaluate", run, *ratio, "--against", run)
    if run.name == "full":
        commands["parent"] = ("evaluate", toys.root / "forgotten", "--forget-ratio", 0.1)
    return commands


def every_damage(run: Path, other: Path) -> Iterator[tuple[str, str]]:
    """Damages a run in each way, one after another; yields the file and the way."""
    for name in files_of(run):
        for way, damage in DAMAGES.items():
            with damaged(run, name, damage, other):
                yield name, way
        with unreadable(run / name):
            yield name, "unreadable"


@pytest.mark.parametrize(
    ("name", "other"), [("full", "second"), ("lora", "other"), ("forgotten", "full")]
)
def test_every_damage_to_a_run_is_refused_by_every_command(toys, name, other, capsys):
    run = toys.root / name
    commands = commands_on(toys, run)
    tally = Tally()
    plain = {what: call(toys.key, *commands[what]).output for what in ("show", "score")}
    folders = 0
    for file, way in every_damage(run, toys.root / other):
        folders += 1
        for command, words in commands.items():
            # A run without a rehearsal is a whole one, and `rehearse` writes a new one.
            if file == "rehearsal.json" and (way == "missing" or command == "rehearse"):
                continue
            answer = call(toys.key, *words)
            same = answer.status == 0 and answer.output == plain.get(command)
            good = answer.refused or (same and answer.seconds < 10)
            tally.count(good, f"{file} {way}, {command}: {answer.status} {answer.error[-200:]}")
            shutil.rmtree(toys.root / "out", ignore_errors=True)
    with capsys.disabled():
        print(f"\n{name}: {folders} damaged folders, {tally}")
    assert not tally.bad, "\n".join(tally.bad)


@pytest.mark.parametrize("name", ["full", "lora"])
def test_no_reader_ends_in_a_traceback_where_the_record_was_renewed_too(toys, name, capsys):
    run = toys.root / name
    other = toys.root / ("second" if name == "full" else "other")
    commands = commands_on(toys, run)
    tally = Tally()
    folders = 0
    for file, way in every_damage(run, other):
        if file in ("run.json", "rehearsal.json") or "link" in way or way == "unreadable":
            continue
        folders += 1
        renew_record(run)
        for command in ("show", "score", "dry run"):
            answer = call(toys.key, *commands[command])
            # Without a MAC nobody can say that a forged record is one; a crash would be a bug.
            good = answer.refused or (answer.status == 0 and answer.seconds < 10)
            tally.count(good, f"{file} {way}, {command}: {answer.status} {answer.error[-300:]}")
    with capsys.disabled():
        print(f"\n{name}, record renewed: {folders} damaged folders, {tally}")
    assert not tally.bad, "\n".join(tally.bad)


def test_a_base_of_other_files_is_refused_or_gives_the_same_scores(toys, capsys):
    base = toys.root / "base"
    other = toys.root / "second" / "model"
    commands = commands_on(toys, toys.root / "lora")
    tally = Tally()
    plain = {what: call(toys.key, *commands[what]).output for what in ("score", "dry run")}
    folders = 0
    for file, way in every_damage(base, other):
        folders += 1
        for command, output in plain.items():
            answer = call(toys.key, *commands[command])
            good = answer.refused or (answer.status == 0 and answer.output == output)
            tally.count(good, f"{file} {way}, {command}: {answer.status} {answer.error[-300:]}")
    with capsys.disabled():
        print(f"\nbase: {folders} damaged folders, {tally}")
    assert not tally.bad, "\n".join(tally.bad)
