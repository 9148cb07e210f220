"""An answer may be any of several tokens: its probability is the sum of theirs, everywhere."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax

from e2urec.api.serving.answers_check import own_answers
from e2urec.core.arrays import Head
from e2urec.core.errors import ConfigError, ModelError, RunError
from e2urec.data.prompts import TEMPLATES
from e2urec.evaluation.answer_store import AnswerStore
from e2urec.evaluation.answers import Answers
from e2urec.experiments.model_recipe import ModelRecipe
from e2urec.experiments.recipe import Recipe
from e2urec.methods import build
from e2urec.methods.e2urec import E2URec
from e2urec.metrics import distances
from e2urec.models.output_head import OutputHead, join_tokens
from e2urec.models.predictions import NO_HEAD, Predictions, predict
from e2urec.models.recommender import Recommender
from e2urec.models.verbaliser import Verbaliser, find_verbaliser
from e2urec.testing import toy_backbone, toy_task, toy_tokenizer
from e2urec.training.supervised import cross_entropy
from e2urec.unlearning.losses import with_odds
from e2urec.unlearning.task import Task
from e2urec.unlearning.teachers import FrozenTeacher

GRADES = Verbaliser.of(((7, 3), (5, 1, 2)))
QUICK = {
    "e2urec": {
        **E2URec.presets["gain"],
        "warmup": 1,
        "joint": 1,
        "min_steps": 4,
        "augment_min_steps": 4,
    },
    "badt": {"teacher": "uniform", "min_steps": 4},
    "npo": {"min_steps": 4},
    "ifru": {"rows": 16, "iterations": 3},
}


def logits(rows: int = 4, tokens: int = 9) -> torch.Tensor:
    return torch.randn(rows, tokens, generator=torch.Generator().manual_seed(0))


def expected_odds(z: torch.Tensor) -> torch.Tensor:
    """By NumPy, of logits before tokens are joined."""
    yes, no = (logsumexp(z.numpy()[:, tokens], axis=1) for tokens in ([7, 3], [5, 1, 2]))
    return torch.from_numpy(yes - no)


def test_probability_of_an_answer_is_the_sum_of_those_of_its_tokens():
    z = logits()
    joined = join_tokens(z, GRADES.sets)
    p = z.softmax(1)
    joint = joined.softmax(1)
    assert torch.allclose(joint[:, 7], p[:, [7, 3]].sum(1))
    assert torch.allclose(joint[:, 5], p[:, [5, 1, 2]].sum(1))
    assert torch.equal(joint[:, [3, 1, 2]], torch.zeros(4, 3))
    others = [0, 4, 6, 8]
    assert torch.allclose(joint[:, others], p[:, others])
    assert torch.allclose(GRADES.log_odds(joined), expected_odds(z), atol=1e-6)


def test_answers_of_one_token_each_leave_logits_as_they_are_bit_by_bit():
    single = Verbaliser.of((7, 5))
    assert single == Verbaliser(7, 5)
    assert single.sets == ()
    z = logits()
    assert join_tokens(z, single.sets) is z
    # A list of one token is one token.
    assert Verbaliser.of(((7,), (5,))) == single


def test_loss_of_a_set_is_that_of_its_whole_probability_and_its_gradient_is_finite():
    z = logits().requires_grad_()
    labels = torch.tensor([1, 0, 1, 0])
    loss = cross_entropy(join_tokens(z, GRADES.sets), GRADES.tokens(labels))
    p = z.softmax(1)
    answers = torch.where(labels.bool(), p[:, [7, 3]].sum(1), p[:, [5, 1, 2]].sum(1))
    assert torch.allclose(loss, -answers.log().mean())
    (gradient,) = torch.autograd.grad(loss, z)
    (expected,) = torch.autograd.grad(-answers.log().mean(), z)
    assert torch.allclose(gradient, expected, atol=1e-6)


@pytest.mark.parametrize("cap", [None, 2.0])
def test_teacher_reads_the_same_log_odds_from_its_answer_rows_as_from_all_logits(cap):
    random = torch.Generator().manual_seed(0)
    states = torch.randn(6, 4, generator=random)
    weight, bias = torch.randn(9, 4, generator=random), torch.randn(9, generator=random)
    head = OutputHead(weight, bias, cap, GRADES.sets)
    teacher = FrozenTeacher(states, head.detach(), torch.arange(6))
    plain = OutputHead(weight, bias, cap).logits(states)
    assert np.allclose(teacher.odds(GRADES), expected_odds(plain), atol=1e-5)
    led = with_odds(teacher(teacher.rows), torch.full((6,), 0.7), GRADES)
    assert torch.allclose(GRADES.log_odds(led), torch.tensor(0.7))
    assert torch.allclose(led.exp().sum(1), torch.ones(6))


def test_distances_over_the_vocabulary_take_the_tokens_of_an_answer_for_one():
    random = np.random.default_rng(0)
    states = random.normal(size=(2, 5, 4)).astype(np.float32)
    weight = random.normal(size=(9, 4)).astype(np.float32)
    head = Head(weight, None, None, GRADES.sets)
    tables = []
    for rows in states:
        p = softmax(rows @ weight.T, axis=1)
        yes, no = p[:, [7, 3]].sum(1), p[:, [5, 1, 2]].sum(1)
        tables.append(np.column_stack([p[:, [0, 4, 6, 8]], yes, no]))
    measured = distances.vocabulary_distances(states[0], head, states[1], head)
    assert measured["js"] == pytest.approx(distances.jensen_shannon(*tables), rel=1e-4)
    assert measured["jeffreys"] == pytest.approx(distances.jeffreys(*tables), rel=1e-4)


def test_stored_answers_keep_which_tokens_count_as_one(tmp_path):
    columns = np.zeros(3, np.float32), np.zeros(3, np.int8), np.arange(3)
    head = Head(np.ones((9, 4), np.float32), None, 30.0, GRADES.sets)
    states = np.ones((3, 4), np.float32)
    without = Predictions(None, NO_HEAD, *columns)
    answers = Answers(
        forget=Predictions(states, head, *columns), valid=without, test=without, unseen=without
    )
    AnswerStore(tmp_path, b"k" * 32).save(tmp_path / "answers.safetensors", answers)
    loaded = AnswerStore(tmp_path, b"k" * 32).load(tmp_path / "answers.safetensors")
    assert loaded.forget.head[2:] == (30.0, GRADES.sets)


def test_forms_of_an_answer_are_its_first_tokens_and_may_share_one():
    tokenizer = toy_tokenizer(closes=False)
    forms = (("Yes.", "Yes", " Yes"), ("No.", " No"))
    verbaliser = find_verbaliser(tokenizer, ["Movie?\n"], seq2seq=False, answers=forms)
    first = [[tokenizer(form).input_ids[0] for form in side] for side in forms]
    assert first[0][0] == first[0][1]
    assert verbaliser.tokens_of_answers == (
        tuple(dict.fromkeys(first[0])),
        tuple(first[1]),
    )


def test_upper_grade_that_begins_as_a_lower_one_is_refused():
    tokenizer = toy_tokenizer(closes=False)
    grades = (("10", "9"), ("1", "2"))
    with pytest.raises(ModelError, match="share their first token"):
        find_verbaliser(tokenizer, ["Movie?\n"], seq2seq=False, answers=grades)


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        ([[], 3], "has no token"),
        ([[3, 4], 4], "named twice"),
        ([[3, 3], 4], "named twice"),
        ([3, -1], "is negative"),
    ],
)
def test_tokens_that_are_no_two_answers_are_refused(tokens, reason):
    with pytest.raises(ConfigError, match=reason):
        Recipe.build({"model": {"answers": tokens}}, place="recipe")


def test_prefix_that_would_stand_before_no_answers_of_its_own_is_refused():
    with pytest.raises(ConfigError, match=r"model\.prefix=\[7\]: stands before model\.answers"):
        Recipe.build({"model": {"prefix": [7]}}, place="recipe")


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_prefix_is_taken_by_an_encoder_decoder_and_refused_for_any_other(kind, tmp_path):
    backbone = toy_backbone(kind)
    backbone.lm.save_pretrained(tmp_path)
    backbone.tokenizer.save_pretrained(tmp_path)
    model = ModelRecipe(name=str(tmp_path), answers=(3, 5), prefix=(7,))
    if kind == "causal":
        with pytest.raises(ConfigError, match=r"model\.prefix=\[7\]: .* is no encoder-decoder"):
            model.load(whole=False, revision=None, offline=True)
    else:
        base = model.load(whole=False, revision=None, offline=True)
        assert base.verbaliser == Verbaliser(3, 5, prefix=(7,))


def test_answer_of_a_token_that_the_model_lacks_is_refused():
    backbone = toy_backbone("causal")
    count = backbone.lm.lm_head.weight.shape[0]
    beyond = (Verbaliser.of(((3, count), 5)), Verbaliser(3, 5, prefix=(count,)))
    for verbaliser in beyond:
        wrong = replace(backbone, verbaliser=verbaliser)
        with pytest.raises(ModelError, match=f"has {count:,} tokens, and token {count}"):
            Recommender(wrong, TEMPLATES["compact"])


def test_saved_recommender_has_the_tokens_of_its_answers_again(tmp_path):
    backbone = replace(toy_backbone("causal"), verbaliser=GRADES)
    Recommender(backbone, TEMPLATES["compact"]).save(tmp_path)
    assert Recommender.load(tmp_path).verbaliser == GRADES
    card = tmp_path / "recommender.json"
    text = card.read_text(encoding="utf-8")
    for damage in ("true", "[]", "-7"):
        card.write_text(text.replace("7", damage, 1), encoding="utf-8")
        with pytest.raises(RunError, match="is damaged"):
            Recommender.load(tmp_path)


def task_of_grades() -> Task:
    """A toy request to a model that answers by any of several tokens."""
    task = toy_task("causal")
    verbaliser = task.original.verbaliser
    tokens = replace(verbaliser, more_yes=(7, 9), more_no=(11,))
    assert task.base is not None
    task.base = replace(task.base, verbaliser=tokens)
    task.original = Recommender(
        replace(task.original.backbone, verbaliser=tokens), task.original.template
    )
    return task


@pytest.mark.parametrize("name", QUICK)
def test_method_teaches_a_model_that_answers_by_several_tokens(name):
    method = build(name, QUICK[name])
    task = task_of_grades()
    before = predict(task.original, task.forget, precision="fp32")
    model = method.unlearn(task)
    assert model.verbaliser == task.original.verbaliser
    after = predict(model, task.forget, precision="fp32", states=True)
    assert np.isfinite(after.log_odds).all()
    assert np.abs(after.log_odds - before.log_odds).max() > 1e-6
    batch = model.collate(task.forget, np.arange(4))
    with model.using(), torch.no_grad():
        plain = model.lm(**model._inputs(batch)).logits[torch.arange(4), batch.position]
    yes, no = model.verbaliser.all_tokens
    odds = plain[:, list(yes)].logsumexp(1) - plain[:, list(no)].logsumexp(1)
    assert np.allclose(odds, after.log_odds[:4], atol=1e-4)


def test_server_is_compared_by_the_sum_of_the_tokens_of_an_answer_among_all_tokens():
    model = task_of_grades().original
    rows = task_of_grades().forget.take(np.arange(4))
    yes, no = model.verbaliser.all_tokens
    expected, places = own_answers(model, rows)
    batch = model.collate(rows, np.arange(4))
    with model.using(), torch.no_grad():
        plain = model.lm(**model._inputs(batch)).logits[torch.arange(4), batch.position]
    of_tokens = plain.log_softmax(1)
    of_answers = [of_tokens[:, list(tokens)].logsumexp(1) for tokens in (yes, no)]
    assert np.allclose(expected, torch.stack(of_answers, 1), atol=1e-5)
    least = plain[:, [*yes, *no]].amin(1, keepdim=True)
    assert places.tolist() == (1 + (plain > least).sum(1)).tolist()
