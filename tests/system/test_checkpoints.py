"""A command that was killed goes on by --resume, and ends with the bytes of one that was not."""

import json
import os
import shutil
import signal
import stat
import subprocess
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from e2urec.api.rehearse import RehearsalOptions, rehearse
from e2urec.api.request import RequestOptions
from e2urec.api.train import train
from e2urec.api.unlearn import unlearn
from e2urec.core import process
from e2urec.core.contents import record_files
from e2urec.core.derived_keys import derived_key
from e2urec.core.errors import ConfigError, RunError
from e2urec.core.sealing import read_sealed, write_sealed
from e2urec.experiments.demo import demo
from e2urec.experiments.recipe import Recipe
from e2urec.methods import build
from e2urec.methods.e2urec import E2URec
from e2urec.runs import folder as folders
from e2urec.runs.answer_index import AnswerIndex
from e2urec.runs.folder import Run, create_run, open_run, partial_of, work_beside
from e2urec.runs.keys import controller_key
from e2urec.runs.record import RunRecord, write_record
from e2urec.runs.rehearsal import FILE
from e2urec.runs.resumption import CheckpointOptions
from e2urec.runs.score_index import ScoreIndex
from e2urec.testing import toy_tables
from e2urec.training.checkpoints import CheckpointFile
from e2urec.training.loop import silent
from e2urec.training.state import TrainingState
from key_files import OTHER_KEY, write_key

EVERY_STEP = 1e-9
SETTINGS = [
    "data.rows=60",
    "data.history=3",
    "data.calibration=0.1",
    "tuning.schedule.epochs=3",
    "tuning.schedule.patience=1",
    "tuning.schedule.learning_rate=0.01",
    "tuning.schedule.precision=fp32",
    "scores.pairs=0",
]
# Half models, early stopping by validation, and dropout: all that a checkpoint has to bring back.
SCORES = ["scores.pairs=1", "scores.tuning=adapter", "scores.lora.dropout=0.1"]
REQUEST = RequestOptions(ratio=0.2)
METHODS = {
    "e2urec": {
        **E2URec.presets["gain"],
        "warmup": 1.0,
        "lora": {"targets": "attention", "upper": 0.5, "dropout": 0.1},
        "min_steps": 6,
    },
    "npo": {"min_steps": 6},
    "retrain": {},
}
# They differ between any two runs; hashes and the MAC of what holds them do as well.
MEASURED = {"seconds", "earlier_seconds", "seconds_per_row", "peak_bytes", "files", "parent", "mac"}


class Killed(BaseException):
    """Stands for a signal that no code sees."""


