import numpy as np
import pytest
import torch
from torch import nn

from e2urec.data.prompts import TEMPLATES
from e2urec.data.splits import SplitSettings, split
from e2urec.evaluation.answers import EvaluationSets
from e2urec.metrics.classification import auc
from e2urec.models import adapters
from e2urec.models.adapters import LoRA
from e2urec.models.devices import seed_streams
from e2urec.models.output_head import OutputHead
from e2urec.models.predictions import answer_states, predict
from e2urec.models.recommender import Recommender
from e2urec.testing import TUNING, toy_backbone, toy_interactions, toy_task
from e2urec.training.loop import Objective, Phase, Schedule, TrainingState, fit
from e2urec.training.supervised import supervised, tune
from e2urec.unlearning.alpha_search import match_auc
from e2urec.unlearning.teachers import ForgettingTeacher, FrozenTeacher


def line(target: float):
    """A model with one number w, and the objective (w − target)²."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    losses = lambda wrapped, step: {"square": (wrapped.weight - target).square().sum()}
    return model, Objective(losses)


def state_of(model: nn.Module, schedule: Schedule) -> TrainingState:
    return TrainingState.start(list(model.parameters()), schedule)


def test_rate_rises_and_then_falls_to_its_floor():
    schedule = Schedule(warmup=0.1, min_lr_ratio=0.2)
    rates = [schedule.rate(step, 100) for step in range(100)]
    assert np.argmax(rates) in (9, 10)
    assert rates[0] == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(0.2, abs=0.01)


def test_fit_finds_the_minimum_and_counts_steps_and_rows():
    model, objective = line(2.0)
    schedule = Schedule(epochs=20, learning_rate=0.2, weight_decay=0, clip=10, precision="fp32")
    plan = lambda epoch: [{"train": np.arange(4)}] * 5
    trace = fit(model, state_of(model, schedule), plan, objective, Phase("training", 0))
    assert model.weight.item() == pytest.approx(2, abs=0.05)
    assert (trace.steps, trace.rows) == (100, 400)


def test_weights_of_named_losses_decide_the_minimum():
    model = nn.Linear(1, 1, bias=False)
    both = lambda wrapped, step: {
        "a": wrapped.weight.square().sum(),
        "b": (wrapped.weight - 1).square().sum(),
    }
    schedule = Schedule(epochs=30, learning_rate=0.1, weight_decay=0, precision="fp32")
    objective = Objective(both, weights={"a": 0.25, "b": 0.75})
    plan = lambda _: [{"x": np.arange(1)}] * 10
    fit(model, state_of(model, schedule), plan, objective, Phase("training", 0))
    assert model.weight.item() == pytest.approx(0.75, abs=0.02)


def test_early_stopping_keeps_the_best_epoch():
    model, objective = line(10.0)
    seen = iter([3.0, 1.0, 2.0, 2.5, 9.0])
    weights = []

    def monitor() -> float:
        weights.append(model.weight.item())
        return next(seen)

    schedule = Schedule(epochs=5, learning_rate=0.5, patience=2, precision="fp32")
    state = state_of(model, schedule)
    plan = lambda _: [{"x": np.arange(1)}]
    trace = fit(model, state, plan, objective, Phase("training", 0), monitor)
    assert trace.best_epoch == 1
    assert state.best_value == 1.0
    assert len(trace.monitored) == 4
    assert model.weight.item() == weights[1]


@pytest.mark.parametrize("lora", [None, LoRA(rank=2)], ids=["full", "lora"])
@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_tuning_lowers_the_loss_and_leaves_the_base_alone(kind, lora):
    base = toy_backbone(kind)
    before = {name: value.clone() for name, value in base.lm.state_dict().items()}
    parts = split(toy_interactions(), SplitSettings(history=3, calibration=0), seed=1)
    probe = Recommender(base, TEMPLATES["compact"])
    tuning = TUNING.model_copy(update={"lora": lora})
    model, trace = tune(probe, tuning, probe.encode(parts.train), None, Phase("original", 1))
    assert trace.losses[-1]["train"] < trace.losses[0]["train"]
    assert adapters.names(base.lm) == []
    # What an adapter is tuned on takes no memory beside the base.
    own = {weight.data_ptr() for name, weight in model.lm.named_parameters() if "lora_" not in name}
    bases = {weight.data_ptr() for weight in base.lm.parameters()}
    assert own.isdisjoint(bases) if lora is None else own == bases
    assert all(torch.equal(value, before[name]) for name, value in base.lm.state_dict().items())
    bare = model.lm if lora is None else model.lm.get_base_model()
    assert not bare.training


def test_patience_without_a_row_to_validate_on_trains_for_all_epochs():
    task = toy_task("causal")
    recommender = Recommender(toy_backbone("causal"), TEMPLATES["compact"], window=64)
    schedule = TUNING.schedule.model_copy(update={"patience": 1, "epochs": 3})
    tuning = TUNING.model_copy(update={"schedule": schedule})
    no_rows = task.retain.take(np.array([], dtype=int))
    _, trace = tune(recommender, tuning, task.retain, no_rows, Phase("original", 0))
    assert len(trace.losses) == 3


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_frozen_embeddings_stay_where_they_were_and_the_blocks_move(kind):
    base = toy_backbone(kind)
    probe = Recommender(base, TEMPLATES["compact"])
    rows = probe.encode(
        split(toy_interactions(), SplitSettings(history=3, calibration=0), seed=1).train
    )
    tuning = TUNING.model_copy(update={"embeddings": False})
    model, _ = tune(probe, tuning, rows, None, Phase("original", 1))
    ends = {id(base.lm.get_input_embeddings().weight), id(base.lm.get_output_embeddings().weight)}
    moved = dict(model.lm.named_parameters())
    for name, value in base.lm.named_parameters():
        assert torch.equal(value, moved[name]) == (id(value) in ends), name


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_cached_states_give_the_logits_of_a_live_model(kind):
    task = toy_task(kind)
    model, rows = task.original, task.forget
    cached = model.to_logits(answer_states(model, rows, precision="fp32"))
    with torch.no_grad(), model.using():
        live = model.logits(model.collate(rows, np.arange(len(rows))))
    assert torch.allclose(cached, live, atol=1e-5)
    odds = predict(model, rows, precision="fp32").log_odds
    assert np.allclose(odds, model.verbaliser.log_odds(live).numpy(), atol=1e-5)


def test_states_are_kept_where_distances_over_the_vocabulary_are_measured_alone():
    task = toy_task("causal")
    sets = EvaluationSets(
        test=task.valid,
        forget=task.forget,
        unseen=task.unseen,
        valid=task.valid,
        retain=task.retain,
    )
    answers = sets.ask(task.original, precision="fp32", valid=True)
    with_states = [name for name, part in answers.parts().items() if part.hidden is not None]
    assert with_states == ["forget"]
    assert len(answers.parts()) == 5
    # Answers do not depend on whether their states are kept.
    alone = predict(task.original, task.forget, precision="fp32")
    assert alone.hidden is None
    assert alone.head[0].size == 0
    assert np.allclose(alone.log_odds, answers.forget.log_odds, atol=1e-6)


def test_teachers_keep_float32_under_autocast():
    states_, weight = torch.randn(6, 16), torch.randn(40, 16)
    rows = torch.arange(6)
    teacher = FrozenTeacher(states_, OutputHead(weight, None), rows)
    expected = states_ @ weight.T
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(teacher(rows), expected)


def test_matching_teacher_reaches_the_auc_it_was_asked_for():
    task = toy_task("causal")
    original = task.original
    plain = answer_states(original, task.forget, precision="fp32")
    random = torch.Generator().manual_seed(0)
    weight, bias, *_ = original.head
    direction = weight[original.verbaliser.yes] - weight[original.verbaliser.no]
    sign = torch.from_numpy(2.0 * task.forget.labels - 1)[:, None]
    gained = plain + sign * direction + 0.01 * torch.randn(plain.shape, generator=random)
    rows = torch.arange(len(task.forget))
    head = OutputHead(weight, bias)
    answers = [FrozenTeacher(hidden, head, rows) for hidden in (plain, gained.float())]
    teacher = ForgettingTeacher(*answers, 1.0, "odds", original.verbaliser)
    labels = task.forget.labels
    before = auc(labels, match_auc(teacher, labels, 1.0).teacher.odds())
    matched = match_auc(teacher, labels, 0.4)
    after = auc(labels, matched.teacher.odds())
    assert matched.reached
    assert after <= 0.4 < before
    assert after > 0.2


def test_supervised_loss_of_a_step_does_not_depend_on_padding():
    task = toy_task("causal")
    objective = supervised(task.original, task.forget)
    alone = [
        objective.losses(task.original, {"train": np.array([k])})["train"].item() for k in range(4)
    ]
    together = objective.losses(task.original, {"train": np.arange(4)})["train"].item()
    assert together == pytest.approx(np.mean(alone), abs=1e-5)


def test_stream_of_the_cpu_starts_from_its_seed_as_by_torch_itself():
    with torch.random.fork_rng([]):
        torch.manual_seed(7)
        expected = torch.rand(3)
        seed_streams(7, torch.device("cpu"))
        assert torch.equal(torch.rand(3), expected)
