"""Sharded methods: a request trains only what it touches, and the result is that from scratch."""

import copy
import functools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from e2urec.core.errors import ConfigError, ModelError
from e2urec.data.prompts import TEMPLATES
from e2urec.data.splits import SplitSettings, split
from e2urec.methods.apa import APA
from e2urec.methods.receraser import RecEraser, learned_weights, mean_embeddings
from e2urec.methods.sisa import SISA
from e2urec.models import adapters
from e2urec.models.adapters import LoRA
from e2urec.models.batches import Examples
from e2urec.models.ensemble import Blend, Ensemble, Mean, ShardAssignment
from e2urec.models.predictions import predict
from e2urec.models.recommender import Recommender
from e2urec.testing import TUNING, toy_backbone, toy_interactions
from e2urec.unlearning.sharded import Sharded, balanced_clusters
from e2urec.unlearning.task import Task, TrainingTask

SMALL = {"shards": 3, "learning_rate": 1e-2, "lora": LoRA(rank=2, alpha=4, targets="all")}
METHODS = [
    SISA(**SMALL),
    SISA(**SMALL, aggregate="probabilities"),
    RecEraser(**SMALL),
    APA(**SMALL, neighbours=5),
]
IDS = ["sisa", "sisa-probabilities", "receraser", "apa"]
each_method = pytest.mark.parametrize("method", METHODS, ids=IDS)
# Half as many steps: whatever the shards have learned, a request leaves what it ought to.
SCHEDULE = TUNING.schedule.model_copy(update={"batch_size": 16})


def training_task_of(kind: str, seed: int = 5) -> TrainingTask:
    base = toy_backbone(kind)
    parts = split(toy_interactions(), SplitSettings(history=3, unseen=0.1, calibration=0.1), seed=1)
    probe = Recommender(base, TEMPLATES["compact"])
    return TrainingTask(
        base=base,
        template=TEMPLATES["compact"],
        window=probe.window,
        tuning=TUNING.model_copy(update={"schedule": SCHEDULE}),
        train=probe.encode(parts.train),
        valid=probe.encode(parts.valid),
        seed=seed,
        precision="fp32",
    )


def prepared(kind: str, method: Sharded) -> tuple[TrainingTask, Ensemble]:
    """The original of one of `METHODS`, and the task that it was prepared for: the caller's own."""
    # In one go, so that the original goes on sharing the weights of the task's base.
    return copy.deepcopy(_prepared(kind, METHODS.index(method)))


@functools.cache
def _prepared(kind: str, number: int) -> tuple[TrainingTask, Ensemble]:
    training_task = training_task_of(kind)
    return training_task, METHODS[number].prepare(training_task)


def task_of(training_task: TrainingTask, original: Recommender, users: list[int]) -> Task:
    """Asks that `users`, by code, be forgotten."""
    inside = np.isin(training_task.train.users, users)
    forget, retain = (training_task.train.take(np.flatnonzero(rows)) for rows in (inside, ~inside))
    valid = training_task.valid.take(np.flatnonzero(~np.isin(training_task.valid.users, users)))
    return Task(
        original=original,
        base=training_task.base,
        tuning=training_task.tuning,
        forget=forget,
        retain=retain,
        valid=valid,
        calibration=valid,
        unseen=valid,
        seed=training_task.seed,
        precision="fp32",
    )


def shard_weights(model: Ensemble) -> list[dict[str, torch.Tensor]]:
    return [adapters.weights(model.lm, name) for name in model.active]


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def from_scratch(
    method, training_task: TrainingTask, task: Task, users: np.ndarray, shard: np.ndarray
) -> Ensemble:
    stay = ~np.isin(users, task.forget.users)
    return method.build(
        replace(training_task, train=task.retain, valid=task.valid), users[stay], shard[stay]
    )


def filled(kind: str, rows: Examples | None = None) -> tuple[Ensemble, Examples]:
    """An ensemble whose three adapters are random and far from zero."""
    training_task = training_task_of(kind)
    users = np.unique(training_task.train.users)
    model = Ensemble(
        training_task.base.copy(),
        training_task.template,
        SMALL["lora"],
        ShardAssignment(users, np.arange(len(users)) % 3, 3),
        seed=1,
    )
    random = torch.Generator().manual_seed(3)
    for k, weights in enumerate(shard_weights(model)):
        model.fill(
            k,
            {
                name: torch.randn(value.shape, generator=random) * 0.3
                for name, value in weights.items()
            },
        )
    return model, training_task.train.take(np.arange(12))


def ask(model: Recommender, rows: Examples, active: tuple[str, ...] | None = None) -> torch.Tensor:
    with torch.no_grad(), model.using(active):
        return model.logits(model.collate(rows, np.arange(len(rows))))