@pytest.fixture(scope="module")
def recipe(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    source = tmp_path_factory.mktemp("data") / "ratings.csv"
    ratings, items = toy_tables(users=24)
    ratings.join(items, on="item").write_csv(source)
    places = [f"data.source={source}", f"model.name={toy}"]
    return Recipe.build({}, place="test").updated(places + SETTINGS)


@pytest.fixture(scope="module")
def original(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(recipe, tmp_path_factory.mktemp("runs") / "original")


@pytest.fixture(scope="module")
def scored(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An original with half models, whose scores requests read."""
    return train(recipe.updated(SCORES), tmp_path_factory.mktemp("runs") / "scored")


def killed_after(steps: int):
    """A listener that ends everything after so many steps of what has checkpoints."""
    seen = []

    def listen(phase: str, done: int, total: int, loss: float | None = None) -> None:
        if phase == "augmented":
            return
        seen.append(done)
        if len(seen) > steps:
            raise Killed

    return listen


def unmeasured(value):
    """JSON without what a clock decides."""
    if isinstance(value, dict):
        return {key: unmeasured(item) for key, item in value.items() if key not in MEASURED}
    return [unmeasured(item) for item in value] if isinstance(value, list) else value


def content(folder: Path) -> dict[str, object]:
    """What must be the same in both folders: bytes, and JSON without what a clock decides."""
    result: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".json" and path.name in ("run.json", "results.json"):
            result[name] = unmeasured(json.loads(path.read_text()))
        elif path.name in ("rows.npz", "erased.json", "report.html"):
            # Salted anew by each command, and pages tell seconds.
            result[name] = "present"
        elif path.name == "scores.npz":
            index = ScoreIndex.load(folder, controller_key())
            result[name] = [np.sort(index.scores.mean), np.sort(index.scores.spread)]
        elif path.name == "answers.npz":
            answers = AnswerIndex.load(folder, controller_key())
            result[name] = np.sort(answers.figures)
        elif path.is_file():
            result[name] = path.read_bytes()
    return result


def assert_same(folder: Path, other: Path) -> None:
    first, second = content(folder), content(other)
    assert list(first) == list(second)
    for name, value in first.items():
        np.testing.assert_equal(second[name], value, err_msg=name)


def interrupted(make, out: Path, steps: int, lines: list[str] | None = None) -> None:
    """Kill `make` after `steps` of its steps, over and over, until it ends by itself."""
    said = [] if lines is None else lines
    resume = False
    for _ in range(100):
        checkpoints = CheckpointOptions(EVERY_STEP, resume, said.append)
        try:
            make(out, killed_after(steps), checkpoints)
            return
        except Killed:
            resume = True
            assert stat.S_IMODE(partial_of(out).stat().st_mode) == 0o700
    pytest.fail("it does not get any further")


def test_training_that_is_killed_again_and_again_ends_with_the_same_bytes(recipe, scored, tmp_path):
    def make(out, progress, checkpoints):
        train(recipe.updated(SCORES), out, progress=progress, checkpoints=checkpoints)

    lines: list[str] = []
    interrupted(make, tmp_path / "run", 4, lines)
    assert any(line.startswith("goes on with 'original' after step") for line in lines)
    assert any(line.startswith("goes on with 'scores' after step") for line in lines)
    assert_same(tmp_path / "run", scored.path)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_training_in_parts_goes_on_in_parts_and_stops_as_early(recipe, tmp_path):
    settings = ["tuning.lora.rank=4", "tuning.lora.dropout=0.1"]
    settings += ["tuning.schedule.micro_batch=5", "tuning.schedule.gradient_checkpointing=true"]
    parted = recipe.updated(settings)

    def make(out, progress, checkpoints):
        train(parted, out, progress=progress, checkpoints=checkpoints)

    interrupted(make, tmp_path / "run", 7)
    make(tmp_path / "whole", silent, CheckpointOptions())
    assert_same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("name", METHODS)
def test_unlearning_that_is_killed_again_and_again_ends_with_the_same_bytes(scored, tmp_path, name):
    method = build(name, METHODS[name])

    def make(out, progress, checkpoints):
        unlearn(scored, out, method, REQUEST, progress=progress, checkpoints=checkpoints)

    lines: list[str] = []
    interrupted(make, tmp_path / "run", 5, lines)
    assert any(line.startswith("goes on with") for line in lines)
    assert any("rows of D_f have moved" in line for line in lines) == (name != "retrain")
    unlearn(scored, tmp_path / "whole", method, REQUEST)
    assert_same(tmp_path / "run", tmp_path / "whole")


def killed(make, out: Path, steps: int) -> None:
    with pytest.raises(Killed):
        make(out, killed_after(steps), CheckpointOptions(EVERY_STEP))


@pytest.fixture(scope="module")
def killed_training(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a training leaves that was killed after a few steps."""
    out = tmp_path_factory.mktemp("killed") / "run"

    def make(out, progress, checkpoints):
        train(recipe, out, progress=progress, checkpoints=checkpoints)

    killed(make, out, 5)
    return partial_of(out)


@pytest.fixture
def half_made(killed_training: Path, tmp_path: Path) -> Path:
    """A run of which there is what that training left."""
    out = tmp_path / "run"
    shutil.copytree(killed_training, partial_of(out))
    return out


def checkpoints_of(out: Path) -> list[CheckpointFile]:
    return CheckpointFile.all_in(partial_of(out) / "checkpoints")


def test_damaged_checkpoint_is_told_and_the_one_before_it_is_used(recipe, original, half_made):
    older, newest = checkpoints_of(half_made)
    text = bytearray(newest.path.read_bytes())
    text[len(text) // 2] ^= 1
    newest.path.write_bytes(text)
    lines: list[str] = []
    train(recipe, half_made, checkpoints=CheckpointOptions(resume=True, say=lines.append))
    assert lines == [
        f"checkpoint '{newest.path}' is damaged; the one before it is used",
        f"goes on with 'original' after step {int(older.step)}",
    ]
    assert_same(half_made, original.path)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"settings": "x"}', '{"minutes": NaN, "settings": "x"}', "[]", "{"]
)
def test_note_that_is_damaged_is_told_as_that_and_the_checkpoints_stay(recipe, half_made, text):
    (partial_of(half_made) / "resumption.json").write_text(text)
    before = checkpoints_of(half_made)
    with pytest.raises(RunError, match=r"resumption\.json': is damaged;.*e2urec discard"):
        train(recipe, half_made, checkpoints=CheckpointOptions(resume=True))
    assert checkpoints_of(half_made) == before


def test_damage_of_all_checkpoints_is_told_and_the_training_begins_anew(
    recipe, original, half_made
):
    older, newest = checkpoints_of(half_made)
    for file in (older, newest):
        file.path.write_bytes(b"x")
    lines: list[str] = []
    train(recipe, half_made, checkpoints=CheckpointOptions(resume=True, say=lines.append))
    assert lines == [
        f"checkpoint '{newest.path}' is damaged; the one before it is used",
        f"checkpoint '{older.path}' is damaged; 'original' begins anew",
    ]
    assert_same(half_made, original.path)


def test_files_that_somebody_put_among_checkpoints_are_passed_over(recipe, original, half_made):
    for name in ("x", "0001-x-y", "0001-5-abc", "0001-5-6-7"):
        stray = partial_of(half_made) / "checkpoints" / f"{name}.safetensors"
        stray.write_bytes(b"x")
        assert len(checkpoints_of(half_made)) == 2, name
    train(recipe, half_made, checkpoints=CheckpointOptions(resume=True))
    assert_same(half_made, original.path)


def test_disk_without_room_for_checkpoints_is_told_before_the_first_step(
    recipe, half_made, tmp_path, monkeypatch
):
    one = max(file.path.stat().st_size for file in checkpoints_of(half_made))
    usage = namedtuple("usage", "total used free")
    # Room for the model, and for two checkpoints.
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(4 * one, 2 * one, 2 * one))
    with pytest.raises(RunError, match="GB will be written"):
        train(
            recipe, tmp_path / "new", progress=killed_after(0), checkpoints=CheckpointOptions(1.0)
        )
    assert not partial_of(tmp_path / "new").exists()
    # The two that are there already take none.
    train(recipe, half_made, checkpoints=CheckpointOptions(resume=True))


def test_half_made_run_holds_nothing_that_going_on_does_not_need(half_made):
    names = sorted(path.name for path in partial_of(half_made).iterdir())
    assert names == ["checkpoints", "resumption.json"]
    assert len(checkpoints_of(half_made)) == 2


def test_other_settings_are_refused_and_the_checkpoints_stay(recipe, half_made):
    other = recipe.updated(["seed=7"])
    before = checkpoints_of(half_made)
    with pytest.raises(RunError, match=r"was begun with other settings.*e2urec discard"):
        train(other, half_made, checkpoints=CheckpointOptions(resume=True))
    assert checkpoints_of(half_made) == before


def test_base_or_data_of_the_same_name_with_other_content_are_refused(recipe, half_made):
    source, base = Path(recipe.data.source), Path(recipe.model.name)
    weights = base / "model.safetensors"
    for path, change in (
        (source, lambda text: text.replace(b",1063,", b",1064,", 1)),
        (weights, lambda text: text[:-1] + bytes([text[-1] ^ 1])),
    ):
        before = path.read_bytes()
        path.write_bytes(change(before))
        try:
            assert path.read_bytes() != before
            with pytest.raises(RunError, match="was begun with other settings"):
                train(recipe, half_made, checkpoints=CheckpointOptions(resume=True))
        finally:
            path.write_bytes(before)


def test_half_made_run_is_not_gone_on_with_unless_that_is_asked_for(recipe, half_made):
    with pytest.raises(RunError, match="go on by the same command with --resume, or remove it"):
        train(recipe, half_made, checkpoints=CheckpointOptions(EVERY_STEP))
    assert len(checkpoints_of(half_made)) == 2


def test_resuming_where_nothing_was_begun_begins_and_says_so(recipe, original, tmp_path):
    lines: list[str] = []
    options = CheckpointOptions(resume=True, say=lines.append)
    train(recipe, tmp_path / "run", checkpoints=options)
    partial = partial_of(tmp_path / "run")
    assert lines == [f"'{partial}' has no checkpoint to go on from; it begins at the start"]
    assert_same(tmp_path / "run", original.path)


def test_folder_of_another_command_is_not_cleared_by_resuming(recipe, tmp_path):
    partial = partial_of(tmp_path / "run")
    (partial / "cells").mkdir(parents=True)
    with pytest.raises(RunError, match="was begun without checkpoints; remove it with"):
        train(recipe, tmp_path / "run", checkpoints=CheckpointOptions(resume=True))
    assert (partial / "cells").is_dir()


def test_interrupt_while_a_finished_run_gets_its_name_takes_nothing(
    recipe, original, tmp_path, monkeypatch
):
    publish = folders.publish_folder

    def interrupted_before(partial, out):
        assert not (partial / "checkpoints").exists()
        os.kill(os.getpid(), signal.SIGTERM)
        publish(partial, out)

    monkeypatch.setattr(process, "_interrupts", process._Interrupts())
    monkeypatch.setattr(folders, "publish_folder", interrupted_before)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "run", checkpoints=CheckpointOptions(EVERY_STEP))
    assert_same(tmp_path / "run", original.path)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.fixture
