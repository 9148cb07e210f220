"""What the demo says early, where its time went, and what it had no time for."""

import io
import json
import sys

import pytest

from e2urec.cli import experiment_commands, terminal
from e2urec.evaluation.demonstration import Demonstration
from e2urec.evaluation.results import Results
from e2urec.experiments import demo as demos
from e2urec.experiments import demo_size
from e2urec.experiments.recipe import Recipe
from e2urec.unlearning.outcome import Outcome, Target


def demonstration(retrainings: int = 2, skipped: int = 0) -> Demonstration:
    return Demonstration(
        results=Results({}, ()),
        answers={},
        phase_logs=[],
        outcome=Outcome(target=Target(0.8, 0.1, 0.02, "scores"), reached=0.75),
        seconds={
            "loading": 2.0,
            "original": 40.0,
            "unlearning": 8.0,
            "evaluation": 10.0,
            "retrained": 30.0,
            "total": 130.0,
        },
        phases={"teachers": 3.0, "joint": 5.0, "logging": 4.0},
        rows={"forget": 9},
        trainable_parameters=1,
        total_parameters=200,
        seed=0,
        retrainings=retrainings,
        skipped=skipped,
    )


def test_parts_of_the_time_add_up_and_the_longest_comes_first():
    parts = demonstration().seconds_by_part
    assert parts == {
        "retraining": 60.0,
        "original": 40.0,
        "evaluation": 10.0,
        "unlearning": 8.0,
        "reading, tokenising, writing": 6.0,
        "logging": 4.0,
        "loading": 2.0,
    }
    assert list(parts.values()) == sorted(parts.values(), reverse=True)


def test_demo_says_how_far_the_method_came_by_its_own_measure(capsys, tmp_path):
    terminal.show_demo(demonstration(), tmp_path, as_json=False)
    assert "About 50% of the memory of D_f is left" in capsys.readouterr().out


def test_demo_prints_where_its_time_went_with_shares(capsys, tmp_path):
    terminal.show_demo(demonstration(), tmp_path, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    words = [line.split() for line in lines]
    assert ["Where", "130", "s", "went"] in words
    assert ["retraining", "60.0", "46%"] in words
    assert ["of", "unlearning:", "joint", "5.0"] in words
    # Counted once: it is no part of what a request costs.
    assert sum("logging" in line for line in lines) == 1
    assert not any("no time" in line for line in lines)


@pytest.mark.parametrize(
    ("retrainings", "skipped", "sentence"),
    [
        (1, 1, "no time for 1 more retraining, so the noise floor is unknown; "),
        (1, 2, "no time for 2 more retrainings, so the noise floor is unknown; "),
        (2, 1, "no time for 1 more retraining, so the noise floor is less certain; "),
    ],
)
def test_demo_says_what_it_skipped_and_how_to_have_it(
    capsys, tmp_path, retrainings, skipped, sentence
):
    terminal.show_demo(demonstration(retrainings, skipped), tmp_path, as_json=False)
    text = " ".join(capsys.readouterr().out.split())
    assert f"There was {sentence}--set minutes=none takes the time." in text


def test_demo_plans_for_ten_minutes():
    assert Recipe.build(demo_size.FULL, place="default").minutes == 10


@pytest.fixture
def pace(monkeypatch):
    """Minutes that a row of a block takes on a computer of this test."""
    per_block = [0.0]

    def expected(recipe):
        return per_block[0] * recipe.model.layers * recipe.data.rows

    monkeypatch.setattr(demo_size, "expected_minutes", expected)
    return per_block


def test_demo_is_smaller_where_it_would_end_late_and_says_so(pace):
    full = Recipe.build(demo_size.FULL, place="default")
    sentences = []
    pace[0] = 10 / (4 * 6000)
    assert demo_size.size_in_time(full, sentences.append) is full
    assert not sentences
    pace[0] = 60 / (4 * 6000)
    small = demo_size.size_in_time(full, sentences.append)
    assert (small.model.layers, small.data.rows) == (2, 2000)
    assert small.minutes == 10
    (sentence,) = sentences
    assert "some 60 minutes on this computer, and 10 are planned" in sentence
    assert "2 blocks and 2,000 rows instead of 4 and 6,000, some 8 minutes" in sentence


@pytest.mark.parametrize("setting", ["data.rows=5999", "model.layers=3", "minutes=none"])
def test_demo_of_a_size_that_was_asked_for_keeps_it(pace, setting):
    pace[0] = 60.0
    recipe = Recipe.build(demo_size.FULL, place="default").updated([setting])
    assert demo_size.size_in_time(recipe, pytest.fail) is recipe


def test_a_retraining_begins_only_if_it_and_its_answers_and_the_page_end_in_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(demos.time, "monotonic", lambda: now[0])
    clock = demos._Clock(minutes=10, started=100.0)
    now[0] += 599
    # Without one there would be nothing to compare with.
    assert clock.has_time()
    clock.retrainings.append(150.0)
    clock.last_round = 200.0
    # A round of 200 s, of which 50 s are answers, and as long for the end.
    now[0] = 100.0 + 349
    assert clock.has_time()
    # The retraining alone would end in time.
    now[0] = 100.0 + 351
    assert not clock.has_time()
    clock.minutes = None
    assert clock.has_time()


class Screen(io.StringIO):
    """Standard error that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_first_result_stands_above_the_bars_of_a_terminal(capsys, monkeypatch):
    screen = Screen()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", screen)
    with terminal.progress() as listener:
        listener("joint", 1, 2, 0.5)
        experiment_commands.say_aside("First result after 9 s")
        listener("joint", 2, 2, 0.5)
    text = screen.getvalue()
    assert text.count("First result after 9 s") == 1
    assert text.rindex("joint") > text.index("First result")
    assert capsys.readouterr().out == ""


def test_plain_json_of_the_demo_has_the_parts():
    plain = json.loads(json.dumps(demonstration(1, 1).as_dict()))
    assert plain["seconds_by_part"]["retraining"] == 30.0
    assert plain["retrainings_skipped"] == 1
