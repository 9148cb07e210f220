"""Answers that a run keeps of its own model: from training to the request, and no further."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from e2urec.api import request as requests
from e2urec.api.evaluate import evaluate
from e2urec.api.request import RequestCase, RequestOptions, arithmetic_of
from e2urec.api.train import train
from e2urec.api.unlearn import unlearn
from e2urec.core.errors import DataError
from e2urec.data.samples import Samples
from e2urec.evaluation.roles import ORIGINAL
from e2urec.experiments import odds_at_hand
from e2urec.experiments.recipe import Recipe
from e2urec.experiments.workspace import Workspace
from e2urec.methods import build
from e2urec.metrics.classification import log_loss
from e2urec.models.predictions import predict
from e2urec.runs.answer_index import FILE, AnswerIndex, answers_of_run
from e2urec.runs.folder import Run
from e2urec.runs.row_digests import row_digests
from e2urec.runs.split_index import SplitIndex
from e2urec.training.loop import silent
from e2urec.unlearning import target as targets
from e2urec.unlearning import task as tasks
from key_files import KEY
from toy_data import quick_settings, write_ratings

QUICK = build("neggrad", {"min_steps": 2})


@pytest.fixture(scope="module")
def original(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that keeps answers to some of its training rows, and not to all."""
    folder = tmp_path_factory.mktemp("answers")
    settings = quick_settings(write_ratings(folder), toy)
    recipe = Recipe.build({}, place="test").updated(settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(odds_at_hand, "ANSWERED_ROWS", 40)
        return train(recipe, folder / "original")


def index_of(run: Run) -> AnswerIndex:
    recipe = Recipe.build(run.record.recipe, place="run")
    index = answers_of_run(run, KEY, arithmetic_of(recipe))
    assert index is not None
    return index


def case(run: Run, **options: object) -> RequestCase:
    return RequestCase.open(run, RequestOptions(**options), silent)


def odds_of(index: AnswerIndex, opened: RequestCase, samples: Samples) -> np.ndarray:
    return index.log_odds_of(samples, opened.space.encode(samples))


def asked_live(opened: RequestCase, samples: Samples) -> np.ndarray:
    return predict(opened.original, opened.space.encode(samples)).log_odds


def test_training_keeps_what_the_original_answers_to_the_rows_of_most_requests(original):
    opened = case(original, ratio=0.1)
    split = opened.space.split
    index = index_of(original)
    for part in (split.test, split.unseen):
        assert np.allclose(odds_of(index, opened, part), asked_live(opened, part), atol=1e-4)
    for part in (split.train, split.calibration):
        odds = odds_of(index, opened, part)
        is_present = np.isfinite(odds)
        assert is_present.sum() == min(40, len(part))
        assert np.allclose(odds[is_present], asked_live(opened, part)[is_present], atol=1e-4)
    assert FILE in original.record.files
    assert original.record.seconds["answers"] > 0


def test_request_reads_fewer_rows_and_comes_to_the_same_target(original):
    opened = case(original, ratio=0.1)
    rows = opened.study().rows
    method = build("e2urec", {"joint": 0.0, "scaling": {"largest": 0.0}}, "gain")
    outcomes = []
    for known in (rows, replace(rows, original_odds={})):
        model = opened.space.load(original)
        task = opened.space.task(model, known, method)
        method.unlearn(task)
        outcomes.append((task.outcome.target, task.costs.rows["teachers"]))
    (target, read), (expected, all_read) = outcomes
    # Toy sets are smaller than what a target is measured on, so both read all there is.
    assert target.lead == pytest.approx(expected.lead, abs=1e-3)
    at_hand = [rows.original_odds[name] for name in ("retain", "calibration")]
    assert all_read - read == np.isfinite(np.concatenate(at_hand)).sum() > 0
    assert "test" not in task.original_odds


def test_answer_is_not_used_where_the_title_of_an_item_has_changed_since(original):
    source = Path(original.record.recipe["data"]["source"])
    content = source.read_text()
    opened = case(original, ratio=0.1)
    samples = opened.space.split.test
    is_shown = np.array(
        ["Movie 12 (1972)" in text for text in opened.space.template.render(samples)]
    )
    try:
        source.write_text(content.replace("Movie 12 (1972)", "Another title (1972)"))
        reopened = case(original, ratio=0.1)
        odds = odds_of(index_of(original), reopened, reopened.space.split.test)
        odds_before = odds_of(index_of(original), opened, samples)
    finally:
        source.write_text(content)
    assert is_shown.any()
    assert not is_shown.all()
    assert np.isfinite(odds_before).all()
    assert np.array_equal(np.isnan(odds), is_shown)


@pytest.mark.parametrize("unit", ["users", "items"])
def test_rows_of_a_sample_do_not_depend_on_what_was_answered_before(original, monkeypatch, unit):
    monkeypatch.setattr(odds_at_hand, "RETAIN_SAMPLE_ROWS", 30)
    opened = case(original, ratio=0.1, unit=unit)
    rows = opened.space.rows(opened.parts)
    opened.space.answer_index = None
    without_answers = opened.space.rows(opened.parts)
    assert np.array_equal(rows.retain_sample, without_answers.retain_sample)
    is_rewritten = np.isin(rows.retain_sample, rows.rewritten)
    # A prompt that is written anew has no answer, and figures without such rows would be too good.
    assert is_rewritten.any() == (unit == "items")
    # The 40 rows of D with answers are the first of the same order, so none else is missing.
    assert (np.isnan(rows.evaluation_odds["retain"]) == is_rewritten).all()


def test_lead_from_answers_at_hand_is_the_lead_from_asking_about_the_same_rows(
    original, monkeypatch
):
    def ask_anew(task: tasks.Task, part: str, rows: np.ndarray) -> np.ndarray:
        return predict(task.original, getattr(task, part).take(rows)).log_odds

    monkeypatch.setattr(targets, "LEAST_ROWS", {"scores": 20, "calibration": 20})
    opened = case(original, ratio=0.1)
    rows = opened.study().rows
    settings = {"joint": 0.0, "scaling": {"largest": 0.0}, "calibration_ratio": 0.1}
    method = build("e2urec", settings)
    leads = []
    for odds_of_original in (tasks.Task.odds_of_original, ask_anew):
        monkeypatch.setattr(tasks.Task, "odds_of_original", odds_of_original)
        task = opened.space.task(opened.space.load(original), rows, method)
        method.unlearn(task)
        target = task.outcome.target
        leads.append([target.lead, target.error])
    assert len(rows.retain) > 20
    assert np.isfinite(leads).all()
    assert leads[0] == pytest.approx(leads[1], abs=1e-6)


def test_evaluation_takes_the_answers_at_hand_for_the_original_alone(original):
    opened = case(original, ratio=0.1)
    study = opened.study()
    study.ask(ORIGINAL, opened.original)
    sets = study.rows.evaluation
    for name, answers in study.answers[ORIGINAL].parts().items():
        live = predict(opened.original, getattr(sets, name)).log_odds
        assert np.allclose(answers.log_odds, live, atol=1e-4), name
    at_hand = study.rows.original_odds
    study.rows = replace(
        study.rows, original_odds={name: odds + 1 for name, odds in at_hand.items()}
    )
    study.ask(ORIGINAL, opened.original)
    assert np.array_equal(study.answers[ORIGINAL].test.log_odds, at_hand["test"] + 1)
    other = study.answers_of(opened.original).test.log_odds
    assert np.allclose(other, at_hand["test"], atol=1e-4)


@pytest.mark.parametrize("unit", ["users", "interactions", "items"])
def test_unlearned_run_keeps_answers_of_its_own_model_and_none_of_an_erased_row(
    original, tmp_path, unit
):
    parent = original
    for number in (1, 2):
        options = RequestOptions(ratio=0.1, unit=unit, seed=number)
        opened = RequestCase.open(parent, options, silent)
        split, parts = opened.space.split, opened.parts
        data = split.train.interactions
        rows = opened.space.rows(parts)
        # What the parent answered to a prompt that showed a row of these is used no more.
        for name in odds_at_hand.PARTS:
            part = getattr(split, name, split.train)
            stays = ~parts.erased[part.rows]
            is_rewritten = part.shows(parts.erased)[stays]
            assert np.isnan(rows.original_odds[name][is_rewritten]).all()
        child = unlearn(parent, tmp_path / f"u{number}", QUICK, options)
        index, old_index = index_of(child), index_of(parent)
        reopened = case(child, ratio=0.1, seed=9)
        for part in (parts.test, parts.unseen, parts.retain):
            odds = odds_of(index, reopened, part)
            is_present = np.isfinite(odds)
            assert is_present.any()
            live = asked_live(reopened, part)
            assert np.allclose(odds[is_present], live[is_present], atol=1e-4)
        # The parent's model saw what goes: none of its answers goes along, nor does any hash.
        assert not np.isin(index.figures[0], old_index.figures[0]).any()
        for key in (old_index.key, index.key):
            erased_digests = row_digests(data, key, np.flatnonzero(parts.erased))
            assert not np.isin(index.digests, erased_digests).any()
        assert index.key == SplitIndex.load(child.path, KEY).key
        assert not np.isin(index.digests, old_index.digests).any()
        parent = child


def test_answers_stay_where_a_request_leaves_the_model_as_it_is(original, tmp_path):
    space = Workspace(Recipe.build(original.record.recipe, place="run"))
    unseen = space.split.unseen
    data = unseen.interactions
    user = unseen.users[0]
    (tmp_path / "request.txt").write_text(str(data.user_ids[int(user)]))
    child = unlearn(original, tmp_path / "u", QUICK, RequestOptions(file=tmp_path / "request.txt"))
    assert child.record.note is not None
    before, after = index_of(original), index_of(child)
    stays = unseen.take(unseen.users != user)
    assert len(after) == len(before) - (unseen.users == user).sum()
    opened = case(original, ratio=0.1)
    goes = unseen.take(unseen.users == user)
    assert np.array_equal(odds_of(after, opened, stays), odds_of(before, opened, stays))
    assert np.isfinite(odds_of(before, opened, goes)).all()
    assert np.isnan(odds_of(after, opened, goes)).all()


def test_answers_of_another_model_or_in_another_arithmetic_are_not_used_and_it_is_said(original):
    sentences = []
    recipe = Recipe.build(original.record.recipe, place="run")
    arithmetic = arithmetic_of(recipe)
    assert answers_of_run(original, KEY, "cuda, torch.bfloat16", sentences.append) is None
    files = dict(original.record.files)
    weights = next(name for name in files if name.endswith(".safetensors"))
    files[weights] = files[weights].model_copy(update={"sha256": "0" * 64})
    record = original.record.model_copy(update={"files": files})
    other = Run(original.path, record)
    assert answers_of_run(other, KEY, arithmetic, sentences.append) is None
    assert len(sentences) == 2
    assert "answers.npz': these answers are not used, since the model" in sentences[0]
    assert answers_of_run(original, KEY, arithmetic, sentences.append) is not None
    assert len(sentences) == 2


def test_request_says_where_the_answers_of_its_run_are_not_used(original, monkeypatch):
    sentences = []
    opened = case(original, ratio=0.1, say=sentences.append)
    assert (sentences, opened.space.answer_index is None) == ([], False)
    monkeypatch.setattr(requests, "arithmetic_of", lambda recipe: "cuda, torch.bfloat16")
    opened = case(original, ratio=0.1, say=sentences.append)
    assert opened.space.answer_index is None
    assert len(sentences) == 1
    assert sentences[0].endswith("the model is asked anew")


def test_phases_of_a_small_request_are_logged_on_the_same_few_unseen_rows(original, monkeypatch):
    monkeypatch.setattr(tasks, "MIN_LOGGED_ROWS", 6)
    opened = case(original, ratio=0.1)
    rows = opened.study().rows
    few_rows = replace(rows, forget=rows.forget.take(np.arange(3)))
    task = opened.space.task(opened.original, few_rows, QUICK)
    assert len(task.unseen) > len(task.logged_rows) == 6
    odds = predict(opened.original, task.unseen).log_odds[task.logged_rows]
    expected = log_loss(task.unseen.labels[task.logged_rows], odds)
    for phase in ("joint", "final"):
        task.log_phase(phase, opened.original)
    logged = [log.unseen_log_loss for log in task.phase_logs]
    assert logged == [pytest.approx(expected, abs=1e-4)] * 2
    # What stands beside it is of D_f: it is no rougher than that.
    larger = replace(task, forget=rows.retain.take(np.arange(8)))
    assert len(larger.logged_rows) == 8


def test_request_that_leaves_nobody_to_measure_on_is_refused_before_a_model_is_loaded(
    original, tmp_path, monkeypatch
):
    split = Workspace(Recipe.build(original.record.recipe, place="run")).split
    ids = split.train.interactions.user_ids
    users = [*np.unique(split.unseen.users), split.train.users[0]]
    (tmp_path / "users.txt").write_text("".join(f"{ids[int(user)]}\n" for user in users))

    def fail(*_: object) -> None:
        pytest.fail("loads")

    monkeypatch.setattr(Workspace, "load", fail)
    with pytest.raises(DataError, match="no unseen rows are left beside it, so nothing"):
        unlearn(original, tmp_path / "u", QUICK, RequestOptions(file=tmp_path / "users.txt"))
    assert not list(tmp_path.glob("u[!s]*"))


def test_request_that_takes_all_validation_rows_is_honoured_and_cannot_be_evaluated(
    original, tmp_path
):
    split = Workspace(Recipe.build(original.record.recipe, place="run")).split
    data = split.train.interactions
    rows = [*split.valid.rows, split.train.rows[0]]
    names = [
        (data.user_ids[int(data.user[row])], data.item_ids[int(data.item[row])]) for row in rows
    ]
    lines = "".join(f"{user},{item}\n" for user, item in names)
    (tmp_path / "rows.csv").write_text(f"user,item\n{lines}")
    request = RequestOptions(file=tmp_path / "rows.csv")
    run = unlearn(original, tmp_path / "u", QUICK, request)
    with pytest.raises(DataError, match="no validation rows are left beside it"):
        evaluate(run, [], request)