def unnamed(original, tmp_path) -> Path:
    """A training that was killed after its last file was written, and before it got its name."""
    partial = partial_of(tmp_path / "run")
    shutil.copytree(original.path, partial)
    # What it went on from is removed last of all, and may be there in part.
    (partial / "checkpoints").mkdir()
    return tmp_path / "run"


def test_run_that_lacks_its_name_alone_gets_it_and_is_not_made_again(recipe, original, unnamed):
    lines: list[str] = []
    train(recipe, unnamed, checkpoints=CheckpointOptions(resume=True, say=lines.append))
    assert lines == [f"'{partial_of(unnamed)}' is finished, and gets its name"]
    # Made again it would have another salt, other seconds and another MAC.
    assert record_files(unnamed) == record_files(original.path)
    assert not partial_of(unnamed).exists()


def test_run_that_lacks_its_name_alone_is_given_to_no_other_command(recipe, original, unnamed):
    before = record_files(partial_of(unnamed))
    options = CheckpointOptions(resume=True)
    with pytest.raises(RunError, match=r"was begun with other settings.*e2urec discard"):
        train(recipe.updated(["seed=7"]), unnamed, checkpoints=options)
    with pytest.raises(RunError, match="was begun with other settings"):
        unlearn(original, unnamed, build("npo"), REQUEST, checkpoints=options)
    assert record_files(partial_of(unnamed)) == before
    assert not unnamed.exists()