# --- what is trained again, and what it equals ---


@pytest.mark.parametrize(
    ("kind", "method"),
    [("causal", method) for method in METHODS] + [("seq2seq", METHODS[3])],
    ids=[*IDS, "apa-seq2seq"],
)
def test_unlearned_shards_equal_those_trained_from_scratch_without_the_forget_set(kind, method):
    training_task, original = prepared(kind, method)
    users, shard = original.assignment.users, original.assignment.shard
    before = shard_weights(original)
    scores = original.score(training_task.train)
    goner = int(users[0])
    task = task_of(training_task, original, [goner])
    model = method.unlearn(task)
    scratch = from_scratch(method, training_task, task, users, shard)

    assert np.array_equal(model.score(training_task.train), scratch.score(training_task.train))
    assert not np.array_equal(model.score(training_task.train), scores)
    touched = shard[0]
    unchanged = [same(*pair) for pair in zip(before, shard_weights(model), strict=True)]
    assert unchanged == [k != touched for k in range(3)]
    assert same(toy_backbone(kind).lm.state_dict(), training_task.base.lm.state_dict())
    assert goner not in model.assignment.users
    assert len(model.assignment.users) == len(model.assignment.shard) == len(users) - 1
    row_count = np.isin(task.retain.users, users[shard == touched]).sum()
    assert task.costs.rows["shards"] == SCHEDULE.epochs * row_count
    assert task.costs.trainable == sum(value.numel() for value in before[touched].values())
    assert set(task.costs.seconds) == {"shards", "aggregation"}
    assert not any(parameter.requires_grad for parameter in model.lm.parameters())


@each_method
def test_shard_whose_users_all_go_is_emptied_and_silent(method):
    training_task, original = prepared("causal", method)
    users, shard = original.assignment.users, original.assignment.shard
    task = task_of(training_task, original, users[shard == 1].tolist())
    model = method.unlearn(task)
    assert all(not value.any() for value in shard_weights(model)[1].values())
    assert "shards" not in task.costs.rows
    scratch = from_scratch(method, training_task, task, users, shard)
    assert np.array_equal(model.score(task.retain), scratch.score(task.retain))
    assert np.isfinite(model.score(task.retain)).all()


def test_single_interactions_are_forgotten_while_their_user_stays():
    method = METHODS[0]
    training_task, model = prepared("causal", method)
    user = model.assignment.users[0]
    rows = np.flatnonzero(training_task.train.users == user)[:2]
    task = task_of(training_task, model, [])
    task.forget, task.retain = (
        training_task.train.take(rows),
        training_task.train.take(np.delete(np.arange(len(training_task.train)), rows)),
    )
    method.unlearn(task)
    assert user in model.assignment.users
    row_count = np.isin(
        task.retain.users,
        model.assignment.users[model.assignment.shard == model.assignment.shard[0]],
    ).sum()
    assert task.costs.rows["shards"] == SCHEDULE.epochs * row_count


def test_aggregation_of_an_unlearned_model_holds_no_row_of_a_forgotten_user():
    method = METHODS[3]
    training_task, model = prepared("causal", method)
    goner = int(training_task.valid.users[0])
    task = task_of(training_task, model, [goner])
    assert len(model.combination.states) == len(training_task.valid) > len(task.valid)
    method.unlearn(task)
    assert len(model.combination.states) == len(model.combination.errors) == len(task.valid)


def test_interrupted_request_leaves_the_shards_as_they_were():
    method = METHODS[0]
    training_task, model = prepared("causal", method)
    before, users = model.score(training_task.valid), model.assignment.users
    task = task_of(training_task, model, users.tolist()[:4])

    def interrupt(phase: str, done: int, total: int, loss: float | None = None) -> None:
        if phase == "shard 1":
            raise KeyboardInterrupt

    task.progress = interrupt
    with pytest.raises(KeyboardInterrupt):
        method.unlearn(task)
    assert np.array_equal(model.score(training_task.valid), before)
    assert np.array_equal(model.assignment.users, users)


def test_request_to_a_model_without_shards_is_refused():
    training_task = training_task_of("causal")
    original = Recommender(training_task.base.copy(), training_task.template)
    with pytest.raises(ConfigError, match="use it in e2urec compare"):
        SISA().unlearn(task_of(training_task, original, [0]))


def test_more_shards_than_users_are_refused():
    with pytest.raises(ConfigError, match="set fewer shards"):
        SISA(shards=50).prepare(training_task_of("causal"))


