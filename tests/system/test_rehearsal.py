"""Requests are rehearsed on a toy model: settings are chosen, cited, and a gate rests on them."""

import hashlib
import json
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest

from e2urec.api.rehearse import RehearsalOptions, rehearse
from e2urec.api.train import train
from e2urec.core.contents import hash_file
from e2urec.experiments.recipe import Recipe
from e2urec.experiments.workspace import Workspace
from e2urec.methods import build
from e2urec.methods.neggrad import NegGrad
from e2urec.runs.folder import Run, open_run
from e2urec.runs.rehearsal import FILE, read_rehearsal
from toy_data import quick_settings, write_ratings

TIMES = 2
WORDS = ("--times", TIMES, "--method", "neggrad", "--set", "min_steps=2")


@pytest.fixture(scope="module")
def trained(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("rehearsal")
    settings = [*quick_settings(write_ratings(folder), toy), "data.unseen=0.1"]
    return train(Recipe.build({}, place="test").updated(settings), folder / "original")


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    """A copy of the original, which a test may add to."""
    shutil.copytree(trained.path, tmp_path / "original")
    return open_run(tmp_path / "original")


def files_below(folder: Path) -> dict[str, bytes]:
    """All files, but the key that the command line is given."""
    files = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    files.pop(str(folder / "key"), None)
    return files


def trainees(run: Run) -> list[str]:
    """Ids of the training users of a run."""
    recipe = Recipe.build(run.record.recipe, place="run")
    train = Workspace(recipe).split.train
    return [str(train.interactions.user_ids[int(code)]) for code in np.unique(train.users)]


def test_from_rehearsal_to_unlearning_to_gate(call, run, tmp_path, monkeypatch):
    # A toy model of random ratings has nothing to forget, by which one could choose.
    monkeypatch.setattr("e2urec.api.rehearse.choose_trial", lambda trials, tolerance: 1)
    before = hash_file(run.path / "run.json")
    candidates = ("--candidate", "weight=0.2", "--candidate", "weight=0.9")
    status, out, error = call("rehearse", run.path, *WORDS, *candidates, "--json")
    assert status == 0, error
    assert "retraining reads" in error
    rehearsal = json.loads(out)
    assert hash_file(run.path / "run.json") == before
    assert not (tmp_path / "original.partial").exists()
    trials = rehearsal["trials"]
    assert [trial["settings"]["weight"] for trial in trials] == [0.2, 0.9]
    assert rehearsal["users"] == TIMES
    for trial in trials:
        figures = trial["figures"]
        assert figures["memory_auc"]["n"] == rehearsal["rows"]
        assert {"correlation", "retained_memory", "test_auc_to_retrained"} <= set(figures)
        assert "memory_within" not in figures
        assert trial["seconds"] > 0
    # Nobody is named, and no list is as long as the rows are many.
    text = (run.path / FILE).read_text()
    assert not any(f'"{user}"' in text for user in trainees(run))
    assert "prompt" not in text

    check_that_unlearning_cites_it(call, run, rehearsal, tmp_path)
    check_gate(call, run, tmp_path)


def check_that_unlearning_cites_it(call, run, rehearsal, tmp_path) -> None:
    (tmp_path / "users.txt").write_text(trainees(run)[0] + "\n")
    request = ("--request", tmp_path / "users.txt", "--method", "neggrad")
    place = rehearsal["chosen"]
    status, out, error = call("unlearn", run.path, *request, "--dry-run")
    assert status == 0, error
    assert "settings chosen by the rehearsal of 2 requests of 1 user each" in " ".join(out.split())
    rejected = rehearsal["trials"][1 - place]["settings"]["weight"]
    settings = ("--set", f"weight={rejected}", "--set", "min_steps=2")
    words = (*request, *settings, "--dry-run")
    status, out, error = call("unlearn", run.path, *words)
    assert status == 0, error
    assert "settings tried, and not chosen, in the rehearsal of 2" in " ".join(out.split())
    status, out, error = call("unlearn", run.path, *request, "--out", tmp_path / "forgotten")
    assert status == 0, error
    assert "carries no rehearsal" in " ".join(out.split())
    record = open_run(tmp_path / "forgotten").record
    trial = rehearsal["trials"][place]
    assert record.method.settings == trial["settings"]
    assert record.rehearsal.chosen
    assert record.rehearsal.sha256 == hash_file(run.path / FILE)
    assert record.rehearsal.memory.value == trial["figures"]["memory_auc"]["value"]
    assert not (tmp_path / "forgotten" / FILE).exists()

    # It chose for users, and for who sets nothing.
    others = (("--forget-ratio", 0.1, "--unit", "items"), ("--request", tmp_path / "users.txt"))
    presets = ((), ("--preset", "default"))
    for other, preset in zip(others, presets, strict=True):
        words = (*other, *preset, "--method", "neggrad", "--dry-run")
        status, out, error = call("unlearn", run.path, *words)
        assert status == 0, error
        assert "rehearsal" not in out

    # A setting of the user's own wins, and no rehearsal is cited for what was not rehearsed.
    own = ("--set", "weight=0.5", "--out", tmp_path / "own")
    status, _, error = call("unlearn", run.path, *request, *own)
    assert status == 0, error
    record = open_run(tmp_path / "own").record
    assert record.method.settings["weight"] == 0.5
    assert record.rehearsal is None


def check_gate(call, run, tmp_path) -> None:
    """Of the settings that were rehearsed it needs no shadows; of others it is told, and does."""
    request = ("--request", tmp_path / "users.txt", "--gate")
    status, out, error = call("evaluate", tmp_path / "forgotten", *request, "--json")
    verdict = json.loads(out)["verdict"]["unlearned"]
    assert verdict["basis"] == "rehearsal"
    assert "by rehearsal of 2 requests of 1 user each" in verdict["reason"]
    assert verdict["outcome"] == "UNMEASURABLE", "of two users there is nothing to tell"
    assert (status, "shadow models read" in error) == (3, False)
    words = ("evaluate", tmp_path / "own", *request, "--shadows", 0)
    status, _, error = call(*words)
    assert status == 2
    assert "no basis for this request" in error
    assert "nothing to judge by" in error


def test_interrupted_rehearsal_goes_on_to_the_same_figures(call, run, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    shutil.copytree(run.path, whole)
    status, out, error = call("rehearse", whole, *WORDS, "--json")
    assert status == 0, error
    expected = json.loads(out)

    unlearn = NegGrad.unlearn
    calls = []

    def interrupted(self, task):
        calls.append(task)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return unlearn(self, task)

    monkeypatch.setattr(NegGrad, "unlearn", interrupted)
    status, out, error = call("rehearse", run.path, *WORDS)
    assert (status, out) == (130, "")
    assert "run the same command to go on" in error
    partial = tmp_path / "original.partial"
    assert stat.S_IMODE(partial.stat().st_mode) == 0o700
    assert not (run.path / FILE).exists()
    # Of D_f there are answers alone, no states and no half-made model.
    cells = sorted(path.name for path in partial.rglob("*.safetensors"))
    assert cells == ["answers.safetensors"] * 3
    assert not list(partial.rglob("*.partial"))

    status, _, error = call("rehearse", run.path, *WORDS, "--seed", 5)
    assert status == 2
    assert "was begun with other settings" in error
    assert error.splitlines()[-1].endswith(f"and e2urec discard {run.path} removes it")
    status, out, error = call("rehearse", run.path, *WORDS, "--json")
    assert status == 0, error
    assert len(calls) == 2 + TIMES - 1
    found = json.loads(out)
    for name, figure in expected["trials"][0]["figures"].items():
        assert found["trials"][0]["figures"][name] == figure
    assert not partial.exists()


def test_discard_removes_what_an_interrupted_rehearsal_left(call, run, tmp_path, monkeypatch):
    def interrupted(self, task):
        raise KeyboardInterrupt

    monkeypatch.setattr(NegGrad, "unlearn", interrupted)
    assert call("rehearse", run.path, *WORDS)[0] == 130
    assert call("discard", run.path)[0] == 0
    assert not (tmp_path / "original.partial").exists()
    assert open_run(run.path).record == run.record


def test_given_retrained_runs_measure_as_those_made_here(call, run, tmp_path):
    words = (*WORDS, "--size", 2)
    status, out, error = call("rehearse", run.path, *words, "--json")
    assert status == 0, error
    made = json.loads(out)
    assert "memory_within" in made["trials"][0]["figures"]
    users = tmp_path / "users.jsonl"
    status, _, error = call("rehearse", run.path, *words, "--write-request", users)
    assert status == 0, error
    assert stat.S_IMODE(users.stat().st_mode) == 0o600
    retrain = ("--request", users, "--method", "retrain")
    status, _, error = call("unlearn", run.path, *retrain, "--out", tmp_path / "retrained")
    assert status == 0, error
    against = ("--against", tmp_path / "retrained")
    status, out, error = call("rehearse", run.path, *words, *against, "--json")
    assert status == 0, error
    given = json.loads(out)
    status, _, error = call("rehearse", run.path, *words, *against, *against, "--seed", 5)
    assert status == 2
    assert "is a model that --against has already" in error
    for name, figure in made["trials"][0]["figures"].items():
        assert given["trials"][0]["figures"][name] == pytest.approx(figure), name

    there = files_below(tmp_path)
    status, out, error = call("rehearse", run.path, *words, *against, "--seed", 5)
    assert (status, out) == (2, "")
    assert "without other users than are rehearsed" in error
    assert error.count("\n") == 1
    assert files_below(tmp_path) == there


BAD = [
    (["--size", 500], "--size 500 name 10000 of"),
    (["--times", 8, "--size", 3], "lower one of the two"),
    (["--unit", "items"], "rehearse users"),
    # Told before models are retrained.
    (["--preset", "scores"], "make them by e2urec prepare"),
    (["--method", "sisa"], "measure it with e2urec compare"),
    (["--candidate", "weigth=1", "--method", "neggrad"], "did you mean 'weight'"),
    (["--candidate", "weight", "--method", "neggrad"], "has no '='"),
    (["--against", "{run}", "--retrained", 2], "leave one out"),
    (["--against", "{run}"], "was not retrained"),
    (["--write-request", "{run}/users.txt"], "is no JSON-lines file"),
]


@pytest.mark.parametrize(("words", "message"), BAD)
def test_bad_input_is_one_line_with_status_2_and_nothing_written(
    call, run, tmp_path, words, message
):
    there = files_below(tmp_path)
    # As many requests as there are users for, where a case does not say.
    times = [] if "--times" in words or "--size" in words else ["--times", 3]
    filled = [str(word).format(run=run.path) for word in words]
    status, out, error = call("rehearse", run.path, *times, *filled)
    assert (status, out) == (2, ""), error
    assert message in error
    assert error.count("\n") == 1
    assert files_below(tmp_path) == there


def test_rehearsal_of_another_run_or_a_damaged_one_is_refused(call, run, tmp_path):
    method = build("neggrad", {"min_steps": 2})
    rehearse(run, [method], RehearsalOptions(times=2))
    assert read_rehearsal(run) is not None
    text = (run.path / FILE).read_text()
    (run.path / FILE).write_text(text.replace('"times": 2', '"times": 20'))
    status, _, error = call("unlearn", run.path, "--method", "neggrad", "--dry-run")
    assert status == 2
    assert "is damaged; rehearse again" in error
    values = json.loads(text)
    mac = values.pop("mac")
    values["times"] = 20
    values.pop("check")
    check = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    for forged in ({"mac": mac}, {}):
        (run.path / FILE).write_text(json.dumps(values | {"check": check} | forged))
        status, _, error = call("unlearn", run.path, "--method", "neggrad", "--dry-run")
        assert status == 2
        assert "is not as it was written under this controller key" in error
    (run.path / FILE).write_text(text)
    record = json.loads((run.path / "run.json").read_text()) | {"seed": 9}
    record.pop("mac", None)
    (run.path / "run.json").write_text(json.dumps(record))
    status, _, error = call("unlearn", run.path, "--method", "neggrad", "--dry-run")
    assert status == 2
    assert "is of another run" in error