def test_unlearned_run_that_lacks_its_name_alone_is_given_to_its_own_request(original, tmp_path):
    out = tmp_path / "run"
    unlearn(original, out, build("npo", METHODS["npo"]), REQUEST)
    expected = record_files(out)
    out.rename(partial_of(out))
    options = CheckpointOptions(resume=True)
    for method, request in (
        (METHODS["npo"], RequestOptions(ratio=0.3)),
        ({"min_steps": 7}, REQUEST),
    ):
        with pytest.raises(RunError, match="was begun with other settings"):
            unlearn(original, out, build("npo", method), request, checkpoints=options)
    unlearn(original, out, build("npo", METHODS["npo"]), REQUEST, checkpoints=options)
    assert record_files(out) == expected


def test_run_that_lacks_its_name_and_is_damaged_is_told_and_stays(recipe, unnamed):
    (partial_of(unnamed) / "results.json").write_text("{}")
    with pytest.raises(RunError, match=r"results\.json': is damaged.*e2urec discard"):
        train(recipe, unnamed, checkpoints=CheckpointOptions(resume=True))
    assert (partial_of(unnamed) / "run.json").exists()


def test_demo_that_lacks_its_name_alone_stays_and_says_how_it_gets_one(recipe, tmp_path):
    out = tmp_path / "run"
    with create_run(out) as partial:
        (partial / "report.html").write_text("page")
        write_record(partial, RunRecord(kind="demo", recipe={}, seed=0))
    out.rename(partial_of(out))
    (partial_of(out) / "checkpoints").mkdir()
    quick = recipe.updated(["minutes=none", "retrained=1"])
    with pytest.raises(RunError, match="is finished; give it its name with") as told:
        demo(quick, out, checkpoints=CheckpointOptions(resume=True))
    subprocess.run(str(told.value).partition("with: ")[2].split(), check=True)
    assert open_run(out).record.kind == "demo"


