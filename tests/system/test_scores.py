"""Out-of-fold scores on a toy model: from training to the run folder to the request."""

import contextlib
import errno
import json
import shutil
import signal
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from e2urec.api.method_choice import choose_method
from e2urec.api.prepare import prepare
from e2urec.api.rehearse import RehearsalOptions, rehearse
from e2urec.api.request import RequestCase, RequestOptions
from e2urec.api.train import train
from e2urec.api.unlearn import dry_run, unlearn
from e2urec.core.errors import ConfigError, E2URecError, RunError
from e2urec.data.prompts import TEMPLATES
from e2urec.data.samples import Samples
from e2urec.experiments.comparison.compare import compare
from e2urec.experiments.comparison.estimate import estimate
from e2urec.experiments.demo import demo
from e2urec.experiments.recipe import Recipe, method_of
from e2urec.experiments.workspace import Workspace
from e2urec.methods import build
from e2urec.runs.answer_index import FILE as ANSWERS_FILE
from e2urec.runs.folder import Run, open_run
from e2urec.runs.record import write_record
from e2urec.runs.resumption import CheckpointOptions
from e2urec.runs.row_digests import find, row_digests
from e2urec.runs.score_index import FILE, ScoreIndex
from e2urec.runs.split_index import FILE as SPLIT_FILE
from e2urec.runs.split_index import SplitIndex
from e2urec.training.half_models import HalfModels
from e2urec.training.loop import silent
from key_files import KEY
from toy_data import quick_settings, write_ratings