@pytest.mark.parametrize("method", METHODS[2:], ids=IDS[2:])
def test_weights_without_validation_rows_to_fit_them_on_are_refused(method):
    training_task = training_task_of("causal")
    with pytest.raises(ConfigError, match="no validation rows to fit"):
        method.prepare(replace(training_task, valid=training_task.valid.take(np.arange(0))))
    assert not training_task.costs.rows, "no shard was trained for it"


@pytest.mark.parametrize("method", METHODS, ids=IDS)
def test_request_that_leaves_no_validation_rows_is_refused_by_who_fits_on_them(method):
    training_task = training_task_of("causal")
    original = method.prepare(training_task)
    task = task_of(training_task, original, [0])
    without = replace(task, valid=task.valid.take(np.arange(0)))
    if not method.fits_on_validation:
        method.unlearn(without)
        return
    before = dict(without.costs.rows)
    with pytest.raises(ConfigError, match="the request leaves none"):
        method.unlearn(without)
    assert without.costs.rows == before, "no shard was trained for it"


def test_sharded_model_is_not_saved(tmp_path):
    with pytest.raises(ModelError, match="in memory only"):
        filled("causal")[0].save(tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- how answers are combined ---


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_mean_of_logits_is_the_mean_of_what_each_shard_answers_alone(kind):
    model, rows = filled(kind)
    model.combination = Mean((1.0, 2.0, 1.0))
    alone = [ask(model, rows, (name,)) for name in model.active]
    assert not torch.allclose(alone[0], alone[1], atol=1e-2)
    whole = (alone[0] + 2 * alone[1] + alone[2]) / 4
    assert torch.allclose(ask(model, rows), whole, atol=1e-5)
    answers = predict(model, rows, precision="fp32")
    assert np.allclose(answers.log_odds, model.verbaliser.log_odds(whole), atol=1e-5)
    assert np.allclose(model.score(rows), model.verbaliser.log_odds(whole).sigmoid(), atol=1e-5)


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_mean_of_probabilities_is_that_of_each_shards_and_has_no_state(kind):
    model, rows = filled(kind)
    model.combination = Mean((1.0, 2.0, 1.0), "probabilities")
    p = [ask(model, rows, (name,)).softmax(-1) for name in model.active]
    whole = (p[0] + 2 * p[1] + p[2]) / 4
    assert torch.allclose(ask(model, rows).exp(), whole, atol=1e-6)
    answers = predict(model, rows, precision="fp32", states=True)
    assert answers.hidden is None
    odds = whole[:, model.verbaliser.yes].log() - whole[:, model.verbaliser.no].log()
    assert np.allclose(answers.log_odds, odds, atol=1e-4)
    assert set(answers.distances(answers)) == {"js_answers", "jeffreys_answers", "l2_answers"}


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_blend_with_all_weight_on_one_shard_is_that_shard_alone(kind):
    model, rows = filled(kind)
    keys = torch.nn.functional.normalize(
        torch.randn(4, 32, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    for k, name in enumerate(model.active):
        errors = torch.full((4, 3), 50.0)
        errors[:, k] = 0.0
        model.combination = Blend(keys, errors, neighbours=2, temperature=10.0)
        assert torch.allclose(ask(model, rows), ask(model, rows, (name,)), atol=1e-5)


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_blend_adds_up_the_adapters_with_weights_of_each_row(kind):
    """Each row against a model whose B matrices carry that row's weights."""
    model, rows = filled(kind)
    states = torch.from_numpy(predict(model, rows, active=(), precision="fp32", states=True).hidden)
    keys, errors = (
        torch.nn.functional.normalize(states, dim=-1),
        torch.rand((12, 3), generator=torch.Generator()),
    )
    model.combination = Blend(keys, errors, neighbours=1, temperature=3.0)
    weights = model.combination.weights(states, range(3))
    assert torch.allclose(weights, (-3.0 * errors).softmax(-1), atol=1e-5)
    whole = ask(model, rows)
    for i in (0, 7):
        summed = model.copy()
        for k, name in enumerate(model.active):
            adapters.load_weights(
                summed.lm, name, adapters.weights(model.lm, name), float(weights[i, k])
            )
        batch = summed.collate(rows, np.array([i]))
        with torch.no_grad(), summed.using():
            expected = Recommender.hidden(summed, batch)
        assert torch.allclose(summed.to_logits(expected)[0], whole[i], atol=1e-4)


def test_weights_of_a_row_come_from_its_nearest_validation_rows():
    keys = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    errors = torch.tensor([[0.0, 1.0], [0.2, 0.6], [1.0, 0.0]])
    blend = Blend(keys, errors, neighbours=2, temperature=2.0)
    expected = torch.tensor([[0.1, 0.8], [0.6, 0.3]]).mul(-2).softmax(-1)
    assert torch.allclose(blend.weights(torch.tensor([[5.0, 0.1], [0.1, 3.0]]), [0, 1]), expected)


def test_answering_leaves_scales_and_active_adapters_as_they_were():
    model, rows = filled("causal")
    model.combination = Blend(torch.eye(3, 32), torch.rand(3, 3), neighbours=1, temperature=1.0)
    with model.using(("shard_0", "shard_2")):
        model.hidden(model.collate(rows, np.arange(3)))
        assert adapters.active_names(model.lm) == ["shard_0", "shard_2"]
    scales = {
        value
        for m in model.lm.modules()
        if hasattr(m, "scaling") and hasattr(m, "lora_A")
        for value in m.scaling.values()
    }
    assert scales == {2.0}


def test_without_shards_the_base_answers():
    model, rows = filled("causal")
    base = Recommender(training_task_of("causal").base, model.template)
    assert torch.equal(ask(model, rows, ()), ask(base, rows))


@pytest.mark.parametrize("combination", [Mean((1.0,) * 3), Mean((1.0,) * 3, "probabilities"), None])
def test_adapter_on_top_of_all_shards_can_be_trained(combination):
    model, rows = filled("causal")
    model.combination = combination or Blend(
        torch.eye(3, 32), torch.rand(3, 3), neighbours=1, temperature=1.0
    )
    before = ask(model, rows)
    model.lm = adapters.attach(model.lm, "top", LoRA(rank=2), seed=1)
    with model.using((*model.active, "top"), train="top") as parameters:
        model(model.collate(rows, np.arange(4))).square().mean().backward()
        assert any(parameter.grad is not None and parameter.grad.any() for parameter in parameters)
    model.lm = adapters.remove(model.lm, "top")
    assert torch.equal(ask(model, rows), before)


def test_copy_answers_alike_and_shares_no_weight():
    model, rows = filled("causal")
    copied = model.copy()
    copied.fill(0, None)
    assert copied.parameter_count() == model.parameter_count()
    assert not torch.equal(ask(copied, rows), ask(model, rows))


# --- who goes where ---


@pytest.mark.parametrize(("n", "k"), [(23, 4), (8, 4), (4, 4), (50, 7)])
def test_no_cluster_is_above_capacity_and_every_point_is_in_one(n, k):
    points = np.random.default_rng(0).normal(size=(n, 3)) ** 3
    cluster = balanced_clusters(points, k, seed=1)
    assert cluster.min() >= 0
    assert cluster.max() < k
    assert np.bincount(cluster, minlength=k).max() <= math.ceil(1.2 * n / k)
    assert np.array_equal(cluster, balanced_clusters(points, k, seed=1))


@pytest.mark.parametrize("seed", range(5))
def test_similar_points_are_together(seed):
    random = np.random.default_rng(seed)
    group = random.permutation(np.repeat(np.arange(3), 8))
    points = 100 + np.eye(3)[group] + 0.05 * random.normal(size=(24, 3))
    cluster = balanced_clusters(points, 3, seed=seed)
    assert len(set(zip(group, cluster, strict=True))) == 3


def test_equal_points_are_spread_within_capacity():
    assert np.bincount(balanced_clusters(np.ones((10, 2)), 2, seed=0)).max() <= 6


@each_method
def test_every_user_is_in_one_shard_and_no_shard_is_above_capacity(method):
    training_task = training_task_of("causal")
    users = np.unique(training_task.train.users)
    shard = method.assign(training_task, users)
    assert shard.shape == users.shape
    assert set(shard) <= set(range(3))
    assert np.bincount(shard).max() <= math.ceil(1.2 * len(users) / 3)


def test_mean_embedding_of_a_user_is_that_of_all_tokens_of_all_prompts():
    rows = Examples(
        np.array([0, 1, 2, 2, 1]), np.array([0, 2, 3, 5]), np.zeros(3, int), np.array([7, 4, 7])
    )
    table = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
    assert np.allclose(mean_embeddings(rows, np.array([4, 7]), table), [[2, 2], [3 / 4, 1]])


def test_learned_weights_trust_the_shard_that_is_right():
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 400)
    truth = (2 * labels - 1) + random.normal(size=400)
    odds = np.stack([truth, random.normal(size=400), -truth], -1)
    weights = learned_weights(odds, labels)
    assert weights.sum() == pytest.approx(1)
    assert weights[0] > 0.9


def test_learned_weights_of_equal_shards_are_equal():
    odds = np.random.default_rng(0).normal(size=(50, 1)).repeat(3, axis=1)
    assert np.allclose(learned_weights(odds, (odds[:, 0] > 0).astype(int)), 1 / 3)