def test_time_that_is_none_is_refused():
    for minutes in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match="give minutes, from 0 on"):
            CheckpointOptions(minutes)


def test_checkpoint_of_a_request_holds_no_teacher_and_no_row(original, tmp_path):
    def make(out, progress, checkpoints):
        method = build("e2urec", preset="gain")
        unlearn(original, out, method, REQUEST, progress=progress, checkpoints=checkpoints)

    killed(make, tmp_path / "run", 3)
    files = checkpoints_of(tmp_path / "run")
    assert files
    key = derived_key(controller_key(), b"e2urec checkpoints")
    for checkpoint in files:
        tensors = load(read_sealed(checkpoint.path, key))
        position = json.loads(tensors.pop("position").tobytes())
        kinds = {name.split("/")[0] for name in tensors}
        assert kinds == {"parameter", "optimizer"}
        # Not the augmented model, which is tuned to remember D_f.
        assert position["call"]["phase"] in ("warmup", "joint", "final")
    texts = [path.read_bytes() for path in partial_of(tmp_path / "run").glob("*.json")]
    assert not any(b"user" in text for text in texts)


def test_checkpoint_of_a_request_cannot_be_read_without_the_key(original, tmp_path):
    def make(out, progress, checkpoints):
        unlearn(original, out, build("npo"), REQUEST, progress=progress, checkpoints=checkpoints)

    killed(make, tmp_path / "run", 3)
    for checkpoint in checkpoints_of(tmp_path / "run"):
        text = checkpoint.path.read_bytes()
        assert b"parameter/0" not in text
        with pytest.raises(ValueError, match="another key"):
            read_sealed(checkpoint.path, bytes(32))
    before = checkpoints_of(tmp_path / "run")
    other = replace(REQUEST, key=write_key(tmp_path / "key", OTHER_KEY))
    options = CheckpointOptions(resume=True)
    # The original's own rows cannot be found under it, so it does not come to the checkpoints.
    with pytest.raises(RunError, match="another key"):
        unlearn(original, tmp_path / "run", build("npo"), other, checkpoints=options)
    assert checkpoints_of(tmp_path / "run") == before


def test_file_of_several_pieces_is_read_as_it_was_sealed(tmp_path, monkeypatch):
    monkeypatch.setattr("e2urec.core.sealing.PIECE_BYTES", 10)
    for content in (b"", b"0123456789", b"0123456789" * 3 + b"end"):
        write_sealed(tmp_path / "file", content, bytes(32))
        assert read_sealed(tmp_path / "file", bytes(32)) == content