PAIRS = ["scores.pairs=2"]
QUICK = build("neggrad", {"min_steps": 2})
COMPACT = TEMPLATES["compact"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ratings(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def recipe(toy: Path, source: Path) -> Recipe:
    return Recipe.build({}, place="test").updated(quick_settings(source, toy))


@pytest.fixture(scope="module")
def original(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with scores."""
    return train(recipe.updated(PAIRS), tmp_path_factory.mktemp("runs") / "original")


@pytest.fixture(scope="module")
def plain(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same run without."""
    return train(recipe, tmp_path_factory.mktemp("runs") / "plain")


def index_of(run: Run) -> ScoreIndex:
    index = ScoreIndex.load(run.path, KEY)
    assert index is not None
    return index


def codes_of(run: Run) -> dict[int, int]:
    """The part of each row of a run's data."""
    data = Workspace(Recipe.build(run.record.recipe, place="run")).data
    index = SplitIndex.load(run.path, KEY)
    is_indexed, place = find(row_digests(data, index.key, np.arange(len(data))), index.digests)
    assert is_indexed.all()
    return dict(enumerate(index.codes[place].tolist()))


def case(run: Run, **options: object) -> RequestCase:
    return RequestCase.open(run, RequestOptions(ratio=0.2, **options), silent)


def files_of(run: Run) -> dict[str, bytes]:
    """All files but the record, by name."""
    return {name: (run.path / name).read_bytes() for name in run.record.files}


def test_training_keeps_the_scores_of_all_rows_that_a_request_may_need(original):
    split = Workspace(Recipe.build(original.record.recipe, place="run")).split
    index = index_of(original)
    assert len(index) == len(split.train) + len(split.calibration) + len(split.unseen)
    for part in (split.train, split.calibration, split.unseen):
        assert np.isfinite(index.scores_of(part, COMPACT).mean).all()
        assert (index.scores_of(part, COMPACT).spread > 0).all()
    assert original.record.rows["scores"] == len(index)
    assert original.record.seconds["scores"] > 0
    assert FILE in original.record.files


def test_disk_without_room_for_what_scores_take_meanwhile_is_told_before_training(
    recipe, tmp_path, monkeypatch
):
    settings = [*PAIRS, "scores.tuning=adapter"]
    space = Workspace(recipe.updated(settings))
    usage = namedtuple("usage", "free")
    # Room for the model, and for little else.
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(space.model_bytes() + 100))

    def fail(*_: object) -> None:
        pytest.fail("trains")

    with pytest.raises(RunError, match="will be written"):
        train(recipe.updated(settings), tmp_path / "new", progress=fail)
    assert list(tmp_path.iterdir()) == []


def test_model_and_split_are_the_same_with_scores_as_without(original, plain):
    with_scores = files_of(original)
    del with_scores[FILE]
    without = files_of(plain)
    results = [json.loads(files.pop("results.json")) for files in (with_scores, without)]
    # Each run has a salt of its own: what its row hashes say is the same all the same.
    for files in (with_scores, without):
        del files[SPLIT_FILE], files[ANSWERS_FILE]
    assert with_scores == without
    assert codes_of(original) == codes_of(plain)
    for found in results:
        del found["trace"]["seconds"]
    assert results[0] == results[1]
    assert "scores" not in plain.record.rows
    assert "scores" not in plain.record.seconds


def test_prepared_run_is_the_one_that_was_trained_with_scores_bit_for_bit(
    original, plain, tmp_path
):
    before = files_of(plain)
    prepared = prepare(plain, tmp_path / "prepared", PAIRS)
    assert files_of(plain) == before
    found, expected = files_of(prepared), files_of(original)
    for files in (found, expected):
        for name in ("results.json", FILE, SPLIT_FILE, ANSWERS_FILE):
            files.pop(name)
    assert found == expected
    split = Workspace(Recipe.build(plain.record.recipe, place="run")).split
    for part in (split.train, split.calibration, split.unseen):
        scores, others = (index_of(run).scores_of(part, COMPACT) for run in (prepared, original))
        assert np.array_equal(scores.mean, others.mean)
        assert np.array_equal(scores.spread, others.spread)
    assert index_of(prepared).key == SplitIndex.load(prepared.path, KEY).key
    for name in ("kind", "seed", "recipe", "rows", "chain", "parent"):
        assert getattr(prepared.record, name) == getattr(original.record, name)
    assert prepared.record.seconds["original"] == plain.record.seconds["original"]
    assert prepared.record.seconds["scores"] > 0


def test_request_is_given_the_scores_of_its_own_rows(original, plain):
    opened = case(original)
    rows = opened.space.rows(opened.parts)
    task = opened.space.task(opened.original, rows, QUICK)
    index = index_of(original)
    assert len(task.scores.forget.mean) == len(task.forget)
    assert len(task.scores.calibration.mean) == len(task.calibration)
    expected = index.scores_of(opened.parts.forget, COMPACT)
    assert np.array_equal(task.scores.forget.mean, expected.mean)
    opened = case(plain)
    rows = opened.space.rows(opened.parts)
    assert opened.space.task(opened.original, rows, QUICK).scores is None


@pytest.mark.parametrize("unit", ["users", "interactions", "items"])
def test_no_score_outlives_an_erased_row_that_its_prompt_showed(original, tmp_path, unit):
    parent = original
    index = index_of(parent)
    for number in (1, 2):
        options = RequestOptions(ratio=0.1, unit=unit, seed=number)
        opened = RequestCase.open(parent, options, silent)
        split, parts = opened.space.split, opened.parts
        # The scores of these rows were made from prompts that showed an erased row.
        tainted = []
        for part in (split.train, split.calibration, split.unseen):
            scores = index.scores_of(part, COMPACT)
            for n, row in enumerate(part.rows):
                shown = [*range(*part.history_rows(n).indices(row)), row]
                if parts.erased[shown].any() and scores.present[n]:
                    tainted.append((scores.mean[n], scores.spread[n]))
        child = unlearn(parent, tmp_path / f"u{number}", QUICK, options)
        remaining = index_of(child)
        assert len(tainted) >= index.scores_of(parts.forget, COMPACT).present.sum() > 0
        with np.load(child.path / FILE) as columns:
            assert set(columns) == {"salt", "check", "digests", "scores"}
        assert not np.isin(remaining.scores.mean, [mean for mean, _ in tainted]).any()
        assert not np.isin(remaining.scores.spread, [spread for _, spread in tainted]).any()
        assert len(remaining) == len(index) - len(tainted)
        if unit == "users":
            assert len(tainted) == len(parts.forget)
        # No hash in the file is one of an erased row, nor any that stood beside its hash.
        data = split.train.interactions
        for row_key in (index.key, remaining.key):
            erased_digests = row_digests(data, row_key, np.flatnonzero(parts.erased))
            assert not np.isin(remaining.digests, erased_digests).any()
        assert not np.isin(remaining.digests, index.digests).any()
        # The salt is a new one, the same for both files of a run.
        split_index = SplitIndex.load(child.path, KEY)
        assert remaining.key == split_index.key
        assert remaining.key.salt != index.key.salt
        assert np.isin(remaining.digests, split_index.digests).all()
        assert len(split_index.digests) == len(data) - parts.erased.sum()
        is_scored = remaining.scores_of(parts.retain, COMPACT).present
        assert is_scored.all() == (unit == "users")
        assert child.record.rows["scores"] == len(remaining)
        assert child.record.rows["scores_made_with_erased_rows"] == len(remaining)
        parent, index = child, remaining


def test_calibration_row_has_no_score_while_its_prompt_is_rewritten(original):
    opened = case(original, unit="items")
    rows = opened.space.rows(opened.parts)
    split = opened.space.split
    erased = opened.parts.erased
    stays = ~erased[split.calibration.rows]
    is_rewritten = split.calibration.shows(erased)[stays]
    assert 0 < is_rewritten.sum() < len(is_rewritten)
    assert np.array_equal(rows.scores.calibration.present, ~is_rewritten)
    # D_f keeps its old prompts, which its scores are of.
    assert rows.scores.forget.present.all()


def test_rewritten_rows_that_shall_be_forgotten_need_new_scores(original, tmp_path):
    first = RequestOptions(ratio=0.1, unit="interactions", seed=1)
    child = unlearn(original, tmp_path / "u", QUICK, first)
    said: list[str] = []
    second = RequestOptions(ratio=0.5, unit="users", seed=2, say=said.append)
    method = build("e2urec", {}, "scores")
    with pytest.raises(ConfigError, match="rows of D_f have none; make them anew by e2urec prep"):
        unlearn(child, tmp_path / "u2", method, second)
    assert not list(tmp_path.glob("u2*"))
    # Whoever names no preset is told, and gets the one that does without.
    plan = dry_run(child, "e2urec", second)
    assert plan.phases == dry_run(child, build("e2urec"), second).phases
    (sentence,) = said
    assert sentence.endswith("by --preset default. Preset default is taken")
    prepared = prepare(child, tmp_path / "p")
    said.clear()
    dry_run(prepared, "e2urec", second)
    assert "preset scores, since the run has" in said[0]
    rows = RequestCase.open(prepared, second, silent)
    scores = rows.space.rows(rows.parts).scores
    assert scores.forget.present.all()
    assert scores.calibration.present.all()


@contextlib.contextmanager
def retitled(source: Path, old: str) -> Iterator[None]:
    """Inside, the film `old` has another title where the data are kept."""
    content = source.read_text()
    assert old in content
    source.write_text(content.replace(old, "Another title"))
    try:
        yield
    finally:
        source.write_text(content)


def titles_in(opened: RequestCase, samples: Samples) -> set[str]:
    texts = "".join(opened.space.template.render(samples))
    return {title for title in samples.interactions.titles if title in texts}


def test_scores_of_prompts_with_another_title_are_not_used_and_it_is_said(
    original, source, tmp_path
):
    options = RequestOptions(ratio=0.1, seed=5)
    opened = RequestCase.open(original, options, silent)
    own = titles_in(opened, opened.parts.forget)
    others = titles_in(opened, opened.parts.calibration) - own
    method = build("e2urec", {"joint": 0.0, "scaling": {"largest": 0.0}}, "scores")
    with retitled(source, min(own)):
        with pytest.raises(
            ConfigError, match="rows of D_f have none of their present prompts; make them anew by"
        ):
            unlearn(original, tmp_path / "u", method, options)
        assert not list(tmp_path.glob("u*"))
        with pytest.raises(ConfigError, match="have none of their present prompts"):
            rehearse(original, [method], RehearsalOptions(size=4, times=4))
        # Scores made now are of the prompts of now.
        prepared = prepare(original, tmp_path / "p")
        rows = RequestCase.open(prepared, options, silent)
        scores = rows.space.rows(rows.parts).scores
        assert (scores.stale, scores.forget.present.all()) == (0, True)
    # A calibration row without a score stops nothing: it is left out, which is told.
    with retitled(source, min(others)):
        child = unlearn(original, tmp_path / "v", method, options)
    notes = json.loads((child.path / "results.json").read_text())["outcome"]["notes"]
    assert "make the scores anew by e2urec prepare" in " ".join(notes)
    whole = unlearn(original, tmp_path / "w", method, options)
    sentences = json.loads((whole.path / "results.json").read_text())["outcome"]["sentences"]
    assert "anew" not in " ".join(sentences)


def test_scores_of_an_unlearned_run_are_made_anew_without_the_erased_rows(original, tmp_path):
    child = unlearn(original, tmp_path / "u", QUICK, RequestOptions(ratio=0.2))
    prepared = prepare(child, tmp_path / "p")
    assert set(index_of(prepared).digests) == set(index_of(child).digests)
    assert not np.array_equal(index_of(prepared).scores.mean, index_of(child).scores.mean)
    assert prepared.record.rows == {"scores": len(index_of(prepared))}
    assert prepared.record.chain == child.record.chain
    assert prepared.record.parent == child.record.parent
    # It is still a link of the chain.
    unlearn(prepared, tmp_path / "u2", QUICK, RequestOptions(ratio=0.1, seed=3))


def test_run_without_scores_works_as_before(plain, tmp_path):
    child = unlearn(plain, tmp_path / "u", QUICK, RequestOptions(ratio=0.2))
    assert not (child.path / FILE).exists()
    assert child.record.rows == {}


def test_what_cannot_be_prepared_is_told_before_anything_is_made(original, plain, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match=r"scores\.pairs = 0 makes no scores"):
        prepare(plain, out, ["scores.pairs=0"])
    with pytest.raises(ConfigError, match="only the scores of a run can be set"):
        prepare(plain, out, ["scores.pairs=1", "tuning.schedule.epochs=3"])
    comparison = Run(plain.path, plain.record.model_copy(update={"kind": "comparison"}))
    with pytest.raises(RunError, match="is a comparison; name a run made by e2urec train"):
        prepare(comparison, out)
    assert list(tmp_path.glob("out*")) == []


def test_half_models_that_diverge_cost_a_run_its_scores_alone(recipe, plain, tmp_path):
    settings = ["scores.tuning=adapter", "scores.learning_rate=1e30"]
    said: list[str] = []
    run = train(recipe.updated(["scores.pairs=1", *settings]), tmp_path / "o", say=said.append)
    told, why = said
    assert "2 half models read" in told
    assert "half model 1 of 2 diverged" in why
    assert "finished all the same, without out-of-fold scores; e2urec prepare makes them" in why
    assert run.record.rows.keys() == plain.record.rows.keys()
    weights = "model/model.safetensors"
    assert files_of(run).keys() == files_of(plain).keys()
    assert files_of(run)[weights] == files_of(plain)[weights]
    # Requests do without, and scores can be made later.
    assert choose_method(run, "e2urec") == build("e2urec")
    with pytest.raises(ConfigError, match="half model 1 of 2 diverged"):
        prepare(run, tmp_path / "p")
    assert not list(tmp_path.glob("p*"))
    slower = prepare(run, tmp_path / "p", ["scores.learning_rate=1e-3"])
    assert index_of(slower).scores.present.all()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "out of memory"),
        (OSError(errno.ENOSPC, "full"), "no space left on the disk"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_half_models_that_cannot_go_on_cost_a_run_its_scores_alone(
    recipe, plain, tmp_path, monkeypatch, error, reason
):
    def fail(*_: object, **__: object) -> None:
        raise error

    said: list[str] = []
    is_interrupt = isinstance(error, KeyboardInterrupt)
    # Whoever interrupts it wants it to end all the same.
    ending = pytest.raises(KeyboardInterrupt) if is_interrupt else contextlib.nullcontext()
    with monkeypatch.context() as patched, ending:
        patched.setattr(HalfModels, "scores", fail)
        train(recipe.updated(PAIRS), tmp_path / "o", say=said.append)
    assert f"scores: {reason}. The run is finished all the same" in said[-1]
    run = open_run(tmp_path / "o")
    assert files_of(run).keys() == files_of(plain).keys()
    assert [path.name for path in tmp_path.iterdir()] == ["o"]
    assert index_of(prepare(run, tmp_path / "p")).scores.present.all()


def test_disk_that_fills_up_meanwhile_costs_a_run_its_scores_alone(recipe, tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    make_scores = HalfModels.scores

    def fill_up(*arguments: object) -> object:
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(0))
        return make_scores(*arguments)

    monkeypatch.setattr(HalfModels, "scores", fill_up)
    said: list[str] = []
    settings = ["scores.pairs=1", "scores.tuning=adapter"]
    train(recipe.updated(settings), tmp_path / "o", say=said.append)
    assert "scores: no space left on the disk. The run is finished all the same" in said[-1]
    assert not (tmp_path / "o" / FILE).exists()


def test_second_interrupt_takes_no_run_that_is_all_but_finished(recipe, tmp_path, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def write_slowly(*arguments: object) -> None:
        signal.raise_signal(signal.SIGINT)
        write_record(*arguments)

    monkeypatch.setattr(HalfModels, "scores", interrupt)
    monkeypatch.setattr("e2urec.api.train.write_record", write_slowly)

    def say(text: str) -> None:
        # The run is there when it is called finished; whoever closed the terminal hears nothing.
        if "finished" in text:
            open_run(tmp_path / "o")
            raise OSError(errno.EIO, "no terminal")

    with pytest.raises(KeyboardInterrupt):
        train(recipe.updated(PAIRS), tmp_path / "o", say=say)
    assert open_run(tmp_path / "o").record.kind == "original"


def test_half_models_that_are_interrupted_go_on_where_there_are_checkpoints(
    recipe, original, tmp_path, monkeypatch
):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(HalfModels, "scores", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(recipe.updated(PAIRS), tmp_path / "o", checkpoints=CheckpointOptions(1))
    assert not (tmp_path / "o").exists()
    run = train(recipe.updated(PAIRS), tmp_path / "o", checkpoints=CheckpointOptions(resume=True))
    assert len(index_of(run)) == len(index_of(original))


def test_layers_of_half_models_that_are_not_there_are_told_before_training(recipe, tmp_path):
    def fail(*_: object) -> None:
        raise AssertionError("it trained")

    settings = ["scores.tuning=adapter", "scores.lora.targets=['no_such']"]
    with pytest.raises(E2URecError, match="no_such"):
        train(recipe.updated(["scores.pairs=1", *settings]), tmp_path / "o", progress=fail)


def test_damaged_run_is_not_given_new_hashes(plain, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in [*plain.record.files, "run.json"]:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((plain.path / name).read_bytes())
    weights = copy / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(RunError, match="is damaged"):
        prepare(open_run(copy), tmp_path / "out", PAIRS)
    assert not (tmp_path / "out").exists()


def test_training_makes_scores_unless_it_is_told_not_to_and_says_what_they_take(
    call, toy, source, tmp_path
):
    words = []
    for setting in quick_settings(source, toy):
        if not setting.startswith("scores."):
            words += ["--set", setting]
    status, _, error = call("train", *words, "--out", tmp_path / "run")
    assert status == 0, error
    run = open_run(tmp_path / "run")
    assert f"{2 * run.record.recipe['scores']['pairs']} half models read" in error
    assert index_of(run).scores.present.all()
    status, _, error = call("train", *words, "--set", "scores.pairs=0", "--out", tmp_path / "no")
    assert status == 0, error
    assert "half models" not in error
    assert ScoreIndex.load(tmp_path / "no", KEY) is None


def test_commands_make_scores_tell_their_cost_and_say_who_has_none(call, plain, original, tmp_path):
    status, out, error = call("prepare", plain.path, "--dry-run", "--set", "scores.pairs=1")
    assert status == 0, error
    split = Workspace(Recipe.build(plain.record.recipe, place="run")).split
    held_out = len(split.calibration) + len(split.unseen)
    assert f"2 half models would read {2 * len(split.train) + held_out} rows" in out
    status, _, error = call("prepare", plain.path)
    assert (status, "no --out" in error) == (2, True)
    status, out, error = call("prepare", plain.path, "--out", tmp_path / "p")
    assert status == 0, error
    assert f"out-of-fold scores of {len(index_of(original))} rows\n" in out
    assert any(line.split()[:1] == ["scores"] for line in out.splitlines())
    assert "no out-of-fold scores; e2urec prepare makes them" in call("show", plain.path)[1]
    words = ("--forget-ratio", "0.2", "--method", "neggrad")
    status, out, error = call("unlearn", tmp_path / "p", *words, "--out", tmp_path / "u")
    assert status == 0, error
    assert "made with the help of rows erased since" in " ".join(out.split())


def test_method_learns_from_scores_where_the_run_has_them(call, plain, original):
    words = ("unlearn", original.path, "--forget-ratio", "0.2", "--dry-run")
    status, out, error = call(*words)
    assert status == 0, error
    assert "preset scores, since the run has out-of-fold scores; --preset default does" in error
    assert "augmented" not in out
    # Whatever names the teacher decides.
    for choice in (("--preset", "gain"), ("--set", "forgetting=gain")):
        status, out, error = call(*words, *choice)
        assert status == 0, error
        assert "preset scores" not in error
        assert "augmented" in out
    # So does a setting that only one teacher reads, and it is said.
    status, out, error = call(*words, "--set", "augment_passes=3", "--set", "joint=1")
    assert status == 0, error
    assert "preset gain, since preset scores does not read augment_passes; leave" in error
    assert choose_method(original, "e2urec", {"joint": 4.0}).joint == 4.0
    # A value that preset scores has itself is none of another teacher.
    assert choose_method(original, "e2urec", {"start_scale": 0.0}).forgetting == "scores"
    assert choose_method(original, "e2urec", {"joint": 4.0}).forgetting == "scores"
    assert choose_method(original, "neggrad") == build("neggrad")
    assert choose_method(plain, "e2urec") == build("e2urec")
    # Without scores, too.
    status, out, error = call("unlearn", plain.path, *words[2:], "--set", "alpha=1.5")
    assert status == 0, error
    assert "preset gain, since preset default does not read alpha; leave that out" in error
    assert "augmented" in out


def test_recipe_that_makes_scores_has_its_method_learn_from_them(recipe):
    assert method_of(recipe) == build("e2urec")
    assert method_of(recipe.updated(PAIRS)) == build("e2urec", {}, "scores")
    assert method_of(recipe.updated([*PAIRS, "method.preset=default"])) == build("e2urec")


@pytest.fixture
def given(monkeypatch) -> list:
    """The scores that each task holds, in the order in which tasks are made."""
    scores = []
    make = Workspace.task

    def task(self, *arguments, **options):
        made = make(self, *arguments, **options)
        scores.append(made.scores)
        return made

    monkeypatch.setattr(Workspace, "task", task)
    return scores


def test_demo_gives_its_method_scores_and_tells_their_seconds(recipe, tmp_path, given):
    settings = [*PAIRS, "method.name=neggrad", "retrained=0", "minutes=none"]
    demonstration = demo(recipe.updated(settings), tmp_path / "demo")
    assert np.isfinite(given[0].forget.mean).all()
    assert demonstration.seconds["scores"] > 0
    assert "scores" in demonstration.seconds_by_part
    assert "scores" not in demonstration.phases


class Told(BaseException):
    """Ends a command at a sentence."""


def test_rehearsal_says_before_anything_is_trained_what_small_requests_do_not_read(original):
    candidates = [build("e2urec", {"strength": value}, "scores") for value in (4.0, 8.0)]

    def hear(text: str) -> None:
        if "too few rows" in text:
            raise Told(text)

    options = RehearsalOptions(times=4)
    with pytest.raises(
        Told, match=r"^4 of 4 requests have too few rows to read strength, in which"
    ):
        rehearse(original, candidates, options, say=hear)


class Killed(BaseException):
    """Stands for a process that is killed."""


def test_comparison_makes_scores_once_an_original_and_goes_on_with_the_same(
    recipe, tmp_path, monkeypatch, given
):
    requests = "compare.requests=[{ratio = 0.2}, {ratio = 0.1, seed = 5}]"
    methods = ["compare.methods=['neggrad']", "compare.settings={neggrad={min_steps=2}}"]
    small = recipe.updated([*PAIRS, *methods, requests, "retrained=1", "compare.resamples=100"])
    estimated = estimate(small)
    assert estimated.rows["scores"] == Workspace(small).scores_row_count() > 0
    assert "scores" not in estimate(small.updated(["scores.pairs=0"])).rows

    once = []
    make_scores = Workspace.make_scores
    monkeypatch.setattr(
        Workspace, "make_scores", lambda *options: (once.append(1), make_scores(*options))[1]
    )

    def stop(line: str) -> None:
        if line.startswith("[3 of"):
            raise Killed

    with pytest.raises(Killed):
        compare(small, tmp_path / "c", say=stop)
    first = given[0]
    given.clear()
    comparison = compare(small, tmp_path / "c")
    assert len(once) == 1
    assert all(scores is not None for scores in given)
    assert np.array_equal(given[0].forget.mean, first.forget.mean)
    cells = comparison.as_dict()["cells"]
    seconds = [cell["cost"]["seconds"] for cell in cells if cell["model"] == "original"]
    assert len(seconds) == 2
    assert seconds[0] == seconds[1]
    assert seconds[0]["scores"] > 0
    request = next(cell["cost"]["seconds"] for cell in cells if cell["model"] == "neggrad")
    assert request["total"] == request["request"]
    assert "Out-of-fold scores are made once for each original" in (
        tmp_path / "c" / "table.md"
    ).read_text(encoding="utf-8")
    # With the cells go the scores.
    assert not list((tmp_path / "c").rglob(FILE))