def test_comparison_does_not_take_over_a_run_that_can_be_gone_on_with(half_made):
    with pytest.raises(RunError, match="with --resume"), work_beside(half_made, keep="cells"):
        pytest.fail("works in a folder of another command")
    assert len(checkpoints_of(half_made)) == 2


def test_seconds_before_a_kill_count(recipe, half_made):
    newest = checkpoints_of(half_made)[-1]
    position = load(newest.path.read_bytes())["position"]
    earlier = json.loads(position.tobytes())["state"]["trace"]["seconds"]
    run = train(recipe, half_made, checkpoints=CheckpointOptions(resume=True))
    trace = json.loads((run.path / "results.json").read_text())["trace"]
    assert trace["seconds"] > trace["earlier_seconds"] == earlier > 0
    assert run.record.seconds["original"] >= trace["seconds"]


def test_demo_that_is_killed_ends_with_the_same_figures(recipe, tmp_path):
    quick = recipe.updated(["minutes=none", "retrained=1"])

    def make(out, progress, checkpoints):
        demo(quick, out, progress=progress, checkpoints=checkpoints)

    interrupted(make, tmp_path / "run", 30)
    demo(quick, tmp_path / "whole")
    for side in ("original", "unlearned"):
        assert_same(tmp_path / "run" / side, tmp_path / "whole" / side)
    first, second = (
        json.loads((tmp_path / name / "results.json").read_text())["results"]
        for name in ("run", "whole")
    )
    assert first == second


def test_rehearsal_goes_on_inside_of_the_model_that_was_being_made(original, tmp_path):
    method = build("npo", {"min_steps": 6})

    def make(out, progress, checkpoints):
        options = RehearsalOptions(times=2, checkpoints=replace(checkpoints, resume=False))
        rehearse(open_run(out), [method], options, progress=progress)

    for name in ("run", "whole"):
        shutil.copytree(original.path, tmp_path / name)
    lines: list[str] = []
    interrupted(make, tmp_path / "run", 4, lines)
    # A retrained model, and one that forgets.
    for phase in ("retrain", "npo"):
        assert any(line.startswith(f"goes on with '{phase}' after step") for line in lines)
    make(tmp_path / "whole", silent, CheckpointOptions())
    first, second = (json.loads((tmp_path / name / FILE).read_text()) for name in ("run", "whole"))
    for trials in (first["trials"], second["trials"]):
        assert trials[0].pop("seconds") > 0
    assert first["trials"] == second["trials"]
    assert first["headroom"] == second["headroom"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "whole"]


def test_interrupt_says_how_to_go_on_and_going_on_is_one_command(
    call, recipe, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    file = tmp_path / "recipe.toml"
    file.write_text("seed = 0\n")
    words = ["train", "--recipe", file, "--out", out]
    words += ["--data", recipe.data.source, "--model", recipe.model.name]
    for setting in SETTINGS:
        words += ["--set", setting]
    advance = TrainingState.advance
    steps = []

    def interrupt(self, losses, step):
        steps.append(step)
        if len(steps) == 4:
            raise KeyboardInterrupt
        advance(self, losses, step)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "advance", interrupt)
        status, _, error = call(*words, "--checkpoint-every", EVERY_STEP)
    assert status == 130
    assert error.splitlines()[-1] == (
        f"e2urec: interrupted; '{out}.partial' goes on by the same command with --resume; "
        f"e2urec discard {out} removes it"
    )
    status, _, error = call(*words, "--resume")
    assert status == 0, error
    assert "goes on with 'original' after step 3" in error
    assert not partial_of(out).exists()


def test_interrupt_before_the_first_checkpoint_leaves_nothing(call, recipe, tmp_path, monkeypatch):
    def interrupt(self, losses, step):
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingState, "advance", interrupt)
    words = ["--data", recipe.data.source, "--model", recipe.model.name]
    status, _, error = call("train", "--out", tmp_path / "run", *words, "--checkpoint-every", 10)
    assert status == 130
    assert error.splitlines()[-1] == "e2urec: interrupted; no half-made run was left behind"
    assert not list(tmp_path.glob("run*"))
